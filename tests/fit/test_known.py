"""Known constants and moduli as data: they set the scale, with the error that they have."""

from dataclasses import replace

import numpy as np
import pytest

from tds2el.crystal.moduli import voigt_reuss_hill
from tds2el.crystal.thermal import Thermal
from tds2el.errors import InputError
from tds2el.fit.clean import Usage
from tds2el.fit.common import Common
from tds2el.fit.context import scale_in_words
from tds2el.fit.known import known_from_option, shares
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Scale, constants_from_guess
from tds2el.fit.parametri import write_parametri
from tds2el.fit.report import fit_report
from tds2el.fit.result import result_of
from tds2el.model.engine import Conditions
from tds2el.model.numpy_engine import NumpyEngine

from .conftest import CELL, SPOTS, TRUTH

THERMAL = Thermal(300.0, 2.71, 0.82, np.array([-5e-6, -5e-6, 26e-6, 0, 0, 0]))


def fit_with(scan, option, factor=1.3):
    """A fit from constants that are all wrong by a factor."""
    constants = constants_from_guess({n: (factor * v, -np.inf, np.inf) for n, v in TRUTH.items()}, scan.structure)
    constants = replace(constants, known=known_from_option(option, scan.structure, CELL, THERMAL))
    common, conditions = Common(constants, constants.initial_scale("auto")), Conditions(300.0, 2.71)
    engine = NumpyEngine(scan.points, common.columns, conditions)
    minimum = Minimiser(engine, scan.points, common, conditions).run()
    return result_of(minimum, scan.data, Usage.everything(scan.points), np.zeros(len(SPOTS), dtype=bool))


@pytest.fixture(scope="module")
def truth(scan):
    return scan.structure.tensor([TRUTH[name] for name in scan.structure.names])


def test_bulk_modulus_sets_the_scale(scan, held, truth):
    bulk = voigt_reuss_hill(truth).bulk_reuss
    result = fit_with(scan, {"K_Reuss": (bulk, 0.02 * bulk, "isothermal")})
    assert result.scale is Scale.DATUM
    assert result.held is None
    assert result.converged
    # The datum is met exactly, since the counts say nothing about the scale, and ratios are those without it.
    assert voigt_reuss_hill(result.tensor).bulk_reuss == pytest.approx(bulk, rel=1e-4)
    ratios, before = (found.values / found.values[0] for found in (result, held))
    assert np.all(np.abs(ratios - before)[1:] < 0.05 * held.errors.largest[1:] / held.values[0])
    # σ: that of the datum beside that of (constant)/(bulk modulus), here from the covariance of ratios.
    known = result.constants.known
    gradient = known.jacobian(held.values)[0] * 0.02 * bulk
    scaled = held.values * bulk / voigt_reuss_hill(held.tensor).bulk_reuss
    k = len(held.values)
    ratio_covariance = np.zeros((k, k))
    ratio_covariance[np.ix_(held.fitted, held.fitted)] = held.covariance
    change = np.eye(k) - np.outer(held.values, gradient) / voigt_reuss_hill(held.tensor).bulk_reuss
    expected = np.sqrt(np.diag(change @ ratio_covariance @ change.T) + (0.02 * scaled) ** 2)
    assert result.errors.largest == pytest.approx(expected, rel=0.1)
    assert np.all(np.abs(result.values - scaled) < 0.05 * expected)


def test_exact_datum_takes_its_share(scan, truth):
    bulk = voigt_reuss_hill(truth).bulk_reuss
    rough, fine = (fit_with(scan, {"K_Reuss": (bulk, x * bulk, "isothermal")}) for x in (0.1, 1e-4))
    part = shares(rough.constants.known, rough.values, rough.fitted, rough.covariance)
    left = (fine.errors.largest / rough.errors.largest)[rough.fitted] ** 2
    assert part == pytest.approx(1 - left, abs=0.03)
    assert part.min() > 0.3


def test_several_data_and_their_disagreement(scan, truth):
    """Two data that contradict each other by 2 σ each meet in the middle, weighted."""
    bulk, shear = voigt_reuss_hill(truth).bulk_reuss, voigt_reuss_hill(truth).shear_voigt
    result = fit_with(
        scan,
        {"K_Reuss": (bulk * 1.02, 0.01 * bulk, "isothermal"), "G_Voigt": (shear * 0.98, 0.01 * shear, "adiabatic")},
    )
    assert result.converged
    residuals = result.constants.known.residuals(result.values)
    assert residuals[0] > 0.7
    assert residuals[1] < -0.7


def test_adiabatic_value_is_converted(scan, truth):
    adiabatic = voigt_reuss_hill(THERMAL.adiabatic(truth)).bulk_reuss
    result = fit_with(scan, {"K_Reuss": (adiabatic, 0.001 * adiabatic, "adiabatic")})
    bulk = voigt_reuss_hill(truth).bulk_reuss
    assert voigt_reuss_hill(result.tensor).bulk_reuss == pytest.approx(bulk, rel=1e-4)
    assert adiabatic > 1.002 * bulk


def test_errors_agree_with_the_spread_over_realisations(scan, truth):
    """Known values drawn with their error: the scale that they give scatters by the σ that is said."""
    bulk = voigt_reuss_hill(truth).bulk_reuss
    random = np.random.default_rng(5)
    pulls = []
    for value in random.normal(bulk, 0.03 * bulk, 12):
        result = fit_with(scan, {"K_Reuss": (value, 0.03 * bulk, "isothermal")}, factor=1.0)
        pulls.append((result.values - list(TRUTH.values()))[0] / result.errors.largest[0])
    assert abs(np.mean(pulls)) < 3 / np.sqrt(12)
    assert 0.5 < np.std(pulls) < 1.6


def test_said_in_report_and_parametri(scan, truth, context, tmp_path):
    result = fit_with(scan, {"A33": (85.3, 0.8, "isothermal")})
    context = replace(context, thermal=THERMAL)
    report = fit_report(result, context)
    assert "A33 is known" in scale_in_words(result, context)
    for text in ("KNOWN from elsewhere", "ADIABATIC CONSTANTS", "CORRELATIONS", "scale from what is known"):
        assert text in report
    assert max(map(len, report.splitlines())) <= 100
    write_parametri(tmp_path / "parametri.txt", result, context)
    text = (tmp_path / "parametri.txt").read_text()
    assert "# ADIABATIC CONSTANTS" in text
    line = next(line for line in text.splitlines() if line.startswith("A33 = "))
    assert float(line.split()[2]) == pytest.approx(85.3, abs=0.1)


def test_wrong_data_are_refused(scan):
    with pytest.raises(InputError, match="A14 is zero"):
        known_from_option({"A14": (20, 1, "isothermal")}, scan.structure, CELL, None)
    with pytest.raises(InputError, match="expansion and heat_capacity"):
        known_from_option({"A11": (150, 1, "adiabatic")}, scan.structure, CELL, None)
