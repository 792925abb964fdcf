"""The tutorial: its steps lead from rough geometry to the true constants, and its page shows these steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tds2el.fit.read import read_fit_file
from tds2el.parfile import read_parfile

DOCS = Path(__file__).parents[2] / "docs"
TRUE = {"dist": 100.0, "det_origin_X": 206.0, "det_origin_Y": 162.0, "r1": 20.0, "r2": 35.0, "r3": 10.0}
"""Of the small scan."""


@pytest.fixture
def tutorial(monkeypatch):
    """The script."""
    monkeypatch.syspath_prepend(DOCS)
    import tutorial

    return tutorial


def test_all_steps_on_a_small_scan(tutorial, tmp_path):
    page = tutorial.Tutorial(tmp_path, tutorial.SMALL).page()

    aligned = {a.name: a.value for a in read_parfile(tmp_path / "aligned.par").assignments}
    rough = {a.name: a.value for a in read_parfile(tmp_path / "experiment.par").assignments}
    for name, value in TRUE.items():
        assert abs(rough[name] - value) > 0.2
        assert aligned[name] == pytest.approx(value, abs=0.01)
    fit = read_fit_file(tmp_path / "tds2el_fit.h5")
    truth = json.loads((tmp_path / "beamline" / "truth.json").read_text("utf-8"))["constants_GPa"]
    pulls = (fit.constants.value[1:] - [truth[name] for name in fit.constants.names[1:]]) / fit.constants.sigma[1:]
    assert abs(pulls).max() < 3
    assert (fit.constants.sigma[1:] < 0.02 * truth["A11"]).all()
    assert fit.chi2 / fit.dof == pytest.approx(1, abs=0.02)
    assert not fit.warnings

    assert str(tmp_path) not in page
    for _, _, source in tutorial.PICTURE.findall(page):
        assert (tmp_path / source).read_bytes().startswith(b"\x89PNG")

    # Had the fit missed the truth, there would be no page.
    (tmp_path / "beamline" / "truth.json").write_text(
        json.dumps({"constants_GPa": truth | {"A33": truth["A33"] + 10}}), "utf-8"
    )
    with pytest.raises(SystemExit, match="more than 3 sigma off: A33"):
        tutorial.Tutorial(tmp_path)._truth(None, "")


def test_page_in_step(tutorial):
    template, page = (path.read_text("utf-8") for path in (tutorial.TEMPLATE, tutorial.PAGE))
    assert tutorial.without_outputs(page) == tutorial.without_outputs(template), "make tutorial makes the page again"
    pictures = [DOCS / name for _, name, _ in tutorial.PICTURE.findall(template)]
    assert len(pictures) >= 5
    assert sum(path.stat().st_size for path in pictures) < 1_000_000
    assert {path.name for path in (DOCS / "images").iterdir()} >= {path.name for path in pictures}


def test_another_command_or_sentence_puts_the_page_out_of_step(tutorial):
    template, page = (path.read_text("utf-8") for path in (tutorial.TEMPLATE, tutorial.PAGE))
    for part in ("tds2el align peaks.par\n", "dist = 100.3", "**Look for** straight rows", "tutorial-render.png"):
        assert part in template
        changed = template.replace(part, part.upper())
        assert tutorial.without_outputs(page) != tutorial.without_outputs(changed)


def test_a_command_that_fails_ends_the_script(tutorial, tmp_path):
    with pytest.raises(SystemExit, match="ended with exit code 2"):
        tutorial.Tutorial(tmp_path)._run(None, "tds2el absent.par\n")


@pytest.mark.parametrize(
    ("patterns", "shown"),
    [
        ([], "a 1\nb\nc\nd 2\ne\n"),
        (["a", "d"], "a 1\n…\nd 2\n…\n"),
        (["b ... d"], "…\nb\nc\nd 2\n…\n"),
        ([r"\d$", "e"], "a 1\n…\ne\n"),
    ],
)
def test_lines_that_are_shown(tutorial, patterns, shown):
    assert tutorial.select("a 1\nb\nc\nd 2\ne\n", patterns) == shown


def test_a_line_that_the_text_speaks_of_must_be_there(tutorial):
    with pytest.raises(SystemExit, match="no line of the output has 'f'"):
        tutorial.select("a\n", ["f"])
