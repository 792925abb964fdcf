"""The fit as a user of scipy would write it: `least_squares` over the constants alone, on a vectorised numpy model.

Factor and baseline of every spot are eliminated inside the residuals by weighted linear least squares (variable
projection). Least squares with the weights 1/m of the last model, repeated until the constants stay, have the minimum
of the Poisson likelihood as their fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from numpy_model import intensity
from tds2el.fit.parameters import Constants
from tds2el.model.engine import Conditions, Points
from tds2el.model.quantum import quantum_sum

TOLERANCE = 1e-8
MOST_ROUNDS = 6


@dataclass(frozen=True)
class ScipyFit:
    """Constants (k,) in GPa, how often the model was computed, and how often the weights were."""

    constants: np.ndarray
    evaluations: int
    rounds: int


class ScipyModel:
    """Points in memory, in double precision."""

    def __init__(self, points: Points, conditions: Conditions, constants: Constants) -> None:
        self._points, self._conditions, self._constants = points, conditions, constants
        spots = [list(points.pieces(blob)) for blob in range(len(points.sizes))]
        self._q = [np.concatenate([piece.q for piece in spot]) for spot in spots]
        self._counts = [np.concatenate([piece.counts for piece in spot]) for spot in spots]
        self._kappa = [np.concatenate([piece.correction for piece in spot]) for spot in spots]
        self._free = np.arange(len(constants.start)) != constants.reference
        self.evaluations = 0

    def fit(self, close: np.ndarray) -> ScipyFit:
        """From the start of the constants to the minimum; `close` (k,): changes that are none any more."""
        values, self.evaluations = self._constants.start.copy(), 0
        self._mean = [np.full(len(n), n.mean()) for n in self._counts]
        for rounds in range(1, MOST_ROUNDS + 1):  # noqa: B007
            found = least_squares(self._residuals, values[self._free], method="trf", x_scale="jac")
            before, values = values, self._values(found.x)
            self._reweigh(values)
            if np.all(np.abs(values - before) <= close):
                break
        return ScipyFit(values, self.evaluations, rounds)

    def _values(self, free: np.ndarray) -> np.ndarray:
        values = self._constants.start.copy()
        values[self._free] = free
        return values

    def _residuals(self, free: np.ndarray) -> np.ndarray:
        models = self._models(self._values(free))
        return np.concatenate(
            [(n - m) / np.sqrt(mean) for n, m, mean in zip(self._counts, models, self._mean, strict=True)]
        )

    def _reweigh(self, values: np.ndarray) -> None:
        floors = self._points.floors
        self._mean = [np.maximum(m, floor) for m, floor in zip(self._models(values), floors, strict=True)]

    def _models(self, values: np.ndarray) -> list[np.ndarray]:
        """Expected counts of every spot, with its best factor and baseline under the present weights."""
        self.evaluations += 1
        tensor, conditions = self._constants.structure.tensor(values), self._conditions
        quantum = quantum_sum(tensor, self._points.q_max, conditions.temperature, conditions.density, TOLERANCE)
        models = []
        for q, n, k, mean, node in zip(self._q, self._counts, self._kappa, self._mean, self._points.nodes, strict=True):
            signal, flat = k * intensity(q, node, tensor, quantum), k
            w = 1 / mean
            ws, wf = w * signal, w * flat
            a, b, c, d, e = ws @ signal, ws @ flat, wf @ flat, ws @ n, wf @ n
            determinant = a * c - b * b
            models.append((d * c - e * b) / determinant * signal + (e * a - d * b) / determinant * flat)
        return models
