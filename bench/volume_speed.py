"""Speed of the reconstruction of a volume beside meerkat 0.4, in one run, and whether both find the same voxels.

    python bench/volume_speed.py [--frames 60] [--nodes 257] [--microsteps 1] [--repeats 3] [--folder DIR] [--json FILE]

The frames are Poisson noise of 1 count in Pilatus 2M size (1679 × 1475), byte-offset CBFs in the page cache. Both put
all pixels of the same frames on the same grid in hkl of calcite, with the same microsteps, on the same two cores, and
write their file. meerkat is numpy on one thread and keeps its volume in memory; imports do not count. Whole runs are
compared, and the time per further frame, which is what is left of a long scan: the difference to a run on one frame.
meerkat is installed into an environment of its own; without a network tds2el is measured alone.

Values are compared twice, in all voxels that both define. Sums of counts and numbers of pixels, for which meerkat's
corrections are left out: they are to be equal. And intensities, without absorption by air, which tds2el does not
correct: meerkat's are means of N/κ, ours ΣN/Σκ, which differ by as much as κ does within a voxel.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from figures import figure, hand_over
from harvest_speed import SHAPE, write_frames
from meerkat_side import meerkat_python, reconstruct, write_xparm
from synthetic import CELL, EXPERIMENT_PAR
from tds2el.experiment.geometry import Geometry
from tds2el.parallel import World
from tds2el.settings import load_settings
from tds2el.volume.file import VolumeFile
from tds2el.volume.reconstruct import reconstruct as make_volume

PAR = """\
{experiment}images_prefix = "frame_"
images_postfix = ".cbf"
DO_ELASTIC = 0
volume_shape = {nodes}
volume_limits = {limits}
microsteps = {microsteps}
"""
HALF_WIDTH = (6.0, 6.0, 20.0)
"""Of the grid in r.l.u.: what the detector reaches."""
AGREE = 0.02
"""Of intensities, relative: as much as κ varies within a voxel."""
FEW = 6
"""Frames of the volumes that are compared, at most."""


def write_parfiles(folder: Path, nodes: int, microsteps: int) -> None:
    """Par-files, and the same geometry for meerkat."""
    limits = [[-half, half] for half in HALF_WIDTH]
    (folder / "conf.par").write_text("")
    (folder / "input.par").write_text(
        PAR.format(experiment=EXPERIMENT_PAR, nodes=nodes, limits=limits, microsteps=microsteps)
    )
    settings = load_settings(folder / "input.par")
    assert settings.experiment is not None
    write_xparm(folder / "XPARM.XDS", Geometry(settings.experiment), CELL, SHAPE)


def run_ours(folder: Path, frames: int, threads: int) -> Path:
    """A volume of the first frames."""
    # In a folder of links, since a prefix cannot say how many.
    part = folder / f"first_{frames}"
    if not part.is_dir():
        part.mkdir()
        for n in range(frames):
            (part / f"frame_{n:05d}.cbf").symlink_to(folder / f"frame_{n:05d}.cbf")
    prefix = f"images_prefix={part}/frame_"
    return make_volume(load_settings(folder / "input.par", [prefix, f"threads={threads}"]), World())


def seconds(task: Callable[[], object]) -> float:
    """How long a task takes."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def measure(
    n_frames: int = 60, nodes: int = 257, microsteps: int = 1, repeats: int = 3, parent: Path | None = None
) -> dict[str, Any]:
    """Medians of the times of both, and how far their voxels differ.

    Parameters
    ----------
    n_frames : int
        At least 2.
    nodes, microsteps, repeats
    parent : Path, optional
        Where to make the folder of the frames (2.6 MB per frame); the system's temporary one by default.

    Returns
    -------
    dict
        "whole" (seconds) and "ms_per_frame" of each program, and what was "compared", unless meerkat could not be
        installed.
    """
    before = os.sched_getaffinity(0)
    cores = sorted(before)[:2]
    os.sched_setaffinity(0, cores)
    python = meerkat_python()
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        write_frames(folder, n_frames, eiger=False)
        write_parfiles(folder, nodes, microsteps)
        grid = (nodes,) * 3, HALF_WIDTH, microsteps
        tasks: dict[str, Callable[[int], float]] = {
            "tds2el": lambda n: seconds(lambda: run_ours(folder, n, len(cores))),
            "tds2el, 1 thread": lambda n: seconds(lambda: run_ours(folder, n, 1)),
        }
        if python is not None:
            tasks["meerkat"] = lambda n: reconstruct(python, folder, n, *grid)[0]
        run_ours(folder, 1, len(cores))  # imports do not count
        times: dict[str, list[tuple[float, float]]] = {task: [] for task in tasks}
        for _ in range(repeats):
            for task, run in tasks.items():
                times[task].append((run(1), run(n_frames)))
        compared = {}
        if python is not None:
            few = min(FEW, n_frames)
            ours = run_ours(folder, few, len(cores))
            compared = {
                kind: compare(ours, reconstruct(python, folder, few, *grid, kind)[1], kind)
                for kind in ("bare", "vacuum")
            }
    os.sched_setaffinity(0, before)
    one, whole = ({task: statistics.median(t[i] for t in found) for task, found in times.items()} for i in (0, 1))
    return {
        "frames": n_frames,
        "nodes": nodes,
        "microsteps": microsteps,
        "cores": len(cores),
        "seconds": times,
        "whole": whole,
        "ms_per_frame": {task: 1e3 * (whole[task] - one[task]) / (n_frames - 1) for task in tasks},
        "compared": compared,
    }


def compare(ours: Path, theirs: Path, kind: str) -> dict[str, float]:
    """How far the voxels of a volume differ from meerkat's.

    Returns
    -------
    dict
        "voxels" that both define, "only_one" defines, and the largest differences: of "pixels" and "counts", or the
        largest and mean relative one of the "intensity".
    """
    with VolumeFile(ours) as volume, h5py.File(theirs) as file:
        total, hits = file["rebinned_data"][()].astype(float), file["number_of_pixels_rebinned"][()]
        microsteps = volume.settings["microsteps"]
        # meerkat counts a pixel at each microstep as a whole one.
        pixels = np.rint(volume.pixels[()].astype(float) * microsteps)
        both = (hits > 0) & (pixels > 0)
        found = {"voxels": int(both.sum()), "only_one": int(((hits > 0) != (pixels > 0)).sum())}
        if kind == "bare":
            counts = volume.counts[()] * microsteps
            return found | {
                "different": int((both & ((hits != pixels) | (np.abs(total - counts) > 0.5))).sum()),
                "pixels": float(np.abs(hits - pixels)[both].max()),
                "counts": float(np.abs(total - counts)[both].max()),
            }
        mean = total[both] / hits[both]
        own = volume.intensity[()].astype(float)[both]
        difference = np.abs(own - mean) / np.maximum(mean, 1 / hits[both])
        return found | {"intensity": float(difference.max()), "mean_difference": float(difference.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--nodes", type=int, default=257)
    parser.add_argument("--microsteps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.frames, options.nodes, options.microsteps, options.repeats, options.folder)
    whole, ms, compared = result["whole"], result["ms_per_frame"], result["compared"]
    print(
        f"{options.frames} Pilatus 2M frames, {options.nodes}³ voxels, {options.microsteps} microstep(s), "
        f"{result['cores']} cores"
    )
    for name, value in whole.items():
        print(f"  {name:20}{value:8.2f} s, {ms[name]:8.2f} ms per further frame")
    than, target = "meerkat 0.4", 10 if "meerkat" in ms else None
    figures = [
        figure(f"volume of {options.frames} frames", whole["tds2el"], "s", beside=whole.get("meerkat"), than=than,
               at_least=target),
        figure("volume per further frame", ms["tds2el"], "ms", beside=ms.get("meerkat"), than=than, at_least=target),
        figure("volume per further frame", ms["tds2el"], "ms", beside=ms["tds2el, 1 thread"], than="1 thread"),
    ]  # fmt: skip
    if compared:
        bare, vacuum = compared["bare"], compared["vacuum"]
        print(
            f"  {bare['voxels']} voxels of a few frames compared: {bare['different']} have other counts or pixels, "
            f"{bare['only_one']} only one defines; intensities differ by {vacuum['mean_difference']:.2g} on average"
        )
        wrong = (bare["different"] + bare["only_one"]) / bare["voxels"]
        figures += [
            figure("voxels with other counts than meerkat's", wrong, "", at_most=1e-5),
            figure("largest difference of intensities", vacuum["intensity"], "", at_most=AGREE),
        ]
    hand_over(result | {"figures": figures}, options.json)


if __name__ == "__main__":
    main()
