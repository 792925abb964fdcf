"""The command line: ``tds2el input.par``, and one word for each other command.

Only argparse is imported before it is known what to do, so that --help and --version answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from tds2el import __version__
from tds2el.errors import InputError

if TYPE_CHECKING:
    from tds2el.parallel import World

COMMANDS = {
    "run": "harvest, dry run and fit (this word may be left out)",
    "extract-maxima": "find the Bragg peaks in the frames",
    "normalise": "write the denominators of the frames, from their headers or counts",
    "align": "find lattice and orientation from peaks, refine the geometry",
    "render": "show the peaks in reciprocal space, to turn by hand",
    "report": "put the result of a fit on one page, with pictures",
    "export-volume": "volumes for other programs, and pictures of layers",
    "import-geometry": "par-files from the geometry of DIALS, XDS, CrysAlisPro or pyFAI",
    "export-geometry": "geometry and orientation for DIALS or XDS",
    "simulate-scan": "write the frames of a virtual crystal",
    "demo": "simulate calcite, harvest, fit, and compare with the truth",
}
BAD_INPUT = 2
INTERRUPTED = 130
LAST_WORDS = 0.2
"""Seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        Exit code: 0, 2 for a mistake in what the user gave (one line, no traceback), 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else BAD_INPUT
    if words[0] in ("-V", "--version"):
        print(f"tds2el {__version__}")
        return 0
    name = words.pop(0) if words[0] in COMMANDS else "run"
    return _run(importlib.import_module(f"tds2el.cli.{name.replace('-', '_')}"), name, words)


def _run(command: ModuleType, name: str, words: list[str]) -> int:
    from tds2el.parallel import World, connect, launched_rank

    # Batch systems end a job with SIGTERM: as after Ctrl-C, temporary files are to go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    world = World(rank=launched_rank())
    try:
        options = _parser(name, command).parse_args(words)
        world = connect()
        command.run(options, world)
    except InputError as error:
        # Errors inside a run are agreed on by all ranks before they get here; one of them speaks.
        if world.rank == 0:
            print(f"tds2el: error: {error}", file=sys.stderr)
            logging.getLogger("tds2el").debug("error: %s", error)  # for the log file, if there is one by now
        return BAD_INPUT
    except KeyboardInterrupt:
        with _uninterrupted():
            if world.rank == 0:
                print("tds2el: interrupted; files that were not finished are as they were before", file=sys.stderr)
                logging.getLogger("tds2el").debug("interrupted")
            # Perhaps nobody told the other ranks, which would wait for this one for ever.
            if world.comm is not None:
                _abort(world, INTERRUPTED)
        return INTERRUPTED
    except BaseException:
        # A mistake of ours on one rank would leave the others waiting for ever.
        if world.comm is not None:
            import traceback

            sys.stderr.write(traceback.format_exc())  # at once: of several pieces the launcher may pass on the first
            _abort(world, 1)
        raise
    return 0


def _abort(world: World, code: int) -> None:
    """End all ranks, once the launcher, which ends with them, has had the time to pass on what was just written."""
    sys.stderr.flush()
    time.sleep(LAST_WORDS)
    world.comm.Abort(code)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A launcher sends more than one signal: the way out is not to be interrupted in its turn."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """Reports a mistake like any other, on one line, instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parser(name: str, command: ModuleType) -> argparse.ArgumentParser:
    program = "tds2el" if name == "run" else f"tds2el {name}"
    parser = _Parser(prog=program, description=command.HELP)
    command.add_arguments(parser)
    return parser


def _help() -> str:
    lines = [
        "usage: tds2el input.par [--set NAME=VALUE ...]",
        *(f"       tds2el {name} ..." for name in COMMANDS if name != "run"),
        "",
        "Elastic constants of crystals from thermal diffuse X-ray scattering.",
        "",
        *(f"  {name:15s} {text}" for name, text in COMMANDS.items()),
        "",
        "tds2el COMMAND --help tells more; under MPI: mpirun -n 8 tds2el input.par",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
