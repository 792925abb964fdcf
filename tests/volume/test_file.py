"""volume.h5: what viewers find in it, and what its reader says of others."""

import h5py
import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.volume.file import VolumeFile


def test_viewers_find_the_intensity(scan):
    from silx.io import nxdata

    scan.run(volume_shape=(23, 31, 70)).close()
    with h5py.File(scan.path) as file:
        data = nxdata.get_default(file)
        assert data.signal_name == "intensity"
        assert data.axes_dataset_names == ["h", "k", "l"]
        assert data.errors.shape == data.signal.shape == (23, 31, 70)
        assert data.plot_style.signal_scale_type == "log"
        signal = file["entry/volume/intensity"]
        assert signal.chunks == (23, 31, 32)
        assert signal.dtype == np.float32
        assert file["entry/volume/h"].attrs["units"] == "r.l.u."


@pytest.mark.parametrize(
    ("options", "names", "unit"),
    [
        ({"volume_axes": "cartesian"}, "xyz", "1/angstrom"),
        ({"volume_basis": [[1, 1, 0], [1, -1, 0], [0, 0, 1]], "volume_origin": [0, 0, 0.5]}, "uvw", ""),
    ],
)
def test_what_is_written_is_read(scan, options, names, unit):
    with scan.run(every_nth_frame=3, **options) as volume:
        assert "".join(volume.grid.names) == names
        assert volume.frame_names == [str(scan.frame(n)) for n in range(0, 30, 3)]
        assert volume.settings["every_nth_frame"] == 3
        assert volume.cell.parameters == scan.cell
        assert not volume.symmetrised
        assert volume.operations is volume.group is volume.background is None
        axes = [volume.grid.axis(n) for n in range(3)]
        np.testing.assert_allclose(volume.grid.origin, options.get("volume_origin", (0, 0, 0)))
        np.testing.assert_allclose(volume.grid.basis, options.get("volume_basis", np.eye(3)))
    with h5py.File(scan.path) as file:
        for name, axis in zip(names, axes, strict=True):
            np.testing.assert_array_equal(file["entry/volume"][name], axis)
            assert file["entry/volume"][name].attrs["units"] == unit
        np.testing.assert_allclose(file["entry/crystal/A"], scan.a)
        np.testing.assert_allclose(file["entry/crystal/B"], np.linalg.inv(scan.a), atol=1e-15)


def not_hdf5(path):
    path.write_bytes(b"nothing of the kind")


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "tds2el harvest"


def later(path):
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99


def damaged(path):
    with h5py.File(path, "r+") as file:
        del file["entry/sums/counts"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "there is no such file; make a volume with DO_ELASTIC = 0"),
        (not_hdf5, "not a volume, or a damaged one"),
        (other_hdf5, "HDF5, but no volume of tds2el"),
        (later, "format version 99, this program reads 1"),
        (damaged, "not a volume, or a damaged one"),
    ],
)
def test_other_files(scan, change, message):
    scan.run(volume_shape=9).close()
    change(scan.path)
    with pytest.raises(InputError, match=message) as caught:
        VolumeFile(scan.path)
    assert str(scan.path) in str(caught.value)
    assert "\n" not in str(caught.value)
