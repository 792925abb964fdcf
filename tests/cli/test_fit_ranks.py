"""A fit by several ranks is the fit by one, and ends for all alike."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from .conftest import MPIRUN, SCAN, process

pytestmark = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")

GUESS = {"A11": [147.1] * 3, "A33": [98, 0, 500], "A44": [39, 0, 500], "A66": [53, 0, 500], "A13": [62, -500, 500],
         "A15": [-24, -500, 500]}  # fmt: skip
DISTURBED = SCAN + "zingers = 5.0\nstructured_background = 2.0\nbackground_frames = 20\n"


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    """A scan with zingers and a background, harvested with frames of the latter."""
    folder = tmp_path_factory.mktemp("disturbed")
    (folder / "scan.par").write_text(DISTURBED, encoding="utf-8")
    for command in (["simulate-scan", "scan.par"], ["scan/input.par"]):
        done = process(command, folder)
        assert done.code == 0, done.err
    with (folder / "scan" / "input.par").open("a", encoding="utf-8") as file:
        file.write(
            f"load_from_file = 'harvest.h5'\nfitSpots = True\ndoMinimisation = 1\nreport = False\nCGUESS = {GUESS}\n"
        )
    return folder / "scan"


def fitted(scan: Path, folder: Path, ranks: int, *options: str, **keywords):
    """Datasets of the fit file, numbers of parametri.txt, and the run itself."""
    folder.mkdir()
    outcome = process(
        [scan / "input.par", "--set", *options, f"output_folder={json.dumps(str(folder))}"], folder, ranks, **keywords
    )
    assert outcome.code == 0, outcome.err
    found = {}
    with h5py.File(folder / "tds2el_fit.h5") as file:
        file["entry"].visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    found = {name: np.asarray(value) for name, value in found.items() if not name.startswith("process")}
    numbers = []
    for line in (folder / "parametri.txt").read_text(encoding="utf-8").splitlines()[1:]:
        for word in line.replace(",", " ").split():
            try:
                numbers.append(float(word))
            except ValueError:
                continue
    return found, np.array(numbers), outcome


def assert_same(one, many):
    numbers, others = one[1], many[1]
    assert len(numbers) > 30
    np.testing.assert_allclose(others, numbers, rtol=1e-6, atol=1e-9)  # of errors three digits are written
    assert one[0].keys() == many[0].keys()
    floats = 0
    for name, value in one[0].items():
        other = many[0][name]
        if value.dtype.kind == "f":
            floats += 1
            largest = np.nanmax(np.abs(value), initial=0.0, where=np.isfinite(value))
            # Of columns whose entries are of one kind, what is nearly zero is so only to rounding.
            np.testing.assert_allclose(other, value, rtol=1e-6, atol=1e-7 * largest, err_msg=name)
        elif value.dtype.kind in "iub":
            assert np.array_equal(value, other), name
    assert floats > 40


CASES = {
    "centres": [],
    "geometry": ["A_variables={'r1': minimiser.Variable(0, -2, 2), 'dist': minimiser.Variable(0, -3, 3)}"],
    "everything": ["reject=4", "background_scale='free'", "baseline='linear'", "nred=2"],
    "next order": ["model='next-order'", "dispersion_terms=['T11_1111', 'T33_3333']", "reject=5"],
    "simulation": ["doMinimisation=0", "visSim=1", "testSpot_N=16"],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_result_does_not_depend_on_the_number_of_ranks(disturbed, tmp_path, case, ranks):
    one = fitted(disturbed, tmp_path / "one", 1, *CASES[case])
    many = fitted(disturbed, tmp_path / "many", ranks, *CASES[case])
    assert_same(one, many)
    if case == "everything":
        assert one[0]["spots/foreign"].sum() > 0
    assert f", {ranks} ranks" in many[2].out
    assert many[2].err == one[2].err  # each warning once
    if case == "simulation":
        with h5py.File(tmp_path / "one" / "simtests.h5") as left, h5py.File(tmp_path / "many" / "simtests.h5") as right:
            paths = []
            left.visititems(lambda name, item: paths.append(name) if getattr(item, "ndim", 0) == 3 else None)
            assert len(paths) >= 2
            for path in paths:
                np.testing.assert_allclose(right[path][()], left[path][()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", ["CPU", "numpy"])
def test_a_spot_larger_than_a_fair_share_is_split(disturbed, tmp_path, device):
    """All ranks have a part of the only spot, of which no more than one constant is fitted."""
    guess = {name: [value[0]] * 3 for name, value in GUESS.items()} | {"A33": [98, 0, 500]}
    options = ["collectSpots=[[3, -2, -1]]", f"CGUESS={guess}", "reject=5", f"device={device}"]
    one = fitted(disturbed, tmp_path / "one", 1, *options)
    assert one[0]["spots/hkl"].shape == (1, 3)
    assert_same(one, fitted(disturbed, tmp_path / "three", 3, *options))


def test_the_choice_of_spots_in_a_first_fit(disturbed, tmp_path):
    options = ['collectSpots="auto"', "n_spots=4", "fit_centres=0"]
    one = fitted(disturbed, tmp_path / "one", 1, *options)
    assert len(one[0]["spots/hkl"]) == 4
    assert_same(one, fitted(disturbed, tmp_path / "two", 2, *options))


# Faults of one rank

FAULT = """
import os, signal, sys
import numpy as np
from tds2el.cli.main import main
from tds2el.errors import InputError
from tds2el.fit import data
from tds2el.harvest.file import HarvestFile
from tds2el.model.opencl_engine import OpenCLEngine
mine = os.environ["PMI_RANK"] == {rank!r}
passes = 0
def replaced(owner, name, before):
    method = getattr(owner, name)
    def with_fault(*arguments, **keywords):
        if mine:
            before(arguments)
        return method(*arguments, **keywords)
    setattr(owner, name, with_fault)
def later(arguments):
    global passes
    passes += 1
    if passes == 3:
        {fault}
{place}
sys.exit(main())
"""
FAULTS = {
    "file": ("HarvestFile, '__init__'", "raise InputError('load_from_file: unreadable on this node')"),
    "points": ("HarvestFile, 'points'", "raise InputError('harvest.h5: damaged')"),
    "engine": ("OpenCLEngine, '__init__'", "raise InputError('the OpenCL device has no room')"),
    "pass": ("OpenCLEngine, 'evaluate'", "raise InputError('the OpenCL device failed')"),
    "curve": ("OpenCLEngine, 'intensity'", "raise InputError('the OpenCL device failed')"),
    "system": ("OpenCLEngine, 'evaluate'", "raise OSError(5, 'Input/output error')"),
    "interrupt": ("OpenCLEngine, 'evaluate'", "os.kill(os.getpid(), signal.SIGINT)"),
    "end of the job": ("OpenCLEngine, 'intensity'", "os.kill(os.getpid(), signal.SIGTERM)"),
    "mistake of ours": ("OpenCLEngine, 'evaluate'", "raise ValueError('mistake')"),
}


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_rank_ends_all(disturbed, tmp_path, name, rank):
    place, fault = FAULTS[name]
    at_once = name in ("file", "engine")
    program = FAULT.format(rank=rank, fault=fault, place=f"passes = {2 if at_once else 0}\nreplaced({place}, later)")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "tds2el_fit.h5").write_bytes(b"earlier result")
    outcome = process(
        [disturbed / "input.par", "--set", f"output_folder={json.dumps(str(folder))}"],
        tmp_path,
        2,
        program=("-c", program),
    )
    if name == "mistake of ours":
        assert "ValueError: mistake" in outcome.err
        assert outcome.code not in (0, 2)
    elif fault.startswith("os.kill"):
        assert outcome.code == 130
        assert "tds2el: interrupted" in outcome.err
        assert "Traceback" not in outcome.err
    else:
        assert outcome.code == 2
        assert ("Input/output error" if name == "system" else fault.split("'")[1]) in outcome.error
    assert (folder / "tds2el_fit.h5").read_bytes() == b"earlier result"
    if name != "mistake of ours":  # which ends all at once
        assert not list(folder.glob(".*"))
