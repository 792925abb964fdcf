"""The unit cell and its reciprocal, in the crystal frame a* ∥ x, c ∥ z.

The frame is that of Giacovazzo, Fundamentals of Crystallography, and of Busing & Levy,
Acta Cryst. 22, 457 (1967). There is no 2π: a·a* = 1.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError

#: The options of a par-file that hold the cell, in the order of the fields of `Cell`.
CELL_OPTIONS = ("AA", "BB", "CC", "aAA", "aBB", "aCC")


def _cosine(degrees: float) -> float:
    """The cosine, so rounded that 90° gives 0 and 120° gives -1/2."""
    return round(math.cos(math.radians(degrees)), 15)


@dataclass(frozen=True)
class Cell:
    """A unit cell: lengths a, b, c in Å, angles alpha, beta, gamma in degrees.

    Raises
    ------
    InputError
        If a length is not positive or the three angles do not span a volume.
    """

    a: float
    b: float
    c: float
    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        values = self.parameters
        for option, value in zip(CELL_OPTIONS, values, strict=True):
            upper = math.inf if option in CELL_OPTIONS[:3] else 180.0
            if not 0.0 < value < upper:
                what = "a length in Å above 0" if upper == math.inf else "an angle between 0 and 180 degrees"
                raise InputError(f"{option} = {value:g}: the cell needs {what}")
        cosines = [_cosine(angle) for angle in values[3:]]
        if 1.0 - sum(x * x for x in cosines) + 2.0 * math.prod(cosines) <= 1e-12:
            angles = ", ".join(f"{o} = {v:g}" for o, v in zip(CELL_OPTIONS[3:], values[3:], strict=True))
            raise InputError(f"{angles}: three such angles do not span a cell; correct them")

    @property
    def parameters(self) -> tuple[float, float, float, float, float, float]:
        """The six parameters in the order of `CELL_OPTIONS`."""
        return (self.a, self.b, self.c, self.alpha, self.beta, self.gamma)

    @cached_property
    def A(self) -> npt.NDArray[np.float64]:
        """Rows a, b, c in Å (3, 3), read-only: hkl = A Q."""
        cos_alpha, cos_beta, cos_gamma = _cosine(self.alpha), _cosine(self.beta), _cosine(self.gamma)
        sin_alpha = math.sqrt(1.0 - cos_alpha**2)
        y = (cos_gamma - cos_alpha * cos_beta) / sin_alpha
        rows = np.array(
            [
                [self.a * math.sqrt(1.0 - y * y - cos_beta**2), self.a * y, self.a * cos_beta],
                [0.0, self.b * sin_alpha, self.b * cos_alpha],
                [0.0, 0.0, self.c],
            ]
        )
        rows.setflags(write=False)
        return rows

    @cached_property
    def B(self) -> npt.NDArray[np.float64]:
        """Columns a*, b*, c* in Å⁻¹ (3, 3), read-only: Q = B hkl."""
        columns: npt.NDArray[np.float64] = np.asarray(np.linalg.inv(self.A), dtype=np.float64)
        columns.setflags(write=False)
        return columns

    @cached_property
    def B_derivatives(self) -> npt.NDArray[np.float64]:
        """∂B/∂p of the six parameters, (6, 3, 3): per Å for lengths, per degree for angles.

        A is upper triangular with A Aᵀ = g, so A⁻¹ dA = Φ(A⁻¹ dg A⁻ᵀ), where Φ takes the upper triangle and half of the
        diagonal; and dB = −B dA B.
        """
        lengths, angles = np.array(self.parameters[:3]), np.deg2rad(self.parameters[3:])
        pairs = ((1, 2), (0, 2), (0, 1))
        derivatives = np.empty((6, 3, 3))
        for n in range(6):
            change = np.zeros((3, 3))
            if n < 3:
                change[n] = self.metric[n] / lengths[n]
                change = change + change.T
            else:
                i, j = pairs[n - 3]
                change[i, j] = change[j, i] = -lengths[i] * lengths[j] * np.sin(angles[n - 3]) * np.pi / 180
            inner = self.B @ change @ self.B.T
            derivatives[n] = -(np.triu(inner, 1) + np.diag(np.diag(inner) / 2)) @ self.B
        return derivatives

    @property
    def metric(self) -> npt.NDArray[np.float64]:
        """The metric tensor of the direct lattice, scalar products of a, b, c in Å² (3, 3)."""
        return np.asarray(self.A @ self.A.T)


def longest_reciprocal(cell: Cell) -> float:
    """Length of the longest of a*, b*, c* in Å⁻¹, the unit of DeltaQ_max and DeltaQ_min."""
    return float(np.linalg.norm(cell.B, axis=0).max())


def cell_from_metric(metric: npt.ArrayLike) -> Cell:
    """The cell whose direct metric tensor, in Å², is `metric` (3, 3)."""
    g = np.asarray(metric, dtype=np.float64)
    a, b, c = (float(x) for x in np.sqrt(np.diag(g)))
    alpha, beta, gamma = (math.degrees(math.acos(x)) for x in (g[1, 2] / (b * c), g[0, 2] / (a * c), g[0, 1] / (a * b)))
    return Cell(a, b, c, alpha, beta, gamma)
