"""simtests.h5: data and simulation on a cube round every spot; see docs/file-formats.md."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tds2el.crystal.symmetry import PointGroup
from tds2el.errors import InputError
from tds2el.fit.context import FitContext
from tds2el.fit.fit import Fit
from tds2el.fit.fit_file import INTENSITY, Q_UNIT, write_constants, write_provenance
from tds2el.model.engine import Piece
from tds2el.model.position import q_now
from tds2el.output import replaced
from tds2el.progress import Stage
from tds2el.settings import ViewSettings
from tds2el.view.interpolate import CubeInterpolator
from tds2el.view.planes import CentralPlanes

if TYPE_CHECKING:
    import h5py

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]
HKL = tuple[int, int, int]

CUBES = "simtests.h5"
FORMAT = "tds2el cubes"
FORMAT_VERSION = 1
AXES = ("qx", "qy", "qz")
CHUNK = 32


@dataclass(frozen=True)
class Part:
    """One blob's contribution to a cube.

    Attributes
    ----------
    blob : int
    turn : ndarray, shape (3, 3)
        The symmetry operation that brings the blob's node onto the cube's.
    """

    blob: int
    turn: Array


def fold(
    hkl: npt.NDArray[np.int64], spots: Sequence[HKL] | None, group: PointGroup, left_out: npt.NDArray[np.bool_]
) -> dict[HKL, list[Part]]:
    """Which blobs make up the cube of each spot.

    A spot has its own passages. Blobs of reflections that are not in the list of spots are replicas: they are turned
    onto the spot that they are equivalent to. Blobs that the fit left out are shown only where a spot has no other.

    Parameters
    ----------
    hkl : ndarray of int, shape (n_blobs, 3)
    spots : sequence of hkl, optional
        By default every reflection of the fit is a spot of its own.
    group : PointGroup
    left_out : ndarray of bool, shape (n_blobs,)
    """
    names: list[HKL] = [(int(h), int(k), int(l)) for h, k, l in hkl]
    listed = set(names if spots is None else spots)
    cubes: dict[HKL, list[Part]] = {}
    for blob, name in enumerate(names):
        if name in listed:
            cubes.setdefault(name, []).append(Part(blob, np.eye(3)))
            continue
        for turn, images in zip(group.operations, group.hkl_operations, strict=True):
            h, k, l = (int(i) for i in images @ hkl[blob])
            if (h, k, l) in listed:
                cubes.setdefault((h, k, l), []).append(Part(blob, turn))
                break
    for name, parts in cubes.items():
        cubes[name] = [part for part in parts if not left_out[part.blob]] or parts
    return cubes


def first_of_each_orbit(hkl: npt.NDArray[np.int64], group: PointGroup) -> list[HKL]:
    """The reflections (n, 3) without those that are equivalent to an earlier one."""
    found: list[HKL] = []
    images: set[HKL] = set()
    for node in hkl:
        name = (int(node[0]), int(node[1]), int(node[2]))
        if name not in images:
            found.append(name)
            images |= {(int(h), int(k), int(l)) for h, k, l in group.hkl_operations @ node}
    return found


def cube_points(fit: Fit, parts: Sequence[Part]) -> tuple[Array, Array]:
    """Positions and intensities of the points of one cube.

    Parts beyond the first are brought to its factor and baseline, so that they differ by noise and misfit only.

    Returns
    -------
    q : ndarray, shape (n, 3)
        Å⁻¹ from the node.
    values : ndarray, shape (n, 2)
        Measured and simulated counts per unit correction.
    """
    spots = fit.result.spots
    first = parts[0].blob
    q, values = [], []
    for part in parts:
        pieces, used = list(fit.data.points.pieces(part.blob)), fit.usage.used[part.blob]
        correction = np.concatenate([piece.correction for piece in pieces])
        both = np.column_stack([np.concatenate([piece.counts for piece in pieces]), fit.curve(part.blob)])
        both = (both - _known_background(fit, part.blob, pieces)) / correction[:, None]
        scale = spots.factor[first] / spots.factor[part.blob]
        own = np.concatenate([q_now(fit.data.points, fit.state, part.blob, piece) for piece in pieces])
        # Slopes are each spot's own too.
        baseline = spots.baseline[part.blob] + own @ spots.slope[part.blob]
        values.append(((both - baseline[:, None]) * scale + spots.baseline[first])[used])
        q.append(own[used] @ part.turn.T)
    return np.concatenate(q), np.concatenate(values)


def _known_background(fit: Fit, blob: int, pieces: Sequence[Piece]) -> Array:
    """Counts of the background frames in every point of a blob, (n, 1); 0 without them."""
    if not fit.data.points.background:
        return np.zeros((1, 1))
    counts = np.concatenate([np.asarray(piece.background) for piece in pieces])
    return np.asarray(fit.result.spots.background[blob] * counts[:, None])


def write_cubes(
    path: Path,
    fit: Fit,
    context: FitContext,
    view: ViewSettings,
    spots: Sequence[HKL] | None,
    *,
    threads: int | None = None,
) -> None:
    """Interpolate every spot and write the cubes; after Ctrl-C the spots that are done are kept.

    Parameters
    ----------
    path : Path
        Replaced when the new file is whole.
    fit : Fit
    context : FitContext
    view : ViewSettings
        testSpot_N, testSpot_beta, testSpot_Niter.
    spots : sequence of hkl, optional
        As `fold` takes them.
    threads : int, optional
        As `CubeInterpolator` takes them.

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched.
    KeyboardInterrupt
        Once the file holds what was done.
    """
    import h5py

    cubes = fold(fit.data.hkl, spots, context.group, fit.result.spots.left_out)
    interrupted = False
    with replaced(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=FORMAT_VERSION)
        entry = file.create_group("entry", track_order=True)  # spots stay in the order of the fit
        entry.attrs["NX_class"] = "NXentry"
        entry["title"] = f"data and simulation round {len(cubes)} spots of {context.group.name}"
        write_constants(entry, fit.result, context)
        write_provenance(entry, fit.result, context)
        done = 0
        with Stage("interpolate", 2 * view.testSpot_Niter * len(cubes), "iteration") as stage:
            try:
                for done, (hkl, parts) in enumerate(cubes.items()):
                    note = f"spot {done + 1} of {len(cubes)}, {_name(hkl)}"
                    _write_spot(entry, hkl, parts, fit, view, threads, partial(stage.update, note=note))
                done = len(cubes)
            except KeyboardInterrupt:
                interrupted = True
                if not done:
                    raise
    if interrupted:
        log.warning("interrupted: %s holds %d of %d spots", path, done, len(cubes))
        raise KeyboardInterrupt


def read_planes(path: Path) -> list[CentralPlanes]:
    """The central planes of every spot of a simtests.h5.

    Raises
    ------
    InputError
        If the file is not one, or damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT or file.attrs["format_version"] != FORMAT_VERSION:
                raise InputError(f"{path}: not a file of cubes of this version; interpolate again with visSim = 1")
            return [
                CentralPlanes.of_cubes(
                    spot.attrs["hkl"],
                    spot["data/qx"][()],
                    spot["data/data"],
                    spot["simulation/simulation"],
                    points=spot["points/points"],
                )
                for spot in _spots(file["entry"])
            ]
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{path}: damaged ({error}); interpolate again with visSim = 1") from error


def cubes_belong(path: Path, values: Array) -> bool:
    """Whether a simtests.h5 shows the simulation with these constants (k,), and not that of an earlier fit."""
    import h5py

    if not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return np.array_equal(file["entry/constants/value"][()], values)
    except (OSError, KeyError):
        return False


def _write_spot(
    entry: h5py.Group,
    hkl: HKL,
    parts: Sequence[Part],
    fit: Fit,
    view: ViewSettings,
    threads: int | None,
    progress: Callable[[int], object],
) -> None:
    q, values = cube_points(fit, parts)
    solver = CubeInterpolator(q, values, fit.data.points.q_max, view.testSpot_N, view.testSpot_beta, threads)
    data, simulation = solver.solve(view.testSpot_Niter, progress)
    name = "spot_{}_{}_{}".format(*hkl)
    spot = entry.create_group(name)
    spot.attrs.update(
        NX_class="NXcollection", hkl=hkl, default="data", points_left_out=solver.outside + solver.not_finite
    )
    spot["blobs"] = fit.data.blobs[[part.blob for part in parts]]
    spot["blobs"].attrs["long_name"] = "blobs of the harvest that are shown"
    voxels = solver.points_per_voxel()
    for signal, cube, unit, title in (
        ("data", data, INTENSITY, "measured"),
        ("simulation", simulation, INTENSITY, "simulated"),
        ("difference", data - simulation, INTENSITY, "measured − simulated"),
        ("points", voxels, "", "points per voxel"),
    ):
        group = spot.create_group(signal)
        group.attrs.update(NX_class="NXdata", signal=signal, axes=AXES)
        group["title"] = f"{_name(hkl)} {title}"
        if signal in ("data", "simulation"):
            group.attrs["SILX_style"] = '{"signal_scale_type": "log"}'
        chunk = (min(CHUNK, view.testSpot_N),) * 3
        group.create_dataset(signal, data=cube, chunks=chunk, shuffle=True, compression="lzf")
        group[signal].attrs["units"] = unit
        group[signal].attrs["long_name"] = title
        for axis in AXES:
            group[axis] = solver.axis
            group[axis].attrs["units"] = Q_UNIT
            group[axis].attrs["long_name"] = f"{axis} (1/Å) from the node"
    # The file opens on the first spot's data.
    if "default" not in entry.attrs:
        entry.attrs["default"] = name


def _spots(entry: h5py.Group) -> Iterator[h5py.Group]:
    return (entry[name] for name in entry if name.startswith("spot_"))


def _name(hkl: HKL) -> str:
    return "({} {} {})".format(*hkl)
