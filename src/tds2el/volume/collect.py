"""Putting this rank's frames on the grid, a block of frames at a time, on the rank's threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.images import Chunk, damaged
from tds2el.node_memory import NodeSums
from tds2el.parallel import World
from tds2el.progress import Stage
from tds2el.volume.grid import frames_that_reach
from tds2el.volume.inputs import VolumeInputs
from tds2el.volume.sums import HITS, Scales, make_scales, variance_scale

IntArray = npt.NDArray[np.int64]

# Frames that are unpacked together, in memory of about so many bytes if they are large.
_BLOCK, _BLOCK_PER_THREAD, _BLOCK_BYTES = 8, 2, 1 << 29


class FrameCollector:
    """Adds frames to sums over the voxels of one block of the volume after the other.

    CBFs and the packed frames of Eiger files are read and decoded in compiled code, others by fabio, one at a time.

    Parameters
    ----------
    inputs : VolumeInputs
    threads : int
    check_md5 : bool
    world : World

    Attributes
    ----------
    scales : Scales
    hits, saturated : int
        Of this rank: pixels put on the grid, in microsteps, and how many of them were saturated.
    frames_read : int
    """

    def __init__(self, inputs: VolumeInputs, threads: int, check_md5: bool, world: World) -> None:
        from tds2el._core import VolumeGridder

        geometry, background = inputs.geometry, inputs.background
        self._inputs, self._world, self._threads, self._check_md5 = inputs, world, threads, check_md5
        step = geometry.experiment.angular_step
        offsets = step * ((np.arange(inputs.microsteps) + 0.5) / inputs.microsteps - 0.5)
        self._phi = geometry.phi(inputs.series.angle_index[inputs.frames])
        to_node, self._shift = inputs.collected.q_to_node
        # Of all frames at once: no rank has other bits than the rest.
        self._turns = to_node @ geometry.lab_to_crystal(self._phi[:, None] + offsets)
        self._denominators = inputs.denominator[inputs.frames]
        in_force = [inputs.masks.in_force(int(n)) for n in inputs.frames]
        different = list(dict.fromkeys(in_force))
        self._which = np.array([different.index(chosen) for chosen in in_force], dtype=np.int64)
        largest = float(self._denominators.max())
        self.scales: Scales = make_scales(
            microsteps=inputs.microsteps,
            whole_counts=inputs.series.dtype.kind in "biu",
            hits=self._all_hits(),
            largest_correction=largest,
            largest_background=0.0 if background is None else largest * float(background.rate.max()),
        )
        in_plane, normal = geometry.polarisation_axes
        self._gridder = VolumeGridder(
            masks=np.stack([inputs.masks.mask(int(inputs.frames[in_force.index(chosen)])) for chosen in different]),
            pixel_to_lab=geometry.pixel_to_lab,
            beam=geometry.beam,
            lmbda=geometry.experiment.lmbda,
            in_plane=in_plane,
            normal=normal,
            pol_degree=geometry.experiment.pol_degree,
            dist=geometry.experiment.dist,
            saturation=inputs.saturation,
            threshold=inputs.threshold,
            rate=None if background is None else background.rate,
            count_scale=self.scales.counts,
            correction_scale=self.scales.correction,
            background_scale=self.scales.background,
            threads=threads,
        )
        self._packed = True  # until a frame turns out to be of a kind that only fabio reads
        self.hits = self.saturated = self.frames_read = 0

    def _all_hits(self) -> int:
        """Of all voxels together and of all that are equivalent, at most."""
        pixels = int(np.prod(self._inputs.series.shape))
        return pixels * len(self._inputs.frames) * self._inputs.microsteps * self._inputs.operations

    def collect(self, sums: NodeSums, first: int, stop: int) -> None:
        """Fill the sums with slabs first to stop − 1, those of all ranks in the memory of rank 0 (collective).

        Raises
        ------
        InputError
            On all ranks alike; names the frame that has vanished, is truncated or damaged, or of another shape.
        """
        inputs, world = self._inputs, self._world
        array = sums.array[: stop - first]
        shift = self._shift - [first, 0, 0]
        step = inputs.geometry.experiment.angular_step
        grid = inputs.collected.slabs(first, stop)
        reach = frames_that_reach(grid, inputs.geometry, self._phi, step, inputs.series.shape)
        used = np.flatnonzero(reach)
        shares = np.array_split(used, world.size)
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
        sums.to_first()
        if inputs.background is not None:
            self._add_background_variance(sums, array, shift, used)

    def _block(self) -> int:
        room = _BLOCK_BYTES // (4 * int(np.prod(self._inputs.series.shape)))
        return max(self._threads, min(room, max(_BLOCK, _BLOCK_PER_THREAD * self._threads)))

    def _read(self, part: IntArray, array: IntArray, shift: npt.NDArray[np.float64], shared: bool) -> None:
        """Add some of the frames that are used."""
        series = self._inputs.series
        frames = [int(n) for n in self._inputs.frames[part]]
        if self._check_md5:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(series.check_md5, frames))
        if not self._read_packed(part, frames, array, shift, shared):
            for i, n in zip(part, frames, strict=True):
                self._add(np.array([i]), [np.ascontiguousarray(series.read(n))], array, shift, shared)

    def _read_packed(
        self, part: IntArray, frames: list[int], array: IntArray, shift: npt.NDArray[np.float64], shared: bool
    ) -> bool:
        """Add frames that compiled code reads; False if it cannot read all of them."""
        series = self._inputs.series
        sources = [series.source(n) for n in frames] if self._packed else [None]
        known = [source for source in sources if source is not None]
        if len(known) < len(frames):
            return False
        faults = self._add(part, known, array, shift, shared)
        if not faults:
            return True
        position, reason = faults[0]
        if reason:
            raise damaged(series.names[frames[position]], reason)
        series.read(frames[position])  # which says what is wrong, if anything is
        self._packed = False
        return False

    def _add(
        self,
        part: IntArray,
        sources: Sequence[str | Chunk | npt.NDArray[Any]],
        array: IntArray,
        shift: npt.NDArray[np.float64],
        shared: bool,
    ) -> list[tuple[int, str]]:
        faults, hits, saturated = self._gridder.frames(
            sources=sources,
            turns=self._turns[part],
            shift=shift,
            denominators=self._denominators[part],
            which=self._which[part],
            sums=array,
            shared=shared,
        )
        self.hits += hits
        self.saturated += saturated
        return faults

    def _add_background_variance(
        self, sums: NodeSums, array: IntArray, shift: npt.NDArray[np.float64], used: IntArray
    ) -> None:
        """Each rank takes some rows of pixels through all frames: the order of frames matters here (collective)."""
        inputs, world, background = self._inputs, self._world, self._inputs.background
        assert background is not None
        fullest = int(array[..., HITS].max()) if world.rank == 0 else 0
        hits = -(-world.gather_all(fullest)[0] // inputs.microsteps)
        # (N + 1)/T² of a frame with denominator 1.
        variance = (background.rate * background.exposure + 1) / background.exposure**2
        largest = float(variance.max() * self._denominators.max() ** 2)
        scale = variance_scale(hits, len(inputs.frames), inputs.operations, largest)
        rows = np.linspace(0, inputs.series.shape[0], world.size + 1).astype(int)
        self._gridder.background_variances(
            first_row=int(rows[world.rank]),
            end_row=int(rows[world.rank + 1]),
            variance=variance,
            turns=self._turns[used],
            shift=shift,
            denominators=self._denominators[used],
            which=self._which[used],
            sums=array,
            scale=scale,
            shared=sums.shared,
        )
        sums.to_first()
        self.scales = self.scales.with_variance(scale)
