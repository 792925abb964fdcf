import itertools

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.frames import rotate, standard_frame
from tds2el.crystal.moduli import (
    eigenvalues,
    is_stable,
    isotropic_start,
    universal_anisotropy,
    voigt_reuss_hill,
)
from tds2el.crystal.symmetry import point_group

CALCITE = Cell(4.99, 4.99, 17.061, 90, 90, 120)
#: Voigt pairs, from 0.
PAIRS = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]


def fourth_rank(c):
    full = np.zeros((3, 3, 3, 3))
    for (a, (i, j)), (b, (k, m)) in itertools.product(enumerate(PAIRS), repeat=2):
        full[i, j, k, m] = full[j, i, k, m] = full[i, j, m, k] = full[j, i, m, k] = c[a, b]
    return full


def rotated(c, axes):
    """The tensor in axes that are rows, by the definition of a tensor."""
    full = np.einsum("ia,jb,kc,ld,abcd->ijkl", axes, axes, axes, axes, fourth_rank(c))
    return np.array([[full[i, j, k, m] for k, m in PAIRS] for i, j in PAIRS])


def unit(v):
    return v / np.linalg.norm(v)


def frame(cell, x=None, y=None, z=None):
    """Rows x, y, z from two directions in terms of a, b, c and a*, b*, c*."""
    edges = {**dict(zip("abc", cell.A, strict=True)), **dict(zip(("a*", "b*", "c*"), cell.B.T, strict=True))}
    x, y, z = (None if name is None else unit(edges[name]) for name in (x, y, z))
    x = np.cross(y, z) if x is None else x
    y = np.cross(z, x) if y is None else y
    z = np.cross(x, y) if z is None else z
    return np.array([x, y, z])


def random_tensor(seed=5):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    return 10 * root @ root.T + 50 * np.eye(6)


# Group, cell, axes of P by definition, and in words.
STANDARD_FRAMES = [
    ("1~", Cell(5.1, 6.2, 7.3, 82.1, 104.5, 97.7), {"y": "b*", "z": "c"}, "x = y × z, y ∥ b*, z ∥ c"),
    ("1~,2(y)", Cell(7.3, 6.2, 5.1, 90, 104.5, 90), {"y": "b", "z": "c"}, "x ∥ a*, y ∥ b, z ∥ c"),
    ("1~,2(y)", Cell(5.1, 6.2, 7.3, 90, 104.5, 90), {"y": "b", "z": "a"}, "x ∥ −c*, y ∥ b, z ∥ a"),
    ("1~,2(z)", Cell(5.1, 6.2, 7.3, 90, 90, 104.5), {"y": "c", "z": "a"}, "x ∥ b*, y ∥ c, z ∥ a"),
    ("1~,2(x)", Cell(5.1, 6.2, 7.3, 104.5, 90, 90), {"y": "a", "z": "b"}, "x ∥ c*, y ∥ a, z ∥ b"),
    ("1~,2(z),2(y)", Cell(6.2, 7.3, 5.1, 90, 90, 90), {"x": "a", "y": "b"}, "x ∥ a, y ∥ b, z ∥ c"),
    ("1~,4(z)", Cell(5.1, 5.1, 7.3, 90, 90, 90), {"x": "a", "z": "c"}, "x ∥ a, y ∥ b, z ∥ c"),
    ("1~,3(z)", CALCITE, {"x": "a", "z": "c"}, "x ∥ a, y ∥ b*, z ∥ c"),
    ("1~,3(z),2(y)", CALCITE, {"x": "a", "z": "c"}, "x ∥ a, y ∥ b*, z ∥ c"),
    ("1~,6(z)", CALCITE, {"x": "a", "z": "c"}, "x ∥ a, y ∥ b*, z ∥ c"),
    ("m-3m", Cell(4.2, 4.2, 4.2, 90, 90, 90), {"x": "a", "z": "c"}, "x ∥ a, y ∥ b, z ∥ c"),
]


@pytest.mark.parametrize("case", STANDARD_FRAMES, ids=[f"{case[0]} {case[3]}" for case in STANDARD_FRAMES])
def test_frames_against_rotation_of_the_full_tensor(case):
    generators, cell, directions, words = case
    group = point_group(generators, cell, None)
    structure = tensor_structure(group)
    tensor = structure.tensor(structure.constants(random_tensor()))
    working, standard = standard_frame(tensor, group)
    assert working.title == "Working frame W"
    np.testing.assert_array_equal(working.rotation, np.eye(3))
    np.testing.assert_array_equal(working.tensor, tensor)
    axes = frame(cell, **directions)
    assert standard.axes == words
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(standard.rotation, axes, atol=1e-14)
    np.testing.assert_allclose(standard.tensor, rotated(tensor, axes), rtol=1e-12, atol=1e-11)


def test_working_frame_in_words():
    def words(generators, cell):
        return standard_frame(random_tensor(), point_group(generators, cell, None))[0].axes

    assert words("1~,3(z)", CALCITE) == "x ∥ a*, y ∥ b, z ∥ c"
    assert words("1~,2(y)", Cell(5.1, 6.2, 7.3, 90, 104.5, 90)) == "x ∥ a*, y ∥ b, z ∥ c"
    assert words("1", Cell(5.1, 6.2, 7.3, 82.1, 104.5, 97.7)) == "x ∥ a*, y = z × x, z ∥ c"


def test_calcite_from_the_standard_to_the_working_frame():
    c11, c12, c13, c14, c33, c44 = 147.1, 54.1, 53.7, -20.6, 85.3, 34.0
    c66 = (c11 - c12) / 2
    published = np.array(
        [
            [c11, c12, c13, c14, 0, 0],
            [c12, c11, c13, -c14, 0, 0],
            [c13, c13, c33, 0, 0, 0],
            [c14, -c14, 0, c44, 0, 0],
            [0, 0, 0, 0, c44, c14],
            [0, 0, 0, 0, c14, c66],
        ]
    )
    group = point_group("1~,3(z),2(y)", CALCITE, "R")
    structure = tensor_structure(group)
    to_standard = standard_frame(np.eye(6), group)[1].rotation
    working = rotate(published, to_standard.T)
    assert structure.names == ["A11", "A33", "A44", "A66", "A13", "A15"]
    np.testing.assert_allclose(structure.constants(working), [c11, c33, c44, c66, c13, c14], rtol=1e-13)
    np.testing.assert_allclose(structure.tensor(structure.constants(working)), working, atol=1e-12)
    back = standard_frame(working, group)[1].tensor
    np.testing.assert_allclose(back, published, atol=1e-12)


@pytest.mark.parametrize(
    ("lengths", "order", "title"),
    [
        ((5.1, 6.2, 7.3), [1, 2, 0], "a' = b, b' = c, c' = a"),
        ((6.2, 5.1, 7.3), [0, 2, 1], "a' = a, b' = c, c' = b"),
        ((7.3, 6.2, 5.1), [1, 0, 2], "a' = b, b' = a, c' = c"),
    ],
)
def test_orthorhombic_axes_out_of_order_are_relabelled(lengths, order, title):
    group = point_group("mmm", Cell(*lengths, 90, 90, 90), None)
    structure = tensor_structure(group)
    tensor = structure.tensor(structure.constants(random_tensor()))
    relabelled = standard_frame(tensor, group)[2]
    assert title in relabelled.title
    assert np.linalg.det(relabelled.rotation) == pytest.approx(1)
    shears = [{0: 3, 1: 4, 2: 5}[n] for n in order]  # the shear in the plane across an axis
    expected = tensor[np.ix_(order + shears, order + shears)]
    np.testing.assert_allclose(relabelled.tensor, expected, atol=1e-12)


def test_axes_of_unusual_settings_follow_the_symmetry():
    threefold = point_group("1~,3(111)", Cell(5, 5, 5, 90, 90, 90), None)
    block = standard_frame(random_tensor(), threefold)[1]
    assert block.axes == "x ∥ [1 -1 0], y = z × x, z ∥ [1 1 1]"
    diagonal = point_group("1~,2(110),2(z)", Cell(5, 5, 7, 90, 90, 90), None)
    block = standard_frame(random_tensor(), diagonal)[1]
    assert block.axes == "x ∥ [1 1 0], y ∥ [-1 1 0], z ∥ c"
    monoclinic = point_group("1~,2(110)", Cell(5, 5, 7, 90, 90, 90), None)
    block = standard_frame(random_tensor(), monoclinic)[1]
    assert block.axes == "x ∥ [1 -1 0], y ∥ [1 1 0], z ∥ c"
    # In these axes the tensor has the zeros of its class.
    structure = tensor_structure(threefold)
    tensor = structure.tensor(structure.constants(random_tensor()))
    in_standard = standard_frame(tensor, threefold)[1].tensor
    plain = tensor_structure(point_group("1~,3(z)", CALCITE, None))
    np.testing.assert_allclose(plain.tensor(plain.constants(in_standard)), in_standard, atol=1e-10)


def test_text_of_the_structure():
    text = tensor_structure(point_group("1~,3(z),2(y)", CALCITE, "R")).text()
    first, second, third, fourth, fifth, sixth = text.splitlines()
    assert first.split("   ")[0] == "1.000000 A11"
    assert " ".join(first.split()) == "1.000000 A11 1.000000 A11 + -2.000000 A66 1.000000 A13 1.000000 A15"
    assert " ".join(second.split()) == "1.000000 A11 + -2.000000 A66 1.000000 A11 1.000000 A13 -1.000000 A15"
    assert " ".join(third.split()) == "1.000000 A13 1.000000 A13 1.000000 A33"
    assert " ".join(fourth.split()) == "1.000000 A44 -1.000000 A15"
    assert " ".join(fifth.split()) == "1.000000 A15 -1.000000 A15 1.000000 A44"
    assert " ".join(sixth.split()) == "-1.000000 A15 1.000000 A66"
    assert first.index("1.000000 A15") == second.index("-1.000000 A15") == fifth.rindex("1.000000 A44")
    assert fourth.index("1.000000 A44") > second.index("1.000000 A13")


def test_averages_of_a_cubic_crystal():
    c11, c12, c44 = 297.0, 95.6, 155.4  # MgO
    tensor = np.diag([c11 - c12] * 3 + [c44] * 3)
    tensor[:3, :3] += c12
    moduli = voigt_reuss_hill(tensor)
    bulk, shear = (c11 + 2 * c12) / 3, (c11 - c12) / 2
    assert moduli.bulk_voigt == pytest.approx(bulk)
    assert moduli.bulk_reuss == pytest.approx(bulk)
    assert moduli.shear_voigt == pytest.approx((2 * shear + 3 * c44) / 5)
    assert moduli.shear_reuss == pytest.approx(5 / (2 / shear + 3 / c44))
    assert universal_anisotropy(tensor) == pytest.approx(6 / 5 * (np.sqrt(c44 / shear) - np.sqrt(shear / c44)) ** 2)
    expected = sorted([2 * shear] * 2 + [2 * c44] * 3 + [3 * bulk])
    np.testing.assert_allclose(eigenvalues(tensor), expected)


def test_averages_do_not_depend_on_the_axes():
    tensor = random_tensor()
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turned = rotated(tensor, axes)
    np.testing.assert_allclose(eigenvalues(turned), eigenvalues(tensor), rtol=1e-11)
    first, second = voigt_reuss_hill(tensor), voigt_reuss_hill(turned)
    for quantity in ("bulk_hill", "shear_hill", "young_hill", "poisson_hill"):
        assert getattr(first, quantity) == pytest.approx(getattr(second, quantity), rel=1e-11)
    # Under a uniform strain the pressure is the trace of the stiffness, under pressure the strain that of s.
    assert first.bulk_voigt == pytest.approx(np.einsum("iijj", fourth_rank(tensor)) / 9)
    assert first.bulk_reuss == pytest.approx(1 / np.linalg.inv(tensor)[:3, :3].sum())
    assert first.young_hill == pytest.approx(2 * first.shear_hill * (1 + first.poisson_hill))


def test_stability():
    tensor = random_tensor()
    assert is_stable(tensor)
    tensor[3, 3] = -1.0
    assert not is_stable(tensor)
    assert eigenvalues(tensor)[0] < 0


@pytest.mark.parametrize("generators", ["1~", "1~,3(z)", "1~,3(z),2(y)", "1~,6(z)"])
def test_isotropic_start(generators):
    cell = Cell(5.1, 6.2, 7.3, 82.1, 104.5, 97.7) if generators == "1~" else CALCITE
    structure = tensor_structure(point_group(generators, cell, None))
    tensor = structure.tensor(isotropic_start(structure))
    assert tensor[0, 0] == pytest.approx(100)
    assert universal_anisotropy(tensor) == pytest.approx(0, abs=1e-12)
    assert voigt_reuss_hill(tensor).shear_hill == pytest.approx(100 / 3)
