"""XPARM.XDS and GXPARM.XDS of XDS, read and written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import cell_from_metric
from tds2el.errors import InputError
from tds2el.interchange.lab import Detector, Sweep, unit

Array = npt.NDArray[np.float64]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?")
# Numbers before those of the segments.
_HEAD, _SEGMENT, _OLD = 43, 14, 42
_REMARK = (
    "XDS corrects parallax in its own tables: give sensor_thickness and sensor_mu (SENSOR_THICKNESS and SILICON of "
    "XDS.INP)",
    "XDS's polarisation is not in this file: check pol_degree and normal_to_pol",
)


def is_xds(text: str) -> bool:
    """Whether a text can be an XPARM.XDS: by its first line, or, of old versions, by being nothing but 42 numbers."""
    first, _, rest = text.partition("\n")
    if "XPARM.XDS" in first:
        return True
    words = (first + "\n" + rest).split()
    return len(words) == _OLD and all(_NUMBER.fullmatch(word) for word in words)


def read_xds(path: Path, text: str) -> Sweep:
    """The sweep of an XPARM.XDS.

    Parameters
    ----------
    path : Path
        For messages.
    text : str
        What it holds.

    Raises
    ------
    InputError
        If numbers are missing, or the detector has segments in more than one plane.
    """
    first, _, rest = text.partition("\n")
    new = "XPARM.XDS" in first
    # Columns of fixed width may touch: "-100.000-200.000".
    numbers = [float(n.replace("D", "E").replace("d", "e")) for n in _NUMBER.findall(rest if new else text)]
    if len(numbers) < (_HEAD if new else _OLD):
        raise InputError(f"{path}: ends too early for an XPARM.XDS ({len(numbers)} numbers); let XDS write it again")
    n = np.array(numbers)
    starting_frame, start, width, axis, wavelength, beam = int(n[0]), n[1], n[2], n[3:6], n[6], n[7:10]
    if new:
        axes, n_segments, size, pixel, org, distance = (
            n[17:26].reshape(3, 3),
            int(n[26]),
            n[27:29],
            n[29:31],
            n[31:33],
            n[33],
        )
        directions = n[34:43].reshape(3, 3)
        _check_segments(path, n[_HEAD:], n_segments)
    else:
        size, pixel, distance, org, directions = n[10:12], n[12:14], n[14], n[15:17], n[17:26].reshape(3, 3)
        axes = n[33:42].reshape(3, 3)
    if abs(pixel[0] / pixel[1] - 1) > 1e-6:
        raise InputError(f"{path}: pixels of {pixel[0]:g} × {pixel[1]:g} mm; only square ones can be used")
    if abs(np.linalg.det(axes)) < 1e-6:
        raise InputError(f"{path}: the axes of the cell span no volume; index with XDS (IDXREF) first")
    x, y, z = directions
    # ORGX and ORGY count from 1 at the middle of the first pixel.
    origin = (1 - org[0]) * pixel[0] * x + (1 - org[1]) * pixel[1] * y + distance * z
    return Sweep(
        Detector(origin, slow=y, fast=x, pixel_size=float(pixel[0]), shape=(int(size[1]), int(size[0]))),
        source=-unit(beam),
        wavelength=float(wavelength),
        axis=unit(axis),
        start=float(start),
        width=float(width),
        UB=np.linalg.inv(axes),
        first_number=starting_frame,
        remarks=_REMARK,
    )


def _check_segments(path: Path, numbers: Array, count: int) -> None:
    """Raise an InputError unless every segment of the detector lies where the whole does."""
    wanted = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0], dtype=float)
    for number in range(min(count, len(numbers) // _SEGMENT)):
        placement = numbers[number * _SEGMENT + 5 : (number + 1) * _SEGMENT]
        if np.abs(placement - wanted).max() > 1e-6:
            raise InputError(
                f"{path}: segment {number + 1} of the detector is moved; only one flat detector can be used"
            )


def xds_text(sweep: Sweep) -> str:
    """An XPARM.XDS, with more digits than XDS's own; the sweep has a shape, an orientation and a scan."""
    detector = sweep.detector
    assert detector.shape is not None
    assert sweep.UB is not None
    axes = np.linalg.inv(sweep.UB)
    cell = cell_from_metric(axes @ axes.T)
    normal = np.cross(detector.fast, detector.slow)
    org = 1 - np.array([detector.origin @ detector.fast, detector.origin @ detector.slow]) / detector.pixel_size
    rows, columns = detector.shape
    size = detector.pixel_size
    lines = [
        " XPARM.XDS    VERSION written by tds2el",
        f" {sweep.first_number or 1} {_numbers([sweep.start, sweep.width, *sweep.axis])}",
        f" {_numbers([sweep.wavelength, *(-sweep.source / sweep.wavelength)])}",
        f" 1 {_numbers(cell.parameters)}",
        *(f" {_numbers(row)}" for row in axes),
        f" 1 {columns} {rows} {_numbers([size, size])}",
        f" {_numbers([*org, detector.origin @ normal])}",
        *(f" {_numbers(row)}" for row in (detector.fast, detector.slow, normal)),
        f" 1 1 {columns} 1 {rows}",
        " 0.00 0.00 0.00 1.00000 0.00000 0.00000 0.00000 1.00000 0.00000",
    ]
    return "\n".join(lines) + "\n"


def _numbers(values: npt.ArrayLike) -> str:
    return " ".join(f"{float(x):.12f}" for x in np.ravel(np.asarray(values, dtype=float)))
