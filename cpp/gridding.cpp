// Frames onto a grid of voxels: sums of counts, corrections and hits in whole numbers, so that neither the order of
// frames nor the number of threads and ranks matters. A block of frames is decoded, a frame a thread; then threads take
// rows of pixels through all frames of the block, since a row's places in the lab are the same in all of them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "frame_source.h"
#include "region.h"
#include "team.h"
#include "wide.h"

namespace py = pybind11;

namespace {

template <class T> using dense = py::array_t<T, py::array::c_style>;

// Sums of a voxel, in this order.
enum Column { counts, correction, hits, background, background_variance };

Vector vector_of(const double *p) { return {p[0], p[1], p[2]}; }
Matrix matrix_of(const double *p) { return {vector_of(p), vector_of(p + 3), vector_of(p + 6)}; }

struct Scan {
    Matrix pixel_to_lab;
    Sensor sensor;
    Vector beam;
    double wave_number;
    Vector in_plane, normal;
    double pol_degree;
};

// Q in the lab of n pixels, and their polarisation times solid angle.
TDS2EL_WIDE void to_lab(const Scan &scan, const double *__restrict row, const double *__restrict column, std::int64_t n,
                        double *__restrict x, double *__restrict y, double *__restrict z, double *__restrict kappa) {
    const Matrix m = scan.pixel_to_lab;
    const Vector b = scan.beam, in = scan.in_plane, no = scan.normal;
    const double k = scan.wave_number, pol = scan.pol_degree, dist = scan.sensor.dist;
    for (std::int64_t i = 0; i < n; ++i) {
        const double px = m[0][0] * row[i] + m[0][1] * column[i] + m[0][2];
        const double py = m[1][0] * row[i] + m[1][1] * column[i] + m[1][2];
        const double pz = m[2][0] * row[i] + m[2][1] * column[i] + m[2][2];
        const double inverse = 1 / std::sqrt(px * px + py * py + pz * pz);
        const double ux = px * inverse, uy = py * inverse, uz = pz * inverse, c = dist * inverse;
        const double s = ux * in[0] + uy * in[1] + uz * in[2], t = ux * no[0] + uy * no[1] + uz * no[2];
        x[i] = (ux + b[0]) * k;
        y[i] = (uy + b[1]) * k;
        z[i] = (uz + b[2]) * k;
        kappa[i] = (pol * (1 - s * s) + (1 - pol) * (1 - t * t)) * c * c * c;
    }
}

// From Q in the lab to the voxel of the nearest node: a whole number, or −1 beyond the grid.
TDS2EL_WIDE void to_voxels(const Matrix &turn, const Vector &shift, const Vector &shape, const double *__restrict x,
                           const double *__restrict y, const double *__restrict z, std::int64_t n,
                           double *__restrict voxel) {
    const Matrix w = turn;
    const double s0 = shift[0] + 0.5, s1 = shift[1] + 0.5, s2 = shift[2] + 0.5;
    const double n1 = shape[1], n2 = shape[2], l0 = shape[0] - 1, l1 = n1 - 1, l2 = n2 - 1;
    for (std::int64_t i = 0; i < n; ++i) {
        const double a = std::floor(w[0][0] * x[i] + w[0][1] * y[i] + w[0][2] * z[i] + s0);
        const double b = std::floor(w[1][0] * x[i] + w[1][1] * y[i] + w[1][2] * z[i] + s1);
        const double c = std::floor(w[2][0] * x[i] + w[2][1] * y[i] + w[2][2] * z[i] + s2);
        // Off the grid, in a form that compilers make vector instructions of.
        const double a0 = a < 0 ? 0.0 : a, b0 = b < 0 ? 0.0 : b, c0 = c < 0 ? 0.0 : c;
        const double da = a - (a0 > l0 ? l0 : a0), db = b - (b0 > l1 ? l1 : b0), dc = c - (c0 > l2 ? l2 : c0);
        const double off = da * da + db * db + dc * dc, inside = (a * n1 + b) * n2 + c;
        voxel[i] = off > 0 ? -1.0 : inside;
    }
}

// Where the sums are; shared with other threads or processes, or this thread's alone.
struct Target {
    std::int64_t *sums;
    std::int64_t columns;
    bool shared;

    void add(std::int64_t *where, std::int64_t value) const {
        if (shared)
            __atomic_fetch_add(where, value, __ATOMIC_RELAXED);
        else
            *where += value;
    }
};

struct Scales {
    double counts, correction, background;
};

struct Tally {
    std::int64_t hits = 0, saturated = 0;
};

// What one thread keeps.
struct Row {
    std::vector<double> row, column, x, y, z, kappa, voxel, held, weight;
    Tally tally;

    explicit Row(std::int64_t columns) {
        for (auto *v : {&row, &column, &x, &y, &z, &kappa, &voxel, &held, &weight}) v->resize(static_cast<std::size_t>(columns));
    }

    void begin(const Scan &scan, std::int64_t r) {
        std::fill(row.begin(), row.end(), static_cast<double>(r));
        std::iota(column.begin(), column.end(), 0.0);
        if (scan.sensor.thick()) scan.sensor.enter(row.data(), column.data(), static_cast<std::int64_t>(row.size()));
        to_lab(scan, row.data(), column.data(), static_cast<std::int64_t>(row.size()), x.data(), y.data(), z.data(), kappa.data());
    }
};

struct Decoded {
    FrameReader reader;
    const void *pixels = nullptr;
    PixelType type{};
};

template <class T> constexpr PixelType type_of() {
    return {std::is_floating_point_v<T> ? 'f' : std::is_unsigned_v<T> ? 'u' : 'i', sizeof(T)};
}

class VolumeGridder {
  public:
    VolumeGridder(const dense<bool> &masks, const dense<double> &pixel_to_lab, const dense<double> &origin, double pixel_size,
                  double sensor_thickness, double sensor_mu, const dense<double> &beam, double lmbda,
                  const dense<double> &in_plane, const dense<double> &normal, double pol_degree, double dist,
                  double saturation, double threshold, const std::optional<dense<double>> &rate, double count_scale,
                  double correction_scale, double background_scale, int threads)
        : masks_(masks), rate_(rate), saturation_(saturation), threshold_(threshold),
          scales_{count_scale, correction_scale, background_scale}, team_(threads) {
        if (masks.ndim() != 3) throw std::invalid_argument("masks (n, rows, columns) are needed");
        if (pixel_to_lab.size() != 9 || origin.size() != 2 || beam.size() != 3 || in_plane.size() != 3 || normal.size() != 3)
            throw std::invalid_argument("a 3x3 matrix, an origin of 2 and vectors of 3 are needed");
        shape_ = {masks.shape(1), masks.shape(2)};
        if (rate && (rate->ndim() != 2 || rate->shape(0) != shape_.rows || rate->shape(1) != shape_.columns))
            throw std::invalid_argument("the background and the masks differ in shape");
        const Sensor sensor{origin.data()[0], origin.data()[1], pixel_size, dist, sensor_thickness, sensor_mu};
        scan_ = {matrix_of(pixel_to_lab.data()), sensor, vector_of(beam.data()), 1 / lmbda, vector_of(in_plane.data()),
                 vector_of(normal.data()), pol_degree};
        rows_.assign(static_cast<std::size_t>(std::max(threads, 1)), Row(shape_.columns));
    }

    // Adds a block of frames, or none of them if any cannot be read: what is wrong, hits, and saturated pixels.
    py::tuple frames(const py::list &sources, const dense<double> &turns, const dense<double> &shift,
                     const dense<double> &denominators, const dense<std::int64_t> &which, py::array_t<std::int64_t> sums,
                     bool shared) {
        const auto n = static_cast<std::int64_t>(sources.size());
        check(turns, shift, denominators, which, sums, n);
        std::vector<Source> where;
        for (const py::handle &source : sources) where.push_back(to_source(source, shape_));
        while (decoded_.size() < where.size()) decoded_.push_back(std::make_unique<Decoded>());
        std::vector<std::optional<std::string>> faults(where.size());
        const std::int64_t steps = turns.shape(1);
        const Target target{sums.mutable_data(), sums.shape(3), shared || rows_.size() > 1};
        const Vector grid = extent(sums), start = vector_of(shift.data());
        {
            py::gil_scoped_release release;
            const Runs all{{0, shape_.rows * shape_.columns}};
            team_.loop(0, 1, n, [&](std::int64_t i, int) {
                const auto k = static_cast<std::size_t>(i);
                Decoded &frame = *decoded_[k];
                try {
                    frame.reader.read(where[k], shape_, all, [&](const auto *pixels) {
                        frame.pixels = pixels;
                        frame.type = type_of<std::remove_cv_t<std::remove_pointer_t<decltype(pixels)>>>();
                    });
                } catch (const Foreign &) {
                    faults[k] = "";
                } catch (const std::exception &error) {  // damaged, or no memory
                    faults[k] = error.what();
                }
            });
            const bool whole = std::none_of(faults.begin(), faults.end(), [](const auto &fault) { return fault.has_value(); });
            team_.loop(0, 1, whole ? shape_.rows : 0, [&](std::int64_t r, int thread) {
                Row &row = rows_[static_cast<std::size_t>(thread)];
                row.begin(scan_, r);
                for (std::int64_t i = 0; i < n; ++i)
                    for (std::int64_t s = 0; s < steps; ++s) {
                        to_voxels(matrix_of(turns.data() + 9 * (i * steps + s)), start, grid, row.x.data(), row.y.data(),
                                  row.z.data(), shape_.columns, row.voxel.data());
                        const Decoded &frame = *decoded_[static_cast<std::size_t>(i)];
                        with_type(frame.type, [&](auto pixel) {
                            using T = decltype(pixel);
                            const T *values = static_cast<const T *>(frame.pixels) + r * shape_.columns;
                            const bool *good = mask_row(which.data()[i], r);
                            if (rate_)
                                add_row<true>(values, good, r, denominators.data()[i], row, target);
                            else
                                add_row<false>(values, good, r, denominators.data()[i], row, target);
                        });
                    }
            });
        }
        py::list told;
        for (std::size_t i = 0; i < faults.size(); ++i)
            if (faults[i]) told.append(py::make_tuple(i, *faults[i]));
        Tally total;
        for (Row &row : rows_) {
            total.hits += row.tally.hits;
            total.saturated += row.tally.saturated;
            row.tally = {};
        }
        return py::make_tuple(told, total.hits, total.saturated);
    }

    // Adds the variance of the background's estimate, of some rows of pixels in all frames, which come in order. The
    // estimate of a pixel is the same in all frames, so what it adds to one voxel in successive frames adds up before it is
    // squared.
    void background_variances(std::int64_t first_row, std::int64_t end_row, const dense<double> &variance,
                              const dense<double> &turns, const dense<double> &shift, const dense<double> &denominators,
                              const dense<std::int64_t> &which, py::array_t<std::int64_t> sums, double scale, bool shared) {
        const std::int64_t n = denominators.size();
        check(turns, shift, denominators, which, sums, n);
        if (variance.ndim() != 2 || variance.shape(0) != shape_.rows || variance.shape(1) != shape_.columns)
            throw std::invalid_argument("the variances and the masks differ in shape");
        if (first_row < 0 || end_row > shape_.rows || sums.shape(3) <= background_variance)
            throw std::invalid_argument("rows or sums are out of range");
        const std::int64_t steps = turns.shape(1);
        const Target target{sums.mutable_data(), sums.shape(3), shared || rows_.size() > 1};
        const Vector grid = extent(sums), start = vector_of(shift.data());
        py::gil_scoped_release release;
        team_.loop(first_row, 1, end_row, [&](std::int64_t r, int thread) {
            Row &row = rows_[static_cast<std::size_t>(thread)];
            row.begin(scan_, r);
            std::fill(row.held.begin(), row.held.end(), -1.0);
            const double *variances = variance.data() + r * shape_.columns;
            const auto flush = [&](std::size_t c) {
                if (row.held[c] < 0) return;
                target.add(target.sums + static_cast<std::int64_t>(row.held[c]) * target.columns + background_variance,
                           rounded(row.weight[c] * row.weight[c] * variances[c] * scale));
            };
            const auto columns = static_cast<std::size_t>(shape_.columns);
            for (std::int64_t i = 0; i < n; ++i) {
                const bool *good = mask_row(which.data()[i], r);
                const double weight = denominators.data()[i] / static_cast<double>(steps);
                for (std::int64_t s = 0; s < steps; ++s) {
                    to_voxels(matrix_of(turns.data() + 9 * (i * steps + s)), start, grid, row.x.data(), row.y.data(),
                              row.z.data(), shape_.columns, row.voxel.data());
                    for (std::size_t c = 0; c < columns; ++c) {
                        if (!good[c]) continue;
                        if (row.voxel[c] != row.held[c]) {
                            flush(c);
                            row.held[c] = row.voxel[c];
                            row.weight[c] = 0;
                        }
                        row.weight[c] += weight;
                    }
                }
            }
            for (std::size_t c = 0; c < columns; ++c) flush(c);
        });
    }

  private:
    void check(const dense<double> &turns, const dense<double> &shift, const dense<double> &denominators,
               const dense<std::int64_t> &which, const py::array_t<std::int64_t> &sums, std::int64_t n) const {
        if (turns.ndim() != 4 || turns.shape(0) != n || turns.shape(2) != 3 || turns.shape(3) != 3 || shift.size() != 3 ||
            denominators.size() != n || which.size() != n)
            throw std::invalid_argument("one turn per frame and microstep, one denominator and mask per frame");
        if (sums.ndim() != 4 || sums.shape(3) < (rate_ ? 5 : 3) || !(sums.flags() & py::array::c_style))
            throw std::invalid_argument("sums (n0, n1, n2, columns) are needed, in the order of C");
        for (std::int64_t i = 0; i < n; ++i)
            if (which.data()[i] < 0 || which.data()[i] >= masks_.shape(0)) throw std::invalid_argument("a mask is out of range");
    }

    static Vector extent(const py::array_t<std::int64_t> &sums) {
        return {static_cast<double>(sums.shape(0)), static_cast<double>(sums.shape(1)), static_cast<double>(sums.shape(2))};
    }

    const bool *mask_row(std::int64_t which, std::int64_t row) const {
        return masks_.data() + (which * shape_.rows + row) * shape_.columns;
    }

    // Neighbouring pixels mostly have the same voxel: what they have goes there at once. A pixel of another voxel ends that,
    // be it beyond the grid, so that sums are rounded alike however the grid is cut.
    template <bool with_background, class T>
    void add_row(const T *values, const bool *good, std::int64_t r, double denominator, Row &row, const Target &target) const {
        using Counts = std::conditional_t<std::is_floating_point_v<T>, double, std::int64_t>;
        const std::int64_t n = shape_.columns;
        const double *rate = with_background ? rate_->data() + r * n : nullptr;
        const double *voxel = row.voxel.data(), *kappa = row.kappa.data();
        const Counts limit = saturated_from<Counts>();
        const double to_correction = denominator * scales_.correction, to_background = denominator * scales_.background;
        std::int64_t all_hits = 0, saturated = 0;
        for (std::int64_t c = 0; c < n;) {
            const double current = voxel[c];
            if (current < 0) {
                ++c;
                continue;
            }
            Counts sum{};
            double sum_kappa = 0, sum_rate = 0;
            std::int64_t number = 0;
            for (; c < n; ++c) {
                const T value = values[c];
                if (!good[c] || !(value >= 0)) continue;
                if constexpr (std::is_unsigned_v<T>)  // the mark of pixels without data
                    if (value == std::numeric_limits<T>::max()) continue;
                if (voxel[c] != current) break;
                sum += static_cast<Counts>(value);
                sum_kappa += kappa[c];
                if constexpr (with_background) sum_rate += rate[c];
                ++number;
                saturated += static_cast<Counts>(value) >= limit;
            }
            if (!number) continue;
            std::int64_t *sums = target.sums + static_cast<std::int64_t>(current) * target.columns;
            target.add(sums + counts, to_sum(sum));
            target.add(sums + correction, rounded(sum_kappa * to_correction));
            target.add(sums + hits, number);
            if constexpr (with_background) target.add(sums + background, rounded(sum_rate * to_background));
            all_hits += number;
        }
        row.tally.hits += all_hits;
        row.tally.saturated += saturated;
    }

    // Of what is not negative.
    static std::int64_t rounded(double x) { return static_cast<std::int64_t>(x + 0.5); }

    std::int64_t to_sum(double n) const { return rounded(n * scales_.counts); }
    std::int64_t to_sum(std::int64_t n) const { return n * static_cast<std::int64_t>(scales_.counts); }

    template <class Counts> Counts saturated_from() const {
        const double from = std::min(saturation_, std::nextafter(threshold_, std::numeric_limits<double>::infinity()));
        if constexpr (std::is_same_v<Counts, double>)
            return from;
        else
            return from < 9e18 ? static_cast<Counts>(std::ceil(from)) : std::numeric_limits<Counts>::max();
    }

    dense<bool> masks_;
    std::optional<dense<double>> rate_;
    double saturation_, threshold_;
    Scales scales_;
    Shape shape_{};
    Scan scan_{};
    std::vector<Row> rows_;
    std::vector<std::unique_ptr<Decoded>> decoded_;  // of a block; kept, so that memory is asked for once
    Team team_;
};

// Sums over all nodes that are equivalent to each of a slab's, each node once. `first` is the number, in the larger grid
// of `sums`, of the node from which the operations count.
py::array_t<std::int64_t> symmetrise(const dense<std::int64_t> &sums, const dense<std::int64_t> &first,
                                     const dense<std::int64_t> &slab, const dense<std::int64_t> &turns,
                                     const dense<std::int64_t> &shifts, int threads) {
    if (sums.ndim() != 4 || first.size() != 3 || slab.size() != 4 || turns.ndim() != 3 || turns.shape(1) != 3 ||
        turns.shape(2) != 3 || shifts.size() != 3 * turns.shape(0))
        throw std::invalid_argument("sums (n0, n1, n2, columns), a slab and operations are needed");
    const std::int64_t begin = slab.data()[0], end = slab.data()[1], n1 = slab.data()[2], n2 = slab.data()[3];
    const std::int64_t k = sums.shape(3), operations = turns.shape(0);
    const std::int64_t from[3] = {first.data()[0], first.data()[1], first.data()[2]};
    const std::int64_t shape[3] = {sums.shape(0), sums.shape(1), sums.shape(2)};
    py::array_t<std::int64_t> out({end - begin, n1, n2, k});
    std::int64_t *to = out.mutable_data();
    const std::int64_t *in = sums.data(), *w = turns.data(), *t = shifts.data();
    py::gil_scoped_release release;
    std::fill_n(to, (end - begin) * n1 * n2 * k, 0);
    Team(threads).loop(0, 1, (end - begin) * n1, [&](std::int64_t line, int) {
        for (std::int64_t c = 0; c < n2; ++c) {
            const std::int64_t node[3] = {begin + line / n1, line % n1, c};
            std::int64_t *own = to + (line * n2 + c) * k;
            std::int64_t fixed = 0;  // operations that leave the node where it is: every image comes so many times
            for (std::int64_t o = 0; o < operations; ++o) {
                std::int64_t image[3];
                bool inside = true, same = true;
                for (int a = 0; a < 3; ++a) {
                    const std::int64_t *row = w + 9 * o + 3 * a;
                    image[a] = row[0] * node[0] + row[1] * node[1] + row[2] * node[2] + t[3 * o + a];
                    same &= image[a] == node[a];
                    image[a] += from[a];
                    inside &= image[a] >= 0 && image[a] < shape[a];
                }
                fixed += same;
                if (!inside) continue;
                const std::int64_t *other = in + ((image[0] * shape[1] + image[1]) * shape[2] + image[2]) * k;
                for (std::int64_t i = 0; i < k; ++i) own[i] += other[i];
            }
            for (std::int64_t i = 0; i < k && fixed > 1; ++i) own[i] /= fixed;
        }
    });
    return out;
}

}  // namespace

void register_gridding(py::module_ &m) {
    py::class_<VolumeGridder> c(m, "VolumeGridder");
    c.def(py::init<const dense<bool> &, const dense<double> &, const dense<double> &, double, double, double,
                   const dense<double> &, double, const dense<double> &, const dense<double> &, double, double, double, double,
                   const std::optional<dense<double>> &, double, double, double, int>(),
          py::kw_only(), py::arg("masks"), py::arg("pixel_to_lab"), py::arg("origin"), py::arg("pixel_size"),
          py::arg("sensor_thickness"), py::arg("sensor_mu"), py::arg("beam"), py::arg("lmbda"),
          py::arg("in_plane"), py::arg("normal"), py::arg("pol_degree"), py::arg("dist"), py::arg("saturation"),
          py::arg("threshold"), py::arg("rate"), py::arg("count_scale"), py::arg("correction_scale"),
          py::arg("background_scale"), py::arg("threads"));
    c.def("frames", &VolumeGridder::frames, py::kw_only(), py::arg("sources"), py::arg("turns"), py::arg("shift"),
          py::arg("denominators"), py::arg("which"), py::arg("sums").noconvert(), py::arg("shared"));
    c.def("background_variances", &VolumeGridder::background_variances, py::kw_only(), py::arg("first_row"),
          py::arg("end_row"), py::arg("variance"), py::arg("turns"), py::arg("shift"), py::arg("denominators"),
          py::arg("which"), py::arg("sums").noconvert(), py::arg("scale"), py::arg("shared"));
    m.def("symmetrise", &symmetrise, py::kw_only(), py::arg("sums").noconvert(), py::arg("first"), py::arg("slab"),
          py::arg("turns"), py::arg("shifts"), py::arg("threads"));
}
