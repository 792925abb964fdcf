"""Speed and memory of the fit: passes over synthetic points with the six constants of calcite.

    python bench/fit_speed.py [--points 2e7] [--device CPU] [--json FILE]

A pass is everything that an iteration does after the first: parameters to the device, kernel, sums back, elimination of
the spots' own parameters, and the bounded step. Memory is the peak of the process minus what it had before the points
were loaded. The plain numpy engine runs on a part of the points beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.fit.minimise import Minimiser, engine_columns
from tds2el.fit.parameters import Constants
from tds2el.model.device import make_engine
from tds2el.model.engine import Engine, Points, State

CALCITE = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
THERMAL = {"temperature": 300.0, "density": 2.71}
PIECE = 1 << 20


def synthetic_points(n_points: int, n_blobs: int) -> Points:
    """Points made as they are read, so that they take no memory: halos ∝ 1/q², 3 counts per pixel."""
    size = n_points // n_blobs
    nodes = np.random.default_rng(0).normal(size=(n_blobs, 3))
    nodes *= 0.6 / np.linalg.norm(nodes, axis=1, keepdims=True)

    def pieces(blob: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, size, PIECE):
            n = min(PIECE, size - start)
            random = np.random.default_rng([blob, start])
            q = random.normal(size=(n, 3))
            q *= (random.uniform(0.0093, 0.035, n) / np.linalg.norm(q, axis=1))[:, None]
            shape = 3e-4 / np.sum(q * q, axis=1)
            yield q, random.poisson(shape + 2).astype(float), np.ones(n)

    mean = np.array([next(pieces(blob))[1].mean() for blob in range(n_blobs)])
    return Points(nodes, np.full(n_blobs, size), mean, np.ones(n_blobs), 0.035, pieces)


def seconds_per_pass(engine: Engine, minimiser: Minimiser, state: State, values: np.ndarray, repeats: int) -> float:
    """Median over repeats of one full iteration."""
    times = []
    nothing = np.zeros(len(state.factor), dtype=bool)
    for _ in range(repeats + 1):
        start = time.perf_counter()
        sums = engine.evaluate(state)
        minimiser._step(minimiser._system(sums, state, values, nothing), values)
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

    structure = tensor_structure(point_group("1~,3(z),2(y)", Cell(4.99, 4.99, 17.061, 90, 90, 120), None))
    free = np.full(6, np.inf)
    constants = Constants(structure, 1.1 * CALCITE, -free, free)
    scale = constants.initial_scale("auto")
    columns = engine_columns(constants, scale)
    points = synthetic_points(int(options.points), options.blobs)
    state = State(structure.tensor(CALCITE), np.full(options.blobs, 0.02), np.full(options.blobs, 2.0))
    total = int(points.sizes.sum())

    few = synthetic_points(200_000, options.blobs)
    warm_up = make_engine(options.device, few, columns, **THERMAL)
    warm_up.evaluate(state)
    before = peak_bytes()
    start = time.perf_counter()
    engine = make_engine(options.device, points, columns, **THERMAL)
    loading = time.perf_counter() - start
    minimiser = Minimiser(engine, points, constants, scale, **THERMAL)
    own = seconds_per_pass(engine, minimiser, state, constants.start, 7)
    memory = (peak_bytes() - before) / total

    plain = make_engine("numpy", replace(few), columns, **THERMAL)
    plain_time = seconds_per_pass(plain, Minimiser(plain, few, constants, scale, **THERMAL), state, constants.start, 1)
    rate, plain_rate = total / own, few.sizes.sum() / plain_time
    result = {
        "device": engine.description,
        "points": total,
        "pixels_per_second": rate,
        "numpy_engine_pixels_per_second": plain_rate,
        "ratio": rate / plain_rate,
        "bytes_per_pixel": memory,
        "loading_seconds": loading,
    }
    print(f"{engine.description}: {total:.3g} points, 6 constants (scale held)")
    print(f"  {rate:.3g} pixels/s per iteration; numpy engine {plain_rate:.3g}; ratio {rate / plain_rate:.0f}")
    print(f"  memory {memory:.1f} bytes per pixel; making and loading the points {loading:.1f} s")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
