"""The mask file: formats, meaning, and what is refused."""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fabio.edfimage import EdfImage
from fabio.tifimage import TifImage

from tds2el.errors import InputError
from tds2el.experiment.mask import read_mask

SHAPE = (12, 15)


def mask_image(dtype: Any = np.int32) -> Any:
    data = np.ones(SHAPE, dtype)
    data[3] = 0
    data[5, 6] = 0
    return data


def write(path: Path, data: Any) -> Path:
    if path.suffix == ".edf":
        EdfImage(data=data).write(str(path))
    elif path.suffix == ".tif":
        TifImage(data=data).write(str(path))
    elif path.suffix == ".npy":
        np.save(path, data)
    else:
        with h5py.File(path, "w") as h5:
            h5["entry/mask"] = data
        return Path(f"{path}::/entry/mask")
    return path


@pytest.mark.parametrize("name", ["m.edf", "m.tif", "m.npy", "m.h5"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_one_is_good(tmp_path: Path, name: str, dtype: Any) -> None:
    good = read_mask(write(tmp_path / name, mask_image(dtype)), SHAPE)
    assert good.dtype == bool
    np.testing.assert_array_equal(good, mask_image(bool))


def test_bool(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(write(tmp_path / "m.npy", mask_image(bool)), SHAPE), mask_image(bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m * 255, "its values are 0, 255, but 1"),
        (lambda m: -m, "its values are -1, 0, but 1"),
        (lambda m: m * 0.5, r"its values are 0, 0\.5, but 1"),
        (lambda m: np.arange(m.size).reshape(m.shape), "0, 1, 2, 3, 4, 5, …"),
        (lambda m: np.where(m == 0, np.nan, 1.0), "16 pixels are NaN"),
        (lambda m: m * 0, "no good pixel"),
        (lambda m: m.T, r"shape \(15, 12\), but the frames have the shape \(12, 15\)"),
        (lambda m: m[None], r"shape \(1, 12, 15\)"),
        (lambda m: m.astype(str), "not an array of numbers"),
        (lambda m: m.astype(object), "cannot be read"),  # would need pickle
    ],
)
def test_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_mask(write(tmp_path / "m.npy", change(mask_image())), SHAPE)
    assert "m.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    for name in ("m.edf", "m.npy", "m.h5::/entry/mask"):
        with pytest.raises(InputError, match=r"filter_file .*m\.\w+: no such file"):
            read_mask(tmp_path / name, SHAPE)


def test_dataset_missing(tmp_path: Path) -> None:
    write(tmp_path / "m.h5", mask_image())
    for dataset in ("/entry/other", "/entry"):
        with pytest.raises(InputError, match=rf"m\.h5: has no dataset {dataset}"):
            read_mask(f"{tmp_path}/m.h5::{dataset}", SHAPE)


@pytest.mark.parametrize("name", ["m.edf", "m.npy", "m.h5::/m"])
def test_no_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name.partition("::")[0]).write_bytes(b"this is no image")
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(tmp_path / name, SHAPE)


def test_inverted_is_suspected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tds2el"):
        read_mask(write(tmp_path / "m.npy", mask_image()), SHAPE)
        assert not caplog.records
        read_mask(write(tmp_path / "m.npy", 1 - mask_image()), SHAPE)
    assert ["is it inverted?" in r.getMessage() for r in caplog.records] == [True]
