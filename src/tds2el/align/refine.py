"""Geometry, orientation and cell refined against the places of peaks: row, column and angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.align.points import GRAZING, Places, crossing_speed, motion_with_place
from tds2el.align.sweeps import JointRetuning, Sweeps
from tds2el.crystal.cell import Cell
from tds2el.experiment.geometry import Geometry
from tds2el.fit.retune import determined
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STEPS = 2
"""Of Newton's method from the place of a peak to where its node should be seen."""
FARTHEST = np.array([50.0, 50.0, 20.0])
"""Pixels and degrees that a step may take: beyond, the prediction is not to be trusted anyway."""
MAD = 1.4826
"""Standard deviation of a Gaussian of median absolute deviation 1."""
ROUGHLY, EXACTLY = 1e-3, 1e-7
"""Relative decrease of the loss below which a refinement ends: on the way, where it is repeated, and at last."""
AT_BOUND = 1e-3
"""Distance from a bound, relative to that between the bounds, at which a parameter has reached it."""
LEAST_ERROR = 0.5
"""Of a place, in units of the robust scatter of the residuals."""
ROBUST = 2.0
"""In standard deviations: from where on the loss grows linearly."""


@dataclass(frozen=True)
class Refinement:
    """The result of a refinement.

    Attributes
    ----------
    retuning : JointRetuning
        What was free, and what it moved.
    x : ndarray, shape (names,)
    sigma : ndarray, shape (names,)
        Standard deviations; NaN where the peaks determine nothing or a bound was reached.
    correlation : ndarray, shape (names, names)
    held : tuple of str
        Free parameters that the peaks do not determine: they keep their start values.
    at_bound : ndarray of bool, shape (names,)
    spread : ndarray, shape (3,)
        Robust standard deviation of the residuals in row, column and angle index.
    """

    retuning: JointRetuning
    x: Array
    sigma: Array
    correlation: Array
    held: tuple[str, ...]
    at_bound: Mask
    spread: Array

    @property
    def geometry(self) -> tuple[Sweeps, Cell]:
        """Sweeps and cell."""
        return self.retuning.geometry(self.x)


def residuals(sweeps: Sweeps, cell: Cell, places: Places, hkl: IntArray) -> tuple[Array, Mask]:
    """Row, column and angle index of peaks less those where their nodes should be seen.

    Parameters
    ----------
    sweeps, cell
    places : Places
    hkl : ndarray of int, shape (n, 3)

    Returns
    -------
    residual : ndarray, shape (n, 3)
        Of nodes that only graze the Ewald sphere, row and column at the angle of the peak, and NaN.
    crossing : ndarray of bool, shape (n,)
        Nodes that do more than graze it.
    """
    residual, crossing = np.empty((len(places), 3)), np.empty(len(places), dtype=bool)
    for experiment, here in sweeps.parts(places):
        residual[here], crossing[here] = _residuals(experiment, cell, places[here], hkl[here])
    return residual, crossing


def _residuals(experiment: Experiment, cell: Cell, places: Places, hkl: IntArray) -> tuple[Array, Mask]:
    geometry = Geometry(experiment)
    nodes = hkl @ cell.B.T
    at = places.columns
    limit = FARTHEST / [1, 1, abs(experiment.angular_step)]
    moves = motion_with_place(geometry, places)
    crossing = crossing_speed(moves, nodes, experiment.angular_step) > GRAZING
    for step in range(STEPS):
        here = places.moved(at)
        if step:
            moves = motion_with_place(geometry, here)
        miss = geometry.q_crystal(here.row, here.column, geometry.phi(here.angle_index)) - nodes
        moves[~crossing] = np.eye(3)
        change = np.clip(np.linalg.solve(moves, miss[:, :, None])[:, :, 0], -limit, limit)
        at = np.where(crossing[:, None], at - change, at)
    phi = geometry.phi(places.angle_index[~crossing])
    lab = np.einsum("nji,nj->ni", geometry.lab_to_crystal(phi), nodes[~crossing])
    at[~crossing, :2] = geometry.pixel_of(experiment.lmbda * lab - geometry.beam)
    at[~crossing, 2] = np.nan
    return places.columns - at, crossing


def refine(
    found: JointRetuning, places: Places, hkl: IntArray, errors: Array, start: Array, *, robust: bool
) -> Refinement:
    """Least squares of the residuals over their errors, within the bounds.

    Parameters
    ----------
    found : JointRetuning
    places : Places
        Of indexed peaks.
    hkl : ndarray of int, shape (n, 3)
    errors : ndarray, shape (n, 3)
        Of row, column and angle index; NaN where not known. What the residuals scatter more is added to all alike.
    start : ndarray, shape (names,)
    robust : bool
        Large residuals count less, for peaks some of which are not what they are taken for.
    """
    from scipy.optimize import least_squares

    lower, upper = found.first.lower, found.first.upper
    x = np.clip(start, lower, upper)
    residual, crossing = residuals(*found.geometry(x), places, hkl)
    places, hkl, errors = places[crossing], hkl[crossing], errors[crossing]
    sigma = total_errors(residual[crossing], errors)

    def difference(x: Array) -> Array:
        residual, _ = residuals(*found.geometry(x), places, hkl)
        return np.nan_to_num(residual / sigma).ravel()

    def jacobian(x: Array) -> Array:
        return _jacobian(found, x, places, hkl, sigma)

    moving = determined(jacobian(x)) if len(x) else []
    at_bound = np.zeros(len(x), dtype=bool)
    if moving:

        def whole(part: Array) -> Array:
            y = x.copy()
            y[moving] = part
            return y

        bounds = lower[moving], upper[moving]
        inside = np.clip(
            x[moving], bounds[0] + 1e-9 * (bounds[1] - bounds[0]), bounds[1] - 1e-9 * (bounds[1] - bounds[0])
        )
        fitted = least_squares(
            lambda part: difference(whole(part)),
            inside,
            jac=lambda part: jacobian(whole(part))[:, moving],
            bounds=bounds,
            x_scale="jac",
            loss="soft_l1" if robust else "linear",
            f_scale=ROBUST,
            ftol=ROUGHLY if robust else EXACTLY,
        )
        x = whole(fitted.x)
        # The interior method stops short of a bound.
        near = np.minimum(x - lower, upper - x) < AT_BOUND * (upper - lower)
        at_bound[moving] = near[moving]
    residual, _ = residuals(*found.geometry(x), places, hkl)
    free = np.array([n for n in moving if not at_bound[n]], dtype=int)
    covariance = _covariance(jacobian(x)[:, free], residual / sigma)
    deviation, correlation = np.full(len(x), np.nan), np.eye(len(x))
    deviation[free] = np.sqrt(np.diag(covariance))
    correlation[np.ix_(free, free)] = covariance / np.outer(deviation[free], deviation[free])
    held = tuple(name for n, name in enumerate(found.names) if n not in moving)
    return Refinement(found, x, deviation, correlation, held, at_bound, spread(residual))


def spread(residual: Array) -> Array:
    """Robust standard deviations of residuals (n, 3) about zero, (3,)."""
    return np.asarray(MAD * np.nanmedian(np.abs(residual), axis=0)) if len(residual) else np.full(3, np.nan)


def total_errors(residual: Array, errors: Array) -> Array:
    """Errors of places as large as the residuals say, (n, 3).

    What the residuals scatter more than the errors let expect is added in quadrature; where they scatter less, all
    errors are smaller in proportion. None is below `LEAST_ERROR` of the scatter: one peak must not outweigh others.

    Parameters
    ----------
    residual : ndarray, shape (n, 3)
    errors : ndarray, shape (n, 3)
        As the table has them; NaN where not known.
    """
    if not len(residual):
        return np.ones_like(residual)
    scatter = spread(residual)
    total = np.where(np.isfinite(errors), errors, 0.0)
    for n in range(3):
        own = total[:, n]
        typical = float(np.median(own))
        if scatter[n] >= typical:
            total[:, n] = np.hypot(own, np.sqrt(scatter[n] ** 2 - typical**2))
        else:
            total[:, n] = own * scatter[n] / typical
    return np.asarray(np.maximum(total, np.maximum(LEAST_ERROR * scatter, 1e-6)))


def _jacobian(found: JointRetuning, x: Array, places: Places, hkl: IntArray, sigma: Array) -> Array:
    """∂(residual/σ)/∂x, (3n, names), as they are at the nodes: there Q(place, x) − G(x) = 0 defines the place."""
    sweeps, cell = found.geometry(x)
    residual, _ = residuals(sweeps, cell, places, hkl)
    at = places.moved(places.columns - np.nan_to_num(residual))
    moves = np.empty((len(at), 3, 3))
    for experiment, here in sweeps.parts(at):
        moves[here] = motion_with_place(Geometry(experiment), at[here])
    change = found.derivatives(x, at, hkl)
    slope = np.linalg.solve(moves, np.swapaxes(change, 1, 2))
    return np.asarray((slope / sigma[:, :, None]).reshape(3 * len(places), len(x)))


def _covariance(matrix: Array, pull: Array) -> Array:
    """Of the parameters, at least as large as the scatter of the residuals demands."""
    if not matrix.shape[1]:
        return np.zeros((0, 0))
    flat = pull[np.isfinite(pull).all(axis=1)].ravel()
    dof = max(1, len(flat) - matrix.shape[1])
    scatter = max(1.0, float(np.minimum(flat**2, 9.0).sum()) / dof)
    return np.asarray(np.linalg.pinv(matrix.T @ matrix) * scatter)
