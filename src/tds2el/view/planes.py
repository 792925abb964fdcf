"""Pictures of interpolated spots: the central planes of data and simulation, and their difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tds2el.view.style import DIVERGING, INTENSITY, NO_DATA, SEQUENTIAL, hkl_text, new_figure, plain_log_axis, style

if TYPE_CHECKING:
    import h5py
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NAMES = ("qx", "qy", "qz")
PAIRS = ((0, 1), (0, 2), (1, 2))
"""Horizontal and vertical axis of each central plane."""
COLUMNS, ROWS = 4, 6
"""Spots on one contact sheet."""
NEAR = 32
"""A node counts as measured if a point lies within the cube's edge over this, along each axis."""
DECADES = 3.0
"""A logarithmic colour scale spans no more than this, however close to zero the weakest values are."""


@dataclass(frozen=True)
class CentralPlanes:
    """The planes qz = 0, qy = 0 and qx = 0 of the cubes round a spot.

    Attributes
    ----------
    hkl : tuple of int
    axis : ndarray, shape (n,)
        Coordinates of the nodes along qx, qy and qz alike, Å⁻¹.
    data, simulation : ndarray, shape (3, n, n)
        Counts per unit correction; [p, i, j] lies at axis[i] on the plane's first coordinate and axis[j] on its
        second, `PAIRS`[p].
    angle : float, optional
        Goniometer angle of the passage, degrees, where the cubes are of one passage only.
    measured : ndarray of bool, shape (3, n, n), optional
        Where there are points nearby; elsewhere interpolation only continues what is round about.
    """

    hkl: tuple[int, int, int]
    axis: Array
    data: Array
    simulation: Array
    angle: float | None = None
    measured: Mask | None = None

    @property
    def title(self) -> str:
        """Such as ``1 0 −4`` or ``1 0 −4 at φ = 23.85°``."""
        return hkl_text(self.hkl) + ("" if self.angle is None else f"  at φ = {self.angle:.2f}°")

    @classmethod
    def of_cubes(
        cls,
        hkl: Sequence[int],
        axis: npt.ArrayLike,
        data: npt.NDArray[np.floating] | h5py.Dataset,
        simulation: npt.NDArray[np.floating] | h5py.Dataset,
        *,
        points: npt.NDArray[np.integer] | h5py.Dataset | None = None,
        angle: float | None = None,
    ) -> CentralPlanes:
        """Cut cubes (n, n, n) of which [i, j, l] lies at qx = axis[i], qy = axis[j], qz = axis[l].

        Of an HDF5 dataset only the planes are read. With an even number of nodes no node lies at zero, and the two
        planes beside it are averaged. `points` is the number of points of each voxel.
        """
        h, k, l = (int(index) for index in hkl)
        return cls(
            (h, k, l),
            np.asarray(axis, dtype=float),
            _cut(data),
            _cut(simulation),
            angle,
            None if points is None else _near(points),
        )


def central_planes(
    planes: CentralPlanes, shell: tuple[float, float] | None = None, node: Array | None = None
) -> Figure:
    """Data, simulation and difference on the three planes; the first two on one logarithmic colour scale.

    Parameters
    ----------
    planes : CentralPlanes
    shell : (float, float), optional
        Smallest and largest |q| of the points, Å⁻¹. Where nothing was measured the picture is blank.
    node : ndarray, shape (3,), optional
        G, whose direction an arrow in the blank core then shows.
    """
    inside = _inside(planes, shell)
    data, simulation = (np.where(inside, a, np.nan) for a in (planes.data, planes.simulation))
    difference = data - simulation
    limit = _largest(difference, 99.5)
    with style():
        figure = new_figure(8.6, 10.0, constrained=False)
        panels = figure.subplots(3, 3, sharey=True)
        figure.subplots_adjust(left=0.105, right=0.985, bottom=0.125, top=0.93, wspace=0.06, hspace=0.2)
        norm = _log_norm(data, simulation)
        for row, (x, y) in enumerate(PAIRS):
            for axes, plane in zip(panels[row, :2], (data[row], simulation[row]), strict=True):
                shared = axes.imshow(
                    np.maximum(plane, norm.vmin or 0.0).T, extent=_extent(planes.axis), norm=norm, cmap=SEQUENTIAL
                )
            signed = panels[row, 2].imshow(
                difference[row].T, extent=_extent(planes.axis), vmin=-limit, vmax=limit, cmap=DIVERGING
            )
            panels[row, 0].set_ylabel(f"{NAMES[3 - x - y]} = 0\n{NAMES[y]} (Å⁻¹)")
            for axes in panels[row]:
                axes.set_facecolor(NO_DATA)
                axes.spines[:].set_visible(True)
                axes.locator_params(nbins=5)
                axes.set_xlabel(f"{NAMES[x]} (Å⁻¹)", labelpad=1)
            if shell and node is not None:
                for axes in panels[row, :2]:
                    _arrow(axes, 0.8 * shell[0] * node[[x, y]] / float(np.linalg.norm(node)))
        for axes, title in zip(panels[0], ("data", "simulation", "data − simulation"), strict=True):
            axes.set_title(title, fontsize=10)
        for picture, left, width, label in (
            (shared, 0.155, 0.48, INTENSITY),
            (signed, 0.73, 0.22, "difference (same unit)"),
        ):
            bar = figure.colorbar(picture, cax=figure.add_axes((left, 0.055, width, 0.012)), orientation="horizontal")
            bar.set_label(label)
            if picture is shared:
                plain_log_axis(bar.ax.xaxis)
        arrow = ";  the arrow points along G" if shell and node is not None else ""
        figure.suptitle(f"{planes.title}: central planes{arrow}", y=0.985)
    return figure


def planes_sheets(spots: Sequence[CentralPlanes], shell: tuple[float, float] | None = None) -> Iterator[Figure]:
    """The planes of many spots: data above simulation, each spot on its own logarithmic scale."""
    per_sheet = COLUMNS * ROWS
    for first in range(0, len(spots), per_sheet):
        shown = spots[first : first + per_sheet]
        rows = -(-len(shown) // COLUMNS)
        with style():
            height = 2.1 * rows + 0.65
            figure = new_figure(11, height, constrained=False)
            panels = figure.subplots(rows, COLUMNS, squeeze=False)
            figure.subplots_adjust(
                left=0.012, right=0.988, bottom=0.1 / height, top=1 - 0.5 / height, wspace=0.05, hspace=0.15
            )
            for axes, planes in zip(panels.flat, shown, strict=False):
                inside = _inside(planes, shell)
                data, simulation = (np.where(inside, a, np.nan) for a in (planes.data, planes.simulation))
                norm = _log_norm(data, simulation)
                image = np.maximum(np.vstack([_row(simulation), _row(data)]), norm.vmin or 0.0)
                axes.imshow(image, norm=norm, cmap=SEQUENTIAL, aspect="equal")
                axes.set_title(planes.title, pad=2)
            for axes in panels.flat:
                axes.set_axis_off()
            half = float(spots[first].axis[-1])
            figure.text(
                0.012,
                1 - 0.12 / height,
                f"spots {first + 1} to {first + len(shown)} of {len(spots)}: data above, simulation below; "
                f"planes qz = 0, qy = 0 and qx = 0, each ±{half:.4g} Å⁻¹",
                va="top",
                fontsize=10,
            )
        yield figure


def _cut(cube: npt.NDArray[np.floating] | h5py.Dataset) -> Array:
    n = cube.shape[0]
    return np.stack([slab.mean(axis=axis) for axis, slab in _slabs(cube, slice((n - 1) // 2, n // 2 + 1))])


def _near(points: npt.NDArray[np.integer] | h5py.Dataset) -> Mask:
    from scipy.ndimage import maximum_filter

    n = points.shape[0]
    reach = max(1, n // NEAR)
    slabs = _slabs(points, slice(max(0, (n - 1) // 2 - reach), n // 2 + reach + 1))
    return np.stack([maximum_filter(slab.any(axis=axis), 2 * reach + 1) for axis, slab in slabs])


def _slabs(cube: npt.NDArray[Any] | h5py.Dataset, layers: slice) -> Iterator[tuple[int, Array]]:
    """Layers about qz = 0, qy = 0 and qx = 0, each with the axis across them."""
    yield 2, np.asarray(cube[:, :, layers], dtype=float)
    yield 1, np.asarray(cube[:, layers, :], dtype=float)
    yield 0, np.asarray(cube[layers, :, :], dtype=float)


def _inside(planes: CentralPlanes, shell: tuple[float, float] | None) -> Mask:
    inside = np.ones(planes.data.shape, dtype=bool) if planes.measured is None else planes.measured
    if shell is None:
        return inside
    radius = np.hypot(planes.axis[:, None], planes.axis[None, :])
    return inside & (radius >= shell[0]) & (radius <= shell[1])


def _row(planes: Array) -> Array:
    """Three planes side by side, with gaps."""
    framed = np.pad(planes, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    return np.hstack([plane.T for plane in framed])


def _log_norm(data: Array, simulation: Array) -> LogNorm:
    """From the weakest to nearly the strongest simulated value, for both; one hot voxel does not set the scale."""
    from matplotlib.colors import LogNorm

    found = simulation[simulation > 0]
    if not len(found):
        found = data[data > 0] if (data > 0).any() else np.ones(1)
    high = float(np.percentile(found, 99.9))
    low = max(float(np.percentile(found, 0.5)), high / 10**DECADES)
    return LogNorm(low, max(high, 1.01 * low))


def _largest(values: Array, percentile: float) -> float:
    found = np.abs(values[np.isfinite(values)])
    return (float(np.percentile(found, percentile)) if len(found) else 0.0) or 1.0


def _arrow(axes: Axes, tip: Array) -> None:
    """From the centre, unless it would be too short to see."""
    if np.hypot(*tip) > 0.02 * float(axes.get_xlim()[1]):
        axes.annotate(
            "", xy=(tip[0], tip[1]), xytext=(0, 0), arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0}
        )


def _extent(axis: Array) -> tuple[float, float, float, float]:
    """Limits of the picture: half a step beyond the outermost nodes."""
    half = (axis[-1] - axis[0]) / (len(axis) - 1) / 2
    low, high = float(axis[0] - half), float(axis[-1] + half)
    return low, high, low, high
