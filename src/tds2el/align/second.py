"""Other crystals of the same cell among the peaks that a first one leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.align.bravais import lattice_group
from tds2el.align.index import index
from tds2el.align.match import find_orientation
from tds2el.align.orientation import equivalents, turn_of
from tds2el.align.points import Places
from tds2el.align.search import FEWEST
from tds2el.align.sweeps import Sweeps
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import lattice_letter

Array = npt.NDArray[np.float64]

SECOND = 0.25
"""Share of the peaks left over that a second lattice must explain."""
MOST_LATTICES = 4


@dataclass(frozen=True)
class SecondLattice:
    """Another crystal of the same cell.

    Attributes
    ----------
    peaks : int
        Of those left over.
    angle : float
        Degrees by which it is turned, at least.
    axis : ndarray, shape (3,)
        About which, in the crystal frame of the first.
    """

    peaks: int
    angle: float
    axis: Array


def second_lattices(
    sweeps: Sweeps, cell: Cell, centring: str | None, places: Places, tolerance: float
) -> list[SecondLattice]:
    """Further orientations of the same cell among the peaks that were not accepted."""
    first, lattice = sweeps.orientation, lattice_group(cell, lattice_letter(centring), exact=False)
    q = sweeps.q(places)
    found: list[SecondLattice] = []
    while len(q) >= FEWEST and len(found) < MOST_LATTICES:
        U, _ = find_orientation(q[:1000], cell, centring)
        _, indexed = index(cell.A @ U.T, q, centring, min(tolerance, 0.15))
        by_chance = (2 * min(tolerance, 0.15)) ** 3
        if indexed.sum() < max(FEWEST, SECOND * len(q), 4 * by_chance * len(q)):
            break
        turns = [turn_of(first, one.U) for one in equivalents(U, cell, lattice)]
        angle, axis = min(turns, key=lambda turn: turn[0])
        found.append(SecondLattice(int(indexed.sum()), angle, axis))
        q = q[~indexed]
    return found
