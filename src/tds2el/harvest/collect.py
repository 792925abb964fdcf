"""Collecting the points round a list of reflections from a series of frames, on one process or MPI ranks."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell, longest_reciprocal
from tds2el.crystal.centring import neighbour_vectors
from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries, open_frame_series
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.mask import read_mask
from tds2el.experiment.monitor import read_normalisation
from tds2el.harvest.assemble import COLUMNS, PointList, assemble
from tds2el.harvest.file import LOSSES, Tables, write_harvest
from tds2el.harvest.nodes import check_nodes, node_names, node_notes, node_warnings
from tds2el.harvest.plan import Plan, make_plan
from tds2el.parallel import World
from tds2el.progress import Stage
from tds2el.settings import Settings

logger = logging.getLogger("tds2el")

# Frames between two agreements of the ranks on whether all is well.
BLOCK = 16
# threshold_action "pixel" also drops this many pixels round each one above the threshold.
PIXEL_BORDER = 2


@dataclass
class _Inputs:
    """What every rank knows before the first frame is read."""

    geometry: Geometry
    cell: Cell
    hkl: npt.NDArray[np.int64]
    series: FrameSeries
    mask: npt.NDArray[np.bool_]
    denominator: npt.NDArray[np.float64]
    delta_min: float
    delta_max: float
    threshold: float
    saturation: float
    border: int
    plan: Plan
    neighbours: list[npt.NDArray[np.float64]]
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class _Found:
    """What one rank has read."""

    points: PointList
    peaks: PointList
    lost: npt.NDArray[np.int64]
    hot_frames: npt.NDArray[np.int64]


def harvest(settings: Settings, world: World) -> Path:
    """Collect the shells round the reflections of collectSpots and write them to save_to_file (collective).

    Parameters
    ----------
    settings : Settings
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
    inputs = world.attempt(lambda: _prepare(settings))
    listing = hashlib.sha256("\n".join(inputs.series.names).encode()).hexdigest()
    error = None
    if len(set(world.gather_all(listing))) > 1:
        error = InputError("images_prefix: the ranks see different lists of frames; wait until the series is complete")
    world.agree(error)
    if world.rank == 0:
        for text in inputs.notes:
            logger.info("%s", text)
        for text in inputs.warnings:
            logger.warning("%s", text)
    found = _read_frames(inputs, world)
    return _merge_and_write(settings, inputs, found, world)


def _prepare(settings: Settings) -> _Inputs:
    path = _output_path(settings)
    options = settings.harvest
    if not options.collectSpots:
        raise InputError("collectSpots: a harvest needs a list of reflections such as [(1, 0, 4), (2, 0, 2)]")
    hkl = np.array(options.collectSpots, dtype=np.int64)
    experiment, frames, lengths_and_angles = settings.experiment, settings.frames, settings.crystal.cell
    if experiment is None or frames is None or lengths_and_angles is None:
        raise InputError("a harvest needs the experiment, the cell and images_prefix; give them in the par-files")
    if options.DeltaQ_min is None or options.DeltaQ_max is None:
        raise InputError("DeltaQ_min, DeltaQ_max: a harvest needs both; give them in the conf_file")
    centring = settings.crystal.centring
    cell = Cell(*lengths_and_angles)
    unit = longest_reciprocal(cell)
    delta_min, delta_max = options.DeltaQ_min * unit, options.DeltaQ_max * unit
    check_nodes(hkl, centring)
    warnings = node_warnings(hkl, cell, centring, delta_max)
    notes = node_notes(hkl, cell, centring, delta_max)
    notes.append(f"shells from {delta_min:.5f} to {delta_max:.5f} Å⁻¹; data go to {path}")

    geometry = Geometry(experiment)
    row, column = geometry.direct_beam()
    notes.append(f"direct beam at row {row:.2f}, column {column:.2f}")

    series = open_frame_series(frames, experiment.angular_step)
    mask = np.ones(series.shape, dtype=np.bool_)
    if frames.filter_file is not None:
        mask &= read_mask(frames.filter_file, series.shape)
    if series.pixel_mask is not None:
        mask &= series.pixel_mask
    if frames.normalisation_file is not None:
        denominator = read_normalisation(frames.normalisation_file, series)
    else:
        denominator = np.ones(series.n_frames)
    threshold, saturation, text = _threshold(options.threshold, series.count_cutoff)
    notes.append(text)

    plan = make_plan(geometry, hkl @ cell.B.T, series.angle_index, delta_max, series.shape)
    if not plan.frame.size:
        raise InputError(
            "collectSpots: no reflection of the list reaches the detector in this scan; check the geometry "
            f"(direct beam at row {row:.1f}, column {column:.1f}) and the list"
        )
    neighbours = [np.empty((0, 3))] * len(plan.node)
    if centring is not None:
        of_node = [neighbour_vectors(node, cell, centring, 2 * delta_max) for node in hkl]
        neighbours = [of_node[node] for node in plan.node]
    return _Inputs(
        geometry,
        cell,
        hkl,
        series,
        mask,
        denominator,
        delta_min,
        delta_max,
        threshold,
        saturation,
        PIXEL_BORDER if options.threshold_action == "pixel" else -1,
        plan,
        neighbours,
        warnings,
        notes,
    )


def _output_path(settings: Settings) -> Path:
    if settings.run.save_to_file is None:
        raise InputError("save_to_file: a harvest needs the name of the file to write")
    path = Path(settings.run.save_to_file)
    if not path.parent.is_dir():
        raise InputError(f"save_to_file = {path}: the folder {path.parent} does not exist; create it")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"save_to_file = {path}: cannot be written there; choose another name or folder")
    return path


def _threshold(option: float | None, cutoff: float | None) -> tuple[float, float, str]:
    """Counts above the first or at least the second are over threshold; and what to tell the user."""
    if option is None and cutoff is None:
        raise InputError("threshold: not given, and the frames' headers name no count cutoff; give it in counts")
    threshold = np.inf if option is None else option
    saturation = np.inf if cutoff is None else cutoff
    if saturation <= threshold:
        reason = "no threshold is given" if option is None else f"lower than threshold = {option:g}"
        return threshold, saturation, f"the headers' count cutoff, {cutoff:g}, is the threshold ({reason})"
    return threshold, saturation, f"threshold: {option:g} counts"


def _read_frames(inputs: _Inputs, world: World) -> _Found:
    """Read this rank's share of the frames that see anything: a contiguous part (collective)."""
    from tds2el._core import RegionGatherer

    plan, series, geometry = inputs.plan, inputs.series, inputs.geometry
    in_plane, normal = geometry.polarisation_axes
    gatherer = RegionGatherer(
        mask=inputs.mask,
        pixel_to_lab=geometry.pixel_to_lab,
        beam=geometry.beam,
        lmbda=geometry.experiment.lmbda,
        in_plane=in_plane,
        normal=normal,
        pol_degree=geometry.experiment.pol_degree,
        dist=geometry.experiment.dist,
        centres=inputs.hkl[plan.node] @ inputs.cell.B.T,
        neighbours=np.concatenate(inputs.neighbours),
        neighbour_offsets=np.cumsum([0, *(len(v) for v in inputs.neighbours)]),
        delta_min=inputs.delta_min,
        delta_max=inputs.delta_max,
        threshold=inputs.threshold,
        saturation=inputs.saturation,
        border=inputs.border,
    )
    pixel_type = np.uint16 if max(series.shape) <= np.iinfo(np.uint16).max else np.uint32
    n_blobs = len(plan.node)
    found = _Found(
        PointList(pixel_type),
        PointList(pixel_type),
        np.zeros((n_blobs, len(LOSSES)), dtype=np.int64),
        np.zeros(n_blobs, dtype=np.int64),
    )

    frames, first = np.unique(plan.frame, return_index=True)
    visits = [slice(a, b) for a, b in zip(first, [*first[1:], plan.frame.size], strict=True)]
    shares = np.array_split(np.arange(frames.size), world.size)
    mine, blocks = shares[world.rank], -(-len(shares[0]) // BLOCK)
    with Stage("harvest", len(mine), "frame") as stage:
        for block in range(blocks):
            error: Exception | None = None
            part = mine[block * BLOCK : (block + 1) * BLOCK]
            try:
                for i in part:
                    _read_frame(int(frames[i]), visits[i], inputs, gatherer, found)
                    stage.update()
            except (InputError, OSError) as caught:
                error = caught
            world.agree(error)
    return found


def _read_frame(frame: int, visits: slice, inputs: _Inputs, gatherer: Any, found: _Found) -> None:
    image = inputs.series.read(frame)
    image = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))
    blobs = inputs.plan.blob[visits]
    turn = inputs.geometry.lab_to_crystal(inputs.geometry.phi(inputs.series.angle_index[frame]))
    points, peaks, lost, hot = gatherer.frame(
        image, turn, blobs, inputs.plan.region[visits], float(inputs.denominator[frame])
    )
    found.points.add(frame, blobs, points)
    found.peaks.add(frame, blobs, peaks)
    found.lost[blobs] += lost
    found.hot_frames[blobs] += hot


def _merge_and_write(settings: Settings, inputs: _Inputs, found: _Found, world: World) -> Path:
    plan, series = inputs.plan, inputs.series
    n_blobs = len(plan.node)
    numbers = [np.stack(world.gather_all(points.number(n_blobs))) for points in (found.points, found.peaks)]
    n_points = numbers[0].sum(axis=0)
    lost, hot_frames = world.sum_array(found.lost), world.sum_array(found.hot_frames)
    points_in_frames = world.sum_array(found.points.number_in_frames(series.n_frames))
    error = None
    if not n_points.any():
        error = InputError(
            f"collectSpots: no point was harvested ({_losses(0, lost.sum(axis=0))}); check the geometry, mask"
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
        },
        cell=inputs.cell,
    )
    path = _output_path(settings)
    write_harvest(path, settings, tables, _columns(found, numbers, world), world)
    if world.rank == 0:
        empty = np.setdiff1d(np.arange(len(inputs.hkl)), plan.node[n_points > 0])
        if empty.size:
            logger.warning("no point was harvested of %s", node_names(inputs.hkl[empty]))
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


def _columns(
    found: _Found, numbers: list[npt.NDArray[np.int64]], world: World
) -> Iterator[tuple[str, npt.NDArray[Any] | None]]:
    """The columns of points and peaks, sorted by blob, one at a time (collective)."""
    for group, points, number in zip(("points", "peaks"), (found.points, found.peaks), numbers, strict=True):
        types = {"counts": points.counts_type(world), "correction": np.float32, "Q": np.float64}
        yield f"{group}/frame", assemble(world, points.frames(), number)
        for name in COLUMNS:
            yield (
                f"{group}/{name}",
                assemble(world, points.take(name, types.get(name, points.pixel_type)), number),
            )


def _losses(kept: int, lost: npt.NDArray[np.int64]) -> str:
    causes = ", ".join(f"{n} {cause.replace('_', ' ')}" for cause, n in zip(LOSSES, lost, strict=True))
    return f"{kept} points kept; lost: {causes}"
