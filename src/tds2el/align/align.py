"""From a table of peaks to a tagged one: lattice, conventional cell, orientation, refinement, second lattices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.align.agreement import Agreement, agreements, check_agreement
from tds2el.align.bravais import lattice_group
from tds2el.align.cycles import ROUGH, cycles
from tds2el.align.index import index
from tds2el.align.orientation import (
    Equivalent,
    angle_between,
    equivalents,
    inequivalent,
    orientation_of_basis,
)
from tds2el.align.orientation_codes import Pair, fitting_pairs
from tds2el.align.points import Places
from tds2el.align.refine import MAD, Refinement
from tds2el.align.search import FEWEST, Known, brightest, search
from tds2el.align.second import SecondLattice, second_lattices
from tds2el.align.sweeps import ANGLES, Sweeps, make_joint_retuning
from tds2el.align.symmetry import conventional_cell, tying_group
from tds2el.corrections import Correction
from tds2el.crystal.cell import CELL_OPTIONS, Cell, cell_from_metric
from tds2el.crystal.centring import allowed, lattice_letter
from tds2el.crystal.symmetry import PointGroup
from tds2el.errors import InputError
from tds2el.experiment.maxima import Maxima
from tds2el.settings import Experiment, Settings

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
AS_GOOD = 1.1
"""Orientations whose residuals are larger by less than this are as good."""


@dataclass(frozen=True)
class Alignment:
    """What was found.

    Attributes
    ----------
    start : Sweeps
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
    agreement : list of Agreement
        Of each sweep with the others; empty where there is one.
    notes : tuple of str
        What else the user should know.
    """

    start: Sweeps
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
    agreement: list[Agreement]
    notes: tuple[str, ...]

    @property
    def sweeps(self) -> Sweeps:
        """Refined."""
        return self.refinement.geometry[0]

    @property
    def experiment(self) -> Experiment:
        """Refined, of the first sweep."""
        return self.sweeps.first

    @property
    def cell(self) -> Cell:
        """Refined."""
        return self.refinement.geometry[1]


def align(maxima: Maxima, settings: Settings) -> Alignment:
    """Find, refine and tag.

    Raises
    ------
    InputError
        If the table does not suit, no lattice is found, sweeps do not agree, or the symmetry given does not fit.
    """
    members = settings.sweeps or (settings,)
    start = sweeps_of(settings)
    places = places_of(maxima, settings)
    crystal, options = settings.crystal, settings.align
    errors = np.column_stack([maxima.row_error, maxima.column_error, maxima.angle_index_error])
    bright = brightest(maxima.counts)
    known = Known(
        cell=None if crystal.cell is None else Cell(*crystal.cell),
        centring=crystal.centring,
        oriented=any(set(ANGLES) & member.given for member in members),
        max_cell=options.max_cell,
    )
    any_code = settings.values["orientation_codes"] is None
    found = search(start, places[bright], known, any_code)
    centring: str | None
    if known.cell is None:
        basis = _refined_basis(found.sweeps, found.basis, places, errors, options.variations, options.hkl_tolerance)
        cell, group, centring, U, notes = conventional_cell(basis, crystal.centring, crystal.ascii_generators)
    else:
        cell, centring, notes = known.cell, crystal.centring, []
        U = orientation_of_basis(found.basis, cell)
        group = tying_group(cell, centring, crystal.ascii_generators)
        cell = group.cell

    same, chosen = _choose(found.sweeps, U, cell, centring, places[bright], known.oriented)
    sweeps = found.sweeps.oriented(same[chosen].U)
    if settings.sweeps:
        check_agreement(sweeps, cell, centring, places, maxima.counts, [str(s.conf_file) for s in settings.sweeps])
    if known.oriented and options.variations is not None and not {c.name for c in options.variations} & set(ANGLES):
        sweeps, note = _as_given(found.sweeps, sweeps, cell, centring, places[bright])
        notes += note
    retuning = make_joint_retuning(_variations(options.variations, known.cell is None), sweeps, cell, group)
    refinement, tags = cycles(retuning, places, errors, centring, options.hkl_tolerance)
    hkl, accepted, residual = tags
    sweeps, cell = refinement.geometry
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
        else inequivalent(
            equivalents(same[chosen].U, cell, lattice_group(cell, lattice_letter(centring), exact=False)), laue
        ),
        pairs=fitting_pairs(sweeps, places[accepted], sweeps.basis(cell)),
        exchanged=found.exchanged,
        second=second_lattices(sweeps, cell, centring, places[~accepted], options.hkl_tolerance),
        agreement=agreements(sweeps, cell, centring, places, accepted) if settings.sweeps else [],
        notes=(*notes, *(retuning.first.notes if options.variations is not None else ())),
    )


def tagged(maxima: Maxima, found: Alignment) -> Maxima:
    """The table with hkl, accepted and residual."""
    return replace(maxima, hkl=found.hkl, accepted=found.accepted, residual=found.residual)


def sweeps_of(settings: Settings) -> Sweeps:
    """The sweeps that the par-files describe; one without `sweeps`."""
    experiments = [member.experiment for member in settings.sweeps or (settings,)]
    return Sweeps(tuple(e for e in experiments if e is not None))  # align needs it: settings sees to that


def places_of(maxima: Maxima, settings: Settings) -> Places:
    """The places of a table that suits the par-files.

    Raises
    ------
    InputError
        If it does not, or has places that are no numbers.
    """
    path = settings.align.maxima_file
    expected = range(len(settings.sweeps or (settings,)))
    numbers = set(np.unique(maxima.sweep).tolist())
    if not settings.sweeps and len(numbers) > 1:
        raise InputError(
            f"maxima_file = {path}: peaks of {len(numbers)} sweeps, but a conf_file describes one; give "
            "sweeps = [conf_file, …] instead"
        )
    if settings.sweeps and numbers - set(expected):
        raise InputError(
            f"maxima_file = {path}: peaks of sweep {max(numbers) + 1}, but sweeps names {len(expected)} conf_files; "
            "name those that its frames were searched with"
        )
    for n in expected if settings.sweeps else ():
        if n not in numbers:
            raise InputError(
                f"maxima_file = {path}: no peak of sweep {n + 1} ({settings.sweeps[n].conf_file}); search the "
                "frames of all sweeps together, or leave it out of sweeps"
            )
    codes = [member.values["orientation_codes"] for member in settings.sweeps]
    if None in codes and set(codes) != {None}:
        raise InputError("sweeps: orientation_codes is None in some conf_files only; give it in all or in none")
    places = Places.of(maxima if settings.sweeps else replace(maxima, sweep=np.zeros_like(maxima.sweep)))
    if not np.isfinite(places.columns).all():
        raise InputError(
            f"maxima_file = {path}: row, column or angle_index of some peaks is not finite; write it again"
        )
    return places


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
    sweeps: Sweeps,
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
    start = sweeps.oriented(orientation_of_basis(basis, cell))
    refinement, _ = cycles(make_joint_retuning(free, start, cell, triclinic), places, errors, None, tolerance)
    refined, cell = refinement.geometry
    return refined.basis(cell)


def _choose(
    sweeps: Sweeps, U: Array, cell: Cell, centring: str | None, places: Places, oriented: bool
) -> tuple[list[Equivalent], int]:
    """Of all orientations in which the lattice looks the same, that whose r1, r2, r3 are nearest to the start's.

    A cell may only nearly have the rotations: without start values, residuals count first.
    """
    same = equivalents(U, cell, lattice_group(cell, lattice_letter(centring), exact=False))
    start = sweeps.orientation if oriented else np.eye(3)
    far = np.array([angle_between(start, one.U) for one in same])
    if oriented:
        return same, int(far.argmin())
    q = sweeps.q(places)
    sizes = np.full(len(same), np.inf)
    for n, one in enumerate(same):
        hkl, indexed = index(cell.A @ one.U.T, q, centring, ROUGH)
        if indexed.sum() >= FEWEST:
            miss = hkl[indexed] @ cell.B.T @ one.U.T - q[indexed]
            sizes[n] = MAD * np.median(np.linalg.norm(miss, axis=1)) / max(1, indexed.sum()) * len(q)
    far[sizes > AS_GOOD * sizes.min()] = np.inf
    return same, int(far.argmin())


def _as_given(
    start: Sweeps, found: Sweeps, cell: Cell, centring: str | None, places: Places
) -> tuple[Sweeps, list[str]]:
    """r1, r2, r3 that are not to be varied stay as they were given, if they explain as much as those found."""
    shares = [index(e.basis(cell), e.q(places), centring, ROUGH)[1].mean() for e in (start, found)]
    if shares[0] > 0.9 * shares[1]:
        return start, []
    note = (
        f"r1, r2, r3 are not among the variations, but those given explain {shares[0]:.0%} of the bright peaks, those "
        f"found {shares[1]:.0%}: replaced"
    )
    return found, [note]


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
