"""What the commands that read par-files have in common: their arguments, their settings and their log."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tds2el.errors import InputError
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.settings import Command, Settings

log = logging.getLogger("tds2el")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the par-file, --set and how much is shown."""
    parser.add_argument("input", nargs="?", help="par-file that says what to do; it may name a conf_file")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="options that override both par-files, for this run only",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--quiet", dest="level", action="store_const", const=logging.WARNING, help="show warnings and errors only"
    )
    amount.add_argument(
        "--verbose", dest="level", action="store_const", const=logging.DEBUG, help="show also what only the log gets"
    )
    parser.set_defaults(level=logging.INFO)


def read_settings(arguments: argparse.Namespace, command: Command, world: World) -> Settings:
    """Read the par-files, begin the log in the output folder and tell the warnings (collective).

    Raises
    ------
    InputError
        On all ranks alike.
    """
    from tds2el.log import LOG_FILE, configure
    from tds2el.settings import load_settings

    overrides = list(arguments.set)
    if arguments.input is None and overrides and "=" not in overrides[-1]:
        arguments.input = overrides.pop()  # tds2el --set NAME=VALUE input.par
    if arguments.input is None:
        raise InputError("no par-file is named; see --help")
    settings = world.attempt(lambda: load_settings(arguments.input, overrides, command))
    folder = settings.run.output_folder
    world.attempt(lambda: _check_folder(folder))
    world.attempt(lambda: configure(world.rank, folder / LOG_FILE, arguments.level))
    if world.rank == 0:
        for warning in settings.warnings:
            log.warning("%s", warning)
    return settings


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"output_folder = {folder}: there is no such folder; create it")
