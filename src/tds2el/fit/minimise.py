"""The outer loop: damped, bounded Fisher scoring with one pass over the pixels per iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh, solve_triangular
from scipy.optimize import lsq_linear

from tds2el.errors import InputError
from tds2el.fit.parameters import Constants, Scale
from tds2el.fit.separable import System, eliminate, tells_apart
from tds2el.model.engine import Columns, Engine, Points, State, Sums
from tds2el.model.quantum import quantum_term

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_PASSES = 100
ROUNDING = 1e-7
"""Relative rise of the deviance that is no reason to reject a step."""
DECREASE = 0.01
"""Predicted decrease of the deviance that ends the iteration at ftol = 1e-5."""
MAX_RETURNS = 2
"""How often spots that were left out may come back after convergence."""
SOFTEST = 0.25
"""No strain may soften to less than this fraction in one step: the model is far from linear there."""
DEGENERATE = 1e-10
"""Lowest eigenvalue of the scaled Fisher matrix below which the data do not determine the constants."""
SCALE_SIGMA = 0.02
SCALE_QUANTUM = 0.1


@dataclass(frozen=True)
class Iteration:
    """One pass over the pixels, for the log."""

    deviance: float
    predicted: float
    damping: float
    accepted: bool
    constants: Array


@dataclass(frozen=True)
class Minimum:
    """Where the fit ended.

    Attributes
    ----------
    values : ndarray, shape (k,)
        The free constants, GPa.
    state : State
    sums : Sums
        The pass at `state`.
    system : System
        Normal equations at `state`, for the constants in `fitted`.
    fitted : ndarray of int
        Indices of the constants that the system is for: neither frozen nor held.
    at_bound : ndarray of bool, shape (k,)
    left_out : ndarray of bool, shape (n_blobs,)
        Spots whose factor is not positive, or whose data do not tell factor and baseline apart.
    scale : Scale
    iterations : list of Iteration
    converged : bool
    """

    values: Array
    state: State
    sums: Sums
    system: System
    fitted: npt.NDArray[np.int64]
    at_bound: Mask
    left_out: Mask
    scale: Scale
    iterations: list[Iteration]
    converged: bool


def engine_columns(constants: Constants, scale: Scale) -> Columns:
    """The derivatives that a fit of these constants needs.

    Unless the scale is known, the reference constant's own column is not computed: the column of ln s takes its place.
    """
    wanted = ~constants.frozen
    if scale is not Scale.KNOWN:
        wanted[constants.reference] = False
    return Columns(constants.structure.basis[wanted], scale=scale is not Scale.KNOWN)


class Minimiser:
    """Fits the constants to the points that an engine holds.

    Parameters
    ----------
    engine : Engine
        Made with ``engine_columns(constants, scale)``.
    points : Points
    constants : Constants
    scale : Scale
        As ``constants.initial_scale`` gives it.
    temperature, density : float
        K and g/cm³; they decide whether the quantum terms can fix a held scale.
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
        constants: Constants,
        scale: Scale,
        *,
        temperature: float,
        density: float,
        may_free_scale: bool = True,
        ftol: float = 1e-5,
        report: Callable[[Iteration], None] | None = None,
    ) -> None:
        self._engine, self._points, self._constants = engine, points, constants
        self._scale, self._may_free_scale = scale, may_free_scale
        self._temperature, self._density = temperature, density
        self._tolerance = DECREASE * ftol / 1e-5
        self._report = report
        self._iterations: list[Iteration] = []

    def run(self) -> Minimum:
        """Iterate to the minimum from the start values.

        Raises
        ------
        InputError
            No spot shows a halo, or the data do not determine the constants.
        """
        values = self._constants.start.copy()
        state, sums = self._start(values)
        left_out = np.zeros(len(state.factor), dtype=bool)
        damping, returns = 0.0, 0
        converged = too_soft = False
        while not converged and len(self._iterations) < MAX_PASSES:
            # Monotonic, so that the deviance is one function until the fit converges.
            left_out |= self._unusable(sums, state)
            system = self._system(sums, state, values, left_out)
            step, predicted = self._step(system, values)
            last = predicted < self._tolerance
            # The last step is not damped, unless it would soften the tensor too much.
            if damping and (too_soft or not last):
                system = self._system(sums, state, values, left_out, damping)
                step, _ = self._step(system, values)
            trial_values = values.copy()
            trial_values[self._fitted()] += step
            tensor = self._constants.structure.tensor(trial_values)
            too_soft = bool(eigvalsh(tensor, state.tensor)[0] < SOFTEST)
            if too_soft:
                damping = max(10 * damping, 1e-3)
                continue
            factor, baseline = np.stack([state.factor, state.baseline]) + system.spot_step(step).T
            trial = State(tensor, factor, baseline)
            trial_sums = self._engine.evaluate(trial)
            before, after = (float(found.deviance[~left_out].sum()) for found in (sums, trial_sums))
            accepted = after - before <= ROUNDING * before
            self._record(after, predicted, damping, accepted, trial_values)
            if accepted:
                values, state, sums = trial_values, trial, trial_sums
                damping = damping / 10 if damping > 1e-4 else 0.0
            else:
                damping = max(10 * damping, 1e-3)
            converged = last and not self._frees_scale(sums, state, values, left_out)
            usable_again = left_out & ~self._unusable(sums, state)
            if converged and usable_again.any() and returns < MAX_RETURNS:
                left_out &= ~usable_again
                converged, returns = False, returns + 1
        system = self._system(sums, state, values, left_out)
        self._check_determined(system)
        return Minimum(
            values=values,
            state=state,
            sums=sums,
            system=system,
            fitted=self._fitted(),
            at_bound=self._at_bound(values, system),
            left_out=left_out,
            scale=self._scale,
            iterations=self._iterations,
            converged=converged,
        )

    def _start(self, values: Array) -> tuple[State, Sums]:
        """Factor and baseline by linear least squares at the start constants, from a flat model."""
        points, tensor = self._points, self._constants.structure.tensor(values)
        flat = State(tensor, np.zeros(len(points.nodes)), points.mean_counts / points.mean_correction)
        sums = self._engine.evaluate(flat)
        linear = eliminate(sums, flat, self._transform(values)).linear
        self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
        state = State(tensor, flat.factor + linear[:, 0], flat.baseline + linear[:, 1])
        sums = self._engine.evaluate(state)
        self._record(float(sums.deviance.sum()), np.inf, 0.0, True, values)
        return state, sums

    def _fitted(self) -> npt.NDArray[np.int64]:
        fitted = ~self._constants.frozen
        if self._scale is Scale.HELD:
            fitted[self._constants.reference] = False
        return np.flatnonzero(fitted)

    def _transform(self, values: Array) -> Array:
        """∂S of the fitted constants as combinations of the engine's columns: derivatives, [∂S/∂ln s,] S."""
        differentiated = ~self._constants.frozen
        if self._scale is Scale.KNOWN:
            return np.eye(differentiated.sum(), differentiated.sum() + 1)
        reference = self._constants.reference
        differentiated[reference] = False
        others = np.flatnonzero(differentiated)
        rows = np.eye(len(others), len(others) + 2)
        if self._scale is Scale.HELD:
            return rows
        # Σ C ∂S/∂C = −S + ∂S/∂ln s gives the reference constant's own column without cancellation.
        own = np.concatenate([-values[others], [1.0, -1.0]]) / values[reference]
        return np.insert(rows, np.searchsorted(others, reference), own, axis=0)

    def _unusable(self, sums: Sums, state: State) -> Mask:
        """Spots whose factor is not positive, or whose data do not tell factor and baseline apart."""
        block = sums.gram[:, -3:-1, -3:-1]
        return ~tells_apart(block) | (state.factor <= 0)

    def _system(self, sums: Sums, state: State, values: Array, left_out: Mask, damping: float = 0.0) -> System:
        if left_out.all():
            raise InputError(
                "no spot shows a halo that falls off like thermal diffuse scattering: check geometry, hkl and mask"
            )
        return eliminate(sums, state, self._transform(values), damping).without(left_out)

    def _step(self, system: System, values: Array) -> tuple[Array, float]:
        """Bounded step of the fitted constants, and the decrease of the deviance that the model predicts."""
        hessian, score = system.hessian, system.score
        linear = float(system.linear_decrease.sum())
        if not len(score):
            return np.zeros(0), linear
        fitted = self._fitted()
        unit = 1 / np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny))
        scaled = hessian * np.outer(unit, unit) + 1e-13 * np.eye(len(unit))
        upper = np.linalg.cholesky(scaled).T
        target = solve_triangular(upper, score * unit, trans="T")
        bounds = [(limit[fitted] - values[fitted]) / unit for limit in (self._constants.lower, self._constants.upper)]
        step = lsq_linear(upper, target, bounds=bounds, method="bvls").x * unit
        return step, linear + float(2 * score @ step - step @ hessian @ step)

    def _at_bound(self, values: Array, system: System) -> Mask:
        """Constants that sit on a bound and are pushed against it."""
        at_bound = np.zeros(len(values), dtype=bool)
        score = system.score
        for k, index in enumerate(self._fitted()):
            room = 1e-9 * max(1.0, abs(values[index]))
            at_lower = values[index] - self._constants.lower[index] <= room and score[k] < 0
            at_upper = self._constants.upper[index] - values[index] <= room and score[k] > 0
            at_bound[index] = at_lower or at_upper
        return at_bound

    def _frees_scale(self, sums: Sums, state: State, values: Array, left_out: Mask) -> bool:
        """Free a held scale if the quantum terms are large and determine it; says whether it did."""
        if self._scale is not Scale.HELD or not self._may_free_scale:
            return False
        if quantum_term(state.tensor, self._points.q_max, self._temperature, self._density) <= SCALE_QUANTUM:
            return False
        rows = self._transform(values)
        with_scale = np.vstack([rows, np.eye(1, rows.shape[1], rows.shape[1] - 2)])
        hessian = eliminate(sums, state, with_scale).without(left_out).hessian
        if np.linalg.cond(hessian) > 1 / np.finfo(float).eps or np.linalg.inv(hessian)[-1, -1] >= SCALE_SIGMA**2:
            return False
        self._scale = Scale.FREE
        return True

    def _check_determined(self, system: System) -> None:
        hessian = system.hessian
        if not len(hessian):
            return
        unit = 1 / np.sqrt(np.maximum(np.diag(hessian), np.finfo(float).tiny))
        lowest, vectors = np.linalg.eigh(hessian * np.outer(unit, unit))
        if lowest[0] < DEGENERATE:
            weights = np.abs(vectors[:, 0])
            names = [
                self._constants.names[index]
                for index, weight in zip(self._fitted(), weights, strict=True)
                if weight > 0.3 * weights.max()
            ]
            raise InputError(
                f"the data do not determine {', '.join(names)}: add spots in other directions, "
                "or freeze a constant in CGUESS (min = max)"
            )

    def _record(self, deviance: float, predicted: float, damping: float, accepted: bool, values: Array) -> None:
        iteration = Iteration(deviance, predicted, damping, accepted, values.copy())
        self._iterations.append(iteration)
        if self._report is not None:
            self._report(iteration)
