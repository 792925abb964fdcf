import json
from pathlib import Path

import numpy as np
import pytest

from tds2el.crystal.cell import Cell, cell_from_metric, longest_reciprocal
from tds2el.errors import InputError

CASES = json.loads((Path(__file__).parents[1] / "data" / "cell.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=[str(case["cell"]) for case in CASES])
def test_axes_as_tabulated(case):
    cell = Cell(*case["cell"])
    np.testing.assert_allclose(cell.A, case["A_rows"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(cell.B, case["B"], rtol=0, atol=1e-10)


def test_axes_of_a_triclinic_cell_have_its_lengths_angles_and_orientation():
    cell = Cell(5.1, 6.2, 7.3, 82.1, 104.5, 97.7)
    lengths = np.linalg.norm(cell.A, axis=1)
    np.testing.assert_allclose(lengths, [5.1, 6.2, 7.3], rtol=1e-14)
    cosines = [cell.A[i] @ cell.A[j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(np.degrees(np.arccos(cosines)), [82.1, 104.5, 97.7], rtol=1e-13)
    assert np.linalg.det(cell.A) > 0
    np.testing.assert_allclose(cell.B[1:, 0], 0, atol=1e-16)  # a* along x
    np.testing.assert_allclose(cell.A[2, :2], 0, atol=1e-16)  # c along z
    np.testing.assert_allclose(cell_from_metric(cell.metric).parameters, cell.parameters, rtol=1e-12)


def test_axes_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        Cell(5, 6, 7, 90, 90, 90).A[0, 0] = 1.0


def test_longest_reciprocal_axis():
    assert longest_reciprocal(Cell(4.99, 4.99, 17.061, 90, 90, 120)) == pytest.approx(2 / (4.99 * np.sqrt(3)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((0.0, 5, 5, 90, 90, 90), "AA = 0"),
        ((5, 5, float("nan"), 90, 90, 90), "CC = nan"),
        ((5, 5, 5, 90, 180, 90), "aBB = 180"),
        ((5, 5, 5, 60, 60, 130), "aCC = 130: three such angles"),
    ],
)
def test_impossible_cells(parameters, message):
    with pytest.raises(InputError, match=message):
        Cell(*parameters)


def test_derivatives_of_the_reciprocal_axes_are_those_of_central_differences():
    given = (5.4, 8.1, 12.0, 82.0, 95.0, 108.0)
    for n, derivative in enumerate(Cell(*given).B_derivatives):
        step = 1e-4 * np.eye(6)[n]
        up, down = (Cell(*(np.array(given) + s)).B for s in (step, -step))
        assert np.allclose(derivative, (up - down) / 2e-4, atol=1e-9)
