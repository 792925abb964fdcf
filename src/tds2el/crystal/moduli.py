"""What follows from an elastic tensor: averages for polycrystals, anisotropy and stability.

Sources: Hill, Proc. Phys. Soc. A 65, 349 (1952); Ranganathan & Ostoja-Starzewski, PRL 101, 055504 (2008);
Mouhat & Coudert, Phys. Rev. B 90, 224104 (2014).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.elasticity import TensorStructure

# Kelvin's form: with √2 on shears the 6×6 matrix is a tensor, and its eigenvalues do not depend on the axes.
_KELVIN = np.array([1.0, 1.0, 1.0, np.sqrt(2.0), np.sqrt(2.0), np.sqrt(2.0)])


@dataclass(frozen=True)
class AverageModuli:
    """Bulk and shear moduli of a polycrystal, in the unit of the tensor, and what Hill's means give."""

    bulk_voigt: float
    bulk_reuss: float
    shear_voigt: float
    shear_reuss: float

    @property
    def bulk_hill(self) -> float:
        """Mean of Voigt's and Reuss's bulk moduli."""
        return (self.bulk_voigt + self.bulk_reuss) / 2.0

    @property
    def shear_hill(self) -> float:
        """Mean of Voigt's and Reuss's shear moduli."""
        return (self.shear_voigt + self.shear_reuss) / 2.0

    @property
    def young_hill(self) -> float:
        """Young's modulus from Hill's bulk and shear moduli."""
        return 9.0 * self.bulk_hill * self.shear_hill / (3.0 * self.bulk_hill + self.shear_hill)

    @property
    def poisson_hill(self) -> float:
        """Poisson's ratio from Hill's bulk and shear moduli."""
        k, g = self.bulk_hill, self.shear_hill
        return (3.0 * k - 2.0 * g) / (6.0 * k + 2.0 * g)


def voigt_reuss_hill(tensor: npt.ArrayLike) -> AverageModuli:
    """Average moduli of a stiffness tensor (6, 6) that is positive definite."""
    c = np.asarray(tensor, dtype=np.float64)
    s = np.asarray(np.linalg.inv(c), dtype=np.float64)
    c_normal, c_cross, c_shear = _invariant_sums(c)
    s_normal, s_cross, s_shear = _invariant_sums(s)
    return AverageModuli(
        bulk_voigt=(c_normal + 2.0 * c_cross) / 9.0,
        bulk_reuss=1.0 / (s_normal + 2.0 * s_cross),
        shear_voigt=(c_normal - c_cross + 3.0 * c_shear) / 15.0,
        shear_reuss=15.0 / (4.0 * (s_normal - s_cross) + 3.0 * s_shear),
    )


def universal_anisotropy(tensor: npt.ArrayLike) -> float:
    """A_U = 5 G_V/G_R + K_V/K_R − 6 of a positive definite stiffness (6, 6): 0 for an isotropic one."""
    m = voigt_reuss_hill(tensor)
    return 5.0 * m.shear_voigt / m.shear_reuss + m.bulk_voigt / m.bulk_reuss - 6.0


def eigenvalues(tensor: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The six eigenvalues of a stiffness (6, 6) in Kelvin's form, ascending, the same in every frame."""
    kelvin = np.asarray(tensor, dtype=np.float64) * np.outer(_KELVIN, _KELVIN)
    return np.asarray(np.linalg.eigvalsh(kelvin), dtype=np.float64)


def is_stable(tensor: npt.ArrayLike) -> bool:
    """Whether a stiffness (6, 6) is positive definite (Born's criterion)."""
    return bool(eigenvalues(tensor)[0] > 0.0)


def isotropic_start(structure: TensorStructure, c11: float = 100.0) -> npt.NDArray[np.float64]:
    """Free constants (k,) of the isotropic tensor with C12 = C44 = C11/3, stable in every class."""
    c12 = c44 = c11 / 3.0
    tensor = np.diag([c11 - c12] * 3 + [c44] * 3)
    tensor[:3, :3] += c12
    return structure.constants(tensor)


def _invariant_sums(m: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Sums of M11 M22 M33, of M12 M13 M23 and of M44 M55 M66."""
    return float(np.trace(m[:3, :3])), float(m[0, 1] + m[0, 2] + m[1, 2]), float(np.trace(m[3:, 3:]))
