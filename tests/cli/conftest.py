"""A small scan of calcite, simulated and harvested once, and the command line run on copies of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import tds2el
from tds2el.cli.main import main
from tds2el.parallel import environment_without_launcher

PACKAGES = Path(tds2el.__file__).parents[1]
"""Where this process has the package from; others are to test the same one, from whatever folder."""
MPIRUN = Path(sys.executable).parent / "mpirun"

TRUTH = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
SPOTS = [(-3, 3, 0), (3, -2, -1), (3, -2, -4), (-2, 2, 2), (-1, 2, 9), (1, -1, -10), (1, -1, -4), (0, 2, 10)]
N_FRAMES = 60
VISITED = 25
"""Number of a frame that several spots are seen in."""
SCAN = f"""\
pixel_size = 0.8
dist = 90.0
lmbda = 0.7
det_origin_X = 60.0
det_origin_Y = 50.5
phi = 10.0
angular_step = 0.4
r1 = 20.0
r2 = 35.0
r3 = 10.0
AA = 4.990
BB = AA
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
ascii_generators = "1~,3(z),2(y)"
centring = "R -3 c:H"
constants = {TRUTH}
shape = [121, 101]
gap_rows = [[40, 42]]
n_frames = {N_FRAMES}
n_hot_pixels = 5
count_level = 60
collectSpots = {SPOTS}
DeltaQ_min = 0.04
DeltaQ_max = 0.15
seed = 7
output_folder = "scan"
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error line, without its prefix; whatever else stderr holds must be warnings."""
        lines = [line for line in self.err.splitlines() if not line.startswith("tds2el: warning: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("tds2el: error: "), self.err
        return lines[0].removeprefix("tds2el: error: ")


@dataclass(frozen=True)
class Scan:
    """A folder with frames, mask, monitor, par-files and harvest.h5, below the current folder."""

    folder: Path
    truth = TRUTH
    spots = SPOTS
    text = SCAN
    visited = VISITED

    @property
    def harvest(self) -> Path:
        return self.folder / "harvest.h5"

    def frame(self, number: int) -> Path:
        return self.folder / "frames" / f"scan_{number:05d}.cbf"

    def edit(self, file: str, **options: object) -> None:
        """Give options of a par-file other values, or add them; `...` takes an option out."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        for name, value in options.items():
            text = re.sub(rf"^{name} = .*\n", "", text, flags=re.MULTILINE)
            if value is not ...:
                text += f"{name} = {value!r}\n"
        path.write_text(text, encoding="utf-8")

    def append(self, file: str, text: str) -> int:
        """Add lines to a text file; the number of the first of them."""
        path = self.folder / file
        before = path.read_text(encoding="utf-8")
        path.write_text(before + text + "\n", encoding="utf-8")
        return before.count("\n") + 1

    def contents(self) -> dict[str, bytes]:
        """Every file below the current folder but the log, which is written from the start."""
        paths = (path for path in self.folder.parent.rglob("*") if path.is_file() and path.name != "tds2el.log")
        return {str(path.relative_to(self.folder.parent)): path.read_bytes() for path in paths}

    @staticmethod
    def guess(**entries: object) -> str:
        """``CGUESS=…`` for --set: A11 frozen at the truth, the others started 15 % off, unless given."""
        start: dict[str, object] = {name: [round(1.15 * value, 3), None, None] for name, value in TRUTH.items()}
        start["A11"] = [TRUTH["A11"]] * 3
        return f"CGUESS={ {name: value for name, value in (start | entries).items() if value is not ...} }"


def process(
    arguments: Sequence[object],
    cwd: Path,
    ranks: int = 1,
    program: Sequence[str] = ("-m", "tds2el"),
    **environment: str,
) -> Outcome:
    launcher = [str(MPIRUN), "-n", str(ranks)] if ranks > 1 else []
    done = subprocess.run(
        [*launcher, sys.executable, *program, *map(str, arguments)],
        cwd=cwd,
        env=environment_without_launcher() | {"PYTHONPATH": str(PACKAGES)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture(name="process")
def process_fixture() -> Callable[..., Outcome]:
    """Run the command line as a process of its own, or as MPI ranks."""
    return process


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process."""

    def run_main(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run_main


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scan as the commands made it: not to be changed."""
    folder = tmp_path_factory.mktemp("calcite")
    (folder / "scan.par").write_text(SCAN, encoding="utf-8")
    for arguments in (["simulate-scan", "scan.par"], ["scan/input.par"]):
        done = process(arguments, folder)
        assert done.code == 0, done.err
    (folder / "scan" / "tds2el.log").unlink()
    # Pictures take longer than these fits.
    with (folder / "scan" / "experiment.par").open("a", encoding="utf-8") as file:
        file.write("report = False\n")
    return folder / "scan"


@pytest.fixture
def scan(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scan:
    """A copy of the scan, in a folder below the current one."""
    shutil.copytree(original, tmp_path / "scan")
    monkeypatch.chdir(tmp_path)
    return Scan(tmp_path / "scan")
