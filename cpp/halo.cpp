// Thermal diffuse halos of a virtual crystal: S = Σ_n Qᵀ(Γ + n²a)⁻¹Q summed over nodes, sub-steps and mosaic blocks.
// q without 2π, C in GPa, a = ρ(kT/ħ)² in GPa Å⁻². Independent of the engines that fit.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "wide.h"

namespace py = pybind11;

#if defined(__GNUC__)
#define TDS2EL_INLINE inline __attribute__((always_inline))
#else
#define TDS2EL_INLINE inline
#endif

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Matrix = std::array<double, 9>;
using Vector = std::array<double, 3>;

Vector times(const Matrix &m, const Vector &v) {
    return {m[0] * v[0] + m[1] * v[1] + m[2] * v[2], m[3] * v[0] + m[4] * v[1] + m[5] * v[2],
            m[6] * v[0] + m[7] * v[1] + m[8] * v[2]};
}

Matrix times(const Matrix &a, const Matrix &b) {
    Matrix c{};
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) c[3 * i + j] += a[3 * i + k] * b[3 * k + j];
    return c;
}

double norm(const Vector &v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

// Hurwitz ζ(s, first) for first = 1, 2, …: the sum itself, then Euler-Maclaurin from `start` on.
double hurwitz_zeta(int s, int first) {
    const int start = std::max(first, 20);
    double sum = 0;
    for (int n = start - 1; n >= first; --n) sum += std::pow(n, -s);
    const double x = start;
    const double correction = 0.5 + s / (12 * x) - s * (s + 1.0) * (s + 2.0) / (720 * x * x * x);
    return sum + std::pow(x, 1 - s) / (s - 1) + correction * std::pow(x, -s);
}

constexpr int kTileEdge = 16;
constexpr int kBatch = kTileEdge * kTileEdge;  // pixels of a tile, small enough for the first cache

template <typename T> struct Batch {
    T x[kBatch], y[kBatch], z[kBatch];
};

// What S needs besides Q and q, in the precision T of the pixels.
template <typename T> struct Crystal {
    T christoffel[6][6];  // Γ (xx yy zz yz xz xy) from the products of q (xx yy zz yz xz xy)
    T thermal;            // a
    T softening;          // added to Γ's diagonal: keeps the centre of a halo finite
    int terms;            // N: explicit terms |n| <= N
    T tail[3];            // 2 (-1)^k ζ(2k+2, N+1) / a^{k+1}

    Crystal(const double *c, double a, double soft, int explicit_terms)
        : thermal(T(a)), softening(T(soft)), terms(explicit_terms) {
        const int voigt[3][3] = {{0, 5, 4}, {5, 1, 3}, {4, 3, 2}};
        const int pairs[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};
        for (int row = 0; row < 6; ++row) {
            const int i = pairs[row][0], k = pairs[row][1];
            for (int column = 0; column < 6; ++column) {
                const int j = pairs[column][0], l = pairs[column][1];
                double sum = c[6 * voigt[i][j] + voigt[k][l]];
                if (j != l) sum += c[6 * voigt[i][l] + voigt[k][j]];
                christoffel[row][column] = T(sum);
            }
        }
        double power = a;
        for (int k = 0; k < 3; ++k, power *= a)
            tail[k] = T(2 * (k % 2 ? -1 : 1) * hurwitz_zeta(2 * k + 2, terms + 1) / power);
    }

    // S of a batch of points Q = G + q, one pass per term so that the compiler vectorises over points.
    TDS2EL_INLINE void strength(const Batch<T> &q, const Batch<T> &Q, int count, T *out) const {
        T g[6][kBatch];
        for (int i = 0; i < count; ++i) {
            const T qx = q.x[i], qy = q.y[i], qz = q.z[i], Qx = Q.x[i], Qy = Q.y[i], Qz = Q.z[i];
            const T products[6] = {qx * qx, qy * qy, qz * qz, qy * qz, qx * qz, qx * qy};
            T gamma[6];
            for (int row = 0; row < 6; ++row) {
                gamma[row] = christoffel[row][0] * products[0];
                for (int column = 1; column < 6; ++column) gamma[row] += christoffel[row][column] * products[column];
                g[row][i] = gamma[row];
            }
            const T gx = gamma[0] * Qx + gamma[5] * Qy + gamma[4] * Qz;
            const T gy = gamma[5] * Qx + gamma[1] * Qy + gamma[3] * Qz;
            const T gz = gamma[4] * Qx + gamma[3] * Qy + gamma[2] * Qz;
            out[i] = tail[0] * (Qx * Qx + Qy * Qy + Qz * Qz) + tail[1] * (Qx * gx + Qy * gy + Qz * gz) +
                     tail[2] * (gx * gx + gy * gy + gz * gz);
        }
        for (int n = 0; n <= terms; ++n) {
            const T shift = T(n) * T(n) * thermal + softening, multiplicity = n == 0 ? T(1) : T(2);
            for (int i = 0; i < count; ++i) {
                const T Qx = Q.x[i], Qy = Q.y[i], Qz = Q.z[i];
                const T xx = g[0][i] + shift, yy = g[1][i] + shift, zz = g[2][i] + shift;
                const T yz = g[3][i], xz = g[4][i], xy = g[5][i];
                const T axx = yy * zz - yz * yz, ayy = xx * zz - xz * xz, azz = xx * yy - xy * xy;
                const T ayz = xy * xz - xx * yz, axz = xy * yz - yy * xz, axy = xz * yz - zz * xy;
                const T determinant = xx * axx + xy * axy + xz * axz;
                const T form = axx * Qx * Qx + ayy * Qy * Qy + azz * Qz * Qz +
                               T(2) * (ayz * Qy * Qz + axz * Qx * Qz + axy * Qx * Qy);
                out[i] += multiplicity * form / determinant;
            }
        }
    }
};

// What the elastic limit is to be multiplied by, from simulate/lattice/halo_tables.py: cubic B-splines in a direction
// (u, v) of three faces and the signed distance r along it.
struct Ratios {
    const float *coefficients = nullptr;  // (3, size, size, size); none: 1 everywhere
    int size = 0, spare = 0;
    float radius = 0;  // of the last place that is not spare

    float at(const float *q) const {
        int face = 0;
        for (int i = 1; i < 3; ++i)
            if (std::abs(q[i]) > std::abs(q[face])) face = i;
        const float main = q[face];
        if (main == 0.0f) return 1.0f;
        const float length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]);
        const float place[3] = {q[(face + 1) % 3] / main, q[(face + 2) % 3] / main, std::copysign(length, main) / radius};
        const float half = 0.5f * float(size - 1 - 2 * spare), middle = 0.5f * float(size - 1);
        int first[3];
        float weights[3][4];
        for (int axis = 0; axis < 3; ++axis) {
            const float x = place[axis] * half + middle;
            first[axis] = std::min(std::max(int(x) - 1, 0), size - 4);
            const float t = x - float(first[axis] + 1), s = 1.0f - t;
            weights[axis][0] = s * s * s / 6.0f;
            weights[axis][1] = (4.0f - 6.0f * t * t + 3.0f * t * t * t) / 6.0f;
            weights[axis][2] = (4.0f - 6.0f * s * s + 3.0f * s * s * s) / 6.0f;
            weights[axis][3] = t * t * t / 6.0f;
        }
        float sum = 0;
        for (int i = 0; i < 4; ++i)
            for (int j = 0; j < 4; ++j) {
                const std::ptrdiff_t row = (std::ptrdiff_t(face) * size + first[0] + i) * size + first[1] + j;
                const float *c = coefficients + row * size + first[2];
                float line = 0;
                for (int k = 0; k < 4; ++k) line += weights[2][k] * c[k];
                sum += weights[0][i] * weights[1][j] * line;
            }
        return sum;
    }
};

// One node seen from one tile in one orientation: q = rotation · d + offset for a pixel at d from the tile's centre.
struct View {
    float rotation[9], offset[3], node[3];
    float strength;             // f_G times the weight of this orientation
    float inner2, outer2;       // squares of the radii between which the halo fades
    Ratios ratios;
};

TDS2EL_WIDE void add_view(const Crystal<float> &crystal, const View &v, const Batch<float> &d, int count, float *sum) {
    Batch<float> q, Q;
    float weight[kBatch], S[kBatch];
    const float span = 1.0f / (v.outer2 - v.inner2);
    for (int i = 0; i < count; ++i) {
        q.x[i] = v.rotation[0] * d.x[i] + v.rotation[1] * d.y[i] + v.rotation[2] * d.z[i] + v.offset[0];
        q.y[i] = v.rotation[3] * d.x[i] + v.rotation[4] * d.y[i] + v.rotation[5] * d.z[i] + v.offset[1];
        q.z[i] = v.rotation[6] * d.x[i] + v.rotation[7] * d.y[i] + v.rotation[8] * d.z[i] + v.offset[2];
        Q.x[i] = v.node[0] + q.x[i], Q.y[i] = v.node[1] + q.y[i], Q.z[i] = v.node[2] + q.z[i];
        float fade = (v.outer2 - (q.x[i] * q.x[i] + q.y[i] * q.y[i] + q.z[i] * q.z[i])) * span;
        fade = fade < 0.0f ? 0.0f : fade;
        fade = fade > 1.0f ? 1.0f : fade;
        weight[i] = v.strength * fade * fade * (3.0f - 2.0f * fade);
    }
    crystal.strength(q, Q, count, S);
    if (v.ratios.coefficients)
        for (int i = 0; i < count; ++i)
            if (weight[i] > 0.0f) {
                const float at[3] = {q.x[i], q.y[i], q.z[i]};
                S[i] *= v.ratios.at(at);
            }
    for (int i = 0; i < count; ++i) sum[i] += weight[i] * S[i];
}

TDS2EL_WIDE void batch_strength(const Crystal<double> &crystal, const Batch<double> &q, const Batch<double> &Q,
                                int count, double *out) {
    crystal.strength(q, Q, count, out);
}

Matrix matrix_at(const double *data, py::ssize_t index) {
    Matrix m;
    std::copy_n(data + 9 * index, 9, m.begin());
    return m;
}

void expect(bool good, const char *what) {
    if (!good) throw py::value_error(what);
}

Doubles strength_of_points(const Doubles &Q, const Doubles &q, const Doubles &stiffness, double thermal, int terms) {
    expect(Q.ndim() == 2 && Q.shape(1) == 3 && q.ndim() == 2 && q.shape(1) == 3 && Q.shape(0) == q.shape(0),
           "Q and q must have the shape (n, 3)");
    expect(stiffness.size() == 36 && thermal > 0 && terms >= 0, "stiffness is (6, 6), thermal > 0, terms >= 0");
    Doubles out(Q.shape(0));
    double *result = out.mutable_data();
    const py::ssize_t count = Q.shape(0);
    const Crystal<double> crystal(stiffness.data(), thermal, 0.0, terms);
    py::gil_scoped_release release;
    for (py::ssize_t start = 0; start < count; start += kBatch) {
        const int n = int(std::min<py::ssize_t>(kBatch, count - start));
        Batch<double> batch_q, batch_Q;
        for (int i = 0; i < n; ++i) {
            const double *a = q.data() + 3 * (start + i), *b = Q.data() + 3 * (start + i);
            batch_q.x[i] = a[0], batch_q.y[i] = a[1], batch_q.z[i] = a[2];
            batch_Q.x[i] = b[0], batch_Q.y[i] = b[1], batch_Q.z[i] = b[2];
        }
        batch_strength(crystal, batch_q, batch_Q, n, result + start);
    }
    return out;
}

// Explicit terms so that the tail's first neglected term is below 1e-4 of S₀ where Γ/a reaches `ratio`.
int explicit_terms(double ratio) {
    int n = 0;
    while (n < 200 && 2 * hurwitz_zeta(8, n + 1) * std::pow(ratio, 4) > 1e-4) ++n;
    return n;
}

// Intensity of one frame: halos and Bragg peaks of all nodes. See simulate/expectation.py for the meaning of the arguments.
Doubles scattering_image(const Doubles &q_lab, const Doubles &lab_to_crystal, const Doubles &blocks,
                         const Doubles &block_weights, const Doubles &nodes, const Doubles &halo_factors,
                         const Doubles &peak_heights, const Doubles &peak_precisions, double peak_reach,
                         const Doubles &stiffness, double thermal, double cut_radius, double fade_radius,
                         double near_angle, const Floats &ratios, int spare) {
    expect(q_lab.ndim() == 3 && q_lab.shape(2) == 3, "q_lab must have the shape (rows, columns, 3)");
    expect(lab_to_crystal.ndim() == 3 && lab_to_crystal.shape(0) % 2 == 1, "an odd number of sub-steps is needed");
    expect(nodes.ndim() == 2 && nodes.shape(1) == 3, "nodes must have the shape (n, 3)");
    const py::ssize_t n_nodes = nodes.shape(0), n_steps = lab_to_crystal.shape(0), n_blocks = block_weights.size();
    expect(halo_factors.size() == n_nodes && peak_heights.size() == n_nodes && peak_precisions.size() == 9 * n_nodes,
           "every node needs a halo factor, a peak height and a precision matrix");
    expect(blocks.size() == 9 * n_blocks && stiffness.size() == 36, "blocks are (m, 3, 3), stiffness is (6, 6)");
    const bool exact = ratios.size() > 0;
    expect(!exact || (ratios.ndim() == 5 && ratios.shape(0) == n_nodes && ratios.shape(1) == 3 &&
                      ratios.shape(2) == ratios.shape(4) && ratios.shape(3) == ratios.shape(4) &&
                      ratios.shape(4) >= 5 + 2 * spare && spare >= 1),
           "ratios are (n, 3, size, size, size) with at least one spare place on either side");
    const py::ssize_t rows = q_lab.shape(0), columns = q_lab.shape(1);
    Doubles out({rows, columns});
    double *image = out.mutable_data();
    const double *lab = q_lab.data();
    const float *ratio_data = exact ? ratios.data() : nullptr;
    const py::ssize_t size = exact ? ratios.shape(4) : 0;

    py::gil_scoped_release release;
    // An estimate of Γ's largest eigenvalue over a, from the diagonal of C: it only decides on the number of terms.
    double stiffest = 0;
    for (int i = 0; i < 6; ++i) stiffest = std::max(stiffest, std::abs(stiffness.data()[7 * i]));
    const double ratio_per_q2 = 1.5 * stiffest / thermal;
    const double softening = stiffest * 1e-12;
    std::vector<Crystal<float>> crystals;  // index: explicit terms
    const int most_terms = explicit_terms(ratio_per_q2 * fade_radius * fade_radius);
    for (int n = 0; n <= most_terms; ++n) crystals.emplace_back(stiffness.data(), thermal, softening, n);
    std::vector<double> term_radius(most_terms + 1, fade_radius);  // crystals[n] serves |q| up to here
    for (int n = 0; n < most_terms; ++n)
        term_radius[n] = std::sqrt(std::pow(0.5e-4 / hurwitz_zeta(8, n + 1), 0.25) / ratio_per_q2);

    std::vector<Matrix> steps, orientations;
    for (py::ssize_t s = 0; s < n_steps; ++s) steps.push_back(matrix_at(lab_to_crystal.data(), s));
    for (const Matrix &step : steps)
        for (py::ssize_t b = 0; b < n_blocks; ++b) orientations.push_back(times(matrix_at(blocks.data(), b), step));
    const Matrix &middle = steps[n_steps / 2];

    std::vector<Vector> G(n_nodes);
    for (py::ssize_t n = 0; n < n_nodes; ++n) std::copy_n(nodes.data() + 3 * n, 3, G[n].begin());

    Batch<float> from_centre;
    float sum[kBatch];
    for (py::ssize_t row0 = 0; row0 < rows; row0 += kTileEdge) {
        for (py::ssize_t column0 = 0; column0 < columns; column0 += kTileEdge) {
            const py::ssize_t row1 = std::min(row0 + kTileEdge, rows), column1 = std::min(column0 + kTileEdge, columns);
            const double *centre_pixel = lab + 3 * ((row0 + row1) / 2 * columns + (column0 + column1) / 2);
            const Vector centre = {centre_pixel[0], centre_pixel[1], centre_pixel[2]};
            int count = 0;
            double tile_radius = 0;
            for (py::ssize_t row = row0; row < row1; ++row)
                for (py::ssize_t column = column0; column < column1; ++column, ++count) {
                    const double *Q0 = lab + 3 * (row * columns + column);
                    const Vector d = {Q0[0] - centre[0], Q0[1] - centre[1], Q0[2] - centre[2]};
                    from_centre.x[count] = float(d[0]), from_centre.y[count] = float(d[1]);
                    from_centre.z[count] = float(d[2]);
                    tile_radius = std::max(tile_radius, norm(d));
                    sum[count] = 0;
                }
            const Vector Q_centre = times(middle, centre);
            for (py::ssize_t n = 0; n < n_nodes; ++n) {
                const Vector q_centre = {Q_centre[0] - G[n][0], Q_centre[1] - G[n][1], Q_centre[2] - G[n][2]};
                const double distance = norm(q_centre);
                if (distance > fade_radius + tile_radius) continue;
                // Far from a node a halo is smooth: the middle of the frame stands for all its orientations.
                const bool near = distance - tile_radius < near_angle * norm(G[n]);
                int terms = 0;
                while (terms < most_terms && distance + tile_radius > term_radius[terms]) ++terms;
                View view;
                view.inner2 = float(cut_radius * cut_radius), view.outer2 = float(fade_radius * fade_radius);
                for (int i = 0; i < 3; ++i) view.node[i] = float(G[n][i]);
                if (exact) view.ratios = {ratio_data + n * 3 * size * size * size, int(size), spare, float(fade_radius)};
                const std::size_t n_views = near ? orientations.size() : 1;
                for (std::size_t o = 0; o < n_views; ++o) {
                    const Matrix &m = near ? orientations[o] : middle;
                    const Vector Q = times(m, centre);
                    for (int i = 0; i < 9; ++i) view.rotation[i] = float(m[i]);
                    for (int i = 0; i < 3; ++i) view.offset[i] = float(Q[i] - G[n][i]);
                    const double weight = near ? block_weights.data()[o % n_blocks] / double(n_steps) : 1.0;
                    view.strength = float(halo_factors.data()[n] * weight);
                    add_view(crystals[terms], view, from_centre, count, sum);
                }
                if (distance > peak_reach + tile_radius) continue;
                const Matrix precision = matrix_at(peak_precisions.data(), n);
                for (const Matrix &step : steps)
                    for (int i = 0; i < count; ++i) {
                        const Vector Q0 = {centre[0] + from_centre.x[i], centre[1] + from_centre.y[i],
                                           centre[2] + from_centre.z[i]};
                        const Vector Q = times(step, Q0);
                        const Vector q = {Q[0] - G[n][0], Q[1] - G[n][1], Q[2] - G[n][2]};
                        const Vector p = times(precision, q);
                        const double exponent = 0.5 * (q[0] * p[0] + q[1] * p[1] + q[2] * p[2]);
                        sum[i] += float(peak_heights.data()[n] / double(n_steps) * std::exp(-exponent));
                    }
            }
            count = 0;
            for (py::ssize_t row = row0; row < row1; ++row)
                for (py::ssize_t column = column0; column < column1; ++column, ++count)
                    image[row * columns + column] = sum[count];
        }
    }
    return out;
}

}  // namespace

void register_halo(py::module_ &m) {
    m.def("halo_strength", &strength_of_points, py::arg("Q"), py::arg("q"), py::arg("stiffness"), py::arg("thermal"),
          py::arg("terms"), "S of points (n, 3), in 1/GPa.");
    m.def("scattering_image", &scattering_image, py::arg("q_lab"), py::arg("lab_to_crystal"), py::arg("blocks"),
          py::arg("block_weights"), py::arg("nodes"), py::arg("halo_factors"), py::arg("peak_heights"),
          py::arg("peak_precisions"), py::arg("peak_reach"), py::arg("stiffness"), py::arg("thermal"),
          py::arg("cut_radius"), py::arg("fade_radius"), py::arg("near_angle"), py::arg("ratios"), py::arg("spare"),
          "Intensity (rows, columns) of one frame: halos and Bragg peaks of all nodes.");
}
