"""The model beyond the elastic limit against eigenvectors, central differences, and the engines against each other."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.dispersion import PAIRS, QUARTICS, dispersion_structure
from tds2el.crystal.symmetry import point_group
from tds2el.model.christoffel import christoffel
from tds2el.model.engine import Columns, Conditions, Points, State
from tds2el.model.numpy_engine import NextOrder, NumpyEngine, model_columns
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.model.quantum import quantum_sum, thermal_stiffness

from .conftest import CALCITE, CALCITE_BASIS

STRUCTURE = dispersion_structure(point_group("1~,3(z),2(y)", Cell(4.99, 4.99, 17.061, 90, 90, 120), None))
GENERAL = dispersion_structure(point_group("1~", Cell(5, 6, 7, 85, 95, 100), None))
ALL = Columns(CALCITE_BASIS, scale=True, node=True, centre=True, dispersion=STRUCTURE.basis, gradient=True, strain=True)
# Of a tenth of Γ at the outer radius, 0.035 Å⁻¹.
TERMS = 2e3 * np.random.default_rng(3).normal(size=len(STRUCTURE.names))
GRADIENT, STRAIN = np.array([3.0, -2.0, 1.0]), np.array([0.8, -0.5, 0.3, 0.4, -0.6, 0.2])
TENSOR = np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS)


def written_out(q, node, tensor, coefficients, gradient, strain, temperature, expanded=False):
    """S of one pixel from the eigenvectors of Γ + T, or by the definition of the expansion, as sums over indices."""
    a = thermal_stiffness(temperature, 2.71)
    t = np.zeros((3, 3))
    for (i, k), row in zip(PAIRS, coefficients, strict=True):
        t[i, k] = t[k, i] = sum(c * np.prod(q[list(lmnp)]) for c, lmnp in zip(row, QUARTICS, strict=True))
    h = np.array(
        [[strain[0], strain[5], strain[4]], [strain[5], strain[1], strain[3]], [strain[4], strain[3], strain[2]]]
    )
    big, gamma = node + q + h @ q, christoffel(tensor, q)
    if expanded:
        inverse = np.linalg.inv
        total = sum(
            big @ (inverse(gamma + n * n * a * np.eye(3)) @ (gamma + n * n * a * np.eye(3) - t)
                   @ inverse(gamma + n * n * a * np.eye(3))) @ big
            for n in range(-4000, 4001)
        )  # fmt: skip
    else:
        values, vectors = np.linalg.eigh(gamma + t)
        x = np.pi * np.sqrt(values / a)
        total = ((big @ vectors) ** 2 / values * x / np.tanh(x)).sum()
    return (1 + gradient @ q) ** 2 * total


def made(seed, n=5):
    random = np.random.default_rng(seed)
    q = random.normal(size=(n, 3))
    q *= random.uniform(0.01, 0.035, (n, 1)) / np.linalg.norm(q, axis=1, keepdims=True)
    return q, random.normal(scale=0.4, size=(n, 3))


@pytest.mark.parametrize("structure", [STRUCTURE, GENERAL], ids=["trigonal", "triclinic"])
@pytest.mark.parametrize("temperature", [300.0, 20.0])
def test_intensity_is_that_of_the_eigenvectors(structure, temperature):
    coefficients = structure.coefficients(2e3 * np.random.default_rng(1).normal(size=len(structure.names)))
    quantum = quantum_sum(TENSOR, 0.035, temperature, 2.71, 1e-12, coefficients)
    for q, node in zip(*made(4), strict=True):
        beyond = NextOrder(coefficients, GRADIENT, STRAIN)
        columns = Columns(np.zeros((0, 6, 6)))
        found = model_columns(q[None], node, TENSOR, quantum, columns, beyond=beyond)[0, 0]
        expected = written_out(q, node, TENSOR, coefficients, GRADIENT, STRAIN, temperature)
        elastic = model_columns(q[None], node, TENSOR, quantum, columns)[0, 0]
        assert found == pytest.approx(expected, rel=1e-9)
        assert abs(found / elastic - 1) > 1e-3


def test_the_expansion_is_what_it_says():
    coefficients = STRUCTURE.coefficients(TERMS)
    quantum = quantum_sum(TENSOR, 0.035, 100.0, 2.71, 1e-12, coefficients)
    for q, node in zip(*made(5), strict=True):
        beyond = NextOrder(coefficients, GRADIENT, STRAIN)
        columns = Columns(np.zeros((0, 6, 6)), expanded=True)
        found = model_columns(q[None], node, TENSOR, quantum, columns, beyond=beyond)[0, 0]
        expected = written_out(q, node, TENSOR, coefficients, GRADIENT, STRAIN, 100.0, expanded=True)
        assert found == pytest.approx(expected, rel=3e-5)  # 8001 terms, and the second order of T in the tail
        exact = written_out(q, node, TENSOR, coefficients, GRADIENT, STRAIN, 100.0)
        assert 1e-6 < abs(found / exact - 1) < 0.1


def columns_by_differences(q, node, quantum_at, expanded):
    """Every column of `ALL` of one pixel, by central differences of S."""
    nothing = Columns(np.zeros((0, 6, 6)), expanded=expanded)

    def s(constants=CALCITE, terms=TERMS, moved=0.0, node=node, gradient=GRADIENT, strain=STRAIN, stiffness=1.0):
        tensor = np.einsum("k,kij->ij", constants, CALCITE_BASIS)
        beyond = NextOrder(STRUCTURE.coefficients(terms), gradient, strain)
        quantum = quantum_at(stiffness)
        return model_columns((q + moved)[None], node, tensor, quantum, nothing, beyond=beyond)[0, 0]

    def slope(f, step):
        return (f(step) - f(-step)) / (2 * step)

    unit, three, six = np.eye(len(CALCITE)), np.eye(3), np.eye(6)
    return np.array(
        [
            *(slope(lambda d, e=e: s(constants=CALCITE + d * e), 1e-2) for e in unit),
            *(slope(lambda d, e=e: s(terms=TERMS + d * e), 10.0) for e in np.eye(len(TERMS))),
            slope(lambda d: s(stiffness=1 + d), 1e-4),
            *(slope(lambda d, e=e: s(moved=-d * e, node=node + d * e), 1e-6) for e in three),
            *(slope(lambda d, e=e: s(moved=-d * e), 1e-6) for e in three),
            *(slope(lambda d, e=e: s(gradient=GRADIENT + d * e), 1e-3) for e in three),
            *(slope(lambda d, e=e: s(strain=STRAIN + d * e), 1e-3) for e in six),
        ]
    )


# Columns of one kind: an error counts beside the largest of its kind.
KINDS = np.repeat(np.arange(7), [6, len(TERMS), 1, 3, 3, 3, 6])


def largest_of_kind(columns):
    return np.array([np.abs(columns[kind == KINDS]).max() for kind in KINDS])


@pytest.mark.parametrize(("expanded", "temperature"), [(False, 300.0), (False, 30.0), (True, 30.0)])
def test_columns_are_those_of_central_differences(expanded, temperature, device):
    """An error counts beside the largest column of its kind."""
    columns, coefficients = replace(ALL, expanded=expanded), STRUCTURE.coefficients(TERMS)

    def quantum_at(stiffness):  # C → s C, T → s T with s·f fixed is a → a/s
        return quantum_sum(TENSOR, 0.035, temperature / np.sqrt(stiffness), 2.71, 1e-12, coefficients)

    q, nodes = made(6, 3)
    n = len(q)
    points = _one_pixel_each(q, nodes)
    state = State(
        TENSOR,
        np.zeros(n),
        np.ones(n),
        dispersion=coefficients,
        gradient=np.tile(GRADIENT, (n, 1)),
        strain=np.tile(STRAIN, (n, 1)),
    )
    conditions = Conditions(temperature, 2.71)
    # With model 1 and correction 1 the weight is 1, and the Gram matrix holds the columns themselves.
    exact, single = (
        engine.evaluate(state).gram[:, : columns.signal + 1, columns.signal + 1]
        for engine in (NumpyEngine(points, columns, conditions), OpenCLEngine(device, points, columns, conditions))
    )
    for blob in range(n):
        expected = columns_by_differences(q[blob], nodes[blob], quantum_at, expanded)
        size = largest_of_kind(expected)
        assert np.all(np.abs(exact[blob, :-1] - expected) < 2e-6 * size)
        assert np.all(np.abs(single[blob, :-1] - expected) < 2e-3 * size)
        assert single[blob, -1] == pytest.approx(exact[blob, -1], rel=1e-4)


def _one_pixel_each(q, nodes):
    from tds2el.model.engine import Piece

    n = len(q)
    return Points(
        nodes=nodes,
        sizes=np.ones(n, dtype=int),
        mean_counts=np.ones(n),
        mean_correction=np.ones(n),
        q_max=0.035,
        pieces=lambda blob, start=0, stop=None: iter([Piece(q[blob : blob + 1], np.ones(1), np.ones(1))]),
    )


CHOICES = {
    "all": ALL,
    "dispersion": Columns(CALCITE_BASIS[1:], scale=True, dispersion=STRUCTURE.basis),
    "gradient": Columns(CALCITE_BASIS[1:], scale=True, gradient=True),
    "strain": Columns(CALCITE_BASIS[1:], scale=True, strain=True),
    "expanded": replace(ALL, expanded=True, slope=True),
}


# All kinds of sums for all columns; for the others what a CPU does.
PROGRAMS = [(choice, True, True) for choice in CHOICES] + [("all", *sums) for sums in product([True, False], repeat=2)]


@pytest.mark.parametrize(("choice", "double", "vectors"), dict.fromkeys(PROGRAMS))
def test_engines_agree(calcite_points, device, double, vectors, choice):
    points, columns = calcite_points(blobs=3, size=3001, mean=2.0, seed=1), CHOICES[choice]
    state = State(
        TENSOR,
        np.full(3, 0.3),
        np.ones(3),
        dispersion=STRUCTURE.coefficients(TERMS) if len(columns.dispersion) else None,
        gradient=np.outer([1.0, 0.5, -1.0], GRADIENT) if columns.gradient else None,
        strain=np.outer([1.0, -1.0, 0.5], STRAIN) if columns.strain else None,
    )
    conditions = Conditions(300.0, 2.71)
    reference = NumpyEngine(points, columns, conditions)
    expected = reference.evaluate(state)
    engine = OpenCLEngine(device, points, columns, conditions, double=double, vectors=vectors)
    engine.evaluate(state)  # the float32 engine learns its centres
    found = engine.evaluate(state)
    assert np.allclose(found.deviance, expected.deviance, rtol=1e-6)
    scale = np.sqrt(np.einsum("bii->bi", expected.gram))
    assert np.abs((found.gram - expected.gram) / (scale[:, :, None] * scale[:, None, :])).max() < 5e-6
    assert np.allclose(engine.intensity(state, 1), reference.intensity(state, 1), rtol=5e-5)


def test_terms_that_were_not_asked_for_are_refused(calcite_points, device):
    points = calcite_points(blobs=1, size=100, mean=2.0, seed=1)
    engine = OpenCLEngine(device, points, CHOICES["gradient"], Conditions(300.0, 2.71))
    state = State(TENSOR, np.ones(1), np.ones(1), dispersion=STRUCTURE.coefficients(TERMS))
    with pytest.raises(ValueError, match="columns exclude"):
        engine.evaluate(state)
