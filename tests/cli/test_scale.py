"""The absolute scale from the command line: an attenuated scan with extinction, known moduli, and what can be wrong."""

import re
from pathlib import Path

import pytest

from tds2el.cli.main import main
from tds2el.fit.read import read_fit_file

TRUTH = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
SCAN = f"""\
pixel_size = 0.4
dist = 90.0
lmbda = 0.45
det_origin_X = 100.0
det_origin_Y = 100.5
phi = 10.0
angular_step = 0.3
r1 = 20.0
r2 = 35.0
r3 = 10.0
AA = 4.990
BB = AA
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
ascii_generators = "1~,3(z),2(y)"
centring = "R -3 c:H"
constants = {TRUTH}
shape = [201, 201]
n_frames = 150
n_hot_pixels = 5
count_level = 60
n_spots = 12
cut_radius = 0.1
DeltaQ_min = 0.16
DeltaQ_max = 0.26
peak_width = 0.0067
extinction = 0.05
count_cutoff = 100000000
seed = 7
"""
GUESS = f"CGUESS={ {name: [0.8 * value, None, None] for name, value in TRUTH.items()} }"


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A folder with a scan whose peaks are off the scale, the same attenuated, and a harvest of the first."""
    folder = tmp_path_factory.mktemp("scale")
    for name, attenuation in (("bright", 1.0), ("weak", 50.0)):
        path = folder / f"{name}.par"
        path.write_text(SCAN + f'attenuation = {attenuation}\noutput_folder = "{name}"\n', encoding="utf-8")
        assert main(["simulate-scan", str(path)]) == 0
    # What the detector cannot count: peaks saturate, halos do not.
    harvest = ["--set", "fitSpots=False", "threshold=20000", 'threshold_action="pixel"']
    assert main([str(folder / "bright/input.par"), "--quiet", *harvest]) == 0
    return folder


def run(scan: Path, out: Path, *options: str) -> int:
    out.mkdir()
    common = (
        f"load_from_file={scan / 'bright/harvest.h5'}",
        "fitSpots=1",
        "doMinimisation=1",
        "device=CPU",
        "neighbours=0",
    )
    settings = (*common, f"output_folder={out}", "report=False", "threshold=20000", 'threshold_action="pixel"', GUESS)
    return main([str(scan / "bright/input.par"), "--quiet", "--set", *settings, *options])


def weak(scan: Path) -> tuple[str, ...]:
    folder = scan / "weak"
    return (
        "bragg_scale=1",
        f"bragg_prefix={folder / 'frames/scan_'}",
        "bragg_postfix=.cbf",
        f"bragg_normalisation_file={folder / 'monitor.txt'}",
    )


def test_attenuated_scan_gives_absolute_constants(scan, tmp_path):
    assert run(scan, tmp_path / "out", *weak(scan), "bragg_attenuation=[50, 0.25]", "bootstrap=200") == 0
    fit = read_fit_file(tmp_path / "out/tds2el_fit.h5")
    assert fit.constants.scale == "datum"
    for name, value, sigma, start in zip(
        fit.constants.names, fit.constants.value, fit.constants.sigma, fit.constants.start, strict=True
    ):
        assert abs(value - TRUTH[name]) < 5 * sigma, name
        assert sigma < 0.08 * abs(TRUTH[name]), name
        assert start == pytest.approx(0.8 * TRUTH[name])
    assert fit.bragg is not None
    loss, error = fit.bragg.loss
    assert abs(loss - 0.05) < 4 * error
    assert fit.bragg.sigma_scale > 0.005  # that of the attenuation
    text = (tmp_path / "out/parametri.txt").read_text(encoding="utf-8")
    assert "Bragg scale is known" in text
    assert "scale without extinction" in text
    assert re.search(r"^A44 = .*bootstrap", text, re.MULTILINE)
    assert "BRAGG INTENSITIES" in fit.report


def test_saturated_peaks_are_told(scan, tmp_path, capsys):
    """The scan itself, whose peaks are all above the threshold."""
    assert run(scan, tmp_path / "out", "bragg_scale=1") == 2
    assert "saturated" in capsys.readouterr().err


def test_known_modulus_with_profile(scan, tmp_path):
    known = 'known={"K_Reuss": [74.0, 1.0, "isothermal"]}'
    assert run(scan, tmp_path / "out", known, 'profile_likelihood=["A33"]') == 0
    fit = read_fit_file(tmp_path / "out/tds2el_fit.h5")
    assert fit.moduli["bulk_reuss"][0] == pytest.approx(74.0, abs=0.3)
    assert fit.moduli["bulk_reuss"][1] == pytest.approx(1.0, abs=0.2)
    assert "A33" in fit.report.split("INTERVALS")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (('known={"K_Reuss": [74.0, 1.0]}',), "isothermal"),
        (('known={"K_Reus": [74.0, 1.0, "isothermal"]}',), "K_Reus"),
        (('known={"K_Reuss": [74.0, 1.0, "adiabatic"]}',), "heat_capacity"),
        (('known={"K_Reuss": [74.0, 1.0, "isothermal"]}', "scale=held"), "held"),
        (("expansion=1e-5",), "heat_capacity"),
        (("expansion=1e-5", "heat_capacity=0.8"), "only a cubic"),
        (("expansion=20", "heat_capacity=0.8"), "1/K"),
        (("bragg_attenuation=50",), "bragg_prefix"),
        (("bragg_scale=1", "bragg_prefix=nowhere/scan_"), "bragg_normalisation_file"),
        (("bragg_scale=1", "bragg_prefix=no/scan_", "bragg_normalisation_file=no"), "check bragg_prefix"),
        (("bragg_scale=1", "background_prefix=no"), "background"),
        (('profile_likelihood=["A14"]',), "A14"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(scan, tmp_path, capsys, options, message):
    assert run(scan, tmp_path / "out", *options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out/parametri.txt").exists()
