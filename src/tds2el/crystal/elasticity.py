"""The structure of the elastic tensor: which constants are free, and how the others follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el import _core
from tds2el.crystal.centring import lattice_letter
from tds2el.crystal.frames import rotate
from tds2el.crystal.operations import cartesian_generators
from tds2el.crystal.symmetry import PointGroup, maps_lattice


@dataclass(frozen=True, eq=False)
class TensorStructure:
    """The tensors that a point group leaves invariant, C = Σ p_k basis_k, in the crystal frame."""

    #: The free constants, "A11" and so on, in the order A11 … A66 A12 A13 … A56.
    names: list[str]
    #: The tensor that each constant multiplies, Voigt (k, 6, 6).
    basis: npt.NDArray[np.float64]

    def tensor(self, constants: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The tensor (6, 6) with these values of the free constants (k,)."""
        return np.tensordot(np.asarray(constants, dtype=np.float64), self.basis, axes=1)

    def constants(self, tensor: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The free constants (k,), read off a tensor (6, 6) that has this structure."""
        rows = [int(name[1]) - 1 for name in self.names]
        columns = [int(name[2]) - 1 for name in self.names]
        return np.asarray(tensor, dtype=np.float64)[rows, columns]

    def text(self) -> str:
        """The 6×6 structure: `1.000000 A11`, `1.000000 A11 + -2.000000 A66` and so on, blank where zero."""
        cells = [[self._combination(i, j) for j in range(6)] for i in range(6)]
        widths = [max(len(row[j]) for row in cells) for j in range(6)]
        lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
        return "\n".join(line.rstrip() for line in lines)

    def _combination(self, i: int, j: int) -> str:
        terms = zip(self.basis[:, i, j], self.names, strict=True)
        return " + ".join(f"{factor:.6f} {name}" for factor, name in terms if factor != 0.0)


def tensor_structure(group: PointGroup, tolerance: float = 1e-6) -> TensorStructure:
    """The structure of the elastic tensor of a crystal.

    Parameters
    ----------
    group : PointGroup
    tolerance : float
        Coefficients below it are zero.
    """
    free, basis = _core.reduce_elastic_tensor(group.operations, tolerance)
    return TensorStructure([f"A{i + 1}{j + 1}" for i, j in free], basis)


def indexing_notes(group: PointGroup, structure: TensorStructure) -> Sequence[str]:
    """One line for each turn of the axes by 180° that maps the cell but not the crystal onto itself.

    The positions of the Bragg peaks cannot tell the two ways of indexing apart (on a centred lattice the
    absences may), and the constants change sign between them: A14 and A15 of trigonal crystals, A16 in 4/m,
    and more where a lattice is accidentally of higher symmetry than the crystal.
    """
    notes: dict[tuple[str, ...], str] = {}
    letter = lattice_letter(group.centring)
    for turn, axis in (("2(z)", "z"), ("2(y)", "y"), ("2(x)", "x"), ("2(110)", "x + y")):
        rotation = cartesian_generators(turn)[0]
        on_hkl = group.cell.A @ rotation @ group.cell.B
        if np.abs(on_hkl - np.rint(on_hkl)).max() > 1e-6:
            continue
        turned = [structure.constants(rotate(tensor, rotation)) for tensor in structure.basis]
        flipped = tuple(
            name for n, (name, values) in enumerate(zip(structure.names, turned, strict=True)) if values[n] < -0.5
        )
        if flipped and flipped not in notes:
            which = " and ".join([", ".join(flipped[:-1]), flipped[-1]] if len(flipped) > 1 else flipped)
            told_apart = not maps_lattice(np.rint(on_hkl).astype(np.int64)[None], letter)
            notes[flipped] = f"The sign of {which} belongs to the indexing: " + (
                f"turned by 180° about {axis} it is the other; only the absences of {letter} tell."
                if told_apart
                else f"the same lattice turned by 180° about {axis} fits equally well with the other sign."
            )
    return list(notes.values())
