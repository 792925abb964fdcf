#include "region.h"

#include <cmath>

#include "wide.h"

namespace {

// What the places of a row's pixels do not depend on.
struct Line {
    Matrix pixel_to_lab, turn;
    Vector beam, shift, centre, in_plane, normal;
    double wave_number, pol_degree, dist, denominator, row, first_column;
};

// Q less the shift, |q|² and correction of n pixels of a row: five columns of n.
TDS2EL_WIDE void place(const Line &line, std::int64_t n, double *__restrict out) {
    const Matrix &m = line.pixel_to_lab, &u = line.turn;
    const Vector &b = line.beam, &d = line.shift, &g = line.centre, &in = line.in_plane, &no = line.normal;
    const double k = line.wave_number, pol = line.pol_degree, row = line.row;
    double *__restrict q0 = out, *__restrict q1 = out + n, *__restrict q2 = out + 2 * n;
    double *__restrict square = out + 3 * n, *__restrict correction = out + 4 * n;
    for (std::int64_t i = 0; i < n; ++i) {
        const double column = line.first_column + static_cast<double>(i);
        const double px = m[0][0] * row + m[0][1] * column + m[0][2];
        const double py = m[1][0] * row + m[1][1] * column + m[1][2];
        const double pz = m[2][0] * row + m[2][1] * column + m[2][2];
        const double inverse = 1 / std::sqrt(px * px + py * py + pz * pz);
        const double x = px * inverse, y = py * inverse, z = pz * inverse;
        const double kx = (x + b[0]) * k, ky = (y + b[1]) * k, kz = (z + b[2]) * k;
        // Re-centred: what was measured at G + d counts as G everywhere.
        const double qx = u[0][0] * kx + u[0][1] * ky + u[0][2] * kz - d[0];
        const double qy = u[1][0] * kx + u[1][1] * ky + u[1][2] * kz - d[1];
        const double qz = u[2][0] * kx + u[2][1] * ky + u[2][2] * kz - d[2];
        q0[i] = qx;
        q1[i] = qy;
        q2[i] = qz;
        square[i] = (qx - g[0]) * (qx - g[0]) + (qy - g[1]) * (qy - g[1]) + (qz - g[2]) * (qz - g[2]);
        // Polarisation and the cube of the cosine to the detector's normal.
        const double s = x * in[0] + y * in[1] + z * in[2], t = x * no[0] + y * no[1] + z * no[2];
        const double c = line.dist * inverse;
        correction[i] = (pol * (1 - s * s) + (1 - pol) * (1 - t * t)) * c * c * c * line.denominator;
    }
}

}  // namespace

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

template <class T>
void Gatherer::gather(const Shells &shells, const T *image, const bool *mask, const Matrix &turn, std::int64_t blob,
                      const Box &box, double denominator, Gathered &found) {
    const std::int64_t n = std::max<std::int64_t>(box[3] - box[2], 0);
    const Vector &g = shells.centres[static_cast<std::size_t>(blob)];
    Line line{shells.pixel_to_lab, turn, shells.beam, shells.shifts[static_cast<std::size_t>(blob)], g,
              shells.in_plane, shells.normal, shells.wave_number, shells.pol_degree, shells.dist, denominator, 0.0,
              static_cast<double>(box[2])};
    const std::size_t points_before = found.points.size(), peaks_before = found.peaks.size();
    std::array<std::int64_t, n_causes> lost{};
    row_.resize(static_cast<std::size_t>(5 * n));
    hot_.clear();
    const double *q0 = row_.data(), *q1 = q0 + n, *q2 = q1 + n, *square = q2 + n, *correction = square + n;
    for (std::int64_t r = box[0]; r < box[1]; ++r) {
        line.row = static_cast<double>(r);
        place(line, n, row_.data());
        const T *values = image + r * shells.columns + box[2];
        const bool *good_pixels = mask + r * shells.columns + box[2];
        for (std::int64_t i = 0; i < n; ++i) {
            if (square[i] > shells.max2) continue;
            const T value = values[i];
            const bool good = good_pixels[i], shell = square[i] >= shells.min2, hot = good && shells.above(value);
            if (!shell && !hot) continue;
            const Vector q{q0[i] - g[0], q1[i] - g[1], q2[i] - g[2]};
            const bool foreign = shells.is_nearer_to_another(q, square[i], blob);
            const double counts = static_cast<double>(value);
            const Point point{static_cast<std::int32_t>(r), static_cast<std::int32_t>(box[2] + i),
                              static_cast<float>(correction[i]), counts, {q0[i], q1[i], q2[i]}};
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
                                      double, Gathered &);
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
