import itertools
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tds2el import _core
from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import indexing_notes, tensor_structure
from tds2el.crystal.symmetry import point_group, with_replicas
from tds2el.errors import InputError

CASES = json.loads((Path(__file__).parents[1] / "data" / "symmetry.json").read_text())["cases"]
VOIGT = [f"A{i}{i}" for i in range(1, 7)] + [f"A{i}{j}" for i, j in itertools.combinations(range(1, 7), 2)]

TRICLINIC = Cell(5.1, 6.2, 7.3, 82.1, 104.5, 97.7)
MONOCLINIC_A = Cell(5.1, 6.2, 7.3, 104.5, 90, 90)
MONOCLINIC = Cell(5.1, 6.2, 7.3, 90, 104.5, 90)
MONOCLINIC_C = Cell(5.1, 6.2, 7.3, 90, 90, 104.5)
ORTHORHOMBIC = Cell(5.1, 6.2, 7.3, 90, 90, 90)
TETRAGONAL = Cell(5.1, 5.1, 7.3, 90, 90, 90)
HEXAGONAL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
CUBIC = Cell(4.2556, 4.2556, 4.2556, 90, 90, 90)

# Name, generators, cell, system, order, number of elastic constants (International Tables D, table 1.3.3.1).
POINT_GROUPS = [
    ("1", "1", TRICLINIC, "triclinic", 1, 21),
    ("-1", "1~", TRICLINIC, "triclinic", 2, 21),
    ("2", "2(y)", MONOCLINIC, "monoclinic", 2, 13),
    ("m", "m(y)", MONOCLINIC, "monoclinic", 2, 13),
    ("2/m", "1~,2(y)", MONOCLINIC, "monoclinic", 4, 13),
    ("2/m11", "1~,2(x)", MONOCLINIC_A, "monoclinic", 4, 13),
    ("112/m", "1~,2(z)", MONOCLINIC_C, "monoclinic", 4, 13),
    ("222", "2(z),2(x)", ORTHORHOMBIC, "orthorhombic", 4, 9),
    ("mm2", "m(x),m(y)", ORTHORHOMBIC, "orthorhombic", 4, 9),
    ("mmm", "1~,2(z),2(y)", ORTHORHOMBIC, "orthorhombic", 8, 9),
    ("4", "4(z)", TETRAGONAL, "tetragonal", 4, 7),
    ("-4", "4(z)~", TETRAGONAL, "tetragonal", 4, 7),
    ("4/m", "1~,4(z)", TETRAGONAL, "tetragonal", 8, 7),
    ("422", "4(z),2(x)", TETRAGONAL, "tetragonal", 8, 6),
    ("4mm", "4(z),m(x)", TETRAGONAL, "tetragonal", 8, 6),
    ("-42m", "4(z)~,2(x)", TETRAGONAL, "tetragonal", 8, 6),
    ("-4m2", "4(z)~,2(110)", TETRAGONAL, "tetragonal", 8, 6),
    ("4/mmm", "1~,4(z),2(x)", TETRAGONAL, "tetragonal", 16, 6),
    ("3", "3(z)", HEXAGONAL, "trigonal", 3, 7),
    ("-3", "1~,3(z)", HEXAGONAL, "trigonal", 6, 7),
    ("321", "3(z),2(y)", HEXAGONAL, "trigonal", 6, 6),
    ("312", "3(z),2(x)", HEXAGONAL, "trigonal", 6, 6),
    ("3m1", "3(z),m(y)", HEXAGONAL, "trigonal", 6, 6),
    ("31m", "3(z),m(x)", HEXAGONAL, "trigonal", 6, 6),
    ("-3m1", "1~,3(z),2(y)", HEXAGONAL, "trigonal", 12, 6),
    ("-31m", "1~,3(z),2(x)", HEXAGONAL, "trigonal", 12, 6),
    ("6", "6(z)", HEXAGONAL, "hexagonal", 6, 5),
    ("-6", "3(z),m(z)", HEXAGONAL, "hexagonal", 6, 5),
    ("6/m", "1~,6(z)", HEXAGONAL, "hexagonal", 12, 5),
    ("622", "6(z),2(x)", HEXAGONAL, "hexagonal", 12, 5),
    ("6mm", "6(z),m(x)", HEXAGONAL, "hexagonal", 12, 5),
    ("-6m2", "3(z),m(z),2(x)", HEXAGONAL, "hexagonal", 12, 5),
    ("-62m", "3(z),m(z),2(y)", HEXAGONAL, "hexagonal", 12, 5),
    ("6/mmm", "1~,6(z),2(x)", HEXAGONAL, "hexagonal", 24, 5),
    ("23", "3(111),2(z)", CUBIC, "cubic", 12, 3),
    ("m-3", "1~,3(111),2(z)", CUBIC, "cubic", 24, 3),
    ("432", "4(z),3(111)", CUBIC, "cubic", 24, 3),
    ("-43m", "4(z)~,3(111)", CUBIC, "cubic", 24, 3),
    ("m-3m", "1~,4(z),3(111)", CUBIC, "cubic", 48, 3),
]
CELL_OF = {generators: cell for _, generators, cell, *_ in POINT_GROUPS}


def as_set(operations):
    return {tuple((np.asarray(operation).ravel().round(6) + 0.0).tolist()) for operation in operations}


@pytest.mark.parametrize("case", CASES, ids=[case["generators"] for case in CASES])
def test_structure_as_tabulated(case):
    group = point_group(case["generators"], CELL_OF[case["generators"]], None)
    structure = tensor_structure(group)
    assert len(group.operations) == case["order"]
    assert structure.names == case["free"]
    entries = {}
    for name in VOIGT:
        terms = zip(structure.names, structure.basis[:, int(name[1]) - 1, int(name[2]) - 1], strict=True)
        combination = {free: factor for free, factor in terms if factor != 0.0}
        if combination:
            entries[name] = combination
    assert entries == case["entries"]
    np.testing.assert_array_equal(structure.basis, structure.basis.transpose(0, 2, 1))


@pytest.mark.parametrize("row", POINT_GROUPS, ids=[row[0] for row in POINT_GROUPS])
def test_names_and_generators_agree(row):
    name, generators, cell, system, order, constants = row
    by_name, by_generators = point_group(name, cell, None), point_group(generators, cell, "P")
    assert (by_name.system, by_generators.system) == (system, system)
    assert (len(by_name.operations), len(by_generators.operations)) == (order, order)
    assert as_set(by_name.operations) == as_set(by_generators.operations)
    assert as_set(by_name.hkl_operations) == as_set(by_generators.hkl_operations)
    first, second = tensor_structure(by_name), tensor_structure(by_generators)
    assert first.names == second.names
    np.testing.assert_array_equal(first.basis, second.basis)
    assert len(first.names) == constants
    for group in (by_name, by_generators):
        np.testing.assert_allclose(group.operations[0], np.eye(3), atol=1e-14)
        np.testing.assert_allclose(cell.A @ group.operations @ cell.B, group.hkl_operations, atol=1e-12)


def test_all_32_classes_are_tried():
    assert len({name for name, *_ in POINT_GROUPS} - {"2/m11", "112/m", "-4m2", "312", "31m", "-31m", "-6m2"}) == 32


def test_white_space_is_ignored():
    assert len(point_group(" 1~, 3 (z) ,2(y) ", HEXAGONAL, None).operations) == 12
    assert len(point_group(" - 3 m 1 ", HEXAGONAL, None).operations) == 12


@pytest.mark.parametrize(("name", "meant"), [("32", "321"), ("3m", "3m1"), ("-3m", "-3m1")])
@pytest.mark.parametrize("centring", ["R", "R -3 c"])
def test_centring_R_settles_the_orientation(name, meant, centring):
    settled = point_group(name, HEXAGONAL, centring)
    assert as_set(settled.operations) == as_set(point_group(meant, HEXAGONAL, "R").operations)


@pytest.mark.parametrize(("name", "choices"), [("32", ("321", "312")), ("-3m", ("-3m1", "-31m"))])
@pytest.mark.parametrize("centring", [None, "P", "P -3 c 1"])
def test_a_name_without_orientation_lists_the_choices(name, choices, centring):
    with pytest.raises(InputError, match="orientation") as error:
        point_group(name, HEXAGONAL, centring)
    assert all(f'"{choice}"' in str(error.value) for choice in choices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3(x)", r'unknown generator "3\(x\)"; use 1 1~ 2\(x\)'),
        ("1~,,2(z)", 'unknown generator ""'),
        ("m(z)~", r'unknown generator "m\(z\)~"'),
        ("P31", "neither a point group"),
        ("31", "neither a point group"),  # a screw axis
        ("", "neither a point group"),
        ("4(z),3(z)", "an axis that no lattice has"),
        ("6(z),3(111)", "more than 48 operations"),
    ],
)
def test_bad_symmetry(text, message):
    with pytest.raises(InputError, match=message):
        point_group(text, HEXAGONAL, None)


def test_a_lattice_without_the_symmetry():
    for generators, cell, letter in (
        ("1~,6(z)", HEXAGONAL, "R"),
        ("-31m", HEXAGONAL, "R"),
        ("4/m", TETRAGONAL, "A"),
    ):
        with pytest.raises(InputError, match=f"does not map a lattice with centring {letter}"):
            point_group(generators, cell, letter)
    point_group("1~,3(z),2(y)", HEXAGONAL, "R")
    point_group("4/m", TETRAGONAL, "I")


@pytest.mark.parametrize("name", ["1~,3(z),2(y)", "-3m1"])
def test_cell_off_by_a_little_is_repaired(name, caplog):
    with caplog.at_level(logging.WARNING, logger="tds2el"):
        group = point_group(name, Cell(4.99, 4.99, 17.061, 90, 90, 119.98), "R")
    (record,) = caplog.records
    assert "aCC 119.98 → 120" in record.getMessage()
    assert group.cell.gamma == pytest.approx(120, abs=1e-12)
    assert group.cell.a == pytest.approx(group.cell.b, rel=1e-14)
    assert group.cell.a == pytest.approx(4.99, rel=2e-4)
    reference = tensor_structure(point_group("1~,3(z),2(y)", HEXAGONAL, "R"))
    assert tensor_structure(group).names == reference.names
    np.testing.assert_allclose(tensor_structure(group).basis, reference.basis, atol=1e-12)


def test_a_cell_that_fits_is_kept_without_a_word(caplog):
    with caplog.at_level(logging.WARNING, logger="tds2el"):
        for _, generators, cell, *_ in POINT_GROUPS:
            assert point_group(generators, cell, None).cell is cell
    assert not caplog.records


@pytest.mark.parametrize(
    ("symmetry", "cell", "message"),
    [
        ("1~,3(z),2(y)", Cell(4.99, 4.99, 17.061, 90, 90, 118), "aCC = 118 where 120 fits"),
        ("-3m1", Cell(4.99, 4.99, 17.061, 90, 90, 118), "aCC = 118 where 120 fits"),
        ("1~,3(z),2(y)", Cell(4.99, 4.99, 17.061, 90, 90, 90), "aCC = 90 where 120 fits"),
        ("1~,2(z),2(y)", Cell(5, 6, 7, 90, 92, 90), "aBB = 92 where 90 fits"),
        ("1~,4(z)", Cell(5, 5.1, 7, 90, 90, 90), "AA = 5 where 5.0502"),
        ("1~,2(y)", MONOCLINIC_A, "aAA = 104.5 where 90 fits"),
        (
            "2/m",
            MONOCLINIC_C,
            r'aCC = 104.5 where 90 fits \("2/m" has the unique axis b; "2/m11" a, "112/m" c\)',
        ),
        ("1~,3(111),2(z)", Cell(5, 15, 5, 90, 90, 90), "BB = 15 where"),
        ("3(111)", HEXAGONAL, "do not map the lattice"),
        ("3(111)", Cell(5, 5, 5, 92, 92, 92), "do not lie along the axes"),
    ],
)
def test_cell_off_by_a_lot_is_an_error(symmetry, cell, message):
    with pytest.raises(InputError, match=message):
        point_group(symmetry, cell, None)


@pytest.mark.parametrize(
    ("generators", "cell", "centring", "expected"),
    [
        (
            "1~,3(z),2(y)",
            HEXAGONAL,
            None,
            ["A15 belongs to the indexing: the same lattice turned by 180° about z"],
        ),
        (
            "1~,3(z),2(y)",
            HEXAGONAL,
            "R",
            ["A15 belongs to the indexing: turned by 180° about z it is the other"],
        ),
        ("1~,3(z)", HEXAGONAL, None, ["A14 and A15 ", "A14 ", "A15 "]),
        ("1~,4(z)", TETRAGONAL, "I", ["A16 belongs"]),
        ("1~,4(z),2(x)", TETRAGONAL, "P", []),
        ("1~,3(111),2(z)", CUBIC, "P", []),
        ("1~,2(y)", MONOCLINIC, "P", []),
    ],
)
def test_signs_that_belong_to_the_indexing(generators, cell, centring, expected):
    group = point_group(generators, cell, centring)
    notes = indexing_notes(group, tensor_structure(group))
    assert len(notes) == len(expected)
    assert all(note.startswith(f"The sign of {text}") for note, text in zip(notes, expected, strict=True))


def test_reducer_refuses_what_is_no_group():
    turned = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    with pytest.raises(ValueError, match="more than 48"):
        _core.close_group(turned[None])
    with pytest.raises(ValueError, match="orthogonal"):
        _core.close_group(2 * turned[None])
    with pytest.raises(ValueError, match="shape"):
        _core.close_group(turned)
    with pytest.raises(ValueError, match="identity"):
        _core.reduce_elastic_tensor(np.empty((0, 3, 3)))


def test_tolerance_of_the_reducer_drops_small_coefficients():
    angle = np.radians(0.01)  # turns 4/mmm about z: A16 appears as a small multiple of the others
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    operations = turn @ point_group("4/mmm", TETRAGONAL, None).operations @ turn.T
    _, fine = _core.reduce_elastic_tensor(operations)
    _, coarse = _core.reduce_elastic_tensor(operations, tolerance=1e-2)
    assert np.abs(fine[:, 0, 5]).max() > 1e-5
    assert np.abs(coarse[:, 0, 5]).max() == 0.0


@pytest.mark.parametrize(("name", "generators", "cell"), [case[:3] for case in POINT_GROUPS])
def test_replicas(name, generators, cell):
    group = point_group(generators, cell, None)
    listed = [(1, 2, -3), (2, 0, 0), (1, 2, -3), (-1, -2, 3)]
    nodes = with_replicas(listed, group)
    assert nodes[:3].tolist() == [[1, 2, -3], [2, 0, 0], [-1, -2, 3]]
    # By Cartesian vectors: A turns Q into hkl.
    expected = {
        tuple(int(i) for i in np.rint(group.cell.A @ operation @ group.cell.B @ hkl))
        for hkl in listed
        for operation in group.operations
    }
    found = [tuple(node) for node in nodes.tolist()]
    assert sorted(found) == sorted(expected | set(listed))
    assert found[3:] == sorted(found[3:])
    np.testing.assert_array_equal(with_replicas(nodes, group), nodes)
