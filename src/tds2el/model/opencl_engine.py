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
from tds2el.model.device_points import DevicePoints, Part
from tds2el.model.engine import Columns, Conditions, Points, State, Sums
from tds2el.model.position import shift_of_q
from tds2el.model.quantum import quantum_sum
from tds2el.model.smearing import Smearing
from tds2el.model.source import block_tasks, program_source

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-8
VECTOR = 8
REGISTER_COLUMNS = 13
"""Up to so many columns a work-item of a GPU keeps all its sums in registers."""
CPU_COLUMNS = 13
"""Up to so many columns a CPU sums pixel by pixel, without blocks."""
FEW_COLUMNS, FEW_LOCAL, LOCAL = 9, 384, 128
"""Work-items per group. 384 of them share 65536 registers such that each gets 168, which is what few columns take and
hides more latency than fewer work-items of more registers; more columns would spill."""
CPU_CHUNK, GPU_CHUNK = 8192, 32768
"""Pixels per work-group; on a GPU fewer where there would not be work for all of it."""
FEW_GROUPS, GROUPS = 4, 16
"""Groups of so many work-items that each compute unit of a GPU should have at least."""
FLOAT_CHUNK = 256
"""Pixels per float32 partial sum on devices without double precision."""
BLOB_SIZE = 22
"""Floats per blob: node, shift of q, factor, baseline, floor, τ, slope, g, H; see `surroundings` for more."""


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
    threads : int
        That convert the points on their way to the device.

    Raises
    ------
    InputError
        The device fails.
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
        threads: int = 1,
    ) -> None:
        import pyopencl as cl

        self._cl = cl
        self._points, self._columns, self._conditions = points, columns, conditions
        self._floors = points.floors
        cpu = bool(device.type & cl.device_type.CPU) if vectors is None else vectors
        self._double = bool(device.double_fp_config) if double is None else double
        blocked = columns.count > (CPU_COLUMNS if cpu else REGISTER_COLUMNS)
        few = columns.count <= FEW_COLUMNS and self._double and device.max_work_group_size >= FEW_LOCAL
        local, groups = (FEW_LOCAL, FEW_GROUPS) if few else (LOCAL, GROUPS)
        while not cpu and blocked and local < block_tasks(columns):
            local *= 2
        self._vector, self._local = (VECTOR, 1) if cpu else (1, local)
        self.description = f"{device.name.strip()} ({device.platform.name.strip()}), float32" + (
            " with double sums" if self._double else " in blocks"
        )
        self.device, self._device = device, device.name.strip()
        smearing = points.smearing
        self._places = int(columns.neighbours > 0) if smearing is None else smearing.weight.shape[1]
        source = program_source(
            columns,
            background=points.background,
            relative_error=conditions.relative_error,
            vector=self._vector,
            double=self._double,
            local=self._local,
            blocked=blocked,
            places=self._places,
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
            self._resident = DevicePoints(
                self._queue,
                points,
                motion=columns.motion,
                vector=self._vector,
                chunk=self._chunk,
                threads=threads,
            )
            self._allocate()
            self._resident.load(0)
        if len(self._resident.parts) > 1:
            self.description += f", in {len(self._resident.parts)} parts that are loaded in turn"

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        cl, width = self._cl, self._columns.count
        n_blobs = len(self._points.nodes)
        total = np.zeros((n_blobs, self._n_sums))
        with self._errors():
            n_max = self._upload_state(state)
            for part, chunks, first_chunk in self._in_turn():
                self._gram.set_args(
                    *self._resident.values,
                    chunks,
                    self._blobs,
                    self._centres_buffer,
                    self._tensor,
                    np.int32(n_max),
                    self._sums_buffer,
                    *self._resident.places,
                    *self._motion,
                )
                cl.enqueue_nd_range_kernel(self._queue, self._gram, (len(part.chunks) * self._local,), (self._local,))
                total += self._totals(part, first_chunk)
        gram = np.zeros((n_blobs, width, width))
        rows, columns = self._lower
        gram[:, rows, columns] = gram[:, columns, rows] = total[:, :-2]
        if not self._double:
            gram = self._uncentre(gram)
        return Sums(2 * total[:, -2], gram, total[:, -1])

    def intensity(self, state: State, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
        cl, flags = self._cl, self._cl.mem_flags
        found = np.zeros(int(self._points.sizes[blob]))
        with self._errors():
            n_max = self._upload_state(state)
            for number, part in enumerate(self._resident.parts):
                for i in np.flatnonzero(part.share.blobs == blob):
                    self._resident.load(number)
                    start, end = int(part.starts[i]), int(part.starts[i + 1])
                    chunks = part.chunks[part.chunks[:, 0] == blob].copy()
                    s = np.empty(end - start, dtype=np.float32)
                    output = cl.Buffer(self._context, flags.WRITE_ONLY, s.nbytes)
                    chunks_buffer = cl.Buffer(self._context, flags.READ_ONLY | flags.COPY_HOST_PTR, hostbuf=chunks)
                    self._intensity.set_args(
                        *self._resident.values[:3],
                        chunks_buffer,
                        self._blobs,
                        self._tensor,
                        np.int32(n_max),
                        np.uint64(start),
                        output,
                        *self._resident.places,
                        *self._motion,
                    )
                    size = (len(chunks) * self._local,)
                    cl.enqueue_nd_range_kernel(self._queue, self._intensity, size, (self._local,))
                    cl.enqueue_copy(self._queue, s, output)
                    first, stop = int(part.share.starts[i]), int(part.share.stops[i])
                    found[first:stop] = s[: stop - first]
        return found

    def use(self, blob: int, used: npt.NDArray[np.bool_]) -> None:
        """Say which pixels (n,) of a blob count from now on, of those that the points came with."""
        with self._errors():
            self._resident.use(blob, used)

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

    def _in_turn(self) -> Iterator[tuple[Part, Any, Any]]:
        """The parts with their buffers of chunks, loaded one after the other, that which is there first."""
        numbers = range(len(self._resident.parts))
        order = numbers if self._resident.loaded == 0 else reversed(numbers)
        for number in order:
            yield self._resident.load(number), *self._chunk_buffers[number]

    def _totals(self, part: Part, first_chunk: Any) -> Array:
        """Sums of each blob, (n_blobs, sums), from those of its chunks."""
        cl = self._cl
        if not self._double:
            partial = np.empty((len(part.chunks), self._n_sums), dtype=np.float32)
            cl.enqueue_copy(self._queue, partial, self._sums_buffer)
            there = np.diff(part.first_chunk) > 0
            total = np.zeros((len(there), self._n_sums))
            total[there] = np.add.reduceat(partial.astype(np.float64), part.first_chunk[:-1][there], axis=0)
            return total
        assert self._add_chunks is not None
        total = np.empty((len(part.first_chunk) - 1, self._n_sums))
        self._add_chunks.set_args(self._sums_buffer, first_chunk, self._totals_buffer)
        cl.enqueue_nd_range_kernel(self._queue, self._add_chunks, (total.size,), None)
        cl.enqueue_copy(self._queue, total, self._totals_buffer)
        return total

    def _allocate(self) -> None:
        """Buffers of everything but the points."""
        cl, flags, n_blobs = self._cl, self._cl.mem_flags, len(self._points.nodes)
        columns = self._columns
        self._lower = np.tril_indices(columns.count)
        self._n_sums = len(self._lower[0]) + 2
        item = 8 if self._double else 4
        copied = flags.READ_ONLY | flags.COPY_HOST_PTR
        self._chunk_buffers = [
            tuple(cl.Buffer(self._context, copied, hostbuf=values) for values in (part.chunks, part.first_chunk))
            for part in self._resident.parts
        ]
        most = max(len(part.chunks) for part in self._resident.parts)
        self._sums_buffer = cl.Buffer(self._context, flags.READ_WRITE, most * self._n_sums * item)
        self._totals_buffer = cl.Buffer(self._context, flags.WRITE_ONLY, n_blobs * self._n_sums * item)
        self._blobs = cl.Buffer(self._context, flags.READ_ONLY, 4 * self._blob_size * n_blobs)
        self._centres = np.zeros((n_blobs, columns.count - 1))
        self._centres_buffer = cl.Buffer(self._context, flags.READ_ONLY, 4 * self._centres.size)
        self._tensor = cl.Buffer(self._context, flags.READ_ONLY, (2 * 36 + 4 + 6 * 15) * 4)
        n_motion = 80 + 9 * (columns.turns + columns.planes) + 3 * columns.beams
        self._motion = [cl.Buffer(self._context, flags.READ_ONLY, 4 * n_motion)] if columns.motion else []

    def _upload_state(self, state: State) -> int:
        """Everything that depends on the state; returns the number of explicit terms of the quantum sum."""
        points, c, n_blobs = self._points, self._conditions, len(self._points.nodes)
        quantum = quantum_sum(state.tensor, points.reach, c.temperature, c.density, TOLERANCE, state.dispersion)
        entries = self._columns.entries
        if entries is not None and state.tensor[~entries].any():
            raise ValueError("the tensor has entries that the columns exclude")
        dispersion = np.zeros((6, 15)) if state.dispersion is None else state.dispersion
        if dispersion[~self._columns.dispersion.any(axis=0)].any():
            raise ValueError("the dispersion has terms that the columns exclude")
        tensor = np.concatenate(
            [
                christoffel_coefficients(state.tensor).ravel(),
                state.tensor.ravel(),
                [quantum.a, *quantum.tail],
                dispersion.ravel(),
            ]
        )
        blobs = np.column_stack(
            [
                points.nodes if state.nodes is None else state.nodes,
                shift_of_q(points, state),
                state.factor,
                state.baseline,
                self._floors,
                np.ones(n_blobs) if state.background is None else state.background,
                np.zeros((n_blobs, 3)) if state.slope is None else state.slope,
                np.zeros((n_blobs, 3)) if state.gradient is None else state.gradient,
                np.zeros((n_blobs, 6)) if state.strain is None else state.strain,
                *([surroundings(points, state)] if self._places else []),
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

    @property
    def _blob_size(self) -> int:
        return BLOB_SIZE + (2 + 7 * self._places + 4 * self._columns.neighbours if self._places else 0)

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


def surroundings(points: Points, state: State) -> Array:
    """For each blob the numbers of places and neighbours, and both, as the kernel reads them; see model.h."""
    n, smearing, away = len(points.nodes), points.smearing, points.neighbours
    if smearing is None:
        one = np.ones((n, 1))
        smearing = Smearing(one, np.zeros((n, 1, 3)), np.zeros((n, 1, 3)))
    away = np.zeros((n, 0, 3)) if away is None else away
    there: npt.NDArray[np.bool_] = np.asarray(~np.isnan(away).any(axis=2))
    ratios = np.zeros(there.shape) if state.ratios is None else state.ratios
    places = np.concatenate([smearing.weight[..., None], smearing.shift, smearing.turn], axis=2)
    others = np.concatenate([np.where(there, ratios, 0.0)[..., None], np.where(there[..., None], away, 0.0)], axis=2)
    numbers = np.column_stack([smearing.numbers, there.sum(axis=1)])
    return np.concatenate([numbers, places.reshape(n, -1), others.reshape(n, -1)], axis=1)


def _packed(motion: Motion) -> Array:
    """The motion in the order in which the kernel reads it."""
    parts = (motion.turn, motion.turn_change, motion.plane, motion.plane_change, motion.beam, motion.beam_change)
    waves = np.array([motion.wave_number, motion.wave_number_change])
    return np.concatenate([np.ravel(a) for a in (*parts, waves, motion.turns, motion.planes, motion.beams)])
