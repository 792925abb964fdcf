"""The outcome of a fit with its error bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import CELL_OPTIONS
from tds2el.fit.bragg import BraggScale
from tds2el.fit.clean import Usage
from tds2el.fit.data import FitData
from tds2el.fit.minimise import Iteration, Minimum
from tds2el.fit.parameters import Constants, Scale
from tds2el.fit.separable import Own, strain_directions

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
    filtered : ndarray of bool
        Left out because of spot_filter's max_chi2.
    offset, sigma_offset : ndarray, shape (n_blobs, 3)
        d_s, the centre of the halo relative to the node (of the centred harvest, if it was), Å⁻¹; zero and NaN where
        centres were not fitted.
    peak : ndarray, shape (n_blobs, 3)
        The same for the measured Bragg peak; NaN where none was seen.
    centre_held : ndarray of bool
        The data do not say where the centre is; it was not fitted.
    slope : ndarray, shape (n_blobs, 3)
        c_s of the baseline b + c·q, per Å⁻¹; zero where it is constant.
    gradient, sigma_gradient : ndarray, shape (n_blobs, 3)
        g_s of the form factor, Å; zero and NaN where it was not fitted.
    strain, sigma_strain : ndarray, shape (n_blobs, 6)
        H_s of the internal strain, xx yy zz yz xz xy; likewise.
    background, sigma_background : ndarray
        τ_s, scale of the background frames; 1 and NaN where it was not fitted.
    cut, foreign, regions : ndarray of int
        Points inside the inner radius round the centre that was found; points rejected as foreign, and the connected
        regions that they form. None of them is among `points`.
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
    filtered: Mask
    offset: Array
    sigma_offset: Array
    peak: Array
    centre_held: Mask
    slope: Array
    gradient: Array
    sigma_gradient: Array
    strain: Array
    sigma_strain: Array
    background: Array
    sigma_background: Array
    cut: npt.NDArray[np.int64]
    foreign: npt.NDArray[np.int64]
    regions: npt.NDArray[np.int64]
    own: npt.NDArray[np.int64]
    """Number of parameters of each spot's own."""

    @property
    def dof(self) -> Array:
        """Degrees of freedom of each spot by itself."""
        return np.asarray(np.maximum(self.points - self.own, 1), dtype=float)


@dataclass(frozen=True)
class CorrectionTable:
    """Corrections to geometry and cell, shape (c,) each.

    Attributes
    ----------
    names : list of str
        The options that are corrected.
    start : ndarray
        Their values at the harvest.
    correction, sigma : ndarray
        What is added, and its standard deviation; NaN where nothing was fitted.
    lower, upper : ndarray
        Bounds of the correction.
    status : list of str
        fitted, tied, fixed, held (the data do not determine it), at lower bound or at upper bound.
    notes : tuple of str
        What was tied or held because of the crystal's symmetry.
    moved : tuple of str
        Those that the steps of the fit move, the columns of `Iteration.geometry`; others are tied to them or fixed.
    """

    names: list[str]
    start: Array
    correction: Array
    sigma: Array
    lower: Array
    upper: Array
    status: list[str]
    notes: tuple[str, ...]
    moved: tuple[str, ...] = ()

    @property
    def value(self) -> Array:
        """Corrected values."""
        return np.asarray(self.start + self.correction)


@dataclass(frozen=True)
class Intervals:
    """Intervals of 68 % of the constants, GPa, shape (k,) each; NaN where none was asked for or found."""

    lower: Array
    upper: Array


@dataclass(frozen=True)
class DispersionTable:
    """Coefficients of dispersion, shape (t,) each.

    Attributes
    ----------
    names : list of str
    value, sigma : ndarray
        GPa Å², for q without 2π; sigma is the largest of the three estimates, NaN where nothing was fitted.
    held : ndarray of bool
        The data do not determine it: it is 0.
    covariance : ndarray, shape (fitted, fitted)
        Of those that are not, (GPa Å²)²: `sigma` squared on the diagonal, correlations of the Poisson estimate.
    expanded : bool
        Whether the intensity is expanded to first order in them.
    gain : float or None
        By how much the deviance of the other form, full or expanded, is higher; None if only this one was tried.
    """

    names: list[str]
    value: Array
    sigma: Array
    held: Mask
    covariance: Array
    expanded: bool = False
    gain: float | None = None


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
        Of the fitted constants, GPa²: `errors.largest` squared on the diagonal, correlations of the Poisson estimate
        or, beside known values, of the largest.
    scale : Scale
    spots : Spots
    iterations : list of Iteration
    converged : bool
    corrections : CorrectionTable or None
        Geometry and cell, where they were corrected.
    fitted_corrections : int
        How many of them were fitted.
    on_the_way : bool
        Whether centres still moved when the fit ended.
    unsettled : bool
        Whether the choice of points still changed then.
    profile, bootstrap : Intervals or None
        By the profile of the likelihood, and over samples of the spots.
    bragg : BraggScale or None
        The scale that Bragg intensities gave.
    dispersion : DispersionTable or None
        Where it was fitted.
    fitted_terms : int
        How many of its coefficients were.
    elastic : FitResult or None
        The same points in the elastic limit, beside a fit that goes beyond it.
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
    corrections: CorrectionTable | None = None
    fitted_corrections: int = 0
    on_the_way: bool = False
    unsettled: bool = False
    profile: Intervals | None = None
    bootstrap: Intervals | None = None
    bragg: BraggScale | None = None
    dispersion: DispersionTable | None = None
    fitted_terms: int = 0
    elastic: FitResult | None = None

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
        parameters = self.spots.own[used].sum() + len(self.fitted) + self.fitted_terms + self.fitted_corrections
        return int(max(1, self.spots.points[used].sum() - parameters))


def result_of(minimum: Minimum, data: FitData, usage: Usage, filtered: Mask) -> FitResult:
    """Error bars and tables from a minimum.

    Parameters
    ----------
    minimum : Minimum
    data : FitData
    usage : Usage
        Which points were used.
    filtered : ndarray of bool, shape (n_blobs,)
        Spots left out because of spot_filter's max_chi2.
    """
    common, sums = minimum.common, minimum.sums
    constants, k, of_constants = common.constants, len(common.constants.names), len(common.fitted)
    inside = ~minimum.at_bound
    fitted = common.fitted[inside[:of_constants]]
    n = len(fitted)
    hessian = minimum.system.hessian[np.ix_(inside, inside)]
    scores = minimum.system.scores[:, inside]
    poisson = _inverse(hessian)
    of_known = common.of_known(minimum.values)[1][np.ix_(inside, inside)]
    # What is known is as good as it is said to be: it is neither scaled nor clustered.
    clustered = poisson @ (scores.T @ scores + of_known) @ poisson

    used = ~minimum.left_out
    spots = _spots(minimum, data, usage, filtered, poisson, inside)
    dof = max(1, int(spots.points[used].sum() - spots.own[used].sum()) - len(hessian))
    excess = float(sums.deviance[used].sum()) / dof
    scaled = _inverse((hessian - of_known) / excess + of_known) if of_known.any() else excess * poisson
    covariances = [poisson, scaled, clustered if used.sum() > len(hessian) else np.full_like(poisson, np.nan)]
    three = np.sqrt(np.abs(np.array([np.diag(found) for found in covariances])))
    errors = Errors(*(_expand(sigma[:n], fitted, k) for sigma in three))
    # A known value correlates all constants, and ratios depend on how: take the whole of the most careful estimate.
    chosen = covariances[int(np.nanargmax(np.log(three).sum(axis=1)))] if of_known.any() and n else poisson
    correlation = chosen[:n, :n] / np.sqrt(np.outer(np.diag(chosen)[:n], np.diag(chosen)[:n]))
    largest, after = np.fmax.reduce(three), n + int((~common.dispersion_held).sum())
    at_bound = np.zeros(k, dtype=bool)
    at_bound[common.fitted] = minimum.at_bound[:of_constants]
    return FitResult(
        constants=constants,
        values=minimum.values.constants,
        errors=errors,
        fitted=fitted,
        at_bound=at_bound,
        covariance=correlation * np.outer(errors.largest[fitted], errors.largest[fitted]),
        scale=common.scale,
        spots=spots,
        iterations=minimum.iterations,
        converged=minimum.converged and not minimum.on_the_way,
        corrections=_corrections(minimum, largest[after:], inside[of_constants + after - n :]),
        fitted_corrections=len(hessian) - after,
        on_the_way=minimum.on_the_way,
        dispersion=_dispersion(minimum, largest[n:after], poisson[n:after, n:after]),
        fitted_terms=after - n,
    )


def _dispersion(minimum: Minimum, sigma: Array, poisson: Array) -> DispersionTable | None:
    """The table of coefficients of dispersion; `sigma` and the Poisson covariance are of those that are not held."""
    common = minimum.common
    if common.dispersion is None:
        return None
    free = np.flatnonzero(~common.dispersion_held)
    return DispersionTable(
        names=common.dispersion.names,
        value=minimum.values.dispersion,
        sigma=_expand(sigma, free, len(common.dispersion_held)),
        held=common.dispersion_held.copy(),
        covariance=poisson * np.outer(sigma, sigma) / np.sqrt(np.outer(np.diag(poisson), np.diag(poisson))),
        expanded=common.expanded,
    )


def _spots(minimum: Minimum, data: FitData, usage: Usage, filtered: Mask, poisson: Array, inside: Mask) -> Spots:
    state, sums, own = minimum.state, minimum.sums, Own.of(minimum.common.columns)
    blobs = len(data.hkl)
    coupling = minimum.system.coupling[:, :, inside]
    covariance = minimum.system.inverse + coupling @ poisson @ np.swapaxes(coupling, 1, 2)
    sigma = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
    free = ~minimum.held
    none = np.full((blobs, 3), np.nan)
    strains = strain_directions(data.points.nodes, minimum.common.columns)
    sigma_strain = np.full((blobs, 6), np.nan)
    if own.strain is not None and strains is not None:
        of_strain = np.swapaxes(strains, 1, 2) @ covariance[:, own.strain, own.strain] @ strains
        of_strain = np.sqrt(np.maximum(np.diagonal(of_strain, axis1=1, axis2=2), 0.0))
        sigma_strain = np.where(free[:, own.strain][:, :1], of_strain, np.nan)
    return Spots(
        hkl=data.hkl,
        angle=data.angle,
        points=usage.numbers,
        factor=state.factor,
        baseline=state.baseline,
        sigma_factor=sigma[:, 0],
        sigma_baseline=sigma[:, 1],
        chi2=sums.gram[:, -1, -1],
        deviance=sums.deviance,
        below_floor=sums.below_floor,
        left_out=minimum.left_out,
        filtered=filtered,
        offset=np.zeros((blobs, 3)) if state.offset is None else state.offset,
        sigma_offset=none if own.centre is None else np.where(free, sigma, np.nan)[:, own.centre],
        peak=data.peak,
        centre_held=minimum.centre_held & (own.centre is not None),
        slope=np.zeros((blobs, 3)) if state.slope is None else state.slope,
        gradient=np.zeros((blobs, 3)) if state.gradient is None else state.gradient,
        sigma_gradient=none if own.gradient is None else np.where(free, sigma, np.nan)[:, own.gradient],
        strain=np.zeros((blobs, 6)) if state.strain is None else state.strain,
        sigma_strain=sigma_strain,
        background=np.ones(blobs) if state.background is None else state.background,
        sigma_background=none[:, 0] if own.background is None else sigma[:, own.background],
        cut=usage.cut,
        foreign=usage.foreign,
        regions=usage.regions,
        own=free.sum(axis=1).astype(np.int64),
    )


def _corrections(minimum: Minimum, sigma: Array, inside: Mask) -> CorrectionTable | None:
    """The table of corrections; `sigma` is of the free ones that are inside their bounds."""
    common, retuning = minimum.common, minimum.common.retuning
    if retuning is None:
        return None
    x = minimum.values.geometry
    free = np.flatnonzero(~common.geometry_held)
    variance = np.zeros(len(x))
    variance[free[inside]] = sigma**2
    status = dict.fromkeys(retuning.names, "held")
    for index, within in zip(free, inside, strict=True):
        near_upper = retuning.upper[index] - x[index] < x[index] - retuning.lower[index]
        status[retuning.names[index]] = "fitted" if within else f"at {'upper' if near_upper else 'lower'} bound"
    leads = [np.flatnonzero(retuning.moves[:, place]) for place in range(len(retuning.corrections))]
    shown = [n for n, c in enumerate(retuning.corrections) if len(leads[n]) or c.free or c.tied_to or c.value]
    experiment = retuning.experiment
    starts = {name: getattr(experiment, name) for name in vars(experiment)}
    starts |= dict(zip(CELL_OPTIONS, retuning.cell.parameters, strict=True))
    values = retuning.values(x)

    def limits(place: int) -> tuple[float, float]:
        own = retuning.corrections[place]
        lead = (
            retuning.corrections[[c.name for c in retuning.corrections].index(retuning.names[leads[place][0]])]
            if (len(leads[place]))
            else own
        )
        return lead.lower, lead.upper

    names = [retuning.corrections[n].name for n in shown]
    own_sigma = np.array([np.sqrt(retuning.moves[:, n] ** 2 @ variance) for n in shown])
    return CorrectionTable(
        names=names,
        start=np.array([starts[name] for name in names]),
        correction=np.array([values[name] for name in names]),
        sigma=np.where(own_sigma > 0, own_sigma, np.nan),
        lower=np.array([limits(n)[0] for n in shown]),
        upper=np.array([limits(n)[1] for n in shown]),
        status=[
            status.get(
                retuning.corrections[n].name,
                "tied" if len(leads[n]) else "held" if retuning.corrections[n].free else "fixed",
            )
            for n in shown
        ],
        notes=retuning.notes,
        moved=tuple(retuning.names),
    )


def _inverse(hessian: Array) -> Array:
    """Inverse of a positive definite matrix, scaled first so that units do not matter."""
    unit = 1 / np.sqrt(np.diag(hessian))
    return np.asarray(np.linalg.inv(hessian * np.outer(unit, unit)) * np.outer(unit, unit))


def _expand(values: Array, indices: npt.NDArray[np.int64], size: int) -> Array:
    full = np.full(size, np.nan)
    full[indices] = values
    return full
