"""Intervals by profile and bootstrap, against fits with the constant frozen, the sandwich, and each other."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.fit.clean import Usage
from tds2el.fit.common import Common
from tds2el.fit.data import FitData
from tds2el.fit.intervals import Engaged, bootstrap_intervals, profile_intervals
from tds2el.fit.known import known_from_option
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Constants
from tds2el.fit.report import fit_report
from tds2el.fit.result import result_of
from tds2el.model.engine import Conditions
from tds2el.model.numpy_engine import NumpyEngine

CELL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
CALCITE = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
CONDITIONS = Conditions(300.0, 2.71)


@pytest.fixture(scope="module")
def structure():
    return tensor_structure(point_group("1~,3(z),2(y)", CELL, None))


def fitted(points, constants):
    common = Common(constants, constants.initial_scale("auto"))
    engine = NumpyEngine(points, common.columns, CONDITIONS)
    minimum = Minimiser(engine, points, common, CONDITIONS, ftol=1e-7).run()
    blobs = len(points.nodes)
    nowhere = np.full((blobs, 3), np.nan)
    data = FitData(points, np.arange(blobs), np.ones((blobs, 3), dtype=int), np.zeros(blobs), nowhere, nowhere)
    result = result_of(minimum, data, Usage.everything(points), np.zeros(blobs, dtype=bool))
    return result, minimum, Engaged(engine, points, CONDITIONS, 1e-7)


def free(structure):
    return Constants(structure, CALCITE.copy(), np.full(6, -np.inf), np.full(6, np.inf))


@pytest.fixture(scope="module")
def poor(structure, simulated_points):
    """Few counts: errors of 10 to 30 %, so that the likelihood is no Gaussian."""
    points = simulated_points(structure.tensor(CALCITE), blobs=12, size=250, mean=1.5, seed=4)
    return points, *fitted(points, free(structure))


def test_profile_ends_where_a_fit_with_the_constant_frozen_says(structure, poor):
    points, result, minimum, engaged = poor
    found = profile_intervals(result, minimum, engaged, [2, 5])
    assert np.isnan(found.lower[[0, 1, 3, 4]]).all()
    for index in (2, 5):
        rise = (result.errors.largest[index] / result.errors.poisson[index]) ** 2
        for end in (found.lower[index], found.upper[index]):
            frozen = replace(free(structure), lower=free(structure).lower.copy(), upper=free(structure).upper.copy())
            frozen.start[:] = result.values
            frozen.start[index] = frozen.lower[index] = frozen.upper[index] = end
            # A frozen constant would fix the scale: freeze the held one too.
            frozen.lower[0] = frozen.upper[0] = result.values[0]
            other, _, _ = fitted(points, frozen)
            assert other.deviance - result.deviance == pytest.approx(rise, rel=0.05)
    lower, upper = result.values - found.lower, found.upper - result.values
    assert np.all((lower > 0.5 * result.errors.largest)[[2, 5]])
    assert np.all((upper < 2.0 * result.errors.largest)[[2, 5]])
    assert abs(upper[2] / lower[2] - 1) > 0.03  # it is asymmetric


def test_profile_of_good_data_is_plus_minus_sigma(structure, simulated_points):
    points = simulated_points(structure.tensor(CALCITE), blobs=15, size=1000, mean=400.0, seed=6)
    bulk = known_from_option({"K_Reuss": (74.0, 0.4, "isothermal")}, structure, CELL, None)
    result, minimum, engaged = fitted(points, replace(free(structure), known=bulk))
    found = profile_intervals(result, minimum, engaged, [0, 3])
    for index in (0, 3):
        sigma = result.errors.largest[index]
        # The known value's part of σ does not grow with the counts' excess; the ends say so.
        assert found.upper[index] - result.values[index] == pytest.approx(sigma, rel=0.05)
        assert result.values[index] - found.lower[index] == pytest.approx(sigma, rel=0.05)


def test_an_end_beyond_a_bound_is_the_bound(structure, poor):
    points, result, _, _ = poor
    upper = np.full(6, np.inf)
    upper[2] = result.values[2] + 0.3 * result.errors.largest[2]
    constants = Constants(structure, result.values.copy(), np.full(6, -np.inf), upper)
    bounded, minimum, engaged = fitted(points, constants)
    assert profile_intervals(bounded, minimum, engaged, [2]).upper[2] == upper[2]


def test_bootstrap_agrees_with_the_sandwich_and_sees_more_than_noise(structure, simulated_points):
    points = simulated_points(structure.tensor(CALCITE), blobs=60, size=300, mean=20.0, seed=8)
    result, minimum, _ = fitted(points, free(structure))
    found = bootstrap_intervals(result, minimum, 2000)
    half = ((found.upper - found.lower) / 2)[result.fitted]
    assert half == pytest.approx(result.errors.clustered[result.fitted], rel=0.2)
    assert np.isnan(found.lower[0])

    # Every spot follows a crystal of its own.
    random, pieces = np.random.default_rng(1), points.pieces
    strain = random.normal(size=(60, 3)) * 0.15

    def distorted(blob, start=0, stop=None):
        for piece in pieces(blob, start, stop):
            direction = piece.q / np.linalg.norm(piece.q, axis=1, keepdims=True)
            yield replace(piece, correction=piece.correction * (1 + direction**2 @ strain[blob]))

    result, minimum, _ = fitted(replace(points, pieces=distorted), free(structure))
    found = bootstrap_intervals(result, minimum, 2000)
    half = ((found.upper - found.lower) / 2)[result.fitted]
    assert np.all(half > 1.5 * result.errors.poisson[result.fitted])


def test_bootstrap_of_too_few_spots_gives_nothing(structure, simulated_points):
    points = simulated_points(structure.tensor(CALCITE), blobs=8, size=400, mean=10.0, seed=8)
    result, minimum, _ = fitted(points, free(structure))
    of_one = replace(minimum, left_out=np.arange(8) > 0)
    assert np.isnan(bootstrap_intervals(result, of_one, 100).upper).all()


def test_intervals_are_reported(held, context):
    from tds2el.fit.result import Intervals

    ends = Intervals(held.values - 1.0, held.values + 2.0)
    report = fit_report(replace(held, profile=ends, bootstrap=ends), context)
    assert "INTERVALS of 68 %" in report
    assert f"{2 / held.values[0]:+#.3g}" in report
