"""Several ranks, on one node or more: the same bytes as one, and one end for all when one fails."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

MPIRUN = Path(sys.executable).parent / "mpirun"
# Ends as the command line does: one line from rank 0, exit code 2 on every rank.
PROGRAM = """
import sys
from tds2el.errors import InputError
from tds2el.parallel import connect
from tds2el.settings import load_settings
from tds2el.volume.reconstruct import reconstruct
world = connect()
try:
    reconstruct(world.attempt(lambda: load_settings(sys.argv[1])), world)
except InputError as error:
    if world.rank == 0:
        print(error, file=sys.stderr)
    sys.exit(2)
"""
# Ranks beyond the first are on a node of their own, as far as memory goes.
APART = """
from tds2el import node_memory
node_memory._ranks_of_node = lambda comm: comm.Split(int(comm.Get_rank() > 0), comm.Get_rank())
"""

pytestmark = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")


def run(scan, ranks, before=""):
    command = [MPIRUN, "-n", str(ranks)] if ranks > 1 else []
    return subprocess.run(
        [*map(str, command), sys.executable, "-c", before + PROGRAM, str(scan.folder / "input.par")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        file["entry"].visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return {name: value for name, value in found.items() if not name.startswith("process")}


def with_everything(scan):
    """Background, masks for ranges, microsteps, symmetry."""
    from fabio.cbfimage import CbfImage

    rng = np.random.default_rng(2)
    CbfImage(data=rng.poisson(4.0, scan.mask.shape).astype(np.int32)).write(str(scan.folder / "empty_1.cbf"))
    (scan.folder / "empty.txt").write_text("empty_1.cbf 3.5\n")
    scan.ranges = [(9, 21, rng.random(scan.mask.shape) > 0.4)]
    return {
        "background_prefix": "empty_", "background_postfix": ".cbf", "background_normalisation_file": "empty.txt",
        "microsteps": 2, "volume_symmetrise": 1, "ascii_generators": "1~", "volume_shape": 21,
    }  # fmt: skip


@pytest.mark.parametrize("prepare", [lambda scan: {"volume_memory": 0.1e-3}, with_everything])
def test_same_bytes_for_any_number_of_ranks(scan, prepare):
    scan.write(prepare(scan))
    results = []
    for ranks, before in ((1, ""), (2, ""), (3, ""), (3, APART)):
        done = run(scan, ranks, before)
        assert done.returncode == 0, done.stderr
        results.append(datasets(scan.path))
        scan.path.unlink()
    one = results[0]
    assert np.count_nonzero(one["sums/pixels"]) > 1000
    assert ("sums/background" in one) == (prepare is with_everything)
    for other in results[1:]:
        assert other.keys() == one.keys()
        for name, value in one.items():
            if isinstance(value, np.ndarray) and value.dtype != object:
                assert value.tobytes() == other[name].tobytes(), name
            else:
                assert np.all(value == other[name]), name


def truncate(scan, n):
    data = scan.frame(n).read_bytes()
    scan.frame(n).write_bytes(data[: len(data) - 400])


def reshape(scan, n):
    from fabio.cbfimage import CbfImage

    CbfImage(data=np.zeros((20, 20), dtype=np.int32)).write(str(scan.frame(n)))


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("damage", [truncate, reshape])
def test_a_bad_frame_ends_all_ranks(scan, damage, ranks):
    scan.write()
    scan.path.write_bytes(b"an older volume")
    damage(scan, 24)
    done = run(scan, ranks)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("frame_0024.cbf") == 1
    assert "Traceback" not in done.stderr
    assert scan.path.read_bytes() == b"an older volume"
    assert not list(scan.folder.glob(".*.partial"))


FULL_DISK = """
import resource
from tds2el import parallel
connect_before = parallel.connect
def connect_with_a_full_disk():
    world = connect_before()
    if world.rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
    return world
parallel.connect = connect_with_a_full_disk
"""


@pytest.mark.parametrize(("ranks", "size"), [(1, 20_000), (1, 4_500_000), (2, 4_500_000)])
def test_a_full_disk_ends_all_ranks(scan, ranks, size):
    """At once, or when there is room for all but the voxels."""
    scan.write()
    scan.path.write_bytes(b"an older volume")
    done = run(scan, ranks, FULL_DISK.format(size=size))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("volume_file: ") == done.stderr.count("cannot be written") == 1
    assert scan.path.read_bytes() == b"an older volume"
    assert not list(scan.folder.glob(".*.partial"))


LITTLE_SHARED_MEMORY = """
import os
from types import SimpleNamespace
from tds2el import node_memory
node_memory.os = SimpleNamespace(path=os.path, statvfs=lambda folder: SimpleNamespace(f_bavail=100, f_frsize=1000))
"""


def test_too_little_shared_memory_is_told_before_it_is_used(scan):
    scan.write()
    done = run(scan, 2, LITTLE_SHARED_MEMORY)
    assert done.returncode == 2, done.stderr
    assert "the ranks of a node share 0.00046 GB, but /dev/shm has 0.0001 GB left: set volume_memory" in done.stderr
