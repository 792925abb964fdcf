"""Several sweeps in one harvest: what each gives by itself, one after the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.collect import harvest
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.quality import spot_quality
from tds2el.harvest.summary import harvest_table
from tds2el.harvest.sweeps import harvest_sweeps
from tds2el.parallel import World
from tds2el.settings import load_settings

from .conftest import EXPERIMENT, N_FRAMES, Scan

SECOND = {"r1": -100.0, "r2": 20.0, "dist": 95.0, "phi": -30.0, "angular_step": -0.5, "theta": 3.0}
MPIRUN = Path(sys.executable).parent / "mpirun"
PROGRAM = """
import sys
from tds2el.harvest.sweeps import harvest_sweeps
from tds2el.parallel import connect
from tds2el.settings import load_settings
world = connect()
harvest_sweeps(world.attempt(lambda: load_settings(sys.argv[1])), world)
"""


@pytest.fixture
def sweeps(tmp_path) -> list[Scan]:
    """Two scans of one crystal, each in its folder; `input.par` above names both."""
    scans = []
    for name, change in (("one", {}), ("two", SECOND)):
        (tmp_path / name).mkdir()
        scans.append(Scan(tmp_path / name, EXPERIMENT | change))
    nodes = sorted({hkl for scan in scans for hkl in scan.hkl})
    for scan in scans:
        (scan.folder / "conf.par").write_text(
            "".join(f"{k} = {v!r}\n" for k, v in (scan.experiment | _shared(scan) | _frames()).items())
        )
    (tmp_path / "input.par").write_text(
        f"sweeps = ['one/conf.par', 'two/conf.par']\nsave_to_file = 'all.h5'\ncollectSpots = {nodes}\n"
    )
    return scans


def _shared(scan: Scan) -> dict:
    frames = {"images_prefix", "images_postfix", "filter_file", "normalisation_file", "save_to_file", "collectSpots"}
    options = {name: value for name, value in scan.options.items() if name not in frames}
    return options | dict(zip(("AA", "BB", "CC", "aAA", "aBB", "aCC"), (6.1, 7.2, 8.3, 88.0, 95.0, 103.0), strict=True))


def _frames() -> dict:
    names = {"images_prefix": "frame_", "images_postfix": ".cbf", "filter_file": "mask.npy"}
    return names | {"normalisation_file": "monitor.txt"}


def load(folder: Path, *overrides: str):
    return load_settings(folder / "input.par", overrides)


def alone(folder: Path, conf: str) -> HarvestFile:
    """The harvest of one sweep, with the list of both."""
    text = (
        (folder / "input.par").read_text().replace("sweeps = ['one/conf.par', 'two/conf.par']", f"conf_file = '{conf}'")
    )
    (folder / "alone.par").write_text(text)
    path = folder / f"{Path(conf).parent}.h5"
    return HarvestFile(harvest(load_settings(folder / "alone.par", [f"save_to_file={path}"]), World()))


def test_every_sweep_is_what_it_gives_by_itself(sweeps, tmp_path):
    path = harvest_sweeps(load(tmp_path), World())
    with HarvestFile(path) as found, alone(tmp_path, "one/conf.par") as one, alone(tmp_path, "two/conf.par") as two:
        assert found.sweep.tolist() == [0] * one.n_blobs + [1] * two.n_blobs
        assert found.experiments == [*one.experiments, *two.experiments]
        assert found.frame_names == one.frame_names + two.frame_names
        np.testing.assert_array_equal(found.phi, np.concatenate([one.phi, two.phi]))
        np.testing.assert_array_equal(found.denominator, np.concatenate([one.denominator, two.denominator]))
        np.testing.assert_array_equal(
            found.points_in_frames, np.concatenate([one.points_in_frames, two.points_in_frames])
        )
        whole = spot_quality(found)
        blob = 0
        for part, shift in ((one, 0), (two, N_FRAMES)):
            quality = spot_quality(part)
            for own in range(part.n_blobs):
                assert found.hkl[blob].tolist() == part.hkl[own].tolist()
                assert found.angle[blob] == part.angle[own]
                assert found.first_frame[blob] == part.first_frame[own] + shift
                assert found.last_frame[blob] == part.last_frame[own] + shift
                assert {k: v[blob] for k, v in found.lost.items()} == {k: v[own] for k, v in part.lost.items()}
                for there, here in zip(found.points(blob), part.points(own), strict=True):
                    np.testing.assert_array_equal(there, here)
                for there, here in zip(found.peaks(blob), part.peaks(own), strict=True):
                    np.testing.assert_array_equal(there, here)
                row, column, frame = found.pixels(blob)
                np.testing.assert_array_equal([row, column, frame - shift], part.pixels(own))
                # A peak's way on the detector is that by its own geometry.
                np.testing.assert_allclose(whole.offset_pixels[blob], quality.offset_pixels[own], atol=1e-9)
                blob += 1
        assert found.n_points.sum() > 900
        assert found.n_peaks.sum() > 3
        table = harvest_table(found, whole).splitlines()
        assert table[0].startswith("sweep  blob")
        assert table[1].startswith("    1     0")
        assert table[found.n_blobs].startswith(f"    2 {found.n_blobs - 1:5d}")
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_q_of_every_sweep_is_that_of_its_geometry(sweeps, tmp_path):
    with HarvestFile(harvest_sweeps(load(tmp_path), World())) as found:
        for blob in range(found.n_blobs):
            geometry = Geometry(found.experiments[found.sweep[blob]])
            row, column, frame = found.pixels(blob)
            q = geometry.q_crystal(row, column, found.phi[frame])
            np.testing.assert_allclose(found.points(blob)[2], q, atol=1e-13)


@pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")
def test_ranks_give_the_same(sweeps, tmp_path):
    harvest_sweeps(load(tmp_path, f"save_to_file={tmp_path / 'single.h5'}"), World())
    command = [str(MPIRUN), "-n", "2", sys.executable, "-c", PROGRAM, str(tmp_path / "input.par")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    with HarvestFile(tmp_path / "single.h5") as one, HarvestFile(tmp_path / "all.h5") as two:
        for group, offset in (("points", one.offset), ("peaks", one.peak_offset)):
            for name in ("frame", "row", "column", "counts", "correction", "Q"):
                values = [file.values(group, name, 0, int(offset[-1])) for file in (one, two)]
                np.testing.assert_array_equal(*values)


def test_a_sweep_that_sees_nothing_is_passed_over(sweeps, tmp_path, caplog):
    caplog.set_level("INFO", "tds2el")
    (sweeps[1].folder / "conf.par").write_text(
        (sweeps[1].folder / "conf.par").read_text().replace("theta = 3.0", "theta = 178.0")
    )
    with HarvestFile(harvest_sweeps(load(tmp_path), World())) as found:
        assert set(found.sweep.tolist()) == {0}
        assert len(found.experiments) == 2
    assert "no reflection of the list reaches the detector in this sweep" in caplog.text


def test_no_sweep_that_sees_anything(sweeps, tmp_path):
    with pytest.raises(InputError, match="no reflection of the list reaches the detector in any of the sweeps"):
        harvest_sweeps(load(tmp_path, "collectSpots=[(40, 0, 0)]"), World())
    assert not (tmp_path / "all.h5").exists()


@pytest.mark.parametrize(
    ("conf", "line", "message"),
    [
        (
            "two",
            "Temperature = 250",
            r"two/conf.par:\d+: Temperature = 250.0, but 300.0 at .*one/conf.par:\d+: sweeps share",
        ),
        ("two", "AA = 6.2", "AA = 6.2, but 6.1 at"),
        ("two", "images_prefix = '../one/frame_'", r"two/conf\.par: the frames of another sweep"),
        ("one", "background_prefix = 'empty_'", "background_prefix is not available with several sweeps"),
        ("one", "sweeps = ['conf.par']", "sweeps belong into the input file"),
    ],
)
def test_contradictions(sweeps, tmp_path, conf, line, message):
    path = tmp_path / conf / "conf.par"
    name = line.split(" = ")[0]
    kept = [text for text in path.read_text().splitlines() if not text.startswith(f"{name} = ")]
    path.write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_wrong_lists(sweeps, tmp_path):
    with pytest.raises(InputError, match=r"sweeps: there is no file .*none\.par"):
        load(tmp_path, "sweeps=['none.par']")
    with pytest.raises(InputError, match="'a' is named twice"):
        load(tmp_path, "sweeps=['a', 'a']")
    with pytest.raises(InputError, match="keep one of them"):
        load(tmp_path, f"conf_file={tmp_path / 'one/conf.par'}")
    with pytest.raises(InputError, match="centering_file is not available with several sweeps"):
        load(tmp_path, "centering_file=x.h5")
