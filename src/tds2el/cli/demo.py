"""`tds2el demo`: from a simulated scan of calcite to its elastic constants, by the commands a user would type."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tds2el.errors import InputError
from tds2el.parallel import World, environment_without_launcher

HELP = "simulate a scan of calcite, harvest it, fit it, and compare with the truth"

_RANKS = 2
_FROZEN = "A11"
# Start values are this much off, so that there is something to fit.
_START = 1.2
# A result farther off is no agreement; a standard deviation above this part of A11 is no measurement.
_MAX_PULL = 3.0
_MAX_SIGMA = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--folder", type=Path, default=Path("tds2el-demo"), help="where to write (default: %(default)s)"
    )


def run(arguments: argparse.Namespace, world: World) -> None:
    """Simulate, harvest, show the structure of the tensor, fit and compare.

    Raises
    ------
    InputError
        If a step fails, or the fit does not find the true constants.
    """
    from tds2el.cli import simulate_scan
    from tds2el.simulate.calcite import CALCITE_SCAN

    if world.size > 1:
        raise InputError("tds2el demo starts its own MPI ranks: run it without a launcher")
    folder = arguments.folder.resolve()
    scan_file = folder / "scan.par"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scan_file.write_text(CALCITE_SCAN, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--folder {folder}: cannot be written ({error.strerror}); choose another folder") from None
    print(f"All files of this demo are in {folder}; scan.par describes the crystal and the experiment.", flush=True)
    print(f"\n$ cd {shlex.quote(str(folder))}\n$ tds2el simulate-scan scan.par", flush=True)
    simulate_scan.run(argparse.Namespace(scan=scan_file), world)

    _step(["input.par"], folder, _launcher())
    fit = ["input.par", "--set", "load_from_file=harvest.h5", "--set", "fitSpots=True"]
    _step(fit, folder)
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))["constants_GPa"]
    _step([*fit, "--set", f"CGUESS={_guess(truth)}", "--set", "doMinimisation=1"], folder)
    _compare(folder / "parametri.txt", truth)


def _launcher() -> list[str]:
    """The mpirun of this environment: one of another MPI would start ranks that do not see each other."""
    launcher = Path(sys.executable).with_name("mpirun")
    if launcher.exists():
        return [str(launcher), "-n", str(_RANKS)]
    print(f"\nNo mpirun beside {sys.executable} (the extra [mpi] brings one): harvesting on one rank.")
    return []


def _guess(truth: dict[str, float]) -> str:
    """CGUESS with the first constant frozen at the truth and the others started off it."""
    entries = (
        f'"{name}": [{value:.6g}, {value:.6g}, {value:.6g}]'
        if name == _FROZEN
        else f'"{name}": [{_START * value:.4g}, -300, 300]'
        for name, value in truth.items()
    )
    return "{" + ", ".join(entries) + "}"


def _step(arguments: list[str], folder: Path, launcher: list[str] | None = None) -> None:
    """Run tds2el as a user would, showing the command."""
    launcher = launcher or []
    shown = [Path(word).name for word in launcher[:1]] + launcher[1:] + ["tds2el", *arguments]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    command = [*launcher, sys.executable, "-m", "tds2el", *arguments]
    code = subprocess.run(command, cwd=folder, env=environment_without_launcher(), check=False).returncode
    if code:
        raise InputError(f"the demo's step '{shlex.join(shown)}' ended with exit code {code}")


def _compare(results: Path, truth: dict[str, float]) -> None:
    """Print found against true constants; an error if they disagree."""
    found = _read_results(results, list(truth))
    scale = truth[_FROZEN]
    print("\nFound and true constants in GPa, working frame (a* ∥ x, c ∥ z):")
    print(f"{'':8}{'found':>10}{'sigma':>9}{'true':>10}{'(found - true)/sigma':>23}{'sigma/A11':>12}")
    failures = []
    for name, true in truth.items():
        value, sigma = found[name]
        if name == _FROZEN:
            print(f"{name:8}{value:10.3f}{'frozen':>9}{true:10.3f}")
            continue
        pull = (value - true) / sigma
        print(f"{name:8}{value:10.3f}{sigma:9.3f}{true:10.3f}{pull:23.2f}{100 * sigma / scale:10.2f} %")
        if not (abs(pull) <= _MAX_PULL and sigma <= _MAX_SIGMA * scale):
            failures.append(name)
    if failures:
        raise InputError(
            f"the demo's fit misses {', '.join(failures)}: more than {_MAX_PULL:g} sigma off, or sigma above "
            f"{100 * _MAX_SIGMA:g} % of {_FROZEN}"
        )
    print(
        f"Every constant is within {_MAX_PULL:g} sigma of the truth, every sigma below {100 * _MAX_SIGMA:g} % of A11."
    )


def _read_results(results: Path, names: list[str]) -> dict[str, tuple[float, float]]:
    """Value and sigma of constants from a parametri.txt; a frozen one has sigma 0."""
    text = results.read_text(encoding="utf-8")
    found = {}
    for name in names:
        line = re.search(rf"^{name} = (\S+)(?:\s*#.*?sigma\s+([\d.eE+-]+))?", text, re.MULTILINE)
        if line is None:
            raise InputError(f"{results} does not hold {name}")
        found[name] = (float(line[1]), float(line[2]) if line[2] else 0.0)
    return found
