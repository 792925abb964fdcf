"""From rough geometry to tagged peaks: the right lattice, parameters within their errors, true peaks and false ones."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tds2el.align.align import align, tagged
from tds2el.align.orientation import orientation_of
from tds2el.align.orientation_codes import PAIRS, Pair, classes
from tds2el.align.points import Places
from tds2el.align.report import align_report
from tds2el.align.sweeps import Sweeps
from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.maxima import Maxima
from tds2el.settings import Settings, load_settings

TRICLINIC = (5.4, 6.3, 7.7, 92, 97, 102)
TRIGONAL = (4.99, 4.99, 17.061, 90, 90, 120)
CUBIC = (5.4, 5.4, 5.4, 90, 90, 90)
CELL_NAMES = ("AA", "BB", "CC", "aAA", "aBB", "aCC")
ORIENTATION = ("r1", "r2", "r3")
GEOMETRY = {"dist": 2.0, "det_origin_X": 9.0, "det_origin_Y": 9.0, "d1": 1.0, "d2": 1.0, "beam_tilt_angle": 1.0}
VARIATIONS = {name: [-bound, bound] for name, bound in ({"r1": 3.0, "r2": 3.0, "r3": 3.0} | GEOMETRY).items()}
CELL_VARIATIONS = {name: [-0.5, 0.5] for name in CELL_NAMES[:3]} | {name: [-3, 3] for name in CELL_NAMES[3:]}


@pytest.fixture
def settings(tmp_path: Path, rough):
    """Called with what a par-file holds beside the rough geometry; `without` leaves options out."""

    def load(cell=None, without=(), experiment=rough, **options) -> Settings:
        values = {name: value for name, value in asdict(experiment).items() if name not in without}
        values |= {} if cell is None else dict(zip(CELL_NAMES, cell, strict=True))
        values |= options
        lines = [f"{name} = {list(v) if isinstance(v, tuple) else v!r}" for name, v in values.items()]
        (tmp_path / "align.par").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return load_settings(tmp_path / "align.par", command="align")

    return load


def unchanged(found, truth) -> np.ndarray:
    """The change of basis (3, 3) from the true hkl to those found."""
    both = truth.hkl.any(axis=1) & found.accepted
    change = np.linalg.lstsq(truth.hkl[both], found.hkl[both], rcond=None)[0].T
    np.testing.assert_allclose(change, np.rint(change), atol=0.05)
    return np.rint(change)


def check_tags(found, truth, change) -> None:
    true = truth.hkl.any(axis=1)
    right = (found.hkl == truth.hkl @ change.T).all(axis=1) & found.accepted
    assert right[true].mean() >= 0.98
    assert found.accepted[~true].mean() <= 0.05
    assert np.isfinite(found.residual[found.accepted, :2]).all()


def check_pulls(found, truth, names) -> None:
    """Refined parameters are within 3σ of the truth; the orientation, which may be an equivalent one, by its nodes."""
    refinement = found.refinement
    after, cell = refinement.geometry
    true = asdict(truth.experiment) | dict(zip(CELL_NAMES, truth.cell.parameters, strict=True))
    refined = asdict(after.first) | dict(zip(CELL_NAMES, cell.parameters, strict=True))
    for name, sigma in zip(refinement.retuning.names, refinement.sigma, strict=True):
        if name in names:
            assert abs(refined[name] - true[name]) < 3 * sigma, name


CRYSTALS = [
    pytest.param(TRICLINIC, None, "-1", "triclinic", id="triclinic"),
    pytest.param(TRIGONAL, "R", "-3m", "trigonal", id="trigonal"),
    pytest.param(CUBIC, "F", "m-3m", "cubic", id="cubic"),
]


@pytest.mark.parametrize(("cell", "centring", "group", "system"), CRYSTALS)
def test_with_a_rough_orientation(make_table, settings, cell, centring, group, system):
    maxima, truth = make_table(Cell(*cell), centring, seed=3)
    found = align(maxima, settings(cell, centring=centring, ascii_generators=group, variations=VARIATIONS))
    assert np.array_equal(unchanged(found, truth), np.eye(3))  # not an equivalent one: the nearest
    check_tags(found, truth, np.eye(3))
    check_pulls(found, truth, VARIATIONS)
    assert found.group.system == system
    assert not found.second
    assert not found.different


@pytest.mark.parametrize(("cell", "centring", "group", "system"), CRYSTALS)
def test_with_no_orientation(make_table, settings, cell, centring, group, system):
    maxima, truth = make_table(Cell(*cell), centring, seed=3)
    known = settings(cell, ORIENTATION, centring=centring, ascii_generators=group, variations=VARIATIONS)
    found = align(maxima, known)
    change = unchanged(found, truth)
    check_tags(found, truth, change)
    check_pulls(found, truth, GEOMETRY)
    metric = Cell(*cell).metric
    np.testing.assert_allclose(change @ metric @ change.T, metric, atol=1e-6)


@pytest.mark.parametrize(("cell", "centring", "group", "system"), CRYSTALS)
def test_with_nothing_known(make_table, settings, cell, centring, group, system):
    """No cell, no orientation, no code: only distance, wavelength, step and, roughly, the origin."""
    maxima, truth = make_table(Cell(*cell), centring, seed=3)
    code = {"orientation_codes": None}
    found = align(maxima, settings(None, ORIENTATION, variations=VARIATIONS | CELL_VARIATIONS, **code))
    change = unchanged(found, truth)
    assert abs(np.linalg.det(change)) == pytest.approx(1)
    check_tags(found, truth, change)
    assert found.group.system == system
    assert found.centring == (centring or "P")
    names = {*GEOMETRY, *(CELL_NAMES if system != "triclinic" else ())}  # the reduced cell has other axes
    check_pulls(found, truth, names)
    np.testing.assert_allclose(change @ Cell(*cell).metric @ change.T, found.cell.metric, rtol=2e-3, atol=0.03)
    assert {(0, False), (2, False), (1, True), (3, True)} == {(pair.code, pair.reversed) for pair in found.pairs}


def test_codes_make_classes(experiment, make_table):
    """With nothing tilted and the axis along e3, a sign of axis 3 changes nothing, one of axis 2 turns the rotation."""
    straight = replace(experiment, beam_tilt_angle=0.0, d1=0.0, d2=0.0)
    maxima, _ = make_table(Cell(*CUBIC), "F", experiment=straight)
    found = [
        {(pair.code, pair.reversed) for pair in members} for members in classes(Sweeps((straight,)), Places.of(maxima))
    ]
    half = {(0, False), (2, False), (1, True), (3, True)}
    assert half in found
    assert {(code, not back) for code, back in half} in found
    assert sorted(len(members) for members in found) == [4, 4, 4, 4]
    assert set().union(*found) == {(pair.code, pair.reversed) for pair in PAIRS}


@pytest.mark.parametrize("true", [Pair(6, False), Pair(3, True)])
def test_the_code_is_found_and_agrees_with_the_start(make_table, settings, experiment, rough, true):
    """The step's sign stays where a member of the class has it, and r1, r2, r3 choose among those."""
    other = true.of(experiment)
    maxima, truth = make_table(Cell(*TRICLINIC), experiment=other, seed=4)
    start = replace(rough, angular_step=other.angular_step)
    found = align(maxima, settings(TRICLINIC, experiment=start, orientation_codes=None, variations=VARIATIONS))
    assert found.experiment.angular_step == other.angular_step
    assert found.experiment.orientation_codes == true.code
    check_tags(found, truth, np.eye(3))
    assert true.code in [pair.code for pair in found.pairs if not pair.reversed]


def test_exchanged_origins_are_put_right_and_said(make_table, settings, rough, caplog):
    maxima, truth = make_table(Cell(*TRIGONAL), "R")
    swapped = replace(rough, det_origin_X=rough.det_origin_Y, det_origin_Y=rough.det_origin_X)
    with caplog.at_level(logging.WARNING, logger="tds2el"):
        found = align(maxima, settings(TRIGONAL, experiment=swapped, centring="R", variations=VARIATIONS))
    assert found.exchanged
    assert "det_origin_X and det_origin_Y are exchanged" in caplog.text
    assert "exchanged" in align_report(found, maxima)
    check_tags(found, truth, np.eye(3))


def test_a_second_lattice_is_reported(make_table, settings, experiment):
    """30 % of a crystal that is turned by 7° about its own axis a*."""
    cell = Cell(*TRIGONAL)
    first, truth = make_table(cell, "R")
    twin = replace(experiment, r1=experiment.r1 + 7.0)  # R1 is the innermost rotation: about x, a*
    second, _ = make_table(cell, "R", experiment=twin, share=0.3, false=0.0, seed=9)
    both = Maxima(**{name: np.concatenate([values, vars(second)[name]]) for name, values in vars(first).items()})
    found = align(both, settings(TRIGONAL, centring="R", variations=VARIATIONS))
    (one,) = found.second
    assert one.angle == pytest.approx(7.0, abs=0.2)
    assert abs(one.axis[0]) > 0.999
    assert one.peaks > 0.7 * len(second.row)
    assert "turned by 7" in align_report(found, both)
    assert found.accepted[: len(first.row)][truth.hkl.any(axis=1)].mean() > 0.98


def test_rhombohedral_lattices_come_out_obverse(make_table, settings, experiment):
    """A start in the reverse setting is refused by the absences, and told where no centring is given."""
    maxima, truth = make_table(Cell(*TRIGONAL), "R")
    reverse = orientation_of(experiment.r1, experiment.r2, experiment.r3) @ np.diag([-1.0, -1.0, 1.0])
    r1, r2, r3 = np.rad2deg([np.arctan2(-reverse[2, 1], reverse[2, 2]), np.arcsin(reverse[2, 0]),
                             np.arctan2(-reverse[1, 0], reverse[0, 0])])  # fmt: skip
    start = replace(experiment, r1=float(r1), r2=float(r2), r3=float(r3))
    found = align(maxima, settings(TRIGONAL, experiment=start, centring="R"))
    assert ((-found.hkl[:, 0] + found.hkl[:, 1] + found.hkl[:, 2])[found.accepted] % 3 == 0).all()
    check_tags(found, truth, unchanged(found, truth))
    found = align(maxima, settings(TRIGONAL, experiment=start))
    assert any("reverse setting" in note for note in found.notes)


def test_inequivalent_indexings_are_listed(make_table, settings):
    maxima, _ = make_table(Cell(4.91, 4.91, 5.4, 90, 90, 120))
    found = align(maxima, settings((4.91, 4.91, 5.4, 90, 90, 120), ascii_generators="321"))
    assert found.different is not None
    (other,) = found.different
    assert "A15" in align_report(found, maxima)
    # The other one is the lattice turned by 180° about c, times what quartz has itself.
    assert abs(other.hkl_operation[2, 2]) == 1


def test_the_unique_axis_is_where_the_generators_want_it(make_table, settings):
    """The search finds b unique; 2(z) makes it c."""
    maxima, truth = make_table(Cell(5, 6, 8, 90, 90, 103), radius=1.1)
    found = align(maxima, settings(None, ORIENTATION, ascii_generators="1~,2(z)"))
    assert found.cell.parameters[3:5] == (90, 90)
    assert found.cell.c == pytest.approx(8, rel=0.01)
    check_tags(found, truth, unchanged(found, truth))


def test_a_fixed_orientation_stays(make_table, settings, experiment):
    maxima, _ = make_table(Cell(*TRICLINIC))
    found = align(maxima, settings(TRICLINIC, experiment=experiment, variations={"dist": [-1, 1]}))
    assert [getattr(found.experiment, name) for name in ORIENTATION] == [getattr(experiment, n) for n in ORIENTATION]
    far = replace(experiment, r1=100.0)
    found = align(maxima, settings(TRICLINIC, experiment=far, variations={}))
    assert any("not among the variations" in note for note in found.notes)
    assert found.experiment.r1 == pytest.approx(experiment.r1, abs=0.2)


def test_tags_are_exact_where_the_peaks_are(make_table, settings):
    """Residuals of the tagged table: the peak less where the refined geometry sees its node, on the Ewald sphere."""
    maxima, _ = make_table(Cell(*CUBIC), "F")
    found = align(maxima, settings(CUBIC, centring="F", variations=VARIATIONS))
    table = tagged(maxima, found)
    chosen = table.accepted & np.isfinite(table.residual).all(axis=1)
    row, column, index = (
        value[chosen] - residual
        for value, residual in zip((table.row, table.column, table.angle_index), table.residual[chosen].T, strict=True)
    )
    geometry = Geometry(found.experiment)
    q = geometry.q_crystal(row, column, geometry.phi(index))
    np.testing.assert_allclose(q, table.hkl[chosen] @ found.cell.B.T, atol=1e-9)


def test_no_peak_within_its_own_error_is_refused(make_table, settings):
    """Errors may be ten times too large for nearly all peaks, yet right for some."""
    maxima, truth = make_table(Cell(*CUBIC), "F")
    true = np.flatnonzero(truth.hkl.any(axis=1))
    near, far = true[:3], true[3:6]
    row, error = maxima.row.copy(), 0.15
    row[near] += 10 * error
    row[far] += 60 * error
    errors = {name: 10 * getattr(maxima, name) for name in ("row_error", "column_error", "angle_index_error")}
    options = settings(CUBIC, centring="F", variations=VARIATIONS)
    found = align(replace(maxima, row=row, **errors), options)
    assert found.accepted[near].all()
    assert not found.accepted[far].any()
    # The refinement sees how well the others lie.
    assert found.refinement.spread[0] < 2 * error


def test_what_cannot_be_aligned(make_table, settings, experiment):
    maxima, _ = make_table(Cell(*CUBIC), "F")
    few = Maxima(**{name: values[:5] for name, values in vars(maxima).items()})
    with pytest.raises(InputError, match="5 peaks are too few"):
        align(few, settings(CUBIC, centring="F"))
    with pytest.raises(InputError, match="peaks of 2 sweeps"):
        align(replace(maxima, sweep=np.arange(len(maxima.row)) % 2), settings(CUBIC))
    with pytest.raises(InputError, match="not finite"):
        align(replace(maxima, row=np.full(len(maxima.row), np.nan)), settings(CUBIC))
    random = np.random.default_rng(1)
    noise = replace(maxima, row=random.permutation(maxima.row) * 0.7)
    with pytest.raises(InputError, match=r"no lattice explains.*direct beam.*the cell"):
        align(noise, settings((15.0, 16.0, 17.0, 90, 90, 90), centring="P", experiment=replace(experiment, dist=400.0)))
    with pytest.raises(InputError, match=r"the lattice found is cubic, centring F.*does not have the symmetry"):
        align(maxima, settings(None, ORIENTATION, ascii_generators="1~,6(z)"))
