"""The command line under a launcher, beside a wrong one, and without MPI; runs that are killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import tds2el

PACKAGES = Path(tds2el.__file__).parents[1]
"""Where this process has the package from; others are to test the same one, from whatever folder."""
MPIRUN = Path(sys.executable).parent / "mpirun"
needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")


def data_of(path):
    """Every dataset but the record of the process itself, such as its date."""
    found = {}
    with h5py.File(path) as file:
        file["entry"].visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return {name: value for name, value in found.items() if not name.startswith("process/")}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            assert value.dtype == other[name].dtype
            assert value.tobytes() == other[name].tobytes(), name
        else:
            assert np.all(value == other[name]), name


@needs_mpirun
@pytest.mark.parametrize("ranks", [2, 3])
def test_harvest_is_the_same_for_any_number_of_ranks(scan, process, ranks):
    command = ["scan/input.par", "--set", "save_to_file=scan/harvest.h5", "show_hkls=1"]
    serial = process(command, scan.folder.parent)
    one = data_of(scan.harvest)
    assert one["points/counts"].size > 3000
    scan.harvest.unlink()
    outcome = process(command, scan.folder.parent, ranks)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == serial.out  # one rank speaks
    assert_same(one, data_of(scan.harvest))


@needs_mpirun
def test_simulated_frames_are_the_same_for_two_ranks(scan, process):
    (scan.folder.parent / "scan.par").write_text(scan.text.replace('"scan"', '"new"'), encoding="utf-8")
    outcome = process(["simulate-scan", "scan.par"], scan.folder.parent, 2)
    assert (outcome.code, outcome.err) == (0, "")
    for path in (scan.folder / "frames").iterdir():
        assert (scan.folder.parent / "new" / "frames" / path.name).read_bytes() == path.read_bytes()


@needs_mpirun
def test_fit_on_two_ranks(scan, process):
    command = ["scan/input.par", "--set", "fitSpots=1", "doMinimisation=1", scan.guess()]
    results = []
    for ranks in (1, 2):
        outcome = process(command, scan.folder.parent, ranks)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.count("ELASTIC CONSTANTS") == 1
        lines = (scan.folder / "parametri.txt").read_text(encoding="utf-8").splitlines()
        results.append([float(line.split()[2]) for line in lines if line.startswith("A")])
        (scan.folder / "parametri.txt").unlink()
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)
    assert len(results[0]) == 6


@needs_mpirun
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("fault", ["option", "frame", "fit"])
def test_an_error_ends_all_ranks(scan, process, ranks, fault):
    """A mistake that all ranks see, one that a single rank meets while it reads, one in rank 0's own part."""
    overrides = {
        "option": ["nred=0"],
        "frame": ["frame_angle=number"],
        "fit": ["fitSpots=1", "load_from_file=scan/harvest.h5", "doMinimisation=1", scan.guess(), "device=7:3"],
    }[fault]
    if fault == "frame":
        from fabio.cbfimage import CbfImage

        CbfImage(data=np.zeros((20, 30), dtype=np.int32)).write(str(scan.frame(scan.visited)))
    before = scan.contents()
    start = time.monotonic()
    outcome = process(["scan/input.par", "--set", *overrides], scan.folder.parent, ranks)
    assert time.monotonic() - start < 30
    assert outcome.code == 2
    assert {"option": "nred = 0", "frame": scan.frame(scan.visited).name, "fit": "device = '7:3'"}[
        fault
    ] in outcome.error
    assert scan.contents() == before


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_launcher_of_another_mpi(scan, process, name):
    before = scan.contents()
    outcome = process(["scan/input.par"], scan.folder.parent, **{name: "2"})
    assert outcome.code == 2
    assert "a launcher started" in outcome.error
    assert f"{name} = 2" in outcome.error
    assert scan.contents() == before
    assert not (scan.folder / "tds2el.log").exists()


def test_launcher_of_another_mpi_one_rank_speaks(scan, process):
    outcome = process(["scan/input.par"], scan.folder.parent, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1")
    assert (outcome.code, outcome.out, outcome.err) == (2, "", "")


def test_a_launcher_of_one_process_needs_no_mpi(scan, process):
    outcome = process(["scan/input.par", "--set", "nred=0"], scan.folder.parent, PMI_SIZE="1")
    assert "nred = 0" in outcome.error


@pytest.fixture(params=["missing", "no_runtime"])
def without_mpi(request, tmp_path, process):
    """Runs the command line where mpi4py is missing, or finds no MPI runtime."""
    stub = tmp_path / "stub" / "mpi4py"
    stub.mkdir(parents=True)
    if request.param == "missing":
        (stub / "__init__.py").write_text("raise ImportError('mpi4py is not here')", encoding="utf-8")
    else:
        (stub / "__init__.py").touch()
        (stub / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')", encoding="utf-8")
    path = os.pathsep.join([str(stub.parent), str(PACKAGES)])
    return lambda *arguments, **environment: process(arguments, tmp_path, PYTHONPATH=path, **environment)


def test_one_process_works_without_mpi(scan, without_mpi):
    before = data_of(scan.harvest)
    scan.harvest.unlink()
    outcome = without_mpi("scan/input.par", "--set", "save_to_file=scan/harvest.h5")
    assert (outcome.code, outcome.err) == (0, "")
    after = data_of(scan.harvest)
    assert np.array_equal(after["points/counts"], before["points/counts"])


def test_several_processes_without_mpi_end_before_any_file(scan, without_mpi):
    before = scan.contents()
    outcome = without_mpi("scan/input.par", PMI_SIZE="2")
    assert outcome.code == 2
    assert "MPI cannot be loaded" in outcome.error
    assert "[mpi]" in outcome.error
    assert scan.contents() == before
    assert not (scan.folder / "tds2el.log").exists()


# Killed

KILLED = """
import os, signal, sys
from tds2el.cli.main import main
from tds2el.harvest import columns
write = columns._write
def write_and_die(values, first, places, column, *arguments):
    write(values, first, places, column, *arguments)
    if column.name == "points/row":
        os.kill(os.getpid(), signal.SIGKILL)
columns._write = write_and_die
sys.exit(main())
"""


def test_killed_while_it_writes(scan, process):
    before = scan.harvest.read_bytes()
    names = {path.name for path in scan.folder.iterdir()}
    outcome = process(["scan/input.par"], scan.folder.parent, program=("-c", KILLED))
    assert outcome.code == -signal.SIGKILL
    assert scan.harvest.read_bytes() == before
    left = {path.name for path in scan.folder.iterdir()} - names - {"tds2el.log"}
    assert all(name.startswith(".") and name.endswith(".partial") for name in left)
    points = data_of(scan.harvest)["points/Q"]
    assert process(["scan/input.par"], scan.folder.parent).code == 0
    assert np.array_equal(data_of(scan.harvest)["points/Q"], points)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_mpirun)])
def test_interrupted_while_it_reads(scan, ranks):
    """A frame that never comes, here a pipe that nobody writes to, is waited for until Ctrl-C."""
    scan.frame(scan.visited).unlink()
    os.mkfifo(scan.frame(scan.visited))
    before = scan.harvest.read_bytes()
    launcher = [str(MPIRUN), "-n", str(ranks)] if ranks > 1 else []
    with subprocess.Popen(
        [*launcher, sys.executable, "-m", "tds2el", "scan/input.par"],
        env=os.environ | {"PYTHONPATH": str(PACKAGES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        opened = None
        try:
            while opened is None:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
                with contextlib.suppress(OSError):  # until the run opens it to read
                    opened = os.open(scan.frame(scan.visited), os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.3)  # until it waits: Python sees a signal just before a blocking call only after the call
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            os.close(opened)
        finally:
            process.kill()  # or a failure would be waited for without end
    assert process.returncode == 130
    assert "Traceback" not in err
    assert scan.harvest.read_bytes() == before
    assert not list(scan.folder.glob(".*.partial"))


VANISHING = """
import sys
from tds2el.cli.main import main
from tds2el.experiment.frames import FrameSeries
sources = FrameSeries.sources
def sources_while_frames_move(self, frames):
    for path in (self.names[n] for n in frames):
        if path.endswith("{name}"):
            os.rename(path, path + ".moved")
    return sources(self, frames)
FrameSeries.sources = sources_while_frames_move
sys.exit(main())
"""


@needs_mpirun
def test_a_frame_that_one_rank_finds_gone_ends_all(scan, process):
    before = scan.harvest.read_bytes()
    frame = scan.frame(scan.visited)
    program = "import os" + VANISHING.format(name=frame.name)
    outcome = process(["scan/input.par"], scan.folder.parent, 2, program=("-c", program))
    assert outcome.code == 2
    assert f"{frame.name}: the file does not exist" in outcome.error
    assert scan.harvest.read_bytes() == before


ONE_INTERRUPTED = """
import os, sys
from tds2el.cli.main import main
from tds2el.harvest.gather import FrameGatherer
def interrupted(*arguments):
    raise KeyboardInterrupt
if os.environ["PMI_RANK"] == "1":
    FrameGatherer.read = interrupted
sys.exit(main())
"""


@needs_mpirun
def test_an_interrupt_of_one_rank_ends_all(scan, process):
    before = scan.harvest.read_bytes()
    outcome = process(["scan/input.par"], scan.folder.parent, 2, program=("-c", ONE_INTERRUPTED))
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert scan.harvest.read_bytes() == before


FULL_DISK = """
import resource, sys
from tds2el.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
sys.exit(main())
"""


def test_a_full_disk_leaves_the_old_harvest(scan, process):
    before = scan.contents()
    outcome = process(["scan/input.par"], scan.folder.parent, program=("-c", FULL_DISK.format(size=120_000)))
    assert outcome.code == 2
    assert "save_to_file" in outcome.error
    assert "cannot be written" in outcome.error
    assert scan.contents() == before


def test_a_full_disk_leaves_the_old_results(scan, process):
    for old in ("parametri.txt", "tds2el_fit.h5"):
        (scan.folder / old).write_bytes(b"earlier results")
    before = scan.contents()
    outcome = process(
        ["scan/input.par", "--set", "fitSpots=1", "load_from_file=scan/harvest.h5", scan.guess(), "device=numpy"],
        scan.folder.parent,
        program=("-c", FULL_DISK.format(size=1000)),
    )
    assert outcome.code == 2
    assert "parametri.txt cannot be written" in outcome.error
    assert outcome.err.count("tds2el.log cannot be written") == 1
    assert scan.contents() == before
