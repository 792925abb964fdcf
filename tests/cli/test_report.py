"""The report at the end of a fit and from its file alone; how much a run shows."""

import re

import numpy as np
import pytest

from tds2el.fit.read import read_fit_file

FIT = ("load_from_file=scan/harvest.h5", "fitSpots=1", "doMinimisation=1", "CGUESS=auto")


def test_a_fit_ends_with_a_report_that_can_be_made_again_elsewhere(run, scan, tmp_path):
    outcome = run("scan/input.par", "--set", *FIT, "report=True")
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith(f"report in {scan.folder}/report.html\n")
    page = (scan.folder / "report.html").read_text(encoding="utf-8")
    for h, k, l in scan.spots:
        assert re.search(f'"{h}">.*"{k}">.*"{l}">', page)
    names = {path.name for path in (scan.folder / "figures").iterdir()}
    assert {"profiles_1.png", "pulls.png", "worst_spots.png", "correlations.png", "slowness.png"} <= names
    assert page.count('<img src="data:image/png;base64,') == len(names)

    elsewhere = tmp_path / "mailed <b> & co"
    elsewhere.mkdir()
    (scan.folder / "tds2el_fit.h5").rename(elsewhere / "tds2el_fit.h5")
    scan.folder.rename(tmp_path / "gone")
    outcome = run("report", elsewhere / "tds2el_fit.h5", "-o", tmp_path / "page.html")
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"report in {tmp_path}/page.html\n"
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["report"], "tds2el_fit.h5: there is no such file"),
        (["report", "scan/harvest.h5"], "scan/harvest.h5: not a fit of tds2el"),
        (["report", "scan/monitor.txt"], "scan/monitor.txt: not readable as HDF5"),
        (["report", "scan", "-o", "nowhere/page.html"], "--output nowhere/page.html"),
        (["report", "scan", "-o", "scan"], "--output scan"),
        (["scan/input.par", "--quiet", "--verbose"], "not allowed with argument --quiet"),
    ],
)
def test_mistakes_are_one_clear_line(run, scan, arguments, says):
    outcome = run(*arguments)
    assert outcome.code == 2
    assert says in outcome.error
    assert not list(scan.folder.parent.rglob("*.html"))


def test_without_report_none_is_written(run, scan):
    assert run("scan/input.par", "--set", *FIT, "report=0").code == 0
    assert (scan.folder / "parametri.txt").exists()
    assert not (scan.folder / "report.html").exists()
    assert not (scan.folder / "figures").exists()


def test_without_curve_the_tables_are_the_same(run, scan):
    fit, parametri = scan.folder / "tds2el_fit.h5", scan.folder / "parametri.txt"
    assert run("scan/input.par", "--set", *FIT, "report=0").code == 0
    whole = read_fit_file(fit)
    outcome = run("scan/input.par", "--set", *FIT, "fitted_curve=0", "report=1")
    assert outcome.code == 2
    assert "report = False" in outcome.error
    size = fit.stat().st_size
    assert run("scan/input.par", "--set", *FIT, "fitted_curve=0", "report=0").code == 0
    assert fit.stat().st_size < size
    tables = read_fit_file(fit)
    assert np.array_equal(tables.constants.value, whole.constants.value)
    assert np.array_equal(tables.spots.factor, whole.spots.factor)
    assert "A33" in parametri.read_text(encoding="utf-8")
    outcome = run("report", scan.folder)
    assert outcome.code == 2
    assert "fitted_curve = False" in outcome.error


def test_quiet_shows_warnings_only_and_verbose_the_iterations(run, scan):
    again = f"collectSpots={[*scan.spots, scan.spots[0]]}"
    quiet = run("scan/input.par", "--quiet", "--set", *FIT, again)
    assert (quiet.code, quiet.out) == (0, "")
    assert "tds2el: warning: " in quiet.err
    assert "ELASTIC CONSTANTS" in (scan.folder / "tds2el.log").read_text(encoding="utf-8")
    verbose = run("scan/input.par", "--set", *FIT, "--verbose")
    assert verbose.code == 0
    assert "ELASTIC CONSTANTS" in verbose.out
    for part in ("deviance ", "load points: ", "fit: ", "write curves: "):
        assert part in verbose.out
    assert "accepted: A11" not in run("scan/input.par", "--set", *FIT).out
