"""Steps that leave the factors of neighbouring halos at 0 or above: non-negative least squares in every spot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tds2el.fit.separable import System

Array = npt.NDArray[np.float64]

EXCHANGES = 30
"""After so many rounds factors only go to 0, so that the search ends."""
NOISE = 1e-9
"""Part of its largest possible value below which a score is rounding."""


def not_negative(
    solved: Callable[[Array | None], tuple[System, Array, float]], factors: Array, place: slice, own: int
) -> tuple[System, Array, float, Array]:
    """The step with factors fixed at 0 where they would get negative, and free where they want to grow.

    Block principal pivoting (Portugal, Júdice & Vicente, Math. Comp. 63, 625 (1994)), for all spots at once, since the
    step of the common parameters depends on what is fixed in each.

    Parameters
    ----------
    solved : callable
        Normal equations, step of the common parameters and predicted decrease, with some of the spots' own steps fixed.
    factors : ndarray, shape (n_blobs, n)
    place : slice
        Of the factors among a spot's own parameters.
    own : int
        How many these are.

    Returns
    -------
    system, step, predicted
        The last that `solved` gave.
    fixed : ndarray, shape (n_blobs, own)
        NaN where free.
    """
    at_zero = np.zeros(factors.shape, dtype=bool)
    for exchange in range(EXCHANGES + factors.size):
        fixed = np.full((len(factors), own), np.nan)
        fixed[:, place] = np.where(at_zero, -factors, np.nan)
        system, step, predicted = solved(fixed)
        after = factors + system.spot_step(step)[:, place]
        below = ~at_zero & (after < 0)
        # Σ w c r is at most √(Σ w c² Σ w r²).
        diagonal = np.diagonal(system.gram, axis1=1, axis2=2)
        common = len(step)
        largest = np.sqrt(diagonal[:, common + place.start : common + place.stop] * diagonal[:, -1:])
        growing = at_zero & (system.own_score(step)[:, place] > NOISE * largest)
        if exchange >= EXCHANGES:
            growing[:] = False
        if not (below | growing).any():
            break
        at_zero = (at_zero | below) & ~growing
    return system, step, predicted, fixed
