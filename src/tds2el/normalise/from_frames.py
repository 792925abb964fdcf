"""Denominators from the frames themselves: the mean of what lies between the peaks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries, Source
from tds2el.experiment.mask import FrameMasks, read_mask
from tds2el.parallel import World
from tds2el.peaks.search import read_shares
from tds2el.settings import NormaliseSettings

Array = npt.NDArray[np.float64]

WINDOW = 15
"""Pixels; what stands out of its surroundings in a window of this size is a peak and does not count."""


def region_mask(options: NormaliseSettings, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Where the frames are averaged, True = there.

    Raises
    ------
    InputError
        A rectangle that reaches beyond the frame; a mask that cannot be read.
    """
    region = options.normalise_region
    if region is None:
        return np.ones(shape, dtype=np.bool_)
    if not isinstance(region, tuple):
        return read_mask(region, shape, "normalise_region")
    for name, (_, last), size in zip(("row", "column"), region, shape, strict=True):
        if last >= size:
            raise InputError(f"normalise_region: {name} {last} is beyond the frame, whose last is {size - 1}")
    chosen = np.zeros(shape, dtype=np.bool_)
    (top, bottom), (left, right) = region
    chosen[top : bottom + 1, left : right + 1] = True
    return chosen


def mean_counts(
    series: FrameSeries, masks: FrameMasks, region: npt.NDArray[np.bool_], threads: int, world: World
) -> tuple[Array, Array]:
    """Mean counts per pixel of the region in every frame, without peaks (collective).

    Returns
    -------
    (means, pixels)
        Both (frames,), on all ranks: the means, and the pixels that they are taken from.

    Raises
    ------
    InputError
        On all ranks alike: a frame that cannot be read, or has no count in the region.
    """
    from tds2el._core import PeakFinder

    finder = PeakFinder(
        mask=masks.scan & region,
        threshold=np.inf,  # nothing is a peak of interest
        sigma=np.inf,
        saturated_above=np.inf,
        saturated_from=np.inf,
        window=WINDOW,
        most=0,
        threads=threads,
    )
    own = [np.empty((0, 2))]

    def take(frames: Sequence[int], sources: Sequence[Source]) -> list[tuple[int, str]]:
        _, backgrounds, _, _, faults = finder.frames(list(sources))
        if not faults:
            own.append(backgrounds)
        return faults

    def read(part: npt.NDArray[np.int64]) -> None:
        for _, group in groupby(part.tolist(), masks.in_force):
            members = list(group)
            finder.set_mask(masks.mask(members[0]) & region)
            series.feed(members, take)

    read_shares("average", series.n_frames, threads, world, read)
    means, pixels = np.concatenate(world.gather_all(np.concatenate(own))).T
    empty = np.flatnonzero(means <= 0)
    error = None
    if empty.size:
        error = InputError(
            f"{series.names[empty[0]]}: no count in normalise_region, or no good pixel ({empty.size} of "
            f"{series.n_frames} frames are like this); choose a larger one, or leave the frames out"
        )
    world.agree(error)
    return means, pixels
