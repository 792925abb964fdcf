"""Parameter files of CrysAlisPro (`.par`): detector, beam, goniometer and orientation.

There is no public description. The names are those that cryio and 3DRSR's start-up read; what they mean follows
dxtbx (`FormatROD`), which was checked against the XDS.INP that CrysAlisPro writes. Its lab frame and its goniometer are
ours. What remains uncertain: which way a frame lies that CrysAlisPro did not write itself, and half a pixel in the
detector's zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.geometry import rotation
from tds2el.interchange.lab import Detector, Sweep

Array = npt.NDArray[np.float64]

_REMARKS = (
    "the detector holds for frames as CrysAlisPro writes them (.rod_img, .esperanto); others may be turned or "
    "mirrored: compare the direct beam, and try other orientation_codes",
    "CrysAlisPro's detector zero may differ from this det_origin by half a pixel",
    "polarisation is not taken from this file: check pol_degree and normal_to_pol",
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[Ee][-+]?\d+)?(?![\w.])")


@dataclass(frozen=True)
class Turning:
    """How a sweep turned, which a .par file does not say: the scan axis, start angles and the width, degrees."""

    axis: Literal["omega", "phi"]
    omega: float
    theta: float
    kappa: float
    phi: float
    width: float


def is_crysalis(text: str) -> bool:
    """Whether a text can be a .par file of CrysAlisPro."""
    return any(line.startswith("CRYSTALLOGRAPHY ") for line in _lines(text))


def read_crysalis(path: Path, text: str, turning: Turning | None, pixel_size: float | None) -> Sweep:
    """The sweep that a .par file and its turning describe.

    Parameters
    ----------
    path : Path
        For messages.
    text : str
        What it holds.
    turning : Turning, optional
    pixel_size : float, optional
        mm.

    Raises
    ------
    InputError
        If something is missing, not given, or beyond what is known of the format.
    """
    if turning is None or pixel_size is None:
        raise InputError(
            f"{path}: a .par file of CrysAlisPro says neither how the crystal turned nor how large a pixel is: give "
            "--turning AXIS OMEGA THETA KAPPA PHI WIDTH and --pixel-size"
        )
    lines = _lines(text)

    def numbers(key: str, least: int, default: list[float] | None = None) -> list[float]:
        for line in lines:
            if line.startswith(key):
                found = [float(x) for x in _NUMBER.findall(line[len(key) :])]
                if len(found) >= least:
                    return found
                raise InputError(f"{path}: {key} has {len(found)} numbers, not {least}; is the file whole?")
        if default is None:
            raise InputError(f"{path}: {key} is missing; is this the .par file of a finished refinement?")
        return default

    wavelength = numbers("CRYSTALLOGRAPHY WAVELENGTH", 1)[0]
    UB = np.reshape(numbers("CRYSTALLOGRAPHY UB", 9)[:9], (3, 3)) / wavelength
    d1, d2, d3, dist, x, y = numbers("ROTATION DETECTORORIENTATION", 6)[:6]
    beam = numbers("ROTATION BEAM", 1, [0.0])
    zero = numbers("ROTATION ZEROCORRECTION", 4, [0.0] * 4)
    alpha, beta = (
        numbers(f"ROTSIMULATOR {name}ANGLEINDEG", 1, numbers(f"CRYSTALLOGRAPHY {name}ANGLEINDEG", 1, []))
        for name in ("ALPHA", "BETA")
    )
    if not alpha or not beta:
        raise InputError(f"{path}: no ALPHAANGLEINDEG and BETAANGLEINDEG; is this a file of CrysAlisPro?")
    if abs(d3) > 1e-6 or any(abs(b) > 1e-6 for b in beam[1:2]):
        raise InputError(
            f"{path}: the detector or the beam is turned about X3 ({d3:g}°, {beam[1] if len(beam) > 1 else 0:g}°), "
            "which is not understood here; refine without it"
        )
    omega, theta, kappa, phi = (
        angle + offset
        for angle, offset in zip((turning.omega, turning.theta, turning.kappa, turning.phi), zero, strict=False)
    )
    arm = rotation(2, alpha[0]) @ rotation(3, kappa) @ rotation(2, -alpha[0]) @ rotation(2, beta[0])
    if turning.axis == "omega":
        axis, start = np.array([0.0, 0.0, 1.0]), omega
        UB = arm @ rotation(3, phi) @ rotation(2, -beta[0]) @ UB
    else:
        arm = rotation(3, omega) @ arm
        axis, start = arm[:, 2], phi
        UB = arm @ rotation(2, -beta[0]) @ UB
    # As dxtbx has it, d1 turns the detector the other way than d2 and theta do.
    frame = rotation(3, theta) @ rotation(2, d2) @ rotation(1, -d1)
    origin = frame @ np.array([-dist, (0.5 - x) * pixel_size, (0.5 - y) * pixel_size])
    return Sweep(
        Detector(origin, slow=frame[:, 2], fast=frame[:, 1], pixel_size=pixel_size),
        source=rotation(2, beam[0])[:, 0],
        wavelength=wavelength,
        # Its angles are ours: they grow left-handed.
        axis=axis,
        start=-start,
        width=-turning.width,
        UB=UB,
        remarks=_REMARKS,
    )


def _lines(text: str) -> list[str]:
    """The lines without the mark that comments and hints begin with."""
    return [re.sub(r"^[^\x20-\x7e]+", "", line).strip() for line in text.splitlines()]
