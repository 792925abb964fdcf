"""The OpenCL engine: float32 columns on a GPU or CPU, Gram sums in double (or in blocks where there is no double)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.motion import Motion
from tds2el.model.christoffel import christoffel_coefficients
from tds2el.model.engine import Columns, Conditions, Piece, Points, State, Sums
from tds2el.model.position import shift_of_q
from tds2el.model.quantum import quantum_sum
from tds2el.model.source import program_source
from tds2el.progress import Stage

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-8
VECTOR = 8
REGISTER_COLUMNS = 13
"""Up to so many columns a work-item of a GPU keeps all its sums in registers."""
REGISTER_LOCAL, BLOCKED_LOCAL = 384, 128
"""Work-items per group. 384 share 65536 registers such that each gets the 168 that 9 columns take: fewer, or more of
fewer registers, are slower."""
CPU_CHUNK, GPU_CHUNK = 8192, 32768
"""Pixels per work-group; on a GPU fewer where there would not be work for all of it."""
REGISTER_GROUPS, BLOCKED_GROUPS = 4, 16
"""Groups that each compute unit of a GPU should have at least."""
FLOAT_CHUNK = 256
"""Pixels per float32 partial sum on devices without double precision."""
BLOB_SIZE = 13
"""Floats per blob: node, shift of q, factor, baseline, floor, τ, slope."""
CORRECTION = 4
"""Place of κ among the arrays of pixels."""


class OpenCLEngine:
    """Engine on an OpenCL device; see `tds2el.model.engine.Engine`.

    Parameters
    ----------
    device : pyopencl.Device
    points : Points
    columns : Columns
    conditions : Conditions
    double : bool, optional
        Sum in double; by default where the device can.
    vectors : bool, optional
        Take the program for CPUs, vectors of 8 pixels, or that for GPUs; by default what the device is.

    Raises
    ------
    InputError
        The points do not fit the device's memory.
    """

    def __init__(
        self,
        device: Any,
        points: Points,
        columns: Columns,
        conditions: Conditions,
        *,
        double: bool | None = None,
        vectors: bool | None = None,
    ) -> None:
        import pyopencl as cl

        self._cl = cl
        self._points, self._columns, self._conditions = points, columns, conditions
        self._floors = points.floors
        cpu = bool(device.type & cl.device_type.CPU) if vectors is None else vectors
        self._double = bool(device.double_fp_config) if double is None else double
        blocked = not cpu and self._double and columns.count > REGISTER_COLUMNS
        local, groups = (BLOCKED_LOCAL, BLOCKED_GROUPS) if blocked else (REGISTER_LOCAL, REGISTER_GROUPS)
        if device.max_work_group_size < local or not self._double:
            local = BLOCKED_LOCAL
        self._vector, self._local = (VECTOR, 1) if cpu else (1, local)
        self.description = f"{device.name.strip()} ({device.platform.name.strip()}), float32" + (
            " with double sums" if self._double else " in blocks"
        )
        self.device, self._device = device, device.name.strip()
        source = program_source(
            columns,
            background=points.background,
            relative_error=conditions.relative_error,
            vector=self._vector,
            double=self._double,
            local=self._local,
            blocked=blocked,
        )
        with self._errors(), warnings.catch_warnings():
            self._context = cl.Context([device])
            self._queue = cl.CommandQueue(self._context)
            # Compilers talk even when all is well (and -w silences only some): what they say of errors is an exception.
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = cl.Program(self._context, source).build(options=["-w"])
            self._gram = cl.Kernel(program, "gram")
            self._intensity = cl.Kernel(program, "intensity")
            self._add_chunks = cl.Kernel(program, "add_chunks") if self._double else None
        self._chunk = FLOAT_CHUNK
        if self._double:
            share = int(points.sizes.sum()) // (groups * device.max_compute_units)
            fair = max(16 * self._local, share // self._local * self._local)
            self._chunk = CPU_CHUNK if cpu else min(GPU_CHUNK, fair)
        with self._errors():
            self._load(device)

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        cl, width = self._cl, self._columns.count
        n_blobs = len(self._points.nodes)
        with self._errors():
            n_max = self._upload_state(state)
            values, places = self._split()
            self._gram.set_args(
                *values,
                self._chunks_buffer,
                self._blobs,
                self._centres_buffer,
                self._tensor,
                np.int32(n_max),
                self._sums_buffer,
                *places,
                *self._motion,
            )
            cl.enqueue_nd_range_kernel(self._queue, self._gram, (len(self._chunks) * self._local,), (self._local,))
            total = self._totals()
        gram = np.zeros((n_blobs, width, width))
        rows, columns = self._lower
        gram[:, rows, columns] = gram[:, columns, rows] = total[:, :-2]
        if not self._double:
            gram = self._uncentre(gram)
        return Sums(2 * total[:, -2], gram, total[:, -1])

    def intensity(self, state: State, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
        cl, flags = self._cl, self._cl.mem_flags
        start, size = int(self._starts[blob]), int(self._points.sizes[blob])
        chunks = self._chunks[self._chunks[:, 0] == blob].copy()
        s = np.empty(_padded(size, self._vector), dtype=np.float32)
        with self._errors():
            n_max = self._upload_state(state)
            output = cl.Buffer(self._context, flags.WRITE_ONLY, s.nbytes)
            chunks_buffer = cl.Buffer(self._context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=chunks)
            self._intensity.set_args(
                *self._pixels[:3],
                chunks_buffer,
                self._blobs,
                self._tensor,
                np.int32(n_max),
                np.uint64(start),
                output,
                *self._split()[1],
                *self._motion,
            )
            cl.enqueue_nd_range_kernel(self._queue, self._intensity, (len(chunks) * self._local,), (self._local,))
            cl.enqueue_copy(self._queue, s, output)
        return s[:size].astype(float)

    def _split(self) -> tuple[list[Any], list[Any]]:
        """The arrays of pixels: values, and where the pixels are."""
        places = 4 * self._columns.motion
        return self._pixels[: len(self._pixels) - places], self._pixels[len(self._pixels) - places :]

    def _totals(self) -> Array:
        """Sums of each blob, (n_blobs, sums), from those of its chunks."""
        cl = self._cl
        if not self._double:
            partial = np.empty((len(self._chunks), self._n_sums), dtype=np.float32)
            cl.enqueue_copy(self._queue, partial, self._sums_buffer)
            return np.asarray(np.add.reduceat(partial.astype(np.float64), self._first_chunk[:-1], axis=0))
        assert self._add_chunks is not None
        total = np.empty((len(self._first_chunk) - 1, self._n_sums))
        self._add_chunks.set_args(self._sums_buffer, self._first_chunk_buffer, self._totals_buffer)
        cl.enqueue_nd_range_kernel(self._queue, self._add_chunks, (total.size,), None)
        cl.enqueue_copy(self._queue, total, self._totals_buffer)
        return total

    def use(self, blob: int, used: npt.NDArray[np.bool_]) -> None:
        """Say which pixels (n,) of a blob count from now on, of those that the points came with."""
        correction = np.concatenate([np.asarray(piece.correction) for piece in self._points.pieces(blob)])
        values = np.where(used, correction, 0.0).astype(np.float32)
        with self._errors():
            buffer, offset = self._pixels[CORRECTION], 4 * int(self._starts[blob])
            self._cl.enqueue_copy(self._queue, buffer, values, dst_offset=offset)

    def set_floors(self, floors: Array) -> None:
        """Change m₀ of every blob, counts (n_blobs,)."""
        self._floors = floors.copy()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What the driver refuses, as one line."""
        try:
            yield
        except self._cl.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"the OpenCL device {self._device} failed ({reason}): thin the points with nred, choose another "
                'device, or use device = "numpy"'
            ) from error

    def _load(self, device: Any) -> None:
        """Upload the points blob by blob: arrays of floats, each blob padded to whole vectors."""
        cl, points = self._cl, self._points
        arrays = 5 + 2 * points.background + 4 * self._columns.motion
        padded = np.array([_padded(size, self._vector) for size in points.sizes], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(padded)])
        n_bytes = 4 * int(self._starts[-1])
        limit = min(arrays * device.max_mem_alloc_size, device.global_mem_size)
        if arrays * n_bytes > limit:
            raise InputError(
                f"{points.sizes.sum()} points need {arrays * n_bytes / 2**30:.1f} GiB on {self._device}, which gives "
                f"{limit / 2**30:.1f} GiB: thin them with nred, or fit fewer spots"
            )
        flags = cl.mem_flags
        self._pixels = [cl.Buffer(self._context, flags.READ_ONLY, n_bytes) for _ in range(arrays)]
        with Stage("load points", int(points.sizes.sum()), "point") as stage:
            for blob in range(len(points.sizes)):
                start, end = int(self._starts[blob]), int(self._starts[blob + 1])
                for piece in points.pieces(blob):
                    values = self._arrays(piece)
                    self._upload(start, values)
                    start += len(piece.counts)
                    stage.update(len(piece.counts))
                # Padding: the last pixel again, so that the model is finite, but with κ = 0, so that it weighs nothing.
                last = values[-1].copy()
                last[[CORRECTION - 1, CORRECTION]] = 0.0
                self._upload(start, np.tile(last, (end - start, 1)))
        self._chunks = np.array(
            [
                (blob, self._starts[blob] + start, min(self._chunk, padded[blob] - start))
                for blob in range(len(points.sizes))
                for start in range(0, padded[blob], self._chunk)
            ],
            dtype=np.uint64,
        )
        self._first_chunk = np.searchsorted(self._chunks[:, 0], np.arange(len(points.sizes) + 1)).astype(np.uint32)
        width = self._columns.count
        self._lower = np.tril_indices(width)
        self._n_sums = len(self._lower[0]) + 2
        item = 8 if self._double else 4
        self._chunks_buffer = cl.Buffer(self._context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=self._chunks)
        self._first_chunk_buffer = cl.Buffer(
            self._context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=self._first_chunk
        )
        self._sums_buffer = cl.Buffer(self._context, flags.READ_WRITE, len(self._chunks) * self._n_sums * item)
        self._totals_buffer = cl.Buffer(self._context, flags.WRITE_ONLY, len(points.sizes) * self._n_sums * item)
        self._blobs = cl.Buffer(self._context, flags.READ_ONLY, 4 * BLOB_SIZE * len(points.nodes))
        self._centres = np.zeros((len(points.nodes), width - 1))
        self._centres_buffer = cl.Buffer(self._context, flags.READ_ONLY, 4 * self._centres.size)
        self._tensor = cl.Buffer(self._context, flags.READ_ONLY, (2 * 36 + 4) * 4)
        c = self._columns
        n_motion = 80 + 9 * (c.turns + c.planes) + 3 * c.beams
        self._motion = [cl.Buffer(self._context, flags.READ_ONLY, 4 * n_motion)] if c.motion else []
        self._queue.finish()

    def _arrays(self, piece: Piece) -> Array:
        """The arrays of a piece as columns, in the order of the kernel's arguments."""
        columns = [*np.asarray(piece.q).T, piece.counts, piece.correction]
        if self._points.background:
            columns += [piece.background, piece.weight]
        if self._columns.motion:
            assert piece.phi is not None
            angle = np.deg2rad(piece.phi)
            columns += [piece.row, piece.column, np.cos(angle), np.sin(angle)]
        return np.column_stack(columns)

    def _upload(self, start: int, points: Array) -> None:
        if len(points):
            for buffer, values in zip(self._pixels, points.T.astype(np.float32, order="C"), strict=True):
                self._cl.enqueue_copy(self._queue, buffer, values, dst_offset=4 * start)

    def _upload_state(self, state: State) -> int:
        """Everything that depends on the state; returns the number of explicit terms of the quantum sum."""
        points, c, n_blobs = self._points, self._conditions, len(self._points.nodes)
        quantum = quantum_sum(state.tensor, points.q_max, c.temperature, c.density, TOLERANCE)
        entries = self._columns.entries
        if entries is not None and state.tensor[~entries].any():
            raise ValueError("the tensor has entries that the columns exclude")
        coefficients = christoffel_coefficients(state.tensor)
        tensor = np.concatenate([coefficients.ravel(), state.tensor.ravel(), [quantum.a, *quantum.tail]])
        blobs = np.column_stack(
            [
                points.nodes if state.nodes is None else state.nodes,
                shift_of_q(points, state),
                state.factor,
                state.baseline,
                self._floors,
                np.ones(n_blobs) if state.background is None else state.background,
                np.zeros((n_blobs, 3)) if state.slope is None else state.slope,
            ]
        )
        uploads = [(self._tensor, tensor), (self._blobs, blobs)]
        if not self._double:
            uploads.append((self._centres_buffer, self._centres))
        if self._columns.motion:
            assert state.motion is not None
            uploads.append((self._motion[0], _packed(state.motion)))
        # Events hold the arrays, and wait when they go: until the next state.
        self._uploads = [
            self._cl.enqueue_copy(self._queue, buffer, values.astype(np.float32), is_blocking=False)
            for buffer, values in uploads
        ]
        return quantum.n_max

    def _uncentre(self, gram: Array) -> Array:
        """Gram matrices of the columns themselves from those of columns minus their centres; sets the next centres."""
        n_blobs, width = gram.shape[:2]
        shift = np.zeros((n_blobs, width, width)) + np.eye(width)
        one = self._columns.signal + 1
        shift[:, : width - 1, one] += self._centres
        raw = shift @ gram @ np.swapaxes(shift, 1, 2)
        weight = raw[:, one, one]
        usable = weight > 0
        self._centres[usable] = raw[usable, : width - 1, one] / weight[usable, None]
        self._centres[:, one] = 0.0
        return raw


def _padded(size: int, vector: int) -> int:
    return -(-int(size) // vector) * vector


def _packed(motion: Motion) -> Array:
    """The motion in the order in which the kernel reads it."""
    parts = (motion.turn, motion.turn_change, motion.plane, motion.plane_change, motion.beam, motion.beam_change)
    waves = np.array([motion.wave_number, motion.wave_number_change])
    return np.concatenate([np.ravel(a) for a in (*parts, waves, motion.turns, motion.planes, motion.beams)])
