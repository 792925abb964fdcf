"""From a scan to volume.h5, on one process or MPI ranks, in as many passes over the frames as the memory asks for."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np

from tds2el.errors import InputError
from tds2el.experiment.frames import frame_files, scan_together
from tds2el.node_memory import NodeSums
from tds2el.output import replaced, writing
from tds2el.parallel import World
from tds2el.progress import Stage
from tds2el.settings import Settings
from tds2el.volume.collect import FrameCollector, collect, scales_of
from tds2el.volume.file import CHUNK, Source, VolumeWriter
from tds2el.volume.inputs import VolumeInputs, output_path, prepare
from tds2el.volume.sums import HITS, IntArray, Scales, Voxels, voxels

logger = logging.getLogger("tds2el")

OPTION = "volume_file"


def reconstruct(settings: Settings, world: World) -> Path:
    """Put the frames on a grid in reciprocal space and write the volume (collective).

    Parameters
    ----------
    settings : Settings
    world : World

    Returns
    -------
    Path
        The volume file.

    Raises
    ------
    InputError
        On all ranks alike, for any fault of the inputs; an existing file of that name is then untouched.
    """
    threads = settings.harvest.threads or world.cores
    sweeps = settings.sweeps or (settings,)
    world.attempt(lambda: output_path(settings))
    scanned = [scan_together(partial(_frame_files, sweep), threads, world) for sweep in sweeps]
    inputs = world.attempt(lambda: prepare(sweeps, scanned))
    if world.rank == 0:
        for text in inputs.notes:
            logger.info("%s", text)
    error = None
    try:
        with replaced(inputs.path, OPTION) if world.rank == 0 else nullcontext(None) as temporary:
            _reconstruct(temporary, settings, inputs, threads, world)
    except InputError as caught:
        error = caught
    world.agree(error)  # rank 0 may have failed to rename
    return inputs.path


def _frame_files(settings: Settings) -> list[str]:
    assert settings.frames is not None  # as load_settings has made sure
    return frame_files(settings.frames)


def _reconstruct(temporary: Path | None, settings: Settings, inputs: VolumeInputs, threads: int, world: World) -> None:
    scales, check_md5 = scales_of(inputs), settings.harvest.check_md5
    collectors = world.attempt(
        lambda: [FrameCollector(sweep, inputs, scales, threads, check_md5, world) for sweep in inputs.sweeps]
    )
    summary = _Summary(inputs)
    start, seconds = time.monotonic(), 0.0
    n, grid = inputs.slabs, inputs.collected
    with (
        world.attempt(lambda: _writer(temporary, settings, inputs)) as writer,
        NodeSums((n, *grid.shape[1:], inputs.columns), world) as sums,
    ):
        for first in range(0, grid.shape[0], n):
            if first:
                sums.clear()
            stop = min(first + n, grid.shape[0])
            started = time.monotonic()
            own_scales = collect(collectors, inputs, sums, first, stop, scales, world)
            seconds += time.monotonic() - started
            world.attempt(partial(_write, writer, inputs, sums.array, (first, stop), own_scales, summary))
    read, hits, saturated = (
        world.sum(sum(numbers))
        for numbers in zip(*((c.frames_read, c.hits, c.saturated) for c in collectors), strict=True)
    )
    if world.rank == 0:
        _tell(inputs, summary, hits, saturated)
        rate, total = read / max(seconds, 1e-9), time.monotonic() - start
        logger.info("%d frames read at %.1f frames/s; %.1f s in all", read, rate, total)


def _writer(temporary: Path | None, settings: Settings, inputs: VolumeInputs) -> VolumeWriter | nullcontext[None]:
    if temporary is None:
        return nullcontext(None)
    group = inputs.symmetry and inputs.symmetry.group
    source = Source(
        names=[name for sweep in inputs.sweeps for name in sweep.names],
        sweep=np.repeat(np.arange(len(inputs.sweeps)), [len(sweep.frames) for sweep in inputs.sweeps]),
        phi=np.concatenate([sweep.phi for sweep in inputs.sweeps]),
        denominator=np.concatenate([sweep.denominator for sweep in inputs.sweeps]),
        group=group.name if group else None,
        operations=group.hkl_operations if group else None,
    )
    with writing(inputs.path, OPTION):
        return VolumeWriter(temporary, settings, inputs.grid, source, inputs.has_background)


def _write(
    writer: VolumeWriter | None,
    inputs: VolumeInputs,
    sums: IntArray,
    part: tuple[int, int],
    scales: Scales,
    summary: _Summary,
) -> None:
    """Write what was collected of a part of the first axis; on rank 0, which has the writer."""
    if writer is None:
        return
    with writing(inputs.path, OPTION), Stage("write", part[1] - part[0], "layer") as stage:
        for at, slab in _slabs(inputs, sums, *part):
            writer.reserve(len(slab))
            for corner, block in _filled_blocks(at, slab):
                found = voxels(block, scales)
                writer.write(corner, found)
                summary.add(corner, found)
            stage.update(len(slab))


def _slabs(inputs: VolumeInputs, sums: IntArray, first: int, stop: int) -> Iterator[tuple[int, IntArray]]:
    """The sums in slabs of the file's chunks: the number of each slab's first node, and its sums."""
    symmetry = inputs.symmetry
    if symmetry is None:
        for at in range(first, stop, CHUNK):
            yield at, sums[at - first : min(at + CHUNK, stop) - first]
        return
    from tds2el._core import symmetrise

    n0, n1, n2 = inputs.grid.shape
    for at in range(0, n0, CHUNK):
        yield (
            at,
            symmetrise(
                sums=sums,
                first=symmetry.first,
                slab=np.array([at, min(at + CHUNK, n0), n1, n2]),
                turns=symmetry.turns,
                shifts=symmetry.shifts,
                threads=len(os.sched_getaffinity(0)),  # the other ranks wait
            ),
        )


def _filled_blocks(at: int, slab: IntArray) -> Iterator[tuple[tuple[int, int, int], IntArray]]:
    """The chunks of a slab in which pixels are: the numbers of their first nodes, and their sums."""
    for j in range(0, slab.shape[1], CHUNK):
        for k in range(0, slab.shape[2], CHUNK):
            block = slab[:, j : j + CHUNK, k : k + CHUNK]
            if block[..., HITS].any():
                yield (at, j, k), block


class _Summary:
    """What is told of a volume of which only parts are in memory."""

    def __init__(self, inputs: VolumeInputs) -> None:
        self.filled, self.counts, self.brightest, self.node = 0, 0.0, -np.inf, (0, 0, 0)
        self._size = float(np.prod(inputs.grid.shape))

    def add(self, corner: tuple[int, int, int], found: Voxels) -> None:
        self.filled += int(np.count_nonzero(found.pixels))
        self.counts += float(found.counts.sum())
        intensity = np.nan_to_num(found.intensity, nan=-np.inf)
        largest = int(intensity.argmax())
        if intensity.flat[largest] > self.brightest:
            self.brightest = float(intensity.flat[largest])
            i, j, k = (int(x) for x in np.unravel_index(largest, intensity.shape))
            self.node = corner[0] + i, corner[1] + j, corner[2] + k

    @property
    def fraction(self) -> float:
        return self.filled / self._size


def _tell(inputs: VolumeInputs, summary: _Summary, hits: int, saturated: int) -> None:
    grid = inputs.grid
    if not summary.filled:
        logger.warning("no pixel fell into the volume: check volume_limits, mask and geometry")
        return
    place = ", ".join(f"{name} = {grid.axis(n)[summary.node[n]]:.4g}" for n, name in enumerate(grid.names))
    logger.info(
        "%.1f %% of the voxels are filled, by %.6g counts of %.4g pixels",
        100 * summary.fraction,
        summary.counts,
        hits / inputs.microsteps,
    )
    logger.info("brightest voxel: %.4g at %s", summary.brightest, place)
    if saturated:
        logger.warning(
            "%d pixels are saturated: the intensity of their voxels is too low", saturated // inputs.microsteps
        )
