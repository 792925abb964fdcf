"""Two simulated sweeps of one crystal: searched, aligned and harvested together."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tds2el.align.orientation import angle_between, angles_of, orientation_of
from tds2el.experiment.geometry import rotation
from tds2el.experiment.maxima import read_cloud, read_maxima
from tds2el.harvest.file import HarvestFile
from tds2el.settings import load_settings

from .conftest import MPIRUN, SCAN, process

CHANGES = {
    "pixel_size": 0.4,
    "dist": 100.0,
    "det_origin_X": 105.3,
    "det_origin_Y": 80.7,
    "shape": [211, 181],
    "gap_rows": [],
    "n_frames": 120,
    "angular_step": 0.25,
    "count_level": 2,
    "peak_width": 0.004,
    "collectSpots": [[-2, 2, 2]],
}
SWEEPS = ({"output_folder": "one"}, {"output_folder": "two", "omega": 50.0, "kappa": 20.0, "alpha": 50.0, "phi": -40.0})
TURN = rotation(1, 0.6) @ rotation(2, -0.6) @ rotation(3, 0.53)
"""By 1°."""
INPUT = """\
sweeps = ["{}one/experiment.par", "{}two/experiment.par"]
ascii_generators = "1~,3(z),2(y)"
"""


def text_with(text: str, changes: dict[str, object]) -> str:
    kept = [line for line in text.splitlines() if line.split(" = ")[0] not in changes]
    return "\n".join([*kept, *(f"{name} = {value!r}" for name, value in changes.items())]) + "\n"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweeps' folders, and input.par, whose conf_files are wrong by a common turn and in `dist`."""
    folder = tmp_path_factory.mktemp("sweeps")
    for sweep in SWEEPS:
        (folder / "scan.par").write_text(text_with(SCAN, CHANGES | sweep), encoding="utf-8")
        outcome = process(["simulate-scan", "scan.par"], folder)
        assert outcome.code == 0, outcome.err
        name = sweep["output_folder"]
        conf = folder / name / "experiment.par"
        true = conf.read_text(encoding="utf-8")
        (folder / f"true_{name}.par").write_text(true, encoding="utf-8")
        angles = angles_of(orientation_of(20.0, 35.0, 10.0) @ TURN)
        wrong = dict(zip(("r1", "r2", "r3"), angles, strict=True)) | {"dist": 100.3}
        frames = {"images_prefix": "frames/scan_", "images_postfix": ".cbf", "filter_file": "mask.edf"}
        shared = ("save_to_file", "collectSpots")
        kept = "\n".join(line for line in true.splitlines() if line.split(" = ")[0] not in shared)
        conf.write_text(text_with(kept, wrong | frames), encoding="utf-8")
    (folder / "input.par").write_text(INPUT.format("", ""), encoding="utf-8")
    assert process(["extract-maxima", "input.par"], folder).code == 0
    return folder


@pytest.fixture
def folder(simulated: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where results go, the current folder; the sweeps are read only."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.par").write_text(INPUT.format(f"{simulated}/", f"{simulated}/"), encoding="utf-8")
    return tmp_path


def orientation(conf: Path) -> np.ndarray:
    found = [re.search(rf"^{name} = (\S+)", conf.read_text(encoding="utf-8"), re.MULTILINE) for name in ANGLES]
    return orientation_of(*(float(match[1]) for match in found if match))


ANGLES = ("r1", "r2", "r3")


def test_one_table_and_a_picture_of_each(simulated, folder, run):
    """The peaks of a sweep are those that it has by itself."""
    whole = read_maxima(simulated / "maxima.h5")
    assert set(whole.sweep.tolist()) == {0, 1}
    for n, name in enumerate(("one", "two")):
        assert (simulated / f"maxima_{n + 1}.png").read_bytes().startswith(b"\x89PNG")
        (folder / "alone.par").write_text(f'conf_file = "{simulated}/{name}/experiment.par"\n', encoding="utf-8")
        assert run("extract-maxima", "alone.par").code == 0
        alone, here = read_maxima("maxima.h5"), whole.sweep == n
        for column in ("row", "column", "frame", "angle_index", "counts", "row_error"):
            np.testing.assert_array_equal(getattr(whole, column)[here], getattr(alone, column))


@pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun")
def test_ranks_find_the_same(simulated, folder):
    outcome = process(["extract-maxima", "input.par"], folder, ranks=2)
    assert outcome.code == 0, outcome.err
    one, two = read_maxima(simulated / "maxima.h5"), read_maxima("maxima.h5")
    for column in ("sweep", "row", "column", "angle_index", "counts"):
        np.testing.assert_array_equal(getattr(one, column), getattr(two, column))


def test_aligned_together_and_harvested(simulated, folder, run):
    outcome = run("align", "input.par", "--set", f"maxima_file={simulated}/maxima.h5")
    assert (outcome.code, outcome.err) == (0, "")
    assert "aligned_1.par" in outcome.out
    assert not Path("aligned.par").exists()
    tagged = read_maxima("maxima_tagged.h5")
    assert tagged.accepted.mean() > 0.7  # the others are cut off by the first and last frames
    assert set(tagged.sweep[tagged.accepted].tolist()) == {0, 1}
    cloud = read_cloud("maxima_tagged.h5", "file")
    assert cloud.axes is not None
    nodes = tagged.hkl @ cloud.axes.T
    assert np.abs(cloud.Q - nodes)[tagged.accepted].max() < 0.01
    for n in (1, 2):
        assert angle_between(orientation(Path(f"aligned_{n}.par")), orientation_of(20.0, 35.0, 10.0)) < 0.01
        experiment = load_settings(f"aligned_{n}.par", command="align").experiment
        assert experiment is not None
        assert experiment.dist == pytest.approx(100.0, abs=0.02)

    harvest = 'sweeps = ["aligned_1.par", "aligned_2.par"]\nsave_to_file = "h.h5"\nfile_maxima = "maxima_tagged.h5"\n'
    Path("next.par").write_text(harvest + 'ascii_generators = "1~,3(z),2(y)"\n', encoding="utf-8")
    outcome = run("next.par")
    assert outcome.code == 0, outcome.err
    with HarvestFile("h.h5") as found:
        assert set(found.sweep.tolist()) == {0, 1}
        assert found.n_points.sum() > 1000


def test_points_of_all_sweeps(simulated, folder, run):
    """Before anything is refined, equal nodes of both sweeps are near each other: their turn is the same."""
    outcome = run("align", "input.par", "--set", f"maxima_file={simulated}/maxima.h5", "transform_only=1")
    assert outcome.code == 0, outcome.err
    maxima, cloud = read_maxima(simulated / "maxima.h5"), read_cloud("q3d.h5", "file")
    assert cloud.axes is not None
    turned = cloud.Q @ TURN.T
    hkl = turned @ np.linalg.inv(cloud.axes).T
    near = np.abs(hkl - np.rint(hkl)).max(axis=1) < 0.15
    assert min(near[maxima.sweep == n].mean() for n in (0, 1)) > 0.85


def test_a_table_of_one_sweep_is_refused(simulated, folder, run):
    (folder / "alone.par").write_text(f'conf_file = "{simulated}/one/experiment.par"\n', encoding="utf-8")
    outcome = run("align", "alone.par", "--set", f"maxima_file={simulated}/maxima.h5")
    assert outcome.code == 2
    assert "peaks of 2 sweeps, but a conf_file describes one" in outcome.error
