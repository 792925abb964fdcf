"""Speed of the interpolation on cubes, beside the same FISTA in numpy and scipy.sparse.

    python bench/interpolation.py [--nodes 128] [--iterations 100] [--points 1e6] [--more 2e7] [--json FILE]

The points fill a ball in random order, the worst for memory. scipy runs both ways, with InterpᵀInterp assembled and
with Interp applied point by point; the faster one, its setting up included, is compared. All run in turn, so that
other work on the machine slows all alike. Ends with exit code 1 if the ratio is below 5, if the results differ by
more than 1e-4, or if the iterations over many points take 20 % longer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from figures import figure, hand_over
from tds2el._core import CubeSolver

HALF_WIDTH = 0.15
BETA = 0.03


def halo(m: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in a ball, with Poisson counts."""
    random = np.random.default_rng(0)
    q = random.normal(size=(m, 3))
    q *= (HALF_WIDTH * random.random(m) ** (1 / 3) / np.linalg.norm(q, axis=1))[:, None]
    return q, random.poisson(20 / (1 + 1000 * np.sum(q * q, axis=1))).astype(np.float32)


def interpolation(q: np.ndarray, n: int) -> sp.csr_matrix:
    """Trilinear weights."""
    u = (q + HALF_WIDTH) * ((n - 1) / (2 * HALF_WIDTH))
    cell = np.minimum(u.astype(np.int32), n - 2)
    f = (u - cell).astype(np.float32)
    columns = np.empty((len(q), 8), np.int32)
    weights = np.empty((len(q), 8), np.float32)
    for corner in range(8):
        upper = np.array([corner >> 2, corner >> 1 & 1, corner & 1])
        columns[:, corner] = (cell + upper) @ np.array([n * n, n, 1])
        weights[:, corner] = np.prod(np.where(upper, f, 1 - f), axis=1)
    return sp.csr_matrix((weights.ravel(), columns.ravel(), np.arange(len(q) + 1) * 8), shape=(len(q), n**3))


def roughness(n: int) -> sp.csr_matrix:
    """∇ᵀ∇."""
    one = sp.identity(n, dtype=np.float32)
    step = sp.csr_matrix(np.diff(np.eye(n, dtype=np.float32), axis=0))
    second = step.T @ step
    factors = [(second, one, one), (one, second, one), (one, one, second)]
    return sum(sp.kron(sp.kron(a, b), c, format="csr") for a, b, c in factors).tocsr()


def scipy_fista(q: np.ndarray, y: np.ndarray, n: int, iterations: int, assembled: bool) -> tuple[np.ndarray, float]:
    """The cube, and the seconds that the iterations took. Gradients at x suffice: they are linear in x."""
    a = interpolation(q, n)
    adjoint = a.T.tocsr()
    rough = (2 * BETA * roughness(n)).astype(np.float32)
    b = adjoint @ y
    matrix = (adjoint @ a + rough).tocsr()
    bound = np.float32(abs(matrix).sum(axis=1).max())
    if not assembled:
        del matrix
    start = time.perf_counter()
    x = np.zeros(n**3, np.float32)
    v = np.zeros_like(x)
    g, before = -b, -b
    t, momentum = 1.0, np.float32(0)
    for _ in range(iterations):
        v_new = momentum * v - (g + momentum * (g - before)) / bound
        x_new = x + v_new
        g_new = (matrix @ x_new if assembled else adjoint @ (a @ x_new) + rough @ x_new) - b
        if v_new @ (g + g_new) > 0:
            t, momentum, v = 1.0, np.float32(0), np.zeros_like(x)
            continue
        x, v, g, before = x_new, v_new, g_new, g
        t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
        t, momentum = t_new, np.float32((t - 1) / t_new)
    return x.reshape(n, n, n), time.perf_counter() - start


def compiled(q: np.ndarray, y: np.ndarray, n: int) -> tuple[CubeSolver, float]:
    """The solver, and the seconds that assembling took."""
    start = time.perf_counter()
    solver = CubeSolver(
        q=q, values=y[:, None], half_width=HALF_WIDTH, n=n, beta=BETA, threads=len(os.sched_getaffinity(0))
    )
    return solver, time.perf_counter() - start


def seconds(solver: CubeSolver, iterations: int) -> float:
    solver.start(0)
    start = time.perf_counter()
    solver.iterate(iterations)
    return time.perf_counter() - start


def measure(
    nodes: int = 128, iterations: int = 100, points: int = 1_000_000, more: int = 20_000_000, repeats: int = 3
) -> dict[str, object]:
    """Times of setting up and iterating, compiled and both ways of scipy; see the module's text."""
    q, y = halo(points)
    own, others = [], {True: [], False: []}
    for _ in range(repeats):
        solver, assembling = compiled(q, y, nodes)
        own.append((assembling, seconds(solver, iterations)))
        for assembled, times in others.items():
            start = time.perf_counter()
            cube, iterating = scipy_fista(q, y, nodes, iterations, assembled)
            times.append((time.perf_counter() - start - iterating, iterating))
    difference = float(np.linalg.norm(solver.cube() - cube) / np.linalg.norm(cube))

    many, assembling_many = compiled(*halo(more), nodes)
    pairs = [(seconds(solver, iterations), seconds(many, iterations)) for _ in range(2 * repeats + 1)]
    growth = min(b for _, b in pairs) / min(a for a, _ in pairs) - 1

    def middle(times: list[tuple[float, float]]) -> tuple[float, float]:
        """Medians of setting up and of iterating."""
        return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)

    found = {"compiled": middle(own), "scipy, assembled": middle(others[True]), "scipy": middle(others[False])}
    best = min(sum(found["scipy, assembled"]), sum(found["scipy"]))
    what = f"cube of {nodes}³ nodes, {iterations} iterations, {points:.0e} points"
    return {
        "nodes": nodes,
        "iterations": iterations,
        "points": points,
        "seconds": {name: {"setting_up": s, "iterations": i} for name, (s, i) in found.items()},
        "difference": difference,
        "more_points": more,
        "more_points_setting_up": assembling_many,
        "more_points_growth": growth,
        "figures": [
            figure(what, sum(found["compiled"]), "s", beside=best, than="scipy.sparse, the better of two", at_least=5),
            figure(f"iterations over {more:.0e} points, longer by", 100 * growth, "%", at_most=20),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--points", type=float, default=1e6)
    parser.add_argument("--more", type=float, default=2e7, help="points for the second comparison")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    result = measure(options.nodes, options.iterations, int(options.points), int(options.more), options.repeats)
    print(f"{len(os.sched_getaffinity(0))} cores")
    for name, times in result["seconds"].items():
        print(f"  {name:17s} setting up {times['setting_up']:6.2f} s, iterations {times['iterations']:6.2f} s")
    more, setting_up = result["more_points"], result["more_points_setting_up"]
    print(f"  results differ by {result['difference']:.1e}; {more:.0e} points: setting up {setting_up:.2f} s")
    hand_over(result, options.json)
    sys.exit(result["difference"] > 1e-4 or not all(f["met"] for f in result["figures"]))


if __name__ == "__main__":
    main()
