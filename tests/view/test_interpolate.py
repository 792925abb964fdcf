"""The interpolation against its definition: sparse matrices written out, and minima known in closed form."""

import itertools
import os
import signal
import threading

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

from tds2el._core import CubeSolver
from tds2el.view.interpolate import CubeInterpolator

HALF_WIDTH = 0.15
Array = npt.NDArray[np.float64]


def clustered_points(m: int, seed: int = 1) -> tuple[Array, Array]:
    """Half of the points everywhere, half in five clusters; data of Poisson noise and a smooth simulation."""
    random = np.random.default_rng(seed)
    centres = random.uniform(-0.8, 0.8, (5, 3))
    near = centres[random.integers(5, size=m // 2)] + 0.1 * random.normal(size=(m // 2, 3))
    q = HALF_WIDTH * np.clip(np.concatenate([random.uniform(-1, 1, (m - m // 2, 3)), near]), -1, 1)
    mean = 5 / (1 + 1000 * np.sum(q * q, axis=1))
    return q, np.stack([random.poisson(mean).astype(float), mean], axis=1)


def interpolation(q: Array, n: int) -> sp.csr_matrix:
    """The trilinear weights, from the tent functions of the nodes."""
    nodes = -HALF_WIDTH + 2 * HALF_WIDTH * np.arange(n) / (n - 1)
    spacing = nodes[1] - nodes[0]
    tents = np.maximum(0, 1 - np.abs(q[:, :, None] - nodes) / spacing)
    weights = np.einsum("pi,pj,pk->pijk", tents[:, 0], tents[:, 1], tents[:, 2])
    return sp.csr_matrix(weights.reshape(len(q), n**3))


def gradient(n: int) -> sp.csr_matrix:
    """Forward differences along the three axes."""
    one, step = sp.identity(n), sp.csr_matrix(np.diff(np.eye(n), axis=0))
    factors = [(step, one, one), (one, step, one), (one, one, step)]
    return sp.vstack([sp.kron(sp.kron(a, b), c) for a, b, c in factors]).tocsr()


class Definition:
    """½‖Ax − y‖² + β‖∇x‖² in double precision."""

    def __init__(self, q: Array, y: Array, n: int, beta: float) -> None:
        self.a, self.d, self.y, self.beta = interpolation(q, n), gradient(n), y, beta
        self.matrix = (self.a.T @ self.a + 2 * beta * (self.d.T @ self.d)).tocsr()
        self.bound = np.max(np.abs(self.matrix).sum(axis=1))

    def objective(self, x: Array) -> float:
        return float(0.5 * np.sum((self.a @ x - self.y) ** 2) + self.beta * np.sum((self.d @ x) ** 2))

    def fista(self, iterations: int) -> tuple[Array, int]:
        """The result and the number of restarts."""
        restarts = 0
        x = z = np.zeros(self.a.shape[1])
        t, lowest = 1.0, self.objective(x)
        for _ in range(iterations):
            slope = self.a.T @ (self.a @ z - self.y) + 2 * self.beta * (self.d.T @ (self.d @ z))
            new = z - slope / self.bound
            if (value := self.objective(new)) > lowest:
                z, t = x, 1.0
                restarts += 1
                continue
            t_new = (1 + np.sqrt(1 + 4 * t * t)) / 2
            z = new + (t - 1) / t_new * (new - x)
            x, t, lowest = new, t_new, value
        return x, restarts

    def minimum(self) -> Array:
        result: Array = spsolve(self.matrix.tocsc(), self.a.T @ self.y)
        return result


def difference(x: npt.NDArray[np.floating], reference: Array) -> float:
    return float(np.linalg.norm(x.ravel() - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize(("n", "m", "beta"), [(12, 500, 0.03), (16, 3000, 0.03), (13, 2000, 0.5)])
def test_hundred_iterations_equal_those_of_the_definition(n: int, m: int, beta: float) -> None:
    q, values = clustered_points(m)
    cubes = CubeInterpolator(q, values, HALF_WIDTH, n, beta).solve(100)
    assert cubes.dtype == np.float32
    for cube, y in zip(cubes, values.T, strict=True):
        assert difference(cube, Definition(q, y, n, beta).fista(100)[0]) < 1e-5


def test_long_runs_reach_the_minimum() -> None:
    q, values = clustered_points(4000)
    cubes = CubeInterpolator(q, values, HALF_WIDTH, 14, 0.03).solve(2000)
    for cube, y in zip(cubes, values.T, strict=True):
        assert difference(cube, Definition(q, y, 14, 0.03).minimum()) < 1e-5


def test_dense_clusters_do_not_spoil_sparse_regions() -> None:
    random = np.random.default_rng(0)
    q = np.concatenate([random.uniform(-1, 1, (200, 3)), 0.02 * random.normal(size=(20_000, 3))]) * HALF_WIDTH
    y = 100 + 50 * random.normal(size=(len(q), 1))
    truth = Definition(q, y[:, 0], 12, 0.03)
    assert truth.bound > 10_000 * 2 * truth.beta
    cube = CubeInterpolator(q, y, HALF_WIDTH, 12, 0.03).solve(6000)
    assert difference(cube - 100, truth.minimum() - 100) < 1e-3


def test_the_objective_never_rises_over_restarts() -> None:
    q, values = clustered_points(600)
    truth = Definition(q, values[:, 0], 12, 0.03)
    solver = CubeSolver(q=q, values=values, half_width=HALF_WIDTH, n=12, beta=0.03, threads=1)
    assert solver.bound == pytest.approx(truth.bound, rel=1e-6)
    solver.start(0)
    assert solver.objective() == pytest.approx(truth.objective(np.zeros(12**3)))
    before = truth.objective(np.zeros(12**3))
    for _ in range(250):
        solver.iterate(1)
        value = truth.objective(solver.cube().ravel().astype(float))
        assert value <= before * (1 + 1e-7)
        assert solver.objective() == pytest.approx(value, rel=1e-6)
        before = value
    assert solver.restarts == truth.fista(250)[1] >= 2


def test_same_bits_with_any_number_of_threads() -> None:
    q, values = clustered_points(150_000)  # several chunks of points
    one, *more = (CubeInterpolator(q, values, HALF_WIDTH, 17, 0.03, threads=t).solve(60) for t in (1, 2, 5))
    for other in more:
        assert np.array_equal(one, other)


def test_linear_functions_come_back_with_the_axes_in_order() -> None:
    q = np.random.default_rng(3).uniform(-HALF_WIDTH, HALF_WIDTH, (20_000, 3))
    cube = CubeInterpolator(q, (1 + q @ [2, 20, 30])[:, None], HALF_WIDTH, 6, 0.0)
    x, y, z = np.meshgrid(cube.axis, cube.axis, cube.axis, indexing="ij")
    assert cube.axis[[0, -1]] == pytest.approx([-HALF_WIDTH, HALF_WIDTH])
    assert cube.solve(1000)[0] == pytest.approx(1 + 2 * x + 20 * y + 30 * z, abs=1e-4)


def test_sums_over_many_points_stay_accurate() -> None:
    random = np.random.default_rng(4)
    q = HALF_WIDTH * random.uniform(-1, 1, (400_000, 3))
    y = 1000 + np.float32(random.normal(size=len(q))).astype(float)
    f = (q / HALF_WIDTH + 1) / 2
    w = np.stack([np.prod(np.where(c, f, 1 - f), axis=1) for c in itertools.product((False, True), repeat=3)], axis=1)
    exact = np.linalg.solve(w.T @ w + 2 * 0.03 * (gradient(2).T @ gradient(2)).toarray(), w.T @ y)
    assert CubeInterpolator(q, y[:, None], HALF_WIDTH, 2, 0.03).solve(2000).ravel() == pytest.approx(exact, rel=1e-6)


def test_points_per_voxel_counts_to_the_nearest_node() -> None:
    q, values = clustered_points(5000)
    cube = CubeInterpolator(q, values, HALF_WIDTH, 9, 0.03)
    middles = (cube.axis[1:] + cube.axis[:-1]) / 2
    edges = [np.concatenate([[-1], middles, [1]])] * 3
    assert np.array_equal(cube.points_per_voxel(), np.histogramdd(q, edges)[0])


@pytest.mark.parametrize("columns", [1, 2])
def test_points_outside_and_not_finite_are_left_out_and_counted(columns: int) -> None:
    q, values = clustered_points(300)
    values = values[:, :columns]
    bad = np.full((7, 3), 0.01)
    bad[0, 0] = np.nextafter(HALF_WIDTH, 1)
    bad[1, 2] = -0.2
    bad[2, 1] = np.nan
    bad[3, 0] = np.inf
    extra = np.ones((7, columns))
    extra[4, -1] = np.nan
    extra[5, 0] = -np.inf
    bad[6] = [np.nan, 1, 1]
    good = CubeInterpolator(q, values, HALF_WIDTH, 8, 0.03)
    all_ = CubeInterpolator(np.concatenate([bad, q]), np.concatenate([extra, values]), HALF_WIDTH, 8, 0.03)
    assert (good.outside, good.not_finite) == (0, 0)
    assert (all_.outside, all_.not_finite) == (2, 5)
    assert np.array_equal(all_.solve(30), good.solve(30))
    assert np.array_equal(all_.points_per_voxel(), good.points_per_voxel())


def test_points_on_faces_edges_and_corners_are_inside() -> None:
    q = HALF_WIDTH * np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
    y = np.arange(27.0)
    cube = CubeInterpolator(q, y[:, None], HALF_WIDTH, 3, 0.0)
    assert cube.outside == 0
    assert np.array_equal(cube.points_per_voxel(), np.ones((3, 3, 3)))
    assert cube.solve(200)[0].ravel() == pytest.approx(y, abs=1e-4)


@pytest.mark.parametrize("beta", [0.0, 0.03])
@pytest.mark.parametrize("q", [np.zeros((0, 3)), np.full((4, 3), 0.5), np.full((4, 3), np.nan)])
def test_a_cube_without_points_is_zero(q: Array, beta: float) -> None:
    cube = CubeInterpolator(q, np.ones((len(q), 2)), HALF_WIDTH, 5, beta)
    assert np.array_equal(cube.solve(10), np.zeros((2, 5, 5, 5)))
    assert not np.any(cube.points_per_voxel())
    assert cube.outside + cube.not_finite == len(q)


@pytest.mark.parametrize("n", [2, 6])
def test_a_single_point_gives_a_constant(n: int) -> None:
    cube = CubeInterpolator([[0.01, -0.02, 0.03]], [[7.0]], HALF_WIDTH, n, 0.03)
    assert cube.solve(4000) == pytest.approx(7.0, rel=1e-4)
    assert cube.points_per_voxel().sum() == 1


def test_two_nodes_per_edge() -> None:
    q, values = clustered_points(50)
    cube = CubeInterpolator(q, values, HALF_WIDTH, 2, 0.03).solve(500)
    assert difference(cube[1], Definition(q, values[:, 1], 2, 0.03).minimum()) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 1}, "nodes per edge"),
        ({"half_width": 0.0}, "half_width"),
        ({"half_width": np.nan}, "half_width"),
        ({"beta": -0.1}, "beta"),
        ({"threads": -1}, "thread"),
        ({"q": np.zeros((4, 2))}, "shape"),
        ({"values": np.zeros(4)}, "shape"),
        ({"values": np.zeros((3, 1))}, "shape"),
    ],
)
def test_arguments_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    arguments = {"q": np.zeros((4, 3)), "values": np.zeros((4, 1)), "half_width": 0.1, "n": 4, "beta": 0.03}
    with pytest.raises(ValueError, match=message):
        CubeInterpolator(**(arguments | change))  # type: ignore[arg-type]


def test_progress_counts_every_iteration() -> None:
    q, values = clustered_points(100)
    steps: list[int] = []
    CubeInterpolator(q, values, HALF_WIDTH, 64, 0.03).solve(100, steps.append)
    assert sum(steps) == 200
    assert len(steps) > 2


def test_ctrl_c_ends_a_long_run() -> None:
    q, values = clustered_points(100)
    cube = CubeInterpolator(q, values, HALF_WIDTH, 32, 0.03)
    started = threading.Event()
    interrupt = threading.Thread(target=lambda: (started.wait(30), os.kill(os.getpid(), signal.SIGINT)))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        cube.solve(10**9, lambda _: started.set())
    interrupt.join()
