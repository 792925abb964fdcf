"""PONI files of pyFAI, versions 1 to 2.1: the detector and the wavelength; what turns, and how, is not in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.interchange.lab import Detector, Sweep, unit

Array = npt.NDArray[np.float64]

_REMARK = "pyFAI does not say how the crystal turns: give phi and angular_step, the cell and r1 r2 r3"
_REMARK_ORIENTATION = (
    "orientation {} as pyFAI 2026 has it; earlier versions also mirrored the lab's axes 1 and 2, which powders do not "
    "show"
)
# What pyFAI's orientations 1 to 4 (of EXIF) do to rows and columns.
_FLIPS = {1: (True, True), 2: (True, False), 3: (False, False), 4: (False, True)}


def is_poni(text: str) -> bool:
    """Whether a text can be a PONI file."""
    keys = _keys(text)
    return "poni1" in keys and "poni2" in keys


def read_poni(path: Path, text: str, axis: tuple[float, float, float] | None) -> Sweep:
    """The detector of a PONI file.

    Parameters
    ----------
    path : Path
        For messages.
    text : str
        What it holds; of several calibrations the last counts.
    axis : 3 floats, optional
        The rotation axis in pyFAI's lab: axis 1 is up, 2 is to starboard, 3 along the beam.

    Raises
    ------
    InputError
        If something is missing or unknown, or no axis is given.
    """
    if axis is None:
        raise InputError(
            f"{path}: a PONI file does not say about which axis the crystal turns: give --axis 1 0 0 (up), "
            "--axis 0 1 0 (to starboard), or the opposite"
        )
    keys = _keys(text)

    def number(key: str) -> float:
        if key not in keys:
            raise InputError(f"{path}: {key} is missing; let pyFAI write the file again")
        return _number(path, key, keys[key])

    version = number("poni_version") if "poni_version" in keys else 1.0
    if version >= 3:
        raise InputError(f"{path}: version {version:g} of PONI files is not known here, only 1 and 2")
    config = _config(path, keys, version)
    sizes = [_number(path, f"pixel{n}", config[f"pixel{n}"]) for n in (1, 2)]
    if abs(sizes[0] / sizes[1] - 1) > 1e-6:
        raise InputError(f"{path}: pixels of {sizes[0]:g} × {sizes[1]:g} m; only square ones can be used")
    shape = config.get("max_shape")
    size = (int(shape[0]), int(shape[1])) if isinstance(shape, list) and len(shape) == 2 else None
    orientation = int(_number(path, "orientation", config.get("orientation", 3)))
    flips = _flips(path, orientation, size)
    last = np.array(size or (0, 0)) - 1
    turn = _rotation(*(number(f"rot{n}") for n in (1, 2, 3)))
    poni, distance = np.array([number("poni1"), number("poni2")]), number("distance")

    def in_lab(row: float, column: float) -> Array:
        """Lab vector of a pixel, mm."""
        plane = sizes[0] * (np.where(flips, last - [row, column], [row, column]) + 0.5) - poni
        return np.asarray(1000 * turn @ [*plane, distance])

    origin = in_lab(0, 0)
    detector = Detector(
        origin, unit(in_lab(1, 0) - origin), unit(in_lab(0, 1) - origin), pixel_size=1000 * sizes[0], shape=size
    )
    wavelength = 1e10 * number("wavelength")
    remarks = (_REMARK, _REMARK_ORIENTATION.format(orientation)) if flips.any() else (_REMARK,)
    return Sweep(detector, np.array([0.0, 0.0, -1.0]), wavelength, unit(axis), remarks=remarks)


def _keys(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if not line.lstrip().startswith("#"))
    return {key.strip().lower(): value.strip() for key, colon, value in pairs if colon}


def _number(path: Path, key: str, value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise InputError(f"{path}: {key} = {value!r} is no number") from None


def _config(path: Path, keys: Mapping[str, str], version: float) -> dict[str, object]:
    """pixel1 and pixel2 in m, and, where they are known, max_shape and orientation."""
    if version < 2 and "pixelsize1" in keys and "pixelsize2" in keys:
        return {"pixel1": keys["pixelsize1"], "pixel2": keys["pixelsize2"]}
    try:
        config = json.loads(keys.get("detector_config") or "{}")
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path}: Detector_config is no JSON object; let pyFAI write the file again")
    if "pixel1" in config and "pixel2" in config:
        return config
    name = keys.get("detector", "")
    try:
        from pyFAI.detectors import detector_factory
    except ImportError:
        raise InputError(
            f"{path}: the pixel size of the detector {name!r} is not in the file: install pyFAI, which knows it, or "
            'write it into Detector_config, as {"pixel1": 172e-6, "pixel2": 172e-6}'
        ) from None
    try:
        detector = detector_factory(name)
    except (RuntimeError, KeyError):
        raise InputError(
            f"{path}: pyFAI knows no detector {name!r}; write pixel1 and pixel2 into Detector_config"
        ) from None
    return {"pixel1": detector.pixel1, "pixel2": detector.pixel2, "max_shape": list(detector.max_shape)} | config


def _flips(path: Path, orientation: int, shape: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
    """Whether rows and columns count backwards."""
    if orientation not in _FLIPS:
        raise InputError(f"{path}: orientation {orientation} is not known here, only 1 to 4")
    flips = np.array(_FLIPS[orientation])
    if flips.any() and shape is None:
        raise InputError(f"{path}: orientation {orientation} needs max_shape in Detector_config")
    return flips


def _rotation(rot1: float, rot2: float, rot3: float) -> Array:
    """R3(rot3) R2(−rot2) R1(−rot1) of right-handed rotations, radians."""
    (c1, c2, c3), (s1, s2, s3) = np.cos([rot1, rot2, rot3]), np.sin([rot1, rot2, rot3])
    first = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    second = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    third = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
    return np.asarray(third @ second @ first)
