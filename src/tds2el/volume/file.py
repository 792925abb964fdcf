"""volume.h5: a volume as NeXus data, written block by block and read again; see docs/file-formats.md."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.harvest.file import write_provenance
from tds2el.settings import Settings
from tds2el.volume.grid import UNITS, Grid
from tds2el.volume.sums import Voxels

if TYPE_CHECKING:
    import h5py

VOLUME = "volume.h5"
FORMAT = "tds2el volume"
FORMAT_VERSION = 1
CHUNK = 32
"""Nodes along an edge of a chunk; blocks of so many are written at a time."""
_MARGIN = 1 << 22
"""Bytes for what is in the file beside voxels."""
INTENSITY = "counts per unit correction"

_SUMS: dict[str, tuple[type[np.floating[Any]], str, str]] = {
    "counts": (np.float64, "counts", "sum of counts, background included"),
    "correction": (np.float64, "", "sum of the corrections"),
    "pixels": (np.float32, "", "number of pixels"),
}
_BACKGROUND: dict[str, tuple[type[np.floating[Any]], str, str]] = {
    "background": (np.float64, "counts", "counts expected of the background"),
    "background_variance": (np.float64, "counts^2", "variance of this estimate"),
}


@dataclass(frozen=True, eq=False)
class Source:
    """What a volume was made of.

    Attributes
    ----------
    names : list of str
        The frames that were used.
    sweep : ndarray of int, shape (frames,)
        Which of several scans, from 0.
    phi, denominator : ndarray, shape (frames,)
    group : str or None
        The point group by which voxels were averaged.
    operations : ndarray of int, shape (n, 3, 3), or None
        Its operations on hkl.
    """

    names: list[str]
    sweep: npt.NDArray[np.int64]
    phi: npt.NDArray[np.float64]
    denominator: npt.NDArray[np.float64]
    group: str | None
    operations: npt.NDArray[np.int64] | None


class VolumeWriter:
    """Writes a volume, block after block; a context manager.

    Parameters
    ----------
    path : Path
    settings : Settings
    grid : Grid
    source : Source
    background : bool
        Whether a background is subtracted.
    """

    def __init__(self, path: Path, settings: Settings, grid: Grid, source: Source, background: bool) -> None:
        import h5py

        self._path, self._shape = path, grid.shape
        self._columns: dict[str, h5py.Dataset] = {}
        self._file = h5py.File(path, "w")
        try:
            self.reserve(0)
            self._write_head(settings, grid, source, background)
        except BaseException:
            self._file.close()
            raise

    def _write_head(self, settings: Settings, grid: Grid, source: Source, background: bool) -> None:
        self._file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=FORMAT_VERSION)
        self._file.attrs["creator"] = "tds2el"
        entry = self._file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="volume")
        entry["title"] = f"volume of {settings.input_file.name}"
        self._volume = entry.create_group("volume")
        self._volume.attrs.update(
            NX_class="NXdata", signal="intensity", axes=grid.names, SILX_style='{"signal_scale_type": "log"}'
        )
        self._volume["title"] = f"{source.group or 'not symmetrised'}, {len(source.names)} frames"
        for n, name in enumerate(grid.names):
            unit, text = _axis_text(grid, n)
            self._volume[name] = grid.axis(n)
            self._volume[name].attrs.update(units=unit, long_name=text)
        chunk = tuple(min(CHUNK, n) for n in grid.shape)
        for name, text in (("intensity", "intensity"), ("intensity_errors", "standard error of the intensity")):
            self._columns[name] = _create(self._volume, name, np.float32, grid.shape, chunk, INTENSITY, text, np.nan)
        sums = entry.create_group("sums")
        sums.attrs["NX_class"] = "NXcollection"
        for name, (kind, unit, text) in (_SUMS | (_BACKGROUND if background else {})).items():
            self._columns[name] = _create(sums, name, kind, grid.shape, chunk, unit, text, 0)
        _write_grid(entry, grid, source)
        _write_crystal(entry, grid.cell, settings.crystal.ascii_generators)
        _write_frames(entry, source)
        write_provenance(entry, settings)

    def reserve(self, layers: int) -> None:
        """Make sure of room for further layers, because HDF5 does not survive a full disk.

        Raises
        ------
        OSError
            If there is none.
        """
        # Chunks are written as a whole, also those that jut out; what does not shrink is kept as it is.
        chunks = math.prod(-(-n // CHUNK) for n in self._shape[1:]) * (layers // CHUNK + 2)
        size = chunks * CHUNK**3 * sum(dataset.dtype.itemsize for dataset in self._columns.values())
        self._file.flush()
        with open(self._path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), self._file.id.get_filesize(), size + _MARGIN)

    def write(self, corner: tuple[int, int, int], voxels: Voxels) -> None:
        """Write a block of voxels, for which there is room, from a node on; what is never written counts as empty."""
        block = tuple(slice(first, first + n) for first, n in zip(corner, voxels.counts.shape, strict=True))
        values = {
            "intensity": voxels.intensity,
            "intensity_errors": voxels.errors,
            "counts": voxels.counts,
            "correction": voxels.correction,
            "pixels": voxels.pixels,
            "background": voxels.background,
            "background_variance": voxels.background_variance,
        }
        for name, dataset in self._columns.items():
            column = values[name]
            assert column is not None
            dataset[block] = column.astype(dataset.dtype)

    def close(self) -> None:
        """Close the file, without what was reserved for more."""
        self._file.flush()
        size = self._file.id.get_filesize()
        self._file.close()
        os.truncate(self._path, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VolumeFile:
    """A volume, opened for reading; a context manager.

    Attributes
    ----------
    path : Path
    grid : Grid
    symmetrised : bool
    operations : ndarray of int, shape (n, 3, 3), or None
        Of the group, on hkl, if it is symmetrised.
    intensity, intensity_errors, counts, correction, pixels : h5py.Dataset, shape (n0, n1, n2)
        To be sliced; intensity and its errors are NaN where no pixel is.
    background, background_variance : h5py.Dataset or None
    cell : Cell
    group : str or None
        ascii_generators.
    settings : dict
        Every option's value when the volume was made.
    frame_names : list of str

    Raises
    ------
    InputError
        If the file is missing, no volume, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path}: there is no such file; make a volume with DO_ELASTIC = 0")
        with self._readable():
            self._file = h5py.File(self.path, "r", locking=False)
        try:
            with self._readable():
                self._read_head(self._file)
        except InputError:
            self._file.close()
            raise

    def _read_head(self, file: h5py.File) -> None:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{self.path}: HDF5, but no volume of tds2el; name a file that DO_ELASTIC = 0 has made")
        if file.attrs["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: format version {file.attrs['format_version']}, this program reads {FORMAT_VERSION}; "
                "make the volume again"
            )
        entry = file["entry"]
        grid, crystal = entry["grid"], entry["crystal"]
        self.intensity: Any = entry["volume/intensity"]
        self.intensity_errors: Any = entry["volume/intensity_errors"]
        self.counts, self.correction, self.pixels = (entry[f"sums/{name}"] for name in _SUMS)
        self.background, self.background_variance = (entry["sums"].get(name) for name in _BACKGROUND)
        self.cell = Cell(*(float(x) for x in crystal["cell"][()]))
        kind: Literal["hkl", "cartesian"] = "hkl" if grid["kind"].asstr()[()] == "hkl" else "cartesian"
        n0, n1, n2 = self.intensity.shape
        self.grid = Grid(kind, self.cell, (n0, n1, n2), grid["limits"][()], grid["basis"][()], grid["origin"][()])
        self.symmetrised = bool(grid["symmetrised"][()])
        self.operations: npt.NDArray[np.int64] | None = grid["operations"][()] if self.symmetrised else None
        self.group: str | None = crystal["ascii_generators"].asstr()[()] or None
        self.settings: dict[str, Any] = json.loads(entry["settings/values"][()])
        self.frame_names: list[str] = list(entry["frames/name"].asstr()[()])

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0].strip("'\"") if str(error) else type(error).__name__
            raise InputError(
                f"{self.path}: not a volume, or a damaged one ({reason}); make it again with DO_ELASTIC = 0"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create(
    group: h5py.Group,
    name: str,
    kind: type[np.floating[Any]],
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    unit: str,
    text: str,
    fill: float,
) -> h5py.Dataset:
    dataset = group.create_dataset(
        name, shape, kind, chunks=chunk, shuffle=True, compression="lzf", fillvalue=fill, track_times=False
    )
    dataset.attrs.update(units=unit, long_name=text)
    return dataset


def _axis_text(grid: Grid, n: int) -> tuple[str, str]:
    """Unit and name of an axis: of u, v, w, the unit is the length of the vector."""
    unit = UNITS[grid.kind]
    if grid.names[n] in "uvw":
        vector = " ".join(f"{x:g}" for x in grid.basis[n])
        return "", f"{grid.names[n]} along ({vector}) {unit}"
    shown = "1/Å" if grid.kind == "cartesian" else unit
    return unit, f"{grid.names[n]} ({shown})"


def _write_grid(entry: h5py.Group, grid: Grid, source: Source) -> None:
    group = entry.create_group("grid")
    group.attrs["NX_class"] = "NXcollection"
    group["kind"] = grid.kind
    for name, values in (("basis", grid.basis), ("origin", grid.origin), ("limits", grid.limits)):
        group[name] = values
    for name in ("basis", "origin"):
        group[name].attrs["units"] = UNITS[grid.kind]
    group["basis"].attrs["long_name"] = "a vector a row: place = origin + u basis[0] + v basis[1] + w basis[2]"
    group["symmetrised"] = source.operations is not None
    if source.operations is not None:
        group["operations"] = source.operations
        group["operations"].attrs["long_name"] = "on columns hkl"


def _write_crystal(entry: h5py.Group, cell: Cell, generators: str | None) -> None:
    group = entry.create_group("crystal")
    group.attrs["NX_class"] = "NXcollection"
    group["cell"] = np.array(cell.parameters)
    group["cell"].attrs["units"] = "angstrom (a b c), degrees (alpha beta gamma)"
    group["A"], group["B"] = cell.A, cell.B
    group["A"].attrs.update(units="angstrom", long_name="hkl = A Q, in the crystal frame a* ∥ x, c ∥ z")
    group["B"].attrs.update(units="1/angstrom", long_name="Q = B hkl")
    group["ascii_generators"] = generators or ""


def _write_frames(entry: h5py.Group, source: Source) -> None:
    import h5py

    group = entry.create_group("frames")
    group.attrs["NX_class"] = "NXcollection"
    group.create_dataset("name", data=source.names, dtype=h5py.string_dtype())
    group["sweep"], group["phi"], group["denominator"] = source.sweep, source.phi, source.denominator
    group["phi"].attrs["units"] = "degrees"
