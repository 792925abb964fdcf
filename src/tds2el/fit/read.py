"""Reads tds2el_fit.h5 back: all that pictures and reports need, but not the points."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.fit.beyond import Comparison
from tds2el.fit.bragg import BraggScale
from tds2el.fit.derived import AVERAGES
from tds2el.fit.fit_file import FORMAT, FORMAT_VERSION
from tds2el.fit.profiles import Profile, Profiles, Pulls
from tds2el.fit.result import CorrectionTable, DispersionTable

if TYPE_CHECKING:
    import h5py

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ConstantsTable:
    """The free constants in the working frame, shape (k,) each, GPa; NaN where there is nothing to give.

    Attributes
    ----------
    names, status : list of str
        Status is fitted, frozen, held, at lower bound or at upper bound.
    value, start, lower, upper : ndarray
    sigma, sigma_poisson, sigma_scaled, sigma_clustered : ndarray
        `sigma` is the largest of the other three.
    scale, scale_in_words : str
        known, held or free.
    held : str or None
        Name of the constant that keeps its start value because the data give ratios only.
    simulated : bool
        Nothing was fitted but factors and baselines.
    fitted : list of str
        The constants that the next two are for.
    covariance, correlation : ndarray, shape (fitted, fitted)
        GPa², and dimensionless.
    """

    names: list[str]
    status: list[str]
    value: Array
    start: Array
    lower: Array
    upper: Array
    sigma: Array
    sigma_poisson: Array
    sigma_scaled: Array
    sigma_clustered: Array
    scale: str
    scale_in_words: str
    held: str | None
    simulated: bool
    fitted: list[str]
    covariance: Array
    correlation: Array

    @property
    def unit(self) -> float:
        """What ratios are to: the held constant's value in GPa, or 1 where the scale is not held."""
        return 1.0 if self.held is None else float(self.value[self.names.index(self.held)])


@dataclass(frozen=True)
class FrameTensor:
    """The tensor in one frame: stiffness and sigma (6, 6) in GPa; rows of rotation (3, 3) are the frame's axes in W."""

    title: str
    axes: str
    rotation: Array
    stiffness: Array
    sigma: Array


@dataclass(frozen=True)
class SpotTable:
    """One row per spot; see `tds2el.fit.result.Spots` and `tds2el.harvest.quality`; `centre` (spots, 3) is G in Å⁻¹."""

    label: list[str]
    hkl: Integers
    centre: Array
    angle: Array
    points: Integers
    factor: Array
    baseline: Array
    sigma_factor: Array
    sigma_baseline: Array
    chi2_per_dof: Array
    sigma_chi2_per_dof: Array
    deviance: Array
    below_floor: Array
    left_out: Mask
    filtered: Mask
    offset: Array
    sigma_offset: Array
    peak: Array
    centre_held: Mask
    slope: Array
    background: Array
    sigma_background: Array
    cut: Integers
    foreign: Integers
    regions: Integers
    coverage: Array
    signal: Array
    lost_frames: Array
    offset_pixels: Array


@dataclass(frozen=True)
class IterationTable:
    """One row per pass over the points, shape (passes,); constants (passes, k) in GPa."""

    deviance: Array
    predicted: Array
    damping: Array
    accepted: Mask
    constants: Array
    corrections: Array
    converged: bool


@dataclass(frozen=True)
class NextOrderTable:
    """What was fitted beyond the elastic limit, and that limit beside it; see `tds2el.fit.beyond.Comparison`.

    Attributes
    ----------
    dispersion : DispersionTable or None
    gradient, sigma_gradient : ndarray, shape (spots, 3), or None
        Å; NaN where it is held at 0.
    strain, sigma_strain : ndarray, shape (spots, 6), or None
        xx yy zz yz xz xy.
    comparison : Comparison or None
    """

    dispersion: DispersionTable | None
    gradient: Array | None
    sigma_gradient: Array | None
    strain: Array | None
    sigma_strain: Array | None
    comparison: Comparison | None


@dataclass(frozen=True)
class FitFile:
    """Everything in a fit file but the points.

    Attributes
    ----------
    path : Path
    title : str
    constants : ConstantsTable
    frames : dict of FrameTensor
        "W", "P" and, where the cell breaks IEEE's order of the axes, "relabelled".
    eigenvalues : ndarray, shape (6,)
        Of Kelvin's matrix, GPa.
    moduli : dict of (value, sigma)
        The quantities of `tds2el.fit.derived.AVERAGES`, GPa or dimensionless.
    spots : SpotTable
    curve_profiles : Profiles or None
        None where the fit wrote no curve; see `profiles`.
    iterations : IterationTable
    corrections : CorrectionTable or None
    next_order : NextOrderTable or None
        None in the elastic limit.
    deviance, chi2, dof : float, float, int
        Over the spots that were not left out.
    point_group, system : str
    cell : ndarray, shape (6,)
        Å and degrees, symmetrised.
    temperature, density : float
        K and g/cm³.
    quantum_term, relative_error : float
    direct_beam : tuple of float
        Row and column.
    shell : tuple of float
        Inner and outer radius, Å⁻¹.
    n_frames : int
        Frames of the scan.
    nred, harvested : int
    lost : dict
        Cause → points of the fitted spots that were not harvested.
    settings, harvest_settings : dict
        Every option's value, at the fit and at the harvest.
    program : dict of str
        program, version, date, command_line, device and the versions of python, numpy, scipy and h5py.
    inputs, warnings, notes : list of str
    report : str
        The report as printed at the end of the run.
    bragg : BraggScale or None
        Where the scale came from Bragg intensities.
    """

    path: Path
    title: str
    constants: ConstantsTable
    frames: dict[str, FrameTensor]
    eigenvalues: Array
    moduli: dict[str, tuple[float, float]]
    spots: SpotTable
    curve_profiles: Profiles | None
    iterations: IterationTable
    corrections: CorrectionTable | None
    next_order: NextOrderTable | None
    deviance: float
    chi2: float
    dof: int
    point_group: str
    system: str
    cell: Array
    temperature: float
    density: float
    quantum_term: float
    relative_error: float
    direct_beam: tuple[float, float]
    shell: tuple[float, float]
    n_frames: int
    nred: int
    harvested: int
    lost: dict[str, int]
    settings: dict[str, Any]
    harvest_settings: dict[str, Any]
    program: dict[str, str]
    inputs: list[str]
    warnings: list[str]
    notes: list[str]
    report: str
    bragg: BraggScale | None = None

    @property
    def profiles(self) -> Profiles:
        """Profiles of data and fitted curve.

        Raises
        ------
        InputError
            The fit wrote no curve.
        """
        if self.curve_profiles is None:
            raise InputError(
                f"{self.path}: was written with fitted_curve = False, without profiles; fit again with True"
            )
        return self.curve_profiles


def read_fit_file(path: Path) -> FitFile:
    """Read a file that `tds2el.fit.fit_file.write_fit_file` wrote.

    Raises
    ------
    InputError
        No such file, no fit file, one of another version, or a damaged one.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name the tds2el_fit.h5 of a fit")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(f"{path}: not readable as HDF5 ({error}); name the tds2el_fit.h5 of a fit") from None
    with file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{path}: not a fit of tds2el; name the tds2el_fit.h5 of a fit")
        version = file.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: written by another version of tds2el (format {version}, this program reads "
                f"{FORMAT_VERSION}): fit again; load_from_file saves the harvest"
            )
        try:
            return _read(path, file["entry"])
        except (KeyError, ValueError, OSError, RuntimeError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: damaged ({error}); fit again") from error


def _read(path: Path, entry: h5py.Group) -> FitFile:
    conditions, process, statistics = entry["conditions"], entry["process"], entry["statistics"]
    row, column = conditions["direct_beam"][()]
    q_min, q_max = conditions["shell"][()]
    tensors, moduli = entry["tensor"], entry["moduli"]
    lists = ("settings", "harvest_settings", "inputs")
    return FitFile(
        path=path,
        title=_string(entry["title"]),
        constants=_constants(entry["constants"]),
        frames={
            name: FrameTensor(
                title=str(tensors[name].attrs["title"]),
                axes=str(tensors[name].attrs["axes_in_words"]),
                rotation=tensors[name]["rotation"][()],
                stiffness=tensors[name]["stiffness"][()],
                sigma=tensors[name]["stiffness_errors"][()],
            )
            for name in ("W", "P", "relabelled")
            if name in tensors
        },
        eigenvalues=tensors["eigenvalues"][()],
        moduli={name: (float(moduli[name][()]), float(moduli[f"{name}_errors"][()])) for name in AVERAGES},
        spots=_spots(entry["spots"]),
        curve_profiles=_profiles(entry["profiles"]) if "curve" in entry else None,
        iterations=_iterations(entry["iterations"]),
        corrections=_corrections(entry["corrections"]) if "corrections" in entry else None,
        bragg=_bragg(entry["bragg"]) if "bragg" in entry else None,
        next_order=_next_order(entry["next_order"]) if "next_order" in entry else None,
        deviance=float(statistics["deviance"][()]),
        chi2=float(statistics["chi2"][()]),
        dof=int(statistics["dof"][()]),
        point_group=_string(conditions["point_group"]),
        system=_string(conditions["system"]),
        cell=conditions["cell"][()],
        temperature=float(conditions["temperature"][()]),
        density=float(conditions["density"][()]),
        quantum_term=float(conditions["quantum_term"][()]),
        relative_error=float(conditions["relative_error"][()]),
        direct_beam=(float(row), float(column)),
        shell=(float(q_min), float(q_max)),
        n_frames=int(conditions["n_frames"][()]),
        nred=int(conditions["nred"][()]),
        harvested=int(conditions["harvested"][()]),
        lost={name.removeprefix("lost_"): int(conditions[name][()]) for name in conditions if name.startswith("lost_")},
        settings=json.loads(_string(process["settings"])),
        harvest_settings=json.loads(_string(process["harvest_settings"])),
        program={name: _string(process[name]) for name in process if name not in lists},
        inputs=_strings(process["inputs"]),
        warnings=_strings(entry["warnings"]),
        notes=_strings(entry["notes"]),
        report=_string(entry["report"]),
    )


def _constants(group: h5py.Group) -> ConstantsTable:
    held = group.attrs.get("held")
    columns = ("value", "start", "lower", "upper", "sigma", "sigma_poisson", "sigma_scaled", "sigma_clustered")
    return ConstantsTable(
        names=_strings(group["name"]),
        status=_strings(group["status"]),
        **{name: group[name][()] for name in columns},
        scale=str(group.attrs["scale"]),
        scale_in_words=str(group.attrs["scale_in_words"]),
        held=None if held is None else str(held),
        simulated=bool(group.attrs["simulated"]),
        fitted=_strings(group["fitted"]),
        covariance=group["covariance"][()],
        correlation=group["correlation"][()],
    )


def _spots(group: h5py.Group) -> SpotTable:
    errors = ("factor", "baseline", "chi2_per_dof", "offset", "background")
    names = (field.name for field in fields(SpotTable) if field.name != "label" and not field.name.startswith("sigma_"))
    return SpotTable(
        label=_strings(group["label"]),
        **{name: group[name][()] for name in names},
        **{f"sigma_{name}": group[f"{name}_errors"][()] for name in errors},
    )


def _iterations(group: h5py.Group) -> IterationTable:
    columns = ("deviance", "predicted", "damping", "accepted", "constants", "corrections")
    return IterationTable(**{name: group[name][()] for name in columns}, converged=bool(group.attrs["converged"]))


def _corrections(group: h5py.Group) -> CorrectionTable:
    columns = ("start", "correction", "sigma", "lower", "upper")
    return CorrectionTable(
        names=_strings(group["name"]),
        status=_strings(group["status"]),
        notes=tuple(_strings(group["notes"])),
        moved=tuple(_strings(group["moved"])),
        **{name: group[name][()] for name in columns},
    )


def _bragg(group: h5py.Group) -> BraggScale:
    numbers = ("log_scale", "sigma_scale", "extinction", "sigma_extinction", "excess")
    return BraggScale(
        flaw=_strings(group["flaw"]),
        sigma=group["log_ratio_errors"][()],
        log_ratio=group["log_ratio"][()],
        strength=group["strength"][()],
        weights=group["weights"][()],
        **{name: float(group[name][()]) for name in numbers},
    )


def _next_order(group: h5py.Group) -> NextOrderTable:
    dispersion, comparison = None, None
    if "dispersion" in group:
        found = group["dispersion"]
        dispersion = DispersionTable(
            names=_strings(found["name"]),
            value=found["value"][()],
            sigma=found["sigma"][()],
            held=found["held"][()],
            covariance=found["covariance"][()],
            expanded=bool(found.attrs["expanded"]),
            gain=float(found["gain"][()]) if "gain" in found else None,
        )
    if "comparison" in group:
        found = group["comparison"]
        columns = ("elastic", "beyond", "sigma_elastic", "sigma_beyond", "shift")
        comparison = Comparison(
            names=_strings(found["name"]),
            **{name: found[name][()] for name in columns},
            probability=float(found["probability"][()]),
            reference=str(found.attrs["reference"]) or None,
        )
    own = {
        key: group[name][()] if name in group else None
        for key, name in (
            ("gradient", "gradient"),
            ("sigma_gradient", "gradient_errors"),
            ("strain", "strain"),
            ("sigma_strain", "strain_errors"),
        )
    }
    return NextOrderTable(dispersion=dispersion, comparison=comparison, **own)


def _profiles(group: h5py.Group) -> Profiles:
    radial, angle, azimuth = (
        Profile(
            edges=group[name][f"{axis}_edges"][()],
            intensity=group[name]["intensity"][()],
            sigma=group[name]["intensity_errors"][()],
            model=group[name]["model"][()],
            points=group[name]["points"][()],
        )
        for name, axis in (("radial", "q"), ("angle", "angle"), ("azimuth", "azimuth"))
    )
    pulls, against_q = group["pulls"], group["pulls_against_q"]
    return Profiles(
        radial,
        angle,
        azimuth,
        Pulls(
            edges=pulls["pull_edges"][()],
            points=pulls["points"][()],
            expected=pulls["expected"][()],
            below=int(pulls["below"][()]),
            above=int(pulls["above"][()]),
            q_edges=against_q["q_edges"][()],
            q_points=against_q["points"][()],
            q_mean=against_q["mean"][()],
            q_rms=against_q["rms"][()],
        ),
    )


def _string(dataset: h5py.Dataset) -> str:
    return str(dataset.asstr()[()])


def _strings(dataset: h5py.Dataset) -> list[str]:
    return [str(text) for text in dataset.asstr()[()]]
