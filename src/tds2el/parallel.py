"""The processes of a run: one, or the ranks of an MPI launcher.

mpi4py is imported only when a launcher's environment says that there is more than one process: without an MPI
runtime the import fails, and with one it costs a second.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError

T = TypeVar("T")

# The number of processes, as launchers tell it: MPICH and Intel MPI, Open MPI, srun; the first that is set
# counts, since mpirun may itself use srun. SLURM_NTASKS is left out, because a plain batch script has it too.
SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "OMPI_", "MPI_LOCAL", "HYDI_", "SLURM_STEP_")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID")
# MPI counts are 32-bit; arrays travel in pieces of this many bytes.
PIECE_BYTES = 1 << 30


@dataclass(frozen=True)
class World:
    """The ranks that work together; by default the one process there is.

    Attributes
    ----------
    rank, size : int
        This process among all.
    node_rank, node_size : int
        This process among those on the same node: they share its cores and devices.
    beside_first : bool
        Whether rank 0 is on the same node.
    comm : mpi4py.MPI.Comm or None
        None for a single process.
    neighbours : int, optional
        Ranks, this one included, that may use any of its cores; by default all of the node.
    """

    rank: int = 0
    size: int = 1
    node_rank: int = 0
    node_size: int = 1
    beside_first: bool = True
    comm: Any = None
    neighbours: int | None = None

    @property
    def cores(self) -> int:
        """Cores for this rank: those that it may use, shared among the ranks that may use them too."""
        return max(1, len(os.sched_getaffinity(0)) // (self.neighbours or self.node_size))

    def agree(self, error: Exception | None) -> None:
        """Raise the error of the lowest failing rank on every rank (collective).

        Parameters
        ----------
        error : Exception or None
            What went wrong on this rank.

        Raises
        ------
        InputError
            On all ranks alike if any rank has an error.
        """
        if self.comm is None:
            if error is not None:
                raise error if isinstance(error, InputError) else InputError(str(error)) from error
            return
        if not self.sum(int(error is not None)):
            return
        messages = self.comm.allgather(None if error is None else str(error))
        raise InputError(next(message for message in messages if message is not None)) from error

    def attempt(self, task: Callable[[], T]) -> T:
        """Result of a task on every rank; InputError or OSError of any rank is raised on all (collective)."""
        error: Exception | None = None
        try:
            result = task()
        except (InputError, OSError) as caught:
            error = caught
        self.agree(error)
        return result

    def sum(self, value: int) -> int:
        """Sum of a number over the ranks (collective)."""
        return value if self.comm is None else int(self.comm.allreduce(value))

    def sum_array(self, array: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sum of an integer array over the ranks (collective)."""
        if self.comm is None:
            return array
        total = np.empty_like(array)
        self.comm.Allreduce(np.ascontiguousarray(array), total)
        return total

    def gather_all(self, value: T) -> list[T]:
        """The value of every rank, in the order of ranks (collective)."""
        return [value] if self.comm is None else list(self.comm.allgather(value))

    def send(self, array: npt.NDArray[Any], rank: int) -> None:
        """Send an array of any size to another rank, which calls `receive`."""
        for piece in _pieces(np.ascontiguousarray(array)):
            self.comm.Send(piece, dest=rank)

    def receive(self, array: npt.NDArray[Any], rank: int) -> None:
        """Fill a contiguous array with what another rank sends."""
        for piece in _pieces(array):
            self.comm.Recv(piece, source=rank)


def connect(environment: Mapping[str, str] = os.environ) -> World:
    """The world that the launcher's environment describes (collective).

    Raises
    ------
    InputError
        If a launcher started several processes but MPI is missing, or the launcher belongs to another MPI
        than mpi4py finds, so that each process would see itself alone.
    """
    variables = [name for name in SIZE_VARIABLES if environment.get(name, "").isdigit()]
    expected = int(environment[variables[0]]) if variables else 1
    if expected == 1 and (variables or "PMIX_RANK" not in environment):
        return World()
    launcher = variables[0] if variables else "PMIX_RANK"
    stated = f"{launcher} = {environment[launcher]}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mpi4py's own doubts about the launcher; ours are told below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"a launcher started several processes ({stated}) but MPI cannot be loaded ({reason}): install "
            "an MPI runtime, such as the package's extra [mpi], or start one process without a launcher"
        ) from error
    comm = MPI.COMM_WORLD
    if comm.Get_size() < expected:
        library = " ".join(MPI.Get_library_version().splitlines()[0].split(",")[0].replace("Version:", "").split())
        raise InputError(
            f"a launcher started {expected} processes ({stated}) but MPI sees {comm.Get_size()}: mpirun and "
            f"the MPI library of mpi4py belong to different MPIs; use the mpirun of {library}"
        )
    if comm.Get_size() == 1:
        return World()
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    # Launchers may give every rank cores of its own.
    cores = os.sched_getaffinity(0)
    neighbours = sum(not cores.isdisjoint(others) for others in node.allgather(cores))
    beside_first = node.allreduce(comm.Get_rank(), op=MPI.MIN) == 0
    world = World(comm.Get_rank(), comm.Get_size(), node.Get_rank(), node.Get_size(), beside_first, comm, neighbours)
    node.Free()
    return world


def launched_rank(environment: Mapping[str, str] = os.environ) -> int:
    """The rank that the launcher gave this process, for a message when MPI itself fails; 0 if there is none."""
    ranks = (environment.get(name, "") for name in RANK_VARIABLES)
    return next((int(rank) for rank in ranks if rank.isdigit()), 0)


def environment_without_launcher(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment for child processes, which inherit the launcher's variables but are no ranks."""
    return {name: value for name, value in environment.items() if not name.startswith(LAUNCHER_PREFIXES)}


def _pieces(array: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    flat = array.reshape(-1).view(np.uint8)
    return [flat[start : start + PIECE_BYTES] for start in range(0, flat.size, PIECE_BYTES)]
