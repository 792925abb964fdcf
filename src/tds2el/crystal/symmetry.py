"""The point group of the crystal: its operations on vectors and on hkl, and the cell that it allows."""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el import _core
from tds2el.crystal.cell import CELL_OPTIONS, Cell, cell_from_metric
from tds2el.crystal.centring import allowed, lattice_letter
from tds2el.crystal.operations import (
    MONOCLINIC_NAMES,
    cartesian_generators,
    is_generators,
    named_operations,
)
from tds2el.errors import InputError

# How far a refined cell may be from the symmetry and still be taken for it.
_LENGTH_TOLERANCE = 0.005  # relative
_ANGLE_TOLERANCE = 0.3  # degrees
# Deviations below these, relative and in degrees, are rounding and not worth a word.
_LENGTH_ROUNDING = 1e-9
_ANGLE_ROUNDING = 1e-7


@dataclass(frozen=True, eq=False)
class PointGroup:
    """A point group in the crystal frame (a* ∥ x, c ∥ z) of its lattice."""

    #: As the user gave it: generators or the name of a point group.
    name: str
    #: Cartesian, active (n, 3, 3); the identity comes first.
    operations: npt.NDArray[np.float64]
    #: hkl' = W hkl for columns hkl, W = A R A⁻¹ (n, 3, 3), in the order of `operations`.
    hkl_operations: npt.NDArray[np.int64]
    #: The cell, symmetrised where the given one missed the symmetry a little.
    cell: Cell
    #: "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal", "hexagonal" or "cubic".
    system: str
    #: The lattice, as given: a letter, the symbol of a space group, or None for not known.
    centring: str | None


def point_group(generators_or_symbol: str, cell: Cell, centring: str | None) -> PointGroup:
    """The point group that generators such as "1~,3(z),2(y)", or a name such as "-3m1", mean for this cell.

    A cell that misses the symmetry by up to 0.5 % in lengths and 0.3° in angles is symmetrised, with a
    warning.

    Parameters
    ----------
    generators_or_symbol : str
        The option ascii_generators, see `operations.cartesian_generators` and `operations.named_operations`.
    cell : Cell
    centring : str or None
        P A B C I F R or a space-group symbol.

    Raises
    ------
    InputError
        If the text is not understood, does not fix the orientation or makes no crystallographic point group,
        or if the cell or the centring does not have this symmetry; the message names the parameter and what
        fits.
    """
    name = generators_or_symbol.strip()
    letter = lattice_letter(centring)
    if is_generators(name):
        try:
            cartesian = _core.close_group(cartesian_generators(name))
        except ValueError as error:
            raise InputError(f'ascii_generators = "{name}": {error}; correct it') from None
        system = crystal_system(cartesian)
        on_hkl = _integer_operations(cartesian, cell)
        if on_hkl is None:  # far off: take the operations of the cell that was meant, to name what differs
            on_hkl = _integer_operations(cartesian, _ideal_cell(cell, system))
        if on_hkl is None:
            raise InputError(
                f'ascii_generators = "{name}": the operations (in axes a* ∥ x, c ∥ z) do not map the lattice '
                f"of {_describe(cell)} onto itself; correct the generators or the cell"
            )
    else:
        on_hkl = named_operations(name, letter == "R")
        on_hkl = on_hkl[np.argsort(~(on_hkl == np.eye(3, dtype=np.int64)).all(axis=(1, 2)), kind="stable")]
    repaired = _symmetrised(cell, on_hkl, name)
    of_lattice = repaired.B @ on_hkl @ repaired.A
    if is_generators(name):
        if np.abs(of_lattice - cartesian).max() > 1e-6:
            raise InputError(
                f'ascii_generators = "{name}": the operations do not lie along the axes a* ∥ x, c ∥ z of '
                f"{_describe(cell)}; correct the generators or the cell"
            )
    else:
        cartesian, system = of_lattice, crystal_system(of_lattice)
    if not maps_lattice(on_hkl, letter):
        raise InputError(
            f'ascii_generators = "{name}" does not map a lattice with centring {letter} onto itself; correct one'
        )
    return PointGroup(name, cartesian, on_hkl, repaired, system, centring)


def with_replicas(hkl: npt.ArrayLike, group: PointGroup) -> npt.NDArray[np.int64]:
    """Reflections and everything equivalent to them.

    Parameters
    ----------
    hkl : int array (n, 3)
    group : PointGroup

    Returns
    -------
    int array (m, 3)
        Each reflection once: those given, in their order, then the others in ascending order.
    """
    given = np.asarray(hkl, dtype=np.int64).reshape(-1, 3)
    first = np.sort(np.unique(given, axis=0, return_index=True)[1])
    images = np.unique((given[first] @ group.hkl_operations.transpose(0, 2, 1)).reshape(-1, 3), axis=0)
    new = ~(images[:, None] == given[first][None]).all(axis=2).any(axis=1)
    return np.concatenate([given[first], images[new]])


def crystal_system(operations: npt.NDArray[np.float64]) -> str:
    """The crystal system of Cartesian operations (n, 3, 3), from the axes of their rotational parts."""
    proper = np.linalg.det(operations).round()[:, None, None] * operations
    proper = np.unique(proper.round(6) + 0.0, axis=0)
    traces = np.trace(proper, axis1=1, axis2=2).round().astype(int)
    two_fold, three_fold, four_fold, six_fold = ((traces == t).sum() for t in (-1, 0, 1, 2))
    if three_fold > 2:
        return "cubic"
    if six_fold:
        return "hexagonal"
    if three_fold:
        return "trigonal"
    if four_fold:
        return "tetragonal"
    return {0: "triclinic", 1: "monoclinic"}.get(int(two_fold), "orthorhombic")


def maps_lattice(hkl_operations: npt.NDArray[np.int64], letter: str) -> bool:
    """Whether operations on hkl (n, 3, 3) take allowed nodes of the lattice P A B C I F R to allowed ones."""
    nodes = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    nodes = nodes[allowed(nodes, letter)]
    return bool(all(allowed(nodes @ w.T, letter).all() for w in hkl_operations))


def _integer_operations(cartesian: npt.NDArray[np.float64], cell: Cell) -> npt.NDArray[np.int64] | None:
    """W = A R A⁻¹ rounded to integers, or None where these are not a group of the same structure."""
    w = np.rint(cell.A @ cartesian @ cell.B).astype(np.int64)
    index = {matrix.tobytes(): n for n, matrix in enumerate(w)}
    if len(index) < len(w):
        return None
    # Integers are right only if they multiply as the Cartesian operations do.
    products = np.einsum("mij,njk->mnik", cartesian, cartesian)
    difference = np.abs(products[:, :, None] - cartesian).max(axis=(3, 4))
    which = difference.argmin(axis=2)
    return w if np.array_equal(np.einsum("mij,njk->mnik", w, w), w[which]) else None


def _ideal_cell(cell: Cell, system: str) -> Cell:
    """The conventional cell of a crystal system that lies nearest to a given one."""
    a, b, c = cell.a, cell.b, cell.c
    mean = (a + b) / 2.0
    match system:
        case "trigonal" | "hexagonal":
            return Cell(mean, mean, c, 90.0, 90.0, 120.0)
        case "tetragonal":
            return Cell(mean, mean, c, 90.0, 90.0, 90.0)
        case "cubic":
            mean = (a + b + c) / 3.0
            return Cell(mean, mean, mean, 90.0, 90.0, 90.0)
        case "orthorhombic" | "monoclinic":
            return Cell(a, b, c, 90.0, 90.0, 90.0)
    return cell


def _symmetrised(cell: Cell, hkl_operations: npt.NDArray[np.int64], name: str) -> Cell:
    """The cell with its metric averaged over the group; a warning if it moves, an error if it moves far."""
    # Q is preserved: Wᵀ G* W = G*, hence W G Wᵀ = G for the direct metric.
    mean = (hkl_operations @ cell.metric @ hkl_operations.transpose(0, 2, 1)).mean(axis=0)
    repaired = cell_from_metric(mean)
    given, fitting = np.array(cell.parameters), np.array(repaired.parameters)
    change = np.abs(fitting - given)
    change[:3] /= fitting[:3]
    rounding = np.repeat([_LENGTH_ROUNDING, _ANGLE_ROUNDING], 3)
    if (change < rounding).all():
        return cell
    severity = change / np.repeat([_LENGTH_TOLERANCE, _ANGLE_TOLERANCE], 3)
    if severity.max() > 1.0:
        # Averaging spreads the fault of one parameter over others, which are not worth naming.
        culprits = [n for n in range(6) if severity[n] > 0.5 * severity.max()]
        faults = ", ".join(f"{CELL_OPTIONS[n]} = {given[n]:.6g} where {fitting[n]:.6g} fits" for n in culprits)
        names = MONOCLINIC_NAMES.get(name)
        hint = f' ("{name}" has the unique axis b; "{names[0]}" a, "{names[2]}" c)' if names else ""
        raise InputError(
            f'the cell does not have the symmetry "{name}": {faults}{hint}; correct the cell or ascii_generators'
        )
    changes = ", ".join(
        f"{CELL_OPTIONS[n]} {given[n]:.9g} → {fitting[n]:.9g}" for n in range(6) if change[n] >= rounding[n]
    )
    logging.getLogger("tds2el").warning(
        'the cell misses the symmetry "%s" a little; symmetrised for tensor and equivalent reflections: %s',
        name,
        changes,
    )
    return repaired


def _describe(cell: Cell) -> str:
    return "the cell " + " ".join(f"{o} = {v:g}" for o, v in zip(CELL_OPTIONS, cell.parameters, strict=True))
