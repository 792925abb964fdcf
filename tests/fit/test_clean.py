"""Points inside the inner radius round a centre that moved, and foreign ones: what is taken out, and what is not."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.fit.clean import Cleaner
from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine

CONDITIONS = Conditions(300.0, 2.71)
TENSOR = np.diag([150.0, 150, 150, 50, 50, 50]) + 50 * np.pad(np.ones((3, 3)), (0, 3)) * (1 - np.eye(6))
NODE = np.array([0.3, 0.2, 0.5])
SHAPE = (9, 40, 40)
LEVEL = 2.0


@pytest.fixture
def world():
    """One blob: a box of 9 frames of 40 × 40 pixels round a node, with a hole of the inner radius."""
    frame, row, column = (a.ravel().astype(float) for a in np.indices(SHAPE))
    q = 1e-3 * np.column_stack([3 * (frame - 4) + 0.2, row - 19.6, column - 19.7])
    keep = np.linalg.norm(q, axis=1) > 0.006
    frame, row, column, q = frame[keep], row[keep], column[keep], q[keep]
    kappa = np.ones(len(q))
    plain = Points(
        NODE[None], np.array([len(q)]), np.ones(1), np.ones(1), 0.05,
        lambda _: iter([Piece(q, np.ones(len(q)), kappa)]), 0.006, pixels=True,
    )  # fmt: skip
    s = NumpyEngine(plain, Columns(np.zeros((0, 6, 6))), CONDITIONS).intensity(
        State(TENSOR, np.ones(1), np.zeros(1)), 0
    )
    factor = np.array([LEVEL / s.mean()])
    counts = np.random.default_rng(3).poisson(factor * s + 0.3).astype(float)

    def make(counts):
        points = replace(
            plain,
            mean_counts=np.array([counts.mean()]),
            pieces=lambda _: iter([Piece(q, counts, kappa, row=row, column=column, phi=frame, frame=frame)]),
        )
        engine = NumpyEngine(points, Columns(np.zeros((0, 6, 6)), centre=True), CONDITIONS)
        return points, engine

    state = State(TENSOR, factor, np.array([0.3]), offset=np.zeros((1, 3)))
    return make, counts, state, np.column_stack([frame, row, column]).astype(int), q


def test_clean_counts_stay(world):
    """12 000 pixels of about two counts: nothing is foreign, although some pulls in the usual sense exceed 6."""
    make, counts, state, *_ = world
    points, engine = make(counts)
    cleaner = Cleaner(engine, points, 6.0)
    assert not cleaner.reject(state)
    assert not cleaner.usage.foreign.any()


def test_foreign_pixels_go_with_their_border(world):
    make, counts, state, place, _ = world
    dirty = counts.copy()
    spot, zinger = (3, 8, 9), (6, 30, 31)
    for f, r, c in [spot, (3, 8, 10), (4, 8, 9), zinger]:
        dirty[np.all(place == (f, r, c), axis=1)] = 500
    points, engine = make(dirty)
    cleaner = Cleaner(engine, points, 6.0)
    assert cleaner.reject(state)
    assert cleaner.usage.regions[0] == 2
    gone = ~cleaner.usage.used[0]
    expected = np.zeros(len(place), dtype=bool)
    for f, r, c in [spot, (3, 8, 10), (4, 8, 9), zinger]:
        near = np.abs(place - (f, r, c))
        expected |= (near[:, 0] <= 1) & (near[:, 1] <= 2) & (near[:, 2] <= 2)
    assert np.array_equal(gone, expected)
    # The engine sees the clean points only, and the floor is theirs too.
    deviance = engine.evaluate(state).deviance
    assert deviance[0] < 1.4 * (~gone).sum()
    # Nothing has changed since: the same choice again is no news.
    assert not cleaner.reject(state)


def test_what_a_better_model_explains_comes_back(world):
    make, counts, state, *_ = world
    points, engine = make(counts)
    cleaner = Cleaner(engine, points, 6.0)
    wrong = replace(state, factor=0.05 * state.factor, baseline=np.array([0.01]))
    assert cleaner.reject(wrong)
    assert cleaner.usage.foreign[0] > 100
    assert cleaner.reject(state)
    assert not cleaner.usage.foreign.any()
    assert cleaner.usage.used[0].all()


def test_points_round_a_moved_centre_are_cut(world):
    make, counts, state, _, q = world
    points, engine = make(counts)
    cleaner = Cleaner(engine, points, None)
    assert not cleaner.cut(state)
    offset = np.array([[0.0, 0.004, 0.003]])
    assert cleaner.cut(replace(state, offset=offset))
    inside = np.linalg.norm(q - offset, axis=1) < points.q_min
    assert inside.any()
    assert np.array_equal(cleaner.usage.used[0], ~inside)
    assert cleaner.usage.cut[0] == inside.sum()
    assert not cleaner.cut(replace(state, offset=offset + 1e-5))
    assert cleaner.cut(state)
    assert cleaner.usage.used[0].all()


def test_a_choice_settles_while_centres_still_tremble(world):
    """Foreign points are looked for anew at every step; what is cut out follows only moves that matter."""
    make, counts, state, _, q = world
    points, engine = make(counts)
    cleaner = Cleaner(engine, points, 6.0)
    offset = np.array([[0.0, 0.004, 0.003]])
    assert cleaner.cut(replace(state, offset=offset))
    cleaner.reject(replace(state, offset=offset))
    used, cut = cleaner.usage.used[0].copy(), cleaner.usage.cut[0]
    trembled = offset + np.array([0.0, 2e-4, 0.0])
    inside = [np.linalg.norm(q - d, axis=1) < points.q_min for d in (offset, trembled)]
    assert not np.array_equal(*inside)
    assert not cleaner.cut(replace(state, offset=trembled))
    assert not cleaner.reject(replace(state, offset=trembled))
    assert np.array_equal(cleaner.usage.used[0], used)
    assert cleaner.usage.cut[0] == cut
    assert np.array_equal(~used, inside[0])
