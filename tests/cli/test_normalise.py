"""Denominators of a simulated scan, whose monitor is known, from headers and from frames."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tds2el.experiment.frames import open_frame_series
from tds2el.experiment.monitor import read_normalisation
from tds2el.settings import load_settings

COMMAND = ("normalise", "scan/input.par")
MPIRUN = Path(sys.executable).parent / "mpirun"


def denominators(path="scan/normalisation.txt"):
    """As a harvest of that scan reads them."""
    settings = load_settings("scan/input.par")
    return read_normalisation(path, open_frame_series(settings.frames, settings.experiment.angular_step))


def true_denominators():
    values = denominators("scan/monitor.txt")
    return values / np.median(values)


def test_from_headers(scan, run):
    outcome = run(*COMMAND)
    assert (outcome.code, outcome.err) == (0, "")
    assert "from Flux of the headers" in outcome.out
    np.testing.assert_allclose(denominators(), true_denominators(), rtol=2e-6)  # the headers have whole counts
    assert (scan.folder / "normalisation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("region", [None, [[50, 100], [10, 90]], "quiet.npy"])
def test_from_frames(scan, run, region):
    """What lies between the peaks follows the beam, to the counting error that is told and the halos that turn by."""
    quiet = np.zeros((121, 101), dtype=np.uint8)
    quiet[30:110, 5:95] = 1
    np.save(scan.folder / "quiet.npy", quiet)
    scan.edit("input.par", normalise_region=region)
    outcome = run(*COMMAND, "--set", "normalise_from=frames")
    assert outcome.code == 0
    found, true = denominators(), true_denominators()
    assert np.abs(found / true - 1).max() < 0.08
    assert np.corrcoef(np.diff(found), np.diff(true))[0, 1] > 0.6  # the refills
    assert "from mean counts of" in outcome.out


@pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")
def test_from_frames_on_ranks(scan, process):
    texts = []
    for ranks in (1, 3):
        outcome = process([*COMMAND, "--set", "normalise_from=frames"], scan.folder.parent, ranks)
        assert outcome.code == 0
        texts.append((outcome.out, (scan.folder / "normalisation.txt").read_bytes()))
    assert texts[0] == texts[1]


def test_a_harvest_takes_what_was_written(scan, run):
    assert run(*COMMAND, "--set", "normalisation_output=scan/mine.txt").code == 0
    outcome = run("scan/input.par", "--set", "normalisation_file=scan/mine.txt", "save_to_file=scan/new.h5")
    assert (outcome.code, outcome.err) == (0, "")


def test_a_few_frames_without_beam(scan, run):
    path = scan.frame(7)
    data = path.read_bytes()
    start = data.index(b"Flux ") + 5
    end = data.index(b" counts", start)
    path.write_bytes(data[:start] + b"9".ljust(end - start) + data[end:])
    outcome = run(*COMMAND)
    assert outcome.code == 0
    assert "1 frames have less than 0.1 of the median" in outcome.err
    assert "scan_00007.cbf" in outcome.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["header_key=Ion_chamber"], ["scan_00001.cbf: no Ion_chamber in its header", "header_key"]),
        (["header_key=Detector_distance"], ["Detector_distance = 0.09", "all 60 frames", "header_key"]),
        (["normalise_from=sky"], ["normalise_from = 'sky'", '"headers" or "frames"']),
        (["normalise_from=frames", "normalise_region=[[0,121],[0,50]]"], ["row 121 is beyond the frame"]),
        (["normalise_from=frames", "normalise_region=absent.edf"], ["normalise_region", "absent.edf"]),
        (["normalise_from=frames", "normalise_region=[[40,42],[0,50]]"], ["scan_00001.cbf: no count", "60 of 60"]),
        (["normalisation_output=absent/n.txt"], ["normalisation_output", "absent"]),
        (["images_prefix=absent_"], ["absent_", "images_prefix"]),
    ],
)
def test_mistakes(scan, run, overrides, words):
    (scan.folder / "normalisation.txt").write_bytes(b"earlier results")
    before = scan.contents()
    outcome = run(*COMMAND, "--set", *overrides)
    assert outcome.code == 2
    missing = [word for word in words if word not in outcome.error]
    assert not missing, outcome.error
    assert scan.contents() == before
