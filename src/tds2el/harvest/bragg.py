"""Bragg intensities of passages, integrated over reciprocal space, from frames in which they do not saturate.

A pixel of a frame measures N/κ, the intensity averaged over the volume that it sweeps in reciprocal space while the
crystal turns by a step. The sum of N/κ times that volume over the passage is ∫ I d³s; the Lorentz factor is in the
volume (Buerger, The Precession Method, 1964; here from the geometry, for any goniometer).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries, frame_files, open_frame_series
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.mask import FrameMasks, read_mask, read_ranges
from tds2el.experiment.monitor import read_normalisation
from tds2el.harvest.plan import passages, regions
from tds2el.progress import Stage
from tds2el.settings import BraggSettings, Experiment, FrameSettings

Array = npt.NDArray[np.float64]

SAME_PASSAGE = 1.0
"""Degrees between the angles of one passage in two scans."""
MARGIN = 2
"""Frames and pixels beyond the ball that must have been measured: the ball is to be seen as a whole."""
MOST_BAD = 0.02
"""Part of the ball that may be masked."""


@dataclass(frozen=True)
class BraggFrames:
    """Frames that Bragg peaks are integrated in.

    Attributes
    ----------
    geometry : Geometry
    series : FrameSeries
    masks : FrameMasks
    unit : ndarray, shape (frames,)
        Denominators over the attenuation: a frame counts unit · POL · C3 per unit intensity.
    largest : float
        Counts above it are saturated.
    """

    geometry: Geometry
    series: FrameSeries
    masks: FrameMasks
    unit: Array
    largest: float


@dataclass
class BraggPeak:
    """A peak while it is summed, then: ∫ d³s over the ball round it.

    Attributes
    ----------
    integral, variance : float
        ∫ N/κ d³s, and its variance by counting.
    volume, bad : float
        Å⁻³: what was measured of the ball, and what was masked.
    flaw : str
        Why it cannot be used; "" if it can.
    """

    integral: float = 0.0
    variance: float = 0.0
    volume: float = 0.0
    bad: float = 0.0
    flaw: str = ""
    frames: list[int] = field(default_factory=list)


def bragg_source(frames: FrameSettings | None, options: BraggSettings) -> FrameSettings:
    """Where the frames are in which Bragg peaks are integrated: the scan itself, or an attenuated one with its mask.

    Raises
    ------
    InputError
        What is needed is missing.
    """
    if frames is None:
        raise InputError("bragg_scale reads frames again: give images_prefix and what belongs to it")
    if frames.background_prefix is not None:
        raise InputError("bragg_scale is not available beside frames of the background in this version: leave one out")
    if options.bragg_prefix is not None:
        if frames.normalisation_file is not None and options.bragg_normalisation_file is None:
            raise InputError("bragg_prefix: its frames need denominators too: give bragg_normalisation_file")
        frames = replace(
            frames,
            images_prefix=options.bragg_prefix,
            images_postfix=options.bragg_postfix,
            filter_ranges=None,
            normalisation_file=options.bragg_normalisation_file,
        )
        if not frame_files(frames):
            raise InputError(
                f"no file matches {options.bragg_prefix}*{options.bragg_postfix}; check bragg_prefix and bragg_postfix"
            )
    return frames


def bragg_frames(
    frames: FrameSettings, experiment: Experiment, attenuation: float, threshold: float | None
) -> BraggFrames:
    """Open the frames in which Bragg peaks are integrated.

    Parameters
    ----------
    frames : FrameSettings
        As `bragg_source` gives it.
    experiment : Experiment
    attenuation : float
        How many times less intense they are than those of the scan.
    threshold : float, optional
        Counts above which a pixel is saturated, beside what the headers say.

    Raises
    ------
    InputError
        What cannot be read.
    """
    series = open_frame_series(frames, experiment.angular_step)
    denominator = np.ones(series.n_frames)
    if frames.normalisation_file is not None:
        denominator = read_normalisation(frames.normalisation_file, series)
    mask = np.ones(series.shape, dtype=np.bool_)
    if frames.filter_file is not None:
        mask &= read_mask(frames.filter_file, series.shape)
    if series.pixel_mask is not None:
        mask &= series.pixel_mask
    limits = [limit for limit in (threshold, series.count_cutoff) if limit is not None]
    if not limits:
        raise InputError("threshold: not given, and the frames' headers name no count cutoff; give it in counts")
    return BraggFrames(
        Geometry(experiment),
        series,
        FrameMasks(mask, read_ranges(frames.filter_ranges or (), series.shape, series.n_frames)),
        denominator / attenuation,
        min(limits),
    )


def integrate_peaks(scan: BraggFrames, nodes: Array, centres: Array, angles: Array, radius: float) -> list[BraggPeak]:
    """Integrate over the balls round Bragg peaks, each frame read once.

    Parameters
    ----------
    scan : BraggFrames
    nodes, centres : ndarray, shape (n, 3)
        G, which tells the passages, and where the peaks are, Å⁻¹.
    angles : ndarray, shape (n,)
        Of the passages, degrees.
    radius : float
        Å⁻¹.

    Raises
    ------
    InputError
        A frame that cannot be read.
    """
    peaks = [_planned(scan, *of_one, radius) for of_one in zip(nodes, centres, angles, strict=True)]
    visits: dict[int, list[int]] = defaultdict(list)
    for number, peak in enumerate(peaks):
        for frame in peak.frames:
            visits[frame].append(number)
    with Stage("integrate Bragg peaks", len(visits), "frame") as stage:
        for frame in sorted(visits):
            image, mask = scan.series.read(frame), scan.masks.mask(frame)
            for number in visits[frame]:
                if not peaks[number].flaw:
                    _add(peaks[number], scan, frame, image, mask, centres[number], radius)
            stage.update()
    for peak in peaks:
        if not peak.flaw and peak.bad > MOST_BAD * (peak.volume + peak.bad):
            peak.flaw = "masked in part"
    return peaks


def _planned(scan: BraggFrames, node: Array, centre: Array, angle: float, radius: float) -> BraggPeak:
    """The frames that a peak is in, or why it is not seen as a whole."""
    geometry, index = scan.geometry, scan.series.angle_index
    found = [passage for passage in passages(geometry, centre, index, radius) if len(passage.frames)]
    own = passages(geometry, node, index, radius)
    if not found or not own:
        return BraggPeak(flaw="not in the scan")
    turn = np.abs([(passage.angle - angle + 180) % 360 - 180 for passage in found])
    frames = found[int(turn.argmin())].frames
    if turn.min() > SAME_PASSAGE:
        return BraggPeak(flaw="not in the scan")
    steps = np.diff(index[frames])
    if frames[0] < 1 or frames[-1] >= scan.series.n_frames - 1 or np.any(np.abs(np.abs(steps) - 1) > 1e-6):
        return BraggPeak(flaw="not a whole passage")
    box = regions(geometry, np.tile(centre, (len(frames), 1)), geometry.phi(index[frames]), radius, scan.series.shape)
    rows, columns = scan.series.shape
    empty = (box[:, 0] >= box[:, 1]) | (box[:, 2] >= box[:, 3])
    edge = (box[:, [0, 2]] <= 0).any(axis=1) | (box[:, 1] >= rows) | (box[:, 3] >= columns)
    if (edge | empty).any():
        return BraggPeak(flaw="not wholly on the detector")
    return BraggPeak(frames=frames.tolist())


def _add(
    peak: BraggPeak, scan: BraggFrames, frame: int, image: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_],
    centre: Array, radius: float,
) -> None:  # fmt: skip
    """Add what one frame measures of a ball."""
    geometry, index = scan.geometry, float(scan.series.angle_index[frame])
    phi = float(geometry.phi(index))
    top, bottom, left, right = regions(geometry, centre[None], np.array([phi]), radius, scan.series.shape)[0]
    row, column = (x.astype(np.float64) for x in np.mgrid[top:bottom, left:right])
    inside = np.linalg.norm(geometry.q_crystal(row, column, phi) - centre, axis=-1) <= radius
    row, column = row[inside], column[inside]
    raw = image[top:bottom, left:right][inside]
    counts = raw.astype(np.float64)
    good = mask[top:bottom, left:right][inside] & (counts >= 0)
    high = counts > scan.largest
    if raw.dtype.kind == "u":
        high |= raw == np.iinfo(raw.dtype).max
    if (good & high).any():
        peak.flaw = "saturated"
        return
    volume = swept_volume(geometry, row, column, index)
    peak.bad += float(volume[~good].sum())
    row, column, counts, volume = row[good], column[good], counts[good], volume[good]
    correction = geometry.polarisation(row, column) * geometry.solid_angle(row, column) * scan.unit[frame]
    peak.volume += float(volume.sum())
    peak.integral += float((counts * volume / correction).sum())
    peak.variance += float((counts * (volume / correction) ** 2).sum())


def swept_volume(geometry: Geometry, row: Array, column: Array, angle_index: float) -> Array:
    """Volume of reciprocal space that pixels (n,) sweep in one step of the scan, Å⁻³, (n,)."""
    half = 0.5

    def place(drow: float, dcolumn: float, dindex: float) -> Array:
        return geometry.q_crystal(row + drow, column + dcolumn, geometry.phi(angle_index + dindex))

    edges = np.stack(
        [place(*step) - place(*(-x for x in step)) for step in ((half, 0.0, 0.0), (0.0, half, 0.0), (0.0, 0.0, half))],
        axis=-1,
    )
    return np.asarray(np.abs(np.linalg.det(edges)))
