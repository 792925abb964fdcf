"""From the Gram matrices of the spots to the small system of the common parameters.

Factor and baseline of a spot meet only its own pixels, so they are eliminated spot by spot (Schur complement; for
linear parameters this is variable projection, Golub & Pereyra 1973), and the common parameters see the sum over spots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import State, Sums

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SINGULAR = 1e-9
"""Relative determinant of a spot's (factor, baseline) block below which its data do not tell the two apart."""


@dataclass(frozen=True)
class System:
    """The normal equations at one point, with the spots' own parameters eliminated.

    Attributes
    ----------
    scores, hessians : ndarray, shapes (n_blobs, k) and (n_blobs, k, k)
        Score and Fisher information of the common parameters, spot by spot; zero for spots that are left out.
    linear : ndarray, shape (n_blobs, 2)
        The step of factor and baseline at fixed common parameters.
    coupling : ndarray, shape (n_blobs, 2, k)
        Minus the change of that step per unit step of the common parameters.
    inverse : ndarray, shape (n_blobs, 2, 2)
        Inverse Fisher information of factor and baseline at fixed common parameters.
    linear_decrease : ndarray, shape (n_blobs,)
        Decrease of the deviance from `linear` alone.
    """

    scores: Array
    hessians: Array
    linear: Array
    coupling: Array
    inverse: Array
    linear_decrease: Array

    @property
    def score(self) -> Array:
        """Σ over spots, shape (k,)."""
        return np.asarray(self.scores.sum(axis=0))

    @property
    def hessian(self) -> Array:
        """Σ over spots, shape (k, k)."""
        return np.asarray(self.hessians.sum(axis=0))

    def spot_step(self, step: Array) -> Array:
        """Steps of factor and baseline, (n_blobs, 2), that go with a step of the common parameters."""
        return self.linear - self.coupling @ step

    def without(self, spots: Mask) -> System:
        """The same system with some spots left out of the common parameters."""
        kept = ~spots
        return System(
            self.scores * kept[:, None],
            self.hessians * kept[:, None, None],
            self.linear,
            self.coupling,
            self.inverse,
            self.linear_decrease * kept,
        )


def tells_apart(block: Array) -> Mask:
    """Whether data tell factor and baseline apart, from their Fisher information (n_blobs, 2, 2)."""
    product = block[:, 0, 0] * block[:, 1, 1]
    return np.asarray(product - block[:, 0, 1] ** 2 > SINGULAR * product)


def eliminate(sums: Sums, state: State, transform: Array, damping: float = 0.0) -> System:
    """Eliminate factor and baseline of every spot.

    Parameters
    ----------
    sums : Sums
        One pass over the pixels; the columns end with S, 1 and the residual.
    state : State
        Where the pass was made.
    transform : ndarray, shape (k, columns − 3 + 2)
        ∂S of the common parameters as combinations of the engine's columns without 1 and the residual: its last column
        multiplies S itself.
    damping : float
        Raises the diagonals of all Fisher matrices by this fraction (Levenberg-Marquardt).
    """
    n_blobs, width = sums.gram.shape[:2]
    k = len(transform)
    mixing = np.zeros((n_blobs, k + 3, width))
    mixing[:, :k, : width - 2] = state.factor[:, None, None] * transform
    mixing[:, k:, width - 3 :] = np.eye(3)
    gram = mixing @ sums.gram @ np.swapaxes(mixing, 1, 2)
    diagonal = np.arange(k + 2)
    gram[:, diagonal, diagonal] *= 1 + damping

    block = gram[:, k : k + 2, k : k + 2]
    determined = tells_apart(block)
    safe = np.where(determined[:, None, None], block, np.eye(2))
    inverse = np.linalg.inv(safe) * determined[:, None, None]
    cross, residual = gram[:, k : k + 2, :k], gram[:, k : k + 2, -1]
    coupling = inverse @ cross
    linear = np.einsum("bij,bj->bi", inverse, residual)
    system = System(
        scores=gram[:, :k, -1] - np.einsum("bik,bi->bk", coupling, residual),
        hessians=gram[:, :k, :k] - np.swapaxes(cross, 1, 2) @ coupling,
        linear=linear,
        coupling=coupling,
        inverse=inverse,
        linear_decrease=np.einsum("bi,bi->b", linear, residual),
    )
    return system.without(~determined)
