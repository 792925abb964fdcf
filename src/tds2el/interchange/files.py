"""Whose geometry a file holds, and the frames that belong to it."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, replace
from pathlib import Path

from tds2el.errors import InputError
from tds2el.experiment.angles import frame_numbers
from tds2el.interchange.crysalis import Turning, is_crysalis, read_crysalis
from tds2el.interchange.dials import read_dials
from tds2el.interchange.lab import Sweep, split_template
from tds2el.interchange.poni import is_poni, read_poni
from tds2el.interchange.xds import is_xds, read_xds

MAX_BYTES = 400_000_000


@dataclass(frozen=True)
class Missing:
    """What some formats leave to the user.

    Attributes
    ----------
    axis : 3 floats, optional
        PONI: the rotation axis in pyFAI's lab.
    turning : Turning, optional
        CrysAlisPro: how the sweep turned.
    pixel_size : float, optional
        CrysAlisPro: edge of a pixel, mm.
    """

    axis: tuple[float, float, float] | None = None
    turning: Turning | None = None
    pixel_size: float | None = None


def read_sweeps(path: Path, missing: Missing) -> tuple[str, list[Sweep]]:
    """The program that wrote a file, and the sweeps in it.

    Raises
    ------
    InputError
        If the file cannot be read, is of no known kind, or lacks something; or an option is given that its kind has no
        use for.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES // 1_000_000} MB, so no geometry; check the path")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # as CrysAlisPro's marks are
    used: tuple[str, ...] = ()
    if text.lstrip().startswith("{"):
        program, sweeps = "DIALS", read_dials(path, text)
    elif is_xds(text):
        program, sweeps = "XDS", [read_xds(path, text)]
    elif is_crysalis(text):
        sweeps = [read_crysalis(path, text, missing.turning, missing.pixel_size)]
        program, used = "CrysAlisPro", ("turning", "pixel_size")
    elif is_poni(text):
        program, sweeps, used = "pyFAI", [read_poni(path, text, missing.axis)], ("axis",)
    else:
        raise InputError(
            f"{path}: no geometry that is known here: .expt of DIALS, XPARM.XDS or GXPARM.XDS, .par of CrysAlisPro, "
            ".poni of pyFAI"
        )
    for name in ("axis", "turning", "pixel_size"):
        if getattr(missing, name) is not None and name not in used:
            raise InputError(f"--{name.replace('_', '-')} is not for files of {program}, as {path} is; leave it out")
    return program, sweeps


def with_frames(sweep: Sweep, frames: str) -> Sweep:
    """The sweep with its frames, from the first of them that is there.

    Parameters
    ----------
    sweep : Sweep
    frames : str
        Their folder, or the path of one with # in place of the digits of its number.

    Raises
    ------
    InputError
        If the frames are not there, are not those of the sweep, or have no known name.
    """
    if "#" in os.path.basename(frames):
        prefix, postfix = split_template(os.path.abspath(frames))
    elif not os.path.isdir(frames):
        raise InputError(f"--frames {frames}: there is no such folder; give one, or a path with ##### for the number")
    elif not sweep.prefix:
        raise InputError(f"--frames {frames}: the file does not name its frames; give their path, ##### for the number")
    else:
        prefix, postfix = os.path.join(os.path.abspath(frames), os.path.basename(sweep.prefix)), sweep.postfix
    files = sorted(glob.glob(glob.escape(prefix) + "*" + glob.escape(postfix)))
    if not files:
        raise InputError(f"--frames {frames}: no file {os.path.basename(prefix)}…{postfix} is there")
    found = replace(sweep, prefix=prefix, postfix=postfix)
    numbers = [n for n in frame_numbers(files, prefix, postfix) if n is not None]
    if not numbers or sweep.first_number is None or files == [prefix]:  # one file can hold all frames
        return found
    skipped = min(numbers) - sweep.first_number
    last = None if sweep.n_frames is None else sweep.first_number + sweep.n_frames - 1
    if skipped < 0 or (last is not None and max(numbers) > last):
        raise InputError(
            f"--frames {frames}: numbers {min(numbers)} to {max(numbers)} are there, but the sweep has "
            f"{sweep.first_number} to {'any' if last is None else last}; are these its frames?"
        )
    return found.later(skipped) if skipped else found
