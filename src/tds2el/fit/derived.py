"""Quantities that follow from the constants, with their errors by linear propagation of the covariance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tds2el.crystal.frames import rotate
from tds2el.crystal.moduli import universal_anisotropy, voigt_reuss_hill
from tds2el.crystal.thermal import Thermal
from tds2el.fit.result import FitResult

Array = npt.NDArray[np.float64]

STEP = 1e-5
"""Of central differences, relative to the largest constant: truncation and rounding are both near 1e-10."""
AVERAGES = (
    "bulk_voigt",
    "bulk_reuss",
    "bulk_hill",
    "shear_voigt",
    "shear_reuss",
    "shear_hill",
    "young_hill",
    "poisson_hill",
    "universal_anisotropy",
)
DIMENSIONLESS = ("poisson_hill", "universal_anisotropy")


def averages(tensor: Array) -> Array:
    """The quantities of `AVERAGES` for one stiffness (6, 6): in its unit, or dimensionless."""
    moduli = voigt_reuss_hill(tensor)
    return np.array([*(getattr(moduli, name) for name in AVERAGES[:-1]), universal_anisotropy(tensor)])


def averages_with_sigma(result: FitResult) -> dict[str, tuple[float, float]]:
    """Value and σ of each of `AVERAGES`, GPa where not dimensionless.

    While the scale is held, σ is that at a fixed reference constant: divided by it, it is the σ of the ratio.
    """
    values = averages(result.tensor)
    sigma = propagated(result, averages)
    return {name: (float(v), float(s)) for name, v, s in zip(AVERAGES, values, sigma, strict=True)}


def propagated(result: FitResult, function: Callable[[Array], Array]) -> Array:
    """σ of a vector function of the tensor: √diag(J V Jᵀ), J by central differences over the fitted constants."""
    step = STEP * float(np.abs(result.values).max())
    basis = result.constants.structure.basis[result.fitted]
    jacobian = [(function(result.tensor + step * b) - function(result.tensor - step * b)) / (2 * step) for b in basis]
    if not jacobian:
        return np.zeros_like(function(result.tensor))
    j = np.array(jacobian)
    return np.asarray(np.sqrt(np.einsum("ki,kl,li->i", j, result.covariance, j)))


def adiabatic_constants(result: FitResult, thermal: Thermal) -> tuple[Array, Array]:
    """The free constants for changes without exchange of heat, and their σ, GPa, shape (k,) each."""
    structure = result.constants.structure

    def adiabatic(tensor: Array) -> Array:
        return structure.constants(thermal.adiabatic(tensor))

    return adiabatic(result.tensor), propagated(result, adiabatic)


def tensor_sigma(result: FitResult, rotation: Array) -> Array:
    """σ of the 36 elements of the tensor in the frame whose axes are the rows of `rotation`, GPa (6, 6)."""
    basis = result.constants.structure.basis[result.fitted]
    turned = np.array([rotate(b, rotation) for b in basis]).reshape(-1, 6, 6)
    variance = np.einsum("kij,kl,lij->ij", turned, result.covariance, turned)
    # Where constants cancel, rounding leaves something that is not zero and may be negative.
    variance[variance < 1e-18 * variance.max()] = 0.0
    return np.asarray(np.sqrt(variance))
