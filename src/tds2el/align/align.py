"""From a table of peaks to a tagged one: lattice, conventional cell, orientation, refinement, second lattices."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.align.bravais import conventional, lattice_group
from tds2el.align.index import index
from tds2el.align.match import find_orientation
from tds2el.align.orientation import (
    Equivalent,
    angle_between,
    angles_of,
    equivalents,
    inequivalent,
    orientation_of,
    orientation_of_basis,
    turn_of,
)
from tds2el.align.orientation_codes import Pair, fitting_pairs
from tds2el.align.points import Places, goniometer_q
from tds2el.align.refine import MAD, Refinement, refine, residuals, total_errors
from tds2el.align.search import FEWEST, Known, brightest, search
from tds2el.corrections import Correction
from tds2el.crystal.cell import CELL_OPTIONS, Cell, cell_from_metric
from tds2el.crystal.centring import allowed, lattice_letter
from tds2el.crystal.symmetry import PointGroup, point_group
from tds2el.errors import InputError
from tds2el.experiment.maxima import Maxima
from tds2el.fit.retune import Retuning, make_retuning
from tds2el.settings import Experiment, Settings

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
log = logging.getLogger("tds2el")

STAGES = ((0.4, True), (0.7, True), (1.0, True), (1.0, True), (1.0, False), (1.0, False))
"""Of a refinement: reach as a share of the largest |Q|, and whether outliers are expected."""
ROUGH = 0.3
"""How far h, k, l may be from whole numbers while outliers are expected."""
OUTLIER = 5.0
"""Length of a residual, in standard deviations, beyond which a peak is not accepted."""
REFINED_LENGTH, REFINED_ANGLE = 0.006, 0.5
"""How far equivalent lattice vectors may differ, relative and in degrees, once the geometry is refined."""
ANGLES = ("r1", "r2", "r3")
AS_GOOD = 1.1
"""Orientations whose residuals are larger by less than this are as good."""
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


@dataclass(frozen=True)
class Alignment:
    """What was found.

    Attributes
    ----------
    start : Experiment
        As the par-files say.
    refinement : Refinement
    group : PointGroup
        The symmetry that ties the cell.
    centring : str or None
    found_cell : bool
        Whether the cell was looked for.
    hkl : ndarray of int, shape (n, 3)
        0 0 0 for peaks without a node.
    accepted : ndarray of bool, shape (n,)
    residual : ndarray, shape (n, 3)
        Row, column and angle index less those of the node; NaN without one.
    same : list of Equivalent
        Orientations with the same nodes; the first was found first.
    chosen : int
        Which of them was taken.
    different : list of Equivalent or None
        Indexings that fit as well but are not equal by the crystal's symmetry; None where that is not known.
    pairs : list of Pair
        Orientation codes and signs that fit.
    exchanged : bool
        Whether the origins were exchanged.
    second : list of SecondLattice
    notes : tuple of str
        What else the user should know.
    """

    start: Experiment
    refinement: Refinement
    group: PointGroup
    centring: str | None
    found_cell: bool
    hkl: IntArray
    accepted: Mask
    residual: Array
    same: list[Equivalent]
    chosen: int
    different: list[Equivalent] | None
    pairs: list[Pair]
    exchanged: bool
    second: list[SecondLattice]
    notes: tuple[str, ...]

    @property
    def experiment(self) -> Experiment:
        """Refined."""
        return self.refinement.geometry[0]

    @property
    def cell(self) -> Cell:
        """Refined."""
        return self.refinement.geometry[1]


def align(maxima: Maxima, settings: Settings) -> Alignment:
    """Find, refine and tag.

    Raises
    ------
    InputError
        If the table does not suit, no lattice is found, or the symmetry given does not fit it.
    """
    start = settings.experiment
    assert start is not None  # align needs it: settings sees to that
    places = _checked(maxima, settings)
    crystal, options = settings.crystal, settings.align
    errors = np.column_stack([maxima.row_error, maxima.column_error, maxima.angle_index_error])
    bright = brightest(maxima.counts)
    known = Known(
        cell=None if crystal.cell is None else Cell(*crystal.cell),
        centring=crystal.centring,
        oriented=bool({"r1", "r2", "r3"} & settings.given),
        max_cell=options.max_cell,
    )
    any_code = settings.values["orientation_codes"] is None
    found = search(start, places[bright], known, any_code)
    centring: str | None
    if known.cell is None:
        basis = _refined_basis(found.experiment, found.basis, places, errors, options.variations, options.hkl_tolerance)
        cell, group, centring, U, notes = _conventional(basis, crystal.centring, crystal.ascii_generators)
    else:
        cell, centring, notes = known.cell, crystal.centring, []
        U = orientation_of_basis(found.basis, cell)
        group = _group(cell, centring, crystal.ascii_generators)
        cell = group.cell

    same, chosen = _choose(found.experiment, U, cell, centring, places[bright], known.oriented)
    experiment = _oriented(found.experiment, same[chosen].U)
    if known.oriented and options.variations is not None and not {c.name for c in options.variations} & set(ANGLES):
        experiment, note = _as_given(found.experiment, experiment, cell, centring, places[bright])
        notes += note
    retuning = make_retuning(_variations(options.variations, known.cell is None), experiment, cell, group)
    refinement, tags = _cycles(retuning, places, errors, centring, options.hkl_tolerance)
    hkl, accepted, residual = tags
    experiment, cell = refinement.geometry
    if accepted.sum() < FEWEST:
        raise InputError(
            f"maxima_file: only {int(accepted.sum())} of {len(accepted)} peaks fit the lattice after refinement; widen "
            "variations or correct the geometry"
        )
    laue = None if crystal.ascii_generators is None else group
    if crystal.centring is None and known.cell is not None:
        notes += _absences(hkl[accepted])
    return Alignment(
        start=start,
        refinement=refinement,
        group=group,
        centring=centring,
        found_cell=known.cell is None,
        hkl=hkl,
        accepted=accepted,
        residual=residual,
        same=same,
        chosen=chosen,
        different=None
        if laue is None
        else inequivalent(equivalents(same[chosen].U, cell, _lattice(cell, centring)), laue),
        pairs=fitting_pairs(experiment, places[accepted], _basis(experiment, cell)),
        exchanged=found.exchanged,
        second=_second_lattices(experiment, cell, centring, places[~accepted], options.hkl_tolerance),
        notes=(*notes, *(retuning.notes if options.variations is not None else ())),
    )


def tagged(maxima: Maxima, found: Alignment) -> Maxima:
    """The table with hkl, accepted and residual."""
    return replace(maxima, hkl=found.hkl, accepted=found.accepted, residual=found.residual)


def _checked(maxima: Maxima, settings: Settings) -> Places:
    path = settings.align.maxima_file
    sweeps = np.unique(maxima.sweep)
    if len(sweeps) > 1:
        raise InputError(
            f"maxima_file = {path}: peaks of {len(sweeps)} sweeps, but a conf_file describes one; align them one by one"
        )
    places = Places.of(maxima)
    if not np.isfinite(places.columns).all():
        raise InputError(
            f"maxima_file = {path}: row, column or angle_index of some peaks is not finite; write it again"
        )
    return places


def _basis(experiment: Experiment, cell: Cell) -> Array:
    """Rows a, b, c in the goniometer's frame."""
    return cell.A @ orientation_of(experiment.r1, experiment.r2, experiment.r3).T


def _oriented(experiment: Experiment, U: Array) -> Experiment:
    r1, r2, r3 = angles_of(U)
    return replace(experiment, r1=r1, r2=r2, r3=r3)


def _lattice(cell: Cell, centring: str | None) -> PointGroup:
    return lattice_group(cell, lattice_letter(centring), exact=False)


def _group(cell: Cell, centring: str | None, generators: str | None) -> PointGroup:
    """The symmetry that ties the cell: the crystal's, or that of the cell's numbers."""
    if generators is None:
        return lattice_group(cell, lattice_letter(centring))
    return point_group(generators, cell, centring)


def _variations(given: Sequence[Correction] | None, found_cell: bool) -> list[Correction]:
    if given is not None:
        return list(given)
    bounds = {"r1": 5.0, "r2": 5.0, "r3": 5.0, "det_origin_X": 20.0, "det_origin_Y": 20.0}
    if found_cell:
        bounds |= {"AA": 1.0, "BB": 1.0, "CC": 1.0, "aAA": 5.0, "aBB": 5.0, "aCC": 5.0}
    else:
        bounds["dist"] = 10.0
    return [Correction(name, 0.0, -bound, bound) for name, bound in bounds.items()]


def _refined_basis(
    experiment: Experiment,
    basis: Array,
    places: Places,
    errors: Array,
    variations: Sequence[Correction] | None,
    tolerance: float,
) -> Array:
    """A reduced basis refined together with the geometry, for its symmetry to be seen."""
    cell = cell_from_metric(basis @ basis.T)
    group = lattice_group(cell, "P")
    triclinic = replace(group, hkl_operations=np.eye(3, dtype=np.int64)[None], operations=np.eye(3)[None])
    free = [c for c in _variations(variations, True) if c.name not in CELL_OPTIONS]
    free = [c for c in free if c.name not in ("dist", "lmbda")]  # which the cell can take over
    free += [c for c in _variations(None, True) if c.name in (*CELL_OPTIONS, "r1", "r2", "r3")]
    free = list({c.name: c for c in free}.values())
    start = _oriented(experiment, orientation_of_basis(basis, cell))
    refinement, _ = _cycles(make_retuning(free, start, cell, triclinic), places, errors, None, tolerance)
    return _basis(*refinement.geometry)


def _conventional(
    basis: Array, centring: str | None, generators: str | None
) -> tuple[Cell, PointGroup, str, Array, list[str]]:
    """Cell, symmetry, centring and orientation of a lattice, with the axes as the generators want them."""
    lattice = conventional(basis, REFINED_LENGTH, REFINED_ANGLE)
    letter = lattice.letter
    notes = [f"lattice found: {lattice.system}, centring {letter}"]
    if centring is not None and lattice_letter(centring) != letter:
        notes.append(f'centring = "{centring}" is not that of the lattice found, {letter}')
    elif centring is not None:
        letter = centring
    orders = [[0, 1, 2]]
    if generators is not None and lattice.system in ("monoclinic", "orthorhombic") and lattice.letter in "PIF":
        orders += [[1, 2, 0], [2, 0, 1]]
    refusals: list[InputError] = []
    for order in orders:
        axes = lattice.basis[order]
        cell = cell_from_metric(axes @ axes.T)
        try:
            if generators is None:
                group = lattice_group(cell, letter, exact=False)
            else:
                group = point_group(generators, lattice_group(cell, lattice_letter(letter), exact=False).cell, letter)
        except InputError as error:
            refusals.append(error)
            continue
        return group.cell, group, letter, orientation_of_basis(axes, group.cell), notes
    raise InputError(f"the lattice found is {lattice.system}, centring {letter}: {refusals[0]}")


def _choose(
    experiment: Experiment, U: Array, cell: Cell, centring: str | None, places: Places, oriented: bool
) -> tuple[list[Equivalent], int]:
    """Of all orientations in which the lattice looks the same, that whose r1, r2, r3 are nearest to the start's.

    A cell may only nearly have the rotations: without start values, residuals count first.
    """
    same = equivalents(U, cell, _lattice(cell, centring))
    start = orientation_of(experiment.r1, experiment.r2, experiment.r3) if oriented else np.eye(3)
    far = np.array([angle_between(start, one.U) for one in same])
    if oriented:
        return same, int(far.argmin())
    q = goniometer_q(experiment, places)
    sizes = np.full(len(same), np.inf)
    for n, one in enumerate(same):
        hkl, indexed = index(cell.A @ one.U.T, q, centring, ROUGH)
        if indexed.sum() >= FEWEST:
            miss = hkl[indexed] @ cell.B.T @ one.U.T - q[indexed]
            sizes[n] = MAD * np.median(np.linalg.norm(miss, axis=1)) / max(1, indexed.sum()) * len(q)
    far[sizes > AS_GOOD * sizes.min()] = np.inf
    return same, int(far.argmin())


def _as_given(
    start: Experiment, found: Experiment, cell: Cell, centring: str | None, places: Places
) -> tuple[Experiment, list[str]]:
    """r1, r2, r3 that are not to be varied stay as they were given, if they explain as much as those found."""
    shares = [index(_basis(e, cell), goniometer_q(e, places), centring, ROUGH)[1].mean() for e in (start, found)]
    if shares[0] > 0.9 * shares[1]:
        return start, []
    note = (
        f"r1, r2, r3 are not among the variations, but those given explain {shares[0]:.0%} of the bright peaks, those "
        f"found {shares[1]:.0%}: replaced"
    )
    return found, [note]


def _cycles(
    found: Retuning, places: Places, errors: Array, centring: str | None, tolerance: float
) -> tuple[Refinement, tuple[IntArray, Mask, Array]]:
    """Refine and index in turn: first what low angles show, with outliers; then everything without them."""
    x = found.start
    refinement: Refinement | None = None
    for stage, robust in STAGES:
        hkl, accepted, _ = _tags(
            found.geometry(x), places, errors, centring, max(ROUGH, tolerance) if robust else tolerance, robust
        )
        size = np.linalg.norm(goniometer_q(found.experiment, places), axis=1)
        used = accepted & (size <= stage * size.max())
        if 3 * used.sum() < 3 * FEWEST + 2 * len(x) and stage < 1:
            continue
        if not used.any():
            break
        refinement = refine(found, places[used], hkl[used], errors[used], x, robust=robust)
        x = refinement.x
    if refinement is None:
        raise InputError("maxima_file: no peak fits the lattice well enough to refine it; raise hkl_tolerance")
    return refinement, _tags(found.geometry(x), places, errors, centring, tolerance, False)


def _tags(
    geometry: tuple[Experiment, Cell],
    places: Places,
    errors: Array,
    centring: str | None,
    tolerance: float,
    rough: bool,
) -> tuple[IntArray, Mask, Array]:
    """hkl, accepted and residual of all peaks."""
    experiment, cell = geometry
    hkl, indexed = index(_basis(experiment, cell), goniometer_q(experiment, places), centring, tolerance)
    residual = np.full((len(places), 3), np.nan)
    residual[indexed], _ = residuals(experiment, cell, places[indexed], hkl[indexed])
    accepted = indexed.copy()
    if not rough and indexed.any():
        pulls = residual[indexed] / total_errors(residual[indexed], errors[indexed])
        accepted[indexed] = np.sqrt(np.nansum(pulls**2, axis=1)) < OUTLIER
    return hkl, accepted, residual


def _second_lattices(
    experiment: Experiment, cell: Cell, centring: str | None, places: Places, tolerance: float
) -> list[SecondLattice]:
    """Further orientations of the same cell among the peaks that were not accepted."""
    first = orientation_of(experiment.r1, experiment.r2, experiment.r3)
    q = goniometer_q(experiment, places)
    found: list[SecondLattice] = []
    while len(q) >= FEWEST and len(found) < MOST_LATTICES:
        U, _ = find_orientation(q[:1000], cell, centring)
        _, indexed = index(cell.A @ U.T, q, centring, min(tolerance, 0.15))
        by_chance = (2 * min(tolerance, 0.15)) ** 3
        if indexed.sum() < max(FEWEST, SECOND * len(q), 4 * by_chance * len(q)):
            break
        turns = [turn_of(first, one.U) for one in equivalents(U, cell, _lattice(cell, centring))]
        angle, axis = min(turns, key=lambda turn: turn[0])
        found.append(SecondLattice(int(indexed.sum()), angle, axis))
        q = q[~indexed]
    return found


def _absences(hkl: IntArray) -> list[str]:
    """What the nodes seen say of a centring that was not given."""
    for letter in "FIRABC":
        if allowed(hkl, letter).mean() > 0.98:
            return [f'only nodes of the centring {letter} are seen: consider centring = "{letter}"']
    turned = hkl * [-1, -1, 1]
    if allowed(turned, "R").mean() > 0.98:
        return [
            'the nodes seen are those of a rhombohedral lattice in the reverse setting: give centring = "R" to turn it'
        ]
    return []
