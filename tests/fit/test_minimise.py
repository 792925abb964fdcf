"""The fit from bad starts, in every Laue class, with bounds, held and free scales, and on both engines."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.moduli import eigenvalues, isotropic_start
from tds2el.crystal.symmetry import point_group
from tds2el.errors import InputError
from tds2el.fit.clean import Usage
from tds2el.fit.common import Common
from tds2el.fit.data import FitData
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Constants, Scale, constants_from_guess
from tds2el.fit.result import result_of
from tds2el.model.engine import Conditions, Points
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.model.opencl_engine import OpenCLEngine

MOST_PASSES = 12
CALCITE_CELL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
CALCITE = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
HEXAGONAL, TETRAGONAL, CUBIC = Cell(5, 5, 8, 90, 90, 120), Cell(5, 5, 7, 90, 90, 90), Cell(5, 5, 5, 90, 90, 90)
# Real crystals' constants (GPa), some very anisotropic, in the order of the free constants of each Laue class:
# albite, diopside, forsterite, scheelite, rutile, dolomite, calcite, apatite, zinc, pyrite, lead.
LAUE_CLASSES = {
    "-1": ("1~", Cell(5, 6, 7, 85, 95, 100), "69.1 183.5 179.5 24.9 26.8 33.5 34 30.8 5.1 -2.4 -0.9 5.5 -3.9 -7.7 -5.8 "
           "-8.7 7.1 -9.8 -2.4 -7.2 0.5"),
    "2/m": ("1~,2(y)", Cell(5, 6, 7, 90, 105, 90), "223 171 235 74 67 66 77 81 17 57 7 43 7.3"),
    "mmm": ("1~,2(z),2(y)", Cell(5, 6, 7, 90, 90, 90), "328 200 235 66.7 81.3 80.9 69 69 73"),
    "4/m": ("1~,4(z)", TETRAGONAL, "144 127 33.5 38 65 41 -21"),
    "4/mmm": ("1~,4(z),2(x)", TETRAGONAL, "273 484 125 194 176 149"),
    "-3": ("1~,3(z)", HEXAGONAL, "205 113 39.8 67 57.4 -19.5 13.7"),
    "-3m": ("1~,3(z),2(y)", HEXAGONAL, "147.1 85.3 34 46.5 53.7 -20.6"),
    "6/m": ("1~,6(z)", HEXAGONAL, "141 175 43 46.5 60"),
    "6/mmm": ("1~,6(z),2(x)", HEXAGONAL, "165 62 39.6 67 50"),
    "m-3": ("1~,3(111),2(z)", CUBIC, "361 105 34"),
    "m-3m": ("1~,4(z),3(111)", CUBIC, "49 15 42"),
}  # fmt: skip
THERMAL = Conditions(300.0, 2.71)


def _fit(points: Points, constants: Constants, device=None, option="auto", **thermal):
    conditions = replace(THERMAL, **thermal)
    common = Common(constants, constants.initial_scale(option))
    engine = (
        NumpyEngine(points, common.columns, conditions)
        if device is None
        else OpenCLEngine(device, points, common.columns, conditions)
    )
    minimum = Minimiser(engine, points, common, conditions, may_free_scale=option == "auto").run()
    blobs = len(points.nodes)
    nowhere = np.full((blobs, 3), np.nan)
    data = FitData(points, np.arange(blobs), np.zeros((blobs, 3), dtype=int), np.zeros(blobs), nowhere, nowhere)
    return result_of(minimum, data, Usage.everything(points), np.zeros(blobs, dtype=bool))


@pytest.fixture(scope="module")
def calcite():
    return tensor_structure(point_group("1~,3(z),2(y)", CALCITE_CELL, None))


@pytest.fixture(scope="module")
def calcite_points(calcite, simulated_points):
    return simulated_points(calcite.tensor(CALCITE), blobs=20, size=3000, mean=3.0, seed=11)


def _unbounded(structure, start):
    return Constants(structure, start, np.full(len(start), -np.inf), np.full(len(start), np.inf))


def test_every_start_forty_per_cent_off_converges(calcite, calcite_points, device):
    """All sign patterns whose tensor is positive definite reach the same ratios."""
    found = []
    for pattern in product([0.6, 1.4], repeat=6):
        start = CALCITE * pattern
        if eigenvalues(calcite.tensor(start))[0] <= 0:
            continue
        result = _fit(calcite_points, _unbounded(calcite, start), device)
        assert result.converged, pattern
        assert len(result.iterations) <= MOST_PASSES, pattern
        found.append(result.values / result.values[0])
    sigma = result.errors.largest[1:] / result.values[0]
    assert len(found) > 40
    assert np.all(np.ptp(found, axis=0)[1:] < 0.02 * sigma)
    assert np.all(np.abs(np.mean(found, axis=0)[1:] - CALCITE[1:] / CALCITE[0]) < 4 * sigma)


@pytest.mark.parametrize("laue", LAUE_CLASSES)
def test_isotropic_start_converges_in_every_laue_class(laue, simulated_points, device):
    generators, cell, values = LAUE_CLASSES[laue]
    structure = tensor_structure(point_group(generators, cell, None))
    truth = np.array(values.split(), dtype=float)
    assert eigenvalues(structure.tensor(truth))[0] > 0
    points = simulated_points(structure.tensor(truth), blobs=30, size=3000, mean=3.0, seed=5)
    result = _fit(points, constants_from_guess("auto", structure), device)
    assert result.converged
    assert len(result.iterations) <= MOST_PASSES
    assert result.scale is Scale.HELD
    assert result.values[0] == 100
    pull = (result.values / result.values[0] - truth / truth[0])[1:] / (result.errors.largest / 100)[1:]
    assert np.all(np.abs(pull) < 4.5)
    assert np.sqrt(np.mean(pull**2)) < 1.8


def test_engines_agree_to_a_fiftieth_of_sigma(calcite, calcite_points, device):
    constants = _unbounded(calcite, 1.2 * CALCITE * [1, 1.1, 0.9, 1, 1, 1])
    by_opencl = _fit(calcite_points, constants, device)
    by_numpy = _fit(calcite_points, constants)
    fitted = by_numpy.fitted
    sigma = by_numpy.errors.largest[fitted]
    assert np.all(np.abs(by_opencl.values - by_numpy.values)[fitted] < 0.02 * sigma)
    assert np.allclose(by_opencl.errors.largest[fitted], sigma, rtol=1e-3)
    assert np.allclose(by_opencl.spots.factor, by_numpy.spots.factor, rtol=1e-4)


def test_held_scale_gives_ratios_and_says_so(calcite, calcite_points, device):
    results = [_fit(calcite_points, _unbounded(calcite, factor * CALCITE), device) for factor in (1.0, 1.5)]
    for result, factor in zip(results, (1.0, 1.5), strict=True):
        assert result.scale is Scale.HELD
        assert result.held == 0
        assert result.values[0] == factor * CALCITE[0]
    # Ratios depend on the held value only through the small quantum terms.
    ratios = [result.values / result.values[0] for result in results]
    assert np.all(np.abs(ratios[0] - ratios[1])[1:] < 0.2 * results[0].errors.largest[1:] / CALCITE[0])


def test_scale_is_freed_when_the_quantum_terms_determine_it(calcite, simulated_points, device):
    """At 15 K the answer is absolute, from a start whose scale is 30 % off."""
    points = simulated_points(calcite.tensor(CALCITE), blobs=20, size=2000, mean=300.0, seed=3, temperature=15.0)
    result = _fit(points, _unbounded(calcite, 1.3 * CALCITE), device, temperature=15.0)
    assert result.scale is Scale.FREE
    assert result.held is None
    assert np.all(np.isfinite(result.errors.largest))
    assert np.all(np.abs(result.values - CALCITE) < 4 * result.errors.largest)
    held = _fit(points, _unbounded(calcite, 1.3 * CALCITE), device, option="held", temperature=15.0)
    assert held.scale is Scale.HELD
    assert held.values[0] == 1.3 * CALCITE[0]


def test_bounds_frozen_constants_and_flags(calcite, calcite_points, device):
    start = CALCITE * [1, 0.9, 1.1, 1, 1, 1]
    lower = np.array([CALCITE[0], 40, -np.inf, -np.inf, -np.inf, -np.inf])
    upper = np.array([CALCITE[0], 80, np.inf, np.inf, np.inf, np.inf])
    result = _fit(calcite_points, Constants(calcite, start, lower, upper), device)
    assert result.scale is Scale.KNOWN
    assert result.values[0] == CALCITE[0]
    assert result.values[1] == pytest.approx(80)
    assert list(result.at_bound) == [False, True, False, False, False, False]
    assert np.isnan(result.errors.largest[:2]).all()
    assert np.all(np.isfinite(result.errors.largest[2:]))
    assert list(result.fitted) == [2, 3, 4, 5]


def test_all_frozen_is_a_simulation(calcite, calcite_points, device):
    result = _fit(calcite_points, Constants(calcite, CALCITE, CALCITE, CALCITE), device)
    assert result.converged
    assert np.array_equal(result.values, CALCITE)
    assert not len(result.fitted)
    assert np.allclose(result.spots.chi2 / result.spots.dof, 1, atol=0.15)


def test_free_and_bounded_answers_agree_inside_the_bounds(calcite, calcite_points, device):
    free = _fit(calcite_points, _unbounded(calcite, 1.1 * CALCITE), device)
    wide = np.array([1.0, -1.0]) * 500
    bounded = _fit(calcite_points, Constants(calcite, 1.1 * CALCITE, np.full(6, wide[1]), np.full(6, wide[0])), device)
    assert np.allclose(free.values, bounded.values, rtol=1e-5)


def test_spot_without_halo_is_left_out(calcite, calcite_points, device):
    """A blob whose counts rise with |q| has no positive factor: flagged, and the constants do not feel it."""

    def pieces(blob):
        for piece in calcite_points.pieces(blob):
            if blob == 3:
                piece = replace(piece, counts=np.round(60 * np.linalg.norm(piece.q, axis=1) / 0.035))
            yield piece

    counts = np.concatenate([piece.counts for piece in pieces(3)])
    means = np.where(np.arange(20) == 3, counts.mean(), calcite_points.mean_counts)
    spoilt = replace(calcite_points, pieces=pieces, mean_counts=means)
    result = _fit(spoilt, _unbounded(calcite, CALCITE), device)
    assert list(np.flatnonzero(result.spots.left_out)) == [3]
    keep = [blob for blob in range(20) if blob != 3]
    without = replace(
        calcite_points,
        nodes=calcite_points.nodes[keep],
        sizes=calcite_points.sizes[keep],
        mean_counts=calcite_points.mean_counts[keep],
        mean_correction=calcite_points.mean_correction[keep],
        pieces=lambda blob: calcite_points.pieces(keep[blob]),
    )
    expected = _fit(without, _unbounded(calcite, CALCITE), device)
    assert np.allclose(result.values, expected.values, atol=0.02 * expected.errors.largest[1])
    assert np.allclose(result.errors.largest[1:], expected.errors.largest[1:], rtol=1e-3)


def test_a_last_step_beyond_stability_ends_the_fit(simulated_points):
    """Sixty points: near convergence the step along a hardly known direction would make the tensor indefinite."""
    structure = tensor_structure(point_group("1~,3(z)", HEXAGONAL, None))
    tensor = structure.tensor([147.1, 85.3, 34.0, 46.5, 53.7, 0.0, -20.6])
    points = simulated_points(tensor, blobs=1, size=60, mean=2.0, seed=26)
    result = _fit(points, constants_from_guess("auto", structure))
    assert result.converged
    assert eigenvalues(result.tensor)[0] > 0


def test_undetermined_constants_are_named(calcite, calcite_points, device):
    """q along one line only: most constants never act."""

    def pieces(blob):
        for piece in calcite_points.pieces(blob):
            yield replace(piece, Q=np.linalg.norm(piece.q, axis=1, keepdims=True) * [0.0, 0.0, 1.0])

    with pytest.raises(InputError, match=r"do not determine .*A.*: add spots"):
        _fit(replace(calcite_points, pieces=pieces), _unbounded(calcite, CALCITE), device)


def test_poisson_errors_are_the_spread_over_noise(calcite, simulated_points):
    """Pulls over realisations of the noise have unit width: 40 fits, five constants each."""
    pulls = []
    for seed in range(40):
        points = simulated_points(calcite.tensor(CALCITE), blobs=12, size=400, mean=3.0, seed=100 + seed)
        result = _fit(points, _unbounded(calcite, CALCITE))
        pulls.append((result.values - CALCITE)[1:] / result.errors.poisson[1:])
    assert np.all(np.abs(np.mean(pulls, axis=0)) < 4 / np.sqrt(40))
    assert 0.85 < np.std(pulls) < 1.15


def test_guess_names_what_is_expected(calcite):
    guess = {name: (value, -300.0, 300.0) for name, value in zip(calcite.names, CALCITE, strict=True)}
    constants = constants_from_guess(guess, calcite)
    assert np.array_equal(constants.start, CALCITE)
    del guess["A33"]
    with pytest.raises(InputError, match=r"CGUESS lacks A33 and has A12: .* A11, A33, A44, A66, A13, A15"):
        constants_from_guess({**guess, "A12": (1.0, 0.0, 2.0)}, calcite)


def test_start_outside_its_bounds_names_what_is_expected(calcite):
    guess = {name: (value, -300.0, 300.0) for name, value in zip(calcite.names, CALCITE, strict=True)}
    guess["A44"] = (34.0, 40.0, 50.0)
    with pytest.raises(InputError, match=r"starts A44 outside its bounds: .* A11, A33, A44, A66, A13, A15"):
        constants_from_guess(guess, calcite)


def test_sandwich_needs_more_spots_than_constants(calcite, simulated_points, device):
    points = simulated_points(calcite.tensor(CALCITE), blobs=5, size=3000, mean=3.0, seed=2)
    errors = _fit(points, _unbounded(calcite, CALCITE), device).errors
    assert np.isnan(errors.clustered).all()
    assert np.all(np.isfinite(errors.largest[1:]))


def test_indefinite_start_names_its_lowest_eigenvalue(calcite):
    guess = {name: (value, -300.0, 300.0) for name, value in zip(calcite.names, CALCITE, strict=True)}
    guess["A13"] = (200.0, -300.0, 300.0)
    lowest = eigenvalues(calcite.tensor([guess[name][0] for name in calcite.names]))[0]
    assert lowest < 0
    with pytest.raises(InputError, match=rf"unstable tensor \(lowest eigenvalue {lowest:.4g} GPa\)"):
        constants_from_guess(guess, calcite)


def test_auto_is_isotropic(calcite):
    constants = constants_from_guess("auto", calcite)
    assert np.array_equal(constants.start, isotropic_start(calcite))
    assert np.all(np.isinf(constants.lower))
