"""The plain numpy engine in double precision: the reference that other engines are tested against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from tds2el.experiment.motion import derivatives_of_q
from tds2el.model.christoffel import SYMMETRIC, christoffel, strain, stress
from tds2el.model.dispersion import contracted, monomial_slopes, monomials, quartic
from tds2el.model.engine import Columns, Conditions, Piece, Points, State, Sums
from tds2el.model.position import node_now, q_now
from tds2el.model.quantum import QuantumSum, quantum_sum
from tds2el.model.smearing import Smearing

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

TOLERANCE = 1e-12
BLOCK = 1 << 16


@dataclass(frozen=True)
class NextOrder:
    """What a spot's model has beyond the elastic limit: T (6, 15) in GPa Å², g (3,) in Å, H (6,)."""

    dispersion: Array = field(default_factory=lambda: np.zeros((6, 15)))
    gradient: Array = field(default_factory=lambda: np.zeros(3))
    strain: Array = field(default_factory=lambda: np.zeros(6))

    @classmethod
    def of(cls, state: State, blob: int) -> NextOrder:
        """That of a blob at a state."""
        found: dict[str, Array] = {}
        if state.dispersion is not None:
            found["dispersion"] = state.dispersion
        if state.gradient is not None:
            found["gradient"] = state.gradient[blob]
        if state.strain is not None:
            found["strain"] = state.strain[blob]
        return cls(**found)


@dataclass(frozen=True)
class Around:
    """What else is in a spot's halo: its `Smearing`, as that of one blob, neighbours (n, 3), and their f_j/f (n,)."""

    smearing: Smearing | None = None
    neighbours: Array | None = None
    ratios: Array | None = None


def model_columns(
    q: Array,
    node: Array,
    tensor: Array,
    quantum: QuantumSum,
    columns: Columns,
    moves: Array | None = None,
    background: Array | None = None,
    beyond: NextOrder | None = None,
    around: Around | None = None,
) -> Array:
    """Columns of pixels without the residual, see `Columns`.

    Parameters
    ----------
    q : ndarray, shape (n, 3)
        Å⁻¹, relative to the centre of the halo.
    node : ndarray, shape (3,)
        G in Å⁻¹.
    tensor : ndarray, shape (6, 6)
        GPa.
    quantum : QuantumSum
    columns : Columns
    moves : ndarray, shape (n, columns.geometry, 3), optional
        ∂Q/∂p of the parameters of the geometry.
    background : ndarray, shape (n,), optional
        B/κ, for its own column.
    beyond : NextOrder, optional
        By default the elastic limit.
    around : Around, optional
        By default nothing is.

    Returns
    -------
    ndarray, shape (n, columns.count − 1)
    """
    beyond = NextOrder() if beyond is None else beyond
    around = Around() if around is None else around
    places = [(1.0, q)] if around.smearing is None else around.smearing.places(0, q)
    halo = sum(w * _halo_columns(x, node, tensor, quantum, columns, moves, beyond) for w, x in places)
    found, others = [halo, np.ones((len(q), 1))], []
    for j in range(columns.neighbours):
        assert around.neighbours is not None
        away = around.neighbours[j]
        if np.isnan(away).any():
            others.append(np.zeros((len(q), 1)))
            continue
        c = _halo_columns(q - away, node + away, tensor, quantum, columns, moves, NextOrder(), foreign=True)
        others.append(c[:, -1:].copy())
        c[:, -1] = 0.0  # the column S is that of the spot itself
        if around.ratios is not None:
            found[0] = found[0] + around.ratios[j] * c
    if columns.slope:
        found.append(q)
    if columns.background:
        assert background is not None
        found.append(background[:, None])
    return np.concatenate([*found, *others], axis=1)


def _halo_columns(
    q: Array,
    node: Array,
    tensor: Array,
    quantum: QuantumSum,
    columns: Columns,
    moves: Array | None,
    beyond: NextOrder,
    *,
    foreign: bool = False,
) -> Array:
    """The columns up to S, of the halo of one node at one place; `foreign`: ∂S/∂T, ∂S/∂g and ∂S/∂H are 0."""
    mixing = beyond.strain[SYMMETRIC]
    Q = node + q + q @ mixing
    gamma, bent = christoffel(tensor, q), quartic(beyond.dispersion, q)
    stiff = gamma + bent
    t0, t1, t2 = quantum.tail
    forced: Array = np.einsum("nij,nj->ni", stiff, Q)
    norm: Array = np.sum(Q * Q, axis=1)
    first, second = np.sum(Q * forced, axis=1), np.sum(forced * forced, axis=1)
    s: Array = t0 * norm + t1 * first + t2 * second
    scale: Array = t0 * norm + 2 * t1 * first + 3 * t2 * second
    # Products of strains whose contraction with ∂C/∂p is ∂S/∂p, and of vectors for ∂T/∂p.
    big, pushed = strain(Q, q), strain(forced, q)
    products: Array = t1 * _outer(big, big) + t2 * (_outer(pushed, big) + _outer(big, pushed))
    weights: Array = t1 * _outer(Q, Q) + t2 * (_outer(forced, Q) + _outer(Q, forced))
    # ∂S/∂Q at fixed q, and ∂S/∂q at fixed Q.
    by_big: Array = 2 * (t0 * Q + t1 * forced + t2 * np.einsum("nij,nj->ni", stiff, forced))
    by_small: Array = 2 * t1 * stress(tensor, big, Q)
    by_small += 2 * t2 * (stress(tensor, big, forced) + stress(tensor, pushed, Q))
    inverted = gamma if columns.expanded else stiff
    for n in range(quantum.n_max + 1):
        weight = 1.0 if n == 0 else 2.0
        shift = n * n * quantum.a
        matrix = inverted + shift * np.eye(3)
        u: Array = np.asarray(np.linalg.solve(matrix, Q[..., None])[..., 0], dtype=np.float64)
        e = strain(u, q)
        s += weight * np.sum(Q * u, axis=1)
        scale += weight * shift * np.sum(u * u, axis=1)
        products -= weight * _outer(e, e)
        weights -= weight * _outer(u, u)
        by_big += 2 * weight * u
        by_small -= 2 * weight * stress(tensor, e, u)
        if columns.expanded:
            # −uᵀTu, and with v = (Γ + n²a)⁻¹Tu its derivatives.
            bend: Array = np.einsum("nij,nj->ni", bent, u)
            v: Array = np.asarray(np.linalg.solve(matrix, bend[..., None])[..., 0], dtype=np.float64)
            f = strain(v, q)
            s -= weight * np.sum(u * bend, axis=1)
            scale -= 2 * weight * shift * np.sum(u * v, axis=1)
            products += weight * (_outer(e, f) + _outer(f, e))
            by_big -= 2 * weight * v
            by_small += 2 * weight * (stress(tensor, e, v) + stress(tensor, f, u))
    by_component = contracted(weights)
    by_small += np.einsum("nm,nmi->ni", by_component @ beyond.dispersion, monomial_slopes(q))
    form = 1 + q @ beyond.gradient
    whole = form * form
    found = [np.einsum("kij,nij->nk", columns.derivatives, products) * whole[:, None]]
    if len(columns.dispersion):
        found.append(
            np.einsum("kim,ni,nm->nk", columns.dispersion, by_component, monomials(q), optimize=True)
            * (0.0 if foreign else whole[:, None])
        )
    by_small = whole[:, None] * (by_small + by_big @ mixing) + (2 * form * s)[:, None] * beyond.gradient
    by_big = whole[:, None] * by_big
    if columns.scale:
        found.append((whole * scale)[:, None])
    if columns.geometry:
        assert moves is not None
        found.append(np.einsum("nki,ni->nk", moves, by_big + by_small))
    if columns.node:
        found.append(-by_small)
    if columns.centre:
        found.append(-by_big - by_small)
    if columns.gradient:
        found.append(np.zeros_like(q) if foreign else (2 * form * s)[:, None] * q)
    if columns.strain:
        found.append(np.zeros((len(q), 6)) if foreign else strain(by_big, q))
    found.append((whole * s)[:, None])
    return np.concatenate(found, axis=1)


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
    conditions : Conditions
    """

    description = "numpy, double precision"

    def __init__(self, points: Points, columns: Columns, conditions: Conditions) -> None:
        self._points, self._columns, self._conditions = points, columns, conditions
        self._floors = points.floors
        self._used: dict[int, Mask] = {}

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        n_blobs, width = len(self._points.nodes), self._columns.count
        deviance, low = np.zeros(n_blobs), np.zeros(n_blobs)
        gram = np.zeros((n_blobs, width, width))
        quantum = self._quantum(state)
        for blob in range(n_blobs):
            for piece, used in self._blocks(blob):
                q, kappa = q_now(self._points, state, blob, piece), piece.correction
                moves = None
                if state.motion is not None:
                    moves = derivatives_of_q(state.motion, *piece.place)
                ratio = None if piece.background is None else piece.background / np.where(used, kappa, 1.0)
                node = node_now(self._points, state, blob)
                c = model_columns(
                    q, node, state.tensor, quantum, self._columns, moves, ratio, NextOrder.of(state, blob),
                    self._around(state, blob),
                )  # fmt: skip
                mean = kappa * mean_intensity(state, blob, _whole(c, self._columns, state, blob), q, ratio)
                weight, residual, half, below = counting_terms(
                    piece.counts, np.where(used, mean, 1.0), self._floors[blob], self._conditions.relative_error
                )
                share = used * (1.0 if piece.weight is None else piece.weight)
                full = np.column_stack([c * kappa[:, None], residual])
                gram[blob] += (full * (weight * share)[:, None]).T @ full
                deviance[blob] += 2 * float(half @ share)
                low[blob] += (below & used).sum()
        return Sums(deviance, gram, low)

    def intensity(self, state: State, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
        quantum = self._quantum(state)
        few = Columns(np.zeros((0, 6, 6)), neighbours=self._columns.neighbours, expanded=self._columns.expanded)
        node, beyond, around = node_now(self._points, state, blob), NextOrder.of(state, blob), self._around(state, blob)
        blocks = []
        for piece, _ in self._blocks(blob):
            q = q_now(self._points, state, blob, piece)
            c = model_columns(q, node, state.tensor, quantum, few, beyond=beyond, around=around)
            blocks.append(_whole(c, few, state, blob))
        return np.concatenate(blocks)

    def use(self, blob: int, used: Mask) -> None:
        """Say which pixels (n,) of a blob count from now on, of those that the points came with."""
        self._used[blob] = used.copy()

    def set_floors(self, floors: Array) -> None:
        """Change m₀ of every blob, counts (n_blobs,)."""
        self._floors = floors.copy()

    def _blocks(self, blob: int) -> Iterator[tuple[Piece, Mask]]:
        """Short pieces, and which of their pixels count."""
        done = 0
        for piece in self._points.pieces(blob):
            n = len(piece.counts)
            used = self._used[blob][done : done + n] if blob in self._used else np.ones(n, dtype=bool)
            used = used & (piece.correction > 0)
            done += n
            for start in range(0, n, BLOCK):
                part = slice(start, start + BLOCK)
                columns: dict[str, Array] = {
                    field.name: np.asarray(values[part], dtype=float)
                    for field in fields(Piece)
                    if field.name != "node" and (values := getattr(piece, field.name)) is not None
                }
                yield Piece(**columns, node=piece.node), used[part]

    def _around(self, state: State, blob: int) -> Around:
        points, ratios = self._points, state.ratios
        return Around(
            None if points.smearing is None else points.smearing.of(np.array([blob])),
            None if points.neighbours is None else points.neighbours[blob],
            None if ratios is None else ratios[blob],
        )

    def _quantum(self, state: State) -> QuantumSum:
        c = self._conditions
        return quantum_sum(state.tensor, self._points.reach, c.temperature, c.density, TOLERANCE, state.dispersion)


def mean_intensity(state: State, blob: int, s: Array, q: Array, background: Array | None) -> Array:
    """m/κ = f S + b + c·q + τ B/κ of pixels of one blob, from S, q and B/κ."""
    mean: Array = state.factor[blob] * s + state.baseline[blob]
    if state.slope is not None:
        mean = mean + q @ state.slope[blob]
    if background is not None:
        mean = mean + background * (1.0 if state.background is None else state.background[blob])
    return mean


def _whole(c: Array, columns: Columns, state: State, blob: int) -> Array:
    """S + Σ_j S_j f_j/f of pixels from their columns."""
    s, ratios = c[:, columns.signal], state.ratios
    if ratios is None:
        return np.asarray(s)
    return np.asarray(s + c[:, columns.count - 1 - columns.neighbours :] @ ratios[blob])


def _outer(a: Array, b: Array) -> Array:
    return a[:, :, None] * b[:, None, :]


def _minus_log1p(t: Array) -> Array:
    return np.where(np.abs(t) < 1e-3, t * t * (0.5 + t * (-1 / 3 + t * (0.25 - 0.2 * t))), t - np.log1p(t))
