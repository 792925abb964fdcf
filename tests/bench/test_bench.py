"""The scripts of bench/ on little data: that they run, judge by what is independent, and hand over what they found."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds2el.crystal.cell import Cell
from tds2el.experiment.geometry import Geometry
from tds2el.model.engine import Columns
from tds2el.model.numpy_engine import model_columns
from tds2el.model.quantum import quantum_sum
from tds2el.settings import Experiment

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)


def run(tmp_path, script, *arguments):
    """What a script hands over, and its output."""
    found = tmp_path / "figures.json"
    command = [sys.executable, BENCH / script, *arguments, "--json", found]
    outcome = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=200, check=False)
    assert outcome.returncode == 0, outcome.stderr
    return json.loads(found.read_text()), outcome.stdout


@pytest.mark.parametrize("temperature", [300.0, 20.0])
def test_closed_form_is_that_of_the_engine(temperature):
    from numpy_model import BLOCK, intensity
    from synthetic import Q_MAX, triclinic

    q = np.random.default_rng(0).uniform(-Q_MAX, Q_MAX, (BLOCK + 10, 3)) / np.sqrt(3)
    node, tensor = np.array([0.1, -0.4, 0.5]), triclinic().tensor
    quantum = quantum_sum(tensor, Q_MAX, temperature, 2.71, 1e-10)
    expected = model_columns(q, node, tensor, quantum, Columns(np.zeros((0, 6, 6))))[:, 0]
    np.testing.assert_allclose(intensity(q, node, tensor, quantum), expected, rtol=1e-10)


def test_points_are_the_same_each_time_and_follow_the_model():
    from synthetic import BASELINE, HALO, PIECE, reflections, synthetic_points

    points = synthetic_points(2 * (PIECE + 40_000), reflections(2))
    first, again = (np.concatenate([piece.counts for piece in points.pieces(1)]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(first) == points.sizes[1] == PIECE + 40_000
    part = np.concatenate([piece.q for piece in points.pieces(1, 1000, PIECE + 30)])
    np.testing.assert_array_equal(part, np.concatenate([piece.q for piece in points.pieces(1)])[1000 : PIECE + 30])
    assert first.mean() == pytest.approx(HALO + BASELINE, rel=0.05)


def test_single_precision_beside_double(tmp_path):
    result, _ = run(
        tmp_path, "precision.py", "--points", "2e4", "--spots", "8", "--processes", "1", "--device", "CPU",
        "--cases", "6 constants, centres",
    )  # fmt: skip
    case = result["cases"]["6 constants, centres"]
    assert case["converged"]
    assert case["names"] == ["A33", "A44", "A66", "A13", "A15"]
    truth = np.array([85.3, 34.0, 46.5, 53.7, -20.6])
    assert np.abs((np.array(case["constants"]) - truth) / case["sigma"]).max() < 4
    assert 0 < np.abs(case["difference_in_sigma"]).max() < 0.05
    assert [figure["met"] for figure in result["figures"]] == [True]


def test_from_a_harvest_file_to_constants(tmp_path):
    result, output = run(
        tmp_path, "load_speed.py", "--points", "3e4", "--spots", "8", "--repeats", "1", "--device", "CPU",
        "--folder", tmp_path,
    )  # fmt: skip
    times = result["seconds_to"]
    assert 0 < times["read points"] < times["engine ready"] < times["parametri"] < times["end"]
    assert result["bytes_that_a_fit_needs"] == 32 * result["points"]
    assert "harvest file to constants" in output
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_peaks_are_those_of_scipy(tmp_path):
    result, output = run(tmp_path, "peak_search.py", "--frames", "4", "--beside", "3", "--repeats", "1")
    assert result["common"] == 1
    assert result["peaks"]["ours"] == result["peaks"]["scipy"] > 15
    assert [figure["unit"] for figure in result["figures"]] == ["ms", "s"]
    assert "search per Pilatus 2M frame" in output


def test_a_missed_target_is_marked():
    from figures import figure, table

    slow = figure("slow", 2.0, "s", beside=3.0, than="other", at_least=2)
    fast = figure("fast", 2.0, "s", beside=5.0, than="other", at_least=2)
    close = figure("close", 0.01, "σ", at_most=0.05)
    assert [f["met"] for f in (slow, fast, close)] == [False, True, True]
    lines = table([slow, fast, close]).splitlines()
    assert ["MISSED" in line for line in lines] == [False, True, False, False]
    assert "2.5 ×" in lines[2]


def test_the_elastic_limit_is_biased_at_the_usual_shells(tmp_path):
    """By some per cent, and more in wider shells: what a better model is to be seen against."""
    result, output = run(
        tmp_path, "validation.py", "--lattices", "fcc", "rock salt", "--models", "elastic", "--points", "200"
    )
    assert len(result["rows"]) == 8
    for near, far in zip(result["rows"][::2], result["rows"][1::2], strict=True):
        assert 1 < near["worst"] < 10
        assert 2 * near["worst"] < far["worst"]
    assert "rock salt" in output


def test_the_next_order_is_right_where_the_elastic_limit_is_not(tmp_path):
    """Corundum, in which a strain moves both sublattices, on a scan's geometry, without noise."""
    arguments = ("--lattices", "corundum", "--models", "next-order", "T and g", "--reaches", "0.15", "--points", "300")
    result, _ = run(tmp_path, "validation.py", *arguments)
    full = [row["worst"] for row in result["rows"] if row["model"] == "next-order"]
    without = [row["worst"] for row in result["rows"] if row["model"] == "T and g"]
    assert len(full) == len(without) == 2
    assert max(full) < 0.15
    assert max(without) > 0.2


def xds_places(xparm, pixels, frame):
    """hkl (n, 3) of pixels (row, column), by what XDS writes about XPARM.XDS."""
    numbers = [float(word) for word in xparm.read_text().partition("\n")[2].split()]
    first, angle, step, *axis = numbers[:6]
    wavelength, *beam = numbers[6:10]
    vectors = np.array(numbers[17:26]).reshape(3, 3)
    _, _, _, qx, qy, org_x, org_y, distance = numbers[26:34]
    x, y, normal = np.array(numbers[34:43]).reshape(3, 3)
    row, column = pixels.T
    p = np.outer((column + 1 - org_x) * qx, x) + np.outer((row + 1 - org_y) * qy, y) + distance * normal
    s = p / np.linalg.norm(p, axis=1, keepdims=True) / wavelength - beam
    turn = Rotation.from_rotvec(-np.array(axis) * (angle + (frame - first) * step), degrees=True)
    return turn.apply(s) @ vectors.T


@pytest.fixture
def tilted():
    """Every parameter of the geometry is at work."""
    experiment = Experiment(
        pixel_size=0.4, dist=70.0, lmbda=0.71, beam_tilt_angle=1.0, det_origin_X=11.0, det_origin_Y=30.5, d1=2.0,
        d2=-3.0, theta=12.0, theta_offset=1.0, omega=15.0, omega_offset=2.0, alpha=50.0, beta=3.0, kappa=40.0,
        phi=7.0, angular_step=-0.5, r1=10.0, r2=20.0, r3=30.0, orientation_codes=5, pol_degree=1.0,
        normal_to_pol=(0.0, 0.0, 1.0),
    )  # fmt: skip
    return Geometry(experiment)


def test_xparm_has_the_same_geometry(tilted, tmp_path):
    from meerkat_side import write_xparm

    cell = Cell(5.0, 6.0, 7.0, 80, 95, 112)
    write_xparm(tmp_path / "XPARM.XDS", tilted, cell, (40, 60))
    assert "e-" not in (tmp_path / "XPARM.XDS").read_text()
    pixels = np.random.default_rng(0).integers(0, [40, 60], size=(50, 2))
    for frame in (0, 17):
        expected = tilted.q_crystal(*pixels.T, tilted.phi(frame)) @ cell.A.T
        np.testing.assert_allclose(xds_places(tmp_path / "XPARM.XDS", pixels, frame), expected, atol=1e-11)


def test_volumes_are_timed_alone_without_a_network(tmp_path, monkeypatch, capsys):
    import volume_speed
    from meerkat_side import REQUIREMENT, meerkat_python

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert meerkat_python(tmp_path / "meerkat") is None
    assert f"{REQUIREMENT} cannot be installed" in capsys.readouterr().out
    monkeypatch.setattr(volume_speed, "meerkat_python", lambda: None)
    result = volume_speed.measure(n_frames=2, nodes=33, repeats=1, parent=tmp_path)
    assert result["whole"]["tds2el"] > 0
    assert result["compared"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["meerkat"]


def test_other_voxels_than_meerkats_are_found(tmp_path):
    import fabio

    from harvest_speed import SHAPE, write_frames
    from volume_speed import HALF_WIDTH, compare, run_ours, write_parfiles

    n = 33
    write_frames(tmp_path, 1, eiger=False)
    write_parfiles(tmp_path, n, 1)
    pixels = np.stack(np.indices(SHAPE), axis=-1).reshape(-1, 2)
    node = np.rint((xds_places(tmp_path / "XPARM.XDS", pixels, 0) / HALF_WIDTH + 1) / 2 * (n - 1)).astype(int)
    inside = ((node >= 0) & (node < n)).all(axis=1)
    counts = fabio.open(str(tmp_path / "frame_00000.cbf")).data.ravel()
    total, hits = np.zeros((n, n, n)), np.zeros((n, n, n), dtype=int)
    np.add.at(total, tuple(node[inside].T), counts[inside])
    np.add.at(hits, tuple(node[inside].T), 1)
    ours = run_ours(tmp_path, 1, 1)
    for wrong in (0, 1):
        total[tuple(node[0])] += wrong
        with h5py.File(tmp_path / "meerkat.h5", "w") as file:
            file["rebinned_data"], file["number_of_pixels_rebinned"] = total, hits
        found = compare(ours, tmp_path / "meerkat.h5", "bare")
        assert found["different"] == found["counts"] == wrong
        assert found["only_one"] == 0
        assert found["voxels"] == (hits > 0).sum() > 500
