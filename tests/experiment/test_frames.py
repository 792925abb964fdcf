"""The frame series: order, angles, and every way a frame can be missing or broken."""

import logging
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import fabio
import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from fabio.tifimage import TifImage

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries, open_frame_series
from tds2el.settings import FrameSettings

SHAPE = (30, 40)


def counts(n: int) -> npt.NDArray[np.int32]:
    """Counts that tell frame, row and column, with a gap, a bad pixel and a large value."""
    data = (n + 100 * np.arange(SHAPE[0])[:, None] + np.arange(SHAPE[1])).astype(np.int32)
    data[5] = -1
    data[6, 7] = -2
    data[8, 9] = 1_200_000
    return data


def write_cbf(
    path: Path, n: int, start: float | None = None, increment: float | None = None, cutoff: int | None = None
) -> None:
    """A CBF as a Pilatus writes it (its mini header in front, as far as given)."""
    lines = ["# Detector: PILATUS 2M", "# Pixel_size 172e-6 m x 172e-6 m"]
    if start is not None:
        lines.append(f"# Start_angle {start:.4f} deg.")
    if increment is not None:
        lines.append(f"# Angle_increment {increment:.4f} deg.")
    if cutoff is not None:
        lines.append(f"# Count_cutoff {cutoff} counts")
    header = {
        "_array_data.header_convention": "PILATUS_1.2",
        "_array_data.header_contents": "\r\n".join(lines),
    }
    CbfImage(data=counts(n), header=header).write(str(path))


def write_series(folder: Path, starts: list[float | None], increment: float | None = 0.1) -> None:
    for n, start in enumerate(starts):
        write_cbf(folder / f"scan_{n + 1:05d}.cbf", n, start, None if start is None else increment)


def frame_settings(prefix: str, postfix: str, angle: Any = None, **values: Any) -> FrameSettings:
    unset = dict.fromkeys(field.name for field in fields(FrameSettings))
    given = {"images_prefix": prefix, "images_postfix": postfix, "frame_angle": angle}
    return FrameSettings(**(unset | given | values))


def open_series(folder: Path, pattern: str = "scan_*.cbf", angle: Any = None, step: float = 0.1) -> FrameSeries:
    prefix, postfix = pattern.split("*")
    return open_frame_series(frame_settings(f"{folder}/{prefix}", postfix, angle), step)


def test_cbf_counts_survive(tmp_path: Path) -> None:
    write_series(tmp_path, [10 + 0.1 * n for n in range(3)])
    series = open_series(tmp_path)
    assert series.names == [str(tmp_path / f"scan_0000{n}.cbf") for n in (1, 2, 3)]
    assert series.files == series.names
    assert (series.shape, series.n_frames, series.dtype) == (SHAPE, 3, np.int32)
    assert series.count_cutoff is None
    assert series.pixel_mask is None
    np.testing.assert_array_equal(series.angle_index, [0, 1, 2])
    for n in (2, 0, 1):
        np.testing.assert_array_equal(series.read(n), counts(n))


def test_lowest_cutoff_counts(tmp_path: Path) -> None:
    for n, cutoff in enumerate((388705, 300001, 388705)):
        write_cbf(tmp_path / f"scan_{n}.cbf", n, cutoff=cutoff)
    assert open_series(tmp_path).count_cutoff == 300001


def test_long_header(tmp_path: Path) -> None:
    write_cbf(tmp_path / "scan_1.cbf", 0)
    data = (tmp_path / "scan_1.cbf").read_bytes()
    comment = b"# a line that a beamline's template adds to every header\r\n" * 700
    (tmp_path / "scan_1.cbf").write_bytes(data.replace(b"# Pixel_size", comment + b"# Pixel_size", 1))
    np.testing.assert_array_equal(open_series(tmp_path).read(0), counts(0))


def test_nothing_matches(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches .*scan_\*\.cbf"):
        open_series(tmp_path)


def test_folder_with_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "run[1]"
    folder.mkdir()
    write_series(folder, [None, None])
    assert open_series(folder).n_frames == 2


# --- numbers in the names


@pytest.mark.parametrize(
    ("names", "pattern", "message"),
    [
        (["scan_1.cbf", "scan_2.cbf", "scan_4.cbf"], "scan_*.cbf", "scan_4.cbf: number 4 follows 2"),
        ([f"scan_{n}.cbf" for n in range(1, 12)], "scan_*.cbf", "scan_10.cbf: number 10 follows 1.*name order"),
        (["scan_1.cbf", "scan_b.cbf"], "scan_*.cbf", "scan_b.cbf: no number"),
        (["a_01_1.cbf", "a_01_2.cbf", "a_02_1.cbf"], "a_*.cbf", "a_02_1.cbf: number 1 follows 2"),
    ],
)
def test_bad_numbers(tmp_path: Path, names: list[str], pattern: str, message: str) -> None:
    for n, name in enumerate(names):
        write_cbf(tmp_path / name, n)
    with pytest.raises(InputError, match=message):
        open_series(tmp_path, pattern)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["x1_a7.cbf", "x1_a8.cbf"], "x*.cbf"),  # the last run of digits counts
        (["s_098_2T.cbf", "s_099_2T.cbf", "s_100_2T.cbf"], "s_*_2T.cbf"),  # but not that of the postfix
        (["f_009.cbf", "f_010.cbf"], "f_0*.cbf"),  # a prefix that takes some of the digits
        (["first.cbf", "second.cbf"], "*.cbf"),  # no numbers: the order of the names
        (["only.cbf"], "only*.cbf"),
    ],
)
def test_good_numbers(tmp_path: Path, names: list[str], pattern: str) -> None:
    for n, name in enumerate(names):
        write_cbf(tmp_path / name, n)
    series = open_series(tmp_path, pattern)
    assert [Path(name).name for name in series.names] == names


def test_angle_from_number(tmp_path: Path) -> None:
    for n in (8, 9, 11, 10, 15):
        write_cbf(tmp_path / f"scan_{n}.cbf", n, start=0.1 * n, increment=0.1)
    series = open_series(tmp_path, angle="number")
    np.testing.assert_array_equal(series.angle_index, [0, 1, 2, 3, 7])
    assert [series.read(k)[0, 0] for k in range(5)] == [8, 9, 10, 11, 15]


@pytest.mark.parametrize("second", ["scan_01.cbf", "scan_x.cbf"])
def test_number_wanted_but_unclear(tmp_path: Path, second: str) -> None:
    for name in ("scan_1.cbf", second):
        write_cbf(tmp_path / name, 0)
    with pytest.raises(InputError, match=r"scan_(1|x)\.cbf: .*number"):
        open_series(tmp_path, angle="number")


# --- header angles


def test_missing_frame_by_header(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 0.1, 0.3, 0.4])  # renumbered after a frame was lost
    with pytest.raises(InputError, match=r"scan_00003\.cbf: its header angle 0\.3.*angular_step is 0\.1"):
        open_series(tmp_path)
    np.testing.assert_allclose(open_series(tmp_path, angle="header").angle_index, [0, 1, 3, 4], atol=1e-9)


@pytest.mark.parametrize("step", [0.1, -0.1, 0.109, 0.1 / 1.1])
def test_sign_and_zero_of_header_angles_are_free(tmp_path: Path, step: float) -> None:
    write_series(tmp_path, [359.85, 359.95, 0.05, 0.15])
    np.testing.assert_array_equal(open_series(tmp_path, step=step).angle_index, [0, 1, 2, 3])


@pytest.mark.parametrize("step", [0.2, 0.088, -0.112])
@pytest.mark.parametrize("increment", [0.1, None])
def test_step_differs_from_header(tmp_path: Path, step: float, increment: float | None) -> None:
    write_series(tmp_path, [0.0, 0.1, 0.2], increment)
    with pytest.raises(InputError, match=r"scan_0000\d\.cbf: .*angular_step is -?0\."):
        open_series(tmp_path, step=step)


def test_one_frame_of_another_width(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 0.1, 0.2])
    write_cbf(tmp_path / "scan_00002.cbf", 1, 0.1, 0.2)
    with pytest.raises(InputError, match=r"scan_00002\.cbf: its header's angle increment is 0\.2"):
        open_series(tmp_path)


def test_direction_changes(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 0.1, 0.2, 0.1])
    for angle in (None, "header"):
        with pytest.raises(InputError, match=r"scan_00004\.cbf: its header angle 0\.1"):
            open_series(tmp_path, angle=angle)
    np.testing.assert_array_equal(open_series(tmp_path, angle="number").angle_index, [0, 1, 2, 3])


def test_frames_of_one_angle(tmp_path: Path) -> None:
    write_series(tmp_path, [5.0, 5.0])
    with pytest.raises(InputError, match=r"scan_00002\.cbf: its header angle 5° is 0°"):
        open_series(tmp_path)


def test_detector_that_knows_no_angle(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 0.0, 0.0], increment=0.0)
    assert open_series(tmp_path).n_frames == 3
    with pytest.raises(InputError, match='no rotation angle in the headers, which frame_angle = "header" needs'):
        open_series(tmp_path, angle="header")


@pytest.mark.parametrize("sense", [1, -1])
@pytest.mark.parametrize("step", [0.5, -0.5])
def test_index_grows_with_the_headers_rotation(tmp_path: Path, sense: int, step: float) -> None:
    write_series(tmp_path, [(359 + sense * 0.5 * k) % 360 for k in (0, 1, 4, 5)], sense * 0.5)
    series = open_series(tmp_path, angle="header", step=step)
    np.testing.assert_allclose(series.angle_index, [0, 1, 4, 5], atol=1e-6)


# --- broken frames


@pytest.mark.parametrize("left", ["nothing", "part of the header", "the header", "half", "all but a byte"])
def test_truncated_cbf(tmp_path: Path, left: str, caplog: pytest.LogCaptureFixture) -> None:
    write_series(tmp_path, [None, None, None])
    series = open_series(tmp_path)
    victim = tmp_path / "scan_00002.cbf"
    data = victim.read_bytes()
    image = data.index(b"\x0c\x1a\x04\xd5") + 4
    size = int(data.split(b"X-Binary-Size: ")[1].split()[0])
    keep = {
        "nothing": 0,
        "part of the header": 100,
        "the header": image - 4,
        "half": image + size // 2,
        "all but a byte": image + size - 1,
    }
    victim.write_bytes(data[: keep[left]])
    for attempt in (lambda: series.read(1), lambda: open_series(tmp_path)):
        with pytest.raises(InputError, match=r"scan_00002\.cbf: .*(truncated|cut off)") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(series.read(2), counts(2))
    assert not caplog.records


def test_truncated_compressed_cbf(tmp_path: Path) -> None:
    import gzip

    for n in range(2):
        write_cbf(tmp_path / "plain.cbf", n)
        packed = gzip.compress((tmp_path / "plain.cbf").read_bytes())
        (tmp_path / f"scan_{n}.cbf.gz").write_bytes(packed)
    series = open_series(tmp_path, "scan_*.cbf.gz")
    np.testing.assert_array_equal(series.read(1), counts(1))
    (tmp_path / "scan_1.cbf.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"scan_1\.cbf\.gz"):
        series.read(1)


def test_vanished_frame(tmp_path: Path) -> None:
    write_series(tmp_path, [None, None])
    series = open_series(tmp_path)
    os.remove(tmp_path / "scan_00002.cbf")
    with pytest.raises(InputError, match=r"scan_00002\.cbf: the file does not exist"):
        series.read(1)


def test_other_shape(tmp_path: Path) -> None:
    write_series(tmp_path, [None, None])
    CbfImage(data=np.zeros((40, 30), np.int32)).write(str(tmp_path / "scan_00003.cbf"))
    with pytest.raises(InputError, match=r"scan_00003\.cbf: shape 40×30, but that of the first frame is 30×40"):
        open_series(tmp_path).read(2)


def test_dimensions_and_data_disagree(tmp_path: Path) -> None:
    write_series(tmp_path, [None])
    path = tmp_path / "scan_00001.cbf"
    path.write_bytes(path.read_bytes().replace(b"Second-Dimension: 30", b"Second-Dimension: 31"))
    with pytest.raises(InputError, match=r"scan_00001\.cbf: cannot be read"):
        open_series(tmp_path)


def test_not_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "scan_1.tif").write_text("no image\nat all")
    with pytest.raises(InputError, match=r"scan_1\.tif: cannot be read") as caught:
        open_series(tmp_path, "scan_*.tif")
    assert "\n" not in str(caught.value)
    assert not caplog.records
    assert logging.getLogger("fabio").level == logging.NOTSET


# --- other formats


def test_tiff(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(2):
        TifImage(data=counts(n)).write(str(tmp_path / f"scan_{n}.tif"))
    series = open_series(tmp_path, "scan_*.tif")
    np.testing.assert_array_equal(series.read(1), counts(1))
    path = tmp_path / "scan_1.tif"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"scan_1\.tif"):
        series.read(1)
    assert not caplog.records  # fabio has several lines to say here


def test_float_frames_keep_nan(tmp_path: Path) -> None:
    data = np.ones(SHAPE, np.float32)
    data[3, 4] = np.nan
    EdfImage(data=data).write(str(tmp_path / "scan_1.edf"))
    read = open_series(tmp_path, "scan_*.edf").read(0)
    assert np.isnan(read[3, 4])
    assert np.isnan(read).sum() == 1


def write_edf_stack(path: Path, frames: range, step: float = 0.1) -> None:
    image = EdfImage(data=counts(frames[0]), header={"Start_angle": f"{step * frames[0]:.4f}"})
    for n in frames[1:]:
        image.append_frame(data=counts(n), header={"Start_angle": f"{step * n:.4f}"})
    image.write(str(path))


def test_edf_stack(tmp_path: Path) -> None:
    write_edf_stack(tmp_path / "scan_1.edf", range(3))
    write_edf_stack(tmp_path / "scan_2.edf", range(3, 5))
    with open_series(tmp_path, "scan_*.edf") as series:
        assert [Path(name).name for name in series.names] == [
            *(f"scan_1.edf::{i}" for i in range(3)),
            *(f"scan_2.edf::{i}" for i in range(2)),
        ]
        for n in (0, 1, 1, 2, 4, 3, 0):
            np.testing.assert_array_equal(series.read(n), counts(n))
    with pytest.raises(InputError, match=r"scan_1\.edf::1: its header angle 0\.1"):
        open_series(tmp_path, "scan_*.edf", step=0.2)
    with pytest.raises(InputError, match=r'scan_1\.edf: frame_angle = "number" needs one frame per file'):
        open_series(tmp_path, "scan_*.edf", angle="number")


def test_truncated_edf(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(2):
        EdfImage(data=counts(n)).write(str(tmp_path / f"scan_{n}.edf"))
    series = open_series(tmp_path, "scan_*.edf")
    path = tmp_path / "scan_1.edf"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"scan_1\.edf: truncated"):
        series.read(1)
    assert not caplog.records


def test_stack_among_single_frames(tmp_path: Path) -> None:
    EdfImage(data=counts(0)).write(str(tmp_path / "scan_1.edf"))
    write_edf_stack(tmp_path / "scan_2.edf", range(2))
    with pytest.raises(InputError, match=r"scan_2\.edf: holds 2 frames"):
        open_series(tmp_path, "scan_*.edf").read(1)


# --- Eiger


def write_eiger(folder: Path, step: float = 0.1, cutoff: int = 5000) -> Path:
    """A master with links to two data files of 3 and 2 frames, as Dectris' file writer lays them out."""
    for k, frames in enumerate((range(3), range(3, 5)), start=1):
        stack = np.array([counts(n) for n in frames]).astype(np.uint32)  # −1 becomes the type's maximum
        with h5py.File(folder / f"scan_data_{k:06d}.h5", "w") as h5:
            h5.create_dataset("entry/data/data", data=stack, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle())
    master = folder / "scan_master.h5"
    with h5py.File(master, "w") as h5:
        for k in (1, 2):
            h5[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(f"scan_data_{k:06d}.h5", "/entry/data/data")
        h5["entry/sample/goniometer/omega"] = 20 + step * np.arange(5)
        h5["entry/sample/goniometer/omega_range_average"] = step
        h5["entry/sample/goniometer/phi"] = np.zeros(5)
        specific = h5.create_group("entry/instrument/detector/detectorSpecific")
        specific["countrate_correction_count_cutoff"] = cutoff
        mask = np.zeros(SHAPE, np.uint32)
        mask[5] = 1
        mask[6, 7] = 8
        specific["pixel_mask"] = mask
    return master


def test_eiger_master(tmp_path: Path) -> None:
    write_eiger(tmp_path)
    with open_series(tmp_path, "scan_*master.h5") as series:
        assert series.n_frames == 5
        assert series.names[3] == f"{tmp_path}/scan_master.h5::3"
        assert series.dtype == np.uint32
        assert series.count_cutoff == 5000
        assert series.pixel_mask is not None
        good = np.ones(SHAPE, bool)
        good[5] = good[6, 7] = False
        np.testing.assert_array_equal(series.pixel_mask, good)
        for n in (4, 0, 2, 3):
            np.testing.assert_array_equal(series.read(n), counts(n).astype(np.uint32))
    np.testing.assert_allclose(open_series(tmp_path, "scan_*master.h5", "header").angle_index, range(5))


def test_eiger_angles_differ(tmp_path: Path) -> None:
    write_eiger(tmp_path, step=0.5)
    with pytest.raises(InputError, match=r"scan_master\.h5.*0\.5°, but angular_step is 0\.1"):
        open_series(tmp_path, "scan_*master.h5")


def test_eiger_start_and_range_only(tmp_path: Path) -> None:
    with h5py.File(write_eiger(tmp_path), "a") as h5:
        del h5["entry/sample/goniometer/omega"]
        h5["entry/sample/goniometer/omega"] = 20.0
    assert open_series(tmp_path, "scan_*master.h5").n_frames == 5
    with pytest.raises(InputError, match=r"increment is 0\.1"):
        open_series(tmp_path, "scan_*master.h5", step=0.2)


def test_eiger_data_file_missing(tmp_path: Path) -> None:
    write_eiger(tmp_path)
    os.remove(tmp_path / "scan_data_000002.h5")
    with pytest.raises(InputError, match=r"scan_master\.h5: its data file scan_data_000002\.h5 is missing"):
        open_series(tmp_path, "scan_*master.h5")


def test_eiger_data_file_vanishes(tmp_path: Path) -> None:
    write_eiger(tmp_path)
    series = open_series(tmp_path, "scan_*master.h5")
    os.remove(tmp_path / "scan_data_000002.h5")
    with pytest.raises(InputError, match=r"scan_master\.h5: has 3 frames, but had 5"):
        series.read(4)


def test_eiger_truncated(tmp_path: Path) -> None:
    path = write_eiger(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"scan_master\.h5: cannot be read"):
        open_series(tmp_path, "scan_*master.h5")


def test_hdf5_without_images(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scan_1.h5", "w") as h5:
        h5["nothing"] = 1
    with pytest.raises(InputError, match=r"scan_1\.h5: cannot be read"):
        open_series(tmp_path, "scan_*.h5")


def test_written_frames_are_what_fabio_reads(tmp_path: Path) -> None:
    write_series(tmp_path, [None])
    with fabio.open(str(tmp_path / "scan_00001.cbf")) as image:
        np.testing.assert_array_equal(open_series(tmp_path).read(0), image.data)
