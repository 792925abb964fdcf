"""Blocks of a mosaic crystal."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def mosaic_blocks(mosaicity: float) -> tuple[Array, Array]:
    """Small rotations of the crystal that stand for a Gaussian spread, with weights.

    The centre and the 12 corners of an icosahedron of radius √5 σ integrate polynomials up to degree 5 in the rotation
    vector exactly (Stroud, Approximate Calculation of Multiple Integrals, 1971).

    Parameters
    ----------
    mosaicity : float
        σ in degrees about any axis.

    Returns
    -------
    rotations : ndarray, shape (m, 3, 3)
        One, the identity, for a perfect crystal.
    weights : ndarray, shape (m,)
        Their sum is 1.
    """
    if mosaicity == 0:
        return np.eye(3)[None], np.ones(1)
    golden = (1 + np.sqrt(5)) / 2
    corners = [(0.0, s, t * golden) for s in (-1, 1) for t in (-1, 1)]
    vertices = np.array([np.roll(corner, turn) for corner in corners for turn in range(3)])
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    vectors = np.concatenate([np.zeros((1, 3)), np.sqrt(5) * np.deg2rad(mosaicity) * vertices])
    return _rotations(vectors), np.array([0.4] + 12 * [0.05])


def _rotations(vectors: Array) -> Array:
    """Rotation matrices (n, 3, 3) of rotation vectors (n, 3) in radians (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=1)
    axis = vectors / np.where(angle > 0, angle, 1)[:, None]
    cross = np.zeros((len(vectors), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]] = axis
    cross[:, [1, 2, 0], [2, 0, 1]] = -axis
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.asarray(np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross))
