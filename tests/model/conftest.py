"""Calcite without the crystal's symmetry code: the model's tests stand on their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tds2el.model.engine import Points

# Calcite, a* ∥ x: ∂C/∂p of A11 A33 A44 A66 A13 A15, with A12 = A11 − 2 A66.
CALCITE = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])


def _symmetric(*entries: tuple[int, int, float]) -> np.ndarray:
    matrix = np.zeros((6, 6))
    for i, j, value in entries:
        matrix[i, j] = matrix[j, i] = value
    return matrix


CALCITE_BASIS = np.array(
    [
        _symmetric((0, 0, 1), (1, 1, 1), (0, 1, 1)),
        _symmetric((2, 2, 1)),
        _symmetric((3, 3, 1), (4, 4, 1)),
        _symmetric((5, 5, 1), (0, 1, -2)),
        _symmetric((0, 2, 1), (1, 2, 1)),
        _symmetric((0, 4, 1), (1, 4, -1), (3, 5, -1)),
    ]
)


@pytest.fixture(scope="session")
def calcite_points(simulated_points) -> Callable[..., Points]:
    tensor = np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS)
    return lambda **options: simulated_points(tensor, **options)
