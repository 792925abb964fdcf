"""What disturbs a real scan beside the crystal: zingers, a shadow on the detector, scattering of air and slits."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tds2el.experiment.geometry import Geometry
from tds2el.simulate.scan_kinds import Shadow

Array = npt.NDArray[np.float64]

# Counts that a zinger adds to a pixel, and the most pixels of its track.
ZINGER_COUNTS = (20.0, 1e4)
_LOG_COUNTS = (math.log(ZINGER_COUNTS[0]), math.log(ZINGER_COUNTS[1]))
_LONGEST_TRACK = 3
_NEIGHBOURS = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)])
# Masks for the shadow: at most so many, and this wider than it.
_MASKS = 8
_MARGIN = 2.0
# Air: half its value at this 2θ. Slits: azimuth (degrees), width and reach of streaks (radians in 2θ), strength.
_AIR_WIDTH = np.deg2rad(8.0)
_STREAKS = ((12.0, 0.012, 0.25, 1.0), (97.0, 0.008, 0.35, 0.7))
# Windows and ice: |Q| and width (Å⁻¹) of rings, strength.
_RINGS = ((0.25, 0.04, 0.3), (0.444, 0.008, 0.2))


def zingers(mean: float, shape: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Counts that zingers add to a frame.

    Their number is Poissonian; each is a straight track of 1 to 3 pixels in one of 8 directions from anywhere in the
    frame, cut at its edge. Every pixel of it gets a number of counts of its own, log-uniform in `ZINGER_COUNTS`.

    Parameters
    ----------
    mean : float
        Mean number in a frame.
    shape : (rows, columns)
    rng : Generator

    Returns
    -------
    ndarray of int64, shape (rows, columns)
    """
    number = rng.poisson(mean)
    start = rng.integers(0, shape, (number, 2))
    length = rng.integers(1, _LONGEST_TRACK + 1, number)
    step = _NEIGHBOURS[rng.integers(0, len(_NEIGHBOURS), number)]
    counts = np.exp(rng.uniform(*_LOG_COUNTS, (number, _LONGEST_TRACK)))
    along = np.arange(_LONGEST_TRACK)
    pixel = start[:, None] + along[:, None] * step[:, None]
    hit = (along < length[:, None]) & ((pixel >= 0) & (pixel < np.array(shape))).all(axis=-1)
    added = np.zeros(shape, dtype=np.int64)
    np.add.at(added, tuple(pixel[hit].T), np.rint(counts[hit]).astype(np.int64))
    return added


def transmission(shadow: Shadow, shape: tuple[int, int], frame: int) -> Array:
    """What a shadow lets through in a frame, 1 outside it: shape (rows, columns)."""
    through = np.ones(shape)
    through[_disk(shadow, shape, frame, 0.0)] = shadow.transmission
    return through


def shadow_masks(shadow: Shadow, shape: tuple[int, int], n_frames: int) -> list[tuple[int, int, npt.NDArray[np.bool_]]]:
    """Masks that exclude a shadow in ranges of frames of about equal length.

    Returns
    -------
    list of (first, last, good)
        Frames first to last, inclusive, from 0; good, of shape (rows, columns), is False within 2 pixels of the
        shadow in any of these frames.
    """
    number = min(_MASKS, n_frames)
    edges = [n_frames * n // number for n in range(number + 1)]
    masks = []
    for first, end in pairwise(edges):
        good = np.ones(shape, dtype=bool)
        for frame in range(first, end):
            good[_disk(shadow, shape, frame, _MARGIN)] = False
        masks.append((first, end - 1, good))
    return masks


def air_and_slits(geometry: Geometry, q_lab: Array) -> Array:
    """Pattern of the scattering of air and slits.

    Parameters
    ----------
    geometry : Geometry
    q_lab : ndarray, shape (rows, columns, 3)
        Scattering vectors of the pixels in the lab, Å⁻¹.

    Returns
    -------
    ndarray, shape (rows, columns)
        Positive and smooth, of mean 1: a fall-off with 2θ, streaks through the direct beam and rings round it.
    """
    direction = geometry.experiment.lmbda * q_lab - geometry.beam
    # The beam has no component along axis 2 of the lab.
    across = np.array([0.0, 1.0, 0.0])
    x, y = direction @ across, direction @ np.cross(geometry.beam, across)
    two_theta = np.arctan2(np.hypot(x, y), -direction @ geometry.beam)
    pattern = 1 / (1 + (two_theta / _AIR_WIDTH) ** 2)
    for azimuth, width, reach, strength in _STREAKS:
        off = y * np.cos(np.deg2rad(azimuth)) - x * np.sin(np.deg2rad(azimuth))
        pattern += strength * np.exp(-((off / width) ** 2) / 2 - two_theta / reach)
    Q = np.linalg.norm(q_lab, axis=-1)
    for radius, width, strength in _RINGS:
        pattern += strength * np.exp(-(((Q - radius) / width) ** 2) / 2)
    return np.asarray(pattern / pattern.mean())


def _disk(
    shadow: Shadow, shape: tuple[int, int], frame: int, margin: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the pixels of a shadow that is wider by a margin; only its surroundings are looked at."""
    centre = np.array([shadow.row + frame * shadow.drow, shadow.column + frame * shadow.dcolumn])
    radius = shadow.radius + margin
    low = np.clip(np.floor(centre - radius), 0, shape).astype(int)
    high = np.clip(np.ceil(centre + radius) + 1, 0, shape).astype(int)
    row, column = np.mgrid[low[0] : high[0], low[1] : high[1]]
    inside = (row - centre[0]) ** 2 + (column - centre[1]) ** 2 <= radius**2
    return row[inside], column[inside]
