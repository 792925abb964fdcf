"""Any number that the headers of a series of frames hold: a keyword, a counter, a dataset."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment import images

Array = npt.NDArray[np.float64]

_NUMBER = rb"[\s=:]+([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"


class HeaderValues:
    """The headers of files of frames, each read once.

    Parameters
    ----------
    files : sequence of str
        In the order of the scan.
    n_frames : sequence of int
        Frames of each file.

    Attributes
    ----------
    files : list of str
    n_frames : list of int

    Raises
    ------
    InputError
        A file that cannot be read.
    """

    def __init__(self, files: Sequence[str], n_frames: Sequence[int]) -> None:
        self.files, self.n_frames = list(files), list(n_frames)
        self._texts: list[list[bytes] | None] = []  # of each frame of a file; None: HDF5
        for path, n in zip(self.files, self.n_frames, strict=True):
            head = images.file_head(path)
            if images.is_hdf5(head):
                self._texts.append(None)
            elif n == 1:
                self._texts.append([head])
            else:
                with contextlib.closing(images.ImageFile(path)) as image:
                    self._texts.append([image.header(i).encode() for i in range(n)])

    def values(self, key: str) -> Array | None:
        """The value of a key in every frame, or None if the first file does not have it.

        Parameters
        ----------
        key : str
            A keyword of a header, the name of a counter in an EDF file (among ``counter_mne``), or the path of a
            dataset in an HDF5 file that has one value for each frame or one for all.

        Raises
        ------
        InputError
            A later file does not have it, or a dataset has another number of values.
        """
        found: list[Array] = []
        for path, n, texts in zip(self.files, self.n_frames, self._texts, strict=True):
            own = _of_dataset(path, key, n) if texts is None else _of_texts(texts, key)
            if own is None:
                if not found:
                    return None
                raise InputError(f"{path}: no {key} in its header, which other frames have; leave the frame out")
            found.append(own)
        return np.concatenate(found)


def _of_texts(texts: list[bytes], key: str) -> Array | None:
    values = [_of_text(text, key) for text in texts]
    return None if None in values else np.array(values, dtype=np.float64)


def _of_text(text: bytes, key: str) -> float | None:
    match = re.search(rb"^[#\s]*" + re.escape(key.encode()) + _NUMBER, text, re.MULTILINE)
    if match:
        return float(match[1])
    names, places = (re.search(rb"^\s*counter_" + end + rb"[\s=:]+([^;\n]*)", text, re.M) for end in (b"mne", b"pos"))
    if names and places and key.encode() in names[1].split():
        with contextlib.suppress(IndexError, ValueError):
            return float(places[1].split()[names[1].split().index(key.encode())])
    return None


def _of_dataset(path: str, key: str, n_frames: int) -> Array | None:
    with images.reading(path):
        import h5py

        with h5py.File(path, "r", locking=False) as file:
            dataset = file.get(key)
            if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "biuf":
                return None
            values = np.asarray(dataset[()], dtype=np.float64).ravel()
    if values.size == 1:
        return np.full(n_frames, values[0])
    if values.size != n_frames:
        raise InputError(
            f"{path}: {key} has {values.size} values, but there are {n_frames} frames; name another header_key"
        )
    return values
