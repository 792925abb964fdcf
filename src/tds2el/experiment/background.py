"""Frames of the background, without the crystal: what they let expect in the pixels of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries, open_still_series
from tds2el.experiment.monitor import read_normalisation
from tds2el.settings import FrameSettings

OPTION = "background_prefix"


@dataclass(frozen=True)
class Background:
    """The sum of the background frames.

    A frame that is the mean of m exposures counts as m frames. With N(pixel) = m·Σ counts and T = m·Σ denominators,
    D·N/T background counts are expected in a frame of the scan with the denominator D. Counting noise of the
    background gives that estimate the variance D²(N + 1)/T²: its own share, and one count² where nothing was counted.

    Attributes
    ----------
    rate : ndarray, shape (rows, columns)
        N/T, counts per unit denominator.
    exposure : float
        T.
    good : ndarray of bool, shape (rows, columns)
        False where any of the frames has no valid count.
    n_frames : int
    """

    rate: npt.NDArray[np.float64]
    exposure: float
    good: npt.NDArray[np.bool_]
    n_frames: int


def read_background(frames: FrameSettings, shape: tuple[int, int]) -> Background | None:
    """Read and sum the frames that background_prefix names; None without that option.

    Parameters
    ----------
    frames : FrameSettings
    shape : (int, int)
        Rows and columns of the scan's frames.

    Raises
    ------
    InputError
        No file found, a frame that cannot be read or has another shape than the scan; denominators for the scan but
        not for the background, or the other way round; no good pixel left.
    """
    if frames.background_prefix is None:
        return None
    path = frames.background_normalisation_file
    if (path is None) != (frames.normalisation_file is None):
        given, missing = "normalisation_file", "background_normalisation_file"
        if path is not None:
            given, missing = missing, given
        raise InputError(
            f"{missing}: needed with {OPTION}, because {given} is given: scan and background are compared "
            "by their denominators"
        )
    with open_still_series(frames.background_prefix, frames.background_postfix, OPTION) as series:
        if series.shape != shape:
            raise InputError(
                f"{series.names[0]}: shape {series.shape[0]}×{series.shape[1]}, but that of the scan's frames is "
                f"{shape[0]}×{shape[1]}; correct {OPTION}"
            )
        denominators = np.ones(series.n_frames)
        if path is not None:
            denominators = read_normalisation(path, series, "background_normalisation_file")
        counts, good = _sum(series)
    if not good.any():
        raise InputError(f"{OPTION}: no pixel is good in all {series.n_frames} frames of the background; correct it")
    total = float(denominators.sum())
    exposures = frames.background_exposures
    return Background(counts / total, exposures * total, good, series.n_frames)


def _sum(series: FrameSeries) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Counts of all frames together, 0 where a pixel is bad in any of them, and which pixels are good."""
    counts = np.zeros(series.shape)
    good = np.ones(series.shape, dtype=np.bool_)
    if series.pixel_mask is not None:
        good &= series.pixel_mask
    for n in range(series.n_frames):
        image = series.read(n)
        valid = image >= 0  # neither is NaN
        if image.dtype.kind == "u":
            valid &= image != np.iinfo(image.dtype).max  # saturated, or a gap
        else:
            valid &= np.isfinite(image)
        good &= valid
        counts += np.where(valid, image, 0)
    return np.where(good, counts, 0.0), good
