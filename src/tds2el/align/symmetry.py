"""The symmetry that ties a cell, and the conventional cell of a lattice that was found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.align.bravais import conventional, lattice_group
from tds2el.align.orientation import orientation_of_basis
from tds2el.crystal.cell import Cell, cell_from_metric
from tds2el.crystal.centring import lattice_letter
from tds2el.crystal.symmetry import PointGroup, point_group
from tds2el.errors import InputError

Array = npt.NDArray[np.float64]

REFINED_LENGTH, REFINED_ANGLE = 0.006, 0.5
"""How far equivalent lattice vectors may differ, relative and in degrees, once the geometry is refined."""


def tying_group(cell: Cell, centring: str | None, generators: str | None) -> PointGroup:
    """The symmetry that ties the cell: the crystal's, or that of the cell's numbers."""
    if generators is None:
        return lattice_group(cell, lattice_letter(centring))
    return point_group(generators, cell, centring)


def conventional_cell(
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
