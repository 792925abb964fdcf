"""What is read from the beginnings of files, with Python's own regular expressions as the judge."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tds2el._core import header_numbers
from tds2el.experiment.frames import scan_files
from tds2el.experiment.headers import joined
from tds2el.simulate.cbf import write_cbf

NUMBER = rb"[\s=:]+([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)"
KEYS = ("Start_angle", "Angle_increment", "Count_cutoff")
# Pieces of headers, so that numbers often follow keys and often almost do.
PIECES = [*KEYS, " ", "\r\n# ", " = ", ":", "+", "-", ".", "e", "E", "0", "7", "12", "inf", "nan", "0x1", "\0"]


def judged(text: bytes) -> list[float]:
    found = (re.search(key.encode() + NUMBER, text) for key in KEYS)
    return [float(match[1]) if match else np.nan for match in found]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(lambda pieces: "".join(pieces).encode()))
@example(b"# Start_angle -12.3400 deg.\r\n# Angle_increment 0.1000 deg.\r\n# Count_cutoff 1048500 counts\r\n")
@example(b"Start_angle Start_angle:1.e-2e5 Count_cutoff 12345678901234567890.25 Angle_increment 1e400")
def test_numbers_of_any_text(text):
    assert np.array_equal(header_numbers(text), judged(text), equal_nan=True)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cut", [0, 1, 5, 8])
def test_headers_of_files_read_in_parts(tmp_path: Path, threads: int, cut: int) -> None:
    """The same as of all files together, and as what was written; a folder is no file."""
    files = []
    for n in range(8):
        files.append(str(tmp_path / f"scan_{n}.cbf"))
        header = [f"Start_angle {0.1 * n:.4f} deg.", "Angle_increment 0.1000 deg.", f"Count_cutoff {1000 - n} counts"]
        write_cbf(Path(files[-1]), np.full((3, 4), n, np.int32), header)
    folder = tmp_path / "scan_3_old.cbf"
    folder.mkdir()
    listed = sorted([*files, str(folder)])
    found = joined([scan_files(part, threads) for part in (listed[:cut], listed[cut:])])
    assert found.files == files
    assert found.n_frames.tolist() == [1] * 8
    assert found.start["Start_angle"].tolist() == [float(f"{0.1 * n:.4f}") for n in range(8)]
    assert found.increment["Start_angle"].tolist() == [0.1] * 8
    assert found.count_cutoff == 993


def test_an_axis_that_one_file_does_not_name(tmp_path: Path) -> None:
    files = [str(tmp_path / f"scan_{n}.cbf") for n in range(3)]
    for n, file in enumerate(files):
        write_cbf(Path(file), np.ones((3, 4), np.int32), [] if n == 1 else [f"Start_angle {n}.5 deg."])
    assert not scan_files(files).start
    assert not joined([scan_files(files[:1]), scan_files(files[1:])]).start
    assert scan_files(files[2:]).start["Start_angle"].tolist() == [2.5]
