"""The first lattice for a rough geometry: codes, signs and exchanged origins are tried where the peaks leave doubt."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.align.bravais import lattice_group
from tds2el.align.lattice import MOST_POINTS, find_basis, likely_longest
from tds2el.align.match import find_orientation
from tds2el.align.orientation import angle_between, equivalents, orientation_of_basis
from tds2el.align.orientation_codes import classes
from tds2el.align.points import Places
from tds2el.align.sweeps import Sweeps
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import lattice_letter
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]
log = logging.getLogger("tds2el")

FEWEST = 10
"""Peaks, below which any lattice fits."""
LEAST = 0.3
"""Share of the peaks that the lattice must explain."""
ENOUGH = 0.8
"""Share that leaves no doubt about the origins."""
EXCHANGED = 3.0
"""Pixels between det_origin_X and det_origin_Y, from where on exchanging them makes a difference."""


@dataclass(frozen=True)
class Known:
    """What is known of the crystal.

    Attributes
    ----------
    cell : Cell or None
    centring : str or None
    oriented : bool
        Whether r1, r2, r3 are more than their defaults.
    max_cell : float or None
        Å.
    """

    cell: Cell | None
    centring: str | None
    oriented: bool
    max_cell: float | None


@dataclass(frozen=True)
class Found:
    """A lattice.

    Attributes
    ----------
    sweeps : Sweeps
        With the code, sign and origins that fit; r1, r2, r3 are those of the start.
    basis : ndarray, shape (3, 3)
        Rows a, b, c in the goniometer's frame of the first sweep, Å: of the known cell, or reduced.
    share : float
        Of the bright peaks.
    exchanged : bool
        Whether the origins are exchanged.
    """

    sweeps: Sweeps
    basis: Array
    share: float
    exchanged: bool


def brightest(counts: Array) -> npt.NDArray[np.int64]:
    """Indices of the peaks that a search looks at."""
    return np.argsort(-np.nan_to_num(counts), kind="stable")[:MOST_POINTS]


def search(start: Sweeps, places: Places, known: Known, any_code: bool) -> Found:
    """The lattice that explains most of the peaks.

    Parameters
    ----------
    start : Sweeps
    places : Places
        Of the bright peaks.
    known : Known
    any_code : bool
        Find orientation_codes, and the sign of angular_step.

    Raises
    ------
    InputError
        If there are too few peaks, or none explains enough of them.
    """
    if len(places) < FEWEST:
        raise InputError(
            f"maxima_file: {len(places)} peaks are too few to find a lattice; at least {FEWEST} are needed"
        )
    groups = _groups(start, places) if any_code else [[start]]
    found = _best(_lattice(group[0], places, known, False) for group in groups)
    first = start.first
    if found.share < ENOUGH and abs(first.det_origin_X - first.det_origin_Y) > EXCHANGED:
        second = _best(_lattice(group[0].changed(_exchanged), places, known, True) for group in groups)
        if second.share > found.share + 0.1:
            found = second
            log.warning(
                "det_origin_X and det_origin_Y are exchanged: a lattice explains %.0f %% of the peaks with the origin "
                "at row %g, column %g; X is the row",
                100 * found.share,
                first.det_origin_Y,
                first.det_origin_X,
            )
    if found.share < LEAST:
        row, column = Geometry(start.first).direct_beam()
        code = "" if any_code else ", orientation_codes (None tries all)"
        raise InputError(
            f"no lattice explains the {len(places)} brightest peaks: the best one {100 * found.share:.0f} %; check "
            f"the direct beam (row {row:.1f}, column {column:.1f}), dist, lmbda, angular_step{code}"
            + (" and max_cell" if known.cell is None else " and the cell")
            + (", and that the sweeps are of one indexing (align each by itself)" if len(start.experiments) > 1 else "")
        )
    return _agreeing(found, places, known, groups)


def _groups(start: Sweeps, places: Places) -> list[list[Sweeps]]:
    """The start with the codes and signs of each class, whose members all explain the peaks alike.

    Those that keep the start's sign of the rotation, if there are any.
    """
    groups = classes(start, places)
    return [[start.changed(pair.of) for pair in [p for p in g if not p.reversed] or g] for g in groups]


def _agreeing(found: Found, places: Places, known: Known, groups: list[list[Sweeps]]) -> Found:
    """Of the members of the class found, which differ in how the lattice is turned, that nearest to the start."""
    cell = known.cell
    change = _exchanged if found.exchanged else _unchanged
    group = next(g for g in groups if g[0].changed(change) == found.sweeps)
    if cell is None or not known.oriented:
        return found
    tried = [found, *(_lattice(other.changed(change), places, known, found.exchanged) for other in group[1:])]
    return min(tried, key=lambda one: _distance(one, cell, known.centring))


def _exchanged(experiment: Experiment) -> Experiment:
    return replace(experiment, det_origin_X=experiment.det_origin_Y, det_origin_Y=experiment.det_origin_X)


def _unchanged(experiment: Experiment) -> Experiment:
    return experiment


def _lattice(sweeps: Sweeps, places: Places, known: Known, exchanged: bool) -> Found:
    q = sweeps.q(places)
    if known.cell is None:
        basis, share = find_basis(q, known.max_cell or likely_longest(q))
        return Found(sweeps, basis, share, exchanged)
    start = sweeps.orientation if known.oriented else None
    U, share = find_orientation(q, known.cell, known.centring, start)
    return Found(sweeps, known.cell.A @ U.T, share, exchanged)


def _distance(found: Found, cell: Cell, centring: str | None) -> float:
    """Degrees from the start's orientation to the nearest that is equivalent to the one found."""
    U = orientation_of_basis(found.basis, cell)
    lattice = lattice_group(cell, lattice_letter(centring), exact=False)
    return min(angle_between(one.U, found.sweeps.orientation) for one in equivalents(U, cell, lattice))


def _best(found: Iterable[Found]) -> Found:
    return max(found, key=lambda one: one.share)
