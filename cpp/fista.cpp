// Interpolates scattered points on a cube: x* = argmin ½‖Ax − y‖² + β‖∇x‖² by FISTA (Beck & Teboulle 2009) with
// restarts. A, trilinear interpolation at the points, enters only as AᵀA, which couples the 27 neighbours of a node
// and is assembled once, and as Aᵀy: an iteration costs nothing per point.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "team.h"
#include "wide.h"

namespace py = pybind11;

namespace {

template <class T> using dense = py::array_t<T, py::array::c_style | py::array::forcecast>;
using Axes = std::array<std::int64_t, 3>;

// Functions on rows go in steps of so many values, and a row has as many zeros before and after.
constexpr int lanes = 16;

// Rows of floats, zero at first; what is never written takes no memory.
class Rows {
  public:
    Rows() = default;
    Rows(std::int64_t n, std::int64_t pitch)
        : pitch_(pitch), size_(static_cast<std::size_t>(n * pitch + 3 * lanes)),
          data_(static_cast<float *>(std::calloc(size_, sizeof(float)))) {
        if (!data_) throw std::bad_alloc();
        void *start = data_.get() + lanes;
        std::size_t space = 2 * lanes * sizeof(float);
        first_ = static_cast<float *>(std::align(lanes * sizeof(float), lanes * sizeof(float), start, space));
    }
    float *row(std::int64_t r) const { return first_ + r * pitch_; }
    void clear() { std::fill_n(data_.get(), size_, 0.0F); }

  private:
    struct Free {
        void operator()(float *p) const { std::free(p); }
    };
    std::int64_t pitch_ = 0;
    std::size_t size_ = 0;
    std::unique_ptr<float[], Free> data_;
    float *first_ = nullptr;
};

// AᵀA is symmetric: a node stores its coupling to itself and to the 13 neighbours that follow it in memory. The 14
// kinds of couplings alternate after every `lanes` nodes of a row.
constexpr int n_couplings = 14;
constexpr int coupling(int di, int dj, int dk) { return di ? 6 + 3 * dj + dk + 3 : dj ? 3 + dk : dk; }
static_assert(coupling(0, 0, 0) == 0 && coupling(0, 0, 1) == 1 && coupling(0, 1, -1) == 2 && coupling(0, 1, 1) == 4 &&
              coupling(1, -1, -1) == 5 && coupling(1, 1, 1) == 13);

// A cell's part of AᵀA, 36 products of its 8 trilinear weights, has only 27 different sums: along each axis
// (1−f)², f(1−f) or f². Then follow the number of points and 8 sums of weight·y per column.
constexpr int n_moments = 27;

constexpr std::int64_t prefetch_distance = 16;

// 27 sums in double over the points of one cell.
TDS2EL_WIDE void add_moments(const double *f, double *sums) {
    double p[3][3];
    for (int a = 0; a < 3; ++a) {
        const double g = 1 - f[a];
        p[a][0] = g * g;
        p[a][1] = f[a] * g;
        p[a][2] = f[a] * f[a];
    }
    double plane[9];
    for (int b = 0; b < 3; ++b)
        for (int c = 0; c < 3; ++c) plane[3 * b + c] = p[1][b] * p[2][c];
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 9; ++b) sums[9 * a + b] += p[0][a] * plane[b];
}

// So many values together; GCC and Clang split them as the machine needs.
using Lanes = float __attribute__((vector_size(lanes * sizeof(float))));
using LanesInMemory = float __attribute__((vector_size(lanes * sizeof(float)), aligned(alignof(float)), may_alias));
const LanesInMemory &at(const float *p) { return *reinterpret_cast<const LanesInMemory *>(p); }
LanesInMemory &at(float *p) { return *reinterpret_cast<LanesInMemory *>(p); }

// Where the rows are that row (i, j) couples to: following it in memory (i, j+1), (i+1, j−1), (i+1, j), (i+1, j+1), and
// preceding it, with the opposite shifts. Couplings are those of `own`, or of the preceding row.
struct CoupledRows {
    const float *own, *x;
    std::array<const float *, 4> x_following, preceding, x_preceding;
};

// out += AᵀA x along a row. Memory is what limits it: each block of couplings is read as it lies there, once for the
// row and once for each following one; what a node gives to its neighbours k+1 and k−1 waits in `up` and `down`.
TDS2EL_WIDE void add_couplings(std::int64_t first, std::int64_t end, const CoupledRows &rows, float *__restrict up,
                               float *__restrict down, float *__restrict out) {
    up[first - 1] = 0;
    down[end] = 0;
    for (std::int64_t k = first; k < end; k += lanes) {
        const float *c = rows.own + k * n_couplings, *x = rows.x + k;
        Lanes sum = at(out + k) + at(c) * at(x) + at(c + lanes) * at(x + 1);
        Lanes to_up = at(c + lanes) * at(x), to_down = {};
        for (std::size_t r = 0; r < 4; ++r) {
            const float *f = c + (2 + 3 * r) * lanes, *xf = rows.x_following[r] + k;
            sum += at(f) * at(xf - 1) + at(f + lanes) * at(xf) + at(f + 2 * lanes) * at(xf + 1);
            const float *p = rows.preceding[r] + k * n_couplings + (2 + 3 * r) * lanes;
            const Lanes xp = at(rows.x_preceding[r] + k);
            to_down += at(p) * xp;
            sum += at(p + lanes) * xp;
            to_up += at(p + 2 * lanes) * xp;
        }
        at(out + k) = sum;
        at(up + k) = to_up;
        at(down + k) = to_down;
    }
    for (std::int64_t k = first; k < end; ++k) out[k] += up[k - 1] + down[k + 1];
}

// out = 2β ∇ᵀ∇x − b along a row; a missing neighbour row is given as x itself, beyond the ends stand copies.
TDS2EL_WIDE void smooth_row(std::int64_t n, float twice_beta, const float *__restrict x, const float *__restrict i_low,
                            const float *__restrict i_high, const float *__restrict j_low,
                            const float *__restrict j_high, const float *__restrict b, float *__restrict out) {
    for (std::int64_t k = 0; k < n; ++k) {
        const float c = x[k];
        const float sum = ((c - i_low[k]) + (c - i_high[k])) + ((c - j_low[k]) + (c - j_high[k])) +
                          ((c - x[k - 1]) + (c - x[k + 1]));
        out[k] = twice_beta * sum - b[k];
    }
}

// The step: v ← m v − h (g + m (g − g_before)), x ← x + v.
TDS2EL_WIDE void step_row(std::int64_t n, float momentum, float step, const float *__restrict g,
                          const float *__restrict g_before, float *__restrict v, float *__restrict x) {
    for (std::int64_t k = 0; k < n; ++k) {
        v[k] = momentum * v[k] - step * (g[k] + momentum * (g[k] - g_before[k]));
        x[k] += v[k];
    }
}

// Σ v (a + b), summed in an order that is the same everywhere. v is zero beyond the row.
TDS2EL_WIDE double dot_sum(std::int64_t n, const float *__restrict v, const float *__restrict a,
                           const float *__restrict b) {
    double sums[lanes] = {};
    for (std::int64_t k = 0; k < n; k += lanes)
        for (int l = 0; l < lanes; ++l)
            sums[l] += static_cast<double>(v[k + l]) * (static_cast<double>(a[k + l]) + b[k + l]);
    double sum = 0;
    for (const double s : sums) sum += s;
    return sum;
}

class CubeSolver {
  public:
    CubeSolver(const dense<double> &q, const dense<float> &values, double half_width, std::int64_t n, double beta,
               int threads)
        : n_(n), pitch_((n + lanes - 1) / lanes * lanes + lanes), half_width_(half_width), beta_(beta),
          threads_(threads), team_(threads) {
        if (n < 2 || n > 2048) throw std::invalid_argument("a cube has 2 to 2048 nodes per edge");
        if (!(half_width > 0) || !std::isfinite(half_width)) throw std::invalid_argument("half_width must be positive");
        if (!(beta >= 0) || !std::isfinite(beta)) throw std::invalid_argument("beta must be 0 or positive");
        if (threads < 1) throw std::invalid_argument("at least one thread is needed");
        if (q.ndim() != 2 || q.shape(1) != 3) throw std::invalid_argument("q must have shape (points, 3)");
        if (values.ndim() != 2 || values.shape(0) != q.shape(0))
            throw std::invalid_argument("values must have shape (points, columns), with a row for every q");
        if (q.shape(0) > std::numeric_limits<std::uint32_t>::max()) throw std::invalid_argument("too many points");
        columns_ = values.shape(1);
        const std::int64_t rows = n * n;
        nearest_.resize(static_cast<std::size_t>(rows * n));
        couplings_ = Rows(rows, (pitch_ - lanes) * n_couplings);
        zeros_ = Rows(1, pitch_);
        waiting_ = Rows(2 * threads, pitch_);
        b_ = Rows(rows * columns_, pitch_);
        for (Rows *state : {&x_, &v_, &gradient_, &other_}) *state = Rows(rows, pitch_);
        spans_.resize(static_cast<std::size_t>(rows));
        py::gil_scoped_release release;
        assemble(q.data(), values.data(), q.shape(0));
        find_spans();
        bound_ = gershgorin();
    }

    void start(std::int64_t column) {
        if (column < 0 || column >= columns_) throw std::invalid_argument("there is no such column");
        column_ = column;
        restarts_ = 0;
        momentum_ = 0;
        t_ = 1;
        for (Rows *state : {&x_, &v_}) state->clear();
        for (std::int64_t r = 0; r < n_ * n_; ++r)
            for (Rows *g : {&gradient_, &other_})
                std::transform(b_row(r), b_row(r) + n_, g->row(r), [](float b) { return -b; });
    }

    void iterate(int count) {
        if (column_ < 0) throw std::invalid_argument("start() comes first");
        py::gil_scoped_release release;
        for (int i = 0; i < count && bound_ > 0; ++i) iterate();
    }

    // ½‖Ax − y‖² + β‖∇x‖² = ½ x·(g − b) + ½ y·y with the gradient g at x.
    double objective() const {
        if (column_ < 0) throw std::invalid_argument("start() comes first");
        double sum = 0;
        for (std::int64_t r = 0; r < n_ * n_; ++r)
            for (std::int64_t k = 0; k < n_; ++k)
                sum += static_cast<double>(x_.row(r)[k]) * (static_cast<double>(gradient_.row(r)[k]) - b_row(r)[k]);
        return 0.5 * (sum + squares_[static_cast<std::size_t>(column_)]);
    }

    py::array_t<float> cube() const {
        py::array_t<float> result({n_, n_, n_});
        for (std::int64_t r = 0; r < n_ * n_; ++r) std::copy_n(x_.row(r), n_, result.mutable_data() + r * n_);
        return result;
    }

    py::array_t<std::int32_t> points_per_node() const {
        return py::array_t<std::int32_t>({n_, n_, n_}, nearest_.data());
    }

    std::int64_t columns() const { return columns_; }
    double bound() const { return bound_; }
    std::int64_t restarts() const { return restarts_; }
    std::int64_t outside() const { return outside_; }
    std::int64_t not_finite() const { return not_finite_; }

  private:
    struct Span {  // of nodes, in whole lanes
        std::int64_t first, end;
    };

    float &coupling_of(std::int64_t row, std::int64_t k, int which) const {
        return couplings_.row(row)[(k / lanes * n_couplings + which) * lanes + k % lanes];
    }
    const float *b_row(std::int64_t row) const { return b_.row(column_ * n_ * n_ + row); }

    // Cell and place in it, 0 to 1 along each axis, of a point inside the cube.
    void locate(const double *q, Axes &cell, double *f) const {
        const double scale = static_cast<double>(n_ - 1) / (2 * half_width_);
        for (std::size_t a = 0; a < 3; ++a) {
            const double u = std::clamp((q[a] + half_width_) * scale, 0.0, static_cast<double>(n_ - 1));
            cell[a] = std::min(static_cast<std::int64_t>(u), n_ - 2);
            f[a] = u - static_cast<double>(cell[a]);
        }
    }

    // Sorts the points by layer of cells, then adds layer by layer; layers that share a plane of nodes never run
    // together. Every sum has a fixed order, so the result does not depend on the number of threads.
    void assemble(const double *q, const float *values, std::int64_t n_points) {
        constexpr std::uint16_t dropped = 0xFFFF;
        constexpr std::int64_t chunk = 1 << 16;
        const std::int64_t layers = n_ - 1, chunks = (n_points + chunk - 1) / chunk;
        std::vector<std::uint16_t> layer_of(static_cast<std::size_t>(n_points));
        std::vector<std::int64_t> offsets(static_cast<std::size_t>(chunks * layers));
        std::atomic<std::int64_t> outside{0}, not_finite{0};
        team_.loop(0, 1, chunks, [&](std::int64_t c, int) {
            for (std::int64_t p = c * chunk; p < std::min(n_points, (c + 1) * chunk); ++p) {
                const double *v = q + 3 * p;
                const float *y = values + columns_ * p;
                std::uint16_t &layer = layer_of[static_cast<std::size_t>(p)] = dropped;
                if (!(std::isfinite(v[0]) && std::isfinite(v[1]) && std::isfinite(v[2])) ||
                    !std::all_of(y, y + columns_, [](float value) { return std::isfinite(value); })) {
                    ++not_finite;
                } else if (std::max({std::abs(v[0]), std::abs(v[1]), std::abs(v[2])}) > half_width_) {
                    ++outside;
                } else {
                    Axes cell;
                    double f[3];
                    locate(v, cell, f);
                    layer = static_cast<std::uint16_t>(cell[0]);
                    ++offsets[static_cast<std::size_t>(c * layers + layer)];
                }
            }
        });
        outside_ = outside;
        not_finite_ = not_finite;
        std::vector<std::int64_t> starts(static_cast<std::size_t>(layers + 1), 0);
        std::int64_t total = 0;
        for (std::int64_t l = 0; l < layers; ++l) {
            for (std::int64_t c = 0; c < chunks; ++c) {
                std::int64_t &offset = offsets[static_cast<std::size_t>(c * layers + l)];
                total += std::exchange(offset, total);
            }
            starts[static_cast<std::size_t>(l + 1)] = total;
        }
        std::vector<std::uint32_t> order(static_cast<std::size_t>(total));
        team_.loop(0, 1, chunks, [&](std::int64_t c, int) {
            for (std::int64_t p = c * chunk; p < std::min(n_points, (c + 1) * chunk); ++p) {
                const std::uint16_t layer = layer_of[static_cast<std::size_t>(p)];
                if (layer == dropped) continue;
                std::int64_t &next = offsets[static_cast<std::size_t>(c * layers + layer)];
                order[static_cast<std::size_t>(next++)] = static_cast<std::uint32_t>(p);
            }
        });

        const std::int64_t per_cell = n_moments + 1 + 8 * columns_;
        std::vector<std::vector<double>> sums(static_cast<std::size_t>(threads_));
        for (auto &s : sums) s.resize(static_cast<std::size_t>(layers * layers * per_cell));
        std::vector<double> squares(static_cast<std::size_t>(layers * columns_), 0.0);
        for (std::int64_t parity = 0; parity < 2; ++parity)
            team_.loop(parity, 2, layers, [&](std::int64_t l, int thread) {
                double *cells = sums[static_cast<std::size_t>(thread)].data();
                const auto *first = order.data() + starts[static_cast<std::size_t>(l)];
                const auto *last = order.data() + starts[static_cast<std::size_t>(l + 1)];
                for (const auto *p = first; p < last; ++p) {
                    const std::int64_t ahead = last - p > prefetch_distance ? p[prefetch_distance] : *p;
                    __builtin_prefetch(q + 3 * ahead);
                    __builtin_prefetch(values + columns_ * ahead);
                    add_point(q + 3 * std::int64_t{*p}, values + columns_ * std::int64_t{*p}, cells, per_cell,
                              squares.data() + l * columns_);
                }
                for (std::int64_t j = 0; j < layers; ++j)
                    for (std::int64_t k = 0; k < layers; ++k) {
                        double *cell = cells + (j * layers + k) * per_cell;
                        if (cell[n_moments] == 0) continue;
                        fold_cell(l, j, k, cell);
                        std::fill_n(cell, per_cell, 0.0);
                    }
            });
        squares_.assign(static_cast<std::size_t>(columns_), 0.0);
        for (std::size_t i = 0; i < squares.size(); ++i) squares_[i % squares_.size()] += squares[i];
    }

    void add_point(const double *q, const float *y, double *cells, std::int64_t per_cell, double *squares) {
        Axes cell;
        double f[3];
        locate(q, cell, f);
        Axes near;
        for (std::size_t a = 0; a < 3; ++a) near[a] = cell[a] + (f[a] >= 0.5);
        ++nearest_[static_cast<std::size_t>((near[0] * n_ + near[1]) * n_ + near[2])];
        double *sums = cells + (cell[1] * (n_ - 1) + cell[2]) * per_cell;
        add_moments(f, sums);
        sums += n_moments;
        *sums++ += 1;
        for (std::int64_t c = 0; c < columns_; ++c, sums += 8) {
            const double value = y[c];
            squares[c] += value * value;
            const double i_part[2] = {value * (1 - f[0]), value * f[0]}, j_part[2] = {1 - f[1], f[1]};
            for (int corner = 0; corner < 8; ++corner)
                sums[corner] += i_part[corner >> 2] * j_part[corner >> 1 & 1] * (corner & 1 ? f[2] : 1 - f[2]);
        }
    }

    void fold_cell(std::int64_t i, std::int64_t j, std::int64_t k, const double *sums) {
        for (int p = 0; p < 8; ++p) {
            const int pi = p >> 2, pj = p >> 1 & 1, pk = p & 1;
            const std::int64_t row = (i + pi) * n_ + j + pj;
            for (int s = p; s < 8; ++s) {
                const int si = s >> 2, sj = s >> 1 & 1, sk = s & 1;
                coupling_of(row, k + pk, coupling(si - pi, sj - pj, sk - pk)) +=
                    static_cast<float>(sums[9 * (pi + si) + 3 * (pj + sj) + pk + sk]);
            }
            for (std::int64_t c = 0; c < columns_; ++c)
                b_.row(c * n_ * n_ + row)[k + pk] += static_cast<float>(sums[n_moments + 1 + 8 * c + p]);
        }
    }

    // Only nodes with a point in a cell of theirs couple by AᵀA, in either direction.
    void find_spans() {
        for (std::int64_t r = 0; r < n_ * n_; ++r) {
            std::int64_t first = 0, end = n_;
            while (end > 0 && coupling_of(r, end - 1, 0) == 0) --end;
            while (first < end && coupling_of(r, first, 0) == 0) ++first;
            if (first < end) {
                first = std::max<std::int64_t>(first - 1, 0) / lanes * lanes;
                end = (std::min(end + 1, n_) + lanes - 1) / lanes * lanes;
            }
            spans_[static_cast<std::size_t>(r)] = {first, end};
        }
    }

    // The largest row sum of |AᵀA + 2β∇ᵀ∇|, an upper bound of the largest eigenvalue. All of AᵀA is ≥ 0.
    double gershgorin() const {
        std::vector<double> largest(static_cast<std::size_t>(n_), 0.0);
        team_.loop(0, 1, n_, [&](std::int64_t i, int) {
            double most = 0;
            for (std::int64_t j = 0; j < n_; ++j)
                for (std::int64_t k = 0; k < n_; ++k) most = std::max(most, row_sum({i, j, k}));
            largest[static_cast<std::size_t>(i)] = most;
        });
        return *std::max_element(largest.begin(), largest.end());
    }

    double row_sum(const Axes &node) const {
        const std::int64_t row = node[0] * n_ + node[1], k = node[2];
        double sum = 0;
        // A neighbour along an axis adds |a − 2β|, and 2β to the diagonal.
        const auto linked = [b = 2 * beta_](double a) { return std::abs(a - b) + b; };
        if (coupling_of(row, k, 0) == 0) {
            for (const std::int64_t c : node) sum += ((c > 0) + (c < n_ - 1)) * linked(0);
            return sum;
        }
        const auto inside = [n = n_](std::int64_t i, std::int64_t j, std::int64_t l) {
            return i >= 0 && i < n && j >= 0 && j < n && l >= 0 && l < n;
        };
        sum = coupling_of(row, k, 0);
        for (int which = 1; which < n_couplings; ++which) {
            const int place = which + 13, di = place / 9 - 1, dj = place / 3 % 3 - 1, dk = place % 3 - 1;
            const bool along_axis = std::abs(di) + std::abs(dj) + std::abs(dk) == 1;
            for (const int sign : {1, -1}) {
                if (!inside(node[0] + sign * di, node[1] + sign * dj, k + sign * dk)) continue;
                const double a = sign > 0 ? coupling_of(row, k, which) : coupling_of(row - di * n_ - dj, k - dk, which);
                sum += along_axis ? linked(a) : a;
            }
        }
        return sum;
    }

    void iterate() {
        const auto momentum = static_cast<float>(momentum_), step = static_cast<float>(1 / bound_);
        team_.loop(0, 1, n_, [&](std::int64_t i, int) {
            for (std::int64_t r = i * n_; r < (i + 1) * n_; ++r) {
                step_row(n_, momentum, step, gradient_.row(r), other_.row(r), v_.row(r), x_.row(r));
                close_ends(r);
            }
        });
        // f(x) − f(x before) = ½ (x − x before)·(g + g before): exact for a quadratic, and free of cancellation.
        std::vector<double> rises(static_cast<std::size_t>(n_));
        team_.loop(0, 1, n_, [&](std::int64_t i, int thread) {
            double sum = 0;
            for (std::int64_t r = i * n_; r < (i + 1) * n_; ++r) {
                gradient_row(i, r - i * n_, waiting_.row(2 * thread), waiting_.row(2 * thread + 1), other_.row(r));
                sum += dot_sum(n_, v_.row(r), gradient_.row(r), other_.row(r));
            }
            rises[static_cast<std::size_t>(i)] = sum;
        });
        double rise = 0;
        for (const double r : rises) rise += r;
        if (rise > 0) {
            undo_step();
            ++restarts_;
            t_ = 1;
            momentum_ = 0;
            return;
        }
        std::swap(gradient_, other_);
        const double t = 0.5 * (1 + std::sqrt(1 + 4 * t_ * t_));
        momentum_ = (t_ - 1) / t;
        t_ = t;
    }

    // Back to where the objective was lower, at rest.
    void undo_step() {
        team_.loop(0, 1, n_, [&](std::int64_t i, int) {
            for (std::int64_t r = i * n_; r < (i + 1) * n_; ++r) {
                float *x = x_.row(r), *v = v_.row(r);
                for (std::int64_t k = 0; k < n_; ++k) x[k] -= std::exchange(v[k], 0.0F);
                close_ends(r);
            }
        });
    }

    // Beyond the ends stand copies of the last nodes: no gradient across the faces.
    void close_ends(std::int64_t row) {
        float *x = x_.row(row);
        x[-1] = x[0];
        x[n_] = x[n_ - 1];
    }

    void gradient_row(std::int64_t i, std::int64_t j, float *up, float *down, float *out) const {
        const std::int64_t row = i * n_ + j;
        const float *x = x_.row(row);
        smooth_row(n_, static_cast<float>(2 * beta_), x, i > 0 ? x - n_ * pitch_ : x, i < n_ - 1 ? x + n_ * pitch_ : x,
                   j > 0 ? x - pitch_ : x, j < n_ - 1 ? x + pitch_ : x, b_row(row), out);
        const Span span = spans_[static_cast<std::size_t>(row)];
        if (span.first == span.end) return;
        CoupledRows rows{couplings_.row(row), x, {}, {}, {}};
        constexpr std::array<std::array<int, 2>, 4> following{{{0, 1}, {1, -1}, {1, 0}, {1, 1}}};
        for (std::size_t r = 0; r < following.size(); ++r) {
            const auto [di, dj] = following[r];
            const auto inside = [this](std::int64_t a, std::int64_t b) { return a < n_ && b < n_ && a >= 0 && b >= 0; };
            const std::int64_t step = di * n_ + dj;
            // Couplings to rows beyond the faces are zero; there are none from such rows, so x is.
            const bool is_preceded = inside(i - di, j - dj);
            rows.x_following[r] = inside(i + di, j + dj) ? x_.row(row + step) : x;
            rows.preceding[r] = couplings_.row(is_preceded ? row - step : row);
            rows.x_preceding[r] = is_preceded ? x_.row(row - step) : zeros_.row(0);
        }
        add_couplings(span.first, span.end, rows, up, down, out);
    }

    std::int64_t n_, pitch_, columns_ = 0, column_ = -1;
    double half_width_, beta_;
    int threads_;
    mutable Team team_;
    std::int64_t outside_ = 0, not_finite_ = 0, restarts_ = 0;
    std::vector<std::int32_t> nearest_;
    std::vector<Span> spans_;
    std::vector<double> squares_;
    Rows couplings_, b_, zeros_, waiting_;
    double bound_ = 0, momentum_ = 0, t_ = 1;
    Rows x_, v_, gradient_, other_;  // `other_`: the gradient one iteration before
};

}  // namespace

void register_fista(py::module_ &m) {
    py::class_<CubeSolver>(m, "CubeSolver")
        .def(py::init<const dense<double> &, const dense<float> &, double, std::int64_t, double, int>(), py::kw_only(),
             py::arg("q"), py::arg("values"), py::arg("half_width"), py::arg("n"), py::arg("beta"), py::arg("threads"))
        .def("start", &CubeSolver::start, py::arg("column"))
        .def("iterate", py::overload_cast<int>(&CubeSolver::iterate), py::arg("count"))
        .def("objective", &CubeSolver::objective)
        .def("cube", &CubeSolver::cube)
        .def("points_per_node", &CubeSolver::points_per_node)
        .def_property_readonly("columns", &CubeSolver::columns)
        .def_property_readonly("bound", &CubeSolver::bound)
        .def_property_readonly("restarts", &CubeSolver::restarts)
        .def_property_readonly("outside", &CubeSolver::outside)
        .def_property_readonly("not_finite", &CubeSolver::not_finite);
}
