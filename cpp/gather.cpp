// A block of frames at a time, each by whichever thread is free: read, decode what the regions want, gather. Results come
// in the order of frames, whatever the number of threads.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <string>
#include <variant>

#include "frame_source.h"
#include "region.h"
#include "team.h"

namespace py = pybind11;

namespace {

template <class T> using dense = py::array_t<T, py::array::c_style>;

Vector to_vector(const dense<double> &a) {
    if (a.size() != 3) throw std::invalid_argument("a vector of 3 is needed");
    return {a.data()[0], a.data()[1], a.data()[2]};
}

Matrix to_matrix(const double *p) {
    return {Vector{p[0], p[1], p[2]}, Vector{p[3], p[4], p[5]}, Vector{p[6], p[7], p[8]}};
}

std::vector<Vector> to_vectors(const dense<double> &a) {
    if (a.ndim() != 2 || a.shape(1) != 3) throw std::invalid_argument("vectors of 3 are needed");
    std::vector<Vector> vectors(static_cast<std::size_t>(a.shape(0)));
    if (!vectors.empty()) std::memcpy(vectors.data(), a.data(), vectors.size() * sizeof(Vector));
    return vectors;
}

// What one thread keeps from frame to frame.
struct Reader {
    Gatherer gatherer;
    FrameReader frame;
    Runs runs, spans;
};

struct Fault {
    std::int64_t frame;
    std::string text;  // empty: of a format for others
};

class RegionGatherer {
  public:
    RegionGatherer(const dense<bool> &mask, const dense<double> &pixel_to_lab, const dense<double> &origin,
                   double pixel_size, double sensor_thickness, double sensor_mu, const dense<double> &beam, double lmbda,
                   const dense<double> &in_plane, const dense<double> &normal, double pol_degree, double dist,
                   const dense<double> &centres, const dense<double> &shifts, const dense<double> &neighbours,
                   const dense<std::int64_t> &neighbour_offsets, double delta_min, double delta_max, double threshold,
                   double saturation, int border, int threads)
        : mask_(mask), readers_(static_cast<std::size_t>(std::max(threads, 1))), team_(threads) {
        if (mask.ndim() != 2) throw std::invalid_argument("the mask must be 2-D");
        if (pixel_to_lab.size() != 9) throw std::invalid_argument("a 3x3 matrix is needed");
        if (origin.size() != 2) throw std::invalid_argument("the origin is a row and a column");
        const Sensor sensor{origin.data()[0], origin.data()[1], pixel_size, dist, sensor_thickness, sensor_mu};
        shells_ = {mask.shape(0), mask.shape(1), to_matrix(pixel_to_lab.data()), sensor, to_vector(beam), 1 / lmbda,
                   to_vector(in_plane), to_vector(normal), pol_degree, to_vectors(centres), to_vectors(shifts),
                   to_vectors(neighbours), {}, {}, delta_min * delta_min, delta_max * delta_max, threshold, saturation,
                   border};
        shells_.offsets.assign(neighbour_offsets.data(), neighbour_offsets.data() + neighbour_offsets.size());
        for (const Vector &v : shells_.neighbours) shells_.bisectors.push_back(0.5 * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]));
        if (shells_.offsets.size() != shells_.centres.size() + 1)
            throw std::invalid_argument("one offset per centre, plus one");
        if (shells_.shifts.size() != shells_.centres.size()) throw std::invalid_argument("one shift per centre");
    }

    // Frames from now on have another mask.
    void set_mask(const dense<bool> &mask) {
        if (mask.ndim() != 2 || mask.shape(0) != shells_.rows || mask.shape(1) != shells_.columns)
            throw std::invalid_argument("the masks differ in shape");
        mask_ = mask;
    }

    // What a block of frames gives, or what is wrong with them.
    py::tuple frames(const py::list &sources, const dense<double> &turns, const dense<std::int64_t> &ends,
                     const dense<std::int64_t> &blobs, const dense<std::int64_t> &regions) {
        const auto n = static_cast<std::int64_t>(sources.size());
        if (turns.size() != 9 * n || ends.size() != n || regions.size() != 4 * blobs.size() ||
            (n && ends.data()[n - 1] != blobs.size()))
            throw std::invalid_argument("the frames' turns and visits disagree");
        for (py::ssize_t i = 0; i < blobs.size(); ++i) {
            const std::int64_t *r = regions.data() + 4 * i;
            if (blobs.data()[i] < 0 || blobs.data()[i] >= static_cast<std::int64_t>(shells_.centres.size()) || r[0] < 0 ||
                r[1] > shells_.rows || r[2] < 0 || r[3] > shells_.columns)
                throw std::invalid_argument("a region or blob is out of range");
        }
        std::vector<Source> where;
        for (const py::handle &source : sources) where.push_back(to_source(source, {shells_.rows, shells_.columns}));
        if (found_.size() < where.size()) found_.resize(where.size());
        std::vector<std::optional<std::string>> faults(where.size());
        {
            py::gil_scoped_release release;
            team_.loop(0, 1, n, [&](std::int64_t i, int thread) {
                const std::int64_t first = i ? ends.data()[i - 1] : 0, end = ends.data()[i];
                Reader &reader = readers_[static_cast<std::size_t>(thread)];
                Gathered &found = found_[static_cast<std::size_t>(i)];
                found.clear();
                const Visits visits{blobs.data() + first, regions.data() + 4 * first, end - first,
                                    to_matrix(turns.data() + 9 * i)};
                try {
                    read(where[static_cast<std::size_t>(i)], visits, reader, found);
                } catch (const Foreign &) {
                    faults[static_cast<std::size_t>(i)] = "";
                } catch (const std::exception &error) {  // damaged, or no memory
                    faults[static_cast<std::size_t>(i)] = error.what();
                }
            });
        }
        py::list told;
        for (std::size_t i = 0; i < faults.size(); ++i)
            if (faults[i]) told.append(py::make_tuple(i, *faults[i]));
        if (!told.empty()) return py::make_tuple(py::none(), py::none(), py::none(), py::none(), told);
        bool whole_numbers = true;  // of 32 bits
        for (const Source &source : where) whole_numbers &= is_narrow(source);
        return py::make_tuple(columns(where.size(), &Gathered::points, &Gathered::n_points, whole_numbers),
                              columns(where.size(), &Gathered::peaks, &Gathered::n_peaks, whole_numbers),
                              joined(where.size(), &Gathered::lost).reshape({-1, n_causes}),
                              joined(where.size(), &Gathered::hot), told);
    }

    // Q (n, 3) of pixels in runs of one frame and blob each, less the blob's shift.
    template <class Pixel>
    dense<double> places(const dense<Pixel> &row, const dense<Pixel> &column, const dense<std::int64_t> &numbers,
                         const dense<double> &turns, const dense<std::int64_t> &blobs) const {
        check_runs(row, column, numbers);
        if (turns.size() != 9 * numbers.size() || blobs.size() != numbers.size())
            throw std::invalid_argument("one turn and one blob per run");
        for (py::ssize_t i = 0; i < blobs.size(); ++i)
            if (blobs.data()[i] < 0 || blobs.data()[i] >= static_cast<std::int64_t>(shells_.shifts.size()))
                throw std::invalid_argument("a blob is out of range");
        dense<double> q({row.size(), py::ssize_t{3}});
        double *out = q.mutable_data();
        py::gil_scoped_release release;
        std::int64_t first = 0;
        for (py::ssize_t i = 0; i < numbers.size(); first += numbers.data()[i++])
            shells_.places(row.data() + first, column.data() + first, numbers.data()[i], to_matrix(turns.data() + 9 * i),
                           blobs.data()[i], out + 3 * first);
        return q;
    }

    // POL·C3·denominator of pixels in runs of one denominator each.
    template <class Pixel>
    dense<float> corrections(const dense<Pixel> &row, const dense<Pixel> &column, const dense<std::int64_t> &numbers,
                             const dense<double> &denominators) const {
        check_runs(row, column, numbers);
        if (denominators.size() != numbers.size()) throw std::invalid_argument("one denominator per run");
        dense<float> correction(row.size());
        float *out = correction.mutable_data();
        py::gil_scoped_release release;
        std::int64_t first = 0;
        for (py::ssize_t i = 0; i < numbers.size(); first += numbers.data()[i++])
            shells_.corrections(row.data() + first, column.data() + first, numbers.data()[i], denominators.data()[i],
                                out + first);
        return correction;
    }

  private:
    template <class Pixel>
    static void check_runs(const dense<Pixel> &row, const dense<Pixel> &column, const dense<std::int64_t> &numbers) {
        std::int64_t total = 0;
        for (py::ssize_t i = 0; i < numbers.size(); ++i) {
            if (numbers.data()[i] < 0) throw std::invalid_argument("a run of less than no pixels");
            total += numbers.data()[i];
        }
        if (row.size() != total || column.size() != total) throw std::invalid_argument("the runs and the pixels disagree");
    }

    struct Visits {
        const std::int64_t *blobs, *regions;
        std::int64_t n;
        Matrix turn;

        Box box(std::int64_t i) const {
            const std::int64_t *r = regions + 4 * i;
            return {r[0], r[1], r[2], r[3]};
        }
    };

    static bool is_narrow(const Source &source) {
        if (std::holds_alternative<CbfFile>(source)) return true;
        const PixelType type = std::holds_alternative<Chunk>(source) ? std::get<Chunk>(source).type : std::get<Image>(source).type;
        return type.kind == 'b' || (type.kind == 'i' && type.width <= 4) || (type.kind == 'u' && type.width <= 2);
    }

    void read(const Source &source, const Visits &visits, Reader &reader, Gathered &found) const {
        if (!std::holds_alternative<Image>(source)) find_runs(visits, reader);
        reader.frame.read(source, {shells_.rows, shells_.columns}, reader.runs,
                          [&](const auto *image) { gather(image, visits, reader, found); });
    }

    template <class T> void gather(const T *image, const Visits &visits, Reader &reader, Gathered &found) const {
        for (std::int64_t i = 0; i < visits.n; ++i)
            reader.gatherer.gather(shells_, image, mask_.data(), visits.turn, visits.blobs[i], visits.box(i),
                                   found);
    }

    // The union of the regions, row by row.
    void find_runs(const Visits &visits, Reader &reader) const {
        reader.spans.clear();
        for (std::int64_t i = 0; i < visits.n; ++i) {
            const Box box = visits.box(i);
            for (std::int64_t r = box[0]; r < box[1] && box[2] < box[3]; ++r)
                reader.spans.push_back({r * shells_.columns + box[2], r * shells_.columns + box[3]});
        }
        std::sort(reader.spans.begin(), reader.spans.end(), [](const Run &a, const Run &b) { return a.first < b.first; });
        reader.runs.clear();
        for (const Run &span : reader.spans) {
            if (!reader.runs.empty() && span.first <= reader.runs.back().end)
                reader.runs.back().end = std::max(reader.runs.back().end, span.end);
            else
                reader.runs.push_back(span);
        }
    }

    // (number of each visit, row, column, counts) of the first frames found.
    py::tuple columns(std::size_t frames, std::vector<Point> Gathered::*points, std::vector<std::int64_t> Gathered::*number,
                      bool whole_numbers) {
        return std::max(shells_.rows, shells_.columns) <= std::numeric_limits<std::uint16_t>::max()
                   ? columns<std::uint16_t>(frames, points, number, whole_numbers)
                   : columns<std::uint32_t>(frames, points, number, whole_numbers);
    }

    template <class Pixel>
    py::tuple columns(std::size_t frames, std::vector<Point> Gathered::*points, std::vector<std::int64_t> Gathered::*number,
                      bool whole_numbers) {
        std::vector<std::size_t> start{0};
        for (std::size_t i = 0; i < frames; ++i) start.push_back(start.back() + (found_[i].*points).size());
        const auto n = static_cast<py::ssize_t>(start.back());
        py::array_t<Pixel> row(n), column(n);
        py::array_t<std::int32_t> whole(whole_numbers ? n : 0);
        py::array_t<double> any(whole_numbers ? 0 : n);
        Pixel *rows = row.mutable_data(), *columns = column.mutable_data();
        std::int32_t *wholes = whole.mutable_data();
        double *anys = any.mutable_data();
        {
            py::gil_scoped_release release;
            team_.loop(0, 1, static_cast<std::int64_t>(frames), [&](std::int64_t i, int) {
                std::size_t at = start[static_cast<std::size_t>(i)];
                for (const Point &p : found_[static_cast<std::size_t>(i)].*points) {
                    rows[at] = static_cast<Pixel>(p.row);
                    columns[at] = static_cast<Pixel>(p.column);
                    if (whole_numbers)
                        wholes[at] = static_cast<std::int32_t>(p.counts);
                    else
                        anys[at] = p.counts;
                    ++at;
                }
            });
        }
        py::object counts = whole;
        if (!whole_numbers) counts = any;
        return py::make_tuple(joined(frames, number), row, column, counts);
    }

    // Numbers of the visits of the first frames found, one frame after the other.
    template <class T> py::array joined(std::size_t frames, std::vector<T> Gathered::*numbers) const {
        using Number = std::conditional_t<std::is_same_v<T, std::uint8_t>, std::uint8_t, std::int64_t>;
        std::vector<Number> all;
        for (std::size_t i = 0; i < frames; ++i) {
            const auto &of_frame = found_[i].*numbers;
            const auto *first = reinterpret_cast<const Number *>(of_frame.data());
            all.insert(all.end(), first, first + of_frame.size() * sizeof(T) / sizeof(Number));
        }
        return py::array_t<Number>(static_cast<py::ssize_t>(all.size()), all.data());
    }

    dense<bool> mask_;
    Shells shells_;
    std::vector<Reader> readers_;
    std::vector<Gathered> found_;  // of each frame of a block; kept, so that memory is asked for once
    Team team_;
};

// Joins runs of elements: run i is numbers[i] elements from starts[i] on in arrays[which[i]].
py::array join_runs(const std::vector<py::array> &arrays, const dense<std::int64_t> &which,
                    const dense<std::int64_t> &starts, const dense<std::int64_t> &numbers, const py::dtype &type) {
    if (which.size() != numbers.size() || starts.size() != numbers.size())
        throw std::invalid_argument("one array, start and number per run");
    std::int64_t total = 0;
    for (py::ssize_t i = 0; i < numbers.size(); ++i) {
        const std::int64_t w = which.data()[i], start = starts.data()[i], n = numbers.data()[i];
        if (w < 0 || w >= static_cast<std::int64_t>(arrays.size())) throw std::invalid_argument("an array is out of range");
        const py::array &from = arrays[static_cast<std::size_t>(w)];
        if (from.ndim() != 1 || !(from.flags() & py::array::c_style) || from.itemsize() != type.itemsize() || start < 0 ||
            n < 0 || start > from.size() - n)
            throw std::invalid_argument("the arrays and the runs disagree");
        total += n;
    }
    py::array joined(type, total);
    const auto size = static_cast<std::size_t>(type.itemsize());
    auto *out = static_cast<std::uint8_t *>(joined.mutable_data());
    for (py::ssize_t i = 0; i < numbers.size(); ++i) {
        const auto *from = static_cast<const std::uint8_t *>(arrays[static_cast<std::size_t>(which.data()[i])].data());
        const auto bytes = static_cast<std::size_t>(numbers.data()[i]) * size;
        std::memcpy(out, from + static_cast<std::size_t>(starts.data()[i]) * size, bytes);
        out += bytes;
    }
    return joined;
}

template <class... Pixel> void define_places(py::class_<RegionGatherer> &c) {
    (c.def("places", &RegionGatherer::places<Pixel>, py::arg("row").noconvert(), py::arg("column").noconvert(),
           py::arg("numbers"), py::arg("turns"), py::arg("blobs")),
     ...);
    (c.def("corrections", &RegionGatherer::corrections<Pixel>, py::arg("row").noconvert(),
           py::arg("column").noconvert(), py::arg("numbers"), py::arg("denominators")),
     ...);
}

}  // namespace

void register_gather(py::module_ &m) {
    py::class_<RegionGatherer> c(m, "RegionGatherer");
    c.def(py::init<const dense<bool> &, const dense<double> &, const dense<double> &, double, double, double,
                   const dense<double> &, double, const dense<double> &, const dense<double> &, double, double,
                   const dense<double> &, const dense<double> &, const dense<double> &, const dense<std::int64_t> &,
                   double, double, double, double, int, int>(),
          py::kw_only(), py::arg("mask"), py::arg("pixel_to_lab"), py::arg("origin"), py::arg("pixel_size"),
          py::arg("sensor_thickness"), py::arg("sensor_mu"), py::arg("beam"), py::arg("lmbda"),
          py::arg("in_plane"), py::arg("normal"), py::arg("pol_degree"), py::arg("dist"), py::arg("centres"),
          py::arg("shifts"), py::arg("neighbours"), py::arg("neighbour_offsets"), py::arg("delta_min"),
          py::arg("delta_max"), py::arg("threshold"), py::arg("saturation"), py::arg("border"), py::arg("threads") = 1);
    c.def("set_mask", &RegionGatherer::set_mask, py::arg("mask"));
    c.def("frames", &RegionGatherer::frames, py::arg("sources"), py::arg("turns"), py::arg("ends"), py::arg("blobs"),
          py::arg("regions"));
    define_places<std::uint16_t, std::uint32_t>(c);
    m.def("join_runs", &join_runs, py::arg("arrays"), py::arg("which"), py::arg("starts"), py::arg("numbers"),
          py::arg("type"));
}
