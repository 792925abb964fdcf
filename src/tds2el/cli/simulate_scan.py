"""`tds2el simulate-scan`: the scan of a virtual crystal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tds2el.parallel import World

FEW_SPOTS = 10

HELP = "simulate a scan of a crystal with known constants: frames, mask, monitor and par-files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("scan", type=Path, help="par-file of the scan; docs/simulate-scan.md lists its options")


def run(arguments: argparse.Namespace, world: World) -> None:
    """Simulate and say what was written."""
    from tds2el.simulate.expectation import VirtualScan
    from tds2el.simulate.options import load_scan
    from tds2el.simulate.scan import simulate_scan

    virtual = world.attempt(lambda: VirtualScan(load_scan(arguments.scan)))

    def progress(frames: Iterable[object], total: int) -> Iterable[object]:
        from tqdm import tqdm

        hidden = world.rank != 0 or not sys.stderr.isatty()
        bar: Iterable[object] = tqdm(frames, total=total, unit="frame", disable=hidden)
        return bar

    input_file = simulate_scan(virtual, world, progress)
    if world.rank == 0:
        count = virtual.scan.n_frames
        constants = ", ".join(f"{name} {value:.4g}" for name, value in virtual.constants.items())
        print(
            f"{count} frames of {virtual.scan.shape[0]} × {virtual.scan.shape[1]} pixels; constants in GPa: {constants}"
        )
        if virtual.scan.collectSpots == "auto" and len(virtual.spots) < FEW_SPOTS:
            print(
                f"tds2el: warning: only {len(virtual.spots)} reflections pass as a whole, and a fit wants {FEW_SPOTS}: "
                "bring the detector nearer, shorten the wavelength, or turn further",
                file=sys.stderr,
            )
        print(f"{len(virtual.spots)} reflections to harvest; next: tds2el {input_file}")
