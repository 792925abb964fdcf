"""From points in the order of reading to arrays sorted by blob, on one rank and across ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.parallel import World

IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

COLUMNS = ("row", "column", "counts", "correction", "Q")


class PointList:
    """The points that one rank has read, frame by frame.

    Within a frame they lie in runs of one blob each, row-major within a run. Columns leave one at a time,
    sorted by blob, then frame, row, column, and are forgotten: the peak of memory is the points plus one column.
    """

    def __init__(self, pixel_type: type[np.unsignedinteger[Any]], with_background: bool = False) -> None:
        self.pixel_type = pixel_type
        self.names = (*COLUMNS, "background") if with_background else COLUMNS
        self._frame: list[int] = []
        self._blob: list[IntArray] = []
        self._number: list[IntArray] = []
        self._columns: dict[str, list[AnyArray]] = {name: [] for name in self.names}

    def add(self, frame: int, blobs: IntArray, points: tuple[AnyArray, ...]) -> None:
        """Append a frame's points: (number of each blob, row, column, counts, correction, Q[, background])."""
        number, row, column, *others = points
        if not row.size:
            return
        self._frame.append(frame)
        self._blob.append(blobs)
        self._number.append(number)
        row, column = row.astype(self.pixel_type), column.astype(self.pixel_type)
        for name, values in zip(self.names, (row, column, *others), strict=True):
            self._columns[name].append(values)

    def number(self, n_blobs: int) -> IntArray:
        """Points of each blob."""
        total = np.zeros(n_blobs, dtype=np.int64)
        for blobs, number in zip(self._blob, self._number, strict=True):
            total[blobs] += number
        return total

    def number_in_frames(self, n_frames: int) -> IntArray:
        """Points of each frame, all blobs together."""
        total = np.zeros(n_frames, dtype=np.int64)
        for frame, number in zip(self._frame, self._number, strict=True):
            total[frame] += number.sum()
        return total

    def counts_type(self, world: World) -> type[np.number[Any]]:
        """The smallest of int32, float32 and float64 that holds all ranks' counts exactly (collective)."""
        for dtype in (np.int32, np.float32):
            with np.errstate(invalid="ignore", over="ignore"):
                misfits = sum(not np.array_equal(c.astype(dtype), c) for c in self._columns["counts"])
            if not world.sum(misfits):
                return dtype
        return np.float64

    def frames(self) -> npt.NDArray[np.int32]:
        """The frame of every point, sorted by blob."""
        order, number = self._runs()
        frame = np.repeat(np.array(self._frame, dtype=np.int32), [blobs.size for blobs in self._blob])
        return np.repeat(frame[order], number[order])

    def take(self, name: str, dtype: npt.DTypeLike) -> AnyArray:
        """A column sorted by blob; it is forgotten here."""
        order, number = self._runs()
        column = self._columns.pop(name)
        shape = (0, 3) if name == "Q" else (0,)
        if not column:
            return np.empty(shape, dtype=dtype)
        runs = [
            run for values, n in zip(column, self._number, strict=True) for run in np.split(values, np.cumsum(n)[:-1])
        ]
        del column, number
        return np.concatenate([runs[i] for i in order], dtype=dtype, casting="unsafe")

    def _runs(self) -> tuple[IntArray, IntArray]:
        """Order of the runs by blob, and their lengths as read."""
        if not self._blob:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return np.argsort(np.concatenate(self._blob), kind="stable"), np.concatenate(self._number)


def assemble(world: World, local: AnyArray, numbers: IntArray) -> AnyArray | None:
    """Merge every rank's column, sorted by blob, on rank 0 (collective).

    Parameters
    ----------
    world : World
    local : ndarray, shape (points of this rank, ...)
    numbers : ndarray, shape (ranks, blobs)
        Points of each rank and blob.

    Returns
    -------
    ndarray or None
        Sorted by blob, within a blob by rank; since ranks hold ascending blocks of frames, by frame. None on
        all ranks but 0.
    """
    if world.size == 1:
        return local
    if world.rank:
        world.send(local, 0)
        return None
    before_blob = np.cumsum(numbers.sum(axis=0)) - numbers.sum(axis=0)
    start = before_blob + np.cumsum(numbers, axis=0) - numbers
    result = np.empty((int(numbers.sum()), *local.shape[1:]), dtype=local.dtype)
    for rank in range(world.size):
        part = local
        if rank:
            part = np.empty((int(numbers[rank].sum()), *local.shape[1:]), dtype=local.dtype)
            world.receive(part, rank)
        position = 0
        for blob in np.flatnonzero(numbers[rank]):
            n = int(numbers[rank, blob])
            result[start[rank, blob] : start[rank, blob] + n] = part[position : position + n]
            position += n
    return result
