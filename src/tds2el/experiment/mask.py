"""The mask of good pixels, and further masks for ranges of frames."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.images import read_image, reading


@dataclass(frozen=True)
class FrameMasks:
    """The mask of every frame of a scan.

    Attributes
    ----------
    scan : ndarray of bool, shape (rows, columns)
        What holds for all frames, True = good.
    ranges : tuple of (first, last, mask)
        What else holds for frames first to last, the last included.
    """

    scan: npt.NDArray[np.bool_]
    ranges: tuple[tuple[int, int, npt.NDArray[np.bool_]], ...] = ()

    def in_force(self, frame: int) -> tuple[int, ...]:
        """Which of the ranges hold for a frame: frames with the same ones have the same mask."""
        return tuple(i for i, (first, last, _) in enumerate(self.ranges) if first <= frame <= last)

    def mask(self, frame: int) -> npt.NDArray[np.bool_]:
        """The mask (rows, columns) of a frame, True = good."""
        chosen = self.in_force(frame)
        return np.logical_and.reduce([self.scan, *(self.ranges[i][2] for i in chosen)]) if chosen else self.scan


def read_ranges(
    ranges: Sequence[tuple[int, int, Path]], shape: tuple[int, int], n_frames: int
) -> tuple[tuple[int, int, npt.NDArray[np.bool_]], ...]:
    """Read the masks of filter_ranges, each file once.

    Parameters
    ----------
    ranges : sequence of (first frame, last frame, file)
        Frames are counted from 0 in the order of the scan; the last is included.
    shape : (rows, columns) of the frames
    n_frames : number of frames in the scan

    Raises
    ------
    InputError
        A range that goes beyond the scan; a mask that `read_mask` refuses.
    """
    masks: dict[Path, npt.NDArray[np.bool_]] = {}
    for position, (first, last, path) in enumerate(ranges, 1):
        if last >= n_frames:
            raise InputError(
                f"filter_ranges, entry {position}: frames {first} to {last}, but the scan has {n_frames} frames, "
                f"0 to {n_frames - 1}; correct the range"
            )
        if path not in masks:
            masks[path] = read_mask(path, shape, "filter_ranges")
    return tuple((first, last, masks[path]) for first, last, path in ranges)


def read_mask(path: str | Path, shape: tuple[int, int], option: str = "filter_file") -> npt.NDArray[np.bool_]:
    """Read a mask image: 1 = good pixel, 0 = discard.

    Parameters
    ----------
    path : any format that fabio reads, ``.npy``, or ``file.h5::/path/of/dataset``
    shape : (rows, columns) of the frames
    option : what named the file, for messages

    Returns
    -------
    (rows, columns) bool, True = good.

    Raises
    ------
    InputError
        The file is missing or cannot be read, has other values than 0 and 1, another shape than the frames,
        or no good pixel.
    """
    name = str(path)
    data = _read(name, option)
    if data.shape != shape:
        raise InputError(f"{option} {name}: shape {data.shape}, but the frames have the shape {shape}")
    if data.dtype.kind == "f" and np.isnan(data).any():
        raise InputError(f"{option} {name}: {np.isnan(data).sum()} pixels are NaN; give 1 (good) or 0 (discard)")
    good: npt.NDArray[np.bool_] = np.asarray(data == 1)
    if not np.all(good | (data == 0)):
        values = np.unique(data)
        shown = ", ".join(f"{v:g}" for v in values[:6]) + (", …" if values.size > 6 else "")
        raise InputError(f"{option} {name}: its values are {shown}, but 1 (good) and 0 (discard) are expected")
    if not good.any():
        raise InputError(f"{option} {name}: no good pixel; 1 means good and 0 discard")
    if 2 * np.count_nonzero(good) < good.size:
        # Masks of Fit2D and pyFAI have 1 for a bad pixel.
        logging.getLogger("tds2el").warning(
            "%s %s keeps only %.1f %% of the pixels: is it inverted? 1 means good, 0 discard",
            option,
            name,
            100 * np.count_nonzero(good) / good.size,
        )
    return good


def _read(name: str, option: str) -> npt.NDArray[Any]:
    file, _, dataset = name.partition("::")
    if not os.path.isfile(file):
        raise InputError(f"{option} {file}: no such file")
    if dataset:
        with reading(f"{option} {name}"):
            import h5py

            with h5py.File(file, "r", locking=False) as h5:
                if not isinstance(h5.get(dataset), h5py.Dataset):
                    raise InputError(f"{option} {file}: has no dataset {dataset}")
                data = np.asarray(h5[dataset][()])
    elif file.endswith(".npy"):
        with reading(f"{option} {name}"):
            data = np.load(file, allow_pickle=False)
    else:
        data = read_image(file)
    if data.dtype.kind not in "biuf":
        raise InputError(f"{option} {name}: not an array of numbers but of {data.dtype}")
    return data
