"""Points whose counts follow the model of a known crystal, and the OpenCL device, for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tds2el.model.device import select_device
from tds2el.model.engine import Columns, Piece, Points
from tds2el.model.numpy_engine import model_columns
from tds2el.model.quantum import quantum_sum


def pytest_configure() -> None:
    # A shell's background job inherits an ignored SIGINT, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _simulated_points(
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

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        q, counts, correction = (values[start:stop] for values in store[blob])
        half = len(q) // 2
        yield Piece(q[:half], counts[:half], correction[:half])
        yield Piece(q[half:], counts[half:], correction[half:])

    return Points(
        nodes=nodes,
        sizes=np.full(blobs, size),
        mean_counts=np.array([counts.mean() for _, counts, _ in store]),
        mean_correction=np.array([correction.mean() for _, _, correction in store]),
        q_max=0.035,
        pieces=pieces,
    )


@pytest.fixture(scope="session")
def simulated_points() -> Callable[..., Points]:
    """Called with a tensor and keywords: see `_simulated_points`."""
    return _simulated_points


@pytest.fixture(scope="session")
def cpu():
    """The OpenCL CPU device: part of the test requirements, so its absence is a failure."""
    return select_device("CPU")


@pytest.fixture(scope="session")
def device():
    """The device under test: the CPU, or what TDS2EL_TEST_DEVICE names (`device` option syntax)."""
    return select_device(os.environ.get("TDS2EL_TEST_DEVICE", "CPU"))
