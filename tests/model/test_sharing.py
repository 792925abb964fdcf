"""Points shared among ranks: all of them, evenly, and an engine that is one from outside."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.model.shared_engine import EngineShare, SharedEngine, describe
from tds2el.model.sharing import SLACK, points_of, shares, state_of

from .conftest import CALCITE, CALCITE_BASIS

CONDITIONS = Conditions(300.0, 2.71, 0.02)
COLUMNS = Columns(CALCITE_BASIS[1:], centre=True, slope=True, background=True)


def everything(found):
    """(blob, point) of every point of some shares, in their order."""
    ranges = [zip(share.blobs, share.starts, share.stops, strict=True) for share in found]
    return [(blob, point) for parts in ranges for blob, start, stop in parts for point in range(start, stop)]


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 9))
def test_every_point_is_in_one_share_and_shares_are_even(sizes, number):
    found = shares(np.array(sizes, dtype=np.int64), number)
    assert len(found) == number
    assert everything(found) == [(blob, point) for blob, size in enumerate(sizes) for point in range(size)]
    fair = sum(sizes) / number
    for share in found:
        assert (share.sizes > 0).all()
        assert abs(share.sizes.sum() - fair) <= 2 * SLACK * fair + 1


def test_blobs_stay_whole_where_that_balances():
    sizes = np.array([1003, 998, 1001, 2001, 997, 1000])
    found = shares(sizes, 7)
    assert [share.blobs.tolist() for share in found] == [[0], [1], [2], [3], [3], [4], [5]]
    assert [share.sizes.tolist() for share in found][:3] == [[1003], [998], [1001]]
    assert sum(found[3].sizes) + sum(found[4].sizes) == 2001


def test_a_large_blob_is_split_and_small_ones_are_together():
    found = shares(np.array([10, 20, 900, 70]), 4)
    assert [share.blobs.tolist() for share in found] == [[0, 1, 2], [2], [2], [2, 3]]
    assert [int(share.sizes.sum()) for share in found] == [250] * 4


class InProcess:
    """A team whose members are all here."""

    def __init__(self, members):
        self.members, self.size = members, len(members)

    def ask(self, task, *arguments):
        return [getattr(member, task)(*arguments) for member in self.members]


def with_ranges(points):
    """Points of a test that can also be read in part, and have a background."""

    def pieces(blob, start=0, stop=None):
        done = 0
        for piece in points.pieces(blob):
            n = len(piece.counts)
            part = slice(max(start - done, 0), n if stop is None else max(stop - done, 0))
            done += n
            if len(piece.counts[part]):
                background = 0.3 * piece.correction[part]
                yield Piece(piece.q[part], piece.counts[part], piece.correction[part], background, background + 0.6)

    return replace(points, pieces=pieces, background=True, mean_background=np.full(len(points.nodes), 0.3))


@pytest.fixture
def points(calcite_points) -> Points:
    found = with_ranges(calcite_points(blobs=4, size=501, mean=2.0, seed=5))
    return replace(found, mean_counts=np.array([2.0, 20.0, 40.0, 60.0]))  # so that every blob has a floor of its own


def state_for(points):
    random, n = np.random.default_rng(3), len(points.nodes)
    return State(
        np.einsum("k,kij->ij", CALCITE, CALCITE_BASIS),
        random.uniform(0.2, 0.4, n),
        random.uniform(0.8, 1.2, n),
        random.normal(size=(n, 3)),
        random.uniform(0.5, 1.5, n),
        random.normal(scale=2e-4, size=(n, 3)),
        points.nodes + random.normal(scale=1e-4, size=(n, 3)),
    )


def shared(points, number):
    members = []
    for share in shares(points.sizes, number):
        engine = NumpyEngine(points_of(points, share), COLUMNS, CONDITIONS) if len(share.blobs) else None
        members.append(EngineShare(engine, share, COLUMNS))
    return SharedEngine(InProcess(members), points, COLUMNS, [("numpy", "here")] * number)


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_many_engines_are_one(points, number):
    """At a state with all that a spot can have of its own, before and after points and floors are changed."""
    one, many, state = NumpyEngine(points, COLUMNS, CONDITIONS), shared(points, number), state_for(points)
    random = np.random.default_rng(4)
    used = [random.random(size) > 0.3 for size in points.sizes]
    for _ in range(2):
        expected, found = one.evaluate(state), many.evaluate(state)
        assert expected.below_floor.sum() > 0
        assert np.array_equal(found.below_floor, expected.below_floor)
        assert np.allclose(found.deviance, expected.deviance, rtol=1e-12)
        assert np.allclose(found.gram, expected.gram, rtol=1e-10, atol=1e-12 * np.abs(expected.gram).max())
        for blob in range(len(points.nodes)):
            assert np.allclose(many.intensity(state, blob), one.intensity(state, blob), rtol=1e-12)
        for engine in (one, many):
            for blob, mask in enumerate(used[:3]):
                engine.use(blob, mask)
            engine.set_floors(np.array([0.5, 1.0, 2.0, 3.0]))


def test_more_ranks_than_points(points):
    few = replace(points, sizes=np.full(4, 2))
    inner = few.pieces
    few = replace(few, pieces=lambda blob, start=0, stop=None: inner(blob, start, 2 if stop is None else stop))
    state = state_for(few)
    expected, found = (engine.evaluate(state) for engine in (NumpyEngine(few, COLUMNS, CONDITIONS), shared(few, 11)))
    assert np.allclose(found.gram, expected.gram, rtol=1e-10, atol=1e-12 * np.abs(expected.gram).max())


def test_a_state_of_some_blobs(points):
    state = state_for(points)
    part = state_of(state, np.array([3, 1]))
    assert np.array_equal(part.offset, state.offset[[3, 1]])
    assert np.array_equal(part.factor, state.factor[[3, 1]])
    assert part.tensor is state.tensor
    assert state_of(replace(state, slope=None), np.array([0])).slope is None


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        ([("numpy", "a")] * 2, "numpy, 2 ranks"),
        ([("H100", "bus 1"), ("H100", "bus 2"), ("H100", "bus 1"), ("", "")], "2 × H100, 3 ranks"),
        ([("H100", "bus 1"), ("EPYC", "0"), ("H100", "bus 2")], "2 × H100 and EPYC, 3 ranks"),
        ([("EPYC", "0"), ("", "")], "EPYC, 1 rank"),
    ],
)
def test_ranks_and_devices_in_words(devices, text):
    assert describe(devices) == text
