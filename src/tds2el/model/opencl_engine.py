"""The OpenCL engine: float32 columns on a GPU or CPU, Gram sums in double (or in blocks where there is no double)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.model.christoffel import christoffel_coefficients
from tds2el.model.engine import Columns, Points, State, Sums
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


class OpenCLEngine:
    """Engine on an OpenCL device; see `tds2el.model.engine.Engine`.

    Parameters
    ----------
    device : pyopencl.Device
    points : Points
    columns : Columns
    temperature, density : float
        K and g/cm³.
    relative_error : float
        ε in the variance m + (ε m)².
    double : bool, optional
        Sum in double; by default where the device can.

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
        *,
        temperature: float,
        density: float,
        relative_error: float = 0.0,
        double: bool | None = None,
    ) -> None:
        import pyopencl as cl

        self._cl = cl
        self._points, self._columns = points, columns
        self._temperature, self._density = temperature, density
        cpu = bool(device.type & cl.device_type.CPU)
        self._vector, self._local = (VECTOR, 1) if cpu else (1, GPU_LOCAL)
        self._double = bool(device.double_fp_config) if double is None else double
        self.description = f"{device.name.strip()} ({device.platform.name.strip()}), float32" + (
            " with double sums" if self._double else " in blocks"
        )
        self._context = cl.Context([device])
        self._queue = cl.CommandQueue(self._context)
        source = program_source(
            columns.derivatives,
            scale_column=columns.scale,
            relative_error=relative_error,
            vector=self._vector,
            double=self._double,
            local=self._local,
        )
        with warnings.catch_warnings():
            # Compilers talk even when all is well (and -w silences only some): what they say of errors is an exception.
            warnings.simplefilter("ignore", cl.CompilerWarning)
            program = cl.Program(self._context, source).build(options=["-w"])
        self._gram = cl.Kernel(program, "gram")
        self._intensity = cl.Kernel(program, "intensity")
        self._chunk = FLOAT_CHUNK if not self._double else CPU_CHUNK if cpu else GPU_CHUNK
        self._load(device)

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        cl, width = self._cl, self._columns.count
        n_blobs = len(self._points.nodes)
        blobs = np.column_stack([self._points.nodes, state.factor, state.baseline, self._points.floors])
        cl.enqueue_copy(self._queue, self._blobs, blobs.astype(np.float32))
        cl.enqueue_copy(self._queue, self._centres_buffer, self._centres.astype(np.float32))
        n_max = self._upload_tensor(state.tensor)
        self._gram.set_args(
            self._pixels,
            np.uint64(self._stride),
            self._chunks_buffer,
            self._blobs,
            self._centres_buffer,
            self._coefficients,
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

    def intensity(self, tensor: Array, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
        cl = self._cl
        n_max = self._upload_tensor(tensor)
        start, size = int(self._starts[blob]), int(self._points.sizes[blob])
        blobs = np.zeros((len(self._points.nodes), 6), dtype=np.float32)
        blobs[:, :3] = self._points.nodes
        cl.enqueue_copy(self._queue, self._blobs, blobs)
        chunks = self._chunks[self._chunks[:, 0] == blob].copy()
        padded = _padded(size, self._vector)
        output = cl.Buffer(self._context, cl.mem_flags.WRITE_ONLY, 4 * padded)
        chunks_buffer = cl.Buffer(self._context, cl.mem_flags.READ_ONLY | cl.mem_flags.COPY_HOST_PTR, hostbuf=chunks)
        self._intensity.set_args(
            self._pixels,
            np.uint64(self._stride),
            chunks_buffer,
            self._blobs,
            self._coefficients,
            self._quantum,
            np.int32(n_max),
            np.uint64(start),
            output,
        )
        cl.enqueue_nd_range_kernel(self._queue, self._intensity, (len(chunks) * self._local,), (self._local,))
        s = np.empty(padded, dtype=np.float32)
        cl.enqueue_copy(self._queue, s, output)
        return s[:size].astype(float)

    def _load(self, device: Any) -> None:
        """Upload the points blob by blob: five float arrays, each blob padded to whole vectors."""
        cl, points = self._cl, self._points
        padded = np.array([_padded(size, self._vector) for size in points.sizes], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(padded)])
        self._stride = int(self._starts[-1])
        n_bytes = 20 * self._stride
        if n_bytes > min(device.max_mem_alloc_size, device.global_mem_size):
            raise InputError(
                f"{points.sizes.sum()} points need {n_bytes / 2**30:.1f} GiB in one piece on {device.name.strip()}, "
                f"which gives {device.max_mem_alloc_size / 2**30:.1f} GiB: thin them with nred, or fit fewer spots"
            )
        flags = cl.mem_flags
        self._pixels = cl.Buffer(self._context, flags.READ_ONLY, n_bytes)
        with Stage("load points", int(points.sizes.sum()), "point") as stage:
            for blob in range(len(points.sizes)):
                start, end = int(self._starts[blob]), int(self._starts[blob + 1])
                for q, counts, correction in points.pieces(blob):
                    self._upload(start, np.column_stack([q, counts, correction]))
                    start += len(q)
                    stage.update(len(q))
                # Padding: the last q again, so that the model is finite, and correction 0, so that it weighs nothing.
                self._upload(start, np.tile(np.append(q[-1], [0.0, 0.0]), (end - start, 1)))
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
        self._blobs = cl.Buffer(self._context, flags.READ_ONLY, 24 * len(points.nodes))
        self._centres = np.zeros((len(points.nodes), width - 1))
        self._centres_buffer = cl.Buffer(self._context, flags.READ_ONLY, 4 * self._centres.size)
        self._coefficients = cl.Buffer(self._context, flags.READ_ONLY, 36 * 4)
        self._quantum = cl.Buffer(self._context, flags.READ_ONLY, 16)
        self._queue.finish()

    def _upload(self, start: int, points: Array) -> None:
        for k, values in enumerate(points.T.astype(np.float32)):
            if len(values):
                offset = 4 * (k * self._stride + start)
                self._cl.enqueue_copy(self._queue, self._pixels, np.ascontiguousarray(values), dst_offset=offset)

    def _upload_tensor(self, tensor: Array) -> int:
        quantum = quantum_sum(tensor, self._points.q_max, self._temperature, self._density, TOLERANCE)
        coefficients = christoffel_coefficients(tensor).astype(np.float32)
        self._cl.enqueue_copy(self._queue, self._coefficients, coefficients)
        self._cl.enqueue_copy(self._queue, self._quantum, np.array([quantum.a, *quantum.tail], dtype=np.float32))
        return quantum.n_max

    def _uncentre(self, gram: Array) -> Array:
        """Gram matrices of the columns themselves from those of columns minus their centres; sets the next centres."""
        n_blobs, width = gram.shape[:2]
        shift = np.zeros((n_blobs, width, width)) + np.eye(width)
        shift[:, : width - 1, width - 2] += self._centres
        raw = shift @ gram @ np.swapaxes(shift, 1, 2)
        weight = raw[:, -2, -2]
        usable = weight > 0
        self._centres[usable] = raw[usable, : width - 1, -2] / weight[usable, None]
        self._centres[:, -1] = 0.0
        return raw


def _padded(size: int, vector: int) -> int:
    return -(-int(size) // vector) * vector
