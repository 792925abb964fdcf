"""Averages over the resolution and halos of neighbours: rules against integration, columns against differences."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine, model_columns
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.model.quantum import quantum_sum
from tds2el.model.sharing import points_of, shares, state_of
from tds2el.model.smearing import Axis, Smearing, cubature, gauss_rule, too_coarse

from .conftest import CALCITE, CALCITE_BASIS

THERMAL = Conditions(300.0, 2.71)
TENSOR = np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS)
NONE = Columns(np.zeros((0, 6, 6)))
AWAY = np.array([[0.1, 0.02, -0.03], [-0.05, 0.08, 0.04]])


def _s(q, node, tensor=TENSOR):
    return model_columns(q, node, tensor, quantum_sum(tensor, 0.5, 300.0, 2.71, 1e-12), NONE)[:, 0]


@pytest.mark.parametrize(("half", "sigma"), [(1.0, 0.0), (0.0, 0.7), (1.3, 0.4)])
@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_a_gauss_rule_has_the_moments_of_the_sum_of_both(half, sigma, number):
    """Moments of a uniform and a Gaussian variable, by the binomial formula."""
    from math import comb

    x, w = gauss_rule(half, sigma, number)
    flat = [half**k / (k + 1) if k % 2 == 0 else 0.0 for k in range(2 * number)]
    bell = [sigma**k * float(np.prod(np.arange(k - 1, 0, -2))) if k % 2 == 0 else 0.0 for k in range(2 * number)]
    for k in range(2 * number):
        moment = sum(comb(k, i) * flat[i] * bell[k - i] for i in range(k + 1))
        assert np.isclose(w @ x**k, moment, rtol=1e-9, atol=1e-9)


def _axes(size):
    """A frame's width along one direction, a Gaussian across it, another too narrow to matter."""
    turn = np.array([0.3, -0.2, 0.1])
    return [
        Axis(np.array([0.0, 1, 0]), turn, 0.5 * size, 0.2 * size),
        Axis(np.array([0.6, 0, 0.8]), np.zeros(3), 0.0, 0.25 * size),
        Axis(np.array([0.8, 0, -0.6]), np.zeros(3), 0.0, 0.001 * size),
    ]


def test_a_cubature_averages_the_model_as_random_numbers_do():
    """At the inner radius, where S changes most, to the tolerance; and beyond it."""
    node, radius, size = np.array([0.3, 0.5, -0.2]), 0.01, 0.008
    axes = _axes(size)
    weight, shift, turn = cubature(axes, radius)
    smearing = Smearing(weight[None], shift[None], turn[None])
    assert len(weight) < 40
    random = np.random.default_rng(0)
    q = random.normal(size=(40, 3))
    q *= (radius * np.linspace(1, 2, 40) / np.linalg.norm(q, axis=1))[:, None]
    found = sum(w * _s(x, node) for w, x in smearing.places(0, q))
    # A fine product rule as the truth.
    expected = np.zeros(40)
    rules = [gauss_rule(axis.half, axis.sigma, number) for axis, number in zip(axes, (14, 10, 1), strict=True)]
    for x, u in zip(*rules[0], strict=True):
        for y, v in zip(*rules[1], strict=True):
            moved = q + x * (axes[0].shift + np.cross(axes[0].turn, q)) + y * axes[1].shift
            expected += u * v * _s(moved, node)
    assert np.abs(_s(q, node) / expected - 1).max() > 0.05
    assert np.abs(found / expected - 1).max() < 4e-3
    assert np.sqrt(np.mean((found / expected - 1) ** 2)) < 1e-3


def test_what_does_not_matter_takes_one_place():
    weight, shift, _ = cubature(_axes(1e-4), 0.02)
    assert np.array_equal(weight, [1.0])
    assert not shift.any()
    assert not too_coarse(_axes(0.008), 0.01)
    assert too_coarse(_axes(0.02), 0.01)


def _surrounded(points, *, smeared=True, neighbours=True) -> Points:
    """Points with two neighbours, one of which the last blob lacks, and with more places for the first blob."""
    n = len(points.nodes)
    weight, shift, turn = cubature(_axes(0.006), 0.01)
    weight, shift, turn = (np.repeat(x[None], n, axis=0).copy() for x in (weight, shift, turn))
    weight[1:], shift[1:], turn[1:] = 0.0, 0.0, 0.0
    weight[1:, :2], shift[1:, 0, 1], shift[1:, 1, 1] = 0.5, 0.001, -0.001
    away = np.repeat(AWAY[None], n, axis=0).copy()
    away[-1, 1] = np.nan
    return replace(
        points,
        smearing=Smearing(weight, shift, turn) if smeared else None,
        neighbours=away if neighbours else None,
    )


def _state(points, columns, *, beyond=False) -> State:
    n, random = len(points.nodes), np.random.default_rng(3)
    state = State(TENSOR * 1.02, np.full(n, 0.3), np.full(n, 1.0), offset=random.normal(scale=2e-4, size=(n, 3)))
    if columns.neighbours:
        state = replace(state, neighbours=np.array([[0.5, 0.2]] * (n - 1) + [[0.4, 0.0]]))
    if beyond:
        coefficients = random.normal(scale=100.0, size=(6, 15)) * columns.dispersion.any(axis=0)
        gradient, strain = random.normal(scale=0.3, size=(n, 3)), random.normal(scale=0.1, size=(n, 6))
        state = replace(state, dispersion=coefficients, gradient=gradient, strain=strain)
    return state


SURROUNDINGS = [(True, False), (False, True), (True, True)]
ALL = Columns(CALCITE_BASIS, scale=True, centre=True, slope=True)
TERMS = np.random.default_rng(4).normal(size=(2, 6, 15)) * (np.arange(15) < 6)
BEYOND = replace(ALL, dispersion=TERMS, gradient=True, strain=True)


@pytest.mark.parametrize(("smeared", "neighbours"), SURROUNDINGS)
@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize(("double", "vectors"), [(True, True), (False, False)])
def test_engines_agree(calcite_points, device, smeared, neighbours, beyond, double, vectors):
    points = _surrounded(calcite_points(blobs=3, size=2001, mean=5.0, seed=1), smeared=smeared, neighbours=neighbours)
    columns = replace(BEYOND if beyond else ALL, neighbours=2 * neighbours)
    state = _state(points, columns, beyond=beyond)
    expected = NumpyEngine(points, columns, THERMAL).evaluate(state)
    engine = OpenCLEngine(device, points, columns, THERMAL, double=double, vectors=vectors)
    engine.evaluate(state)
    found = engine.evaluate(state)
    assert np.allclose(found.deviance, expected.deviance, rtol=1e-5)
    scale = np.sqrt(np.maximum(np.einsum("bii->bi", expected.gram), 1e-300))
    assert np.abs((found.gram - expected.gram) / (scale[:, :, None] * scale[:, None, :])).max() < 1e-5
    for blob in range(3):
        s = NumpyEngine(points, columns, THERMAL).intensity(state, blob)
        assert np.allclose(engine.intensity(state, blob), s, rtol=5e-5)


def test_intensity_is_the_average_and_the_sum(calcite_points):
    """Against the plain model at each place."""
    points = _surrounded(calcite_points(blobs=2, size=50, mean=5.0, seed=2))
    columns = replace(ALL, neighbours=2)
    state = replace(_state(points, columns), offset=None)
    found = NumpyEngine(points, columns, THERMAL).intensity(state, 0)
    q = np.concatenate([piece.q for piece in points.pieces(0)])
    node, smearing = points.nodes[0], points.smearing
    expected = 0.0
    for w, shift, turn in zip(smearing.weight[0], smearing.shift[0], smearing.turn[0], strict=True):
        expected = expected + w * _s(q + shift + np.cross(turn, q), node, state.tensor)
    for ratio, away in zip(state.neighbours[0] / state.factor[0], AWAY, strict=True):
        expected = expected + ratio * _s(q - away, node + away, state.tensor)
    assert np.allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("which", ["tensor", "offset", "dispersion", "gradient", "strain"])
def test_columns_are_derivatives_of_the_intensity(calcite_points, which):
    """By central differences; neighbours have none of T, g and H. That δ turns with q is no part of ∂S/∂d."""
    points = _surrounded(calcite_points(blobs=2, size=30, mean=5.0, seed=5))
    points = replace(points, smearing=replace(points.smearing, turn=0 * points.smearing.turn))
    columns = replace(BEYOND, neighbours=2)
    state = _state(points, columns, beyond=True)
    engine = NumpyEngine(points, columns, THERMAL)
    c = _columns_of(points, columns, state)
    places = {
        "tensor": (0, 1e-3, CALCITE_BASIS),
        "dispersion": (6, 1.0, TERMS),
        "offset": (9, 1e-7, np.eye(3)),
        "gradient": (12, 1e-4, np.eye(3)),
        "strain": (15, 1e-5, np.eye(6)),
    }
    first, size, directions = places[which]
    for number, direction in enumerate(directions):
        value = getattr(state, which)
        up, down = (engine.intensity(replace(state, **{which: value + sign * size * direction}), 0) for sign in (1, -1))
        slope = (up - down) / (2 * size)
        assert np.allclose(c[:, first + number], slope, rtol=1e-4, atol=1e-4 * np.abs(slope).max())


def _columns_of(points, columns, state):
    """The engine's columns of the first blob, from the Gram matrix of one pixel at a time."""
    found = []
    pieces = list(points.pieces(0))
    for i in range(int(points.sizes[0])):
        joined = [np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("q", "counts", "correction")]

        def one(blob: int, start: int = 0, stop: int | None = None, i=i, joined=joined) -> Iterator[Piece]:
            yield Piece(*(values[i : i + 1] for values in joined))

        alone = replace(
            points,
            nodes=points.nodes[:1],
            sizes=np.ones(1, dtype=np.int64),
            mean_counts=points.mean_counts[:1],
            mean_correction=points.mean_correction[:1],
            pieces=one,
            smearing=points.smearing.of(np.array([0])),
            neighbours=points.neighbours[:1],
        )
        gram = NumpyEngine(alone, columns, THERMAL).evaluate(state_of(state, np.array([0]))).gram[0]
        # The column 1 has the weight alone: c_i = gram[i, 1]/gram[1, 1].
        found.append(gram[:, columns.signal + 1] / gram[columns.signal + 1, columns.signal + 1])
    return np.array(found)


def test_shares_keep_what_is_around_their_blobs(calcite_points):
    points = _surrounded(calcite_points(blobs=3, size=200, mean=5.0, seed=1))
    columns = replace(ALL, neighbours=2)
    state = _state(points, columns)
    whole = NumpyEngine(points, columns, THERMAL).evaluate(state)
    total = np.zeros_like(whole.gram)
    for share in shares(points.sizes, 2):
        part = NumpyEngine(points_of(points, share), columns, THERMAL).evaluate(state_of(state, share.blobs))
        total[share.blobs] += part.gram
    assert np.allclose(total, whole.gram, rtol=1e-9)
