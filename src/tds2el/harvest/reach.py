"""Which nodes a scan sees as a whole, and the choice of bright ones among them in many directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.experiment.geometry import Geometry

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FAINTEST = 0.03
"""Weaker ones than this fraction of the brightest tell little; what is left out of a model weighs most there."""
# Nodes × frames that are looked at together.
_CHUNK = 1 << 21


@dataclass(frozen=True)
class WholePassages:
    """Passages of balls round nodes through the Ewald sphere, from before to after, wholly on the detector.

    Attributes
    ----------
    node : ndarray of int, shape (n,)
        Ascending.
    only : ndarray of bool, shape (n,)
        Whether the scan comes near the node in this passage only.
    first, last : ndarray of int, shape (n,)
        Frames that cut the ball.
    """

    node: IntArray
    only: npt.NDArray[np.bool_]
    first: IntArray
    last: IntArray


def longest_q(geometry: Geometry, shape: tuple[int, int]) -> float:
    """The largest |Q| on the detector, Å⁻¹: that of a pixel of its edge, being farthest from the direct beam."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    edge = np.ones(shape, dtype=np.bool_)
    edge[1:-1, 1:-1] = False
    return float(np.linalg.norm(geometry.q_lab(row[edge], column[edge]), axis=-1).max())


def sphere_distance(geometry: Geometry, nodes: Array, angle_index: Array) -> Array:
    """Distance of nodes from the Ewald sphere in frames, Å⁻¹, positive outside it.

    Parameters
    ----------
    geometry : Geometry
    nodes : ndarray, shape (n, 3)
        G in the crystal frame, Å⁻¹.
    angle_index : ndarray, shape (frames,)

    Returns
    -------
    ndarray, shape (n, frames)
    """
    lmbda = geometry.experiment.lmbda
    # |G R − p̂0/λ|² = G² + 1/λ² − 2 G·(R p̂0)/λ
    source = geometry.lab_to_crystal(geometry.phi(angle_index)) @ geometry.beam
    square = np.sum(nodes**2, axis=1)[:, None] + 1 / lmbda**2 - 2 / lmbda * (nodes @ source.T)
    return np.asarray(np.sqrt(np.maximum(square, 0)) - 1 / lmbda)


def whole_passages(
    geometry: Geometry, nodes: Array, angle_index: Array, ball: float, shape: tuple[int, int]
) -> WholePassages:
    """The passages that begin and end within the scan, without a frame missing, with the ball on the detector.

    Parameters
    ----------
    geometry : Geometry
    nodes : ndarray, shape (n, 3)
        G in the crystal frame, Å⁻¹.
    angle_index : ndarray, shape (frames,)
        phi = geometry.phi(angle_index) in the middle of each frame.
    ball : float
        Radius, Å⁻¹.
    shape : (rows, columns)
    """
    step = max(1, _CHUNK // max(1, len(angle_index)))
    parts = [_whole(geometry, nodes[i : i + step], angle_index, ball, shape, i) for i in range(0, len(nodes), step)]
    none = np.empty(0, dtype=np.int64)
    columns = zip((none, none.astype(np.bool_), none, none), *parts, strict=True)
    return WholePassages(*(np.concatenate(column) for column in columns))


def _whole(
    geometry: Geometry, nodes: Array, angle_index: Array, ball: float, shape: tuple[int, int], offset: int
) -> tuple[IntArray, npt.NDArray[np.bool_], IntArray, IntArray]:
    distance = sphere_distance(geometry, nodes, angle_index)
    edges = np.diff(np.pad((np.abs(distance) < ball).astype(np.int8), ((0, 0), (1, 1))), axis=1)
    node, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1] - 1
    sides = np.sign(distance)
    once = np.sum(sides[:, 1:] != sides[:, :-1], axis=1) == 1
    only = once[node] & (np.bincount(node, minlength=len(nodes))[node] == 1)

    # A ball that grazes the sphere, or is cut where the scan begins or ends, is no whole passage.
    inner = (first > 0) & (last < len(angle_index) - 1)
    node, first, last, only = (column[inner] for column in (node, first, last, only))
    through = sides[node, first - 1] * sides[node, last + 1] < 0
    span = np.abs(angle_index[last + 1] - angle_index[first - 1])
    complete = span < last - first + 2.5
    middle = np.array(
        [a + np.argmin(np.abs(distance[n, a : b + 1])) for n, a, b in zip(node, first, last, strict=True)]
    )
    whole = through & complete & _fits(geometry, nodes[node], angle_index[middle.astype(np.int64)], ball, shape)
    return node[whole] + offset, only[whole], first[whole], last[whole]


def _fits(
    geometry: Geometry, nodes: Array, angle_index: Array, ball: float, shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Whether balls that are seen at these angles lie wholly on the detector."""
    turn = geometry.lab_to_crystal(geometry.phi(angle_index))
    ray = np.einsum("nij,ni->nj", turn, nodes) - geometry.beam / geometry.experiment.lmbda
    place = geometry.pixel_of(ray / np.linalg.norm(ray, axis=-1, keepdims=True))
    margin = _pixels_of_ball(geometry, place, ball)[:, None]
    return np.asarray(((place >= margin) & (place <= np.array(shape) - 1 - margin)).all(axis=1))


def _pixels_of_ball(geometry: Geometry, place: Array, ball: float) -> Array:
    """Radius in pixels of a ball round a node that is seen at a place on the detector, on the safe side."""
    plane = (place - geometry.origin) @ geometry.pixel_to_plane.T
    e = geometry.experiment
    distance2 = e.dist**2 + np.sum(plane**2, axis=-1)
    # Oblique incidence stretches by (r/dist) beyond the distance r.
    return np.asarray(1.1 * ball * e.lmbda * distance2 / e.dist / e.pixel_size)


def brightest_apart(nodes: Array, brightness: Array, number: int, separations: Sequence[float]) -> IntArray:
    """The brightest nodes in directions that differ.

    Directions along ±G give the same halo; well-spread ones determine all constants.

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
    brightness : ndarray, shape (n,)
        Those with less than `FAINTEST` of the largest are left out.
    number : int
        At most.
    separations : sequence of float
        Degrees between directions: the next ones are for as long as the number is not reached.

    Returns
    -------
    ndarray of int
        Numbers of the nodes in the order of the choice.
    """
    chosen: list[int] = []
    units = nodes / np.linalg.norm(nodes, axis=1, keepdims=True)
    enough = FAINTEST * brightness.max(initial=0)
    order = [int(i) for i in np.argsort(-brightness, kind="stable") if brightness[i] >= enough and brightness[i] > 0]
    for separation in separations:
        limit = np.cos(np.deg2rad(separation))
        for index in order:
            if len(chosen) == number:
                break
            if index not in chosen and np.all(np.abs(units[chosen] @ units[index]) < limit):
                chosen.append(index)
    return np.array(chosen, dtype=np.int64)
