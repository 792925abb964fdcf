"""Parallax against the formula of dxtbx written out in vectors, and against itself backwards."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.experiment.geometry import Geometry
from tds2el.experiment.motion import change_of_q, motion
from tds2el.experiment.parallax import largest_pixel_fraction, pixel_fraction
from tds2el.settings import Experiment

SENSORS = [(0.32, 1.4154), (1.0, 0.6), (0.45, 4.0), (1.0, 40.0)]
E = Experiment(
    pixel_size=0.172, dist=120.0, lmbda=0.7, beam_tilt_angle=0.3, det_origin_X=310.2, det_origin_Y=240.1, d1=70.0,
    d2=-12.0, theta=22.0, theta_offset=0.1, omega=57.0, omega_offset=0.2, alpha=50.0, beta=1.5, kappa=34.0, phi=20.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=5, pol_degree=0.9, normal_to_pol=(0.0, 0.2, 1.0),
)  # fmt: skip


@pytest.fixture(params=SENSORS, ids=str)
def thick(request) -> Geometry:
    return Geometry(replace(E, sensor_thickness=request.param[0], sensor_mu=request.param[1]))


@pytest.fixture
def pixels() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return random.uniform(-200, 1700, 60), random.uniform(-200, 1500, 60)


def test_q_is_that_of_rays_that_enter_before_they_are_counted(thick, pixels):
    e = thick.experiment
    thin = Geometry(E)
    for row, column, found in zip(*pixels, thick.q_lab(*pixels), strict=True):
        corner = thin.pixel_to_lab @ [0.0, 0.0, 1.0]
        slow, fast = thin.pixel_to_lab[:, 0] / e.pixel_size, thin.pixel_to_lab[:, 1] / e.pixel_size
        x, y = row * e.pixel_size, column * e.pixel_size
        ray = corner + x * slow + y * fast
        ray /= np.linalg.norm(ray)
        normal = np.cross(fast, slow)
        cosine = abs(ray @ normal)
        t, mu = e.sensor_thickness, e.sensor_mu
        path = 1 / mu - (t / cosine + 1 / mu) * np.exp(-mu * t / cosine)
        entered = corner + (x - path * (ray @ slow)) * slow + (y - path * (ray @ fast)) * fast
        expected = (entered / np.linalg.norm(entered) + thin.beam) / e.lmbda
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_pixel_of_is_the_inverse(thick, pixels):
    direction = thick.q_lab(*pixels) * E.lmbda - thick.beam
    np.testing.assert_allclose(thick.pixel_of(direction), np.stack(pixels, axis=-1), atol=1e-8)
    assert np.abs(thick.pixel_of(direction) - Geometry(E).pixel_of(direction)).max() > 0.05


def test_nothing_exceeds_the_largest_parallax(thick):
    e, distance = thick.experiment, np.linspace(0.0, 2000.0, 4001)
    found = pixel_fraction(distance, e.dist, e.sensor_thickness, e.sensor_mu)
    assert found.min() >= 1
    assert found.max() <= largest_pixel_fraction(e.dist, e.sensor_thickness)


def test_solid_angle_and_polarisation_are_those_of_the_entry(thick, pixels):
    entry = thick.entry(*pixels)
    thin = Geometry(E)
    np.testing.assert_allclose(thick.solid_angle(*pixels), thin.solid_angle(*entry), rtol=1e-14)
    np.testing.assert_allclose(thick.polarisation(*pixels), thin.polarisation(*entry), rtol=1e-14)


def test_none_leaves_every_bit(pixels):
    thin = Geometry(E)
    row, column = thin.entry(*pixels)
    assert np.array_equal(row, pixels[0])
    assert np.array_equal(column, pixels[1])
    assert thin.largest_parallax == 1


@pytest.mark.parametrize("name", ["d1", "d2", "theta_offset", "dist", "det_origin_X", "r2", "lmbda"])
def test_a_moving_detector_keeps_its_parallax(thick, pixels, name):
    phi = np.linspace(-90.0, 90.0, 60)
    step = 1e-3 if name == "lmbda" else 0.2
    now = replace(thick.experiment, **{name: getattr(E, name) + step})
    expected = Geometry(now).q_crystal(*pixels, phi) - thick.q_crystal(*pixels, phi)
    found = change_of_q(motion(thick.experiment, now), *thick.entry(*pixels), phi)
    exact = name not in ("dist", "det_origin_X")
    share = 0.0 if exact else thick.experiment.sensor_thickness / E.dist
    scale = np.linalg.norm(expected, axis=1)
    assert np.all(np.linalg.norm(found - expected, axis=1) <= share * scale + 1e-13)
