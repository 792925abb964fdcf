"""`tds2el export-geometry`: geometry, orientation and cell for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tds2el.errors import InputError
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.interchange.lab import Sweep
    from tds2el.settings import Settings

HELP = "Write geometry, orientation and cell of a conf_file for DIALS or XDS."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("input", type=Path, help="conf_file, or the input.par that names it")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--dials", type=Path, metavar="EXPT", help="experiment list to write")
    target.add_argument("--xds", type=Path, metavar="XPARM", help="XPARM.XDS to write")
    parser.add_argument(
        "--shape", nargs=2, type=int, metavar=("ROWS", "COLUMNS"), help="size of a frame, where no frames are there"
    )
    parser.add_argument("--n-frames", type=int, metavar="N", help="number of frames, where none are there")


def run(arguments: argparse.Namespace, world: World) -> None:
    """Write the file on one rank."""
    world.attempt(lambda: _export(arguments) if world.rank == 0 else None)


def _export(arguments: argparse.Namespace) -> None:
    from tds2el.crystal.cell import Cell
    from tds2el.interchange.dials import dials_text
    from tds2el.interchange.lab import sweep_of
    from tds2el.interchange.xds import xds_text
    from tds2el.log import configure
    from tds2el.output import replaced
    from tds2el.settings import load_settings

    configure(rank=0)
    settings = load_settings(arguments.input, command="export-geometry")
    corrections = [c.name for c in settings.fit.A_variables or () if c.value]
    if corrections:
        raise InputError(
            f"{settings.where['A_variables']}: A_variables corrects {', '.join(corrections)}: put the corrected values "
            "into these options, as in tds2el_refined.par, and export that"
        )
    assert settings.experiment is not None
    assert settings.crystal.cell is not None
    sweep = sweep_of(settings.experiment, Cell(*settings.crystal.cell))
    sweep = _with_frames(sweep, settings, arguments)
    path, text = (
        (arguments.dials, dials_text(sweep)) if arguments.dials is not None else (arguments.xds, xds_text(sweep))
    )
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; create it")
    with replaced(path, "--dials" if arguments.dials is not None else "--xds") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"geometry in {path}")
    if arguments.xds is not None and settings.experiment.sensor_thickness:
        print(
            "an XPARM.XDS has no parallax: give XDS the sensor by "
            f"SENSOR_THICKNESS= {settings.experiment.sensor_thickness:g} and SILICON= {settings.experiment.sensor_mu:g}"
        )


def _with_frames(sweep: Sweep, settings: Settings, arguments: argparse.Namespace) -> Sweep:
    """The sweep with shape, number and names of its frames: from the command line, else from the frames themselves."""
    from dataclasses import replace

    import numpy as np

    from tds2el.experiment.angles import frame_numbers
    from tds2el.experiment.frames import open_frame_series

    shape, n_frames = arguments.shape, arguments.n_frames
    if shape is not None and min(shape) < 1:
        raise InputError(f"--shape {shape[0]} {shape[1]}: a frame has at least one row and one column")
    if n_frames is not None and n_frames < 1:
        raise InputError(f"--n-frames {n_frames}: give at least 1")
    if shape is not None and (n_frames is not None or arguments.xds is not None):
        return replace(sweep, detector=replace(sweep.detector, shape=tuple(shape)), n_frames=n_frames)
    if settings.frames is None:
        raise InputError(
            f"{arguments.input}: images_prefix is missing, so that size and number of the frames are not known; give "
            "--shape and --n-frames"
        )
    assert settings.experiment is not None
    series = open_frame_series(settings.frames, settings.experiment.angular_step)
    prefix, postfix = settings.frames.images_prefix, settings.frames.images_postfix
    first = frame_numbers(series.names[:1], prefix, postfix)[0]
    return replace(
        sweep,
        detector=replace(sweep.detector, shape=tuple(shape or series.shape)),
        n_frames=n_frames or round(float(np.max(series.angle_index))) + 1,
        prefix=prefix,
        postfix=postfix,
        first_number=first,
    )
