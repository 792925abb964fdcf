"""Peaks as points in reciprocal space, in the goniometer's frame, where the crystal rests: Rᵀ Q0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.experiment.geometry import Geometry
from tds2el.experiment.maxima import Maxima
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]
NOT_GIVEN: Any = object()

GRAZING = 0.05
"""Speed, per radian and |Q|, below which a node creeps through the Ewald sphere: its angle says little then."""


@dataclass(frozen=True)
class Places:
    """Where peaks were seen, shape (n,) each.

    Attributes
    ----------
    row, column : ndarray
        Pixels.
    angle_index : ndarray
        phi = phi of the first frame + angle_index·angular_step.
    sweep : ndarray of int
        Which of several sweeps, from 0; by default 0.
    """

    row: Array
    column: Array
    angle_index: Array
    sweep: npt.NDArray[np.int64] = NOT_GIVEN

    def __post_init__(self) -> None:
        if self.sweep is NOT_GIVEN:
            object.__setattr__(self, "sweep", np.zeros(len(self.row), dtype=np.int64))

    @classmethod
    def of(cls, maxima: Maxima) -> Places:
        """The places of a table of peaks."""
        return cls(maxima.row, maxima.column, maxima.angle_index, maxima.sweep)

    def __getitem__(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Places:
        return Places(self.row[chosen], self.column[chosen], self.angle_index[chosen], self.sweep[chosen])

    def __len__(self) -> int:
        return len(self.row)

    @property
    def columns(self) -> Array:
        """Row, column and angle index, (n, 3)."""
        return np.column_stack([self.row, self.column, self.angle_index])

    def moved(self, columns: Array) -> Places:
        """The same peaks elsewhere: row, column and angle index (n, 3)."""
        row, column, angle_index = columns.T
        return Places(row, column, angle_index, self.sweep)


def at_rest(experiment: Experiment) -> Experiment:
    """The experiment whose crystal frame is the goniometer's: r1 = r2 = r3 = 0."""
    return replace(experiment, r1=0.0, r2=0.0, r3=0.0)


def goniometer_q(experiment: Experiment, places: Places) -> Array:
    """Q in the goniometer's frame, (n, 3) in Å⁻¹, whatever the orientation of the crystal."""
    geometry = Geometry(at_rest(experiment))
    return geometry.q_crystal(places.row, places.column, geometry.phi(places.angle_index))


def motion_with_place(geometry: Geometry, places: Places) -> Array:
    """How Q in the crystal frame moves with row, column and angle index.

    Returns
    -------
    ndarray, shape (n, 3, 3)
        The last axis is (row, column, angle index): Å⁻¹ per pixel, pixel and frame.
    """
    e = geometry.experiment
    phi = geometry.phi(places.angle_index)
    turn = geometry.lab_to_crystal(phi)
    # The matrix is a constant and a wave in phi: its slope is half the difference across 180°.
    slope = (geometry.lab_to_crystal(phi + 90) - geometry.lab_to_crystal(phi - 90)) / 2
    q_lab = geometry.q_lab(places.row, places.column)
    row, column = geometry.entry(places.row, places.column)
    p = np.column_stack([row, column, np.ones(len(places))]) @ geometry.pixel_to_lab.T
    length = np.linalg.norm(p, axis=1)
    direction = p / length[:, None]
    moves = np.empty((len(places), 3, 3))
    for n in range(2):
        along = geometry.pixel_to_lab[:, n]
        across = (along - direction * (direction @ along)[:, None]) / length[:, None] / e.lmbda
        moves[:, :, n] = np.einsum("nij,nj->ni", turn, across)
    moves[:, :, 2] = np.einsum("nij,nj->ni", slope, q_lab) * np.deg2rad(e.angular_step)
    return moves


def covariance_of_q(moves: Array, sigma: Array) -> Array:
    """Covariance of Q, (n, 3, 3) in Å⁻².

    Parameters
    ----------
    moves : ndarray, shape (n, 3, 3)
        See `motion_with_place`.
    sigma : ndarray, shape (n, 3)
        Errors of row, column and angle index.
    """
    scaled = moves * sigma[:, None, :]
    return np.asarray(scaled @ np.swapaxes(scaled, 1, 2))


def crossing_speed(moves: Array, q: Array, angular_step: float) -> Array:
    """How fast a node crosses the Ewald sphere, relative to |Q| per radian, (n,): 0 to 1."""
    normal = np.cross(moves[:, :, 0], moves[:, :, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    speed = np.abs(np.sum(normal * moves[:, :, 2], axis=1)) / abs(np.deg2rad(angular_step))
    return np.asarray(speed / np.maximum(np.linalg.norm(q, axis=1), 1e-12))
