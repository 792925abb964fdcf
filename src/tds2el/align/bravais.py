"""The symmetry of a lattice from its metric alone, and its conventional cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell, cell_from_metric
from tds2el.crystal.centring import allowed
from tds2el.crystal.symmetry import PointGroup, crystal_system, maps_lattice

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LENGTH_TOLERANCE = 0.015
"""Relative: how far lattice vectors that are equivalent may differ, with a geometry that is still rough."""
ANGLE_TOLERANCE = 1.0
"""Degrees."""
EXACT = 1e-4
"""Relative, and in degrees: what counts as equal in a cell that somebody wrote down."""
LETTERS = {1: "P", 2: "ABCI", 3: "R", 4: "F"}


@dataclass(frozen=True)
class Bravais:
    """A lattice in its conventional setting.

    Attributes
    ----------
    system : str
        "triclinic" to "cubic"; "trigonal" is the rhombohedral lattice in hexagonal axes, obverse.
    letter : str
        P A B C I F or R.
    basis : ndarray, shape (3, 3)
        Rows a, b, c in Å, in the frame in which the lattice was given; not symmetrised.
    """

    system: str
    letter: str
    basis: Array


def lattice_rotations(
    metric: Array, letter: str, length_tolerance: float, angle_tolerance: float
) -> npt.NDArray[np.int64]:
    """Proper rotations of a lattice as operations on hkl.

    Parameters
    ----------
    metric : ndarray, shape (3, 3)
        Direct metric tensor in Å², of a reduced or conventional cell.
    letter : str
        Its centring.
    length_tolerance, angle_tolerance : float
        How far vectors that are equivalent may differ: relative, and degrees.

    Returns
    -------
    ndarray of int, shape (n, 3, 3)
        A group, the identity first: hkl' = W hkl, and the rows of W are the new basis vectors.
    """
    candidates = _unimodular()
    images = candidates @ metric @ candidates.transpose(0, 2, 1)
    strain = _strain(images, metric, length_tolerance, angle_tolerance)
    order = np.argsort(strain, kind="stable")
    order = order[strain[order] < 1]
    found = candidates[order]
    found = found[[maps_lattice(w[None], letter) for w in found]]
    identity = np.array([np.array_equal(w, np.eye(3)) for w in found])
    found = np.concatenate([found[identity], found[~identity]])
    while not _closed(found):
        found = found[:-1]  # what deviates most is not of the group
    return found


def conventional(
    basis: Array, length_tolerance: float = LENGTH_TOLERANCE, angle_tolerance: float = ANGLE_TOLERANCE
) -> Bravais:
    """The conventional cell of a lattice given by a reduced primitive basis (rows, Å)."""
    rotations = lattice_rotations(basis @ basis.T, "P", length_tolerance, angle_tolerance)
    system = crystal_system(rotations.astype(float))
    steps = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = steps[steps.any(axis=1)]
    lengths = np.linalg.norm(steps @ basis, axis=1)
    steps = steps[np.argsort(lengths, kind="stable")]
    traces = np.trace(rotations, axis1=1, axis2=2)
    two, three, four, six = (rotations[traces == t] for t in (-1, 0, 1, 2))
    if system == "cubic":
        axes = _independent([_along(w, steps) for w in four])
    elif system in ("hexagonal", "trigonal", "tetragonal"):
        turn = {"hexagonal": six, "trigonal": three, "tetragonal": four}[system][0]
        if system == "hexagonal":
            turn = turn @ turn  # by 120°
        a = _across(turn, steps)[0]
        axes = np.array([a, a @ turn, _along(turn, steps)])
    elif system == "orthorhombic":
        axes = np.array([_along(w, steps) for w in two])
        axes = axes[np.argsort(np.linalg.norm(axes @ basis, axis=1))]
    elif system == "monoclinic":
        plane = _independent(list(_across(two[0], steps)))
        if _dot(plane[0], plane[1], basis) > 0:
            plane[1] = -plane[1]
        axes = np.array([plane[0], _along(two[0], steps), plane[1]])
    else:
        axes = np.eye(3, dtype=np.int64)
    return _with_centring(system, axes, basis)


def lattice_group(cell: Cell, letter: str, exact: bool = True) -> PointGroup:
    """The rotations of the lattice of a conventional cell; the cell is made to have them.

    Parameters
    ----------
    cell : Cell
    letter : str
    exact : bool
        Only such as the numbers of the cell have, not such as it misses a little.
    """
    tolerances = (EXACT, EXACT) if exact else (LENGTH_TOLERANCE, ANGLE_TOLERANCE)
    on_hkl = lattice_rotations(cell.metric, letter, *tolerances)
    metric = (on_hkl @ cell.metric @ on_hkl.transpose(0, 2, 1)).mean(axis=0)
    repaired = cell if exact else cell_from_metric(metric)
    cartesian = repaired.B @ on_hkl @ repaired.A
    system = crystal_system(on_hkl.astype(float))
    return PointGroup(f"{system} lattice", cartesian, on_hkl, repaired, system, letter)


@lru_cache(maxsize=1)
def _unimodular() -> IntArray:
    """Matrices of −1, 0, 1 with determinant 1: all rotations of reduced and of conventional cells are among them."""
    entries = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 9, indexing="ij"), axis=-1).reshape(-1, 3, 3)
    return np.asarray(entries[np.rint(np.linalg.det(entries)) == 1])


def _strain(images: Array, metric: Array, length_tolerance: float, angle_tolerance: float) -> Array:
    """How far metrics (n, 3, 3) are from `metric`, in units of the tolerances."""
    lengths = np.sqrt(np.diagonal(images, axis1=1, axis2=2))
    own = np.sqrt(np.diag(metric))
    stretch = np.abs(lengths / own - 1).max(axis=1) / length_tolerance
    cosines = images / (lengths[:, :, None] * lengths[:, None, :])
    cosine = metric / np.outer(own, own)
    angles = np.rad2deg(np.abs(np.arccos(np.clip(cosines, -1, 1)) - np.arccos(np.clip(cosine, -1, 1))))
    above = np.triu_indices(3, 1)
    return np.asarray(np.maximum(stretch, angles[:, above[0], above[1]].max(axis=1) / angle_tolerance))


def _closed(operations: IntArray) -> bool:
    known = {w.tobytes() for w in operations}
    products = np.einsum("mij,njk->mnik", operations, operations).reshape(-1, 3, 3)
    return all(np.ascontiguousarray(w).tobytes() in known for w in products)


def _along(rotation: IntArray, steps: IntArray) -> IntArray:
    """The shortest lattice vector that a rotation leaves where it is; `steps` are sorted by length."""
    return np.asarray(steps[(steps @ rotation == steps).all(axis=1)][0])


def _across(rotation: IntArray, steps: IntArray) -> IntArray:
    """The lattice vectors across the axis of a rotation, shortest first: their images sum to zero."""
    order = {-1: 2, 0: 3, 1: 4, 2: 6}[int(np.trace(rotation))]
    total = sum(np.linalg.matrix_power(rotation, n) for n in range(order))
    return np.asarray(steps[(steps @ total == 0).all(axis=1)])


def _independent(vectors: list[IntArray]) -> IntArray:
    """The first vectors of a list of which none is a combination of those before it."""
    chosen: list[IntArray] = []
    for vector in vectors:
        if np.linalg.matrix_rank(np.array([*chosen, vector])) > len(chosen):
            chosen.append(vector)
    return np.array(chosen)


def _dot(u: IntArray, v: IntArray, basis: Array) -> float:
    return float((u @ basis) @ (v @ basis))


def _with_centring(system: str, axes: IntArray, basis: Array) -> Bravais:
    """Right-handed, with the letter of the centring; one-face centring becomes C, rhombohedral obverse."""
    if np.linalg.det(axes @ basis) < 0:
        axes = -axes if system in ("triclinic", "monoclinic") else axes * np.array([[1], [1], [-1]])
    nodes = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    letters = LETTERS[round(abs(np.linalg.det(axes)))]
    fitting = [letter for letter in letters if allowed(nodes @ axes.T, letter).all()]
    if not fitting:  # the reverse setting
        return _with_centring(system, axes * np.array([[-1], [-1], [1]]), basis)
    letter = fitting[0]
    if letter in "AB":
        if system == "monoclinic":  # b stays: a and c change places
            axes = axes[[2, 1, 0]] * np.array([[1], [-1], [1]])
        else:
            axes = axes[[1, 2, 0]] if letter == "A" else axes[[2, 0, 1]]
            if np.linalg.norm(axes[0] @ basis) > np.linalg.norm(axes[1] @ basis):
                axes = axes[[1, 0, 2]] * np.array([[1], [1], [-1]])
        letter = "C"
    return Bravais(system, letter, axes @ basis)
