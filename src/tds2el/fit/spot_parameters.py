"""What each spot has of its own: how a state moves with it, how far at once, and what its data determine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tds2el.fit.common import Common
from tds2el.fit.separable import Own, strain_directions
from tds2el.model.engine import Points, State

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LONGEST_MOVE = 0.25
"""Most that a centre moves in one step, as a fraction of the inner radius of the shells: S is not linear beyond."""
LONGEST_WAY = 0.5
"""Most that it moves in one run; then the points that are cut out round it must be chosen anew."""
WORST_CENTRE = 0.5
"""σ of a centre, as a fraction of the inner radius, beyond which its data do not say where it is."""
WORST_AMPLITUDE = 0.25
"""σ of what gradient or internal strain add to a spot's amplitude at the outer radius, relative to it, beyond which
its data do not determine them."""
LONGEST_AMPLITUDE, LARGEST_AMPLITUDE = 0.3, 0.8
"""Most that they may add in one step, and in all: beyond, the amplitude may change its sign within the shell."""


class SpotParameters:
    """The spots' own parameters, (n_blobs, own) in the order of `Own`.

    Parameters
    ----------
    points : Points
    common : Common

    Attributes
    ----------
    strains : ndarray or None
        See `tds2el.fit.separable.strain_directions`.
    """

    def __init__(self, points: Points, common: Common) -> None:
        self._terms, self._n_blobs, self._own = common.terms, len(points.nodes), Own.of(common.columns)
        self._reach = max(points.q_min, 0.1 * points.q_max)
        self.strains = strain_directions(points.nodes, common.columns)
        # What a unit of g, or of H in Frobenius' norm, may add to the relative amplitude at the outer radius.
        self._amplitude = points.q_max, points.q_max / np.linalg.norm(points.nodes, axis=1)

    def completed(self, state: State) -> State:
        """The state with zeros for what the spots have beyond it."""
        terms, n = self._terms, self._n_blobs
        if terms.centre and state.offset is None:
            state = replace(state, offset=np.zeros((n, 3)))
        if terms.gradient and state.gradient is None:
            state = replace(state, gradient=np.zeros((n, 3)))
        if terms.strain and state.strain is None:
            state = replace(state, strain=np.zeros((n, 6)))
        if terms.neighbours and state.neighbours is None:
            state = replace(state, neighbours=np.zeros((n, terms.neighbours)))
        return state

    @property
    def all_but_linear(self) -> Array:
        """The softening that leaves only factor, baseline and what is like the latter, (n_blobs, own)."""
        softening = np.zeros((self._n_blobs, self._own.count))
        softening[:, self._own.linear :] = np.inf
        if self._own.neighbours is not None:
            softening[:, self._own.neighbours] = np.inf
        return softening

    def moved(self, state: State, step: Array) -> State:
        """The state after steps of the spots' own parameters (n_blobs, own)."""
        own = self._own
        changes = {"factor": state.factor + step[:, 0], "baseline": state.baseline + step[:, 1]}
        if own.slope is not None and state.slope is not None:
            changes["slope"] = state.slope + step[:, own.slope]
        if own.background is not None and state.background is not None:
            changes["background"] = state.background + step[:, own.background]
        if own.neighbours is not None and state.neighbours is not None:
            changes["neighbours"] = np.maximum(state.neighbours + step[:, own.neighbours], 0.0)
        if own.centre is not None and state.offset is not None:
            changes["offset"] = state.offset + step[:, own.centre]
        if own.gradient is not None and state.gradient is not None:
            changes["gradient"] = state.gradient + step[:, own.gradient]
        if own.strain is not None and state.strain is not None:
            changes["strain"] = state.strain + self._strain_of(step)
        return replace(state, **changes)  # type: ignore[arg-type]

    def undetermined(self, state: State, covariance: Callable[[Array], Array]) -> Mask:
        """Which of them the data do not determine, (n_blobs, own): these keep their value.

        What enters S is looked at in turn, the weakest first, since what is held makes the rest better known.

        Parameters
        ----------
        state : State
        covariance : callable
            Gives that of a spot's own parameters, (n_blobs, own, own), for a softening as `eliminate` takes it.
        """
        own, n_blobs = self._own, len(state.factor)
        held = np.zeros((n_blobs, own.count), dtype=bool)
        by_gradient, by_strain = self._amplitude
        for place, unit, limit in (
            (own.strain, by_strain, WORST_AMPLITUDE),
            (own.gradient, by_gradient, WORST_AMPLITUDE),
            (own.centre, 1.0, WORST_CENTRE * self._reach),
        ):
            if place is not None:
                block = covariance(np.where(held, np.inf, 0.0))[:, place, place]
                worst = unit * np.sqrt(np.maximum(np.linalg.eigvalsh(block)[:, -1], 0.0))
                held[:, place] = ((worst > limit) | (state.factor <= 0))[:, None]
        return held

    def without_held(self, state: State, held: Mask) -> State:
        """The state without gradient and internal strain where these are held; centres keep their places."""
        for name, place in (("gradient", self._own.gradient), ("strain", self._own.strain)):
            values = getattr(state, name)
            if place is not None and values is not None and values[held[:, place.start]].any():
                changes = {name: np.where(held[:, place.start, None], 0.0, values)}
                state = replace(state, **changes)  # type: ignore[arg-type]
        return state

    def too_far(self, state: State, step: Array, begun: Array | None) -> Mask:
        """Which of them would move too far at once, or in all, (n_blobs, own)."""
        own, far = self._own, np.zeros(step.shape, dtype=bool)
        if own.centre is not None and state.offset is not None and begun is not None:
            move = step[:, own.centre]
            long = np.linalg.norm(move, axis=1) > LONGEST_MOVE * self._reach
            long |= np.linalg.norm(state.offset + move - begun, axis=1) > LONGEST_WAY * self._reach
            far[:, own.centre] = long[:, None]
        by_gradient, by_strain = self._amplitude
        if own.gradient is not None and state.gradient is not None:
            far[:, own.gradient] = _too_large(state.gradient, step[:, own.gradient], by_gradient)[:, None]
        if own.strain is not None and state.strain is not None:
            twice = np.sqrt([1.0, 1, 1, 2, 2, 2])
            large = _too_large(state.strain * twice, self._strain_of(step) * twice, by_strain)
            far[:, own.strain] = large[:, None]
        return np.asarray(far & (step != 0))

    def far_from_start(self, state: State, begun: Array | None) -> Mask:
        """Spots whose centre is nearly as far from where it began as one run lets it, (n_blobs,)."""
        if state.offset is None or begun is None:
            return np.zeros(len(state.factor), dtype=bool)
        return np.asarray(np.linalg.norm(state.offset - begun, axis=1) > 0.8 * LONGEST_WAY * self._reach)

    def _strain_of(self, step: Array) -> Array:
        """H (n_blobs, 6) of steps of the spots' own parameters (n_blobs, own)."""
        assert self.strains is not None
        return np.asarray(np.einsum("bj,bji->bi", step[:, self._own.strain], self.strains))


def _too_large(values: Array, step: Array, unit: Array | float) -> Mask:
    """Spots in which a step of g or H (n_blobs, 3 or 6) adds too much to the amplitude, at once or in all."""
    at_once, in_all = (unit * np.linalg.norm(x, axis=1) for x in (step, values + step))
    return np.asarray((at_once > LONGEST_AMPLITUDE) | (in_all > LARGEST_AMPLITUDE))
