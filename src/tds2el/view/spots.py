"""Pictures of spots: profiles of data and fitted curve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.fit.profiles import Profile, azimuth_axes
from tds2el.fit.read import FitFile
from tds2el.fit.text import with_error
from tds2el.view.style import (
    DATA,
    GREY,
    INTENSITY,
    MODEL,
    error_bars,
    grid,
    hkl_text,
    new_figure,
    plain_log_axis,
    style,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

COLUMNS, ROWS = 6, 8
"""Spots on one contact sheet."""
LOG_FROM = 3.0
"""Ratio of largest to smallest intensity from which the axis is logarithmic."""


def spot_profiles(fit: FitFile, spot: int) -> Figure:
    """Intensity of one spot against |q|, against the angle to G and against the azimuth about G, with the residuals.

    Parameters
    ----------
    fit : FitFile
    spot : int
        Row of the table of spots.
    """
    spots, profiles = fit.spots, fit.profiles
    towards = azimuth_axes(spots.centre[spot])[2]
    with style():
        # Margins by hand: automatic layout takes longer than all the rest.
        figure = new_figure(11, 4.4, constrained=False)
        panels = figure.subplots(2, 3, sharex="col", height_ratios=(3, 1))
        figure.subplots_adjust(left=0.065, right=0.985, bottom=0.115, top=0.91, wspace=0.17, hspace=0.09)
        for column, (profile, label) in enumerate(
            (
                (profiles.radial, "|q| (Å⁻¹)"),
                (profiles.angle, "angle between q and G (°)"),
                (profiles.azimuth, f"azimuth of q about G, from {towards} (°)"),
            )
        ):
            curve, residuals = panels[:, column]
            _draw(curve, profile, spot)
            _draw_residuals(residuals, profile, spot)
            residuals.set_xlabel(label)
            residuals.set_xlim(profile.edges[0], profile.edges[-1])
        for axes in panels[1, 1:]:
            axes.set_xticks(np.linspace(axes.get_xlim()[0], axes.get_xlim()[1], 7))
        panels[0, 0].axhline(spots.baseline[spot], color=GREY, lw=1, ls=(0, (4, 2)), label="baseline b", zorder=1)
        if _wide(profiles.radial, np.array([spot])):
            panels[0, 0].set_yscale("log")
            plain_log_axis(panels[0, 0].yaxis)
        panels[0, 0].set_ylabel(INTENSITY)
        panels[1, 0].set_ylabel("(data − fit)/σ")
        panels[0, 0].legend(*_data_first(panels[0, 0]), loc="upper right")
        for axes in panels[:, 0]:
            axes.yaxis.set_label_coords(-0.125, 0.5)
        figure.suptitle(
            f"{hkl_text(spots.hkl[spot])}  at φ = {spots.angle[spot]:.2f}°:  {spots.points[spot]} points,  "
            f"χ²/dof {spots.chi2_per_dof[spot]:.3f},  f = {with_error(spots.factor[spot], spots.sigma_factor[spot])},  "
            f"b = {with_error(spots.baseline[spot], spots.sigma_baseline[spot])}"
            f"{',  left out of the fit' if spots.left_out[spot] else ''}"
        )
    return figure


def contact_sheets(fit: FitFile) -> Iterator[Figure]:
    """Radial profiles of all spots, side by side on the same axes, `COLUMNS` × `ROWS` to a sheet."""
    spots, radial = fit.spots, fit.profiles.radial
    everything = range(len(spots.hkl))
    used = np.flatnonzero(~spots.left_out)  # what was left out, often without a halo, does not set the scale
    scale = used if len(used) else np.arange(len(everything))
    wide = _wide(radial, scale)
    low, high = _limits(radial.model[scale], wide)
    per_sheet = COLUMNS * ROWS
    for first in range(0, len(everything), per_sheet):
        shown = everything[first : first + per_sheet]
        rows = -(-len(shown) // COLUMNS)
        with style():
            height = 1.45 * rows + 0.95
            figure = new_figure(11, height, constrained=False)
            panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
            figure.subplots_adjust(
                left=0.07, right=0.985, bottom=0.55 / height, top=1 - 0.55 / height, wspace=0.06, hspace=0.28
            )
            for axes, spot in zip(panels.flat, shown, strict=False):
                _draw(axes, radial, spot)
                faulty = ", left out" if spots.left_out[spot] else ""
                axes.set_title(
                    f"{hkl_text(spots.hkl[spot])}  χ²/dof {spots.chi2_per_dof[spot]:.2f}{faulty}", fontsize=8, pad=2
                )
            for axes in panels.flat[len(shown) :]:
                axes.set_visible(False)
            for axes in panels[-1] if rows > 1 else ():
                if not axes.get_visible():  # its column ends one row higher
                    panels[-2, list(panels[-1]).index(axes)].xaxis.set_tick_params(labelbottom=True)
            panels[0, 0].set_xlim(radial.edges[0], radial.edges[-1])
            if wide:
                panels[0, 0].set_yscale("log")
                plain_log_axis(panels[0, 0].yaxis)
            panels[0, 0].set_ylim(low, high)
            figure.supxlabel("|q| (Å⁻¹)", fontsize=9, y=0.08 / height)
            figure.supylabel(INTENSITY, fontsize=9, x=0.008)
            figure.legend(*_data_first(panels[0, 0]), loc="upper right", bbox_to_anchor=(0.995, 1), ncols=2)
            figure.suptitle(
                f"spots {shown[0] + 1} to {shown[-1] + 1} of {len(everything)}", x=0.07, ha="left", y=1 - 0.1 / height
            )
        yield figure


def _draw(axes: Axes, profile: Profile, spot: int) -> None:
    error_bars(axes, profile.centres, profile.intensity[spot], profile.sigma[spot], label="data")
    axes.plot(profile.centres, profile.model[spot], color=MODEL, label="fit", zorder=3)
    grid(axes)


def _data_first(axes: Axes) -> tuple[list[Artist], list[str]]:
    """Handles and labels of a legend that begins with the data."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda n: labels[n] != "data")
    return [handles[n] for n in order], [labels[n] for n in order]


def _draw_residuals(axes: Axes, profile: Profile, spot: int) -> None:
    from matplotlib.ticker import MaxNLocator

    pull = (profile.intensity[spot] - profile.model[spot]) / profile.sigma[spot]
    axes.axhspan(-1, 1, color="#eeeeee", zorder=0)
    axes.axhline(0, color=MODEL, lw=1, zorder=1)
    axes.plot(profile.centres, pull, "o", ms=2.6, color=DATA)
    limit = max(3.5, 1.1 * float(np.nanmax(np.abs(pull), initial=0.0)))
    axes.set_ylim(-limit, limit)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _wide(profile: Profile, spots: npt.NDArray[np.int64]) -> bool:
    """Whether a logarithmic axis suits: nothing at or below zero, and a large range."""
    values = np.concatenate([profile.intensity[spots], profile.model[spots]]).ravel()
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > LOG_FROM * values.min())


def _limits(model: Array, wide: bool) -> tuple[float, float]:
    """Common limits of the intensity, set by the fit and not by the noisiest points."""
    low, high = float(np.nanmin(model)), float(np.nanmax(model))
    if wide:
        return low / 1.5, high * 1.5
    margin = 0.08 * (high - low) or 1.0
    return min(low, 0.0) - margin, high + margin
