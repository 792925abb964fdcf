"""Which corrections are free, what follows them by ties and symmetry, and how the peaks start them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tds2el.corrections import corrections_from_value
from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import point_group
from tds2el.experiment.geometry import Geometry
from tds2el.fit.refined import write_refined
from tds2el.fit.result import CorrectionTable
from tds2el.fit.retune import make_retuning, start_from_peaks
from tds2el.parfile import Variable, read_parfile
from tds2el.settings import Experiment

E = Experiment(
    pixel_size=0.172, dist=100.0, lmbda=0.7, beam_tilt_angle=0.0, det_origin_X=310.0, det_origin_Y=240.0, d1=0.0,
    d2=0.0, theta=0.0, theta_offset=0.0, omega=0.0, omega_offset=0.0, alpha=0.0, beta=0.0, kappa=0.0, phi=0.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=0, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
FREE = Variable(0, -1, 1)
CELLS = {
    "1~,3(z),2(y)": Cell(4.99, 4.99, 17.061, 90, 90, 120),
    "1~,4(z),3(111)": Cell(5, 5, 5, 90, 90, 90),
    "1~,2(y)": Cell(5, 6, 7, 90, 105, 90),
    "1~,2(z),2(y)": Cell(5, 6, 7, 90, 90, 90),
    "1~": Cell(5, 6, 7, 85, 95, 100),
}
EVERY_CELL = dict.fromkeys(("AA", "BB", "CC", "aAA", "aBB", "aCC"), FREE)


def _retuning(value, generators="1~", experiment=E):
    cell = CELLS[generators]
    corrections = corrections_from_value(value)
    assert corrections is not None
    return make_retuning(corrections, experiment, cell, point_group(generators, cell, None))


@pytest.mark.parametrize(
    ("generators", "free"),
    [
        ("1~,3(z),2(y)", ("AA", "CC")),
        ("1~,4(z),3(111)", ("AA",)),
        ("1~,2(y)", ("AA", "BB", "CC", "aBB")),
        ("1~,2(z),2(y)", ("AA", "BB", "CC")),
        ("1~", ("AA", "BB", "CC", "aAA", "aBB", "aCC")),
    ],
)
def test_a_free_cell_keeps_the_symmetry(generators, free):
    found = _retuning(EVERY_CELL, generators)
    assert found.names == free
    assert len(found.notes) >= 6 - len(free)
    x = np.linspace(0.01, 0.02, len(free))
    _, cell = found.geometry(x)
    operations = point_group(generators, CELLS[generators], None).hkl_operations
    assert np.allclose(operations @ cell.metric @ operations.transpose(0, 2, 1), cell.metric)
    for name, value in zip(free, x, strict=True):
        assert found.values(x)[name] == pytest.approx(value)


def test_one_length_moves_its_equals_along():
    found = _retuning({"AA": FREE}, "1~,4(z),3(111)")
    assert found.names == ("AA",)
    assert "BB, CC follow AA" in found.notes[0]
    assert found.geometry(np.array([0.1]))[1].parameters == pytest.approx((5.1, 5.1, 5.1, 90, 90, 90))


def test_ties_of_the_list_and_fixed_corrections():
    listed = [Variable(0.5, 0.5, 0.5), FREE, -1, FREE, -1, *[Variable(0, 0, 0)] * 9]
    found = _retuning(listed)
    assert found.names == ("r2", "AA")
    values = found.values(np.array([0.25, 0.125]))
    expected = {"r1": 0.5, "r2": 0.25, "r3": 0.25, "AA": 0.125, "BB": 0.125, "CC": 0.0}
    assert {name: values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("experiment", "ways"),
    [(E, 3), (replace(E, alpha=50.0, kappa=30.0, beta=5.0, omega=10.0), 5)],
    ids=["one axis", "kappa goniometer"],
)
def test_turning_parameters_share_a_basis(experiment, ways):
    """M = K(φ-independent) R₃(φ) F: 3 + 3 angles less the one about φ's own axis."""
    names = dict.fromkeys(("r1", "r2", "r3", "omega", "alpha", "beta", "kappa"), FREE)
    found = _retuning(names, experiment=experiment)
    assert found.turning <= 5
    assert len(found.motion(found.start).turns) == found.turning
    # At special angles fewer of them count, but the basis has room for those in general.
    turns = found._motion(found.start)
    full = turns[2][:7, : found.turning] @ turns[0].turns.reshape(found.turning, 9)
    assert np.linalg.matrix_rank(full, tol=1e-9) >= ways


def test_peaks_bring_the_geometry_near():
    random = np.random.default_rng(4)
    truth = {"r1": 0.2, "r2": -0.15, "r3": 0.1, "AA": 0.005, "CC": -0.02, "det_origin_X": 1.5, "det_origin_Y": -1.0}
    cell = CELLS["1~,3(z),2(y)"]
    moved = {k: getattr(E, k) + v for k, v in truth.items() if hasattr(E, k)}
    true_cell = Cell(4.995, 4.995, 17.041, 90, 90, 120)
    # Pixels of peaks: those whose Q in the true geometry is a node's; nodes need not be whole numbers here.
    row, column, phi = random.uniform(50, 570, 30), random.uniform(50, 430, 30), random.uniform(0, 90, 30)
    q = Geometry(replace(E, **moved)).q_crystal(row, column, phi)
    data = SimpleNamespace(hkl=q @ true_cell.A.T, peak_pixel=np.column_stack([row, column, phi]))
    data.peak_pixel[3] = np.nan
    bounds = {name: Variable(0, -5, 5) for name in truth} | {"omega": Variable(0, -5, 5)}
    found = make_retuning(corrections_from_value(bounds) or (), E, cell, point_group("1~,3(z),2(y)", cell, None))
    x = dict(zip(found.names, start_from_peaks(found, data), strict=True))
    assert x.pop("omega") == 0  # r1, r2, r3 and the goniometer: one way of turning too many
    for name, value in truth.items():
        assert x[name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_the_refined_conf_file_is_the_old_one_with_new_values(tmp_path):
    """In place, also in the middle of a line and over several lines; paths stay right in another folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    conf = tmp_path / "in" / "conf.par"
    conf.write_text(
        "# geometry of März\nr1 = 20.0  # first\nAA = BB = 4.99\nCC = (17 +\n      0.061)\nif False:\n    r1 = 3\n"
        'filter_file = "mask.edf"\nimages_prefix = "frames/" + "scan_"\n'
        'filter_ranges = [[0, 1, "a.edf"], [2, 3, "b.edf"]]\n'
        "A_variables = [minimiser.Variable(0, -1, 1)] * 14\n",
        encoding="utf-8",
    )
    names = ["r1", "AA", "BB", "CC", "det_origin_X"]
    start, change, nothing = (
        np.array([20.0, 4.99, 4.99, 17.061, 300.0]),
        np.array([0.1, 0.01, 0.01, 0.02, 1.5]),
        np.zeros(5),
    )
    table = CorrectionTable(names, start, change, nothing, nothing, nothing, ["fitted"] * 5, ())
    missing = write_refined(tmp_path / "out" / "tds2el_refined.par", conf, table)
    assert missing == ["det_origin_X"]
    text = (tmp_path / "out" / "tds2el_refined.par").read_text(encoding="utf-8")
    assert "# geometry of März" in text
    assert "# first" in text
    found = {a.name: a.value for a in read_parfile(tmp_path / "out" / "tds2el_refined.par").assignments}
    expected = dict(zip(names, table.value, strict=True))
    assert {name: found[name] for name in names} == expected
    assert found["A_variables"] is None
    assert found["images_prefix"] == str(tmp_path / "in" / "frames" / "scan_")
    assert [entry[2] for entry in found["filter_ranges"]] == [str(tmp_path / "in" / f"{x}.edf") for x in "ab"]
    assert found["filter_file"] == str(tmp_path / "in" / "mask.edf")
