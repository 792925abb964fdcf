// Point groups and the elastic tensors they leave invariant.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace {

using Matrix3 = std::array<std::array<double, 3>, 3>;
using Matrix6 = std::array<std::array<double, 6>, 6>;
using Array = py::array_t<double, py::array::c_style | py::array::forcecast>;

constexpr std::size_t max_order = 48; // of m-3m, the largest crystallographic point group
constexpr int n_entries = 21;
// Voigt rows and columns of the 21 entries, in the order in which free constants are looked for.
constexpr int row_of[n_entries] = {0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4};
constexpr int column_of[n_entries] = {0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 2, 3, 4, 5, 3, 4, 5, 4, 5, 5};

Matrix3 identity() { return {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}}; }

Matrix3 product(const Matrix3 &a, const Matrix3 &b) {
    Matrix3 c{};
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            for (int k = 0; k < 3; ++k) c[i][j] += a[i][k] * b[k][j];
    return c;
}

bool equal(const Matrix3 &a, const Matrix3 &b, double tolerance) {
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j)
            if (!(std::abs(a[i][j] - b[i][j]) <= tolerance)) return false;
    return true;
}

bool orthogonal(const Matrix3 &a, double tolerance) {
    Matrix3 t{};
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 3; ++j) t[i][j] = a[j][i];
    return equal(product(a, t), identity(), tolerance);
}

std::vector<Matrix3> matrices(const Array &array, const char *name) {
    if (array.ndim() != 3 || array.shape(1) != 3 || array.shape(2) != 3)
        throw std::invalid_argument(std::string(name) + " must have the shape (n, 3, 3)");
    const auto view = array.unchecked<3>();
    std::vector<Matrix3> out(static_cast<std::size_t>(array.shape(0)));
    for (py::ssize_t n = 0; n < array.shape(0); ++n)
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) out[static_cast<std::size_t>(n)][i][j] = view(n, i, j);
    return out;
}

Array close_group(const Array &generators, double tolerance) {
    const auto given = matrices(generators, "generators");
    for (const auto &g : given)
        if (!orthogonal(g, tolerance)) throw std::invalid_argument("a generator is not an orthogonal matrix");
    std::vector<Matrix3> group{identity()};
    // The list grows while it is walked; in a finite group products from one side reach every element.
    for (std::size_t n = 0; n < group.size(); ++n) {
        for (const auto &g : given) {
            const Matrix3 candidate = product(group[n], g);
            bool known = false;
            for (const auto &element : group) known = known || equal(element, candidate, tolerance);
            if (known) continue;
            if (group.size() == max_order)
                throw std::invalid_argument("the generators make more than 48 operations, not a crystallographic point group");
            group.push_back(candidate);
        }
    }
    for (const auto &element : group) {
        const double trace = element[0][0] + element[1][1] + element[2][2];
        if (std::abs(trace - std::round(trace)) > tolerance)
            throw std::invalid_argument("the generators make an axis that no lattice has (not 2-, 3-, 4- or 6-fold)");
    }
    Array out({static_cast<py::ssize_t>(group.size()), py::ssize_t{3}, py::ssize_t{3}});
    auto view = out.mutable_unchecked<3>();
    for (std::size_t n = 0; n < group.size(); ++n)
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) view(static_cast<py::ssize_t>(n), i, j) = group[n][i][j];
    return out;
}

// Bond's matrix M: a stress in Voigt form turns as M s, a stiffness as M C transposed(M).
Matrix6 bond_matrix(const Matrix3 &r) {
    constexpr int first[6] = {0, 1, 2, 1, 0, 0};
    constexpr int second[6] = {0, 1, 2, 2, 2, 1};
    Matrix6 m{};
    for (int a = 0; a < 6; ++a)
        for (int b = 0; b < 6; ++b) {
            const int i = first[a], j = second[a], k = first[b], l = second[b];
            m[a][b] = r[i][k] * r[j][l] + (b < 3 ? 0.0 : r[i][l] * r[j][k]);
        }
    return m;
}

// The projector on the invariants, transposed: row = entry that is given, column = entry of the mean.
using Square = std::array<std::array<double, n_entries>, n_entries>;

Square mean_over_group(const std::vector<Matrix3> &group) {
    Square mean{};
    for (const auto &r : group) {
        const Matrix6 m = bond_matrix(r);
        for (int from = 0; from < n_entries; ++from)
            for (int to = 0; to < n_entries; ++to) {
                const int k = row_of[from], l = column_of[from], i = row_of[to], j = column_of[to];
                mean[from][to] += m[i][k] * m[j][l] + (k == l ? 0.0 : m[i][l] * m[j][k]);
            }
    }
    for (auto &row : mean)
        for (double &x : row) x /= static_cast<double>(group.size());
    return mean;
}

std::pair<std::vector<std::pair<int, int>>, Array> reduce_elastic_tensor(const Array &operations, double tolerance) {
    const auto group = matrices(operations, "operations");
    if (group.empty()) throw std::invalid_argument("a group has at least the identity");
    Square rows = mean_over_group(group);
    // Gauss-Jordan, column by column: the columns with a pivot are the free constants, and the first rows
    // become the basis in which each free constant is 1 in turn and the others are 0.
    std::vector<int> pivots;
    for (int column = 0; column < n_entries; ++column) {
        const std::size_t rank = pivots.size();
        std::size_t best = rank;
        for (std::size_t i = rank; i < n_entries; ++i)
            if (std::abs(rows[i][column]) > std::abs(rows[best][column])) best = i;
        if (rank == n_entries || std::abs(rows[best][column]) < tolerance) continue;
        std::swap(rows[best], rows[rank]);
        const double pivot = rows[rank][column];
        for (double &x : rows[rank]) x /= pivot;
        for (std::size_t i = 0; i < n_entries; ++i) {
            const double factor = rows[i][column];
            if (i == rank || factor == 0.0) continue;
            for (int j = 0; j < n_entries; ++j) rows[i][j] -= factor * rows[rank][j];
        }
        pivots.push_back(column);
    }
    std::vector<std::pair<int, int>> free_constants;
    Array basis({static_cast<py::ssize_t>(pivots.size()), py::ssize_t{6}, py::ssize_t{6}});
    auto view = basis.mutable_unchecked<3>();
    for (std::size_t p = 0; p < pivots.size(); ++p) {
        free_constants.emplace_back(row_of[pivots[p]], column_of[pivots[p]]);
        for (int e = 0; e < n_entries; ++e) {
            double x = std::abs(rows[p][e]) < tolerance ? 0.0 : rows[p][e];
            if (std::abs(x - std::round(x)) < 1e-9) x = std::round(x); // rounding of the operations
            view(static_cast<py::ssize_t>(p), row_of[e], column_of[e]) = x;
            view(static_cast<py::ssize_t>(p), column_of[e], row_of[e]) = x;
        }
    }
    return {free_constants, basis};
}

} // namespace

void register_symmetry(py::module_ &m) {
    m.def("close_group", &close_group, py::arg("generators"), py::arg("tolerance") = 1e-6,
          "The point group, (order, 3, 3), that orthogonal matrices (n, 3, 3) generate; the identity comes first.");
    m.def("reduce_elastic_tensor", &reduce_elastic_tensor, py::arg("operations"), py::arg("tolerance") = 1e-6,
          "Row and column (from 0, Voigt) of each free constant, and the (k, 6, 6) tensors that they multiply.");
}
