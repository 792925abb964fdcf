"""How the points of a fit are shared among ranks: contiguous ranges of them, whole blobs where that balances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import Piece, Points, State

Integers = npt.NDArray[np.int64]

SLACK = 0.02
"""By how much of a fair share a rank may have more or less, if that spares a blob from being split."""


@dataclass(frozen=True)
class Share:
    """Ranges of points of some blobs.

    Attributes
    ----------
    blobs : ndarray of int, shape (n,)
        Ascending.
    starts, stops : ndarray of int, shape (n,)
        Points starts:stops of each; at least one.
    """

    blobs: Integers
    starts: Integers
    stops: Integers

    @property
    def sizes(self) -> Integers:
        """Points of each blob, (n,)."""
        return self.stops - self.starts


def shares(sizes: Integers, number: int) -> list[Share]:
    """The share of each of some ranks: every point is in one of them.

    Parameters
    ----------
    sizes : ndarray of int, shape (n_blobs,)
        Points of the blobs.
    number : int
        Ranks.

    Returns
    -------
    list of Share
        In the order of ranks and blobs; empty ones if there are fewer points than ranks.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    begins = ends - sizes
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.arange(number + 1) * total // number
    if len(ends):
        after = np.minimum(np.searchsorted(ends, cuts), len(ends) - 1)
        nearest = np.where(2 * cuts < begins[after] + ends[after], begins[after], ends[after])
        cuts = np.where(np.abs(nearest - cuts) <= SLACK * total / number, nearest, cuts)
    found = []
    for start, stop in pairwise(cuts):
        starts, stops = np.maximum(begins, start), np.minimum(ends, stop)
        blobs = np.flatnonzero(stops > starts)
        found.append(Share(blobs, (starts - begins)[blobs], (stops - begins)[blobs]))
    return found


def points_of(points: Points, share: Share) -> Points:
    """A share of the points, as points of their own: blobs are numbered as in the share, means stay those of all."""
    blobs = share.blobs

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        first, end = int(share.starts[blob]), int(share.stops[blob])
        return points.pieces(int(blobs[blob]), first + start, end if stop is None else min(end, first + stop))

    return replace(
        points,
        nodes=points.nodes[blobs],
        sizes=share.sizes,
        mean_counts=points.mean_counts[blobs],
        mean_correction=points.mean_correction[blobs],
        mean_background=np.broadcast_to(points.mean_background, len(points.sizes))[blobs],
        pieces=pieces,
        smearing=None if points.smearing is None else points.smearing.of(blobs),
        neighbours=None if points.neighbours is None else points.neighbours[blobs],
    )


def state_of(state: State, blobs: Integers) -> State:
    """The state with what it has of some blobs."""
    own = {
        name: values[blobs]
        for name in ("factor", "baseline", "slope", "background", "offset", "nodes", "gradient", "strain", "neighbours")
        if (values := getattr(state, name)) is not None
    }
    return replace(state, **own)
