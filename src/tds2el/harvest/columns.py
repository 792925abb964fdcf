"""Columns of points on their way from all ranks into one file.

h5py as it comes from PyPI has no MPI. So rank 0 lays out the file, every column in one piece, and ranks that see the
same file write their parts into it as plain bytes; those on other nodes send theirs to rank 0.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.output import writing
from tds2el.parallel import World

IntArray = npt.NDArray[np.int64]
# First in a rank's part, first in the whole, how many.
Slice = tuple[int, int, int]

LARGEST_WRITE = 1 << 30
"""Bytes; the system takes no more than 2³¹ at once."""


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
    pieces : sequence of (int, callable)
        This rank's part, sorted by blob, in pieces: place of the first point in the part, and what computes the values.
    """

    name: str
    dtype: np.dtype[Any]
    width: int
    numbers: IntArray
    pieces: Sequence[tuple[int, Callable[[], npt.NDArray[Any]]]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dataset."""
        return self._shape(int(self.numbers.sum()))

    def empty(self, rank: int) -> npt.NDArray[Any]:
        """An array for all of a rank's part."""
        return np.empty(self._shape(int(self.numbers[rank].sum())), dtype=self.dtype)

    def _shape(self, number: int) -> tuple[int, ...]:
        return (number, self.width) if self.width > 1 else (number,)


def write_columns(
    temporary: Path | None,
    path: Path,
    option: str,
    columns: Sequence[Column],
    offsets: Mapping[str, int],
    threads: int,
    world: World,
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
    threads : int
        How many pieces are computed and written at the same time.
    world : World

    Raises
    ------
    InputError
        On all ranks, if any fails to write.
    """
    descriptor = _open_same(temporary, path, option, world)
    others = [rank for rank, writes in enumerate(world.gather_all(descriptor is not None)) if not writes]
    error: InputError | None = None
    try:
        if descriptor is not None:
            error = _write_own(descriptor, (path, option), columns, offsets, threads, world.rank)
        for column in columns if others else ():
            if descriptor is None:
                world.send(np.concatenate([column.empty(world.rank)[:0], *(piece() for _, piece in column.pieces)]), 0)
            for rank in others if world.rank == 0 else ():
                part = column.empty(rank)
                world.receive(part, rank)
                if error is None and descriptor is not None:
                    places = slices(column.numbers, rank)
                    error = _write(part, 0, places, column, descriptor, offsets[column.name], (path, option))
    finally:
        if descriptor is not None:
            closed = _close(descriptor, (path, option))
            error = error or closed
    world.agree(error)


def _write_own(
    descriptor: int,
    target: tuple[Path, str],
    columns: Sequence[Column],
    offsets: Mapping[str, int],
    threads: int,
    rank: int,
) -> InputError | None:
    """Write this rank's part; returns what went wrong, if anything did."""
    failed: list[InputError] = []

    def write(task: tuple[Column, list[Slice], int, Callable[[], npt.NDArray[Any]]]) -> None:
        column, places, first, piece = task
        if not failed:
            error = _write(piece(), first, places, column, descriptor, offsets[column.name], target)
            failed.extend([error] if error else [])

    tasks = []
    for column in columns:
        places = slices(column.numbers, rank)
        tasks += [(column, places, first, piece) for first, piece in column.pieces]
    if threads == 1:
        for task in tasks:
            write(task)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, tasks))
    return failed[0] if failed else None


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
    values: npt.NDArray[Any],
    first: int,
    places: list[Slice],
    column: Column,
    descriptor: int,
    offset: int,
    target: tuple[Path, str],
) -> InputError | None:
    """Write points of a part, from its point `first` on, to the part's places; returns what went wrong, if anything."""
    if not values.size:
        return None
    row = column.width * column.dtype.itemsize
    bytes_ = np.ascontiguousarray(values, dtype=column.dtype).reshape(-1).view(np.uint8).data
    try:
        with writing(*target):
            for here, there, number in places:
                begin, end = max(here, first), min(here + number, first + len(values))
                at, stop = (begin - first) * row, (end - first) * row
                shift = offset + (there + begin - here) * row - at
                while at < stop:
                    at += os.pwrite(descriptor, bytes_[at : min(stop, at + LARGEST_WRITE)], at + shift)
    except InputError as caught:
        return caught
    return None


def _close(descriptor: int, target: tuple[Path, str]) -> InputError | None:
    """Close the file; returns what went wrong, which a file system over a network may say only now."""
    try:
        with writing(*target):
            os.close(descriptor)
    except InputError as caught:
        return caught
    return None


def slices(numbers: IntArray, rank: int) -> list[Slice]:
    """Where a rank's points go, in as few pieces as can be."""
    of_blob = numbers.sum(axis=0)
    there = np.cumsum(of_blob) - of_blob + numbers[:rank].sum(axis=0)
    pieces: list[Slice] = []
    here = 0
    for blob in np.flatnonzero(numbers[rank]):
        start, number = int(there[blob]), int(numbers[rank, blob])
        if pieces and pieces[-1][1] + pieces[-1][2] == start:
            pieces[-1] = (*pieces[-1][:2], pieces[-1][2] + number)
        else:
            pieces.append((here, start, number))
        here += number
    return pieces
