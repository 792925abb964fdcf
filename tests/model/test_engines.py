"""The OpenCL engine against numpy in double: sums, likelihood, floors, precision, and errors of the device choice."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.model import device as device_module
from tds2el.model import device_points
from tds2el.model.device import limit_threads, make_engine, select_device
from tds2el.model.engine import Columns, Conditions, Points, State
from tds2el.model.numpy_engine import NumpyEngine, counting_terms
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.parallel import World

from .conftest import CALCITE, CALCITE_BASIS

THERMAL = Conditions(300.0, 2.71)
COLUMNS = Columns(CALCITE_BASIS[1:], scale=True)


def _state(points: Points, baseline: float = 1.0) -> State:
    n = len(points.nodes)
    tensor = np.einsum("k,kij->ij", CALCITE * [1, 1.1, 0.9, 1, 1, 1], CALCITE_BASIS)
    return State(tensor, np.full(n, 0.3), np.full(n, baseline))


TRICLINIC_BASIS = np.array(
    [np.eye(6)[i][:, None] * np.eye(6)[j] + (i != j) * np.eye(6)[j][:, None] * np.eye(6)[i]
     for i in range(6) for j in range(i, 6)]
)  # fmt: skip
# Few columns, whose sums fit registers, also without the tensor's zeros; and many, which share a GPU's local memory.
CHOICES = {
    "few": COLUMNS,
    "no zeros": replace(COLUMNS, entries=CALCITE_BASIS.any(axis=0)),
    "many": Columns(TRICLINIC_BASIS, scale=True, centre=True),
}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(("relative_error", "baseline"), [(0.0, 1.0), (0.05, 1.0), (0.0, -0.6), (0.05, -0.6)])
def test_sums_agree(calcite_points, device, double, vectors, choice, relative_error, baseline):
    points = calcite_points(blobs=3, size=5001, mean=2.0, seed=1)
    columns, conditions = CHOICES[choice], replace(THERMAL, relative_error=relative_error)
    state = _state(points, baseline)
    expected = NumpyEngine(points, columns, conditions).evaluate(state)
    engine = OpenCLEngine(device, points, columns, conditions, double=double, vectors=vectors)
    engine.evaluate(state)  # the float32 engine learns its centres
    found = engine.evaluate(state)
    assert (expected.below_floor.sum() > 0) == (baseline < 0)
    assert np.array_equal(found.below_floor, expected.below_floor)
    assert np.allclose(found.deviance, expected.deviance, rtol=1e-6)
    scale = np.sqrt(np.einsum("bii->bi", expected.gram))
    assert np.abs((found.gram - expected.gram) / (scale[:, :, None] * scale[:, None, :])).max() < 3e-6


@pytest.mark.parametrize("double", [True, False])
def test_step_is_right_to_a_thousandth_of_sigma(calcite_points, device, double):
    """The projected matrices are nearly singular: this is where float32 sums would fail."""
    points = calcite_points(blobs=6, size=20000, mean=3.0, seed=2)
    state = _state(points)

    def step(gram):
        a, b, d = gram[:, :-3, :-3], gram[:, -3:-1, :-3], gram[:, -3:-1, -3:-1]
        t = np.linalg.solve(d, b)
        hessian = (a - np.swapaxes(b, 1, 2) @ t).sum(axis=0)
        score = (gram[:, :-3, -1] - np.einsum("bik,bi->bk", t, gram[:, -3:-1, -1])).sum(axis=0)
        return np.linalg.solve(hessian, score), np.sqrt(np.diag(np.linalg.inv(hessian)))

    expected, sigma = step(NumpyEngine(points, COLUMNS, THERMAL).evaluate(state).gram)
    engine = OpenCLEngine(device, points, COLUMNS, THERMAL, double=double)
    engine.evaluate(state)
    found, _ = step(engine.evaluate(state).gram)
    assert np.all(np.abs(found - expected) < 1e-3 * sigma)


def test_intensity_of_every_blob(calcite_points, device):
    points = calcite_points(blobs=3, size=1003, mean=2.0, seed=3)
    state = _state(points)
    for blob in range(3):
        found = OpenCLEngine(device, points, COLUMNS, THERMAL).intensity(state, blob)
        assert np.allclose(found, NumpyEngine(points, COLUMNS, THERMAL).intensity(state, blob), rtol=3e-5)


@pytest.mark.parametrize("relative_error", [0.0, 0.1])
@pytest.mark.parametrize("counts", [0.0, 1.0, 7.0])
def test_score_is_minus_the_slope_of_the_deviance(counts, relative_error):
    """Above and below the floor, where both use the parabola."""
    mean, floor, step = np.array([0.02, 0.3, 0.5001, 2.0, 9.0]), 0.5, 1e-6
    n = np.full_like(mean, counts)
    weight, residual, half, low = counting_terms(n, mean, floor, relative_error)
    up, down = (counting_terms(n, mean + d, floor, relative_error)[2] for d in (step, -step))
    assert np.allclose(weight * residual, -(up - down) / (2 * step), rtol=1e-5, atol=1e-8)
    assert np.array_equal(low, mean < floor)
    assert np.all(half >= -1e-12) or np.any(low)


def test_deviance_is_zero_at_perfect_fit_and_continuous_at_the_floor():
    counts = np.array([1.0, 4.0, 100.0])
    for error in (0.0, 0.02):
        assert np.allclose(counting_terms(counts, counts, 0.1, error)[2], 0)
        below, above = (counting_terms(counts, np.full(3, 2.0 + d), 2.0, error)[2] for d in (-1e-9, 1e-9))
        assert np.allclose(below, above)


def test_numpy_is_a_device(calcite_points):
    points = calcite_points(blobs=1, size=100, mean=2.0, seed=4)
    engine = make_engine("numpy", points, COLUMNS, THERMAL)
    assert "numpy" in engine.description


@pytest.mark.parametrize("choice", ["GPU-of-tomorrow:0", "7:0", "0:99"])
def test_absent_device_lists_what_there_is(choice, cpu):
    with pytest.raises(InputError, match=rf"device = '{choice}' is not here; there is: 0:0 = .*numpy"):
        select_device(choice)


def test_device_by_index_and_name(cpu):
    import pyopencl

    platform = pyopencl.get_platforms().index(cpu.platform)
    assert select_device(f"{platform}:{cpu.platform.get_devices().index(cpu)}") == cpu
    assert select_device(f"{cpu.platform.name[:8].lower()}:0") == cpu


def _platforms(**devices):
    """Platforms with devices of kinds ("GPU", "CPU"), which are named by platform and number."""
    import pyopencl as cl

    found = []
    for name, kinds in devices.items():
        listed = [
            SimpleNamespace(name=f"{name} {number}", type=getattr(cl.device_type, kind))
            for number, kind in enumerate(kinds)
        ]
        found.append(SimpleNamespace(name=name, get_devices=lambda listed=listed: listed))
    return found


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["nvidia 0", "nvidia 1", "nvidia 2"]),
        ("GPU", ["nvidia 0", "nvidia 1", "nvidia 2"]),
        ("nvidia", ["nvidia 0", "nvidia 1", "nvidia 2"]),
        ("1", ["nvidia 0", "nvidia 1", "nvidia 2"]),
        ("nvidia:1", ["nvidia 1"]),
        ("1:2", ["nvidia 2"]),
        ("other", ["other 0"]),
    ],
)
def test_processes_of_a_node_take_different_gpus(monkeypatch, choice, names):
    """Round and round those of one platform: another may list the same ones again."""
    import pyopencl

    platforms = _platforms(pocl=["CPU"], nvidia=["GPU"] * 3, other=["GPU"])
    monkeypatch.setattr(pyopencl, "get_platforms", lambda: platforms)
    found = [select_device(choice, number=number).name for number in range(7)]
    assert found == [names[number % len(names)] for number in range(7)]


def test_pyopencl_ctx_is_honoured(monkeypatch, cpu):
    monkeypatch.setenv("PYOPENCL_CTX", "5")
    with pytest.raises(InputError, match="PYOPENCL_CTX = 5:0 is not here"):
        select_device(None)
    monkeypatch.setenv("PYOPENCL_CTX", cpu.platform.name)
    assert select_device(None) == cpu


def test_no_driver_is_one_clear_line(monkeypatch):
    import pyopencl

    monkeypatch.setattr(pyopencl, "get_platforms", list)
    with pytest.raises(InputError, match=r"no OpenCL device was found: install a driver .*numpy"):
        select_device(None)


def test_broken_cpu_driver_is_one_clear_line(monkeypatch, cpu, tmp_path):
    """Without a linker PoCL aborts the process; the probe's process dies in our place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("POCL_CACHE_DIR", str(tmp_path / "pocl"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="cannot run a kernel: there is no linker `ld` on the PATH") as caught:
        device_module.select_device("CPU")
    assert "\n" not in str(caught.value)


def test_threads_are_shared_by_the_ranks_of_a_node(monkeypatch):
    monkeypatch.delenv("POCL_MAX_PTHREAD_COUNT", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    limit_threads(World(size=4, node_size=4).cores)
    import os

    assert os.environ["POCL_MAX_PTHREAD_COUNT"] == "2"


@pytest.mark.parametrize("double", [True, False])
def test_points_that_do_not_fit_are_loaded_in_turn(calcite_points, device, double, monkeypatch):
    """Parts that split blobs give the sums and intensities of all at once, also of fewer points."""
    points = calcite_points(blobs=3, size=1003, mean=2.0, seed=4)
    state = _state(points)
    whole = OpenCLEngine(device, points, COLUMNS, THERMAL, double=double)
    monkeypatch.setattr(device_points, "USABLE", 20 * 800 / device.global_mem_size)
    parted = OpenCLEngine(device, points, COLUMNS, THERMAL, double=double)
    assert "in 4 parts" in parted.description
    used = np.random.default_rng(5).random(1003) < 0.7
    for pass_ in range(3):
        if pass_ == 1:
            whole.use(1, used)
            parted.use(1, used)
        expected, found = whole.evaluate(state), parted.evaluate(state)
        assert np.allclose(found.deviance, expected.deviance, rtol=1e-6)
        assert np.array_equal(found.below_floor, expected.below_floor)
        scale = np.sqrt(np.einsum("bii->bi", expected.gram))
        assert np.abs((found.gram - expected.gram) / (scale[:, :, None] * scale[:, None, :])).max() < 3e-6
    for blob in range(3):
        assert np.array_equal(parted.intensity(state, blob), whole.intensity(state, blob))


def test_what_the_driver_refuses_is_one_clear_line(calcite_points, cpu, monkeypatch):
    import pyopencl

    def refuse(*_):
        raise pyopencl.MemoryError("clEnqueueNDRangeKernel failed: MEM_OBJECT_ALLOCATION_FAILURE")

    points = calcite_points(blobs=1, size=100, mean=2.0, seed=4)
    engine = OpenCLEngine(cpu, points, COLUMNS, THERMAL)
    monkeypatch.setattr(pyopencl, "enqueue_nd_range_kernel", refuse)
    with pytest.raises(InputError, match=r"failed \(clEnqueueNDRangeKernel failed: MEM_OBJECT.*numpy"):
        engine.evaluate(_state(points))
