"""Which axis of the headers is the scan's."""

import numpy as np
import pytest

from tds2el.experiment.angles import scan_angles
from tds2el.experiment.headers import Header


def test_an_axis_that_rests_with_a_noisy_reading_is_not_the_scan():
    phi = np.array([5.0, 5.1, 5.2])
    header = Header(start={"omega": np.array([0.0, 1e-5, 0.0]), "phi": phi}, increment={"phi": 0.1})
    found = scan_angles([header])
    assert found is not None
    assert np.array_equal(found.start, phi)


@pytest.mark.parametrize("start", [{}, {"omega": np.zeros(3)}])
def test_no_axis_turned(start):
    assert scan_angles([Header(start=start)]) is None
