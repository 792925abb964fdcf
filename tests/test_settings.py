"""From two par-files and overrides to settings: the rules for names, paths and logic."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from tds2el.errors import InputError
from tds2el.settings import Experiment, Settings, experiment_from_values, load_settings

INPUT = """\
conf_file = "conf/conf.par"
images_prefix = "frames/calcite_"
images_postfix = ".cbf"
filter_file = "mask.edf"
ascii_generators = "1~,3(z),2(y)"
"""
CONF = """\
pixel_size = 0.172
dist = 244.5
lmbda = 0.6968
det_origin_X = 600
det_origin_Y = 511.5
angular_step = -0.1
r1, r2 = 0, 0
AA = BB = 4.99
CC = 17.061
aAA = aBB = 90
aCC = 120
DeltaQ_max = 0.15
DeltaQ_min = 0.04
load_from_file = None
save_to_file = "harvest.h5"
collectSpots = [[1, 0, 4], [0, 0, 6]] + [[h, 1, 0] for h in range(1, 3)]
""".replace("r1, r2 = 0, 0", "r1 = -75.3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(folder: Path, more: str = "", conf: str = "", *overrides: str, without: tuple[str, ...] = ()) -> Settings:
    """Settings of the files above with lines added and assignments left out."""

    def kept(text: str) -> str:
        return "".join(line for line in text.splitlines(True) if line.split(" ")[0] not in without)

    (folder / "input.par").write_text(kept(INPUT) + more + "\n")
    (folder / "conf" / "conf.par").write_text(kept(CONF) + conf + "\n")
    return load_settings("input.par", overrides)


def refusal(folder: Path, more: str = "", conf: str = "", *overrides: str, without: tuple[str, ...] = ()) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, more, conf, *overrides, without=without)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_settings_of_a_harvest(folder: Path) -> None:
    settings = load(folder)
    assert settings.warnings == ()
    experiment = settings.experiment
    assert experiment is not None
    assert (experiment.pixel_size, experiment.dist, experiment.lmbda) == (0.172, 244.5, 0.6968)
    assert (experiment.angular_step, experiment.r1, experiment.theta) == (-0.1, -75.3, 0)
    assert (experiment.orientation_codes, experiment.normal_to_pol) == (0, (0, 0, 1))
    assert settings.crystal.cell == (4.99, 4.99, 17.061, 90, 90, 120)
    assert settings.crystal.ascii_generators == "1~,3(z),2(y)"
    assert (settings.crystal.Temperature, settings.crystal.density, settings.crystal.centring) == (300, 2.71, None)
    assert (settings.harvest.DeltaQ_max, settings.harvest.DeltaQ_min) == (0.15, 0.04)
    assert settings.harvest.collectSpots == ((1, 0, 4), (0, 0, 6), (1, 1, 0), (2, 1, 0))
    assert settings.fit.CGUESS is None
    assert settings.fit.doMinimisation is False
    assert settings.run.fitSpots is False


def test_paths_are_relative_to_the_file_that_names_them(folder: Path) -> None:
    settings = load(folder, conf='normalisation_file = "../norm.txt"')
    assert settings.frames is not None
    assert settings.frames.images_prefix == str(folder / "frames" / "calcite_")
    assert settings.frames.filter_file == folder / "mask.edf"
    assert settings.frames.normalisation_file == folder / "norm.txt"
    assert settings.run.save_to_file == folder / "conf" / "harvest.h5"
    assert (settings.input_file, settings.conf_file) == (folder / "input.par", folder / "conf" / "conf.par")


def test_output_folder(folder: Path) -> None:
    assert load(folder).run.output_folder == folder
    assert load(folder, conf='output_folder = "results"').run.output_folder == folder / "conf" / "results"


def test_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(folder)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    settings = load_settings("../input.par", ["filter_file=mine.npy"])
    assert settings.run.output_folder == folder
    assert settings.frames is not None
    assert settings.frames.images_prefix == f"{folder}/frames/calcite_"
    assert settings.frames.filter_file == folder / "elsewhere" / "mine.npy"


def test_provenance(folder: Path) -> None:
    settings = load(folder, 'CGUESS = {"A11": [140, None, 200]}', "ftols = 1e-4", "nred=7")
    assert settings.where["images_prefix"] == "input.par:2"
    assert settings.where["dist"] == "conf/conf.par:2"
    assert settings.where["ftol"] == "conf/conf.par:17"
    assert settings.where["nred"] == "--set"
    assert settings.where["theta"] == "default"
    assert {"dist", "ftol", "nred", "CGUESS"} <= settings.given
    assert not {"theta", "ftols", "Temperature"} & settings.given
    values = json.loads(json.dumps(settings.values, allow_nan=False))
    assert values["CGUESS"] == {"A11": [140, None, 200]}
    assert values["filter_file"] == str(folder / "mask.edf")
    assert values["nred"] == 7
    assert experiment_from_values(values) == settings.experiment
    assert {field.name for field in dataclasses.fields(Experiment)} <= values.keys()


def test_any_option_may_stand_in_either_file(folder: Path) -> None:
    settings = load(folder, "Temperature = 295\n", 'centring = "R"\nfitSpots = True\nTemperature = 295.0')
    assert settings.crystal.Temperature == 295
    assert settings.crystal.centring == "R"
    assert settings.where["Temperature"] == "input.par:6"
    assert settings.warnings == ()


def test_everything_in_one_file(folder: Path) -> None:
    text = INPUT.replace("conf/conf.par", "all.par") + CONF + "nred = 2\nnred = 3\n"
    (folder / "all.par").write_text(text)
    settings = load_settings("all.par")
    assert settings.conf_file == settings.input_file == folder / "all.par"
    assert settings.fit.nred == 3
    assert len(settings.warnings) == 1


def test_different_values_in_both_files(folder: Path) -> None:
    message = refusal(folder, "Temperature = 295", "Temperature = 300")
    assert message == "input.par:6: Temperature = 295, but conf/conf.par:17 says 300; keep one of them"
    assert "conf/conf.par:17" in refusal(folder, 'centring = "R"', 'centring = "P"')
    # The same words, but relative to different folders.
    assert refusal(folder, conf='filter_file = "mask.edf"').startswith("input.par:4: filter_file = 'mask.edf', but")
    assert load(folder, "Temperature = 295", "Temperature = 300", "Temperature=5").crystal.Temperature == 5


def test_assigned_twice(folder: Path) -> None:
    settings = load(folder, conf="dist = 300\ndo_Minimisation = 1\ndoMinimisation = 0")
    assert settings.experiment is not None
    assert settings.experiment.dist == 300
    assert settings.fit.doMinimisation is False
    assert settings.warnings == (
        "conf/conf.par:17: dist is assigned again (before at conf/conf.par:2); the last value, 300, is used",
        "conf/conf.par:19: doMinimisation is assigned again (before at conf/conf.par:18); the last value, 0, is used",
    )


def test_images_prefix_twice(folder: Path) -> None:
    misprint = 'images_prefix = "frames/a_"\nimages_prefix = ".cbf"'
    without = ("images_prefix", "images_postfix")
    message = refusal(folder, misprint, without=without)
    assert message.startswith("input.par:5: images_prefix is assigned again (before at input.par:4)")
    assert "images_postfix" in message
    settings = load(folder, misprint, 'images_postfix = ""', without=without)
    assert settings.frames is not None
    assert settings.frames.images_prefix == f"{folder}/.cbf"
    assert len(settings.warnings) == 1
    load(folder, misprint, "", "images_postfix=.cbf", without=without)
    load(folder, misprint, "", "images_prefix=frames/b_", without=without)


def test_unknown_names_and_helpers(folder: Path) -> None:
    message = refusal(folder, conf="DeltaQ_Max = 0.1")
    assert message.startswith("conf/conf.par:17: 'DeltaQ_Max' is no option")
    assert message.endswith("did you mean 'DeltaQ_max'?")
    assert "input.par:6: 'tx' is no option, and no later line reads it" in refusal(folder, "tx = 3")
    assert load(folder, "tx = 3\nnred = tx + 1").fit.nred == 4
    assert load(folder, "tx = 3\nif False:\n    nred = tx").fit.nred == 1


def test_conf_file_is_needed_and_must_exist(folder: Path) -> None:
    assert refusal(folder, without=("conf_file",)).startswith("input.par: conf_file is missing")
    message = refusal(folder, 'conf_file = "cnof.par"', without=("conf_file",))
    assert message == f"input.par:5: conf_file = 'cnof.par': there is no file {folder}/cnof.par"
    assert "name of a file" in refusal(folder, "conf_file = 3", without=("conf_file",))
    with pytest.raises(InputError, match=r"^absent\.par: cannot be read \(No such file"):
        load_settings("absent.par")


def test_errors_name_the_file_they_are_in(folder: Path) -> None:
    assert refusal(folder, conf="import os").startswith("conf/conf.par:17: only")
    assert refusal(folder, conf="theta = 1 / 0").startswith("conf/conf.par:17: ")
    assert refusal(folder, "theta = 'a'").startswith("input.par:6: theta = 'a': must be a finite number")


def test_harvest_file_must_be_named(folder: Path) -> None:
    assert "load_from_file and save_to_file are both None" in refusal(folder, without=("save_to_file",))


def test_a_harvest_lists_all_that_is_missing(folder: Path) -> None:
    message = refusal(folder, without=("dist", "aCC", "images_prefix", "collectSpots"))
    assert message.startswith("input.par: a harvest needs images_prefix, dist, aCC, collectSpots or file_maxima;")
    assert "collectSpots" in refusal(folder, "collectSpots = None", without=("collectSpots",))


def test_the_symmetry_is_needed_for_a_fit_only(folder: Path) -> None:
    assert load(folder, without=("ascii_generators",)).crystal.ascii_generators is None
    message = refusal(folder, "fitSpots = True", without=("ascii_generators",))
    assert "needs ascii_generators (because of fitSpots)" in message


CELL_NAMES = ("AA", "CC", "aAA", "aCC")
EXPERIMENT_NAMES = ("pixel_size", "dist", "lmbda", "det_origin_X", "det_origin_Y", "angular_step", "r1")


def test_a_reused_harvest_may_bring_experiment_and_cell(folder: Path) -> None:
    gone = (
        *CELL_NAMES,
        *EXPERIMENT_NAMES,
        "images_prefix",
        "DeltaQ_max",
        "DeltaQ_min",
        "load_from_file",
        "collectSpots",
    )
    settings = load(folder, 'load_from_file = "old.h5"\nfitSpots = True', without=gone)
    assert settings.run.load_from_file == folder / "old.h5"
    assert settings.experiment is None
    assert settings.frames is None
    assert settings.crystal.cell is None
    assert (settings.harvest.DeltaQ_max, settings.harvest.collectSpots) == (None, None)
    whole = load(folder, 'load_from_file = "old.h5"', without=("load_from_file",))
    assert whole.experiment == load(folder).experiment
    assert whole.crystal.cell is not None


def test_a_sensor_has_both_thickness_and_absorption(folder: Path) -> None:
    experiment = load(folder, conf="sensor_thickness = 0.32\nsensor_mu = 1.4").experiment
    assert experiment is not None
    assert (experiment.sensor_thickness, experiment.sensor_mu) == (0.32, 1.4)
    assert refusal(folder, conf="sensor_thickness = 0.32").endswith(
        "sensor_thickness without sensor_mu: parallax needs both; give both or neither"
    )
    assert "sensor_mu without sensor_thickness" in refusal(folder, conf="sensor_mu = 1.4")
    message = refusal(folder, conf="sensor_thickness = 320\nsensor_mu = 1.4")
    assert "sensor_thickness = 320 mm is more than a tenth of dist = 244.5 mm" in message


def test_values_of_a_harvest_without_a_sensor_are_enough(folder: Path) -> None:
    values = {k: v for k, v in load(folder).values.items() if not k.startswith("sensor")}
    assert experiment_from_values(values).sensor_thickness == 0


@pytest.mark.parametrize(("name", "group"), [("dist", EXPERIMENT_NAMES), ("aCC", CELL_NAMES)])
def test_a_reused_harvest_brings_them_whole(folder: Path, name: str, group: tuple[str, ...]) -> None:
    lines = 'load_from_file = "old.h5"'
    message = refusal(folder, lines, without=("load_from_file", name))
    assert message.startswith(f"input.par: {name} missing; give all of {group[0]}, ")
    others = tuple(other for other in group if other != name)
    message = refusal(folder, lines, without=("load_from_file", *others))
    assert others[0] in message.split(" missing")[0]


def test_collect_spots_wins_over_file_maxima(folder: Path) -> None:
    settings = load(folder, 'file_maxima = "tagged.h5"')
    assert settings.warnings == ("input.par:6: file_maxima is not used: collectSpots is given at conf/conf.par:16",)
    assert "file_maxima" not in settings.given
    assert load(folder, "file_maxima = None").warnings == ()
    alone = load(folder, 'file_maxima = "tagged.h5"', without=("collectSpots",))
    assert (alone.harvest.collectSpots, alone.harvest.file_maxima) == (None, folder / "tagged.h5")
    assert alone.warnings == ()


def test_duplicate_reflections_are_taken_once(folder: Path) -> None:
    settings = load(folder, "collectSpots = [[1, 0, 4], [0, 0, 6], (1, 0, 4)]", without=("collectSpots",))
    assert settings.harvest.collectSpots == ((1, 0, 4), (0, 0, 6))
    assert len(settings.warnings) == 1
    assert settings.warnings[0].startswith("input.par:6: collectSpots names 1 reflection(s) again, such as 1 0 4")


def test_radii(folder: Path) -> None:
    message = refusal(folder, "DeltaQ_min = 0.15", without=("DeltaQ_min",))
    assert message == "input.par:6: DeltaQ_min = 0.15 must be below DeltaQ_max = 0.15 (conf/conf.par:12)"


@pytest.mark.parametrize(
    "angles", [(120, 120, 120), (60, 60, 120), (30, 40, 100), (60, 60, 119.9), (119.9, 119.9, 119.9)]
)
def test_angles_form_a_cell_if_it_has_a_volume(folder: Path, angles: tuple[float, float, float]) -> None:
    alpha, beta, gamma = angles
    lines = f"aAA = {alpha}\naBB = {beta}\naCC = {gamma}"
    cosines = [math.cos(math.radians(angle)) for angle in angles]
    squared_volume = 1 - sum(c * c for c in cosines) + 2 * math.prod(cosines)
    if squared_volume > 1e-12:
        assert load(folder, lines, without=("aAA", "aCC")).crystal.cell == (4.99, 4.99, 17.061, *angles)
    else:
        assert "no cell has these angles" in refusal(folder, lines, without=("aAA", "aCC"))


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("nred=2 + 3", "nred", 5),
        ("device=numpy", "device", "numpy"),
        ("device='GPU'", "device", "GPU"),
        ("device=0:1", "device", "0:1"),
        ("device=None", "device", None),
        ("CGUESS={'A11': [1, 0, 2]}", "CGUESS", {"A11": [1, 0, 2]}),
        ("CGUESS=auto", "CGUESS", "auto"),
        ("ascii_generators=1~,2(z)", "ascii_generators", "1~,2(z)"),
        ("ascii_generators=222", "ascii_generators", "222"),
        ("ascii_generators=-1", "ascii_generators", "-1"),
        ("centring=R", "centring", "R"),
        ("images_postfix=", "images_postfix", ""),
        ("ftols=1e-3", "ftol", 1e-3),
        ("collectSpots=[[2, 0, h] for h in range(2)]", "collectSpots", [[2, 0, 0], [2, 0, 1]]),
    ],
)
def test_overrides(folder: Path, override: str, name: str, value: object) -> None:
    settings = load(folder, "", "", override)
    assert settings.values[name] == value
    assert settings.where[name] == "--set"


def test_paths_of_overrides_are_relative_to_the_current_folder(folder: Path) -> None:
    settings = load(folder, "", "", "save_to_file=2026", "conf_file=conf/conf.par")
    assert settings.run.save_to_file == folder / "2026"


def test_bad_overrides(folder: Path) -> None:
    assert refusal(folder, "", "", "nred") == "--set nred: write --set NAME=VALUE"
    assert (
        refusal(folder, "", "", "DeltaQmax=1")
        == "--set DeltaQmax=1: 'DeltaQmax' is no option; did you mean 'DeltaQ_max'?"
    )
    assert refusal(folder, "", "", "nred=x") == "--set: nred = 'x': must be a whole number from 1 to 1000000"
    assert refusal(folder, "", "", "nred=0") == "--set: nred = 0: must be a whole number from 1 to 1000000"
    assert refusal(folder, "", "", "variations=1").startswith("--set: variations = 1: must be")
    assert refusal(folder, "", "", "orientation_codes=None").endswith(
        "name the aligned.par that it writes as conf_file"
    )
    settings = load(folder, "", "", "nred=2", "nred=3")
    assert settings.fit.nred == 3
    assert settings.warnings == ("--set gives nred more than once; the last, 3, is used",)
