"""Scattering to all orders: the transform of exp of the correlations of displacements, in a periodic block of crystal.

With C_ab(R) = <u_a(0) u_b(R)> of the harmonic crystal, which is Gaussian, the diffuse intensity of a cell is exactly
I(Q) = Σ_ab f_a f_b exp(−W_a − W_b) Σ_R [exp(4π² Q·C_ab(R)Q) − 1] exp(−2πi Q·(R + r_b − r_a)) (Warren, X-ray
Diffraction, 1969, ch. 11). The linear term of exp is one-phonon scattering, the others are all that models leave out.
The block leaves out waves longer than itself: beyond one phonon its size is to be varied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tds2el.simulate.lattice.scattering import Scatterer, form_factors_at_rest, mean_products

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """A block of crystal with periodic boundaries.

    Parameters
    ----------
    scatterer : Scatterer
    number : int
        Primitive cells along each of the three edges.
    """

    scatterer: Scatterer
    number: int

    @cached_property
    def waves(self) -> Array:
        """The q that fit in, Å⁻¹ (number, number, number, 3); the first is 0."""
        reciprocal = np.linalg.inv(self.scatterer.lattice.primitive)
        return np.asarray(self._steps @ reciprocal.T / self.number)

    def shell(self, q_min: float, q_max: float) -> Array:
        """The q (n, 3) between two radii, in Å⁻¹ below half of the shortest reciprocal vector."""
        centred = (self._steps + self.number // 2) % self.number - self.number // 2
        q = (centred @ np.linalg.inv(self.scatterer.lattice.primitive).T / self.number).reshape(-1, 3)
        length = np.linalg.norm(q, axis=1)
        return np.asarray(q[(length >= q_min) & (length <= q_max)])

    @cached_property
    def correlations(self) -> Array:
        """C_ab(R) in Å², (cells, atoms, atoms, 3, 3); R in the order of `waves`."""
        lattice, size = self.scatterer.lattice, len(self.scatterer.lattice.masses)
        q = self.waves.reshape(-1, 3)
        products = np.zeros((len(q), 3 * size, 3 * size), dtype=complex)
        # At q = 0 the block moves as a whole, which scatters nothing between Bragg peaks.
        products[1:] = mean_products(lattice, *lattice.modes(q[1:]), self.scatterer.temperature)
        places = np.exp(2j * np.pi * np.repeat(q @ lattice.positions.T, 3, axis=1))
        # <u_b u_a*> with the phases of the places r_b − r_a; a is to be the first index.
        products = (products * places[:, :, None] * places[:, None, :].conj()).transpose(0, 2, 1)
        edges = (self.number,) * 3
        real = np.fft.ifftn(products.reshape(*edges, 3 * size, 3 * size), axes=(0, 1, 2)).real
        return np.asarray(real.reshape(-1, size, 3, size, 3).transpose(0, 1, 3, 2, 4))

    def intensity(self, Q: Array, *, one_phonon: bool = False) -> Array:
        """Diffuse intensity of a cell in the unit of `Scatterer.one_phonon`.

        Parameters
        ----------
        Q : ndarray, shape (n, 3)
            G + q with q among the waves, Å⁻¹.
        one_phonon : bool
            Only the linear term of exp.

        Returns
        -------
        ndarray, shape (n,)
        """
        lattice, size = self.scatterer.lattice, len(self.scatterer.lattice.masses)
        own = self.correlations[0][np.arange(size), np.arange(size)]
        f = form_factors_at_rest(lattice, Q)
        f = f * np.exp(-2 * np.pi**2 * np.einsum("ni,aij,nj->na", Q, own, Q))
        flat = self.correlations.reshape(-1, 9)
        places = np.exp(2j * np.pi * (Q @ lattice.positions.T))
        # R·Q is a whole number of 1/number.
        cells = self._steps.reshape(-1, 3)
        found = np.empty(len(Q))
        for n, k in enumerate(np.rint(Q @ lattice.primitive.T * self.number).astype(np.int64)):
            exponent = (4 * np.pi**2 * (flat @ np.outer(Q[n], Q[n]).ravel())).reshape(-1, size * size)
            pairs = exponent if one_phonon else np.expm1(exponent)
            phase = np.exp(-2j * np.pi / self.number * (cells @ k % self.number))
            waves = f[n] * places[n]
            found[n] = ((phase @ pairs) @ np.outer(waves, waves.conj()).ravel()).real
        return found * self._unit

    @property
    def _unit(self) -> float:
        """From |F|² (2πQ)²<uu> of a cell, in electrons², to electrons² per GPa."""
        from scipy import constants

        # (2π)² kT/Mω² = kT/VΓ, in GPa Å³ for V in Å³.
        return float(self.scatterer.lattice.volume / (constants.k * self.scatterer.temperature * 1e21))

    @cached_property
    def _steps(self) -> Integers:
        axis = np.arange(self.number)
        return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
