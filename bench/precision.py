"""What single precision on the device changes in the constants, beside double precision on the same points.

    python bench/precision.py [--points 1e6] [--device GPU] [--processes N] [--json FILE]

The fit runs to the minimum on the device. There the numpy engine, in double precision throughout, makes one pass: its
score and Fisher matrix, with the spots' own parameters eliminated, give the step that is left to the minimum in double
precision. In units of σ this is the difference of the two; the step is so small that its linear form suffices. The
numpy engine runs in several processes, a spot at a time. Ends with exit code 1 if a constant differs by 0.05 σ or more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from figures import figure, hand_over
from fit_speed import START, constants_of
from synthetic import CONDITIONS, Crystal, calcite, reflections, synthetic_points, triclinic
from tds2el.fit.common import Common, SpotTerms
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import Scale
from tds2el.fit.separable import eliminate
from tds2el.model.device import make_engine
from tds2el.model.engine import Columns, Points, State, Sums
from tds2el.model.numpy_engine import NumpyEngine

LARGEST = 0.05
"""Of a difference, in σ."""
CRYSTALS: dict[str, Callable[[], Crystal]] = {"calcite": calcite, "triclinic": triclinic}
CASES = {
    "6 constants": ("calcite", False),
    "6 constants, centres": ("calcite", True),
    "21 constants": ("triclinic", False),
}
"""Crystal, and whether the centres of the spots are fitted."""


@dataclass(frozen=True)
class Job:
    """One spot, as another process can make it."""

    crystal: str
    n_points: int
    hkl: np.ndarray
    blob: int
    state: State
    columns: Columns


_remembered: dict[tuple[str, int], Points] = {}


def in_double(job: Job) -> Sums:
    """The pass of the numpy engine over one spot."""
    key = job.crystal, job.n_points
    if key not in _remembered:
        _remembered[key] = synthetic_points(job.n_points, job.hkl, crystal=CRYSTALS[job.crystal]())
    points, one = _remembered[key], slice(job.blob, job.blob + 1)
    alone = replace(
        points,
        nodes=points.nodes[one],
        sizes=points.sizes[one],
        mean_counts=points.mean_counts[one],
        mean_correction=points.mean_correction[one],
        pieces=lambda _, *part: points.pieces(job.blob, *part),
    )
    offset = None if job.state.offset is None else job.state.offset[one]
    state = replace(job.state, factor=job.state.factor[one], baseline=job.state.baseline[one], offset=offset)
    return NumpyEngine(alone, job.columns, CONDITIONS).evaluate(state)


def compared(
    name: str, centres: bool, n_points: int, device: str | None, pool: ProcessPoolExecutor, blobs: int
) -> dict[str, object]:
    """Fit on the device, pass in double, and the difference of every fitted constant."""
    crystal, hkl = CRYSTALS[name](), reflections(blobs)
    points = synthetic_points(n_points, hkl, crystal=crystal)
    start = START if name == "calcite" else 0.98
    common = Common(constants_of(crystal, start), Scale.HELD, terms=SpotTerms(centre=centres))
    engine = make_engine(device, points, common.columns, CONDITIONS)
    minimum = Minimiser(engine, points, common, CONDITIONS).run()
    begun = time.perf_counter()
    jobs = [Job(name, n_points, hkl, blob, minimum.state, common.columns) for blob in range(blobs)]
    parts = list(pool.map(in_double, jobs))
    seconds = time.perf_counter() - begun
    sums = Sums(
        np.concatenate([part.deviance for part in parts]),
        np.concatenate([part.gram for part in parts]),
        np.concatenate([part.below_floor for part in parts]),
    )
    held = np.where(minimum.held, np.inf, 0.0)
    system = eliminate(sums, minimum.state, common.columns, common.transform(minimum.values), softening=held)
    system = system.without(minimum.left_out)
    sigma = np.sqrt(np.diag(np.linalg.inv(system.hessian)))
    own = np.linalg.solve(minimum.system.hessian, minimum.system.score)
    step = np.linalg.solve(system.hessian, system.score)
    return {
        "device": engine.description,
        "points": int(points.sizes.sum()),
        "converged": minimum.converged,
        "passes": len(minimum.iterations),
        "seconds_in_double": seconds,
        "names": common.names,
        "constants": minimum.values.constants[common.fitted].tolist(),
        "sigma": sigma.tolist(),
        "difference_in_sigma": (step / sigma).tolist(),
        "left_to_the_minimum_on_the_device_in_sigma": (own / sigma).tolist(),
        "relative_difference_of_sigma": float(
            np.abs(np.sqrt(np.diag(np.linalg.inv(minimum.system.hessian))) / sigma - 1).max()
        ),
        "deviances_apart": float(np.abs(minimum.sums.deviance / sums.deviance - 1).max()),
    }


def measure(
    points: int = 1_000_000,
    device: str | None = None,
    processes: int | None = None,
    blobs: int = 40,
    cases: Sequence[str] = tuple(CASES),
) -> dict[str, object]:
    """Differences in some of CASES."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes below: they share the cores already
    workers = processes or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = {name: compared(*CASES[name], points, device, pool, blobs) for name in cases}
    figures = [
        figure(
            f"single beside double precision, {name}, {points:.0e} points",
            float(np.abs(case["difference_in_sigma"]).max()),
            "σ",
            at_most=LARGEST,
        )
        for name, case in found.items()
    ]
    return {"cases": found, "figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=float, default=1e6)
    parser.add_argument("--spots", type=int, default=40)
    parser.add_argument("--device", help="as the option device; by default a GPU, else the CPU")
    parser.add_argument("--processes", type=int, help="for the numpy engine; by default one on each core")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(int(options.points), options.device, options.processes, options.spots, options.cases)
    for name, case in result["cases"].items():
        print(f"{name}: {case['passes']} passes on {case['device']}; double took {case['seconds_in_double']:.1f} s")
        shown = zip(case["names"], case["difference_in_sigma"], strict=True)
        print("  differences in σ: " + ", ".join(f"{name} {value:+.1e}" for name, value in shown))
    hand_over(result, options.json)
    sys.exit(not all(figure["met"] for figure in result["figures"]))


if __name__ == "__main__":
    main()
