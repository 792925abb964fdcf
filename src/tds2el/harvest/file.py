"""The harvest file: HDF5 with points sorted by blob and a table of blobs; see docs/file-formats.md."""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from tds2el import __version__
from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.harvest.columns import Column, write_columns
from tds2el.output import replaced, writing
from tds2el.parallel import World
from tds2el.settings import Experiment, Settings, experiment_from_values

if TYPE_CHECKING:
    import h5py

OPTION = "save_to_file"
FORMAT = "tds2el harvest"
FORMAT_VERSION = 2
# Of several sweeps: a reader of the other would take the geometry of the first for all.
FORMAT_VERSION_SWEEPS = 3
# Why a pixel of the shell is no point, in the order of the compiled gatherer's tallies.
LOSSES = ("nearer_to_another_node", "masked", "negative_counts", "over_threshold")
UNITS = {
    "counts": "counts",
    "Q": "1/angstrom",
    "centre": "1/angstrom",
    "offset": "1/angstrom",
    "background": "counts",
    "angle": "degrees",
    "phi": "degrees",
    "row": "pixels",
    "column": "pixels",
}


@dataclass(frozen=True)
class Tables:
    """All of a harvest but its points.

    Attributes
    ----------
    blobs : dict of ndarray, shape (blobs, ...)
        hkl, centre, offset, angle, first_frame, last_frame, frames, frames_over_threshold and the losses by cause.
    point_offset, peak_offset : ndarray, shape (blobs + 1,)
        Blob b owns points point_offset[b] : point_offset[b + 1].
    frame_names : list of str
    frames : dict of ndarray, shape (frames,)
        phi, denominator, points.
    shell : dict of float
        delta_min, delta_max, longest_reciprocal (Å⁻¹), threshold, saturation (counts), and background_exposure
        if there are frames of the background.
    cell : Cell
    experiments : sequence of Experiment
        Of several sweeps, each one's; blobs then have a column sweep.
    """

    blobs: dict[str, npt.NDArray[Any]]
    point_offset: npt.NDArray[np.int64]
    peak_offset: npt.NDArray[np.int64]
    frame_names: list[str]
    frames: dict[str, npt.NDArray[Any]]
    shell: dict[str, float]
    cell: Cell
    experiments: Sequence[Experiment] = ()


def write_harvest(
    path: Path, settings: Settings, tables: Tables, columns: Sequence[Column], threads: int, world: World
) -> None:
    """Write the file, under a temporary name until it is whole (collective).

    Parameters
    ----------
    path : Path
    settings : Settings
    tables : Tables
    columns : sequence of Column
        The points and peaks, of which every rank has a part.
    threads : int
        Of this rank.
    world : World

    Raises
    ------
    InputError
        On all ranks if the file cannot be written; a file of that name is then untouched.
    """
    error = None
    try:
        with replaced(path, OPTION) if world.rank == 0 else nullcontext(None) as temporary:
            _write_together(temporary, path, settings, tables, columns, threads, world)
    except InputError as caught:
        error = caught
    world.agree(error)  # rank 0 may have failed to rename


def _write_together(
    temporary: Path | None,
    path: Path,
    settings: Settings,
    tables: Tables,
    columns: Sequence[Column],
    threads: int,
    world: World,
) -> None:
    def lay_out() -> dict[str, int]:
        if temporary is None:
            return {}
        with writing(path, OPTION):
            return _lay_out(temporary, settings, tables, columns)

    offsets = world.gather_all(world.attempt(lay_out))[0]
    write_columns(temporary, path, OPTION, columns, offsets, threads, world)


class HarvestFile:
    """A harvest, opened for reading; a context manager.

    Attributes
    ----------
    hkl : ndarray of int, shape (blobs, 3)
    centre : ndarray, shape (blobs, 3)
        G in the crystal frame, Å⁻¹.
    shift : ndarray, shape (blobs, 3)
        Measured offset of the Bragg peak that was taken off Q, so that Q − centre is q; 0 where none was given. Å⁻¹.
    angle : ndarray, shape (blobs,)
        phi of closest approach, degrees; with hkl the key of a blob.
    first_frame, last_frame, frames, frames_over_threshold : ndarray of int, shape (blobs,)
    lost : dict of str to ndarray of int, shape (blobs,)
        Points lost, by cause.
    offset, peak_offset : ndarray of int, shape (blobs + 1,)
    delta_min, delta_max, longest_reciprocal : float
        Å⁻¹.
    threshold, saturation : float
        Counts that are exceeded by, or reached by, pixels above threshold; inf where there is none.
    background_exposure : float or None
        Sum of the denominators of the background frames; None without any.
    cell : Cell
    settings : dict
        Every option's value at the harvest; of several sweeps, the first one's.
    experiments : list of Experiment
        Of each sweep.
    sweep : ndarray of int, shape (blobs,)
        Number of each blob's sweep, from 0.
    frame_names : list of str
    phi, denominator, points_in_frames : ndarray, shape (frames,)

    Raises
    ------
    InputError
        If the file is missing, not a harvest, or damaged.
    """

    def __init__(self, path: str | Path, option: str = "load_from_file") -> None:
        import h5py

        self.path = Path(path)
        self._option = option
        self._columns_of: dict[str, Any] = {}
        if not self.path.is_file():
            raise InputError(f"{option} = {path}: there is no such file; harvest first, with save_to_file = {path}")
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
            raise InputError(f"{self._option} = {self.path}: HDF5, but no harvest of tds2el; name the harvest file")
        if file.attrs["format_version"] not in (FORMAT_VERSION, FORMAT_VERSION_SWEEPS):
            raise InputError(
                f"{self._option} = {self.path}: format version {file.attrs['format_version']}, this program "
                f"reads {FORMAT_VERSION} and {FORMAT_VERSION_SWEEPS}; harvest again"
            )
        entry = file["entry"]
        blobs, shell = entry["blobs"], entry["shell"]
        self.hkl: npt.NDArray[np.int64] = blobs["hkl"][()].astype(np.int64)
        self.centre: npt.NDArray[np.float64] = blobs["centre"][()]
        self.shift: npt.NDArray[np.float64] = blobs["offset"][()]
        self.angle: npt.NDArray[np.float64] = blobs["angle"][()]
        self.first_frame, self.last_frame, self.frames, self.frames_over_threshold = (
            np.asarray(blobs[name][()], dtype=np.int64)
            for name in ("first_frame", "last_frame", "frames", "frames_over_threshold")
        )
        self.lost: dict[str, npt.NDArray[np.int64]] = {name: blobs[f"lost_{name}"][()] for name in LOSSES}
        self.offset: npt.NDArray[np.int64] = blobs["point_offset"][()]
        self.peak_offset: npt.NDArray[np.int64] = blobs["peak_offset"][()]
        self.delta_min, self.delta_max, self.longest_reciprocal = (
            float(shell[name][()]) for name in ("delta_min", "delta_max", "longest_reciprocal")
        )
        self.threshold, self.saturation = (float(shell[name][()]) for name in ("threshold", "saturation"))
        self.background_exposure: float | None = None
        if "background_exposure" in shell:
            self.background_exposure = float(shell["background_exposure"][()])
        self.cell = Cell(*(float(x) for x in shell["cell"][()]))
        self.settings: dict[str, Any] = json.loads(entry["settings/values"][()])
        self.sweep = np.zeros(len(self.hkl), dtype=np.int64)
        self.experiments: list[Experiment] = []
        if "sweeps" in entry:
            self.sweep = np.asarray(blobs["sweep"][()], dtype=np.int64)
            told = entry["sweeps/experiment"].asstr()[()]
            self.experiments = [experiment_from_values(json.loads(text)) for text in told]
        else:
            self.experiments = [experiment_from_values(self.settings)]
        self.frame_names: list[str] = list(entry["frames/name"].asstr()[()])
        self.phi: npt.NDArray[np.float64] = entry["frames/phi"][()]
        self.denominator: npt.NDArray[np.float64] = entry["frames/denominator"][()]
        self.points_in_frames: npt.NDArray[np.int64] = entry["frames/points"][()].astype(np.int64)
        for group, offset in (("points", self.offset), ("peaks", self.peak_offset)):
            names = ["counts", "correction", "Q"] + ["background"] * (self.has_background and group == "points")
            if any(len(entry[f"{group}/{name}"]) != offset[-1] for name in names):
                raise KeyError(f"{group} and blobs disagree")

    @property
    def n_blobs(self) -> int:
        """Number of blobs."""
        return len(self.hkl)

    @property
    def n_points(self) -> npt.NDArray[np.int64]:
        """Points of each blob."""
        return np.diff(self.offset)

    @property
    def n_peaks(self) -> npt.NDArray[np.int64]:
        """Pixels above threshold of each blob."""
        return np.diff(self.peak_offset)

    @property
    def has_background(self) -> bool:
        """Whether the points have the counts that frames without the crystal let expect."""
        return self.background_exposure is not None

    def points(
        self, blob: int, start: int = 0, stop: int | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Counts (n,), correction κ (n,) and Q (n, 3) of a blob's points start:stop."""
        return self.points_of_all(*self._range(blob, start, stop))

    def points_of_all(
        self, start: int, stop: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Counts (n,), correction κ (n,) and Q (n, 3) of points start:stop of the whole harvest, blob after blob."""
        return self._columns("points", start, stop)

    def peaks(self, blob: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Counts (n,), correction κ (n,) and Q (n, 3) of a blob's pixels above threshold."""
        return self._columns("peaks", int(self.peak_offset[blob]), int(self.peak_offset[blob + 1]))

    def pixels(
        self, blob: int, start: int = 0, stop: int | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row, column and frame (n,) of a blob's points start:stop."""
        return self._places("points", *self._range(blob, start, stop))

    def peak_pixels(self, blob: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row, column and frame (n,) of a blob's pixels above threshold."""
        return self._places("peaks", int(self.peak_offset[blob]), int(self.peak_offset[blob + 1]))

    def background(self, blob: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float32] | None:
        """Expected counts (n,) of the background in a blob's points start:stop; None without background frames."""
        return self.background_of_all(*self._range(blob, start, stop))

    def background_of_all(self, start: int, stop: int) -> npt.NDArray[np.float32] | None:
        """The same of points start:stop of the whole harvest, blob after blob."""
        if not self.has_background:
            return None
        with self._readable():
            values: npt.NDArray[np.float32] = self._column("points", "background")[start:stop]
        return values

    def values(self, group: str, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Entries start:stop of a column of "points" or "peaks", as they are in the file."""
        with self._readable():
            values: npt.NDArray[Any] = self._column(group, name)[start:stop]
        return values

    def _range(self, blob: int, start: int, stop: int | None) -> tuple[int, int]:
        """Of a blob's points start:stop among all."""
        first, end, _ = slice(start, stop).indices(int(self.n_points[blob]))
        base = int(self.offset[blob])
        return base + first, base + max(first, end)

    def _columns(
        self, group: str, start: int, stop: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        with self._readable():
            counts, correction, q = (self._column(group, name)[start:stop] for name in ("counts", "correction", "Q"))
        return counts, correction, q

    def _column(self, group: str, name: str) -> Any:
        """A column: mapped into memory where it lies in one piece, as this program writes it, else read by h5py."""
        key = f"entry/{group}/{name}"
        if key not in self._columns_of:
            data = self._file[key]
            start = data.id.get_offset()
            if start is not None and data.size and data.dtype.isnative:
                data = np.memmap(self.path, data.dtype, "r", start, data.shape).view(np.ndarray)
            self._columns_of[key] = data
        return self._columns_of[key]

    def _places(
        self, group: str, start: int, stop: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        with self._readable():
            row, column, frame = (
                self._column(group, name)[start:stop].astype(np.int64) for name in ("row", "column", "frame")
            )
        return row, column, frame

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0].strip("'\"") if str(error) else type(error).__name__
            raise InputError(
                f"{self._option} = {self.path}: not a harvest file, or a damaged one ({reason}); harvest again"
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


def _write_head(file: h5py.File, settings: Settings, tables: Tables) -> None:
    import h5py

    text = h5py.string_dtype()
    version = FORMAT_VERSION_SWEEPS if tables.experiments else FORMAT_VERSION
    file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=version)
    entry = file.create_group("entry")
    entry.attrs.update(NX_class="NXentry", default="frames")
    entry["title"] = f"harvest of {settings.input_file.name}"

    blobs = _group(entry, "blobs")
    for name, values in tables.blobs.items():
        _dataset(blobs, name, values)
    blobs["point_offset"], blobs["peak_offset"] = tables.point_offset, tables.peak_offset

    frames = _group(entry, "frames", "NXdata")
    frames.attrs.update(signal="points", axes="phi")
    frames.create_dataset("name", data=tables.frame_names, dtype=text)
    for name, values in tables.frames.items():
        _dataset(frames, name, values)
    frames["points"].attrs["long_name"] = "harvested points per frame"
    frames["points"].attrs["units"] = ""

    shell = _group(entry, "shell")
    for name, value in tables.shell.items():
        shell[name] = value
        if name != "background_exposure":
            shell[name].attrs["units"] = "counts" if name in ("threshold", "saturation") else "1/angstrom"
    shell["cell"] = np.array(tables.cell.parameters)
    shell["cell"].attrs["units"] = "angstrom (a b c), degrees (alpha beta gamma)"

    if tables.experiments:
        sweeps = _group(entry, "sweeps")
        told = [json.dumps(asdict(experiment)) for experiment in tables.experiments]
        sweeps.create_dataset("experiment", data=told, dtype=text)
        texts = [sweep.conf_file.read_text(errors="replace") for sweep in settings.sweeps]
        sweeps.create_dataset("conf_file", data=texts, dtype=text)

    write_provenance(entry, settings)
    _group(entry, "points")
    _group(entry, "peaks")


def write_provenance(entry: h5py.Group, settings: Settings) -> None:
    """Write what a file comes from: the groups settings, with the par-files' text, and process."""
    import h5py

    text = h5py.string_dtype()
    options = _group(entry, "settings")
    options.create_dataset("values", data=json.dumps(settings.values, default=str), dtype=text)
    for name, option in settings.values.items():
        if isinstance(option, bool | int | float | str):
            options.attrs[name] = option
    for name, source in (("input_file", settings.input_file), ("conf_file", settings.conf_file)):
        options.create_dataset(name, data=source.read_text(errors="replace"), dtype=text)
        options[name].attrs["path"] = str(source)

    process = _group(entry, "process", "NXprocess")
    process["program"], process["version"] = "tds2el", __version__
    process["date"] = datetime.now().astimezone().isoformat(timespec="seconds")
    process["command_line"] = shlex.join(sys.argv)
    process["python"], process["numpy"], process["h5py"] = (
        platform.python_version(),
        np.__version__,
        h5py.__version__,
    )


def _lay_out(path: Path, settings: Settings, tables: Tables, columns: Sequence[Column]) -> dict[str, int]:
    """Write all but the columns, for which there is room from then on; returns where in the file they begin."""
    import h5py

    offsets = {}
    with h5py.File(path, "w") as file:
        _write_head(file, settings, tables)
        for column in columns:
            group, name = column.name.split("/")
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            properties.set_obj_track_times(False)
            parent, space = file["entry"][group], h5py.h5s.create_simple(column.shape)
            kind = h5py.h5t.py_create(column.dtype)
            dataset = h5py.Dataset(h5py.h5d.create(parent.id, name.encode(), kind, space, properties))
            if name in UNITS:
                dataset.attrs["units"] = UNITS[name]
            offsets[column.name] = dataset.id.get_offset() or 0  # None if there are no points
    # A full disk is told before all the work of writing, as far as it shows; not by reserving space, which some file
    # systems fill with zeros.
    status, volume = os.stat(path), os.statvfs(path)
    if status.st_size - 512 * status.st_blocks > volume.f_bavail * volume.f_frsize:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for its {status.st_size} bytes")
    return offsets


def _group(parent: h5py.Group, name: str, nx_class: str = "NXcollection") -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _dataset(group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    dataset = group.create_dataset(name, data=values, track_times=False)
    if name in UNITS:
        dataset.attrs["units"] = UNITS[name]
