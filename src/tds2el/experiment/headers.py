"""What image headers say about rotation angle, saturation and bad pixels.

Pilatus headers (CBF, TIFF, EDF) have lines ``Start_angle 1.0000 deg.``, ``Angle_increment 0.1000 deg.`` and
``Count_cutoff 388705 counts``. Eiger (NeXus) masters keep one start angle per frame for each goniometer axis
under ``entry/sample`` and saturation and pixel mask under ``entry/instrument/detector``.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.images import reading

_NUMBER = rb"[\s=:]+([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)"
_START = re.compile(rb"Start_angle" + _NUMBER)
_INCREMENT = re.compile(rb"Angle_increment" + _NUMBER)
_CUTOFF = re.compile(rb"Count_cutoff" + _NUMBER)

_AXES = ("omega", "phi", "kappa", "chi", "rotation_angle")
_SAMPLE = ("entry/sample/goniometer", "entry/sample/transformations", "entry/sample")
_DETECTOR = ("entry/instrument/detector/detectorSpecific", "entry/instrument/detector")


@dataclass
class Header:
    """Header of one file.

    Attributes
    ----------
    start : rotation axis -> start angle of each frame of the file, degrees
    increment : rotation axis -> width of a frame, degrees, where the header names it
    count_cutoff : count from which a pixel is saturated, or None
    pixel_mask : (rows, columns) bool, True = good, or None
    """

    start: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    increment: dict[str, float] = field(default_factory=dict)
    count_cutoff: float | None = None
    pixel_mask: npt.NDArray[np.bool_] | None = None


def text_header(text: bytes) -> Header:
    """Header of a single frame from the first bytes of its file (5 µs, where fabio's parser needs 600)."""
    header = Header()
    if match := _START.search(text):
        header.start["Start_angle"] = np.array([float(match[1])])
        if match := _INCREMENT.search(text):
            header.increment["Start_angle"] = float(match[1])
    if (match := _CUTOFF.search(text)) and float(match[1]) > 0:
        header.count_cutoff = float(match[1])
    return header


def merge_frames(headers: list[Header]) -> Header:
    """One header of a file from those of its frames (of an EDF stack)."""
    merged = Header(increment=headers[0].increment)
    if all(h.start for h in headers):
        merged.start = {axis: np.concatenate([h.start[axis] for h in headers]) for axis in headers[0].start}
    merged.count_cutoff = lowest_cutoff(headers)
    return merged


def lowest_cutoff(headers: list[Header]) -> float | None:
    """Lowest count cutoff that any of the headers names."""
    return min((h.count_cutoff for h in headers if h.count_cutoff is not None), default=None)


def hdf5_header(path: str, n_frames: int) -> Header:
    """Header of an Eiger (NeXus) master file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    header = Header()
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


def _read_axis(header: Header, h5: Any, name: str, n_frames: int) -> None:
    """Add the goniometer axis of this path to ``header`` if it has an angle for each frame."""
    if name not in h5 or not hasattr(h5[name], "shape"):
        return
    start = np.atleast_1d(np.asarray(h5[name][()], dtype=np.float64)).ravel()
    for suffix in ("_range_average", "_increment_set", "_increment"):
        if name + suffix in h5 and h5[name + suffix].size == 1:
            header.increment[name] = float(np.asarray(h5[name + suffix][()]).item())
            break
    if start.size == 1 and n_frames > 1 and name in header.increment:
        start = start + np.arange(n_frames) * header.increment[name]
    if start.size == n_frames:
        header.start[name] = start


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
