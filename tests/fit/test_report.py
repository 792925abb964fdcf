"""Reports: numbers as printed, tables, warnings, and σ of derived quantities against independent truths."""

import dataclasses
import re

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.frames import rotate, standard_frame
from tds2el.crystal.symmetry import point_group
from tds2el.fit.context import constant_status, may_be_piezoelectric, percent, result_notes, result_warnings
from tds2el.fit.derived import AVERAGES, averages, averages_with_sigma, tensor_sigma
from tds2el.fit.minimise import Iteration
from tds2el.fit.parameters import Scale
from tds2el.fit.report import (
    constants_table,
    dry_run_text,
    fit_report,
    iteration_line,
    moduli_table,
    sigma_table,
    spot_table,
    tensor_text,
)
from tds2el.fit.result import Errors
from tds2el.fit.text import WIDTH, with_error
from tds2el.parfile import evaluate


@pytest.mark.parametrize(
    ("value", "sigma", "text"),
    [
        (85.3217, 0.4666, "85.32(47)"),
        (1.0, 0.0996, "1.00(10)"),
        (147.1, 12.6, "147(13)"),
        (1234.0, 126.0, "1230(130)"),
        (-20.61, 0.3, "-20.61(30)"),
        (-0.001, 0.5, "0.00(50)"),
        (3.2149e-6, 1.5e-7, "3.21(15)e-06"),
        (2.5e7, 1e5, "2.500(10)e+07"),
        (147.1, np.nan, "147.1"),
        (147.1, 0.0, "147.1"),
    ],
)
def test_numbers_carry_two_digits_of_sigma(value, sigma, text):
    assert with_error(value, sigma) == text


def rounded(result):
    """The result with round numbers, so that tables are the same everywhere."""
    values = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
    sigma = np.array([np.nan, 0.853, 0.17, 0.31, 0.5, 0.206])
    errors = Errors(poisson=0.5 * sigma, scaled=0.75 * sigma, clustered=sigma)
    covariance = np.diag(sigma[1:] ** 2)
    return dataclasses.replace(result, values=values, errors=errors, covariance=covariance)


def test_ratios_are_the_primary_table_while_the_scale_is_held(held, context):
    assert constants_table(rounded(held), context).splitlines() == [
        "ELASTIC CONSTANTS, frame W; ratios to A11: these data do not determine the overall scale",
        "       ratio to A11  GPa if A11 = 147.1  status  start    bounds",
        "  A11             1               147.1    held  147.1  0 to 500",
        "  A33    0.5799(58)           85.30(85)  fitted  93.83  0 to 500",
        "  A44    0.2311(12)           34.00(17)  fitted   37.4  0 to 500",
        "  A66    0.3161(21)           46.50(31)  fitted  51.15  0 to 500",
        "  A13    0.3651(34)           53.70(50)  fitted  59.07  0 to 500",
        "  A15   -0.1400(14)          -20.60(21)  fitted  22.66  0 to 500",
        "A11 was held at its start value. If you know any constant or modulus, scale all GPa by it.",
    ]


def test_three_sigmas_are_shown(held):
    assert sigma_table(rounded(held)).splitlines() == [
        "STANDARD DEVIATIONS, of the ratios to A11; the largest is used throughout",
        "       Poisson  × √(deviance/dof)  clustered by spot",
        "  A33   0.0029             0.0043             0.0058",
        "  A44  0.00058            0.00087             0.0012",
        "  A66   0.0011             0.0016             0.0021",
        "  A13   0.0017             0.0025             0.0034",
        "  A15  0.00070             0.0011             0.0014",
    ]


def test_gpa_are_the_table_while_the_scale_is_known_or_free(known, held, context):
    table = constants_table(known, context)
    assert "ratio" not in table
    assert "GPa if" not in table
    assert re.search(r"A11 +147\.1 +frozen", table)
    assert "the quantum terms determine it" in constants_table(dataclasses.replace(held, scale=Scale.FREE), context)


def test_constants_at_a_bound_are_flagged(at_bound, context):
    assert constant_status(at_bound) == ["frozen", "at upper bound", *["fitted"] * 4]
    assert re.search(r"A33 +80 +at upper bound !", constants_table(at_bound, context))
    assert any(w.startswith("A33 is at its upper bound") for w in result_warnings(at_bound, context))
    lower = dataclasses.replace(at_bound, values=np.where(at_bound.at_bound, 0.0, at_bound.values))
    assert constant_status(lower)[1] == "at lower bound"


def test_unbounded_constants_are_fitted(held, context):
    none = np.full(6, np.inf)
    result = dataclasses.replace(held, constants=dataclasses.replace(held.constants, lower=-none, upper=none))
    assert constant_status(result) == ["held", *["fitted"] * 5]
    assert re.search(r"A33 .*none$", constants_table(result, context), re.MULTILINE)


def test_spots_that_are_left_out_or_below_the_floor_are_flagged(held, context):
    left_out, below = np.arange(8) == 2, np.where(np.arange(8) == 5, 45.0, 15.0)
    spots = dataclasses.replace(held.spots, left_out=left_out, below_floor=below)
    result = dataclasses.replace(held, spots=spots, converged=False)
    rows = spot_table(result).splitlines()[2:]
    assert [row.endswith("left out") for row in rows] == list(left_out)
    assert [row.endswith("3 % below floor") for row in rows] == [n == 5 for n in range(8)]
    warnings = "\n".join(result_warnings(result, context))
    assert "did not converge in 5 passes" in warnings
    assert "left out, since no halo with a positive factor was found: (0 2 4)\n" in warnings
    assert "of (1 -2 0):" in warnings
    assert "NOT converged in 5 passes over 7 spots" in fit_report(result, context)


def test_spot_table_gives_pearson_chi2_per_degree_of_freedom(held):
    row = spot_table(held).splitlines()[2].split()
    assert row[:5] == ["1", "0", "4", "0.00", "1500"]
    assert float(row[-1]) == pytest.approx(held.spots.chi2[0] / 1498, abs=5e-4)


def test_a_model_that_misses_something_is_suspected(held, context):
    assert not any("misses something" in w for w in result_warnings(held, context))
    clustered = held.errors.poisson * [np.nan, 1, 2, 1, 7.5, 1]
    spread = dataclasses.replace(held, errors=dataclasses.replace(held.errors, clustered=clustered))
    assert [w for w in result_warnings(spread, context) if "misses something" in w] == [
        "σ of A13 clustered by spot is 7.5 times that of the counts: the model misses something in whole spots; "
        "check the symmetry, the geometry, the centres and the masks"
    ]


def test_many_spots_without_a_halo_point_to_the_geometry(held, context):
    def suspects(number):
        left_out = np.arange(len(held.spots.hkl)) < number
        result = dataclasses.replace(held, spots=dataclasses.replace(held.spots, left_out=left_out))
        return [w for w in result_warnings(result, context) if "are the origins exchanged?" in w]

    assert suspects(1) == []
    assert "direct beam at row 512.2, column 498.5" in suspects(4)[0]


def test_defaults_are_a_warning_only_while_the_quantum_term_matters(held, context):
    def about_density(term, given):
        there = dataclasses.replace(context, quantum_term=term, given=frozenset(given))
        return [w for w in result_warnings(held, there) if "assumed by default" in w]

    assert about_density(9e-4, []) == []
    assert about_density(2e-3, ["Temperature", "density"]) == []
    assert about_density(2e-3, ["Temperature"]) == [
        "density = 2.71 g/cm³ assumed by default, while the quantum term reaches 0.2 %: give it"
    ]
    assert "Temperature = 300 K and density" in about_density(2e-3, [])[0]


@pytest.mark.parametrize(
    ("name", "piezoelectric"),
    [("-3m1", False), ("321", True), ("432", False), ("23", True), ("622", True), ("-43m", True), ("m-3m", False)],
)
def test_acentric_crystals_have_stiffened_constants(name, piezoelectric):
    hexagonal = name in ("-3m1", "321", "622")
    cell = Cell(5, 5, 7, 90, 90, 120) if hexagonal else Cell(5, 5, 5, 90, 90, 90)
    assert may_be_piezoelectric(point_group(name, cell, None)) == piezoelectric


def test_notes_tell_what_the_constants_are(held, context):
    notes = " ".join(result_notes(held, context))
    assert "isothermal" in notes
    assert "piezoelectrically" not in notes
    assert "The sign of A15" in notes
    acentric = dataclasses.replace(context, group=point_group("3(z)", context.group.cell, None))
    assert "piezoelectrically stiffened, effective" in " ".join(result_notes(held, acentric))


def test_the_report_begins_with_warnings_and_fits_the_screen(held, context):
    report = fit_report(held, context)
    assert report.splitlines()[:2] == ["WARNINGS", "- conf.par:3: lmbda is assigned again"]
    assert max(map(len, report.splitlines())) <= WIDTH
    assert "direct beam at row 512.25, column 498.50" in report
    assert "120 masked, 34 over threshold" in report
    assert "mechanically stable" in report
    assert report.index("frame W; ratios") < report.index("Standard frame P (IEEE")
    thinned = dataclasses.replace(context, nred=3, harvested=36000)
    assert "12000 in 8 spots, one in 3 of 36000" in fit_report(held, thinned)


def test_a_simulation_shows_its_constants_as_given(known, context):
    constants = dataclasses.replace(known.constants, lower=known.values, upper=known.values)
    none = np.full(6, np.nan)
    result = dataclasses.replace(
        known,
        constants=constants,
        fitted=np.array([], dtype=int),
        covariance=np.zeros((0, 0)),
        errors=Errors(none, none, none),
    )
    report = fit_report(result, dataclasses.replace(context, simulated=True))
    assert "ELASTIC CONSTANTS as given" in report
    assert "STANDARD DEVIATIONS" not in report
    assert moduli_table(result).count("(") == 1  # "(Kelvin)": no σ


def test_tensor_in_frame_p_has_a14_with_the_error_of_a15(held, context):
    result = rounded(held)
    block = standard_frame(result.tensor, context.group)[1]
    lines = tensor_text(result, block).splitlines()
    assert lines[:2] == [
        "TENSOR, GPa if A11 = 147.1; Standard frame P (IEEE 1987)",
        "axes: x ∥ a, y ∥ b*, z ∥ c",
    ]
    assert lines[2].split() == ["147.1", "54.10(62)", "53.70(50)", "-20.60(21)", "0", "0"]
    assert lines[-3] == "  0.866025  -0.500000  0.000000"


def test_sigma_of_a_turned_tensor_agrees_with_resampling(held):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    samples = np.array([rotate(tensor, rotation) for tensor in resampled(held, 3000)])
    np.testing.assert_allclose(tensor_sigma(held, rotation), samples.std(axis=0), rtol=0.08)


def test_sigma_of_moduli_agrees_with_resampling(held):
    samples = np.array([averages(tensor) for tensor in resampled(held, 3000)])
    for n, name in enumerate(AVERAGES):
        value, sigma = averages_with_sigma(held)[name]
        assert sigma == pytest.approx(samples[:, n].std(), rel=0.06)
        assert value == pytest.approx(samples[:, n].mean(), abs=0.2 * sigma)


def test_sigma_of_voigts_moduli_is_that_of_linear_combinations(known):
    # K_V = (4 A11 − 4 A66 + A33 + 4 A13)/9, G_V = (… A33 − 2 A13 + 6 A44 + 5 A66 …)/15 with A12 = A11 − 2 A66.
    assert [known.constants.names[i] for i in known.fitted] == ["A33", "A44", "A66", "A13", "A15"]
    for name, weights in (
        ("bulk_voigt", np.array([1, 0, -4, 4, 0]) / 9),
        ("shear_voigt", np.array([1, 6, 5, -2, 0]) / 15),
    ):
        expected = np.sqrt(weights @ known.covariance @ weights)
        assert averages_with_sigma(known)[name][1] == pytest.approx(expected, rel=1e-8)


def resampled(result, number):
    """Tensors with constants drawn from the covariance."""
    values = np.tile(result.values, (number, 1))
    draws = np.random.default_rng(3).multivariate_normal(np.zeros(len(result.fitted)), result.covariance, number)
    values[:, result.fitted] += draws
    return [result.constants.structure.tensor(v) for v in values]


def test_dry_run_shows_the_structure_and_a_guess_to_paste(scan):
    text = dry_run_text(scan.structure)
    assert text.startswith(scan.structure.text() + "\n")
    pasted = evaluate(text[text.index("CGUESS = ") :], "pasted").assignments
    assert [a.name for a in pasted] == ["CGUESS"]
    assert list(pasted[0].value) == ["A11", "A33", "A44", "A66", "A13", "A15"]


def test_an_iteration_is_one_line():
    first = Iteration(12345.678901, np.inf, 0.0, True, np.array([147.1, 85.3]))
    assert iteration_line(first, ["A11", "A33"]) == (
        "deviance 12345.6789, predicted decrease -, damping 0, accepted: A11 147.1000 A33 85.3000"
    )
    second = dataclasses.replace(first, predicted=8.1594, damping=1e-3, accepted=False)
    assert "predicted decrease 8.159, damping 0.001, rejected:" in iteration_line(second, ["A11", "A33"])


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.0025, "0.25 %"), (0.092, "9.2 %"), (0.996, "100 %"), (9.54, "954 %")]
)
def test_per_cent_are_read_without_powers_of_ten(fraction, text):
    assert percent(fraction) == text
