"""The scripts of bench/ on little data: that they run, judge by what is independent, and hand over what they found."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tds2el.model.engine import Columns
from tds2el.model.numpy_engine import model_columns
from tds2el.model.quantum import quantum_sum

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
