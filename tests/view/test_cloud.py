"""The picture of peaks along the axes, and what the page of them is given to draw."""

import json
import re

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.experiment.maxima import Cloud, Maxima
from tds2el.view.cloud import largest_residual, projections, write_page
from tds2el.view.style import style

CELL = Cell(5, 6, 7, 80, 100, 95)
HKL = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [2, -1, 3], [0, 0, 0]])


def peaks(tagged: bool = True) -> tuple[Maxima, Cloud]:
    place = np.arange(5.0)
    residual = np.array([[0.3, 0.4, 0], [0, 0, 0], [0.6, 0.8, 1], [np.nan] * 3, [np.nan] * 3])
    hkl, accepted = (HKL, np.arange(5) < 3) if tagged else (0 * HKL, np.zeros(5, dtype=bool))
    maxima = Maxima(place, place, place, np.array([1.0, 2, 3, np.nan, 5]), hkl, accepted, residual=residual)
    return maxima, Cloud(HKL @ CELL.B.T, CELL.B)


@pytest.mark.parametrize("towards", [0, 1, 2])
def test_a_panel_is_a_view_along_its_axis(towards):
    """The axis itself falls on the origin; distances across it are kept."""
    maxima, cloud = peaks()
    with style():
        panel = projections(maxima, cloud).axes[towards]
    drawn = np.asarray(panel.collections[0].get_offsets())  # accepted: the nodes 1 0 0, 0 1 0, 0 0 1
    np.testing.assert_allclose(drawn[towards], 0, atol=1e-12)
    axis = CELL.B[:, towards] / np.linalg.norm(CELL.B[:, towards])
    across = cloud.Q[:3] - np.outer(cloud.Q[:3] @ axis, axis)
    np.testing.assert_allclose(drawn @ drawn.T, across @ across.T, atol=1e-12)
    # Right-handed: seen with the axis towards the viewer, the next two turn anticlockwise.
    x, y = drawn[(towards + 1) % 3], drawn[(towards + 2) % 3]
    assert x[0] * y[1] - x[1] * y[0] > 0


def test_the_page_has_numbers_only_where_they_are_known(tmp_path):
    maxima, cloud = peaks()
    write_page(tmp_path / "page.html", maxima, cloud, "</script><b>")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(re.search('id="cloud">(.*)</script>', page)[1])
    assert data["residual"] == [0.5, 0.0, 1.0, None, None]
    assert data["counts"] == [1, 2, 3, 0, 5]
    assert data["hkl"] == HKL.tolist()
    assert largest_residual(maxima) == pytest.approx(np.quantile([0.5, 0, 1.0], 0.95))
    assert "<b>" not in page


def test_untagged_peaks_have_no_colours_to_choose(tmp_path):
    maxima, cloud = peaks(tagged=False)
    write_page(tmp_path / "page.html", maxima, cloud, "q3d.h5")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'name="colour"' not in page
    assert "not indexed" in page
