"""Cost of an iteration against the number of points, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

COLOURS = {"tds2el": "#0b6e99", "numba": "#c8551b", "numpy": "#6b6b6b", "kernel alone": "#7fb7cc"}


def draw_cost(cost: Mapping[str, Sequence[Sequence[float]]], device: str, path: Path) -> None:
    """Two panels, both logarithmic: time of an iteration, and time per point.

    Parameters
    ----------
    cost : mapping
        (points, seconds) of every program.
    device : str
        For the title.
    path : Path
        PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (whole, each) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for name, pairs in cost.items():
        if not pairs:
            continue
        n, seconds = np.array(pairs, dtype=float).T
        style = {"color": COLOURS.get(name), "marker": "o", "markersize": 5, "linewidth": 1.8}
        whole.loglog(n, seconds, label=name, **style)
        each.loglog(n, 1e9 * seconds / n, **style)
        each.annotate(name, (n[-1], 1e9 * seconds[-1] / n[-1]), xytext=(8, 0), textcoords="offset points",
                      va="center", color=COLOURS.get(name))  # fmt: skip
    ours = np.array(cost["tds2el"], dtype=float)
    n = np.array([ours[0, 0], ours[-1, 0]])
    whole.loglog(n, ours[-1, 1] / ours[-1, 0] * n, "k:", linewidth=1, label="proportional to the points")
    whole.set(xlabel="points", ylabel="seconds per iteration", title="an iteration of the fit, 6 constants")
    each.set(xlabel="points", ylabel="nanoseconds per point", title="per point")
    each.set_xlim(right=ours[-1, 0] * 4)
    whole.legend(frameon=False)
    for axes in (whole, each):
        axes.grid(which="major", color="#dddddd", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"tds2el on {device}", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)
