"""Pictures of what the fit leaves: pulls, worst spots, and how the constants are correlated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tds2el.fit.read import FitFile
from tds2el.view.style import BLUE, DATA, DIVERGING, GREY, MODEL, ORANGE, error_bars, grid, hkl_text, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST = 20
"""Bars in the picture of the worst spots."""


def pulls(fit: FitFile) -> Figure:
    """Histogram of the pulls of all points, and their mean and root mean square against |q|."""
    found = fit.profiles.pulls
    with style():
        figure = new_figure(11, 4)
        panels = figure.subplot_mosaic([["histogram", "mean"], ["histogram", "rms"]], width_ratios=(1.15, 1))
        _draw_histogram(panels["histogram"], fit)
        filled = found.q_points > 0
        q = ((found.q_edges[1:] + found.q_edges[:-1]) / 2)[filled]
        sigma = 1 / np.sqrt(found.q_points[filled])
        for name, values, error, expected in (
            ("mean", found.q_mean[filled], sigma, 0.0),
            ("rms", found.q_rms[filled], sigma / np.sqrt(2), 1.0),
        ):
            axes = panels[name]
            axes.axhline(expected, color=MODEL, lw=1, zorder=1)
            error_bars(axes, q, values, error)
            grid(axes)
            axes.set_xlim(found.q_edges[0], found.q_edges[-1])
            reach = 1.15 * float(np.max(np.abs(values - expected) + error, initial=0.0)) or 1.0
            axes.set_ylim(expected - reach, expected + reach)
        panels["mean"].set_ylabel("mean pull")
        panels["mean"].set_title("against |q|: bars are σ for independent points")
        panels["mean"].tick_params(labelbottom=False)
        panels["rms"].set_ylabel("rms pull")
        panels["rms"].set_xlabel("|q| (Å⁻¹)")
        figure.align_ylabels([panels["mean"], panels["rms"]])
    return figure


def worst_spots(fit: FitFile) -> Figure:
    """χ²/dof of the spots that the model describes worst."""
    spots = fit.spots
    order = np.argsort(-spots.chi2_per_dof, kind="stable")[:WORST]
    with style():
        figure = new_figure(7.5, 0.9 + 0.24 * len(order))
        axes = figure.subplots()
        rows = np.arange(len(order))
        used = ~spots.left_out[order]
        for chosen, colour, label in ((used, BLUE, "in the fit"), (~used, ORANGE, "left out")):
            if chosen.any():
                axes.barh(
                    rows[chosen],
                    spots.chi2_per_dof[order][chosen] - 1,
                    left=1,
                    xerr=spots.sigma_chi2_per_dof[order][chosen],
                    color=colour,
                    error_kw={"lw": 0.8},
                    height=0.7,
                    label=label,
                )
        axes.axvline(1, color=GREY, lw=1, zorder=3)
        axes.grid(axis="x", color="#dddddd", lw=0.5)
        axes.set_axisbelow(True)
        axes.set_yticks(rows, [f"{hkl_text(spots.hkl[n])}  at φ = {spots.angle[n]:.2f}°" for n in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.set_xlabel("χ²/dof (Pearson), with √(2/dof)")
        axes.tick_params(axis="y", length=0)
        if not used.all():
            axes.legend(loc="lower right")
        if len(order) < len(spots.hkl):
            axes.set_title(f"the {len(order)} of {len(spots.hkl)} spots with the largest χ²/dof")
    return figure


def correlations(fit: FitFile) -> Figure:
    """The correlation matrix of the fitted constants, with numbers."""
    names, matrix = fit.constants.fitted, fit.constants.correlation
    size = len(names)
    with style():
        side = 0.55 * max(size, 4)
        width, height = side + 1.9, side + 0.9
        figure = new_figure(width, height, constrained=False)
        axes = figure.add_axes((0.55 / width, 0.45 / height, side / width, side / height))
        image = axes.imshow(matrix, cmap=DIVERGING, vmin=-1, vmax=1, origin="upper")
        for row, column in np.ndindex(size, size):
            value = round(float(matrix[row, column]), 2) + 0.0  # no "-0.00"
            axes.text(
                column,
                row,
                f"{value:.2f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=8 if size <= 12 else 6.5,
                color="white" if abs(value) > 0.65 else "black",
            )
        axes.set_xticks(range(size), names, rotation=0 if size <= 12 else 90)
        axes.set_yticks(range(size), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        held = "" if fit.constants.held is None else f" at fixed {fit.constants.held}"
        axes.set_title(f"correlation of the fitted constants{held}")
        bar = figure.add_axes(((0.75 + side) / width, 0.45 / height, 0.15 / width, side / height))
        figure.colorbar(image, cax=bar, label="correlation coefficient")
    return figure


def _draw_histogram(axes: Axes, fit: FitFile) -> None:
    found = fit.profiles.pulls
    total = max(1, int(found.points.sum()) + found.below + found.above)
    axes.stairs(found.points, found.edges, color=DATA, lw=1, label="points of all spots")
    axes.stairs(found.expected, found.edges, color=MODEL, lw=1.2, label="expected if the fit is true")
    width = float(found.edges[1] - found.edges[0])
    x = np.linspace(found.edges[0], found.edges[-1], 400)
    gaussian = total * width * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    axes.plot(x, gaussian, color=GREY, lw=1, ls=(0, (4, 2)), label="unit Gaussian")
    axes.set_yscale("log")
    axes.set_ylim(0.5, 20 * max(float(found.points.max(initial=1)), float(gaussian.max())))
    axes.set_xlim(found.edges[0], found.edges[-1])
    axes.set_xlabel("pull (N − m)/√variance")
    axes.set_ylabel(f"points per {width:.2g}")
    beyond = f", {found.below + found.above} beyond the edges" if found.below + found.above else ""
    axes.set_title(f"mean {found.mean:.4f}, rms {found.rms:.4f}, {total} points{beyond}".replace("-", "−"))
    axes.legend(loc="upper right")
    grid(axes)
