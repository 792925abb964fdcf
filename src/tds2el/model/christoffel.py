"""Christoffel matrix and Voigt strain, the two contractions of the elastic tensor that the model needs.

q and Q are in Å⁻¹ without 2π and C in GPa, so Γ is in GPa Å⁻² and ρω² = (2π)² times its eigenvalues.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Voigt order of symmetric 3×3 matrices: xx yy zz yz xz xy.
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
# Where the components of a symmetric matrix stand in that order.
SYMMETRIC = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


def strain(u: Array, q: Array) -> Array:
    """Voigt strain of displacement u on wave vector q, (..., 6): u_x q_x, …, u_y q_z + u_z q_y, …"""
    return np.stack([u[..., i] * q[..., j] + (u[..., j] * q[..., i] if i != j else 0.0) for i, j in VOIGT], axis=-1)


def stress(tensor: Array, strained: Array, u: Array) -> Array:
    """σu with the stress σ = Cε as a 3×3 matrix, (..., 3), from strain (..., 6) and a vector u (..., 3)."""
    sigma = (strained @ tensor)[..., SYMMETRIC]
    return np.asarray(np.einsum("...ij,...j->...i", sigma, u))


def christoffel(tensor: Array, q: Array) -> Array:
    """Γ_ik = C_ijkl q_j q_l, (..., 3, 3), from the 6×6 tensor and q (..., 3)."""
    full = tensor[SYMMETRIC[:, :, None, None], SYMMETRIC[None, None]]
    return np.asarray(np.einsum("ijkl,...j,...l->...ik", full, q, q, optimize=True))


def christoffel_coefficients(tensor: Array) -> Array:
    """g (6, 6) with Γ_(ik) = Σ_m g[ik, m] · (q_j q_l)_m, both index pairs in the order of `VOIGT`."""
    g = np.empty((6, 6))
    for row, (i, k) in enumerate(VOIGT):
        for column, (j, m) in enumerate(VOIGT):
            g[row, column] = tensor[SYMMETRIC[i, j], SYMMETRIC[k, m]]
            if j != m:
                g[row, column] += tensor[SYMMETRIC[i, m], SYMMETRIC[k, j]]
    return g
