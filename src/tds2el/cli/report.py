"""`tds2el report`: the report of a fit, from its files."""

from __future__ import annotations

import argparse
from pathlib import Path

from tds2el.errors import InputError
from tds2el.parallel import World

HELP = "Put the result of a fit on one page, report.html, with pictures; the page needs nothing else and can be mailed."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=Path(),
        help="folder with tds2el_fit.h5, or that file (default: the current folder)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="page to write (default: report.html beside tds2el_fit.h5)"
    )


def run(arguments: argparse.Namespace, world: World) -> None:
    """Write the report on one rank."""
    world.attempt(lambda: _report(arguments.results, arguments.output) if world.rank == 0 else None)


def _report(results: Path, output: Path | None) -> None:
    from tds2el.fit.fit_file import FIT_FILE
    from tds2el.log import configure
    from tds2el.view.report import REPORT, make_report

    configure(rank=0)
    fit_file = results / FIT_FILE if results.is_dir() else results
    path = fit_file.with_name(REPORT) if output is None else output
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--output {path}: not the name of a file in a folder that is there; choose another")
    make_report(fit_file, path)
    print(f"report in {path}")
