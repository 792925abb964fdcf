import itertools

import gemmi
import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed, lattice_letter, nearest_allowed, neighbour_vectors
from tds2el.errors import InputError

NODES = np.array(list(itertools.product(range(-4, 5), repeat=3)))
SYMMORPHIC = {
    "P": "P 1",
    "A": "A 1 2 1",
    "B": "B 1 1 2",
    "C": "C 2 2 2",
    "I": "I m m m",
    "F": "F m -3 m",
    "R": "R -3 m:H",
}


@pytest.mark.parametrize("letter", SYMMORPHIC)
def test_centrings_against_gemmi(letter):
    operations = gemmi.find_spacegroup_by_name(SYMMORPHIC[letter]).operations()
    expected = [not operations.is_systematically_absent(node.tolist()) for node in NODES]
    np.testing.assert_array_equal(allowed(NODES, letter), expected)
    np.testing.assert_array_equal(allowed(NODES, letter.lower()), expected)
    np.testing.assert_array_equal(allowed(NODES, SYMMORPHIC[letter]), expected)


def test_glide_planes_and_screw_axes_count():
    rows = [[0, 0, 3], [0, 0, 6], [1, 0, 2], [1, 0, 4], [1, 0, 1], [0, 1, 2]]
    np.testing.assert_array_equal(allowed(rows, "R -3 c"), [False, True, False, True, False, True])
    np.testing.assert_array_equal(allowed(rows, "R"), [True, True, False, True, True, True])
    np.testing.assert_array_equal(allowed([[1, 0, 0], [2, 0, 0], [1, 1, 0]], "P 21 21 21"), [False, True, True])


def test_no_centring_allows_every_node():
    assert allowed(NODES, None).all()


def test_letter_of_the_lattice():
    names = ("R -3 c", "r", "R -3 c:R", "F m -3 m", "P 21/c", None)
    assert [lattice_letter(name) for name in names] == ["R", "R", "P", "F", "P", "P"]


@pytest.mark.parametrize("centring", ["X", "3", "P 7 m", "167", ""])
def test_unknown_centring(centring):
    for function in (lattice_letter, lambda name: allowed(NODES, name)):
        with pytest.raises(InputError, match="centring = "):
            function(centring)


@pytest.mark.parametrize(
    ("cell", "centring", "node", "radius"),
    [
        (Cell(5.1, 6.2, 7.3, 82.1, 104.5, 97.7), "P", (1, -2, 3), 0.45),
        (Cell(4.99, 4.99, 17.061, 90, 90, 120), "R", (1, 0, 4), 0.4),
        (Cell(4.99, 4.99, 17.061, 90, 90, 120), "R -3 c", (1, 0, 4), 0.4),
        (Cell(4.2, 4.2, 4.2, 90, 90, 90), "F", (2, 0, 0), 0.9),
        (Cell(5, 9, 20, 90, 90, 90), None, (0, 0, 0), 0.2),
        (Cell(9, 9, 9, 60, 60, 60), "P", (0, 1, 0), 0.3),
    ],
)
def test_neighbours_against_brute_force(cell, centring, node, radius):
    steps = np.array(list(itertools.product(range(-9, 10), repeat=3)))
    vectors = (cell.B @ steps.T).T
    near = (np.linalg.norm(vectors, axis=1) < radius) & steps.any(axis=1) & allowed(steps + node, centring)
    found = neighbour_vectors(node, cell, centring, radius)
    assert len(found) == near.sum() > 0
    assert {tuple(v) for v in found.round(9) + 0.0} == {tuple(v) for v in vectors[near].round(9) + 0.0}
    assert (np.diff(np.linalg.norm(found, axis=1)) > -1e-12).all()
    nearest, distance = nearest_allowed(node, cell, centring)
    assert distance == pytest.approx(np.linalg.norm(vectors[near], axis=1).min())
    assert np.linalg.norm(cell.B @ (nearest - node)) == pytest.approx(distance)
    assert allowed([nearest], centring).all()


def test_no_neighbour_within_a_small_radius():
    assert neighbour_vectors((1, 0, 4), Cell(4.99, 4.99, 17.061, 90, 90, 120), "R", 0.05).shape == (0, 3)
