"""An array of sums that all ranks of a node have together, so that memory does not grow with the ranks."""

from __future__ import annotations

import math
import os
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.parallel import World

IntArray = npt.NDArray[np.int64]

# Where MPI keeps what ranks share, on Linux.
_SHARED_FOLDER = "/dev/shm"
# MPI counts are 32-bit.
_PIECE = 1 << 27


class NodeSums:
    """Whole numbers, 0 at first, to which all ranks of a node add; a context manager (collective).

    Adding is up to the ranks, by atomic operations if `shared`.

    Parameters
    ----------
    shape : tuple of int
    world : World

    Attributes
    ----------
    array : ndarray of int64
    shared : bool
        Whether other ranks add to it too.

    Raises
    ------
    InputError
        On all ranks if a node does not have the memory.
    """

    def __init__(self, shape: tuple[int, ...], world: World) -> None:
        self._window: Any = None
        self._node: Any = None
        self._leaders: Any = None
        self.shared = False
        if world.comm is None:
            self.array: IntArray = world.attempt(lambda: _zeros(shape))
            return
        from mpi4py import MPI

        self._node = _ranks_of_node(world.comm)
        first = self._node.Get_rank() == 0
        self._leaders = world.comm.Split(0 if first else MPI.UNDEFINED, world.rank)
        self.shared = self._node.Get_size() > 1
        size = 8 * math.prod(shape)
        # Every rank makes the same calls, also one that is alone on its node.
        world.attempt(lambda: _check_shared_memory(size) if self.shared and first else None)

        def allocate() -> IntArray:
            if not self.shared:
                return _zeros(shape)
            try:
                self._window = MPI.Win.Allocate_shared(size if first else 0, 8, comm=self._node)
            except MPI.Exception as error:
                raise InputError(f"volume_memory: ranks cannot share {size / 1e9:.2g} GB; set it lower") from error
            return np.frombuffer(self._window.Shared_query(0)[0], dtype=np.int64).reshape(shape)

        self.array = world.attempt(allocate)
        if first:
            self.array[...] = 0
        self.wait()

    def wait(self) -> None:
        """Until all ranks of the node have come here, and see what the others have added (collective)."""
        if self._window is not None:
            self._window.Fence()

    def clear(self) -> None:
        """Back to 0 (collective)."""
        self.wait()
        if self._node is None or self._node.Get_rank() == 0:
            self.array[...] = 0
        self.wait()

    def to_first(self) -> None:
        """Add what all nodes have to that of rank 0, and set the others' to 0 (collective)."""
        from_others = self._leaders is not None and bool(self._leaders) and self._leaders.Get_size() > 1
        self.wait()
        if from_others:
            from mpi4py import MPI

            root = self._leaders.Get_rank() == 0
            flat = self.array.reshape(-1)
            for start in range(0, flat.size, _PIECE):
                piece = flat[start : start + _PIECE]
                self._leaders.Reduce(MPI.IN_PLACE if root else piece, piece if root else None)
            if not root:
                flat[...] = 0
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, InputError):
            return  # this rank alone: the others would wait for it
        del self.array
        for held in (self._window, self._leaders, self._node):
            if held is not None and held:
                held.Free()


def _ranks_of_node(comm: Any) -> Any:
    """The ranks that can share memory, rank 0 of all being the first of its node."""
    from mpi4py import MPI

    return comm.Split_type(MPI.COMM_TYPE_SHARED)


def _zeros(shape: tuple[int, ...]) -> IntArray:
    try:
        return np.zeros(shape, dtype=np.int64)
    except MemoryError as error:
        raise InputError(
            f"volume_memory: the system does not give {8 * math.prod(shape) / 1e9:.2g} GB; set it lower"
        ) from error


def _check_shared_memory(size: int) -> None:
    """What is too large for the folder is noticed only when it is written to, by a signal that ends the process."""
    if not os.path.isdir(_SHARED_FOLDER):
        return
    status = os.statvfs(_SHARED_FOLDER)
    free = status.f_bavail * status.f_frsize
    if size > free:
        raise InputError(
            f"the ranks of a node share {size / 1e9:.2g} GB, but {_SHARED_FOLDER} has {free / 1e9:.2g} GB left: set "
            f"volume_memory = {0.9 * free / 1e9:.2g}, make {_SHARED_FOLDER} larger, or start one rank per node"
        )
