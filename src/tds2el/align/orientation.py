"""r1, r2, r3 of an orientation, and the orientations in which a lattice looks the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import PointGroup
from tds2el.experiment.geometry import rotation

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Equivalent:
    """An orientation with the same nodes.

    Attributes
    ----------
    hkl_operation : ndarray of int, shape (3, 3)
        hkl in this orientation = W hkl in the first.
    U : ndarray, shape (3, 3)
    """

    hkl_operation: npt.NDArray[np.int64]
    U: Array


def angles_of(U: Array) -> tuple[float, float, float]:
    """r1, r2, r3 in degrees with U = R3(r3) R2(r2) R1(r1), r2 from −90 to 90; r1 = 0 where r2 = ±90 leaves it open."""
    # Passive rotations: U[2, 0] = sin r2, U[0, 0] = cos r3 cos r2, U[1, 0] = −sin r3 cos r2.
    r2 = np.arcsin(np.clip(U[2, 0], -1, 1))
    if np.hypot(U[0, 0], U[1, 0]) < 1e-9:
        r1, r3 = 0.0, np.arctan2(U[0, 1], U[1, 1])
    else:
        r3 = np.arctan2(-U[1, 0], U[0, 0])
        r1 = np.arctan2(-U[2, 1], U[2, 2])
    degrees = np.rad2deg([r1, r2, r3])
    return float(degrees[0]), float(degrees[1]), float(degrees[2])


def orientation_of(r1: float, r2: float, r3: float) -> Array:
    """U, (3, 3)."""
    return np.asarray(rotation(3, r3) @ rotation(2, r2) @ rotation(1, r1))


def orientation_of_basis(basis: Array, cell: Cell) -> Array:
    """U for a basis (rows a, b, c in the goniometer's frame): the rotation that brings the cell nearest to it."""
    return nearest_rotation((cell.B @ basis).T)


def nearest_rotation(matrix: Array) -> Array:
    """The proper rotation nearest to a matrix (3, 3)."""
    u, _, vt = np.linalg.svd(matrix)
    return np.asarray(u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt)


def equivalents(U: Array, cell: Cell, lattice: PointGroup) -> list[Equivalent]:
    """All orientations with the same nodes, by the proper rotations of the lattice; the first is U itself."""
    # Q = U B hkl = U' B W hkl, so that U' = U B W⁻¹ A.
    rotations = [w for w in lattice.hkl_operations if np.linalg.det(w) > 0]
    return [Equivalent(w, nearest_rotation(U @ cell.B @ np.linalg.inv(w) @ cell.A)) for w in rotations]


def angle_between(first: Array, second: Array) -> float:
    """Degrees by which one orientation is turned against the other."""
    return float(np.rad2deg(np.arccos(np.clip((np.trace(first.T @ second) - 1) / 2, -1, 1))))


def turn_of(first: Array, second: Array) -> tuple[float, Array]:
    """Angle (degrees) and axis (unit vector in the crystal frame of the first) from one orientation to another."""
    from scipy.spatial.transform import Rotation

    vector = Rotation.from_matrix(first.T @ second).as_rotvec()
    angle = float(np.linalg.norm(vector))
    return float(np.rad2deg(angle)), np.asarray(vector / angle if angle else [0.0, 0.0, 1.0])


def inequivalent(found: list[Equivalent], laue: PointGroup) -> list[Equivalent]:
    """Of orientations with the same nodes, one of each class that the crystal's own symmetry does not make equal.

    The class of the first is left out.
    """
    own = {_key(w) for w in laue.hkl_operations} | {_key(-w) for w in laue.hkl_operations}
    others: list[Equivalent] = []
    for one in found:
        before = [np.eye(3, dtype=np.int64), *(other.hkl_operation for other in others)]
        # W and W' are one class if W' W⁻¹ is an operation of the crystal.
        if not any(_key(np.rint(one.hkl_operation @ np.linalg.inv(w))) in own for w in before):
            others.append(one)
    return others


def describe_turn(operation: npt.NDArray[np.int64]) -> str:
    """An operation on hkl as people write it: −h −k l."""
    terms = []
    for row in operation:
        parts = [
            f"{'-' if n < 0 else '+'}{'' if abs(n) == 1 else abs(n)}{x}" for n, x in zip(row, "hkl", strict=True) if n
        ]
        terms.append("".join(parts).removeprefix("+"))
    return ", ".join(terms)


def _key(operation: npt.NDArray[np.int64] | Array) -> bytes:
    return np.asarray(operation, dtype=np.int64).tobytes()
