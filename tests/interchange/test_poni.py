"""PONI files against positions of pixels that pyFAI 2026.9 computed from the same geometry."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.interchange.conf import conf_text
from tds2el.interchange.lab import values_of
from tds2el.interchange.poni import is_poni, read_poni

PONI = Path("det.poni")
UP = (1.0, 0.0, 0.0)
GEOMETRY = """\
Distance: 0.15
Poni1: 0.051
Poni2: 0.043
Rot1: 0.11
Rot2: -0.23
Rot3: 0.7
Wavelength: 7e-11
"""
PIXELS = [(0, 0), (10, 480), (600, 33), (300, 250)]
# Geometry.calc_pos_zyx for these pixels (row, column), by orientation: along pyFAI's axes 1, 2, 3, mm.
# fmt: off
PYFAI = {
    1: [[29.806066054, 99.498285375, 128.193429012], [82.970675948, 36.98678403, 137.410177599],
        [-43.303963264, 30.542271063, 152.327402564], [19.736516562, 35.135865367, 144.553229251]],
    2: [[84.932130598, 37.29775156, 137.1283641], [29.205748799, 97.651502195, 128.695858193],
        [4.335845602, -23.211276678, 160.048951405], [18.148522933, 36.927650292, 144.295844290]],
    3: [[5.773378727, -29.376745353, 161.361462941], [-47.391231167, 33.134755991, 152.144714354],
        [78.883408044, 39.579268959, 137.227489389], [15.842928218, 34.985674654, 145.001662702]],
    4: [[-49.352685818, 32.823788461, 152.426527854], [6.373695981, -27.529962174, 160.859033760],
        [31.243599178, 93.332816700, 129.505940548], [17.430921847, 33.193889729, 145.259047664]],
}
# fmt: on


def version_2(orientation: int | None) -> str:
    place = "" if orientation is None else f'"orientation": {orientation}, '
    config = f'{{"pixel1": 0.000172, "pixel2": 0.000172, {place}"max_shape": [619, 487]}}'
    return f"# Nota\nponi_version: 2.1\nDetector: Detector\nDetector_config: {config}\n{GEOMETRY}"


VERSION_1 = f"# Calibration\nPixelSize1: 0.000172\nPixelSize2: 0.000172\n{GEOMETRY}SplineFile: None\n"


@pytest.mark.parametrize(
    ("text", "orientation"),
    [(VERSION_1, 3), (version_2(None), 3), *((version_2(n), n) for n in PYFAI)],
    ids=["v1", "v2", *(f"orientation{n}" for n in PYFAI)],
)
def test_pixels_lie_where_pyfai_puts_them(text, orientation):
    assert is_poni(text)
    sweep = read_poni(PONI, text, UP)
    d = sweep.detector
    for (row, column), expected in zip(PIXELS, PYFAI[orientation], strict=True):
        found = d.origin + d.pixel_size * (row * d.slow + column * d.fast)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert sweep.wavelength == pytest.approx(0.7)
    assert sweep.source.tolist() == [0, 0, -1]
    assert d.shape == (None if text == VERSION_1 else (619, 487))


def test_an_untilted_detector_has_its_foot_at_the_poni():
    text = "PixelSize1: 1e-4\nPixelSize2: 1e-4\nDistance: 0.2\nPoni1: 0.03\nPoni2: 0.04\nRot1: 0\nRot2: 0\nRot3: 0\n"
    values = values_of(read_poni(PONI, text + "Wavelength: 1e-10\n", UP))
    assert values["det_origin_X"] == pytest.approx(299.5)
    assert values["det_origin_Y"] == pytest.approx(399.5)
    assert values["dist"] == pytest.approx(200)
    assert [values[name] for name in ("d1", "d2", "theta")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_what_is_not_in_the_file_is_left_to_fill_in():
    text = conf_text(read_poni(PONI, VERSION_1, UP), "det.poni (pyFAI)")
    for name in ("phi", "angular_step", "AA", "r1"):
        assert f"\n# {name} = ?" in text
    assert "pol_degree = 1.0  # not known, the default" in text
    assert "give phi and angular_step" in text


def test_a_detector_of_pyfai_by_name(monkeypatch):
    text = f'poni_version: 2\nDetector: Pilatus2M\nDetector_config: {{"orientation": 3}}\n{GEOMETRY}'
    monkeypatch.setitem(sys.modules, "pyFAI", None)
    monkeypatch.setitem(sys.modules, "pyFAI.detectors", None)
    with pytest.raises(InputError, match=r"pixel size of the detector 'Pilatus2M' is not in the file: install pyFAI"):
        read_poni(PONI, text, UP)
    detectors = ModuleType("pyFAI.detectors")
    known = {"Pilatus2M": SimpleNamespace(pixel1=172e-6, pixel2=172e-6, max_shape=(1679, 1475))}
    detectors.detector_factory = known.__getitem__
    monkeypatch.setitem(sys.modules, "pyFAI", ModuleType("pyFAI"))
    monkeypatch.setitem(sys.modules, "pyFAI.detectors", detectors)
    detector = read_poni(PONI, text, UP).detector
    assert (detector.pixel_size, detector.shape) == (pytest.approx(0.172), (1679, 1475))
    with pytest.raises(InputError, match="pyFAI knows no detector 'Mythen'"):
        read_poni(PONI, text.replace("Pilatus2M", "Mythen"), UP)


@pytest.mark.parametrize(
    ("text", "axis", "message"),
    [
        (VERSION_1, None, "does not say about which axis the crystal turns: give --axis 1 0 0"),
        (VERSION_1.replace("Rot3: 0.7\n", ""), UP, "rot3 is missing"),
        (VERSION_1.replace("Rot3: 0.7", "Rot3: x"), UP, "rot3 = 'x' is no number"),
        (VERSION_1.replace("PixelSize2: 0.000172", "PixelSize2: 0.0002"), UP, "only square ones"),
        (version_2(7), UP, "orientation 7 is not known"),
        (version_2(2).replace(', "max_shape": [619, 487]', ""), UP, "orientation 2 needs max_shape"),
        (version_2(2).replace("{", "["), UP, "Detector_config is no JSON object"),
        (version_2(2).replace("2.1", "3"), UP, "version 3 of PONI files is not known"),
    ],
)
def test_what_cannot_be_used(text, axis, message):
    with pytest.raises(InputError, match=f"^det.poni: .*{message}"):
        read_poni(PONI, text, axis)
