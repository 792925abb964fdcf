"""Residuals vanish at the truth, derivatives are those of differences, and errors are honest."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.align.bravais import lattice_group
from tds2el.align.cycles import cycles
from tds2el.align.points import Places
from tds2el.align.refine import _jacobian, refine, residuals, total_errors
from tds2el.align.sweeps import Sweeps, make_joint_retuning
from tds2el.corrections import corrections_from_value
from tds2el.crystal.cell import Cell
from tds2el.parfile import Variable

CELL = Cell(4.99, 4.99, 17.06, 90, 90, 120)
EVERYTHING = {
    "r1": 2.0, "r2": 2.0, "r3": 2.0, "dist": 2.0, "det_origin_X": 9.0, "det_origin_Y": 9.0, "d1": 1.0, "d2": 1.0,
    "beam_tilt_angle": 1.0, "AA": 0.1, "CC": 0.3,
}  # fmt: skip


def retuning(experiment, bounds, cell=CELL):
    corrections = corrections_from_value({name: Variable(0, -b, b) for name, b in bounds.items()})
    return make_joint_retuning(corrections, Sweeps((experiment,)), cell, lattice_group(cell, "R"))


@pytest.fixture
def peaks(make_table):
    """Places without errors, and their nodes."""
    maxima, truth = make_table(CELL, "R", false=0.0)
    return Places.of(maxima), truth.hkl


def test_exact_places_have_no_residuals(make_table, experiment):
    """The table finds places by bisection, `residuals` by Newton's method from afar."""
    maxima, truth = make_table(CELL, "R", false=0.0)
    noisy = Places.of(maxima)
    first, crossing = residuals(Sweeps((experiment,)), CELL, noisy, truth.hkl)
    exact = Places(*(noisy.columns - first)[crossing].T)
    far = Places(exact.row + 3.0, exact.column - 2.0, exact.angle_index + 1.0)
    found, still = residuals(Sweeps((experiment,)), CELL, far, truth.hkl[crossing])
    np.testing.assert_allclose(found[still], [[3.0, -2.0, 1.0]] * still.sum(), atol=1e-4)
    assert np.abs(first[crossing]).max() < 0.8
    assert crossing.mean() > 0.9


def test_grazing_nodes_are_seen_on_the_detector_only(experiment):
    """A node along the axis of rotation has no angle."""
    still = replace(experiment, r1=0.0, r2=0.0, r3=0.0, beam_tilt_angle=0.0, d1=0.0, d2=0.0)
    at = Places(np.array([still.det_origin_X]), np.array([700.0]), np.array([3.0]))
    residual, crossing = residuals(Sweeps((still,)), CELL, at, np.array([[0, 0, 6]]))
    assert not crossing[0]
    assert np.isfinite(residual[0, :2]).all()
    assert np.isnan(residual[0, 2])


def test_derivatives_against_differences(peaks, experiment):
    places, hkl = peaks
    _, crossing = residuals(Sweeps((experiment,)), CELL, places, hkl)
    places, hkl = places[np.flatnonzero(crossing)[:40]], hkl[crossing][:40]
    found = retuning(experiment, EVERYTHING)
    x = np.linspace(-0.02, 0.03, len(found.names))
    sigma = np.full((len(hkl), 3), 0.5)
    analytic = _jacobian(found, x, places, hkl, sigma)
    for n, name in enumerate(found.names):
        step = np.zeros(len(x))
        step[n] = 1e-5
        ends = [residuals(*found.geometry(x + s), places, hkl)[0] / sigma for s in (step, -step)]
        numeric = ((ends[0] - ends[1]) / 2e-5).ravel()
        np.testing.assert_allclose(analytic[:, n], numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max(), err_msg=name)


def test_errors_are_honest(make_table, experiment):
    """Everything is free, and false peaks are among the true ones: pulls of many tables are those of a Gaussian."""
    pulls = []
    for seed in range(6):
        maxima, _ = make_table(CELL, "R", seed=seed, with_errors=bool(seed % 2))
        start = replace(experiment, r1=experiment.r1 + 0.03, dist=experiment.dist * 1.003, det_origin_X=422.0)
        errors = np.column_stack([maxima.row_error, maxima.column_error, maxima.angle_index_error])
        found, _ = cycles(retuning(start, EVERYTHING), Places.of(maxima), errors, "R", 0.2)
        after, cell = found.geometry
        values = [
            {"AA": cell.a, "CC": cell.c}.get(name, getattr(after.first, name, 0.0)) for name in found.retuning.names
        ]
        truth = [{"AA": 4.99, "CC": 17.06}.get(name, getattr(experiment, name, 0.0)) for name in found.retuning.names]
        pulls.append((np.array(values) - truth) / found.sigma)
        np.testing.assert_allclose(found.spread, [0.15, 0.15, 0.1], rtol=0.2)
    assert np.abs(pulls).max() < 3.5
    assert 0.7 < np.std(pulls) < 1.3


def test_what_cannot_be_told_is_held_and_bounds_are_kept(peaks, experiment):
    """omega turns the crystal as r3 does where nothing is between; a bound stops what wants to go beyond it."""
    places, hkl = peaks
    off = replace(experiment, det_origin_X=experiment.det_origin_X + 3.0, omega=0.0, phi=0.0)
    found = retuning(off, {"r1": 99.0, "r2": 99.0, "r3": 99.0, "omega": 5.0, "omega_offset": 5.0, "det_origin_X": 1.0})
    start = np.zeros(len(found.names))
    start[found.names.index("r3")] = 12.0 - 30.0
    errors = np.full((len(hkl), 3), np.nan)
    result = refine(found, places, hkl, errors, start, robust=True)
    assert set(result.held) & {"omega", "omega_offset", "r3"}
    place = found.names.index("det_origin_X")
    assert result.at_bound[place]
    assert result.x[place] == pytest.approx(-1.0)
    assert np.isnan(result.sigma[place])


def test_errors_become_as_large_as_the_residuals_say():
    """Too small, too large, not known; one that is far too small does not stay so."""
    random = np.random.default_rng(1)
    residual = random.normal(size=(5000, 3)) * [0.5, 0.1, 0.3]
    errors = np.full((5000, 3), [0.3, 0.4, np.nan])
    errors[7] = [0.3, 0.001, 0.001]
    errors[8] = [1.2, 1.6, np.nan]
    total = total_errors(residual, errors)
    np.testing.assert_allclose(total[0], [0.5, 0.1, 0.3], rtol=0.05)
    np.testing.assert_allclose(total[7], [0.5, 0.05, 0.3], rtol=0.05)
    np.testing.assert_allclose(total[8], [np.hypot(1.2, 0.4), 0.4, 0.3], rtol=0.05)
