"""From the Gram matrices of the spots to the small system of the common parameters.

A spot's own parameters (factor, baseline and, where asked for, slope of the baseline, scale of the background, factors
of its neighbours' halos, offset of the centre, gradient of the form factor and internal strain) meet only its own
pixels, so they are eliminated spot by spot (Schur complement; for linear parameters this is variable projection, Golub
& Pereyra 1973), and the common parameters see the sum over spots.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import Columns, State, Sums

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SINGULAR = 1e-9
"""Relative determinant of a spot's (factor, baseline) block below which its data do not tell the two apart; and
eigenvalue of its whole scaled block below which a combination of its parameters keeps its value."""


@dataclass(frozen=True)
class Own:
    """Places of a spot's own parameters among each other: factor 0, baseline 1, then those below; None where absent.

    Those from `linear` on enter S; of the internal strain there are 5 beside a gradient (`strain_directions`), else 6.
    """

    slope: slice | None
    background: int | None
    neighbours: slice | None
    centre: slice | None
    gradient: slice | None
    strain: slice | None
    linear: int
    count: int

    @classmethod
    def of(cls, columns: Columns) -> Own:
        """Those that an engine has columns for."""
        places = count(2)

        def take(number: int) -> slice:
            taken = [next(places) for _ in range(number)]
            return slice(taken[0], taken[-1] + 1)

        slope = take(3) if columns.slope else None
        background = next(places) if columns.background else None
        neighbours = take(columns.neighbours) if columns.neighbours else None
        linear = 2 + 3 * columns.slope + columns.background + columns.neighbours
        centre = take(3) if columns.centre else None
        gradient = take(3) if columns.gradient else None
        strain = take(5 if columns.gradient else 6) if columns.strain else None
        return cls(slope, background, neighbours, centre, gradient, strain, linear, next(places))


def strain_directions(nodes: Array, columns: Columns) -> Array | None:
    """Which combinations of internal strain are fitted, (n_blobs, 5 or 6, 6): rows are H; None without.

    H along G Gᵀ changes the amplitude by G·q as a gradient along G does. Beside a gradient that combination is left
    out, in the sense of Frobenius' product; the others are orthonormal in it.

    Parameters
    ----------
    nodes : ndarray, shape (n_blobs, 3)
    columns : Columns
    """
    if not columns.strain:
        return None
    twice = np.sqrt([1.0, 1, 1, 2, 2, 2])  # off-diagonal entries of a matrix count twice
    if not columns.gradient:
        return np.broadcast_to(np.diag(1 / twice), (len(nodes), 6, 6)).copy()
    x, y, z = (nodes / np.linalg.norm(nodes, axis=1, keepdims=True)).T
    along = np.stack([x * x, y * y, z * z, y * z, x * z, x * y], axis=1) * twice
    # The other rows of an orthonormal basis that begins with it.
    vectors = np.linalg.svd(along[:, None, :])[2]
    return np.asarray(vectors[:, 1:] / twice)


@dataclass(frozen=True)
class System:
    """The normal equations at one point, with the spots' own parameters eliminated.

    Attributes
    ----------
    scores, hessians : ndarray, shapes (n_blobs, k) and (n_blobs, k, k)
        Score and Fisher information of the common parameters, spot by spot; zero for spots that are left out.
    linear : ndarray, shape (n_blobs, own)
        The step of the spots' own parameters at fixed common ones, in the order of `Own`.
    coupling : ndarray, shape (n_blobs, own, k)
        Minus the change of that step per unit step of the common parameters.
    inverse : ndarray, shape (n_blobs, own, own)
        Inverse Fisher information of the spots' own parameters at fixed common ones.
    linear_decrease : ndarray, shape (n_blobs,)
        Decrease of the deviance from `linear` alone.
    gram : ndarray, shape (n_blobs, k + own + 1, k + own + 1)
        Of the columns of common parameters, own ones, and the residual, before anything is held or fixed.
    known : tuple of ndarray, shapes (k,) and (k, k), optional
        Score and Fisher information of the common parameters from elsewhere than the spots.
    """

    scores: Array
    hessians: Array
    linear: Array
    coupling: Array
    inverse: Array
    linear_decrease: Array
    gram: Array
    known: tuple[Array, Array] | None = None

    @property
    def score(self) -> Array:
        """Σ over spots, and what is known, shape (k,)."""
        of_spots = self.scores.sum(axis=0)
        return np.asarray(of_spots if self.known is None else of_spots + self.known[0])

    @property
    def hessian(self) -> Array:
        """Σ over spots, and what is known, shape (k, k)."""
        of_spots = self.hessians.sum(axis=0)
        return np.asarray(of_spots if self.known is None else of_spots + self.known[1])

    def spot_step(self, step: Array) -> Array:
        """Steps of the spots' own parameters, (n_blobs, own), that go with a step of the common parameters."""
        return self.linear - self.coupling @ step

    def own_score(self, step: Array) -> Array:
        """Score of the spots' own parameters after a step of the common ones and theirs with it, (n_blobs, own)."""
        n, k = len(self.gram), len(step)
        whole = np.concatenate([np.broadcast_to(step, (n, k)), self.spot_step(step)], axis=1)
        own = self.gram[:, k:-1]
        return np.asarray(own[:, :, -1] - np.einsum("bij,bj->bi", own[:, :, :-1], whole))

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
            self.gram,
            self.known,
        )


def tells_apart(block: Array) -> Mask:
    """Whether data tell factor and baseline apart, from their Fisher information (n_blobs, 2, 2)."""
    product = block[:, 0, 0] * block[:, 1, 1]
    return np.asarray(product - block[:, 0, 1] ** 2 > SINGULAR * product)


def eliminate(
    sums: Sums,
    state: State,
    columns: Columns,
    transform: Array,
    damping: float = 0.0,
    softening: Array | None = None,
    strains: Array | None = None,
    fixed: Array | None = None,
) -> System:
    """Eliminate the spots' own parameters.

    Parameters
    ----------
    sums : Sums
        One pass over the pixels.
    state : State
        Where the pass was made.
    columns : Columns
        Of the engine that made it.
    transform : ndarray, shape (k, columns.signal + 1) or (n_blobs, k, columns.signal + 1)
        ∂S of the common parameters as combinations of the engine's columns up to S itself.
    damping : float
        Raises the diagonals of all Fisher matrices by this fraction (Levenberg-Marquardt).
    softening : ndarray, shape (n_blobs, own), optional
        The same for each of the spots' own parameters alone; infinity holds them. Not for factor and baseline.
    strains : ndarray, shape (n_blobs, 5 or 6, 6), optional
        As `strain_directions` gives them; needed with ``columns.strain``.
    fixed : ndarray, shape (n_blobs, own), optional
        Steps that some of the spots' own parameters are to take, NaN for the others; damping shortens them. Not for
        factor and baseline.
    """
    n_blobs, width = sums.gram.shape[:2]
    k, own, signal = transform.shape[-2], Own.of(columns), columns.signal
    factor = state.factor[:, None, None]
    mixing = np.zeros((n_blobs, k + own.count + 1, width))
    mixing[:, :k, : signal + 1] = factor * transform
    mixing[:, k : k + own.linear, signal : signal + own.linear] = np.eye(own.linear)
    if own.neighbours is not None and state.neighbours is not None:
        # The engine's column S is that of the spot alone, but a common parameter acts on its neighbours' too.
        first = signal + own.neighbours.start
        others = transform[..., -1:] * state.neighbours[:, None, :]
        mixing[:, :k, first : first + columns.neighbours] = others
    column = columns.own
    for place, rows in ((own.centre, np.eye(3)), (own.gradient, np.eye(3)), (own.strain, strains)):
        if place is not None:
            assert rows is not None
            wide = rows.shape[-1]
            mixing[:, k + place.start : k + place.stop, column : column + wide] = factor * rows
            column += wide
    mixing[:, -1, -1] = 1.0
    whole = mixing @ sums.gram @ np.swapaxes(mixing, 1, 2)
    held = np.zeros((n_blobs, own.count), dtype=bool) if softening is None else np.isinf(softening)
    shift = np.zeros((n_blobs, own.count))
    if fixed is not None:
        held = held | ~np.isnan(fixed)
        shift = np.nan_to_num(fixed) / (1 + damping)
        mixing[:, -1] -= np.einsum("bi,bij->bj", shift, mixing[:, k : k + own.count])
    mixing[:, k : k + own.count][held] = 0.0
    gram = whole if not held.any() else mixing @ sums.gram @ np.swapaxes(mixing, 1, 2)
    gained = whole[:, -1, -1] - gram[:, -1, -1]
    gram = gram.copy()
    diagonal = np.arange(k + own.count)
    gram[:, diagonal, diagonal] *= 1 + damping
    if softening is not None:
        gram[:, diagonal[k:], diagonal[k:]] *= 1 + np.where(np.isinf(softening), 0.0, softening)

    block = gram[:, k : k + own.count, k : k + own.count]
    determined = tells_apart(block)
    inverse = _inverse(block) * determined[:, None, None]
    cross, residual = gram[:, k : k + own.count, :k], gram[:, k : k + own.count, -1]
    coupling = inverse @ cross
    step = np.einsum("bij,bj->bi", inverse, residual)
    system = System(
        scores=gram[:, :k, -1] - np.einsum("bik,bi->bk", coupling, residual),
        hessians=gram[:, :k, :k] - np.swapaxes(cross, 1, 2) @ coupling,
        linear=step + shift,
        coupling=coupling,
        inverse=inverse,
        linear_decrease=np.einsum("bi,bi->b", step, residual) + gained,
        gram=whole,
    )
    return system.without(~determined)


def _inverse(block: Array) -> Array:
    """Inverses of symmetric matrices (n, m, m), scaled first; combinations that no data determine get nothing."""
    diagonal = np.diagonal(block, axis1=1, axis2=2)
    unit = np.divide(1.0, np.sqrt(np.maximum(diagonal, 0)), out=np.zeros(diagonal.shape), where=diagonal > 0)
    scaled = block * unit[:, :, None] * unit[:, None, :]
    values, vectors = np.linalg.eigh(scaled)
    inverted = np.divide(1.0, values, out=np.zeros(values.shape), where=values > SINGULAR)
    inverse = (vectors * inverted[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return np.asarray(inverse * unit[:, :, None] * unit[:, None, :])
