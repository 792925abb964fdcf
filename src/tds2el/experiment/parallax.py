"""Parallax of a thick sensor: a ray that enters at a slant is counted farther from the detector's foot point.

A ray at the angle θ to the detector's normal is absorbed, on average, after the path

    o = 1/μ − (t/cos θ + 1/μ) exp(−μ t/cos θ)

in a sensor of thickness t and absorption coefficient μ; where a pixel lies at the distance L from the sample, its rays
entered nearer to the foot point by the fraction o/L of its distance from there. That is the correction of DIALS
(`ParallaxCorrectedPxMmStrategy` of dxtbx), with θ that of the pixel itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Of (1 − (1 + x) exp(−x))/x over all x: o/L is at most this times t/dist.
_LARGEST = 0.2985
# Each repetition gains three digits or more: the fraction is below 1e-2.
_REPETITIONS = 12


def entry_fraction(distance: npt.ArrayLike, dist: float, thickness: float, mu: float) -> Array:
    """1 − o/L: where rays enter, as a fraction of the pixel's distance from the foot point.

    Parameters
    ----------
    distance : array_like
        From the foot point to the pixel, mm.
    dist : float
        From the sample to the detector's plane, mm.
    thickness, mu : float
        t in mm and μ in mm⁻¹, positive.
    """
    length = np.hypot(np.asarray(distance, dtype=float), dist)
    path = mu * thickness / dist * length
    return np.asarray(1 + ((1 + path) * np.exp(-path) - 1) / (mu * length))


def pixel_fraction(distance: npt.ArrayLike, dist: float, thickness: float, mu: float) -> Array:
    """The inverse: where rays are counted that enter at a distance from the foot point, as a multiple of it."""
    entry = np.asarray(distance, dtype=float)
    multiple = np.ones_like(entry)
    for _ in range(_REPETITIONS):
        multiple = 1 / entry_fraction(multiple * entry, dist, thickness, mu)
    return multiple


def largest_pixel_fraction(dist: float, thickness: float) -> float:
    """What `pixel_fraction` never exceeds."""
    return 1 / (1 - _LARGEST * thickness / dist)
