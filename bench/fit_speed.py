"""Speed and memory of the fit on synthetic points, beside the same pass in numba and the same fit with scipy.

    python bench/fit_speed.py [--points 1e7] [--device CPU] [--sizes 1e5 1e6 1e7] [--scipy-points 1e6] [--json FILE]

A pass is everything that an iteration does after the first: parameters to the device, kernel, sums back, elimination of
the spots' own parameters, and the bounded step. It is measured for the constants alone, with the centres of the spots,
with all 14 corrections to geometry and cell, for a triclinic crystal, with all that a fit has beyond the elastic limit,
beside the elastic fit of the same crystal, and averaged over a resolution or with neighbours, beside the fit without.
numba (bench/numba_kernel.py) and the numpy engine take part in the
same step. The fit to the minimum begins with the points in memory or on the device, for both;
reading and compiling are left out. Memory is what the process has more once the points are loaded and a pass is over.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from figures import Figure, figure, hand_over
from machine import device_bandwidth, limits, median_seconds, resident_bytes
from synthetic import CONDITIONS, Crystal, calcite, cubic, reflections, synthetic_points, triclinic
from tds2el.corrections import corrections_from_value
from tds2el.crystal.dispersion import dispersion_structure
from tds2el.errors import InputError
from tds2el.fit.common import Common, SpotTerms
from tds2el.fit.minimise import Minimiser, Minimum
from tds2el.fit.parameters import Constants, Scale
from tds2el.fit.retune import make_retuning
from tds2el.fit.separable import Own
from tds2el.model.device import make_engine, select_device
from tds2el.model.engine import Engine, Points, State, Sums
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.model.smearing import Smearing, gauss_rule
from tds2el.parfile import Variable
from tds2el.settings import Experiment

EXPERIMENT = Experiment(
    pixel_size=0.172, dist=100.0, lmbda=0.7, beam_tilt_angle=0.0, det_origin_X=309.0, det_origin_Y=243.0, d1=1.0,
    d2=2.0, theta=0.0, theta_offset=0.0, omega=5.0, omega_offset=0.0, alpha=50.0, beta=3.0, kappa=20.0, phi=0.0,
    angular_step=0.1, r1=20.0, r2=35.0, r3=10.0, orientation_codes=0, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
BYTES, SINGLE, DOUBLE = 20, 330, 99
"""Of a point with six constants at room temperature: bytes on the device, and operations in either precision."""
FEW = 200_000
"""Points for what is slow or only compiles."""
START = np.array([1.0, 1.15, 0.85, 1.1, 0.9, 0.8])
"""Start of the fit to the minimum, relative to the truth."""
SAME_SUMS = 1e-4
SAME_MINIMUM = 0.05
"""Largest differences, of sums beside √(diagonal) and of constants in σ, at which two results count as the same."""


def constants_of(crystal: Crystal, start: np.ndarray | float = 1.0) -> Constants:
    """All free, without bounds; the scale will be held at the first."""
    free = np.full(len(crystal.constants), np.inf)
    return Constants(crystal.structure, crystal.constants * start, -free, free)


def cases(hkl: np.ndarray) -> dict[str, tuple[Crystal, Common]]:
    """What is fitted, by name."""
    trigonal, general = calcite(), triclinic()
    constants = constants_of(trigonal)
    listed = [Variable(0, -1, 1)] * 4 + [-1] + [Variable(0, -1, 1)] * 9
    retuning = make_retuning(corrections_from_value(listed) or (), EXPERIMENT, trigonal.cell, trigonal.group)
    return {
        "6 constants": (trigonal, Common(constants, Scale.HELD)),
        "6 constants, centres": (trigonal, Common(constants, Scale.HELD, terms=SpotTerms(centre=True))),
        "6 constants, 14 corrections": (trigonal, Common(constants, Scale.HELD, retuning, hkl)),
        "21 constants": (general, Common(constants_of(general), Scale.HELD)),
        "3 constants": (cubic(), Common(constants_of(cubic()), Scale.HELD)),
        "3 constants, next order": (cubic(), next_order(cubic())),
        "6 constants, next order": (trigonal, next_order(trigonal)),
        "6 constants, centres, 8 places": (trigonal, Common(constants, Scale.HELD, terms=SpotTerms(centre=True))),
        "6 constants, centres, 6 neighbours": (
            trigonal,
            Common(constants, Scale.HELD, terms=SpotTerms(centre=True, slope=True, neighbours=6)),
        ),
    }


BEYOND = {"3 constants, next order": ("3 constants", 8), "6 constants, next order": ("6 constants", 25)}
"""Cases, the elastic one that each is measured beside, and how many times as long it may take."""


SMEARED = {"6 constants, centres, 8 places": 8}
"""Cases whose model is averaged, and over how many places."""


AROUND = {
    "6 constants, centres, 8 places": ("6 constants, centres", 8),
    "6 constants, centres, 6 neighbours": ("6 constants, centres", 12),
}
"""The same as BEYOND for what is around the model: as many evaluations, and for neighbours their columns."""


def surrounded(points: Points, name: str, common: Common) -> Points:
    """The points of a case with what is around them: frames of half the inner radius, nodes at four outer radii."""
    n = len(points.nodes)
    if common.terms.neighbours:
        directions = np.random.default_rng(1).normal(size=(common.terms.neighbours, 3))
        away = 4 * points.q_max * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        points = replace(points, neighbours=np.repeat(away[None], n, axis=0))
    if name in SMEARED:
        x, weight = gauss_rule(0.5 * points.q_min, 0.0, SMEARED[name])
        shift = np.repeat((x[:, None] * [0.6, 0.0, 0.8])[None], n, axis=0)
        points = replace(points, smearing=Smearing(np.repeat(weight[None], n, axis=0), shift, np.zeros_like(shift)))
    return points


def next_order(crystal: Crystal) -> Common:
    """Constants, centres, all terms of dispersion, gradients and internal strains."""
    terms = SpotTerms(centre=True, gradient=True, strain=True)
    return Common(constants_of(crystal), Scale.HELD, terms=terms, dispersion=dispersion_structure(crystal.group))


def iteration(engine: Engine, points: Points, common: Common) -> Callable[[], None]:
    """One full iteration, to be called."""
    minimiser = Minimiser(engine, points, common, CONDITIONS)
    n, values = len(points.nodes), common.start
    offset = np.zeros((n, 3)) if common.terms.centre else None
    state = common.placed(State(np.eye(6), np.full(n, 0.02), np.full(n, 2.0), offset=offset), values)
    state = minimiser._spots.completed(state)
    nothing, softening = np.zeros(n, dtype=bool), np.zeros((n, Own.of(common.columns).count))

    def iterate() -> None:
        sums = engine.evaluate(state)
        minimiser._step(minimiser._system(sums, state, values, nothing, softening), values)

    return iterate


def seconds_per_pass(engine: Engine, points: Points, common: Common, repeats: int) -> float:
    """Median over repeats of one full iteration."""
    return median_seconds(iteration(engine, points, common), repeats=repeats)[0]


def loaded(make: Callable[[], Engine], points: Points, common: Common) -> tuple[Engine, float]:
    """An engine with the points on it, and bytes per point that the process has more since, a pass included."""
    before = resident_bytes()
    engine = make()
    iteration(engine, points, common)()
    return engine, (resident_bytes() - before) / int(points.sizes.sum())


def difference(ours: Sums, theirs: Sums) -> float:
    """Largest difference of Gram matrices beside the roots of their diagonals, and of deviances."""
    size = np.sqrt(np.einsum("bii->bi", ours.gram))
    gram = np.abs(ours.gram - theirs.gram) / (size[:, :, None] * size[:, None, :])
    return float(max(gram.max(), np.abs(theirs.deviance / ours.deviance - 1).max()))


def measure(
    points: int = 10_000_000,
    device: str | None = None,
    sizes: tuple[int, ...] = (100_000, 1_000_000, 10_000_000),
    scipy_points: int = 1_000_000,
    repeats: int = 7,
    blobs: int = 40,
    alone: bool = False,
) -> dict[str, object]:
    """All figures of the fit; see the module's text.

    Parameters
    ----------
    points : int
        For the cases, and for numba beside the first.
    device : str, optional
        As the option `device`.
    sizes : tuple of int
        For the cost against size; those that the device has no memory for are left out.
    scipy_points : int
        For the fit to the minimum.
    repeats, blobs : int
        Passes of which the median is taken; spots.
    alone : bool
        Without numba and scipy, for hosts that lack numba.
    """
    hkl, figures = reflections(blobs), []
    compared = _cases(points, device, hkl, repeats, figures, alone)
    growth = _cost_against_size(sizes, device, hkl, repeats, alone)
    minimum = {} if alone else _to_minimum(scipy_points, device, hkl, figures)
    return {
        "points": points,
        "spots": blobs,
        "floor": floors(points, device),
        **compared,
        "cost_against_size": growth,
        "to_minimum": minimum,
        "figures": figures,
    }


def floors(points: int, device: str | None) -> dict[str, float]:
    """Seconds that an iteration with six constants takes at least: bytes over bandwidth, operations over their rate.

    The rates are those of a copy and of matrix products here and now; the latter are known of the host alone.
    """
    import pyopencl as cl

    chosen, host = select_device(device), limits()
    if not chosen.type & cl.device_type.CPU:
        return {"bytes": points * BYTES / device_bandwidth(chosen)}
    operations = SINGLE / host["single_per_second"] + DOUBLE / host["double_per_second"]
    return {"bytes": points * BYTES / host["bytes_per_second"], "operations": points * operations, **host}


def _cases(
    points: int, device: str | None, hkl: np.ndarray, repeats: int, figures: list[Figure], alone: bool
) -> dict[str, object]:
    found, description = {}, ""
    for name, (crystal, common) in cases(hkl).items():
        data, few = (
            surrounded(synthetic_points(n, hkl, common.retuning is not None, crystal, repeated=True), name, common)
            for n in (points, FEW)
        )

        def on_device(data: Points, common: Common = common) -> Engine:
            return make_engine(device, data, common.columns, CONDITIONS)

        iteration(on_device(few), few, common)()  # compiled from now on
        engine, memory = loaded(lambda data=data, make=on_device: make(data), data, common)
        description, total = engine.description, int(data.sizes.sum())
        plain = (
            seconds_per_pass(make_engine("numpy", few, common.columns, CONDITIONS), few, common, 1) / few.sizes.sum()
        )
        what, numba = f"iteration, {name}, {points:.0e} points", {}
        if name == "6 constants" and not alone:
            from numba_kernel import NumbaEngine

            iteration(NumbaEngine(few, CONDITIONS), few, common)()
            other, numba_memory = loaded(lambda data=data: NumbaEngine(data, CONDITIONS), data, common)
            apart = _same_sums(engine, other, common, len(hkl))
            own, theirs = median_seconds(
                iteration(engine, data, common), iteration(other, data, common), repeats=repeats
            )
            numba = {"seconds_per_pass": theirs, "bytes_per_point": numba_memory, "difference_of_sums": apart}
            figures += [
                figure(what, own, "s", beside=theirs, than="numba", at_least=3),
                figure(f"memory, {name}", memory, "bytes/point", beside=numba_memory, than="numba"),
            ]
        else:
            own = seconds_per_pass(engine, data, common, repeats)
        figures.append(figure(what, own, "s", beside=float(plain) * total, than="numpy engine"))
        found[name] = {
            "columns": common.columns.count,
            "points": total,
            "seconds_per_pass": own,
            "points_per_second": total / own,
            "bytes_per_point": memory,
            "numpy_points_per_second": 1 / float(plain),
            "numba": numba,
        }
    for name, (beside, most) in (BEYOND | AROUND).items():
        own, elastic = (float(found[case]["seconds_per_pass"]) for case in (name, beside))
        figures.append(
            figure(
                f"{name}, beside the elastic limit" if name in BEYOND else f"{name}, beside none",
                own / elastic,
                "×",
                at_most=most,
            )
        )
    return {"device": description, "cases": found}


def _same_sums(engine: Engine, other: Engine, common: Common, n: int) -> float:
    """Judge one by the other."""
    state = common.placed(State(np.eye(6), np.full(n, 0.02), np.full(n, 2.0)), common.start)
    apart = difference(engine.evaluate(state), other.evaluate(state))
    if not apart < SAME_SUMS:
        raise SystemExit(f"the sums of {other.description} and {engine.description} differ by {apart:.1e}")
    return apart


def _cost_against_size(
    sizes: tuple[int, ...], device: str | None, hkl: np.ndarray, repeats: int, alone: bool
) -> dict[str, list[tuple[int, float]]]:
    """Points and seconds per pass with the constants of calcite."""
    _, common = cases(hkl)["6 constants"]
    makers: dict[str, tuple[float, Callable[[Points], Engine]]] = {
        "tds2el": (np.inf, lambda data: make_engine(device, data, common.columns, CONDITIONS)),
        "numpy": (1e6, lambda data: make_engine("numpy", data, common.columns, CONDITIONS)),
    }
    if not alone:
        from numba_kernel import NumbaEngine

        makers["numba"] = (np.inf, lambda data: NumbaEngine(data, CONDITIONS))
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in (*makers, "kernel alone")}
    for size in sizes:
        data = synthetic_points(size, hkl, repeated=True)
        for name, (most, make) in makers.items():
            if size > most:
                continue
            try:
                engine = make(data)
                seconds = seconds_per_pass(engine, data, common, 1 if name == "numpy" else repeats)
            except InputError as error:
                print(f"{name} with {size:.0e} points: {error}")
                continue
            found[name].append((int(data.sizes.sum()), seconds))
            if isinstance(engine, OpenCLEngine):
                found["kernel alone"].append((int(data.sizes.sum()), kernel_seconds(engine, repeats)))
    return found


def kernel_seconds(engine: OpenCLEngine, repeats: int) -> float:
    """Median of the seconds that the device itself counts for the kernel of a pass, which an iteration has set up."""
    import pyopencl as cl

    queue = cl.CommandQueue(engine._context, properties=cl.command_queue_properties.PROFILING_ENABLE)
    size = (len(engine._resident.parts[0].chunks) * engine._local,)
    events = [cl.enqueue_nd_range_kernel(queue, engine._gram, size, (engine._local,)) for _ in range(repeats)]
    queue.finish()
    return statistics.median(1e-9 * (event.profile.end - event.profile.start) for event in events)


def _to_minimum(n_points: int, device: str | None, hkl: np.ndarray, figures: list[Figure]) -> dict[str, object]:
    """The fit from one start to the minimum, by tds2el and by scipy."""
    from scipy_fit import ScipyModel

    data, constants = synthetic_points(n_points, hkl), constants_of(calcite(), START)
    common = Common(constants, Scale.HELD)
    engine = make_engine(device, data, common.columns, CONDITIONS)
    ours: list[Minimum] = []

    def fit() -> None:
        ours.append(Minimiser(engine, data, Common(constants, Scale.HELD), CONDITIONS).run())

    (own,) = median_seconds(fit, repeats=5)
    sigma = np.sqrt(np.diag(np.linalg.inv(ours[-1].system.hessian)))
    close = np.concatenate([[np.inf], 0.01 * sigma])
    model, times = ScipyModel(data, CONDITIONS, constants), []
    for _ in range(3):
        start = time.perf_counter()
        theirs = model.fit(close)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    apart = float(np.abs((theirs.constants - ours[-1].values.constants)[1:] / sigma).max())
    if not apart < SAME_MINIMUM:
        raise SystemExit(f"scipy and tds2el end {apart:.2g} σ apart: one of them is wrong")
    what = f"fit to the minimum, 6 constants, {n_points:.0e} points"
    figures.append(figure(what, own, "s", beside=seconds, than="scipy least_squares", at_least=200))
    return {
        "points": int(data.sizes.sum()),
        "tds2el": {"seconds": own, "passes": len(ours[-1].iterations)},
        "scipy": {"seconds": seconds, "models": theirs.evaluations, "rounds": theirs.rounds},
        "difference_in_sigma": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=float, default=1e7)
    parser.add_argument("--sizes", type=float, nargs="*", default=[1e5, 1e6, 1e7])
    parser.add_argument("--scipy-points", type=float, default=1e6)
    parser.add_argument("--spots", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", help="as the option device; by default a GPU, else the CPU")
    parser.add_argument("--alone", action="store_true", help="without numba and scipy beside it")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(
        int(options.points),
        options.device,
        tuple(int(size) for size in options.sizes),
        int(options.scipy_points),
        options.repeats,
        options.spots,
        options.alone,
    )
    floor = result["floor"]
    print(
        f"{result['device']}\nfloor of an iteration, 6 constants: "
        + ", ".join(f"{name} {floor[name]:.2g} s" for name in ("bytes", "operations") if name in floor)
    )
    hand_over(result, options.json)


if __name__ == "__main__":
    main()
