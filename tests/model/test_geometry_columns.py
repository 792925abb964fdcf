"""Columns of the geometry, the cell, the centre, slope and background: against central differences of the model."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tds2el.corrections import CORRECTABLE, PLACES
from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.motion import Motion, motion
from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.model.smearing import Smearing
from tds2el.settings import Experiment

from .conftest import CALCITE, CALCITE_BASIS

E = Experiment(
    pixel_size=0.172, dist=100.0, lmbda=0.7, beam_tilt_angle=0.3, det_origin_X=310.2, det_origin_Y=240.1, d1=1.0,
    d2=-2.0, theta=12.0, theta_offset=0.1, omega=57.0, omega_offset=0.2, alpha=50.0, beta=1.5, kappa=34.0, phi=20.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=0, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
CELL = Cell(4.99, 5.1, 17.061, 88.0, 93.0, 118.0)
CONDITIONS = [Conditions(300.0, 2.71), Conditions(20.0, 2.71)]
MOVED = {"r1": 0.05, "det_origin_X": 0.7, "d2": 0.1, "AA": 0.004, "CC": -0.01, "lmbda": 1e-4}


@dataclass
class Pixels:
    """One pixel a blob, near nodes of the cell, with m = 1 and κ = 1, so that Gram matrices hold the columns."""

    points: Points
    hkl: np.ndarray
    node: np.ndarray


@pytest.fixture(scope="module")
def pixels():
    random = np.random.default_rng(5)
    n = 8
    row, column, phi = random.uniform(100, 500, n), random.uniform(100, 400, n), random.uniform(0, 90, n)
    exact = Geometry(E).q_crystal(row, column, phi)
    # hkl need not be whole numbers here: the node is put at a given distance from the pixel.
    direction = random.normal(size=(n, 3))
    q = random.uniform(0.015, 0.03, (n, 1)) * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    node = exact - q
    points = Points(
        nodes=node,
        sizes=np.ones(n, dtype=int),
        mean_counts=np.ones(n),
        mean_correction=np.ones(n),
        q_max=0.035,
        pieces=lambda b: iter(
            [
                Piece(
                    q[b : b + 1], np.ones(1), np.ones(1), np.full(1, 0.3), np.ones(1),
                    row[b : b + 1], column[b : b + 1], phi[b : b + 1],
                )
            ]
        ),
        background=True,
        pixels=True,
    )  # fmt: skip
    return Pixels(points, node @ CELL.A.T, node)


def _state(pixels, shifts, offset=None):
    n, tensor = len(pixels.node), np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS)
    now = replace(E, **{k: getattr(E, k) + v for k, v in shifts.items() if k not in CELL_OPTIONS})
    cell = Cell(*(v + shifts.get(k, 0.0) for k, v in zip(CELL_OPTIONS, CELL.parameters, strict=True)))
    free = [name for name in CORRECTABLE if name not in CELL_OPTIONS]
    return State(
        tensor, np.zeros(n), np.full(n, 0.7), offset=offset, nodes=pixels.hkl @ cell.B.T, motion=motion(E, now, free)
    ), cell


def _columns(found: Motion, **more):
    return Columns(
        CALCITE_BASIS, scale=True, motion=True, turns=len(found.turns), planes=len(found.planes),
        beams=len(found.beams), lmbda=found.lmbda, **more,
    )  # fmt: skip


def _difference(pixels, conditions, name, step, **beyond):
    """∂S/∂p by central differences of the intensities of the numpy engine."""
    engine = NumpyEngine(pixels.points, Columns(np.zeros((0, 6, 6)), motion=True), conditions)
    values = []
    for s in (step, -step):
        state, _ = _state(pixels, {**MOVED, name: MOVED.get(name, 0.0) + s})
        state = replace(state, **beyond)
        values.append(np.array([engine.intensity(state, b)[0] for b in range(len(pixels.node))]))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("conditions", CONDITIONS, ids=["300K", "20K"])
@pytest.mark.parametrize("name", CORRECTABLE)
def test_corrections(pixels, device, conditions, name):
    state, cell = _state(pixels, MOVED)
    columns = _columns(state.motion, node=True, centre=True)
    step = {"lmbda": 1e-6, "AA": 1e-5, "BB": 1e-5, "CC": 1e-4}.get(name, 1e-4)
    expected = _difference(pixels, conditions, name, step)
    start = len(CALCITE_BASIS) + 1
    for engine, tolerance in (
        (NumpyEngine(pixels.points, columns, conditions), 1e-6),
        (OpenCLEngine(device, pixels.points, columns, conditions), 5e-3),
        (OpenCLEngine(device, pixels.points, columns, conditions, double=False), 5e-3),
    ):
        found = engine.evaluate(state).gram[:, :, columns.signal + 1]
        if name in CELL_OPTIONS:
            by_node = found[:, start + columns.geometry : start + columns.geometry + 3]
            moves = pixels.hkl @ cell.B_derivatives[CELL_OPTIONS.index(name)].T
            found = np.sum(by_node * moves, axis=1)
        else:
            found = found[:, start + state.motion.names.index(name)]
        assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
        if name in PLACES:  # each pixel by itself, where the derivative is not near its zero
            large = np.abs(expected) > 0.05 * np.abs(expected).max()
            assert np.allclose(found[large], expected[large], rtol=20 * tolerance)


def test_corrections_beyond_the_elastic_limit(pixels, device):
    """Dispersion, gradient and internal strain change how the intensity depends on the geometry."""
    random, n = np.random.default_rng(8), len(pixels.node)
    basis = random.normal(size=(2, 6, 15))
    beyond = {
        "dispersion": 1e3 * basis.sum(axis=0),
        "gradient": random.normal(size=(n, 3)),
        "strain": 0.3 * random.normal(size=(n, 6)),
    }
    state, _ = _state(pixels, MOVED)
    columns = _columns(state.motion, node=True, centre=True, dispersion=basis, gradient=True, strain=True)
    start = columns.tensors + 1
    exact, single = (
        engine.evaluate(replace(state, **beyond)).gram[:, :, columns.signal + 1]
        for engine in (
            NumpyEngine(pixels.points, columns, CONDITIONS[0]),
            OpenCLEngine(device, pixels.points, columns, CONDITIONS[0]),
        )
    )
    for name in ("r1", "kappa", "d1", "det_origin_Y", "dist", "beam_tilt_angle", "lmbda"):
        expected = _difference(pixels, CONDITIONS[0], name, {"lmbda": 1e-6}.get(name, 1e-4), **beyond)
        column = start + state.motion.names.index(name)
        for found, tolerance in ((exact, 1e-6), (single, 5e-3)):
            assert np.abs(found[:, column] - expected).max() < tolerance * np.abs(expected).max(), name


@pytest.mark.parametrize("conditions", CONDITIONS, ids=["300K", "20K"])
def test_centre(pixels, device, conditions):
    """Against differences; and an offset is the same as harvested points that lie elsewhere."""
    offset = np.random.default_rng(6).normal(scale=5e-4, size=pixels.node.shape)
    columns = Columns(CALCITE_BASIS, centre=True)
    n = len(pixels.node)
    tensor = np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS)
    plain = NumpyEngine(pixels.points, Columns(np.zeros((0, 6, 6))), conditions)

    def intensity(d):
        state = State(tensor, np.zeros(n), np.ones(n), offset=d)
        return np.array([plain.intensity(state, b)[0] for b in range(n)])

    state = State(tensor, np.zeros(n), np.full(n, 0.7), offset=offset)
    engines = (
        NumpyEngine(pixels.points, columns, conditions),
        OpenCLEngine(device, pixels.points, columns, conditions),
    )
    for engine, tolerance in zip(engines, (1e-6, 5e-3), strict=True):
        gram = engine.evaluate(state).gram[:, :, columns.signal + 1]
        for axis in range(3):
            step = 1e-6 * np.eye(3)[axis]
            expected = (intensity(offset + step) - intensity(offset - step)) / 2e-6
            assert np.abs(gram[:, 6 + axis] - expected).max() < tolerance * np.abs(expected).max()
        assert np.allclose(gram[:, columns.signal], intensity(offset), rtol=1e-4)


def test_slope_and_background_enter_mean_and_columns(pixels, device):
    """m = f S + b + c·q + τ B: with columns slope and B on both engines."""
    state, _ = _state(pixels, MOVED)
    n = len(pixels.node)
    slope = np.random.default_rng(7).normal(size=(n, 3))
    state = replace(state, baseline=np.full(n, 0.5), slope=slope, background=np.full(n, 1.7))
    columns = _columns(state.motion, slope=True, background=True)
    engine = NumpyEngine(pixels.points, columns, CONDITIONS[0])
    q = np.array([next(pixels.points.pieces(b)).q[0] for b in range(n)])
    found = engine.evaluate(state)
    s = columns.signal
    weight = found.gram[:, s + 1, s + 1]
    mean = 1 / weight
    moved = found.gram[:, s + 2 : s + 5, s + 1] / weight[:, None]
    assert np.allclose(moved, q, atol=4e-3)  # the geometry has moved a little
    assert np.allclose(mean, 0.5 + np.sum(slope * moved, axis=1) + 1.7 * 0.3)
    assert np.allclose(found.gram[:, s + 5, s + 1] / weight, 0.3)
    assert np.allclose(found.gram[:, -1, s + 1] / weight, 1 - mean)
    for double in (True, False):
        again = OpenCLEngine(device, pixels.points, columns, CONDITIONS[0], double=double).evaluate(state)
        assert np.allclose(again.gram[:, s:, s:], found.gram[:, s:, s:], rtol=1e-4, atol=1e-5)
        assert np.allclose(again.deviance, found.deviance, rtol=1e-4, atol=1e-6)


def test_share_of_information_scales_deviance_and_sums(pixels, device):
    state, _ = _state(pixels, {})
    columns = _columns(state.motion)
    half = replace(
        pixels.points,
        pieces=lambda b: (replace(piece, weight=np.full(1, 0.5)) for piece in pixels.points.pieces(b)),
    )
    for make in (
        lambda p: NumpyEngine(p, columns, CONDITIONS[0]),
        lambda p: OpenCLEngine(device, p, columns, CONDITIONS[0]),
    ):
        whole, part = make(pixels.points).evaluate(state), make(half).evaluate(state)
        assert np.allclose(part.gram, whole.gram / 2)
        assert np.allclose(part.deviance, whole.deviance / 2)


def test_pixels_that_are_not_used_weigh_nothing(pixels, device):
    state, _ = _state(pixels, {})
    columns = _columns(state.motion, node=True)
    for engine in (
        NumpyEngine(pixels.points, columns, CONDITIONS[0]),
        OpenCLEngine(device, pixels.points, columns, CONDITIONS[0]),
    ):
        before = engine.evaluate(state)
        engine.use(2, np.array([False]))
        after = engine.evaluate(state)
        assert not after.gram[2].any()
        assert after.deviance[2] == 0
        others = np.arange(len(pixels.node)) != 2
        assert np.array_equal(after.gram[others], before.gram[others])
        engine.use(2, np.array([True]))
        assert np.array_equal(engine.evaluate(state).gram, before.gram)


def test_pixels_move_with_the_places_where_their_rays_enter(pixels, device):
    def entered_elsewhere(blob):
        (piece,) = pixels.points.pieces(blob)
        off = replace(piece, row=piece.row + 3.0, column=piece.column - 2.0)
        return iter([replace(off, entry_row=piece.row, entry_column=piece.column)])

    thick = replace(pixels.points, pieces=entered_elsewhere)
    state, _ = _state(pixels, MOVED)
    columns = _columns(state.motion, node=True)
    for make in (
        lambda points: NumpyEngine(points, columns, CONDITIONS[0]),
        lambda points: OpenCLEngine(device, points, columns, CONDITIONS[0]),
    ):
        expected, found = (make(points).evaluate(state).gram for points in (pixels.points, thick))
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["r1", "det_origin_X", "lmbda"])
def test_corrections_move_smeared_halos_and_those_of_neighbours(pixels, device, name):
    """By central differences of numpy's intensities, and the engines among each other."""
    n, conditions, step = len(pixels.node), CONDITIONS[0], 1e-6 if name == "lmbda" else 1e-4
    shift = np.array([[0.002, 0.001, 0.0], [-0.002, -0.001, 0.0], [0.0, 0.0, 0.003]])
    points = replace(
        pixels.points,
        smearing=Smearing(*(np.repeat(x[None], n, axis=0) for x in (np.array([0.3, 0.3, 0.4]), shift, 0 * shift))),
        neighbours=np.repeat(np.array([[[0.1, 0.02, 0.05], [-0.06, 0.1, 0.0]]]), n, axis=0),
    )

    def at(change):
        state, _ = _state(pixels, {**MOVED, name: MOVED.get(name, 0.0) + change})
        return replace(state, factor=np.full(n, 1e-7), neighbours=np.full((n, 2), 3e-7))

    engine = NumpyEngine(points, Columns(np.zeros((0, 6, 6)), motion=True, neighbours=2), conditions)
    up, down = (np.array([engine.intensity(at(sign * step), b)[0] for b in range(n)]) for sign in (1, -1))
    expected = (up - down) / (2 * step)
    state = at(0.0)
    columns = _columns(state.motion, centre=True, neighbours=2)
    column = len(CALCITE_BASIS) + 1 + state.motion.names.index(name)
    for tested, tolerance in (
        (NumpyEngine(points, columns, conditions), 1e-4),
        (OpenCLEngine(device, points, columns, conditions), 5e-3),
        (OpenCLEngine(device, points, columns, conditions, double=False), 5e-3),
    ):
        gram = tested.evaluate(state).gram
        found = gram[:, column, columns.signal + 1]
        assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
