"""From points in the order of reading to columns sorted by blob."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.parallel import World

IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

COLUMNS = ("row", "column", "counts", "correction", "Q")


class PointList:
    """The points that one rank has read, in the order of frames.

    They lie in runs of one frame and blob each, row-major within a run. Columns leave one at a time, sorted by
    blob, then frame, row, column, and are forgotten: the peak of memory is the points plus one column.
    """

    def __init__(self, with_background: bool = False) -> None:
        self.names = (*COLUMNS, "background") if with_background else COLUMNS
        # Of the runs.
        self._frame: list[IntArray] = []
        self._blob: list[IntArray] = []
        self._number: list[IntArray] = []
        # Of the points, piece by piece as they came.
        self._columns: dict[str, list[AnyArray]] = {name: [] for name in self.names}

    def add(self, frame: IntArray, blob: IntArray, points: tuple[AnyArray, ...]) -> None:
        """Append runs of points: (number of each run, row, column, counts, correction, Q[, background])."""
        number, *columns = points
        if not columns[0].size:
            return
        some = number > 0
        self._frame.append(frame[some])
        self._blob.append(blob[some])
        self._number.append(number[some])
        for name, values in zip(self.names, columns, strict=True):
            self._columns[name].append(values)

    def number(self, n_blobs: int) -> IntArray:
        """Points of each blob."""
        return _totals(self._blob, self._number, n_blobs)

    def number_in_frames(self, n_frames: int) -> IntArray:
        """Points of each frame, all blobs together."""
        return _totals(self._frame, self._number, n_frames)

    def counts_type(self, world: World) -> type[np.number[Any]]:
        """The smallest of int32, float32 and float64 that holds all ranks' counts exactly (collective)."""
        for dtype in (np.int32, np.float32):
            with np.errstate(invalid="ignore", over="ignore"):
                misfits = sum(
                    c.dtype != dtype and not np.array_equal(c.astype(dtype), c) for c in self._columns["counts"]
                )
            if not world.sum(misfits):
                return dtype
        return np.float64

    def frames(self) -> npt.NDArray[np.int32]:
        """The frame of every point, sorted by blob."""
        order, number = self._runs()
        frame = np.concatenate([*self._frame, np.empty(0, dtype=np.int64)]).astype(np.int32)
        return np.repeat(frame[order], number[order])

    def take(self, name: str, dtype: npt.DTypeLike, threads: int = 1) -> AnyArray:
        """A column sorted by blob; it is forgotten here."""
        from tds2el._core import sort_runs

        order, number = self._runs()
        pieces = [np.ascontiguousarray(values, dtype=dtype) for values in self._columns.pop(name)]
        result = np.empty((int(number.sum()), 3) if name == "Q" else int(number.sum()), dtype=dtype)
        sort_runs(pieces, number, order, result, threads)
        return result

    def _runs(self) -> tuple[IntArray, IntArray]:
        """Order of the runs by blob, and their lengths as read."""
        if not self._blob:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return np.argsort(np.concatenate(self._blob), kind="stable"), np.concatenate(self._number)


def _totals(places: list[IntArray], numbers: list[IntArray], size: int) -> IntArray:
    total = np.zeros(size, dtype=np.int64)
    for place, number in zip(places, numbers, strict=True):
        np.add.at(total, place, number)
    return total
