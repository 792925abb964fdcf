"""Picture of the scale that Bragg intensities give, and of its extrapolation to no extinction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tds2el.fit.bragg import BraggScale
from tds2el.fit.read import FitFile
from tds2el.view.style import BLUE, GREY, MODEL, error_bars, grid, hkl_text, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def extinction_curve(fit: FitFile, found: BraggScale) -> Figure:
    """The scale from each reflection against its strength, the fitted curve, and the scale where it ends."""
    used = np.array([not flaw for flaw in found.flaw])
    with style():
        figure = new_figure(6.2, 4.0)
        axes = figure.add_subplot()
        grid(axes)
        ratio = np.exp(found.log_ratio)
        error_bars(axes, found.strength[used], ratio[used], (ratio * found.sigma)[used], label="reflections")
        for n in np.flatnonzero(used):
            axes.annotate(
                hkl_text(fit.spots.hkl[n]),
                (found.strength[n], ratio[n]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=6.5,
                color=GREY,
            )
        x = np.linspace(0, 1.05 * float(found.strength[used].max()), 100)
        scale = float(np.exp(found.log_scale))
        curve = scale / np.sqrt(np.maximum(1 + 2 * found.extinction * x, 0.1))
        axes.plot(x, curve, color=MODEL, label="(1 + 2 g x)^(−1/2)" if found.extinction else "mean")
        axes.errorbar(
            0, scale, yerr=scale * found.sigma_scale, fmt="s", color=BLUE, ms=5, capsize=3, label="scale, no extinction"
        )
        axes.set_xlim(left=-0.03 * x[-1])
        axes.set_xlabel("x = |F|²/sin 2θ, relative to the strongest")
        axes.set_ylabel("scale of the constants, kT ∫ I$_B$ d³s / f")
        axes.legend(loc="best")
    return figure
