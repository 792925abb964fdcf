"""`tds2el align`: from a table of peaks to the crystal's lattice, orientation and a refined geometry."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from tds2el.cli.parfiles import add_arguments as add_arguments
from tds2el.cli.parfiles import read_settings
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.settings import Settings

log = logging.getLogger("tds2el")

HELP = (
    "Find the lattice and the orientation of the crystal from the peaks of extract-maxima, refine geometry and cell, "
    "and tag the peaks with hkl. docs/align.md tells how."
)


def run(arguments: argparse.Namespace, world: World) -> None:
    """Align on one rank.

    Raises
    ------
    InputError
        On all ranks alike.
    """
    settings = read_settings(arguments, "align", world)
    world.attempt(lambda: _align(settings) if world.rank == 0 else None)


def main() -> int:
    """The old name of the command, tds2el_analyse_maxima_fourier."""
    import sys

    from tds2el.cli.main import main as command

    return command(["align", *sys.argv[1:]])


def _align(settings: Settings) -> None:
    from tds2el.align.align import align
    from tds2el.align.files import ALIGNED, TAGGED, changed_options, write_alignment, write_points
    from tds2el.align.report import align_report, summary
    from tds2el.crystal.cell import Cell
    from tds2el.experiment.geometry import Geometry
    from tds2el.experiment.maxima import read_maxima

    folder = settings.run.output_folder
    maxima = read_maxima(settings.align.maxima_file or folder / "maxima.h5", "maxima_file")
    assert settings.experiment is not None  # which load_settings insists on
    row, column = Geometry(settings.experiment).direct_beam()
    log.info("%d peaks; direct beam at row %.2f, column %.2f", len(maxima.row), row, column)
    if settings.align.transform_only:
        if settings.values["orientation_codes"] is None:
            log.warning("orientation_codes = None: transform_only takes 0")
        cell = None if settings.crystal.cell is None else Cell(*settings.crystal.cell)
        write_points(folder, maxima, settings.experiment, cell)
        log.info("points in reciprocal space in %s and %s", folder / "q3d.txt", folder / "q3d.h5")
        return
    found = align(maxima, settings)
    report = align_report(found, maxima)
    log.debug("%s", report)
    missing = write_alignment(folder, maxima, found, settings, report)
    log.info("%s", summary(found))
    elsewhere = [
        name
        for name in changed_options(found, settings)
        if settings.input_file != settings.conf_file and settings.where[name].startswith(settings.input_file.name)
    ]
    if elsewhere:
        log.warning("take out of %s before its next use: %s", settings.input_file, ", ".join(elsewhere))
    if missing:
        log.info("%s has lines that the conf_file had not: %s", ALIGNED, ", ".join(missing))
    log.info(
        "peaks with hkl in %s, refined geometry in %s, all numbers in align.txt", folder / TAGGED, folder / ALIGNED
    )
