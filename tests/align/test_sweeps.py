"""Several sweeps of one crystal: aligned with one turn of the crystal, and refused where they do not agree."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tds2el.align.align import align
from tds2el.align.bravais import lattice_group
from tds2el.align.orientation import angle_between, angles_of, equivalents, orientation_of
from tds2el.align.points import Places
from tds2el.align.refine import _jacobian, residuals
from tds2el.align.report import align_report
from tds2el.align.sweeps import Sweeps, make_joint_retuning
from tds2el.corrections import corrections_from_value
from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry, rotation
from tds2el.experiment.maxima import Maxima, joined
from tds2el.parfile import Variable
from tds2el.settings import Experiment, load_settings

from .conftest import E

TRICLINIC = Cell(5.4, 6.3, 7.7, 92, 97, 102)
TRIGONAL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
CELL_NAMES = ("AA", "BB", "CC", "aAA", "aBB", "aCC")
ANGLES = ("r1", "r2", "r3")
BOUNDS = {"r1": 4.0, "r2": 4.0, "r3": 4.0, "dist": 2.0, "det_origin_X": 9.0, "det_origin_Y": 9.0}


def turned(experiment: Experiment, U: np.ndarray) -> Experiment:
    return replace(experiment, **dict(zip(ANGLES, angles_of(U), strict=True)))


def orientation(e: Experiment) -> np.ndarray:
    return orientation_of(e.r1, e.r2, e.r3)


GONIOMETER = replace(E, omega=47.0, kappa=60.0, alpha=50.0, phi=15.0, angular_step=-0.5)
"""The crystal as it was glued on, other angles of the goniometer, turning back."""
FOLDED = turned(
    replace(E, det_origin_X=433.0, theta=8.0, phi=10.0), rotation(2, 35.0) @ rotation(1, -50.0) @ orientation(E)
)
"""Circles that rested are part of r1, r2, r3; the detector has moved."""
TURN = rotation(1, 0.6) @ rotation(2, -0.6) @ rotation(3, 0.53)
"""By 1°."""


def tables(make_table, sweeps, cell, centring=None, share=0.5) -> tuple[Maxima, np.ndarray]:
    """Peaks of all sweeps, and their true nodes."""
    made = [make_table(cell, centring, experiment=e, frames=160, share=share, seed=3 + n) for n, e in enumerate(sweeps)]
    return joined([maxima for maxima, _ in made]), np.concatenate([truth.hkl for _, truth in made])


def rough(experiment: Experiment) -> Experiment:
    """All turned by 1° in the same way, and the detector 0.3 % too far."""
    return replace(turned(experiment, orientation(experiment) @ TURN), dist=1.003 * experiment.dist)


@pytest.fixture
def settings(tmp_path: Path):
    """Called with the experiments that the conf_files give, and what is shared; `without` leaves options out."""

    def load(experiments, cell=None, without=(), **options):
        names = []
        for n, experiment in enumerate(experiments, start=1):
            values = {name: value for name, value in asdict(experiment).items() if name not in without}
            names.append(f"conf_{n}.par")
            write(tmp_path / names[-1], values)
        shared = {} if cell is None else dict(zip(CELL_NAMES, cell.parameters, strict=True))
        write(tmp_path / "align.par", {"sweeps": names} | shared | options)
        return load_settings(tmp_path / "align.par", command="align")

    return load


def write(path: Path, values: dict) -> None:
    lines = [f"{name} = {list(v) if isinstance(v, tuple) else v!r}" for name, v in values.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def check(found, hkl, change=None) -> None:
    """Tags, with hkl found = change · hkl true."""
    true = hkl.any(axis=1)
    right = (found.hkl == hkl @ (np.eye(3) if change is None else change).T).all(axis=1) & found.accepted
    assert right[true].mean() >= 0.98
    assert found.accepted[~true].mean() <= 0.05


VARIATIONS = {name: [-bound, bound] for name, bound in BOUNDS.items()}


@pytest.mark.parametrize(
    ("cell", "centring", "group"),
    [pytest.param(TRICLINIC, None, "-1", id="triclinic"), pytest.param(TRIGONAL, "R", "-3m", id="trigonal")],
)
@pytest.mark.parametrize("second", [pytest.param(GONIOMETER, id="goniometer"), pytest.param(FOLDED, id="folded")])
def test_a_common_turn_and_distance(make_table, settings, cell, centring, group, second):
    true = [E, second]
    maxima, hkl = tables(make_table, true, cell, centring)
    known = settings([rough(e) for e in true], cell, centring=centring, ascii_generators=group, variations=VARIATIONS)
    found = align(maxima, known)
    check(found, hkl)
    first = found.sweeps.first
    for name, sigma in zip(found.refinement.retuning.names, found.refinement.sigma, strict=True):
        assert abs(getattr(first, name) - getattr(E, name)) < 3 * sigma, name
    for refined, e in zip(found.sweeps.experiments, true, strict=True):
        assert angle_between(orientation(refined), orientation(e)) < 0.02
        assert refined.dist == pytest.approx(e.dist, rel=2e-4)
        assert refined.det_origin_X == pytest.approx(e.det_origin_X, abs=0.15)
    assert [one.peaks for one in found.agreement] == np.bincount(maxima.sweep).tolist()
    assert max(one.angle for one in found.agreement) < 0.03
    assert not found.second
    report = align_report(found, maxima)
    assert re.search(r"^sweep +peaks +accepted", report, re.MULTILINE)
    assert max(map(len, report.splitlines())) <= 100


def test_several_sweeps_tell_more_than_one(make_table, settings):
    """The errors of all are smaller than those of the first."""
    true = [E, GONIOMETER]
    maxima, _ = tables(make_table, true, TRICLINIC)
    both = align(maxima, settings([rough(e) for e in true], TRICLINIC, variations=VARIATIONS)).refinement.sigma
    first = Maxima(**{name: getattr(maxima, name)[maxima.sweep == 0] for name in Maxima.__dataclass_fields__})
    write_one = settings([rough(E), rough(GONIOMETER)], TRICLINIC, variations=VARIATIONS)
    one = align(first, replace(write_one, sweeps=())).refinement.sigma
    assert (both < one).all()
    assert both[3:].sum() < 0.9 * one[3:].sum()


@pytest.mark.parametrize("cell_is_known", [True, False])
def test_with_no_orientation(make_table, settings, cell_is_known):
    """Only the goniometer's angles tell how the sweeps go together."""
    true = [E, GONIOMETER]
    maxima, hkl = tables(make_table, true, TRICLINIC)
    start = [replace(e, det_origin_X=e.det_origin_X + 1.0) for e in true]
    found = align(maxima, settings(start, TRICLINIC if cell_is_known else None, ANGLES))
    both = hkl.any(axis=1) & found.accepted
    change = np.rint(np.linalg.lstsq(hkl[both], found.hkl[both], rcond=None)[0].T)
    check(found, hkl, change)
    assert abs(np.linalg.det(change)) == pytest.approx(1)
    np.testing.assert_allclose(change @ TRICLINIC.metric @ change.T, found.cell.metric, rtol=2e-3, atol=0.03)


def test_points_of_all_sweeps_are_in_one_frame(make_table):
    """Q in the crystal frame is that of each sweep's own geometry; after a turn of the crystal too."""
    sweeps = Sweeps((E, GONIOMETER, FOLDED))
    maxima, hkl = tables(make_table, sweeps.experiments, TRICLINIC, share=0.2)
    places = Places.of(maxima)
    U = orientation(E) @ TURN
    for now in (sweeps, sweeps.oriented(U)):
        q = now.q_crystal(places)
        for n, e in enumerate(now.experiments):
            geometry, here = Geometry(e), maxima.sweep == n
            own = geometry.q_crystal(maxima.row, maxima.column, geometry.phi(maxima.angle_index))
            np.testing.assert_allclose(q[here], own[here], atol=1e-12)
    true = hkl.any(axis=1)
    nodes = hkl[true] @ TRICLINIC.B.T
    np.testing.assert_allclose(sweeps.q_crystal(places)[true], nodes, atol=0.005)
    np.testing.assert_allclose(sweeps.oriented(U).q_crystal(places)[true], nodes @ TURN, atol=0.005)


def test_derivatives_against_differences(make_table):
    """Those of r1, r2, r3 turn the crystal in all sweeps as in the first."""
    sweeps = Sweeps((E, GONIOMETER, FOLDED))
    maxima, hkl = tables(make_table, sweeps.experiments, TRICLINIC, share=0.2)
    places = Places.of(maxima)
    _, crossing = residuals(sweeps, TRICLINIC, places, hkl)
    chosen = np.flatnonzero(crossing & hkl.any(axis=1))[::5]
    places, hkl = places[chosen], hkl[chosen]
    assert set(places.sweep.tolist()) == {0, 1, 2}
    names = (*BOUNDS, "d1", "d2", "theta_offset", "omega_offset", "kappa", "beam_tilt_angle", "lmbda", "AA", "aBB")
    corrections = corrections_from_value({name: Variable(0, -1, 1) for name in names})
    found = make_joint_retuning(corrections, sweeps, TRICLINIC, lattice_group(TRICLINIC, "P"))
    x = np.linspace(-0.02, 0.03, len(names))
    sigma = np.full((len(hkl), 3), 0.5)
    analytic = _jacobian(found, x, places, hkl, sigma)
    for n, name in enumerate(found.names):
        step = np.zeros(len(x))
        step[n] = 1e-5
        ends = [residuals(*found.geometry(x + s), places, hkl)[0] / sigma for s in (step, -step)]
        numeric = ((ends[0] - ends[1]) / 2e-5).ravel()
        np.testing.assert_allclose(analytic[:, n], numeric, rtol=1e-4, atol=1e-4 * np.abs(numeric).max(), err_msg=name)


def test_a_sweep_that_does_not_agree_is_named(make_table, settings):
    true = [E, GONIOMETER, FOLDED]
    maxima, _ = tables(make_table, true, TRICLINIC)
    wrong = [E, turned(GONIOMETER, orientation(GONIOMETER) @ rotation(2, 4.0)), FOLDED]
    with pytest.raises(InputError, match=r"sweep 2 \(.*conf_2\.par\) does not agree") as refused:
        align(maxima, settings(wrong, TRICLINIC, variations=VARIATIONS))
    said = str(refused.value)
    assert "\n" not in said
    assert "turned by 4.0" in said or "turned by 3.9" in said


def test_a_small_disagreement_is_measured(make_table, settings):
    true = [E, GONIOMETER]
    maxima, _ = tables(make_table, true, TRICLINIC)
    wrong = [E, turned(GONIOMETER, orientation(GONIOMETER) @ rotation(2, 0.4))]
    found = align(maxima, settings(wrong, TRICLINIC, variations=VARIATIONS))
    assert [one.angle for one in found.agreement] == pytest.approx([0.4, 0.4], abs=0.03)
    np.testing.assert_allclose(found.agreement[1].axis, [0, 1, 0], atol=0.1)
    np.testing.assert_allclose(found.agreement[0].axis, [0, -1, 0], atol=0.1)


@pytest.mark.parametrize(
    ("numbers", "says"),
    [(0, r"no peak of sweep 2 \(.*conf_2\.par\)"), (3, "peaks of sweep 3, but sweeps names 2 conf_files")],
)
def test_a_table_of_other_sweeps_is_refused(make_table, settings, numbers, says):
    maxima, _ = tables(make_table, [E, GONIOMETER], TRICLINIC)
    sweep = np.zeros_like(maxima.sweep) if not numbers else np.arange(len(maxima.row)) % numbers
    with pytest.raises(InputError, match=says):
        align(replace(maxima, sweep=sweep), settings([E, GONIOMETER], TRICLINIC))


def test_a_code_is_looked_for_in_all_or_none(make_table, settings):
    maxima, _ = tables(make_table, [E, GONIOMETER], TRICLINIC, share=0.15)
    with pytest.raises(InputError, match="give it in all or in none"):
        align(maxima, settings([E, replace(GONIOMETER, orientation_codes=None)], TRICLINIC))
    found = align(maxima, settings([E, GONIOMETER], TRICLINIC, ["orientation_codes"], orientation_codes=None))
    assert found.accepted.mean() > 0.9
    same = equivalents(orientation(E), TRICLINIC, lattice_group(TRICLINIC, "P"))
    assert min(angle_between(orientation(found.experiment), one.U) for one in same) < 0.05
