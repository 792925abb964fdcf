"""Speed of the search for peaks beside scipy.ndimage on the same frames, in one run.

    python bench/peak_search.py [--frames 360] [--beside 24] [--repeats 3] [--folder DIR] [--json FILE]

The frames are of Pilatus 2M size (1679 × 1475), byte-offset CBFs with Poisson noise of 1 count and ten Gaussian peaks
in each, of 100 to 100000 counts, over several pixels and frames. All is in the page cache. What a user would write
without tds2el reads the frames with fabio, takes the background as scipy's mean in the same window, as often, and
labels the stack. It works on the first frames only, since a stack of all needs gigabytes; both are compared per frame,
on one core. They must find the same peaks.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import fabio
import numpy as np
from fabio.cbfimage import CbfImage
from scipy import ndimage

from figures import figure, hand_over
from tds2el.experiment.maxima import Maxima
from tds2el.parallel import World
from tds2el.peaks.search import search
from tds2el.settings import load_settings

SHAPE = (1679, 1475)
IMAGES = 20
"""Different backgrounds, taken in turn."""
PER_FRAME = 10
WINDOW, SIGMA, FEWEST = 15, 6.0, 3
TARGET = 20.0
"""Seconds for 360 frames on 2 cores."""
NEIGHBOURS = np.zeros((3, 3, 3), dtype=bool)
NEIGHBOURS[1], NEIGHBOURS[:, 1, 1] = True, True


def write_frames(folder: Path, n_frames: int) -> None:
    """The frames, and a par-file."""
    random = np.random.default_rng(0)
    noise = [random.poisson(1.0, SHAPE).astype(np.int32) for _ in range(min(IMAGES, n_frames))]
    n = PER_FRAME * n_frames
    row, column = (random.uniform(10, size - 10, n) for size in SHAPE)
    frame, counts = random.uniform(-0.5, n_frames - 0.5, n), 10 ** random.uniform(2, 5, n)
    y, x = np.mgrid[-7:8, -7:8]
    for k in range(n_frames):
        image = noise[k % len(noise)].copy()
        for i in np.flatnonzero(np.abs(frame - k) < 3):
            r, c = round(row[i]), round(column[i])
            shape = np.exp(-((y + r - row[i]) ** 2 + (x + c - column[i]) ** 2) / (2 * 1.2**2))
            expected = counts[i] / (2 * np.pi * 1.2**2 * 1.75) * np.exp(-((k - frame[i]) ** 2) / (2 * 0.7**2)) * shape
            image[r - 7 : r + 8, c - 7 : c + 8] += random.poisson(expected).astype(np.int32)
        CbfImage(data=image).write(str(folder / f"frame_{k:05d}.cbf"))
    (folder / "input.par").write_text('images_prefix = "frame_"\nimages_postfix = ".cbf"\nangular_step = 0.1\n')


def with_scipy(names: list[str]) -> np.ndarray[Any, Any]:
    """Frame, row and column of the peaks: the whole stack in memory, labelled at once."""
    above = np.empty((len(names), *SHAPE), dtype=np.float32)
    for n, name in enumerate(names):
        image = fabio.open(name).data.astype(np.float32)
        used = np.ones(SHAPE, dtype=bool)
        for _ in range(3):
            mean = _mean(image, used)
            used = image - mean <= 3 * np.sqrt(np.maximum(mean, 1))
        mean = _mean(image, used)
        image -= mean
        above[n] = np.where(image > SIGMA * np.sqrt(np.maximum(mean, 1)), image, 0)
    labels, n_labels = ndimage.label(above > 0, NEIGHBOURS)
    large = 1 + np.flatnonzero(np.bincount(labels.ravel(), minlength=n_labels + 1)[1:] >= FEWEST)
    return np.array(ndimage.center_of_mass(above, labels, large))


def _mean(image: np.ndarray[Any, Any], used: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    total = ndimage.uniform_filter(np.where(used, image, 0), WINDOW, mode="constant")
    return np.asarray(
        total / np.maximum(ndimage.uniform_filter(used.astype(np.float32), WINDOW, mode="constant"), 1e-9)
    )


def with_tds2el(folder: Path, threads: int, n_frames: int | None = None) -> Maxima:
    """The same of all frames, or the first ones."""
    overrides = [
        f"threads={threads}",
        f"maxima_window={WINDOW}",
        f"maxima_sigma={SIGMA}",
        f"maxima_min_pixels={FEWEST}",
    ]
    if n_frames is not None:
        part = folder / "part"
        part.mkdir(exist_ok=True)
        for n in range(n_frames):
            (part / f"frame_{n:05d}.cbf").symlink_to(folder / f"frame_{n:05d}.cbf")
        overrides.append(f"images_prefix={part}/frame_")
    found = search(load_settings(folder / "input.par", overrides, "extract-maxima"), World())
    assert found is not None
    return found.found.maxima


def measure(n_frames: int = 360, beside: int = 24, repeats: int = 3, parent: Path | None = None) -> dict[str, Any]:
    """Medians of everything.

    Parameters
    ----------
    n_frames, repeats
    beside : int
        Frames of the comparison.
    parent : Path, optional
        Where to make the folder of the frames (3 MB each); the system's temporary one by default.

    Returns
    -------
    dict
        "seconds" of each run, "peaks", "common" (the share of scipy's peaks that are also ours), and "figures".
    """
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        write_frames(folder, n_frames)
        names = [str(folder / f"frame_{n:05d}.cbf") for n in range(beside)]
        theirs, ours = with_scipy(names), with_tds2el(folder, 1, beside)
        tasks = {
            "scipy": (lambda: with_scipy(names), {cores[0]}),
            "1 thread": (lambda: with_tds2el(folder, 1), {cores[0]}),
            "2 threads": (lambda: with_tds2el(folder, 2), set(cores[:2])),
        }
        times: dict[str, list[float]] = {task: [] for task in tasks}
        for _ in range(repeats):
            for task, (run, on) in tasks.items():
                os.sched_setaffinity(0, on)
                start = time.perf_counter()
                run()
                times[task].append(time.perf_counter() - start)
                os.sched_setaffinity(0, set(cores))
    places = np.stack([ours.frame, ours.row, ours.column])
    common = float(np.mean([np.abs(places - place[:, None]).max(axis=0).min() < 0.01 for place in theirs]))
    median = {task: float(np.median(seconds)) for task, seconds in times.items()}
    per_frame = {"scipy": 1e3 * median["scipy"] / beside, "ours": 1e3 * median["1 thread"] / n_frames}
    return {
        "frames": n_frames,
        "seconds": times,
        "peaks": {"ours": len(ours.row), "scipy": len(theirs)},
        "common": common,
        "figures": [
            figure(
                "search per Pilatus 2M frame, 1 thread", per_frame["ours"], "ms", beside=per_frame["scipy"],
                than="fabio and scipy.ndimage", at_least=5,
            ),
            figure(
                f"search of {n_frames} frames, 2 threads", median["2 threads"], "s", beside=median["1 thread"],
                than="1 thread", at_most=TARGET * n_frames / 360 if n_frames >= 360 else None,
            ),
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=360)
    parser.add_argument("--beside", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.frames, min(options.beside, options.frames), options.repeats, options.folder)
    peaks = result["peaks"]
    print(
        f"{peaks['ours']} peaks in the frames of the comparison; scipy: {peaks['scipy']}, of which "
        f"{100 * result['common']:.2f} % are the same"
    )
    hand_over(result, options.json)


if __name__ == "__main__":
    main()
