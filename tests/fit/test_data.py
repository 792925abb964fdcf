"""Which points of a harvest a fit takes."""

from types import SimpleNamespace

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.fit import data
from tds2el.fit import shared as shared_module
from tds2el.fit.data import chosen_blobs, fit_data
from tds2el.fit.shared import HarvestShare, shared_engine
from tds2el.model.device import make_engine
from tds2el.model.engine import Columns, Conditions, State
from tds2el.parallel import World


def _harvest(*sizes):
    """A harvest whose points carry their number in the blob as counts."""
    hkl = np.array([(1, 0, blob) for blob in range(len(sizes))])

    def points(blob, start, stop):
        counts = np.arange(sizes[blob])[start:stop] + 1
        return counts, np.full(len(counts), 0.5, dtype=np.float32), np.tile(hkl[blob] + 0.25, (len(counts), 1))

    return SimpleNamespace(
        path="harvest.h5",
        n_blobs=len(sizes),
        hkl=hkl,
        centre=hkl.astype(float),
        angle=np.arange(len(sizes)) * 1.5,
        n_points=np.array(sizes),
        delta_min=0.1,
        delta_max=0.5,
        settings={},
        points=points,
        n_peaks=np.zeros(len(sizes), dtype=int),
        has_background=False,
    )


def _counts(found, blob):
    return np.concatenate([piece.counts for piece in found.points.pieces(blob)])


@pytest.mark.parametrize("nred", [2, 3, 7, 40, 1000])
def test_one_point_of_every_nred(nred, monkeypatch):
    """Also across pieces, and where one group is longer than a piece."""
    monkeypatch.setattr(data, "PIECE", 16)
    monkeypatch.setattr(data, "FEWEST_POINTS", 1)
    found = fit_data(_harvest(1000, 997), np.arange(2), nred)
    for blob, size in enumerate((1000, 997)):
        number = _counts(found, blob).astype(int) - 1
        assert np.array_equal(number // nred, np.arange(-(-size // nred)))
        assert found.points.sizes[blob] == len(number)
        assert np.array_equal(number, _counts(found, blob).astype(int) - 1)
        assert found.points.mean_counts[blob] == pytest.approx(number.mean() + 1)
    assert len(set((_counts(found, 0) - 1) % nred)) > 1 or nred == 1000


def test_all_points_relative_to_their_node():
    found = fit_data(_harvest(20, 30), np.arange(2))
    piece = next(found.points.pieces(1))
    assert np.array_equal(piece.q, np.full((30, 3), 0.25))
    assert np.array_equal(piece.counts, np.arange(1, 31))
    assert np.array_equal(piece.correction, np.full(30, 0.5))
    assert np.array_equal(found.points.mean_correction, [0.5, 0.5])


def test_spots_that_are_asked_for_and_blobs_that_are_large_enough(caplog):
    harvest = _harvest(20, 30, 5, 40)
    found = fit_data(harvest, chosen_blobs(harvest, [(1, 0, 3), (1, 0, 2), (1, 0, 0)]))
    assert np.array_equal(found.blobs, [0, 3])
    assert np.array_equal(found.angle, [0.0, 4.5])
    assert "(1, 0, 2)" in caplog.text


def test_a_spot_that_was_not_harvested_is_named():
    with pytest.raises(InputError, match=r"\(9, 9, 9\) is not in harvest.h5"):
        chosen_blobs(_harvest(20), [(1, 0, 0), (9, 9, 9)])


@pytest.mark.parametrize("nred", [1, 3, 40])
def test_a_range_of_points_is_a_part_of_all(nred, monkeypatch):
    """Also of those that are chosen at random, and across pieces."""
    monkeypatch.setattr(data, "PIECE", 16)
    points = fit_data(_harvest(1000, 997), np.arange(2), nred).points
    for blob in range(2):
        whole = np.concatenate([piece.counts for piece in points.pieces(blob)])
        for start, stop in ((0, 1), (3, 17), (7, None), (len(whole) - 1, None), (0, 5000)):
            part = np.concatenate([piece.counts for piece in points.pieces(blob, start, stop)])
            assert np.array_equal(part, whole[start:stop])


class InProcess:
    """A team of several ranks that are all here."""

    def __init__(self, harvest, size):
        self.size = size
        self.members = [HarvestShare(harvest, World(rank, size, rank, size)) for rank in range(size)]

    def ask(self, task, *arguments):
        return [getattr(member, task)(*arguments) for member in self.members]


@pytest.mark.parametrize("ranks", [2, 3, 45])
@pytest.mark.parametrize("nred", [1, 3])
def test_ranks_read_and_hold_only_their_own_points(ranks, nred, monkeypatch):
    """Together all of them, with the means of all, each on a device of its own; some ranks may have none."""
    devices = []

    def recorded(*arguments, number, **keywords):
        devices.append(number)
        return make_engine(*arguments, number=number, **keywords)

    monkeypatch.setattr(shared_module, "make_engine", recorded)
    harvest, read = _harvest(30, 20, 64), []
    points = harvest.points
    harvest.points = lambda blob, start, stop: read.append((blob, start, stop)) or points(blob, start, stop)
    team, blobs = InProcess(harvest, ranks), np.arange(3)
    found, expected = (fit_data(harvest, blobs, nred, team=shared) for shared in (team, None))
    assert np.array_equal(found.blobs, expected.blobs)
    assert np.allclose(found.points.mean_counts, expected.points.mean_counts, rtol=1e-12)
    assert np.allclose(found.points.mean_correction, expected.points.mean_correction, rtol=1e-12)

    columns, conditions = Columns(np.eye(6)[None]), Conditions(300.0, 3.0)
    read.clear()
    engine = shared_engine(team, "numpy", found, columns, conditions)
    normal = np.array([1.0, 1, 1, 0, 0, 0])
    tensor = np.diag(120 * normal + 40 * (1 - normal)) + 30 * np.outer(normal, normal)
    state = State(tensor, np.full(len(found.blobs), 0.1), np.ones(len(found.blobs)))
    one = make_engine("numpy", expected.points, columns, conditions).evaluate(state)
    read.clear()
    many = engine.evaluate(state)
    assert np.allclose(many.gram, one.gram, rtol=1e-10)
    assert np.allclose(many.deviance, one.deviance, rtol=1e-12)
    each = sorted((blob, n) for blob, start, stop in read for n in range(start, stop))
    assert each == [(blob, n) for blob in found.blobs for n in range(harvest.n_points[blob])]
    working = min(ranks, int(found.points.sizes.sum()))
    assert engine.description.endswith(f", {working} ranks")
    assert devices == sorted(set(devices))
    assert len(devices) == working
