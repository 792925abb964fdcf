"""Numbers that people know of a crystal's elasticity, as functions of the stiffness with exact gradients.

With the compliance s = C⁻¹, d(xᵀ s y) = −(s x)ᵀ dC (s y). Averages as in `tds2el.crystal.moduli`; the linear
compressibility along a unit vector n is s_ijkk n_i n_j (Nye, Physical Properties of Crystals, 1957, VIII.8).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell

Array = npt.NDArray[np.float64]
Quantity = Callable[[Array], tuple[float, Array]]
"""Stiffness (6, 6) in the crystal frame to value and its gradient G (6, 6): d value = Σ G_IJ dC_IJ."""

_PRESSURE = np.array([1.0, 1, 1, 0, 0, 0])
# Σ of these with a matrix: K_Voigt and G_Voigt of a stiffness; 1/K_Reuss and 15/G_Reuss of a compliance.
_BULK = np.outer(_PRESSURE, _PRESSURE)
_SHEAR_VOIGT = np.diag([1.0, 1, 1, 3, 3, 3])
_SHEAR_VOIGT[:3, :3] -= 0.5 * (1 - np.eye(3))
_SHEAR_REUSS = np.diag([4.0, 4, 4, 3, 3, 3])
_SHEAR_REUSS[:3, :3] -= 2 * (1 - np.eye(3))


def quantity(name: str, cell: Cell) -> Quantity:
    """One of `tds2el.kinds.QUANTITIES`: in GPa, or for a linear compressibility along an axis of the cell in 1/GPa."""
    if name.startswith("A"):
        return partial(_entry, int(name[1]) - 1, int(name[2]) - 1)
    if name.startswith("beta"):
        axis = cell.A["abc".index(name[-1])]
        return partial(_compressibility, axis / np.linalg.norm(axis))
    moduli: dict[str, Quantity] = {
        "K_Voigt": _bulk_voigt,
        "K_Reuss": _bulk_reuss,
        "K_Hill": partial(_mean, _bulk_voigt, _bulk_reuss),
        "G_Voigt": _shear_voigt,
        "G_Reuss": _shear_reuss,
        "G_Hill": partial(_mean, _shear_voigt, _shear_reuss),
        "E_Hill": _young_hill,
    }
    return moduli[name]


def _entry(i: int, j: int, c: Array) -> tuple[float, Array]:
    gradient = np.zeros((6, 6))
    gradient[i, j] = 1.0
    return float(c[i, j]), gradient


def _bulk_voigt(c: Array) -> tuple[float, Array]:
    return float(np.sum(_BULK * c)) / 9, _BULK / 9


def _shear_voigt(c: Array) -> tuple[float, Array]:
    return float(np.sum(_SHEAR_VOIGT * c)) / 15, _SHEAR_VOIGT / 15


def _bulk_reuss(c: Array) -> tuple[float, Array]:
    return _inverse_of(c, _BULK, 1.0)


def _shear_reuss(c: Array) -> tuple[float, Array]:
    return _inverse_of(c, _SHEAR_REUSS, 15.0)


def _inverse_of(c: Array, weights: Array, numerator: float) -> tuple[float, Array]:
    """Numerator / Σ weights s, with the compliance s."""
    s = np.linalg.inv(c)
    total = float(np.sum(weights * s))
    return numerator / total, numerator / total**2 * (s @ weights @ s)


def _mean(one: Quantity, other: Quantity, c: Array) -> tuple[float, Array]:
    (a, of_a), (b, of_b) = one(c), other(c)
    return (a + b) / 2, (of_a + of_b) / 2


def _young_hill(c: Array) -> tuple[float, Array]:
    (k, of_k), (g, of_g) = _mean(_bulk_voigt, _bulk_reuss, c), _mean(_shear_voigt, _shear_reuss, c)
    both = 3 * k + g
    return 9 * k * g / both, (9 * g**2 * of_k + 27 * k**2 * of_g) / both**2


def _compressibility(n: Array, c: Array) -> tuple[float, Array]:
    x, y, z = n
    along = np.array([x * x, y * y, z * z, y * z, x * z, x * y])
    s = np.linalg.inv(c)
    left, right = s @ along, s @ _PRESSURE
    return float(along @ right), -np.outer(left, right)
