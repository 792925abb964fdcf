"""Halos of neighbouring nodes: a crowded cell is fitted right with them, wrong without, and their factors stay ≥ 0."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import constants

from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed_nodes
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.fit.data import FitData
from tds2el.fit.fit import fit
from tds2el.fit.neighbours import MOST, crowded, neighbours
from tds2el.fit.parameters import Constants
from tds2el.model.engine import Piece, Points
from tds2el.settings import FitSettings

CELL = Cell(5, 9, 20, 90, 90, 90)
GROUP = point_group("mmm", CELL, None)
STRUCTURE = tensor_structure(GROUP)
TRUTH = np.array([100.0, 80, 120, 30, 25, 35, 40, 45, 50])
Q_MIN, Q_MAX = 0.04 / 5, 0.15 / 5
SETTINGS = FitSettings(
    CGUESS=None, doMinimisation=True, nred=1, ftol=1e-5, scale="held", relative_error=0.0, device="CPU", REPLICA=False,
    A_variables=None, fit_centres=True, baseline="constant", model="elastic", dispersion=True, spot_gradient=True,
    internal_strain=True, dispersion_terms=None, background_scale="monitor", reject=None, spot_filter=None,
    known=None, expansion=None, heat_capacity=None, profile_likelihood=False, bootstrap=0,
)  # fmt: skip


def strength(q, node):
    """Σ_j (Q·e_j)² coth(ħω_j/2kT)/ω_j, up to a factor, from the modes of C_ijkl q_j q_l at 300 K."""
    voigt = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    full = STRUCTURE.tensor(TRUTH)[voigt[:, :, None, None], voigt[None, None]]
    stiffness, modes = np.linalg.eigh(np.einsum("ijkl,nj,nl->nik", full, q, q))
    x = constants.hbar * 2 * np.pi * np.sqrt(stiffness * 1e29 / 2.71e3) / (2 * constants.k * 300)
    return np.sum(np.einsum("ni,nij->nj", q + node, modes) ** 2 / stiffness * x / np.tanh(x), axis=1)


@pytest.fixture(scope="module")
def crowded_data() -> FitData:
    """Without noise; every node within 0.4 Å⁻¹ has a halo, with |F|² as in a random crystal (Wilson)."""
    random = np.random.default_rng(2)
    every = allowed_nodes(CELL, None, 1.5)
    squared = dict(zip(map(tuple, every.tolist()), random.exponential(size=len(every)), strict=True))
    bright = [hkl for hkl in every.tolist() if squared[tuple(hkl)] > 0.4 and 0.5 < np.linalg.norm(CELL.B @ hkl) < 1.0]
    hkl = np.array([bright[i] for i in random.choice(len(bright), 9, replace=False)])
    nodes, store = hkl @ CELL.B.T, []
    for spot, node in zip(hkl, nodes, strict=True):
        q = random.uniform(-Q_MAX, Q_MAX, (4000, 3))
        length = np.linalg.norm(q, axis=1)
        q = q[(length > Q_MIN) & (length < Q_MAX) & (np.abs(q[:, 2]) < 0.5 / 20)][:300]
        counts = np.zeros(len(q))
        for other in every[np.linalg.norm((every - spot) @ CELL.B.T, axis=1) < 0.4]:
            centre = CELL.B @ other
            counts += squared[tuple(other.tolist())] * strength(q + node - centre, centre)
        store.append((q, 300 * counts / counts.mean() + 30, np.ones(len(q))))

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        yield Piece(*(values[start:stop] for values in store[blob]))

    means = (np.array([values[column].mean() for values in store]) for column in (1, 2))
    sizes = np.array([len(values[0]) for values in store])
    nowhere = np.full((len(hkl), 3), np.nan)
    points = Points(nodes, sizes, *means, Q_MAX, pieces, Q_MIN)
    return FitData(points, np.arange(len(hkl)), hkl, np.zeros(len(hkl)), nowhere, nowhere)


def _fitted(data, others, **options):
    points = dataclasses.replace(data.points, neighbours=others)
    start = TRUTH * np.where(np.arange(9) % 2, 1.08, 0.94)
    start[0] = TRUTH[0]
    free = np.full(9, np.inf)
    settings = dataclasses.replace(SETTINGS, **options)
    found = fit(
        dataclasses.replace(data, points=points),
        Constants(STRUCTURE, start, -free, free),
        settings,
        temperature=300.0,
        density=2.71,
    )
    return found, np.abs(found.result.values / found.result.values[0] / (TRUTH / TRUTH[0]) - 1).max()


def test_a_crowded_cell_is_right_with_its_neighbours(crowded_data):
    assert crowded(crowded_data.hkl, CELL, "P", Q_MAX)
    others = neighbours(crowded_data.hkl, CELL, "P", Q_MAX)
    found, off = _fitted(crowded_data, others)
    assert others.shape[1] <= MOST
    assert found.result.converged
    assert len(found.result.iterations) < 15
    assert np.all(found.state.neighbours >= 0)
    assert off < 3e-3
    assert _fitted(crowded_data, None)[1] > 0.1


def test_nearest_neighbours_alone_take_most_of_it(crowded_data):
    """Those within three outer radii; what is farther is not quite a linear baseline."""
    others = neighbours(crowded_data.hkl, CELL, "P", 3 / 7 * Q_MAX)
    assert others.shape == (9, 2, 3)
    assert np.allclose(np.linalg.norm(others, axis=2), 1 / 20)
    assert _fitted(crowded_data, others)[1] < 0.04


def test_factors_are_the_best_that_are_not_negative(crowded_data):
    """Against scipy's nnls for each spot, at the constants of the fit and with counting weights."""
    from scipy.optimize import lsq_linear

    others = neighbours(crowded_data.hkl, CELL, "P", 5 / 7 * Q_MAX)
    found, _ = _fitted(crowded_data, others, fit_centres=False)
    assert (found.state.neighbours == 0).any()
    tensor, points = found.state.tensor, crowded_data.points
    for blob in range(4):
        piece = next(points.pieces(blob))
        node = points.nodes[blob]
        columns = [_classical(piece.q - a, node + a, tensor) for a in np.concatenate([np.zeros((1, 3)), others[blob]])]
        matrix = np.column_stack([*columns, np.ones(len(piece.q)), piece.q])
        lower = np.r_[0.0, np.zeros(len(others[blob])), -np.inf, -np.inf, -np.inf, -np.inf]
        size, weight = np.linalg.norm(matrix, axis=0), piece.counts**-0.5
        scaled = matrix / size * weight[:, None]
        best = lsq_linear(scaled, piece.counts * weight, (lower, np.inf), method="bvls", tol=1e-14)
        own = [found.state.factor[blob], *found.state.neighbours[blob], found.state.baseline[blob]]
        model = matrix @ np.r_[own, found.state.slope[blob]]
        chi2 = (((model - piece.counts) * weight) ** 2).sum()
        assert chi2 < 2 * best.cost * 1.05 + 1e-5


def _classical(q, node, tensor):
    from tds2el.model.engine import Columns
    from tds2el.model.numpy_engine import model_columns
    from tds2el.model.quantum import quantum_sum

    quantum = quantum_sum(tensor, 0.4, 300.0, 2.71, 1e-10)
    return model_columns(q, node, tensor, quantum, Columns(np.zeros((0, 6, 6))))[:, 0]


def test_direct_beam_and_absent_nodes_are_no_neighbours():
    cell = Cell(4, 4, 30, 90, 90, 90)
    found = neighbours(np.array([[0, 0, 2], [0, 0, 6]]), cell, "I", 0.02)
    indices = np.rint(found @ cell.A.T)
    assert sorted(indices[0, :, 2][~np.isnan(indices[0, :, 2])]) == [-4, 2, 4]
    assert sorted(indices[1, :, 2]) == [-4, -2, 2, 4]
    assert neighbours(np.array([[0, 0, 2]]), cell, "I", 0.005) is None


def test_counts_with_noise_converge_from_afar(crowded_data):
    """At few counts many factors are 0; the constants are right within their errors."""
    random, points = np.random.default_rng(6), crowded_data.points
    store = []
    for blob in range(len(points.nodes)):
        piece = next(points.pieces(blob))
        store.append((piece.q, random.poisson(0.2 * piece.counts).astype(float), np.full(len(piece.q), 0.2)))

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        yield Piece(*(values[start:stop] for values in store[blob]))

    means = {"mean_counts": 0.2 * points.mean_counts, "mean_correction": np.full(len(points.nodes), 0.2)}
    noisy = dataclasses.replace(crowded_data, points=dataclasses.replace(points, pieces=pieces, **means))
    others = neighbours(crowded_data.hkl, CELL, "P", 5 / 7 * Q_MAX)
    found, _ = _fitted(noisy, others)
    result = found.result
    assert result.converged
    assert len(result.iterations) < 40
    assert (found.state.neighbours == 0).mean() > 0.2
    pull = (result.values - TRUTH)[1:] / result.errors.largest[1:]
    assert np.abs(pull).max() < 4
