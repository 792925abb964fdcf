// Passes over harvested points, straight from the mapped file: what a device wants of them, and what tells their quality.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "team.h"

namespace py = pybind11;

namespace {

constexpr std::int64_t kBlock = 16384;  // points of a task: sums are added block after block, whatever the threads
constexpr int kSums = 5;                // of 1, x, x², y, xy

// A column of numbers of any type and alignment; files lay theirs out as they like.
class Column {
  public:
    Column(const py::array &array, py::ssize_t width) : data_(static_cast<const char *>(array.data())) {
        if (!(array.flags() & py::array::c_style)) throw std::invalid_argument("columns must be contiguous");
        if (width == 1 ? array.ndim() != 1 : array.ndim() != 2 || array.shape(1) != width)
            throw std::invalid_argument("a column has the wrong shape");
        size = array.shape(0);
        const py::dtype type = array.dtype();
        if (type.equal(py::dtype::of<double>())) kind_ = 'd';
        else if (type.equal(py::dtype::of<float>())) kind_ = 'f';
        else if (type.equal(py::dtype::of<std::int32_t>())) kind_ = 'i';
        else if (type.equal(py::dtype::of<std::int64_t>())) kind_ = 'l';
        else throw std::invalid_argument("a column must be of int32, int64, float32 or float64");
    }

    double operator[](std::int64_t i) const {
        switch (kind_) {
            case 'd': return at<double>(i);
            case 'f': return at<float>(i);
            case 'i': return at<std::int32_t>(i);
            default: return static_cast<double>(at<std::int64_t>(i));
        }
    }

    std::int64_t size = 0;

  private:
    template <class T> T at(std::int64_t i) const {
        T value;
        std::memcpy(&value, data_ + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
        return value;
    }

    const char *data_;
    char kind_ = 0;
};

void same_size(const Column &a, std::int64_t size) {
    if (a.size != size) throw std::invalid_argument("columns differ in length");
}

const double *vector_of(const py::array_t<double, py::array::c_style> &a, py::ssize_t size) {
    if (a.size() != size) throw std::invalid_argument("an array has the wrong size");
    return a.data();
}

// Rows x, y, z, counts, κ of single precision: q = Q − node in double, rounded once.
void relative_points(const py::array &Q, const py::array_t<double, py::array::c_style> &node, const py::array &counts,
                     const py::array &correction, py::array_t<float, py::array::c_style> out, int threads) {
    const Column q(Q, 3), n(counts, 1), kappa(correction, 1);
    const std::int64_t size = q.size;
    same_size(n, size);
    same_size(kappa, size);
    if (out.ndim() != 2 || out.shape(0) < 5 || size > out.shape(1))
        throw std::invalid_argument("the points do not fit");
    const double *g = vector_of(node, 3);
    const std::int64_t row = out.shape(1);
    float *to = out.mutable_data();
    py::gil_scoped_release release;
    Team team(static_cast<int>(std::min<std::int64_t>(threads, 1 + size / kBlock)));
    team.loop(0, kBlock, size, [&](std::int64_t first, int) {
        const std::int64_t end = std::min(size, first + kBlock);
        for (int axis = 0; axis < 3; ++axis)
            for (std::int64_t i = first; i < end; ++i) to[axis * row + i] = static_cast<float>(q[3 * i + axis] - g[axis]);
        for (std::int64_t i = first; i < end; ++i) to[3 * row + i] = static_cast<float>(n[i]);
        for (std::int64_t i = first; i < end; ++i) to[4 * row + i] = static_cast<float>(kappa[i]);
    });
}

// Number of the cell of equal area that the direction of q lies in: bands along z, sectors of 45° of azimuth.
int cell_of(double x, double y, double z, double length, int bands) {
    const double cosine = length > 0 ? z / length : 0;
    const int band = std::clamp(static_cast<int>(std::floor((cosine + 1) / 2 * bands)), 0, bands - 1);
    int sector;
    if (y >= 0)
        sector = x > 0 ? (y < x ? 0 : 1) : (y > -x ? 2 : 3);
    else
        sector = x < 0 ? (-y < -x ? 4 : 5) : (-y > x ? 6 : 7);
    return band * 8 + sector;
}

struct BlobSums {
    std::int64_t blob;
    double sums[kSums];
};

// Returns, for points first … of the blobs that `offsets` separates: whether all numbers are possible, which cells hold
// points (blobs, 8·bands), and the sums (5, blobs) of 1, x, x², y, xy with x = (middle/q)², held below `nearest`, and
// y = (counts − background)/κ.
py::tuple survey(const py::array &counts, const py::array &correction, const py::array &Q, const py::object &background,
                 std::int64_t first, const py::array_t<std::int64_t, py::array::c_style> &offsets,
                 const py::array_t<double, py::array::c_style> &centres, int bands, double middle, double nearest, int threads) {
    const Column n(counts, 1), kappa(correction, 1), q(Q, 3);
    const std::int64_t size = n.size;
    same_size(kappa, size);
    same_size(q, size);
    std::unique_ptr<Column> expected;
    if (!background.is_none()) {
        expected = std::make_unique<Column>(background.cast<py::array>(), 1);
        same_size(*expected, size);
    }
    const std::int64_t blobs = offsets.size() - 1, *offset = offsets.data();
    const double *g = vector_of(centres, 3 * blobs);
    if (blobs < 1 || first < offset[0] || first + size > offset[blobs])
        throw std::invalid_argument("the points are of no blob");
    const int cells = 8 * bands;
    const std::int64_t n_blocks = (size + kBlock - 1) / kBlock;
    std::vector<std::vector<BlobSums>> parts(static_cast<std::size_t>(n_blocks));
    py::array_t<bool> hit({static_cast<py::ssize_t>(blobs), static_cast<py::ssize_t>(cells)});
    py::array_t<double> total({static_cast<py::ssize_t>(kSums), static_cast<py::ssize_t>(blobs)});
    std::fill_n(hit.mutable_data(), hit.size(), false);
    std::fill_n(total.mutable_data(), total.size(), 0.0);
    bool *hits = hit.mutable_data();
    double *totals = total.mutable_data();
    std::atomic<bool> sound{true};
    {
        py::gil_scoped_release release;
        const int workers = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, n_blocks)));
        std::vector<std::vector<std::uint8_t>> own(static_cast<std::size_t>(workers));
        Team team(workers);
        team.loop(0, 1, n_blocks, [&](std::int64_t number, int thread) {
            std::vector<std::uint8_t> &mine = own[static_cast<std::size_t>(thread)];
            mine.resize(static_cast<std::size_t>(blobs * cells), 0);
            std::vector<BlobSums> &part = parts[static_cast<std::size_t>(number)];
            const std::int64_t end = std::min(size, (number + 1) * kBlock);
            std::int64_t blob = std::upper_bound(offset, offset + blobs + 1, first + number * kBlock) - offset - 1;
            BlobSums sums{blob, {}};
            bool good = true;
            for (std::int64_t i = number * kBlock; i < end; ++i) {
                while (first + i >= offset[blob + 1]) {
                    part.push_back(sums);
                    sums = BlobSums{++blob, {}};
                }
                const double *centre = g + 3 * blob;
                const double x = q[3 * i] - centre[0], y = q[3 * i + 1] - centre[1], z = q[3 * i + 2] - centre[2];
                const double q2 = x * x + y * y + z * z, k = kappa[i], measured = n[i];
                if (!(q2 < 1e300) || !(k > 0) || !(measured >= 0)) {
                    good = false;
                    break;
                }
                mine[static_cast<std::size_t>(blob * cells + cell_of(x, y, z, std::sqrt(q2), bands))] = 1;
                const double near = middle * middle / std::max(q2, nearest * nearest);
                const double value = (expected ? measured - (*expected)[i] : measured) / k;
                sums.sums[0] += 1;
                sums.sums[1] += near;
                sums.sums[2] += near * near;
                sums.sums[3] += value;
                sums.sums[4] += near * value;
            }
            part.push_back(sums);
            if (!good) sound = false;
        });
        for (const auto &part : parts)
            for (const BlobSums &sums : part)
                for (int k = 0; k < kSums; ++k) totals[k * blobs + sums.blob] += sums.sums[k];
        for (const auto &mine : own)
            for (std::size_t k = 0; k < mine.size(); ++k) hits[k] = hits[k] || mine[k];
    }
    return py::make_tuple(sound.load(), hit, total);
}

}  // namespace

void register_points(py::module_ &m) {
    m.def("relative_points", &relative_points, py::arg("Q"), py::arg("node"), py::arg("counts"), py::arg("correction"),
          py::arg("out").noconvert(), py::arg("threads"));
    m.def("survey", &survey, py::arg("counts"), py::arg("correction"), py::arg("Q"), py::arg("background"), py::arg("first"),
          py::arg("offsets"), py::arg("centres"), py::arg("bands"), py::arg("middle"), py::arg("nearest"), py::arg("threads"));
}
