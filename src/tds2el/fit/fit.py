"""A fit, or a simulation, from a harvest to its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.crystal.dispersion import DispersionStructure
from tds2el.errors import InputError
from tds2el.fit.clean import Cleaner, Usage, expected_counts
from tds2el.fit.common import Common, SpotTerms, Values
from tds2el.fit.data import FitData
from tds2el.fit.intervals import Engaged, with_intervals
from tds2el.fit.minimise import Iteration, Minimiser, Minimum
from tds2el.fit.parameters import Constants
from tds2el.fit.result import FitResult, result_of
from tds2el.fit.retune import Retuning, start_from_peaks
from tds2el.fit.separable import Own
from tds2el.fit.shared import shared_engine
from tds2el.model.device import make_engine
from tds2el.model.engine import Conditions, Engine, State
from tds2el.settings import FitSettings
from tds2el.team import Team

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_ROUNDS = 8
"""How often points are chosen anew: those cut out round centres, foreign ones, and spots whose chi² is too large."""


@dataclass(frozen=True)
class Fit:
    """A result together with the engine that can draw its curve.

    Attributes
    ----------
    result : FitResult
    engine : Engine
    data : FitData
    state : State
        Where the fit ended.
    usage : Usage
        Which points were used.
    information : ndarray, shape (n_blobs, constants, constants)
        Fisher information of the fitted constants, spot by spot.
    response : ndarray, shape (n_blobs, constants)
        ∂ ln f/∂p of the spots' factors with all constants, GPa⁻¹; 0 for those that were not fitted.
    own_sigma : ndarray, shape (n_blobs,)
        σ of ln f by counting at fixed constants.
    """

    result: FitResult
    engine: Engine
    data: FitData
    state: State
    usage: Usage
    information: Array
    response: Array
    own_sigma: Array

    def curve(self, blob: int) -> npt.NDArray[np.float32]:
        """Expected counts m of every point of one blob."""
        return np.asarray(expected_counts(self.engine, self.data.points, self.state, blob), dtype=np.float32)


def fit(
    data: FitData,
    constants: Constants,
    settings: FitSettings,
    *,
    temperature: float,
    density: float,
    retuning: Retuning | None = None,
    fit_centres: bool | None = None,
    dispersion: DispersionStructure | None = None,
    team: Team | None = None,
    started: Callable[[Engine], None] | None = None,
    report: Callable[[Iteration], None] | None = None,
) -> Fit:
    """Fit constants, geometry and what each spot has of its own; without doMinimisation the constants stay.

    Beyond the elastic limit the elastic fit comes first: it is where the other begins, and what it is compared with.

    Parameters
    ----------
    data : FitData
        With pixels, if `retuning` or ``settings.reject`` is given.
    constants : Constants
    settings : FitSettings
        All but CGUESS, A_variables, nred, REPLICA and dispersion_terms, which have been seen to.
    temperature, density : float
        K and g/cm³.
    retuning : Retuning, optional
        Geometry and cell that are free or shifted.
    fit_centres : bool, optional
        Whether the offset of each spot's centre is fitted; by default ``settings.fit_centres``.
    dispersion : DispersionStructure, optional
        The terms of dispersion that are fitted, with ``settings.model`` "next-order" and ``settings.dispersion``.
    team : Team, optional
        Ranks that share the points, as `tds2el.fit.shared.HarvestShare`; by default this process has them all.
    started : callable, optional
        Called with the engine once the points are on the device.
    report : callable, optional
        Called after every pass over the points.
    """
    if not settings.doMinimisation:
        constants = replace(constants, lower=constants.start, upper=constants.start)
        retuning = None if retuning is None else retuning.at_start()
    centre = settings.fit_centres if fit_centres is None else fit_centres
    free_background = data.points.background and settings.background_scale == "free"
    others = 0 if data.points.neighbours is None else data.points.neighbours.shape[1]
    # What nodes beyond the neighbours add is smooth, but not constant.
    slope = settings.baseline == "linear" or others > 0
    terms = SpotTerms(centre, slope=slope, background=free_background, neighbours=others)
    conditions = Conditions(temperature, density, settings.relative_error)

    def fitted(common: Common, before: _Outcome | None = None) -> _Outcome:
        engine: Engine
        if team is None:
            engine = make_engine(settings.device, data.points, common.columns, conditions)
        else:
            engine = shared_engine(team, settings.device, data, common.columns, conditions)
        if started is not None and before is None:
            started(engine)
        minimiser = Minimiser(
            engine,
            data.points,
            common,
            conditions,
            may_free_scale=settings.scale == "auto",
            ftol=settings.ftol,
            report=report,
        )
        cleaner = Cleaner(engine, data.points, settings.reject, settings.relative_error)
        minimum, filtered, settled = _rounds(data, common, minimiser, cleaner, settings, before)
        result = replace(result_of(minimum, data, cleaner.usage, filtered), unsettled=not settled)
        return _Outcome(engine, minimum, filtered, cleaner.usage, result)

    common = Common(constants, constants.initial_scale(settings.scale), retuning, data.hkl, terms)
    found = fitted(common)
    if settings.model == "next-order":
        terms = replace(terms, gradient=settings.spot_gradient, strain=settings.internal_strain)
        elastic = replace(found, engine=None)
        del found  # and its points on the device, before they are put there again

        def beyond(start: _Outcome, *, expanded: bool) -> _Outcome:
            chosen = dispersion if settings.dispersion else None
            wider = Common(constants, common.scale, retuning, data.hkl, terms, chosen, expanded=expanded)
            wider.geometry_held = common.geometry_held.copy()
            return fitted(wider, start)

        found = beyond(elastic, expanded=False)
        if found.minimum.unstable:
            full = replace(found, engine=None)
            del found
            found = beyond(elastic, expanded=True)
            gain = _deviances_apart(full.result, found.result)
            if gain < 0:
                del found
                found = beyond(full, expanded=False)
            assert found.result.dispersion is not None
            found = replace(
                found,
                result=replace(found.result, dispersion=replace(found.result.dispersion, gain=abs(gain))),
            )
        found = replace(found, result=replace(found.result, elastic=elastic.result))
    minimum, n = found.minimum, len(found.minimum.common.fitted)
    assert found.engine is not None
    result = found.result
    if settings.doMinimisation:
        engaged = Engaged(found.engine, data.points, conditions, settings.ftol, report)
        result = with_intervals(result, minimum, engaged, settings)
    information = minimum.system.hessians[:, :n, :n]
    return Fit(result, found.engine, data, minimum.state, found.usage, information, *_factors_of(minimum))


@dataclass(frozen=True)
class _Outcome:
    """What a fit with one model found."""

    engine: Engine | None
    minimum: Minimum
    filtered: Mask
    usage: Usage
    result: FitResult


def _deviances_apart(one: FitResult, other: FitResult) -> float:
    """Deviance of one minus that of the other, over the spots that both used."""
    used = ~one.spots.left_out & ~other.spots.left_out
    return float((one.spots.deviance - other.spots.deviance)[used].sum())


def _factors_of(minimum: Minimum) -> tuple[Array, Array]:
    """How the spots' factors follow the constants, and how well they are known at fixed constants; see `Fit`."""
    factor, common, system = minimum.state.factor, minimum.common, minimum.system
    positive = np.where(factor > 0, factor, np.nan)
    response = np.zeros((len(factor), len(common.constants.names)))
    response[:, common.fitted] = -system.coupling[:, 0, : len(common.fitted)] / positive[:, None]
    return response, np.asarray(np.sqrt(np.maximum(system.inverse[:, 0, 0], 0.0)) / positive)


def _rounds(
    data: FitData,
    common: Common,
    minimiser: Minimiser,
    cleaner: Cleaner,
    settings: FitSettings,
    before: _Outcome | None = None,
) -> tuple[Minimum, Mask, bool]:
    """Fit, choose the points anew, and fit again until nothing changes; beginning where a fit with fewer terms ended.

    Returns also the spots whose chi² was too large, and whether nothing changed any more.
    """
    n = len(data.hkl)
    filtered = np.zeros(n, dtype=bool) if before is None else before.filtered.copy()
    worst = (settings.spot_filter or {}).get("max_chi2", np.inf)
    if before is None:
        values, state = _start(data, common)
        cleaner.cut(common.placed(state, values))
    else:
        values, state = before.minimum.values, before.minimum.state
        if len(values.dispersion) != len(common.dispersion_names):
            values = replace(values, dispersion=common.start.dispersion)
        cleaner.cut(state)
        cleaner.reject(state)
    # While centres move or foreign points are in, the minimum is not worth the passes that it takes to reach.
    rough = common.terms.centre or bool(common.geometry_names) or settings.reject is not None
    minimum = minimiser.run(values, state, filtered, roughly=rough)
    changed = False
    for _ in range(MAX_ROUNDS):
        changed = cleaner.cut(minimum.state)
        changed |= cleaner.reject(minimum.state)
        own = Own.of(common.columns).count
        chi2 = minimum.sums.gram[:, -1, -1] / np.maximum(cleaner.usage.numbers - own, 1)
        bad = (chi2 > worst) & ~filtered & ~minimum.left_out
        if bad.any() and not (filtered | bad | minimum.left_out).all():
            filtered |= bad
            changed = True
        if not changed and not minimum.on_the_way and not rough:
            break
        rough = rough and (changed or minimum.on_the_way)
        minimum = minimiser.run(minimum.values, minimum.state, filtered, roughly=rough)
    if rough:
        minimum = minimiser.run(minimum.values, minimum.state, filtered)
    if (filtered | minimum.left_out).all():
        raise InputError("spot_filter: max_chi2 leaves no spot; raise it")
    return minimum, filtered, not changed


def _start(data: FitData, common: Common) -> tuple[Values, State]:
    """Where a fit begins: the user's values, with centres or geometry from the Bragg peaks."""
    n = len(data.hkl)
    values: Values = common.start
    offset = np.zeros((n, 3))
    if common.terms.centre:
        # The pixels of the Bragg peak say where the centre is, to begin with.
        offset = np.where(np.isnan(data.peak), 0.0, data.peak)
        far = np.linalg.norm(offset, axis=1) > 0.5 * data.points.q_max
        offset[far] = 0.0
    elif common.retuning is not None and len(common.geometry_names):
        values = replace(values, geometry=start_from_peaks(common.retuning, data))
    return values, State(np.eye(6), np.zeros(n), np.zeros(n), offset=offset if common.terms.centre else None)
