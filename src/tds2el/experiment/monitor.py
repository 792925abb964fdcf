"""The normalisation of each frame, in a file of two columns."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries
from tds2el.output import replaced


def read_normalisation(
    path: str | Path, series: FrameSeries, option: str = "normalisation_file"
) -> npt.NDArray[np.float64]:
    """Read the denominators (monitor counts) by which the frames are to be divided.

    Each line has the name of a frame, with path (a relative one starts at the normalisation file's folder; it
    may contain spaces), and its denominator; frame i of a multi-frame file is ``file::i``. Empty lines and lines
    that start with ``#`` are skipped. A row belongs to the frame of that full path, else to that of its file name.

    Returns
    -------
    (n_frames,) float64, positive and finite.

    Raises
    ------
    InputError
        The file cannot be read or has a malformed line (also among rows of other frames); a frame has no row,
        contradicting rows, or a denominator that is not positive and finite.
    """
    by_path, by_name = _read_rows(Path(path), option)
    denominators = np.empty(series.n_frames)
    for n, frame in enumerate(series.names):
        full = os.path.abspath(frame)
        rows = by_path.get(full) or by_name.get(os.path.basename(full))
        if rows is None:
            raise InputError(f"{path}: no row for frame {frame}; add a line with its name and denominator")
        line, value = rows[0]
        for other_line, other in rows[1:]:
            if other != value:
                raise InputError(
                    f"{path}:{other_line}: {other:g} for frame {frame}, but {value:g} in line {line}; "
                    "give each frame once, with its full path"
                )
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{path}:{line}: denominator {value:g} of frame {frame} is not a positive number")
        denominators[n] = value
    return denominators


def write_normalisation(
    path: str | Path,
    names: Sequence[str],
    denominators: npt.NDArray[np.float64],
    remark: str,
    option: str = "normalisation_output",
) -> None:
    """Write denominators as `read_normalisation` reads them, to the last digit.

    Parameters
    ----------
    path
        Frames in its folder or below are named from there on, so that all can be moved together; others with full path.
    names : sequence of str
        As in `FrameSeries`.
    denominators : ndarray, shape (n_frames,)
    remark : str
        Where they come from: a comment at the head of the file.

    Raises
    ------
    InputError
        The file cannot be written; one of that name is then untouched.
    """
    folder = os.path.abspath(Path(path).parent)
    lines = [f"# {line}" for line in remark.splitlines()]
    for name, value in zip(names, denominators.tolist(), strict=True):
        full = os.path.abspath(name)
        inside = os.path.relpath(full, folder) if full.startswith(os.path.join(folder, "")) else full
        lines.append(f"{full if inside.startswith('#') else inside} {value!r}")
    with replaced(Path(path), option) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")


_Rows = dict[str, list[tuple[int, float]]]


def _read_rows(path: Path, option: str) -> tuple[_Rows, _Rows]:
    """(line, denominator) of each row, by full path and by file name."""
    try:
        # Names of files need not be UTF-8; Python's own file names come out the same way.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be read: {error.strerror}") from error
    by_path: _Rows = {}
    by_name: _Rows = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        columns = stripped.rsplit(maxsplit=1)
        try:
            name, row = columns[0], (number, float(columns[1]))
        except (IndexError, ValueError):
            raise InputError(f"{path}:{number}: expected a file name and a number, found {stripped!r}") from None
        full = os.path.normpath(os.path.join(path.resolve().parent, name))
        by_path.setdefault(full, []).append(row)
        by_name.setdefault(os.path.basename(full), []).append(row)
    return by_path, by_name
