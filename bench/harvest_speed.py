"""Speed of the harvest beside bare loops that only read the same frames, in one run.

    python bench/harvest_speed.py [--frames 1200] [--delta-max 0.05 0.15] [--ranks 1,2] [--folder DIR] [--json FILE]

The frames are Poisson noise of 1 count in Pilatus 2M size (1679 × 1475), as byte-offset CBFs and as an Eiger master
with links to files of 100 frames (uint32, bitshuffle-LZ4). The spots are reflections of calcite such that every frame
sees at least one: 30 of them, taken in turn where frames see the fewest. All is in the page cache; what is compared is
run in turn, several times, and medians are printed; a harvest has no older file to replace. One thread and one rank are
held on one core.

With --ranks harvests also run under mpirun, each rank on one core, timed from barrier to barrier (the slowest rank);
with --ranks-only nothing else does, for hosts of many cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabio
import h5py
import hdf5plugin
import numpy as np
from fabio.cbfimage import CbfImage

from figures import Figure, figure, hand_over
from synthetic import EXPERIMENT_PAR
from tds2el.crystal.cell import Cell, longest_reciprocal
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.collect import harvest
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.plan import make_plan
from tds2el.parallel import World, connect
from tds2el.settings import load_settings
from tds2el.simulate.cbf import write_cbf

SHAPE = (1679, 1475)
SPOTS = 30
IMAGES = 40
"""Different images; the frames are these in turn, in files of their own."""
PER_FILE = 100
PAR = """\
{experiment}images_prefix = "frame_"
images_postfix = ".cbf"
threshold = 1e6
DeltaQ_min = {delta_min}
DeltaQ_max = {delta_max}
save_to_file = "harvest.h5"
collectSpots = {spots}
"""
EIGER = ("images_prefix=eiger_", "images_postfix=master.h5")


def write_frames(folder: Path, n_frames: int, eiger: bool = True) -> None:
    """The frames, in both formats."""
    random = np.random.default_rng(0)
    images = [random.poisson(1.0, SHAPE).astype(np.int32) for _ in range(min(IMAGES, n_frames))]
    for i, image in enumerate(images):
        header = [start_angle(i), "Angle_increment 0.1000 deg.", "Count_cutoff 1048500 counts"]
        write_cbf(folder / f"frame_{i:05d}.cbf", image, header)
    for n in range(len(images), n_frames):
        i = n % len(images)
        same = (folder / f"frame_{i:05d}.cbf").read_bytes()
        (folder / f"frame_{n:05d}.cbf").write_bytes(same.replace(start_angle(i).encode(), start_angle(n).encode(), 1))
    if not eiger:
        return
    with h5py.File(folder / "eiger_master.h5", "w") as master:
        for k, start in enumerate(range(0, n_frames, PER_FILE)):
            name, size = f"eiger_data_{k + 1:06d}.h5", min(PER_FILE, n_frames - start)
            with h5py.File(folder / name, "w") as file:
                packed = hdf5plugin.Bitshuffle()
                data = file.create_dataset("entry/data/data", (size, *SHAPE), np.uint32, chunks=(1, *SHAPE), **packed)
                for n in range(size):
                    data[n] = images[(start + n) % len(images)]
            master[f"entry/data/data_{k + 1:06d}"] = h5py.ExternalLink(name, "entry/data/data")


def start_angle(n: int) -> str:
    """A line of the header of frame n."""
    return f"Start_angle {0.1 * n:.4f} deg."


def write_parfiles(folder: Path, n_frames: int, delta_max: float) -> None:
    """Par-files that name spots of which every frame sees at least one."""
    delta_min = min(0.04, delta_max / 4)
    (folder / "conf.par").write_text("")
    (folder / "input.par").write_text(
        PAR.format(experiment=EXPERIMENT_PAR, delta_min=delta_min, delta_max=delta_max, spots=[[1, 0, 4]])
    )
    settings = load_settings(folder / "input.par")
    assert settings.experiment is not None
    assert settings.crystal.cell is not None
    cell = Cell(*settings.crystal.cell)
    hkl = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in (8, 8, 25)], indexing="ij"), -1).reshape(-1, 3)
    hkl = hkl[hkl.any(axis=1)]
    delta = delta_max * longest_reciprocal(cell)
    plan = make_plan(Geometry(settings.experiment), hkl @ cell.B.T, np.arange(n_frames, dtype=float), delta, SHAPE)
    sees = np.zeros((len(hkl), n_frames), dtype=bool)
    sees[plan.node[plan.blob], plan.frame] = True
    chosen: list[int] = []
    seen = np.zeros(n_frames, dtype=int)
    for _ in range(SPOTS):
        gain = (sees & (seen == seen.min())).sum(axis=1)
        gain[chosen] = 0
        chosen.append(int(np.argmax(gain)))
        seen += sees[chosen[-1]]
    assert seen.min() > 0
    spots = [[int(i) for i in hkl[n]] for n in chosen]
    (folder / "input.par").write_text(
        PAR.format(experiment=EXPERIMENT_PAR, delta_min=delta_min, delta_max=delta_max, spots=spots)
    )


def fabio_open(names: list[str]) -> None:
    """What a user would write."""
    for name in names:
        fabio.open(name).data  # noqa: B018


def fabio_cbf(names: list[str]) -> None:
    """The same for one who knows fabio well."""
    for name in names:
        CbfImage().read(name, check_MD5=False).data  # noqa: B018


def bytes_alone(names: list[str]) -> None:
    """The floor: the bytes of the files into memory that is there already."""
    buffer = bytearray(16 << 20)
    for name in names:
        with open(name, "rb", buffering=0) as file:
            file.readinto(buffer)


def h5py_loop(master: Path) -> None:
    """Every frame of an Eiger scan into memory that is there already."""
    image = np.empty(SHAPE, np.uint32)
    with h5py.File(master) as file:
        for dataset in file["entry/data"].values():
            for n in range(len(dataset)):
                dataset.read_direct(image, np.s_[n])


def run_harvest(folder: Path, *overrides: str) -> None:
    """A harvest of this process alone."""
    overrides = tuple(o.replace("images_prefix=", f"images_prefix={folder}/") for o in overrides)
    harvest(load_settings(folder / "input.par", overrides), World())


def seconds(task: Callable[[], object], cores: set[int]) -> float:
    """How long a task takes on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        start = time.perf_counter()
        task()
        return time.perf_counter() - start
    finally:
        os.sched_setaffinity(0, before)


def measure(
    n_frames: int = 1200,
    delta_max: float = 0.05,
    repeats: int = 5,
    ranks: tuple[int, ...] = (),
    parent: Path | None = None,
    ranks_only: bool = False,
) -> dict[str, Any]:
    """Medians of everything.

    Parameters
    ----------
    n_frames, delta_max, repeats
    ranks : tuple of int
        Numbers of ranks to try under mpirun.
    parent : Path, optional
        Where to make the folder of the frames (4 MB per frame); the system's temporary one by default.
    ranks_only : bool
        Nothing but harvests under mpirun, of CBFs.

    Returns
    -------
    dict
        "ms_per_frame" of each run, the "ratio"s that matter, "ranks" (ms per frame), and what the harvest was.
    """
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        write_frames(folder, n_frames, eiger=not ranks_only)
        write_parfiles(folder, n_frames, delta_max)
        found = {} if ranks_only else _alone(folder, n_frames, repeats)
        of_ranks = {n: 1e3 * ranked(folder, n, repeats) / n_frames for n in ranks}
        with HarvestFile(folder / "harvest.h5") as harvested:
            points, visits = int(harvested.n_points.sum()), int(harvested.frames.sum())
        return found | {
            "frames": n_frames,
            "delta_max": delta_max,
            "spots_per_frame": visits / n_frames,
            "points_per_frame": points / n_frames,
            "mb_per_frame": (folder / "frame_00000.cbf").stat().st_size / 1e6,
            "ranks": of_ranks,
        }


def _alone(folder: Path, n_frames: int, repeats: int) -> dict[str, Any]:
    """One process, beside loops that only read."""
    names = sorted(str(path) for path in folder.glob("*.cbf"))
    cores = sorted(os.sched_getaffinity(0))
    one, two = {cores[0]}, set(cores[:2])
    tasks: dict[str, tuple[Callable[[], object], set[int]]] = {
        "bytes alone": (lambda: bytes_alone(names), one),
        "fabio.open": (lambda: fabio_open(names), one),
        "CbfImage.read": (lambda: fabio_cbf(names), one),
        "harvest": (lambda: run_harvest(folder, "threads=1"), one),
        "h5py": (lambda: h5py_loop(folder / "eiger_master.h5"), one),
        "harvest of Eiger": (lambda: run_harvest(folder, "threads=1", *EIGER), one),
    }
    if len(two) == 2:
        tasks["harvest, 2 threads"] = lambda: run_harvest(folder, "threads=2"), two
        tasks["harvest of Eiger, 2 threads"] = lambda: run_harvest(folder, "threads=2", *EIGER), two
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, (task, on) in tasks.items():
            (folder / "harvest.h5").unlink(missing_ok=True)
            times[name].append(seconds(task, on))
    ms = {name: 1e3 * float(np.median(values)) / n_frames for name, values in times.items()}
    ratio = {
        "harvest / fabio.open": ms["harvest"] / ms["fabio.open"],
        "harvest / CbfImage.read": ms["harvest"] / ms["CbfImage.read"],
        "harvest of Eiger / h5py": ms["harvest of Eiger"] / ms["h5py"],
    }
    if len(two) == 2:
        ratio["1 thread / 2 threads"] = ms["harvest"] / ms["harvest, 2 threads"]
        ratio["1 thread / 2 threads, Eiger"] = ms["harvest of Eiger"] / ms["harvest of Eiger, 2 threads"]
    return {"seconds": times, "ms_per_frame": ms, "ratio": ratio, "peak_mb": peak_memory(folder)}


def ranked(folder: Path, ranks: int, repeats: int) -> float:
    """Median time of a harvest by ranks of one thread each."""
    own = Path(sys.executable).with_name("mpirun")
    mpirun = str(own) if own.is_file() else "mpirun"
    done = subprocess.run(
        [mpirun, "-n", str(ranks), sys.executable, __file__, "--rank-of", folder, "--repeats", str(repeats)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{ranks} ranks failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def as_rank(folder: Path, repeats: int) -> None:
    """This process as one of the ranks; the first prints the median."""
    world = connect()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[world.node_rank % len(cores)]})
    settings = load_settings(folder / "input.par", ["threads=1"])
    times = []
    for _ in range(repeats + 1):
        if world.rank == 0:
            (folder / "harvest.h5").unlink(missing_ok=True)
        world.sum(0)
        start = time.perf_counter()
        harvest(settings, world)
        times.append(max(world.gather_all(time.perf_counter() - start)))
    if world.rank == 0:
        print(np.median(times[1:]))


def peak_memory(folder: Path) -> float:
    """MB that a harvest takes beyond what the imports do."""
    program = """
import re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import harvest_speed
import tds2el._core
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before = peak()
harvest_speed.run_harvest(Path(sys.argv[2]), "threads=1")
print(peak() - before)
"""
    arguments = [sys.executable, "-c", program, str(Path(__file__).parent), str(folder)]
    return float(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2400)
    parser.add_argument("--delta-max", type=float, nargs="+", default=[0.05, 0.1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ranks", type=lambda text: tuple(int(n) for n in text.split(",")), default=(1, 2))
    parser.add_argument("--ranks-only", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rank-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of:
        as_rank(options.rank_of, options.repeats)
        return
    results, figures = [], []
    for delta_max in options.delta_max:
        result = measure(options.frames, delta_max, options.repeats, options.ranks, options.folder, options.ranks_only)
        results.append(result)
        print(
            f"{result['frames']} Pilatus 2M frames of {result['mb_per_frame']:.2f} MB, DeltaQ_max {delta_max:g}: "
            f"{result['spots_per_frame']:.1f} of {SPOTS} spots and {result['points_per_frame']:.0f} points per frame"
        )
        for name, ms in result.get("ms_per_frame", {}).items():
            print(f"  {name:28}{ms:7.3f} ms per frame")
        for n, ms in result["ranks"].items():
            print(f"  {n:3} ranks {ms:27.3f} ms per frame, {result['ranks'][min(result['ranks'])] / ms:.2f} ×")
        figures += _figures(result)
    hand_over({"runs": results, "figures": figures}, options.json)


def _figures(result: dict[str, Any]) -> list[Figure]:
    """Milliseconds per frame beside those of what a user would pick instead."""
    of, ms, ranks = f"DeltaQ_max {result['delta_max']:g}", result.get("ms_per_frame", {}), result["ranks"]
    found = []
    for name, other, target in (
        ("harvest", "fabio.open", 1 / 0.45),
        ("harvest", "CbfImage.read", None),
        ("harvest", "bytes alone", None),
        ("harvest of Eiger", "h5py", 1),
        ("harvest, 2 threads", "harvest", 1.8),
        ("harvest of Eiger, 2 threads", "harvest of Eiger", None),
    ):
        if name in ms:
            what = f"{name} per frame, {of}"
            found.append(figure(what, ms[name], "ms", beside=ms[other], than=other, at_least=target))
    if ms:
        found.append(figure(f"memory of a harvest, {of}", result["peak_mb"], "MB"))
    if 1 in ranks:
        targets = {2: 1.8, 16: 12}
        found += [
            figure(f"{n} ranks, {of}", time, "ms", beside=ranks[1], than="1 rank", at_least=targets.get(n))
            for n, time in ranks.items()
            if n > 1
        ]
    return found


if __name__ == "__main__":
    main()
