"""The points of a fit in the memory of an OpenCL device: all of them for good, or in turn as many as fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import Piece, Points
from tds2el.model.sharing import Share, points_of, shares
from tds2el.progress import Stage

Single = npt.NDArray[np.float32]

USABLE = 0.9
"""Part of a device's memory that points may take."""
STAGING = 1 << 20
"""Points in one of the two buffers of host memory, pinned where the driver can, through which they travel: while one
is filled, the other is on its way."""
COUNTS, CORRECTION = 3, 4
"""Places of N and κ among the arrays of points."""


@dataclass(frozen=True)
class Part:
    """What is on the device at a time.

    Attributes
    ----------
    share : Share
        Which points.
    starts : ndarray of int, shape (blobs of the share + 1,)
        Where each begins in the arrays: they are padded to whole vectors.
    chunks : ndarray of uint64, shape (chunks, 3)
        Blob (among all), first place and number of places: the work of one group.
    first_chunk : ndarray of uint32, shape (n_blobs + 1,)
        Of every blob, those without points in the share included.
    """

    share: Share
    starts: npt.NDArray[np.int64]
    chunks: npt.NDArray[np.uint64]
    first_chunk: npt.NDArray[np.uint32]


class DevicePoints:
    """Points as arrays of floats, one buffer each: qx qy qz N κ, [background, weight,] [row, column, cos φ, sin φ].

    Parameters
    ----------
    queue : pyopencl.CommandQueue
    points : Points
    motion : bool
        Whether the kernels need to know where pixels are.
    vector : int
        Pixels per vector.
    chunk : int
        Pixels per group of the kernels.
    threads : int
        That convert the points.
    """

    def __init__(self, queue: Any, points: Points, *, motion: bool, vector: int, chunk: int, threads: int) -> None:
        import pyopencl as cl

        self._cl, self._queue, self._points, self._motion = cl, queue, points, motion
        self._threads = threads
        self._used: dict[int, npt.NDArray[np.bool_]] = {}
        self._width = 5 + 2 * points.background + 4 * motion
        device = queue.device
        capacity = int(min(device.max_mem_alloc_size, USABLE * device.global_mem_size / self._width)) // 4
        room = capacity - vector * len(points.sizes)
        number = max(1, -(-int(points.sizes.sum()) // max(room, vector)))
        self.parts = [_part(share, len(points.sizes), vector, chunk) for share in shares(points.sizes, number)]
        longest = max(int(part.starts[-1]) for part in self.parts)
        flags = cl.mem_flags
        self._arrays = [cl.Buffer(queue.context, flags.READ_ONLY, 4 * longest) for _ in range(self._width)]
        #: Number of the part that is there; −1 for none.
        self.loaded = -1
        self._staging: list[tuple[Any, Single]] = []

    @property
    def values(self) -> list[Any]:
        """The buffers but the last four, if pixels move."""
        return self._arrays[: self._width - 4 * self._motion]

    @property
    def places(self) -> list[Any]:
        """The last four, if pixels move: row, column, cos φ, sin φ."""
        return self._arrays[self._width - 4 * self._motion :]

    def load(self, number: int) -> Part:
        """Bring a part to the device, unless it is there."""
        part = self.parts[number]
        if number == self.loaded:
            return part
        self.loaded = -1
        if not self._staging:
            self._staging = [self._pinned() for _ in range(2)]
        own = self._points if len(self.parts) == 1 else points_of(self._points, part.share)
        pending: list[list[Any]] = [[], []]
        turn = 0
        with Stage("load points", int(part.share.sizes.sum()), "point") as stage:
            for i, (blob, first) in enumerate(zip(part.share.blobs, part.share.starts, strict=True)):
                place, end, done = int(part.starts[i]), int(part.starts[i + 1]), int(first)
                used = self._used.get(int(blob))
                for piece in own.pieces(i):
                    for start in range(0, len(piece.counts), STAGING):
                        for event in pending[turn]:
                            event.wait()
                        staged = self._staging[turn][1]
                        size = self._fill(staged, piece, start, used, done)
                        padding = 0
                        if place + size == int(part.starts[i]) + int(part.share.sizes[i]):
                            # The last pixel again, where the model is finite, but with κ = 0: it weighs nothing.
                            padding = end - place - size
                            staged[:, size : size + padding] = staged[:, size - 1 : size]
                            staged[COUNTS : CORRECTION + 1, size : size + padding] = 0.0
                        pending[turn] = [
                            self._cl.enqueue_copy(
                                self._queue, array, row[: size + padding], dst_offset=4 * place, is_blocking=False
                            )
                            for array, row in zip(self._arrays, staged, strict=True)
                        ]
                        place, done, turn = place + size, done + size, 1 - turn
                        stage.update(size)
        for events in pending:
            for event in events:
                event.wait()
        if len(self.parts) == 1:
            self._staging = []
        self.loaded = number
        return part

    def use(self, blob: int, used: npt.NDArray[np.bool_]) -> None:
        """Say which points (n,) of a blob count from now on."""
        self._used[blob] = used.copy()
        if self.loaded < 0:
            return
        part = self.parts[self.loaded]
        for i in np.flatnonzero(part.share.blobs == blob):
            start, stop = int(part.share.starts[i]), int(part.share.stops[i])
            whole = stop - start == len(used)
            pieces = self._points.pieces(blob) if whole else self._points.pieces(blob, start, stop)
            correction = np.concatenate([np.asarray(piece.correction) for piece in pieces])
            values = np.where(used[start:stop], correction, 0.0).astype(np.float32)
            self._cl.enqueue_copy(self._queue, self._arrays[CORRECTION], values, dst_offset=4 * int(part.starts[i]))

    def _pinned(self) -> tuple[Any, Single]:
        """A buffer of host memory that the device copies from at full speed, and the array that it is."""
        cl, shape = self._cl, (self._width, STAGING + 64)
        flags = cl.mem_flags.READ_ONLY | cl.mem_flags.ALLOC_HOST_PTR
        buffer = cl.Buffer(self._queue.context, flags, 4 * shape[0] * shape[1])
        array, _ = cl.enqueue_map_buffer(self._queue, buffer, cl.map_flags.WRITE, 0, shape, np.float32)
        return buffer, array

    def _fill(self, staged: Single, piece: Piece, start: int, used: npt.NDArray[np.bool_] | None, place: int) -> int:
        """Convert points of a piece from `start` on, `place` in their blob; returns how many."""
        from tds2el._core import relative_points

        part = slice(start, min(len(piece.counts), start + STAGING))
        size = part.stop - start
        relative_points(piece.Q[part], piece.node, piece.counts[part], piece.correction[part], staged, self._threads)
        if used is not None:
            staged[CORRECTION, :size][~used[place : place + size]] = 0.0
        row = 5
        if self._points.background:
            assert piece.background is not None
            assert piece.weight is not None
            staged[row, :size], staged[row + 1, :size] = piece.background[part], piece.weight[part]
            row += 2
        if self._motion:
            at_row, at_column, phi = (values[part] for values in piece.place)
            angle = np.deg2rad(phi)
            for values in (at_row, at_column, np.cos(angle), np.sin(angle)):
                staged[row, :size] = values
                row += 1
        return size


def _part(share: Share, n_blobs: int, vector: int, chunk: int) -> Part:
    padded = -(-share.sizes // vector) * vector
    starts = np.concatenate([[0], np.cumsum(padded)])
    numbers = -(-padded // chunk)
    owner = np.repeat(np.arange(len(padded)), numbers)
    inside = chunk * (np.arange(len(owner)) - np.repeat(np.cumsum(numbers) - numbers, numbers))
    blobs = share.blobs[owner]
    chunks = np.column_stack([blobs, starts[owner] + inside, np.minimum(chunk, padded[owner] - inside)])
    first = np.searchsorted(blobs, np.arange(n_blobs + 1)).astype(np.uint32)
    return Part(share, starts, chunks.astype(np.uint64), first)
