"""Intervals of the constants that do not take their likelihood for a Gaussian: by its profile, and by a bootstrap."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.fit.minimise import Iteration, Minimiser, Minimum
from tds2el.fit.result import FitResult, Intervals
from tds2el.model.engine import Conditions, Engine, Points
from tds2el.settings import FitSettings

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]

CLOSE, TRIALS = 0.01, 5
"""Relative distance from the end of an interval, in units of σ, that ends the search for it; and its most trials."""
PINNED = 1e-9
"""Relative width of the bounds that hold a constant: it stays a parameter, so that the columns do not change."""
DETERMINED = 1e-12
"""Inverse condition below which a bootstrap sample does not determine the constants."""
SEED = 20


@dataclass(frozen=True)
class Engaged:
    """What it takes to go on from a minimum: the engine with its points, the tolerance of the fit, and its log."""

    engine: Engine
    points: Points
    conditions: Conditions
    ftol: float
    report: Callable[[Iteration], None] | None = None


def with_intervals(result: FitResult, minimum: Minimum, engaged: Engaged, settings: FitSettings) -> FitResult:
    """The result with the intervals that the settings ask for.

    Raises
    ------
    InputError
        profile_likelihood names what is no fitted constant.
    """
    names = result.constants.names
    if settings.profile_likelihood:
        wanted = profiled(settings, names)
        result = replace(result, profile=profile_intervals(result, minimum, engaged, wanted))
    if settings.bootstrap:
        result = replace(result, bootstrap=bootstrap_intervals(result, minimum, settings.bootstrap))
    return result


def profiled(settings: FitSettings, names: list[str]) -> list[int]:
    """Indices of the constants whose profile is wanted.

    Raises
    ------
    InputError
        profile_likelihood names what is no constant of the crystal.
    """
    wanted = settings.profile_likelihood
    if isinstance(wanted, bool):
        return list(range(len(names))) if wanted else []
    foreign = [name for name in wanted if name not in names]
    if foreign:
        raise InputError(
            f"profile_likelihood names {', '.join(foreign)}: the free constants of this crystal are {', '.join(names)}"
        )
    return [names.index(name) for name in wanted]


def profile_intervals(result: FitResult, minimum: Minimum, engaged: Engaged, wanted: list[int]) -> Intervals:
    """Where the deviance, minimal over all else, has risen by (σ/σ_Poisson)².

    With that the interval of a Gaussian likelihood is ± the σ of the results, whichever estimate that is. An end that
    lies beyond a bound is the bound; NaN where none was found.

    Parameters
    ----------
    result : FitResult
    minimum : Minimum
        Which `result` was made of.
    engaged : Engaged
    wanted : list of int
        Constants; those that are not fitted are passed over.
    """
    ends = np.full((2, len(result.values)), np.nan)
    for index in wanted:
        if index not in result.fitted:
            continue
        for side, sign in enumerate((-1.0, 1.0)):
            try:
                ends[side, index] = _end(result, minimum, engaged, index, sign)
            except InputError as error:  # the fit went where the crystal is unstable, or nothing is determined
                log.warning("no profile of %s on one side: %s", result.constants.names[index], error)
    return Intervals(*ends)


def _end(result: FitResult, minimum: Minimum, engaged: Engaged, index: int, sign: float) -> float:
    value, sigma = result.values[index], result.errors.largest[index]
    target, slope = sigma / result.errors.poisson[index], 1 / result.errors.poisson[index]
    limit = (result.constants.lower if sign < 0 else result.constants.upper)[index]
    room = abs(limit - value)
    step = min(sigma, room)
    for _ in range(TRIALS):
        root = np.sqrt(max(_rise(minimum, engaged, index, value + sign * step), 0.0))
        if abs(root - target) < CLOSE * target or (step == room and root < target):
            break
        # The root of the rise is slope·step + curvature·step², nearly.
        curvature = (root - slope * step) / step**2
        inside = slope**2 + 4 * curvature * target
        better = 2 * target / (slope + np.sqrt(inside)) if inside > 0 else step * target / max(root, 0.1 * target)
        step = min(float(np.clip(better, 0.3 * step, 3 * step)), room)
    else:
        return float("nan")
    return float(value + sign * step)


def _rise(minimum: Minimum, engaged: Engaged, index: int, value: float) -> float:
    """By how much the deviance rises when a constant is held at a value and all else is fitted again."""
    common = copy(minimum.common)
    common.geometry_held, common.dispersion_held = common.geometry_held.copy(), common.dispersion_held.copy()
    constants, place = common.constants, int(np.flatnonzero(common.fitted == index)[0])
    # What a Gaussian likelihood expects of the others.
    covariance = np.linalg.pinv(minimum.system.hessian, hermitian=True)
    step = covariance[:, place] / covariance[place, place] * (value - minimum.values.constants[index])
    lower, upper = common.bounds()
    x = common.vector(minimum.values)
    values = common.moved(minimum.values, np.clip(x + step, lower, upper) - x)
    values.constants[index] = value
    width = PINNED * max(1.0, abs(value))
    bounds = [np.where(np.arange(len(constants.names)) == index, value + w, b)
              for w, b in ((-width, constants.lower), (width, constants.upper))]  # fmt: skip
    common.constants = replace(constants, lower=bounds[0], upper=bounds[1])
    minimiser = Minimiser(
        engaged.engine,
        engaged.points,
        common,
        engaged.conditions,
        may_free_scale=False,
        ftol=engaged.ftol,
        report=engaged.report,
    )
    found = minimiser.run(values, minimum.state, minimum.left_out)

    used = ~(minimum.left_out | found.left_out)
    before, after = (
        float(m.sums.deviance[used].sum()) + minimum.common.deviance_of_known(m.values) for m in (minimum, found)
    )
    return after - before


def bootstrap_intervals(result: FitResult, minimum: Minimum, samples: int) -> Intervals:
    """The middle 68 % of the constants over samples of the spots, drawn with replacement (Efron 1979).

    Each sample takes one step of Fisher scoring from the minimum, with the spots' own scores and Fisher matrices, so
    that it costs no pass over the points. Known values are drawn anew with their errors.

    Parameters
    ----------
    result : FitResult
    minimum : Minimum
        Which `result` was made of.
    samples : int
    """
    random = np.random.default_rng(SEED)
    inside, n = ~minimum.at_bound, len(result.fitted)
    used = np.flatnonzero(~minimum.left_out)
    scores = minimum.system.scores[np.ix_(used, np.flatnonzero(inside))]
    hessians = minimum.system.hessians[used][:, inside][:, :, inside]
    known_score, known_hessian = (part[inside] for part in minimum.common.of_known(minimum.values))
    known_hessian = known_hessian[:, inside]
    jacobian = np.zeros((0, len(known_score)))
    if result.constants.known is not None:
        jacobian = np.zeros((len(result.constants.known.data), len(known_score)))
        jacobian[:, :n] = result.constants.known.jacobian(result.values)[:, result.fitted]
    steps = []
    for weights in random.multinomial(len(used), np.full(len(used), 1 / len(used)), size=samples):
        hessian = np.tensordot(weights, hessians, axes=1) + known_hessian
        score = weights @ scores + known_score + random.normal(size=len(jacobian)) @ jacobian
        unit = 1 / np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny))
        scaled = hessian * np.outer(unit, unit)
        if np.linalg.eigvalsh(scaled)[0] > DETERMINED:
            steps.append((np.linalg.solve(scaled, score * unit) * unit)[:n])
    ends = np.full((2, len(result.values)), np.nan)
    if len(steps) > samples / 2 and len(used) > len(known_score):  # with fewer spots they repeat each other
        ends[:, result.fitted] = result.values[result.fitted] + np.percentile(steps, [15.87, 84.13], axis=0)
    else:
        log.warning("bootstrap: samples of %d spots do not determine the constants: no intervals", len(used))
    return Intervals(*ends)
