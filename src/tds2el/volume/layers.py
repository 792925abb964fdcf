"""Layers cut out of a volume."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.layer import Layer
from tds2el.volume.file import CHUNK, VolumeFile
from tds2el.volume.grid import Grid

Array = npt.NDArray[np.float64]

PIXELS = 1200
"""Of a layer along its longer edge."""
BOX = 1 << 26
"""Voxels that are read at a time, at most, of a layer that runs obliquely through the volume."""
# Between two nodes, rounding errors would take one or the other from pixel to pixel.
_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class Cut:
    """What a picture shows.

    Attributes
    ----------
    layer : Layer
    intensity : ndarray, shape (rows, columns)
        ΣN/Σκ of the voxels of a pixel, less the background; NaN where none was measured. Rows and columns at the
        edge where nothing was measured are left out.
    extent : (float, float, float, float)
        Left, right, bottom, top in Å⁻¹, along the first free axis and across it.
    thickness : float
        In r.l.u., along the fixed index.
    """

    layer: Layer
    intensity: Array
    extent: tuple[float, float, float, float]
    thickness: float


class PlaneAxes:
    """Cartesian axes in a layer: x along the first free reciprocal axis, y towards the second.

    Parameters
    ----------
    layer : Layer
    cell : Cell

    Attributes
    ----------
    axes : ndarray, shape (2, 3)
        Unit vectors along x and y.
    per_value : ndarray, shape (3,)
        Normal to both; in Å⁻¹, as long as the fixed index takes to grow by 1.
    """

    def __init__(self, layer: Layer, cell: Cell) -> None:
        first, second = (cell.B[:, i] for i in layer.free)
        x = first / np.linalg.norm(first)
        y = second - (second @ x) * x
        self.axes = np.stack([x, y / np.linalg.norm(y)])
        normal = np.cross(*self.axes)
        self.per_value = normal / float(cell.A[layer.index] @ normal)

    def to_plane(self, q: Array) -> Array:
        """x and y (..., 2) of Q (..., 3)."""
        return np.asarray(q @ self.axes.T)

    def to_q(self, x: Array, y: Array, value: float) -> Array:
        """Q (..., 3) in the layer where the fixed index has that value."""
        return np.asarray(x[..., None] * self.axes[0] + y[..., None] * self.axes[1] + value * self.per_value)


def cut_volume(volume: VolumeFile, layer: Layer, thickness: float | None = None) -> Cut | None:
    """Cut a layer out of a volume; None if nothing was measured there, or it is a row of voxels only.

    The sums of the nearest voxels are added up, at places that are closer than voxels and go through the thickness.
    """
    grid, plane = volume.grid, PlaneAxes(layer, volume.cell)
    corners = _corners(grid, layer)
    if corners is None:
        return None
    corner_places = plane.to_plane(corners)
    low, high = corner_places.min(axis=0), corner_places.max(axis=0)
    if (high - low).min() < 1.5 * grid.step_lengths.max():
        return None
    pixel = float((high - low).max()) / PIXELS
    fine = math.ceil(pixel / float(grid.step_lengths.min()))
    shape = [max(1, math.ceil((high[i] - low[i]) / pixel)) for i in (1, 0)]
    y, x = (low[i] + (np.arange(n * fine) + 0.5) * pixel / fine for i, n in zip((1, 0), shape, strict=True))
    across = float(np.abs(_hkl_steps(grid)[:, layer.index]).sum())
    depths = np.zeros(1)
    if thickness is not None:
        n = 2 * round(thickness / across) + 1
        depths = ((np.arange(n) + 0.5) / n - 0.5) * thickness
    sums = np.zeros((2, *shape))
    for depth in depths:
        own, correction = _sample(volume, plane, x, y, layer.value + depth)
        for total, part in zip(sums, (own, correction), strict=True):
            total += part.reshape(shape[0], fine, shape[1], fine).sum(axis=(1, 3))
    if not (sums[1] > 0).any():
        return None
    intensity = np.divide(sums[0], sums[1], out=np.full(sums[0].shape, np.nan), where=sums[1] > 0)
    rows, columns = (np.flatnonzero((sums[1] > 0).any(axis=axis)) for axis in (1, 0))
    measured = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    left, right = (float(low[0] + pixel * n) for n in (columns[0], columns[-1] + 1))
    bottom, top = (float(low[1] + pixel * n) for n in (rows[0], rows[-1] + 1))
    return Cut(layer, intensity[measured], (left, right, bottom, top), across if thickness is None else thickness)


def _hkl_steps(grid: Grid) -> Array:
    """Steps along the axes of the grid, hkl a row (3, 3)."""
    vectors = grid.steps[:, None] * grid.basis
    return np.asarray(vectors if grid.kind == "hkl" else vectors @ grid.cell.A.T)


def _corners(grid: Grid, layer: Layer) -> Array | None:
    """Q (n, 3) where the layer meets the edges of the grid's box; None if it does not."""
    turn, shift = grid.q_to_node
    inverse = np.linalg.inv(turn)
    box = np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in grid.shape])))
    q = (box - shift) @ inverse.T
    distance = q @ grid.cell.A[layer.index] - layer.value
    found = []
    for i, j in itertools.combinations(range(8), 2):
        if (box[i] != box[j]).sum() == 1 and distance[i] * distance[j] <= 0 and distance[i] != distance[j]:
            part = distance[i] / (distance[i] - distance[j])
            found.append(q[i] + part * (q[j] - q[i]))
    return np.array(found) if len(found) >= 3 else None


def _sample(volume: VolumeFile, plane: PlaneAxes, x: Array, y: Array, value: float) -> tuple[Array, Array]:
    """Counts less background, and corrections, of the voxels nearest to places in the plane, (len(y), len(x)) each."""
    turn, shift = volume.grid.q_to_node
    start, along_x, along_y = (turn @ q for q in (plane.per_value * value, *plane.axes))
    nodes = [
        np.floor(x * along_x[k] + (y[:, None] * along_y[k] + (start[k] + shift[k] + 0.5 + _TIE))).astype(np.int32)
        for k in range(3)
    ]
    inside = np.ones((len(y), len(x)), dtype=np.bool_)
    for node, n in zip(nodes, volume.grid.shape, strict=True):
        inside &= (node >= 0) & (node < n)
    own, correction = np.zeros(inside.shape), np.zeros(inside.shape)
    if not inside.any():
        return own, correction
    found = [node[inside] for node in nodes]
    low, high = ([int(edge(node)) for node in found] for edge in (np.min, np.max))
    depth = max(CHUNK, BOX // ((high[1] - low[1] + 1) * (high[2] - low[2] + 1)))
    values = np.zeros((2, len(found[0])))
    for first in range(low[0], high[0] + 1, depth):
        stop = min(first + depth, high[0] + 1)
        box = slice(first, stop), slice(low[1], high[1] + 1), slice(low[2], high[2] + 1)
        here = slice(None) if depth > high[0] - low[0] else (found[0] >= first) & (found[0] < stop)
        at = found[0][here] - first, found[1][here] - low[1], found[2][here] - low[2]
        values[0, here], values[1, here] = volume.counts[box][at], volume.correction[box][at]
        if volume.background is not None:
            values[0, here] -= volume.background[box][at]
    own[inside], correction[inside] = values
    return own, correction
