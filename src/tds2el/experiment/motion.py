"""How Q of harvested pixels moves when the geometry changes, in a form that a device evaluates pixel by pixel.

Q = M(φ) Q0 with M = Uᵀ Rᵀ = M₀ + M₁ cos φ + M₂ sin φ, since only one factor of R turns with φ; Q0 = (p/|p| + b)/λ with
p = P·(row, column, 1) and the unit vector b to the source. Changes are kept apart from values, so that the change of Q is
accurate in single precision too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """The current geometry, its change since the harvest, and derivatives of Q with respect to its parameters.

    Attributes
    ----------
    turn, turn_change : ndarray, shape (3, 3, 3)
        M₀, M₁, M₂ now, and now minus at the harvest.
    plane, plane_change : ndarray, shape (3, 3)
        P in mm.
    beam, beam_change : ndarray, shape (3,)
        b.
    wave_number, wave_number_change : float
        1/λ in Å⁻¹.
    turns : ndarray, shape (a, 3, 3)
        For each parameter that turns the crystal: w₀, w₁, w₂ with ∂Q/∂p = (w₀ + w₁ cos φ + w₂ sin φ) × Q, per unit of
        the parameter (degrees).
    planes : ndarray, shape (b, 3, 3)
        For each parameter that moves the detector: ∂P/∂p.
    beams : ndarray, shape (c, 3)
        For each parameter that turns the beam: ∂b/∂p.
    lmbda : bool
        Whether λ is a parameter: ∂Q/∂λ = −Q/λ.
    names : tuple of str
        The parameters in the order turns, planes, beams, lmbda.
    """

    turn: Array
    turn_change: Array
    plane: Array
    plane_change: Array
    beam: Array
    beam_change: Array
    wave_number: float
    wave_number_change: float
    turns: Array
    planes: Array
    beams: Array
    lmbda: bool
    names: tuple[str, ...]
