"""Constants, moduli and compressibilities that are known from elsewhere, as data beside the counts.

Each is a Gaussian datum: it adds ((g(p) − v)/σ)² to the deviance, and to score and Fisher matrix what follows from the
exact derivative of g. Together with the spots, which give ratios, they determine the scale of the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import TensorStructure
from tds2el.crystal.moduli import isotropic_start
from tds2el.crystal.quantities import Quantity, quantity
from tds2el.crystal.thermal import Thermal
from tds2el.errors import InputError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Datum:
    """One known number.

    Attributes
    ----------
    name : str
    value, sigma : float
        In the unit of the quantity: GPa, or 1/GPa for compressibilities.
    state : str
        "isothermal" or "adiabatic"; "" where there is no difference.
    quantity : callable
        Isothermal stiffness → value and gradient.
    """

    name: str
    value: float
    sigma: float
    state: str
    quantity: Quantity


@dataclass(frozen=True)
class Known:
    """Data on the constants of a crystal, m of them."""

    structure: TensorStructure
    data: tuple[Datum, ...]

    def residuals(self, constants: Array) -> Array:
        """(v − g(p))/σ, shape (m,), for constants (k,) in GPa."""
        tensor = self.structure.tensor(constants)
        return np.array([(datum.value - datum.quantity(tensor)[0]) / datum.sigma for datum in self.data])

    def jacobian(self, constants: Array) -> Array:
        """∂g/∂p/σ, shape (m, k)."""
        tensor, basis = self.structure.tensor(constants), self.structure.basis
        rows = [np.tensordot(basis, datum.quantity(tensor)[1], axes=2) / datum.sigma for datum in self.data]
        return np.array(rows).reshape(len(self.data), len(basis))

    def deviance(self, constants: Array) -> float:
        """Σ ((g(p) − v)/σ)²."""
        return float(np.sum(self.residuals(constants) ** 2))

    def with_data(self, *data: Datum) -> Known:
        """With further data."""
        return Known(self.structure, (*self.data, *data))


def known_from_option(
    option: Mapping[str, tuple[float, float, str]], structure: TensorStructure, cell: Cell, thermal: Thermal | None
) -> Known:
    """The data of the option `known`: name → (value, σ, thermal state).

    Raises
    ------
    InputError
        A constant that symmetry makes zero, or an adiabatic value without expansion and heat capacity.
    """
    data = []
    for name, (value, sigma, state) in option.items():
        if state == "adiabatic" and thermal is None:
            raise InputError(f"known: {name} is adiabatic: give expansion and heat_capacity, or an isothermal value")
        found = quantity(name, cell)
        gradient = np.tensordot(structure.basis, found(structure.tensor(isotropic_start(structure)))[1], axes=2)
        if not np.any(np.abs(gradient) > 1e-9 * np.abs(gradient).max(initial=1e-30)):
            raise InputError(f"known: {name} is zero by the symmetry of the crystal; leave it out")
        data.append(Datum(name, value, sigma, state, found if state == "isothermal" else _adiabatic(found, thermal)))
    return Known(structure, tuple(data))


def _adiabatic(found: Quantity, thermal: Thermal | None) -> Quantity:
    assert thermal is not None

    def of_isothermal(tensor: Array) -> tuple[float, Array]:
        value, gradient = found(thermal.adiabatic(tensor))
        return value, thermal.gradient(tensor, gradient)

    return of_isothermal


def shares(known: Known, values: Array, fitted: npt.NDArray[np.int64], covariance: Array) -> Array:
    """Part of each fitted constant's variance that would vanish if the known values were exact, shape (len(fitted),).

    Conditioning a Gaussian with covariance V on J p removes V Jᵀ (J V Jᵀ)⁻¹ J V.
    """
    jacobian = known.jacobian(values)[:, fitted]
    cross = covariance @ jacobian.T
    removed = cross @ np.linalg.pinv(jacobian @ cross, rcond=1e-10, hermitian=True) @ cross.T
    return np.asarray(np.clip(np.diag(removed) / np.diag(covariance), 0.0, 1.0))
