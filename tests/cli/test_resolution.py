"""Wide frames of a mosaic crystal, from frames to constants: right with the resolution in the model, wrong without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from .conftest import SCAN, TRUTH, Outcome, Scan, process

NAMES = ["A33", "A44", "A66", "A13", "A15"]


@pytest.fixture(scope="module")
def smeared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of 0.5° as the sum over finer steps, a mosaic spread of 0.15°, and Bragg peaks below the cutoff."""
    folder = tmp_path_factory.mktemp("smeared")
    text = SCAN.replace("angular_step = 0.4", "angular_step = 0.5").replace("n_frames = 60", "n_frames = 48")
    text = text.replace("count_level = 60", "count_level = 1500")
    (folder / "scan.par").write_text(text + "mosaicity = 0.15\nsubsteps = 5\n", encoding="utf-8")
    for arguments in (["simulate-scan", "scan.par"], ["scan/input.par"]):
        done = process(arguments, folder)
        assert done.code == 0, done.err
    return folder / "scan"


def _constants(smeared: Path, tmp_path: Path, run: Callable[..., Outcome], *options: str):
    settings = [
        f"load_from_file={smeared / 'harvest.h5'}", f"output_folder={tmp_path}", "fitSpots=1", "doMinimisation=1",
        "report=0", "fitted_curve=0", Scan.guess(), *options,
    ]  # fmt: skip
    done = run(smeared / "input.par", *(part for option in settings for part in ("--set", option)))
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "tds2el_fit.h5") as file:
        group = file["entry/constants"]
        names = [name.decode() for name in group["name"][()]]
        rows = [names.index(name) for name in NAMES]
        return group["value"][()][rows], group["sigma"][()][rows], done


def test_constants_of_wide_frames(smeared, tmp_path, run):
    truth = np.array([TRUTH[name] for name in NAMES])
    values, sigma, done = _constants(smeared, tmp_path, run, "mosaicity=0.15")
    assert np.all(np.abs(values - truth) < 3 * sigma)
    assert "Resolution: the model is averaged" in done.out
    biased, smaller, done = _constants(smeared, tmp_path, run, "resolution=0", "mosaicity=0.15")
    assert np.abs((biased - truth) / smaller).max() > 3
    assert np.abs((biased - truth) / truth).max() > 2 * np.abs((values - truth) / truth).max()
    assert "resolution = False, but" in done.err
