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
GPU_LOCAL = 128
CPU_CHUNK = 8192
GPU_CHUNK = 32768
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

    Raises
    ------
    InputError
        The points do not fit the device's memory.
    """

    def __init__(
        self, device: Any, points: Points, columns: Columns, conditions: Conditions, *, double: bool | None = None
    ) -> None:
        import pyopencl as cl

        self._cl = cl
        self._points, self._columns, self._conditions = points, columns, conditions
        self._floors = points.floors
        cpu = bool(device.type & cl.device_type.CPU)
        self._vector, self._local = (VECTOR, 1) if cpu else (1, GPU_LOCAL)
        self._double = bool(device.double_fp_config) if double is None else double
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
        )
        with self._errors(), warnings.catch_warnings():
            self._context = cl.Context([device])
            self._queue = cl.CommandQueue(self._context)
            # Compilers talk even when all is well (and -w silences only some): what they say of errors is an exception.
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = cl.Program(self._context, source).build(options=["-w"])
            self._gram = cl.Kernel(program, "gram")
            self._intensity = cl.Kernel(program, "intensity")
        self._chunk = FLOAT_CHUNK if not self._double else CPU_CHUNK if cpu else GPU_CHUNK
        with self._errors():
            self._load(device)

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        cl, width = self._cl, self._columns.count
        n_blobs = len(self._points.nodes)
        with self._errors():
            cl.enqueue_copy(self._queue, self._centres_buffer, self._centres.astype(np.float32))
            n_max = self._upload_state(state)
            self._gram.set_args(
                *self._pixels,
                *self._motion,
                self._chunks_buffer,
                self._blobs,
                self._centres_buffer,
                self._tensor,
                self._quantum,
                np.int32(n_max),
                self._sums_buffer,
            )
            cl.enqueue_nd_range_kernel(self._queue, self._gram, (len(self._chunks) * self._local,), (self._local,))
            cl.enqueue_copy(self._queue, self._partial, self._sums_buffer)
        total = np.add.reduceat(self._partial.astype(np.float64, copy=False), self._first_chunk, axis=0)
        gram = np.zeros((n_blobs, width, width))
        rows, columns = np.tril_indices(width)
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
            places = self._pixels[-4:] if self._columns.motion else []
            self._intensity.set_args(
                *self._pixels[:3],
                *places,
                *self._motion,
                chunks_buffer,
                self._blobs,
                self._tensor,
                self._quantum,
                np.int32(n_max),
                np.uint64(start),
                output,
            )
            cl.enqueue_nd_range_kernel(self._queue, self._intensity, (len(chunks) * self._local,), (self._local,))
            cl.enqueue_copy(self._queue, s, output)
        return s[:size].astype(float)

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
        self._first_chunk = np.searchsorted(self._chunks[:, 0], np.arange(len(points.sizes)))
        width = self._columns.count
        n_sums = width * (width + 1) // 2 + 2
        self._partial = np.empty((len(self._chunks), n_sums), dtype=np.float64 if self._double else np.float32)
        self._chunks_buffer = cl.Buffer(self._context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=self._chunks)
        self._sums_buffer = cl.Buffer(self._context, flags.WRITE_ONLY, self._partial.nbytes)
        self._blobs = cl.Buffer(self._context, flags.READ_ONLY, 4 * BLOB_SIZE * len(points.nodes))
        self._centres = np.zeros((len(points.nodes), width - 1))
        self._centres_buffer = cl.Buffer(self._context, flags.READ_ONLY, 4 * self._centres.size)
        self._tensor = cl.Buffer(self._context, flags.READ_ONLY, 2 * 36 * 4)
        self._quantum = cl.Buffer(self._context, flags.READ_ONLY, 16)
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
        tensor = np.stack([christoffel_coefficients(state.tensor), state.tensor]).astype(np.float32)
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
        ).astype(np.float32)
        uploads = [
            (self._tensor, tensor),
            (self._quantum, np.array([quantum.a, *quantum.tail], dtype=np.float32)),
            (self._blobs, blobs),
        ]
        if self._columns.motion:
            assert state.motion is not None
            uploads.append((self._motion[0], _packed(state.motion)))
        for buffer, values in uploads:
            self._cl.enqueue_copy(self._queue, buffer, values)
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


def _packed(motion: Motion) -> npt.NDArray[np.float32]:
    """The motion in the order in which the kernel reads it."""
    parts = (motion.turn, motion.turn_change, motion.plane, motion.plane_change, motion.beam, motion.beam_change)
    waves = np.array([motion.wave_number, motion.wave_number_change])
    return np.concatenate([np.ravel(a) for a in (*parts, waves, motion.turns, motion.planes, motion.beams)]).astype(
        np.float32
    )
