"""Orientations that look alike, their angles, and the search for one with a known cell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tds2el.align.bravais import lattice_group
from tds2el.align.match import direct_vectors, find_orientation
from tds2el.align.orientation import (
    angle_between,
    angles_of,
    describe_turn,
    equivalents,
    inequivalent,
    orientation_of,
    turn_of,
)
from tds2el.align.points import Places, goniometer_q
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed_nodes
from tds2el.crystal.symmetry import point_group

HEXAGONAL = Cell(4.91, 4.91, 5.40, 90, 90, 120)


@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(-180, 180))
def test_angles_of_an_orientation(r1, r2, r3):
    U = orientation_of(r1, r2, r3)
    np.testing.assert_allclose(orientation_of(*angles_of(U)), U, atol=1e-7)


def test_turns():
    U = orientation_of(10, 20, 30)
    axis = np.array([1, 2, 3]) / np.sqrt(14)
    turned = U @ Rotation.from_rotvec(np.deg2rad(37) * axis).as_matrix()
    assert angle_between(U, turned) == pytest.approx(37)
    angle, found = turn_of(U, turned)
    assert angle == pytest.approx(37)
    np.testing.assert_allclose(found, axis, atol=1e-9)


@pytest.mark.parametrize(
    ("cell", "letter", "number"),
    [(HEXAGONAL, "P", 12), (Cell(4.99, 4.99, 17.06, 90, 90, 120), "R", 6), (Cell(5, 6, 7, 90, 100, 90), "P", 2)],
)
def test_equivalents_have_the_same_nodes(cell, letter, number):
    U = orientation_of(10, 20, 30)
    found = equivalents(U, cell, lattice_group(cell, letter))
    assert len(found) == number
    nodes = allowed_nodes(cell, letter, 0.6)
    for one in found:
        hkl = nodes @ one.hkl_operation.T
        np.testing.assert_allclose(hkl @ cell.B.T @ one.U.T, nodes @ cell.B.T @ U.T, atol=1e-9)
        assert np.linalg.det(one.U) == pytest.approx(1)


@pytest.mark.parametrize(
    ("group", "cell", "others"),
    [
        ("321", HEXAGONAL, 1),  # quartz turned by 180°
        ("-3m1", HEXAGONAL, 1),
        ("-3", HEXAGONAL, 3),
        ("6/mmm", HEXAGONAL, 0),
        ("622", HEXAGONAL, 0),
        ("m-3", Cell(5, 5, 5, 90, 90, 90), 1),
        ("4/m", Cell(5, 5, 7, 90, 90, 90), 1),
        ("mmm", Cell(5, 6, 7, 90, 90, 90), 0),
    ],
)
def test_inequivalent_indexings(group, cell, others):
    """As many as cosets: the order of the lattice's rotations by that of the crystal's Laue group's."""
    found = equivalents(np.eye(3), cell, lattice_group(cell, "P"))
    assert len(inequivalent(found, point_group(group, cell, None))) == others


def test_a_turn_in_words():
    assert describe_turn(np.array([[-1, 0, 0], [0, -1, 0], [0, 0, 1]])) == "-h, -k, l"
    assert describe_turn(np.array([[0, 1, 0], [-1, -1, 0], [0, 0, 2]])) == "k, -h-k, 2l"


@pytest.mark.parametrize("letter", ["P", "A", "B", "C", "I", "F", "R"])
def test_direct_vectors_make_whole_numbers_with_all_nodes(letter):
    cell = Cell(5, 5, 8, 90, 90, 120)
    vectors = direct_vectors(cell, letter)
    product = allowed_nodes(cell, letter, 1.0) @ cell.B.T @ vectors.T
    assert np.abs(product - np.rint(product)).max() < 1e-9
    # They span the primitive cell.
    volume = np.linalg.det(cell.A) / {"P": 1, "F": 4, "R": 3}.get(letter, 2)
    short = vectors[:40]
    volumes = np.abs(np.einsum("ai,bi->ab", np.cross(short[:, None], short[None]).reshape(-1, 3), short))
    assert volumes[volumes > 1e-6].min() == pytest.approx(volume)


@pytest.mark.parametrize(
    ("cell", "centring", "frames", "share"),
    [
        ((5.4, 6.3, 7.7, 83, 97, 102), None, 360, 1.0),
        ((4.99, 4.99, 17.06, 90, 90, 120), "R", 360, 1.0),
        ((5.4, 5.4, 5.4, 90, 90, 90), "F", 360, 1.0),
        ((5.475, 8.21, 12.16, 90, 90, 90), "P", 15, 1.0),
        ((7, 11, 23, 90, 99, 90), "C", 180, 0.3),
    ],
)
def test_orientations_of_known_cells(make_table, rough, experiment, cell, centring, frames, share):
    """Nothing is told of the orientation; rhombohedral lattices come out obverse."""
    known = Cell(*cell)
    maxima, _ = make_table(known, centring, frames=frames, share=share)
    U, explained = find_orientation(goniometer_q(rough, Places.of(maxima)), known, centring)
    assert explained > 0.88
    true = orientation_of(experiment.r1, experiment.r2, experiment.r3)
    lattice = lattice_group(known, centring or "P")
    assert min(angle_between(one.U, true) for one in equivalents(U, known, lattice)) < 0.3
