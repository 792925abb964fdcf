"""The outer loop: damped, bounded Fisher scoring with one pass over the pixels per iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh, solve_triangular
from scipy.optimize import lsq_linear

from tds2el.errors import InputError
from tds2el.fit.common import Common, Values
from tds2el.fit.parameters import Scale
from tds2el.fit.separable import Own, System, eliminate, tells_apart
from tds2el.model.engine import Conditions, Engine, Points, State, Sums
from tds2el.model.quantum import quantum_term

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_PASSES = 100
ROUNDING = 1e-7
"""Relative rise of the deviance that is no reason to reject a step."""
DECREASE = 0.01
"""Predicted decrease of the deviance that ends the iteration at ftol = 1e-5."""
FAST = 0.01
"""A predicted decrease below this part of that before: steps get smaller at least as fast from there on."""
ROUGH, ROUGH_PASSES = 0.01, 6
"""Predicted decrease, as a fraction of the deviance, and passes that end a rough run: its points will change."""
MAX_RETURNS = 2
"""How often spots that were left out may come back after convergence."""
SOFTEST = 0.25
"""No strain may soften to less than this fraction in one step: the model is far from linear there."""
DEGENERATE = 1e-10
"""Lowest eigenvalue of the scaled Fisher matrix below which the data do not determine the constants."""
UNDETERMINED = 1e-8
"""The same for corrections of the geometry, whose columns cancel to single precision."""
SCALE_SIGMA = 0.02
SCALE_QUANTUM = 0.1
LONGEST_MOVE = 0.25
"""Most that a centre moves in one step, as a fraction of the inner radius of the shells: S is not linear beyond."""
LONGEST_WAY = 0.5
"""Most that it moves in one run; then the points that are cut out round it must be chosen anew."""
WORST_CENTRE = 0.5
"""σ of a centre, as a fraction of the inner radius, beyond which its data do not say where it is."""


@dataclass(frozen=True)
class Iteration:
    """One pass over the pixels, for the log."""

    deviance: float
    predicted: float
    damping: float
    accepted: bool
    constants: Array
    geometry: Array = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Minimum:
    """Where the fit ended.

    Attributes
    ----------
    values : Values
    state : State
    sums : Sums
        The pass at `state`.
    system : System
        Normal equations at `state`, for `common.names`.
    common : Common
    at_bound : ndarray of bool, shape (len(common.names),)
    left_out : ndarray of bool, shape (n_blobs,)
        Spots whose factor is not positive, or whose data do not tell factor and baseline apart.
    centre_held : ndarray of bool, shape (n_blobs,)
        Spots whose data do not say where their centre is.
    on_the_way : bool
        Whether a centre wanted to move farther than one run lets it.
    iterations : list of Iteration
    converged : bool
    """

    values: Values
    state: State
    sums: Sums
    system: System
    common: Common
    at_bound: Mask
    left_out: Mask
    centre_held: Mask
    on_the_way: bool
    iterations: list[Iteration]
    converged: bool


class Minimiser:
    """Fits the common parameters and the spots' own to the points that an engine holds.

    Parameters
    ----------
    engine : Engine
        Made with ``common.columns``.
    points : Points
    common : Common
        Its scale and what of the geometry is held change during a run.
    conditions : Conditions
        They decide whether the quantum terms can fix a held scale.
    may_free_scale : bool
        Whether a held scale is freed once the data turn out to determine it.
    ftol : float
    report : callable, optional
        Called with each Iteration.
    """

    def __init__(
        self,
        engine: Engine,
        points: Points,
        common: Common,
        conditions: Conditions,
        *,
        may_free_scale: bool = True,
        ftol: float = 1e-5,
        report: Callable[[Iteration], None] | None = None,
    ) -> None:
        self._engine, self._points, self._common, self._conditions = engine, points, common, conditions
        self._may_free_scale = may_free_scale
        self._tolerance = DECREASE * ftol / 1e-5
        self._report = report
        self._iterations: list[Iteration] = []
        self._own = Own.of(common.columns)
        self._reach = max(points.q_min, 0.1 * points.q_max)

    def run(
        self,
        values: Values | None = None,
        state: State | None = None,
        left_out: Mask | None = None,
        *,
        roughly: bool = False,
    ) -> Minimum:
        """Iterate to the minimum.

        Parameters
        ----------
        values : Values, optional
            Where to begin; by default the user's start values.
        state : State, optional
            The spots' own parameters to begin with; by default factor and baseline come from linear least squares, and
            of the rest only `offset` is used.
        left_out : ndarray of bool, shape (n_blobs,), optional
            Spots that must not be used.
        roughly : bool
            End early: the points will be chosen anew and the fit goes on.

        Raises
        ------
        InputError
            No spot shows a halo, or the data do not determine the constants.
        """
        common = self._common
        barred = np.zeros(len(self._points.nodes), dtype=bool) if left_out is None else left_out
        values = common.start if values is None else values
        state, sums = self._start(values, state)
        begun, first = state.offset, len(self._iterations)
        left_out = barred.copy()
        centre_held = self._lost_centres(sums, state, values)
        damping, returns, predicted_before = 0.0, 0, np.nan
        converged = too_soft = False
        self._hold_undetermined(sums, state, values, left_out | self._unusable(sums, state), centre_held)
        unusable = self._unusable(sums, state)
        poor = unusable.all() or bool(
            self._weakest(self._system(sums, state, values, unusable, np.where(centre_held, np.inf, 0.0)))
        )
        most = ROUGH_PASSES if roughly else MAX_PASSES
        while not converged and len(self._iterations) - first < most:
            # Monotonic, so that the deviance is one function until the fit converges.
            left_out |= self._unusable(sums, state)
            centre_damping = np.where(centre_held, np.inf, 0.0)
            system = self._system(sums, state, values, left_out, centre_damping)
            step, predicted = self._step(system, values)
            enough = ROUGH * float(sums.deviance[~left_out].sum()) if roughly else self._tolerance
            # What this step will leave, as the steps before promise; a pass that finds nothing to do is spared.
            ratio = predicted / predicted_before
            remains = predicted * ratio if ratio < FAST and not damping else predicted
            last = remains < max(enough, self._tolerance)
            # The last step is not damped, unless it would soften the tensor too much.
            if damping and (too_soft or not last):
                system = self._system(sums, state, values, left_out, centre_damping, damping)
                step, _ = self._step(system, values)
            # Centres that would move too far are damped, each by itself.
            while len(far := self._too_far(state, system.spot_step(step), begun, left_out)):
                centre_damping[far] = np.where(centre_damping[far] > 1e6, np.inf, 10 * centre_damping[far] + 0.1)
                system = self._system(sums, state, values, left_out, centre_damping, damping)
                step, _ = self._step(system, values)
            trial_values = common.moved(values, step)
            trial = self._trial(state, trial_values, system.spot_step(step))
            too_soft = bool(eigvalsh(trial.tensor, state.tensor)[0] < SOFTEST)
            if too_soft:
                damping = max(10 * damping, 1e-3)
                continue
            trial_sums = self._engine.evaluate(trial)
            before, after = (
                float(found.deviance[~left_out].sum()) + common.deviance_of_known(point)
                for found, point in ((sums, values), (trial_sums, trial_values))
            )
            accepted = after - before <= ROUNDING * before
            self._record(after, predicted, damping, accepted, trial_values)
            predicted_before = predicted if accepted and not damping else np.nan
            if accepted:
                values, state, sums = trial_values, trial, trial_sums
                damping = damping / 10 if damping > 1e-4 else 0.0
            else:
                damping = max(10 * damping, 1e-3)
            converged = last and not self._frees_scale(sums, state, values, left_out)
            usable_again = left_out & ~barred & ~self._unusable(sums, state)
            if converged and usable_again.any() and returns < MAX_RETURNS:
                left_out &= ~usable_again
                converged, returns = False, returns + 1
            if converged and self._hold_undetermined(sums, state, values, left_out, centre_held):
                converged = False
        on_the_way = bool(self._far_from_start(state, begun)[~left_out].any())
        system = self._system(sums, state, values, left_out, np.where(centre_held, np.inf, 0.0))
        if not roughly:
            self._check_determined(system, astray=not converged and not poor)
        return Minimum(
            values=values,
            state=state,
            sums=sums,
            system=system,
            common=common,
            at_bound=self._at_bound(values, system),
            left_out=left_out,
            centre_held=centre_held,
            on_the_way=on_the_way,
            iterations=self._iterations,
            converged=converged,
        )

    def _start(self, values: Values, given: State | None) -> tuple[State, Sums]:
        """Factor and baseline by linear least squares, from a flat model, unless they are given."""
        points, terms, n = self._points, self._common.terms, len(self._points.nodes)
        if given is not None and np.any(given.factor):
            state = self._common.placed(given, values)
            sums = self._engine.evaluate(state)
            self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
            return state, sums
        flat = self._common.placed(
            State(
                np.eye(6),
                np.zeros(n),
                (points.mean_counts - points.mean_background) / points.mean_correction,
                slope=np.zeros((n, 3)) if terms.slope else None,
                background=np.ones(n) if points.background else None,
                offset=None if given is None else given.offset,
            ),
            values,
        )
        if terms.centre and flat.offset is None:
            flat = replace(flat, offset=np.zeros((n, 3)))
        sums = self._engine.evaluate(flat)
        found = self._eliminate(sums, flat, values, np.full(n, np.inf))
        self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
        state = self._with_own(flat, found.linear)
        sums = self._engine.evaluate(state)
        self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
        return state, sums

    def _trial(self, state: State, values: Values, own: Array) -> State:
        return self._common.placed(self._with_own(state, own), values)

    def _with_own(self, state: State, step: Array) -> State:
        """The state after steps of the spots' own parameters (n_blobs, own)."""
        own = self._own
        changes = {"factor": state.factor + step[:, 0], "baseline": state.baseline + step[:, 1]}
        if own.slope is not None and state.slope is not None:
            changes["slope"] = state.slope + step[:, own.slope]
        if own.background is not None and state.background is not None:
            changes["background"] = state.background + step[:, own.background]
        if own.centre is not None and state.offset is not None:
            changes["offset"] = state.offset + step[:, own.centre]
        return replace(state, **changes)  # type: ignore[arg-type]

    def _eliminate(
        self, sums: Sums, state: State, values: Values, centre_damping: Array, damping: float = 0.0
    ) -> System:
        transform = self._common.transform(values)
        found = eliminate(sums, state, self._common.columns, transform, damping, centre_damping)
        if self._common.constants.known is None:
            return found
        score, hessian = self._common.of_known(values)
        hessian[np.diag_indices_from(hessian)] *= 1 + damping
        return replace(found, known=(score, hessian))

    def _lost_centres(self, sums: Sums, state: State, values: Values) -> Mask:
        """Spots whose data do not say where their centre is: these keep it."""
        n_blobs = len(state.factor)
        if self._own.centre is None:
            return np.ones(n_blobs, dtype=bool)
        own = self._eliminate(sums, state, values, np.zeros(n_blobs)).inverse[:, self._own.centre, self._own.centre]
        worst = np.sqrt(np.maximum(np.linalg.eigvalsh(own)[:, -1], 0.0))
        return np.asarray((worst > WORST_CENTRE * self._reach) | (state.factor <= 0))

    def _too_far(self, state: State, step: Array, begun: Array | None, left_out: Mask) -> npt.NDArray[np.int64]:
        """Spots whose centres would move too far at once, or in all."""
        if self._own.centre is None or state.offset is None or begun is None:
            return np.zeros(0, dtype=np.int64)
        move = step[:, self._own.centre]
        long = np.linalg.norm(move, axis=1) > LONGEST_MOVE * self._reach
        long |= np.linalg.norm(state.offset + move - begun, axis=1) > LONGEST_WAY * self._reach
        return np.flatnonzero(long & np.any(move != 0, axis=1))

    def _far_from_start(self, state: State, begun: Array | None) -> Mask:
        if state.offset is None or begun is None:
            return np.zeros(len(state.factor), dtype=bool)
        return np.asarray(np.linalg.norm(state.offset - begun, axis=1) > 0.8 * LONGEST_WAY * self._reach)

    def _unusable(self, sums: Sums, state: State) -> Mask:
        """Spots whose factor is not positive, or whose data do not tell factor and baseline apart."""
        signal = self._common.columns.signal
        block = sums.gram[:, signal : signal + 2, signal : signal + 2]
        return ~tells_apart(block) | (state.factor <= 0)

    def _system(
        self, sums: Sums, state: State, values: Values, left_out: Mask, centre_damping: Array, damping: float = 0.0
    ) -> System:
        if left_out.all():
            raise InputError(
                "no spot shows a halo that falls off like thermal diffuse scattering: check geometry, hkl and mask"
            )
        return self._eliminate(sums, state, values, centre_damping, damping).without(left_out)

    def _step(self, system: System, values: Values) -> tuple[Array, float]:
        """Bounded step of the fitted parameters, and the decrease of the deviance that the model predicts."""
        hessian, score = system.hessian, system.score
        linear = float(system.linear_decrease.sum())
        if not len(score):
            return np.zeros(0), linear
        unit = _unit(hessian)
        scaled = hessian * np.outer(unit, unit) + 1e-13 * np.eye(len(unit))
        values_, vectors = np.linalg.eigh(scaled)
        root = vectors * np.sqrt(np.maximum(values_, 1e-13))  # of a matrix that rounding may have made indefinite
        upper = np.linalg.qr(root.T)[1]
        target = solve_triangular(upper, score * unit, trans="T")
        x = self._common.vector(values)
        bounds = [(limit - x) / unit for limit in self._common.bounds()]
        bounds = [np.minimum(bounds[0], 0.0), np.maximum(bounds[1], 0.0)]
        step = lsq_linear(upper, target, bounds=bounds, method="bvls").x * unit
        return step, linear + float(2 * score @ step - step @ hessian @ step)

    def _at_bound(self, values: Values, system: System) -> Mask:
        """Parameters that sit on a bound and are pushed against it."""
        x, (lower, upper) = self._common.vector(values), self._common.bounds()
        room = 1e-9 * np.maximum(1.0, np.abs(x))
        return np.asarray(((x - lower <= room) & (system.score < 0)) | ((upper - x <= room) & (system.score > 0)))

    def _frees_scale(self, sums: Sums, state: State, values: Values, left_out: Mask) -> bool:
        """Free a held scale if the quantum terms are large and determine it; says whether it did."""
        common, conditions = self._common, self._conditions
        if common.scale is not Scale.HELD or not self._may_free_scale:
            return False
        reached = quantum_term(state.tensor, self._points.q_max, conditions.temperature, conditions.density)
        if reached <= SCALE_QUANTUM:
            return False
        transform = common.with_scale(values)
        hessian = eliminate(sums, state, common.columns, transform).without(left_out).hessian
        if np.linalg.cond(hessian) > 1 / np.finfo(float).eps or np.linalg.inv(hessian)[-1, -1] >= SCALE_SIGMA**2:
            return False
        common.scale = Scale.FREE
        return True

    def _hold_undetermined(self, sums: Sums, state: State, values: Values, left_out: Mask, centre_held: Mask) -> bool:
        """Hold corrections that the data do not determine, alone or in a combination; says whether it did."""
        common, changed = self._common, False
        centre_damping = np.where(centre_held, np.inf, 0.0)
        while (~common.geometry_held).any() and not left_out.all():
            hessian = self._eliminate(sums, state, values, centre_damping).without(left_out).hessian
            unit = _unit(hessian)
            lowest, vectors = np.linalg.eigh(hessian * np.outer(unit, unit))
            constants = len(common.fitted)
            dead = np.flatnonzero(np.diag(hessian) <= 0)
            if len(dead) and dead[-1] >= constants:
                culprit = int(dead[-1])
            elif lowest[0] < UNDETERMINED and np.abs(vectors[constants:, 0]).max() > 0.1:
                weights = np.abs(vectors[constants:, 0])
                culprit = constants + int(np.flatnonzero(weights > 0.3 * weights.max())[-1])
            else:
                break
            free = np.flatnonzero(~common.geometry_held)
            common.geometry_held[free[culprit - constants]] = True
            changed = True
        return changed

    def _weakest(self, system: System) -> list[str]:
        """The parameters in a combination that the data do not determine, if there is one."""
        hessian = system.hessian
        if not len(hessian):
            return []
        unit = _unit(hessian)
        lowest, vectors = np.linalg.eigh(hessian * np.outer(unit, unit))
        weights = np.abs(vectors[:, 0])
        if lowest[0] >= DEGENERATE:
            return []
        return [name for name, weight in zip(self._common.names, weights, strict=True) if weight > 0.3 * weights.max()]

    def _check_determined(self, system: System, astray: bool) -> None:
        """Refuse a point at which the data do not determine the parameters; `astray`: elsewhere they did."""
        names = ", ".join(self._weakest(system))
        if names and astray:
            wrong = ", free more of it or set fit_centres = True" if self._common.retuning is not None else ""
            raise InputError(
                f"the fit went astray, to where the data do not determine {names}: the halos are elsewhere or the "
                f"shells hold more than them; check geometry and centres (show_hkls){wrong}, mask what is foreign or "
                "set reject = 6, and give background frames if the background has structure"
            )
        if names:
            raise InputError(
                f"the data do not determine {names}: add spots in other directions, "
                "or freeze a constant in CGUESS (min = max)"
            )

    def _record(self, deviance: float, predicted: float, damping: float, accepted: bool, values: Values) -> None:
        iteration = Iteration(deviance, predicted, damping, accepted, values.constants.copy(), values.geometry.copy())
        self._iterations.append(iteration)
        if self._report is not None:
            self._report(iteration)


def _unit(hessian: Array) -> Array:
    """Units of the parameters in which the diagonal is 1."""
    return np.asarray(1 / np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny)))
