"""How far dispersion changes the stiffness of modes at the outer radius of the shells, over many directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.model.christoffel import christoffel
from tds2el.model.dispersion import quartic
from tds2el.model.engine import State
from tds2el.model.quantum import directions

Array = npt.NDArray[np.float64]


def softening_of(after: State, before: State, q_max: float) -> float:
    """Least ratio of the stiffness of any mode, Γ + T at the outer radius, between two states."""
    return float(np.linalg.eigvalsh(_relative(_stiffness(after, q_max), _stiffness(before, q_max))).min())


def largest_effect(term: Array, state: State, q_max: float) -> float:
    """Largest relative change of the stiffness of any mode by a unit of a term of dispersion (6, 15), in 1/(GPa Å²)."""
    change = q_max**2 * quartic(term, directions())
    elastic = christoffel(state.tensor, directions())
    return float(np.abs(np.linalg.eigvalsh(_relative(change, elastic))).max())


def _stiffness(state: State, q_max: float) -> Array:
    """(Γ + T)/q² at the outer radius in many directions, (n, 3, 3)."""
    found = christoffel(state.tensor, directions())
    return found if state.dispersion is None else found + q_max**2 * quartic(state.dispersion, directions())


def _relative(matrices: Array, to: Array) -> Array:
    """Symmetric matrices (n, 3, 3) in units of positive definite ones."""
    inverse = np.linalg.inv(np.linalg.cholesky(to))
    return np.asarray(inverse @ matrices @ np.swapaxes(inverse, 1, 2))
