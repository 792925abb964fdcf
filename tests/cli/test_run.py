"""What a user does with a scan, through the command line: harvest, list, dry run, simulate, fit."""

import math
import re
import shutil

import h5py
import numpy as np
import pytest

from tds2el.parfile import read_parfile

STRUCTURE = """\
1.000000 A11                   1.000000 A11 + -2.000000 A66   1.000000 A13                   1.000000 A15
1.000000 A11 + -2.000000 A66   1.000000 A11                   1.000000 A13                   -1.000000 A15
1.000000 A13                   1.000000 A13                   1.000000 A33
                                                                             1.000000 A44                    -1.000000 A15
1.000000 A15                   -1.000000 A15                                                 1.000000 A44
                                                                             -1.000000 A15                   1.000000 A66
"""  # noqa: E501
FIT = ("load_from_file=scan/harvest.h5", "fitSpots=1", "doMinimisation=1")


def read_results(folder):
    """Value and sigma of each constant of a parametri.txt, read as the par-file that it claims to be."""
    path = folder / "parametri.txt"
    values = {assignment.name: assignment.value for assignment in read_parfile(path).assignments}
    sigmas = dict(re.findall(r"^(\w+) = .*# sigma ([^,]+),", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert values.keys() == sigmas.keys()
    return {name: (value, 0.0 if sigmas[name] == "none" else float(sigmas[name])) for name, value in values.items()}


@pytest.fixture
def fitted(run, scan):
    """Fits with overrides, and returns the outcome and the constants."""

    def fit(*overrides, code=0):
        outcome = run("scan/input.par", "--set", *FIT, *overrides)
        assert outcome.code == code, outcome.err
        return outcome, read_results(scan.folder)

    return fit


def assert_truth(results, truth, scale=1.0):
    for name, (value, sigma) in results.items():
        assert abs(value - scale * truth[name]) <= 3 * sigma or sigma == 0, (name, value, sigma)
        assert sigma < 0.06 * scale * truth["A11"]


# Harvest


def test_harvest_and_listing(run, scan):
    written = scan.harvest.read_bytes()
    scan.harvest.unlink()
    outcome = run("scan/input.par", "--set", "show_hkls=1")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "direct beam at row 60.00, column 50.50" in outcome.out
    assert len(scan.harvest.read_bytes()) == pytest.approx(len(written), abs=2 * 4096)  # HDF5 grows by blocks
    again = run("scan/input.par", "--set", "show_hkls=1", "load_from_file=scan/harvest.h5")
    assert again.code == 0
    beam, *table = again.out.splitlines()
    assert beam == "direct beam at row 60.00, column 50.50"
    assert table == outcome.out.splitlines()[-len(table) :]
    with h5py.File(scan.harvest) as file:
        points = np.diff(file["entry/blobs/point_offset"])
        rows = [tuple(row) for row in file["entry/blobs/hkl"]]
    assert set(rows) == set(scan.spots)
    assert [tuple(map(int, line.split()[1:4])) for line in table[1 : 1 + len(rows)]] == rows
    assert [int(line.split()[6]) for line in table[1 : 1 + len(rows)]] == points.tolist()


def test_the_harvest_keeps_the_count_of_every_pixel_that_it_names(scan):
    import fabio

    with h5py.File(scan.harvest) as file:
        entry = file["entry"]
        names = entry["frames/name"].asstr()[()]
        row, column, frame, counts = (entry[f"points/{name}"][()] for name in ("row", "column", "frame", "counts"))
    for n in np.unique(frame):
        here = frame == n
        image = fabio.open(str(scan.folder / "frames" / names[n].rpartition("/")[2])).data
        assert np.array_equal(image[row[here], column[here]], counts[here])


def test_threshold_action_pixel_keeps_the_rest_of_the_frame(run, scan):
    total = {}
    for action in ("frame", "pixel"):
        outcome = run("scan/input.par", "--set", f"threshold_action={action}", "threshold=150", "show_hkls=1")
        assert outcome.code == 0
        total[action] = int(re.search(r"blobs, (\d+) points, ([1-9]\d*) above", outcome.out)[1])
    assert total["pixel"] > total["frame"] + 100


def test_threshold_from_the_headers_is_told(run, scan):
    assert "threshold: 524288 counts" in run("scan/input.par").out
    assert "the headers' count cutoff, 1.04858e+06, is the threshold" in run(
        "scan/input.par", "--set", "threshold=None"
    ).out  # fmt: skip


@pytest.mark.parametrize("angle", ["number", "header"])
def test_missing_frames_with_angles_from_elsewhere(run, scan, angle):
    with h5py.File(scan.harvest) as file:
        full = file["entry/points/Q"][()]
        frame = file["entry/points/frame"][()]
    scan.frame(20).unlink()
    outcome = run("scan/input.par", "--set", f"frame_angle={angle}")
    assert outcome.code == 0
    with h5py.File(scan.harvest) as file:
        rest = file["entry/points/Q"][()]
    assert np.any(frame == 19)
    np.testing.assert_allclose(rest, full[frame != 19], atol=1e-9)


def test_paths_from_another_folder(run, scan, monkeypatch):
    elsewhere = scan.folder.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    scan.harvest.unlink()
    assert run("../scan/input.par").code == 0
    assert scan.harvest.exists()  # as the conf_file says, which lies there
    assert run("../scan/input.par", "--set", "save_to_file=new.h5").code == 0
    assert (elsewhere / "new.h5").exists()  # as the command line says
    (scan.folder / "results").mkdir()
    scan.edit("input.par", output_folder="results", load_from_file="harvest.h5", fitSpots=True, CGUESS="auto")
    scan.edit("experiment.par", load_from_file=...)
    assert run("../scan/input.par").code == 0
    assert sorted(path.name for path in (scan.folder / "results").iterdir()) == [
        "parametri.txt",
        "tds2el.log",
        "tds2el_fit.h5",
    ]
    assert sorted(path.name for path in elsewhere.iterdir()) == ["new.h5"]


def test_paths_with_spaces_and_brackets(run, scan):
    odd = scan.folder.with_name("scan [2] of calcite")
    scan.folder.rename(odd)
    outcome = run(odd / "input.par", "--set", "fitSpots=1")
    assert outcome.code == 0, outcome.err
    assert str(odd / "harvest.h5") in outcome.out


@pytest.mark.parametrize("n_files", [1, 2])
def test_frames_in_stacks(run, scan, n_files):
    """Multi-frame files count frame by frame; their rows of the normalisation are file::i."""
    from fabio.cbfimage import CbfImage
    from fabio.edfimage import EdfImage

    with h5py.File(scan.harvest) as file:
        expected = {name: file[f"entry/points/{name}"][()] for name in ("counts", "frame", "correction", "Q")}
    frames = sorted((scan.folder / "frames").iterdir())
    monitor = [line.split()[1] for line in (scan.folder / "monitor.txt").read_text(encoding="utf-8").splitlines()]
    rows = []
    for i, part in enumerate(np.array_split(np.arange(len(frames)), n_files)):
        stack = EdfImage(data=CbfImage().read(str(frames[part[0]])).data)
        for n in part[1:]:
            stack.append_frame(data=CbfImage().read(str(frames[n])).data)
        stack.write(str(scan.folder / f"stack{i}.edf"))
        rows += [f"stack{i}.edf::{k} {monitor[n]}" for k, n in enumerate(part)]
    (scan.folder / "monitor.txt").write_text("\n".join(rows), encoding="utf-8")
    outcome = run("scan/input.par", "--set", "images_prefix=scan/stack", "images_postfix=.edf")
    assert outcome.code == 0, outcome.err
    with h5py.File(scan.harvest) as file:
        for name, values in expected.items():
            assert np.array_equal(file[f"entry/points/{name}"], values), name


# Par-files


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_one_parfile_for_everything(run, scan, ending, mark):
    lines = (scan.folder / "experiment.par").read_text(encoding="utf-8").splitlines()
    lines += (scan.folder / "input.par").read_text(encoding="utf-8").splitlines()
    text = ending.join([*lines, ""]).replace("experiment.par", "all.par")
    (scan.folder / "all.par").write_bytes((mark + text).encode())
    outcome = run("scan/all.par", "--set", "load_from_file=scan/harvest.h5", "fitSpots=1")
    assert outcome.code == 0, outcome.err
    assert STRUCTURE in outcome.out


def test_inactive_values_of_options_that_come_later(run, scan):
    scan.append(
        "experiment.par",
        "DO_ELASTIC = 1\nREPLICA_COLLECTION = 0\nREPLICA = 0\nvisSim = 0\nfile_maxima = None\ncentering_file = None\n"
        "transform_only = 0\ntestSpot_N = 64\nA_variables = [minimiser.Variable(0.0, 0.0, 0.0), -1] * 7",
    )
    outcome = run("scan/input.par", "--set", "load_from_file=scan/harvest.h5", "fitSpots=1")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""


def test_other_spellings_and_the_subset_of_python(fitted, scan):
    scan.append("input.par", "step = 15\nif False:\n    ftols = -1\nelse:\n    ftols = 10 ** -5 / 2")
    scan.append("input.par", "do_Minimisation = 1\nboth = {'A11': [100 + step * i for i in range(3)]}\nn = len(both)")
    scan.append("input.par", f"CGUESS = {scan.guess().removeprefix('CGUESS=')}\nif n == 1:\n    nred = n")
    _, results = fitted()
    assert_truth(results, scan.truth)


def test_the_last_assignment_wins_with_a_warning(run, scan):
    first = scan.append("input.par", "show_hkls = 0")
    outcome = (scan.append("input.par", "show_hkls = 1"), run("scan/input.par"))[1]
    assert outcome.code == 0
    assert "above threshold" in outcome.out.splitlines()[-len(scan.spots) - 4]
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("tds2el: warning: ")
    assert f"input.par:{first}" in outcome.err
    assert f"input.par:{first + 1}" in outcome.err


def test_collect_spots_wins_over_file_maxima(run, scan):
    scan.append("input.par", 'file_maxima = "tagged.h5"')
    outcome = run("scan/input.par")
    assert outcome.code == 0
    assert "file_maxima is not used" in outcome.err


def test_a_cell_that_is_a_little_off_is_repaired_with_a_warning(run, scan):
    scan.edit("experiment.par", aCC=119.98)
    outcome = run("scan/input.par", "--set", "fitSpots=1")
    assert outcome.code == 0
    assert outcome.err.count("tds2el: warning: ") == 1
    assert "aCC 119.98" in outcome.err
    assert STRUCTURE in outcome.out


def test_a_harvest_with_other_settings_is_told(fitted, scan):
    scan.edit("experiment.par", DeltaQ_max=0.12)
    outcome, _ = fitted(scan.guess())
    assert outcome.err.startswith("tds2el: warning: ")
    assert "DeltaQ_max" in outcome.err


# Dry run and fit


def test_dry_run_and_its_skeleton(run, scan, fitted):
    outcome = run("scan/input.par", "--set", "load_from_file=scan/harvest.h5", "fitSpots=1")
    assert outcome.code == 0
    assert STRUCTURE in outcome.out
    assert not (scan.folder / "parametri.txt").exists()
    scan.append("input.par", outcome.out[outcome.out.index("CGUESS = {") :])
    _, results = fitted()
    held, sigma = results["A11"]
    assert sigma == 0
    assert_truth(results, scan.truth, held / scan.truth["A11"])


def test_harvest_then_fit_in_one_run(run, scan):
    scan.harvest.unlink()
    outcome = run("scan/input.par", "--set", "fitSpots=1", "doMinimisation=1", scan.guess())
    assert outcome.code == 0
    assert outcome.err == ""
    assert_truth(read_results(scan.folder), scan.truth)
    with h5py.File(scan.folder / "tds2el_fit.h5") as file:
        assert file.attrs["default"] == "entry"
    log = (scan.folder / "tds2el.log").read_text(encoding="utf-8")
    assert log.count("deviance ") > 3
    assert "direct beam at row 60.00, column 50.50" in log


def test_known_scale(fitted, scan):
    outcome, results = fitted(scan.guess())
    assert results["A11"] == (147.1, 0.0)
    assert all(sigma > 0 for name, (_, sigma) in results.items() if name != "A11")
    assert_truth(results, scan.truth)
    assert "if A11 =" not in outcome.out
    assert "the crystal is mechanically stable" in outcome.out


@pytest.mark.parametrize("guess", ["auto", [200.0, 100, 400]])
def test_held_scale_gives_ratios(fitted, scan, guess):
    outcome, results = fitted("CGUESS=auto" if guess == "auto" else scan.guess(A11=guess))
    held, sigma = results["A11"]
    assert sigma == 0
    assert held == (held if guess == "auto" else guess[0])
    assert f"GPa if A11 = {held:g}" in outcome.out
    assert_truth(results, scan.truth, held / scan.truth["A11"])


def test_every_constant_frozen(fitted, scan):
    truth = {name: [value] * 3 for name, value in scan.truth.items()}
    _, results = fitted(scan.guess(**truth))
    assert results == {name: (value, 0.0) for name, value in scan.truth.items()}


def test_a_constant_at_a_bound_is_flagged(fitted, scan):
    outcome, results = fitted(scan.guess(A33=[110, 105, 200]))
    assert results["A33"] == (105.0, 0.0)
    assert "A33 is at its lower bound" in outcome.err + outcome.out


def test_simulation_keeps_the_constants(fitted, scan):
    outcome, results = fitted(scan.guess(), "doMinimisation=0")
    assert results["A33"] == pytest.approx((1.15 * 85.3, 0.0), rel=1e-4)
    assert "as given" in outcome.out
    with h5py.File(scan.folder / "tds2el_fit.h5") as file:
        found = []
        file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    assert any("counts" in name for name in found)


def test_one_point_in_three(fitted, scan):
    everything, full = fitted(scan.guess())
    outcome, thinned = fitted(scan.guess(), "nred=3")
    number, part = (int(re.search(r"(\d+) points of 8 spots", o.out)[1]) for o in (everything, outcome))
    assert 0 <= 3 * part - number <= 3 * len(scan.spots)
    assert_truth(thinned, scan.truth)
    ratios = [thinned[name][1] / sigma for name, (_, sigma) in full.items() if sigma]
    assert 1.3 < np.exp(np.mean(np.log(ratios))) < 2.4  # √3, but for the noise of σ itself
    assert fitted(scan.guess(), "nred=3")[1] == thinned


def test_the_engine_does_not_matter(fitted, scan):
    tight = "ftol=1e-8"
    _, opencl = fitted(scan.guess(), tight, "device=CPU")
    outcome, reference = fitted(scan.guess(), tight, "device=numpy")
    assert "numpy" in outcome.out
    for name, (value, sigma) in reference.items():
        assert abs(opencl[name][0] - value) <= 0.02 * sigma
        assert opencl[name][1] == pytest.approx(sigma, rel=1e-3)


def test_device_by_platform_and_by_environment(fitted, scan, monkeypatch):
    import pyopencl

    platform = next(p for p in pyopencl.get_platforms() if p.get_devices(pyopencl.device_type.CPU))
    by_name, _ = fitted(scan.guess(), "doMinimisation=0", f"device={platform.name[:8].lower()}:0")
    assert platform.name.strip() in by_name.out
    monkeypatch.setenv("PYOPENCL_CTX", str(pyopencl.get_platforms().index(platform)))
    by_environment, _ = fitted(scan.guess(), "doMinimisation=0")
    assert platform.name.strip() in by_environment.out


def test_refit_of_a_few_spots_needs_no_frames(fitted, scan):
    shutil.rmtree(scan.folder / "frames")
    for name in ("mask.edf", "monitor.txt"):
        (scan.folder / name).unlink()
    outcome, results = fitted(scan.guess(), f"collectSpots={scan.spots[:4]}")
    assert "of 4 spots" in outcome.out
    assert_truth(results, scan.truth)


def test_a_spot_that_the_scan_does_not_see_is_left_out(run, scan):
    scan.edit("experiment.par", collectSpots=[*scan.spots, (30, 30, 0)])
    outcome = run("scan/input.par", "--set", "fitSpots=1", "doMinimisation=1", scan.guess())
    assert outcome.code == 0, outcome.err
    assert "(30, 30, 0)" in outcome.err
    assert "of 8 spots" in outcome.out
    assert_truth(read_results(scan.folder), scan.truth)


def test_results_serve_as_a_start(fitted, scan):
    _, first = fitted(scan.guess())
    start = {name: [value, None, None] for name, (value, _) in first.items() if name != "A11"}
    _, second = fitted(scan.guess(**start))
    for name, (value, sigma) in first.items():
        assert math.isclose(second[name][0], value, abs_tol=0.02 * sigma)


# The process


def test_nothing_stops_when_nobody_reads_the_output(process, scan):
    program = """
import os, sys
from tds2el.cli.main import main
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
sys.exit(main())
"""
    outcome = process(["scan/input.par", "--set", *FIT, scan.guess()], scan.folder.parent, program=("-c", program))
    assert (outcome.code, outcome.err) == (0, "")
    assert_truth(read_results(scan.folder), scan.truth)


def test_help_and_version(process, scan):
    import tds2el

    assert process(["--version"], scan.folder).out == f"tds2el {tds2el.__version__}\n"
    for arguments in (["--help"], ["run", "--help"], ["simulate-scan", "--help"], ["demo", "--help"]):
        outcome = process(arguments, scan.folder)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.startswith("usage: tds2el")
    nothing = process([], scan.folder)
    assert nothing.code == 2
    assert "usage: tds2el input.par" in nothing.out + nothing.err


def test_a_run_with_nothing_to_do_says_so(run, scan):
    outcome = run("scan/input.par", "--set", "load_from_file=scan/harvest.h5")
    assert outcome.code == 0
    assert "nothing to do with the harvest: set fitSpots = True" in outcome.err
    outcome = run("scan/input.par", "--set", "load_from_file=scan/harvest.h5", "fitSpots=1", "doMinimisation=1")
    assert outcome.code == 0
    assert "nothing was fitted: CGUESS is not given" in outcome.err


def test_a_scan_without_bragg_peaks_is_suspected(run, scan):
    import fabio

    from tds2el.simulate.cbf import write_cbf

    for path in (scan.folder / "frames").glob("*.cbf"):
        with fabio.open(path) as image:
            header = image.header["_array_data.header_contents"].splitlines()
            write_cbf(path, np.minimum(image.data, 1000), [line.removeprefix("# ") for line in header])
    outcome = run("scan/input.par")
    assert outcome.code == 0
    assert "no Bragg peak was seen" in outcome.err
    assert "direct beam at row 60.0, column 50.5; are the origins exchanged?" in outcome.err


# Beyond the elastic limit


def test_next_order_beside_the_elastic_limit(fitted, scan):
    """The crystal is an elastic one: with both models the truth is found, and the run says how they compare."""
    outcome, results = fitted("model='next-order'", "dispersion_terms=['T11_1111', 'T33_3333']", scan.guess())
    for name, (value, sigma) in results.items():
        assert abs(value - scan.truth[name]) <= 4 * sigma or sigma == 0, (name, value, sigma)
    assert "model    next order: dispersion, gradients, internal strains" in outcome.out
    for title in ("ELASTIC LIMIT AND NEXT ORDER, GPa", "DISPERSION T(q)", "GRADIENTS g", "INTERNAL STRAIN: H"):
        assert title in outcome.out
    with h5py.File(scan.folder / "tds2el_fit.h5") as file:
        entry = file["entry"]
        assert entry["conditions/model"].asstr()[()] == "next-order"
        assert list(entry["next_order/dispersion/name"].asstr()) == ["T11_1111", "T33_3333"]
        assert entry["next_order/gradient"].shape == (len(scan.spots), 3)
        expected = entry["curve/expected"][()][entry["curve/used"][()]]
        counts = entry["curve/counts"][()][entry["curve/used"][()]]
        assert ((counts - expected) ** 2 / expected).sum() == pytest.approx(entry["statistics/chi2"][()], rel=1e-3)


def test_next_order_beside_a_free_geometry(run, scan):
    corrections = "A_variables={'r1': minimiser.Variable(0, -1, 1), 'AA': minimiser.Variable(0, -0.1, 0.1)}"
    options = ("model='next-order'", "dispersion=0", "baseline='linear'", corrections, scan.guess())
    outcome = run("scan/input.par", "--set", *FIT, *options)
    assert outcome.code == 0, outcome.err
    assert "constants fitted; converged in" in outcome.out
    with h5py.File(scan.folder / "tds2el_fit.h5") as file:
        constants, corrections = file["entry/constants"], file["entry/corrections"]
        for name, value, sigma in zip(constants["name"].asstr(), constants["value"], constants["sigma"], strict=True):
            assert abs(value - scan.truth[name]) <= 4 * sigma or name == "A11", (name, value, sigma)
        assert list(corrections["status"].asstr())[:2] == ["fitted", "fitted"]
        assert np.all(np.abs(corrections["correction"][()]) <= 4 * corrections["sigma"][()])


def test_terms_without_their_model_are_a_warning_and_a_dry_run_lists_them(run, scan):
    outcome = run("scan/input.par", "--set", *FIT[:2], "dispersion=1", "doMinimisation=0")
    assert "dispersion without effect" in outcome.err
    outcome = run("scan/input.par", "--set", *FIT[:2], "model='next-order'", "doMinimisation=0")
    assert "The 18 terms of its dispersion" in outcome.out
    assert "T23_1233" in outcome.out
