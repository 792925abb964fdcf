"""A picture of the peaks that were found: some frames with the peaks marked, and peaks per frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tds2el.experiment.frames import FrameSeries
from tds2el.experiment.mask import FrameMasks
from tds2el.experiment.maxima import Maxima
from tds2el.view.style import BLACK, BLUE, GREY, NO_DATA, RED, grid, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

SHOWN = 4
"""Frames."""
PANEL = 3.6
"""Width of a frame in the picture, inches."""
WIDEST = 700
"""Pixels of a picture of a frame: larger ones are reduced to the brightest of each block."""


def maxima_picture(maxima: Maxima, background: Array, series: FrameSeries, masks: FrameMasks) -> Figure:
    """Frames of all parts of the scan, those with the most peaks, and what was found in every frame.

    Parameters
    ----------
    maxima : Maxima
    background : ndarray, shape (frames,)
        Mean counts per pixel.
    series, masks

    Raises
    ------
    InputError
        If a frame cannot be read.
    """
    from matplotlib.ticker import MaxNLocator

    nearest = np.rint(maxima.frame).astype(int)
    per_frame = np.bincount(nearest, minlength=series.n_frames)
    parts = [part for part in np.array_split(np.arange(series.n_frames), SHOWN) if len(part)]
    shown = [int(part[np.argmax(per_frame[part])]) for part in parts]
    with style():
        layout: list[Any] = [[f"frame {n}" for n in row] for row in (shown[:2], shown[2:]) if row]
        layout = [row * (2 // len(row)) for row in layout]
        tall = float(np.clip(series.shape[0] / series.shape[1], 0.3, 2)) * PANEL
        heights = [tall] * len(layout) + [1.1, 1.1]
        figure = new_figure(2 * PANEL + 1.5, sum(heights) + 1.8)
        panels = figure.subplot_mosaic([*layout, ["peaks"] * 2, ["background"] * 2], height_ratios=heights)
        for n in shown:
            axes = panels[f"frame {n}"]
            _draw_frame(axes, series.read(n), masks.mask(n))
            here = nearest == n
            _mark(axes, maxima, here & ~maxima.saturated, RED)
            _mark(axes, maxima, here & maxima.saturated, BLUE)
            axes.set_title(f"{Path(series.names[n]).name}, frame {n}: {per_frame[n]} centred here")
        _draw_steps(panels["peaks"], per_frame, "all", RED)
        if maxima.saturated.any():
            saturated = np.bincount(nearest[maxima.saturated], minlength=series.n_frames)
            _draw_steps(panels["peaks"], saturated, "saturated", BLUE)
            panels["peaks"].legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2)
        panels["peaks"].set_ylabel("peaks\nin a frame")
        panels["peaks"].set_ylim(0)
        panels["peaks"].yaxis.set_major_locator(MaxNLocator(4, integer=True))
        _draw_steps(panels["background"], background, "", BLACK)
        panels["background"].set_ylabel("background\n(counts/pixel)")
        panels["background"].set_xlabel("frame, from 0 in the order of the scan")
        panels["background"].set_ylim(0)
        for name in ("peaks", "background"):
            grid(panels[name])
            panels[name].set_xlim(-0.5, series.n_frames - 0.5)
        saturated_too = "; blue: saturated" if maxima.saturated.any() else ""
        figure.suptitle(f"{len(maxima.row)} peaks in {series.n_frames} frames{saturated_too}")
    return figure


def _draw_frame(axes: Axes, counts: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    image = np.where(mask & (counts >= 0), counts, np.nan).astype(float)
    block = max(1, -(-max(image.shape) // WIDEST))
    rows, columns = (-(-n // block) * block for n in image.shape)
    padded = np.full((rows, columns), np.nan)
    padded[: image.shape[0], : image.shape[1]] = image
    blocks = padded.reshape(rows // block, block, columns // block, block)
    brightest = np.where(np.isnan(blocks), -1, blocks).max(axis=(1, 3))
    brightest[brightest < 0] = np.nan
    high = max(10.0, float(np.nanquantile(brightest, 0.9995))) if np.isfinite(brightest).any() else 10.0
    colours = colormaps["Greys"].with_extremes(bad=NO_DATA)
    axes.imshow(
        brightest + 1,  # a count of 0 has no logarithm
        cmap=colours,
        norm=LogNorm(1, high + 1, clip=True),
        extent=(-0.5, columns - 0.5, -0.5, rows - 0.5),
    )
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(-0.5, image.shape[0] - 0.5)
    axes.set_xlabel("column")
    axes.set_ylabel("row")


def _mark(axes: Axes, maxima: Maxima, chosen: npt.NDArray[np.bool_], colour: str) -> None:
    axes.scatter(
        maxima.column[chosen], maxima.row[chosen], s=110, facecolors="none", edgecolors=colour, linewidths=0.8, zorder=3
    )


def _draw_steps(axes: Axes, values: npt.NDArray[Any], label: str, colour: str) -> None:
    edges = np.arange(len(values) + 1) - 0.5
    axes.stairs(values, edges, color=colour, label=label, lw=1.2, fill=len(values) < 2)
    if not label:
        axes.axhline(float(values.mean()), color=GREY, lw=0.8, ls=(0, (4, 2)))
