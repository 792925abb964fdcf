"""The quartic dispersion T(q), which adds to the Christoffel matrix beyond the elastic limit.

T_ik(q) = T_ik,lmnp q_l q_m q_n q_p is kept as coefficients (6, 15): rows as `tds2el.crystal.dispersion.PAIRS`, columns
the monomials of `QUARTICS` there. q is in Å⁻¹ without 2π and T in GPa Å², so that T(q) is in GPa Å⁻² as Γ is, and
ρω² = (2π)² times an eigenvalue of Γ + T.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.crystal.dispersion import QUARTICS
from tds2el.model.christoffel import SYMMETRIC

Array = npt.NDArray[np.float64]

# Powers of x, y, z in each monomial.
_POWERS = np.array([[indices.count(axis) for axis in range(3)] for indices in QUARTICS])


def monomials(q: Array) -> Array:
    """The 15 quartic monomials of q (n, 3), shape (n, 15)."""
    powers = _powers(q)
    return np.asarray(np.prod([powers[_POWERS[:, axis], :, axis] for axis in range(3)], axis=0).T)


def monomial_slopes(q: Array) -> Array:
    """∂ of the monomials with respect to q, shape (n, 15, 3)."""
    powers, slopes = _powers(q), []
    for along in range(3):
        left = np.maximum(_POWERS - np.eye(3, dtype=int)[along], 0)
        rest = np.prod([powers[left[:, axis], :, axis] for axis in range(3)], axis=0)
        slopes.append(rest.T * _POWERS[:, along])
    return np.stack(slopes, axis=2)


def _powers(q: Array) -> Array:
    """q to the powers 0 to 4, (5, n, 3)."""
    return np.cumprod(np.concatenate([np.ones((1, *q.shape)), np.broadcast_to(q, (4, *q.shape))]), axis=0)


def quartic(coefficients: Array, q: Array) -> Array:
    """T(q), (n, 3, 3), from coefficients (6, 15) and q (n, 3)."""
    return np.asarray((monomials(q) @ coefficients.T)[:, SYMMETRIC])


def contracted(symmetric: Array) -> Array:
    """Weights (n, 6) such that Σ_ik W_ik T_ik is their product with the six components of T; W (n, 3, 3) symmetric."""
    xx, yy, zz = (symmetric[:, i, i] for i in range(3))
    yz, xz, xy = symmetric[:, 1, 2], symmetric[:, 0, 2], symmetric[:, 0, 1]
    return np.stack([xx, yy, zz, 2 * yz, 2 * xz, 2 * xy], axis=1)
