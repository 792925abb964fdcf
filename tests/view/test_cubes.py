"""Which points make up a cube, and on what scale."""

from types import SimpleNamespace

import numpy as np

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import point_group
from tds2el.model.engine import Piece, State
from tds2el.view.cubes import Part, cube_points, first_of_each_orbit, fold

CELL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
GROUP = point_group("1~,3(z),2(y)", CELL, None)
HKL = np.array([(1, 0, 4), (1, 0, 4), (-1, 1, 4), (2, 0, 2), (0, 3, 0)])
NONE_LEFT_OUT = np.zeros(len(HKL), dtype=bool)


def test_passages_of_a_reflection_share_a_cube():
    cubes = fold(HKL, None, GROUP, NONE_LEFT_OUT)
    assert list(cubes) == [(1, 0, 4), (-1, 1, 4), (2, 0, 2), (0, 3, 0)]
    assert [part.blob for part in cubes[1, 0, 4]] == [0, 1]
    assert all(np.array_equal(part.turn, np.eye(3)) for parts in cubes.values() for part in parts)


def test_replicas_are_turned_onto_their_spot():
    cubes = fold(HKL, [(1, 0, 4), (2, 0, 2)], GROUP, NONE_LEFT_OUT)
    assert list(cubes) == [(1, 0, 4), (2, 0, 2)]
    assert [part.blob for part in cubes[1, 0, 4]] == [0, 1, 2]
    replica = cubes[1, 0, 4][2]
    assert np.allclose(replica.turn @ CELL.B @ HKL[2], CELL.B @ HKL[0])
    assert any(np.allclose(replica.turn, operation) for operation in GROUP.operations)


def test_blobs_left_out_are_shown_only_for_want_of_others():
    left_out = np.array([False, True, False, True, False])
    cubes = fold(HKL, None, GROUP, left_out)
    assert [part.blob for part in cubes[1, 0, 4]] == [0]
    assert [part.blob for part in cubes[2, 0, 2]] == [3]


def test_parts_are_brought_to_one_scale_and_orientation():
    """Two blobs of one halo with other factors, baselines and corrections give the same values at the same places."""
    q = np.random.default_rng(1).normal(size=(50, 3))
    s = 1 / np.sum(q * q, axis=1)
    turn = GROUP.operations[3]
    assert not np.allclose(turn, np.eye(3))
    factor, baseline, kappa = np.array([2.0, 5.0]), np.array([1.0, -0.5]), [1.5, 0.7]
    positions = [q, q @ turn]
    counts = [kappa[b] * (factor[b] * s + baseline[b]) for b in range(2)]
    fit = SimpleNamespace(
        result=SimpleNamespace(spots=SimpleNamespace(factor=factor, baseline=baseline, slope=np.zeros((2, 3)))),
        data=SimpleNamespace(
            points=SimpleNamespace(
                nodes=np.zeros((2, 3)),
                background=False,
                pieces=lambda b: iter([Piece(positions[b][p], counts[b][p], np.full(25, kappa[b])) for p in HALVES]),
            )
        ),
        state=State(np.eye(6), factor, baseline),
        usage=SimpleNamespace(used=[np.ones(50, dtype=bool)] * 2),
        curve=lambda b: counts[b] + 1.0,
    )
    found, values = cube_points(fit, [Part(0, np.eye(3)), Part(1, turn)])
    assert np.allclose(found[:50], q)
    assert np.allclose(found[50:], q)
    assert np.allclose(values[:50, 0], 2 * s + 1)
    assert np.allclose(values[50:, 0], 2 * s + 1)
    assert np.allclose(values[50:, 1] - values[50:, 0], 1 / kappa[1] * factor[0] / factor[1])


HALVES = [slice(0, 25), slice(25, 50)]


def test_one_of_each_orbit_comes_first_and_the_others_fold_onto_it():
    listed = first_of_each_orbit(HKL, GROUP)
    assert listed == [(1, 0, 4), (2, 0, 2), (0, 3, 0)]
    assert [part.blob for part in fold(HKL, listed, GROUP, NONE_LEFT_OUT)[1, 0, 4]] == [0, 1, 2]
