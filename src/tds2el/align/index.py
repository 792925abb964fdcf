"""Which node of a lattice a point is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.crystal.centring import allowed

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STAGES = (0.35, 0.6, 1.0, 1.0)
"""Reach, as a share of the largest |Q|, of the steps in which a rough basis is made better."""
ROUGH = 0.3


def deviations(basis: Array, q: Array) -> Array:
    """hkl less the nearest whole numbers, (n, 3); rows of `basis` are a, b, c in the frame of q (n, 3)."""
    hkl = q @ basis.T
    return np.asarray(hkl - np.rint(hkl))


def index(basis: Array, q: Array, centring: str | None, tolerance: float) -> tuple[IntArray, Mask]:
    """The nodes of points.

    Parameters
    ----------
    basis : ndarray, shape (3, 3)
        Rows a, b, c in Å: hkl = basis · q.
    q : ndarray, shape (n, 3)
        Å⁻¹.
    centring : str or None
        Points at nodes that it forbids have none.
    tolerance : float
        How far h, k and l each may be from a whole number.

    Returns
    -------
    hkl : ndarray of int, shape (n, 3)
        0 0 0 where there is none.
    indexed : ndarray of bool, shape (n,)
    """
    hkl = np.rint(q @ basis.T).astype(np.int64)
    near = np.abs(deviations(basis, q)).max(axis=1) < tolerance
    indexed = near & hkl.any(axis=1) & allowed(hkl, centring)
    return np.where(indexed[:, None], hkl, 0), indexed


def fit_basis(basis: Array, q: Array) -> Array:
    """The basis moved to the points, in steps of growing |Q|."""
    size = np.linalg.norm(q, axis=1)
    for stage in STAGES:
        hkl = np.rint(q @ basis.T)
        used = (size <= stage * size.max()) & (np.abs(deviations(basis, q)).max(axis=1) < ROUGH)
        if used.sum() < 6 or np.linalg.matrix_rank(hkl[used]) < 3:
            continue
        reciprocal = np.linalg.lstsq(hkl[used], q[used], rcond=None)[0]  # q = hkl · reciprocal
        if abs(np.linalg.det(reciprocal)) > 1e-9:
            basis = np.linalg.inv(reciprocal).T
    return basis
