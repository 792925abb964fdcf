"""One-phonon scattering of a spring lattice, from all branches of its exact dynamics.

I(Q) = Σ_j |Σ_a f_a exp(−W_a) exp(2πi G·r_a) (Q·e_aj)* /√m_a|² coth(ħω_j/2kT)/ω_j with Q = G + q and the modes of q
(Willis & Pryor, Thermal Vibrations in Crystallography, 1975). It is scaled so that it tends to |F(G)|² S, with S of
`docs/physics.md` in 1/GPa, where q → 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import constants

from tds2el.simulate.lattice.springs import SpringLattice

Array = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]

# ω² in s⁻² of 1 N/m per u.
_SQUARE = 1 / constants.atomic_mass
# N/m in 1 GPa Å.
_STIFFNESS = 0.1
# Points of the zone along each axis: 8 give <u u> to some per cent, which is all that the Debye-Waller factor needs.
_ZONE = 8


@dataclass(frozen=True)
class Scatterer:
    """A spring lattice in a beam, at a temperature.

    Parameters
    ----------
    lattice : SpringLattice
    temperature : float
        K.
    """

    lattice: SpringLattice
    temperature: float

    @cached_property
    def displacements(self) -> Array:
        """Mean products of displacements <u u> of each atom, Å² (n, 3, 3), averaged over a grid of the zone."""
        squares, vectors = self.lattice.modes(self.lattice.zone(_ZONE))
        mean = mean_products(self.lattice, squares, vectors, self.temperature).mean(axis=0).real
        n = len(self.lattice.masses)
        return np.stack([mean[3 * a : 3 * a + 3, 3 * a : 3 * a + 3] for a in range(n)])

    def form_factors(self, Q: Array) -> Array:
        """f_a(|Q|) exp(−2π² Q·<uu>Q), electrons (n, atoms), at Q (n, 3)."""
        exponent = 2 * np.pi**2 * np.einsum("ni,aij,nj->na", Q, self.displacements, Q, optimize=True)
        return np.asarray(form_factors_at_rest(self.lattice, Q) * np.exp(-exponent))

    def structure_factors(self, nodes: Array) -> Complex:
        """F(G) in electrons per primitive cell, (n,), at nodes (n, 3) in Å⁻¹."""
        phases = np.exp(2j * np.pi * (nodes @ self.lattice.positions.T))
        return np.asarray(np.sum(self.form_factors(nodes) * phases, axis=1))

    def one_phonon(self, q: Array, node: Array) -> Array:
        """The one-phonon intensity round a node, electrons² per GPa.

        Parameters
        ----------
        q : ndarray, shape (n, 3)
            Q − G in Å⁻¹.
        node : ndarray, shape (3,)
            G in Å⁻¹.

        Returns
        -------
        ndarray, shape (n,)
        """
        intensity: Array = self.one_phonon_round(node[None], q)[0]
        return intensity

    def one_phonon_round(self, nodes: Array, q: Array) -> Array:
        """The same at equal q (n, 3) round several nodes (m, 3), which share the modes: (m, n)."""
        lattice = self.lattice
        found = np.empty((len(nodes), len(q)))
        root = np.sqrt(lattice.masses)
        block = lattice.block
        for start in range(0, len(q), block):
            part = slice(start, start + block)
            squares, vectors = lattice.modes(q[part])
            strength = thermal_strength(squares, self.temperature)
            for number, node in enumerate(nodes):
                Q = node + q[part]
                waves = self.form_factors(Q) * np.exp(2j * np.pi * (lattice.positions @ node)) / root
                vertex = (waves[:, :, None] * Q[:, None, :]).reshape(len(Q), 1, -1)
                amplitude = (vertex.conj() @ vectors)[:, 0]
                found[number, part] = np.sum(np.abs(amplitude) ** 2 * strength, axis=1)
        # 1/Γ of the unit cell: Mω² = (2π)² V Γ.
        return np.asarray((2 * np.pi) ** 2 * _STIFFNESS * lattice.volume * found)


def form_factors_at_rest(lattice: SpringLattice, Q: Array) -> Array:
    """f_a(|Q|), electrons (n, atoms), at Q (n, 3): neutral atoms, International Tables C 6.1.1.4."""
    import gemmi

    squared = np.sum(Q**2, axis=1) / 4  # (sin θ/λ)²
    of_element: dict[str, Array] = {}
    for element in set(lattice.elements):
        table = gemmi.Element(element).it92
        of_element[element] = table.c + np.exp(-np.outer(squared, table.b)) @ np.array(table.a)
    return np.stack([of_element[element] for element in lattice.elements], axis=1)


def mean_products(lattice: SpringLattice, squares: Array, vectors: Complex, temperature: float) -> Complex:
    """<u_a u_b*> of the modes of each q, Å² (n, 3 atoms, 3 atoms): ħ coth(ħω/2kT)/2ω of each, over √(m_a m_b).

    Parameters
    ----------
    lattice : SpringLattice
    squares, vectors : ndarray
        As `SpringLattice.modes` gives them.
    temperature : float
        K.
    """
    # kT/mω² in Å² from ω² in N/m per u.
    scale = constants.k * temperature * 1e20
    root = np.repeat(np.sqrt(lattice.masses), 3)
    weighted = vectors * (scale * thermal_strength(squares, temperature))[:, None, :]
    return np.asarray(weighted @ vectors.conj().transpose(0, 2, 1) / np.outer(root, root))


def thermal_strength(squares: Array, temperature: float) -> Array:
    """x coth x/ω² in u per N/m, with x = ħω/2kT, from ω² in N/m per u."""
    x = constants.hbar * np.sqrt(squares * _SQUARE) / (2 * constants.k * temperature)
    return np.asarray(x / np.tanh(x) / squares)
