"""The structure of the quartic dispersion tensor T_ik,lmnp: which coefficients are free, what follows from them.

T adds T_ik,lmnp q_l q_m q_n q_p to the Christoffel matrix, q in Å⁻¹ without 2π, so that its unit is GPa Å². It is
symmetric in ik and in lmnp, which leaves 6 × 15 = 90 entries, of which a point group leaves few free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import numpy.typing as npt

from tds2el.crystal.symmetry import PointGroup
from tds2el.errors import InputError

Array = npt.NDArray[np.float64]

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
"""ik of the rows: Voigt's order."""
QUARTICS = (
    (0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (0, 0, 1, 1), (0, 0, 2, 2), (1, 1, 2, 2), (0, 0, 0, 1), (0, 0, 0, 2),
    (0, 1, 1, 1), (1, 1, 1, 2), (0, 2, 2, 2), (1, 2, 2, 2), (0, 0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 2),
)  # fmt: skip
"""lmnp of the columns: even powers first, which most groups have, so that free coefficients have plain names."""
MOST_TERMS = 30
"""Free coefficients beyond which the user must choose: columns cost the square of their number."""


@dataclass(frozen=True, eq=False)
class DispersionStructure:
    """The tensors T that a point group leaves invariant, T = Σ p_k basis_k, in the crystal frame."""

    #: The free coefficients, "T11_1122" for T_11,1122 and so on.
    names: list[str]
    #: (k, 6, 15): what each multiplies, as coefficients of the monomials `QUARTICS` in T_ik(q), ik as in `PAIRS`.
    basis: Array

    def coefficients(self, values: npt.ArrayLike) -> Array:
        """Coefficients (6, 15) of T(q) with these values of the free ones (k,), GPa Å²."""
        return np.asarray(np.tensordot(np.asarray(values, dtype=np.float64), self.basis, axes=1))

    def selected(self, terms: Sequence[str] | None) -> "DispersionStructure":
        """The structure with some of its terms; None: all of them.

        Raises
        ------
        InputError
            A term that is not free in this crystal, or more of them than can be fitted.
        """
        if terms is None:
            if len(self.names) > MOST_TERMS:
                raise InputError(
                    f"this crystal has {len(self.names)} terms of dispersion, and at most {MOST_TERMS} are fitted: "
                    "choose them with dispersion_terms; a run without CGUESS lists them"
                )
            return self
        unknown = [name for name in terms if name not in self.names]
        if unknown:
            raise InputError(
                f"dispersion_terms: {', '.join(unknown[:5])} not free in this crystal: choose from "
                f"{', '.join(self.names[:8])}{', …' if len(self.names) > 8 else ''}; a run without CGUESS lists all"
            )
        chosen = [n for n, name in enumerate(self.names) if name in terms]
        if len(chosen) > MOST_TERMS:
            raise InputError(f"dispersion_terms has {len(chosen)} terms: give at most {MOST_TERMS}")
        return DispersionStructure([self.names[n] for n in chosen], self.basis[chosen])


def dispersion_structure(group: PointGroup, tolerance: float = 1e-6) -> DispersionStructure:
    """The structure of the quartic dispersion of a crystal, by projection on the invariants of its point group.

    In the order T11_1111 T11_2222 … each entry that does not depend on earlier ones is free, as for the elastic tensor.

    Parameters
    ----------
    group : PointGroup
    tolerance : float
        Coefficients below it are zero.
    """
    # Row: entry that is given, column: entry of the mean.
    rows = np.mean([turned_entries(operation) for operation in group.operations], axis=0).T
    pivots: list[int] = []
    for column in range(len(rows)):
        rank = len(pivots)
        best = rank + int(np.argmax(np.abs(rows[rank:, column]))) if rank < len(rows) else rank
        if rank == len(rows) or abs(rows[best, column]) < tolerance:
            continue
        rows[[best, rank]] = rows[[rank, best]]
        rows[rank] /= rows[rank, column]
        others = np.arange(len(rows)) != rank
        rows[others] -= np.outer(rows[others, column], rows[rank])
        pivots.append(column)
    entries = rows[: len(pivots)]
    entries = np.where(np.abs(entries) < tolerance, 0.0, entries)
    whole = np.rint(entries)
    entries = np.where(np.abs(entries - whole) < 1e-9, whole, entries)  # rounding of the operations
    names = [_name(*divmod(pivot, len(QUARTICS))) for pivot in pivots]
    return DispersionStructure(names, entries.reshape(-1, len(PAIRS), len(QUARTICS)) * _MULTIPLICITIES)


def turned_entries(rotation: Array) -> Array:
    """How the 90 entries T_ik,lmnp, `PAIRS` × `QUARTICS`, turn with the crystal, (90, 90): T' = R R R R R R T."""
    pairs = np.array([[_symmetric(rotation, left, right) for right in PAIRS] for left in PAIRS])
    fourth = np.kron(np.kron(rotation, rotation), np.kron(rotation, rotation))
    quartics = fourth[_FIRST] @ _CLASSES
    return np.kron(pairs, quartics)


def _symmetric(rotation: Array, left: tuple[int, int], right: tuple[int, int]) -> float:
    (i, k), (a, b) = left, right
    turned = rotation[i, a] * rotation[k, b]
    return float(turned if a == b else turned + rotation[i, b] * rotation[k, a])


def _name(pair: int, quartic: int) -> str:
    left, right = ("".join(str(n + 1) for n in indices) for indices in (PAIRS[pair], QUARTICS[quartic]))
    return f"T{left}_{right}"


_MULTIPLICITIES = np.array([float(len(set(permutations(indices)))) for indices in QUARTICS])
# Of the 81 products q_l q_m q_n q_p: the first of each monomial, and which monomial each of them is.
_FIRST = np.array([np.ravel_multi_index(indices, (3, 3, 3, 3)) for indices in QUARTICS])
_CLASSES = np.array(
    [[tuple(sorted(indices)) == quartic for quartic in QUARTICS] for indices in product(range(3), repeat=4)],
    dtype=float,
)
