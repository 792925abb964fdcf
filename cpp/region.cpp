#include "region.h"

#include <cmath>

#include "wide.h"

namespace {

// Pixels at a time: what is computed of them stays in the cache.
constexpr std::int64_t batch = 256;

// From a pixel to Q less a shift.
struct Way {
    Matrix pixel_to_lab, turn;
    Vector beam, shift;
    double wave_number;
};

TDS2EL_WIDE void to_q(const Way &way, const double *__restrict row, const double *__restrict column, std::int64_t n,
                      double *__restrict q0, double *__restrict q1, double *__restrict q2) {
    const Matrix m = way.pixel_to_lab, u = way.turn;
    const Vector b = way.beam, d = way.shift;
    const double k = way.wave_number;
    for (std::int64_t i = 0; i < n; ++i) {
        const double px = m[0][0] * row[i] + m[0][1] * column[i] + m[0][2];
        const double py = m[1][0] * row[i] + m[1][1] * column[i] + m[1][2];
        const double pz = m[2][0] * row[i] + m[2][1] * column[i] + m[2][2];
        const double inverse = 1 / std::sqrt(px * px + py * py + pz * pz);
        const double x = (px * inverse + b[0]) * k, y = (py * inverse + b[1]) * k, z = (pz * inverse + b[2]) * k;
        // Re-centred: what was measured at G + d counts as G everywhere.
        q0[i] = u[0][0] * x + u[0][1] * y + u[0][2] * z - d[0];
        q1[i] = u[1][0] * x + u[1][1] * y + u[1][2] * z - d[1];
        q2[i] = u[2][0] * x + u[2][1] * y + u[2][2] * z - d[2];
    }
}

// Squared distances from a node.
TDS2EL_WIDE void to_squares(const Vector &node, const double *__restrict q0, const double *__restrict q1,
                            const double *__restrict q2, std::int64_t n, double *__restrict square) {
    const Vector g = node;
    for (std::int64_t i = 0; i < n; ++i)
        square[i] = (q0[i] - g[0]) * (q0[i] - g[0]) + (q1[i] - g[1]) * (q1[i] - g[1]) + (q2[i] - g[2]) * (q2[i] - g[2]);
}

// Polarisation times the cube of the cosine to the detector's normal.
TDS2EL_WIDE void to_corrections(const Shells &shells, const double *__restrict row, const double *__restrict column,
                                std::int64_t n, double denominator, float *__restrict out) {
    const Matrix m = shells.pixel_to_lab;
    const Vector in = shells.in_plane, no = shells.normal;
    const double pol = shells.pol_degree, dist = shells.sensor.dist;
    for (std::int64_t i = 0; i < n; ++i) {
        const double px = m[0][0] * row[i] + m[0][1] * column[i] + m[0][2];
        const double py = m[1][0] * row[i] + m[1][1] * column[i] + m[1][2];
        const double pz = m[2][0] * row[i] + m[2][1] * column[i] + m[2][2];
        const double inverse = 1 / std::sqrt(px * px + py * py + pz * pz);
        const double x = px * inverse, y = py * inverse, z = pz * inverse, c = dist * inverse;
        const double s = x * in[0] + y * in[1] + z * in[2], t = x * no[0] + y * no[1] + z * no[2];
        out[i] = static_cast<float>((pol * (1 - s * s) + (1 - pol) * (1 - t * t)) * c * c * c * denominator);
    }
}

// Calls use(first, n, rows, columns) with up to `batch` pixels at a time, that is with the places where their rays enter.
template <class Pixel, class Use>
void in_batches(const Sensor &sensor, const Pixel *row, const Pixel *column, std::int64_t n, const Use &use) {
    double rows[batch], columns[batch];
    for (std::int64_t first = 0; first < n; first += batch) {
        const std::int64_t here = std::min(batch, n - first);
        for (std::int64_t i = 0; i < here; ++i) {
            rows[i] = static_cast<double>(row[first + i]);
            columns[i] = static_cast<double>(column[first + i]);
        }
        if (sensor.thick()) sensor.enter(rows, columns, here);
        use(first, here, rows, columns);
    }
}

}  // namespace

void Sensor::enter(double *rows, double *columns, std::int64_t n) const {
    for (std::int64_t i = 0; i < n; ++i) {
        const double r = rows[i] - row, c = columns[i] - column;
        const double length = std::sqrt(pixel_size * pixel_size * (r * r + c * c) + dist * dist);
        const double path = mu * thickness / dist * length;
        const double part = 1 + ((1 + path) * std::exp(-path) - 1) / (mu * length);
        rows[i] = row + part * r;
        columns[i] = column + part * c;
    }
}

void Gathered::clear() {
    points.clear();
    peaks.clear();
    n_points.clear();
    n_peaks.clear();
    lost.clear();
    hot.clear();
}

// The neighbours come nearest first, and one farther than 2|q| cannot be nearer to q than the node itself.
bool Shells::is_nearer_to_another(const Vector &q, double q2, std::int64_t blob) const {
    const auto end = static_cast<std::size_t>(offsets[static_cast<std::size_t>(blob) + 1]);
    for (auto k = static_cast<std::size_t>(offsets[static_cast<std::size_t>(blob)]); k < end; ++k) {
        if (bisectors[k] > 2 * q2) return false;
        const Vector &v = neighbours[k];
        if (q[0] * v[0] + q[1] * v[1] + q[2] * v[2] > bisectors[k]) return true;
    }
    return false;
}

template <class Pixel>
void Shells::places(const Pixel *row, const Pixel *column, std::int64_t n, const Matrix &turn, std::int64_t blob,
                    double *q) const {
    const Way way{pixel_to_lab, turn, beam, shifts[static_cast<std::size_t>(blob)], wave_number};
    in_batches(sensor, row, column, n, [&](std::int64_t first, std::int64_t here, const double *rows, const double *columns) {
        double q0[batch], q1[batch], q2[batch];
        to_q(way, rows, columns, here, q0, q1, q2);
        double *out = q + 3 * first;
        for (std::int64_t i = 0; i < here; ++i, out += 3) out[0] = q0[i], out[1] = q1[i], out[2] = q2[i];
    });
}

template <class Pixel>
void Shells::corrections(const Pixel *row, const Pixel *column, std::int64_t n, double denominator,
                         float *correction) const {
    in_batches(sensor, row, column, n, [&](std::int64_t first, std::int64_t here, const double *rows, const double *columns) {
        to_corrections(*this, rows, columns, here, denominator, correction + first);
    });
}

template <class T>
void Gatherer::gather(const Shells &shells, const T *image, const bool *mask, const Matrix &turn, std::int64_t blob,
                      const Box &box, Gathered &found) {
    const std::int64_t n = std::max<std::int64_t>(box[3] - box[2], 0);
    const Vector &g = shells.centres[static_cast<std::size_t>(blob)];
    const Way way{shells.pixel_to_lab, turn, shells.beam, shells.shifts[static_cast<std::size_t>(blob)], shells.wave_number};
    const std::size_t points_before = found.points.size(), peaks_before = found.peaks.size();
    std::array<std::int64_t, n_causes> lost{};
    row_.resize(static_cast<std::size_t>(6 * n));
    double *rows = row_.data(), *columns = rows + n, *q0 = columns + n, *q1 = q0 + n, *q2 = q1 + n, *square = q2 + n;
    const auto number_columns = [&] {
        for (std::int64_t i = 0; i < n; ++i) columns[i] = static_cast<double>(box[2] + i);
    };
    number_columns();
    hot_.clear();
    for (std::int64_t r = box[0]; r < box[1]; ++r) {
        std::fill_n(rows, n, static_cast<double>(r));
        if (shells.sensor.thick()) {
            number_columns();
            shells.sensor.enter(rows, columns, n);
        }
        to_q(way, rows, columns, n, q0, q1, q2);
        to_squares(g, q0, q1, q2, n, square);
        const T *values = image + r * shells.columns + box[2];
        const bool *good_pixels = mask + r * shells.columns + box[2];
        for (std::int64_t i = 0; i < n; ++i) {
            if (square[i] > shells.max2) continue;
            const T value = values[i];
            const bool good = good_pixels[i], shell = square[i] >= shells.min2, hot = good && shells.above(value);
            if (!shell && !hot) continue;
            const bool foreign =
                shells.is_nearer_to_another({q0[i] - g[0], q1[i] - g[1], q2[i] - g[2]}, square[i], blob);
            const double counts = static_cast<double>(value);
            const Point point{static_cast<std::int32_t>(r), static_cast<std::int32_t>(box[2] + i), counts};
            if (hot) {
                hot_.push_back({r, box[2] + i});
                if (!foreign) found.peaks.push_back(point);
            }
            if (!shell) continue;
            const Fate fate = foreign ? nearer : !good ? masked : !(counts >= 0) ? negative : kept;
            if (fate == kept)
                found.points.push_back(point);
            else
                ++lost[fate];
        }
    }
    if (!hot_.empty()) lost[over_threshold] = reject_hot(box, shells.border, points_before, found.points);
    found.n_points.push_back(static_cast<std::int64_t>(found.points.size() - points_before));
    found.n_peaks.push_back(static_cast<std::int64_t>(found.peaks.size() - peaks_before));
    found.lost.push_back(lost);
    found.hot.push_back(!hot_.empty());
}

// Takes the points near hot pixels out of those behind `before`, and returns how many.
std::int64_t Gatherer::reject_hot(const Box &box, std::int64_t border, std::size_t before, std::vector<Point> &points) {
    const auto start = points.begin() + static_cast<std::ptrdiff_t>(before);
    auto end = start;
    if (border >= 0) {
        const std::int64_t height = box[1] - box[0], width = box[3] - box[2];
        near_.assign(static_cast<std::size_t>(height * width), 0);
        for (const auto &pixel : hot_) {
            const std::int64_t r = pixel[0] - box[0], c = pixel[1] - box[2];
            for (std::int64_t i = std::max<std::int64_t>(0, r - border); i <= std::min(height - 1, r + border); ++i)
                for (std::int64_t j = std::max<std::int64_t>(0, c - border); j <= std::min(width - 1, c + border); ++j)
                    near_[static_cast<std::size_t>(i * width + j)] = 1;
        }
        end = std::remove_if(start, points.end(), [&](const Point &p) {
            return near_[static_cast<std::size_t>((p.row - box[0]) * width + p.column - box[2])] != 0;
        });
    }
    const std::int64_t removed = points.end() - end;
    points.erase(end, points.end());
    return removed;
}

#define TDS2EL_GATHER(T)                                                                                              \
    template void Gatherer::gather<T>(const Shells &, const T *, const bool *, const Matrix &, std::int64_t, const Box &, \
                                      Gathered &);
TDS2EL_GATHER(std::int8_t)
TDS2EL_GATHER(std::int16_t)
TDS2EL_GATHER(std::int32_t)
TDS2EL_GATHER(std::int64_t)
TDS2EL_GATHER(std::uint8_t)
TDS2EL_GATHER(std::uint16_t)
TDS2EL_GATHER(std::uint32_t)
TDS2EL_GATHER(std::uint64_t)
TDS2EL_GATHER(float)
TDS2EL_GATHER(double)

#define TDS2EL_PLACES(Pixel)                                                                                          \
    template void Shells::places<Pixel>(const Pixel *, const Pixel *, std::int64_t, const Matrix &, std::int64_t,    \
                                        double *) const;                                                              \
    template void Shells::corrections<Pixel>(const Pixel *, const Pixel *, std::int64_t, double, float *) const;
TDS2EL_PLACES(std::uint16_t)
TDS2EL_PLACES(std::uint32_t)
