// The private extension module tds2el._core: one register function per topic.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_bitshuffle(py::module_ &m);
void register_cbf(py::module_ &m);
void register_fista(py::module_ &m);
void register_gather(py::module_ &m);
void register_gridding(py::module_ &m);
void register_halo(py::module_ &m);
void register_headers(py::module_ &m);
void register_peaks(py::module_ &m);
void register_points(py::module_ &m);
void register_symmetry(py::module_ &m);

PYBIND11_MODULE(_core, m) {
    m.doc() = "Compiled parts of tds2el; use the Python modules that wrap them.";
    register_bitshuffle(m);
    register_cbf(m);
    register_fista(m);
    register_gather(m);
    register_gridding(m);
    register_halo(m);
    register_headers(m);
    register_peaks(m);
    register_points(m);
    register_symmetry(m);
}
