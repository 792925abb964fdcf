"""XPARM.XDS by XDS's own formula of a pixel's place, in both layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.interchange.lab import values_of
from tds2el.interchange.xds import is_xds, read_xds, xds_text

from .conftest import SHAPE, random_sweep

XPARM = Path("XPARM.XDS")
# Of a virtual crystal; in the layout of XDS, whose columns may touch.
NEW = """\
 XPARM.XDS    VERSION Jan 31, 2020  BUILT=20200417
     3      -10.0000    0.2000  0.999991 -0.003212 -0.002716
       0.774900      -0.002180       0.004317       1.290471
   146     71.9530     71.9530    220.1120  90.000  90.000 120.000
      46.125347     -22.347980      50.486176
       6.172590      41.880150     -58.155834
-115.421210    137.302150    127.412380
         1      2463      2527    0.172000    0.172000
    1224.850000    1230.210000     265.271000
       0.999998       0.001500       0.001200
      -0.001502       0.999997       0.002000
      -0.001197      -0.002002       0.999997
         1         1      2463         1      2527
    0.00    0.00    0.00  1.00000  0.00000  0.00000  0.00000  1.00000  0.00000
"""


def old_layout(text: str) -> str:
    """The same numbers in the order of versions before 2010."""
    rows = [line.split() for line in text.splitlines()[1:]]
    start, beam, cell, a, b, c, size, org, x, y, z = rows[:11]
    return "\n".join(
        " ".join(row) for row in (start, beam, size[1:], [org[2], *org[:2]], x, y, z, cell, a, b, c)
    )  # fmt: skip


@pytest.mark.parametrize("text", [NEW, old_layout(NEW)], ids=["new", "old"])
def test_pixels_lie_where_xds_puts_them(text):
    assert is_xds(text)
    sweep = read_xds(XPARM, text)
    x, y, z = np.array([[0.999998, 0.0015, 0.0012], [-0.001502, 0.999997, 0.002], [-0.001197, -0.002002, 0.999997]])
    for row, column in ((0, 0), (12, 2000), (2500, 7)):
        expected = (column + 1 - 1224.85) * 0.172 * x + (row + 1 - 1230.21) * 0.172 * y + 265.271 * z
        d = sweep.detector
        np.testing.assert_allclose(d.origin + 0.172 * (row * d.slow + column * d.fast), expected, atol=1e-10)
    assert sweep.detector.shape == (2527, 2463)
    assert (sweep.start, sweep.width, sweep.first_number, sweep.wavelength) == (-10.0, 0.2, 3, 0.7749)
    np.testing.assert_allclose(sweep.source, -np.array([-0.00218, 0.004317, 1.290471]) * 0.7749, atol=1e-5)
    axes = [[46.125347, -22.34798, 50.486176], [6.17259, 41.88015, -58.155834], [-115.42121, 137.30215, 127.41238]]
    np.testing.assert_allclose(np.array(axes) @ sweep.UB, np.eye(3), atol=1e-10)


def test_columns_that_touch():
    sweep = read_xds(
        XPARM, NEW.replace("      46.125347     -22.347980      50.486176", "46.125347-22.347980 50.486176")
    )
    np.testing.assert_allclose(sweep.UB, read_xds(XPARM, NEW).UB)


@pytest.mark.parametrize("seed", range(6))
def test_written_and_read(pixels, seed):
    sweep = random_sweep(seed, mirrored=seed % 2 == 1)
    again = read_xds(XPARM, xds_text(sweep))
    np.testing.assert_allclose(pixels.hkl_in_lab(again), pixels.hkl_in_lab(sweep), atol=1e-9)
    np.testing.assert_allclose(pixels.hkl_of(values_of(again)), pixels.hkl_in_lab(sweep), atol=1e-9)
    assert again.detector.shape == SHAPE


def test_six_digits_are_no_skewness():
    """XDS's own rounding must pass, and shift no pixel visibly."""
    sweep = random_sweep(2)
    d = sweep.detector
    rounded = replace(sweep, detector=replace(d, fast=np.round(d.fast, 6), slow=np.round(d.slow, 6)))
    exact, found = values_of(sweep), values_of(rounded)
    assert found["det_origin_X"] == pytest.approx(exact["det_origin_X"], abs=0.01)
    assert found["dist"] == pytest.approx(exact["dist"], abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:600], "ends too early"),
        (lambda t: t.replace("0.172000    0.172000", "0.172000    0.150000"), "only square ones"),
        (lambda t: t.replace("    0.00    0.00    0.00  1.00000", "    0.10    0.00    0.00  1.00000"), "segment 1"),
        (lambda t: t.replace("-115.421210    137.302150    127.412380", "0 0 0"), "span no volume"),
    ],
)
def test_what_cannot_be_used(change, message):
    with pytest.raises(InputError, match=f"^XPARM.XDS: .*{message}"):
        read_xds(XPARM, change(NEW))


def test_other_texts_are_none_of_xds():
    assert not is_xds("dist = 3\n")
    assert not is_xds(" ".join(["1.0"] * 41))
