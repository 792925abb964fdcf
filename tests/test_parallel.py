"""Launchers that lie, MPI that is missing, and ranks that fail."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tds2el import parallel
from tds2el.errors import InputError
from tds2el.parallel import World, connect, environment_without_launcher, launched_rank

MPIRUN = Path(sys.executable).parent / "mpirun"
needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")


def python(program, *launcher, **environment):
    return subprocess.run(
        [*map(str, launcher), sys.executable, "-c", program],
        env=environment_without_launcher() | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    "environment", [{}, {"SLURM_NTASKS": "16"}, {"PMI_SIZE": "1"}, {"PMI_SIZE": "1", "SLURM_STEP_NUM_TASKS": "2"}]
)
def test_one_process_needs_no_mpi(monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert connect(environment) == World(rank=0, size=1, node_rank=0, node_size=1, comm=None)


@pytest.mark.parametrize(
    "environment",
    [{"PMI_SIZE": "2"}, {"OMPI_COMM_WORLD_SIZE": "4"}, {"SLURM_STEP_NUM_TASKS": "2"}, {"PMIX_RANK": "0"}],
)
def test_several_processes_need_mpi(monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    name, value = next(iter(environment.items()))
    with pytest.raises(InputError, match=rf"{name} = {value}.* MPI cannot be loaded"):
        connect(environment)


@needs_mpirun
def test_launcher_of_another_mpi():
    done = python("from tds2el.parallel import connect; connect()", OMPI_COMM_WORLD_SIZE="2")
    assert "a launcher started 2 processes (OMPI_COMM_WORLD_SIZE = 2) but MPI sees 1" in done.stderr


def test_an_error_on_the_only_process_is_raised_as_it_is():
    error = InputError("here")
    with pytest.raises(InputError) as caught:
        World().agree(error)
    assert caught.value is error
    with pytest.raises(InputError, match="disk"):
        World().attempt(lambda: (_ for _ in ()).throw(OSError("disk")))
    assert World().attempt(lambda: 3) == 3


@needs_mpirun
def test_all_ranks_raise_the_lowest_failing_ranks_error():
    program = """
import os
from tds2el.errors import InputError
from tds2el.parallel import connect
world = connect()
world.agree(None)
try:
    world.agree(InputError(f"from rank {world.rank}") if world.rank in (1, 2) else None)
except InputError as error:
    line = f"{world.rank} of {world.size}, {world.node_rank} of {world.node_size}: {error}\\n"
    os.write(1, line.encode())
"""
    done = python(program, MPIRUN, "-n", "3")
    assert sorted(done.stdout.splitlines()) == [f"{r} of 3, {r} of 3: from rank 1" for r in range(3)], done.stderr


@needs_mpirun
@pytest.mark.parametrize(("first", "cores"), [("8 * rank", "8 8 8"), ("8 * (rank // 2)", "4 4 8"), ("0", "2 2 2")])
def test_ranks_share_the_cores_that_they_have_in_common(first, cores):
    """Each with its own 8, two on the same 8, all on the same."""
    program = f"""
import os
rank = int(os.environ["PMI_RANK"])
os.sched_getaffinity = lambda _: set(range({first}, {first} + 8))
from tds2el.parallel import connect
world = connect()
found = world.gather_all(world.cores)
if world.rank == 0:
    print(*found)
"""
    assert python(program, MPIRUN, "-n", "3").stdout.strip() == cores


@needs_mpirun
def test_arrays_travel_in_pieces():
    program = """
import numpy as np
from tds2el import parallel
parallel.PIECE_BYTES = 1000
world = parallel.connect()
array = np.arange(3 * 777.0).reshape(777, 3)
if world.rank:
    world.send(array, 0)
else:
    received = np.zeros_like(array)
    world.receive(received, 1)
    print(np.array_equal(array, received))
"""
    assert python(program, MPIRUN, "-n", "2").stdout.split() == ["True"]


def test_pieces_cover_an_array():
    array = np.arange(10.0)
    pieces = parallel._pieces(array)
    assert b"".join(piece.tobytes() for piece in pieces) == array.tobytes()
    assert parallel._pieces(np.empty((0, 3))) == []


def test_rank_for_a_message_when_mpi_fails():
    assert launched_rank({}) == 0
    assert launched_rank({"OMPI_COMM_WORLD_RANK": "3", "SLURM_PROCID": "0"}) == 3


def test_child_processes_are_no_ranks():
    environment = {"PMI_SIZE": "2", "PMIX_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "PATH": "/bin", "HOME": "/"}
    assert environment_without_launcher(environment) == {"PATH": "/bin", "HOME": "/"}
