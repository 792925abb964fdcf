"""From a harvest file to the constants: the whole program on a harvest of synthetic points, beside a bare loop of h5py.

    python bench/load_speed.py [--points 1e7] [--device CPU] [--folder DIR] [--repeats 3] [--json FILE]

The harvest of calcite is written by tds2el's own writer. Then ``tds2el input.par`` runs as a user starts it, with the
file in the page cache and programs compiled, without report, fitted curve and centres. Timed are the first
parametri.txt, which has the constants, and the end. The lines of ``--verbose`` say when each stage was
over. The floor is a loop of h5py over the columns that a fit needs, in pieces, without doing anything with them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from figures import figure, hand_over
from fit_speed import START
from synthetic import EXPERIMENT_PAR, Q_MAX, Q_MIN, calcite, reflections, synthetic_points
from tds2el.crystal.cell import longest_reciprocal
from tds2el.harvest.columns import Column
from tds2el.harvest.file import LOSSES, Tables, write_harvest
from tds2el.model.engine import Piece, Points
from tds2el.parallel import World
from tds2el.settings import load_settings

PAR = """\
{experiment}ascii_generators = "1~,3(z),2(y)"
images_prefix = "frame_"
images_postfix = ".cbf"
DeltaQ_min = 0.04
DeltaQ_max = 0.15
collectSpots = {spots}
{rest}
"""
FRAMES = 900
PIECE = 1 << 20
COLUMNS = ("counts", "correction", "Q")
STAGES = ("direct beam", "read points", "load points", "fit:", "write curves", "results in")
"""Beginnings of the lines that end a stage; the line with the number of points says that they are on the device."""


def write_synthetic_harvest(folder: Path, n_points: int, hkl: np.ndarray, rest: str) -> tuple[int, int]:
    """Par-files and harvest.h5; returns bytes and points of the latter."""
    crystal, random = calcite(), np.random.default_rng(0)
    (folder / "conf.par").write_text("")
    par = folder / "input.par"
    par.write_text(PAR.format(experiment=EXPERIMENT_PAR, spots=hkl.tolist(), rest='save_to_file = "harvest.h5"'))
    points = synthetic_points(n_points, hkl, repeated=True)
    n_blobs, total = len(hkl), int(points.sizes.sum())
    nothing = np.zeros(n_blobs, dtype=np.int64)
    frame = random.integers(0, FRAMES, n_blobs)
    tables = Tables(
        blobs={f"lost_{cause}": nothing for cause in LOSSES}
        | {
            "hkl": hkl.astype(np.int32),
            "centre": points.nodes,
            "offset": np.zeros((n_blobs, 3)),
            "angle": 0.1 * frame,
            "first_frame": frame.astype(np.int32),
            "last_frame": frame.astype(np.int32),
            "frames": np.ones(n_blobs, np.int32),
            "frames_over_threshold": nothing.astype(np.int32),
        },
        point_offset=np.concatenate([[0], np.cumsum(points.sizes)]),
        peak_offset=np.zeros(n_blobs + 1, np.int64),
        frame_names=[f"frame_{n:05d}.cbf" for n in range(FRAMES)],
        frames={
            "phi": 0.1 * np.arange(FRAMES),
            "denominator": np.ones(FRAMES),
            "points": np.bincount(frame, points.sizes, FRAMES).astype(np.int64),
        },
        shell={
            "delta_min": Q_MIN,
            "delta_max": Q_MAX,
            "longest_reciprocal": longest_reciprocal(crystal.cell),
            "threshold": np.inf,
            "saturation": np.inf,
        },
        cell=crystal.cell,
    )
    threads = len(os.sched_getaffinity(0))
    write_harvest(folder / "harvest.h5", load_settings(par), tables, _columns(points, frame), threads, World())
    par.write_text(PAR.format(experiment=EXPERIMENT_PAR, spots=hkl.tolist(), rest=rest))
    return (folder / "harvest.h5").stat().st_size, total


def _columns(points: Points, frame: np.ndarray) -> list[Column]:
    """The columns of a harvest, spot after spot; nothing is above threshold."""
    sizes = points.sizes
    starts = (np.cumsum(sizes) - sizes).tolist()

    def column(name: str, dtype: type, width: int, values: Callable[[int], np.ndarray]) -> Column:
        pieces = [(start, lambda blob=blob: values(blob).astype(dtype)) for blob, start in enumerate(starts)]
        return Column(f"points/{name}", np.dtype(dtype), width, sizes[None], pieces)

    def pixels(end: int) -> Callable[[int], np.ndarray]:
        return lambda blob: np.random.default_rng([blob, end]).integers(0, end, sizes[blob])

    def joined(values: Callable[[Piece, int], np.ndarray]) -> Callable[[int], np.ndarray]:
        return lambda blob: np.concatenate([values(piece, blob) for piece in points.pieces(blob)])

    own = [
        column("frame", np.int32, 1, lambda blob: np.full(sizes[blob], frame[blob])),
        column("row", np.uint16, 1, pixels(1679)),
        column("column", np.uint16, 1, pixels(1475)),
        column("counts", np.int32, 1, joined(lambda piece, blob: piece.counts)),
        column("correction", np.float32, 1, joined(lambda piece, blob: piece.correction)),
        column("Q", np.float64, 3, joined(lambda piece, blob: piece.q + points.nodes[blob])),
    ]
    nothing = np.zeros((1, len(sizes)), dtype=np.int64)
    return [*own, *(replace(c, name=c.name.replace("points", "peaks"), numbers=nothing, pieces=[]) for c in own)]


def bare_loop(path: Path) -> int:
    """Read what a fit needs, once; returns the number of bytes."""
    done = 0
    with h5py.File(path, "r", locking=False) as file:
        columns = [file[f"entry/points/{name}"] for name in COLUMNS]
        for start in range(0, len(columns[0]), PIECE):
            done += sum(column[start : start + PIECE].nbytes for column in columns)
    return done


def run(folder: Path) -> dict[str, float]:
    """Seconds from the start of the program to the end of each stage, to parametri.txt, and to the end."""
    parametri = folder / "parametri.txt"
    parametri.unlink(missing_ok=True)
    start, began = time.perf_counter(), time.time()
    command = [sys.executable, "-m", "tds2el", "--verbose", "input.par"]
    found: dict[str, float] = {}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            for stage in STAGES:
                if line.startswith(stage):
                    found[stage.rstrip(":")] = time.perf_counter() - start
            if " spots on " in line:
                found["engine ready"] = time.perf_counter() - start
            # The file is written twice: here is a line right after the first time.
            if "parametri" not in found and parametri.is_file():
                found["parametri"] = parametri.stat().st_mtime - began
    if process.returncode:
        raise SystemExit("tds2el failed:\n" + "".join(lines[-20:]))
    found["end"] = time.perf_counter() - start
    return found


def measure(
    points: int = 10_000_000, device: str | None = None, folder: Path | None = None, repeats: int = 3, blobs: int = 40
) -> dict[str, object]:
    """Medians of the times, and the bare loop beside them."""
    crystal, hkl = calcite(), np.unique(reflections(blobs), axis=0)
    start = dict(zip(crystal.structure.names, crystal.constants * START, strict=True))
    guess = {name: [float(value), -1000.0, 1000.0] for name, value in start.items()}
    rest = (
        'load_from_file = "harvest.h5"\nfitSpots = True\ndoMinimisation = 1\nreport = False\nfitted_curve = False\n'
        f"fit_centres = False\ndevice = {device!r}\nCGUESS = {guess}"
    )
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        size, total = write_synthetic_harvest(place, points, hkl, rest)
        run(place)  # compiles, and brings the file into the page cache
        runs, loops, read = [], [], 0
        for _ in range(repeats):
            begun = time.perf_counter()
            read = bare_loop(place / "harvest.h5")
            loops.append(time.perf_counter() - begun)
            runs.append(run(place))
    times = {stage: statistics.median(r[stage] for r in runs) for stage in runs[0]}
    bare = statistics.median(loops)
    label = f"{points:.0e} points"
    return {
        "points": total,
        "cores": len(os.sched_getaffinity(0)),
        "file_bytes": size,
        "bytes_that_a_fit_needs": read,
        "bare_loop_seconds": bare,
        "seconds_to": times,
        "figures": [
            figure(
                f"harvest file to constants, {label}", times["parametri"], "s", beside=bare, than="floor: h5py reads it"
            ),
            figure(f"the same to the end, {label}", times["end"], "s"),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=float, default=1e7)
    parser.add_argument("--spots", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", help="as the option device; by default a GPU, else the CPU")
    parser.add_argument("--folder", type=Path, help="where the harvest goes for the time being")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(int(options.points), options.device, options.folder, options.repeats, options.spots)
    needed, bare = result["bytes_that_a_fit_needs"], result["bare_loop_seconds"]
    print(f"{result['points']} points, file of {result['file_bytes'] / 1e9:.2f} GB")
    print(f"  floor: {needed / 1e9:.2f} GB in {bare:.2f} s by a bare loop of h5py")
    for stage, seconds in sorted(result["seconds_to"].items(), key=lambda entry: entry[1]):
        print(f"  {seconds:6.2f} s  {stage}")
    hand_over(result, options.json)


if __name__ == "__main__":
    main()
