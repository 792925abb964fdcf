"""How all pictures look, and how they reach a file. Only Figure objects: nothing touches pyplot or its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.output import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe & Ito's colours, which people with any colour vision tell apart (jfly.uni-koeln.de/color).
BLACK, ORANGE, SKY, GREEN, BLUE, RED, GREY = "#000000", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#767676"
DATA, MODEL = BLACK, RED
NO_DATA = "#e8e8e8"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"

DPI = 150
INTENSITY = "intensity (counts per unit correction)"

STYLE: dict[str, object] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.titlesize": 11,
    "figure.dpi": DPI,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "image.interpolation": "nearest",
    "image.origin": "lower",
}


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's matplotlibrc says, with `STYLE`; undone at the end."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float, *, constrained: bool = True) -> Figure:
    """An empty figure, inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained" if constrained else None)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG.

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched.
    """
    with style(), replaced(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, facecolor="white")


def error_bars(axes: Axes, x: npt.ArrayLike, y: npt.ArrayLike, sigma: npt.ArrayLike, **options: object) -> None:
    """Points with thin error bars and no caps."""
    settings: dict[str, object] = {"fmt": "o", "ms": 2.6, "elinewidth": 0.8, "color": DATA, "zorder": 2, **options}
    axes.errorbar(x, y, yerr=sigma, **settings)  # type: ignore[arg-type]


def grid(axes: Axes) -> None:
    """A light grid behind the data."""
    axes.grid(color="#dddddd", lw=0.5)
    axes.set_axisbelow(True)


def plain_log_axis(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def hkl_text(hkl: npt.ArrayLike) -> str:
    """Miller indices with real minus signs: 1 0 −4."""
    return " ".join(str(int(index)) for index in np.asarray(hkl)).replace("-", "−")
