"""Which points a fit uses: not those inside the inner radius round a centre that has moved, nor foreign ones.

Foreign are Bragg spots of other crystals, zingers, shadows: pixels, connected or single, whose pull against the current
model is too large, with a border. They are looked for anew each time, since a better model finds others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tds2el.model.engine import Engine, Piece, Points, State
from tds2el.model.numpy_engine import counting_terms, mean_intensity
from tds2el.model.position import q_now, shift_of_q

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BORDER = 2
"""Pixels round foreign ones that go too."""
BORDER_FRAMES = 1
MOVED = 0.05
"""Moves of a centre, as a fraction of the inner radius, beyond which the points round it are cut out anew."""
ROUNDING = 1e-6


@dataclass
class Usage:
    """What became of the points of each blob.

    Attributes
    ----------
    used : list of ndarray of bool
        Point by point; the whole blob where nothing was taken out.
    cut : ndarray of int, shape (n_blobs,)
        Points inside the inner radius round the moved centre.
    foreign, regions : ndarray of int, shape (n_blobs,)
        Points rejected as foreign, with their border, and the connected regions that they form.
    """

    used: list[Mask]
    cut: npt.NDArray[np.int64]
    foreign: npt.NDArray[np.int64]
    regions: npt.NDArray[np.int64]

    @classmethod
    def everything(cls, points: Points) -> Usage:
        """All points are used."""
        n = len(points.sizes)
        none = [np.zeros(n, dtype=np.int64) for _ in range(3)]
        return cls([np.ones(size, dtype=bool) for size in points.sizes], *none)

    @property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Used points of each blob."""
        return np.array([used.sum() for used in self.used], dtype=np.int64)


class Cleaner:
    """Keeps track of the points that a fit uses.

    Parameters
    ----------
    engine : Engine
    points : Points
        With pixels, if foreign points are to be rejected.
    reject : float or None
        Pull beyond which connected pixels are foreign.
    relative_error : float
        ε in the variance m + (ε m)².
    """

    def __init__(self, engine: Engine, points: Points, reject: float | None, relative_error: float = 0.0) -> None:
        self._engine, self._points, self._reject, self._relative_error = engine, points, reject, relative_error
        self.usage = Usage.everything(points)
        self._moves = np.zeros_like(points.nodes)
        self._cut_out: dict[int, Mask] = {}  # of blobs whose centres have moved
        self._floors = points.floors

    def cut(self, state: State) -> bool:
        """Take out what lies inside the inner radius round the current centres; says whether any of them moved.

        Points that came to lie there before and no longer do are used again.
        """
        moved = False
        for blob in range(len(self._points.sizes)):
            move = self._move(state, blob)
            if np.linalg.norm(move - self._moves[blob]) <= MOVED * self._points.q_min:
                continue
            self._moves[blob] = move
            points = _read_once(self._points, blob)
            inside = self._cut_out[blob] = self._inside(_q(points, state, blob))
            self.usage.cut[blob] = inside.sum()
            self.usage.foreign[blob] = self.usage.regions[blob] = 0
            self._use(points, blob, ~inside)
            moved = True
        return moved

    def reject(self, state: State) -> bool:
        """Take out foreign points, judged by the model at `state`; says whether the choice has changed."""
        if self._reject is None:
            return False
        changed = False
        for blob in range(len(self._points.sizes)):
            if state.factor[blob] <= 0:
                continue
            points = _read_once(self._points, blob)
            q = _q(points, state, blob)
            # What lies inside now would change with every step of a centre, and the choice would never settle.
            inside = self._cut_out.get(blob, np.zeros(len(q), dtype=bool))
            foreign, regions = self._foreign(points, state, blob, q, inside)
            used = ~inside & ~foreign
            changed |= not np.array_equal(used, self.usage.used[blob])
            self.usage.foreign[blob] = (foreign & ~inside).sum()
            self.usage.regions[blob] = regions
            self._use(points, blob, used)
        return changed

    def _inside(self, q: Array) -> Mask:
        """Which points (n,) lie inside the inner radius."""
        return np.asarray(np.linalg.norm(q, axis=1) < self._points.q_min * (1 - ROUNDING))

    def _use(self, points: Points, blob: int, used: Mask) -> None:
        if np.array_equal(used, self.usage.used[blob]):
            return
        self.usage.used[blob] = used
        self._engine.use(blob, used)
        counts = np.concatenate([np.asarray(piece.counts) for piece in points.pieces(blob)])[used]
        if len(counts) and counts.any():
            # A few zingers can make a spot's mean count, from which the floor comes, many times too large.
            self._floors = self._floors.copy()
            self._floors[blob] = self._points.floors[blob] / self._points.mean_counts[blob] * counts.mean()
            self._engine.set_floors(self._floors)

    def _move(self, state: State, blob: int) -> Array:
        """By how much q of a blob has moved on the whole since the harvest, (3,)."""
        if state.motion is None:
            return np.asarray(shift_of_q(self._points, state)[blob])
        piece = next(self._points.pieces(blob))
        return np.asarray((q_now(self._points, state, blob, piece) - piece.q).mean(axis=0))

    def _foreign(self, points: Points, state: State, blob: int, q: Array, inside: Mask) -> tuple[Mask, int]:
        """Foreign points of a blob, with their border, and the number of connected regions."""
        pulls = pulls_of(self._engine, points, state, blob, q, self._floors[blob], self._relative_error)
        bad = (np.abs(pulls) > self._reject) & ~inside
        if not bad.any():
            return np.zeros(len(pulls), dtype=bool), 0
        place = _places(points, blob)
        lowest, highest = place.min(axis=0), place.max(axis=0)
        box = np.zeros(highest - lowest + 1, dtype=bool)
        index = tuple((place - lowest).T)
        box[index] = bad
        _, regions = ndimage.label(box, structure=np.ones((3, 3, 3)))
        border = np.ones((2 * BORDER_FRAMES + 1, 2 * BORDER + 1, 2 * BORDER + 1), dtype=bool)
        return np.asarray(ndimage.binary_dilation(box, structure=border)[index]), int(regions)


def expected_counts(engine: Engine, points: Points, state: State, blob: int, q: Array | None = None) -> Array:
    """Expected counts m of every point of a blob, shape (n,)."""
    pieces = list(points.pieces(blob))
    correction = np.concatenate([np.asarray(piece.correction) for piece in pieces])
    background = None
    if points.background:
        background = np.concatenate([np.asarray(piece.background) for piece in pieces]) / correction
    if q is None:
        q = _q(points, state, blob)
    return np.asarray(correction * mean_intensity(state, blob, engine.intensity(state, blob), q, background))


def pulls_of(
    engine: Engine, points: Points, state: State, blob: int, q: Array, floor: float, relative_error: float
) -> Array:
    """Signed roots of the deviance of every point, (n,): nearly Gaussian numbers also where counts are few."""
    counts = np.concatenate([np.asarray(piece.counts) for piece in points.pieces(blob)])
    mean = expected_counts(engine, points, state, blob, q)
    half = counting_terms(counts, mean, floor, relative_error)[2]
    return np.asarray(np.sign(counts - mean) * np.sqrt(2 * np.maximum(half, 0.0)))


def _read_once(points: Points, blob: int) -> Points:
    """The same points, but those of one blob in memory: they are looked at several times, and reading takes longest."""
    held = list(points.pieces(blob))

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        return iter(held)

    return replace(points, pieces=pieces)


def _q(points: Points, state: State, blob: int) -> Array:
    """q of every point of a blob at a state, (n, 3)."""
    return np.concatenate([q_now(points, state, blob, piece) for piece in points.pieces(blob)])


def _places(points: Points, blob: int) -> npt.NDArray[np.int64]:
    """Frame, row and column of every point of a blob (n, 3), whole numbers; neighbouring frames differ by 1."""
    columns = []
    for piece in points.pieces(blob):
        assert piece.frame is not None
        assert piece.row is not None
        assert piece.column is not None
        columns.append(np.column_stack([piece.frame, piece.row, piece.column]))
    return np.asarray(np.concatenate(columns), dtype=np.int64)
