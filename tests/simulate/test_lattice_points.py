"""Points from a spring lattice: where they are, what they count, and what the elastic fit makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from tds2el.crystal.cell import longest_reciprocal
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.experiment.geometry import Geometry
from tds2el.fit.common import Common
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Constants, Scale
from tds2el.model.engine import Conditions
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.simulate.lattice.examples import EXAMPLES
from tds2el.simulate.lattice.points import (
    BASELINE,
    HALO,
    points_of,
    shells_all_round,
    shells_of_scan,
    strong_reflections,
)
from tds2el.simulate.lattice.scattering import Scatterer
from tds2el.simulate.options import load_scan


def test_shells_all_round_are_even_in_volume() -> None:
    shell = shells_all_round(3, 4096, 0.01, 0.03)[2]
    length = np.linalg.norm(shell.q, axis=1)
    assert length.min() >= 0.01
    assert length.max() <= 0.03
    assert np.mean(length < 0.02) == pytest.approx((0.02**3 - 0.01**3) / (0.03**3 - 0.01**3), abs=1e-3)
    np.testing.assert_array_equal(shell.q[:2048], -shell.q[2048:])
    unit = shell.q / length[:, None]
    np.testing.assert_allclose(unit.T @ unit / len(unit), np.eye(3) / 3, atol=2e-3)


def test_counts_are_those_of_the_intensity() -> None:
    scatterer = Scatterer(EXAMPLES["rock salt"](), 300.0)
    nodes = np.array([[2, 2, 0], [4, 2, 0]]) @ scatterer.lattice.cell.B.T
    shells = shells_all_round(2, 64, 0.01, 0.03)
    points = points_of(scatterer, nodes, shells)
    halos = []
    for blob in range(2):
        (piece,) = points.pieces(blob, 10, 50)
        np.testing.assert_array_equal(piece.q, shells[blob].q[10:50])
        halos.append(piece.counts - BASELINE)
        expected = scatterer.one_phonon(piece.q, nodes[blob])
        np.testing.assert_allclose(halos[blob] / halos[blob][0], expected / expected[0], rtol=1e-12)
        np.testing.assert_allclose(halos[blob] / expected, halos[0] / scatterer.one_phonon(piece.q, nodes[0]))
    assert points.mean_counts.max() == pytest.approx(HALO + BASELINE)


def test_reflections_are_strong_and_apart() -> None:
    scatterer = Scatterer(EXAMPLES["rock salt"](), 300.0)
    hkl = strong_reflections(scatterer, 1.6, 12)
    assert not (hkl % 2).any()  # f_Mg + f_O, not their difference
    nodes = hkl / np.linalg.norm(hkl, axis=1, keepdims=True)
    assert np.abs(nodes @ nodes.T - np.eye(len(nodes))).max() < np.cos(np.deg2rad(10))
    assert np.linalg.norm(hkl, axis=1).max() <= 1.6 * 4.212


def test_shells_of_a_scan_are_all_its_pixels(scan_file) -> None:
    scan = load_scan(scan_file)
    geometry, number = Geometry(scan.experiment), scan.n_frames
    q_min, q_max = 0.012, 0.035
    nodes = np.array([[-2, 3, -2], [2, -2, -2], [-2, 3, 1]]) @ scan.cell.B.T
    rows, columns = np.mgrid[: scan.shape[0], : scan.shape[1]].astype(float)
    shells = shells_of_scan(geometry, nodes, scan.shape, number, q_min, q_max, 10**9)
    few = shells_of_scan(geometry, nodes, scan.shape, number, q_min, q_max, 20)
    for node, shell, part in zip(nodes, shells, few, strict=True):
        q = np.array([geometry.q_crystal(rows, columns, geometry.phi(n)) for n in range(number)]) - node
        length = np.linalg.norm(q, axis=-1)
        within = (length >= q_min) & (length <= q_max)
        kappa = np.broadcast_to(geometry.polarisation(rows, columns) * geometry.solid_angle(rows, columns), q.shape[:3])
        expected = np.column_stack([q[within], kappa[within]])
        found = np.column_stack([shell.q, shell.correction])
        assert len(found) == len(expected) > 40
        np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-12)
        assert len(part.q) == 20
    with pytest.raises(ValueError, match="once"):
        shells_of_scan(geometry, np.array([[9.0, 0, 0]]), scan.shape, number, q_min, q_max, 20)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_elastic_fit_tends_to_the_springs(name: str) -> None:
    """In shells of a tenth of the usual size no constant is 0.05 % wrong, and halved again, by a quarter of that."""
    scatterer = Scatterer(EXAMPLES[name](), 300.0)
    lattice = scatterer.lattice
    structure = tensor_structure(point_group(lattice.point_group, lattice.cell, lattice.space_group))
    truth = structure.constants(lattice.tensor)
    nodes = strong_reflections(scatterer, 1.2, 8) @ lattice.cell.B.T
    conditions = Conditions(300.0, lattice.density)
    worst = []
    for reach in (0.015, 0.0075):
        q_max = reach * longest_reciprocal(lattice.cell)
        points = points_of(scatterer, nodes, shells_all_round(len(nodes), 64, q_max / 4, q_max))
        free = np.full(len(truth), np.inf)
        common = Common(Constants(structure, truth, -free, free), Scale.HELD)
        engine = NumpyEngine(points, common.columns, conditions)
        minimum = Minimiser(engine, points, common, conditions, ftol=1e-11).run()
        assert minimum.converged
        worst.append(np.abs(minimum.values.constants / truth - 1).max())
    assert worst[0] < 5e-4
    assert worst[0] / worst[1] == pytest.approx(4, rel=0.25)
