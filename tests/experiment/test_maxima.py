"""The table of tagged peaks: what is read back, which reflections are accepted, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.maxima import (
    Maxima,
    accepted_reflections,
    read_maxima,
    reflections_of_file,
    write_maxima,
)

HKL = [(1, 0, 4), (0, 0, 0), (1, 0, 4), (2, 0, 2), (2, 0, 2), (-1, 1, 0)]
ACCEPTED = [True, True, True, True, False, True]


def table(hkl: Any = HKL, accepted: Any = ACCEPTED) -> Maxima:
    n = len(accepted)
    place = np.arange(n) + 0.25
    return Maxima(place, place + 10, place / 2, np.arange(n) * 1e5, np.array(hkl), np.array(accepted))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_maxima(tmp_path / "maxima.h5", table())
    read = read_maxima(tmp_path / "maxima.h5")
    for name, values in vars(table()).items():
        np.testing.assert_array_equal(getattr(read, name), values)
        assert getattr(read, name).dtype == values.dtype
    assert not list(tmp_path.glob("*.partial"))


def test_a_table_of_the_first_version_says_less(tmp_path: Path) -> None:
    """The first version had no errors, no sweeps and no residuals; its frames count as angles."""
    path = tmp_path / "maxima.h5"
    write_maxima(path, table())
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 1
        for name in set(file["entry/peaks"]) - {"row", "column", "frame", "counts", "hkl", "accepted"}:
            del file[f"entry/peaks/{name}"]
    read = read_maxima(path)
    np.testing.assert_array_equal(read.angle_index, table().frame)
    np.testing.assert_array_equal(read.sweep, [0] * 6)
    assert np.isnan(read.row_error).all()
    assert read.residual.shape == (6, 3)


def test_a_reflection_needs_all_its_peaks(tmp_path: Path) -> None:
    write_maxima(tmp_path / "maxima.h5", table())
    assert reflections_of_file(tmp_path / "maxima.h5") == [(-1, 1, 0), (1, 0, 4)]


def test_against_the_definition() -> None:
    rng = np.random.default_rng(3)
    maxima = table(rng.integers(-1, 2, size=(200, 3)), rng.random(200) > 0.1)
    peaks = list(zip(map(tuple, maxima.hkl.tolist()), maxima.accepted.tolist(), strict=True))
    wanted = {hkl for hkl, _ in peaks if any(hkl)} - {hkl for hkl, accepted in peaks if not accepted}
    assert accepted_reflections(maxima) == sorted(wanted)


def test_nothing_accepted(tmp_path: Path) -> None:
    write_maxima(tmp_path / "maxima.h5", table(accepted=[False] * 6))
    with pytest.raises(InputError, match=r"file_maxima = .*maxima\.h5: no reflection has all .* \(6 peaks, 5 of them"):
        reflections_of_file(tmp_path / "maxima.h5")


def test_no_peaks_at_all(tmp_path: Path) -> None:
    write_maxima(tmp_path / "maxima.h5", table(np.empty((0, 3), dtype=int), np.empty(0, dtype=bool)))
    with pytest.raises(InputError, match="0 peaks"):
        reflections_of_file(tmp_path / "maxima.h5")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [{"hkl": [1, 0, 4]}, [[1, 0, 4]], np.arange(3)])
def test_a_pickle_is_never_read(tmp_path: Path, protocol: int, value: object) -> None:
    path = tmp_path / "maxima.p"
    path.write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(InputError, match=r"maxima\.p: a pickle, .* never read; give the table of peaks as HDF5"):
        read_maxima(path)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"file_maxima = .*absent\.h5: there is no such file"):
        read_maxima(tmp_path / "absent.h5")
    (tmp_path / "text").write_text("1 0 4\n")
    with pytest.raises(InputError, match="not an HDF5 file"):
        read_maxima(tmp_path / "text")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "tds2el harvest"
    with pytest.raises(InputError, match="no table of peaks of tds2el"):
        read_maxima(tmp_path / "other.h5")


def replace(file: h5py.File, name: str, values: Any) -> None:
    del file[f"entry/peaks/{name}"]
    file[f"entry/peaks/{name}"] = values


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.attrs.update(format_version=7), "format version 7, this program reads 1"),
        (lambda file: file.__delitem__("entry/peaks/hkl"), "damaged or incomplete"),
        (lambda file: replace(file, "row", np.zeros(5)), "damaged .* shape"),
        (lambda file: replace(file, "hkl", np.zeros((6, 2), dtype=int)), "damaged .* shape"),
        (lambda file: replace(file, "hkl", np.full((6, 3), 0.5)), "hkl holds values that are not of the type int64"),
        (lambda file: replace(file, "accepted", np.full(6, 2)), "accepted holds values"),
    ],
)
def test_damaged_tables(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "maxima.h5"
    write_maxima(path, table())
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(InputError, match=message):
        read_maxima(path)
