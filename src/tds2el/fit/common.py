"""The parameters that all spots share: elastic constants, and geometry and cell where they are free."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

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
    """

    centre: bool = False
    slope: bool = False
    background: bool = False


@dataclass(frozen=True)
class Values:
    """A point in the space of common parameters: constants (k,) in GPa, corrections (g,) in their own units."""

    constants: Array
    geometry: Array


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
    """

    def __init__(
        self,
        constants: Constants,
        scale: Scale,
        retuning: Retuning | None = None,
        hkl: npt.NDArray[np.int64] | None = None,
        terms: SpotTerms | None = None,
    ) -> None:
        self.constants, self.scale, self.retuning, self.hkl = constants, scale, retuning, hkl
        self.terms = SpotTerms() if terms is None else terms
        self.geometry_held = np.zeros(len(self.geometry_names), dtype=bool)
        self.columns = self._columns()

    @property
    def geometry_names(self) -> tuple[str, ...]:
        """The corrections that are free by themselves."""
        return () if self.retuning is None else self.retuning.names

    @property
    def start(self) -> Values:
        """Where the user lets the fit begin."""
        geometry = np.zeros(0) if self.retuning is None else self.retuning.start
        return Values(self.constants.start.copy(), geometry.copy())

    @property
    def fitted(self) -> npt.NDArray[np.int64]:
        """Indices of the fitted constants: neither frozen nor held."""
        fitted = ~self.constants.frozen
        if self.scale is Scale.HELD:
            fitted[self.constants.reference] = False
        return np.flatnonzero(fitted)

    @property
    def names(self) -> list[str]:
        """The fitted parameters: constants, then corrections that are not held."""
        free = np.flatnonzero(~self.geometry_held)
        return [self.constants.names[i] for i in self.fitted] + [self.geometry_names[i] for i in free]

    def vector(self, values: Values) -> Array:
        """The fitted parameters of a point."""
        return np.concatenate([values.constants[self.fitted], values.geometry[~self.geometry_held]])

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
        if self.retuning is not None:
            free = ~self.geometry_held
            lower = np.concatenate([lower, self.retuning.lower[free]])
            upper = np.concatenate([upper, self.retuning.upper[free]])
        return lower, upper

    def moved(self, values: Values, step: Array) -> Values:
        """A point after a step of the fitted parameters."""
        constants, geometry = values.constants.copy(), values.geometry.copy()
        constants[self.fitted] += step[: len(self.fitted)]
        geometry[~self.geometry_held] += step[len(self.fitted) :]
        return Values(constants, geometry)

    def placed(self, state: State, values: Values) -> State:
        """The state with tensor, nodes and geometry of a point."""
        state = replace(state, tensor=self.constants.structure.tensor(values.constants))
        if self.retuning is None:
            return state
        assert self.hkl is not None
        _, cell = self.retuning.geometry(values.geometry)
        return replace(state, nodes=self.hkl @ cell.B.T, motion=self.retuning.motion(values.geometry))

    def transform(self, values: Values) -> Array:
        """∂S of the fitted parameters as combinations of the engine's columns up to S, (blobs or 1, k, signal + 1)."""
        columns = self.columns
        of_constants = self._constants_transform(values.constants)
        free = np.flatnonzero(~self.geometry_held)
        blobs = 1 if self.retuning is None or self.hkl is None else len(self.hkl)
        rows = np.zeros((blobs, len(of_constants) + len(free), columns.signal + 1))
        before = len(columns.derivatives) + columns.scale
        rows[:, : len(of_constants), :before] = of_constants[:, :before]
        rows[:, : len(of_constants), -1] = of_constants[:, before]
        if self.retuning is not None and self.hkl is not None and len(free):
            moves = self.retuning.transform(values.geometry, self.hkl)[:, free]
            rows[:, len(of_constants) :, before : before + columns.geometry] = moves[:, :, : columns.geometry]
            if columns.node:
                start = before + columns.geometry
                rows[:, len(of_constants) :, start : start + 3] = moves[:, :, columns.geometry :]
        return rows

    def with_scale(self, values: Values) -> Array:
        """The transform with ∂S/∂ln s as a further, last row."""
        rows = self.transform(values)
        scale = np.zeros((len(rows), 1, rows.shape[2]))
        scale[:, 0, len(self.columns.derivatives)] = 1.0
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
            entries=np.asarray(self.constants.structure.basis.any(axis=0)),
        )
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

    def _constants_transform(self, values: Array) -> Array:
        """∂S of the fitted constants from the columns derivatives, [∂S/∂ln s,] S."""
        differentiated = ~self.constants.frozen
        if self.scale is Scale.KNOWN:
            return np.eye(differentiated.sum(), differentiated.sum() + 1)
        reference = self.constants.reference
        differentiated[reference] = False
        others = np.flatnonzero(differentiated)
        rows = np.eye(len(others), len(others) + 2)
        if self.scale is Scale.HELD:
            return rows
        # Σ C ∂S/∂C = −S + ∂S/∂ln s gives the reference constant's own column without cancellation.
        own = np.concatenate([-values[others], [1.0, -1.0]]) / values[reference]
        return np.insert(rows, np.searchsorted(others, reference), own, axis=0)
