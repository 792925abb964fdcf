"""`tds2el normalise`: the denominators of the frames, for normalisation_file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.cli.parfiles import add_arguments as add_arguments
from tds2el.cli.parfiles import read_settings
from tds2el.errors import InputError
from tds2el.parallel import World

if TYPE_CHECKING:
    from tds2el.settings import FrameSettings, Settings

log = logging.getLogger("tds2el")

HELP = (
    "Write the denominators of the frames that the par-file names, as normalisation_file takes them: from a monitor in "
    "their headers, or from the frames themselves. docs/peaks.md tells how."
)
OUTPUT, PICTURE = "normalisation.txt", "normalisation.png"
DARK = 0.1
"""Of the median: frames below it may have had no beam."""
NOISY = 0.02
"""Relative counting error of a denominator from the frames above which the user is warned."""


def run(arguments: argparse.Namespace, world: World) -> None:
    """Find the denominators and write them, with a picture (collective).

    Raises
    ------
    InputError
        On all ranks alike.
    """
    settings = read_settings(arguments, "normalise", world)
    frames = settings.frames
    assert frames is not None  # load_settings requires images_prefix
    threads = settings.harvest.threads or world.cores
    path = settings.normalise.normalisation_output or settings.run.output_folder / OUTPUT
    world.attempt(lambda: _check(path))
    if settings.normalise.normalise_from == "headers":
        world.attempt(lambda: _from_headers(settings, frames, path, threads) if world.rank == 0 else None)
    else:
        _from_frames(settings, frames, path, threads, world)


def _check(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"normalisation_output = {path}: not the name of a file in a folder that is there; choose another"
        )


def _from_headers(settings: Settings, frames: FrameSettings, path: Path, threads: int) -> None:
    from tds2el.experiment.frames import frame_files, frame_names, in_order, scan_files
    from tds2el.experiment.header_values import HeaderValues
    from tds2el.normalise.from_headers import monitor

    found = in_order(scan_files(frame_files(frames), threads), frames)
    headers, names = HeaderValues(found.files, found.n_frames.tolist()), frame_names(found)
    values, source = monitor(headers, names, settings.normalise.header_key)
    _tell_and_write(settings, path, names, values, source)


def _from_frames(settings: Settings, frames: FrameSettings, path: Path, threads: int, world: World) -> None:
    from tds2el.experiment.frames import frame_files, in_order, open_unturned_series, scan_together
    from tds2el.harvest.inputs import frame_masks
    from tds2el.normalise.from_frames import mean_counts, region_mask

    scanned = scan_together(lambda: frame_files(frames), threads, world)
    series = world.attempt(lambda: open_unturned_series(in_order(scanned, frames)))
    masks = world.attempt(lambda: frame_masks(frames, series, None))
    region = world.attempt(lambda: region_mask(settings.normalise, series.shape))
    means, pixels = mean_counts(series, masks, region, threads, world)

    def write() -> None:
        error = 1 / np.sqrt(means * pixels)
        log.info(
            "mean of %d pixels: %.4g counts each; counting error of a denominator up to %.2g %%",
            int(pixels.min()),
            means.mean(),
            100 * error.max(),
        )
        if error.max() > NOISY:
            log.warning("the denominators are noisy: take a larger normalise_region, or a monitor")
        source = f"mean counts of {int(pixels.min())} pixels between the peaks"
        _tell_and_write(settings, path, series.names, means, source, error)

    world.attempt(lambda: write() if world.rank == 0 else None)


def _tell_and_write(
    settings: Settings,
    path: Path,
    names: list[str],
    values: npt.NDArray[np.float64],
    source: str,
    error: npt.NDArray[np.float64] | None = None,
) -> None:
    from tds2el import __version__
    from tds2el.experiment.monitor import write_normalisation
    from tds2el.view.normalisation import normalisation_picture
    from tds2el.view.style import save

    median = float(np.median(values))
    denominators = values / median
    remark = f"Denominators of {len(names)} frames, relative to their median, by tds2el {__version__}\nfrom {source}"
    write_normalisation(path, names, denominators, f"{remark}; median {median:.6g}")
    log.info("denominators of %d frames from %s", len(names), source)
    log.info("median %.6g; relative to it %.4f to %.4f", median, denominators.min(), denominators.max())
    dark = np.flatnonzero(denominators < DARK)
    if dark.size:
        log.warning(
            "%d frames have less than %g of the median, such as %s (%.3g): was the beam on? leave them out if not",
            dark.size,
            DARK,
            names[int(dark[0])],
            denominators[dark[0]],
        )
    picture = settings.run.output_folder / PICTURE
    save(normalisation_picture(denominators, source, None if error is None else error * denominators), picture)
    log.info("written to %s, picture in %s; to use them: normalisation_file = %r", path, picture, str(path))
