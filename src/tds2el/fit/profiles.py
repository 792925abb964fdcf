"""Data and model averaged over directions and over |q|, and the pulls: what one looks at to believe a fit.

All sums come from one pass over the points, piece by piece, so that no spot need be in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import Points

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

RADIAL_BINS = 32
ANGLE_EDGES = np.linspace(0.0, 180.0, 19)
AZIMUTH_EDGES = np.linspace(-180.0, 180.0, 25)
PULL_EDGES = np.linspace(-8.0, 8.0, 81)
LOWEST_MEAN, MEAN_STEP, MEAN_BINS = 1e-2, 0.002, 10400
"""Bins of ln m, 0.2 % wide, from 0.01 to 1e7 counts: fine enough for the distribution of pulls."""
NEARLY_PARALLEL = 0.05
"""Sine of the angle between G and z below which azimuths count from x."""


@dataclass(frozen=True)
class Profile:
    """Averages over bins of one coordinate of q = Q − G, for every spot; NaN where a bin has no points.

    Attributes
    ----------
    edges : ndarray, shape (bins + 1,)
        |q| in Å⁻¹, or an angle in degrees.
    intensity, sigma, model : ndarray, shape (spots, bins)
        ΣN/Σκ, its standard deviation √(Σ variance)/Σκ after the model, and Σm/Σκ: counts per unit correction.
    points : ndarray of int, shape (spots, bins)
    """

    edges: Array
    intensity: Array
    sigma: Array
    model: Array
    points: Counts

    @property
    def centres(self) -> Array:
        """Middles of the bins, shape (bins,)."""
        return np.asarray((self.edges[1:] + self.edges[:-1]) / 2)

    def inner_excess(self, spots: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Excess of data over model in the innermost tenth of the bins: relative, and in units of its σ.

        Parameters
        ----------
        spots : ndarray of bool, shape (spots,)
            Those that count.
        """
        inner = slice(0, max(1, (len(self.edges) - 1) // 10))
        intensity, sigma, model = (x[spots, inner] for x in (self.intensity, self.sigma, self.model))
        filled = np.isfinite(intensity) & (sigma > 0)
        if not filled.any():
            return 0.0, 0.0
        weight = 1 / sigma[filled] ** 2
        excess = float(weight @ (intensity[filled] - model[filled]))
        return excess / float(weight @ model[filled]), excess / float(np.sqrt(weight.sum()))


@dataclass(frozen=True)
class Pulls:
    """Pulls (N − m)/√variance of the points of all spots that were not left out.

    Attributes
    ----------
    edges : ndarray, shape (bins + 1,)
    points : ndarray of int, shape (bins,)
    expected : ndarray, shape (bins,)
        Points to expect if every count were drawn from the model. Few counts are no Gaussian numbers: their pulls
        are skewed and lie on combs.
    below, above : int
        Points beyond the outermost edges.
    q_edges : ndarray, shape (q bins + 1,)
        |q|, Å⁻¹.
    q_points : ndarray of int, shape (q bins,)
    q_mean, q_rms : ndarray, shape (q bins,)
        Mean pull and root of the mean squared pull; NaN where a bin has no points.
    """

    edges: Array
    points: Counts
    expected: Array
    below: int
    above: int
    q_edges: Array
    q_points: Counts
    q_mean: Array
    q_rms: Array

    @property
    def mean(self) -> float:
        """Mean pull of all points."""
        return float(np.nansum(self.q_points * self.q_mean) / max(1, self.q_points.sum()))

    @property
    def rms(self) -> float:
        """Root of the mean squared pull of all points: √(χ²/points)."""
        return float(np.sqrt(np.nansum(self.q_points * self.q_rms**2) / max(1, self.q_points.sum())))


@dataclass(frozen=True)
class Profiles:
    """All profiles of a fit.

    Attributes
    ----------
    radial : Profile
        Against |q|, Å⁻¹.
    angle : Profile
        Against the angle between q and G, degrees.
    azimuth : Profile
        Against the right-handed angle about G, degrees; zero where q, seen along G, points towards z, or towards x
        where G is nearly parallel to z.
    pulls : Pulls
    """

    radial: Profile
    angle: Profile
    azimuth: Profile
    pulls: Pulls


class ProfileSums:
    """Collects the profiles point by point.

    Parameters
    ----------
    points : Points
        Only nodes, floors and the shell's radii are used.
    left_out : ndarray of bool, shape (spots,)
        Spots whose pulls do not count.
    relative_error : float
        ε in the variance m + (ε m)².
    """

    def __init__(self, points: Points, left_out: npt.NDArray[np.bool_], relative_error: float = 0.0) -> None:
        self._nodes, self._floors, self._left_out = points.nodes, points.floors, left_out
        self._relative_error = relative_error
        self._q_edges = np.linspace(points.q_min, points.q_max, RADIAL_BINS + 1)
        spots = len(points.nodes)
        self._shape = (RADIAL_BINS, len(ANGLE_EDGES) - 1, len(AZIMUTH_EDGES) - 1)
        # Σ of 1, N, κ, m and the variance over cells of (|q|, angle, azimuth) are kept as sums over two of the three.
        self._sums = [np.zeros((spots, 5, bins)) for bins in self._shape]
        self._pulls = np.zeros((2, RADIAL_BINS))
        self._means = np.zeros(MEAN_BINS, dtype=np.int64)
        self._histogram = np.zeros(len(PULL_EDGES) + 1, dtype=np.int64)

    def add(self, spot: int, q: Array, counts: Array, correction: Array, expected: Array) -> None:
        """Add points of one spot.

        Parameters
        ----------
        spot : int
        q : ndarray, shape (n, 3)
            Q − G, Å⁻¹.
        counts, correction, expected : ndarray, shape (n,)
            N, κ and m.
        """
        base = np.maximum(expected, self._floors[spot])
        variance = base + (self._relative_error * base) ** 2
        length = np.sqrt(np.einsum("ij,ij->i", q, q))
        angle, azimuth = _angles(q, length, self._nodes[spot])
        radial = _bin(length, self._q_edges)
        cell = np.ravel_multi_index((radial, _bin(angle, ANGLE_EDGES), _bin(azimuth, AZIMUTH_EDGES)), self._shape)
        size = int(np.prod(self._shape))
        for column, weights in enumerate((None, counts, correction, expected, variance)):
            cells = np.bincount(cell, weights, size).reshape(self._shape)
            for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
                self._sums[axis][spot, column] += cells.sum(axis=others)
        if not self._left_out[spot]:
            self._add_pulls((counts - expected) / np.sqrt(variance), radial, expected)

    def _add_pulls(self, pull: Array, radial: npt.NDArray[np.int64], expected: Array) -> None:
        self._pulls[0] += np.bincount(radial, pull, RADIAL_BINS)
        self._pulls[1] += np.bincount(radial, pull**2, RADIAL_BINS)
        mean = np.log(np.maximum(expected, LOWEST_MEAN) / LOWEST_MEAN) / MEAN_STEP
        self._means += np.bincount(np.minimum(mean.astype(int), MEAN_BINS - 1), minlength=MEAN_BINS)
        # Bin 0 is what lies below the first edge, the last one what lies above the last.
        width = PULL_EDGES[1] - PULL_EDGES[0]
        step = np.clip(np.floor((pull - PULL_EDGES[0]) / width), -1, len(PULL_EDGES) - 1).astype(int) + 1
        self._histogram += np.bincount(step, minlength=len(PULL_EDGES) + 1)

    def profiles(self) -> Profiles:
        """The profiles of all points so far."""
        edges = (self._q_edges, ANGLE_EDGES, AZIMUTH_EDGES)
        radial, angle, azimuth = (_profile(e, s) for e, s in zip(edges, self._sums, strict=True))
        number = radial.points[~self._left_out].sum(axis=0)
        first, second = _ratio(self._pulls, number)
        pulls = Pulls(
            edges=PULL_EDGES,
            points=self._histogram[1:-1],
            expected=_expected_pulls(self._means, self._relative_error),
            below=int(self._histogram[0]),
            above=int(self._histogram[-1]),
            q_edges=self._q_edges,
            q_points=number,
            q_mean=first,
            q_rms=np.sqrt(second),
        )
        return Profiles(radial, angle, azimuth, pulls)


def azimuth_axes(node: Array) -> tuple[Array, Array, str]:
    """Unit vectors at azimuth 0 and 90° about G, and the name of the axis of frame W that azimuth 0 leans towards."""
    along = node / np.linalg.norm(node)
    vertical = np.hypot(along[0], along[1]) > NEARLY_PARALLEL
    reference = np.array([0.0, 0.0, 1.0] if vertical else [1.0, 0.0, 0.0])
    zero = reference - (reference @ along) * along
    zero /= np.linalg.norm(zero)
    return zero, np.cross(along, zero), "z" if vertical else "x"


def _expected_pulls(means: Counts, relative_error: float) -> Array:
    """Points per bin of pull if the counts have these means: Poisson, or negative binomial of size 1/ε²."""
    from scipy.special import betainc, pdtr

    m = LOWEST_MEAN * np.exp(MEAN_STEP * (np.arange(MEAN_BINS) + 0.5))[means > 0, None]
    edge = np.ceil(m + PULL_EDGES * np.sqrt(m + (relative_error * m) ** 2)) - 1  # N up to here lie below the edge
    most = np.maximum(edge, 0)
    if relative_error:
        size = relative_error**-2
        below = betainc(size, most + 1, size / (size + m))
    else:
        below = pdtr(most, m)
    return np.asarray(means[means > 0] @ np.diff(np.where(edge < 0, 0.0, below), axis=1))


def _angles(q: Array, length: Array, node: Array) -> tuple[Array, Array]:
    """Angle between q and G, and azimuth about G, degrees."""
    zero, ninety, _ = azimuth_axes(node)
    cosine = (q @ (node / np.linalg.norm(node))) / np.where(length > 0, length, 1.0)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))), np.degrees(np.arctan2(q @ ninety, q @ zero))


def _bin(values: Array, edges: Array) -> npt.NDArray[np.int64]:
    """Number of the bin; rounding at the ends must lose no point."""
    width = (edges[-1] - edges[0]) / (len(edges) - 1)
    return np.asarray(np.clip(((values - edges[0]) / width).astype(np.int64), 0, len(edges) - 2))


def _profile(edges: Array, sums: Array) -> Profile:
    points, counts, correction, expected, variance = np.moveaxis(sums, 1, 0)
    return Profile(
        edges=edges,
        intensity=_ratio(counts, correction),
        sigma=_ratio(np.sqrt(variance), correction),
        model=_ratio(expected, correction),
        points=np.rint(points).astype(np.int64),
    )


def _ratio(numerator: Array, denominator: Array | Counts) -> Array:
    filled = np.broadcast_to(denominator > 0, numerator.shape)
    return np.asarray(np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=filled))
