"""Peaks of simulated scans: where the nodes are, the same on any number of ranks, and every mistake in one line."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fabio.edfimage import EdfImage

from tds2el.experiment.images import read_image
from tds2el.experiment.maxima import read_maxima
from tds2el.parallel import World
from tds2el.peaks.search import search
from tds2el.settings import load_settings
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import load_scan

COMMAND = ("extract-maxima", "scan/input.par")
MPIRUN = Path(sys.executable).parent / "mpirun"
needs_mpirun = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")
GAP = (60, 62)
WIDE_PEAKS = f"""
pixel_size = 0.4
dist = 100.0
det_origin_X = 105.3
det_origin_Y = 80.7
shape = [211, 181]
gap_rows = [{list(GAP)}]
n_frames = 150
angular_step = 0.25
count_level = 2
peak_width = 0.004
collectSpots = [[-2, 2, 2]]
output_folder = "wide"
"""
"""A crystal whose peaks spread over several pixels and frames."""


def crossings(virtual):
    """Row, column and frame of every node that passes through the sphere, from the geometry alone."""
    geometry = virtual.geometry
    x = np.arange(-0.5, virtual.scan.n_frames, 0.05)
    turns = np.array([geometry.lab_to_crystal(phi) for phi in geometry.phi(x)])
    found = []
    for node in virtual.hkl @ virtual.group.cell.B.T:
        directions = virtual.scan.experiment.lmbda * np.einsum("nij,i->nj", turns, node) - geometry.beam
        excess = np.linalg.norm(directions, axis=1) - 1
        for i in np.flatnonzero(np.diff(np.sign(excess))):
            t = excess[i] / (excess[i] - excess[i + 1])
            row, column = geometry.pixel_of((1 - t) * directions[i] + t * directions[i + 1])
            found.append((row, column, x[i] + 0.05 * t))
    return np.array(found)


def test_peaks_are_at_the_nodes(scan, run):
    """All nodes that are seen as a whole are found, where they are within the errors that are told."""
    changed = [line.split(" = ")[0] for line in WIDE_PEAKS.splitlines()]
    kept = [line for line in scan.text.splitlines() if line.split(" = ")[0] not in changed]
    Path("scan.par").write_text("\n".join(kept) + WIDE_PEAKS, encoding="utf-8")
    assert run("simulate-scan", "scan.par").code == 0
    Path("wide/maxima.h5").unlink()  # those of the simulation
    outcome = run("extract-maxima", "wide/input.par")
    assert (outcome.code, outcome.err) == (0, "")
    maxima = read_maxima("wide/maxima.h5")
    virtual = VirtualScan(load_scan("scan.par"))
    row, column, frame = true = crossings(virtual).T
    rows, columns = virtual.scan.shape
    margin = 7
    seen = (row > margin) & (row < rows - 1 - margin) & (column > margin) & (column < columns - 1 - margin)
    seen &= (np.abs(row - np.mean(GAP)) > margin + 1) & (frame > 5) & (frame < virtual.scan.n_frames - 6)
    assert seen.sum() > 8
    found = np.array([maxima.row, maxima.column, maxima.angle_index])
    errors = np.array([maxima.row_error, maxima.column_error, maxima.angle_index_error])
    misses, pulls = [], []
    for place in true.T[seen]:
        distance = found - place[:, None]
        nearest = int(np.argmin(np.abs(distance).sum(axis=0)))
        misses.append(distance[:, nearest])
        pulls.append(distance[:, nearest] / errors[:, nearest])
    assert np.abs(misses).max() < 0.15
    assert np.abs(pulls).max() < 2
    # What else there is are nodes at the edges and in the gap; those of the scan's ends may cross beyond it.
    for place in found.T[(found[2] > 5) & (found[2] < virtual.scan.n_frames - 6)]:
        assert np.abs(true - place[:, None]).sum(axis=0).min() < 12
    assert f"{len(maxima.row)} peaks in 150 frames" in outcome.out
    assert Path("wide/maxima.png").read_bytes().startswith(b"\x89PNG")


SEARCH = """
import pickle, sys
from tds2el.parallel import connect
from tds2el.peaks.search import search
from tds2el.settings import load_settings
world = connect()
settings = load_settings("scan/input.par", ["maxima_sigma=3", "maxima_min_pixels=2", *sys.argv[1:]], "extract-maxima")
found = search(settings, world)
assert (found is None) == (world.rank > 0)
if found is not None:
    with open("found.pickle", "wb") as file:
        pickle.dump((found.found, found.background), file)
"""


@needs_mpirun
def test_the_same_bytes_for_any_number_of_ranks_and_threads(scan, process):
    results = []
    for ranks, threads in ((1, 1), (1, 3), (2, 1), (3, 2)):
        outcome = process([f"threads={threads}"], scan.folder.parent, ranks, program=("-c", SEARCH))
        assert (outcome.code, outcome.err) == (0, "")
        results.append(pickle.loads(Path("found.pickle").read_bytes()))
    one, background = results[0]
    # Some peaks are in frames on both sides of a border between ranks.
    assert any(np.any(np.abs(one.maxima.frame - border) < 0.45) for border in (19.5, 29.5, 39.5))
    for other, other_background in results[1:]:
        assert other_background.tobytes() == background.tobytes()
        assert (other.small, other.large, other.cut) == (one.small, one.large, one.cut)
        for name, values in vars(one.maxima).items():
            assert values.tobytes() == getattr(other.maxima, name).tobytes(), name


def test_the_same_frames_in_a_format_that_fabio_reads(scan, run):
    assert run(*COMMAND, "--set", "normalisation_file=None").code == 0
    before = read_maxima("scan/maxima.h5")
    for path in (scan.folder / "frames").glob("*.cbf"):
        EdfImage(data=read_image(str(path))).write(str(path.with_suffix(".edf")))
    scan.edit("input.par", images_postfix=".edf", normalisation_file=None)
    assert run(*COMMAND).code == 0
    after = read_maxima("scan/maxima.h5")
    for name, values in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), values)
    assert before.saturated.any()


def test_masks_for_ranges_of_frames(scan):
    """Where and when a range's mask excludes the strongest peak, and only then, it is not found."""
    maxima = search(load_settings("scan/input.par", (), "extract-maxima"), World()).found.maxima
    best = int(np.argmax(maxima.counts))
    frame, row, column = (round(v[best]) for v in (maxima.frame, maxima.row, maxima.column))
    mask = np.ones((121, 101), dtype=np.uint8)
    mask[max(row - 5, 0) : row + 6, max(column - 5, 0) : column + 6] = 0
    np.save(scan.folder / "mask_here.npy", mask)

    def there(first, last):
        scan.edit("input.par", filter_ranges=[[first, last, "mask_here.npy"]])
        settings = load_settings("scan/input.par", (), "extract-maxima")
        now = search(settings, World()).found.maxima
        return bool(np.any(np.hypot(now.row - row, now.column - column) + np.abs(now.frame - frame) < 3))

    assert there(0, 3)
    assert not there(frame - 5, frame + 5)


def test_missing_frames(scan, run):
    """A scan of which a frame is lost: angles go by numbers, and a peak there is two."""
    assert run(*COMMAND).code == 0
    whole = read_maxima("scan/maxima.h5")
    spanning = whole.angle_index[np.argmax(whole.pixels)]
    lost = round(spanning)
    scan.frame(lost + 1).unlink()
    assert "a frame is missing" in run(*COMMAND).error
    assert run(*COMMAND, "--set", "frame_angle=number").code == 0
    maxima = read_maxima("scan/maxima.h5")
    late = maxima.frame > lost
    np.testing.assert_allclose(maxima.angle_index[late], maxima.frame[late] + 1)
    np.testing.assert_allclose(maxima.angle_index[~late], maxima.frame[~late])
    assert not np.any(np.abs(maxima.angle_index - lost) < 0.5)


def test_old_name(scan):
    outcome = subprocess.run(
        [Path(sys.executable).parent / "tds2el_extract_maxima", "scan/input.par", "--set", "maxima_file=found.h5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert len(read_maxima("found.h5").row) > 5
    assert not (scan.folder / "found.h5").exists()


def test_only_the_frames_are_needed(scan, run):
    """Neither geometry nor cell are known when peaks are searched."""
    (scan.folder / "few.par").write_text('images_prefix = "frames/scan_"\nangular_step = 0.4\n', encoding="utf-8")
    assert run("extract-maxima", "scan/few.par").code == 0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["maxima_threshold=1e9"], ["no peak in 60 frames", "lower maxima_threshold"]),
        (["maxima_sigma=1e6"], ["no peak", "0 bright regions", "lower maxima_sigma"]),
        (["maxima_max_pixels=2", "maxima_min_pixels=2", "maxima_threshold=1e6"], ["no peak in 60 frames"]),
        (["maxima_min_pixels=9", "maxima_max_pixels=5"], ["maxima_min_pixels = 9", "maxima_max_pixels = 5"]),
        (["maxima_window=4"], ["maxima_window = 4", "odd whole number"]),
        (["maxima_sigma=0"], ["maxima_sigma = 0", "positive"]),
        (["maxima_file=absent/maxima.h5"], ["maxima_file", "absent"]),
        (["images_prefix=absent_"], ["absent_", "images_prefix"]),
        (["images_prefix=None"], ["images_prefix"]),
        (["angular_step=0.8"], ["angular_step is 0.8"]),
        (["filter_file=absent.edf"], ["filter_file", "absent.edf"]),
    ],
)
def test_mistakes(scan, run, overrides, words):
    (scan.folder / "maxima.h5").write_bytes(b"earlier results")
    before = scan.contents()
    outcome = run(*COMMAND, "--set", *overrides)
    assert outcome.code == 2
    missing = [word for word in words if word not in outcome.error]
    assert not missing, outcome.error
    assert scan.contents() == before


def test_large_regions_are_told(scan, run):
    outcome = run(*COMMAND, "--set", "maxima_max_pixels=20")
    assert outcome.code == 0
    assert "of more than maxima_max_pixels = 20 pixels are left out" in outcome.err


@needs_mpirun
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_damaged_frame_ends_all_ranks(scan, process, ranks):
    path = scan.frame(50)
    data = path.read_bytes()
    start = data.index(b"\x0c\x1a\x04\xd5") + 4
    path.write_bytes(data[:start] + b"\x80" * 30 + data[start + 30 :])
    (scan.folder / "maxima.h5").write_bytes(b"earlier results")
    outcome = process(COMMAND, scan.folder.parent, ranks)
    assert outcome.code == 2
    assert "scan_00050.cbf: damaged" in outcome.error
    assert (scan.folder / "maxima.h5").read_bytes() == b"earlier results"
