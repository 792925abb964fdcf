"""The plain numpy engine in double precision: the reference that other engines are tested against."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tds2el.model.christoffel import christoffel, strain
from tds2el.model.engine import Columns, Points, State, Sums
from tds2el.model.quantum import QuantumSum, quantum_sum

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-12
BLOCK = 1 << 16


def model_columns(q: Array, node: Array, tensor: Array, quantum: QuantumSum, columns: Columns) -> Array:
    """Columns of pixels without the residual: ∂S/∂p, [∂S/∂ln s,] S, 1.

    Parameters
    ----------
    q : ndarray, shape (n, 3)
        Å⁻¹, relative to the node.
    node : ndarray, shape (3,)
        G in Å⁻¹.
    tensor : ndarray, shape (6, 6)
        GPa.
    quantum : QuantumSum
    columns : Columns

    Returns
    -------
    ndarray, shape (n, columns.count − 1)
    """
    Q = node + q
    gamma = christoffel(tensor, q)
    t0, t1, t2 = quantum.tail
    forced: Array = np.einsum("nij,nj->ni", gamma, Q)
    norm: Array = np.sum(Q * Q, axis=1)
    first, second = np.sum(Q * forced, axis=1), np.sum(forced * forced, axis=1)
    s: Array = t0 * norm + t1 * first + t2 * second
    scale: Array = t0 * norm + 2 * t1 * first + 3 * t2 * second
    # Products of strains whose contraction with ∂C/∂p is ∂S/∂p.
    big, pushed = strain(Q, q), strain(forced, q)
    products: Array = t1 * _outer(big, big) + t2 * (_outer(pushed, big) + _outer(big, pushed))
    for n in range(quantum.n_max + 1):
        weight = 1.0 if n == 0 else 2.0
        shift = n * n * quantum.a
        u: Array = np.asarray(np.linalg.solve(gamma + shift * np.eye(3), Q[..., None])[..., 0], dtype=np.float64)
        s += weight * np.sum(Q * u, axis=1)
        scale += weight * shift * np.sum(u * u, axis=1)
        e = strain(u, q)
        products -= weight * _outer(e, e)
    constants = np.einsum("kij,nij->nk", columns.derivatives, products)
    rest = [scale, s, np.ones_like(s)] if columns.scale else [s, np.ones_like(s)]
    return np.column_stack([constants, *rest])


def counting_terms(
    counts: Array, mean: Array, floor: float, relative_error: float
) -> tuple[Array, Array, Array, npt.NDArray[np.bool_]]:
    """Weight 1/variance, residual (score × variance), half the deviance, and where the model is below the floor.

    Counts N of mean m and variance m + (ε m)² are a negative binomial of size 1/ε²: the score is
    N/m − (1 + ε²N)/(1 + ε²m), the deviance 2[N ln(N/m) − (N + ε⁻²) ln((N + ε⁻²)/(m + ε⁻²))]; ε = 0 is Poisson.
    """
    low = mean < floor
    base = np.where(low, floor, mean)
    t = (mean - base) / base
    safe = np.where(counts > 0, counts, 1.0)
    ratio = (base - counts) / safe
    half = np.where(counts > 0, counts * _minus_log1p(ratio), base) + (mean - base) - counts * t * (1 - t / 2)
    variance = base + (relative_error * base) ** 2
    score = counts * (1 - t) / base
    if relative_error:
        # Below the floor the second logarithm is continued by its tangent: it stays convex there.
        size = counts + relative_error**-2
        slope = size / (base + relative_error**-2)
        score -= slope
        half -= size * _minus_log1p((base - counts) / size) + (mean - base) * (1 - slope)
    else:
        score -= 1
    return 1 / variance, score * variance, half, low


class NumpyEngine:
    """Engine on plain numpy; see `tds2el.model.engine.Engine`.

    Parameters
    ----------
    points : Points
    columns : Columns
    temperature, density : float
        K and g/cm³.
    relative_error : float
        ε in the variance m + (ε m)².
    """

    description = "numpy, double precision"

    def __init__(
        self,
        points: Points,
        columns: Columns,
        *,
        temperature: float,
        density: float,
        relative_error: float = 0.0,
    ) -> None:
        self._points, self._columns = points, columns
        self._temperature, self._density = temperature, density
        self._relative_error = relative_error

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        n_blobs, width = len(self._points.nodes), self._columns.count
        deviance, low = np.zeros(n_blobs), np.zeros(n_blobs)
        gram = np.zeros((n_blobs, width, width))
        quantum = self._quantum(state.tensor)
        for blob in range(n_blobs):
            for q, counts, kappa in self._blocks(blob):
                c = model_columns(q, self._points.nodes[blob], state.tensor, quantum, self._columns)
                mean = kappa * (state.factor[blob] * c[:, -2] + state.baseline[blob])
                weight, residual, half, below = counting_terms(
                    counts, mean, self._points.floors[blob], self._relative_error
                )
                full = np.column_stack([c * kappa[:, None], residual])
                gram[blob] += (full * weight[:, None]).T @ full
                deviance[blob] += 2 * half.sum()
                low[blob] += below.sum()
        return Sums(deviance, gram, low)

    def intensity(self, tensor: Array, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
        quantum = self._quantum(tensor)
        none = Columns(np.zeros((0, 6, 6)))
        blocks = [
            model_columns(q, self._points.nodes[blob], tensor, quantum, none)[:, 0] for q, _, _ in self._blocks(blob)
        ]
        return np.concatenate(blocks)

    def _blocks(self, blob: int) -> Iterator[tuple[Array, Array, Array]]:
        for piece in self._points.pieces(blob):
            for start in range(0, len(piece[0]), BLOCK):
                q, counts, correction = (np.asarray(a[start : start + BLOCK], dtype=float) for a in piece)
                yield q, counts, correction

    def _quantum(self, tensor: Array) -> QuantumSum:
        return quantum_sum(tensor, self._points.q_max, self._temperature, self._density, TOLERANCE)


def _outer(a: Array, b: Array) -> Array:
    return a[:, :, None] * b[:, None, :]


def _minus_log1p(t: Array) -> Array:
    return np.where(np.abs(t) < 1e-3, t * t * (0.5 + t * (-1 / 3 + t * (0.25 - 0.2 * t))), t - np.log1p(t))
