"""Collecting the points round a list of reflections from a series of frames, on one process or MPI ranks."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import longest_reciprocal
from tds2el.errors import InputError
from tds2el.harvest.assemble import SortedPoints
from tds2el.harvest.auto import with_chosen_spots
from tds2el.harvest.columns import Column
from tds2el.harvest.file import LOSSES, Tables, write_harvest
from tds2el.harvest.gather import FrameGatherer
from tds2el.harvest.inputs import Inputs, output_path, prepare, read_headers, read_scan
from tds2el.harvest.nodes import node_names
from tds2el.parallel import World
from tds2el.progress import Stage
from tds2el.settings import Settings

logger = logging.getLogger("tds2el")

BLOCK = 32
"""Frames of a block for each thread: at its end all wait for the last one, and till then memory holds what it gives."""
FIRST_AGREEMENT = 16
"""Frames of a rank before the ranks agree on whether all is well, then twice as many, and so on.

So none waits often for the slowest, and a fault is told before as much time has passed again.
"""


def harvest(settings: Settings, world: World) -> Path:
    """Collect the shells round the reflections that the settings name and write them to save_to_file (collective).

    Parameters
    ----------
    settings : Settings
        Of one sweep.
    world : World

    Returns
    -------
    Path
        The harvest file.

    Raises
    ------
    InputError
        On all ranks alike, for any fault of the inputs; an existing file of that name is then untouched.
    """
    settings, inputs = prepare_together(settings, world)
    if not inputs.plan.frame.size:
        row, column = inputs.geometry.direct_beam()
        raise InputError(
            f"{inputs.source}: no reflection of the list reaches the detector in this scan; check the geometry "
            f"(direct beam at row {row:.1f}, column {column:.1f}) and the list"
        )
    return gather_and_write(settings, inputs, world)


def prepare_together(settings: Settings, world: World) -> tuple[Settings, Inputs]:
    """Read all but the frames, which are looked at only to choose reflections; tell what there is to tell (collective).

    Returns
    -------
    settings : Settings
        With the chosen reflections, where they were "auto".
    inputs : Inputs
    """
    threads = settings.harvest.threads or world.cores
    scanned = read_headers(settings, threads, world)
    scan = None
    if settings.harvest.collectSpots == "auto":
        scan = world.attempt(lambda: read_scan(settings, scanned))
        settings = with_chosen_spots(settings, scan, world)
    inputs = world.attempt(lambda: prepare(settings, scan, scanned))
    if world.rank == 0:
        for text in inputs.notes:
            logger.info("%s", text)
        for text in inputs.warnings:
            logger.warning("%s", text)
    return settings, inputs


def gather_and_write(settings: Settings, inputs: Inputs, world: World, *, whole: bool = True) -> Path:
    """Read the frames and write what they hold to save_to_file (collective).

    Parameters
    ----------
    settings : Settings
    inputs : Inputs
        With a plan that is not empty.
    world : World
    whole : bool
        Whether this is all, so that reflections without points are told, and none with points is an error; else it is
        one sweep of several.

    Raises
    ------
    InputError
        On all ranks alike; an existing file of that name is then untouched.
    """
    found = _read_frames(inputs, settings.harvest.threads or world.cores, settings.harvest.check_md5, world)
    return _merge_and_write(settings, inputs, found, world, whole)


def _read_frames(inputs: Inputs, threads: int, check_md5: bool, world: World) -> FrameGatherer:
    """Read this rank's share of the frames that see anything: a contiguous part (collective)."""
    found = FrameGatherer(inputs, threads, check_md5)
    shares = np.array_split(np.arange(found.frames.size), world.size)
    mine = shares[world.rank]
    block = BLOCK * threads

    def read(part: npt.NDArray[np.int64]) -> None:
        for start in range(0, len(part), block):
            frames = part[start : start + block]
            found.read(frames)
            stage.update(len(frames))

    with Stage("harvest", len(mine), "frame") as stage:
        done, further = 0, FIRST_AGREEMENT
        while done < len(shares[0]):
            world.attempt(partial(read, mine[done : done + further]))
            done, further = done + further, 2 * further
    return found


def _merge_and_write(settings: Settings, inputs: Inputs, found: FrameGatherer, world: World, whole: bool) -> Path:
    plan, series = inputs.plan, inputs.series
    n_blobs = len(plan.node)
    numbers = [np.stack(world.gather_all(points.number(n_blobs))) for points in (found.points, found.peaks)]
    n_points = numbers[0].sum(axis=0)
    lost, hot_frames = world.sum_array(found.lost), world.sum_array(found.hot_frames)
    points_in_frames = world.sum_array(found.points.number_in_frames(series.n_frames))
    error = None
    if whole and not n_points.any():
        error = InputError(
            f"{inputs.source}: no point was harvested ({_losses(0, lost.sum(axis=0))}); check the geometry, mask"
        )
    world.agree(error)

    last, first = np.full(n_blobs, -1), np.full(n_blobs, series.n_frames)
    np.maximum.at(last, plan.blob, plan.frame)
    np.minimum.at(first, plan.blob, plan.frame)
    hkl = inputs.hkl[plan.node]
    losses: dict[str, npt.NDArray[Any]] = {f"lost_{cause}": lost[:, i] for i, cause in enumerate(LOSSES)}
    tables = Tables(
        blobs=losses
        | {
            "hkl": hkl.astype(np.int32),
            "centre": hkl @ inputs.cell.B.T,
            "offset": plan.shift,
            "angle": plan.angle,
            "first_frame": first.astype(np.int32),
            "last_frame": last.astype(np.int32),
            "frames": np.bincount(plan.blob, minlength=n_blobs).astype(np.int32),
            "frames_over_threshold": hot_frames.astype(np.int32),
        },
        point_offset=np.concatenate([[0], np.cumsum(n_points)]),
        peak_offset=np.concatenate([[0], np.cumsum(numbers[1].sum(axis=0))]),
        frame_names=series.names,
        frames={
            "phi": inputs.geometry.phi(series.angle_index),
            "denominator": inputs.denominator,
            "points": points_in_frames,
        },
        shell={
            "delta_min": inputs.delta_min,
            "delta_max": inputs.delta_max,
            "longest_reciprocal": longest_reciprocal(inputs.cell),
            "threshold": inputs.threshold,
            "saturation": inputs.saturation,
        }
        | ({} if inputs.background is None else {"background_exposure": inputs.background.exposure}),
        cell=inputs.cell,
    )
    path = output_path(settings)  # the folder may have gone meanwhile
    write_harvest(path, settings, tables, _columns(found, numbers, inputs, world), found.threads, world)
    if world.rank == 0:
        if whole:
            absent = np.setdiff1d(np.arange(len(inputs.hkl)), plan.node[n_points > 0])
            listed, replicas = absent[absent < inputs.n_listed], absent[absent >= inputs.n_listed]
            tell_absent(inputs.hkl[listed], inputs.hkl[replicas])
        if not numbers[1].any() and np.isfinite(inputs.threshold):
            row, column = inputs.geometry.direct_beam()
            logger.warning(
                "no pixel of any spot exceeds the threshold, so no Bragg peak was seen: if reflections saturate in "
                "these frames, the geometry is off (direct beam at row %.1f, column %.1f; are the origins exchanged?)",
                row,
                column,
            )
        logger.info(
            "%d blobs in %d frames: %s",
            n_blobs,
            np.unique(plan.frame).size,
            _losses(n_points.sum(), lost.sum(axis=0)),
        )
    return path


def tell_absent(listed: npt.NDArray[np.int64], replicas: npt.NDArray[np.int64]) -> None:
    """Name reflections (n, 3) without points, those of the list and their replicas, of which nobody expected all."""
    if len(listed):
        logger.warning("no point was harvested of %s", node_names(listed))
    if len(replicas):
        logger.info(
            "no point was harvested of %d of the equivalent reflections: %s",
            len(replicas),
            node_names(replicas, most=200),
        )


def _columns(found: FrameGatherer, numbers: list[npt.NDArray[np.int64]], inputs: Inputs, world: World) -> list[Column]:
    """The columns of points and peaks (collective)."""
    pixel = np.dtype(np.uint16 if max(inputs.series.shape) <= np.iinfo(np.uint16).max else np.uint32)
    columns = []
    for group, points, number in zip(("points", "peaks"), (found.points, found.peaks), numbers, strict=True):
        sorted_points = SortedPoints(points, points.counts_type(world))
        types = {
            "frame": np.dtype(np.int32),
            "row": pixel,
            "column": pixel,
            "counts": sorted_points.counts_type,
            "correction": np.dtype(np.float32),
            "Q": np.dtype(np.float64),
        }
        if group == "points" and inputs.background is not None:
            types["background"] = np.dtype(np.float32)
        for name, dtype in types.items():
            pieces = [(piece.first, partial(found.column, name, piece)) for piece in sorted_points.pieces]
            columns.append(Column(f"{group}/{name}", dtype, 3 if name == "Q" else 1, number, pieces))
    return columns


def _losses(kept: int, lost: npt.NDArray[np.int64]) -> str:
    causes = ", ".join(f"{n} {cause.replace('_', ' ')}" for cause, n in zip(LOSSES, lost, strict=True))
    return f"{kept} points kept; lost: {causes}"
