"""Compiled decoding of byte-offset CBFs, with fabio as the judge; damaged files are told, whatever they hold."""

from pathlib import Path

import fabio
import numpy as np
import numpy.typing as npt
import pytest
from fabio.cbfimage import CbfImage
from fabio.compression import compByteOffset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tds2el._core import read_cbf
from tds2el.errors import InputError
from tds2el.experiment.images import check_md5, read_image
from tds2el.simulate.cbf import write_cbf

WIDE = pytest.mark.parametrize("wide", [True, False])
BOTH = (True, False)
HEADER = ["Detector: PILATUS"]

# Differences about the edges of what 8, 16 and 32 bits hold, and beyond.
EDGES = [0, 1, -1, 126, 127, 128, -127, -128, -129, 32767, 32768, -32767, -32768, -32769, 2**31 - 1, -(2**31) + 1]


def stream(image: npt.NDArray[np.int32]) -> bytes:
    return bytes(compByteOffset(image.ravel()))


def write_stream(path: Path, data: bytes, shape: tuple[int, int], size: int | None = None) -> None:
    """A CBF of any bytes."""
    write_cbf(path, np.zeros(shape, np.int32), HEADER)
    text = path.read_bytes().partition(b"\x0c\x1a\x04\xd5")
    zeros = stream(np.zeros(shape, np.int32))
    head = text[0].replace(
        b"X-Binary-Size: %d\r" % len(zeros), b"X-Binary-Size: %d\r" % (len(data) if size is None else size)
    )
    path.write_bytes(head + text[1] + data)


@st.composite
def images(draw):
    """Mostly small steps, with edges among them, so that long and short blocks without escapes occur."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 60))
    n = rows * columns
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = rng.integers(-127, 128, n)
    rare = rng.random(n) < draw(st.sampled_from([0.0, 0.01, 0.1, 0.9]))
    steps[rare] = rng.choice(EDGES, n)[rare]
    return np.cumsum(steps).astype(np.int32).reshape(rows, columns)  # wraps


@given(image=images(), seed=st.integers(0, 2**32))
def test_any_stream(tmp_path_factory, image, seed):
    path = tmp_path_factory.getbasetemp() / f"byte_offset_{seed}.cbf"
    write_stream(path, stream(image), image.shape)
    judged = fabio.open(str(path)).data
    ends = np.unique(np.random.default_rng(seed).integers(0, image.size + 1, 8))
    runs = [(int(a), int(b)) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    wanted = np.zeros(image.size, bool)
    for a, b in runs:
        wanted[a:b] = True
    for wide in BOTH:
        np.testing.assert_array_equal(read_cbf(str(path), None, wide), judged)
        part = read_cbf(str(path), runs, wide).ravel()
        np.testing.assert_array_equal(part[wanted], judged.ravel()[wanted])
        assert not part[~wanted].any()
    path.unlink()


@given(image=arrays(np.int32, (3, 17), elements=st.integers(-(2**30), 2**30)))
def test_what_fabio_writes(tmp_path_factory, image):
    path = tmp_path_factory.getbasetemp() / "byte_offset_by_fabio.cbf"
    CbfImage(data=image).write(str(path))
    for wide in BOTH:
        np.testing.assert_array_equal(read_cbf(str(path), None, wide), image)


@WIDE
@given(data=st.binary(max_size=300), announced=st.integers(0, 400))
def test_any_bytes(tmp_path_factory, wide, data, announced):
    """Never a pixel more or less than there is, and no crash."""
    path = tmp_path_factory.getbasetemp() / f"byte_offset_any_{wide}.cbf"
    write_stream(path, data, (4, 25), announced)
    truth = None if announced > len(data) or announced < 100 else decoded(data[:announced])
    if truth is None or len(truth) == 100:
        image = read_cbf(str(path), None, wide)
        assert (image is None) if truth is None else image.ravel().tolist() == truth
    else:
        with pytest.raises(ValueError, match=r"its image ends after|bytes follow"):
            read_cbf(str(path), None, wide)


def decoded(data: bytes) -> list[int]:
    """The values of a stream, as the format's text defines it; those up to where it is cut, and −1 if it is."""
    values, value, at = [], 0, 0
    while at < len(data):
        for width in (1, 2, 4, 8):
            step = int.from_bytes(data[at : at + width], "little", signed=True)
            if at + width > len(data):
                return [*values, -1] * 100
            at += width
            if step != -(2 ** (8 * width - 1)) or width == 8:
                break
        value = (value + step + 2**31) % 2**32 - 2**31
        values.append(value)
    return values


@WIDE
def test_64_bits(tmp_path, wide):
    path, rng = tmp_path / "frame.cbf", np.random.default_rng(3)
    long = b"\x80\x00\x80\x00\x00\x00\x80"
    data = b"".join([bytes(rng.integers(0, 127, 40, dtype=np.uint8)) + long + rng.bytes(8) for _ in range(5)])
    write_stream(path, data, (5, 41))
    assert read_cbf(str(path), None, wide).ravel().tolist() == decoded(data)


@WIDE
@pytest.mark.parametrize("cut", [1, 7, 16, 33, 64])
def test_streams_of_the_wrong_length(tmp_path, wide, cut):
    image = np.random.default_rng(0).integers(-50, 50, (20, 30)).astype(np.int32)
    data, path = stream(image), tmp_path / "frame.cbf"
    # Bytes for the announced size are there, but stand for fewer pixels: escapes take three each.
    short = data[: -3 * cut] + b"\x80\x00\x01" * cut
    write_stream(path, short, image.shape)
    with pytest.raises(ValueError, match=rf"its image ends after {600 - 2 * cut} of 600 pixels"):
        read_cbf(str(path), None, wide)
    with pytest.raises(ValueError, match="its image ends after"):
        read_cbf(str(path), [], wide)
    write_stream(path, data + b"\x01" * cut, image.shape)
    with pytest.raises(ValueError, match=rf"{cut} bytes follow the last of its 600 pixels"):
        read_cbf(str(path), None, wide)
    with pytest.raises(InputError, match=r"frame\.cbf: damaged: .*copy the file again or leave it out"):
        read_image(str(path))


def test_escapes_that_the_end_cuts(tmp_path):
    path = tmp_path / "frame.cbf"
    for tail in (
        b"\x80",
        b"\x80\x01",
        b"\x80\x00\x80",
        b"\x80\x00\x80\x01\x02\x03",
        b"\x80\x00\x80\x00\x00\x00\x80\x01",
    ):
        write_stream(path, b"\x01" * 95 + tail, (1, 96))
        for wide in BOTH:
            with pytest.raises(ValueError, match="its image ends after 95 of 96 pixels"):
                read_cbf(str(path), None, wide)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"signed 32-bit", b"signed 16-bit"),
        (b"x-CBF_BYTE_OFFSET", b"x-CBF_PACKED"),
        (b"LITTLE_ENDIAN", b"BIG_ENDIAN"),
        (b"X-Binary-Number-of-Elements: 600", b"X-Binary-Number-of-Elements: 601"),
        (b"Second-Dimension: 20", b"Second-Dimension: 99999999999"),
        (b"Second-Dimension: 20", b"Second-Dimension: -20"),
        (b"X-Binary-Size:", b"X-Binary-Sighs:"),
        (b"--CIF-BINARY", b"--BIF-CINARY"),
    ],
)
def test_left_to_fabio(tmp_path, old, new):
    path = tmp_path / "frame.cbf"
    write_cbf(path, np.ones((20, 30), np.int32), [])
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    assert read_cbf(str(path)) is None


def test_no_regular_file(tmp_path):
    assert read_cbf(str(tmp_path / "absent.cbf")) is None
    assert read_cbf(str(tmp_path)) is None


def test_runs_must_lie_in_the_image(tmp_path):
    write_cbf(tmp_path / "frame.cbf", np.ones((20, 30), np.int32), [])
    for runs in ([(-1, 3)], [(3, 2)], [(0, 601)], [(5, 9), (8, 12)]):
        with pytest.raises(IndexError, match="runs must ascend"):
            read_cbf(str(tmp_path / "frame.cbf"), runs)


def test_checksum(tmp_path):
    path = tmp_path / "frame.cbf"
    write_cbf(path, np.arange(600, dtype=np.int32).reshape(20, 30), [])
    check_md5(str(path))
    data = bytearray(path.read_bytes())
    place = data.index(b"\x0c\x1a\x04\xd5") + 40
    data[place] ^= 1  # another count, in a stream of the right length
    path.write_bytes(data)
    assert read_cbf(str(path)) is not None
    with pytest.raises(InputError, match=r"frame\.cbf: damaged: its image does not have the checksum"):
        check_md5(str(path))
    path.write_bytes(bytes(data).replace(b"Content-MD5", b"Content-MD4"))
    check_md5(str(path))
