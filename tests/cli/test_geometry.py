"""import-geometry and export-geometry, and harvests with what they write."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.experiment.geometry import Geometry
from tds2el.fit.read import read_fit_file
from tds2el.harvest.file import HarvestFile
from tds2el.interchange.conf import experiment_of
from tds2el.parfile import read_parfile

SENSOR = "sensor_thickness = 2.0\nsensor_mu = 0.4\ntheta = 20.0\nd1 = 5.0\nbeam_tilt_angle = 0.4\n"


def values(path):
    return {assignment.name: assignment.value for assignment in read_parfile(path).assignments}


def hkl(path):
    """hkl of a few pixels by a conf_file."""
    given = values(path)
    geometry = Geometry(experiment_of(given))
    row, column, frame = np.mgrid[0:120:40, 0:100:30, 0:60:20].reshape(3, -1)
    cell = Cell(*(given[name] for name in CELL_OPTIONS))
    return geometry.q_crystal(row, column, geometry.phi(frame)) @ cell.A.T


@pytest.mark.parametrize("target", ["--dials", "--xds"])
def test_there_and_back(run, scan, target):
    done = run("export-geometry", "scan/input.par", target, "out.txt")
    assert done.code == 0, done.err
    done = run("import-geometry", "out.txt", "-o", "back.par")
    assert done.code == 0, done.err
    assert "Direct beam at row" in done.out
    np.testing.assert_allclose(hkl(scan.folder.parent / "back.par"), hkl(scan.folder / "experiment.par"), atol=1e-8)


def test_the_conf_file_alone_is_enough_with_the_size_of_its_frames(run, scan):
    done = run("export-geometry", "scan/experiment.par", "--dials", "o.expt", "--shape", 121, 101, "--n-frames", 60)
    assert done.code == 0, done.err
    (panel,) = json.loads((scan.folder.parent / "o.expt").read_text())["detector"][0]["panels"]
    assert panel["image_size"] == [101, 121]


def test_xds_is_told_of_the_sensor(run, scan):
    scan.edit("experiment.par", sensor_thickness=0.32, sensor_mu=1.4)
    done = run("export-geometry", "scan/input.par", "--xds", "X")
    assert "SENSOR_THICKNESS= 0.32 and SILICON= 1.4" in done.out


def test_names_of_frames_may_have_any_letters(run, scan):
    assert run("export-geometry", "scan/input.par", "--dials", "o.expt").code == 0
    text = (scan.folder.parent / "o.expt").read_text()
    (scan.folder.parent / "o.expt").write_text(text.replace("scan_#####", "Probe_Größe_#####"), encoding="utf-8")
    assert run("import-geometry", "o.expt").code == 0
    assert values(scan.folder.parent / "conf.par")["images_prefix"].endswith("Probe_Größe_")


def test_frames_are_named_and_the_first_of_them_sets_phi(run, scan):
    assert run("export-geometry", "scan/input.par", "--dials", "o.expt").code == 0
    (scan.folder.parent / "part").mkdir()
    (scan.folder.parent / "conf").mkdir()
    numbers = sorted(int(path.stem.split("_")[1]) for path in (scan.folder / "frames").glob("*.cbf"))
    for number in numbers[12:30]:
        shutil.copy(scan.frame(number), "part")
    whole, part = "conf/whole.par", "conf/part.par"
    assert run("import-geometry", "o.expt", "-o", whole).code == 0
    assert run("import-geometry", "o.expt", "-o", part, "--frames", "part").code == 0
    whole, part = values(scan.folder.parent / whole), values(scan.folder.parent / part)
    assert part["phi"] == pytest.approx(whole["phi"] + 12 * whole["angular_step"])
    assert (part["images_prefix"], part["images_postfix"]) == ("../part/scan_", ".cbf")
    assert run("import-geometry", "o.expt", "-o", "conf/again.par", "--frames", "part/scan_#####.cbf").code == 0
    assert values(scan.folder.parent / "conf/again.par") == part


def test_several_sweeps_give_several_files(run, scan):
    assert run("export-geometry", "scan/input.par", "--dials", "o.expt").code == 0
    data = json.loads((scan.folder.parent / "o.expt").read_text())
    data["experiment"].append(data["experiment"][0] | {"scan": 1})
    data["scan"].append(data["scan"][0] | {"oscillation": [77.0, 0.4]})
    (scan.folder.parent / "o.expt").write_text(json.dumps(data))
    done = run("import-geometry", "o.expt")
    assert done.code == 0, done.err
    first, second = (values(scan.folder.parent / f"conf_{n}.par") for n in (1, 2))
    assert abs(second["phi"]) == pytest.approx(77.2)
    assert {k: v for k, v in first.items() if k != "phi"} == {k: v for k, v in second.items() if k != "phi"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.expt"], "none.expt: cannot be read"),
        (["scan/input.par"], "scan/input.par: no geometry that is known here"),
        (["o.expt", "-o", "scan/input.par"], "--output scan/input.par: there is such a file already"),
        (["o.expt", "-o", "nowhere/c.par"], "--output nowhere/c.par: there is no folder nowhere"),
        (["o.expt", "--axis", 1, 0, 0], "--axis is not for files of DIALS, as o.expt is"),
        (["o.expt", "--axis", 0, 0, 0], "--axis 0 0 0 is no axis"),
        (["o.expt", "--pixel-size", "-1"], "--pixel-size -1: give the edge of a pixel"),
        (["o.expt", "--turning", "chi", 1, 2, 3, 4, 5], "--turning chi: the axis is omega or phi"),
        (["o.expt", "--turning", "phi", 1, 2, 3, 4, "x"], "--turning phi 1 2 3 4 x: after the axis come five numbers"),
        (["o.expt", "--frames", "nowhere"], "--frames nowhere: there is no such folder"),
        (["o.expt", "--frames", "scan"], "--frames scan: no file scan_….cbf is there"),
        (["o.expt", "--frames", "late"], "numbers 4711 to 4711 are there, but the sweep has"),
    ],
)
def test_wrong_imports(run, scan, words, message):
    assert run("export-geometry", "scan/input.par", "--dials", "o.expt").code == 0
    (scan.folder.parent / "late").mkdir()
    (scan.folder.parent / "late" / "scan_04711.cbf").touch()
    before = scan.contents()
    done = run("import-geometry", *words)
    assert done.code == 2
    assert message in done.error
    assert scan.contents() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scan/experiment.par", "--dials", "o"], "images_prefix is missing"),
        (["scan/input.par"], "one of the arguments --dials --xds is required"),
        (["scan/input.par", "--xds", "nowhere/X"], "nowhere/X: there is no folder nowhere"),
        (["scan/input.par", "--xds", "X", "--shape", 0, 5], "--shape 0 5: a frame has at least"),
        (["scan/input.par", "--dials", "X", "--n-frames", 0], "--n-frames 0: give at least 1"),
        (["scan/moved.par", "--xds", "X"], "A_variables corrects r1: put the corrected values into these options"),
        (["scan/empty.par", "--xds", "X"], "export-geometry needs pixel_size, dist, lmbda"),
        (["scan/sweeps.par", "--xds", "X"], "sweeps: export-geometry takes one sweep"),
    ],
)
def test_wrong_exports(run, scan, words, message):
    moved = (scan.folder / "input.par").read_text() + 'A_variables = {"r1": minimiser.Variable(0.1, 0.1, 0.1)}\n'
    (scan.folder / "moved.par").write_text(moved)
    (scan.folder / "empty.par").write_text("")
    (scan.folder / "sweeps.par").write_text("sweeps = ['experiment.par']\n")
    before = scan.contents()
    done = run("export-geometry", *words)
    assert done.code == 2
    assert message in done.error
    assert scan.contents() == before


def test_a_thick_sensor_through_simulation_export_import_harvest_and_fit(run, scan):
    """Halos of a scan whose detector has parallax lie round their nodes, by the geometry that comes back from DIALS."""
    folder = scan.folder.parent
    text = scan.text.replace(f"collectSpots = {scan.spots}", 'collectSpots = "auto"\nn_spots = 8') + SENSOR
    (folder / "thick.par").write_text(text.replace('"scan"', '"thick"'))
    assert run("simulate-scan", "thick.par").code == 0
    assert run("export-geometry", "thick/input.par", "--dials", "o.expt").code == 0
    assert run("import-geometry", "o.expt", "-o", "geometry.par").code == 0
    back = values(folder / "geometry.par")
    assert (back["sensor_thickness"], back["sensor_mu"]) == (2.0, 0.4)
    given = (folder / "thick/experiment.par").read_text().splitlines()
    lines = [line for line in given if line.split(" = ")[0] not in back]
    lines += [f"{name} = {value!r}" for name, value in back.items() if not name.startswith("images")]
    (folder / "thick/experiment.par").write_text("\n".join(lines) + "\nreport = False\n")
    fit = ("fitSpots=1", "doMinimisation=1", scan.guess(), "device=numpy")
    pulls = {}
    for sensor in ("thick", "thin"):
        more = ["sensor_thickness=0", "sensor_mu=0"] if sensor == "thin" else []
        done = run("thick/input.par", "--set", f"save_to_file={folder / sensor}.h5", *more, *fit)
        assert done.code == 0, done.err
        found = read_fit_file(folder / "thick/tds2el_fit.h5")
        pulls[sensor] = np.sqrt(np.mean((found.spots.offset / found.spots.sigma_offset) ** 2))
        with HarvestFile(folder / f"{sensor}.h5") as harvest:
            assert harvest.n_blobs >= 6
    # By the right geometry halos are off their nodes by what their errors allow.
    assert pulls["thick"] < 1.6
    assert pulls["thin"] > 4

    # A wrong origin is found beside the parallax.
    free = 'A_variables={"det_origin_X": minimiser.Variable(0, -2, 2), "dist": minimiser.Variable(0, -1, 1)}'
    wrong = [f"det_origin_X={back['det_origin_X'] + 0.4}", f"dist={back['dist'] - 0.3}"]
    done = run("thick/input.par", "--set", f"save_to_file={folder / 'off.h5'}", *wrong, free, *fit)
    assert done.code == 0, done.err
    found = read_fit_file(folder / "thick/tds2el_fit.h5").corrections
    truth = {"det_origin_X": back["det_origin_X"], "dist": back["dist"]}
    for name, value, sigma in zip(found.names, found.value, found.sigma, strict=True):
        assert abs(value - truth[name]) < 3 * sigma


@pytest.fixture
def two_sweeps(run, scan):
    """input.par of two scans of the crystal, the second in another orientation; the folders are one and two."""
    folder = scan.folder.parent
    text = scan.text.replace(f"collectSpots = {scan.spots}", 'collectSpots = "auto"\nn_spots = 8')
    given, found = {}, set()
    for name, turned in (
        ("one", {}),
        ("two", {"r1": -60.0, "r2": 10.0, "phi": 120.0, "angular_step": -0.4, "d1": 90.0}),
    ):
        more = "".join(f"{option} = {value}\n" for option, value in turned.items())
        (folder / f"{name}.par").write_text(text.replace('"scan"', f'"{name}"') + more)
        assert run("simulate-scan", f"{name}.par").code == 0
        given[name] = values(folder / name / "experiment.par") | values(folder / name / "input.par")
        found |= {tuple(spot) for spot in given[name]["collectSpots"]}
    for name, options in given.items():
        kept = {k: v for k, v in options.items() if k not in ("conf_file", "save_to_file", "collectSpots")}
        (folder / name / "experiment.par").write_text("".join(f"{k} = {v!r}\n" for k, v in kept.items()))
    lines = ["sweeps = ['one/experiment.par', 'two/experiment.par']", "save_to_file = 'all.h5'", "report = False"]
    (folder / "all.par").write_text("\n".join([*lines, f"collectSpots = {sorted(found)}"]) + "\n")
    return folder


def test_several_sweeps_are_harvested_and_fitted_together(run, scan, two_sweeps):
    fit = ("fitSpots=1", "doMinimisation=1", scan.guess(), "device=numpy", "nred=2")
    done = run("all.par", "--set", *fit)
    assert done.code == 0, done.err
    both = read_fit_file(two_sweeps / "tds2el_fit.h5")
    fitted = [both.constants.names.index(name) for name in both.constants.fitted]
    truth = np.array([scan.truth[name] for name in both.constants.names])
    assert np.abs((both.constants.value - truth)[fitted] / both.constants.sigma[fitted]).max() < 3
    offsets = both.spots.offset / both.spots.sigma_offset
    assert np.sqrt(np.mean(offsets**2)) < 1.6
    with HarvestFile(two_sweeps / "all.h5") as harvest:
        assert set(harvest.sweep[harvest.n_points > 0].tolist()) == {0, 1}
    reuse = ("load_from_file=all.h5", "save_to_file=None")
    done = run("all.par", "--set", *reuse, "show_hkls=1")
    assert done.code == 0, done.err
    assert "sweep 2: direct beam at row" in done.err + done.out
    free = 'A_variables={"r1": minimiser.Variable(0, -1, 1)}'
    done = run("all.par", "--set", *reuse, *fit, free)
    assert done.code == 2
    assert "A_variables: the harvest has 2 sweeps of different geometry" in done.error
    # More counts, smaller errors.
    one = "sweeps=['one/experiment.par']"
    done = run("all.par", "--set", one, f"save_to_file={two_sweeps / 'one.h5'}", *fit)
    assert done.code == 0, done.err
    single = read_fit_file(two_sweeps / "tds2el_fit.h5")
    assert (both.constants.sigma_poisson[fitted] < single.constants.sigma_poisson[fitted]).all()
