"""Nodes, structure factors and the choice of spots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed_nodes
from tds2el.crystal.symmetry import point_group
from tds2el.simulate.crystal import observable, squared_structure_factors
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import load_scan

CALCITE = Cell(4.990, 4.990, 17.061, 90.0, 90.0, 120.0)


def test_nodes_fill_the_sphere_as_densely_as_the_lattice() -> None:
    hkl = allowed_nodes(CALCITE, "R", 1.2)
    length = np.linalg.norm(hkl @ CALCITE.B.T, axis=1)
    assert length.min() > 0
    assert length.max() <= 1.2
    density = np.linalg.det(CALCITE.A) / 3
    assert len(hkl) == pytest.approx(4 / 3 * np.pi * 1.2**3 * density, rel=0.02)
    assert len(np.unique(hkl, axis=0)) == len(hkl)


@pytest.mark.parametrize(
    ("generators", "equivalent", "different"),
    [
        # The two-fold axis along b turns hkl into khl̄; Friedel's law adds the inverse.
        (
            "1~,3(z),2(y)",
            [(3, 1, 4), (1, -4, 4), (-4, 3, 4), (1, 3, -4), (-3, -1, -4), (-1, -3, 4)],
            [(1, 3, 4), (3, 1, -4)],
        ),
        # An acentric group has a centric Laue group.
        ("3(z)", [(3, 1, 4), (1, -4, 4), (-4, 3, 4), (-3, -1, -4)], [(1, 3, -4), (1, 3, 4)]),
        ("2(z),4(z),2(x)", [(3, 1, 4), (-1, 3, 4), (3, -1, 4), (1, 3, 4), (3, 1, -4)], [(4, 1, 3)]),
    ],
)
def test_structure_factors_have_the_laue_symmetry(
    generators: str, equivalent: list[tuple[int, int, int]], different: list[tuple[int, int, int]]
) -> None:
    cell = Cell(5.0, 5.0, 8.0, 90.0, 90.0, 90.0) if "4" in generators else CALCITE
    group = point_group(generators, cell, "P")
    structure = squared_structure_factors(np.array([*equivalent, *different]), group, 3, 1.0)
    same = np.isclose(structure, structure[0], rtol=1e-12)
    np.testing.assert_array_equal(same, [True] * len(equivalent) + [False] * len(different))


def test_structure_factors_do_not_depend_on_the_list() -> None:
    group = point_group("1~,3(z),2(y)", CALCITE, "R")
    hkl = allowed_nodes(CALCITE, "R", 1.0)
    structure = squared_structure_factors(hkl, group, 3, 0.0)
    np.testing.assert_array_equal(squared_structure_factors(hkl[5:9], group, 3, 0.0), structure[5:9])
    assert not np.allclose(squared_structure_factors(hkl[5:9], group, 4, 0.0), structure[5:9])


def test_structure_factors_follow_wilson_and_decay() -> None:
    group = point_group("1~", CALCITE, "P")
    hkl = allowed_nodes(CALCITE, "P", 1.5)
    structure = squared_structure_factors(hkl, group, 1, 0.0)
    independent = structure[: len(hkl) // 2]  # ascending hkl: the other half are Friedel's mates
    assert len(independent) > 1000
    assert independent.mean() == pytest.approx(1, abs=0.1)
    assert np.mean(independent > 1) == pytest.approx(np.exp(-1), abs=0.05)
    length2 = np.sum((hkl @ CALCITE.B.T) ** 2, axis=1)
    decayed = squared_structure_factors(hkl, group, 1, 2.0)
    np.testing.assert_allclose(decayed, structure * np.exp(-length2), rtol=1e-12)


def test_observable_nodes_are_on_the_detector_and_passed_as_a_whole(scan_file: Path) -> None:
    scan = replace(load_scan(scan_file), n_frames=120)
    virtual = VirtualScan(scan)
    ball = 0.03
    nodes = virtual.hkl @ virtual.group.cell.B.T
    seen = observable(nodes, virtual.geometry, scan.shape, scan.n_frames, ball)
    assert 3 < seen.sum() < len(nodes) / 4
    row, column = (index.astype(float) for index in np.mgrid[-20:81, -20:67])
    outside = (row < 0) | (row >= scan.shape[0]) | (column < 0) | (column >= scan.shape[1])
    inside_by_frame = []
    for frame in range(scan.n_frames):
        Q = virtual.geometry.q_crystal(row, column, virtual.geometry.phi(frame))
        near = np.linalg.norm(Q[None] - nodes[seen][:, None, None], axis=-1) < ball
        assert not (near & outside).any()
        inside_by_frame.append(near.any(axis=(1, 2)))
    inside = np.array(inside_by_frame)
    assert not inside[0].any()
    assert not inside[-1].any()
    assert inside.any(axis=0).all()


def test_auto_spots_are_bright_and_spread(scan_file: Path) -> None:
    virtual = VirtualScan(replace(load_scan(scan_file), n_frames=150, n_spots=5))
    nodes = virtual.spots @ virtual.group.cell.B.T
    units = nodes / np.linalg.norm(nodes, axis=1, keepdims=True)
    assert len(nodes) == 5
    cosines = np.abs(units @ units.T)[~np.eye(5, dtype=bool)]
    assert cosines.max() < np.cos(np.deg2rad(10))
    assert set(map(tuple, virtual.spots.tolist())) <= set(map(tuple, virtual.hkl.tolist()))
