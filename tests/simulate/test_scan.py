"""What is written: frames, header, mask, monitor and par-files, consistent and reproducible."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import fabio
import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.frames import open_frame_series
from tds2el.experiment.mask import read_mask
from tds2el.experiment.monitor import read_normalisation
from tds2el.parallel import World
from tds2el.settings import load_settings
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import load_scan
from tds2el.simulate.scan import draw_counts, good_pixels, simulate_scan

MPIRUN = Path(sys.executable).with_name("mpirun")


def silent(frames: Iterable[object], total: int) -> Iterable[object]:
    return frames


@pytest.fixture
def written(scan_file: Path) -> VirtualScan:
    virtual = VirtualScan(load_scan(scan_file))
    simulate_scan(virtual, World(), silent)
    return virtual


def test_frames_hold_counts_of_the_expectation(written: VirtualScan) -> None:
    good = good_pixels(written)
    pulls = []
    for number in (1, 17, 40):
        counts = fabio.open(str(written.scan.output_folder / "frames" / f"scan_{number:05d}.cbf")).data
        expected = written.expected(number - 1)
        saturated = expected > written.scan.count_cutoff
        assert counts.dtype == np.int32
        assert (counts[saturated & good] == written.scan.count_cutoff).all()
        usual = good & ~saturated
        pulls.append((counts[usual] - expected[usual]) / np.sqrt(expected[usual]))
    pull = np.concatenate(pulls)
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert np.mean(pull**2) == pytest.approx(1, abs=0.1)


def test_bragg_peaks_saturate_within_the_inner_radius(written: VirtualScan) -> None:
    scan = replace(written.scan, count_level=1e-3, background=0.0, shape=(400, 300))
    fine = replace(scan.experiment, pixel_size=0.25, det_origin_X=200.0, det_origin_Y=150.0)
    virtual = VirtualScan(replace(scan, experiment=fine))
    row, column = (index.astype(float) for index in np.mgrid[:400, :300])
    found = 0
    for frame in range(scan.n_frames):
        expected = virtual.expected(frame)
        strong = expected > 1.0
        if not strong.any():
            continue
        Q = virtual.geometry.q_crystal(row[strong], column[strong], virtual.geometry.phi(frame))
        nodes = virtual.hkl @ virtual.group.cell.B.T
        distance = np.linalg.norm(Q[:, None] - nodes, axis=-1).min(axis=1)
        assert distance.max() < scan.DeltaQ_min * 0.2314
        found += int(np.count_nonzero(expected > scan.count_cutoff))
    assert found > 5


def test_gaps_read_minus_one_and_the_mask_excludes_them_and_hot_pixels(written: VirtualScan) -> None:
    folder = written.scan.output_folder
    mask = read_mask(folder / "mask.edf", written.scan.shape)
    np.testing.assert_array_equal(mask, good_pixels(written))
    gap = np.zeros(written.scan.shape, dtype=bool)
    gap[20:23] = gap[:, 0:2] = True
    frames = np.array([fabio.open(str(path)).data for path in sorted((folder / "frames").glob("*.cbf"))])
    assert len(frames) == written.scan.n_frames
    np.testing.assert_array_equal(frames == -1, np.broadcast_to(gap, frames.shape))
    hot = ~mask & ~gap
    assert 1 <= hot.sum() <= 5
    assert frames[:, hot].min() > 5000


def test_par_files_masks_and_headers_fit_together(written: VirtualScan) -> None:
    settings = load_settings(written.scan.output_folder / "input.par")
    assert settings.experiment == written.scan.experiment
    assert settings.warnings == ()
    assert settings.frames is not None
    assert settings.harvest.collectSpots == tuple(map(tuple, written.spots.tolist()))
    series = open_frame_series(settings.frames, written.scan.experiment.angular_step)
    assert (series.n_frames, series.shape) == (40, (61, 47))
    assert series.count_cutoff == written.scan.count_cutoff
    assert settings.frames.normalisation_file is not None
    monitor = read_normalisation(settings.frames.normalisation_file, series)
    np.testing.assert_array_equal(monitor, [written.monitor(n) for n in range(40)])
    assert monitor.max() == 1
    assert monitor.min() == pytest.approx(0.9, abs=0.01)
    header = fabio.open(series.files[3]).header["_array_data.header_contents"]
    # phi is the middle of frame 0: 10° − 0.5°·(3 − ½).
    assert "Start_angle 8.750000 deg." in header
    assert "Angle_increment -0.500000 deg." in header
    assert f"Flux {1e6 * monitor[3]:.0f} counts" in header
    row, column = written.geometry.direct_beam()
    assert f"Beam_xy ({column + 0.5:.2f}, {row + 0.5:.2f}) pixels" in header


def test_truth_holds_the_constants_in_the_working_frame(written: VirtualScan) -> None:
    truth = json.loads((written.scan.output_folder / "truth.json").read_text(encoding="utf-8"))
    assert truth["constants_GPa"] == written.scan.constants
    np.testing.assert_allclose(truth["elastic_tensor_W_GPa"], written.stiffness)


def test_count_level_is_that_of_the_brightest_halo(written: VirtualScan) -> None:
    radius = 0.095 / (4.990 * np.cos(np.pi / 6))
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(4000, 3))
    q = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    from tds2el import _core

    levels = [
        factor * _core.halo_strength(G + q, q, written.stiffness, written.thermal, 2).mean()
        for G, factor in zip(written.spots @ written.group.cell.B.T, written.spot_factors, strict=True)
    ]
    assert max(levels) == pytest.approx(written.scan.count_level, rel=0.03)


def test_seed_gives_the_same_frames_and_another_seed_others(written: VirtualScan) -> None:
    stored = fabio.open(str(written.scan.output_folder / "frames" / "scan_00017.cbf")).data
    np.testing.assert_array_equal(draw_counts(VirtualScan(written.scan), 16), stored)
    other_noise = VirtualScan(replace(written.scan, noise_seed=8))
    np.testing.assert_array_equal(other_noise.expected(16), written.expected(16))
    np.testing.assert_array_equal(good_pixels(other_noise), good_pixels(written))
    assert np.mean(draw_counts(other_noise, 16) != stored) > 0.3
    assert not np.allclose(VirtualScan(replace(written.scan, seed=8)).expected(16), written.expected(16))


@pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun beside the interpreter")
def test_ranks_write_equal_files(written: VirtualScan, tmp_path: Path) -> None:
    text = (tmp_path / "scan.par").read_text(encoding="utf-8") + 'output_folder = "ranks"\n'
    (tmp_path / "ranks.par").write_text(text, encoding="utf-8")
    program = (
        "import argparse, sys; from pathlib import Path; from tds2el.cli import simulate_scan; "
        "from tds2el.parallel import connect; "
        "simulate_scan.run(argparse.Namespace(scan=Path(sys.argv[1])), connect())"
    )
    command = [MPIRUN, "-n", "3", sys.executable, "-c", program, tmp_path / "ranks.par"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "40 frames of 61 × 47 pixels" in done.stdout
    one, three = written.scan.output_folder, tmp_path / "ranks"
    names = [str(path.relative_to(one)) for path in sorted(one.rglob("*")) if path.is_file()]
    assert len(names) == 46
    assert names == [str(path.relative_to(three)) for path in sorted(three.rglob("*")) if path.is_file()]
    assert filecmp.cmpfiles(one, three, names, shallow=False)[0] == names


def test_frames_of_another_scan_are_not_mixed_in(written: VirtualScan) -> None:
    shorter = VirtualScan(replace(written.scan, n_frames=39))
    with pytest.raises(InputError, match=r"holds scan_00040.cbf of another scan"):
        simulate_scan(shorter, World(), silent)


def test_mosaicity_widens_peaks_across_but_not_along(written: VirtualScan) -> None:
    virtual = VirtualScan(replace(written.scan, mosaicity=0.5))
    nodes = virtual.hkl @ virtual.group.cell.B.T
    index = int(np.argmax(np.linalg.norm(nodes, axis=1)))
    length = np.linalg.norm(nodes[index])
    unit = nodes[index] / length
    covariance = np.linalg.inv(virtual.peak_precisions[index])
    width = 0.04 / (4.990 * np.cos(np.pi / 6)) / 8
    assert unit @ covariance @ unit == pytest.approx(width**2, rel=1e-6)
    assert np.trace(covariance) == pytest.approx(3 * width**2 + 2 * (length * np.deg2rad(0.5)) ** 2, rel=1e-6)


def test_the_table_of_peaks_says_where_the_frames_saturate(scan_file):
    """Row, column and frame of every tagged peak, against the brightest pixel near it."""
    from tds2el.experiment.maxima import accepted_reflections, read_maxima

    virtual = VirtualScan(load_scan(scan_file))
    simulate_scan(virtual, World(), lambda frames, total: frames)
    table = read_maxima(virtual.scan.output_folder / "maxima.h5")
    assert 0 < len(table.row) <= len(virtual.spots) + 2
    assert {tuple(hkl) for hkl in table.hkl} <= {tuple(hkl) for hkl in virtual.spots}
    assert set(accepted_reflections(table)) == {tuple(hkl) for hkl in table.hkl.tolist()}
    checked = 0
    for row, column, frame in zip(table.row, table.column, table.frame, strict=True):
        if not 1 <= frame <= virtual.scan.n_frames - 2 or good_pixels(virtual)[round(row), round(column)] == 0:
            continue
        expected = virtual.expected(round(frame))
        r, c = max(0, round(row) - 2), max(0, round(column) - 2)
        box = expected[r : r + 5, c : c + 5]
        brightest = np.unravel_index(box.argmax(), box.shape)
        assert abs(r + brightest[0] - row) <= 1
        assert abs(c + brightest[1] - column) <= 1
        checked += 1
    assert checked
