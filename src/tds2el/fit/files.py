"""The result files: parametri.txt, which reads as a par-file, and tds2el_fit.h5; see docs/file-formats.md."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tds2el import __version__
from tds2el.crystal.frames import standard_frame
from tds2el.crystal.moduli import eigenvalues
from tds2el.errors import InputError
from tds2el.fit.context import FitContext, constant_status, result_notes, result_warnings
from tds2el.fit.derived import DIMENSIONLESS, averages_with_sigma, tensor_sigma
from tds2el.fit.parameters import Scale
from tds2el.fit.report import with_error
from tds2el.fit.result import FitResult
from tds2el.model.engine import Points

if TYPE_CHECKING:
    import h5py

PARAMETRI = "parametri.txt"
FIT_FILE = "tds2el_fit.h5"
FORMAT = "tds2el fit"
FORMAT_VERSION = 1

INTENSITY = "counts per unit correction"
SPOT_UNITS = {
    "hkl": "",
    "angle": "degrees",
    "points": "",
    "factor": f"{INTENSITY} times GPa",
    "baseline": INTENSITY,
    "chi2": "",
    "deviance": "",
    "below_floor": "",
    "left_out": "",
}


def write_parametri(path: Path, result: FitResult, context: FitContext) -> None:
    """Write the constants as a par-file, with spot factors and baselines as a commented table.

    Parameters
    ----------
    path : Path
        Replaced when the new file is whole.
    result : FitResult
    context : FitContext

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched.
    """
    text = "\n".join([*_header(result, context), "", *_constants(result, context), "", *_spots(result), ""])
    with _replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_fit_file(
    path: Path,
    result: FitResult,
    context: FitContext,
    curve: Callable[[int], npt.NDArray[np.float32]],
    points: Points,
) -> None:
    """Write everything about a fit as NeXus, with measured and expected counts of every point.

    Parameters
    ----------
    path : Path
        Replaced when the new file is whole.
    result : FitResult
    context : FitContext
    curve : callable
        Spot → expected counts of its points, in the order of ``points.pieces``. Called once per spot.
    points : Points

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched, as after any error of `curve`.
    """
    import h5py

    with _replaced(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=FORMAT_VERSION)
        entry = _group(file, "entry", "NXentry")
        entry.attrs["default"] = "spots"
        entry["title"] = f"elastic constants of {context.group.name}"
        _write_constants(entry, result, context)
        _write_tensors(entry, result, context)
        _write_spots(entry, result)
        _write_iterations(entry, result)
        _write_provenance(entry, result, context)
        _write_curve(entry, result, curve, points)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # h5py reports a full disk as either
        raise InputError(f"output_folder: {path} cannot be written ({error}); check space and permissions") from error
    finally:
        temporary.unlink(missing_ok=True)


def _scale_in_words(result: FitResult, context: FitContext) -> str:
    if context.simulated:
        return "as given: nothing was fitted but factors and baselines"
    names = result.constants.names
    if result.held is not None:
        return (
            f"held: {names[result.held]} keeps its start value, the data give the ratios to it only; "
            f"all GPa are for {names[result.held]} = {result.values[result.held]:g}"
        )
    if result.scale is Scale.FREE:
        return "free: fitted, the quantum terms determine it"
    return "known: from the constants that are frozen"


def _header(result: FitResult, context: FitContext) -> list[str]:
    frame = standard_frame(result.tensor, context.group)[0]
    lines = [
        f"tds2el {__version__}, {_now()}: elastic constants",
        f"frame: {frame.title}, {frame.axes}",
        f"scale {_scale_in_words(result, context)}",
        f"temperature {context.temperature:g} K, density {context.density:g} g/cm³, point group {context.group.name}",
        f"deviance/dof {result.deviance / result.dof:.5g}, {result.dof} degrees of freedom",
        *(f"input: {path}" for path in context.inputs),
        *(f"warning: {warning}" for warning in result_warnings(result, context)),
        *result_notes(result, context),
    ]
    return [f"# {' '.join(line.split())}" for line in lines]


def _constants(result: FitResult, context: FitContext) -> list[str]:
    constants, sigma, held = result.constants, result.errors.largest, result.held
    status = ["as given"] * len(sigma) if context.simulated else constant_status(result)
    lines = []
    for n, name in enumerate(constants.names):
        value, error = float(result.values[n]), float(sigma[n])
        shown = f"{error:.3g}" if np.isfinite(error) else "none"
        comment = (
            f"sigma {shown}, start {constants.start[n]:g}, bounds {constants.lower[n]:g} to {constants.upper[n]:g}, "
            f"unit GPa, {status[n]}"
        )
        if held is not None and n != held:
            unit = float(result.values[held])
            comment += f", ratio to {constants.names[held]} {with_error(value / unit, error / abs(unit))}"
        lines.append(f"{name} = {value!r}   # {comment}")
    return lines


def _spots(result: FitResult) -> list[str]:
    spots = result.spots
    lines = [
        "# spots: intensity = f S + b in counts per unit correction, S in 1/GPa; angle in degrees",
        f"# {'h':>4} {'k':>4} {'l':>4} {'angle':>10} {'points':>9} {'f':>14} {'sigma':>10} {'b':>14} {'sigma':>10}"
        f" {'chi2/dof':>9}",
    ]
    for n, (h, k, l) in enumerate(spots.hkl):  # noqa: E741
        lines.append(
            f"# {h:4d} {k:4d} {l:4d} {spots.angle[n]:10.3f} {spots.points[n]:9d} {spots.factor[n]:14.7g}"
            f" {spots.sigma_factor[n]:10.3g} {spots.baseline[n]:14.7g} {spots.sigma_baseline[n]:10.3g}"
            f" {spots.chi2[n] / spots.dof[n]:9.4f}{'  left out' if spots.left_out[n] else ''}"
        )
    return lines


def _write_constants(entry: h5py.Group, result: FitResult, context: FitContext) -> None:
    constants, errors = result.constants, result.errors
    group = _group(entry, "constants", "NXcollection")
    group.attrs["scale"] = str(result.scale)
    group.attrs["scale_in_words"] = _scale_in_words(result, context)
    group.attrs["frame"], group.attrs["simulated"] = "W", context.simulated
    _strings(group, "name", constants.names)
    _strings(group, "status", constant_status(result))
    columns = {
        "value": result.values,
        "start": constants.start,
        "lower": constants.lower,
        "upper": constants.upper,
        "sigma": errors.largest,
        "sigma_poisson": errors.poisson,
        "sigma_scaled": errors.scaled,
        "sigma_clustered": errors.clustered,
    }
    for name, values in columns.items():
        _dataset(group, name, values, "GPa")
    if result.held is not None:
        unit = float(result.values[result.held])
        group.attrs["held"] = constants.names[result.held]
        _dataset(group, "ratio", result.values / unit, "")
        _dataset(group, "sigma_ratio", errors.largest / abs(unit), "")
    _strings(group, "fitted", [constants.names[i] for i in result.fitted])
    _dataset(group, "covariance", result.covariance, "GPa^2")
    _dataset(group, "correlation", result.correlation, "")


def _write_tensors(entry: h5py.Group, result: FitResult, context: FitContext) -> None:
    tensors = _group(entry, "tensor", "NXcollection")
    blocks = standard_frame(result.tensor, context.group)
    for name, block in zip(("W", "P", "relabelled"), blocks, strict=False):
        group = _group(tensors, name, "NXcollection")
        group.attrs.update(title=block.title, axes_in_words=block.axes)
        _dataset(group, "stiffness", block.tensor, "GPa")
        _dataset(group, "stiffness_errors", tensor_sigma(result, block.rotation), "GPa")
        _dataset(group, "rotation", block.rotation, "")
    _dataset(tensors, "eigenvalues", eigenvalues(result.tensor), "GPa")
    moduli = _group(entry, "moduli", "NXcollection")
    for name, (value, sigma) in averages_with_sigma(result).items():
        unit = "" if name in DIMENSIONLESS else "GPa"
        _dataset(moduli, name, np.float64(value), unit)
        _dataset(moduli, f"{name}_errors", np.float64(sigma), unit)


def _write_spots(entry: h5py.Group, result: FitResult) -> None:
    """The table of spots; its χ²/dof is the default plot."""
    spots = result.spots
    group = _group(entry, "spots", "NXdata")
    group.attrs.update(signal="chi2_per_dof", axes="spot")
    group["title"] = "chi²/dof of each spot"
    _dataset(group, "spot", np.arange(len(spots.hkl)), "")
    _strings(
        group, "label", ["{} {} {} at {:.2f}°".format(*hkl, x) for hkl, x in zip(spots.hkl, spots.angle, strict=True)]
    )
    _dataset(group, "chi2_per_dof", spots.chi2 / spots.dof, "")
    _dataset(group, "chi2_per_dof_errors", np.sqrt(2 / spots.dof), "")
    for name, unit in SPOT_UNITS.items():
        _dataset(group, name, getattr(spots, name), unit)
    for name in ("factor", "baseline"):
        _dataset(group, f"{name}_errors", getattr(spots, f"sigma_{name}"), SPOT_UNITS[name])
    group["spot"].attrs["long_name"] = "spot (row of hkl and angle)"
    group["chi2_per_dof"].attrs["long_name"] = "chi²/dof (Pearson)"


def _write_iterations(entry: h5py.Group, result: FitResult) -> None:
    group = _group(entry, "iterations", "NXcollection")
    group.attrs["converged"] = result.converged
    for name in ("deviance", "predicted", "damping", "accepted"):
        _dataset(group, name, np.array([getattr(found, name) for found in result.iterations]), "")
    _dataset(group, "constants", np.array([found.constants for found in result.iterations]), "GPa")


def _write_provenance(entry: h5py.Group, result: FitResult, context: FitContext) -> None:
    import h5py
    import scipy

    process = _group(entry, "process", "NXprocess")
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    process["program"], process["version"], process["date"] = "tds2el", __version__, _now()
    process["command_line"] = shlex.join(sys.argv)
    for name, version in {**versions, "h5py": h5py.__version__}.items():
        process[name] = version
    process["device"] = context.device
    process.create_dataset("settings", data=json.dumps(dict(context.settings), default=str), dtype=_text())
    _strings(process, "inputs", [str(path) for path in context.inputs])
    _strings(entry, "warnings", result_warnings(result, context))
    _strings(entry, "notes", result_notes(result, context))

    conditions = _group(entry, "conditions", "NXcollection")
    conditions["point_group"] = context.group.name
    for name, value, unit in (
        ("temperature", context.temperature, "K"),
        ("density", context.density, "g/cm^3"),
        ("quantum_term", context.quantum_term, ""),
        ("direct_beam", np.array(context.direct_beam), "pixels"),
        ("nred", context.nred, ""),
        ("harvested", context.harvested, ""),
    ):
        _dataset(conditions, name, np.asarray(value), unit)
    for cause, number in context.lost.items():
        _dataset(conditions, f"lost_{cause}", np.asarray(number), "")
    statistics = _group(entry, "statistics", "NXcollection")
    statistics["deviance"], statistics["dof"] = result.deviance, result.dof


def _write_curve(
    entry: h5py.Group, result: FitResult, curve: Callable[[int], npt.NDArray[np.float32]], points: Points
) -> None:
    """Counts and expectation spot by spot, so that only one spot is in memory."""
    group = _group(entry, "curve", "NXcollection")
    offset = np.concatenate([[0], np.cumsum(points.sizes)])
    _dataset(group, "offset", offset, "")
    for name in ("counts", "expected"):
        group.create_dataset(name, shape=(int(offset[-1]),), dtype=np.float32, track_times=False)
        group[name].attrs["units"] = "counts"
    for spot, (start, stop) in enumerate(pairwise(offset.tolist())):
        group["expected"][start:stop] = curve(spot)
        for _, counts, _ in points.pieces(spot):
            group["counts"][start : start + len(counts)] = counts
            start += len(counts)


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _dataset(group: h5py.Group, name: str, values: npt.NDArray[Any] | np.float64, units: str) -> None:
    dataset = group.create_dataset(name, data=values, track_times=False)
    if units:
        dataset.attrs["units"] = units


def _strings(group: h5py.Group, name: str, texts: list[str]) -> None:
    group.create_dataset(name, data=np.array(texts, dtype=object), shape=(len(texts),), dtype=_text())


def _text() -> Any:
    import h5py

    return h5py.string_dtype()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
