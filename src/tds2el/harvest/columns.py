"""Columns of points on their way from all ranks into one file.

h5py as it comes from PyPI has no MPI. So rank 0 lays out the file, every column in one piece, and ranks that see the
same file write their parts into it as plain bytes; those on other nodes send theirs to rank 0.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.output import writing
from tds2el.parallel import World

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """A dataset of which every rank has a part.

    Attributes
    ----------
    name : str
        Its path in the file's entry, such as "points/Q".
    dtype : dtype
    width : int
        Numbers per point.
    numbers : ndarray of int, shape (ranks, blobs)
        Points of each rank and blob. In the file they are sorted by blob, and within a blob by rank.
    take : callable
        This rank's part, sorted by blob; called once.
    """

    name: str
    dtype: np.dtype[Any]
    width: int
    numbers: IntArray
    take: Callable[[], npt.NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dataset."""
        total = int(self.numbers.sum())
        return (total, self.width) if self.width > 1 else (total,)


def write_columns(
    temporary: Path | None, path: Path, option: str, columns: Sequence[Column], offsets: Mapping[str, int], world: World
) -> None:
    """Write all ranks' parts to where their bytes belong (collective).

    Parameters
    ----------
    temporary : Path or None
        The file as laid out; None on all ranks but 0.
    path : Path
        The name it is to have, chosen by `option`: for messages.
    option : str
    columns : sequence of Column
    offsets : mapping of str to int
        Position of each column's first byte.
    world : World

    Raises
    ------
    InputError
        On all ranks, if any fails to write.
    """
    error: InputError | None = None
    descriptor = _open_same(temporary, path, option, world)
    writers = world.gather_all(descriptor is not None)
    try:
        for column in columns:
            part = column.take()
            if descriptor is None:
                world.send(part, 0)
                continue
            error = _write(part, column, world.rank, descriptor, offsets, (path, option), error)
            for rank in np.flatnonzero(~np.array(writers)) if world.rank == 0 else ():
                part = np.empty((int(column.numbers[rank].sum()), *column.shape[1:]), dtype=column.dtype)
                world.receive(part, int(rank))
                error = _write(part, column, int(rank), descriptor, offsets, (path, option), error)
    finally:
        if descriptor is not None:
            try:
                with writing(path, option):
                    os.close(descriptor)
            except InputError as caught:
                error = error or caught
    world.agree(error)


def _open_same(temporary: Path | None, path: Path, option: str, world: World) -> int | None:
    """A descriptor of rank 0's file, on the ranks of its node that see the same one under its name (collective)."""

    def open_own() -> tuple[int, str] | None:
        if temporary is None:
            return None
        with writing(path, option):
            return os.open(temporary, os.O_WRONLY | os.O_CLOEXEC), str(temporary.absolute())

    own = world.attempt(open_own)
    told = world.gather_all(own and (own[1], _identity(own[0])))[0]
    if own is not None:
        return own[0]
    if world.beside_first and told is not None:
        with contextlib.suppress(OSError):
            descriptor = os.open(told[0], os.O_WRONLY | os.O_CLOEXEC)
            if _identity(descriptor) == told[1]:
                return descriptor
            os.close(descriptor)
    return None


def _identity(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size


def _write(
    part: npt.NDArray[Any],
    column: Column,
    rank: int,
    descriptor: int,
    offsets: Mapping[str, int],
    target: tuple[Path, str],
    error: InputError | None,
) -> InputError | None:
    """Write a rank's part, unless there was an error before; returns that, or the one that it meets."""
    if error is not None or not part.size:
        return error
    row = column.width * column.dtype.itemsize
    bytes_ = part.reshape(-1).view(np.uint8).data
    try:
        with writing(*target):
            for here, there, number in slices(column.numbers, rank):
                position, end = here * row, (here + number) * row
                while position < end:
                    at = offsets[column.name] + there * row + position - here * row
                    position += os.pwrite(descriptor, bytes_[position : min(end, position + (1 << 30))], at)
    except InputError as caught:
        return caught
    return None


def slices(numbers: IntArray, rank: int) -> list[tuple[int, int, int]]:
    """Where a rank's points go: (first in its part, first in the whole, how many), in as few pieces as can be."""
    of_blob = numbers.sum(axis=0)
    there = np.cumsum(of_blob) - of_blob + numbers[:rank].sum(axis=0)
    pieces: list[tuple[int, int, int]] = []
    here = 0
    for blob in np.flatnonzero(numbers[rank]):
        start, number = int(there[blob]), int(numbers[rank, blob])
        if pieces and pieces[-1][1] + pieces[-1][2] == start:
            pieces[-1] = (*pieces[-1][:2], pieces[-1][2] + number)
        else:
            pieces.append((here, start, number))
        here += number
    return pieces
