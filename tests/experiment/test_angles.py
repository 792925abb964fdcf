"""Which axis of the headers is the scan's."""

import numpy as np
import pytest

from tds2el.experiment.angles import scan_angles
from tds2el.experiment.headers import Headers


def headers(start, increment):
    """Of one file of three frames."""
    return Headers(["scan_master.h5"], np.array([3]), start, increment)


def test_an_axis_that_rests_with_a_noisy_reading_is_not_the_scan():
    phi = np.array([5.0, 5.1, 5.2])
    start = {"omega": np.array([0.0, 1e-5, 0.0]), "phi": phi}
    found = scan_angles(headers(start, {"omega": np.zeros(1), "phi": np.array([0.1])}))
    assert found is not None
    assert np.array_equal(found.start, phi)


@pytest.mark.parametrize("start", [{}, {"omega": np.zeros(3)}])
def test_no_axis_turned(start):
    assert scan_angles(headers(start, dict.fromkeys(start, np.zeros(1)))) is None
