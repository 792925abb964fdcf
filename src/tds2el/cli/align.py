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
    import numpy as np

    from tds2el.align.agreement import DISAGREES
    from tds2el.align.align import align, places_of, sweeps_of
    from tds2el.align.files import TAGGED, aligned_files, changed_options, write_alignment, write_points
    from tds2el.align.report import align_report, summary
    from tds2el.crystal.cell import Cell
    from tds2el.experiment.geometry import Geometry
    from tds2el.experiment.maxima import read_maxima

    folder = settings.run.output_folder
    maxima = read_maxima(settings.align.maxima_file or folder / "maxima.h5", "maxima_file")
    places, sweeps = places_of(maxima, settings), sweeps_of(settings)
    beams = [Geometry(experiment).direct_beam() for experiment in sweeps.experiments]
    shown = "; ".join(dict.fromkeys(f"row {row:.2f}, column {column:.2f}" for row, column in beams))
    log.info("%d peaks; direct beam at %s", len(maxima.row), shown)
    if settings.align.transform_only:
        if settings.values["orientation_codes"] is None:
            log.warning("orientation_codes = None: transform_only takes 0")
        cell = None if settings.crystal.cell is None else Cell(*settings.crystal.cell)
        write_points(folder, maxima, places, sweeps, cell)
        log.info("points in reciprocal space in %s and %s", folder / "q3d.txt", folder / "q3d.h5")
        return
    found = align(maxima, settings)
    report = align_report(found, maxima)
    log.debug("%s", report)
    missing = write_alignment(folder, maxima, places, found, settings, report)
    log.info("%s", summary(found, maxima))
    turns = np.nan_to_num([one.angle for one in found.agreement])
    if turns.max(initial=0) > DISAGREES:
        worst = int(turns.argmax())
        log.warning(
            "sweep %d (%s): its crystal is turned by %s against that of the other sweeps; correct its r1, r2, r3 or "
            "its goniometer's angles, let variations move more of the geometry, or align it by itself",
            worst + 1,
            settings.sweeps[worst].conf_file,
            found.agreement[worst].turn(),
        )
    files = aligned_files(folder, found, settings)
    elsewhere = dict.fromkeys(
        name
        for _, experiment, own in files
        for name in changed_options(found, experiment, own)
        if own.input_file != own.conf_file and own.where[name].startswith(own.input_file.name)
    )
    if elsewhere:
        log.warning("take out of %s before its next use: %s", settings.input_file, ", ".join(elsewhere))
    if missing:
        names, have = ", ".join(path.name for path, _, _ in files), "has" if len(files) == 1 else "have"
        log.info("%s %s lines that the conf_file had not: %s", names, have, ", ".join(missing))
    written = ", ".join(str(path) for path, _, _ in files)
    log.info("peaks with hkl in %s, refined geometry in %s, all numbers in align.txt", folder / TAGGED, written)
