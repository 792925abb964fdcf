"""Peaks as points: where they rest, how they move with the peak, and how fast nodes cross."""

from dataclasses import replace

import numpy as np

from tds2el.align.points import Places, covariance_of_q, crossing_speed, goniometer_q, motion_with_place
from tds2el.crystal.cell import Cell
from tds2el.experiment.geometry import Geometry

CELL = Cell(5.4, 6.3, 7.7, 83, 97, 102)


def test_peaks_of_one_node_are_one_point(make_table, experiment):
    """In the goniometer's frame the node rests, whatever the angle and the crystal's r1, r2, r3."""
    maxima, truth = make_table(CELL, false=0.0)
    q = goniometer_q(replace(experiment, r1=5.0), Places.of(maxima))
    expected = truth.hkl @ CELL.B.T @ Geometry(experiment).orientation.T
    np.testing.assert_allclose(q, expected, atol=0.004)


def test_motion_with_the_place_against_differences(experiment):
    random = np.random.default_rng(4)
    places = Places(*(random.random((3, 20)) * [[800], [700], [300]]))
    geometry = Geometry(replace(experiment, alpha=50.0, kappa=30.0, beta=10.0))
    moves = motion_with_place(geometry, places)
    step = 1e-4
    for n in range(3):
        ends = []
        for sign in (1, -1):
            columns = places.columns
            columns[:, n] += sign * step
            row, column, index = columns.T
            ends.append(geometry.q_crystal(row, column, geometry.phi(index)))
        np.testing.assert_allclose(moves[:, :, n], (ends[0] - ends[1]) / (2 * step), atol=1e-9)


def test_covariance_is_that_of_many_noisy_peaks(experiment):
    random = np.random.default_rng(5)
    geometry = Geometry(experiment)
    one = Places(np.array([700.0]), np.array([100.0]), np.array([33.0]))
    sigma = np.array([[0.3, 0.2, 0.1]])
    covariance = covariance_of_q(motion_with_place(geometry, one), sigma)[0]
    row, column, index = (one.columns + random.normal(size=(100_000, 3)) * sigma).T
    sample = np.cov(geometry.q_crystal(row, column, geometry.phi(index)).T)
    np.testing.assert_allclose(sample, covariance, rtol=0.03, atol=0.02 * covariance.max())


def test_nodes_along_the_axis_do_not_cross(experiment):
    """The distance from the Ewald sphere, |λQ − p0| − 1, changes at the speed that is returned."""
    random = np.random.default_rng(6)
    geometry = Geometry(experiment)
    places = Places(*(random.random((3, 50)) * [[800], [700], [300]]))
    phi = geometry.phi(places.angle_index)
    q = geometry.q_crystal(places.row, places.column, phi)
    speed = crossing_speed(motion_with_place(geometry, places), q, experiment.angular_step)

    def excess(turned):
        lab = np.einsum("nji,nj->ni", geometry.lab_to_crystal(turned), q)
        return np.linalg.norm(lab - geometry.beam / experiment.lmbda, axis=1)

    step = 1e-3
    slope = np.abs(excess(phi + step) - excess(phi - step)) / np.deg2rad(2 * step)
    np.testing.assert_allclose(speed, slope / np.linalg.norm(q, axis=1), rtol=1e-5)
    assert speed.max() <= 1
