"""Peaks in reciprocal space: a page on which they are turned by hand, and a picture of them along the axes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.experiment.maxima import Cloud, Maxima
from tds2el.output import replaced
from tds2el.view.page import bullets, data, document, paragraph
from tds2el.view.style import BLACK, BLUE, GREEN, RED, new_figure, save, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

LARGEST = 0.95
"""Quantile of the residuals at which the scale of colours ends."""
HELP = (
    "Drag to turn, wheel or two fingers to zoom; with the keyboard: arrows, + and −.",
    "Point at a peak to see its hkl.",
)


def write_page(path: Path, maxima: Maxima, cloud: Cloud, name: str) -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    path : Path
    maxima : Maxima
    cloud : Cloud
        Where the peaks lie.
    name : str
        Of the file that they come from, for the title.
    """
    tagged = is_tagged(maxima)
    accepted = int(maxima.accepted.sum())
    what = f"{len(maxima.row)} peaks" + (f", {accepted} accepted" if tagged else ", not indexed")
    body = [
        paragraph(f"tds2el · {name}", "kicker"),
        "<h1>Peaks in reciprocal space</h1>",
        paragraph(f"{what}. Positions are Q in Å⁻¹ (no 2π) in the crystal frame.", "lead"),
        _controls(tagged, cloud.axes is not None, largest_residual(maxima)),
        '<div class="cloud">',
        '<canvas tabindex="0" role="img" aria-label="Peaks as points in reciprocal space"></canvas><output></output>',
        "</div>",
        bullets(HELP),
        data("cloud", _contents(maxima, cloud, tagged)),
    ]
    with replaced(path, "--output") as temporary:
        temporary.write_text(document(f"Peaks of {name}", body, "cloud"), encoding="utf-8")


def write_picture(path: Path, maxima: Maxima, cloud: Cloud) -> None:
    """Write the peaks seen along three axes as a PNG."""
    with style():
        figure = projections(maxima, cloud)
    save(figure, path)


def projections(maxima: Maxima, cloud: Cloud) -> Figure:
    """The peaks seen along a*, b* and c*, or x, y and z where there is no lattice."""
    figure = new_figure(10.5, 3.9)
    tagged = is_tagged(maxima)
    names = ("a*", "b*", "c*") if cloud.axes is not None else ("x", "y", "z")
    axes = np.eye(3) if cloud.axes is None else cloud.axes
    arrows = axes if cloud.axes is not None else 0.5 * np.abs(cloud.Q).max(initial=1e-3) * axes
    groups = [("accepted", GREEN, maxima.accepted), ("not accepted", RED, ~maxima.accepted)]
    if not tagged:
        groups = [("peaks", BLUE, np.ones(len(cloud.Q), dtype=bool))]
    size = float(np.clip(2000 / max(1, len(cloud.Q)), 0.5, 8))
    for towards, panel in enumerate(figure.subplots(1, 3)):
        view = _seen_along(axes, towards)
        for label, colour, chosen in groups:
            x, y = view @ cloud.Q[chosen].T
            panel.scatter(x, y, s=size, c=colour, lw=0, label=f"{label}: {int(chosen.sum())}", rasterized=True)
        _arrows(panel, view @ arrows, names, towards)
        panel.set_aspect("equal", "datalim")
        panel.set_title(f"along {names[towards]}")
        panel.set_xlabel("Q (1/Å)")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=3)
    return figure


def is_tagged(maxima: Maxima) -> bool:
    """Whether the peaks have been indexed."""
    return bool(maxima.accepted.any() or maxima.hkl.any())


def _seen_along(axes: Array, towards: int) -> Array:
    """Horizontal and vertical direction, (2, 3), of the view with an axis towards the viewer."""
    z = axes[:, towards] / np.linalg.norm(axes[:, towards])
    x = np.cross(axes[:, (towards + 2) % 3], z)
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(z, x)])


def _arrows(panel: Axes, ends: Array, names: tuple[str, ...], towards: int) -> None:
    for n, (x, y) in enumerate(ends.T):
        if n == towards:
            continue
        panel.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "->", "color": BLACK, "lw": 1.2})
        panel.annotate(names[n], (x, y), (4, 4), textcoords="offset points", style="italic", weight="bold")


def _controls(tagged: bool, axes: bool, largest: float) -> str:
    """What is shown and how; the page's only HTML that is not made of data."""
    shown = '<label><input type="checkbox" name="axes" checked> axes</label>'
    if tagged:
        shown = (
            '<label><input type="checkbox" name="accepted" checked> '
            f'<i style="background:{GREEN}"></i> accepted</label>'
            '<label><input type="checkbox" name="other" checked> '
            f'<i style="background:{RED}"></i> not accepted</label>'
            + shown
            + '<label>colour by <select name="colour"><option value="accepted">accepted or not</option>'
            '<option value="residual">residual</option></select></label>'
            f'<span class="legend" hidden>0 <i class="scale"></i> {largest:.2g} pixels</span>'
        )
    names = ("a*", "b*", "c*") if axes else ("x", "y", "z")
    views = "".join(f'<button type="button" name="along-{n}">along {name}</button>' for n, name in enumerate(names))
    return f'<div class="controls">{shown}{views}<button type="button" name="reset">reset</button></div>'


def _contents(maxima: Maxima, cloud: Cloud, tagged: bool) -> dict[str, object]:
    """What the page's program draws; numbers as short as they may be."""
    x, y, z = ([float(f"{value:.5g}") for value in column] for column in cloud.Q.T)
    contents: dict[str, object] = {
        "x": x,
        "y": y,
        "z": z,
        "counts": [float(f"{value:.4g}") for value in np.nan_to_num(maxima.counts)],
        "axes": None if cloud.axes is None else cloud.axes.T.tolist(),
    }
    if tagged:
        contents |= {
            "hkl": maxima.hkl.tolist(),
            "accepted": maxima.accepted.tolist(),
            "residual": [float(f"{value:.3g}") if np.isfinite(value) else None for value in _pixels(maxima)],
            "largest": largest_residual(maxima),
        }
    return contents


def largest_residual(maxima: Maxima) -> float:
    """Where the scale of colours ends, in pixels."""
    known = _pixels(maxima)
    known = known[np.isfinite(known)]
    return float(np.quantile(known, LARGEST)) if len(known) and known.max() > 0 else 1.0


def _pixels(maxima: Maxima) -> Array:
    """Length of the residual on the detector."""
    return np.asarray(np.hypot(maxima.residual[:, 0], maxima.residual[:, 1]))
