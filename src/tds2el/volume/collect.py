"""Putting frames on the grid, each rank some, a block of frames at a time on the rank's threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import Source
from tds2el.node_memory import NodeSums
from tds2el.parallel import World
from tds2el.progress import Stage
from tds2el.volume.grid import frames_that_reach
from tds2el.volume.inputs import VolumeInputs
from tds2el.volume.sums import HITS, Scales, make_scales, variance_scale
from tds2el.volume.sweep import Sweep

IntArray = npt.NDArray[np.int64]

# Frames that are unpacked together, in memory of about so many bytes if they are large.
_BLOCK, _BLOCK_PER_THREAD, _BLOCK_BYTES = 8, 2, 1 << 29


def scales_of(inputs: VolumeInputs) -> Scales:
    """Scales with which no sum can overflow."""
    largest = [float(sweep.denominator.max()) for sweep in inputs.sweeps]
    rates = [0.0 if sweep.background is None else float(sweep.background.rate.max()) for sweep in inputs.sweeps]
    return make_scales(
        microsteps=inputs.microsteps,
        whole_counts=all(sweep.series.dtype.kind in "biu" for sweep in inputs.sweeps),
        hits=sum(sweep.n_pixels * len(sweep.frames) for sweep in inputs.sweeps) * inputs.microsteps * inputs.operations,
        largest_correction=max(largest),
        largest_background=max(x * rate for x, rate in zip(largest, rates, strict=True)),
    )


def collect(
    collectors: Sequence[FrameCollector],
    inputs: VolumeInputs,
    sums: NodeSums,
    first: int,
    stop: int,
    scales: Scales,
    world: World,
) -> Scales:
    """Fill the sums with slabs first to stop − 1, those of all ranks in the memory of rank 0 (collective).

    Returns
    -------
    Scales
        Of these sums.

    Raises
    ------
    InputError
        On all ranks alike.
    """
    for collector in collectors:
        collector.add_frames(sums, first, stop)
    sums.to_first()
    if not inputs.has_background:
        return scales
    fullest = int(sums.array[: stop - first, ..., HITS].max()) if world.rank == 0 else 0
    variance = max(float(s.background_variance.max() * s.denominator.max() ** 2) for s in inputs.sweeps)
    scale = variance_scale(
        hits=-(-world.gather_all(fullest)[0] // inputs.microsteps),
        frames=sum(len(sweep.frames) for sweep in inputs.sweeps),
        operations=inputs.operations,
        largest=variance,
    )
    for collector in collectors:
        collector.add_background_variance(sums, first, stop, scale)
    sums.to_first()
    return scales.with_variance(scale)


class FrameCollector:
    """Adds the frames of one sweep to sums over the voxels of one block of the volume after the other.

    CBFs and the packed frames of Eiger files are read and decoded in compiled code, others by fabio, one at a time.

    Parameters
    ----------
    sweep : Sweep
    inputs : VolumeInputs
    scales : Scales
    threads : int
    check_md5 : bool
    world : World

    Attributes
    ----------
    hits, saturated : int
        Of this rank: pixels put on the grid, in microsteps, and how many of them were saturated.
    frames_read : int
    """

    def __init__(
        self, sweep: Sweep, inputs: VolumeInputs, scales: Scales, threads: int, check_md5: bool, world: World
    ) -> None:
        from tds2el._core import VolumeGridder

        geometry, background = sweep.geometry, sweep.background
        self._sweep, self._world, self._threads, self._check_md5 = sweep, world, threads, check_md5
        self._grid = inputs.collected
        step, m = geometry.experiment.angular_step, inputs.microsteps
        offsets = step * ((np.arange(m) + 0.5) / m - 0.5)
        to_node, self._shift = inputs.collected.q_to_node
        # Of all frames at once: no rank has other bits than the rest.
        self._turns = to_node @ geometry.lab_to_crystal(sweep.phi[:, None] + offsets)
        in_force = [sweep.masks.in_force(int(n)) for n in sweep.frames]
        different = list(dict.fromkeys(in_force))
        self._which = np.array([different.index(chosen) for chosen in in_force], dtype=np.int64)
        in_plane, normal = geometry.polarisation_axes
        self._gridder = VolumeGridder(
            masks=np.stack([sweep.masks.mask(int(sweep.frames[in_force.index(chosen)])) for chosen in different]),
            pixel_to_lab=geometry.pixel_to_lab,
            origin=geometry.origin,
            pixel_size=geometry.experiment.pixel_size,
            sensor_thickness=geometry.experiment.sensor_thickness,
            sensor_mu=geometry.experiment.sensor_mu,
            beam=geometry.beam,
            lmbda=geometry.experiment.lmbda,
            in_plane=in_plane,
            normal=normal,
            pol_degree=geometry.experiment.pol_degree,
            dist=geometry.experiment.dist,
            saturation=sweep.saturation,
            threshold=sweep.threshold,
            rate=None if background is None else background.rate,
            count_scale=scales.counts,
            correction_scale=scales.correction,
            background_scale=scales.background,
            threads=threads,
        )
        self.hits = self.saturated = self.frames_read = 0

    def add_frames(self, sums: NodeSums, first: int, stop: int) -> None:
        """Add this rank's share of the frames to the sums of slabs first to stop − 1 (collective).

        Raises
        ------
        InputError
            On all ranks alike; names the frame that has vanished, is truncated or damaged, or of another shape.
        """
        world, array, shift = self._world, sums.array[: stop - first], self._shift - [first, 0, 0]
        shares = np.array_split(self._reaching(first, stop), world.size)
        mine, block = shares[world.rank], max(world.gather_all(self._block()))
        with Stage("volume", len(mine), "frame") as stage:
            for start in range(0, len(shares[0]), block):
                part = mine[start : start + block]
                error: Exception | None = None
                try:
                    self._read(part, array, shift, sums.shared)
                    stage.update(len(part))
                except (InputError, OSError) as caught:
                    error = caught
                world.agree(error)
        self.frames_read += len(mine)

    def add_background_variance(self, sums: NodeSums, first: int, stop: int, scale: float) -> None:
        """Add the variance of the background, of this rank's share of the pixels.

        A pixel goes through all frames, since their order matters here.
        """
        if self._sweep.background is None:
            return
        used, world = self._reaching(first, stop), self._world
        rows = np.linspace(0, self._sweep.series.shape[0], world.size + 1).astype(int)
        self._gridder.background_variances(
            first_row=int(rows[world.rank]),
            end_row=int(rows[world.rank + 1]),
            variance=self._sweep.background_variance,
            turns=self._turns[used],
            shift=self._shift - [first, 0, 0],
            denominators=self._sweep.denominator[used],
            which=self._which[used],
            sums=sums.array[: stop - first],
            scale=scale,
            shared=sums.shared,
        )

    def _reaching(self, first: int, stop: int) -> IntArray:
        """Which of the frames that are used reach the slabs."""
        return np.flatnonzero(frames_that_reach(self._grid.slabs(first, stop), self._sweep.view))

    def _block(self) -> int:
        room = _BLOCK_BYTES // (4 * self._sweep.n_pixels)
        return max(self._threads, min(room, max(_BLOCK, _BLOCK_PER_THREAD * self._threads)))

    def _read(self, part: IntArray, array: IntArray, shift: npt.NDArray[np.float64], shared: bool) -> None:
        """Add some of the frames that are used."""
        series = self._sweep.series
        frames = [int(n) for n in self._sweep.frames[part]]
        if self._check_md5:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(series.check_md5, frames))
        place = dict(zip(frames, part.tolist(), strict=True))

        def take(members: Sequence[int], sources: Sequence[Source]) -> list[tuple[int, str]]:
            return self._add(np.array([place[n] for n in members]), sources, array, shift, shared)

        series.feed(frames, take)

    def _add(
        self,
        part: IntArray,
        sources: Sequence[Source],
        array: IntArray,
        shift: npt.NDArray[np.float64],
        shared: bool,
    ) -> list[tuple[int, str]]:
        faults, hits, saturated = self._gridder.frames(
            sources=sources,
            turns=self._turns[part],
            shift=shift,
            denominators=self._sweep.denominator[part],
            which=self._which[part],
            sums=array,
            shared=shared,
        )
        self.hits += hits
        self.saturated += saturated
        return faults
