"""The invariants of the quartic dispersion against character theory and the definition of a turned tensor."""

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.dispersion import PAIRS, QUARTICS, dispersion_structure
from tds2el.crystal.symmetry import point_group
from tds2el.errors import InputError

from .test_symmetry import CUBIC, HEXAGONAL, POINT_GROUPS


def quartic(coefficients, q):
    """T(q), (3, 3), written out."""
    t = np.zeros((3, 3))
    for (i, k), row in zip(PAIRS, coefficients, strict=True):
        t[i, k] = t[k, i] = sum(c * np.prod(q[list(lmnp)]) for c, lmnp in zip(row, QUARTICS, strict=True))
    return t


def invariants(operations):
    """Number of invariants by characters: of the symmetric square, and of the symmetric fourth power, of a vector."""
    total = 0.0
    for r in operations:
        p1, p2, p3, p4 = (np.trace(np.linalg.matrix_power(r, n)) for n in (1, 2, 3, 4))
        fourth = (p1**4 + 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 + 6 * p4) / 24
        total += (p1**2 + p2) / 2 * fourth
    return total / len(operations)


@pytest.mark.parametrize("case", POINT_GROUPS, ids=lambda case: case[0])
def test_coefficients_are_as_many_as_character_theory_says_and_invariant(case):
    group = point_group(case[0], case[2], None)
    structure = dispersion_structure(group)
    assert len(structure.names) == pytest.approx(invariants(group.operations))
    random = np.random.default_rng(1)
    coefficients = structure.coefficients(random.normal(size=len(structure.names)))
    q = random.normal(size=3)
    for r in group.operations:
        assert np.allclose(quartic(coefficients, r @ q), r @ quartic(coefficients, q) @ r.T, atol=1e-9)


def test_known_numbers():
    cubic = dispersion_structure(point_group("m-3m", CUBIC, None))
    assert cubic.names == ["T11_1111", "T11_2222", "T11_1122", "T11_2233", "T23_2223", "T23_1123"]
    assert len(dispersion_structure(point_group("1~,3(z),2(y)", HEXAGONAL, None)).names) == 18


def test_a_name_is_the_entry_of_the_tensor():
    """T_11(q) has 6 T_11,1122 q1² q2², T_23(q) has 4 T_23,2223 q2³ q3."""
    structure = dispersion_structure(point_group("m-3m", CUBIC, None))
    one = dict(zip(structure.names, structure.basis, strict=True))
    assert one["T11_1111"][0, 0] == 1
    assert one["T11_1122"][0, QUARTICS.index((0, 0, 1, 1))] == 6
    assert one["T23_2223"][3, QUARTICS.index((1, 1, 1, 2))] == 4


def test_many_terms_must_be_chosen():
    structure = dispersion_structure(point_group("1~", Cell(5, 6, 7, 85, 95, 100), None))
    assert len(structure.names) == 90
    with pytest.raises(InputError, match=r"has 90 terms of dispersion.*dispersion_terms; a run without CGUESS"):
        structure.selected(None)
    chosen = structure.selected(["T22_2222", "T11_1111"])
    assert chosen.names == ["T11_1111", "T22_2222"]
    assert chosen.coefficients([0.0, 3.0])[1, 1] == 3
    with pytest.raises(InputError, match=r"dispersion_terms: T99_1 not free.*T11_1111, T11_2222.*lists all"):
        structure.selected(["T99_1"])
    with pytest.raises(InputError, match="has 31 terms: give at most 30"):
        structure.selected(structure.names[:31])
