"""Frames of all kinds, and any number of threads, give the same harvest."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries


def all_columns(scan, *overrides):
    scan.run(*overrides).close()
    with h5py.File(scan.path) as file:
        entry = file["entry"]
        return {
            f"{group}/{name}": dataset[()]
            for group in ("points", "peaks", "blobs")
            for name, dataset in entry[group].items()
        } | {"frames/points": entry["frames/points"][()]}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        assert values.tobytes() == other[name].tobytes(), name


def write_eiger(scan, kind="u4", n_files=3, **filters):
    """A master with links to data files; negative counts become the largest value."""
    with h5py.File(scan.folder / "eiger_master.h5", "w") as master:
        for k, frames in enumerate(np.array_split(np.arange(len(scan.images)), n_files)):
            name = f"eiger_data_{k:06d}.h5"
            with h5py.File(scan.folder / name, "w") as file:
                stack = scan.images[frames].astype(kind)
                file.create_dataset("entry/data/data", data=stack, chunks=(1, *stack.shape[1:]), **filters)
            master[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(name, "entry/data/data")


EIGER = ("images_prefix=eiger_", "images_postfix=master.h5", "normalisation_file=None")


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads(scan, threads):
    one = all_columns(scan, "threads=1")
    assert one["points/counts"].size > 900
    assert_same(one, all_columns(scan, f"threads={threads}"))
    # More frames than a block has, and pieces of few points.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tds2el.harvest.collect.BLOCK", 2)
        patch.setattr("tds2el.harvest.assemble.PIECE", 100)
        assert_same(one, all_columns(scan, f"threads={threads}"))


@pytest.mark.parametrize("kind", ["u2", "u4", "i4"])
def test_eiger(scan, monkeypatch, kind):
    """Packed frames are never read through h5py, and give what CBFs do."""
    monkeypatch.chdir(scan.folder)
    if kind != "i4":
        scan.images = np.maximum(scan.images, 0)
        scan.write()
    cbf = all_columns(scan, "normalisation_file=None")
    write_eiger(scan, kind, **hdf5plugin.Bitshuffle())
    monkeypatch.setattr(FrameSeries, "read", None)
    eiger = all_columns(scan, *EIGER)
    assert eiger["points/counts"].size > 900
    assert_same(cbf, eiger)


@pytest.mark.parametrize(
    "filters", [{}, {"compression": "gzip"}, hdf5plugin.LZ4(), hdf5plugin.Bitshuffle(cname="none")]
)
def test_eiger_packed_otherwise(scan, monkeypatch, filters):
    monkeypatch.chdir(scan.folder)
    cbf = all_columns(scan, "normalisation_file=None")
    write_eiger(scan, "i4", **filters)
    assert_same(cbf, all_columns(scan, *EIGER))


def test_damaged_eiger(scan, monkeypatch):
    monkeypatch.chdir(scan.folder)
    write_eiger(scan, **hdf5plugin.Bitshuffle())
    with h5py.File("eiger_data_000001.h5") as file:
        info = file["entry/data/data"].id.get_chunk_info_by_coord((6, 0, 0))
    data = bytearray((scan.folder / "eiger_data_000001.h5").read_bytes())
    data[info.byte_offset + 12 : info.byte_offset + 16] = b"\xff\xff\xff\xff"
    (scan.folder / "eiger_data_000001.h5").write_bytes(data)
    with pytest.raises(InputError, match=r"eiger_master\.h5::20: damaged: its compressed image is cut off or damaged"):
        scan.run(*EIGER)


def test_cbfs_of_another_kind_come_through_fabio(scan, monkeypatch):
    """Some frames of a series of 16-bit integers, the others of the usual kind."""
    one = all_columns(scan)
    for n in range(20, 40):
        CbfImage(data=scan.images[n].astype(np.int16)).write(str(scan.frame(n)))
    frames_read, read = [], FrameSeries.read
    monkeypatch.setattr(FrameSeries, "read", lambda self, n: frames_read.append(n) or read(self, n))
    assert_same(one, all_columns(scan))
    assert set(range(20, 30)) <= set(frames_read)


def test_edf(scan):
    one = all_columns(scan)
    for n, image in enumerate(scan.images):
        EdfImage(data=image).write(str(scan.frame(n).with_suffix(".edf")))
    (scan.folder / "monitor.txt").write_text((scan.folder / "monitor.txt").read_text().replace(".cbf", ".edf"))
    assert_same(one, all_columns(scan, "images_postfix=.edf"))


@pytest.mark.parametrize("threads", [1, 3])
def test_checksums(scan, threads):
    """A count that is wrong in a stream of the right length."""
    data = bytearray(scan.frame(24).read_bytes())
    start = data.index(b"\x0c\x1a\x04\xd5") + 4
    place = next(i for i in range(start + 100, len(data)) if data[i] < 100)
    data[place] += 1
    scan.frame(24).write_bytes(data)
    scan.run(f"threads={threads}").close()
    with pytest.raises(InputError, match=r"frame_0024\.cbf: damaged: its image does not have the checksum"):
        scan.run("check_md5=1", f"threads={threads}")
