"""The orientation of a crystal whose cell is known.

The points keep in phase along a vector of the direct lattice of known length in few directions only. Two such vectors
at the angle that the cell gives make an orientation, and all points decide among these.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.align.index import ROUGH, STAGES, deviations
from tds2el.align.lattice import PROJECTED, WITHIN, distinct, hemisphere, refined_vectors, spacing_for
from tds2el.align.orientation import nearest_rotation
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed, lattice_letter

Array = npt.NDArray[np.float64]

STARTS = 300
"""Directions that are refined to lattice vectors."""
KEPT = 60
STRETCH = 0.03
"""By how much, relative, a vector found may be longer or shorter than that of the cell."""
SKEW = 3.0
"""Degrees by which the angle between two may differ."""
POLISHED = 40
"""Orientations that are made better before one is chosen."""


def find_orientation(q: Array, cell: Cell, centring: str | None, start: Array | None = None) -> tuple[Array, float]:
    """The orientation in which most points are allowed nodes of the lattice.

    Parameters
    ----------
    q : ndarray, shape (n, 3)
        Peaks in the goniometer's frame, Å⁻¹.
    cell : Cell
    centring : str or None
    start : ndarray, shape (3, 3), optional
        An orientation U to try too; taken if it explains nearly as much as the best.

    Returns
    -------
    U : ndarray, shape (3, 3)
    share : float
        Of the points.
    """
    candidates = _candidates(q, cell, lattice_letter(centring))
    if len(candidates):
        shares = np.array([explained(U, q, cell, centring) for U in candidates])
        candidates = candidates[np.argsort(-shares, kind="stable")[:POLISHED]]
    tried = [polished(U, q, cell, centring) for U in ([] if start is None else [start]) + list(candidates)]
    if not tried:
        return np.eye(3), 0.0
    shares = np.array([explained(U, q, cell, centring) for U in tried])
    best = int(shares.argmax())
    if start is not None and shares[0] > 0.95 * shares[best]:
        best = 0
    return tried[best], float(shares[best])


def polished(U: Array, q: Array, cell: Cell, centring: str | None) -> Array:
    """The orientation turned to the points, in steps of growing |Q|."""
    size = np.linalg.norm(q, axis=1)
    for stage in STAGES:
        basis = cell.A @ U.T
        hkl = np.rint(q @ basis.T).astype(np.int64)
        used = (size <= stage * size.max()) & (np.abs(deviations(basis, q)).max(axis=1) < ROUGH)
        used &= hkl.any(axis=1) & allowed(hkl, centring)
        if used.sum() >= 3:
            U = nearest_rotation(q[used].T @ (hkl[used] @ cell.B.T))
    return U


def direct_vectors(cell: Cell, letter: str) -> Array:
    """Vectors of the direct lattice, (n, 3) in Å in the crystal frame, shortest first: centring translations too."""
    nodes = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    nodes = nodes[allowed(nodes, letter)]
    parts = 3 if letter == "R" else 2
    steps = np.stack(np.meshgrid(*[np.arange(-2 * parts, 2 * parts + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = steps[steps.any(axis=1)]
    steps = steps[(nodes @ steps.T % parts == 0).all(axis=0)]
    vectors = steps @ cell.A / parts
    return np.asarray(vectors[np.argsort(np.linalg.norm(vectors, axis=1), kind="stable")])


def _candidates(q: Array, cell: Cell, letter: str) -> Array:
    """Orientations (n, 3, 3) that two vectors of the direct lattice make."""
    vectors = direct_vectors(cell, letter)
    first = vectors[0]
    sine = np.linalg.norm(np.cross(vectors, first), axis=1) / np.linalg.norm(vectors, axis=1)
    second = vectors[np.flatnonzero(sine > 0.3 * np.linalg.norm(first))[0]]
    size = np.linalg.norm(q, axis=1)
    low = q[np.argsort(size)[:PROJECTED]]
    longest = float(np.linalg.norm(second))
    directions = hemisphere(spacing_for(longest, float(np.linalg.norm(low, axis=1).max())))
    found = [_in_phase(q, low, directions, float(np.linalg.norm(v))) for v in (first, second)]
    wanted = _cosine(first, second)
    frame = _frame(first, second)
    result = []
    for u in found[0]:
        for v in np.concatenate([found[1], -found[1]]):
            angle = np.rad2deg(abs(np.arccos(_cosine(u, v)) - np.arccos(wanted)))
            if angle < SKEW:
                # Both signs of u: the other one is turned by 180° about the normal of the two.
                result += [nearest_rotation(_frame(sign * u, sign * v) @ frame.T) for sign in (1, -1)]
    return np.array(result).reshape(-1, 3, 3)


def _in_phase(q: Array, low: Array, directions: Array, length: float) -> Array:
    """Vectors (n, 3) of about that length with Q·v near whole numbers for many points, first of the low ones."""
    heights = np.concatenate(
        [
            np.cos(2 * np.pi * length * (low @ part.T)).mean(axis=0)
            for part in np.array_split(directions, 1 + len(directions) // 1000)
        ]
    )
    best = directions[np.argsort(-heights)[:STARTS]] * length
    vectors, _ = distinct(refined_vectors(best, q), q)
    stretch = np.abs(np.linalg.norm(vectors, axis=1) / length - 1)
    return np.asarray(vectors[stretch < STRETCH][:KEPT])


def _frame(first: Array, second: Array) -> Array:
    """Orthonormal axes (columns): along the sum and the difference of two unit vectors, and across them."""
    u, v = first / np.linalg.norm(first), second / np.linalg.norm(second)
    axes = np.array([u + v, u - v, np.cross(v, u)])
    return np.asarray((axes / np.linalg.norm(axes, axis=1, keepdims=True)).T)


def _cosine(u: Array, v: Array) -> float:
    return float(np.clip(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)), -1, 1))


def explained(U: Array, q: Array, cell: Cell, centring: str | None) -> float:
    """The share of the points that are near allowed nodes."""
    basis = cell.A @ U.T
    hkl = np.rint(q @ basis.T).astype(np.int64)
    near = np.abs(deviations(basis, q)).max(axis=1) < WITHIN
    return float((near & allowed(hkl, centring)).mean())
