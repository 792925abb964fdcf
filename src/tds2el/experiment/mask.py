"""The mask of good pixels."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment.images import read_image, reading


def read_mask(path: str | Path, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a mask image: 1 = good pixel, 0 = discard.

    Parameters
    ----------
    path : any format that fabio reads, ``.npy``, or ``file.h5::/path/of/dataset``
    shape : (rows, columns) of the frames

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
    data = _read(name)
    if data.shape != shape:
        raise InputError(f"filter_file {name}: shape {data.shape}, but the frames have the shape {shape}")
    if data.dtype.kind == "f" and np.isnan(data).any():
        raise InputError(f"filter_file {name}: {np.isnan(data).sum()} pixels are NaN; give 1 (good) or 0 (discard)")
    good: npt.NDArray[np.bool_] = np.asarray(data == 1)
    if not np.all(good | (data == 0)):
        values = np.unique(data)
        shown = ", ".join(f"{v:g}" for v in values[:6]) + (", …" if values.size > 6 else "")
        raise InputError(f"filter_file {name}: its values are {shown}, but 1 (good) and 0 (discard) are expected")
    if not good.any():
        raise InputError(f"filter_file {name}: no good pixel; 1 means good and 0 discard")
    if 2 * np.count_nonzero(good) < good.size:
        # Masks of Fit2D and pyFAI have 1 for a bad pixel.
        logging.getLogger("tds2el").warning(
            "filter_file %s keeps only %.1f %% of the pixels: is it inverted? 1 means good, 0 discard",
            name,
            100 * np.count_nonzero(good) / good.size,
        )
    return good


def _read(name: str) -> npt.NDArray[Any]:
    file, _, dataset = name.partition("::")
    if not os.path.isfile(file):
        raise InputError(f"filter_file {file}: no such file")
    if dataset:
        with reading(f"filter_file {name}"):
            import h5py

            with h5py.File(file, "r", locking=False) as h5:
                if not isinstance(h5.get(dataset), h5py.Dataset):
                    raise InputError(f"filter_file {file}: has no dataset {dataset}")
                data = np.asarray(h5[dataset][()])
    elif file.endswith(".npy"):
        with reading(f"filter_file {name}"):
            data = np.load(file, allow_pickle=False)
    else:
        data = read_image(file)
    if data.dtype.kind not in "biuf":
        raise InputError(f"filter_file {name}: not an array of numbers but of {data.dtype}")
    return data
