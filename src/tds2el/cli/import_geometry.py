"""`tds2el import-geometry`: conf_files from the geometry of other programs."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tds2el.errors import InputError
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.interchange.crysalis import Turning

HELP = (
    "Write a conf_file for every sweep of a file of DIALS (.expt), XDS (XPARM.XDS, GXPARM.XDS), CrysAlisPro (.par) or "
    "pyFAI (.poni); docs/geometry.md tells what becomes of what."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="file of the other program")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("conf.par"),
        metavar="CONF",
        help="conf_file to write (default: conf.par); of several sweeps conf_1.par, conf_2.par and so on",
    )
    parser.add_argument(
        "--frames",
        metavar="PATH",
        help="folder of the frames, or the path of one with ##### for its number: they are named in the conf_file, and "
        "its phi is that of the first one there",
    )
    parser.add_argument(
        "--axis",
        nargs=3,
        type=float,
        metavar=("X1", "X2", "X3"),
        help="pyFAI: the axis that the crystal turns about, in pyFAI's lab (1: up, 2: to starboard, 3: along the beam)",
    )
    parser.add_argument(
        "--turning",
        nargs=6,
        metavar=("AXIS", "OMEGA", "THETA", "KAPPA", "PHI", "WIDTH"),
        help="CrysAlisPro: scan axis (omega or phi), angles at the start of the first frame, width of a frame; degrees",
    )
    parser.add_argument("--pixel-size", type=float, metavar="MM", help="CrysAlisPro: edge of a pixel")


def run(arguments: argparse.Namespace, world: World) -> None:
    """Write the conf_files on one rank."""
    world.attempt(lambda: _import(arguments) if world.rank == 0 else None)


def _import(arguments: argparse.Namespace) -> None:
    from tds2el.interchange.conf import conf_text
    from tds2el.interchange.files import Missing, read_sweeps, with_frames
    from tds2el.output import replaced

    axis = None if arguments.axis is None else tuple(arguments.axis)
    if axis is not None and not any(axis):
        raise InputError("--axis 0 0 0 is no axis; give its direction")
    if arguments.pixel_size is not None and not 0 < arguments.pixel_size < 10:
        raise InputError(f"--pixel-size {arguments.pixel_size:g}: give the edge of a pixel in mm")
    missing = Missing(axis, _turning(arguments.turning), arguments.pixel_size)
    program, sweeps = read_sweeps(arguments.file, missing)
    output: Path = arguments.output
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: there is no folder {output.parent}; create it")
    outputs = [output]
    if len(sweeps) > 1:
        outputs = [output.with_name(f"{output.stem}_{n}{output.suffix}") for n in range(1, len(sweeps) + 1)]
        if arguments.frames is not None and "#" in os.path.basename(arguments.frames):
            raise InputError(f"--frames {arguments.frames}: {arguments.file} has {len(sweeps)} sweeps; give the folder")
    for path in outputs:
        if path.exists():
            raise InputError(f"--output {path}: there is such a file already; name another, or take it away")
    texts = []
    for number, (sweep, path) in enumerate(zip(sweeps, outputs, strict=True), 1):
        if arguments.frames is not None:
            sweep = with_frames(sweep, arguments.frames)
            sweep = replace(sweep, prefix=os.path.relpath(sweep.prefix, path.parent))
        what = f"experiment {number} of " if len(sweeps) > 1 else ""
        texts.append(conf_text(sweep, f"{what}{arguments.file} ({program})"))
    for path, text in zip(outputs, texts, strict=True):
        with replaced(path, "--output") as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{path}: {text.splitlines()[1].removeprefix('# ')}")


def _turning(words: list[str] | None) -> Turning | None:
    from tds2el.interchange.crysalis import Turning

    if words is None:
        return None
    try:
        omega, theta, kappa, phi, width = (float(word) for word in words[1:])
    except ValueError:
        raise InputError(f"--turning {' '.join(words)}: after the axis come five numbers, in degrees") from None
    if words[0] == "omega":
        return Turning("omega", omega, theta, kappa, phi, width)
    if words[0] == "phi":
        return Turning("phi", omega, theta, kappa, phi, width)
    raise InputError(f"--turning {words[0]}: the axis is omega or phi")
