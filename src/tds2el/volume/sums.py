"""What a voxel is made of: sums in whole numbers, which are the same in whatever order they are formed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COLUMNS = ("counts", "correction", "hits")
HITS = COLUMNS.index("hits")
BACKGROUND_COLUMNS = ("background", "background_variance")
# Sums stay below this.
_LARGEST = 2**62
# Counts of frames that hold no whole numbers are rounded to this part.
_COUNT_BITS = 20


@dataclass(frozen=True)
class Scales:
    """By what the whole numbers are to be divided, beside the microsteps.

    Attributes
    ----------
    microsteps : int
        A pixel is hit so many times.
    counts, correction, background, background_variance : float
    """

    microsteps: int
    counts: float
    correction: float
    background: float = 1.0
    background_variance: float = 1.0

    def with_variance(self, scale: float) -> Scales:
        """The same with another scale of the background's variance."""
        return replace(self, background_variance=scale)


def make_scales(
    microsteps: int, whole_counts: bool, hits: int, largest_correction: float, largest_background: float
) -> Scales:
    """Scales with which no sum can overflow.

    Parameters
    ----------
    microsteps : int
    whole_counts : bool
        Whether the frames hold whole numbers.
    hits : int
        Of all voxels together, at most.
    largest_correction, largest_background : float
        Of a pixel.
    """

    return Scales(
        microsteps,
        1.0 if whole_counts else 2.0**_COUNT_BITS,
        _scale(largest_correction * hits),
        _scale(largest_background * hits),
    )


def variance_scale(hits: int, frames: int, operations: int, largest: float) -> float:
    """The scale of the background's variance.

    Parameters
    ----------
    hits : int
        Of the fullest voxel, in whole pixels.
    frames : int
        Of the scan; in a voxel a pixel's estimate has at most the weight of all of them.
    operations : int
        So many voxels may be summed.
    largest : float
        Variance of the estimate of one pixel in one frame.
    """
    # Pixels whose counts are no data are not among the hits, but have a variance: room for 16 times as many.
    bound = 16.0 * operations * max(hits, 1) * min(max(hits, 1), frames)
    return _scale(bound * largest)


def _scale(largest: float) -> float:
    """The power of 2 with which sums up to the largest just do not overflow."""
    return 2.0 ** math.floor(math.log2(_LARGEST / largest)) if largest > 0 else 1.0


@dataclass(frozen=True, eq=False)
class Voxels:
    """Voxels in the units of physics.

    Attributes
    ----------
    counts : ndarray, shape (n0, n1, n2)
        ΣN, the background included.
    correction : ndarray
        Σκ.
    pixels : ndarray
        Number of pixels, a microstep being its fraction of one.
    background, background_variance : ndarray or None
        Counts expected of the background, and the variance of this estimate.
    """

    counts: Array
    correction: Array
    pixels: Array
    background: Array | None = None
    background_variance: Array | None = None

    @property
    def intensity(self) -> Array:
        """(ΣN − ΣB)/Σκ; NaN where no pixel is."""
        return self._per_correction(self.counts if self.background is None else self.counts - self.background)

    @property
    def errors(self) -> Array:
        """√(max(ΣN, 1) + var ΣB)/Σκ: a voxel without counts has the error of one count."""
        variance = np.maximum(self.counts, 1.0)
        if self.background_variance is not None:
            variance += self.background_variance
        return self._per_correction(np.sqrt(variance))

    def _per_correction(self, values: Array) -> Array:
        ratio = np.full(values.shape, np.nan)
        np.divide(values, self.correction, out=ratio, where=self.correction > 0)
        return ratio


def voxels(sums: IntArray, scales: Scales) -> Voxels:
    """Voxels from sums (n0, n1, n2, columns)."""
    m = scales.microsteps
    counts, correction, pixels = (
        sums[..., 0] / (scales.counts * m),
        sums[..., 1] / (scales.correction * m),
        sums[..., 2] / m,
    )
    if sums.shape[-1] == len(COLUMNS):
        return Voxels(counts, correction, pixels)
    return Voxels(
        counts,
        correction,
        pixels,
        sums[..., 3] / (scales.background * m),
        sums[..., 4] / scales.background_variance,
    )
