"""Which nodes of the reciprocal lattice are allowed, and the neighbours of a node."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.errors import InputError

if TYPE_CHECKING:
    import gemmi

_LETTERS = ("P", "A", "B", "C", "I", "F", "R")


@lru_cache(maxsize=16)
def _space_group(name: str) -> "gemmi.SpaceGroup":
    import gemmi

    # gemmi also takes numbers, which would turn the point group "3" into space group 3.
    group = None if name.isdigit() else gemmi.find_spacegroup_by_name(name)
    if group is None:
        raise InputError(
            f'centring = "{name}": neither a lattice centring ({", ".join(_LETTERS)}) '
            'nor the symbol of a space group such as "R -3 c"; correct it'
        )
    return group


def lattice_letter(centring: str | None) -> str:
    """The lattice, P A B C I F or R (obverse), of a centring or a space-group symbol; None gives P.

    Raises
    ------
    InputError
        If `centring` is neither.
    """
    if centring is None:
        return "P"
    letter = centring.strip().upper()
    if letter in _LETTERS:
        return letter
    group = _space_group(centring.strip())
    # R in rhombohedral axes is a primitive lattice.
    return "P" if group.ext == "R" else group.centring_type()


def allowed(hkl: npt.ArrayLike, centring: str | None) -> npt.NDArray[np.bool_]:
    """Tell for each node whether the lattice, or the space group, allows it.

    Parameters
    ----------
    hkl : int array (n, 3)
    centring : str or None
        P A B C I F, R (obverse, hexagonal axes), or a space-group symbol, whose glide planes and screw axes
        then count too. None allows every node.

    Returns
    -------
    bool array (n,)

    Raises
    ------
    InputError
        If `centring` is neither a centring nor a space group.
    """
    nodes = np.asarray(hkl, dtype=np.int32).reshape(-1, 3)
    h, k, ell = nodes.T
    match "P" if centring is None else centring.strip().upper():
        case "P":
            return np.ones(len(nodes), dtype=np.bool_)
        case "A":
            return np.asarray((k + ell) % 2 == 0)
        case "B":
            return np.asarray((h + ell) % 2 == 0)
        case "C":
            return np.asarray((h + k) % 2 == 0)
        case "I":
            return np.asarray((h + k + ell) % 2 == 0)
        case "F":
            return np.asarray(((h + k) % 2 == 0) & ((k + ell) % 2 == 0))
        case "R":
            return np.asarray((-h + k + ell) % 3 == 0)
    operations = _space_group(str(centring).strip()).operations()
    return np.asarray(~operations.systematic_absences(np.ascontiguousarray(nodes)))


def allowed_nodes(cell: Cell, centring: str | None, radius: float) -> npt.NDArray[np.int64]:
    """All allowed nodes but 000 with |G| ≤ radius (Å⁻¹), int array (n, 3) in ascending order of hkl."""
    reach = np.ceil(radius * np.linalg.norm(cell.A, axis=1)).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near = (np.linalg.norm(hkl @ cell.B.T, axis=1) <= radius) & hkl.any(axis=1)
    hkl = hkl[near]
    return np.asarray(hkl[allowed(hkl, centring)], dtype=np.int64)


def _neighbours(
    hkl: npt.ArrayLike, cell: Cell, centring: str | None, radius: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Nodes (m, 3) and vectors (m, 3) of `neighbour_vectors`."""
    node = np.asarray(hkl, dtype=np.int64).reshape(3)
    # An index is the projection of Q on a, b or c: inside the ball it cannot exceed radius times that length.
    reach = np.floor(radius * np.linalg.norm(cell.A, axis=1) * (1.0 + 1e-12)).astype(np.int64)
    axes = [np.arange(-n, n + 1) for n in reach]
    steps = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    vectors = steps @ cell.B.T
    distance = np.linalg.norm(vectors, axis=1)
    chosen = (distance < radius) & steps.any(axis=1) & allowed(node + steps, centring)
    order = np.flatnonzero(chosen)[np.argsort(distance[chosen], kind="stable")]
    return node + steps[order], vectors[order]


def neighbour_vectors(hkl: npt.ArrayLike, cell: Cell, centring: str | None, radius: float) -> npt.NDArray[np.float64]:
    """Vectors from the node `hkl` to every other allowed node nearer than `radius` (Å⁻¹), nearest first.

    Returns
    -------
    float array (m, 3), in Å⁻¹ in the crystal frame; m may be 0
    """
    return _neighbours(hkl, cell, centring, radius)[1]


def nearest_allowed(hkl: npt.ArrayLike, cell: Cell, centring: str | None) -> tuple[npt.NDArray[np.int64], float]:
    """The other allowed node nearest to `hkl`, and its distance in Å⁻¹."""
    radius = float(np.linalg.norm(cell.B, axis=0).min()) * 1.01
    while True:
        nodes, vectors = _neighbours(hkl, cell, centring, radius)
        if len(nodes):
            return nodes[0], float(np.linalg.norm(vectors[0]))
        radius *= 1.5
