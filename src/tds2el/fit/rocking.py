"""The mosaic spread of a crystal from the rocking curves of its Bragg peaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.file import HarvestFile

Array = npt.NDArray[np.float64]


def rocking_variance(
    row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], frame: npt.NDArray[np.int64], counts: Array, step: float
) -> float:
    """Variance of a reflection's rocking curve at fixed pixels, in the unit of step², without the frames' own width.

    The logarithm of a Gaussian is a parabola, whose curvature three successive frames give wherever they lie on it. So
    what a threshold leaves of the tails does not matter. Pixels are averaged with the weights that counting gives them.

    Parameters
    ----------
    row, column, frame : ndarray of int, shape (n,)
        Pixels above threshold.
    counts : ndarray, shape (n,)
    step : float
        Between frames.

    Returns
    -------
    float
        NaN where no pixel has its largest count between two frames that it is above threshold in.
    """
    order = np.lexsort((frame, column, row))
    row, column, frame, counts = row[order], column[order], frame[order], counts[order].astype(float)
    same = (row[2:] == row[:-2]) & (column[2:] == column[:-2]) & (frame[2:] == frame[:-2] + 2)
    before, middle, after = counts[:-2][same], counts[1:-1][same], counts[2:][same]
    top = (middle >= before) & (middle >= after) & (np.minimum(before, after) > 0)
    if not top.any():
        return float("nan")
    before, middle, after = before[top], middle[top], after[top]
    curvature = np.log(before) + np.log(after) - 2 * np.log(middle)
    weight = 1 / (1 / before + 4 / middle + 1 / after)
    mean = float(weight @ curvature / weight.sum())
    return max(-(step**2) / mean - step**2 / 12, 0.0) if mean < 0 else float("nan")


def mosaicity_of(harvest: HarvestFile, geometries: Sequence[Geometry]) -> tuple[float, int]:
    """Standard deviation of the orientation of the blocks about any axis, in degrees, and from how many reflections.

    The median over the blobs whose peaks are not saturated. At a fixed pixel Q moves along axis × G, across G, so that
    the rocking curve has the mosaic spread times |G|/|axis × G|. What else widens it, such as the beam's divergence,
    is taken for mosaicity. `geometries`: of each sweep.

    Raises
    ------
    InputError
        No peak is seen in three frames without being saturated.
    """
    found = []
    for blob in np.flatnonzero(harvest.n_peaks).tolist():
        counts = harvest.peaks(blob)[0]
        if counts.max() >= harvest.saturation:
            continue
        geometry = geometries[harvest.sweep[blob]]
        step = abs(geometry.experiment.angular_step)
        variance = rocking_variance(*harvest.peak_pixels(blob), counts.astype(float), step)
        node = harvest.centre[blob]
        across = np.linalg.norm(np.cross(geometry.phi_axis, node)) / np.linalg.norm(node)
        found.append(np.sqrt(variance) * across)
    known = [value for value in found if np.isfinite(value)]
    if not known:
        raise InputError(
            f'mosaicity = "estimate": {harvest.path} has no Bragg peak above threshold in three frames and not '
            "saturated: give it in degrees, or harvest with a smaller threshold"
        )
    return float(np.median(known)), len(known)
