"""Writes the part of the OpenCL program that depends on the tensor's structure.

The kernel needs only those products ε_I ε_J that enter some ∂S/∂p, and only those entries of the tensor that can differ
from 0; the macros below list and combine them, and the compiler sees straight-line code for the crystal at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.model.christoffel import christoffel_coefficients
from tds2el.model.engine import Columns

Array = npt.NDArray[np.float64]

LOCAL_BYTES = 40_000
"""Of local memory that the columns of a tile of pixels may take, of the 48 KiB that GPUs have at least."""
COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")


def kernel_folder() -> Path:
    """Folder of the OpenCL sources: package data, or the source tree when run from there."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "kernels"
    return installed if installed.is_dir() else package.parents[1] / "kernels"


def structure_macros(columns: Columns) -> str:
    """Macros CHRISTOFFEL, STRESS, PRODUCTS and DERIVATIVES for the tensor's structure."""
    entries = np.ones((6, 6)) if columns.entries is None else columns.entries.astype(float)
    return (
        _matrix_macro("CHRISTOFFEL", christoffel_coefficients(entries) != 0)
        + _matrix_macro("STRESS", entries != 0)
        + _derivative_macros(columns.derivatives)
    )


def _matrix_macro(name: str, entries: npt.NDArray[np.bool_]) -> str:
    """NAME(OUT, COEFFICIENTS, X): the six components of a symmetric matrix from 6 × 6 coefficients and six numbers."""
    lines = []
    for i, component in enumerate(COMPONENTS):
        terms = [f"(A)[{6 * i + j}] * (X)[{j}]" for j in np.flatnonzero(entries[i])]
        lines.append(f"(OUT).{component} = {' + '.join(terms) or 'REAL(0.0f)'};")
    return f"#define {name}(OUT, A, X) {' '.join(lines)}\n"


def _derivative_macros(derivatives: Array) -> str:
    needed = [(i, j) for i in range(6) for j in range(i, 6) if np.any(derivatives[:, i, j])]
    products = " ".join(f"X({i}, {j})" for i, j in needed)
    lines = []
    for k, matrix in enumerate(derivatives):
        terms = [f"{float(matrix[i, j] * (1 if i == j else 2))!r}f * M{i}{j}" for i, j in needed if matrix[i, j]]
        lines.append(f"(OUT)[{k}] = {' + '.join(terms)};")
    return f"#define PRODUCTS(X) {products}\n#define DERIVATIVES(OUT) {' '.join(lines)}\n"


def program_source(
    columns: Columns, *, background: bool, relative_error: float, vector: int, double: bool, local: int, blocked: bool
) -> str:
    """The whole OpenCL program for one device and one choice of columns.

    Parameters
    ----------
    columns : Columns
    background : bool
        Whether pixels have a background.
    relative_error : float
        ε in the variance m + (ε m)².
    vector : int
        Pixels per work-item and step: 8 or 1.
    double : bool
        Whether products and sums are in double.
    local : int
        Work-items per group.
    blocked : bool
        Whether a group shares its sums through local memory; needs `double`, ``vector = 1`` and a local of 128 or more.
    """
    tile = local
    while 8 * tile * (4 * -(-columns.count // 4) + 1) > LOCAL_BYTES:
        tile //= 2
    settings = {
        "VEC": vector,
        "DOUBLE": double,
        "LOCAL": local,
        "BLOCKED": blocked,
        "TILE": tile,
        "N_COLUMNS": columns.count,
        "N_CONSTANTS": len(columns.derivatives),
        "SCALE": columns.scale,
        "MOTION": columns.motion,
        "TURNS": columns.turns,
        "PLANES": columns.planes,
        "BEAMS": columns.beams,
        "LAMBDA": columns.lmbda,
        "NODE": columns.node,
        "CENTRE": columns.centre,
        "SLOPE": columns.slope,
        "TAU": columns.background,
        "BACKGROUND": background,
    }
    lines = [f"#define {name} {int(value)}" for name, value in settings.items()]
    if relative_error:
        lines.append(f"#define RELATIVE_ERROR {relative_error!r}f")
    folder = kernel_folder()
    sources = [(folder / name).read_text() for name in ("vector.h", "model.h", "gram.cl")]
    return "\n".join([*lines, structure_macros(columns), *sources])
