"""The demo's own work: what it runs, and its verdict on the results."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tds2el.cli import demo
from tds2el.errors import InputError
from tds2el.parallel import World

TRUTH = {"A11": 147.1, "A33": 85.3, "A15": -20.6}
RESULTS = """\
A11 = 147.1   # frozen, start 147.1, bounds 147.1 147.1, GPa
A33 = {A33}   # sigma 0.75, start 102, bounds -300 300, GPa
A15 = -20.5   # sigma {sigma}, start -24, bounds -300 300, GPa
"""


def write_results(folder: Path, A33: float = 85.0, sigma: float = 0.2) -> Path:
    path = folder / "parametri.txt"
    path.write_text(RESULTS.format(A33=A33, sigma=sigma), encoding="utf-8")
    return path


def test_agreement_is_a_table_with_pulls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo._compare(write_results(tmp_path), TRUTH)
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith("A")}
    assert rows["A11"] == ["147.100", "frozen", "147.100"]
    assert rows["A33"] == ["85.000", "0.750", "85.300", "-0.40", "0.51", "%"]
    assert "Every constant is within 3 sigma" in out


@pytest.mark.parametrize("fault", [{"A33": 88.0}, {"sigma": 1.6}])
def test_disagreement_is_an_error(tmp_path: Path, fault: dict[str, float]) -> None:
    with pytest.raises(InputError, match="A33" if "A33" in fault else "A15"):
        demo._compare(write_results(tmp_path, **fault), TRUTH)


def test_missing_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold A44"):
        demo._compare(write_results(tmp_path), {**TRUTH, "A44": 34.0})


def test_a_failing_step_is_shown_and_ends_the_demo(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"step 'tds2el absent.par' ended with exit code 2"):
        demo._step(["absent.par"], tmp_path)
    out, err = capfd.readouterr()
    assert "$ tds2el absent.par" in out
    assert "absent.par" in err


def test_guess_freezes_a11_and_starts_the_others_off_the_truth() -> None:
    assert demo._guess(TRUTH) == (
        '{"A11": [147.1, 147.1, 147.1], "A33": [102.4, -300, 300], "A15": [-24.72, -300, 300]}'
    )


def test_ranks_are_refused(tmp_path: Path) -> None:
    import argparse

    with pytest.raises(InputError, match="without a launcher"):
        demo.run(argparse.Namespace(folder=tmp_path / "new"), World(rank=0, size=2))
    assert not (tmp_path / "new").exists()


def test_launcher_is_looked_for_beside_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert demo._launcher() == []
    assert "no mpirun beside" in capsys.readouterr().out.lower()
    (tmp_path / "mpirun").touch()
    assert demo._launcher() == [str(tmp_path / "mpirun"), "-n", "2"]
