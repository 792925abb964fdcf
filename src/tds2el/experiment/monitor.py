"""The normalisation of each frame, from a file of two columns."""

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries


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
