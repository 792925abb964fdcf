"""The table of peaks found in the frames, tagged with hkl: HDF5, see docs/file-formats.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.output import replaced

if TYPE_CHECKING:
    import h5py

FORMAT = "tds2el maxima"
FORMAT_VERSION = 2
NOT_GIVEN: Any = object()
Column = tuple[type[np.generic], str]
COLUMNS: dict[str, Column] = {
    "row": (np.float64, "pixels"),
    "column": (np.float64, "pixels"),
    "frame": (np.float64, ""),
    "counts": (np.float64, "counts"),
    "hkl": (np.int64, ""),
    "accepted": (np.bool_, ""),
}
FURTHER: dict[str, Column] = {
    "angle_index": (np.float64, ""),
    "sweep": (np.int64, ""),
    "row_error": (np.float64, "pixels"),
    "column_error": (np.float64, "pixels"),
    "angle_index_error": (np.float64, ""),
    "counts_error": (np.float64, "counts"),
    "background": (np.float64, "counts"),
    "largest": (np.float64, "counts"),
    "pixels": (np.int64, ""),
    "saturated": (np.bool_, ""),
    "residual": (np.float64, ""),
}
"""What a table may lack: it then has the values of `Maxima`'s attributes by default."""
WIDTH = {"hkl": 3, "residual": 3}


@dataclass(frozen=True)
class Maxima:
    """Peaks, one entry each.

    Attributes
    ----------
    row, column : ndarray, shape (n,)
        Place on the detector; centres of pixels are whole numbers, from 0.
    frame : ndarray, shape (n,)
        Index of the frame, from 0 in the order of the scan; between whole numbers where a peak spans frames.
    counts : ndarray, shape (n,)
        Integrated, less the background.
    hkl : ndarray of int, shape (n, 3)
        0 0 0 for a peak that has no reflection.
    accepted : ndarray of bool, shape (n,)
    angle_index : ndarray, shape (n,)
        x such that phi = phi of the first frame + x·angular_step; by default `frame`, which differs where frames are
        missing.
    sweep : ndarray of int, shape (n,)
        Which of several scans, from 0; by default 0.
    row_error, column_error, angle_index_error, counts_error : ndarray, shape (n,)
        Standard errors; by default NaN, not known.
    background : ndarray, shape (n,)
        Counts per pixel under the peak; by default NaN.
    largest : ndarray, shape (n,)
        Counts of the brightest pixel; by default NaN.
    pixels : ndarray of int, shape (n,)
        Size, over all frames; by default 0, not known.
    saturated : ndarray of bool, shape (n,)
        Whether any pixel of it is; by default False.
    residual : ndarray, shape (n, 3)
        Row, column and angle index less those of hkl in the refined geometry; by default, and without hkl, NaN.
    """

    row: npt.NDArray[np.float64]
    column: npt.NDArray[np.float64]
    frame: npt.NDArray[np.float64]
    counts: npt.NDArray[np.float64]
    hkl: npt.NDArray[np.int64]
    accepted: npt.NDArray[np.bool_]
    angle_index: npt.NDArray[np.float64] = NOT_GIVEN
    sweep: npt.NDArray[np.int64] = NOT_GIVEN
    row_error: npt.NDArray[np.float64] = NOT_GIVEN
    column_error: npt.NDArray[np.float64] = NOT_GIVEN
    angle_index_error: npt.NDArray[np.float64] = NOT_GIVEN
    counts_error: npt.NDArray[np.float64] = NOT_GIVEN
    background: npt.NDArray[np.float64] = NOT_GIVEN
    largest: npt.NDArray[np.float64] = NOT_GIVEN
    pixels: npt.NDArray[np.int64] = NOT_GIVEN
    saturated: npt.NDArray[np.bool_] = NOT_GIVEN
    residual: npt.NDArray[np.float64] = NOT_GIVEN

    def __post_init__(self) -> None:
        n = len(self.row)
        for name, (dtype, _) in FURTHER.items():
            if getattr(self, name) is NOT_GIVEN:
                shape = (n, WIDTH[name]) if name in WIDTH else (n,)
                missing = np.full(shape, np.nan) if dtype is np.float64 else np.zeros(shape, dtype=dtype)
                object.__setattr__(self, name, self.frame if name == "angle_index" else missing)


@dataclass(frozen=True)
class Cloud:
    """Peaks as points in reciprocal space, in the crystal frame.

    Attributes
    ----------
    Q : ndarray, shape (n, 3)
        Å⁻¹.
    axes : ndarray, shape (3, 3), or None
        Columns a*, b*, c* in Å⁻¹, where the lattice is known.
    """

    Q: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64] | None


def joined(tables: Sequence[Maxima]) -> Maxima:
    """The tables of several sweeps, one after the other, with the number of each in `sweep`."""
    numbered = [replace(table, sweep=np.full(len(table.row), n)) for n, table in enumerate(tables)]
    return Maxima(**{name: np.concatenate([getattr(t, name) for t in numbered]) for name in COLUMNS | FURTHER})


def write_maxima(path: str | Path, maxima: Maxima, option: str = "file_maxima", cloud: Cloud | None = None) -> None:
    """Write a table of peaks, whole or not at all, and where they lie in reciprocal space if that is known.

    Raises
    ------
    InputError
        If the file cannot be written.
    ValueError
        If the columns differ in length.
    """
    import h5py

    columns: dict[str, npt.NDArray[Any]] = {
        name: np.asarray(getattr(maxima, name), dtype=dtype) for name, (dtype, _) in (COLUMNS | FURTHER).items()
    }
    _check_shapes(columns)
    with replaced(Path(path), option) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=FORMAT_VERSION)
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        peaks = entry.create_group("peaks")
        peaks.attrs["NX_class"] = "NXcollection"
        for name, values in columns.items():
            dataset = peaks.create_dataset(name, data=values, track_times=False)
            unit = (COLUMNS | FURTHER)[name][1]
            if unit:
                dataset.attrs["units"] = unit
        if cloud is not None:
            write_cloud(entry, cloud)


def write_cloud(entry: h5py.Group, cloud: Cloud) -> None:
    """Put points into a file, beside the table of their peaks."""
    group = entry.create_group("reciprocal_space")
    group.attrs["NX_class"] = "NXcollection"
    group.create_dataset("Q", data=cloud.Q, track_times=False).attrs["units"] = "1/angstrom"
    if cloud.axes is not None:
        group.create_dataset("axes", data=cloud.axes, track_times=False).attrs["units"] = "1/angstrom"


def read_cloud(path: str | Path, option: str) -> Cloud:
    """The points of a file that has any.

    Raises
    ------
    InputError
        If the file cannot be read or has none.
    """
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            if "entry/reciprocal_space" not in file:
                raise InputError(f"{option} = {path}: peaks without places in reciprocal space; align them first")
            group = file["entry/reciprocal_space"]
            points = np.asarray(group["Q"][()], dtype=np.float64)
            axes = np.asarray(group["axes"][()], dtype=np.float64) if "axes" in group else None
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{option} = {path}: damaged or incomplete ({error}); write it again") from error
    if points.ndim != 2 or points.shape[1] != 3 or (axes is not None and axes.shape != (3, 3)):
        raise InputError(f"{option} = {path}: Q has the shape {points.shape}; write it again")
    return Cloud(points, axes)


def read_maxima(path: str | Path, option: str = "file_maxima") -> Maxima:
    """Read a table of peaks.

    Raises
    ------
    InputError
        If the file is missing, no HDF5 (a pickle is never read), no table of peaks, or damaged.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{option} = {path}: there is no such file; name the table of tagged peaks")
    if not h5py.is_hdf5(path):
        raise InputError(f"{option} = {path}: {_what_it_is(path)}; give the table of peaks as HDF5")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT:
                raise InputError(f"{option} = {path}: HDF5, but no table of peaks of tds2el; name another file")
            version = file.attrs["format_version"]
            if version not in (1, FORMAT_VERSION):
                raise InputError(
                    f"{option} = {path}: format version {version}, this program reads 1 and {FORMAT_VERSION}; "
                    "write it again"
                )
            columns = _read_columns(file["entry/peaks"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0].strip("'\"") if str(error) else type(error).__name__
        raise InputError(f"{option} = {path}: damaged or incomplete ({reason}); write it again") from error
    return Maxima(**columns)


def accepted_reflections(maxima: Maxima) -> list[tuple[int, int, int]]:
    """The reflections all of whose peaks are accepted, each once and in ascending order; never 0 0 0."""
    hkl, of_peak = np.unique(maxima.hkl, axis=0, return_inverse=True)
    refused = np.bincount(of_peak.reshape(-1), ~maxima.accepted, minlength=len(hkl)) > 0
    return [(int(h), int(k), int(l)) for h, k, l in hkl[~refused & hkl.any(axis=1)]]


def reflections_of_file(path: str | Path, option: str = "file_maxima") -> list[tuple[int, int, int]]:
    """The accepted reflections of a file.

    Raises
    ------
    InputError
        If the file cannot be read, or no reflection is accepted.
    """
    maxima = read_maxima(path, option)
    reflections = accepted_reflections(maxima)
    if not reflections:
        tagged = int(maxima.hkl.any(axis=1).sum())
        raise InputError(
            f"{option} = {path}: no reflection has all its peaks accepted ({len(maxima.row)} peaks, {tagged} of them "
            "with hkl); accept some, or give collectSpots"
        )
    return reflections


def _read_columns(peaks: h5py.Group) -> dict[str, npt.NDArray[Any]]:
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, (dtype, _) in (COLUMNS | FURTHER).items():
        if name in FURTHER and name not in peaks:
            continue
        stored = peaks[name][()]
        columns[name] = np.asarray(stored).astype(dtype)
        # 1.5 is no index, and 2 no answer to whether a peak is accepted.
        if not np.array_equal(columns[name], stored, equal_nan=dtype is np.float64):
            raise ValueError(f"{name} holds values that are not of the type {np.dtype(dtype)}")
    _check_shapes(columns)
    return columns


def _check_shapes(columns: dict[str, npt.NDArray[Any]]) -> None:
    n = len(columns["row"])
    for name, values in columns.items():
        if values.shape != ((n, WIDTH[name]) if name in WIDTH else (n,)):
            raise ValueError(f"{name} has the shape {values.shape}, but row {columns['row'].shape}")


def _what_it_is(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(16)
    # Protocols 2 to 5 begin with 0x80; protocol 0, text, with a mark and a container or with a global.
    if head[:1] == b"\x80" or head[:2] in (b"(d", b"(l", b"(i", b"]q", b"}q") or head.startswith((b"ccopy", b"cnumpy")):
        return "a pickle, which may run any program and is never read"
    return "not an HDF5 file"
