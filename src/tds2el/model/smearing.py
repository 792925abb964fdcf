"""What a measured halo holds beside the model at a pixel's Q: its average over the resolution, and other nodes' halos.

Both are sums over the same S at other places, so that engines need one loop for them: S̄(q) = Σ_k w_k S(q + δ_k), and
f_j S of a neighbour at G + a_j, for which q − a_j takes the place of q while Q stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Smearing:
    """Where the model is evaluated for the pixels of each blob, and with which weights.

    Attributes
    ----------
    weight : ndarray, shape (n_blobs, k)
        Their sum over k is 1; 0 for places that a blob does not have, which come last.
    shift : ndarray, shape (n_blobs, k, 3)
        δ at the node, Å⁻¹.
    turn : ndarray, shape (n_blobs, k, 3)
        Rotation vectors in radians: δ = shift + turn × q.
    """

    weight: Array
    shift: Array
    turn: Array

    @property
    def numbers(self) -> Integers:
        """How many places each blob has, (n_blobs,)."""
        return np.asarray((self.weight != 0).sum(axis=1), dtype=np.int64)

    @property
    def reach(self) -> float:
        """Length of the longest δ at a node, Å⁻¹."""
        return float(np.linalg.norm(self.shift * (self.weight != 0)[..., None], axis=2).max())

    def of(self, blobs: Integers) -> Smearing:
        """That of some blobs."""
        return replace(self, weight=self.weight[blobs], shift=self.shift[blobs], turn=self.turn[blobs])

    def places(self, blob: int, q: Array) -> list[tuple[float, Array]]:
        """Weights, and q + δ of pixels at q, each (n, 3)."""
        return [
            (float(self.weight[blob, k]), q + self.shift[blob, k] + np.cross(self.turn[blob, k], q))
            for k in range(int(self.numbers[blob]))
        ]


@dataclass(frozen=True)
class Axis:
    """A direction in which a halo is smeared: uniformly over ±half and by a Gaussian of standard deviation sigma.

    Attributes
    ----------
    shift, turn : ndarray, shape (3,)
        Per unit of half and sigma, as in `Smearing`.
    half, sigma : float
        In units of which `shift` is Å⁻¹.
    """

    shift: Array
    turn: Array
    half: float
    sigma: float

    @property
    def variance(self) -> float:
        """Å⁻²."""
        return (self.half**2 / 3 + self.sigma**2) * float(self.shift @ self.shift)


NEGLIGIBLE = 2e-3
"""Relative error of S that is allowed where a halo is steepest, 1/q² along an axis at the inner radius."""
NEAREST = 0.9
"""No place is nearer to the pole at the node than this leaves, as a fraction of the inner radius."""
MOST_PLACES = 12
"""Along an axis."""
FAINTEST = 1e-5
"""Weight of a place that is left out: S there is at most 1/(1 − NEAREST)² times that at the pixel."""


def cubature(axes: list[Axis], radius: float) -> tuple[Array, Array, Array]:
    """The product of Gauss rules along axes that smears 1/q² at |q| ≥ radius well enough.

    Each rule has as few places as `NEGLIGIBLE` allows, one if the axis does not matter, and stays away from the pole.

    Parameters
    ----------
    axes : list of Axis
    radius : float
        Å⁻¹.

    Returns
    -------
    weight : ndarray, shape (k,)
    shift, turn : ndarray, shape (k, 3)
    """
    weight, shift, turn = np.ones(1), np.zeros((1, 3)), np.zeros((1, 3))
    for axis in axes:
        length = float(np.linalg.norm(axis.shift))
        x, w = _needed_rule(axis.half, axis.sigma, radius / length if length else np.inf)
        weight = np.outer(weight, w).ravel()
        shift = (shift[:, None] + x[:, None] * axis.shift).reshape(-1, 3)
        turn = (turn[:, None] + x[:, None] * axis.turn).reshape(-1, 3)
    kept = weight > FAINTEST
    return weight[kept] / weight[kept].sum(), shift[kept], turn[kept]


def too_coarse(axes: list[Axis], radius: float) -> bool:
    """Whether a halo is smeared over its pole at the inner radius, where no rule helps: a frame or 2σ reach it."""
    extent = [(axis.half + 2 * axis.sigma) * float(np.linalg.norm(axis.shift)) for axis in axes]
    return max(extent, default=0.0) > NEAREST * radius


def _needed_rule(half: float, sigma: float, radius: float) -> tuple[Array, Array]:
    """The shortest rule whose average of 1/(1 + x/radius)² the next longer one does not change."""
    shorter = gauss_rule(half, sigma, 1)
    for number in range(2, MOST_PLACES + 1):
        longer = gauss_rule(half, sigma, number)
        if np.abs(longer[0]).max() > NEAREST * radius:
            return shorter
        values = [float(w @ (1 + x / radius) ** -2.0) for x, w in (shorter, longer)]
        if abs(values[1] - values[0]) < NEGLIGIBLE * values[1]:
            return shorter
        shorter = longer
    return shorter


@cache
def _fine_rules() -> tuple[Array, Array, Array, Array]:
    """Places and weights of a uniform variable on ±1 and of a standard Gaussian one."""
    return (*np.polynomial.legendre.leggauss(32), *np.polynomial.hermite_e.hermegauss(32))


def gauss_rule(half: float, sigma: float, number: int) -> tuple[Array, Array]:
    """The Gauss rule of the sum of a uniform variable on ±half and a Gaussian one: places and weights, (number,).

    From the three-term recurrence of its orthogonal polynomials (Stieltjes' procedure on a fine product rule; Golub &
    Welsch, Math. Comp. 23, 221 (1969)). The distribution is even.
    """
    if half == 0 and sigma == 0:
        return np.zeros(1), np.ones(1)
    flat, flat_weight, bell, bell_weight = _fine_rules()
    x = (half * flat[:, None] + sigma * bell).ravel()
    w = np.outer(flat_weight, bell_weight).ravel()
    unit = np.sqrt(half**2 / 3 + sigma**2)
    x, w = x / unit, w / w.sum()
    before, now = np.zeros_like(x), np.ones_like(x)
    offdiagonal: list[float] = []
    for _ in range(number - 1):
        following = x * now - (offdiagonal[-1] * before if offdiagonal else 0.0)
        norm = float(np.sqrt(w @ following**2))
        offdiagonal.append(norm)
        before, now = now, following / norm
    jacobi = np.diag(offdiagonal, 1) + np.diag(offdiagonal, -1)
    places, vectors = np.linalg.eigh(jacobi)
    return np.asarray(unit * places), np.asarray(vectors[0] ** 2)
