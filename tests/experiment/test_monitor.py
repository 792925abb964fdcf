"""The normalisation file: which row belongs to which frame, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.monitor import read_normalisation, write_normalisation


def series(*names: Path | str) -> Any:
    return SimpleNamespace(names=[str(n) for n in names], n_frames=len(names))


def write(folder: Path, text: str) -> Path:
    path = folder / "norm.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_full_path_goes_before_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one/f_1.cbf", tmp_path / "two/f_1.cbf"
    path = write(tmp_path, f"# name monitor\n\n  # more\n{two} 2.5\n{one}\t1e3\n/elsewhere/g.cbf -1\n")
    np.testing.assert_array_equal(read_normalisation(path, series(one, two)), [1000, 2.5])


def test_relative_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "one/f_1.cbf 1\n./two/../two/f_1.cbf 2\n")
    frames = series(tmp_path / "one/f_1.cbf", tmp_path / "two/f_1.cbf")
    np.testing.assert_array_equal(read_normalisation(path, frames), [1, 2])


def test_unique_name_from_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, "/ramdisk/f_2.cbf 2\r\n/ramdisk/f_1.cbf 1\r\n")
    np.testing.assert_array_equal(read_normalisation(path, series("/data/f_1.cbf", "/data/f_2.cbf")), [1, 2])


def test_names_with_spaces_and_frames_of_a_stack(tmp_path: Path) -> None:
    path = write(tmp_path, "my scan 1.cbf 3.5\nscan master.h5::0 10\nscan master.h5::1 11\n")
    frames = series(tmp_path / "my scan 1.cbf", tmp_path / "scan master.h5::0", tmp_path / "scan master.h5::1")
    np.testing.assert_array_equal(read_normalisation(path, frames), [3.5, 10, 11])


def test_the_same_row_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "/a/f.cbf 3\n/b/f.cbf 3.0\n")
    np.testing.assert_array_equal(read_normalisation(path, series("/c/f.cbf")), [3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/data/g.cbf 1\n", r"norm\.txt: no row for frame /data/f\.cbf"),
        ("\n/data/f.cbf 0\n", r"norm\.txt:2: denominator 0 of frame /data/f\.cbf is not a positive"),
        ("/data/f.cbf -3\n", r"norm\.txt:1: denominator -3 of frame"),
        ("/data/f.cbf nan\n", r"norm\.txt:1: denominator nan"),
        ("/data/f.cbf inf\n", r"norm\.txt:1: denominator inf"),
        ("/data/f.cbf 1\n/data/f.cbf\n", r"norm\.txt:2: expected a file name and a number"),
        ("/data/f.cbf 1,5\n", r"norm\.txt:1: expected a file name and a number"),
        ("/a/f.cbf 1\n\n/b/f.cbf 2\n", r"norm\.txt:3: 2 for frame /data/f\.cbf, but 1 in line 1"),
        ("/data/f.cbf 1\n/data/f.cbf 2\n", r"norm\.txt:2: 2 for frame /data/f\.cbf, but 1 in line 1"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_normalisation(write(tmp_path, text), series("/data/f.cbf"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"normalisation_file .*none\.txt: cannot be read: No such file"):
        read_normalisation(tmp_path / "none.txt", series("/data/f.cbf"))


def test_what_is_written_is_read_to_the_last_digit(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    names = [tmp_path / "frames/my scan_1.cbf", "/elsewhere/f.h5::0", "/elsewhere/f.h5::1", tmp_path / "#1.cbf"]
    values = np.array([1 / 3, 1.0, np.nextafter(1.0, 2), 1e-7])
    path = tmp_path / "normalisation.txt"
    write_normalisation(path, [str(name) for name in names], values, "from Flux\nmedian 3")
    np.testing.assert_array_equal(read_normalisation(path, series(*names)), values)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["# from Flux", "# median 3", "frames/my scan_1.cbf 0.3333333333333333"]
    # Moved together, they belong together.
    (tmp_path / "moved").mkdir()
    path.rename(tmp_path / "moved/normalisation.txt")
    moved = series(tmp_path / "moved/frames/my scan_1.cbf")
    np.testing.assert_array_equal(read_normalisation(tmp_path / "moved/normalisation.txt", moved), values[:1])
