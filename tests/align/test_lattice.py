"""The Fourier method, reduction, and the conventional cell of all Bravais lattices."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds2el.align.bravais import conventional, lattice_group, lattice_rotations
from tds2el.align.index import fit_basis, index
from tds2el.align.lattice import _primitive, find_basis, hemisphere, likely_longest, reduced
from tds2el.align.points import Places, goniometer_q
from tds2el.align.search import LEAST
from tds2el.crystal.cell import Cell, cell_from_metric
from tds2el.crystal.centring import allowed

TRANSLATIONS = {
    "P": [], "A": [[0, 1 / 2, 1 / 2]], "B": [[1 / 2, 0, 1 / 2]], "C": [[1 / 2, 1 / 2, 0]], "I": [[1 / 2, 1 / 2, 1 / 2]],
    "F": [[0, 1 / 2, 1 / 2], [1 / 2, 0, 1 / 2]], "R": [[2 / 3, 1 / 3, 1 / 3]],
}  # fmt: skip
LATTICES = [
    ("cubic", "P", (5.4, 5.4, 5.4, 90, 90, 90), 24),
    ("cubic", "I", (5.4, 5.4, 5.4, 90, 90, 90), 24),
    ("cubic", "F", (5.4, 5.4, 5.4, 90, 90, 90), 24),
    ("tetragonal", "P", (5, 5, 8, 90, 90, 90), 8),
    ("tetragonal", "P", (8, 8, 5, 90, 90, 90), 8),
    ("tetragonal", "I", (5, 5, 8, 90, 90, 90), 8),
    ("tetragonal", "I", (8, 8, 5, 90, 90, 90), 8),
    ("orthorhombic", "P", (5, 6, 8, 90, 90, 90), 4),
    ("orthorhombic", "C", (5, 6, 8, 90, 90, 90), 4),
    ("orthorhombic", "I", (5, 6, 8, 90, 90, 90), 4),
    ("orthorhombic", "F", (5, 6, 8, 90, 90, 90), 4),
    ("monoclinic", "P", (5, 6, 8, 90, 105, 90), 2),
    ("monoclinic", "C", (9, 6, 5, 90, 95, 90), 2),
    ("hexagonal", "P", (5, 5, 8, 90, 90, 120), 12),
    ("trigonal", "R", (4.99, 4.99, 17.06, 90, 90, 120), 6),
    ("trigonal", "R", (8, 8, 5, 90, 90, 120), 6),
    ("triclinic", "P", (5, 6, 7, 92, 95, 100), 1),
]


def primitive(cell: Cell, letter: str, seed: int = 1) -> np.ndarray:
    """A primitive basis, turned at random and written with other vectors than the shortest."""
    translations = TRANSLATIONS[letter]
    vectors = np.eye(3)
    for translation in translations:  # each replaces the basis vector that it has most of
        place = {"A": 1, "B": 2, "C": 0, "I": 0, "F": int(translation[0] > 0), "R": 2}[letter]
        vectors[place] = translation
    basis = vectors @ cell.A @ Rotation.random(random_state=seed).as_matrix()
    assert abs(np.linalg.det(vectors)) == pytest.approx(1 / {"P": 1, "R": 3, "F": 4}.get(letter, 2))
    return np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]]) @ basis


def test_directions_cover_the_hemisphere_evenly():
    spacing = 0.05
    directions = hemisphere(spacing)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)
    random = Rotation.random(500, random_state=2).as_matrix()[:, 0]
    nearest = np.abs(random @ directions.T).max(axis=1)
    assert np.arccos(nearest).max() < spacing


@pytest.mark.parametrize(("system", "letter", "cell", "order"), LATTICES)
@pytest.mark.parametrize("noise", [1e-9, 1e-3])
def test_conventional_cells(system, letter, cell, order, noise):
    random = np.random.default_rng(3)
    basis = primitive(Cell(*cell), letter) * (1 + noise * random.normal(size=(3, 3)))
    found = conventional(reduced(basis))
    assert (found.system, found.letter) == (system, letter)
    assert np.linalg.det(found.basis) > 0
    np.testing.assert_allclose(cell_from_metric(found.basis @ found.basis.T).parameters, cell, rtol=1e-2)
    # The same lattice: nodes of the one are the allowed nodes of the other.
    hkl = random.integers(-5, 6, (200, 3)) @ np.linalg.inv(basis).T @ found.basis.T
    assert np.abs(hkl - np.rint(hkl)).max() < 1e-6
    assert allowed(np.rint(hkl), letter).all()
    group = lattice_group(cell_from_metric(found.basis @ found.basis.T), letter, exact=False)
    assert (group.system, len(group.operations)) == (system, order)
    np.testing.assert_allclose(group.operations @ group.operations.transpose(0, 2, 1), [np.eye(3)] * order, atol=1e-9)


@pytest.mark.parametrize("letter", "AB")
def test_one_face_is_centred_at_c(letter):
    found = conventional(reduced(primitive(Cell(5, 6, 8, 90, 90, 90), letter)))
    edges = sorted([5, 6, 8][n] for n in range(3) if n != "ABC".index(letter))
    assert found.letter == "C"
    assert cell_from_metric(found.basis @ found.basis.T).parameters[:2] == pytest.approx(edges)


def test_nearly_is_told_from_exactly():
    cell = Cell(5.475312, 8.210654, 12.158448, 89.895503, 90.048331, 90.002065)
    assert len(lattice_rotations(cell.metric, "P", 1e-4, 1e-4)) == 1
    assert len(lattice_rotations(cell.metric, "P", 0.01, 0.5)) == 4


def test_a_cell_that_is_too_large_is_found_out():
    """Rows of the basis doubled: all h are even, which half the vector mends."""
    random = np.random.default_rng(1)
    basis = primitive(Cell(5, 6, 7, 92, 95, 100), "P")
    q = random.integers(-5, 6, (300, 3)) @ np.linalg.inv(basis).T
    for large in (np.array([[2, 0, 0], [1, 1, 0], [0, 0, 1]]), np.array([[1, 0, 0], [0, 1, 0], [1, 2, 3]])):
        mended = _primitive(large @ basis, q)
        assert abs(np.linalg.det(mended)) == pytest.approx(abs(np.linalg.det(basis)))
        hkl = q @ mended.T
        assert np.allclose(hkl, np.rint(hkl))


@pytest.mark.parametrize(
    ("cell", "centring", "share"),
    [
        ((5.4, 6.3, 7.7, 83, 97, 102), None, 1.0),
        ((4.99, 4.99, 17.06, 90, 90, 120), "R", 1.0),
        ((5.4, 5.4, 5.4, 90, 90, 90), "F", 1.0),
        ((7, 11, 23, 90, 99, 90), "C", 0.3),
    ],
)
def test_lattices_are_found_in_rough_geometry(make_table, rough, cell, centring, share):
    """Every true node is a node of the lattice found, and not of a smaller cell's: the determinants agree."""
    maxima, truth = make_table(Cell(*cell), centring, share=share)
    q = goniometer_q(rough, Places.of(maxima))
    basis, explained = find_basis(q, likely_longest(q))
    assert explained > 0.85
    volume = np.linalg.det(Cell(*cell).A) / {None: 1, "R": 3, "F": 4, "C": 2}[centring]
    assert np.linalg.det(basis) == pytest.approx(volume, rel=0.03)
    basis = fit_basis(basis, q)
    hkl, indexed = index(basis, q, None, 0.25)
    true = truth.hkl.any(axis=1)
    assert indexed[true].mean() > 0.97
    change = np.linalg.lstsq(truth.hkl[true & indexed], hkl[true & indexed], rcond=None)[0]
    right = (np.rint(truth.hkl @ change) == hkl).all(axis=1)
    assert right[true].mean() > 0.97


def test_points_at_random_have_no_lattice():
    """What is found in them explains about as much as chance does."""
    _, explained = find_basis(np.random.default_rng(1).normal(scale=0.4, size=(300, 3)), 20.0)
    assert explained < LEAST
