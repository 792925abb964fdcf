"""`tds2el export-volume`: a volume in the files of other programs, and pictures of its layers."""

from __future__ import annotations

import argparse
from pathlib import Path

from tds2el.errors import InputError
from tds2el.parallel import World

HELP = "Write the volume that DO_ELASTIC = 0 has made for other programs, and draw layers of it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "volume",
        type=Path,
        nargs="?",
        default=Path(),
        help="volume.h5, or the folder that it is in (default: the current folder)",
    )
    parser.add_argument("--yell", type=Path, metavar="FILE", help="HDF5 as Yell, meerkat and DISCUS know it")
    parser.add_argument("--map", type=Path, metavar="FILE", help="CCP4/MRC map, for ChimeraX, PyMOL, Coot and others")
    parser.add_argument(
        "--layers",
        nargs="+",
        action="extend",
        metavar="LAYER",
        help="pictures beside the volume of the layers hk0, h0l, hk0.5 and the like; one that begins with a minus sign "
        "as --layers=-1kl",
    )
    parser.add_argument(
        "--thickness", type=float, metavar="T", help="of the layers, r.l.u. across (default: one voxel)"
    )


def run(arguments: argparse.Namespace, world: World) -> None:
    """Export on one rank."""
    world.attempt(lambda: _export(arguments) if world.rank == 0 else None)


def _export(arguments: argparse.Namespace) -> None:
    from tds2el.layer import layer_from_name
    from tds2el.log import configure
    from tds2el.view.layers import draw_layers
    from tds2el.volume.export import write_map, write_yell
    from tds2el.volume.file import VOLUME, VolumeFile

    if not (arguments.yell or arguments.map or arguments.layers):
        raise InputError("nothing to export: name a file with --yell or --map, or layers with --layers")
    if arguments.thickness is not None and not (arguments.layers and 0 < arguments.thickness < 1e3):
        raise InputError(f"--thickness {arguments.thickness:g}: give a number above 0, for pictures of --layers")
    try:
        layers = [layer_from_name(name) for name in arguments.layers or ()]
    except ValueError as error:
        raise InputError(f"--layers {error}") from None
    configure(rank=0)
    path = arguments.volume / VOLUME if arguments.volume.is_dir() else arguments.volume
    for option, file in (("--yell", arguments.yell), ("--map", arguments.map)):
        if file is not None and (file.is_dir() or not file.parent.is_dir() or file.resolve() == path.resolve()):
            raise InputError(f"{option} {file}: not the name of a new file in a folder that is there; choose another")
    with VolumeFile(path) as volume:
        if arguments.yell is not None:
            write_yell(volume, arguments.yell)
            print(f"volume for Yell in {arguments.yell}")
        if arguments.map is not None:
            write_map(volume, arguments.map)
            print(f"map in {arguments.map}")
        for picture in draw_layers(volume, layers, arguments.thickness):
            print(f"picture in {picture}")
