"""The pictures of a fit as files, and as a report takes them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tds2el.errors import InputError
from tds2el.fit.read import FitFile
from tds2el.progress import Stage
from tds2el.view.figures import figures
from tds2el.view.planes import CentralPlanes
from tds2el.view.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = 256


@dataclass(frozen=True)
class Picture:
    """A picture and what a report says about it.

    Attributes
    ----------
    title : str
        Pictures of one kind follow each other under the same title.
    caption : str
        What is shown, and how to read it; the same for pictures of one kind.
    subject : str
        What this picture is about, such as a spot and its numbers; "" where the title says it.
    png : bytes
    one_spot : bool
        One of many of its kind, and on a contact sheet too.
    """

    title: str
    caption: str
    subject: str
    png: bytes
    one_spot: bool = False


def draw_pictures(fit: FitFile, folder: Path, planes: Sequence[CentralPlanes] | None = None) -> list[Picture]:
    """Draw all pictures of a fit, and write them as PNG.

    Parameters
    ----------
    fit : FitFile
    folder : Path
        Made if need be. Files of the same names are replaced, others stay.
    planes : sequence of CentralPlanes, optional
        Of the spots that were interpolated.

    Raises
    ------
    InputError
        If the folder or a file cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the folder for pictures cannot be made ({error.strerror})") from None
    drawn = []
    with Stage("draw pictures", None, "picture") as stage:
        for drawing in figures(fit, planes):
            path = folder / f"{drawing.name}.png"
            save(drawing.figure, path)
            drawn.append(
                Picture(drawing.title, drawing.caption, _subject(drawing.figure), _small(path), drawing.one_spot)
            )
            stage.update()
    return drawn


def _subject(figure: Figure) -> str:
    """What stands above the picture, or above its panels."""
    titles = [figure.get_suptitle()] if figure.get_suptitle() else [axes.get_title() for axes in figure.axes]
    return ", ".join(" ".join(title.split()) for title in titles if title)


def _small(path: Path) -> bytes:
    """The PNG with a palette: a third of the size, so that a page with many pictures can be mailed.

    The method is the one that leaves no colour far off, however rare it is.
    """
    from PIL import Image

    small = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(small, "PNG", optimize=True)
    return small.getvalue()
