"""What the measurements run on, how fast that is at best, and the memory that a process takes."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("tds2el", "numpy", "scipy", "h5py", "fabio", "pyopencl", "mpi4py", "numba")


QUIET = 0.3
"""Seconds after which threads of numpy's linear algebra, used before, have ceased to look for work."""


def median_seconds(*tasks: Callable[[], object], repeats: int) -> tuple[float, ...]:
    """Median over repeats of each task, after one run that does not count; in turn, since machines change."""
    times: list[list[float]] = [[] for _ in tasks]
    time.sleep(QUIET)
    for _ in range(repeats + 1):
        for found, task in zip(times, tasks, strict=True):
            start = time.perf_counter()
            task()
            found.append(time.perf_counter() - start)
    return tuple(statistics.median(found[1:]) for found in times)


def describe() -> dict[str, object]:
    """Processor, cores, memory, OpenCL devices with their drivers, and versions."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "devices": _devices(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def cpu_name() -> str:
    """As the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def resident_bytes() -> int:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def device_bandwidth(device: Any) -> float:
    """Bytes/s that an OpenCL device reads and writes when it copies its own memory."""
    import pyopencl as cl

    context, size = cl.Context([device]), 1 << 28
    queue = cl.CommandQueue(context)
    source, target = (cl.Buffer(context, cl.mem_flags.READ_WRITE, size) for _ in range(2))

    def copy() -> None:
        for _ in range(10):
            cl.enqueue_copy(queue, target, source)
        queue.finish()

    return 10 * 2 * size / median_seconds(copy, repeats=5)[0]


def limits() -> dict[str, float]:
    """Bytes/s that all cores read from memory, and operations/s of matrix products in single and double precision."""
    cores = len(os.sched_getaffinity(0))
    parts = np.array_split(np.ones(1 << 27, np.float32), cores)
    with ThreadPoolExecutor(cores) as pool:
        reading = median_seconds(lambda: list(pool.map(np.max, parts)), repeats=5)[0]
    rates = []
    for dtype in (np.float32, np.float64):
        a = np.ones((2048, 2048), dtype)
        rates.append(2 * 2048**3 / median_seconds(lambda a=a: a @ a, repeats=5)[0])
    return {"bytes_per_second": (4 << 27) / reading, "single_per_second": rates[0], "double_per_second": rates[1]}


def _devices() -> list[str]:
    import pyopencl as cl

    try:
        platforms = cl.get_platforms()
    except cl.Error:
        return []
    return [
        f"{device.name.strip()}, driver {device.driver_version}, {platform.name.strip()} ({platform.version.strip()})"
        for platform in platforms
        for device in platform.get_devices()
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
