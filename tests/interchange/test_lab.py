"""Our parameters against vectors, over labs, detectors and crystals that lie anyhow."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry, rotation
from tds2el.interchange.conf import experiment_of
from tds2el.interchange.lab import rotation_angles, sweep_of, values_of
from tds2el.settings import Experiment

from .conftest import random_sweep

KAPPA = Experiment(
    pixel_size=0.172, dist=120.0, lmbda=0.7, beam_tilt_angle=0.3, det_origin_X=310.2, det_origin_Y=240.1, d1=70.0,
    d2=-12.0, theta=22.0, theta_offset=0.1, omega=57.0, omega_offset=0.2, alpha=50.0, beta=1.5, kappa=34.0, phi=20.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=0, pol_degree=0.9, normal_to_pol=(0.0, 0.2, 1.0),
    sensor_thickness=0.32, sensor_mu=1.4,
)  # fmt: skip


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_hkl_is_that_of_the_vectors(pixels, seed, mirrored):
    sweep = random_sweep(seed, mirrored=mirrored, thick=seed % 2 == 1)
    values = values_of(sweep)
    np.testing.assert_allclose(pixels.hkl_of(values), pixels.hkl_in_lab(sweep), rtol=0, atol=1e-9)
    # Codes 0, 3, 5, 6 keep the hand, and one of four turns suits within 45°.
    assert (values["orientation_codes"] in (1, 2, 4, 7)) != mirrored
    assert abs(values["d1"]) <= 45 + 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_polarisation_is_that_of_the_vectors(pixels, seed):
    sweep = random_sweep(seed)
    d = sweep.detector
    ray = d.origin + d.pixel_size * (np.outer(pixels.row, d.slow) + np.outer(pixels.column, d.fast))
    ray /= np.linalg.norm(ray, axis=1)[:, None]
    along = np.cross(sweep.source, sweep.normal)
    expected = 0.97 * (1 - (ray @ along) ** 2) + 0.03 * (1 - (ray @ sweep.normal) ** 2)
    found = Geometry(experiment_of(values_of(sweep))).polarisation(pixels.row, pixels.column)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("step", [0.1, -0.1])
@pytest.mark.parametrize("code", range(8))
def test_a_whole_goniometer_there_and_back(pixels, code, step):
    experiment = replace(KAPPA, orientation_codes=code, angular_step=step)
    cell = Cell(4.99, 5.1, 17.061, 88.0, 93.0, 118.0)
    sweep = sweep_of(experiment, cell)
    geometry = Geometry(experiment)
    hkl = geometry.q_crystal(pixels.row, pixels.column, geometry.phi(pixels.frame)) @ cell.A.T
    np.testing.assert_allclose(pixels.hkl_in_lab(sweep), hkl, rtol=0, atol=1e-9)
    np.testing.assert_allclose(pixels.hkl_of(values_of(sweep)), hkl, rtol=0, atol=1e-9)
    assert sweep.width > 0
    assert sweep.axis == pytest.approx([1, 0, 0], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_imported_values_come_back_themselves(seed):
    values = values_of(replace(random_sweep(seed, mirrored=seed % 2 == 1, thick=True), width=0.1))
    cell = Cell(*(values[name] for name in CELL_OPTIONS))
    again = values_of(sweep_of(experiment_of(values), cell))
    assert again.keys() == values.keys()
    for name, value in values.items():
        # Angles differ by whole turns at most.
        difference = np.subtract(again[name], value)
        assert np.abs((difference + 180) % 360 - 180).max() < 1e-9, name


def test_every_rotation_has_its_angles():
    random = np.random.default_rng(1)
    for x in [*random.uniform(-180, 180, (20, 3)), (30, 90, 50), (30, -90, 50), (0, 0, 0), (180, 0, 180)]:
        matrix = rotation(3, x[2]) @ rotation(2, x[1]) @ rotation(1, x[0])
        x1, x2, x3 = rotation_angles(matrix)
        np.testing.assert_allclose(rotation(3, x3) @ rotation(2, x2) @ rotation(1, x1), matrix, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"axis": s.source}, "the rotation axis lies along the beam"),
        (lambda s: {"UB": s.UB * [1, 1, -1]}, "no right-handed axes"),
        (lambda s: {"detector": replace(s.detector, fast=s.detector.fast + 0.01 * s.detector.slow)}, "right angles"),
        (lambda s: {"detector": replace(s.detector, origin=s.detector.slow)}, "plane goes through the sample"),
    ],
)
def test_what_cannot_be_expressed(sweep, change, message):
    with pytest.raises(InputError, match=message):
        values_of(replace(sweep, **change(sweep)))


def test_an_axis_along_the_beam_is_not_exported():
    with pytest.raises(InputError, match="turns about the beam itself"):
        sweep_of(replace(KAPPA, beam_tilt_angle=90.0, omega=0, kappa=0, beta=0), None)


def test_later_frames(sweep, pixels):
    later = sweep.later(7)
    assert (later.first_number, later.n_frames) == (8, 893)
    shifted = replace(pixels, frame=pixels.frame + 7)
    np.testing.assert_allclose(pixels.hkl_of(values_of(later)), shifted.hkl_in_lab(sweep), atol=1e-9)
