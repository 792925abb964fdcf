"""Grids of voxels in reciprocal space: where their nodes lie, and which of them a scan reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import PointGroup
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.settings import VolumeSettings

Array = npt.NDArray[np.float64]
Kind = Literal["hkl", "cartesian"]

UNITS = {"hkl": "r.l.u.", "cartesian": "1/angstrom"}
# The detector is looked at in this many pixels along each edge.
_SAMPLES = 33
# Frames at a time, to bound the memory.
_FRAMES = 256
# The detector may reach nodes a little beyond those of its samples.
_SPARE = 2
# How far from whole numbers an operation on the nodes of a grid may be, by rounding.
_ROUNDING = 1e-6


class View(NamedTuple):
    """What a detector sees of reciprocal space, and when.

    Attributes
    ----------
    geometry : Geometry
    phi : ndarray, shape (frames,)
        Goniometer angle at the middle of the frames, degrees.
    width : float
        Of a frame, degrees.
    shape : (int, int)
        Rows and columns of the detector.
    """

    geometry: Geometry
    phi: Array
    width: float
    shape: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid in hkl, or in Q along x, y, z of the crystal frame.

    A place is origin + u·basis[0] + v·basis[1] + w·basis[2]. Node i of an axis with N nodes has the coordinate
    min + i(max − min)/(N − 1); a single one lies in the middle, and its voxel takes the whole range. The voxel of a
    node is the parallelepiped of one step along each axis, centred on the node.

    Parameters
    ----------
    kind : "hkl" or "cartesian"
        Whether places are in r.l.u. or in Å⁻¹.
    cell : Cell
    shape : (int, int, int)
    limits : ndarray, shape (3, 2)
        First and last coordinate of each axis.
    basis : ndarray, shape (3, 3)
        A vector a row.
    origin : ndarray, shape (3,)
    """

    kind: Kind
    cell: Cell
    shape: tuple[int, int, int]
    limits: Array
    basis: Array
    origin: Array

    @property
    def steps(self) -> Array:
        """From node to node along each axis, (3,)."""
        span = self.limits[:, 1] - self.limits[:, 0]
        return np.asarray(span / np.maximum(np.array(self.shape) - 1, 1))

    @property
    def first(self) -> Array:
        """Coordinates of node (0, 0, 0), (3,)."""
        return np.where(np.array(self.shape) > 1, self.limits[:, 0], self.limits.mean(axis=1))

    def axis(self, n: int) -> Array:
        """Coordinates of the nodes along axis n."""
        return np.asarray(self.first[n] + self.steps[n] * np.arange(self.shape[n]))

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the axes: h k l, x y z, or u v w along the vectors of a basis."""
        if not np.array_equal(self.basis, np.eye(3)):
            return "u", "v", "w"
        return ("h", "k", "l") if self.kind == "hkl" else ("x", "y", "z")

    def slabs(self, begin: int, end: int) -> Grid:
        """The part with nodes begin to end − 1 along the first axis."""
        nodes = self.axis(0)[begin:end]
        half = 0.5 * self.steps[0] if len(nodes) == 1 else 0.0
        limits = np.concatenate([[[nodes[0] - half, nodes[-1] + half]], self.limits[1:]])
        return replace(self, shape=(len(nodes), *self.shape[1:]), limits=limits)

    @cached_property
    def q_to_node(self) -> tuple[Array, Array]:
        """(3, 3) and (3,): the first times Q, plus the second, is the place among the nodes, in steps."""
        to_place = self.cell.A if self.kind == "hkl" else np.eye(3)
        inverse = np.linalg.inv(self.basis.T) / self.steps[:, None]
        return inverse @ to_place, -(inverse @ self.origin + self.first / self.steps)

    @property
    def step_lengths(self) -> Array:
        """Lengths of one step along each axis in Å⁻¹, (3,)."""
        vectors = self.steps[:, None] * self.basis
        return np.asarray(np.linalg.norm(vectors @ self.cell.B.T if self.kind == "hkl" else vectors, axis=1))

    def node_operations(
        self, hkl_operations: npt.NDArray[np.int64], operations: Array
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Symmetry operations on the numbers of nodes.

        Parameters
        ----------
        hkl_operations, operations : ndarray, shape (n, 3, 3)
            On hkl and on Q.

        Returns
        -------
        ndarray of int, shapes (n, 3, 3) and (n, 3)
            Node i goes to the first times i, plus the second; that may lie beyond the grid.

        Raises
        ------
        InputError
            If an operation does not take nodes to nodes.
        """
        w = hkl_operations.astype(np.float64) if self.kind == "hkl" else operations
        forward = self.basis.T * self.steps
        inverse = np.linalg.inv(forward)
        start = self.origin + self.basis.T @ self.first
        turns, shifts = inverse @ w @ forward, (w @ start - start) @ inverse.T
        on_nodes = np.rint(turns), np.rint(shifts)
        wrong = np.abs(turns - on_nodes[0]).max(axis=(1, 2)) > _ROUNDING
        wrong |= np.abs(shifts - on_nodes[1]).max(axis=1) > _ROUNDING * max(self.shape)
        if wrong.any():
            matrix = "; ".join(" ".join(f"{x:g}" for x in row) for row in np.round(w[int(np.argmax(wrong))], 4) + 0.0)
            raise InputError(
                f"volume_symmetrise = 1: the operation ({matrix}) of the group does not take the nodes of the grid to "
                'nodes; take volume_axes = "hkl", an odd number of nodes along each axis, limits that are symmetric '
                "about 0, and the same limits and shape along axes that the group exchanges"
            )
        return on_nodes[0].astype(np.int64), on_nodes[1].astype(np.int64)

    def enclosing(
        self, turns: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64], reach: Array
    ) -> tuple[Grid, npt.NDArray[np.int64]]:
        """The grid with the same nodes and all their images that a scan reaches.

        Parameters
        ----------
        turns, shifts : ndarray of int
            As `node_operations` gives them.
        reach : ndarray, shape (3, 2)
            Smallest and largest coordinate that the scan reaches.

        Returns
        -------
        Grid
        ndarray of int, shape (3,)
            The number of this grid's first node there.
        """
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, -1)
        images = turns @ corners + shifts[:, :, None]
        last = np.array(self.shape) - 1
        nodes = (reach - self.first[:, None]) / self.steps[:, None]
        low = np.maximum(images.min(axis=(0, 2)), np.floor(nodes[:, 0]).astype(np.int64) - _SPARE)
        high = np.minimum(images.max(axis=(0, 2)), np.ceil(nodes[:, 1]).astype(np.int64) + _SPARE)
        low, high = np.minimum(low, 0), np.maximum(high, last)
        n = high - low + 1
        first = self.first + low * self.steps
        limits = np.stack([first, first + (n - 1) * self.steps], axis=1)
        limits[n == 1] = self.limits[n == 1]
        shape = int(n[0]), int(n[1]), int(n[2])
        return replace(self, shape=shape, limits=limits), -low


def make_grid(settings: VolumeSettings, cell: Cell, views: Sequence[View]) -> Grid:
    """The grid that the settings ask for.

    Without volume_limits each axis is symmetric about 0 and takes in all that is seen: to a whole number, or to a
    tenth of Å⁻¹.

    Raises
    ------
    InputError
        If the basis spans no volume.
    """
    basis = np.eye(3) if settings.volume_basis is None else np.array(settings.volume_basis)
    origin = np.array(settings.volume_origin)
    lengths = np.linalg.norm(basis, axis=1)
    if abs(np.linalg.det(basis)) < 1e-6 * np.prod(lengths):
        raise InputError("volume_basis: its three vectors lie in a plane; give vectors that span a volume")
    limits = np.array([[-1.0, 1.0]] * 3) if settings.volume_limits is None else np.array(settings.volume_limits)
    grid = Grid(settings.volume_axes, cell, settings.volume_shape, limits, basis, origin)
    if settings.volume_limits is not None:
        return grid
    unit = 1.0 if settings.volume_axes == "hkl" else 0.1
    edge = unit * np.ceil(np.abs(reached(grid, views)).max(axis=1) / unit)
    return replace(grid, limits=np.stack([-edge, edge], axis=1))


def symmetric_limits(grid: Grid, group: PointGroup) -> Grid:
    """The same limits along axes of h k l or x y z that a group exchanges or mixes: the widest of them."""
    operations = group.hkl_operations if grid.kind == "hkl" else group.operations
    mixed = np.abs(operations).max(axis=0) > _ROUNDING
    edge = grid.limits[:, 1]
    for _ in range(2):  # a with b and b with c is a with c
        edge = np.array([edge[mixed[n] | mixed[:, n]].max() for n in range(3)])
    return replace(grid, limits=np.stack([-edge, edge], axis=1))


def frames_that_reach(grid: Grid, view: View) -> npt.NDArray[np.bool_]:
    """Which frames may have pixels in a grid, (frames,)."""
    phi, half = view.phi, view.width / 2
    turn, shift = grid.q_to_node
    high = np.array(grid.shape) - 0.5
    reach = np.zeros(len(phi), dtype=np.bool_)
    for part in np.array_split(np.arange(len(phi)), math.ceil(len(phi) / _FRAMES)):
        both = np.stack([_places(view, phi[part] + end, turn) + shift for end in (-half, half)])
        # Of the corners of each patch of the detector, at both ends of the frame.
        corners = np.stack([both[:, :, i : _SAMPLES - 1 + i, j : _SAMPLES - 1 + j] for i in (0, 1) for j in (0, 1)])
        low_of, high_of = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        margin = 0.25 * (high_of - low_of) + 0.01  # patches are curved
        inside = ((low_of - margin <= high) & (high_of + margin >= -0.5)).all(axis=-1)
        reach[part] = inside.any(axis=(1, 2))
    return reach


def reached(grid: Grid, views: Sequence[View]) -> Array:
    """Smallest and largest coordinate (3, 2) along each axis of a grid, of all that the detector sees.

    A little more, since the detector is looked at in some pixels only.
    """
    turn, shift = grid.q_to_node
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for view in views:
        for part in np.array_split(view.phi, math.ceil(len(view.phi) / _FRAMES)):
            nodes = _places(view, part, turn) + shift
            low = np.minimum(low, nodes.min(axis=(0, 1, 2)))
            high = np.maximum(high, nodes.max(axis=(0, 1, 2)))
    margin = 0.001 * (high - low)
    return grid.first[:, None] + np.stack([low - margin, high + margin], axis=1) * grid.steps[:, None]


def _places(view: View, phi: Array, turn: Array) -> Array:
    """turn·Q of pixels all over the detector, (frames, samples, samples, 3)."""
    rows, columns = (np.linspace(-0.5, n - 0.5, _SAMPLES) for n in view.shape)
    q = view.geometry.q_lab(rows[:, None], columns)
    return np.asarray(np.einsum("fij,rcj->frci", turn @ view.geometry.lab_to_crystal(phi), q))
