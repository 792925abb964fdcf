"""Compiled unpacking of bitshuffle-LZ4 chunks, with hdf5plugin and h5py as the judges."""

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tds2el._core import unpack_bitshuffle

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f4", "f8"]


def packed(image: np.ndarray, block: int = 0) -> bytes:
    """The chunk that HDF5 stores for an image."""
    with h5py.File("in memory", "w", driver="core", backing_store=False) as file:
        filters = hdf5plugin.Bitshuffle(nelems=block)
        dataset = file.create_dataset("data", data=image[None], chunks=(1, *image.shape), **filters)
        return bytes(dataset.id.read_direct_chunk((0, 0, 0))[1])


def image_of(kind: str, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Few counts, many, and long stretches of one value."""
    rng = np.random.default_rng(seed)
    image = rng.poisson(rng.choice([0.1, 3.0, 90.0]), shape)
    image[rng.random(shape) < 0.05] = rng.integers(0, 127)
    image[: shape[0] // 3] = rng.integers(0, 127)
    return image.astype(kind)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(7, 9), (46, 61), (64, 64), (1, 5), (130, 257)])
@pytest.mark.parametrize("block", [0, 8, 64])
def test_all_pixels(kind, shape, block):
    image = image_of(kind, shape, 1)
    assert unpack_bitshuffle(packed(image, block), image.size, image.itemsize) == image.tobytes()


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(TYPES))
def test_runs(seed, kind):
    rng = np.random.default_rng(seed)
    image = image_of(kind, (int(rng.integers(1, 90)), int(rng.integers(1, 90))), seed)
    ends = np.unique(rng.integers(0, image.size + 1, 8))
    runs = [(int(a), int(b)) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    found = np.frombuffer(unpack_bitshuffle(packed(image, 64), image.size, image.itemsize, runs), image.dtype)
    for a, b in runs:
        np.testing.assert_array_equal(found[a:b], image.ravel()[a:b])


@given(data=st.data())
def test_damaged(data):
    """Never beyond the bounds, whatever is in the chunk."""
    image = image_of("u4", (46, 61), 2)
    chunk = bytearray(packed(image, 64))
    for _ in range(data.draw(st.integers(1, 4))):
        chunk[data.draw(st.integers(0, len(chunk) - 1))] = data.draw(st.integers(0, 255))
    chunk = bytes(chunk[: data.draw(st.integers(0, len(chunk)))])
    try:
        assert len(unpack_bitshuffle(chunk, image.size, 4)) == 4 * image.size
    except ValueError as error:
        assert str(error) == "its compressed image is cut off or damaged"  # noqa: PT017


@pytest.mark.parametrize("kept", [0, 11, 12, 15, 100, -1])
def test_cut_off(kept):
    image = image_of("u4", (46, 61), 3)
    chunk = packed(image)
    for damaged in (chunk[:kept], chunk + b"\0"):
        with pytest.raises(ValueError, match="cut off or damaged"):
            unpack_bitshuffle(damaged, image.size, 4)
    with pytest.raises(ValueError, match="cut off or damaged"):
        unpack_bitshuffle(chunk, image.size + 8, 4)
