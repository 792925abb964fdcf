"""A picture of the denominators of the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.view.style import BLUE, GREY, grid, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

FEW = 200
"""Frames up to which each is a dot."""


def normalisation_picture(denominators: Array, source: str, error: Array | None = None) -> Figure:
    """Denominators against the number of the frame.

    Parameters
    ----------
    denominators : ndarray, shape (n,)
        Relative to their median.
    source : str
        Where they come from.
    error : ndarray, shape (n,), optional
        Their counting errors.
    """
    frame = np.arange(len(denominators))
    with style():
        figure = new_figure(9, 3.6)
        axes = figure.subplots()
        axes.axhline(1, color=GREY, lw=0.8, ls=(0, (4, 2)))
        if error is not None:
            axes.fill_between(
                frame, denominators - error, denominators + error, color=BLUE, alpha=0.25, lw=0, label="counting error"
            )
            axes.legend(loc="best")
        axes.plot(frame, denominators, color=BLUE, lw=1, marker="o" if len(frame) <= FEW else "", ms=2.5)
        axes.set_xlim(-0.5, len(frame) - 0.5)
        axes.set_xlabel("frame, from 0 in the order of the scan")
        axes.set_ylabel("denominator / median")
        axes.set_title(f"from {source}")
        grid(axes)
    return figure
