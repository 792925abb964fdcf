"""The elastic tensor in the frames that people publish in.

The working frame W is a* ∥ x, c ∥ z. The standard frame P is that of IEEE Std 176-1987, without relabelling
of axes.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import PointGroup

Vector = npt.NDArray[np.float64]

_FIRST = np.array([0, 1, 2, 1, 0, 0])
_SECOND = np.array([0, 1, 2, 2, 2, 1])


@dataclass(frozen=True, eq=False)
class FrameBlock:
    """An elastic tensor in one frame, as it is shown to the user."""

    #: For example "Standard frame P (IEEE 1987)".
    title: str
    #: The axes in words, for example "x ∥ a, y ∥ b*, z ∥ c".
    axes: str
    #: Rows are the axes x, y, z of this frame in the working frame (3, 3): v' = R v.
    rotation: npt.NDArray[np.float64]
    #: The tensor in this frame, Voigt (6, 6), in the unit of the one given.
    tensor: npt.NDArray[np.float64]


def rotate(tensor: npt.ArrayLike, rotation: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A stiffness, Voigt (6, 6), in the axes that are rows of `rotation` (3, 3): C' = M C Mᵀ (Bond 1943)."""
    r = np.asarray(rotation, dtype=np.float64)
    i, j, k, m = _FIRST[:, None], _SECOND[:, None], _FIRST[None], _SECOND[None]
    bond = r[i, k] * r[j, m] + np.where(k == m, 0.0, r[i, m] * r[j, k])
    turned = bond @ np.asarray(tensor, dtype=np.float64) @ bond.T
    turned[np.abs(turned) < 1e-13 * np.abs(turned).max()] = 0.0  # rounding, which would print as -0.0
    return np.asarray(turned)


def standard_frame(tensor: npt.ArrayLike, group: PointGroup) -> list[FrameBlock]:
    """The tensor in the frames W and P, and relabelled where the cell breaks IEEE's order of the axes.

    Parameters
    ----------
    tensor : (6, 6) in the working frame
    group : PointGroup
        Its symmetrised cell and its operations give the axes.

    Returns
    -------
    list of FrameBlock: W, P and, for an orthorhombic cell without c < a < b, the relabelled axes
    """
    cell = group.cell
    c = np.asarray(tensor, dtype=np.float64)
    blocks = [FrameBlock("Working frame W", _axes_in_words(np.eye(3), cell), np.eye(3), c.copy())]
    rotation = _standard_axes(group)
    blocks.append(
        FrameBlock("Standard frame P (IEEE 1987)", _axes_in_words(rotation, cell), rotation, rotate(c, rotation))
    )
    along_axes = group.system == "orthorhombic" and np.array_equal(rotation, np.eye(3))
    if along_axes and not cell.c <= cell.a <= cell.b:
        relabelling = _relabelling(cell)
        new = ", ".join(f"{label}' = {'abc'[n]}" for label, n in zip("abc", _ieee_order(cell), strict=True))
        blocks.append(
            FrameBlock(
                f"Axes relabelled so that c' < a' < b' (IEEE 1987): {new}",
                _axes_in_words(relabelling, cell),
                relabelling,
                rotate(c, relabelling),
            )
        )
    return blocks


def _standard_axes(group: PointGroup) -> npt.NDArray[np.float64]:
    cell = group.cell
    a, _, c = cell.A
    match group.system:
        case "triclinic":
            return _right_handed(y=cell.B[:, 1], z=c)
        case "monoclinic":
            unique = _lattice_direction(_two_fold_axes(group)[0], cell)
            across = [axis for axis in cell.A if _perpendicular(axis, unique)]
            return _right_handed(y=unique, z=min(across, key=lambda axis: float(np.linalg.norm(axis))))
        case "trigonal" | "hexagonal":
            if np.isclose(np.abs(group.operations[:, 2, 2]), 1.0).all():
                return _right_handed(y=np.cross(c, a), z=c)
            # Three-fold axis along [111], as "3(111)" on a cell with three equal angles.
            return _right_handed(y=np.cross(cell.A.sum(axis=0), a - cell.A[1]), z=cell.A.sum(axis=0))
        case "orthorhombic":
            axes = _two_fold_axes(group)
            if not all(np.isclose(np.abs(axis).max(), 1.0) for axis in axes):
                # "2(110),2(z)": the axes lie on the diagonals of a square.
                return _right_handed(y=np.array([-1.0, 1.0, 0.0]), z=np.array([0.0, 0.0, 1.0]))
    return np.eye(3)


def _two_fold_axes(group: PointGroup) -> list[Vector]:
    """Unit vectors along the two-fold axes and the normals of mirrors, each once."""
    axes: list[Vector] = []
    for operation in group.operations:
        proper = operation * np.linalg.det(operation)
        if not np.isclose(np.trace(proper), -1.0):
            continue
        projector = (proper + np.eye(3)) / 2.0  # a two-fold rotation is 2 n nᵀ − 1
        axis = projector[:, np.argmax(np.diag(projector))]
        axis = axis / np.linalg.norm(axis)
        if not any(np.isclose(abs(axis @ known), 1.0) for known in axes):
            axes.append(axis)
    return axes


def _lattice_direction(axis: Vector, cell: Cell) -> Vector:
    """The axis with the sense of a, b or c where it is parallel to one of them."""
    for edge in cell.A:
        if _parallel(edge, axis):
            return np.asarray(edge)
    return axis


def _right_handed(y: Vector, z: Vector) -> npt.NDArray[np.float64]:
    """Rows x, y, z from perpendicular y and z of any length."""
    y, z = y / np.linalg.norm(y), z / np.linalg.norm(z)
    rows = np.array([np.cross(y, z), y, z])
    rows[np.abs(rows) < 1e-15] = 0.0
    return rows


def _parallel(u: Vector, v: Vector) -> bool:
    return bool(np.linalg.norm(np.cross(u, v)) < 1e-6 * np.linalg.norm(u) * np.linalg.norm(v))


def _perpendicular(u: Vector, v: Vector) -> bool:
    return bool(abs(u @ v) < 1e-6 * np.linalg.norm(u) * np.linalg.norm(v))


def _ieee_order(cell: Cell) -> tuple[int, int, int]:
    """Which of a, b, c become a', b', c' with c' < a' < b'."""
    shortest, middle, longest = sorted(range(3), key=lambda n: cell.parameters[n])
    return middle, longest, shortest


def _relabelling(cell: Cell) -> npt.NDArray[np.float64]:
    """The rotation to a', b', c'; an odd permutation also turns y round, which mmm does not see."""
    rows = np.eye(3)[list(_ieee_order(cell))]
    rows[1] *= round(np.linalg.det(rows))
    return rows


def _axes_in_words(rotation: npt.NDArray[np.float64], cell: Cell) -> str:
    named = [_direction(axis, cell) for axis in rotation]
    products = ("y × z", "z × x", "x × y")
    return ", ".join(
        f"{label} ∥ {name}" if name else f"{label} = {product_}"
        for label, name, product_ in zip("xyz", named, products, strict=True)
    )


def _direction(axis: Vector, cell: Cell) -> str | None:
    """An edge of the cell or of the reciprocal cell, or a small [uvw], that points along `axis`."""
    edges = [*zip("abc", cell.A, strict=True), *zip(("a*", "b*", "c*"), cell.B.T, strict=True)]
    for name, edge in edges:
        if _parallel(edge, axis):
            return name if edge @ axis > 0.0 else f"−{name}"
    for uvw in product((0, 1, -1), repeat=3):
        edge = np.array(uvw) @ cell.A
        if any(uvw) and _parallel(edge, axis) and edge @ axis > 0.0:
            return f"[{uvw[0]} {uvw[1]} {uvw[2]}]"
    return None
