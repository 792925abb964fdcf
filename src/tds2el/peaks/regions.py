"""Peaks from the bright regions of frames: which belong together, their centroids and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.experiment.maxima import Maxima

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Sums over the pixels of a region, as compiled code gives them: net is counts less background, raw are the counts; both
# also times row, column and their squares; net_row and net_column are the largest of any row and column. base is the
# background, base_variance the variance of its sum.
SUMS = (
    "pixels", "net", "net_r", "net_c", "net_rr", "net_cc", "net_row", "net_column",
    "raw", "raw_r", "raw_c", "raw_rr", "raw_cc", "base", "base_variance", "largest", "saturated", "cut",
)  # fmt: skip
UNIFORM = 1 / 12
"""Variance of a place that is only known to lie within a pixel, or a frame."""
LONGEST_STEP = 1.5
"""In angle indices: frames further apart than this have a gap between them."""


@dataclass(frozen=True)
class Regions:
    """Bright regions of single frames, in the order of frames and there in that of their first pixels.

    Attributes
    ----------
    frame : ndarray of int, shape (n,)
    sums : ndarray, shape (n, len(SUMS))
    links : ndarray of int, shape (m, 2)
        Regions of successive frames that have a pixel in common.
    """

    frame: IntArray
    sums: Array
    links: IntArray


@dataclass(frozen=True)
class Limits:
    """Pixels that a peak has at least and at most, over all its frames."""

    fewest: int
    most: int


@dataclass(frozen=True)
class Found:
    """The peaks, and how many others there were.

    Attributes
    ----------
    maxima : Maxima
        In the order of their first frames and pixels; without hkl, not accepted.
    small, large : int
        Left out for their number of pixels.
    cut : int
        Peaks among `maxima` that touch pixels without data or the edge of the detector, or end where frames do.
    """

    maxima: Maxima
    small: int
    large: int
    cut: int


def follows(angle_index: Array) -> BoolArray:
    """Whether each frame but the last is followed by the next without a gap, shape (frames − 1,)."""
    return np.asarray(np.diff(angle_index) < LONGEST_STEP)


def peaks_of(regions: Regions, angle_index: Array, denominator: Array, limits: Limits) -> Found:
    """Join the regions to peaks.

    A peak's place is the centroid of its pixels, weighted with counts less background and, so that a beam that fades
    does not shift it, over the frame's denominator. The variance of a place x is

        Σ w²N (x − x̄)² / (Σ w n)² + max(2p − 1, 0)³ / 12

    with counts N, n of them above the background, w = 1/denominator and p the share of Σ w n in the brightest row,
    column or frame. The first term is that of counting, background included. The second is that of sampling: a peak
    that is seen in a single frame lies anywhere in it, 1/12, and there is nothing to add for one that is spread over
    several; between them the cube follows what centroids of narrow Gaussians miss by, whatever halo is round them.

    The top of a saturated peak is flat, and where its edges are is known to a pixel: at least 1/(12 m), with m the
    lines of pixels that run through it, that is its bright pixels, Σ n / largest, over its length √12 s, s² being the
    variance of w n. A peak that is cut off may lie anywhere in what is seen of it: s² + 1/12 more.

    Parameters
    ----------
    regions : Regions
    angle_index, denominator : ndarray, shape (frames,)
    limits : Limits

    Returns
    -------
    Found
        Counts are those of the pixels, not over denominators.
    """
    peak, n = _components(len(regions.frame), regions.links)
    sums = dict(zip(SUMS, regions.sums.T, strict=True))
    weight = (denominator.mean() / denominator)[regions.frame]

    def total(values: Array) -> Array:
        # In the order of regions, whoever found them.
        return np.asarray(np.bincount(peak, values, minlength=n), dtype=np.float64)

    def highest(values: Array) -> Array:
        found = np.full(n, -np.inf)
        np.maximum.at(found, peak, values)
        return found

    pixels = total(sums["pixels"]).astype(np.int64)
    small, large = pixels < limits.fewest, pixels > limits.most
    net = total(weight * sums["net"])
    saturated = highest(sums["saturated"]) > 0
    bright = total(sums["net"]) / highest(sums["largest"])
    cut_off = highest(sums["cut"]) > 0
    joined = follows(angle_index)
    begins, ends = np.append(True, ~joined), np.append(~joined, True)
    cut_in_angle = highest((begins | ends)[regions.frame].astype(float)) > 0

    def place(first: Array, second: Array, brightest: Array, spread: Array, cut: BoolArray) -> tuple[Array, Array]:
        """Centroid and error, from sums of w n x and w n x², the largest share, and sums of N, N x and N x²."""
        centre = total(first) / net
        width = np.maximum(total(second) / net - centre**2, 0)
        sampled = np.maximum(2 * brightest / net - 1, 0) ** 3
        edges = np.minimum(np.maximum(np.sqrt(width / UNIFORM), 1) / bright, 1)
        sampled = np.where(saturated, np.maximum(sampled, edges), sampled)
        offset = centre[peak]
        zeroth, once, twice = spread
        counted = total(weight**2 * np.maximum(twice - 2 * offset * once + offset**2 * zeroth, 0)) / net**2
        return centre, np.sqrt(counted + UNIFORM * sampled + np.where(cut, width + UNIFORM, 0))

    def along(x: str, line: str) -> tuple[Array, Array]:
        spread = np.stack([sums["raw"], sums[f"raw_{x}"], sums[f"raw_{x}{x}"]])
        # No more than the sum over frames of the largest in each.
        brightest = total(weight * sums[f"net_{line}"])
        return place(weight * sums[f"net_{x}"], weight * sums[f"net_{x}{x}"], brightest, spread, cut_off)

    def over_frames(x: Array) -> tuple[Array, Array]:
        spread = sums["raw"] * np.stack([np.ones_like(x), x, x**2])
        of_both, of_frame = np.unique(np.stack([peak, regions.frame]), axis=1, return_inverse=True)
        brightest = np.zeros(n)
        np.maximum.at(brightest, of_both[0], np.bincount(of_frame.reshape(-1), weight * sums["net"]))
        return place(weight * sums["net"] * x, weight * sums["net"] * x**2, brightest, spread, cut_in_angle)

    (row, row_error), (column, column_error) = along("r", "row"), along("c", "column")
    angle, angle_error = over_frames(angle_index[regions.frame])
    columns = {
        "row": row,
        "column": column,
        "frame": over_frames(regions.frame.astype(float))[0],
        "counts": total(sums["net"]),
        "hkl": np.zeros((n, 3), dtype=np.int64),
        "accepted": np.zeros(n, dtype=bool),
        "angle_index": angle,
        "row_error": row_error,
        "column_error": column_error,
        "angle_index_error": angle_error,
        "counts_error": np.sqrt(total(sums["raw"]) + total(sums["base_variance"])),
        "background": total(sums["base"]) / pixels,
        "largest": highest(sums["largest"]),
        "pixels": pixels,
        "saturated": saturated,
    }
    kept = ~(small | large)
    return Found(
        maxima=Maxima(**{name: values[kept] for name, values in columns.items()}),
        small=int(small.sum()),
        large=int(large.sum()),
        cut=int((kept & (cut_off | cut_in_angle)).sum()),
    )


def _components(n: int, links: IntArray) -> tuple[IntArray, int]:
    """Which peak each region belongs to, in the order of their first regions, and the number of peaks."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(links), dtype=np.int8), (links[:, 0], links[:, 1])), shape=(n, n))
    number, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    place = np.empty(number, dtype=np.int64)
    place[np.argsort(first)] = np.arange(number)
    return place[label], int(number)
