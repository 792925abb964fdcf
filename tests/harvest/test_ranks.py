"""Several ranks: the same bytes as one, and one end for all when one fails."""

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
from tds2el.harvest.collect import harvest
from tds2el.parallel import connect
from tds2el.settings import load_settings
world = connect()
try:
    harvest(world.attempt(lambda: load_settings(sys.argv[1])), world)
except InputError as error:
    if world.rank == 0:
        print(error, file=sys.stderr)
    sys.exit(2)
"""

pytestmark = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")


def run(scan, ranks):
    command = [MPIRUN, "-n", str(ranks)] if ranks > 1 else []
    return subprocess.run(
        [*map(str, command), sys.executable, "-c", PROGRAM, str(scan.folder / "input.par")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        file["entry"].visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return {name: value for name, value in found.items() if not name.startswith("process")}


def from_everything(scan):
    """A harvest that is centred, with replicas, range masks and a background."""
    from fabio.cbfimage import CbfImage

    from tds2el.harvest.collect import harvest
    from tds2el.parallel import World
    from tds2el.settings import load_settings

    harvest(load_settings(scan.folder / "input.par", ["save_to_file=" + str(scan.folder / "first.h5")]), World())
    rng = np.random.default_rng(2)
    CbfImage(data=rng.poisson(4.0, scan.mask.shape).astype(np.int32)).write(str(scan.folder / "empty_1.cbf"))
    (scan.folder / "empty.txt").write_text("empty_1.cbf 3.5\n")
    np.save(scan.folder / "shadow.npy", (rng.random(scan.mask.shape) > 0.4).astype(np.uint8))
    with (scan.folder / "input.par").open("a") as file:
        file.write(
            "centering_file = 'first.h5'\nREPLICA_COLLECTION = 1\nfilter_ranges = [[9, 21, 'shadow.npy']]\n"
            "background_prefix = 'empty_'\nbackground_postfix = '.cbf'\nbackground_normalisation_file = 'empty.txt'\n"
        )


@pytest.mark.parametrize("prepare", [lambda scan: None, from_everything])
def test_same_bytes_for_any_number_of_ranks(scan, prepare):
    prepare(scan)
    results = []
    for ranks in (1, 2, 3):
        done = run(scan, ranks)
        assert done.returncode == 0, done.stderr
        assert "frame/s" not in done.stderr  # no progress bar without a terminal
        results.append(datasets(scan.path))
        scan.path.unlink()
    one = results[0]
    assert one["points/counts"].size > 900
    assert one["peaks/counts"].size > 3
    assert one["blobs/offset"].any() == ("points/background" in one) == (prepare is from_everything)
    for other in results[1:]:
        assert other.keys() == one.keys()
        for name, value in one.items():
            if isinstance(value, np.ndarray) and value.dtype != object:
                assert value.dtype == other[name].dtype
                assert value.tobytes() == other[name].tobytes(), name
            else:
                assert np.all(value == other[name]), name


def truncate(scan, n):
    data = scan.frame(n).read_bytes()
    scan.frame(n).write_bytes(data[: len(data) - 400])


def reshape(scan, n):
    from fabio.cbfimage import CbfImage

    CbfImage(data=np.zeros((20, 20), dtype=np.int32)).write(str(scan.frame(n)))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("damage", [truncate, reshape])
def test_a_bad_frame_ends_all_ranks(scan, damage, ranks):
    scan.path.write_bytes(b"an older harvest")
    damage(scan, 24)
    done = run(scan, ranks)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("frame_0024.cbf") == 1
    assert "Traceback" not in done.stderr
    assert scan.path.read_bytes() == b"an older harvest"
    assert not list(scan.folder.glob("*.partial"))


VANISH = """
import sys
from pathlib import Path
from tds2el.experiment.frames import FrameSeries
sources = FrameSeries.sources
def vanishing(self, frames):
    if 24 in frames:
        Path(self.names[24]).unlink()
    return sources(self, frames)
FrameSeries.sources = vanishing
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_frame_that_vanishes_ends_all_ranks(scan, monkeypatch, ranks):
    scan.path.write_bytes(b"an older harvest")
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", VANISH + PROGRAM)
    done = run(scan, ranks)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("frame_0024.cbf") == 1
    assert scan.path.read_bytes() == b"an older harvest"


FULL_DISK_OF_RANK = """
import resource
from tds2el import parallel
connect_before = parallel.connect
def connect_with_a_full_disk():
    world = connect_before()
    if world.rank == {rank}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    return world
parallel.connect = connect_with_a_full_disk
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_write_ends_all(scan, monkeypatch, rank):
    """Rank 0 fails as it makes room for all, another as it writes its part."""
    scan.path.write_bytes(b"an older harvest")
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", FULL_DISK_OF_RANK.format(rank=rank) + PROGRAM)
    done = run(scan, 2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("save_to_file: ") == done.stderr.count("cannot be written") == 1
    assert "Traceback" not in done.stderr
    assert scan.path.read_bytes() == b"an older harvest"
    assert not list(scan.folder.glob(".*.partial"))


# Ranks of other nodes, or such as see another file of that name.
APART = """
import os
from tds2el.harvest import columns
identity = columns._identity
columns._identity = lambda descriptor: (*identity(descriptor), os.environ["PMI_RANK"] in "{apart}")
"""


@pytest.mark.parametrize("apart", ["12", "1", "2"])
def test_ranks_that_do_not_see_the_file_send_their_parts(scan, monkeypatch, apart):
    from_everything(scan)
    assert run(scan, 1).returncode == 0
    one = datasets(scan.path)
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", APART.format(apart=apart) + PROGRAM)
    done = run(scan, 3)
    assert done.returncode == 0, done.stderr
    for name, value in datasets(scan.path).items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            assert value.tobytes() == one[name].tobytes(), name


def test_one_rank_lists_the_frames_for_all(scan, monkeypatch):
    """In a scan that still runs a rank that looks later sees more."""
    early = """
import os
from tds2el.experiment import frames
found = frames._find_files
frames._find_files = lambda *arguments: found(*arguments)[: 30 + 5 * int(os.environ["PMI_RANK"])]
"""
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", early + PROGRAM)
    done = run(scan, 2)
    assert done.returncode == 0, done.stderr
    assert len(datasets(scan.path)["frames/name"]) == 30
