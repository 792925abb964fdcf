"""Every mistake a user can make ends with exit code 2 and one line that names it, and touches no result."""

import os

import h5py
import numpy as np
import numpy.typing as npt
import pytest

FIT = ("load_from_file=scan/harvest.h5", "fitSpots=1")
NAN = "float('nan')"


def refused(run, scan, *arguments):
    """The error line of a command that must fail and leave every file as it was."""
    for name in ("parametri.txt", "tds2el_fit.h5"):
        (scan.folder / name).write_bytes(b"earlier results")
    before = scan.contents()
    outcome = run(*arguments)
    assert outcome.code == 2, outcome
    error = outcome.error
    assert len(error) < 600
    after = scan.contents()
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == []
    return error


def harvest_refused(run, scan, *overrides):
    return refused(run, scan, "scan/input.par", *(["--set", *overrides] if overrides else []))


def fit_refused(run, scan, *overrides):
    return harvest_refused(run, scan, *FIT, *overrides)


def assert_names(error, *words):
    missing = [word for word in words if word not in error]
    assert not missing, error


# Arguments and files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scan/absent.par"], ["scan/absent.par"]),
        (["scan"], ["scan: ", "directory"]),
        (["scan/frames/scan_00001.cbf"], ["scan_00001.cbf"]),
        (["scan/input.par", "scan/experiment.par"], ["scan/experiment.par", "--help"]),
        (["scan/input.par", "--sett", "nred=2"], ["--sett", "--help"]),
        (["scan/input.par", "--set"], ["--set", "--help"]),
        (["scan/input.par", "--set", "nred"], ["--set nred", "NAME=VALUE"]),
        (["scan/input.par", "--set", "nrde=2"], ["nrde", "did you mean 'nred'?"]),
        (["scan/input.par", "--set", "conf_file=absent.par"], ["--set", "conf_file", "absent.par"]),
    ],
)
def test_arguments(run, scan, arguments, words):
    assert_names(refused(run, scan, *arguments), *words)


def test_conf_file_not_named(run, scan):
    scan.edit("input.par", conf_file=...)
    assert_names(harvest_refused(run, scan), "scan/input.par", "conf_file is missing")


def test_conf_file_absent(run, scan):
    scan.edit("input.par", conf_file="absent.par")
    assert_names(harvest_refused(run, scan), "scan/input.par:", "conf_file", "scan/absent.par")


def test_no_harvest_file_at_all(run, scan):
    scan.edit("experiment.par", save_to_file=None)
    assert_names(harvest_refused(run, scan), "load_from_file", "save_to_file", "both None")


def test_parfile_that_is_no_text(run, scan):
    (scan.folder / "experiment.par").write_bytes(b"AA = 4.99\ncentring = '\xff\xfe'\n")
    assert_names(harvest_refused(run, scan), "experiment.par")


# The language


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nred = (1", ["never closed"]),
        ("nred 2", ["invalid syntax"]),
        ("import os", ["'name = value'"]),
        ("from os import path", ["'name = value'"]),
        ("nred = __import__('os')", ["'__import__' cannot be called"]),
        ("nred = open('/etc/passwd')", ["'open' cannot be called"]),
        ("nred = eval('1')", ["'eval' cannot be called"]),
        ("nred = 'a'.upper()", ["cannot be called"]),
        ("nred = (1).real", ["'1 .real' is not possible"]),
        ("x = minimiser.stiffness", ["minimiser.stiffness"]),
        ("nred = lambda: 1", ["not possible"]),
        ("while True:\n    nred = 1", ["'name = value'"]),
        ("for i in range(3):\n    nred = i", ["'name = value'"]),
        ("def f():\n    pass", ["'name = value'"]),
        ("nred += 1", ["'name = value'"]),
        ("nred = f'{1}'", ["not possible"]),
        ("nred = [1, 2][0]", ["'+' is missing"]),
        ("nred = 1 / 0", ["1 / 0", "zero"]),
        ("nred = 10 ** 10 ** 10", ["too large"]),
        ("nred = [0] * 10 ** 9", ["too"]),
        ("collectSpots = ([[1, 0, 4]]\n    [[2, 0, 2]])", ["'+' is missing between ']' and '['"]),
        (
            "A_variables = [minimiser.Variable(0, -activ1, activ1)] + [minimiser.Variable(0, 0, 0)] * 13",
            ["'activ1' is not defined"],
        ),
        ("centrng = 'R'", ["'centrng' is no option", "did you mean 'centring'?"]),
        ("Nred = 2", ["'Nred' is no option", "did you mean 'nred'?"]),
        ("something_else = 3", ["'something_else' is no option"]),
    ],
)
@pytest.mark.parametrize("file", ["input.par", "experiment.par"])
def test_language(run, scan, file, line, words):
    number = scan.append(file, line)
    assert_names(harvest_refused(run, scan), f"scan/{file}:{number}: ", *words)


def test_images_prefix_twice(run, scan):
    scan.edit("input.par", images_postfix=...)
    number = scan.append("input.par", 'images_prefix = ".cbf"')
    assert_names(harvest_refused(run, scan), f"scan/input.par:{number}: images_prefix", "images_postfix", "input.par:2")


def test_option_in_both_files(run, scan):
    scan.edit("input.par", aCC=119.0)
    assert_names(harvest_refused(run, scan), "scan/input.par:7", "aCC = 119.0", "scan/experiment.par", "120.0")


# Values


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *((name, "0", ["positive"]) for name in ("pixel_size", "dist", "lmbda", "Temperature")),
        *((name, "-1", ["positive"]) for name in ("ftol", "DeltaQ_max", "threshold")),
        *((name, NAN, []) for name in ("det_origin_X", "theta", "r1", "AA", "aCC", "DeltaQ_min", "threshold")),
        *((name, NAN, []) for name in ("Temperature", "relative_error", "pol_degree", "nred", "angular_step")),
        ("dist", "float('inf')", ["positive"]),
        ("d1", "'3 degrees'", ["a finite number"]),
        ("r1", "True", ["a finite number"]),
        ("angular_step", "0", ["other than 0"]),
        *((name, value, ["from 0.1 to 10000"]) for name in ("AA", "BB", "CC") for value in ("0", "-5", "1e9")),
        ("aAA", "180", ["between 0 and 180"]),
        ("aAA", "-90", ["between 0 and 180"]),
        ("orientation_codes", "8", ["0 to 7"]),
        ("orientation_codes", "1.5", ["0 to 7"]),
        ("pol_degree", "1.2", ["from 0 to 1"]),
        ("normal_to_pol", "(0, 0, 0)", ["not all 0"]),
        ("normal_to_pol", "(0, 0, 1e-300)", ["not all 0"]),
        ("normal_to_pol", "(0, 1)", ["three numbers"]),
        ("DeltaQ_min", "-0.01", ["not below 0"]),
        ("ftol", "0", ["positive"]),
        ("ftols", "0", ["ftol", "positive"]),
        ("nred", "0", ["from 1 to 1000000"]),
        ("nred", "2.5", ["whole number"]),
        ("nred", "10**30", ["from 1 to 1000000"]),
        ("relative_error", "-0.01", ["from 0 to 1"]),
        ("doMinimisation", "2", ["0 or 1"]),
        ("fitSpots", "yes", ["0 or 1"]),
        ("show_hkls", "[]", ["0 or 1"]),
        ("scale", "fixed", ['"auto", "free" or "held"']),
        ("threshold_action", "drop", ['"frame" or "pixel"']),
        ("frame_angle", "name", ['"number" or "header"']),
        ("collectSpots", "[]", ["reflections"]),
        ("collectSpots", "[1, 0, 4]", ["entry 1"]),
        ("collectSpots", "[[1, 0, 4], [1, 0]]", ["entry 2", "three whole numbers"]),
        ("collectSpots", "[[1, 0, 4.5]]", ["entry 1", "three whole numbers"]),
        ("collectSpots", "[[1, 0, 4], [0, 0, 0]]", ["entry 2", "direct beam"]),
        ("collectSpots", "[[1, 0, 10**30]]", ["entry 1", "index above 10000"]),
        ("device", "3", ['"platform:device"']),
        ("device", "TPU", ['"platform:device"']),
        ("device", "pocl:", ['"platform:device"']),
        ("CGUESS", "[1, 2, 3]", ['"A11": [start, min, max]']),
        ("CGUESS", "automatic", ['"auto"']),
        ("CGUESS", "{'A11': 100}", ["A11 must be [start, min, max]"]),
        ("CGUESS", "{'A11': [100, 200, 120]}", ["A11", "min <= start <= max"]),
        ("density", "1e-9", ["0.01", "100"]),
        ("CGUESS", f"{{'A11': [{NAN}, 0, 200]}}", ["A11"]),
        ("CGUESS", f"{{'A11': [100, {NAN}, 200]}}", ["A11"]),
        ("CGUESS", "{'A11': [1e300, None, None]}", ["A11", "100000 GPa"]),
        ("CGUESS", "{'C11': [100, 0, 200]}", ["'C11'", "A11 to A66"]),
        ("CGUESS", "{'A21': [100, 0, 200]}", ["'A21'", "smaller index first"]),
        ("testSpot_N", "1", ["at least 2"]),
        ("testSpot_beta", "-1", ["not below 0"]),
        ("testSpot_Niter", "0", ["at least 1"]),
    ],
)
def test_value(run, scan, name, value, words):
    error = harvest_refused(run, scan, f"{name}={value}")
    assert_names(error, "--set: ", "ftol" if name == "ftols" else name, *words)


def test_value_in_a_file_names_its_line(run, scan):
    number = scan.append("experiment.par", "nred = 0")
    assert_names(harvest_refused(run, scan), f"scan/experiment.par:{number}: nred = 0", "from 1 to 1000000")


@pytest.mark.parametrize("name", ["conf_file", "save_to_file", "images_prefix", "ascii_generators", "centring"])
@pytest.mark.parametrize("value", [7, "", ["a"]])
def test_text_that_is_none(run, scan, name, value):
    number = scan.append("input.par", f"{name} = {value!r}")
    assert_names(harvest_refused(run, scan), f"scan/input.par:{number}: {name} = {value!r}", "must be")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["dispersion=0", "spot_gradient=0", "internal_strain=0"], ["elastic limit", "model"]),
        (["doMinimisation=0"], ["cannot be simulated", "doMinimisation = 1"]),
        (["dispersion_terms=['T11_1111']", "dispersion=0"], ["dispersion_terms needs dispersion = True"]),
        (["dispersion_terms=[]"], ["dispersion_terms", "a list of names"]),
        (["dispersion_terms=['T11']"], ["dispersion_terms: T11 not free", "T11_1111", "without CGUESS lists all"]),
        (["ascii_generators='1~'", "CGUESS='auto'"], ["90 terms of dispersion", "at most 30", "dispersion_terms"]),
    ],
)
def test_terms_beyond_the_elastic_limit(run, scan, options, words):
    common = ["model='next-order'", "doMinimisation=1", scan.guess()]
    assert_names(fit_refused(run, scan, *common, *options), *words)


def test_model(run, scan):
    assert_names(fit_refused(run, scan, "model='quantum'"), "model", '"elastic" or "next-order"')


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("resolution='fine'", ["resolution", '"auto", 0 or 1']),
        ("neighbours=3", ["neighbours", '"auto", 0 or 1']),
        ("mosaicity=-0.1", ["mosaicity", 'a number from 0 to 5, or "estimate"']),
        ("mosaicity='guess'", ["mosaicity", 'a number from 0 to 5, or "estimate"']),
        ("mosaicity='estimate'", ["mosaicity", "scan/harvest.h5 has no Bragg peak", "give it in degrees"]),
        ("bandwidth=1.5", ["bandwidth", "a number from 0 to 0.1"]),
        ("pixel_response=-1", ["pixel_response", "a number from 0 to 10"]),
    ],
)
def test_what_is_around_the_model(run, scan, option, words):
    assert_names(fit_refused(run, scan, "doMinimisation=1", scan.guess(), option), *words)


def test_a_variables_of_another_length(run, scan):
    scan.append("input.par", "A_variables = [minimiser.Variable(0, 0, 0)] * 13")
    assert_names(harvest_refused(run, scan), "A_variables", "14 entries (r1, r2, r3, AA", "not 13")


def test_normal_along_the_beam(run, scan):
    assert_names(harvest_refused(run, scan, "normal_to_pol=(1, 0, 0)"), "normal_to_pol", "along the beam")


@pytest.mark.parametrize("name", ["dist", "det_origin_X", "angular_step", "AA", "aCC", "DeltaQ_max", "collectSpots"])
def test_missing_option_of_the_harvest(run, scan, name):
    scan.edit("experiment.par", **{name: ...})
    assert_names(harvest_refused(run, scan), "scan/input.par", "a harvest needs", name)


def test_missing_generators(run, scan):
    scan.edit("input.par", ascii_generators=...)
    assert_names(fit_refused(run, scan), "ascii_generators", "fitSpots")


def test_half_an_experiment_beside_a_harvest(run, scan):
    scan.edit("experiment.par", dist=...)
    assert_names(fit_refused(run, scan), "dist missing")


def test_radii(run, scan):
    assert_names(
        harvest_refused(run, scan, "DeltaQ_min=0.15"), "DeltaQ_min = 0.15", "below DeltaQ_max = 0.15", "experiment.par:"
    )


# Frames


def test_no_frames(run, scan):
    assert_names(
        harvest_refused(run, scan, "images_prefix=scan/frams/"), "scan/frams/*.cbf", "images_prefix", "images_postfix"
    )


def test_missing_number(run, scan):
    scan.frame(10).unlink()
    assert_names(harvest_refused(run, scan), "scan_00011.cbf", "11 follows 9", "frame_angle")


def test_name_order_is_not_numeric_order(run, scan):
    for number in range(1, 61):
        scan.frame(number).rename(scan.frame(number).with_name(f"scan_{number}.cbf"))
    assert_names(harvest_refused(run, scan), "scan_10.cbf", "10 follows 1", "name order is not numeric order")


def test_two_scans_match(run, scan):
    scan.frame(5).with_name("scan_b_00001.cbf").write_bytes(scan.frame(5).read_bytes())
    assert_names(harvest_refused(run, scan), "scan_b_00001.cbf", "several scans")


def test_angles_by_number_need_numbers(run, scan):
    scan.frame(60).rename(scan.frame(60).with_name("scan_last.cbf"))
    assert_names(harvest_refused(run, scan, "frame_angle=number"), "scan_last.cbf", "no number")


def in_header(path, old, new):
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize("step", [0.2, -0.5, 4.0])
def test_angular_step_is_not_that_of_the_headers(run, scan, step):
    scan.edit("experiment.par", angular_step=step)
    assert_names(harvest_refused(run, scan), "scan_00001.cbf", "0.4°", f"angular_step is {step:g}°")


def test_header_increment_of_one_frame(run, scan):
    in_header(scan.frame(7), b"Angle_increment 0.400000", b"Angle_increment 0.800000")
    assert_names(harvest_refused(run, scan), "scan_00007.cbf", "0.8°")


@pytest.mark.parametrize("angle", ["", "header"])
def test_header_start_angle_of_one_frame(run, scan, angle):
    in_header(scan.frame(7), b"Start_angle 12.200000", b"Start_angle 11.000000")
    assert_names(harvest_refused(run, scan, *[f"frame_angle={angle}"] * bool(angle)), "scan_00007.cbf", "11°")


def test_angles_by_header_need_headers(run, scan):
    for number in range(1, 61):
        in_header(scan.frame(number), b"Start_angle", b"Begin_angle")
    assert_names(harvest_refused(run, scan, "frame_angle=header"), "scan_00001.cbf", "no rotation angle")


def test_frame_of_another_shape(run, scan):
    from fabio.cbfimage import CbfImage

    CbfImage(data=np.zeros((20, 30), dtype=np.int32)).write(str(scan.frame(scan.visited)))
    scan.edit("input.par", frame_angle="number")
    assert_names(harvest_refused(run, scan), f"scan_000{scan.visited}.cbf", "20×30", "121×101")


@pytest.mark.parametrize("kept", [0, 600, 5000])
def test_truncated_cbf(run, scan, kept):
    scan.frame(scan.visited).write_bytes(scan.frame(scan.visited).read_bytes()[:kept])
    assert_names(harvest_refused(run, scan), f"scan_000{scan.visited}.cbf")


def test_frame_that_is_no_image(run, scan):
    scan.frame(scan.visited).write_bytes(b"not an image" * 100)
    assert_names(harvest_refused(run, scan), f"scan_000{scan.visited}.cbf")


def test_frame_that_is_a_dangling_link(run, scan):
    scan.frame(scan.visited).unlink()
    scan.frame(scan.visited).symlink_to("moved_away.cbf")
    assert_names(harvest_refused(run, scan), f"scan_000{scan.visited}.cbf", "does not exist")


def test_frame_that_vanishes_during_the_run(run, scan, monkeypatch):
    from tds2el.experiment.frames import FrameSeries

    sources, frame = FrameSeries.sources, scan.frame(scan.visited)
    moved = scan.folder / "moved.cbf"

    def sources_while_frames_move(self: FrameSeries, frames: npt.NDArray[np.int64]) -> object:
        if str(frame) in [self.names[n] for n in frames]:
            frame.rename(moved)
        return sources(self, frames)

    monkeypatch.setattr(FrameSeries, "sources", sources_while_frames_move)
    before = scan.contents()
    outcome = run("scan/input.par")
    assert outcome.code == 2
    assert_names(outcome.error, f"scan_000{scan.visited}.cbf", "does not exist")
    moved.rename(frame)
    assert scan.contents() == before


def test_threshold_not_given_and_not_in_the_headers(run, scan):
    for number in range(1, 61):
        in_header(scan.frame(number), b"Count_cutoff", b"Count_limits")
    assert_names(harvest_refused(run, scan, "threshold=None"), "threshold", "count cutoff")


# Mask and normalisation


def test_mask_missing(run, scan):
    assert_names(harvest_refused(run, scan, "filter_file=absent.edf"), "filter_file", "absent.edf", "no such file")


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((121, 100)), ["(121, 100)", "(121, 101)"]),
        (np.ones(121 * 101), ["(12221,)", "(121, 101)"]),
        (np.full((121, 101), 255), ["255", "1 (good) and 0 (discard)"]),
        (np.linspace(0, 1, 121 * 101).reshape(121, 101), ["0.000", "1 (good) and 0 (discard)"]),
        (np.where(np.eye(121, 101) > 0, np.nan, 1.0), ["101 pixels are NaN"]),
        (np.zeros((121, 101)), ["no good pixel"]),
        (np.full((121, 101), "1"), ["not an array of numbers"]),
    ],
)
def test_mask_values(run, scan, mask, words):
    np.save(scan.folder / "mask.npy", mask)
    scan.edit("input.par", filter_file="mask.npy")
    assert_names(harvest_refused(run, scan), "filter_file", "scan/mask.npy", *words)


@pytest.mark.parametrize("name", ["mask.npy", "mask.edf", "mask.h5::/good", "mask.h5", "mask.tif"])
def test_mask_damaged(run, scan, name):
    (scan.folder / name.partition("::")[0]).write_bytes(b"something else")
    scan.edit("input.par", filter_file=name)
    assert_names(harvest_refused(run, scan), f"scan/{name.partition('::')[0]}")


def test_mask_dataset_missing(run, scan):
    with h5py.File(scan.folder / "mask.h5", "w") as file:
        file["bad"] = np.zeros((121, 101))
    scan.edit("input.par", filter_file="mask.h5::/good")
    assert_names(harvest_refused(run, scan), "filter_file", "mask.h5", "no dataset /good")


def test_normalisation_missing(run, scan):
    assert_names(
        harvest_refused(run, scan, "normalisation_file=absent.txt"), "normalisation_file", "absent.txt", "No such file"
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("", ["no row for frame", "scan_00007.cbf"]),
        ("frames/scan_00007.cbf 0", [":7:", "denominator 0", "scan_00007.cbf"]),
        ("frames/scan_00007.cbf -3.5", [":7:", "denominator -3.5", "scan_00007.cbf"]),
        ("frames/scan_00007.cbf nan", [":7:", "denominator nan", "scan_00007.cbf"]),
        ("frames/scan_00007.cbf inf", [":7:", "denominator inf", "scan_00007.cbf"]),
        ("frames/scan_00007.cbf", [":7:", "a file name and a number"]),
        ("frames/scan_00007.cbf one", [":7:", "a file name and a number", "one"]),
        ("a/scan_00007.cbf 1\nb/scan_00007.cbf 2", [":8:", "scan_00007.cbf", "full path"]),
    ],
)
def test_normalisation_row(run, scan, row, words):
    path = scan.folder / "monitor.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[6] = row
    path.write_text("\n".join(lines), encoding="utf-8")
    assert_names(harvest_refused(run, scan), "scan/monitor.txt", *words)


# Crystal


@pytest.mark.parametrize(
    ("generators", "words"),
    [
        ("1~,5(z),2(y)", ['unknown generator "5(z)"', "3(z)"]),
        ("1~;3(z)", ["unknown generator"]),
        ("1~,,3(z)", ["unknown generator"]),
        ("1~,3(z),3(111)", ["more than 48 operations"]),
        ("6(z),4(z)", ["an axis that no lattice has"]),
        ("1~,4(z)", ["cell"]),
        ("-3m2", ["neither a point group", "3(z)"]),
        ("P31", ["neither a point group"]),
        ("-6m2", ["centring"]),
    ],
)
def test_generators(run, scan, generators, words):
    scan.edit("input.par", ascii_generators=generators)
    assert_names(fit_refused(run, scan), *words, generators.split(",")[0])


def test_open_orientation(run, scan):
    scan.edit("input.par", ascii_generators="-3m")
    scan.edit("experiment.par", centring="P")
    assert_names(fit_refused(run, scan), "-3m", "does not fix the orientation", '"-3m1"', '"-31m"')


@pytest.mark.parametrize("options", [{"aCC": 118.0}, {"AA": 5.2}, {"aBB": 92.0}])
def test_cell_contradicts_symmetry(run, scan, options):
    scan.edit("experiment.par", **options)
    name, value = next(iter(options.items()))
    error = harvest_refused(run, scan, "fitSpots=1", "centring=None")
    assert_names(error, f"{name} = {value:g} where", "fits")


def test_impossible_cell(run, scan):
    assert_names(harvest_refused(run, scan, "aAA=60", "aBB=50"), "aAA = 60", "aBB = 50", "aCC = 120")


@pytest.mark.parametrize("centring", ["X", "R -3 x", "167"])
def test_unknown_centring(run, scan, centring):
    scan.edit("experiment.par", centring=centring)
    assert_names(harvest_refused(run, scan), "centring", f'"{centring}"', "P, A, B, C, I, F, R")


def test_absent_reflection(run, scan):
    scan.edit("experiment.par", collectSpots=[*scan.spots, (1, 0, 0)])
    assert_names(harvest_refused(run, scan), "collectSpots", "(1, 0, 0)", "R -3 c:H")


@pytest.mark.parametrize("spots", ["[(30, 30, 0)]", "[(0, 0, 6)]"])
def test_reflection_that_never_reaches_the_detector(run, scan, spots):
    assert_names(harvest_refused(run, scan, f"collectSpots={spots}"), "collectSpots", "direct beam at row 60.0")


def test_no_point_in_the_shell(run, scan):
    assert_names(harvest_refused(run, scan, "DeltaQ_min=0.1499999"), "collectSpots", "no point was harvested")


# Harvest files


def test_harvest_missing(run, scan):
    assert_names(harvest_refused(run, scan, "load_from_file=absent.h5"), "load_from_file", "absent.h5", "no such file")


@pytest.mark.parametrize("length", [0, 300, 5000, -200])
def test_harvest_damaged(run, scan, length):
    scan.harvest.write_bytes(scan.harvest.read_bytes()[:length])
    assert_names(fit_refused(run, scan), "load_from_file", "scan/harvest.h5", "damaged")


def test_harvest_is_no_hdf5(run, scan):
    assert_names(harvest_refused(run, scan, "load_from_file=scan/monitor.txt"), "load_from_file", "scan/monitor.txt")


def test_harvest_is_other_hdf5(run, scan):
    with h5py.File(scan.folder / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    assert_names(
        harvest_refused(run, scan, "load_from_file=scan/other.h5"), "load_from_file", "scan/other.h5", "no harvest"
    )


@pytest.mark.parametrize("dataset", ["points/Q", "blobs/hkl", "shell/delta_max", "settings/values", "frames/name"])
def test_harvest_lacks_a_part(run, scan, dataset):
    with h5py.File(scan.harvest, "r+") as file:
        del file["entry"][dataset]
    assert_names(fit_refused(run, scan), "load_from_file", "scan/harvest.h5", "damaged")


@pytest.mark.parametrize(("column", "value"), [("Q", np.nan), ("counts", 0), ("correction", 0), ("correction", np.nan)])
def test_harvest_with_overwritten_data(run, scan, column, value):
    with h5py.File(scan.harvest, "r+") as file:
        file[f"entry/points/{column}"][...] = value
    assert_names(fit_refused(run, scan, scan.guess(), "doMinimisation=1"), "scan/harvest.h5")


def test_harvest_of_another_version(run, scan):
    with h5py.File(scan.harvest, "r+") as file:
        file.attrs["format_version"] = 99
    assert_names(fit_refused(run, scan), "scan/harvest.h5", "99", "harvest again")


def test_spot_that_was_not_harvested(run, scan):
    assert_names(
        fit_refused(run, scan, scan.guess(), "collectSpots=[(1, 0, 4), (-3, 3, 0)]"), "(1, 0, 4)", "scan/harvest.h5"
    )


# Fit


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"A15": ...}, ["lacks A15"]),
        ({"A12": [50, 0, 100]}, ["has A12"]),
        ({"A33": ..., "A22": [100, 0, 200]}, ["lacks A33", "has A22"]),
        ({"A33": [100, 120, 200]}, ["starts A33 outside its bounds"]),
    ],
)
def test_guess_with_other_names(run, scan, entries, words):
    error = fit_refused(run, scan, scan.guess(**entries), "doMinimisation=1")
    assert_names(error, "CGUESS", *words, "A11, A33, A44, A66, A13, A15")


@pytest.mark.parametrize("fit", [0, 1])
def test_indefinite_start(run, scan, fit):
    error = fit_refused(run, scan, scan.guess(A13=[120, 0, 200]), f"doMinimisation={fit}")
    lowest = np.linalg.eigvalsh([[147.1 + 147.1 - 2 * 53.475, np.sqrt(2) * 120], [np.sqrt(2) * 120, 1.15 * 85.3]])[
        0
    ]  # of the totally symmetric block, Kelvin's form
    assert lowest < 0
    assert_names(error, "CGUESS", "lowest eigenvalue", f"{lowest:.4g} GPa")


@pytest.mark.parametrize("device", ["GPU", "7:3", "no such platform:0"])
def test_device_absent(run, scan, device):
    cl = pytest.importorskip("pyopencl")
    platforms = cl.get_platforms()
    if device == "GPU" and any(d.type & cl.device_type.GPU for p in platforms for d in p.get_devices()):
        pytest.skip("there is a GPU")
    error = fit_refused(run, scan, scan.guess(), f"device={device}")
    assert_names(error, f"device = '{device}'", platforms[0].name.strip(), '"numpy"')


def test_pyopencl_ctx_absent(run, scan, monkeypatch):
    monkeypatch.setenv("PYOPENCL_CTX", "7")
    assert_names(fit_refused(run, scan, scan.guess()), "PYOPENCL_CTX", '"numpy"')


def test_thinned_too_much(run, scan):
    assert_names(fit_refused(run, scan, scan.guess(), "nred=1000"), "scan/harvest.h5", "no spot has 10 points")


@pytest.mark.parametrize("option", ["Temperature=1e-6"])
def test_quantum_term_out_of_reach(run, scan, option):
    assert_names(fit_refused(run, scan, scan.guess(), option), "Temperature", "density", "out of reach")


# Where results go


def test_output_folder_missing(run, scan):
    assert_names(harvest_refused(run, scan, "output_folder=absent"), "output_folder", "absent", "create it")


def test_output_folder_is_a_file(run, scan):
    assert_names(harvest_refused(run, scan, "output_folder=scan/input.par"), "output_folder", "scan/input.par")


def test_save_to_file_in_a_missing_folder(run, scan):
    assert_names(harvest_refused(run, scan, "save_to_file=absent/new.h5"), "save_to_file", "absent", "create it")


def test_save_to_file_is_a_folder(run, scan):
    assert_names(harvest_refused(run, scan, "save_to_file=scan"), "save_to_file", "scan")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("option", ["output_folder=locked", "save_to_file=locked/new.h5"])
def test_folder_that_cannot_be_written(run, scan, option):
    locked = scan.folder.parent / "locked"
    locked.mkdir(mode=0o500)
    assert_names(harvest_refused(run, scan, option), option.partition("=")[0], "locked")


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder that not even root may write in")
@pytest.mark.parametrize("option", ["output_folder=/proc", "save_to_file=/proc/new.h5"])
def test_folder_that_nobody_can_write(run, scan, option):
    assert_names(harvest_refused(run, scan, option), option.partition("=")[0], "/proc", "cannot be written")


@pytest.mark.parametrize("name", ["parametri.txt", "tds2el_fit.h5"])
def test_result_that_cannot_be_replaced(run, scan, name):
    (scan.folder / "out" / name).mkdir(parents=True)
    outcome = run("scan/input.par", "--set", *FIT, scan.guess(), "output_folder=scan/out")
    assert outcome.code == 2
    assert_names(outcome.error, f"scan/out/{name}")


# Simulation and demo


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("n_frmes = 3", ["n_frmes", "n_frames"]),
        ("import os", ["name = value"]),
        ("shape = [121]", ["shape"]),
        ("gap_rows = [[100, 200]]", ["gap_rows", "120"]),
        ("DeltaQ_min = 0.2", ["DeltaQ_min", "DeltaQ_max"]),
        ("n_frames = 0", ["n_frames", "from 1 to"]),
        ("substeps = 4", ["substeps", "odd"]),
        ("elastic_tensor = [[1]]", ["elastic_tensor", "6 rows"]),
        ('constants = {"A11": 1}', ["A33"]),
        ('constants = {"A11": -1, "A33": 1, "A44": 1, "A66": 1, "A13": 0, "A15": 0}', ["eigenvalue"]),
        ("aCC = 118", ["aCC = 118 where 120 fits"]),
        ("collectSpots = [[1, 0, 0]]", ["1"]),
        ("constants = None", ["constants or elastic_tensor"]),
    ],
)
def test_simulate_scan(run, scan, line, words):
    (scan.folder / "scan.par").write_text(scan.text.replace('"scan"', '"new"') + line + "\n", encoding="utf-8")
    assert_names(refused(run, scan, "simulate-scan", "scan/scan.par"), *words)


def test_simulate_scan_without_a_file(run, scan):
    assert_names(refused(run, scan, "simulate-scan"), "scan", "--help")
    assert_names(refused(run, scan, "simulate-scan", "absent.par"), "absent.par")


def test_simulate_scan_beside_other_frames(run, scan):
    (scan.folder.parent / "scan.par").write_text(scan.text.replace("n_frames = 60", "n_frames = 20"), encoding="utf-8")
    assert_names(refused(run, scan, "simulate-scan", "scan.par"), "scan_00021.cbf", "another scan")


def test_demo_in_a_folder_that_is_a_file(run, scan):
    assert_names(refused(run, scan, "demo", "--folder", "scan/input.par"), "--folder", "scan/input.par")
