"""Whole runs on scans whose par-files are wrong, or whose frames hold more than one crystal's scattering."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tds2el.fit.read import FitFile, read_fit_file
from tds2el.parfile import read_parfile

TRUTH = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
GUESS = {"A11": [147.1] * 3, "A33": [100, 0, 1000], "A44": [33, 0, 1000], "A66": [33, 0, 1000],
         "A13": [33, -500, 1000], "A15": [0, -500, 500]}  # fmt: skip
ERRORS = {"r1": 0.2, "r2": 0.2, "r3": 0.2, "AA": 0.00499, "BB": 0.00499, "CC": 0.017061, "det_origin_X": 1.5,
          "det_origin_Y": 1.5}  # fmt: skip
FREE = "{" + ", ".join(
    f'"{name}": minimiser.Variable(0, -{width}, {width})'
    for name, width in {"r1": 1, "r2": 1, "r3": 1, "AA": 0.1, "CC": 0.3, "det_origin_X": 5, "det_origin_Y": 5}.items()
) + "}"  # fmt: skip
SCAN = """\
pixel_size = 0.344
dist = 100.0
lmbda = 0.7
det_origin_X = 154.25
det_origin_Y = 121.25
phi = 0.05
angular_step = 0.1
r1 = 20.0
r2 = 35.0
r3 = 10.0
AA = 4.990
BB = 4.990
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
ascii_generators = "1~,3(z),2(y)"
centring = "R -3 c:H"
constants = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
shape = [310, 244]
gap_rows = [[97, 105], [203, 211]]
count_level = 20.0
seed = 1
DeltaQ_min = 0.04
DeltaQ_max = 0.15
n_spots = 24
output_folder = "scan"
"""


def _simulated(process: Callable, folder: Path, more: str) -> Path:
    (folder / "scan.par").write_text(SCAN + more, encoding="utf-8")
    done = process(["simulate-scan", "scan.par"], folder)
    assert done.code == 0, done.err
    with (folder / "scan" / "input.par").open("a", encoding="utf-8") as file:
        file.write(f"doMinimisation = 1\nreport = False\nCGUESS = {GUESS}\n")
    return folder / "scan"


@pytest.fixture(scope="module")
def misaligned(tmp_path_factory) -> Path:
    """Orientation off by 0.2° about three axes, cell by 0.1 %, origin by 1.5 pixels; harvested as it is."""
    from .conftest import process

    folder = _simulated(process, tmp_path_factory.mktemp("off"), f"n_frames = 900\ngeometry_error = {ERRORS}\n")
    done = process(["input.par"], folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def dirty(tmp_path_factory) -> Path:
    """A second lattice, zingers, a moving shadow and a background with structure."""
    from .conftest import process

    more = (
        "n_frames = 600\nbackground = 0.5\nsecond_lattice = [0.05, 7.0, 11.0, 3.0]\nzingers = 100\n"
        "shadow = [50.0, 0.0, 30.0, 0.1, 0.0, 0.3]\nstructured_background = 8.0\nbackground_frames = 50\n"
    )
    return _simulated(process, tmp_path_factory.mktemp("dirty"), more)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    def copy(folder: Path) -> Path:
        shutil.copytree(folder, tmp_path / "scan", copy_function=_link)
        monkeypatch.chdir(tmp_path / "scan")
        return tmp_path / "scan"

    return copy


def _link(source: str, target: str) -> None:
    # Frames are only read; everything that may be written is copied.
    if source.endswith((".cbf", ".edf", ".h5")):
        Path(target).symlink_to(source)
    else:
        shutil.copy(source, target)


def _pulls(fit: FitFile) -> np.ndarray:
    fitted = [fit.constants.names.index(name) for name in fit.constants.fitted]
    truth = np.array([TRUTH[name] for name in fit.constants.names])
    return np.asarray((fit.constants.value - truth)[fitted] / fit.constants.sigma[fitted])


def test_centres_alone_bring_the_constants_back(misaligned, work, run):
    folder = work(misaligned)
    done = run("input.par", "--set", "load_from_file=harvest.h5", "fitSpots=1")
    assert done.code == 0, done.err
    fit = read_fit_file(folder / "tds2el_fit.h5")
    assert fit.iterations.converged
    assert len(fit.iterations.deviance) < 40
    assert np.abs(_pulls(fit)).max() < 3
    assert fit.chi2 / fit.dof == pytest.approx(1, abs=0.02)
    # The offsets are those by which the wrong geometry misplaces the nodes; the Bragg peaks say so too, to a pixel.
    distance = np.linalg.norm(fit.spots.offset - fit.spots.peak, axis=1)
    assert np.nanmax(distance) < 0.6 * 0.344 / 100 / 0.7
    assert np.linalg.norm(fit.spots.offset, axis=1).min() > 0.005
    assert "CENTRES of the halos" in done.out


def test_centred_harvest_brings_the_constants_back(misaligned, work, run):
    folder = work(misaligned)
    assert run("input.par", "--set", "centering_file=harvest.h5", "save_to_file=centred.h5").code == 0
    done = run("input.par", "--set", "load_from_file=centred.h5", "fitSpots=1")
    assert done.code == 0, done.err
    fit = read_fit_file(folder / "tds2el_fit.h5")
    assert np.abs(_pulls(fit)).max() < 3
    # What is left of the offsets is the error of centroids of coarse pixels.
    assert np.median(np.linalg.norm(fit.spots.offset, axis=1)) < 0.002


def test_freed_geometry_comes_back_and_so_do_the_constants(misaligned, work, run):
    folder = work(misaligned)
    done = run(
        "input.par", "--set", "load_from_file=harvest.h5", "fitSpots=1", f"A_variables={FREE}", 'baseline="linear"'
    )
    assert done.code == 0, done.err
    assert "BB follows AA by the symmetry" in done.out
    fit = read_fit_file(folder / "tds2el_fit.h5")
    assert fit.iterations.converged
    assert len(fit.iterations.deviance) < 40
    assert np.abs(_pulls(fit)).max() < 3
    found = fit.corrections
    assert found is not None
    assert dict(zip(found.names, found.status, strict=True)) == dict.fromkeys(found.names, "fitted") | {"BB": "tied"}
    expected = np.array([-ERRORS[name] for name in found.names])
    assert np.abs((found.correction - expected) / found.sigma).max() < 3
    # Every σ is a small part of what was wrong: the corrections were measured, not left alone.
    assert (found.sigma < 0.1 * np.abs(expected)).all()
    # The course shows how the free ones, which others follow, got there.
    assert list(found.moved) == [name for name in found.names if name != "BB"]
    last = dict(zip(found.moved, fit.iterations.corrections[-1], strict=True))
    assert last == pytest.approx({name: found.correction[found.names.index(name)] for name in found.moved}, abs=1e-4)
    # parametri.txt and the refined conf_file hold the corrected values, and the latter is ready for the next harvest.
    in_parametri = {a.name: a.value for a in read_parfile(folder / "parametri.txt").assignments}
    refined = {a.name: a.value for a in read_parfile(folder / "tds2el_refined.par").assignments}
    for name, value in zip(found.names, found.value, strict=True):
        assert in_parametri[name] == refined[name] == value
    text = (folder / "input.par").read_text(encoding="utf-8")
    Path("again.par").write_text(text.replace('"experiment.par"', '"tds2el_refined.par"'), encoding="utf-8")
    assert run("again.par", "--set", "save_to_file=again.h5").code == 0
    done = run("again.par", "--set", "load_from_file=again.h5", "fitSpots=1", "fit_centres=0", 'baseline="linear"')
    assert done.code == 0, done.err
    assert np.abs(_pulls(read_fit_file(folder / "tds2el_fit.h5"))).max() < 3


def test_neither_is_visibly_wrong_and_says_so(misaligned, work, run):
    work(misaligned)
    done = run("input.par", "--set", "load_from_file=harvest.h5", "fitSpots=1", "fit_centres=0")
    if done.code == 0:
        assert np.abs(_pulls(read_fit_file(Path("tds2el_fit.h5")))).max() > 5 or "did not converge" in done.out
        assert re.search(r"Bragg peaks lie up to 0\.01\d+ Å⁻¹.*off their nodes", " ".join(done.out.split()))
        assert "set fit_centres = True" in " ".join(done.out.split())
    else:
        assert "went astray" in done.error


def test_all_fourteen_hold_what_the_data_do_not_determine(misaligned, work, run):
    work(misaligned)
    variable = "minimiser.Variable(0, -{0}, {0})"
    places = [variable.format(w) for w in (1, 1, 1, 0.1)] + ["-1"] + [variable.format(w) for w in (0.3, *[1] * 6, 5, 5)]
    done = run(
        "input.par", "--set", "load_from_file=harvest.h5", "fitSpots=1", f"A_variables=[{', '.join(places)}]",
        'baseline="linear"',
    )  # fmt: skip
    assert done.code == 0, done.err
    fit = read_fit_file(Path("tds2el_fit.h5"))
    found = fit.corrections
    assert found is not None
    status = dict(zip(found.names, found.status, strict=True))
    # alpha and kappa turn about the same axis as phi where both are zero, and so does omega.
    assert {name for name, s in status.items() if s == "held"} >= {"omega", "alpha", "kappa"}
    assert "omega, alpha, kappa" in " ".join(done.out.split())
    assert all(found.correction[found.names.index(name)] == 0 for name in ("omega", "alpha", "kappa"))
    assert np.abs(_pulls(fit)).max() < 3
    for name in ("r1", "r2", "r3"):
        n = found.names.index(name)
        assert abs(found.correction[n] + ERRORS[name]) < 3 * found.sigma[n]


def test_dirt_is_rejected_and_the_background_taken_off(dirty, work, run):
    folder = work(dirty)
    done = run("input.par", "--set", "fitSpots=1")
    if done.code == 0:
        fit = read_fit_file(folder / "tds2el_fit.h5")
        assert np.abs(_pulls(fit)).max() > 5 or not fit.iterations.converged
    else:
        assert "went astray" in done.error
        assert "reject = 6" in done.error
    text = (folder / "input.par").read_text(encoding="utf-8")
    Path("clean.par").write_text(text.replace("# ", ""), encoding="utf-8")
    done = run("clean.par", "--set", "save_to_file=clean.h5", "fitSpots=1", "reject=6")
    assert done.code == 0, done.err
    fit = read_fit_file(folder / "tds2el_fit.h5")
    assert fit.iterations.converged
    assert np.abs(_pulls(fit)).max() < 3
    assert fit.spots.foreign.sum() > 1000
    assert fit.spots.regions.sum() > 100
    assert f"{fit.spots.foreign.sum()} rejected as foreign" in " ".join(done.out.split())


def test_spot_filter_and_auto_choose_spots_and_say_which(misaligned, work, run):
    work(misaligned)
    base = ("input.par", "--set", "load_from_file=harvest.h5", "fitSpots=1")
    done = run(*base, 'spot_filter={"min_points": 12000}')
    assert done.code == 0, done.err
    fit = read_fit_file(Path("tds2el_fit.h5"))
    assert 0 < len(fit.spots.hkl) < 24
    assert (fit.spots.points + fit.spots.cut).min() >= 12000
    assert "left out by spot_filter, too few points (min_points = 12000)" in " ".join(done.out.split())
    done = run(*base, 'collectSpots="auto"', "n_spots=12")
    assert done.code == 0, done.err
    fit = read_fit_file(Path("tds2el_fit.h5"))
    assert len(fit.spots.hkl) == 12
    assert np.abs(_pulls(fit)).max() < 4
    assert "collectSpots = auto: 12 of 24 reflections" in done.out
    assert "leaves no spot" in run(*base, 'spot_filter={"min_points": 1e9}').error
