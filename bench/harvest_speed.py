"""Speed of the harvest beside a bare loop of fabio.open(name).data over the same files, both on one process.

    python bench/harvest_speed.py [--frames 120] [--delta-max 0.15] [--folder DIR] [--json FILE]

The frames are Poisson noise of 1 count in Pilatus 2M size (1679 × 1475, CBF byte-offset) round the 20 reflections of
calcite that most frames see. Both are run in turn, several times, on files in the page cache; medians are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fabio
import numpy as np
from fabio.cbfimage import CbfImage

from tds2el.crystal.cell import Cell, longest_reciprocal
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.collect import harvest
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.plan import make_plan
from tds2el.parallel import World
from tds2el.settings import load_settings

SHAPE = (1679, 1475)
SPOTS = 20
PAR = """\
conf_file = "conf.par"
pixel_size = 0.172
dist = 160.0
lmbda = 0.7
det_origin_X = 840.0
det_origin_Y = 737.0
angular_step = 0.1
r1 = 20.0
r2 = 35.0
r3 = 10.0
AA = 4.990
BB = 4.990
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
images_prefix = "frame_"
images_postfix = ".cbf"
threshold = 1e6
DeltaQ_min = 0.04
DeltaQ_max = {delta_max}
save_to_file = "harvest.h5"
collectSpots = {spots}
"""


def write_frames(folder: Path, n_frames: int) -> None:
    """Frames that differ, from a few images of noise."""
    random = np.random.default_rng(0)
    for n in range(n_frames):
        image = random.poisson(1.0, SHAPE).astype(np.int32)
        CbfImage(data=image).write(str(folder / f"frame_{n:05d}.cbf"))


def most_seen(folder: Path, n_frames: int, delta_max: float) -> list[list[int]]:
    """The reflections that the most frames see."""
    (folder / "conf.par").write_text("")
    (folder / "input.par").write_text(PAR.format(delta_max=delta_max, spots=[[1, 0, 4]]))
    settings = load_settings(folder / "input.par")
    assert settings.experiment is not None
    assert settings.crystal.cell is not None
    cell = Cell(*settings.crystal.cell)
    hkl = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in (5, 5, 16)], indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[hkl.any(axis=1)]
    delta = delta_max * longest_reciprocal(cell)
    plan = make_plan(Geometry(settings.experiment), hkl @ cell.B.T, np.arange(n_frames, dtype=float), delta, SHAPE)
    seen = np.bincount(plan.node[plan.blob], minlength=len(hkl))
    return [[int(i) for i in node] for node in hkl[np.argsort(-seen, kind="stable")[:SPOTS]]]


def read_all(names: list[str]) -> None:
    """What a user would write."""
    for name in names:
        fabio.open(name).data  # noqa: B018


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of this process's CPU time."""
    start, cpu = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--delta-max", type=float, default=0.15)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_frames(folder, options.frames)
        spots = most_seen(folder, options.frames, options.delta_max)
        (folder / "input.par").write_text(PAR.format(delta_max=options.delta_max, spots=spots))
        names = sorted(str(path) for path in folder.glob("*.cbf"))
        ours, bare = [], []
        for _ in range(options.repeats):
            bare.append(timed(lambda: read_all(names)))
            ours.append(timed(lambda: harvest(load_settings(folder / "input.par"), World())))
        path = folder / "harvest.h5"
        with HarvestFile(path) as found:
            points, visits = int(found.n_points.sum()), int(found.frames.sum())
    (wall, cpu), (bare_wall, bare_cpu) = np.median(ours, axis=0), np.median(bare, axis=0)
    print(
        f"{options.frames} Pilatus 2M frames, {SPOTS} spots, {visits / options.frames:.1f} spots and "
        f"{points / options.frames:.0f} points per frame"
    )
    print(f"  time   harvest {wall:.2f} s, fabio.open loop {bare_wall:.2f} s, ratio {wall / bare_wall:.2f}")
    print(f"  of CPU harvest {cpu:.2f} s, fabio.open loop {bare_cpu:.2f} s, ratio {cpu / bare_cpu:.2f}")
    if options.json:
        result = {"points": points, "harvest": ours, "fabio": bare, "ratio": wall / bare_wall}
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
