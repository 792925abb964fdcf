"""The TDS model against independent numbers, closed forms and finite differences."""

import json
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.model.christoffel import VOIGT, christoffel, christoffel_coefficients, strain
from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import model_columns
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.model.quantum import quantum_sum, quantum_term, thermal_stiffness

CASES = json.loads((Path(__file__).parents[1] / "data" / "tds.json").read_text())["cases"]
NOTHING = Columns(np.zeros((0, 6, 6)))
TRICLINIC = np.array(
    [m + m.T - np.diag(np.diag(m)) for i, j in combinations_with_replacement(range(6), 2)
     for m in [np.eye(36)[6 * i + j].reshape(6, 6)]]
)  # fmt: skip


def _tensor(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    root = random.normal(size=(6, 6))
    return 30 * (root @ root.T + 2 * np.eye(6))


def _points(q: np.ndarray, nodes: np.ndarray) -> Points:
    """One pixel per blob."""
    return Points(
        nodes=nodes,
        sizes=np.ones(len(q), dtype=int),
        mean_counts=np.ones(len(q)),
        mean_correction=np.ones(len(q)),
        q_max=float(np.linalg.norm(q, axis=1).max()),
        pieces=lambda blob: iter([Piece(q[blob : blob + 1], np.ones(1), np.ones(1))]),
    )


@pytest.fixture(params=CASES, ids=lambda case: f"{case['crystal']}-{case['T']:g}K")
def case(request):
    crystal = request.param
    q = np.array([point["q"] for point in crystal["points"]])
    hkl = np.array([point["hkl"] for point in crystal["points"]])
    nodes = hkl @ Cell(*crystal["cell"]).B.T
    assert np.allclose(nodes + q, [point["Q"] for point in crystal["points"]], atol=1e-9)
    expected = np.array([point["S_times_rho_kT"] for point in crystal["points"]])
    return crystal, q, np.array([point["Q"] for point in crystal["points"]]) - q, expected


def test_numpy_reproduces_reference(case):
    crystal, q, nodes, expected = case
    tensor = np.array(crystal["C_GPa"])
    quantum = quantum_sum(tensor, 0.1, crystal["T"], crystal["density"], 1e-12)
    found = [model_columns(q[i : i + 1], nodes[i], tensor, quantum, NOTHING)[0, 0] for i in range(len(q))]
    assert np.allclose(found, expected, rtol=1e-9)
    classical = [np.linalg.solve(christoffel(tensor, k), Q) @ Q for k, Q in zip(q, nodes + q, strict=True)]
    assert np.allclose(classical, [point["Q_invGamma_Q"] for point in crystal["points"]], rtol=1e-9)


def test_opencl_reproduces_reference(case, device):
    crystal, q, nodes, expected = case
    engine = OpenCLEngine(device, _points(q, nodes), NOTHING, Conditions(crystal["T"], crystal["density"]))
    state = State(np.array(crystal["C_GPa"]), np.ones(len(q)), np.zeros(len(q)))
    found = [engine.intensity(state, blob)[0] for blob in range(len(q))]
    assert np.allclose(found, expected, rtol=3e-5)


@pytest.mark.parametrize("temperature", [5.0, 20.0, 300.0])
def test_sum_over_n_is_the_bose_factor(temperature):
    """Against the eigenvectors: Σ_j (Q·e_j)²/λ_j · x coth x, x = ħω/2kT."""
    tensor, node = _tensor(1), np.array([0.4, -0.3, 0.5])
    q = np.random.default_rng(2).normal(scale=0.03, size=(50, 3))
    quantum = quantum_sum(tensor, np.linalg.norm(q, axis=1).max(), temperature, 3.1, 1e-12)
    values, vectors = np.linalg.eigh(christoffel(tensor, q))
    x = np.pi * np.sqrt(values / thermal_stiffness(temperature, 3.1))
    projected = np.einsum("ni,nij->nj", node + q, vectors)
    expected = (projected**2 / values * x / np.tanh(x)).sum(axis=1)
    assert np.allclose(model_columns(q, node, tensor, quantum, NOTHING)[:, 0], expected, rtol=1e-10)


def test_christoffel_coefficients_and_strain():
    tensor = _tensor(3)
    q, u = np.random.default_rng(4).normal(size=(2, 3))
    gamma = christoffel(tensor, q)
    products = np.array([q[i] * q[j] for i, j in VOIGT])
    assert np.allclose(christoffel_coefficients(tensor) @ products, [gamma[i, j] for i, j in VOIGT])
    assert np.isclose(u @ gamma @ u, strain(u, q) @ tensor @ strain(u, q))


@pytest.mark.parametrize(("temperature", "seed"), [(300.0, 5), (30.0, 6), (8.0, 7)])
def test_derivatives_are_those_of_central_differences(temperature, seed, device):
    """All 21 constants, and the scale; relative to the largest derivative at each point."""
    tensor, columns, n = _tensor(seed), Columns(TRICLINIC, scale=True), 6
    random = np.random.default_rng(seed)
    q = random.normal(scale=0.015, size=(n, 3))
    q_max = np.linalg.norm(q, axis=1).max()
    nodes = random.normal(scale=0.4, size=(n, 3))

    def model(tensor, blob, columns, stiffness=1.0):
        # C → s C with s·f fixed is a → a/s.
        quantum = quantum_sum(tensor, q_max, temperature / np.sqrt(stiffness), 2.7, 1e-12)
        return model_columns(q[blob : blob + 1], nodes[blob], tensor, quantum, columns)[0]

    expected = np.empty((n, 22))
    for blob in range(n):
        for k, unit in enumerate(TRICLINIC):
            up, down = (model(tensor + d * unit, blob, NOTHING)[0] for d in (1e-3, -1e-3))
            expected[blob, k] = (up - down) / 2e-3
        up, down = (model(tensor, blob, NOTHING, 1 + d)[0] for d in (1e-4, -1e-4))
        expected[blob, 21] = (up - down) / 2e-4
    exact = np.array([model(tensor, blob, columns) for blob in range(n)])
    largest = np.abs(expected[:, :21]).max(axis=1, keepdims=True)
    assert np.all(np.abs(exact[:, :21] - expected[:, :21]) < 1e-6 * largest)
    assert np.allclose(exact[:, 21], expected[:, 21], rtol=1e-5)

    # One pixel with model 1 and correction 1 has weight 1: its Gram matrix holds the columns themselves.
    engine = OpenCLEngine(device, _points(q, nodes), columns, Conditions(temperature, 2.7))
    gram = engine.evaluate(State(tensor, np.zeros(n), np.ones(n))).gram
    found = gram[:, :-1, -2]
    assert np.all(np.abs(found[:, :21] - expected[:, :21]) < 1e-3 * largest)
    assert np.allclose(found[:, 21], expected[:, 21], rtol=1e-3)
    assert np.allclose(found[:, 22], exact[:, 22], rtol=3e-5)


def test_quantum_cut_is_short_when_warm_and_long_when_cold():
    tensor = _tensor(8)
    warm, cold = (quantum_sum(tensor, 0.03, t, 2.7, 1e-8) for t in (300.0, 5.0))
    assert warm.n_max <= 1 < 10 < cold.n_max
    assert quantum_term(tensor, 0.03, 300, 2.7) < 0.1 < 1 < quantum_term(tensor, 0.03, 5, 2.7)


def test_a_sum_that_would_never_end_is_refused():
    with pytest.raises(InputError, match=r"Temperature = 0\.01 K"):
        quantum_sum(_tensor(8), 0.03, 0.01, 2.7, 1e-8)
