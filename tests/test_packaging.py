"""The installed package: what it brings, what it does not drag in, and how fast it answers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

import tds2el
from tds2el.parallel import environment_without_launcher

HEAVY = {"numpy", "scipy", "h5py", "fabio", "gemmi", "matplotlib", "mpi4py", "PIL", "pyopencl", "tqdm", "tds2el._core"}
# Put before a program: what it names cannot be imported.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['mpi4py', 'pyopencl']));"


def python(*arguments: str, cwd: Path) -> str:
    """Output of a Python process that has the same package as this one."""
    environment = environment_without_launcher() | {"PYTHONPATH": str(Path(tds2el.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def distribution() -> metadata.Distribution:
    try:
        return metadata.distribution("tds2el")
    except metadata.PackageNotFoundError:
        pytest.skip("tds2el is not installed: it runs from the source tree")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(tmp_path: Path, argument: str) -> None:
    program = f"import sys; from tds2el.cli.main import main; main([{argument!r}]); print(*sys.modules)"
    modules = set(python("-c", program, cwd=tmp_path).splitlines()[-1].split())
    assert "tds2el.cli.main" in modules
    assert not modules & HEAVY


def test_version_from_any_folder(tmp_path: Path) -> None:
    assert python("-m", "tds2el", "--version", cwd=tmp_path) == f"tds2el {tds2el.__version__}\n"


def test_a_single_process_harvests_and_fits_without_mpi4py_and_pyopencl(tmp_path: Path) -> None:
    scan = (Path(__file__).parent / "simulate" / "small.par").read_text(encoding="utf-8")
    (tmp_path / "scan.par").write_text(scan, encoding="utf-8")
    fit = ["fitSpots=True", "doMinimisation=1", "CGUESS=auto", "device=numpy"]
    for command in (["simulate-scan", "scan.par"], ["scan/input.par", "--set", *fit]):
        python("-c", f"{WITHOUT} from tds2el.cli.main import main; sys.exit(main({command!r}))", cwd=tmp_path)
    assert "A11 = " in (tmp_path / "scan" / "parametri.txt").read_text(encoding="utf-8")


def test_data_files_are_installed(distribution: metadata.Distribution) -> None:
    package = resources.files("tds2el")
    assert package.joinpath("py.typed").is_file()
    assert package.joinpath("_core.pyi").is_file()
    assert package.joinpath("view", "report.css").is_file()
    assert package.joinpath("view", "report.js").is_file()
    assert package.joinpath("view", "cloud.js").is_file()
    sources = Path(__file__).parents[1] / "kernels"
    for source in [*sources.glob("*.cl"), *sources.glob("*.h")]:
        assert package.joinpath("kernels", source.name).read_bytes() == source.read_bytes()
    assert {"tds2el/kernels/gram.cl", "tds2el/py.typed"} <= {str(file) for file in distribution.files or ()}


def test_metadata(distribution: metadata.Distribution) -> None:
    assert distribution.version == tds2el.__version__
    assert distribution.metadata["License-Expression"] == "MIT"
    commands = {c.name: c.value for c in distribution.entry_points.select(group="console_scripts")}
    assert commands["tds2el"] == "tds2el.cli.main:main"
    assert commands["tds2el_extract_maxima"] == "tds2el.cli.extract_maxima:main"
    assert commands["tds2el_analyse_maxima_fourier"] == "tds2el.cli.align:main"
    assert commands["tds2el_rendering"] == "tds2el.cli.render:main"


def test_only_extras_bring_an_mpi_runtime_and_an_opencl_driver(distribution: metadata.Distribution) -> None:
    lines = distribution.requires or []
    plain = [line for line in lines if "extra ==" not in line]
    assert {"mpi4py", "pyopencl"} <= {re.split(r"[^\w-]", line)[0] for line in plain}
    assert not [line for line in plain if re.search("mpich|openmpi|pocl", line)]
    extras = {line.split(";")[0].strip() for line in lines if "extra ==" in line}
    assert {"mpich", "pyopencl[pocl]"} <= extras
