"""Writes the part of the OpenCL program that depends on the tensor's structure.

The kernel needs only those products ε_I ε_J that enter some ∂S/∂p, so the macros below list them and combine them; the
compiler then sees straight-line code for the crystal at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import Columns

Array = npt.NDArray[np.float64]


def kernel_folder() -> Path:
    """Folder of the OpenCL sources: package data, or the source tree when run from there."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "kernels"
    return installed if installed.is_dir() else package.parents[1] / "kernels"


def structure_macros(derivatives: Array) -> str:
    """Macros PRODUCTS and DERIVATIVES for ∂C/∂p matrices (k, 6, 6)."""
    needed = [(i, j) for i in range(6) for j in range(i, 6) if np.any(derivatives[:, i, j])]
    products = " ".join(f"X({i}, {j})" for i, j in needed)
    lines = []
    for k, matrix in enumerate(derivatives):
        terms = [f"{float(matrix[i, j] * (1 if i == j else 2))!r}f * M{i}{j}" for i, j in needed if matrix[i, j]]
        lines.append(f"(OUT)[{k}] = {' + '.join(terms)};")
    return f"#define PRODUCTS(X) {products}\n#define DERIVATIVES(OUT) {' '.join(lines)}\n"


def program_source(
    columns: Columns, *, background: bool, relative_error: float, vector: int, double: bool, local: int
) -> str:
    """The whole OpenCL program for one device and one choice of columns."""
    settings = {
        "VEC": vector,
        "DOUBLE": double,
        "LOCAL": local,
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
    sources = [(folder / name).read_text() for name in ("vector.h", "tds.cl")]
    return "\n".join([*lines, structure_macros(columns.derivatives), *sources])
