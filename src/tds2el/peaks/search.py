"""The search for peaks in all frames of a scan, on one process or MPI ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries, Source, frame_files, open_frame_series, scan_together
from tds2el.experiment.mask import FrameMasks
from tds2el.experiment.monitor import read_normalisation
from tds2el.harvest.inputs import frame_masks
from tds2el.parallel import World
from tds2el.peaks.regions import SUMS, Found, Limits, Regions, follows, peaks_of
from tds2el.progress import Stage
from tds2el.settings import FrameSettings, PeakSettings, Settings

logger = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Runs = npt.NDArray[np.int32]

# Frames between two agreements of the ranks on whether all is well.
BLOCK, BLOCK_PER_THREAD = 16, 8
MOST_REGIONS = 20_000
"""In a frame: beyond it what is found is noise, and would fill the memory."""


@dataclass(frozen=True)
class Scan:
    """All that is known before the frames are read.

    Attributes
    ----------
    series : FrameSeries
    masks : FrameMasks
    denominator : ndarray, shape (frames,)
    saturated_above, saturated_from : float
        Counts above the first or at least the second are saturated.
    """

    series: FrameSeries
    masks: FrameMasks
    denominator: Array
    saturated_above: float
    saturated_from: float


@dataclass(frozen=True)
class Search:
    """The peaks of a scan.

    Attributes
    ----------
    scan : Scan
    found : Found
    background : ndarray, shape (frames,)
        Mean counts per pixel of each frame, without what stands out.
    """

    scan: Scan
    found: Found
    background: Array


def search(settings: Settings, world: World) -> Search | None:
    """Find the peaks of the scan that the settings name (collective).

    Returns
    -------
    Search or None
        On rank 0; the same, to the last bit, for any number of ranks and threads.

    Raises
    ------
    InputError
        On all ranks alike, for any fault of the inputs.
    """
    frames, threads = settings.frames, settings.harvest.threads or world.cores
    assert frames is not None  # load_settings requires images_prefix
    scanned = scan_together(lambda: frame_files(frames), threads, world)
    step = settings.values["angular_step"]
    assert isinstance(step, float)
    scan = world.attempt(lambda: _prepare(settings, frames, open_frame_series(frames, step, scanned)))
    finder = _Finder(scan, settings.peaks, threads)
    shares = read_shares("search", scan.series.n_frames, threads, world, finder.read)
    regions, background = _collect(finder, shares, scan.series.angle_index, world)
    if regions is None:
        return None
    limits = Limits(settings.peaks.maxima_min_pixels, settings.peaks.maxima_max_pixels)
    return Search(scan, peaks_of(regions, scan.series.angle_index, scan.denominator, limits), background)


def read_shares(
    title: str, n_frames: int, threads: int, world: World, read: Callable[[IntArray], None]
) -> list[IntArray]:
    """Have each rank read its share of the frames, in blocks (collective).

    Parameters
    ----------
    title : str
        What is done, for the progress bar.
    n_frames, threads, world
    read : callable
        Is given successive frames of this rank's share.

    Returns
    -------
    list of ndarray of int
        The frames of each rank: contiguous, and in the order of ranks.

    Raises
    ------
    InputError
        On all ranks alike, if one of them cannot read a frame.
    """
    shares = np.array_split(np.arange(n_frames), world.size)
    mine = shares[world.rank]
    block = max(world.gather_all(max(BLOCK, BLOCK_PER_THREAD * threads)))
    with Stage(title, len(mine), "frame") as stage:
        for start in range(0, len(shares[0]), block):
            part = mine[start : start + block]
            error: Exception | None = None
            try:
                read(part)
                stage.update(len(part))
            except (InputError, OSError) as caught:
                error = caught
            world.agree(error)
    return shares


def _prepare(settings: Settings, frames: FrameSettings, series: FrameSeries) -> Scan:
    denominator = np.ones(series.n_frames)
    if frames.normalisation_file is not None:
        denominator = read_normalisation(frames.normalisation_file, series)
    above = np.inf if settings.harvest.threshold is None else settings.harvest.threshold
    from_ = np.inf if series.count_cutoff is None else series.count_cutoff
    if series.dtype.kind == "u":  # what an Eiger cannot count
        from_ = min(from_, float(np.iinfo(series.dtype).max))
    return Scan(series, frame_masks(frames, series, None), denominator, above, from_)


class _Finder:
    """Searches frames in their order and keeps their bright regions, and which have a pixel in common."""

    def __init__(self, scan: Scan, options: PeakSettings, threads: int) -> None:
        from tds2el._core import PeakFinder

        self._scan = scan
        self._finder = PeakFinder(
            mask=scan.masks.scan,
            threshold=np.nan if options.maxima_threshold is None else options.maxima_threshold,
            sigma=options.maxima_sigma,
            saturated_above=scan.saturated_above,
            saturated_from=scan.saturated_from,
            window=options.maxima_window,
            most=MOST_REGIONS,
            threads=threads,
        )
        self._raise = "maxima_sigma" if options.maxima_threshold is None else "maxima_threshold"
        self._masks_in_force: tuple[int, ...] = ()
        self._regions = 0
        self.numbers: list[int] = []
        self.backgrounds: list[float] = []
        self.sums: list[Array] = []
        self.links: list[IntArray] = []
        self.first: Runs = np.empty((0, 4), dtype=np.int32)
        self.last: Runs = self.first

    def read(self, part: IntArray) -> None:
        """Search successive frames, which follow those before.

        Raises
        ------
        InputError
            Names the frame that cannot be read, or is full of noise.
        """
        masks = self._scan.masks
        for chosen, group in groupby(part.tolist(), masks.in_force):
            members = list(group)
            if self._masks_in_force != chosen:
                self._finder.set_mask(masks.mask(members[0]))
                self._masks_in_force = chosen
            self._scan.series.feed(members, self._take)

    def _take(self, frames: Sequence[int], sources: Sequence[Source]) -> list[tuple[int, str]]:
        from tds2el._core import link_runs

        numbers, backgrounds, sums, runs, faults = self._finder.frames(list(sources))
        if faults:
            return faults
        for frame, number, own in zip(frames, numbers.tolist(), runs, strict=True):
            if number > MOST_REGIONS:
                raise InputError(
                    f"{self._scan.series.names[frame]}: {number} bright regions, more than the {MOST_REGIONS} that may "
                    f"be peaks; raise {self._raise}, or mask what is no crystal's"
                )
            here = self._regions
            if not self.numbers:
                self.first = own
            elif follows(self._scan.series.angle_index[frame - 1 : frame + 1])[0]:
                offsets = np.array([here - self.numbers[-1], here])
                self.links.append(link_runs(self.last, own) + offsets)
            self.last = own
            self.numbers.append(number)
            self._regions += number
        self.backgrounds += backgrounds[:, 0].tolist()
        self.sums += sums
        return []


def _collect(finder: _Finder, shares: list[IntArray], angle_index: Array, world: World) -> tuple[Regions | None, Array]:
    """The regions of all ranks, on rank 0 (collective)."""
    from tds2el._core import link_runs

    numbers = world.gather_all(finder.numbers)
    background = np.concatenate([np.array(part) for part in world.gather_all(finder.backgrounds)])
    ends = world.gather_all((finder.first, finder.last))
    links_of = world.gather_all(np.concatenate([np.empty((0, 2), dtype=np.int64), *finder.links]))
    own = np.concatenate([np.empty((0, len(SUMS))), *finder.sums])
    if world.rank > 0:
        world.send(own, 0)
        return None, background
    totals = [sum(part) for part in numbers]
    start = np.cumsum([0, *totals])
    sums = np.empty((start[-1], len(SUMS)))
    sums[: start[1]] = own
    for rank in range(1, world.size):
        world.receive(sums[start[rank] : start[rank + 1]], rank)
    links = [part + first for part, first in zip(links_of, start[:-1], strict=True)]
    ranks = [rank for rank in range(world.size) if len(shares[rank])]
    for one, other in pairwise(ranks):
        frame = shares[other][0]
        if follows(angle_index[frame - 1 : frame + 1])[0]:
            offsets = np.array([start[one + 1] - numbers[one][-1], start[other]])
            links.append(link_runs(ends[one][1], ends[other][0]) + offsets)
    frame_of = np.repeat(np.concatenate(shares), np.concatenate([np.array(part, dtype=np.int64) for part in numbers]))
    return Regions(frame_of, sums, np.concatenate(links)), background
