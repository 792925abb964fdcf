"""Geometry against numbers computed independently, and against itself."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.settings import experiment_from_values

CASES = json.loads((Path(__file__).parents[1] / "data" / "geometry.json").read_text())["cases"]


@pytest.fixture(params=CASES, ids=lambda case: f"code{case['parameters']['orientation_codes']}")
def case(request):
    geometry = Geometry(experiment_from_values(request.param["parameters"]))
    points = {key: np.array([p[key] for p in request.param["points"]]) for key in request.param["points"][0]}
    return geometry, points


def test_q_of_reference_pixels(case):
    geometry, p = case
    phi = geometry.phi(p["frame"])
    np.testing.assert_allclose(geometry.q_lab(p["row"], p["column"]), p["Q0"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(geometry.q_crystal(p["row"], p["column"], phi), p["Q"], rtol=0, atol=1e-10)


def test_corrections_of_reference_pixels(case):
    geometry, p = case
    np.testing.assert_allclose(geometry.polarisation(p["row"], p["column"]), p["POL"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(geometry.solid_angle(p["row"], p["column"]), p["C3"], rtol=0, atol=1e-10)


def test_all_orientation_codes_are_covered():
    assert {case["parameters"]["orientation_codes"] for case in CASES} == set(range(8))


def test_pixel_of_inverts_pixel_direction(case):
    geometry, p = case
    direction = geometry.q_lab(p["row"], p["column"]) * geometry.experiment.lmbda - geometry.beam
    np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1, atol=1e-12)
    pixels = geometry.pixel_of(direction)
    np.testing.assert_allclose(pixels, np.stack([p["row"], p["column"]], axis=-1), atol=1e-8)


def test_rays_away_from_the_detector_have_no_pixel(case):
    geometry, _ = case
    assert np.isnan(geometry.pixel_of(geometry.detector[:, 0])).all()


def test_direct_beam_has_no_scattering_vector(case):
    geometry, _ = case
    row, column = geometry.direct_beam()
    np.testing.assert_allclose(geometry.q_lab(row, column), 0, atol=1e-12)


def test_untilted_direct_beam_is_the_origin():
    values = dict(CASES[0]["parameters"], beam_tilt_angle=0, theta=0, theta_offset=0, d1=0, d2=0)
    geometry = Geometry(experiment_from_values(values))
    assert geometry.direct_beam() == pytest.approx((values["det_origin_X"], values["det_origin_Y"]), abs=1e-9)


def test_unpolarised_beam_is_symmetric_about_itself():
    values = dict(CASES[0]["parameters"], beam_tilt_angle=0, pol_degree=0.5, normal_to_pol=(0, 0, 1))
    geometry = Geometry(experiment_from_values(values))
    row, column = np.array([5.0, 300.0, 610.0]), np.array([470.0, 10.0, 200.0])
    cosine = (geometry.q_lab(row, column) * geometry.experiment.lmbda - geometry.beam) @ -geometry.beam
    np.testing.assert_allclose(geometry.polarisation(row, column), (1 + cosine**2) / 2, atol=1e-12)


def test_solid_angle_is_one_at_the_foot_point(case):
    geometry, _ = case
    assert geometry.solid_angle(*geometry.origin) == pytest.approx(1, abs=1e-15)


def test_length_of_q_does_not_depend_on_the_goniometer(case):
    geometry, p = case
    turned = Geometry(replace(geometry.experiment, omega=geometry.experiment.omega + 33.0, r2=12.0))
    q, other = (g.q_crystal(p["row"], p["column"], g.phi(p["frame"])) for g in (geometry, turned))
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), np.linalg.norm(other, axis=-1), atol=1e-12)


def test_a_normal_along_the_beam_is_refused(case):
    geometry, _ = case
    wrong = Geometry(replace(geometry.experiment, normal_to_pol=tuple(2 * geometry.beam)))
    with pytest.raises(InputError, match=r"normal_to_pol = .* lies along the beam"):
        _ = wrong.polarisation_axes
