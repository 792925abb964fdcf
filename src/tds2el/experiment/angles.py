"""The rotation angle of each frame, from its place, the number in its name or its header."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.headers import Headers

_TOLERANCE = 0.1 * (1 + 1e-6)  # of |angular_step|: what header angles may differ from it, and rounding
LONGEST_GAP = 100_000  # frames that may be missing between two
_DIGITS = re.compile(r"[0-9]+")
_CHECK = "correct images_prefix and images_postfix"
_HINT = 'correct the series or angular_step, or set frame_angle = "number" or "header"'


def frame_numbers(files: Sequence[str], prefix: str, postfix: str) -> list[int | None]:
    """Last run of digits between prefix and postfix, else of the name without its extension."""
    numbers: list[int | None] = []
    for file in files:
        runs: list[str] = []
        if file.startswith(prefix) and len(file) >= len(prefix) + len(postfix):
            middle = file[len(prefix) : len(file) - len(postfix)]
            runs = [middle] if middle.isdecimal() and middle.isascii() else _DIGITS.findall(middle)
        runs = runs or _DIGITS.findall(os.path.splitext(os.path.basename(file))[0])
        numbers.append(int(runs[-1]) if runs else None)
    return numbers


def order_by_number(files: Sequence[str], numbers: Sequence[int | None]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Files in the order of their numbers, and each number minus the first.

    Raises InputError if a file has no number or shares it with another.
    """
    found: dict[int, str] = {}
    for file, number in zip(files, numbers, strict=True):
        if number is None:
            raise InputError(f'{file}: no number in its name, which frame_angle = "number" needs')
        if number in found:
            raise InputError(f'{file}: the same number as {found[number]}, but frame_angle = "number"')
        found[number] = file
    order = sorted(found)
    for before, number in pairwise(order):
        if number - before > LONGEST_GAP:
            raise InputError(
                f"{found[number]}: number {number} follows {before}, too large a gap for one scan; {_CHECK}"
            )
    return [found[n] for n in order], np.array([n - order[0] for n in order], dtype=np.float64)


def check_numbers(files: Sequence[str], numbers: Sequence[int | None]) -> None:
    """Raise InputError unless the numbers go up by one from file to file (or no name has a number)."""
    if all(number is None for number in numbers):
        return
    for file, number in zip(files, numbers, strict=True):
        if number is None:
            raise InputError(f"{file}: no number in its name, but others have one; correct images_prefix/postfix")
    for k in range(1, len(files)):
        before, number = numbers[k - 1], numbers[k]
        if before is None or number is None or number == before + 1:
            continue
        what = f"{files[k]}: number {number} follows {before} ({os.path.basename(files[k - 1])})"
        if number > before and numbers == sorted(numbers, key=lambda v: v or 0):
            raise InputError(f"{what}, a frame is missing; {_HINT}")
        raise InputError(f"{what}: name order is not numeric order, or several scans match; {_HINT}")


@dataclass
class ScanAngles:
    """Header angles about the axis that turned.

    Attributes
    ----------
    start : (n_frames,) degrees
    increment : (n_files,) width of a frame as named in the header of each file, degrees; 0 where it is not
    last : (n_files,) index of the last frame of each file
    """

    start: npt.NDArray[np.float64]
    increment: npt.NDArray[np.float64]
    last: npt.NDArray[np.int64]


def scan_angles(headers: Headers) -> ScanAngles | None:
    """Angles of the axis that turned most, or None if the headers name none that did."""
    found: ScanAngles | None = None
    # A detector that was told nothing writes zeros, and an axis that rests may be read back with a little noise.
    most = 0.0
    for axis, start in headers.start.items():
        increment = headers.increment[axis]
        turned = max(float(np.abs(increment).max()), float(np.ptp(start)))
        if turned > most:
            most, found = turned, ScanAngles(start, increment, np.cumsum(headers.n_frames) - 1)
    return found


def check_angles(names: Sequence[str], scan: ScanAngles | None, angular_step: float) -> None:
    """Raise InputError unless the headers turn one way by |angular_step| ± a tenth from frame to frame."""
    if scan is None:
        return
    _check_widths(names, scan, angular_step)
    step, start, turn = abs(angular_step), scan.start, _turn(scan.start)
    wrong = np.flatnonzero(np.abs(turn * _direction(turn) - step) > _TOLERANCE * step)
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"{names[k + 1]}: its header angle {start[k + 1]:.6g}° is {turn[k]:.6g}° from that of the frame "
            f"before, but angular_step is {angular_step:g}°; {_HINT}"
        )


def index_from_header(names: Sequence[str], scan: ScanAngles | None, angular_step: float) -> npt.NDArray[np.float64]:
    """(start − start of frame 0)/increment, growing with the headers' own direction of rotation.

    Gaps must be below 180°, or the direction could not be told from the angles modulo 360°.
    """
    if scan is None:
        raise InputError(
            f'{names[0]}: no rotation angle in the headers, which frame_angle = "header" needs; use "number"'
        )
    _check_widths(names, scan, angular_step)
    start, turn = scan.start, _turn(scan.start)
    forward = turn * _direction(turn)
    wrong = np.flatnonzero(forward <= 0)
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"{names[k + 1]}: its header angle {start[k + 1]:.6g}° does not go on from that of the frame before, "
            f'{start[k]:.6g}°, in the direction of the scan; correct the series or set frame_angle = "number"'
        )
    width = abs(float(scan.increment[0])) or abs(angular_step)
    if width == 0:
        raise InputError('angular_step is 0, but frame_angle = "header"; give the degrees per frame')
    return np.concatenate([[0.0], np.cumsum(forward)]) / width


def _check_widths(names: Sequence[str], scan: ScanAngles, angular_step: float) -> None:
    """Raise InputError if a header names an angle increment that is not |angular_step| ± a tenth."""
    step = abs(angular_step)
    named = scan.increment != 0
    wrong = np.flatnonzero(named & (np.abs(np.abs(scan.increment) - step) > _TOLERANCE * step))
    if wrong.size:
        k = int(wrong[0])
        raise InputError(
            f"{names[int(scan.last[k])]}: its header's angle increment is {scan.increment[k]:.6g}°, but "
            f"angular_step is {angular_step:g}°; correct angular_step or leave the frame out"
        )


def _turn(start: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rotation from each frame to the next, in [−180°, 180°)."""
    turn: npt.NDArray[np.float64] = (np.diff(start) + 180) % 360 - 180
    return turn


def _direction(turn: npt.NDArray[np.float64]) -> float:
    """+1 or −1: the way most frames turn, so that one that is out of line does not decide."""
    return 1.0 if 2 * np.count_nonzero(turn > 0) >= turn.size else -1.0
