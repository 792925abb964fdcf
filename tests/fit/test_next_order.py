"""Fits beyond the elastic limit: what they find, hold, compare and refuse, on points whose truth is known."""

import dataclasses
from collections.abc import Iterator
from itertools import product

import h5py
import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.dispersion import dispersion_structure
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.fit.beyond import compare
from tds2el.fit.common import Common, SpotTerms
from tds2el.fit.context import result_notes, result_warnings
from tds2el.fit.data import FitData
from tds2el.fit.fit import fit
from tds2el.fit.fit_file import write_fit_file
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Constants, Scale
from tds2el.fit.parametri import write_parametri
from tds2el.fit.read import read_fit_file
from tds2el.fit.report import fit_report
from tds2el.fit.separable import Own, eliminate, strain_directions
from tds2el.model.christoffel import christoffel
from tds2el.model.dispersion import quartic
from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NextOrder, NumpyEngine, counting_terms, model_columns
from tds2el.model.quantum import quantum_sum
from tds2el.parfile import read_parfile
from tds2el.settings import FitSettings

Q_MIN, Q_MAX = 0.01, 0.035
CONDITIONS = Conditions(300.0, 2.71)
SETTINGS = FitSettings(
    CGUESS=None, doMinimisation=True, nred=1, ftol=1e-5, scale="auto", relative_error=0.0, device="CPU", REPLICA=False,
    A_variables=None, fit_centres=True, baseline="constant", model="next-order", dispersion=True, spot_gradient=True,
    internal_strain=True, dispersion_terms=None, background_scale="monitor", reject=None, spot_filter=None,
    known=None, expansion=None, heat_capacity=None, profile_likelihood=False, bootstrap=0,
)  # fmt: skip
CUBIC = point_group("m-3m", Cell(4.2, 4.2, 4.2, 90, 90, 90), None)
TRIGONAL = point_group("1~,3(z),2(y)", Cell(4.99, 4.99, 17.061, 90, 90, 120), None)
TRUTH = {CUBIC: np.array([297.0, 95.0, 155.0]), TRIGONAL: np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Points that follow the model, and its parameters; g and H of each spot."""

    data: FitData
    group: object
    terms: np.ndarray
    gradient: np.ndarray
    strain: np.ndarray

    @property
    def structure(self):
        return tensor_structure(self.group)

    def fit(self, start=1.05, freeze=False, **options):
        """Free from 5 % off, or with the first constant known."""
        truth = TRUTH[self.group]
        values, free = start * truth, np.full(len(truth), np.inf)
        lower, upper = -free, free.copy()
        if freeze:
            values[0] = lower[0] = upper[0] = truth[0]
        settings = dataclasses.replace(SETTINGS, **options)
        terms = dispersion_structure(self.group).selected(settings.dispersion_terms)
        constants = Constants(self.structure, values, lower, upper)
        return fit(self.data, constants, settings, temperature=300.0, density=2.71, dispersion=terms).result


def sample(group, *, terms=None, own=0.0, size=6000, mean=30.0, seed=1, spots=16, flat=False, expanded=False) -> Sample:
    """Poisson counts; `own` is the size of g and H, `size` a number or one for each spot, flat: q in the plane xy."""
    random = np.random.default_rng(seed)
    tensor = tensor_structure(group).tensor(TRUTH[group])
    structure = dispersion_structure(group)
    terms = np.zeros(len(structure.names)) if terms is None else terms
    nodes = random.normal(size=(spots, 3))
    nodes *= 0.6 / np.linalg.norm(nodes, axis=1, keepdims=True)
    directions = strain_directions(nodes, Columns(np.zeros((0, 6, 6)), gradient=True, strain=True))
    gradient = own * random.normal(size=(spots, 3))
    strain = 0.3 * own * np.einsum("bj,bji->bi", random.normal(size=(spots, 5)), directions)
    coefficients = structure.coefficients(terms)
    quantum = quantum_sum(tensor, Q_MAX, 300.0, 2.71, 1e-10, coefficients)
    sizes, store = np.broadcast_to(size, spots).copy(), []
    for blob, node in enumerate(nodes):
        n = sizes[blob]
        direction = random.normal(size=(n, 3)) * ([1, 1, 0] if flat else 1)
        radius = (Q_MIN**3 + (Q_MAX**3 - Q_MIN**3) * random.random((n, 1))) ** (1 / 3)
        q = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
        beyond = NextOrder(coefficients, gradient[blob], strain[blob])
        columns = Columns(np.zeros((0, 6, 6)), expanded=expanded)
        s = model_columns(q, node, tensor, quantum, columns, beyond=beyond)[:, 0]
        correction = random.uniform(0.8, 1.2, n)
        store.append((q, random.poisson(correction * mean * (s / s.mean() + 0.4)).astype(float), correction))

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        yield Piece(*(values[start:stop] for values in store[blob]))

    means = (np.array([values[column].mean() for values in store]) for column in (1, 2))
    points = Points(nodes, sizes, *means, Q_MAX, pieces, Q_MIN)
    nowhere = np.full((spots, 3), np.nan)
    hkl = np.rint(nodes @ np.linalg.inv(group.cell.B.T)).astype(int)
    data = FitData(points, np.arange(spots), hkl, np.zeros(spots), nowhere, nowhere)
    return Sample(data, group, terms, gradient, strain)


@pytest.fixture(scope="module")
def cubic():
    terms = 6e3 * np.array([-3.0, -1.0, 0.5, 1.0, -1.0, 0.5])
    return sample(CUBIC, terms=terms, own=1.0)


@pytest.fixture(scope="module")
def found(cubic):
    return cubic.fit(freeze=True)


def test_the_truth_is_found_where_the_elastic_limit_is_biased(cubic, found, context):
    assert found.converged
    assert found.elastic.converged
    truth, sigma = TRUTH[CUBIC], found.errors.largest
    assert np.all(np.abs(found.values - truth)[1:] < 3.5 * sigma[1:])
    assert np.abs((found.elastic.values - truth)[1:] / found.elastic.errors.largest[1:]).max() > 6
    pulls = [
        ((found.spots.gradient - cubic.gradient) / found.spots.sigma_gradient).ravel(),
        ((found.spots.strain - cubic.strain) / found.spots.sigma_strain).ravel(),
    ]
    assert all(np.sqrt(np.mean(pull**2)) < 1.3 for pull in pulls)
    assert np.all(np.abs(found.dispersion.value - cubic.terms) < 4 * found.dispersion.sigma)
    # What T = Γ² adds, −|Q|², looks like a baseline; all else of it is found to a hundredth of Γ at the outer radius.
    q = Q_MAX * np.random.default_rng(1).normal(size=(300, 3))
    q *= Q_MAX / np.linalg.norm(q, axis=1, keepdims=True)
    gamma = christoffel(found.tensor, q)
    missed = quartic(dispersion_structure(CUBIC).coefficients(found.dispersion.value - cubic.terms), q)
    square = gamma @ gamma
    missed -= square * (missed * square).sum() / (square * square).sum()
    assert np.abs(missed).max() < 0.01 * np.abs(gamma).max()
    comparison = compare(found)
    assert comparison.biased
    assert comparison.names == ["A44", "A12"]
    assert np.all(np.abs(comparison.shift) > 4)
    [warning] = [w for w in result_warnings(found, context) if w.startswith("the elastic limit is biased")]
    assert f"beyond it {comparison.names[comparison.worst]} is" in warning


@pytest.mark.parametrize(("outer", "elastic", "beyond"), [(0.15, 0.02, 3e-4), (0.3, 0.08, 3e-3)])
def test_exact_lattice_dynamics(outer, elastic, beyond):
    """A fcc lattice of central springs to three shells of neighbours, whose constants are known, without noise.

    The intensity is F² Qᵀ D(q)⁻¹ Q with the full dynamical matrix, F a Gaussian; shells begin at 0.04 a*.
    """
    a, random = 4.05, np.random.default_rng(1)
    springs = [(v, k) for v in product(range(-2, 3), repeat=3) if (k := FCC.get(tuple(sorted(map(abs, v)))))]
    r = np.array([v for v, _ in springs]) * a / 2
    k, n = np.array([k for _, k in springs]), r / np.linalg.norm(r, axis=1, keepdims=True)
    # Long waves: Σ k/2 (2π)² (q·r)² n n is the Christoffel matrix, up to the density.
    long_wave = np.einsum("r,ri,rj,rk,rl->ijkl", 2 * np.pi**2 * k, n, n, r, r)
    c44 = long_wave[0, 0, 1, 1]
    truth = np.array([long_wave[0, 0, 0, 0], c44, 2 * long_wave[0, 1, 0, 1] - c44])
    truth, scale = 100 * truth / truth[0], 100 / truth[0]
    hkl = np.array([(3, 1, 1), (2, 2, 0), (4, 0, 0), (3, 3, 1), (4, 2, 0), (-1, 3, 1), (1, 1, -5), (2, -2, 4),
                    (0, 4, 2), (-3, 3, -1), (1, 3, 3), (0, 0, 4)])  # fmt: skip
    nodes, low, high = hkl / a, 0.04 / a, outer / a
    store = []
    for node in nodes:
        direction = random.normal(size=(3000, 3))
        radius = (low**3 + (high**3 - low**3) * random.random((3000, 1))) ** (1 / 3)
        q = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True)
        dynamical = np.einsum("nr,ri,rj->nij", k * (1 - np.cos(2 * np.pi * q @ r.T)), n, n)
        s = np.einsum("ni,ni->n", node + q, np.linalg.solve(scale * dynamical, (node + q)[..., None])[..., 0])
        s *= np.exp(-((node + q) ** 2).sum(axis=1))
        store.append((q, 3e4 * s / s.mean() + 3e3, np.ones(3000)))
    means = np.array([counts.mean() for _, counts, _ in store])
    points = Points(
        nodes, np.full(12, 3000), means, np.ones(12), high, lambda blob, *_: iter([Piece(*store[blob])]), low
    )
    nowhere = np.full((12, 3), np.nan)
    data = FitData(points, np.arange(12), hkl, np.zeros(12), nowhere, nowhere)
    constants = Constants(tensor_structure(CUBIC), truth * [1, 1.1, 0.9], np.full(3, -np.inf), np.full(3, np.inf))
    terms = dispersion_structure(CUBIC)
    result = fit(data, constants, SETTINGS, temperature=3000.0, density=2.7, dispersion=terms).result
    assert result.converged
    assert np.abs(result.elastic.values / truth - 1).max() > elastic
    assert np.abs(result.values / truth - 1).max() < beyond


FCC = {(0, 1, 1): 1.0, (0, 0, 2): 0.25, (1, 1, 2): 0.08}
"""Springs to the three shells of neighbours, by the neighbour in halves of a."""


def test_held_and_known_scale_agree(cubic, found):
    held = cubic.fit()
    assert held.scale is Scale.HELD
    ratio = held.values[0] / found.values[0]
    sigma = found.errors.largest
    # Quantum terms are all that differs.
    assert np.all(np.abs(held.values / ratio - found.values)[1:] < 0.1 * sigma[1:])
    assert np.all(np.abs(held.dispersion.value / ratio - found.dispersion.value) < 0.1 * found.dispersion.sigma)
    assert np.allclose(compare(held).shift, compare(found).shift, atol=0.3)
    assert compare(held).reference == "A11"
    assert compare(found).reference is None


@pytest.fixture(scope="module")
def elastic_limit():
    return sample(TRIGONAL, seed=4).fit()


def test_an_elastic_crystal_stays_one(elastic_limit, context):
    """T, g and H are zero within their errors, constants stay, and the price in σ is stated."""
    result, truth = elastic_limit, TRUTH[TRIGONAL]
    assert result.converged
    comparison = compare(result)
    assert not comparison.biased
    assert np.all(np.abs(comparison.shift) < 3)
    assert np.all(np.abs(comparison.beyond - truth[1:] / truth[0]) < 3.5 * comparison.sigma_beyond)
    assert np.all(comparison.sigma_beyond > 1.1 * comparison.sigma_elastic)
    assert np.sqrt(np.mean((result.spots.gradient / result.spots.sigma_gradient) ** 2)) < 1.4
    assert np.sqrt(np.mean((result.spots.strain / result.spots.sigma_strain) ** 2)) < 1.4
    report = fit_report(result, dataclasses.replace(context, model="next-order"))
    assert "These data show no bias of the elastic limit" in report
    assert "σ wider by" in report
    assert not any("elastic limit is biased" in w for w in result_warnings(result, context))


def test_shifts_are_as_large_as_their_test_expects():
    """Over realisations of the noise on an elastic crystal the joint test of the shifts is uniform."""
    probabilities, shifts = [], []
    for seed in range(12):
        comparison = compare(sample(CUBIC, size=3000, spots=12, seed=100 + seed).fit())
        probabilities.append(comparison.probability)
        shifts.append(comparison.shift)
    assert np.abs(np.mean(shifts)) < 0.7
    assert 0.55 < np.std(shifts) < 1.5
    assert 0.2 < np.mean(probabilities) < 0.8
    assert np.sum(np.array(probabilities) < 0.01) <= 1


def test_each_part_can_be_switched_off(cubic, context):
    result = cubic.fit(dispersion=False, internal_strain=False, freeze=True, fit_centres=False)
    assert np.isfinite(result.spots.sigma_gradient).all()
    assert np.isnan(result.spots.sigma_strain).all()
    assert not result.spots.strain.any()
    # Without H the whole gradient is fitted, without centres they stay at the nodes.
    assert list(np.unique(result.spots.own)) == [5]
    one = cubic.fit(dispersion_terms=("T11_1111",), spot_gradient=False, freeze=True)
    assert one.dispersion.names == ["T11_1111"]
    assert list(np.unique(one.spots.own)) == [2 + 3 + 6]
    assert "INTERNAL STRAIN: H in Q + Hq, frame W\n" in fit_report(one, context)


def test_a_term_that_no_data_see_is_held_and_named(context):
    """With q in the plane xy no intensity depends on T23_1123, which is T_12,1233 too."""
    result = sample(CUBIC, flat=True).fit(fit_centres=False)
    assert result.converged
    assert list(np.array(result.dispersion.names)[result.dispersion.held]) == ["T23_1123"]
    assert result.dispersion.value[result.dispersion.held] == 0
    assert np.isnan(result.dispersion.sigma[result.dispersion.held])
    assert np.isfinite(result.dispersion.sigma[~result.dispersion.held]).all()
    warnings = result_warnings(result, context)
    assert any(w.startswith("T23_1123 is held at 0: the data do not determine it") for w in warnings)
    assert "T23_1123  " in fit_report(result, context)


def test_spots_with_few_points_keep_gradient_and_strain_at_zero(context):
    sizes = np.full(16, 6000)
    sizes[3] = 40
    result = sample(CUBIC, own=1.0, size=sizes, seed=9).fit()
    assert result.converged
    assert list(np.flatnonzero(np.isnan(result.spots.sigma_strain).all(axis=1))) == [3]
    assert not result.spots.strain[3].any()
    assert any("internal strain of" in w and "is held at 0" in w for w in result_warnings(result, context))


def test_both_forms_are_tried_where_a_mode_gets_soft(context):
    """Counts of the expansion, with T three times Γ at the outer radius: no (Γ + T)⁻¹ makes them."""
    structure, random = dispersion_structure(CUBIC), np.random.default_rng(2)
    q = random.normal(size=(200, 3))
    gamma = christoffel(tensor_structure(CUBIC).tensor(TRUTH[CUBIC]), q)
    softer = -3 * gamma * (q**2).sum(axis=1)[:, None, None] / Q_MAX**2
    columns = np.stack([quartic(term, q).ravel() for term in structure.basis], axis=1)
    terms = np.linalg.lstsq(columns, softer.ravel(), rcond=None)[0]
    result = sample(CUBIC, terms=terms, expanded=True, spots=12).fit(
        freeze=True, spot_gradient=False, internal_strain=False
    )
    assert result.dispersion.expanded
    assert result.dispersion.gain > 0
    assert any("the expansion to first order in T is kept" in note for note in result_notes(result, context))
    assert np.all(np.abs(result.values - TRUTH[CUBIC])[1:] < 5 * result.errors.largest[1:])


def test_strain_along_g_is_the_gradient_along_g():
    """To first order in q/G one column is the other; what is fitted is orthogonal to it."""
    node = np.array([0.3, -0.4, 0.5])
    h = np.outer(node, node) / (node @ node)
    voigt = np.array([h[0, 0], h[1, 1], h[2, 2], h[1, 2], h[0, 2], h[0, 1]])
    q = 1e-5 * np.random.default_rng(1).normal(size=(50, 3))
    tensor = tensor_structure(TRIGONAL).tensor(TRUTH[TRIGONAL])
    columns = Columns(np.zeros((0, 6, 6)), gradient=True, strain=True)
    c = model_columns(q, node, tensor, quantum_sum(tensor, Q_MAX, 300.0, 2.71, 1e-10), columns)
    along_gradient, along_strain = c[:, :3] @ node / (node @ node), c[:, 3:9] @ voigt
    assert np.allclose(along_gradient, along_strain, atol=1e-3 * np.abs(along_strain).max())
    twice = np.array([1.0, 1, 1, 2, 2, 2])
    directions = strain_directions(node[None], columns)[0]
    assert np.allclose(directions @ (twice * voigt), 0, atol=1e-12)
    assert np.allclose(directions @ np.diag(twice) @ directions.T, np.eye(5), atol=1e-12)


@pytest.mark.parametrize("spot_gradient", [True, False])
def test_elimination_is_the_joint_solution(spot_gradient):
    """Steps, σ and decrease against one dense least-squares problem with all parameters of all spots."""
    made = sample(TRIGONAL, size=900, spots=5, own=0.5, seed=3)
    points, structure, terms = made.data.points, tensor_structure(TRIGONAL), dispersion_structure(TRIGONAL)
    some = terms.selected(terms.names[:4])
    truth = TRUTH[TRIGONAL]
    constants = Constants(structure, 1.02 * truth, np.full(6, -np.inf), np.full(6, np.inf))
    spot_terms = SpotTerms(centre=True, slope=True, gradient=spot_gradient, strain=True)
    common = Common(constants, Scale.HELD, terms=spot_terms, dispersion=some)
    columns, own = common.columns, Own.of(common.columns)
    random = np.random.default_rng(6)
    values = dataclasses.replace(common.start, dispersion=1e3 * random.normal(size=4))
    directions = strain_directions(points.nodes, columns)
    state = common.placed(
        State(
            np.eye(6),
            random.uniform(1.0, 2.0, 5),
            random.uniform(5.0, 10.0, 5),
            slope=random.normal(size=(5, 3)),
            offset=1e-4 * random.normal(size=(5, 3)),
            gradient=random.normal(size=(5, 3)) if spot_gradient else None,
            strain=np.einsum("bj,bji->bi", 0.1 * random.normal(size=directions.shape[:2]), directions),
        ),
        values,
    )
    sums = NumpyEngine(points, columns, CONDITIONS).evaluate(state)
    system = eliminate(sums, state, columns, common.transform(values), strains=directions)
    step = np.linalg.solve(system.hessian, system.score)

    k, quantum = len(common.names), quantum_sum(state.tensor, Q_MAX, 300.0, 2.71, 1e-12, state.dispersion)
    rows, targets = [], []
    for blob, node in enumerate(points.nodes):
        [piece] = points.pieces(blob)
        q = piece.q - state.offset[blob]
        c = model_columns(q, node, state.tensor, quantum, columns, beyond=NextOrder.of(state, blob))
        signal, f = columns.signal, state.factor[blob]
        mean = piece.correction * (f * c[:, signal] + state.baseline[blob] + q @ state.slope[blob])
        weight, residual, *_ = counting_terms(piece.counts, mean, points.floors[blob], 0.0)
        block = np.zeros((len(q), k + 5 * own.count))
        # Column 5 is ln s, which the fit has no parameter for while the scale is held.
        block[:, :k] = f * np.delete(c[:, : k + 1], k, axis=1)
        place = c[:, k + 1 :]
        mine = [c[:, [signal]], np.ones((len(q), 1)), q, f * place[:, :3]]
        if spot_gradient:
            mine.append(f * place[:, 3:6])
        start = 3 + 3 * spot_gradient
        mine.append(f * place[:, start : start + 6] @ directions[blob].T)
        block[:, k + blob * own.count : k + (blob + 1) * own.count] = np.concatenate(mine, axis=1)
        root = np.sqrt(weight)
        rows.append(block * (piece.correction * root)[:, None])
        targets.append(residual * root)
    matrix, target = np.concatenate(rows), np.concatenate(targets)
    unit = np.linalg.norm(matrix, axis=0)
    joint = np.linalg.lstsq(matrix / unit, target, rcond=None)[0] / unit
    sigma = np.sqrt(np.diag(np.linalg.inv((matrix / unit).T @ (matrix / unit)))) / unit
    assert np.all(np.abs(step - joint[:k]) < 1e-5 * sigma[:k])
    assert np.allclose(np.sqrt(np.diag(np.linalg.inv(system.hessian))), sigma[:k], rtol=1e-5)
    assert np.all(np.abs(system.spot_step(step).ravel() - joint[k:]) < 1e-4 * sigma[k:])
    decrease = system.linear_decrease.sum() + step @ system.score
    assert decrease == pytest.approx(target @ target - np.sum((target - matrix @ joint) ** 2), rel=1e-6)


def test_a_free_scale_has_its_own_column():
    """ln s moves constants and dispersion together: steps with a free scale are those of a known one."""
    made = sample(CUBIC, size=900, spots=6, own=0.5, seed=8)
    truth, structure = TRUTH[CUBIC], tensor_structure(CUBIC)
    hessians = []
    for scale in (Scale.FREE, Scale.KNOWN):
        constants = Constants(structure, 1.02 * truth, np.full(3, -np.inf), np.full(3, np.inf))
        spot_terms = SpotTerms(gradient=True)
        common = Common(constants, scale, terms=spot_terms, dispersion=dispersion_structure(CUBIC))
        values = dataclasses.replace(common.start, dispersion=np.full(6, 2e3))
        state = common.placed(State(np.eye(6), np.ones(6), np.ones(6), gradient=np.ones((6, 3))), values)
        sums = NumpyEngine(made.data.points, common.columns, Conditions(30.0, 2.71)).evaluate(state)
        hessians.append(eliminate(sums, state, common.columns, common.transform(values)).hessian)
    unit = 1 / np.sqrt(np.diag(hessians[1]))
    assert np.allclose(hessians[0] * np.outer(unit, unit), hessians[1] * np.outer(unit, unit), atol=1e-9)


def test_results_are_written_and_read(found, cubic, context, tmp_path):
    context = dataclasses.replace(context, group=CUBIC, model="next-order")
    path, text = tmp_path / "tds2el_fit.h5", tmp_path / "parametri.txt"
    write_fit_file(path, found, context, None, cubic.data.points)
    table, comparison = read_fit_file(path).next_order, compare(found)
    assert table.dispersion.names == found.dispersion.names
    assert np.array_equal(table.dispersion.value, found.dispersion.value)
    assert np.array_equal(table.gradient, found.spots.gradient)
    assert np.array_equal(table.sigma_strain, found.spots.sigma_strain)
    assert np.array_equal(table.comparison.shift, comparison.shift)
    assert table.comparison.biased
    with h5py.File(path) as file:
        assert file["entry/next_order/comparison"].attrs["biased"]
    write_parametri(text, found, context)
    assert [a.name for a in read_parfile(text).assignments] == found.constants.names
    lines = text.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("#  T11_1111") for line in lines)
    assert sum("shift" in line for line in lines) >= 3


def test_minimum_is_the_same_in_numpy_and_on_the_device(cubic):
    """Double precision and single."""
    made = sample(CUBIC, terms=cubic.terms, own=1.0, size=600, seed=12)
    single, double = (made.fit(freeze=True, device=device) for device in ("CPU", "numpy"))
    sigma = double.errors.largest
    assert np.all(np.abs(single.values - double.values)[1:] < 0.02 * sigma[1:])
    assert np.array_equal(single.dispersion.held, double.dispersion.held)
    free = ~double.dispersion.held
    apart = np.abs(single.dispersion.value - double.dispersion.value)[free]
    assert np.all(apart < 0.02 * double.dispersion.sigma[free])
    assert np.allclose(single.spots.gradient, double.spots.gradient, atol=0.02 * np.nanmax(double.spots.sigma_gradient))


def test_a_minimiser_without_terms_has_none():
    """The elastic fit's columns are what they were."""
    points = sample(CUBIC, size=200).data.points
    constants = Constants(tensor_structure(CUBIC), TRUTH[CUBIC], np.full(3, -np.inf), np.full(3, np.inf))
    common = Common(constants, Scale.HELD, terms=SpotTerms(centre=True))
    engine = NumpyEngine(points, common.columns, CONDITIONS)
    minimum = Minimiser(engine, points, common, CONDITIONS).run()
    assert minimum.state.gradient is None
    assert minimum.state.dispersion is None
    assert common.columns.count == 2 + 1 + 3 + 3
