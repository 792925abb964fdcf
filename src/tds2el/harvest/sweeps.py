"""Several sweeps of one crystal, each with its own experiment and frames, in one harvest file.

Every sweep is harvested by itself into a file beside the whole one. These files are then joined: frames, blobs and
points of the second follow those of the first, and so on, so that points stay sorted by blob.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.harvest.collect import gather_and_write, prepare_together, tell_absent
from tds2el.harvest.columns import Column
from tds2el.harvest.file import LOSSES, OPTION, HarvestFile, Tables, write_harvest
from tds2el.harvest.inputs import Inputs, output_path
from tds2el.parallel import World
from tds2el.settings import Settings

logger = logging.getLogger("tds2el")

IntArray = npt.NDArray[np.int64]

# Points that are copied at a time.
_PIECE = 1 << 20


def harvest_sweeps(settings: Settings, world: World) -> Path:
    """Harvest every sweep and join what they gave in save_to_file (collective).

    Parameters
    ----------
    settings : Settings
        With sweeps.
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
    path = world.attempt(lambda: output_path(settings))
    parts = [path.with_name(f".{path.name}.sweep{number}.partial") for number in range(1, len(settings.sweeps) + 1)]
    lists: list[Inputs] = []
    written: list[int] = []
    try:
        for number, (sweep, part) in enumerate(zip(settings.sweeps, parts, strict=True)):
            if world.rank == 0:
                logger.info("sweep %d of %d: %s", number + 1, len(parts), sweep.conf_file)
            own = replace(sweep, run=replace(sweep.run, save_to_file=part))
            own, inputs = prepare_together(own, world)
            lists.append(inputs)
            if inputs.plan.frame.size:
                gather_and_write(own, inputs, world, whole=False)
                written.append(number)
            elif world.rank == 0:
                logger.info("no reflection of the list reaches the detector in this sweep")
        if not written:
            raise InputError(f"{lists[0].source}: no reflection of the list reaches the detector in any of the sweeps")
        listed = np.unique(np.concatenate([inputs.hkl[: inputs.n_listed] for inputs in lists]), axis=0)
        replicas = np.unique(np.concatenate([inputs.hkl[inputs.n_listed :] for inputs in lists]), axis=0)
        settings = replace(settings, values=settings.values | {"collectSpots": listed.tolist()})
        with ExitStack() as stack:
            files = world.attempt(lambda: _opened([parts[n] for n in written], world, stack))
            seen = _join(settings, path, files, written, world)
        if world.rank == 0:
            tell_absent(_without(listed, seen), _without(_without(replicas, seen), listed))
        return path
    finally:
        if world.rank == 0:
            for part in parts:
                part.unlink(missing_ok=True)


def _opened(paths: Sequence[Path], world: World, stack: ExitStack) -> list[HarvestFile]:
    """The parts on rank 0, which may be the only one that sees them."""
    return [stack.enter_context(HarvestFile(path, OPTION)) for path in paths] if world.rank == 0 else []


def _join(
    settings: Settings, path: Path, files: Sequence[HarvestFile], numbers: Sequence[int], world: World
) -> IntArray:
    """Write the whole file from the parts, of sweeps by these numbers; returns the nodes with points (collective)."""
    own = world.attempt(lambda: _tables(settings, files, numbers) if world.rank == 0 else None)
    tables = world.gather_all(own)[0]
    assert tables is not None
    n_points = np.diff(tables.point_offset)
    if not n_points.any():
        raise InputError("collectSpots: no point was harvested in any of the sweeps; check the geometry, mask")
    write_harvest(path, settings, tables, _columns(files, tables, world), world.cores, world)
    if world.rank == 0:
        logger.info("%d blobs in %d sweeps: %d points", len(n_points), len(numbers), n_points.sum())
    return np.asarray(np.unique(tables.blobs["hkl"][n_points > 0], axis=0), dtype=np.int64)


def _tables(settings: Settings, files: Sequence[HarvestFile], numbers: Sequence[int]) -> Tables:
    first_frames = np.cumsum([0, *(len(file.frame_names) for file in files)])[:-1]

    def joined(values: Callable[[HarvestFile], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate([values(file) for file in files])

    blobs = {f"lost_{name}": np.concatenate([file.lost[name] for file in files]) for name in LOSSES}
    blobs |= {
        "hkl": joined(lambda f: f.hkl.astype(np.int32)),
        "centre": joined(lambda f: f.centre),
        "offset": joined(lambda f: f.shift),
        "angle": joined(lambda f: f.angle),
        "frames": joined(lambda f: f.frames.astype(np.int32)),
        "frames_over_threshold": joined(lambda f: f.frames_over_threshold.astype(np.int32)),
        "sweep": np.repeat(numbers, [file.n_blobs for file in files]).astype(np.int32),
    }
    for name in ("first_frame", "last_frame"):
        columns = [getattr(file, name) + first for file, first in zip(files, first_frames, strict=True)]
        blobs[name] = np.concatenate(columns).astype(np.int32)
    shell = {name: getattr(files[0], name) for name in ("delta_min", "delta_max", "longest_reciprocal")}
    # Detectors of the same kind; if not, what saturates one is worth no trust in the other.
    shell |= {name: min(getattr(file, name) for file in files) for name in ("threshold", "saturation")}
    return Tables(
        blobs=blobs,
        point_offset=np.concatenate([[0], np.cumsum(joined(lambda f: f.n_points))]),
        peak_offset=np.concatenate([[0], np.cumsum(joined(lambda f: f.n_peaks))]),
        frame_names=[name for file in files for name in file.frame_names],
        frames={
            "phi": joined(lambda f: f.phi),
            "denominator": joined(lambda f: f.denominator),
            "points": joined(lambda f: f.points_in_frames),
        },
        shell=shell,
        cell=files[0].cell,
        experiments=[sweep.experiment for sweep in settings.sweeps if sweep.experiment is not None],
    )


def _columns(files: Sequence[HarvestFile], tables: Tables, world: World) -> list[Column]:
    """The columns of the whole file, all of them rank 0's part (collective)."""
    own = world.attempt(lambda: _kinds(files) if world.rank == 0 else None)
    kinds = world.gather_all(own)[0]
    assert kinds is not None
    columns = []
    for (group, name), (dtype, width) in kinds.items():
        numbers = np.zeros((world.size, len(tables.blobs["hkl"])), dtype=np.int64)
        numbers[0] = np.diff(tables.point_offset if group == "points" else tables.peak_offset)
        pieces: list[tuple[int, Callable[[], npt.NDArray[Any]]]] = []
        place = frame = 0
        for file in files:
            size = int((file.offset if group == "points" else file.peak_offset)[-1])
            shift = frame if name == "frame" else 0
            for start in range(0, size, _PIECE):
                stop = min(start + _PIECE, size)
                pieces.append((place + start, partial(_piece, file, group, name, start, stop, shift)))
            place += size
            frame += len(file.frame_names)
        columns.append(Column(f"{group}/{name}", dtype, width, numbers, pieces))
    return columns


def _kinds(files: Sequence[HarvestFile]) -> dict[tuple[str, str], tuple[np.dtype[Any], int]]:
    """Type, that holds what all files have, and width of every column."""
    found = {}
    for group in ("points", "peaks"):
        for name in ("frame", "row", "column", "counts", "correction", "Q"):
            dtype = np.result_type(*(file.values(group, name, 0, 0).dtype for file in files))
            found[group, name] = (dtype, 3 if name == "Q" else 1)
    return found


def _piece(file: HarvestFile, group: str, name: str, start: int, stop: int, shift: int) -> npt.NDArray[Any]:
    values = file.values(group, name, start, stop)
    return values + values.dtype.type(shift) if shift else values


def _without(nodes: IntArray, others: IntArray) -> IntArray:
    """The nodes (n, 3) that are not among the others."""
    there = {tuple(node) for node in others.tolist()}
    return np.array([node for node in nodes.tolist() if tuple(node) not in there], dtype=np.int64).reshape(-1, 3)
