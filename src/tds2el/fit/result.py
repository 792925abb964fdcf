"""The outcome of a fit with its error bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.fit.minimise import Iteration, Minimum
from tds2el.fit.parameters import Constants, Scale
from tds2el.model.engine import Points

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Errors:
    """Standard deviations of the constants by three estimates, GPa, shape (k,) each; NaN where nothing was fitted.

    Attributes
    ----------
    poisson : ndarray
        Inverse Fisher information of the counts.
    scaled : ndarray
        Times √(deviance/dof).
    clustered : ndarray
        Sandwich H⁻¹(Σ_s g_s g_sᵀ)H⁻¹ over spots: sees what the model misses in the same way within a spot. NaN where
        the spots are not more than the constants: the sandwich is singular then.
    """

    poisson: Array
    scaled: Array
    clustered: Array

    @property
    def largest(self) -> Array:
        """The σ of the results: the largest of the three."""
        return np.asarray(np.fmax(np.fmax(self.poisson, self.scaled), self.clustered))


@dataclass(frozen=True)
class Spots:
    """Per-spot results, shape (n_blobs,) each.

    Attributes
    ----------
    hkl : ndarray of int, shape (n_blobs, 3)
    angle : ndarray
        Goniometer angle of closest approach of this passage, degrees.
    points : ndarray of int
    factor, baseline, sigma_factor, sigma_baseline : ndarray
        f_s and b_s: intensity = f S + b in counts per unit correction, S in 1/GPa.
    chi2 : ndarray
        Pearson's Σ (N − m)²/variance.
    deviance : ndarray
    below_floor : ndarray
        Pixels whose model is below 0.05 of the spot's mean count.
    left_out : ndarray of bool
    """

    hkl: npt.NDArray[np.int64]
    angle: Array
    points: npt.NDArray[np.int64]
    factor: Array
    baseline: Array
    sigma_factor: Array
    sigma_baseline: Array
    chi2: Array
    deviance: Array
    below_floor: Array
    left_out: Mask

    @property
    def dof(self) -> Array:
        """Degrees of freedom of each spot by itself."""
        return np.asarray(np.maximum(self.points - 2, 1), dtype=float)


@dataclass(frozen=True)
class FitResult:
    """Everything a fit (or a simulation, which fits factors and baselines only) found.

    Attributes
    ----------
    constants : Constants
        Names, start values, bounds.
    values : ndarray, shape (k,)
        GPa, in the working frame.
    errors : Errors
    fitted : ndarray of int
        Indices of the constants with an error: neither frozen, nor held, nor at a bound.
    at_bound : ndarray of bool, shape (k,)
    covariance : ndarray, shape (len(fitted), len(fitted))
        Of the fitted constants, GPa²: `errors.largest` squared on the diagonal, correlations of the Poisson estimate.
    scale : Scale
    spots : Spots
    iterations : list of Iteration
    converged : bool
    """

    constants: Constants
    values: Array
    errors: Errors
    fitted: npt.NDArray[np.int64]
    at_bound: Mask
    covariance: Array
    scale: Scale
    spots: Spots
    iterations: list[Iteration]
    converged: bool

    @property
    def tensor(self) -> Array:
        """The 6×6 tensor in the working frame, GPa."""
        return self.constants.structure.tensor(self.values)

    @property
    def correlation(self) -> Array:
        """Correlation matrix of the fitted constants."""
        sigma = np.sqrt(np.diag(self.covariance))
        return np.asarray(self.covariance / np.outer(sigma, sigma))

    @property
    def held(self) -> int | None:
        """Index of the constant that keeps its start value because the data give ratios only."""
        return self.constants.reference if self.scale is Scale.HELD else None

    @property
    def deviance(self) -> float:
        """Sum over the spots that were used."""
        return float(self.spots.deviance[~self.spots.left_out].sum())

    @property
    def chi2(self) -> float:
        """Pearson's χ², over the spots that were used."""
        return float(self.spots.chi2[~self.spots.left_out].sum())

    @property
    def dof(self) -> int:
        """Points minus parameters, over the spots that were used."""
        used = ~self.spots.left_out
        return int(max(1, self.spots.points[used].sum() - 2 * used.sum() - len(self.fitted)))


def result_of(
    minimum: Minimum, constants: Constants, points: Points, hkl: npt.NDArray[np.int64], angle: Array
) -> FitResult:
    """Error bars and tables from a minimum.

    Parameters
    ----------
    minimum : Minimum
    constants : Constants
    points : Points
    hkl : ndarray of int, shape (n_blobs, 3)
    angle : ndarray, shape (n_blobs,)
    """
    k = len(constants.names)
    inside = ~minimum.at_bound[minimum.fitted]
    fitted = minimum.fitted[inside]
    hessian = minimum.system.hessian[np.ix_(inside, inside)]
    scores = minimum.system.scores[:, inside]
    poisson = _inverse(hessian)
    clustered = poisson @ (scores.T @ scores) @ poisson

    used = ~minimum.left_out
    sums = minimum.sums
    dof = max(1, int(points.sizes[used].sum()) - 2 * int(used.sum()) - len(fitted))
    ratio = float(sums.deviance[used].sum()) / dof
    errors = Errors(
        poisson=_expand(np.sqrt(np.diag(poisson)), fitted, k),
        scaled=_expand(np.sqrt(np.diag(poisson) * ratio), fitted, k),
        clustered=_expand(np.sqrt(np.diag(clustered)), fitted, k) if used.sum() > len(fitted) else np.full(k, np.nan),
    )
    inflation = (errors.largest / errors.poisson)[fitted]
    coupling = minimum.system.coupling[:, :, inside]
    own = minimum.system.inverse + coupling @ poisson @ np.swapaxes(coupling, 1, 2)
    sigma_own = np.sqrt(np.maximum(np.diagonal(own, axis1=1, axis2=2), 0.0))
    spots = Spots(
        hkl=hkl,
        angle=angle,
        points=points.sizes,
        factor=minimum.state.factor,
        baseline=minimum.state.baseline,
        sigma_factor=sigma_own[:, 0],
        sigma_baseline=sigma_own[:, 1],
        chi2=sums.gram[:, -1, -1],
        deviance=sums.deviance,
        below_floor=sums.below_floor,
        left_out=minimum.left_out,
    )
    return FitResult(
        constants=constants,
        values=minimum.values,
        errors=errors,
        fitted=fitted,
        at_bound=minimum.at_bound,
        covariance=poisson * np.outer(inflation, inflation),
        scale=minimum.scale,
        spots=spots,
        iterations=minimum.iterations,
        converged=minimum.converged,
    )


def _inverse(hessian: Array) -> Array:
    """Inverse of a positive definite matrix, scaled first so that units do not matter."""
    unit = 1 / np.sqrt(np.diag(hessian))
    return np.asarray(np.linalg.inv(hessian * np.outer(unit, unit)) * np.outer(unit, unit))


def _expand(values: Array, indices: npt.NDArray[np.int64], size: int) -> Array:
    full = np.full(size, np.nan)
    full[indices] = values
    return full
