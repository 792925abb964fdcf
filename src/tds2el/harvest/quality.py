"""How good each harvested spot is: figures for the listing, and for leaving spots out of a fit."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.centre import peak_offsets
from tds2el.harvest.file import HarvestFile
from tds2el.team import Team

Array = npt.NDArray[np.float64]

PIECE = 1 << 22
"""Points that are read at a time."""
BANDS, SECTORS = 6, 8
"""Cells of equal area on the sphere: bands of equal height along z, cut into sectors of azimuth."""
NEAREST = 0.01
"""Of the outer radius: 1/q² is held at its value there, for a shell that is a whole ball."""


@dataclass(frozen=True)
class SpotQuality:
    """Figures of every blob, in the order of the harvest.

    Attributes
    ----------
    points : ndarray of int, shape (blobs,)
    coverage : ndarray, shape (blobs,)
        Part of the sphere of directions of q that holds points: of its 48 cells of equal area, those with at least one.
        q and −q are different directions: half a ball covers a half.
    signal : ndarray, shape (blobs,)
        Halo over baseline at the geometric mean of the shell's radii, from the least-squares fit a/q² + b to counts
        (less the background, if there is one) per unit correction. Below 0 where the intensity grows outwards;
        inf where there is a halo and the baseline is not above 0; 0 where there is neither; NaN where the points do
        not tell the two apart.
    offset : ndarray, shape (blobs, 3)
        Measured centre of the Bragg peak from the node, Å⁻¹; NaN without a pixel above threshold.
    offset_pixels : ndarray, shape (blobs,)
        Its length on the detector, in pixels: between where node and measured centre are projected at the angle of
        closest approach. What lies along the ray does not show. NaN where there is no peak or no projection.
    lost_frames : ndarray, shape (blobs,)
        Part of the blob's frames that a pixel above threshold has cost; 0 for threshold_action = "pixel".
    """

    points: npt.NDArray[np.int64]
    coverage: Array
    signal: Array
    offset: Array
    offset_pixels: Array
    lost_frames: Array

    def of(self, blobs: npt.NDArray[np.int64]) -> SpotQuality:
        """The figures of some blobs."""
        return SpotQuality(*(getattr(self, field.name)[blobs] for field in fields(self)))


def spot_quality(harvest: HarvestFile, team: Team | None = None, threads: int = 1) -> SpotQuality:
    """The figures of all blobs, in one pass over the points.

    Parameters
    ----------
    harvest : HarvestFile
    team : Team, optional
        Of `tds2el.fit.shared.HarvestShare`, which share it.
    threads : int
        Of this process, where there is no team.

    Raises
    ------
    InputError
        The points hold impossible numbers.
    """
    offset = harvest.shift + peak_offsets(harvest)
    parts = [quality_sums(harvest, threads=threads)] if team is None else team.ask("quality_sums")
    coverage = np.any([hit for hit, _ in parts], axis=0).mean(axis=1)
    signal = _signal(np.sum([sums for _, sums in parts], axis=0))
    lost_frames = np.zeros(harvest.n_blobs)
    if harvest.settings.get("threshold_action") != "pixel":
        lost_frames = harvest.frames_over_threshold / np.maximum(harvest.frames, 1)
    return SpotQuality(harvest.n_points, coverage, signal, offset, _on_detector(harvest, offset), lost_frames)


def quality_sums(
    harvest: HarvestFile, part: int = 0, parts: int = 1, threads: int = 1
) -> tuple[npt.NDArray[np.bool_], Array]:
    """What one of several equal parts of all points says.

    Returns
    -------
    hit : ndarray of bool, shape (blobs, cells)
        Cells of the sphere of directions that hold points.
    sums : ndarray, shape (5, blobs)
        Of 1, x, x², y, xy with x = (r/q)² for the shell's mean radius r and y = counts/κ.

    Raises
    ------
    InputError
        The points hold impossible numbers.
    """
    from tds2el._core import survey

    n = harvest.n_blobs
    inner = max(harvest.delta_min, NEAREST * harvest.delta_max)
    middle, nearest = np.sqrt(inner * harvest.delta_max), NEAREST * harvest.delta_max
    hit = np.zeros((n, BANDS * SECTORS), dtype=bool)
    sums = np.zeros((5, n))
    first, end = (int(harvest.offset[-1]) * number // parts for number in (part, part + 1))
    for start in range(first, end, PIECE):
        stop = min(start + PIECE, end)
        counts, correction, Q = harvest.points_of_all(start, stop)
        background = harvest.background_of_all(start, stop)
        sound, more, further = survey(
            counts, correction, Q, background, start, harvest.offset, harvest.centre, BANDS, middle, nearest, threads
        )
        if not sound:
            raise InputError(f"{harvest.path}: damaged: impossible numbers among its points; harvest again")
        hit |= more
        sums += further
    return hit, sums


def _signal(sums: Array) -> Array:
    """a/b of the least-squares line y = a x + b from the sums of 1, x, x², y, xy."""
    number, x, xx, y, xy = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = x / number, y / number
        variance = xx / number - mean_x**2
        slope = (xy / number - mean_x * mean_y) / variance
        # Where q hardly varies, slope is rounding.
        slope[~(variance > 1e-9 * mean_x**2)] = np.nan
        baseline = mean_y - slope * mean_x
        ratio = slope / baseline
    no_baseline = np.where(np.isnan(slope), np.nan, np.where(slope > 0, np.inf, 0.0))
    return np.where(baseline > 0, ratio, no_baseline)


def _on_detector(harvest: HarvestFile, offset: Array) -> Array:
    """How far apart, in pixels, nodes and nodes + offset are seen at the angles of the blobs (blobs,)."""
    apart = np.full(harvest.n_blobs, np.nan)
    for number, experiment in enumerate(harvest.experiments):
        geometry, blobs = Geometry(experiment), np.flatnonzero(harvest.sweep == number)
        rays = [
            experiment.lmbda * np.einsum("nji,nj->ni", geometry.lab_to_crystal(harvest.angle[blobs]), node)
            - geometry.beam
            for node in (harvest.centre[blobs], harvest.centre[blobs] + offset[blobs])
        ]
        apart[blobs] = np.linalg.norm(geometry.pixel_of(rays[1]) - geometry.pixel_of(rays[0]), axis=-1)
    return apart
