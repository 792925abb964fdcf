"""Writes the part of the OpenCL program that depends on the structure of the tensors.

The kernel needs only those products ε_I ε_J that enter some ∂S/∂p, and only those entries of the tensors that can
differ from 0; the macros below list and combine them, and the compiler sees straight-line code for the crystal at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.dispersion import QUARTICS
from tds2el.model.christoffel import christoffel_coefficients
from tds2el.model.engine import Columns

Array = npt.NDArray[np.float64]

LOCAL_BYTES = 40_000
"""Of local memory that the columns of a tile of pixels may take, of the 48 KiB that GPUs have at least."""
CPU_TILE = 8
"""Vectors of pixels whose columns a CPU keeps in its first cache for sums in blocks."""
COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
CUBICS = ((3, 0, 0), (0, 3, 0), (0, 0, 3), (2, 1, 0), (2, 0, 1), (1, 2, 0), (0, 2, 1), (1, 0, 2), (0, 1, 2), (1, 1, 1))
"""Powers of x, y, z in the monomials of 3rd order, in the order of `cubic_monomials` in model.h."""


def kernel_folder() -> Path:
    """Folder of the OpenCL sources: package data, or the source tree when run from there."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "kernels"
    return installed if installed.is_dir() else package.parents[1] / "kernels"


def block_tasks(columns: Columns) -> int:
    """How many blocks of 4 × 4 the sums of these columns have: half a square."""
    blocks = -(-columns.count // 4)
    return blocks * (blocks + 1) // 2


def structure_macros(columns: Columns) -> str:
    """Macros CHRISTOFFEL, STRESS, PRODUCTS and DERIVATIVES for the tensor's structure, others for the dispersion's."""
    entries = np.ones((6, 6)) if columns.entries is None else columns.entries.astype(float)
    return (
        _matrix_macro("CHRISTOFFEL", christoffel_coefficients(entries) != 0)
        + _matrix_macro("STRESS", entries != 0)
        + _derivative_macros(columns.derivatives)
        + _dispersion_macros(columns.dispersion)
    )


def _matrix_macro(name: str, entries: npt.NDArray[np.bool_]) -> str:
    """NAME(OUT, COEFFICIENTS, X): the six components of a symmetric matrix from 6 × n coefficients and n numbers."""
    lines = []
    for i, component in enumerate(COMPONENTS):
        terms = [f"(A)[{entries.shape[1] * i + j}] * (X)[{j}]" for j in np.flatnonzero(entries[i])]
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


def _dispersion_macros(basis: Array) -> str:
    """Macros QUARTIC, DISPERSIONS, BENDING and BENDING_SLOPE for a basis of T (k, 6, 15)."""
    entries: npt.NDArray[np.bool_] = np.asarray(np.any(basis != 0, axis=0))
    twice = np.array([1, 1, 1, 2, 2, 2])  # W_ik T_ik has off-diagonal terms twice
    columns = []
    for k, matrix in enumerate(basis * twice[:, None]):
        terms = [f"{float(matrix[i, m])!r}f * ((W).{COMPONENTS[i]} * (X)[{m}])" for i, m in np.argwhere(matrix)]
        columns.append(f"(OUT)[{k}] = {' + '.join(terms)};")
    bending = []
    for m in range(len(QUARTICS)):
        terms = [f"{twice[i]}.0f * (A)[{15 * i + m}] * (W).{COMPONENTS[i]}" for i in np.flatnonzero(entries[:, m])]
        bending.append(f"(OUT)[{m}] = {' + '.join(terms) or 'REAL(0.0f)'};")
    slopes = []
    powers = [[quartic.count(axis) for axis in range(3)] for quartic in QUARTICS]
    for axis, name in enumerate("xyz"):
        terms = []
        for m in np.flatnonzero(entries.any(axis=0)).tolist():
            if powers[m][axis]:
                left = tuple(power - (place == axis) for place, power in enumerate(powers[m]))
                terms.append(f"{powers[m][axis]}.0f * (C)[{m}] * (X)[{CUBICS.index(left)}]")
        slopes.append(f"(OUT).{name} = {' + '.join(terms) or 'REAL(0.0f)'};")
    return (
        _matrix_macro("QUARTIC", entries)
        + f"#define DISPERSIONS(OUT, W, X) {' '.join(columns)}\n"
        + f"#define BENDING(OUT, A, W) {' '.join(bending)}\n"
        + f"#define BENDING_SLOPE(OUT, C, X) {' '.join(slopes)}\n"
    )


def program_source(
    columns: Columns,
    *,
    background: bool,
    relative_error: float,
    vector: int,
    double: bool,
    local: int,
    blocked: bool,
    places: int = 0,
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
        Whether sums are made in blocks of 4 × 4, on a GPU by a group together, which needs `block_tasks` work-items.
    places : int
        Most places at which S is averaged for a pixel; with neighbours at least 1. 0: neither.
    """
    tile = local if vector == 1 else CPU_TILE
    while vector == 1 and 8 * tile * (4 * -(-columns.count // 4) + 1) > LOCAL_BYTES:
        tile //= 2
    settings = {
        "VEC": vector,
        "DOUBLE": double,
        "LOCAL": local,
        "BLOCKED": blocked,
        "TILE": tile,
        "N_COLUMNS": columns.count,
        "N_CONSTANTS": len(columns.derivatives),
        "N_DISPERSION": len(columns.dispersion),
        "EXPANDED": columns.expanded and len(columns.dispersion) > 0,
        "SCALE": columns.scale,
        "MOTION": columns.motion,
        "TURNS": columns.turns,
        "PLANES": columns.planes,
        "BEAMS": columns.beams,
        "LAMBDA": columns.lmbda,
        "NODE": columns.node,
        "CENTRE": columns.centre,
        "FORM": columns.gradient,
        "INTERNAL": columns.strain,
        "SLOPE": columns.slope,
        "TAU": columns.background,
        "BACKGROUND": background,
        "NEIGHBOURS": columns.neighbours,
        "PLACES": places,
    }
    lines = [f"#define {name} {int(value)}" for name, value in settings.items()]
    if relative_error:
        lines.append(f"#define RELATIVE_ERROR {relative_error!r}f")
    folder = kernel_folder()
    sources = [(folder / name).read_text() for name in ("vector.h", "model.h", "gram.cl")]
    return "\n".join([*lines, structure_macros(columns), *sources])
