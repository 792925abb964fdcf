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
from tds2el.fit.nonnegative import not_negative
from tds2el.fit.parameters import Scale
from tds2el.fit.separable import Own, System, eliminate, tells_apart
from tds2el.fit.spot_parameters import SpotParameters
from tds2el.fit.stiffness import largest_effect, softening_of
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
"""The same for corrections of the geometry, whose columns cancel to single precision, and for terms of dispersion."""
WORST_TERM = 0.5
"""σ of a term of dispersion, as the relative change of some mode's stiffness at the outer radius, beyond which the data
do not determine it."""
SCALE_SIGMA = 0.02
SCALE_QUANTUM = 0.1
UNSTABLE = 0.5
"""Part of some mode's stiffness that dispersion leaves at the outer radius, below which (Γ + T)⁻¹ nears its pole."""


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
    held : ndarray of bool, shape (n_blobs, own)
        Which of the spots' own parameters keep their value, since the data do not determine them.
    on_the_way : bool
        Whether a centre wanted to move farther than one run lets it.
    iterations : list of Iteration
    converged : bool
    unstable : bool
        Whether dispersion softens some mode so much within the shells that its next order would count too, or was kept
        from doing so.
    """

    values: Values
    state: State
    sums: Sums
    system: System
    common: Common
    at_bound: Mask
    left_out: Mask
    held: Mask
    on_the_way: bool
    iterations: list[Iteration]
    converged: bool
    unstable: bool = False

    @property
    def centre_held(self) -> Mask:
        """Spots whose centre is not fitted, (n_blobs,)."""
        centre = Own.of(self.common.columns).centre
        return np.ones(len(self.held), dtype=bool) if centre is None else self.held[:, centre.start]


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
        self._spots = SpotParameters(points, common)

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
            The spots' own parameters to begin with, from the same terms or fewer; by default factor and baseline come
            from linear least squares, and of the rest only `offset` is used.
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
        held = self._undetermined_own(sums, state, values)
        kept = self._spots.without_held(state, held)
        if kept is not state:
            state, sums = kept, self._engine.evaluate(kept)
        damping, returns, choices, predicted_before = 0.0, 0, 0, np.nan
        converged = too_soft = bent = False
        self._hold_undetermined(sums, state, values, left_out | self._unusable(sums, state), held)
        unusable = self._unusable(sums, state)
        poor = unusable.all() or bool(
            self._weakest(self._system(sums, state, values, unusable, np.where(held, np.inf, 0.0)))
        )
        most = ROUGH_PASSES if roughly else MAX_PASSES
        while not converged and len(self._iterations) - first < most:
            # Monotonic, so that the deviance is one function until the fit converges.
            left_out |= self._unusable(sums, state)
            softening = np.where(held, np.inf, 0.0)
            system, step, predicted, fixed = self._feasible(sums, state, values, left_out, softening)
            enough = ROUGH * float(sums.deviance[~left_out].sum()) if roughly else self._tolerance
            # What this step will leave, as the steps before promise; a pass that finds nothing to do is spared.
            ratio = predicted / predicted_before
            remains = predicted * ratio if ratio < FAST and not damping else predicted
            last = remains < max(enough, self._tolerance)
            # The last step is not damped, unless it would soften the tensor too much.
            if damping and (too_soft or not last):
                system = self._system(sums, state, values, left_out, softening, damping, fixed)
                step, _ = self._step(system, values)
            # What a spot has of its own and would move too far is damped by itself.
            while (far := self._spots.too_far(state, system.spot_step(step), begun)).any():
                softening[far] = np.where(softening[far] > 1e6, np.inf, 10 * softening[far] + 0.1)
                system = self._system(sums, state, values, left_out, softening, damping, fixed)
                step, _ = self._step(system, values)
            trial_values = common.moved(values, step)
            trial = common.placed(self._spots.moved(state, system.spot_step(step)), trial_values)
            too_soft = bool(eigvalsh(trial.tensor, state.tensor)[0] < SOFTEST)
            if self._bends and not too_soft:
                too_soft = softening_of(trial, state, self._points.q_max) < SOFTEST
                bent |= too_soft
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
            # Elsewhere the data may have told less of the dispersion, or more.
            anew = choices < MAX_RETURNS
            if converged and self._hold_undetermined(sums, state, values, left_out, held, anew=anew):
                converged, choices = False, choices + 1
                if values.dispersion[common.dispersion_held].any():
                    values = replace(values, dispersion=np.where(common.dispersion_held, 0.0, values.dispersion))
                    state = common.placed(state, values)
                    sums = self._engine.evaluate(state)
        on_the_way = bool(self._spots.far_from_start(state, begun)[~left_out].any())
        system = self._feasible(sums, state, values, left_out, np.where(held, np.inf, 0.0))[0]
        unstable = bent and not converged
        if self._bends:
            limit = replace(state, dispersion=None)
            unstable |= softening_of(state, limit, self._points.q_max) < UNSTABLE
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
            held=held,
            on_the_way=on_the_way,
            iterations=self._iterations,
            converged=converged,
            unstable=unstable,
        )

    @property
    def _bends(self) -> bool:
        """Whether dispersion can make a mode unstable."""
        return self._common.dispersion is not None and not self._common.expanded

    def _start(self, values: Values, given: State | None) -> tuple[State, Sums]:
        """Factor and baseline by linear least squares, from a flat model, unless they are given."""
        points, terms, n = self._points, self._common.terms, len(self._points.nodes)
        if given is not None and np.any(given.factor):
            state = self._spots.completed(self._common.placed(given, values))
            sums = self._engine.evaluate(state)
            self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
            return state, sums
        flat = self._spots.completed(
            self._common.placed(
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
        )
        sums = self._engine.evaluate(flat)
        found = self._eliminate(sums, flat, values, self._spots.all_but_linear)
        self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
        state = self._spots.moved(flat, found.linear)
        sums = self._engine.evaluate(state)
        self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
        return state, sums

    def _eliminate(
        self,
        sums: Sums,
        state: State,
        values: Values,
        softening: Array,
        damping: float = 0.0,
        fixed: Array | None = None,
    ) -> System:
        transform = self._common.transform(values)
        found = eliminate(sums, state, self._common.columns, transform, damping, softening, self._spots.strains, fixed)
        if self._common.constants.known is None:
            return found
        score, hessian = self._common.of_known(values)
        hessian[np.diag_indices_from(hessian)] *= 1 + damping
        return replace(found, known=(score, hessian))

    def _undetermined_own(self, sums: Sums, state: State, values: Values) -> Mask:
        """Which of the spots' own parameters their data do not determine, (n_blobs, own)."""
        return self._spots.undetermined(
            state, lambda softening: self._eliminate(sums, state, values, softening).inverse
        )

    def _unusable(self, sums: Sums, state: State) -> Mask:
        """Spots whose factor is not positive, or whose data do not tell factor and baseline apart."""
        signal = self._common.columns.signal
        block = sums.gram[:, signal : signal + 2, signal : signal + 2]
        return ~tells_apart(block) | (state.factor <= 0)

    def _system(
        self,
        sums: Sums,
        state: State,
        values: Values,
        left_out: Mask,
        softening: Array,
        damping: float = 0.0,
        fixed: Array | None = None,
    ) -> System:
        if left_out.all():
            raise InputError(
                "no spot shows a halo that falls off like thermal diffuse scattering: check geometry, hkl and mask"
            )
        return self._eliminate(sums, state, values, softening, damping, fixed).without(left_out)

    def _feasible(
        self, sums: Sums, state: State, values: Values, left_out: Mask, softening: Array
    ) -> tuple[System, Array, float, Array | None]:
        """Normal equations, step, predicted decrease, and the steps of neighbours' factors that end at 0."""

        def solved(fixed: Array | None) -> tuple[System, Array, float]:
            system = self._system(sums, state, values, left_out, softening, fixed=fixed)
            return system, *self._step(system, values)

        own = Own.of(self._common.columns)
        place = own.neighbours
        if place is None or state.neighbours is None:
            return *solved(None), None
        return not_negative(solved, state.neighbours, place, own.count)

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
        found = eliminate(sums, state, common.columns, transform, strains=self._spots.strains)
        hessian = found.without(left_out).hessian
        if np.linalg.cond(hessian) > 1 / np.finfo(float).eps or np.linalg.inv(hessian)[-1, -1] >= SCALE_SIGMA**2:
            return False
        common.scale = Scale.FREE
        return True

    def _hold_undetermined(
        self, sums: Sums, state: State, values: Values, left_out: Mask, held: Mask, *, anew: bool = False
    ) -> bool:
        """Hold terms of dispersion and corrections that the data do not determine; says whether it changed anything.

        With `anew` terms that were held before may be fitted again.
        """
        common = self._common
        before = common.held
        if anew:
            common.dispersion_held[:] = False
        softening = np.where(held, np.inf, 0.0)
        while (~common.held).any() and not left_out.all():
            hessian = self._eliminate(sums, state, values, softening).without(left_out).hessian
            culprit = self._undetermined(hessian, state)
            if culprit is None:
                break
            common.hold(culprit - len(common.fitted))
        return not np.array_equal(before, common.held)

    def _undetermined(self, hessian: Array, state: State) -> int | None:
        """The place of a term or a correction that the data do not determine, alone or in a combination."""
        unit, constants = _unit(hessian), len(self._common.fitted)
        lowest, vectors = np.linalg.eigh(hessian * np.outer(unit, unit))
        dead = np.flatnonzero(np.diag(hessian) <= 0)
        if len(dead) and dead[-1] >= constants:
            return int(dead[-1])
        weights = np.abs(vectors[constants:, 0])
        if lowest[0] < UNDETERMINED and weights.max() > 0.1:
            return constants + int(np.flatnonzero(weights > 0.3 * weights.max())[-1])
        free = np.flatnonzero(~self._common.dispersion_held)
        if self._common.dispersion is None or not len(free) or lowest[0] <= 0:
            return None
        sigma = unit * np.sqrt(((vectors / lowest) * vectors).sum(axis=1))
        effects = [largest_effect(term, state, self._points.q_max) for term in self._common.dispersion.basis[free]]
        worst = sigma[constants : constants + len(free)] * effects
        return constants + int(worst.argmax()) if worst.max() > WORST_TERM else None

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
