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
from tds2el.align.orientation import angle_between, equivalents, orientation_of, orientation_of_basis
from tds2el.align.orientation_codes import Pair, classes
from tds2el.align.points import Places, goniometer_q
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
    experiment : Experiment
        With the code, sign and origins that fit; r1, r2, r3 are those of the start.
    basis : ndarray, shape (3, 3)
        Rows a, b, c in the goniometer's frame, Å: of the known cell, or reduced.
    share : float
        Of the bright peaks.
    exchanged : bool
        Whether the origins are exchanged.
    """

    experiment: Experiment
    basis: Array
    share: float
    exchanged: bool


def brightest(counts: Array) -> npt.NDArray[np.int64]:
    """Indices of the peaks that a search looks at."""
    return np.argsort(-np.nan_to_num(counts), kind="stable")[:MOST_POINTS]


def search(start: Experiment, places: Places, known: Known, any_code: bool) -> Found:
    """The lattice that explains most of the peaks.

    Parameters
    ----------
    start : Experiment
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
    groups = classes(start, places) if any_code else [[Pair(start.orientation_codes, False)]]
    found = _best(_first(start, places, known, group, False) for group in groups)
    if found.share < ENOUGH and abs(start.det_origin_X - start.det_origin_Y) > EXCHANGED:
        other = replace(start, det_origin_X=start.det_origin_Y, det_origin_Y=start.det_origin_X)
        second = _best(_first(other, places, known, group, True) for group in groups)
        if second.share > found.share + 0.1:
            found = second
            log.warning(
                "det_origin_X and det_origin_Y are exchanged: a lattice explains %.0f %% of the peaks with the origin "
                "at row %g, column %g; X is the row",
                100 * found.share,
                other.det_origin_X,
                other.det_origin_Y,
            )
    if found.share < LEAST:
        row, column = Geometry(start).direct_beam()
        code = "" if any_code else ", orientation_codes (None tries all)"
        raise InputError(
            f"no lattice explains the {len(places)} brightest peaks: the best one {100 * found.share:.0f} %; check "
            f"the direct beam (row {row:.1f}, column {column:.1f}), dist, lmbda, angular_step{code}"
            + (" and max_cell" if known.cell is None else " and the cell")
        )
    return _agreeing(found, start, places, known, groups)


def _first(start: Experiment, places: Places, known: Known, group: list[Pair], exchanged: bool) -> Found:
    """The lattice for a class of pairs, whose members all explain the peaks alike: by that with the start's sign."""
    experiment = _members(group)[0].of(start)
    return _lattice(experiment, goniometer_q(experiment, places), known, exchanged)


def _members(group: list[Pair]) -> list[Pair]:
    """Those of a class that keep the start's sign of the rotation, if there are any."""
    return [pair for pair in group if not pair.reversed] or group


def _agreeing(found: Found, start: Experiment, places: Places, known: Known, groups: list[list[Pair]]) -> Found:
    """Of the members of the class found, which differ in how the lattice is turned, that nearest to the start."""
    cell = known.cell
    group = next(g for g in groups if _members(g)[0].of(start) == _with_origins(found.experiment, start))
    if cell is None or not known.oriented:
        return found
    others = (pair.of(_with_origins(start, found.experiment)) for pair in _members(group)[1:])
    tried = [found, *(_lattice(e, goniometer_q(e, places), known, found.exchanged) for e in others)]
    return min(tried, key=lambda one: _distance(one, cell, known.centring))


def _with_origins(experiment: Experiment, other: Experiment) -> Experiment:
    return replace(experiment, det_origin_X=other.det_origin_X, det_origin_Y=other.det_origin_Y)


def _lattice(experiment: Experiment, q: Array, known: Known, exchanged: bool) -> Found:
    if known.cell is None:
        basis, share = find_basis(q, known.max_cell or likely_longest(q))
        return Found(experiment, basis, share, exchanged)
    start = orientation_of(experiment.r1, experiment.r2, experiment.r3) if known.oriented else None
    U, share = find_orientation(q, known.cell, known.centring, start)
    return Found(experiment, known.cell.A @ U.T, share, exchanged)


def _distance(found: Found, cell: Cell, centring: str | None) -> float:
    """Degrees from the start's orientation to the nearest that is equivalent to the one found."""
    e = found.experiment
    U = orientation_of_basis(found.basis, cell)
    lattice = lattice_group(cell, lattice_letter(centring), exact=False)
    return min(angle_between(one.U, orientation_of(e.r1, e.r2, e.r3)) for one in equivalents(U, cell, lattice))


def _best(found: Iterable[Found]) -> Found:
    return max(found, key=lambda one: one.share)
