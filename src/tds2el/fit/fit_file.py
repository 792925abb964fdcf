"""Writes tds2el_fit.h5, everything about a fit as NeXus; see docs/file-formats.md."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tds2el import __version__
from tds2el.crystal.frames import standard_frame
from tds2el.crystal.moduli import eigenvalues
from tds2el.fit.beyond import compare
from tds2el.fit.bragg import BraggScale
from tds2el.fit.context import (
    FitContext,
    constant_status,
    result_notes,
    result_warnings,
    scale_in_words,
    second_order,
)
from tds2el.fit.derived import DIMENSIONLESS, adiabatic_constants, averages_with_sigma, tensor_sigma
from tds2el.fit.known import Known, shares
from tds2el.fit.profiles import Profile, Profiles, ProfileSums, Pulls
from tds2el.fit.report import fit_report
from tds2el.fit.result import CorrectionTable, FitResult
from tds2el.model.engine import Points, State
from tds2el.model.position import q_now
from tds2el.output import now, replaced
from tds2el.progress import Stage

if TYPE_CHECKING:
    import h5py

FIT_FILE = "tds2el_fit.h5"
FORMAT = "tds2el fit"
FORMAT_VERSION = 2

INTENSITY = "counts per unit correction"
Q_UNIT = "1/angstrom"
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
    "filtered": "",
    "offset": Q_UNIT,
    "peak": Q_UNIT,
    "centre_held": "",
    "slope": f"{INTENSITY} times angstrom",
    "background": "",
    "cut": "",
    "foreign": "",
    "regions": "",
    "own": "",
}


QUALITY = ("coverage", "signal", "lost_frames", "offset_pixels")
"""Figures of the spots' data, see `tds2el.harvest.quality.SpotQuality`."""


def write_fit_file(
    path: Path,
    result: FitResult,
    context: FitContext,
    curve: Callable[[int], npt.NDArray[np.float32]] | None,
    points: Points,
    used: Sequence[npt.NDArray[np.bool_]] | None = None,
    state: State | None = None,
) -> FitContext:
    """Write everything about a fit as NeXus, with measured and expected counts of every point.

    Parameters
    ----------
    path : Path
        Replaced when the new file is whole.
    result : FitResult
    context : FitContext
    curve : callable or None
        Spot → expected counts of its points, in the order of ``points.pieces``. Called once per spot. None: neither
        curves nor profiles are written.
    points : Points
    used : sequence of ndarray of bool, optional
        Which points of each spot the fit used; by default all.
    state : State, optional
        Where the fit ended, if points have moved.

    Returns
    -------
    FitContext
        With what the profiles say of the innermost part of the shells.

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched, as after any error of `curve`.
    """
    import h5py

    with replaced(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry", format=FORMAT, format_version=FORMAT_VERSION)
        entry = _group(file, "entry", "NXentry")
        entry.attrs["default"] = "spots"
        entry["title"] = f"elastic constants of {context.group.name}"
        if curve is not None:
            sums = ProfileSums(points, result.spots.left_out, context.relative_error)
            _write_curve(entry, curve, points, sums, used, state)
            profiles = sums.profiles()
            _write_profiles(entry, profiles)
            context = replace(context, inner_excess=profiles.radial.inner_excess(~result.spots.left_out))
        write_constants(entry, result, context)
        if context.model == "next-order":
            _write_next_order(entry, result)
        if result.corrections is not None:
            _write_corrections(entry, result.corrections)
        if result.bragg is not None:
            _write_bragg(entry, result.bragg)
        _write_tensors(entry, result, context)
        _write_spots(entry, result, points, context)
        _write_iterations(entry, result)
        write_provenance(entry, result, context)
    return context


def write_constants(entry: h5py.Group, result: FitResult, context: FitContext) -> None:
    """The group of constants with errors, covariance and the scale."""
    constants, errors = result.constants, result.errors
    group = _group(entry, "constants", "NXcollection")
    group.attrs["scale"] = str(result.scale)
    group.attrs["scale_in_words"] = scale_in_words(result, context)
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
    for label, found in (("profile", result.profile), ("bootstrap", result.bootstrap)):
        if found is not None:
            _dataset(group, f"{label}_lower", found.lower, "GPa")
            _dataset(group, f"{label}_upper", found.upper, "GPa")
    if context.thermal is not None:
        adiabatic, sigma = adiabatic_constants(result, context.thermal)
        _dataset(group, "adiabatic", adiabatic, "GPa")
        _dataset(group, "sigma_adiabatic", sigma, "GPa")
    if constants.known is not None:
        _write_known(group, constants.known, result)


def _write_known(parent: h5py.Group, known: Known, result: FitResult) -> None:
    """What was known from elsewhere; units are GPa, of compressibilities 1/GPa."""
    group = _group(parent, "known", "NXcollection")
    _strings(group, "name", [datum.name for datum in known.data])
    _strings(group, "state", [datum.state for datum in known.data])
    _dataset(group, "value", np.array([datum.value for datum in known.data]), "as named")
    _dataset(group, "sigma", np.array([datum.sigma for datum in known.data]), "as named")
    _dataset(group, "fitted", np.array([datum.quantity(result.tensor)[0] for datum in known.data]), "as named")
    if len(result.fitted):
        _dataset(group, "share_of_variance", shares(known, result.values, result.fitted, result.covariance), "")


def _write_bragg(entry: h5py.Group, found: BraggScale) -> None:
    """The scale from the Bragg peak of every spot against its strength, for extinction."""
    group = _group(entry, "bragg", "NXdata")
    group.attrs.update(signal="log_ratio", axes="strength")
    group["title"] = "scale of the constants from Bragg intensities, against |F|²/sin 2θ"
    _strings(group, "flaw", found.flaw)
    for field in fields(found):
        if field.name != "flaw":
            name = "log_ratio_errors" if field.name == "sigma" else field.name
            _dataset(group, name, np.asarray(getattr(found, field.name), dtype=np.float64), "")


def _write_next_order(entry: h5py.Group, result: FitResult) -> None:
    """What was fitted beyond the elastic limit, and that limit beside it."""
    group = _group(entry, "next_order", "NXcollection")
    found, spots = result.dispersion, result.spots
    if found is not None:
        dispersion = _group(group, "dispersion", "NXcollection")
        dispersion.attrs.update(frame="W", expanded=found.expanded)
        _strings(dispersion, "name", found.names)
        _dataset(dispersion, "value", found.value, "GPa*angstrom^2")
        _dataset(dispersion, "sigma", found.sigma, "GPa*angstrom^2")
        _dataset(dispersion, "held", found.held, "")
        _dataset(dispersion, "covariance", found.covariance, "GPa^2*angstrom^4")
        if found.gain is not None:
            _dataset(dispersion, "gain", np.float64(found.gain), "")
    for name, unit in (("gradient", "angstrom"), ("strain", "")):
        if np.isfinite(getattr(spots, f"sigma_{name}")).any():
            _dataset(group, name, getattr(spots, name), unit)
            _dataset(group, f"{name}_errors", getattr(spots, f"sigma_{name}"), unit)
    comparison = compare(result)
    if comparison is None or result.elastic is None:
        return
    elastic = _group(group, "comparison", "NXcollection")
    elastic.attrs.update(biased=comparison.biased, reference=comparison.reference or "")
    _strings(elastic, "name", comparison.names)
    unit = "GPa" if comparison.reference is None else ""
    for name in ("elastic", "beyond", "sigma_elastic", "sigma_beyond"):
        _dataset(elastic, name, getattr(comparison, name), unit)
    _dataset(elastic, "shift", comparison.shift, "sigma of the difference")
    for name, value in (
        ("probability", comparison.probability),
        ("elastic_deviance", result.elastic.deviance),
        ("elastic_dof", result.elastic.dof),
    ):
        _dataset(elastic, name, np.asarray(value), "")


def _write_corrections(entry: h5py.Group, found: CorrectionTable) -> None:
    group = _group(entry, "corrections", "NXcollection")
    _strings(group, "name", found.names)
    _strings(group, "status", found.status)
    _strings(group, "notes", list(found.notes))
    _strings(group, "moved", list(found.moved))
    for name in ("start", "correction", "sigma", "lower", "upper", "value"):
        _dataset(group, name, getattr(found, name), "of the option")


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


def _write_spots(entry: h5py.Group, result: FitResult, points: Points, context: FitContext) -> None:
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
    second = second_order(result, context)
    _dataset(group, "two_phonon", second.ratio, "")
    _dataset(group, "two_phonon_left", second.left, "")
    for name, unit in SPOT_UNITS.items():
        _dataset(group, name, getattr(spots, name), unit)
    _dataset(group, "centre", points.nodes, Q_UNIT)
    for name in ("factor", "baseline", "offset", "background"):
        _dataset(group, f"{name}_errors", getattr(spots, f"sigma_{name}"), SPOT_UNITS[name])
    for name in QUALITY:
        quality = np.full(len(spots.hkl), np.nan) if context.quality is None else getattr(context.quality, name)
        _dataset(group, name, quality, "pixels" if name == "offset_pixels" else "")
    group["spot"].attrs["long_name"] = "spot (row of hkl and angle)"
    group["chi2_per_dof"].attrs["long_name"] = "chi²/dof (Pearson)"


def _write_iterations(entry: h5py.Group, result: FitResult) -> None:
    group = _group(entry, "iterations", "NXcollection")
    group.attrs["converged"] = result.converged
    for name in ("deviance", "predicted", "damping", "accepted"):
        _dataset(group, name, np.array([getattr(found, name) for found in result.iterations]), "")
    _dataset(group, "constants", np.array([found.constants for found in result.iterations]), "GPa")
    _dataset(group, "corrections", np.array([found.geometry for found in result.iterations]), "of the option")


def write_provenance(entry: h5py.Group, result: FitResult, context: FitContext) -> None:
    """Program and versions, settings, inputs, warnings, notes, and the conditions of the fit."""
    import h5py
    import scipy

    process = _group(entry, "process", "NXprocess")
    versions = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    process["program"], process["version"], process["date"] = "tds2el", __version__, now()
    process["command_line"] = shlex.join(sys.argv)
    for name, version in {**versions, "h5py": h5py.__version__}.items():
        process[name] = version
    process["device"] = context.device
    for name, settings in (("settings", context.settings), ("harvest_settings", context.harvest_settings)):
        process.create_dataset(name, data=json.dumps(dict(settings), default=str), dtype=_text())
    _strings(process, "inputs", [str(path) for path in context.inputs])
    _strings(entry, "warnings", result_warnings(result, context))
    _strings(entry, "notes", result_notes(result, context))
    entry.create_dataset("report", data=fit_report(result, context), dtype=_text())

    conditions = _group(entry, "conditions", "NXcollection")
    conditions["point_group"], conditions["system"] = context.group.name, context.group.system
    conditions["model"] = context.model
    _dataset(conditions, "cell", np.array(context.group.cell.parameters), "angstrom, degrees")
    for name, value, unit in (
        ("temperature", context.temperature, "K"),
        ("density", context.density, "g/cm^3"),
        ("quantum_term", context.quantum_term, ""),
        ("direct_beam", np.array(context.direct_beam), "pixels"),
        ("shell", np.array(context.shell), Q_UNIT),
        ("n_frames", context.n_frames, ""),
        ("nred", context.nred, ""),
        ("relative_error", context.relative_error, ""),
        ("harvested", context.harvested, ""),
    ):
        _dataset(conditions, name, np.asarray(value), unit)
    for cause, number in context.lost.items():
        _dataset(conditions, f"lost_{cause}", np.asarray(number), "")
    statistics = _group(entry, "statistics", "NXcollection")
    statistics["deviance"], statistics["chi2"], statistics["dof"] = result.deviance, result.chi2, result.dof


def _write_curve(
    entry: h5py.Group,
    curve: Callable[[int], npt.NDArray[np.float32]],
    points: Points,
    sums: ProfileSums,
    used: Sequence[npt.NDArray[np.bool_]] | None,
    state: State | None,
) -> None:
    """Counts and expectation spot by spot, so that only one spot is in memory; the profiles are summed on the way."""
    group = _group(entry, "curve", "NXcollection")
    offset = np.concatenate([[0], np.cumsum(points.sizes)])
    _dataset(group, "offset", offset, "")
    for name, dtype in (("counts", np.float32), ("expected", np.float32), ("used", np.bool_)):
        group.create_dataset(name, shape=(int(offset[-1]),), dtype=dtype, track_times=False)
        group[name].attrs["units"] = "" if name == "used" else "counts"
    with Stage("write curves", int(offset[-1]), "point") as stage:
        for spot, (start, stop) in enumerate(pairwise(offset.tolist())):
            expected = curve(spot)
            group["expected"][start:stop] = expected
            chosen = np.ones(stop - start, dtype=bool) if used is None else used[spot]
            group["used"][start:stop] = chosen
            done = 0
            for piece in points.pieces(spot):
                part = slice(done, done + len(piece.counts))
                group["counts"][start + part.start : start + part.stop] = piece.counts
                q = piece.q if state is None else q_now(points, state, spot, piece)
                mine = chosen[part]
                sums.add(
                    spot, q[mine], piece.counts[mine], piece.correction[mine], expected[part][mine].astype(np.float64)
                )
                done = part.stop
                stage.update(len(piece.counts))


def _write_profiles(entry: h5py.Group, profiles: Profiles) -> None:
    group = _group(entry, "profiles", "NXcollection")
    for name, axis, unit, long_name in (
        ("radial", "q", Q_UNIT, "|q| (Å⁻¹)"),
        ("angle", "angle", "degrees", "angle between q and G (degrees)"),
        ("azimuth", "azimuth", "degrees", "azimuth of q about G (degrees)"),
    ):
        _write_profile(group, name, getattr(profiles, name), axis, unit, long_name)
    _write_pulls(group, profiles.pulls)


def _write_profile(parent: h5py.Group, name: str, profile: Profile, axis: str, unit: str, long_name: str) -> None:
    group = _group(parent, name, "NXdata")
    group.attrs.update(signal="intensity", axes=["spot", axis], auxiliary_signals=["model"])
    group["title"] = f"intensity of each spot against the {long_name.rsplit(' (', 1)[0]}"
    spots = len(profile.points)
    _dataset(group, "spot", np.arange(spots), "")
    _dataset(group, axis, profile.centres, unit)
    group[axis].attrs["long_name"] = long_name
    _dataset(group, f"{axis}_edges", profile.edges, unit)
    _dataset(group, "intensity", profile.intensity, INTENSITY)
    _dataset(group, "intensity_errors", profile.sigma, INTENSITY)
    _dataset(group, "model", profile.model, INTENSITY)
    _dataset(group, "points", profile.points, "")
    group["intensity"].attrs.update(long_name=f"intensity ({INTENSITY})", interpretation="spectrum")


def _write_pulls(parent: h5py.Group, pulls: Pulls) -> None:
    group = _group(parent, "pulls", "NXdata")
    group.attrs.update(signal="points", axes="pull", auxiliary_signals=["expected"])
    group["title"] = "pulls (N − m)/√variance"
    _dataset(group, "pull", (pulls.edges[1:] + pulls.edges[:-1]) / 2, "")
    _dataset(group, "pull_edges", pulls.edges, "")
    _dataset(group, "points", pulls.points, "")
    _dataset(group, "expected", pulls.expected, "")
    group["pull"].attrs["long_name"], group["points"].attrs["long_name"] = "pull", "points per bin"
    for name in ("below", "above", "mean", "rms"):
        _dataset(group, name, np.asarray(getattr(pulls, name)), "")

    group = _group(parent, "pulls_against_q", "NXdata")
    group.attrs.update(signal="mean", axes="q", auxiliary_signals=["rms"])
    group["title"] = "mean pull against |q|"
    _dataset(group, "q", (pulls.q_edges[1:] + pulls.q_edges[:-1]) / 2, Q_UNIT)
    _dataset(group, "q_edges", pulls.q_edges, Q_UNIT)
    group["q"].attrs["long_name"] = "|q| (Å⁻¹)"
    sigma = np.divide(1, np.sqrt(pulls.q_points), out=np.full(len(pulls.q_points), np.nan), where=pulls.q_points > 0)
    _dataset(group, "mean", pulls.q_mean, "")
    _dataset(group, "mean_errors", sigma, "")
    _dataset(group, "rms", pulls.q_rms, "")
    _dataset(group, "rms_errors", sigma / np.sqrt(2), "")
    _dataset(group, "points", pulls.q_points, "")


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _dataset(group: h5py.Group, name: str, values: npt.NDArray[Any] | np.float64, units: str) -> None:
    dataset = group.create_dataset(name, data=values, track_times=False)
    dataset.attrs["units"] = units  # "" says that it is a number


def _strings(group: h5py.Group, name: str, texts: list[str]) -> None:
    group.create_dataset(name, data=np.array(texts, dtype=object), shape=(len(texts),), dtype=_text())


def _text() -> Any:
    import h5py

    return h5py.string_dtype()
