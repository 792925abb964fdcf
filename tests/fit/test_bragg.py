"""The scale from Bragg intensities: extrapolation, TDS under the peak, and the datum that a fit gets."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.fit.bragg import as_datum, extrapolated, halo_in_ball, net_intensity, thermal_energy
from tds2el.fit.clean import Usage
from tds2el.fit.common import Common
from tds2el.fit.fit import _factors_of
from tds2el.fit.known import Known
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Scale, constants_from_guess
from tds2el.fit.result import result_of
from tds2el.harvest.bragg import BraggPeak
from tds2el.model.christoffel import christoffel
from tds2el.model.engine import Conditions
from tds2el.model.numpy_engine import NumpyEngine

from .conftest import SPOTS, TRUTH

CONDITIONS = Conditions(300.0, 2.71)


def realisation(random, spots=15, loss=0.05, scatter=0.0):
    strength = random.uniform(0.05, 1, spots)
    strength[0] = 1.0
    twice_g = (1 - loss) ** -2 - 1
    sigma = random.uniform(0.004, 0.012, spots)
    noise = random.normal(size=spots) * np.hypot(sigma, scatter)
    y = np.log(1.2) - 0.5 * np.log1p(twice_g * strength) + noise
    return extrapolated(y, sigma, strength, [""] * spots, 0.0)


@pytest.mark.parametrize("scatter", [0.0, 0.02])
def test_scale_and_extinction_are_right_within_their_errors(scatter):
    random = np.random.default_rng(1)
    found = [realisation(random, scatter=scatter) for _ in range(200)]
    pulls = np.array([(scale.log_scale - np.log(1.2)) / scale.sigma_scale for scale in found])
    assert abs(pulls.mean()) < 0.25
    assert 0.85 < pulls.std() < 1.2
    loss = np.array([scale.loss for scale in found])
    pulls = (loss[:, 0] - 0.05) / loss[:, 1]
    assert abs(pulls.mean()) < 0.3
    assert 0.8 < pulls.std() < 1.25
    # Without the extrapolation the answer would be off by several σ.
    plain = np.mean([np.average(scale.log_ratio, weights=scale.sigma**-2) for scale in found])
    assert np.log(1.2) - plain > 4 * np.mean([scale.sigma_scale for scale in found]) / (1 + 100 * scatter)


def test_weights_are_the_derivative():
    random = np.random.default_rng(3)
    scale = realisation(random)
    step = 1e-5
    for n in (0, 7):
        moved = scale.log_ratio.copy()
        moved[n] += step
        other = extrapolated(moved, scale.sigma, scale.strength, scale.flaw, 0.0)
        if scale.excess < 1:  # else the scatter, and with it all weights, change too
            assert (other.log_scale - scale.log_scale) / step == pytest.approx(scale.weights[n], rel=0.02, abs=1e-3)
    assert scale.weights.sum() == pytest.approx(1.0)


def test_few_reflections_are_averaged_and_none_is_an_error():
    y, sigma, x = np.array([0.1, 0.12, np.nan]), np.array([0.01, 0.01, np.nan]), np.array([0.2, 1.0, 0.4])
    scale = extrapolated(y, sigma, x, ["", "", "saturated"], 0.02)
    assert scale.log_scale == pytest.approx(0.11)
    assert np.isnan(scale.sigma_extinction)
    assert scale.sigma_scale > 0.02
    with pytest.raises(InputError, match="3 saturated"):
        extrapolated(y, sigma, x, ["saturated"] * 3, 0.0)


def test_halo_under_the_peak_against_a_sum_over_a_grid(scan):
    tensor = scan.structure.tensor([TRUTH[name] for name in scan.structure.names])
    node, radius, n = np.array([0.3, -0.5, 0.4]), 0.02, 80
    axis = (np.arange(n) + 0.5) / n * 2 - 1
    q = radius * np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    q = q[np.linalg.norm(q, axis=1) <= radius]
    Q = node + q
    s = np.einsum("ni,ni->n", Q, np.linalg.solve(christoffel(tensor, q), Q[..., None])[..., 0])
    expected = s.sum() * (2 * radius / n) ** 3
    assert halo_in_ball(node, tensor, radius, 300.0, 2.71) == pytest.approx(expected, rel=0.02)
    volume = 4 / 3 * np.pi * radius**3
    assert net_intensity(BraggPeak(10.0, 0.0, volume), 2.0, 3.0, 0.5, radius) == pytest.approx(9 - 3 * volume)


def test_thermal_energy():
    assert thermal_energy(300.0) == pytest.approx(4.142, rel=1e-3)


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_second_fit_has_the_scale_of_the_factors(scan, spoiled):
    """Factors at the true constants say what ∫ I_B d³s is; from constants 30 % too large the fit finds back."""

    def fitted(constants):
        common = Common(constants, constants.initial_scale("auto"))
        engine = NumpyEngine(scan.points, common.columns, CONDITIONS)
        minimum = Minimiser(engine, scan.points, common, CONDITIONS).run()
        none = np.zeros(len(SPOTS), dtype=bool)
        return result_of(minimum, scan.data, Usage.everything(scan.points), none), minimum

    frozen = constants_from_guess({name: (v, v, v) for name, v in TRUTH.items()}, scan.structure)
    truth = fitted(frozen)[0].spots.factor
    free = constants_from_guess({n: (1.3 * v, -np.inf, np.inf) for n, v in TRUTH.items()}, scan.structure)
    first, minimum = fitted(free)
    if spoiled:  # other ratios, to which the datum must not be blind
        first = replace(first, values=first.values * [1, 1.02, 1, 0.99, 1, 1])
    response, own = _factors_of(minimum)
    blobs = len(SPOTS)
    scale = extrapolated(
        np.log(truth / minimum.state.factor), own, np.full(blobs, 0.5) + 0.01 * np.arange(blobs), [""] * blobs, 0.0
    )
    datum = as_datum(scale, free, first.values, first.held, response)
    s = np.exp(scale.log_scale)
    known = replace(free, start=s * first.values, known=Known(scan.structure, (datum,)))
    assert datum.quantity(scan.structure.tensor(s * first.values))[0] == pytest.approx(0, abs=1e-12)
    # Scaling all constants changes the datum by the logarithm.
    moved = scan.structure.tensor(1.001 * s * first.values)
    assert datum.quantity(moved)[0] == pytest.approx(0.001, rel=1e-6)
    result, _ = fitted(known)
    assert result.scale is Scale.DATUM
    if not spoiled:
        true = np.array([TRUTH[name] for name in scan.structure.names])
        assert np.all(np.abs(result.values - true) < 4 * result.errors.largest)
        assert np.average(np.log(result.spots.factor / truth), weights=own**-2) == pytest.approx(0, abs=0.02)
