"""The parameters that all spots share: elastic constants, dispersion, and geometry and cell where they are free."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tds2el.crystal.dispersion import DispersionStructure
from tds2el.fit.parameters import Constants, Scale
from tds2el.fit.retune import Retuning
from tds2el.model.engine import Columns, State

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SpotTerms:
    """What each spot has of its own beside factor and baseline.

    Attributes
    ----------
    centre : bool
        The offset of its centre.
    slope : bool
        A baseline that is linear in q.
    background : bool
        The scale of the background frames.
    gradient : bool
        How its form factor changes with q.
    strain : bool
        Its internal strain.
    neighbours : int
        Halos of other nodes, as many as its points have places for.
    """

    centre: bool = False
    slope: bool = False
    background: bool = False
    gradient: bool = False
    strain: bool = False
    neighbours: int = 0


@dataclass(frozen=True)
class Values:
    """A point in the space of common parameters.

    Attributes
    ----------
    constants : ndarray, shape (k,)
        GPa.
    geometry : ndarray, shape (g,)
        Corrections in their own units.
    dispersion : ndarray, shape (t,)
        Coefficients of T, GPa Å².
    """

    constants: Array
    geometry: Array
    dispersion: Array = field(default_factory=lambda: np.zeros(0))


class Common:
    """Which common parameters are fitted, and how the engine's columns make theirs.

    Parameters
    ----------
    constants : Constants
    scale : Scale
        As ``constants.initial_scale`` gives it.
    retuning : Retuning, optional
        Geometry and cell that are free or shifted.
    hkl : ndarray of int, shape (n_blobs, 3), optional
        Needed with `retuning`.
    terms : SpotTerms
    dispersion : DispersionStructure, optional
        The terms of dispersion that are fitted.
    expanded : bool
        Whether the inverse of the dynamical matrix is expanded to first order in them.
    """

    def __init__(
        self,
        constants: Constants,
        scale: Scale,
        retuning: Retuning | None = None,
        hkl: npt.NDArray[np.int64] | None = None,
        terms: SpotTerms | None = None,
        dispersion: DispersionStructure | None = None,
        *,
        expanded: bool = False,
    ) -> None:
        self.constants, self.scale, self.retuning, self.hkl = constants, scale, retuning, hkl
        self.terms = SpotTerms() if terms is None else terms
        self.dispersion, self.expanded = dispersion, expanded
        self.dispersion_held = np.zeros(len(self.dispersion_names), dtype=bool)
        self.geometry_held = np.zeros(len(self.geometry_names), dtype=bool)
        self.columns = self._columns()

    @property
    def dispersion_names(self) -> list[str]:
        """The coefficients of dispersion that may be fitted."""
        return [] if self.dispersion is None else self.dispersion.names

    @property
    def geometry_names(self) -> tuple[str, ...]:
        """The corrections that are free by themselves."""
        return () if self.retuning is None else self.retuning.names

    @property
    def start(self) -> Values:
        """Where the user lets the fit begin."""
        geometry = np.zeros(0) if self.retuning is None else self.retuning.start
        return Values(self.constants.start.copy(), geometry.copy(), np.zeros(len(self.dispersion_names)))

    @property
    def fitted(self) -> npt.NDArray[np.int64]:
        """Indices of the fitted constants: neither frozen nor held."""
        fitted = ~self.constants.frozen
        if self.scale is Scale.HELD:
            fitted[self.constants.reference] = False
        return np.flatnonzero(fitted)

    @property
    def names(self) -> list[str]:
        """The fitted parameters: constants, then coefficients of dispersion and corrections that are not held."""
        of_constants = [self.constants.names[i] for i in self.fitted]
        others = [*self.dispersion_names, *self.geometry_names]
        return of_constants + [others[i] for i in np.flatnonzero(~self.held)]

    @property
    def held(self) -> Mask:
        """Which coefficients of dispersion and corrections are held, one after the other."""
        return np.concatenate([self.dispersion_held, self.geometry_held])

    def hold(self, place: int) -> None:
        """Hold one of the coefficients and corrections that are not, by its place among those that are fitted."""
        index = int(np.flatnonzero(~self.held)[place])
        if index < len(self.dispersion_held):
            self.dispersion_held[index] = True
        else:
            self.geometry_held[index - len(self.dispersion_held)] = True

    def vector(self, values: Values) -> Array:
        """The fitted parameters of a point."""
        return np.concatenate(
            [
                values.constants[self.fitted],
                values.dispersion[~self.dispersion_held],
                values.geometry[~self.geometry_held],
            ]
        )

    def of_known(self, values: Values) -> tuple[Array, Array]:
        """Score (k,) and Fisher matrix (k, k) of what is known of the constants, for the fitted parameters."""
        size, of_constants = len(self.names), len(self.fitted)
        score, hessian = np.zeros(size), np.zeros((size, size))
        known = self.constants.known
        if known is not None:
            jacobian = known.jacobian(values.constants)[:, self.fitted]
            score[:of_constants] = jacobian.T @ known.residuals(values.constants)
            hessian[:of_constants, :of_constants] = jacobian.T @ jacobian
        return score, hessian

    def deviance_of_known(self, values: Values) -> float:
        """What is added to the deviance of the counts."""
        known = self.constants.known
        return 0.0 if known is None else known.deviance(values.constants)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds of the fitted parameters."""
        lower, upper = self.constants.lower[self.fitted], self.constants.upper[self.fitted]
        none = np.full((~self.dispersion_held).sum(), np.inf)
        lower, upper = np.concatenate([lower, -none]), np.concatenate([upper, none])
        if self.retuning is not None:
            free = ~self.geometry_held
            lower = np.concatenate([lower, self.retuning.lower[free]])
            upper = np.concatenate([upper, self.retuning.upper[free]])
        return lower, upper

    def moved(self, values: Values, step: Array) -> Values:
        """A point after a step of the fitted parameters."""
        constants, geometry, dispersion = values.constants.copy(), values.geometry.copy(), values.dispersion.copy()
        first = len(self.fitted)
        second = first + int((~self.dispersion_held).sum())
        constants[self.fitted] += step[:first]
        dispersion[~self.dispersion_held] += step[first:second]
        geometry[~self.geometry_held] += step[second:]
        return Values(constants, geometry, dispersion)

    def placed(self, state: State, values: Values) -> State:
        """The state with tensor, dispersion, nodes and geometry of a point."""
        state = replace(state, tensor=self.constants.structure.tensor(values.constants))
        if self.dispersion is not None:
            state = replace(state, dispersion=self.dispersion.coefficients(values.dispersion))
        if self.retuning is None:
            return state
        assert self.hkl is not None
        _, cell = self.retuning.geometry(values.geometry)
        return replace(state, nodes=self.hkl @ cell.B.T, motion=self.retuning.motion(values.geometry))

    def transform(self, values: Values) -> Array:
        """∂S of the fitted parameters as combinations of the engine's columns up to S, (blobs or 1, k, signal + 1)."""
        columns = self.columns
        of_tensors = self._tensors_transform(values)
        free = np.flatnonzero(~self.geometry_held)
        blobs = 1 if self.retuning is None or self.hkl is None else len(self.hkl)
        rows = np.zeros((blobs, len(of_tensors) + len(free), columns.signal + 1))
        before = columns.tensors + columns.scale
        rows[:, : len(of_tensors), :before] = of_tensors[:, :before]
        rows[:, : len(of_tensors), -1] = of_tensors[:, before]
        if self.retuning is not None and self.hkl is not None and len(free):
            moves = self.retuning.transform(values.geometry, self.hkl)[:, free]
            rows[:, len(of_tensors) :, before : before + columns.geometry] = moves[:, :, : columns.geometry]
            if columns.node:
                start = before + columns.geometry
                rows[:, len(of_tensors) :, start : start + 3] = moves[:, :, columns.geometry :]
        return rows

    def with_scale(self, values: Values) -> Array:
        """The transform with ∂S/∂ln s as a further, last row."""
        rows = self.transform(values)
        scale = np.zeros((len(rows), 1, rows.shape[2]))
        scale[:, 0, self.columns.tensors] = 1.0
        return np.concatenate([rows, scale], axis=1)

    def _columns(self) -> Columns:
        """The derivatives that the fit needs.

        Unless the scale is known, the reference constant's own column is not computed: that of ln s takes its place.
        """
        wanted = ~self.constants.frozen
        if self.scale is not Scale.KNOWN:
            wanted[self.constants.reference] = False
        found = Columns(
            self.constants.structure.basis[wanted],
            scale=self.scale is not Scale.KNOWN,
            centre=self.terms.centre,
            slope=self.terms.slope,
            background=self.terms.background,
            neighbours=self.terms.neighbours,
            entries=np.asarray(self.constants.structure.basis.any(axis=0)),
            expanded=self.expanded,
            gradient=self.terms.gradient,
            strain=self.terms.strain,
        )
        if self.dispersion is not None:
            found = replace(found, dispersion=self.dispersion.basis)
        if self.retuning is None:
            return found
        motion = self.retuning.motion(self.retuning.start)
        return replace(
            found,
            motion=True,
            turns=len(motion.turns),
            planes=len(motion.planes),
            beams=len(motion.beams),
            lmbda=motion.lmbda,
            node=any(name in self.retuning.moved for name in ("AA", "BB", "CC", "aAA", "aBB", "aCC")),
        )

    def _tensors_transform(self, values: Values) -> Array:
        """∂S of the fitted constants and coefficients of dispersion from their columns, [∂S/∂ln s,] S."""
        constants, terms = self.constants, len(self.dispersion_names)
        differentiated = ~constants.frozen
        fitted = np.flatnonzero(~self.dispersion_held)
        if self.scale is Scale.KNOWN:
            first = int(differentiated.sum())
            kept = np.concatenate([np.arange(first), first + fitted])
            return np.asarray(np.eye(first + terms, first + terms + 1)[kept])
        reference = constants.reference
        differentiated[reference] = False
        others = np.flatnonzero(differentiated)
        first = len(others)
        kept = np.concatenate([np.arange(first), first + fitted])
        rows = np.eye(first + terms, first + terms + 2)[kept]
        if self.scale is Scale.HELD:
            return np.asarray(rows)
        # Σ C ∂S/∂C + Σ T ∂S/∂T = −S + ∂S/∂ln s gives the reference constant's own column without cancellation.
        own = np.concatenate([-values.constants[others], -values.dispersion, [1.0, -1.0]]) / values.constants[reference]
        return np.insert(rows, np.searchsorted(others, reference), own, axis=0)
