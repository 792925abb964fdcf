"""Pictures of the layers of a volume, as they lie in reciprocal space."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.layer import INDICES, Layer
from tds2el.view.style import INTENSITY, NO_DATA, RED, SEQUENTIAL, new_figure, plain_log_axis, save, style
from tds2el.volume.file import VolumeFile
from tds2el.volume.layers import Cut, PlaneAxes, cut_volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]

DECADES = 3.0
"""Of the colour scale, from diffuse scattering and background upwards."""
LINES = 24
"""At most so many lines of the lattice along an edge."""


def draw_layers(volume: VolumeFile, layers: Sequence[Layer], thickness: float | None = None) -> list[Path]:
    """Draw layers as PNG files beside the volume.

    Parameters
    ----------
    volume : VolumeFile
    layers : sequence of Layer
        Of one that cannot be drawn a message says so.
    thickness : float, optional
        In r.l.u., along the fixed index; one voxel by default.

    Returns
    -------
    list of Path
        <name of the volume>_<layer>.png

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    written = []
    for layer in layers:
        cut = cut_volume(volume, layer, thickness)
        if cut is None:
            log.info("no picture of %s: the volume has nothing there, or a row of voxels only", layer.name)
            continue
        path = volume.path.with_name(f"{volume.path.stem}_{layer.name}.png")
        save(layer_figure(cut, volume.cell, volume.path.name), path)
        written.append(path)
    return written


def layer_figure(cut: Cut, cell: Cell, source: str) -> Figure:
    """The picture of a layer, with lines of the crystal's reciprocal lattice."""
    layer, (left, right, bottom, top) = cut.layer, cut.extent
    first, second = (INDICES[i] for i in layer.free)
    norm_low, norm_high = _colour_limits(cut.intensity)
    with style():
        from matplotlib.colors import LogNorm

        aspect = min(max((top - bottom) / (right - left), 0.35), 1.6)
        figure = new_figure(8.2, 7.0 * aspect + 1.7)
        axes = figure.subplots()
        image = axes.imshow(
            np.where(np.isnan(cut.intensity), np.nan, np.maximum(cut.intensity, norm_low)),
            extent=cut.extent,
            norm=LogNorm(norm_low, norm_high),
            cmap=SEQUENTIAL,
            aspect="equal",
        )
        axes.set_facecolor(NO_DATA)
        axes.spines[:].set_visible(True)
        axes.set_xlabel(f"along {'abc'[layer.free[0]]}* (Å⁻¹)")
        axes.set_ylabel(f"across, towards {'abc'[layer.free[1]]}* (Å⁻¹)")
        every = _draw_lattice(axes, layer, cell)
        lines = " and ".join(f"every {step} {n}" for n, step in zip((first, second), every, strict=True))
        value = f"{layer.value:g}".replace("-", "−")
        axes.set_title(
            f"{source}: {INDICES[layer.index]} = {value}, {cut.thickness:.3g} r.l.u. thick; lines: {lines}; "
            "grey: not measured",
            pad=8,
        )
        bar = figure.colorbar(image, ax=axes, label=INTENSITY, location="bottom", aspect=50, shrink=0.7)
        plain_log_axis(bar.ax.xaxis)
    return figure


def _draw_lattice(axes: Axes, layer: Layer, cell: Cell) -> tuple[int, int]:
    """Lines at whole indices, which stand at the top and on the right; returns how far apart the lines are."""
    plane = PlaneAxes(layer, cell)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    rows = cell.B.T[list(layer.free)]
    (ax, _), (bx, by) = plane.to_plane(rows)
    shift = plane.to_plane(layer.value * cell.B[:, layer.index])
    # x = first·ax + second·bx + shift, y = second·by + shift.
    second = (np.array([bottom, top]) - shift[1]) / by
    first = [(x - shift[0] - s * bx) / ax for x, s in itertools.product((left, right), second)]
    steps = _line_step(max(first) - min(first)), _line_step(float(second[1] - second[0]))
    at_top = []
    for n in _multiples(min(first), max(first), steps[0]):
        ends = [(n * ax + s * bx + shift[0]) for s in second]
        axes.plot(ends, [bottom, top], color=RED, lw=0.5, alpha=0.5)
        at_top.append((ends[1], n))
    at_right = [(n * by + shift[1], n) for n in _multiples(float(second[0]), float(second[1]), steps[1])]
    for y, _ in at_right:
        axes.axhline(y, color=RED, lw=0.5, alpha=0.5)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    at_top = [(x, n) for x, n in at_top if left <= x <= right]
    for axis, ticks, index in (
        (axes.secondary_xaxis("top").xaxis, at_top, layer.free[0]),
        (axes.secondary_yaxis("right").yaxis, at_right, layer.free[1]),
    ):
        axis.set_ticks([place for place, _ in ticks], [f"{n}".replace("-", "−") for _, n in ticks], color=RED)
        axis.set_label_text(INDICES[index], color=RED, rotation=0)
        axis.labelpad = 8
    return steps


def _line_step(span: float) -> int:
    """1, 2, 5, 10, …: such that there are not too many lines."""
    return next(int(step) for p in range(9) for step in (10**p, 2 * 10**p, 5 * 10**p) if span / step <= LINES)


def _multiples(low: float, high: float, step: int) -> list[int]:
    return list(range(math.ceil(low / step) * step, math.floor(high / step) * step + 1, step))


def _colour_limits(intensity: Array) -> tuple[float, float]:
    """From nearly the weakest to the strongest, or as far as the decades go: Bragg peaks have one colour then."""
    found = intensity[intensity > 0]
    if not len(found):
        return 0.1, 1.0
    low, high = (float(x) for x in np.percentile(found, [2, 99.95]))
    high = min(high, low * 10**DECADES)
    return low, max(high, 1.01 * low)
