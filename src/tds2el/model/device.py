"""Choice of the device and its engine.

Nothing is picked silently: the caller prints the device, and an absent choice is an error that lists what there is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tds2el.errors import InputError
from tds2el.model.engine import Columns, Conditions, Engine, Points
from tds2el.model.numpy_engine import NumpyEngine
from tds2el.model.opencl_engine import OpenCLEngine
from tds2el.parallel import World


def make_engine(
    choice: str | None,
    points: Points,
    columns: Columns,
    conditions: Conditions,
    *,
    cores: int | None = None,
    number: int = 0,
) -> Engine:
    """The engine that the option `device` names, with the points on it.

    Parameters
    ----------
    choice : str or None
        "numpy", or what `select_device` takes.
    points : Points
    columns : Columns
    conditions : Conditions
    cores : int, optional
    number : int
        As `select_device` takes them.
    """
    if choice == "numpy":
        return NumpyEngine(points, columns, conditions)
    threads = World().cores if cores is None else cores
    return OpenCLEngine(select_device(choice, cores, number), points, columns, conditions, threads=threads)


def identity_of(engine: Engine) -> str:
    """What tells the device of an engine from others, also from those of the same name and of other nodes."""
    if not isinstance(engine, OpenCLEngine):
        return platform.node()
    device = engine.device
    try:
        # Where every process is given a GPU of its own, all are the first that it sees.
        place = f"bus {device.pci_bus_id_nv} {device.pci_slot_id_nv}"
    except Exception:  # of several kinds, where the driver does not tell
        place = f"number {device.platform.get_devices().index(device)}"
    return f"{platform.node()} / {device.platform.name} / {place}"


def select_device(choice: str | None, cores: int | None = None, number: int = 0) -> Any:
    """The OpenCL device that `choice` names.

    Parameters
    ----------
    choice : str or None
        None: what PYOPENCL_CTX says, else the first GPU, else the first CPU. "GPU", "CPU": the first such device.
        "platform:device": indices, or parts of the names.
    cores : int, optional
        Threads that a CPU device may use; by default one for each core of this process.
    number : int
        Where `choice` leaves several devices of one platform, which of them, counted round and round: processes of one
        node take different GPUs.

    Returns
    -------
    pyopencl.Device

    Raises
    ------
    InputError
        No OpenCL, no such device, or a CPU device that cannot build a kernel.
    """
    limit_threads(World().cores if cores is None else cores)
    try:
        import pyopencl as cl
    except ImportError as error:
        raise InputError(f'pyopencl does not load ({error}): reinstall it, or use device = "numpy"') from None
    try:
        platforms = [(found, found.get_devices()) for found in cl.get_platforms()]
    except cl.Error:
        platforms = []
    listing = "; ".join(
        f"{p}:{d} = {found.name.strip()} / {device.name.strip()}"
        for p, (found, devices) in enumerate(platforms)
        for d, device in enumerate(devices)
    )
    if not listing:
        raise InputError(
            "no OpenCL device was found: install a driver (pip install 'tds2el[cpu]' brings one for CPUs), "
            'or use device = "numpy"'
        )
    if choice is None and os.environ.get("PYOPENCL_CTX"):
        choice = os.environ["PYOPENCL_CTX"]
        if ":" not in choice:
            choice += ":0"
        name = f"PYOPENCL_CTX = {choice}"
    else:
        name = f"device = {choice!r}"
    devices = _find(choice, platforms, cl)
    if not devices:
        raise InputError(f'{name} is not here; there is: {listing}; and "numpy"')
    device = devices[number % len(devices)]
    if device.type & cl.device_type.CPU:
        _probe(device)
    return device


def try_device(choice: str | None, world: World) -> None:
    """Let one rank of each node select the device that `choice` names, which the others then need not try.

    Raises
    ------
    InputError
        As `select_device`, on that rank.
    """
    if choice != "numpy" and world.node_rank == 0:
        select_device(choice, world.cores)


def limit_threads(cores: int) -> None:
    """Give PoCL this rank's share of the cores; it reads the variable at its first call."""
    os.environ.setdefault("POCL_MAX_PTHREAD_COUNT", str(cores))


def _find(choice: str | None, platforms: list[tuple[Any, list[Any]]], cl: Any) -> list[Any]:
    """The devices of the first platform that has any of the choice: another may offer the same ones again."""
    kinds = {"GPU": [cl.device_type.GPU], "CPU": [cl.device_type.CPU]}
    wanted = [cl.device_type.GPU, cl.device_type.CPU] if choice is None else kinds.get(choice.upper())
    if wanted is not None:
        of_kind = ([d for d in devices if d.type & kind] for kind in wanted for _, devices in platforms)
        return next((devices for devices in of_kind if devices), [])
    assert choice is not None
    platform_part, _, device_part = choice.partition(":")
    named = (
        _matching(device_part, found, lambda entry: entry.name)
        for _, found in _matching(platform_part, platforms, lambda entry: entry[0].name)
    )
    return next((devices for devices in named if devices), [])


def _matching(part: str, entries: list[Any], name_of: Any) -> list[Any]:
    part = part.strip()
    if part.isdigit():
        return entries[int(part) : int(part) + 1]
    return [entry for entry in entries if part.lower() in name_of(entry).lower()]


def _probe(device: Any) -> None:
    """Build and run a kernel on a CPU device in a subprocess: a broken driver aborts the process that uses it.

    A driver that passed once with the same linker and kernel sources is not asked again.
    """
    from platformdirs import user_cache_path

    from tds2el.model.source import kernel_folder

    sources = b"".join(path.read_bytes() for path in sorted(kernel_folder().iterdir()))
    parts = [
        device.platform.name,
        device.platform.version,
        device.name,
        device.driver_version,
        str(shutil.which("ld")),
    ]
    digest = hashlib.sha256("\n".join(parts).encode() + sources).hexdigest()[:24]
    passed = user_cache_path("tds2el") / f"probe-{digest}"
    if passed.exists():
        return
    index = device.platform.get_devices().index(device)
    run = subprocess.run(
        [sys.executable, "-m", "tds2el.model.probe", device.platform.name, str(index)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *_python_path()])},
        check=False,
    )
    if run.returncode != 0:
        lines = (run.stderr or run.stdout).strip().splitlines()
        reason = lines[-1].strip() if lines else f"it ended with status {run.returncode}"
        if shutil.which("ld") is None:
            reason = "there is no linker `ld` on the PATH, which its compiler needs"
        raise InputError(
            f"the OpenCL device {device.name.strip()} ({device.platform.name.strip()}) cannot run a kernel: {reason}; "
            'mend the driver, choose another device, or use device = "numpy"'
        )
    try:
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    except OSError:
        pass  # no cache folder: the next run probes again


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
