"""Whether the sweeps of a crystal agree on how it is turned: the peaks of each against those of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.align.bravais import lattice_group
from tds2el.align.cycles import ROUGH
from tds2el.align.index import index
from tds2el.align.match import explained, find_orientation, polished
from tds2el.align.orientation import equivalents, nearest_rotation, turn_of
from tds2el.align.points import Places
from tds2el.align.search import FEWEST, brightest
from tds2el.align.sweeps import Sweeps
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import lattice_letter
from tds2el.errors import InputError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WORSE = 0.7
"""Share of its peaks that the common lattice explains, relative to the best sweep, below which a sweep is looked at."""
TURNED = 1.0
"""Degrees beyond which no refinement will bring a sweep to the others."""
DISAGREES = 0.1
"""Degrees by which a sweep may turn the crystal without a warning."""
CLIPPED, CLIPPINGS = 2.0, 8
"""Medians of the distances to nodes beyond which a peak does not count for a sweep's own turn, and how often anew."""
LEAST = 5
"""Peaks that tell a turn."""


@dataclass(frozen=True)
class Agreement:
    """How a sweep goes with the others.

    Attributes
    ----------
    peaks, accepted : int
    angle : float
        Degrees by which its peaks turn the crystal against those of the others; NaN for too few peaks.
    axis : ndarray, shape (3,)
        About which, in the crystal frame.
    """

    peaks: int
    accepted: int
    angle: float
    axis: Array

    def turn(self) -> str:
        """In words."""
        return f"{self.angle:.2f}° about ({' '.join(f'{x:.2f}' for x in self.axis)}) in the crystal frame"


def check_agreement(
    sweeps: Sweeps, cell: Cell, centring: str | None, places: Places, counts: Array, names: Sequence[str]
) -> None:
    """Refuse sweeps whose crystal is turned otherwise than the conf_files say.

    Parameters
    ----------
    sweeps : Sweeps
        With the orientation found for all.
    cell, centring
    places : Places
    counts : ndarray, shape (n,)
    names : sequence of str
        Of the conf_files.

    Raises
    ------
    InputError
        For the sweep that the lattice explains worst, if another orientation explains it much better.
    """
    U = sweeps.orientation
    q = sweeps.q(places)
    parts = [q[here][brightest(counts[here])] for _, here in sweeps.parts(places)]
    shares = [explained(U, q, cell, centring) if len(q) >= FEWEST else np.inf for q in parts]
    best = max((s for s in shares if np.isfinite(s)), default=0.0)
    worst = int(np.argmin(shares))
    if shares[worst] >= WORSE * best:
        return
    own, share = find_orientation(parts[worst], cell, centring, U)
    others = _refined(U, q[places.sweep != worst], cell, centring)
    same = equivalents(own, cell, lattice_group(cell, lattice_letter(centring), exact=False))
    angle, axis = min((turn_of(others, one.U) for one in same), key=lambda turn: turn[0])
    if angle > TURNED and share > shares[worst] / WORSE:
        turn = Agreement(len(parts[worst]), 0, angle, axis).turn()
        raise InputError(
            f"sweeps: sweep {worst + 1} ({names[worst]}) does not agree with the others: their lattice explains "
            f"{shares[worst]:.0%} of its peaks, and {share:.0%} if the crystal is turned by {turn}; correct its r1, "
            "r2, r3 or its goniometer's angles, or leave it out"
        )


def agreements(sweeps: Sweeps, cell: Cell, centring: str | None, places: Places, accepted: Mask) -> list[Agreement]:
    """Each sweep's peaks, and how they turn the crystal if all the rest is as refined."""
    U, q = sweeps.orientation, sweeps.q(places)
    found = []
    for _, here in sweeps.parts(places):
        angle, axis = np.nan, np.zeros(3)
        if min(here.sum(), (~here).sum()) >= FEWEST:
            own, others = (_refined(U, q[chosen], cell, centring) for chosen in (here, ~here))
            angle, axis = turn_of(others, own)
        found.append(Agreement(int(here.sum()), int(accepted[here].sum()), angle, axis))
    return found


def _refined(U: Array, q: Array, cell: Cell, centring: str | None) -> Array:
    """The orientation turned to the points, without those that are far from their nodes."""
    own = polished(U, q, cell, centring)
    hkl, indexed = index(cell.A @ own.T, q, centring, ROUGH)
    g, q = hkl[indexed] @ cell.B.T, q[indexed]
    for _ in range(CLIPPINGS):
        miss = np.linalg.norm(q - g @ own.T, axis=1)
        near = miss <= CLIPPED * np.median(miss) if len(miss) else np.zeros(0, dtype=bool)
        if near.sum() < LEAST:
            break
        own = nearest_rotation(q[near].T @ g[near])
    return own
