"""`tds2el align` and `tds2el render`: the files that they write, what reads them, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tds2el.align.orientation import angles_of, orientation_of
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed_nodes
from tds2el.experiment.geometry import Geometry, rotation
from tds2el.experiment.maxima import Maxima, read_cloud, read_maxima, reflections_of_file, write_maxima
from tds2el.fit.read import read_fit_file
from tds2el.settings import Experiment, load_settings

CELL = Cell(5.4, 5.4, 5.4, 90, 90, 90)
TRUE = Experiment(
    pixel_size=0.2, dist=100.0, lmbda=0.7, beam_tilt_angle=0.0, det_origin_X=300.0, det_origin_Y=290.0, d1=0.0, d2=0.0,
    theta=0.0, theta_offset=0.0, omega=0.0, omega_offset=0.0, alpha=0.0, beta=0.0, kappa=0.0, phi=0.0, angular_step=1.0,
    r1=20.0, r2=35.0, r3=10.0, orientation_codes=0, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
CONF = """\
# what is known before
pixel_size = 0.2
dist = 100.3  # from a ruler
lmbda = 0.7
det_origin_X = 301.5
det_origin_Y = 288.5
angular_step = 1.0
r1 = 20.6
r2 = 34.5
r3 = 10.4
AA = BB = CC = 5.4
aAA = aBB = aCC = 90
centring = "F"
ascii_generators = "m-3m"
DeltaQ_min = 0.05
DeltaQ_max = 0.2
"""


def peaks() -> Maxima:
    """Every node near the Ewald sphere of some frame, seen where the sphere cuts the row through it: exact peaks."""
    geometry = Geometry(TRUE)
    nodes = allowed_nodes(CELL, "F", 0.9)
    g = nodes @ CELL.B.T
    index = np.arange(0, 180, 0.01)
    rows = []
    for hkl, node in zip(nodes, g, strict=True):
        lab = np.einsum("nji,j->ni", geometry.lab_to_crystal(geometry.phi(index)), node)
        excess = np.linalg.norm(TRUE.lmbda * lab - geometry.beam, axis=1) - 1
        for at in np.flatnonzero(excess[:-1] * excess[1:] < 0):
            share = excess[at] / (excess[at] - excess[at + 1])
            ray = TRUE.lmbda * (lab[at] + share * (lab[at + 1] - lab[at])) - geometry.beam
            rows.append([*geometry.pixel_of(ray), index[at] + 0.01 * share, *hkl])
    table = np.array(rows)
    table = table[((table[:, :2] > 0) & (table[:, :2] < 600)).all(axis=1)]
    n = len(table)
    return Maxima(
        table[:, 0],
        table[:, 1],
        table[:, 2],
        np.linspace(1, 9, n),
        np.zeros((n, 3), dtype=int),
        np.zeros(n, dtype=bool),
    )


@pytest.fixture(scope="module")
def table() -> Maxima:
    return peaks()


@pytest.fixture
def folder(tmp_path: Path, table: Maxima, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with maxima.h5, align.par and its conf_file."""
    monkeypatch.chdir(tmp_path)
    write_maxima(tmp_path / "maxima.h5", table)
    (tmp_path / "conf.par").write_text(CONF, encoding="utf-8")
    (tmp_path / "align.par").write_text('conf_file = "conf.par"\n', encoding="utf-8")
    return tmp_path


def test_aligned_par_is_a_conf_file_and_the_tags_choose_spots(run, folder, table):
    outcome = run("align", "align.par")
    assert outcome.code == 0, outcome.err
    assert f"{len(table.row)} of {len(table.row)} peaks accepted (100.0 %), with 100.0 % of all counts" in outcome.out
    text = (folder / "aligned.par").read_text(encoding="utf-8")
    assert "# what is known before" in text
    assert "# from a ruler" in text

    (folder / "input.par").write_text(
        'conf_file = "aligned.par"\nimages_prefix = "f_"\nfile_maxima = "maxima_tagged.h5"\n'
        'save_to_file = "h.h5"\nthreshold = 9\n',
        encoding="utf-8",
    )
    settings = load_settings(folder / "input.par")
    assert settings.experiment is not None
    for name, value in asdict(TRUE).items():
        assert getattr(settings.experiment, name) == pytest.approx(value, abs=2e-5), name
    assert settings.crystal.cell == CELL.parameters

    tagged = read_maxima(folder / "maxima_tagged.h5")
    assert tagged.accepted.all()
    assert np.nanmax(np.abs(tagged.residual)) < 1e-3
    cloud = read_cloud(folder / "maxima_tagged.h5", "file")
    np.testing.assert_allclose(cloud.Q, tagged.hkl @ CELL.B.T, atol=1e-5)
    np.testing.assert_allclose(cloud.axes, CELL.B)
    assert set(reflections_of_file(folder / "maxima_tagged.h5")) == {tuple(hkl) for hkl in tagged.hkl}
    report = (folder / "align.txt").read_text(encoding="utf-8")
    assert max(map(len, report.splitlines())) <= 100
    assert re.search(r"^dist +100\.30000 +(100\.0000|99\.9999)", report, re.MULTILINE)
    assert "orientation_codes = 0" in report


def test_all_in_one_file_with_nothing_known_of_the_crystal(run, folder, table):
    lines = [line for line in CONF.splitlines() if not re.match("r[123]|AA|aAA|centring|ascii|det_origin_X", line)]
    one = "\n".join([*lines, 'maxima_file = "maxima.h5"', "det_origin_X = 301.5", "orientation_codes = None"])
    (folder / "align.par").write_text(one + "\n", encoding="utf-8")
    (folder / "out").mkdir()
    outcome = run("align", "align.par", "--set", "output_folder=out")
    assert outcome.code == 0, outcome.err
    assert "aligned.par has lines that the conf_file had not: r1, r2, r3, AA, BB, CC" in outcome.out
    settings = load_settings(folder / "out" / "aligned.par", command="align")
    assert settings.align.maxima_file == folder / "maxima.h5"
    assert settings.crystal.centring == "F"
    assert settings.values["orientation_codes"] == 0
    assert settings.crystal.cell[:3] == pytest.approx([5.4] * 3, rel=0.004)
    assert settings.crystal.cell[3:] == (90, 90, 90)
    assert read_maxima(folder / "out" / "maxima_tagged.h5").accepted.all()


def test_what_contradicts_the_new_conf_file_is_said(run, folder):
    (folder / "align.par").write_text('conf_file = "conf.par"\nr1 = 20.6\n', encoding="utf-8")
    outcome = run("align", "align.par")
    assert outcome.code == 0
    assert "take out of" in outcome.err
    assert "r1" in outcome.err


def test_points_in_reciprocal_space(run, folder, table):
    outcome = run("align", "align.par", "--set", "transform_only=1")
    assert outcome.code == 0, outcome.err
    assert not (folder / "aligned.par").exists()
    text = (folder / "q3d.txt").read_text(encoding="utf-8")
    assert "1/angstrom" in text
    assert "r1 = 20.6, r2 = 34.5, r3 = 10.4" in text
    points = np.loadtxt(folder / "q3d.txt")
    experiment = load_settings(folder / "align.par", command="align").experiment
    assert experiment is not None
    geometry = Geometry(experiment)
    expected = geometry.q_crystal(table.row, table.column, geometry.phi(table.angle_index))
    np.testing.assert_allclose(points[:, :3], expected, atol=1e-6)
    np.testing.assert_allclose(points[:, 3], table.counts, rtol=1e-6)
    np.testing.assert_allclose(read_cloud(folder / "q3d.h5", "file").Q, expected)


@pytest.mark.parametrize(("made", "more"), [([], []), (["transform_only=1"], ["q3d.h5", "-o", "q.html"])])
def test_render(run, folder, table, made, more):
    assert run("align", "align.par", *(["--set", *made] if made else [])).code == 0
    outcome = run("render", *more)
    assert outcome.code == 0, outcome.err
    name = "q" if made else "render"
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", page)
    data = json.loads(re.search('<script type="application/json" id="cloud">(.*)</script>', page)[1])
    assert len(data["x"]) == len(table.row)
    assert ("hkl" in data) != bool(made)
    np.testing.assert_allclose(data["axes"], CELL.B.T)
    if not made:
        q = np.array([data["x"], data["y"], data["z"]]).T
        np.testing.assert_allclose(q, np.array(data["hkl"]) @ CELL.B.T, atol=1e-4)
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["align", "align.par", "--set", "maxima_file=gone.h5"], "maxima_file = "),
        (["align", "align.par", "--set", "variations=3"], '{"r1": [min, max], …}'),
        (["align", "align.par", "--set", "lmbda=1.4"], "no lattice explains"),
        (["align", "conf.par", "--set", "ascii_generators=-3m1"], "does not have the symmetry"),
        (["align"], "no par-file is named"),
        (["render", "maxima.h5"], "without places in reciprocal space; align them first"),
        (["render", "gone.h5"], "there is no such file"),
        (["render", "conf.par"], "not an HDF5 file"),
        (["render"], "maxima_tagged.h5: there is no such file"),
    ],
)
def test_mistakes_are_one_clear_line(run, folder, arguments, says):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    outcome = run(*arguments)
    assert outcome.code == 2
    assert says in outcome.error
    assert {path: path.read_bytes() for path in folder.iterdir() if path.name != "tds2el.log"} == before


def test_a_page_goes_where_a_page_can_be(run, folder):
    assert run("align", "align.par").code == 0
    for place in ("nowhere/page.html", "."):
        outcome = run("render", "-o", place)
        assert outcome.code == 2
        assert "--output" in outcome.error


@pytest.mark.parametrize("member", ["code 2", "code 1, turning back"])
def test_constants_do_not_depend_on_the_member_of_a_class(run, scan, member):
    """Codes that mirror the lattice need another orientation and other hkl; the tensor is the same."""
    conf = load_settings(scan.folder / "input.par").experiment
    assert conf is not None
    U = orientation_of(conf.r1, conf.r2, conf.r3)
    if member == "code 2":
        other, options = -np.diag([1.0, 1.0, -1.0]) @ U, ["orientation_codes=2"]
    else:
        other = -np.diag([1.0, -1.0, 1.0]) @ rotation(3, 2 * conf.phi) @ U
        options = ["orientation_codes=1", f"angular_step={-conf.angular_step}"]
    options += [f"{name}={value!r}" for name, value in zip(("r1", "r2", "r3"), angles_of(other), strict=True)]
    spots = [[-h, -k, -l] for h, k, l in scan.spots]
    fit = ["fitSpots=1", "doMinimisation=1", scan.guess(), "device=numpy", "report=False"]
    results = []
    for more in ([], [*options, f"collectSpots={spots}"]):
        outcome = run("scan/input.par", "--set", *fit, f"save_to_file={len(more)}.h5", "load_from_file=None", *more)
        assert outcome.code == 0, outcome.err
        results.append(read_fit_file(scan.folder / "tds2el_fit.h5").constants.value)
    assert not np.allclose(results[0], [147.1, 1.15 * 85.3, 1.15 * 34, 1.15 * 46.5, 1.15 * 53.7, -1.15 * 20.6])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)
