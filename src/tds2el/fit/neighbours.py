"""Which other nodes have halos that reach the points of a spot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import nearest_allowed, neighbour_vectors
from tds2el.harvest.nodes import CROWDED

Array = npt.NDArray[np.float64]

REACH = 7.0
"""Outer radii up to which a node's halo is fitted: in a cell of 5 × 9 × 20 Å those beyond look like a linear
baseline to 0.3 % of the constants."""
MOST = 32
"""The nearest ones are taken, since every one costs an evaluation of the model."""
SAME = 1e-6
"""Å⁻¹, from the direct beam, which has no halo."""


def crowded(hkl: npt.NDArray[np.int64], cell: Cell, centring: str | None, q_max: float) -> bool:
    """Whether the shell of a spot reaches beyond a quarter of the distance to its nearest allowed node."""
    return any(q_max > CROWDED * nearest_allowed(node, cell, centring)[1] for node in np.unique(hkl, axis=0))


def neighbours(hkl: npt.NDArray[np.int64], cell: Cell, centring: str | None, q_max: float) -> Array | None:
    """Vectors from spots to the allowed nodes near them.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    cell : Cell
    centring : str or None
    q_max : float
        Outer radius of the shells, Å⁻¹.

    Returns
    -------
    ndarray, shape (n, m, 3), or None
        Å⁻¹, nearest first; NaN where a spot has fewer than m. None without any.
    """
    found = []
    for node in hkl:
        vectors = neighbour_vectors(node, cell, centring, REACH * q_max)
        beam = np.linalg.norm(vectors + cell.B @ node, axis=1) < SAME
        found.append(vectors[~beam][:MOST])
    most = max(len(vectors) for vectors in found)
    if most == 0:
        return None
    padded = np.full((len(hkl), most, 3), np.nan)
    for row, vectors in zip(padded, found, strict=True):
        row[: len(vectors)] = vectors
    return padded
