"""What can be said of the reflections to harvest and their neighbours before any frame is read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed, nearest_allowed
from tds2el.errors import InputError

IntArray = npt.NDArray[np.int64]

CROWDED = 0.25
"""A shell beyond this part of the distance to the nearest allowed node feels that node's halo."""


def check_nodes(hkl: IntArray, centring: str | None, option: str = "collectSpots") -> None:
    """Refuse the direct beam and reflections that the centring extinguishes; `option` is what gave them.

    Raises
    ------
    InputError
    """
    if not hkl.any(axis=1).all():
        raise InputError(f"{option}: (0, 0, 0) is the direct beam; take it out")
    absent = hkl[~allowed(hkl, centring)]
    if len(absent):
        raise InputError(f"{option}: {node_names(absent)} absent for centring = {centring!r}; correct one or the other")


def node_warnings(hkl: IntArray, cell: Cell, centring: str | None, delta_max: float) -> list[str]:
    """A warning if the shells reach the halos of neighbouring nodes; nothing while the centring is not known."""
    if centring is None:
        return []
    node, neighbour, distance, crowded = _closest(hkl, cell, centring, delta_max)
    if not crowded:
        return []
    return [
        f"DeltaQ_max is {delta_max:.4f} Å⁻¹, more than a quarter of the distance to the nearest allowed node "
        f"for {crowded} of {len(hkl)} reflections ({neighbour} is {distance:.4f} Å⁻¹ from {node}): "
        "the neighbour's halo reaches the shell; a smaller DeltaQ_max avoids it"
    ]


def node_notes(hkl: IntArray, cell: Cell, centring: str | None, delta_max: float) -> list[str]:
    """Without a centring, a note on the nearest node that a P lattice would have."""
    if centring is not None:
        return []
    node, neighbour, distance, _ = _closest(hkl, cell, None, delta_max)
    return [
        "centring is not given: points nearer to another node are kept; the nearest node of a P lattice "
        f"is {neighbour}, {distance:.4f} Å⁻¹ from {node} (DeltaQ_max is {delta_max:.4f} Å⁻¹)"
    ]


def node_names(hkl: IntArray, most: int = 20) -> str:
    """(h, k, l), (h, k, l), … for a message."""
    names = [_name(node) for node in hkl[:most]]
    return ", ".join(names) + (f" and {len(hkl) - most} more" if len(hkl) > most else "")


def blob_names(hkl: IntArray, angle: npt.NDArray[np.float64], blobs: IntArray, most: int = 10) -> str:
    """(h, k, l) at 12.345°, … for a message.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    angle : ndarray, shape (n,)
    blobs : ndarray of int
        Which of them to name.
    """
    names = [f"{_name(hkl[blob])} at {angle[blob]:.3f}°" for blob in blobs[:most]]
    return ", ".join(names) + (f" and {len(blobs) - most} more" if len(blobs) > most else "")


def _closest(hkl: IntArray, cell: Cell, centring: str | None, delta_max: float) -> tuple[str, str, float, int]:
    """The node with the nearest neighbour, that neighbour, their distance, and how many nodes are crowded."""
    nearest = [nearest_allowed(node, cell, centring) for node in hkl]
    closest = min(range(len(hkl)), key=lambda i: nearest[i][1])
    neighbour, distance = nearest[closest]
    crowded = sum(delta_max > CROWDED * length for _, length in nearest)
    return _name(hkl[closest]), _name(neighbour), distance, crowded


def _name(hkl: IntArray) -> str:
    return "({}, {}, {})".format(*(int(i) for i in hkl))
