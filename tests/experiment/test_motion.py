"""The change of Q with the geometry against the geometry itself, and its derivatives against central differences."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.experiment.geometry import Geometry
from tds2el.experiment.motion import BEAMS, PLANES, TURNS, change_of_q, derivatives_of_q, motion
from tds2el.settings import Experiment

E = Experiment(
    pixel_size=0.172, dist=120.0, lmbda=0.7, beam_tilt_angle=0.3, det_origin_X=310.2, det_origin_Y=240.1, d1=1.0,
    d2=-2.0, theta=12.0, theta_offset=0.1, omega=57.0, omega_offset=0.2, alpha=50.0, beta=1.5, kappa=34.0, phi=20.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=5, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
FREE = (*TURNS, *PLANES, *BEAMS, "lmbda")


@pytest.fixture
def pixels():
    random = np.random.default_rng(3)
    return random.uniform(0, 600, 40), random.uniform(0, 480, 40), random.uniform(-200, 200, 40)


def _moved():
    steps = {name: 0.01 * (n + 1) for n, name in enumerate(FREE)} | {"lmbda": 1e-3, "dist": 0.3}
    return replace(E, **{name: getattr(E, name) + step for name, step in steps.items()})


def test_change_of_q_is_the_difference_of_two_geometries(pixels):
    now = _moved()
    found = change_of_q(motion(E, now), *pixels)
    assert np.allclose(found, Geometry(now).q_crystal(*pixels) - Geometry(E).q_crystal(*pixels), atol=1e-14)


def test_no_change_is_exactly_zero(pixels):
    assert not change_of_q(motion(E, E), *pixels).any()


@pytest.mark.parametrize("name", FREE)
def test_derivatives_are_those_of_central_differences(pixels, name):
    found = motion(E, _moved(), [name])
    assert found.names == (name,)
    step = 1e-3 if name != "lmbda" else 1e-5
    up, down = (
        Geometry(replace(_moved(), **{name: getattr(_moved(), name) + s})).q_crystal(*pixels) for s in (step, -step)
    )
    expected = (up - down) / (2 * step)
    assert np.allclose(derivatives_of_q(found, *pixels)[:, 0], expected, atol=1e-6 * np.abs(expected).max())


def test_order_of_names_is_that_of_the_columns(pixels):
    every = motion(E, _moved(), reversed(FREE))
    columns = derivatives_of_q(every, *pixels)
    for k, name in enumerate(every.names):
        assert np.array_equal(columns[:, k], derivatives_of_q(motion(E, _moved(), [name]), *pixels)[:, 0])
