"""`tds2el extract-maxima`: find the Bragg peaks in the frames of a scan."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tds2el.cli.parfiles import add_arguments as add_arguments
from tds2el.cli.parfiles import read_settings
from tds2el.errors import InputError
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.experiment.maxima import Maxima
    from tds2el.peaks.search import Search
    from tds2el.settings import PeakSettings, Settings

log = logging.getLogger("tds2el")

HELP = (
    "Find the Bragg peaks in the frames that the par-file names: a table of them for tds2el align, and a picture. "
    "docs/peaks.md tells how."
)
PICTURE, PICTURE_OF_SWEEP = "maxima.png", "maxima_{}.png"


def main() -> int:
    """`tds2el_extract_maxima`, the old name of the command."""
    from tds2el.cli.main import main as tds2el

    return tds2el(["extract-maxima", *sys.argv[1:]])


def run(arguments: argparse.Namespace, world: World) -> None:
    """Search on all ranks, one sweep after the other; the first writes table and pictures (collective).

    Raises
    ------
    InputError
        On all ranks alike.
    """
    from tds2el.peaks.search import search

    settings = read_settings(arguments, "extract-maxima", world)
    path = settings.peaks.maxima_file or settings.run.output_folder / "maxima.h5"
    world.attempt(lambda: _check(path))
    if world.rank == 0:
        log.info("%s", _criterion(settings.peaks))
    members = settings.sweeps or (settings,)
    tables: list[Maxima] = []
    for number, member in enumerate(members, start=1):
        if settings.sweeps and world.rank == 0:
            log.info("sweep %d of %d: %s", number, len(members), member.conf_file)
        found = search(member, world)
        picture = PICTURE_OF_SWEEP.format(number) if settings.sweeps else PICTURE
        own = world.attempt(partial(_tell_and_draw, found, member, picture))
        if own is not None:
            tables.append(own)
    world.attempt(lambda: _write(tables, path) if world.rank == 0 else None)


def _check(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"maxima_file = {path}: not the name of a file in a folder that is there; choose another")


def _criterion(options: PeakSettings) -> str:
    size = f"{options.maxima_min_pixels} to {options.maxima_max_pixels} pixels"
    if options.maxima_threshold is not None:
        return f"peaks: {size} above {options.maxima_threshold:g} counts"
    return f"peaks: {size} that exceed their surroundings by {options.maxima_sigma:g} times their noise"


def _write(tables: list[Maxima], path: Path) -> None:
    from tds2el.experiment.maxima import joined, write_maxima

    write_maxima(path, joined(tables), "maxima_file")
    log.info("peaks in %s", path)


def _tell_and_draw(search: Search | None, settings: Settings, picture: str) -> Maxima | None:
    """The peaks of a sweep, on the rank that has them."""
    if search is None:
        return None
    from tds2el.view.maxima import maxima_picture
    from tds2el.view.style import save

    found, options, n_frames = search.found, settings.peaks, search.scan.series.n_frames
    maxima = found.maxima
    change = "maxima_sigma" if options.maxima_threshold is None else "maxima_threshold"
    if not len(maxima.row):
        raise InputError(
            f"images_prefix: no peak in {n_frames} frames of {search.background.mean():.3g} counts per pixel on "
            f"average ({found.small} bright regions of fewer than {options.maxima_min_pixels} pixels, {found.large} of "
            f"more than {options.maxima_max_pixels}); lower {change} or maxima_min_pixels"
            f"{', raise maxima_max_pixels' if found.large else ''}, and check the mask"
        )
    if found.large:
        log.warning(
            "%d regions of more than maxima_max_pixels = %d pixels are left out: rings, streaks or edges of shadows, "
            "or %s is too low",
            found.large,
            options.maxima_max_pixels,
            change,
        )
    scan = search.scan
    if not np.isfinite(min(scan.saturated_above, scan.saturated_from)):
        log.info("no peak counts as saturated: threshold is not given, and the headers name no count cutoff")
    per_frame = np.bincount(np.rint(maxima.frame).astype(int), minlength=n_frames)
    best = int(np.argmax(maxima.counts))
    log.info(
        "%d peaks in %d frames: %.1f per frame, at most %d (frame %d); mean background %.3g counts per pixel",
        len(maxima.row),
        n_frames,
        per_frame.mean(),
        per_frame.max(),
        int(np.argmax(per_frame)),
        search.background.mean(),
    )
    log.info(
        "strongest: %.6g counts at row %.2f, column %.2f, frame %.2f; %d saturated; %d cut off by masks, edges or "
        "missing frames",
        maxima.counts[best],
        maxima.row[best],
        maxima.column[best],
        maxima.frame[best],
        maxima.saturated.sum(),
        found.cut,
    )
    log.info("left out: %d regions of fewer than %d pixels", found.small, options.maxima_min_pixels)
    for frame, (number, background) in enumerate(zip(per_frame, search.background, strict=True)):
        log.debug("%s: %d peaks, background %.4g", scan.series.names[frame], number, background)
    save(maxima_picture(maxima, search.background, scan.series, scan.masks), settings.run.output_folder / picture)
    log.info("picture in %s", settings.run.output_folder / picture)
    return maxima
