"""All measurements in one run: make bench, or python bench [--quick] [--device GPU] [--only fit_speed …].

Every script runs as a process of its own, on files and points that it makes itself; no network is needed. The table
says what was measured, what a user would pick instead in the same run, and how many times as much that takes.
Everything goes to a new folder below bench-results/: results.json, with the machine and all versions, and
cost-against-size.png. A script plugs in by a line in SCRIPTS and by ``--json FILE``, see bench/figures.py. Ends with
exit code 1 if a script failed; targets that were missed are marked.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cost_plot import draw_cost
from figures import Figure, table
from machine import cpu_name, describe

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Script:
    """A script of this folder, its arguments in a quick and in a full run, and on how many MPI ranks it runs."""

    name: str
    quick: str
    full: str
    on_device: bool = True
    ranks: int = 1

    def command(self, quick: bool, device: str | None) -> list[str]:
        """Without ``--json``."""
        words = [sys.executable, str(HERE / f"{self.name}.py"), *(self.quick if quick else self.full).split()]
        if self.on_device and device is not None:
            words += ["--device", device]
        if self.ranks > 1:
            words = [str(_mpirun()), "-n", str(self.ranks), *words]
        return words


SCRIPTS = (
    Script("fit_speed", "--points 2e6 --sizes 1e5 1e6 --scipy-points 3e5 --repeats 5", "--sizes 1e5 1e6 1e7 1e8"),
    Script("precision", "--points 5e5", "--points 1e7"),
    Script("load_speed", "--points 2e6 --repeats 1", "--points 1e7"),
    Script("fit_ranks", "--points 2e6", "--points 2e7", ranks=2),
    Script("harvest_speed", "--frames 60 --delta-max 0.05 --repeats 3", "--repeats 3", on_device=False),
    Script("peak_search", "--frames 24 --beside 8 --repeats 1", "", on_device=False),
    Script("volume_speed", "--frames 10 --repeats 1", "", on_device=False),
    Script("interpolation", "--nodes 96 --iterations 50 --more 2e6 --repeats 1", "", on_device=False),
)


def run(script: Script, quick: bool, device: str | None) -> dict[str, object] | None:
    """What the script found; None if it handed nothing over."""
    command = script.command(quick, device)
    print(f"\n$ {' '.join(Path(word).name if word.startswith('/') else word for word in command)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        start = time.perf_counter()
        code = subprocess.run([*command, "--json", str(path)], check=False).returncode
        if not path.is_file():
            print(f"{script.name} ended with exit code {code} and without figures")
            return None
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            found = {"found": found}
        return {**found, "command": command[1:], "seconds": time.perf_counter() - start}


def _mpirun() -> Path | None:
    """That of the environment, else of the path."""
    own = Path(sys.executable).with_name("mpirun")
    found = str(own) if own.is_file() else shutil.which("mpirun")
    return None if found is None else Path(found)


def _chosen(only: list[str] | None) -> list[Script]:
    """The scripts that are here and can run."""
    there = [s for s in SCRIPTS if (HERE / f"{s.name}.py").is_file() and (only is None or s.name in only)]
    return [s for s in there if s.ranks == 1 or _mpirun() is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: 2 to 3 minutes instead of 10 to 15")
    parser.add_argument("--device", help="as the option device; by default a GPU, else the CPU")
    parser.add_argument("--only", nargs="+", metavar="SCRIPT", choices=[script.name for script in SCRIPTS])
    parser.add_argument("--results", type=Path, default=HERE.parent / "bench-results")
    options = parser.parse_args()

    now, machine = datetime.now().astimezone(), describe()
    print("\n".join([f"{machine['cpu']}, {machine['cores']} cores", *machine["devices"]]))
    found = {script.name: run(script, options.quick, options.device) for script in _chosen(options.only)}
    figures: list[Figure] = [f for result in found.values() if result for f in result.get("figures", [])]

    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(.*?\)", "", cpu_name()).lower()).strip("-")
    folder = options.results / f"{now:%Y-%m-%d-%H%M}-{slug}"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"date": now.isoformat(timespec="seconds"), "quick": options.quick, "machine": machine, "results": found}
    (folder / "results.json").write_text(json.dumps(record, indent=1))
    if fit := found.get("fit_speed"):
        draw_cost(fit["cost_against_size"], str(fit["device"]), folder / "cost-against-size.png")
    print(f"\n{table(figures)}\n\nresults in {folder}")
    sys.exit(None in found.values())


if __name__ == "__main__":
    main()
