"""Born-von Kármán lattices of central springs at natural length: dynamical matrix and elastic constants.

A bond with the stiffness k along the unit vector n costs ½k(n·(u_b − u_a))². Since no spring is under tension, the
crystal is free of initial stress and its long-wave limit is elasticity (Born & Huang, Dynamical Theory of Crystal
Lattices, 1954). Nothing here is shared with `tds2el.model`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Integers = npt.NDArray[np.int64]

# Fractional coordinates that differ less are one position.
_SAME = 1e-6
# GPa in a stiffness of 1 N/m per Å.
_GPA = 10.0
# Most entries of the dynamical matrices that are worked on at once.
_ENTRIES = 1 << 22


@dataclass(frozen=True)
class Site:
    """An atom of the asymmetric unit: symbol of the element, fractional coordinates."""

    element: str
    position: tuple[float, float, float]


@dataclass(frozen=True)
class Spring:
    """Springs between all pairs of two elements whose distance lies between two limits in Å; stiffness in N/m."""

    elements: tuple[str, str]
    shortest: float
    longest: float
    stiffness: float


@dataclass(frozen=True)
class Bonds:
    """All springs that begin at the atoms of one primitive cell; each is here once from either end.

    Attributes
    ----------
    first, second : ndarray of int, shape (n,)
        The atoms at the ends, as numbers in the primitive cell.
    vector : ndarray, shape (n, 3)
        From the first to the second, Å.
    stiffness : ndarray, shape (n,)
        N/m.
    """

    first: Integers
    second: Integers
    vector: Array
    stiffness: Array


@dataclass(frozen=True)
class SpringLattice:
    """A crystal of atoms and springs, in the crystal frame a* ∥ x, c ∥ z.

    Parameters
    ----------
    name : str
    cell : Cell
        The conventional one.
    space_group : str
        Its symbol, as gemmi knows it: allowed nodes, and what it makes of the sites.
    point_group : str
        As `ascii_generators` takes it.
    sites : sequence of Site
    springs : sequence of Spring
    """

    name: str
    cell: Cell
    space_group: str
    point_group: str
    sites: Sequence[Site]
    springs: Sequence[Spring]

    @cached_property
    def centring(self) -> Array:
        """Lattice translations within the conventional cell, fractional (m, 3)."""
        operations, unit = self._operations
        return np.asarray(np.array(operations.cen_ops, dtype=float) / unit)

    @cached_property
    def _atoms(self) -> tuple[list[str], Array]:
        operations, _ = self._operations
        elements: list[str] = []
        fractional: list[Array] = []
        for site in self.sites:
            for operation in operations.sym_ops:
                image = np.array(operation.apply_to_xyz(list(site.position)))
                if not any(self._same(image, other) for other in fractional):
                    elements.append(site.element)
                    fractional.append(image)
        return elements, np.array(fractional)

    @property
    def elements(self) -> list[str]:
        """Of the atoms of the primitive cell."""
        return self._atoms[0]

    @cached_property
    def positions(self) -> Array:
        """Of the same atoms, Å (n, 3)."""
        return np.asarray(self._atoms[1] @ self.cell.A)

    @cached_property
    def masses(self) -> Array:
        """Of the same atoms, u (n,)."""
        import gemmi

        return np.array([gemmi.Element(element).weight for element in self.elements])

    @cached_property
    def primitive(self) -> Array:
        """Rows: three short vectors that span the lattice, Å (3, 3)."""
        steps = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), -1).reshape(-1, 3)
        vectors = (steps[:, None] + self.centring).reshape(-1, 3) @ self.cell.A
        vectors = vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")][1:]
        for third in range(2, len(vectors)):
            for first, second in combinations(range(third), 2):
                basis = vectors[[first, second, third]]
                if np.isclose(abs(np.linalg.det(basis)), self.volume):
                    return np.asarray(basis)
        raise AssertionError("a lattice has a basis among its short vectors")

    @cached_property
    def volume(self) -> float:
        """Of the primitive cell, Å³."""
        return float(np.linalg.det(self.cell.A)) / len(self.centring)

    @property
    def density(self) -> float:
        """g/cm³."""
        from scipy import constants

        return float(self.masses.sum() * constants.atomic_mass * 1e3 / (self.volume * 1e-24))

    @cached_property
    def bonds(self) -> Bonds:
        """The springs of a primitive cell."""
        reach = max(spring.longest for spring in self.springs)
        # Lattice planes are 1/|a*| apart, and atoms at most two cells beyond their own.
        counts = np.ceil(reach * np.linalg.norm(self.cell.B, axis=0)).astype(int) + 2
        cells = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in counts], indexing="ij"), -1).reshape(-1, 3)
        translations = (cells[:, None] + self.centring).reshape(-1, 3) @ self.cell.A
        found: list[tuple[Integers, Integers, Array, Array]] = []
        for a, b in np.ndindex(len(self.elements), len(self.elements)):
            vector = self.positions[b] - self.positions[a] + translations
            length = np.linalg.norm(vector, axis=1)
            for spring in self.springs:
                if {self.elements[a], self.elements[b]} == set(spring.elements):
                    near = vector[(length >= spring.shortest) & (length <= spring.longest)]
                    n = len(near)
                    found.append((np.full(n, a), np.full(n, b), near, np.full(n, spring.stiffness)))
        return Bonds(*(np.concatenate(column) for column in zip(*found, strict=True)))

    @cached_property
    def tensor(self) -> Array:
        """The elastic tensor C, GPa (6, 6), from the springs alone.

        A strain ε moves the ends of a bond r apart by n·εr + n·(w_b − w_a), where the sublattices are free to move by
        w. With s = (n_x², n_y², n_z², n_y n_z, n_x n_z, n_x n_y) the energy of a cell is
        ½Σ k (|r| s·ε + n·(w_b − w_a))²; its minimum over w is ½Vε·Cε (Born & Huang, §27: the inner elasticity).
        """
        bonds = self.bonds
        length = np.linalg.norm(bonds.vector, axis=1)
        n = bonds.vector / length[:, None]
        lengthened = length[:, None] * np.stack(
            [n[:, 0] ** 2, n[:, 1] ** 2, n[:, 2] ** 2, n[:, 1] * n[:, 2], n[:, 0] * n[:, 2], n[:, 0] * n[:, 1]], axis=1
        )
        ends = np.zeros((len(length), len(self.masses), 3))
        each = np.arange(len(length))
        # Both ends may be one sublattice, which then does not matter.
        np.add.at(ends, (each, bonds.second), n)
        np.add.at(ends, (each, bonds.first), -n)
        moved = ends.reshape(len(length), -1)
        # Every bond is there twice.
        weight = bonds.stiffness[:, None] / 2
        rigid, inner = lengthened.T @ (weight * lengthened), moved.T @ (weight * moved)
        coupling = moved.T @ (weight * lengthened)
        # Moving all sublattices alike costs nothing: three eigenvalues of `inner` are zero.
        relaxed = coupling.T @ np.linalg.pinv(inner, rcond=1e-10, hermitian=True) @ coupling
        return np.asarray(_GPA * (rigid - relaxed) / self.volume)

    def dynamical_matrix(self, q: Array) -> Complex:
        """D(q) = Σ over springs, in N/m per u, with phases exp(2πi q·(r_b − r_a)) of the atoms' own places.

        Parameters
        ----------
        q : ndarray, shape (n, 3)
            Å⁻¹, without 2π.

        Returns
        -------
        ndarray, shape (n, 3 atoms, 3 atoms)
            Hermitian; its eigenvalues are ω².
        """
        own, couplings = self._force_constants
        phase = 2 * np.pi * (q @ self.bonds.vector.T)
        flat = couplings.reshape(len(couplings), -1)
        matrix = np.cos(phase) @ flat + 1j * (np.sin(phase) @ flat)
        return np.asarray(own - matrix.reshape(len(q), *own.shape))

    @property
    def block(self) -> int:
        """How many q are worked on at once, so that their matrices stay small."""
        return max(1, _ENTRIES // (3 * len(self.masses)) ** 2)

    def modes(self, q: Array) -> tuple[Array, Complex]:
        """ω² (n, m) in N/m per u and eigenvectors, in columns, (n, m, m) of all branches at q (n, 3) in Å⁻¹."""
        size, block = 3 * len(self.masses), self.block
        squares, vectors = np.empty((len(q), size)), np.empty((len(q), size, size), dtype=complex)
        for start in range(0, len(q), block):
            part = slice(start, start + block)
            squares[part], vectors[part] = np.linalg.eigh(self.dynamical_matrix(q[part]))
        return squares, vectors

    def zone(self, number: int) -> Array:
        """A uniform grid of q over whole Brillouin zones that avoids the centre, (n, 3) in Å⁻¹.

        Parameters
        ----------
        number : int
            Of points along each of a*, b*, c*, or of multiples of these where the lattice is centred.
        """
        _, unit = self._operations
        steps = np.rint(self.centring * unit).astype(int).ravel()
        # D(q) comes again after so many a*, b*, c*.
        period = unit // math.gcd(unit, *steps.tolist())
        grid = (np.stack(np.meshgrid(*[np.arange(number)] * 3, indexing="ij"), -1).reshape(-1, 3) + 0.5) / number
        return np.asarray(period * grid @ self.cell.B.T)

    @cached_property
    def _force_constants(self) -> tuple[Array, Array]:
        """What D has of each atom's own (3n, 3n), and of each bond before its phase (bonds, 3n, 3n)."""
        bonds, size = self.bonds, len(self.masses)
        n = bonds.vector / np.linalg.norm(bonds.vector, axis=1, keepdims=True)
        k = bonds.stiffness[:, None, None] * n[:, :, None] * n[:, None, :]
        own = np.zeros((size, size, 3, 3))
        np.add.at(own, (bonds.first, bonds.first), k / self.masses[bonds.first, None, None])
        couplings = np.zeros((len(k), size, size, 3, 3))
        root = np.sqrt(self.masses[bonds.first] * self.masses[bonds.second])
        couplings[np.arange(len(k)), bonds.first, bonds.second] = k / root[:, None, None]
        return (
            own.transpose(0, 2, 1, 3).reshape(3 * size, 3 * size),
            couplings.transpose(0, 1, 3, 2, 4).reshape(-1, 3 * size, 3 * size),
        )

    @cached_property
    def _operations(self):  # type: ignore[no-untyped-def]  # gemmi is imported where it is needed
        import gemmi

        return gemmi.SpaceGroup(self.space_group).operations(), gemmi.Op.DEN

    def _same(self, one: Array, other: Array) -> bool:
        apart = one - other - self.centring
        return bool((np.abs(apart - np.rint(apart)) < _SAME).all(axis=1).any())
