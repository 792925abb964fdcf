"""Mistakes in scan.par: one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tds2el.cli.main import main
from tds2el.errors import InputError
from tds2el.simulate.calcite import CALCITE_SCAN
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import load_scan, options_markdown

SMALL = (Path(__file__).parent / "small.par").read_text(encoding="utf-8")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("n_frame = 3", r"scan.par:\d+: 'n_frame' is no option of simulate-scan, .*did you mean 'n_frames'\?"),
        ("xyzzy = 3", r"'xyzzy' is no option.*docs/simulate-scan.md"),
        ("substeps = 4", r"substeps = 4: must be"),
        ("substeps = 6", r"substeps = 6: must be an odd"),
        ("shape = [61]", r"shape = \[61\]: "),
        ("gap_rows = [[3, 2]]", r"gap_rows = .*first <= last"),
        ("gap_rows = [[58, 61]]", r"gap_rows reaches beyond the frame, which ends at 60"),
        ("elastic_tensor = [[1, 2, 3]]", r"6 rows"),
        ("elastic_tensor = [[1, 0, 0, 0, 0, 0]] * 6", r"either constants or elastic_tensor"),
        ("constants = None", r"either constants or elastic_tensor"),
        ("count_level = 0", r"count_level = 0: must be a positive"),
        ("DeltaQ_min = 0.2", r"DeltaQ_min = 0.2 must be below DeltaQ_max"),
        ("seed = -1", r"seed = -1"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, added: str, message: str) -> None:
    path = tmp_path / "scan.par"
    path.write_text(SMALL + added + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_scan(path)


@pytest.mark.parametrize("name", ["lmbda", "n_frames", "AA", "ascii_generators", "output_folder", "DeltaQ_max"])
def test_missing_options_are_named(tmp_path: Path, name: str) -> None:
    lines = [line for line in SMALL.replace("BB = AA", "BB = 4.990").splitlines() if not line.startswith(f"{name} =")]
    path = tmp_path / "scan.par"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_scan(path)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('constants = {"A11": 100.0, "A12": 50.0}', r"free ones of this symmetry are A11, A33, A44, A66, A13, A15"),
        (
            'constants = {"A11": 147.1, "A33": 85.3, "A44": 4.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}',
            r"unstable \(lowest eigenvalue -",
        ),
        ("collectSpots = [[1, 0, 4], [1, 0, 0]]", r"\[1, 0, 0\] is absent with centring R -3 c:H"),
        ("n_frames = 2", r"no reflection passes as a whole"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, added: str, message: str) -> None:
    path = tmp_path / "scan.par"
    path.write_text(SMALL + added + "\n", encoding="utf-8")
    virtual = VirtualScan(load_scan(path))
    with pytest.raises(InputError, match=message):
        _ = virtual.constants, virtual.spots


def test_tensor_of_the_standard_frame_is_turned_into_the_working_frame(tmp_path: Path) -> None:
    path = tmp_path / "scan.par"
    path.write_text(CALCITE_SCAN, encoding="utf-8")
    constants = VirtualScan(load_scan(path)).constants
    expected = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
    assert constants == pytest.approx(expected, abs=1e-9)
    path.write_text(CALCITE_SCAN + 'tensor_frame = "W"\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"differs from the symmetry .* by .* GPa"):
        _ = VirtualScan(load_scan(path)).constants


def test_command_line_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.par"
    path.write_text(SMALL + "count_levl = 3\n", encoding="utf-8")
    assert main(["simulate-scan", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "did you mean 'count_level'?" in err
    assert not (tmp_path / "scan").exists()


def test_helpers_and_the_last_assignment_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scan.par"
    path.write_text(SMALL + "half = 3\nn_frames = 2 * half\n", encoding="utf-8")
    assert load_scan(path).n_frames == 6
    assert "n_frames is assigned again" in caplog.text


def test_paths_are_relative_to_the_file(scan_file: Path) -> None:
    scan = load_scan(scan_file)
    assert scan.output_folder == scan_file.parent / "scan"
    np.testing.assert_array_equal(scan.cell.parameters, (4.99, 4.99, 17.061, 90, 90, 120))


def test_the_page_of_options_is_up_to_date() -> None:
    assert (DOCS / "simulate-scan.md").read_text(encoding="utf-8") == options_markdown()
