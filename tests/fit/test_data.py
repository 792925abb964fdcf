"""Which points of a harvest a fit takes."""

from types import SimpleNamespace

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.fit import data
from tds2el.fit.data import chosen_blobs, fit_data


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
