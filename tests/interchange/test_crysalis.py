"""Parameter files of CrysAlisPro against the vectors that dxtbx makes of the same angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.interchange.crysalis import Turning, is_crysalis, read_crysalis
from tds2el.interchange.lab import values_of

PAR = Path("sample.par")
WAVELENGTH, ALPHA = 0.71073, 50.02
D1, D2, DIST, X, Y = 0.31, -0.52, 62.4, 388.25, 402.5
ZERO = {"omega": 0.11, "theta": -0.2, "kappa": 0.05, "phi": 0.0}
START = {"omega": 40.0, "theta": 25.0, "kappa": -60.0, "phi": 15.0}
PIXEL = 0.1
UB = Rotation.random(random_state=2).as_matrix() @ Cell(5.0, 6.0, 7.0, 90.0, 100.0, 90.0).B


def par(**changes: str) -> str:
    lines = {
        "head": "\xa7XCALIBUR SYSTEM",
        "alpha": f"ROTSIMULATOR ALPHAANGLEINDEG {ALPHA}",
        "beta": "ROTSIMULATOR BETAANGLEINDEG 0.0",
        "wavelength": f"CRYSTALLOGRAPHY WAVELENGTH {WAVELENGTH} {WAVELENGTH} {WAVELENGTH}",
        "ub": "CRYSTALLOGRAPHY UB " + " ".join(f"{x:.12f}" for x in (WAVELENGTH * UB).ravel()),
        "detector": f"ROTATION DETECTORORIENTATION {D1} {D2} 0.00000 {DIST} {X} {Y}",
        "beam": "ROTATION BEAM 0.00000 0.00000",
        "zero": "ROTATION ZEROCORRECTION " + " ".join(str(x) for x in ZERO.values()),
    }
    return "\r\n".join((lines | changes).values()) + "\r\n"


def about(axis: list[float], degrees: float) -> Rotation:
    return Rotation.from_rotvec(np.deg2rad(degrees) * np.array(axis))


def hkl_by_dxtbx(row: float, column: float, frame: int, axis: str, width: float) -> np.ndarray:
    """In dxtbx's lab, X = e2, Y = e3, Z = e1, by the axes and the detector of its FormatROD."""
    angles = {name: START[name] + ZERO[name] for name in START}
    angles[axis] += (frame + 0.5) * width
    alpha = np.deg2rad(ALPHA)
    turned = (
        about([0, -1, 0], angles["omega"])
        * about([0, -np.cos(alpha), np.sin(alpha)], angles["kappa"])
        * about([0, -1, 0], angles["phi"])
    )
    detector = about([0, -1, 0], angles["theta"]) * about([-1, 0, 0], D2) * about([0, 0, 1], D1)
    pixel = detector.apply([(column + 0.5 - X) * PIXEL, (row + 0.5 - Y) * PIXEL, -DIST])
    q = (pixel / np.linalg.norm(pixel) + [0, 0, 1]) / WAVELENGTH
    e1, e2, e3 = turned.inv().apply(q)[[2, 0, 1]]
    return np.asarray(np.linalg.solve(UB, [e1, e2, e3]))


@pytest.mark.parametrize(("axis", "width"), [("omega", 0.5), ("omega", -0.25), ("phi", 0.5), ("phi", -0.1)])
def test_hkl_is_that_of_dxtbx(pixels, axis, width):
    text = par()
    assert is_crysalis(text)
    sweep = read_crysalis(PAR, text, Turning(axis, *START.values(), width), PIXEL)
    expected = [hkl_by_dxtbx(*p, axis, width) for p in zip(pixels.row, pixels.column, pixels.frame, strict=True)]
    np.testing.assert_allclose(pixels.hkl_of(values_of(sweep)), expected, rtol=0, atol=1e-8)


def test_the_beam_may_be_tilted():
    turning = Turning("omega", *START.values(), 0.5)
    sweep = read_crysalis(PAR, par(beam="ROTATION BEAM 0.25 0.0"), turning, PIXEL)
    assert values_of(sweep)["beam_tilt_angle"] == pytest.approx(0.25, abs=1e-9)


def test_uncertainties_are_told():
    sweep = read_crysalis(PAR, par(), Turning("phi", *START.values(), 0.5), PIXEL)
    assert any("may be turned or mirrored" in remark for remark in sweep.remarks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (par(ub=""), "CRYSTALLOGRAPHY UB is missing"),
        (par(ub="CRYSTALLOGRAPHY UB 1 2 3"), "CRYSTALLOGRAPHY UB has 3 numbers, not 9"),
        (par(alpha=""), "no ALPHAANGLEINDEG"),
        (par(detector=f"ROTATION DETECTORORIENTATION {D1} {D2} 0.3 {DIST} {X} {Y}"), "turned about X3"),
        (par(beam="ROTATION BEAM 0.0 0.2"), "turned about X3"),
    ],
)
def test_what_cannot_be_used(text, message):
    with pytest.raises(InputError, match=f"^sample.par: .*{message}"):
        read_crysalis(PAR, text, Turning("phi", *START.values(), 0.5), PIXEL)


def test_what_the_file_does_not_say_must_be_given():
    with pytest.raises(InputError, match=r"give --turning AXIS OMEGA THETA KAPPA PHI WIDTH and --pixel-size"):
        read_crysalis(PAR, par(), None, PIXEL)
