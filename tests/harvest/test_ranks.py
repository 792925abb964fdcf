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
source = FrameSeries.source
def vanishing(self, n):
    if n == 24:
        Path(self.names[n]).unlink()
    return source(self, n)
FrameSeries.source = vanishing
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_frame_that_vanishes_ends_all_ranks(scan, monkeypatch, ranks):
    scan.path.write_bytes(b"an older harvest")
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", VANISH + PROGRAM)
    done = run(scan, ranks)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("frame_0024.cbf") == 1
    assert scan.path.read_bytes() == b"an older harvest"
