"""Isothermal and adiabatic elastic constants.

Thermodynamics of small strains (Nye, Physical Properties of Crystals, 1957, chapter X; Born & Huang 1954, §4): with
the compliance s, thermal expansion α (Voigt form, shears doubled), mass density ρ and heat capacity c_p per mass,
s^S = s^T − T α αᵀ/(ρ c_p), exactly. Inverted, C^S = C^T + T β βᵀ/(ρ c_p − T βᵀα) with β = C^T α, where the denominator
is ρ times the heat capacity at constant strain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.symmetry import PointGroup
from tds2el.errors import InputError

Array = npt.NDArray[np.float64]

GPA_PER_J_CM3 = 1e-3
ASYMMETRY = 0.01
"""Part of the expansion that may break the symmetry of the crystal; it is averaged over the group."""


@dataclass(frozen=True)
class Thermal:
    """What leads from isothermal to adiabatic constants.

    Attributes
    ----------
    temperature, density : float
        K and g/cm³.
    heat_capacity : float
        c_p, J/(g K).
    expansion : ndarray, shape (6,)
        1/K in the crystal frame: α1 α2 α3 and, as strains are, 2α23 2α13 2α12.
    """

    temperature: float
    density: float
    heat_capacity: float
    expansion: Array

    @property
    def softening(self) -> Array:
        """s^T − s^S, (6, 6) in 1/GPa."""
        heat = self.density * self.heat_capacity * GPA_PER_J_CM3
        return np.asarray(self.temperature / heat * np.outer(self.expansion, self.expansion))

    def adiabatic(self, isothermal: Array) -> Array:
        """C^S (6, 6) from C^T, GPa.

        Raises
        ------
        InputError
            If heat capacity and expansion contradict these constants.
        """
        compliance = np.linalg.inv(isothermal) - self.softening
        if np.linalg.eigvalsh(compliance)[0] <= 0:
            raise InputError(
                f"expansion and heat_capacity = {self.heat_capacity:g} J/(g K) give a negative heat capacity at "
                "constant strain with these constants: expansion must be in 1/K, heat_capacity in J/(g K)"
            )
        return np.asarray(np.linalg.inv(compliance))

    def gradient(self, isothermal: Array, of_adiabatic: Array) -> Array:
        """From the gradient (6, 6) of a number in C^S that in C^T: dC^S = M dC^T Mᵀ with M = C^S s^T."""
        m = self.adiabatic(isothermal) @ np.linalg.inv(isothermal)
        return np.asarray(m.T @ of_adiabatic @ m)


def expansion_tensor(values: tuple[float, ...], group: PointGroup) -> Array:
    """Thermal expansion in Voigt form (6,), invariant under the point group.

    Parameters
    ----------
    values : tuple of float
        One number for a cubic crystal; α1 α2 α3 along the axes of the crystal frame; or also α23 α13 α12. 1/K.
    group : PointGroup

    Raises
    ------
    InputError
        If they do not have the symmetry of the crystal.
    """
    if len(values) == 1 and group.system != "cubic":
        raise InputError(
            f"expansion is one number, which only a cubic crystal has; {group.name} is {group.system}: give three or "
            "six"
        )
    if len(values) < 6:
        values = (*(values * 3)[:3], 0.0, 0.0, 0.0)
    x, y, z, yz, xz, xy = values
    tensor = np.array([[x, xy, xz], [xy, y, yz], [xz, yz, z]])
    mean = np.mean([r @ tensor @ r.T for r in group.operations], axis=0)
    if np.abs(mean - tensor).max() > ASYMMETRY * np.abs(tensor).max():
        fits = ", ".join(f"{mean[i, j]:.4g}" for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)))
        raise InputError(
            f"expansion = {list(values)} does not have the symmetry of {group.name} in the crystal frame (a* along x, "
            f"c along z); its average over the group is {fits}"
        )
    return np.array([mean[0, 0], mean[1, 1], mean[2, 2], 2 * mean[1, 2], 2 * mean[0, 2], 2 * mean[0, 1]])
