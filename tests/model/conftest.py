"""Points whose counts follow the model of a known crystal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tds2el.model.device import limit_threads, select_device
from tds2el.model.engine import Columns, Points
from tds2el.model.numpy_engine import model_columns
from tds2el.model.quantum import quantum_sum

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


def simulated_points(
    tensor: np.ndarray, *, blobs: int, size: int, mean: float, seed: int, temperature: float = 300.0
) -> Points:
    """Poisson counts of f S + b in shells round random nodes, |q| from 0.009 to 0.035 Å⁻¹."""
    random = np.random.default_rng(seed)
    nodes = random.normal(size=(blobs, 3))
    nodes *= 0.6 / np.linalg.norm(nodes, axis=1, keepdims=True)
    quantum = quantum_sum(tensor, 0.035, temperature, 2.71, 1e-10)
    store = []
    for node in nodes:
        radius = (0.009**3 + (0.035**3 - 0.009**3) * random.random((size, 1))) ** (1 / 3)
        direction = random.normal(size=(size, 3))
        q = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
        s = model_columns(q, node, tensor, quantum, Columns(np.zeros((0, 6, 6))))[:, 0]
        correction = random.uniform(0.8, 1.2, size)
        counts = random.poisson(correction * mean * (s / s.mean() + 0.4)).astype(float)
        store.append((q, counts, correction))

    def pieces(blob: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        q, counts, correction = store[blob]
        half = size // 2
        yield q[:half], counts[:half], correction[:half]
        yield q[half:], counts[half:], correction[half:]

    return Points(
        nodes=nodes,
        sizes=np.full(blobs, size),
        mean_counts=np.array([counts.mean() for _, counts, _ in store]),
        mean_correction=np.array([correction.mean() for _, _, correction in store]),
        q_max=0.035,
        pieces=pieces,
    )


@pytest.fixture(scope="session")
def calcite_points() -> Callable[..., Points]:
    tensor = np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS)
    return lambda **options: simulated_points(tensor, **options)


@pytest.fixture(scope="session")
def cpu():
    """The OpenCL CPU device: part of the test requirements, so its absence is a failure."""
    limit_threads(1)
    return select_device("CPU")
