"""Parts of ranks and where they go."""

import numpy as np

from tds2el.harvest.columns import slices


def test_slices_put_parts_in_order():
    """Each rank's points, sorted by blob, land sorted by blob and then by rank."""
    rng = np.random.default_rng(0)
    for ranks, blobs in ((1, 5), (2, 7), (4, 30)):
        numbers = rng.integers(0, 4, (ranks, blobs)) * (rng.random((ranks, blobs)) < 0.7)
        whole = np.full(numbers.sum(), -1)
        for rank in range(ranks):
            part = np.repeat(np.arange(blobs), numbers[rank]) * ranks + rank
            pieces = slices(numbers, rank)
            assert sum(n for _, _, n in pieces) == part.size
            for here, there, n in pieces:
                assert (whole[there : there + n] == -1).all()
                whole[there : there + n] = part[here : here + n]
        np.testing.assert_array_equal(whole, np.sort(whole))
        assert (whole >= 0).all()
    assert slices(np.full((1, 9), 3), 0) == [(0, 0, 27)]
