"""Speed and memory of the fit: passes over synthetic points with the constants of calcite, centres and corrections.

    python bench/fit_speed.py [--points 2e7] [--device CPU] [--json FILE]

A pass is everything that an iteration does after the first: parameters to the device, kernel, sums back, elimination
of the spots' own parameters, and the bounded step. It is measured for the constants alone, for them with the offsets of
the spots' centres, and for them with all 14 corrections to geometry and cell. Memory is the peak of the process minus
what it had before the points were loaded. The plain numpy engine runs on a part of the points beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator

import numpy as np

from tds2el.corrections import corrections_from_value
from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.fit.common import Common, SpotTerms
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Constants
from tds2el.fit.retune import make_retuning
from tds2el.model.device import make_engine
from tds2el.model.engine import Conditions, Engine, Piece, Points, State
from tds2el.parfile import Variable
from tds2el.settings import Experiment

CALCITE = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
CELL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
CONDITIONS = Conditions(300.0, 2.71)
EXPERIMENT = Experiment(
    pixel_size=0.172, dist=100.0, lmbda=0.7, beam_tilt_angle=0.0, det_origin_X=309.0, det_origin_Y=243.0, d1=1.0,
    d2=2.0, theta=0.0, theta_offset=0.0, omega=5.0, omega_offset=0.0, alpha=50.0, beta=3.0, kappa=20.0, phi=0.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=0, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
PIECE = 1 << 20


def synthetic_points(n_points: int, hkl: np.ndarray, pixels: bool) -> Points:
    """Points made as they are read, so that they take no memory: halos ∝ 1/q², 3 counts per pixel."""
    n_blobs = len(hkl)
    size = n_points // n_blobs
    nodes = hkl @ CELL.B.T

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        end = size if stop is None else min(size, stop)
        for begin in range(start - start % PIECE, end, PIECE):
            part = slice(max(start - begin, 0), end - begin)
            n = min(PIECE, size - begin)
            random = np.random.default_rng([blob, begin])
            q = random.normal(size=(n, 3))
            q *= (random.uniform(0.0093, 0.035, n) / np.linalg.norm(q, axis=1))[:, None]
            shape = 3e-4 / np.sum(q * q, axis=1)
            where = {}
            if pixels:
                where = {"row": random.uniform(0, 600, n), "column": random.uniform(0, 480, n),
                         "phi": random.uniform(0, 90, n)}  # fmt: skip
            counts = random.poisson(shape + 2).astype(float)
            yield Piece(*(a[part] for a in (q, counts, np.ones(n))), **{k: a[part] for k, a in where.items()})

    mean = np.array([next(pieces(blob)).counts.mean() for blob in range(n_blobs)])
    return Points(nodes, np.full(n_blobs, size), mean, np.ones(n_blobs), 0.035, pieces, 0.009, pixels=pixels)


def seconds_per_pass(engine: Engine, points: Points, common: Common, repeats: int) -> float:
    """Median over repeats of one full iteration."""
    minimiser = Minimiser(engine, points, common, CONDITIONS)
    n = len(points.nodes)
    values = common.start
    offset = np.zeros((n, 3)) if common.terms.centre else None
    state = common.placed(State(np.eye(6), np.full(n, 0.02), np.full(n, 2.0), offset=offset), values)
    times, nothing = [], np.zeros(n, dtype=bool)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        sums = engine.evaluate(state)
        minimiser._step(minimiser._system(sums, state, values, nothing, np.zeros(n)), values)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def peak_bytes() -> int:
    """Largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=float, default=2e7)
    parser.add_argument("--blobs", type=int, default=40)
    parser.add_argument("--device", default="CPU")
    parser.add_argument("--json")
    options = parser.parse_args()

    group = point_group("1~,3(z),2(y)", CELL, None)
    structure, free = tensor_structure(group), np.full(6, np.inf)
    constants = Constants(structure, CALCITE, -free, free)
    scale = constants.initial_scale("auto")
    random = np.random.default_rng(0)
    hkl = random.integers(-4, 5, size=(options.blobs, 3)) + np.array([0, 0, 9])
    listed = [Variable(0, -1, 1)] * 4 + [-1] + [Variable(0, -1, 1)] * 9
    retuning = make_retuning(corrections_from_value(listed) or (), EXPERIMENT, CELL, group)
    cases = {
        "6 constants (scale held)": Common(constants, scale),
        "6 constants and centres": Common(constants, scale, terms=SpotTerms(centre=True)),
        "6 constants and all 14 corrections": Common(constants, scale, retuning, hkl),
    }
    few = synthetic_points(200_000, hkl, pixels=True)
    first = next(iter(cases.values()))
    seconds_per_pass(make_engine(options.device, few, first.columns, CONDITIONS), few, first, 1)
    found: dict[str, dict[str, float]] = {}
    description = ""
    for name, common in cases.items():
        points = synthetic_points(int(options.points), hkl, pixels=common.retuning is not None)
        before, start = peak_bytes(), time.perf_counter()
        engine = make_engine(options.device, points, common.columns, CONDITIONS)
        loading, description = time.perf_counter() - start, engine.description
        own = seconds_per_pass(engine, points, common, 7)
        total = int(points.sizes.sum())
        found[name] = {
            "columns": common.columns.count,
            "points": total,
            "seconds_per_pass": own,
            "pixels_per_second": total / own,
            "bytes_per_pixel": (peak_bytes() - before) / total,
            "loading_seconds": loading,
        }
        del engine
    plain_time = seconds_per_pass(make_engine("numpy", few, first.columns, CONDITIONS), few, first, 1)
    plain_rate = few.sizes.sum() / plain_time
    reference = next(iter(found.values()))["seconds_per_pass"]
    print(f"{description}: {int(options.points):.3g} points")
    for name, row in found.items():
        ratio = row["seconds_per_pass"] / reference
        print(f"  {name}: {row['pixels_per_second']:.3g} pixels/s per iteration, {ratio:.2f} times the constants alone")
        print(f"    peak memory grew by {row['bytes_per_pixel']:.1f} bytes per pixel")
    print(f"  numpy engine, constants alone: {plain_rate:.3g} pixels/s")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"device": description, "numpy_pixels_per_second": plain_rate, "cases": found}, file, indent=1)


if __name__ == "__main__":
    main()
