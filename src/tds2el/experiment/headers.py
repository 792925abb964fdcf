"""What image headers say about rotation angle, saturation and bad pixels.

Pilatus headers (CBF, TIFF, EDF) have lines ``Start_angle 1.0000 deg.``, ``Angle_increment 0.1000 deg.`` and
``Count_cutoff 388705 counts``. Eiger (NeXus) masters keep one start angle per frame for each goniometer axis
under ``entry/sample`` and saturation and pixel mask under ``entry/instrument/detector``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.images import reading

_AXES = ("omega", "phi", "kappa", "chi", "rotation_angle")
_SAMPLE = ("entry/sample/goniometer", "entry/sample/transformations", "entry/sample")
_DETECTOR = ("entry/instrument/detector/detectorSpecific", "entry/instrument/detector")


@dataclass
class Headers:
    """What the headers of successive files say.

    Attributes
    ----------
    files : list of str
    n_frames : ndarray of int, shape (files,)
    start : rotation axis that all files name -> start angle of each frame, degrees
    increment : rotation axis -> width of a frame of each file, degrees; 0 where its header does not name it
    count_cutoff : lowest count from which a pixel is saturated, or None
    pixel_mask : (rows, columns) bool, True = good in all files, or None
    """

    files: list[str]
    n_frames: npt.NDArray[np.int64]
    start: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    increment: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    count_cutoff: float | None = None
    pixel_mask: npt.NDArray[np.bool_] | None = None


def single_frames(files: Sequence[str], numbers: npt.NDArray[np.float64]) -> Headers:
    """Headers of files of one frame each, from what `file_heads` finds in them, (files, 3)."""
    start, increment, cutoff = numbers.T
    headers = Headers(list(files), np.ones(len(files), dtype=np.int64))
    if not np.isnan(start).any():
        headers.start["Start_angle"] = start
        headers.increment["Start_angle"] = np.nan_to_num(increment)
    headers.count_cutoff = min(cutoff[cutoff > 0].tolist(), default=None)
    return headers


def stack(headers: Headers) -> Headers:
    """Headers of one file from those of its frames (of an EDF stack)."""
    increment = {axis: widths[:1] for axis, widths in headers.increment.items()}
    return Headers(
        headers.files[:1], headers.n_frames.sum(keepdims=True), headers.start, increment, headers.count_cutoff
    )


def joined(parts: Sequence[Headers]) -> Headers:
    """Headers of all files of successive parts.

    Raises
    ------
    InputError
        Pixel masks differ in shape.
    """
    parts = [part for part in parts if part.files]
    axes = [axis for axis in parts[0].start if all(axis in part.start for part in parts)] if parts else []
    mask: npt.NDArray[np.bool_] | None = None
    for part in parts:
        mask = _combine(mask, part.pixel_mask, part.files[0])
    return Headers(
        files=[file for part in parts for file in part.files],
        n_frames=np.concatenate([np.empty(0, dtype=np.int64), *(part.n_frames for part in parts)]),
        start={axis: np.concatenate([part.start[axis] for part in parts]) for axis in axes},
        increment={axis: np.concatenate([part.increment[axis] for part in parts]) for axis in axes},
        count_cutoff=min((part.count_cutoff for part in parts if part.count_cutoff is not None), default=None),
        pixel_mask=mask,
    )


def _combine(
    mask: npt.NDArray[np.bool_] | None, other: npt.NDArray[np.bool_] | None, path: str
) -> npt.NDArray[np.bool_] | None:
    if mask is None or other is None:
        return other if mask is None else mask
    if mask.shape != other.shape:
        raise InputError(f"{path}: its pixel_mask has the shape {other.shape}, that of other files {mask.shape}")
    return mask & other


def hdf5_header(path: str, n_frames: int) -> Headers:
    """Headers of an Eiger (NeXus) master file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    header = Headers([path], np.array([n_frames]))
    with reading(path):
        import h5py

        with h5py.File(path, "r", locking=False) as h5:
            for group in _SAMPLE:
                for axis in _AXES:
                    _read_axis(header, h5, f"{group}/{axis}", n_frames)
            cutoffs = [
                float(np.min(h5[f"{group}/{name}"][()]))
                for group in _DETECTOR
                for name in ("countrate_correction_count_cutoff", "saturation_value")
                if f"{group}/{name}" in h5
            ]
            header.count_cutoff = min((c for c in cutoffs if c > 0), default=None)
            for group in _DETECTOR:
                if f"{group}/pixel_mask" in h5:
                    header.pixel_mask = np.asarray(h5[f"{group}/pixel_mask"][()]) == 0
                    break
    return header


def _read_axis(header: Headers, h5: Any, name: str, n_frames: int) -> None:
    """Add the goniometer axis of this path to ``header`` if it has an angle for each frame."""
    if name not in h5 or not hasattr(h5[name], "shape"):
        return
    start = np.atleast_1d(np.asarray(h5[name][()], dtype=np.float64)).ravel()
    increment = 0.0
    for suffix in ("_range_average", "_increment_set", "_increment"):
        if name + suffix in h5 and h5[name + suffix].size == 1:
            increment = float(np.asarray(h5[name + suffix][()]).item())
            break
    if start.size == 1 and n_frames > 1 and increment:
        start = start + np.arange(n_frames) * increment
    if start.size == n_frames:
        header.start[name], header.increment[name] = start, np.array([increment])


def check_hdf5_links(path: str) -> None:
    """Raise InputError if a data file of an Eiger master is missing (fabio would skip its frames)."""
    with reading(path):
        import h5py

        with h5py.File(path, "r", locking=False) as h5:
            group = h5.get("entry/data")
            if not isinstance(group, h5py.Group):
                group = h5.get("entry")
            if not isinstance(group, h5py.Group):
                return
            for key in group:
                link = group.get(key, getlink=True)
                if not key.startswith("data") or not isinstance(link, h5py.ExternalLink):
                    continue
                try:
                    group[key]
                except (KeyError, OSError) as error:
                    raise InputError(
                        f"{path}: its data file {link.filename} is missing or damaged; restore it"
                    ) from error
