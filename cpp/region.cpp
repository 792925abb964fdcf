// Gathers, from one frame, the pixels inside the balls |Q - G - d| <= delta_max round the nodes it sees, where d is the
// measured shift of a Bragg peak from its node G; the Q that it gives is Q - d.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace py = pybind11;

namespace {

template <class T> using dense = py::array_t<T, py::array::c_style>;
using Vector = std::array<double, 3>;
using Matrix = std::array<Vector, 3>;

// What becomes of a pixel of the shell; the lost ones are tallied in this order.
enum Fate : std::uint8_t { nearer, masked, negative, over_threshold, kept };
constexpr int n_causes = kept;

struct Points {
    std::vector<std::int64_t> number;  // of points, per region
    std::vector<std::int32_t> row, column;
    std::vector<double> counts, q;
    std::vector<float> correction;

    void add(std::int32_t r, std::int32_t c, double n, const Vector &v, double k) {
        row.push_back(r);
        column.push_back(c);
        counts.push_back(n);
        q.insert(q.end(), v.begin(), v.end());
        correction.push_back(static_cast<float>(k));
    }

    void clear() {
        number.clear();
        row.clear();
        column.clear();
        counts.clear();
        q.clear();
        correction.clear();
    }
};

struct ShellPixel {
    std::int32_t row, column;
    double counts, correction;
    Vector q;
    Fate fate;
};

double dot(const Vector &a, const Vector &b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

Vector operator*(const Matrix &m, const Vector &v) { return {dot(m[0], v), dot(m[1], v), dot(m[2], v)}; }

Vector to_vector(const dense<double> &a) {
    if (a.size() != 3) throw std::invalid_argument("a vector of 3 is needed");
    return {a.data()[0], a.data()[1], a.data()[2]};
}

Matrix to_matrix(const dense<double> &a) {
    if (a.size() != 9) throw std::invalid_argument("a 3x3 matrix is needed");
    const double *p = a.data();
    return {Vector{p[0], p[1], p[2]}, Vector{p[3], p[4], p[5]}, Vector{p[6], p[7], p[8]}};
}

template <class T> dense<T> to_array(const std::vector<T> &v) {
    return dense<T>(static_cast<py::ssize_t>(v.size()), v.data());
}

py::tuple to_tuple(const Points &p) {
    const auto n = static_cast<py::ssize_t>(p.row.size());
    return py::make_tuple(to_array(p.number), to_array(p.row), to_array(p.column), to_array(p.counts),
                          to_array(p.correction), to_array(p.q).reshape({n, py::ssize_t{3}}));
}

class RegionGatherer {
  public:
    RegionGatherer(dense<bool> mask, const dense<double> &pixel_to_lab, const dense<double> &beam, double lmbda,
                   const dense<double> &in_plane, const dense<double> &normal, double pol_degree, double dist,
                   dense<double> centres, dense<double> shifts, dense<double> neighbours,
                   dense<std::int64_t> neighbour_offsets, double delta_min, double delta_max, double threshold,
                   double saturation, int border)
        : mask_(std::move(mask)), pixel_to_lab_(to_matrix(pixel_to_lab)), beam_(to_vector(beam)), wave_number_(1 / lmbda),
          in_plane_(to_vector(in_plane)), normal_(to_vector(normal)), pol_degree_(pol_degree), dist_(dist),
          centres_(std::move(centres)), shifts_(std::move(shifts)), neighbours_(std::move(neighbours)), offsets_(std::move(neighbour_offsets)),
          min2_(delta_min * delta_min), max2_(delta_max * delta_max), threshold_(threshold), saturation_(saturation),
          border_(border) {
        // q belongs to the other node beyond the plane half way: q·v > v²/2.
        for (py::ssize_t k = 0; k < neighbours_.size() / 3; ++k) {
            const double *v = neighbours_.data() + 3 * k;
            bisectors_.push_back(0.5 * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]));
        }
        if (mask_.ndim() != 2) throw std::invalid_argument("the mask must be 2-D");
        if (offsets_.size() != centres_.size() / 3 + 1) throw std::invalid_argument("one offset per centre, plus one");
        if (shifts_.size() != centres_.size()) throw std::invalid_argument("one shift per centre");
    }

    // Frames from now on have another mask.
    void set_mask(dense<bool> mask) {
        if (mask.ndim() != 2 || mask.shape(0) != mask_.shape(0) || mask.shape(1) != mask_.shape(1))
            throw std::invalid_argument("the masks differ in shape");
        mask_ = std::move(mask);
    }

    template <class T>
    py::tuple frame(const dense<T> &image, const dense<double> &lab_to_crystal, const dense<std::int64_t> &blobs,
                    const dense<std::int64_t> &regions, double denominator) {
        if (image.ndim() != 2 || image.shape(0) != mask_.shape(0) || image.shape(1) != mask_.shape(1))
            throw std::invalid_argument("the frame and the mask differ in shape");
        const Matrix turn = to_matrix(lab_to_crystal);
        const auto n = static_cast<std::size_t>(blobs.size());
        const std::int64_t n_blobs = offsets_.size() - 1;
        for (std::size_t i = 0; i < n; ++i) {
            const std::int64_t *r = regions.data() + 4 * i;
            if (blobs.data()[i] < 0 || blobs.data()[i] >= n_blobs || r[0] < 0 || r[1] > image.shape(0) || r[2] < 0 ||
                r[3] > image.shape(1))
                throw std::invalid_argument("a region or blob is out of range");
        }
        points_.clear();
        peaks_.clear();
        std::vector<std::int64_t> lost(n * n_causes, 0);
        std::vector<std::uint8_t> hot_frame(n, 0);
        {
            py::gil_scoped_release release;
            for (std::size_t i = 0; i < n; ++i)
                hot_frame[i] = region(image.data(), turn, blobs.data()[i], regions.data() + 4 * i, denominator,
                                      lost.data() + i * n_causes);
        }
        return py::make_tuple(to_tuple(points_), to_tuple(peaks_),
                              to_array(lost).reshape({static_cast<py::ssize_t>(n), py::ssize_t{n_causes}}),
                              to_array(hot_frame));
    }

  private:
    template <class T> bool above(T counts) const {
        // Unsigned detectors mark saturation by the largest value of the type.
        if constexpr (std::is_unsigned_v<T>)
            if (counts == std::numeric_limits<T>::max()) return true;
        const double n = static_cast<double>(counts);
        return n > threshold_ || n >= saturation_;
    }

    // The neighbours come nearest first, and one farther than 2|q| cannot be nearer to q than the node itself.
    bool is_nearer_to_another(const Vector &q, double q2, std::int64_t blob) const {
        for (std::int64_t k = offsets_.data()[blob]; k < offsets_.data()[blob + 1]; ++k) {
            if (bisectors_[static_cast<std::size_t>(k)] > 2 * q2) return false;
            const double *v = neighbours_.data() + 3 * k;
            if (q[0] * v[0] + q[1] * v[1] + q[2] * v[2] > bisectors_[static_cast<std::size_t>(k)]) return true;
        }
        return false;
    }

    // POL * C3 of the pixel at p (mm, lab), whose length is given.
    double pixel_correction(const Vector &direction, double length) const {
        const double u = dot(direction, in_plane_), w = dot(direction, normal_), c = dist_ / length;
        return (pol_degree_ * (1 - u * u) + (1 - pol_degree_) * (1 - w * w)) * c * c * c;
    }

    // Returns whether a good pixel of the ball exceeds the threshold.
    template <class T>
    bool region(const T *image, const Matrix &turn, std::int64_t blob, const std::int64_t *box, double denominator,
                std::int64_t *lost) {
        const std::int64_t width = mask_.shape(1);
        const double *g = centres_.data() + 3 * blob, *d = shifts_.data() + 3 * blob;
        const std::size_t peaks_before = peaks_.row.size(), points_before = points_.row.size();
        shell_.clear();
        std::vector<std::array<std::int64_t, 2>> hot;

        for (std::int64_t r = box[0]; r < box[1]; ++r) {
            for (std::int64_t c = box[2]; c < box[3]; ++c) {
                const Vector p = pixel_to_lab_ * Vector{static_cast<double>(r), static_cast<double>(c), 1.0};
                const double length = std::sqrt(dot(p, p)), inverse = 1 / length;
                const Vector direction{p[0] * inverse, p[1] * inverse, p[2] * inverse};
                const Vector lab{(direction[0] + beam_[0]) * wave_number_, (direction[1] + beam_[1]) * wave_number_,
                                 (direction[2] + beam_[2]) * wave_number_};
                // Re-centred: what was measured at G + d counts as G everywhere.
                const Vector q_true = turn * lab;
                const Vector q_full{q_true[0] - d[0], q_true[1] - d[1], q_true[2] - d[2]};
                const Vector q{q_full[0] - g[0], q_full[1] - g[1], q_full[2] - g[2]};
                const double q2 = dot(q, q);
                if (q2 > max2_) continue;

                const T value = image[r * width + c];
                const bool good = mask_.data()[r * width + c];
                const bool foreign = is_nearer_to_another(q, q2, blob);
                const auto row = static_cast<std::int32_t>(r), column = static_cast<std::int32_t>(c);
                const double counts = static_cast<double>(value);
                const double correction = pixel_correction(direction, length) * denominator;
                if (good && above(value)) {
                    hot.push_back({r, c});
                    if (!foreign) peaks_.add(row, column, counts, q_full, correction);
                }
                if (q2 < min2_) continue;
                const Fate fate = foreign ? nearer : !good ? masked : !(counts >= 0) ? negative : kept;
                shell_.push_back({row, column, counts, correction, q_full, fate});
            }
        }
        if (!hot.empty()) reject_hot(hot, box);
        for (const ShellPixel &s : shell_) {
            if (s.fate == kept)
                points_.add(s.row, s.column, s.counts, s.q, s.correction);
            else
                ++lost[s.fate];
        }
        points_.number.push_back(static_cast<std::int64_t>(points_.row.size() - points_before));
        peaks_.number.push_back(static_cast<std::int64_t>(peaks_.row.size() - peaks_before));
        return !hot.empty();
    }

    // border < 0: the whole region is lost; otherwise the hot pixels with a border of so many pixels.
    void reject_hot(const std::vector<std::array<std::int64_t, 2>> &hot, const std::int64_t *box) {
        if (border_ < 0) {
            for (ShellPixel &s : shell_)
                if (s.fate == kept) s.fate = over_threshold;
            return;
        }
        const std::int64_t height = box[1] - box[0], width = box[3] - box[2];
        std::vector<std::uint8_t> near(static_cast<std::size_t>(height * width), 0);
        for (const auto &pixel : hot) {
            const std::int64_t r = pixel[0] - box[0], c = pixel[1] - box[2];
            for (std::int64_t i = std::max<std::int64_t>(0, r - border_); i <= std::min(height - 1, r + border_); ++i)
                for (std::int64_t j = std::max<std::int64_t>(0, c - border_); j <= std::min(width - 1, c + border_); ++j)
                    near[static_cast<std::size_t>(i * width + j)] = 1;
        }
        for (ShellPixel &s : shell_)
            if (s.fate == kept && near[static_cast<std::size_t>((s.row - box[0]) * width + s.column - box[2])])
                s.fate = over_threshold;
    }

    dense<bool> mask_;
    Matrix pixel_to_lab_;
    Vector beam_;
    double wave_number_;
    Vector in_plane_, normal_;
    double pol_degree_, dist_;
    dense<double> centres_, shifts_, neighbours_;
    dense<std::int64_t> offsets_;
    std::vector<double> bisectors_;
    double min2_, max2_, threshold_, saturation_;
    std::int64_t border_;
    // Kept from frame to frame, so that their memory is asked for once.
    std::vector<ShellPixel> shell_;
    Points points_, peaks_;
};

template <class... T> void define_frame(py::class_<RegionGatherer> &c) {
    (c.def("frame", &RegionGatherer::frame<T>, py::arg("image").noconvert(), py::arg("lab_to_crystal"),
           py::arg("blobs"), py::arg("regions"), py::arg("denominator")),
     ...);
}

}  // namespace

void register_region(py::module_ &m) {
    py::class_<RegionGatherer> c(m, "RegionGatherer");
    c.def(py::init<dense<bool>, const dense<double> &, const dense<double> &, double, const dense<double> &,
                   const dense<double> &, double, double, dense<double>, dense<double>, dense<double>,
                   dense<std::int64_t>, double, double, double, double, int>(),
          py::kw_only(), py::arg("mask"), py::arg("pixel_to_lab"), py::arg("beam"), py::arg("lmbda"),
          py::arg("in_plane"), py::arg("normal"), py::arg("pol_degree"), py::arg("dist"), py::arg("centres"),
          py::arg("shifts"), py::arg("neighbours"), py::arg("neighbour_offsets"), py::arg("delta_min"),
          py::arg("delta_max"), py::arg("threshold"), py::arg("saturation"), py::arg("border"));
    c.def("set_mask", &RegionGatherer::set_mask, py::arg("mask"));
    define_frame<std::int32_t, std::uint32_t, std::uint16_t, std::int16_t, std::uint8_t, std::int8_t, std::int64_t,
                 std::uint64_t, float, double>(c);
}
