"""From points in the order of reading to pieces of columns sorted by blob."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.parallel import World

IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

PIECE = 1 << 16
"""Points of a piece, about: its columns stay in the cache of a core."""


class PointList:
    """The points that one rank has read, in the order of frames.

    They lie in runs of one frame and blob each, row-major within a run.
    """

    def __init__(self) -> None:
        # Of the runs.
        self.frame: list[IntArray] = []
        self.blob: list[IntArray] = []
        self.numbers: list[IntArray] = []
        # Of the points, a block of frames each.
        self.row: list[AnyArray] = []
        self.column: list[AnyArray] = []
        self.counts: list[AnyArray] = []

    def add(
        self, frame: IntArray, blob: IntArray, number: IntArray, row: AnyArray, column: AnyArray, counts: AnyArray
    ) -> None:
        """Append a block's runs (frame, blob and number of points) and their points."""
        if not row.size:
            return
        self.frame.append(frame)
        self.blob.append(blob)
        self.numbers.append(number)
        self.row.append(row)
        self.column.append(column)
        self.counts.append(counts)

    def number(self, n_blobs: int) -> IntArray:
        """Points of each blob."""
        return _totals(self.blob, self.numbers, n_blobs)

    def number_in_frames(self, n_frames: int) -> IntArray:
        """Points of each frame, all blobs together."""
        return _totals(self.frame, self.numbers, n_frames)

    def counts_type(self, world: World) -> np.dtype[Any]:
        """The smallest of int32, float32 and float64 that holds all ranks' counts exactly (collective)."""
        for kind in (np.int32, np.float32):
            with np.errstate(invalid="ignore", over="ignore"):
                misfits = sum(c.dtype != kind and not np.array_equal(c.astype(kind), c) for c in self.counts)
            if not world.sum(misfits):
                return np.dtype(kind)
        return np.dtype(np.float64)


class SortedPoints:
    """The points of a list, sorted by blob, then frame, row, column, in pieces of whole runs.

    Parameters
    ----------
    points : PointList
    counts_type : dtype
        The type that counts are to have.
    """

    def __init__(self, points: PointList, counts_type: np.dtype[Any]) -> None:
        none = np.empty(0, dtype=np.int64)
        number = np.concatenate([*points.numbers, none])
        # Runs begin where those before them in the same block end.
        start = np.concatenate([*(np.cumsum(n) - n for n in points.numbers), none])
        block = np.repeat(np.arange(len(points.numbers)), [n.size for n in points.numbers])
        blob = np.concatenate([*points.blob, none])
        order = np.argsort(blob, kind="stable")
        self.frame, self.blob = np.concatenate([*points.frame, none])[order], blob[order]
        self.number, self.start, self.block = number[order], start[order], block[order]
        self.row, self.column = points.row, points.column
        self.counts = [np.ascontiguousarray(c, dtype=counts_type) for c in points.counts]
        self.counts_type = counts_type
        ends = np.cumsum(self.number)
        total = int(ends[-1]) if ends.size else 0
        cuts = np.searchsorted(ends, np.arange(PIECE, total, PIECE)) + 1
        runs = np.unique([0, *cuts.tolist(), ends.size]).tolist()
        self.pieces = [Piece(self, slice(a, b), int(ends[a] - self.number[a])) for a, b in pairwise(runs)]


@dataclass(frozen=True)
class Piece:
    """Some successive runs of the sorted points.

    Attributes
    ----------
    points : SortedPoints
    runs : slice
    first : int
        Place of the first point among all.
    """

    points: SortedPoints
    runs: slice
    first: int

    @property
    def frame(self) -> IntArray:
        """Frame of each run."""
        return self.points.frame[self.runs]

    @property
    def blob(self) -> IntArray:
        """Blob of each run."""
        return self.points.blob[self.runs]

    @property
    def number(self) -> IntArray:
        """Points of each run."""
        return self.points.number[self.runs]

    def row(self) -> AnyArray:
        """Row of each point."""
        return self._joined(self.points.row)

    def column(self) -> AnyArray:
        """Column of each point."""
        return self._joined(self.points.column)

    def counts(self) -> AnyArray:
        """Counts of each point."""
        return self._joined(self.points.counts)

    def _joined(self, blocks: list[AnyArray]) -> AnyArray:
        from tds2el._core import join_runs

        start, block = self.points.start[self.runs], self.points.block[self.runs]
        return join_runs(blocks, block, start, self.number, blocks[0].dtype)


def _totals(places: list[IntArray], numbers: list[IntArray], size: int) -> IntArray:
    total = np.zeros(size, dtype=np.int64)
    for place, number in zip(places, numbers, strict=True):
        np.add.at(total, place, number)
    return total
