"""`tds2el render`: the peaks in reciprocal space, on a page to turn them and as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from tds2el.errors import InputError
from tds2el.parallel import World

HELP = (
    "Show peaks in reciprocal space, with a*, b* and c*: a page, render.html, on which they are turned by hand, and a "
    "picture, render.png. The page needs nothing else and can be mailed."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "peaks",
        type=Path,
        nargs="?",
        default=Path(),
        help="maxima_tagged.h5 or q3d.h5 of tds2el align, or their folder (default: the current folder)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="page to write (default: render.html beside the peaks)"
    )


def run(arguments: argparse.Namespace, world: World) -> None:
    """Write page and picture on one rank."""
    world.attempt(lambda: _render(arguments.peaks, arguments.output) if world.rank == 0 else None)


def main() -> int:
    """The old name of the command, tds2el_rendering."""
    import sys

    from tds2el.cli.main import main as command

    return command(["render", *sys.argv[1:]])


def _render(peaks: Path, output: Path | None) -> None:
    from tds2el.align.files import POINTS, TAGGED
    from tds2el.experiment.maxima import read_cloud, read_maxima
    from tds2el.log import configure
    from tds2el.view.cloud import write_page, write_picture

    configure(rank=0)
    if peaks.is_dir():
        peaks = next((peaks / name for name in (TAGGED, POINTS) if (peaks / name).is_file()), peaks / TAGGED)
    maxima, cloud = read_maxima(peaks, "peaks"), read_cloud(peaks, "peaks")
    if len(cloud.Q) != len(maxima.row):
        raise InputError(f"peaks = {peaks}: {len(maxima.row)} peaks, but {len(cloud.Q)} points; write it again")
    page = peaks.with_name("render.html") if output is None else output
    if page.is_dir() or not page.parent.is_dir():
        raise InputError(f"--output {page}: not the name of a file in a folder that is there; choose another")
    picture = page.with_suffix(".png")
    write_page(page, maxima, cloud, peaks.name)
    write_picture(picture, maxima, cloud)
    print(f"page in {page}, picture in {picture}")
