"""The harvest file: what is in it, how counts are stored, and what is said of files that are none."""

import errno
import json
import os
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from tds2el import __version__
from tds2el.errors import InputError
from tds2el.harvest.file import HarvestFile


def test_slices_of_a_blob(scan):
    with scan.run() as harvest:
        counts, kappa, q = harvest.points(1)
        assert len(counts) == len(kappa) == len(q) == harvest.n_points[1] > 40
        for start, stop in ((0, 10), (7, 30), (25, None), (30, 10**9), (40, 20)):
            part = harvest.points(1, start, stop)
            for whole, piece in zip((counts, kappa, q), part, strict=True):
                np.testing.assert_array_equal(whole[start:stop], piece)
            for whole, piece in zip(harvest.pixels(1), harvest.pixels(1, start, stop), strict=True):
                np.testing.assert_array_equal(whole[start:stop], piece)
        base = harvest.offset[1]
        np.testing.assert_array_equal(harvest.points_of_all(base + 3, base + 9)[2], q[3:9])


def test_layout_and_provenance(scan):
    scan.run().close()
    with h5py.File(scan.path) as file:
        assert file.attrs["NX_class"] == "NXroot"
        entry = file[file.attrs["default"]]
        plot = entry[entry.attrs["default"]]
        assert plot[plot.attrs["signal"]].shape == plot[plot.attrs["axes"]].shape
        assert plot["points"][()].sum() == entry["points/counts"].size
        assert entry["points/row"].dtype == np.uint16
        assert entry["points/frame"].dtype == np.int32
        assert entry["points/counts"].dtype == np.int32
        assert entry["points/correction"].dtype == np.float32
        assert entry["points/Q"].shape == (entry["points/counts"].size, 3)
        assert entry["points/Q"].attrs["units"] == "1/angstrom"
        for name in ("row", "column", "frame", "counts", "correction", "Q"):
            assert entry[f"points/{name}"].chunks is None
        values = json.loads(entry["settings/values"][()])
        assert values["dist"] == 80.0
        assert values["collectSpots"] == [list(node) for node in scan.hkl]
        assert entry["settings"].attrs["lmbda"] == 0.7
        assert "conf_file = 'conf.par'" in entry["settings/input_file"].asstr()[()]
        assert entry["process/version"].asstr()[()] == __version__
        assert [name.split("/")[-1] for name in entry["frames/name"].asstr()[:2]] == [
            "frame_0000.cbf",
            "frame_0001.cbf",
        ]
        np.testing.assert_allclose(entry["frames/phi"], 20.0 + 0.4 * np.arange(40))
        np.testing.assert_allclose(entry["frames/denominator"], scan.denominator)


def full(*_):
    return SimpleNamespace(f_bavail=1, f_frsize=4096)


def failing(error):
    def fail(*_):
        raise OSError(error, os.strerror(error))

    return fail


@pytest.mark.parametrize(
    ("name", "fault"),
    [("statvfs", full), ("pwrite", failing(errno.ENOSPC)), ("close", failing(errno.EDQUOT))],
)
def test_no_space(scan, monkeypatch, name, fault):
    """Told before the points are written, while they are, or, by a file system over a network, at the end."""
    scan.path.write_bytes(b"an older harvest")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fault)
        with pytest.raises(InputError) as error:
            scan.run()
    assert str(error.value).startswith(f"save_to_file: {scan.path} cannot be written ([Errno")
    assert str(error.value).endswith("check space and permissions")
    assert scan.path.read_bytes() == b"an older harvest"
    assert not list(scan.folder.glob(".*.partial"))


def test_what_a_fit_needs(scan):
    with scan.run() as harvest:
        assert harvest.delta_max == pytest.approx(0.5 * scan.unit)
        assert harvest.delta_min == pytest.approx(0.12 * scan.unit)
        assert harvest.longest_reciprocal == pytest.approx(scan.unit)
        assert harvest.cell.parameters == (6.1, 7.2, 8.3, 88.0, 95.0, 103.0)
        assert harvest.settings["Temperature"] == 300


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**31 - 1, np.int32), (2**31, np.float32), (2**31 + 1, np.float64), (7.5, np.float32),
                         (0.1, np.float64)],
)  # fmt: skip
def test_counts_are_stored_exactly(scan, value, dtype):
    from fabio.edfimage import EdfImage

    for n, image in enumerate(scan.images):
        scan.frame(n).unlink()
        image = image.astype(float)
        image = np.where(image >= 0, value, np.nan)
        EdfImage(data=image).write(str(scan.frame(n).with_suffix(".edf")))
    text = (scan.folder / "monitor.txt").read_text()
    (scan.folder / "monitor.txt").write_text(text.replace(".cbf", ".edf"))
    with scan.run("images_postfix=.edf", "threshold=1e12") as harvest:
        counts = harvest.points(0)[0]
    assert counts.dtype == dtype
    assert set(counts) == {value}


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"load_from_file = .*none\.h5: there is no such file"):
        HarvestFile(tmp_path / "none.h5")


def test_foreign_files(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="not a harvest file, or a damaged one"):
        HarvestFile(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(InputError, match="no harvest of tds2el"):
        HarvestFile(tmp_path / "other.h5")


def test_damaged_files(scan):
    scan.run().close()
    data = scan.path.read_bytes()
    scan.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="damaged"):
        HarvestFile(scan.path)
    scan.path.write_bytes(data)
    with h5py.File(scan.path, "a") as file:
        del file["entry/points/counts"]
    with pytest.raises(InputError, match="damaged"):
        HarvestFile(scan.path)


def test_other_version(scan):
    scan.run().close()
    with h5py.File(scan.path, "a") as file:
        file.attrs["format_version"] = 1
    with pytest.raises(InputError, match="format version 1, this program reads 2 and 3; harvest again"):
        HarvestFile(scan.path)
