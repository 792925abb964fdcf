"""One detector image file: reading it through fabio, with every way it can be broken turned into one line.

fabio knows the formats. What it does not do is guarded against here: a CBF cut in its header makes fabio's
reader loop for ever, a truncated EDF is padded with zeros (and a zero is data), an HDF5 master whose data
file is missing silently has fewer frames, and all of them log lines of their own.
"""

import base64
import bz2
import contextlib
import gzip
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError

_HEAD_BYTES = 16384
_HEAD_LIMIT = 1 << 20
_CBF_STARTER = b"\x0c\x1a\x04\xd5"
_CBF_SIZE = re.compile(rb"X-Binary-Size:\s*(\d+)")
_CBF_MD5 = re.compile(rb"Content-MD5:\s*([A-Za-z0-9+/=]+)")
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Bitshuffle among the registered filters of HDF5, and LZ4 among its compressions.
_BITSHUFFLE, _LZ4 = 32008, 2
# Little-endian, as this code's machines are.
_PIXEL_TYPES = [np.dtype(f"<{kind}") for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8")]

Chunk = tuple[str, int, int, np.dtype[Any]]
"""File, offset and size in bytes, and type of a frame that bitshuffle and LZ4 have packed."""


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Silence fabio's log and turn any error into one InputError that names ``name``."""
    log = logging.getLogger("fabio")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with _told(name):
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn any error into one InputError that names ``name``: for bytes that fabio does not see."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: the file does not exist (any more)") from error
    except Exception as error:
        # fabio and h5py raise anything from AssertionError to bare Exception on a damaged file
        reason = (str(error).strip() or "damaged or not an image").splitlines()[0]
        raise InputError(f"{name}: cannot be read: {reason}") from error


def file_heads(paths: Sequence[str], threads: int = 1) -> tuple[npt.NDArray[np.float64], dict[int, bytes | None]]:
    """What headers of files say, read as cheaply as possible: a series has thousands of files.

    Returns
    -------
    numbers : ndarray, shape (files, 3)
        Start angle and increment in degrees and count cutoff, as `header_numbers` finds them; NaN where there is none.
    heads : dict
        Of files that are no whole, plain CBFs, by index: their first bytes, decompressed, of a CBF its header; None of
        a folder.

    Raises
    ------
    InputError
        A file that cannot be read; a CBF that is not as long as its header says.
    """
    from tds2el._core import file_heads, header_numbers

    numbers, others = file_heads(list(paths), threads)
    heads: dict[int, bytes | None] = {}
    for i, found in others.items():
        heads[i] = None
        if found is not None or not os.path.isdir(paths[i]):
            head = _checked_head(paths[i], found)
            heads[i], numbers[i] = head, header_numbers(head)
    return numbers, heads


def file_head(path: str) -> bytes:
    """First bytes of a (perhaps compressed) file; of a CBF, which is to be complete, its header.

    Raises
    ------
    InputError
        A file that cannot be read; a CBF that is not as long as its header says.
    """
    return _checked_head(path, None)


def _checked_head(path: str, found: tuple[bytes, int] | None) -> bytes:
    packed = path.endswith((".gz", ".bz2"))
    if found is None or packed:
        found = _head(path)
    head, size = found
    if not is_cbf(path, head):
        return head
    start = head.find(_CBF_STARTER)
    header = head[: max(start, 0)]
    announced = _CBF_SIZE.search(header)
    if start < 0 or announced is None:
        raise InputError(f"{path}: not a CBF, or cut off in its header; copy the file again or leave it out")
    there = size - start - len(_CBF_STARTER)
    if there < int(announced[1]) and not packed:  # a decompressor notices the missing end
        raise InputError(
            f"{path}: truncated, {max(there, 0)} of {int(announced[1])} bytes of its image are there; "
            "copy the file again or leave it out"
        )
    return header


def _head(path: str) -> tuple[bytes, int]:
    """First bytes and size of what is no plain file, or of none at all."""
    with _told(path), _open(path) as stream:
        head = stream.read(_HEAD_BYTES)
        if is_cbf(path, head):
            while _CBF_STARTER not in head and len(head) < _HEAD_LIMIT:
                block = stream.read(_HEAD_BYTES)
                if not block:
                    break
                head += block
        return head, os.stat(path).st_size


def _open(path: str) -> BinaryIO:
    if path.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.endswith(".bz2"):
        return cast(BinaryIO, bz2.open(path, "rb"))
    return open(path, "rb", buffering=0)


def is_cbf(path: str, head: bytes) -> bool:
    """True for a CBF, by content or name (an empty one must not reach fabio's reader either)."""
    return head.startswith(b"###CBF") or re.search(r"\.cbf(\.gz|\.bz2)?$", path, re.IGNORECASE) is not None


def is_hdf5(head: bytes) -> bool:
    """True for an HDF5 file."""
    return head.startswith(_HDF5_MAGIC)


def read_image(path: str) -> npt.NDArray[Any]:
    """Read a file that holds one image.

    Returns
    -------
    (rows, columns) array, as stored, in native byte order.

    Raises
    ------
    InputError
        The file is missing, truncated, damaged or not one two-dimensional image.
    """
    _, heads = file_heads([path])
    if not heads or is_cbf(path, heads[0] or b""):
        if (counts := _read_byte_offset(path)) is not None:
            return counts
        with reading(path):
            from fabio.cbfimage import CbfImage

            # The checksum would double the time; a truncated file has been found above.
            return _plain(CbfImage().read(path, check_MD5=False).data, path)
    with contextlib.closing(ImageFile(path)) as image:
        if image.n_frames != 1:
            raise InputError(f"{path}: holds {image.n_frames} frames where one is expected")
        return image.frame(0)


def _read_byte_offset(path: str) -> npt.NDArray[np.int32] | None:
    """The image of a plain CBF with byte-offset compression of 32-bit integers, which needs no fabio."""
    from tds2el._core import read_cbf

    try:
        return read_cbf(path)
    except ValueError as error:
        raise damaged(path, str(error)) from error


def damaged(name: str, reason: str) -> InputError:
    """The error to raise for a frame whose data are not what they should be."""
    return InputError(f"{name}: damaged: {reason}; copy the file again or leave it out")


def check_md5(path: str) -> None:
    """Raise InputError if the binary section of a CBF does not have the checksum that its header announces.

    Other formats, and a CBF whose header has none, pass.
    """
    with _told(path), _open(path) as stream:
        data = stream.read()
    start = data.find(_CBF_STARTER)
    if not is_cbf(path, data[:_HEAD_BYTES]) or start < 0:
        return
    announced, size = (pattern.search(data, 0, start) for pattern in (_CBF_MD5, _CBF_SIZE))
    if announced is None or size is None:
        return
    start += len(_CBF_STARTER)
    found = base64.b64encode(hashlib.md5(data[start : start + int(size[1])], usedforsecurity=False).digest())
    if found != announced[1]:
        raise damaged(path, "its image does not have the checksum that its header announces")


class ImageFile:
    """An open image file of one or more frames (EDF stack, Eiger master, TIFF, …; not CBF).

    Raises
    ------
    InputError
        The file is missing, truncated, damaged or of no format that fabio knows.
    """

    n_frames: int

    def __init__(self, path: str) -> None:
        self.path = path
        self._image: Any = None
        self._taken: set[int] = set()
        self._packed: list[_PackedDataset] | None = None
        self._load()

    def _load(self) -> None:
        self.close()
        with reading(self.path):
            import fabio

            self._image = fabio.open(self.path)
            self.n_frames = self._image.nframes
        if getattr(self._image, "incomplete_file", False):
            self.close()
            raise InputError(f"{self.path}: truncated; copy the file again or leave it out")

    def frame(self, index: int) -> npt.NDArray[Any]:
        """Frame ``index`` as a (rows, columns) array in native byte order."""
        name = self.path if self.n_frames == 1 else f"{self.path}::{index}"
        if index in self._taken:
            self._load()
        with reading(name):
            from fabio.edfimage import EdfImage

            frame = self._frame(index)
            data = _plain(frame.data, name)
            if isinstance(frame, EdfImage):
                # fabio would keep every frame of the stack in memory, and cannot read one again once dropped
                frame.data = None
                self._taken.add(index)
        return data

    def chunk(self, index: int, shape: tuple[int, int]) -> Chunk | None:
        """Where the bytes of frame ``index`` of an Eiger file are, if bitshuffle and LZ4 have packed it by itself.

        None for any other frame, one of another shape too.
        """
        with _told(f"{self.path}::{index}"):
            if self._packed is None:
                self._packed = _packed_datasets(self._image)
            for dataset in self._packed:
                if index < dataset.n_frames:
                    return dataset.chunk(index) if dataset.shape == shape else None
                index -= dataset.n_frames
        return None

    def header(self, index: int) -> str:
        """Header of frame ``index`` as text, one ``key value`` a line."""
        with reading(self.path):
            return "\n".join(f"{key} {value}" for key, value in self._frame(index).header.items())

    def _frame(self, index: int) -> Any:
        return self._image if self.n_frames == 1 else self._image.getframe(index)

    def close(self) -> None:
        """Close the file."""
        if self._image is not None:
            self._image.close()
        self._image = self._packed = None
        self._taken = set()


class _PackedDataset:
    """A dataset of an Eiger file, with what does not differ from frame to frame asked once."""

    def __init__(self, dataset: Any) -> None:
        self._id, self._file, self._dtype = dataset.id, dataset.file.filename, dataset.dtype
        self.n_frames, self.shape = len(dataset), dataset.shape[1:]
        pack = dataset.id.get_create_plist()
        self._plain = False
        if dataset.chunks == (1, *self.shape) and pack.get_nfilters() == 1 and not dataset.file.userblock_size:
            number, _, options, _ = pack.get_filter(0)
            # The filter's options: its version (2 numbers), size of an element, size of a block, compression.
            packed = number == _BITSHUFFLE and len(options) > 4 and options[4] == _LZ4
            self._plain = packed and self._dtype in _PIXEL_TYPES

    def chunk(self, index: int) -> Chunk | None:
        if not self._plain:
            return None
        info = self._id.get_chunk_info_by_coord((index, 0, 0))
        if info.byte_offset is None or info.filter_mask:
            return None
        return self._file, info.byte_offset, info.size, self._dtype


def _packed_datasets(image: Any) -> list[_PackedDataset]:
    """The datasets of an Eiger file that fabio has opened, in the order of its frames; none if it is no such file."""
    from fabio.eigerimage import EigerImage

    if not isinstance(image, EigerImage) or any(dataset.ndim != 3 for dataset in image.dataset):
        return []
    return [_PackedDataset(dataset) for dataset in image.dataset]


def _plain(data: Any, name: str) -> npt.NDArray[Any]:
    """Check that ``data`` is a two-dimensional array of numbers and make it contiguous and native."""
    if data is None or not isinstance(data, np.ndarray):
        raise InputError(f"{name}: cannot be read: truncated, damaged or not an image")
    if data.ndim != 2 or data.dtype.kind not in "biuf":
        raise InputError(f"{name}: not a two-dimensional image of numbers (shape {data.shape}, {data.dtype})")
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
