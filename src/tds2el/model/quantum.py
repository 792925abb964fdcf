"""The Bose factor without eigenvectors.

With a = ρ(2πkT/ħ)², S = Σ_j (Q·e_j)² coth(ħω_j/2kT)/ω_j is, up to a constant factor and exactly,
Σ_n Qᵀ(Γ + n²a)⁻¹Q over all integers n: the partial fractions of coth. The sum is cut at |n| = N; what is left is
2 Σ_{k<3} (−1)^k ζ(2k+2, N+1) QᵀΓᵏQ / a^{k+1} with the Hurwitz ζ, and the first neglected term bounds the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import constants
from scipy.special import zeta

from tds2el.errors import InputError
from tds2el.model.christoffel import christoffel
from tds2el.model.dispersion import quartic

Array = npt.NDArray[np.float64]

TAIL_TERMS = 3
MAX_TERMS = 20_000
"""Most explicit terms of the sum: 5 K needs up to 1000, and more would run for hours."""


@dataclass(frozen=True)
class QuantumSum:
    """Where the sum over n is cut, and the coefficients of its tail.

    Attributes
    ----------
    a : float
        ρ(kT/ħ)² in GPa Å⁻²: the (2π)² is taken out as in Γ.
    n_max : int
    tail : tuple of 3 float
        t_k in Σ_k t_k QᵀΓᵏQ.
    """

    a: float
    n_max: int
    tail: tuple[float, float, float]


def thermal_stiffness(temperature: float, density: float) -> float:
    """a = ρ(kT/ħ)² in GPa Å⁻² from K and g/cm³."""
    rate = constants.k * temperature / constants.hbar
    return float(density * 1e3 * rate**2 * 1e-9 * 1e-20)


def quantum_sum(
    tensor: Array,
    q_max: float,
    temperature: float,
    density: float,
    tolerance: float,
    dispersion: Array | None = None,
) -> QuantumSum:
    """Cut the sum over n so that S is right to `tolerance` (relative) for all |q| ≤ q_max.

    Parameters
    ----------
    tensor : ndarray, shape (6, 6)
        GPa, positive definite.
    q_max : float
        Å⁻¹.
    temperature, density : float
        K and g/cm³.
    tolerance : float
    dispersion : ndarray, shape (6, 15), optional
        T, GPa Å²; see `tds2el.model.dispersion`.

    Raises
    ------
    InputError
        If that takes more than `MAX_TERMS` terms.
    """
    a = thermal_stiffness(temperature, density)

    def neglected(stiffest: float, n_max: int) -> float:
        return float(2 * zeta(2 * TAIL_TERMS + 2, n_max + 1) * (stiffest * q_max**2 / a) ** (TAIL_TERMS + 1))

    n_max = 0
    # At room temperature the tail alone does, which a bound that costs nothing shows.
    if dispersion is not None or neglected(_stiffness_bound(tensor), 0) > tolerance:
        stiffest = largest_stiffness(tensor, dispersion, q_max)
        while neglected(stiffest, n_max) > tolerance:
            n_max += 1
            if n_max > MAX_TERMS:
                raise InputError(
                    f"Temperature = {temperature:g} K with density = {density:g} g/cm³ and constants up to "
                    f"{np.abs(tensor).max():.3g} GPa: the quantum correction is out of reach; correct the wrong one"
                )
    t0, t1, t2 = (2 * (-1) ** k * float(zeta(2 * k + 2, n_max + 1)) / a ** (k + 1) for k in range(TAIL_TERMS))
    return QuantumSum(a, n_max, (t0, t1, t2))


def largest_stiffness(tensor: Array, dispersion: Array | None = None, q_max: float = 0.0) -> float:
    """Largest eigenvalue of (Γ + T)/q² up to q_max, in GPa, to a few per cent on the safe side."""
    q = directions()
    gamma = christoffel(tensor, q)
    largest = np.linalg.eigvalsh(gamma).max()
    if dispersion is not None and dispersion.any():
        largest = max(largest, np.linalg.eigvalsh(gamma + q_max**2 * quartic(dispersion, q)).max())
    return 1.02 * float(largest)


def directions() -> Array:
    """Unit vectors (n, 3) over half a sphere, some four degrees apart."""
    z = np.linspace(0, 1, 24)[:, None]
    azimuth = np.arange(0, 2 * np.pi, np.pi / 24)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z + 0 * azimuth], axis=-1).reshape(-1, 3)


def _stiffness_bound(tensor: Array) -> float:
    """Upper bound of `largest_stiffness`: Kelvin's largest eigenvalue, since strains of unit vectors are at most 1."""
    root = np.sqrt([1.0, 1, 1, 2, 2, 2])
    return float(np.linalg.eigvalsh(tensor * np.outer(root, root))[-1])


def quantum_term(tensor: Array, q_max: float, temperature: float, density: float) -> float:
    """x coth x − 1 of the stiffest mode at q_max: how far the sum is from its classical term n = 0."""
    x = np.pi * np.sqrt(largest_stiffness(tensor) * q_max**2 / thermal_stiffness(temperature, density))
    return float(x / np.tanh(x) - 1)
