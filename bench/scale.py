"""Absolute constants over many noise realisations: from Bragg intensities with extinction, and from a known modulus.

Every realisation goes the whole way: Poisson counts into CBF frames, harvest, fit, integration of Bragg peaks, fit. The
strongest peak lacks 5 % of its intensity. Neighbouring halos and the width of frames, whose bias is no question here,
are left out. The known bulk modulus is drawn anew with its error of 2 %. Prints mean and standard deviation of the
pulls (found − true)/σ and writes all results to a JSON file; ends with exit code 1 if a mean lies beyond ±0.3 or a
deviation outside 0.8 to 1.25. 100 realisations take about 10 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from pulls import Constants, RememberedScan, summarise
from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.moduli import voigt_reuss_hill
from tds2el.crystal.symmetry import point_group
from tds2el.fit.bragg_scan import bragg_scale, constants_at_scale
from tds2el.fit.data import fit_data
from tds2el.fit.fit import fit
from tds2el.fit.known import known_from_option
from tds2el.fit.parameters import constants_from_guess
from tds2el.harvest.collect import harvest
from tds2el.harvest.file import HarvestFile
from tds2el.parallel import World
from tds2el.settings import load_settings
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import Scan, load_scan
from tds2el.simulate.scan import simulate_scan

LARGEST_MEAN = 0.3
DEVIATIONS = (0.8, 1.25)
KNOWN_ERROR = 0.02
SCAN = """\
pixel_size = 0.3
dist = 90.0
lmbda = 0.45
det_origin_X = 133.0
det_origin_Y = 133.5
phi = 10.0
angular_step = 0.25
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
constants = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
shape = [267, 267]
n_frames = 200
n_hot_pixels = 5
count_level = 60
n_spots = 14
cut_radius = 0.09
DeltaQ_min = 0.12
DeltaQ_max = 0.2
peak_width = 0.0052
attenuation = 1.0
extinction = 0.05
count_cutoff = 100000000
seed = 7
output_folder = "."
"""


def realisation(folder: Path, scan: Scan, seed: int, device: str, processes: int) -> dict[str, Constants]:
    """Value and σ of every constant by both routes, with the noise of one seed."""
    own = folder / f"seed{seed}"
    world = World(node_size=processes)
    virtual = RememberedScan(
        replace(scan, noise_seed=seed, output_folder=own), np.load(folder / "expected.npy", mmap_mode="r")
    )
    input_file = simulate_scan(virtual, world, lambda frames, total: frames)
    settings = load_settings(input_file, ["doMinimisation=1", "bragg_scale=1", f"device={device}"])
    group = point_group(scan.ascii_generators, Cell(*scan.cell.parameters), scan.centring)
    structure = tensor_structure(group)
    guess = {name: (0.8 * value, -np.inf, np.inf) for name, value in virtual.constants.items()}
    constants = constants_from_guess(guess, structure)
    bulk = voigt_reuss_hill(virtual.stiffness).bulk_reuss
    drawn = np.random.default_rng((seed, 11)).normal(bulk, KNOWN_ERROR * bulk)
    known = known_from_option({"K_Reuss": (drawn, KNOWN_ERROR * bulk, "isothermal")}, structure, group.cell, None)
    state = {"temperature": scan.Temperature, "density": scan.density}
    results = {}
    with HarvestFile(harvest(settings, world)) as file:
        data = fit_data(file, np.arange(file.n_blobs))
        results["known"] = fit(data, replace(constants, known=known), settings.fit, **state).result
        first = fit(data, constants, settings.fit, **state)
        at_scale = constants_at_scale(constants, first, bragg_scale(first, file, settings))
        results["bragg"] = fit(data, at_scale, settings.fit, **state).result
    shutil.rmtree(own)
    return {
        route: {
            name: [float(v), float(s)]
            for name, v, s in zip(structure.names, result.values, result.errors.largest, strict=True)
        }
        for route, result in results.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--realisations", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="CPU", help="as the option device")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("scale.json"))
    options = parser.parse_args()

    began = time.monotonic()
    memory = Path("/dev/shm")
    found: dict[str, dict[int, Constants]] = {"known": {}, "bragg": {}}
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        (folder / "scan.par").write_text(SCAN, encoding="utf-8")
        virtual = VirtualScan(replace(load_scan(folder / "scan.par"), substeps=1))
        np.save(folder / "expected.npy", [virtual.expected(frame) for frame in range(virtual.scan.n_frames)])
        seeds = range(1, options.realisations + 1)
        tasks = [(folder, virtual.scan, seed, options.device, options.processes) for seed in seeds]
        with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
            for seed, both in zip(seeds, pool.map(realisation, *zip(*tasks, strict=True)), strict=True):
                for route, constants in both.items():
                    found[route][seed] = constants
                if seed % 10 == 0:
                    print(f"{seed} of {len(seeds)} realisations", file=sys.stderr)
    print(f"{len(seeds)} realisations in {time.monotonic() - began:.0f} s")
    summary = {route: summarise(virtual.constants, of_seed) for route, of_seed in found.items()}
    for route, rows in summary.items():
        print(f"{route:6}{'true':>9}{'mean sigma':>12}{'pull mean':>11}{'pull std':>10}")
        for constant, row in rows.items():
            numbers = f"{row['mean_sigma']:12.3f}{row['pull_mean']:11.3f}{row['pull_std']:10.3f}"
            print(f"{constant:6}{row['true']:9.2f}{numbers}")
    record = {"summary": summary, "found_value_and_sigma_GPa": found}
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    passed = all(
        abs(row["pull_mean"]) <= LARGEST_MEAN and DEVIATIONS[0] <= row["pull_std"] <= DEVIATIONS[1]
        for rows in summary.values()
        for row in rows.values()
    )
    print("within the limits" if passed else "OUTSIDE the limits")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
