"""Typed, validated settings of a run; the attributes have the names of the options.

All paths are absolute. Lengths are in mm (detector) and Å (crystal, wavelength), angles in degrees,
elastic constants in GPa, the temperature in K and the density in g/cm³: see `tds2el.options` for each.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from tds2el.corrections import Correction
from tds2el.errors import InputError
from tds2el.options import OPTIONS
from tds2el.sources import Sources, read_sources


@dataclass(frozen=True)
class Experiment:
    """Geometry of the experiment; angles in degrees."""

    pixel_size: float
    dist: float
    lmbda: float
    beam_tilt_angle: float
    det_origin_X: float
    det_origin_Y: float
    d1: float
    d2: float
    theta: float
    theta_offset: float
    omega: float
    omega_offset: float
    alpha: float
    beta: float
    kappa: float
    phi: float
    angular_step: float
    r1: float
    r2: float
    r3: float
    orientation_codes: int
    pol_degree: float
    normal_to_pol: tuple[float, float, float]
    sensor_thickness: float = 0.0
    sensor_mu: float = 0.0


@dataclass(frozen=True)
class CrystalSettings:
    """Cell, symmetry and state of the crystal. The cell is None only where a harvest file brings it."""

    AA: float | None
    BB: float | None
    CC: float | None
    aAA: float | None
    aBB: float | None
    aCC: float | None
    ascii_generators: str | None
    centring: str | None
    Temperature: float
    density: float

    @property
    def cell(self) -> tuple[float, float, float, float, float, float] | None:
        """Lengths a, b, c (Å) and angles alpha, beta, gamma (degrees), or None where not given."""
        a, b, c, alpha, beta, gamma = self.AA, self.BB, self.CC, self.aAA, self.aBB, self.aCC
        if a is None or b is None or c is None or alpha is None or beta is None or gamma is None:
            return None
        return a, b, c, alpha, beta, gamma


@dataclass(frozen=True)
class FrameSettings:
    """Where the frames are and what belongs to them."""

    images_prefix: str
    images_postfix: str
    frame_angle: Literal["number", "header"] | None
    filter_file: Path | None
    filter_ranges: tuple[tuple[int, int, Path], ...] | None
    normalisation_file: Path | None
    background_prefix: str | None
    background_postfix: str
    background_normalisation_file: Path | None
    background_exposures: int


@dataclass(frozen=True)
class HarvestSettings:
    """What to harvest.

    The radii are in units of the longest of a*, b*, c*, and None only where load_from_file is given.
    """

    DeltaQ_max: float | None
    DeltaQ_min: float | None
    threshold: float | None
    threshold_action: Literal["frame", "pixel"]
    collectSpots: tuple[tuple[int, int, int], ...] | Literal["auto"] | None
    n_spots: int
    file_maxima: Path | None
    REPLICA_COLLECTION: bool
    centering_file: Path | None
    check_md5: bool
    threads: int | None


@dataclass(frozen=True)
class VolumeSettings:
    """The grid of a whole volume, in r.l.u. or Å⁻¹, and how frames are put on it; volume_memory in GB."""

    volume_shape: tuple[int, int, int]
    volume_axes: Literal["hkl", "cartesian"]
    volume_limits: tuple[tuple[float, float], ...] | None
    volume_basis: tuple[tuple[float, ...], ...] | None
    volume_origin: tuple[float, float, float]
    volume_symmetrise: bool
    microsteps: int
    every_nth_frame: int
    volume_file: Path | None
    volume_memory: float | None
    volume_layers: tuple[str, ...]
    volume_layer_thickness: float | None


@dataclass(frozen=True)
class FitSettings:
    """How to simulate and fit. CGUESS maps a constant to (start, min, max) in GPa, bounds may be infinite."""

    CGUESS: Literal["auto"] | dict[str, tuple[float, float, float]] | None
    doMinimisation: bool
    nred: int
    ftol: float
    scale: Literal["auto", "free", "held"]
    relative_error: float
    device: str | None
    REPLICA: bool
    A_variables: tuple[Correction, ...] | None
    fit_centres: bool
    baseline: Literal["constant", "linear"]
    model: Literal["elastic", "next-order"]
    dispersion: bool
    spot_gradient: bool
    internal_strain: bool
    dispersion_terms: tuple[str, ...] | None
    background_scale: Literal["monitor", "free"]
    reject: float | None
    spot_filter: dict[str, float] | None
    known: dict[str, tuple[float, float, str]] | None
    expansion: tuple[float, ...] | None
    heat_capacity: float | None
    profile_likelihood: bool | tuple[str, ...]
    bootstrap: int
    resolution: bool | Literal["auto"] = "auto"
    mosaicity: float | Literal["estimate"] = 0.0
    bandwidth: float = 0.0
    pixel_response: float = 1.0
    neighbours: bool | Literal["auto"] = "auto"


@dataclass(frozen=True)
class BraggSettings:
    """Whether and where Bragg intensities are taken for the scale; the attenuation has its σ."""

    bragg_scale: bool
    bragg_prefix: str | None
    bragg_postfix: str
    bragg_normalisation_file: Path | None
    bragg_attenuation: tuple[float, float]


@dataclass(frozen=True)
class ViewSettings:
    """Whether and how spots are interpolated on cubes."""

    visSim: bool
    testSpot_N: int
    testSpot_beta: float
    testSpot_Niter: int


@dataclass(frozen=True)
class PeakSettings:
    """How to search for peaks; counts per pixel, sizes in pixels."""

    maxima_file: Path | None
    maxima_sigma: float
    maxima_threshold: float | None
    maxima_window: int
    maxima_min_pixels: int
    maxima_max_pixels: int


@dataclass(frozen=True)
class NormaliseSettings:
    """Where the denominators of the frames come from."""

    normalise_from: Literal["headers", "frames"]
    header_key: str | None
    normalise_region: tuple[tuple[int, int], tuple[int, int]] | Path | None
    normalisation_output: Path | None


@dataclass(frozen=True)
class AlignSettings:
    """How peaks are indexed; variations is None for the usual ones, and empty for none."""

    maxima_file: Path | None
    transform_only: bool
    variations: tuple[Correction, ...] | None
    hkl_tolerance: float
    max_cell: float | None


@dataclass(frozen=True)
class RunSettings:
    """What to do, and with which files."""

    sweeps: tuple[Path, ...] | None
    load_from_file: Path | None
    save_to_file: Path | None
    fitSpots: bool
    show_hkls: bool
    output_folder: Path
    report: bool
    fitted_curve: bool
    DO_ELASTIC: bool


@dataclass(frozen=True)
class Settings:
    """Everything a run is told.

    Attributes
    ----------
    experiment, frames
        None only where load_from_file brings the experiment and the par-files do not give it, or a command needs none.
    values
        Resolved value of every option in plain types that JSON knows; infinite bounds are None.
    where
        Option to the place that gave it: "conf.par:12", "--set" or "default".
    given
        The options that the user gave.
    warnings
        What the user should know about the input, a line each.
    sweeps
        Where sweeps are given the settings of each, of which these are the first; else none.
    """

    experiment: Experiment | None
    crystal: CrystalSettings
    frames: FrameSettings | None
    harvest: HarvestSettings
    volume: VolumeSettings
    fit: FitSettings
    bragg: BraggSettings
    view: ViewSettings
    peaks: PeakSettings
    normalise: NormaliseSettings
    align: AlignSettings
    run: RunSettings
    input_file: Path
    conf_file: Path
    values: dict[str, object]
    where: dict[str, str]
    given: frozenset[str]
    warnings: tuple[str, ...]
    sweeps: tuple[Settings, ...] = ()


Command = Literal["run", "extract-maxima", "align", "normalise", "export-geometry"]
TAKES_SWEEPS: tuple[Command, ...] = ("run", "extract-maxima", "align")
CELL = ("AA", "BB", "CC", "aAA", "aBB", "aCC")


def load_settings(input_file: str | Path, overrides: Sequence[str] = (), command: Command = "run") -> Settings:
    """Read input.par, the conf_file that it names and ``NAME=VALUE`` overrides into validated settings.

    Parameters
    ----------
    input_file, overrides
    command
        What they are read for, which decides what must be given. Only "run" insists on a conf_file.

    Raises
    ------
    InputError
        One line that names the option, the value and its place, for everything wrong with the input.
    """
    first = _load(input_file, overrides, command, 0)
    if first.run.sweeps is None:
        return first
    if command not in TAKES_SWEEPS:
        raise InputError(
            f"{first.where['sweeps']}: sweeps: {command} takes one sweep; give it one conf_file after the other"
        )
    others = [_load(input_file, overrides, command, number) for number in range(1, len(first.run.sweeps))]
    sweeps = (first, *others)
    _check_sweeps(sweeps)
    warnings = tuple(dict.fromkeys(warning for sweep in sweeps for warning in sweep.warnings))
    return replace(first, warnings=warnings, sweeps=sweeps)


def _load(input_file: str | Path, overrides: Sequence[str], command: Command, sweep: int) -> Settings:
    """The settings of one sweep, or the only ones."""
    sources = read_sources(input_file, overrides, needs_conf_file=command == "run", sweep=sweep)
    values: dict[str, Any] = {option.name: option.default for option in OPTIONS}
    values |= {name: given.resolved() for name, given in sources.given.items()}
    where = {name: sources.given[name].where if name in sources.given else "default" for name in values}
    warnings = list(sources.warnings)
    if values["output_folder"] is None:
        values["output_folder"] = sources.input_file.parent
    values["collectSpots"] = _without_duplicates(values["collectSpots"], where["collectSpots"], warnings)
    if command == "run" and not values["DO_ELASTIC"]:
        _check_volume(values, where, input_file, warnings)
    elif command == "run":
        _check_run(values, input_file)
    else:
        _check_command(command, values, input_file)
    if command in ("run", "align"):
        _check_halves(sources, values, input_file)
    _check_radii(values, where)
    _check_curve(values, where)
    _check_cell(values, where)
    _check_sizes(values, where)
    check_sensor(values, where)
    _check_scale(values, where)
    _check_model(values, where, warnings)
    return Settings(
        experiment=experiment_from_values(values) if _is_complete(values) else None,
        crystal=CrystalSettings(**_own(CrystalSettings, values)),
        frames=None if values["images_prefix"] is None else FrameSettings(**_own(FrameSettings, values)),
        harvest=HarvestSettings(**_own(HarvestSettings, values)),
        volume=VolumeSettings(**_own(VolumeSettings, values)),
        fit=FitSettings(**_own(FitSettings, values)),
        bragg=BraggSettings(**_own(BraggSettings, values)),
        view=ViewSettings(**_own(ViewSettings, values)),
        peaks=PeakSettings(**_own(PeakSettings, values)),
        normalise=NormaliseSettings(**_own(NormaliseSettings, values)),
        align=AlignSettings(**_own(AlignSettings, values)),
        run=RunSettings(**_own(RunSettings, values)),
        input_file=sources.input_file,
        conf_file=sources.conf_file,
        values={name: _plain(value) for name, value in values.items()},
        where=where,
        given=frozenset(sources.given),
        warnings=tuple(warnings),
    )


def experiment_from_values(values: Mapping[str, Any]) -> Experiment:
    """The experiment from resolved option values, such as `Settings.values` or those a harvest file keeps."""
    # Harvest files of earlier versions know nothing of the sensor.
    own = _own(Experiment, {"sensor_thickness": 0.0, "sensor_mu": 0.0} | dict(values))
    own["normal_to_pol"] = tuple(own["normal_to_pol"])
    own["orientation_codes"] = own["orientation_codes"] or 0  # None, for align to find: it begins with 0
    return Experiment(**own)


def _is_complete(values: Mapping[str, Any]) -> bool:
    own = [field.name for field in fields(Experiment)]
    return all(values[option.name] is not None for option in OPTIONS if option.name in own and option.needed)


def _own(group: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(group)}


def _plain(value: object) -> object:
    """The value in types that JSON knows."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Correction):
        return asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _without_duplicates(
    spots: tuple[tuple[int, int, int], ...] | str | None, where: str, warnings: list[str]
) -> tuple[tuple[int, int, int], ...] | str | None:
    if spots is None or isinstance(spots, str):
        return spots
    unique = tuple(dict.fromkeys(spots))
    if len(unique) < len(spots):
        repeated = next(hkl for hkl in unique if spots.count(hkl) > 1)
        warnings.append(
            f"{where}: collectSpots names {len(spots) - len(unique)} reflection(s) again, such as "
            f"{' '.join(map(str, repeated))}; each is taken once"
        )
    return unique


def _check_run(values: Mapping[str, Any], input_file: str | Path) -> None:
    """Refuse a run that lacks what it needs, with all that is missing in one line."""
    if values["orientation_codes"] is None:
        raise InputError(
            f"{input_file}: orientation_codes = None is for `tds2el align`, which finds it; name the aligned.par that "
            "it writes as conf_file"
        )
    if values["load_from_file"] is None and values["save_to_file"] is None:
        raise InputError(
            f"{input_file}: load_from_file and save_to_file are both None: name the harvest file to reuse or to write"
        )
    missing = []
    for option in OPTIONS:
        if values[option.name] is not None:
            continue
        if "fitSpots" in option.needed and values["fitSpots"]:
            missing.append(f"{option.name} (because of fitSpots)")
        if "harvest" in option.needed and values["load_from_file"] is None:
            missing.append(option.name)
    if values["load_from_file"] is None and values["collectSpots"] is None and values["file_maxima"] is None:
        missing.append("collectSpots or file_maxima")
    needs_group = [name for name in ("REPLICA_COLLECTION", "REPLICA") if values[name]]
    if needs_group and values["ascii_generators"] is None and not values["fitSpots"]:
        missing.append(f"ascii_generators (because of {', '.join(needs_group)})")
    if missing:
        run = "a harvest" if values["load_from_file"] is None else "this run"
        raise InputError(f"{input_file}: {run} needs {', '.join(missing)}; set in one of the par-files")


def _check_volume(
    values: Mapping[str, Any], where: Mapping[str, str], input_file: str | Path, warnings: list[str]
) -> None:
    """Refuse a volume that lacks what it needs; what else is asked for is not done, which is worth a word."""
    missing = [option.name for option in OPTIONS if "volume" in option.needed and values[option.name] is None]
    if values["volume_symmetrise"] and values["ascii_generators"] is None:
        missing.append("ascii_generators (because of volume_symmetrise)")
    if missing:
        raise InputError(f"{input_file}: a volume needs {', '.join(missing)}; set in one of the par-files")
    unused = [name for name in ("load_from_file", "fitSpots", "show_hkls") if values[name]]
    if unused:
        warnings.append(
            f"{where['DO_ELASTIC']}: DO_ELASTIC = 0 reconstructs the volume and nothing else; {', '.join(unused)} "
            "not used"
        )


def _check_command(command: Command, values: Mapping[str, Any], input_file: str | Path) -> None:
    missing = [option.name for option in OPTIONS if command in option.needed and values[option.name] is None]
    if missing:
        raise InputError(f"{input_file}: {command} needs {', '.join(missing)}; set in one of the par-files")


def _check_halves(sources: Sources, values: Mapping[str, Any], input_file: str | Path) -> None:
    """Where experiment and cell may be left out, because a file brings them or nobody knows them, give all or none."""
    for group in ([field.name for field in fields(Experiment)], CELL):
        needed = [o.name for o in OPTIONS if o.name in group and "harvest" in o.needed]
        missing = [name for name in needed if values[name] is None]
        if missing and any(name in sources.given for name in group):
            raise InputError(f"{input_file}: {', '.join(missing)} missing; give all of {', '.join(needed)}")


def _check_radii(values: Mapping[str, Any], where: Mapping[str, str]) -> None:
    low, high = values["DeltaQ_min"], values["DeltaQ_max"]
    if low is not None and high is not None and low >= high:
        raise InputError(
            f"{where['DeltaQ_min']}: DeltaQ_min = {low:g} must be below DeltaQ_max = {high:g} ({where['DeltaQ_max']})"
        )


def _check_curve(values: Mapping[str, Any], where: Mapping[str, str]) -> None:
    if values["fitSpots"] and values["report"] and not values["fitted_curve"]:
        raise InputError(
            f"{where['fitted_curve']}: fitted_curve = False leaves out what the report draws: set report = False too"
        )


def _check_sizes(values: Mapping[str, Any], where: Mapping[str, str]) -> None:
    fewest, most = values["maxima_min_pixels"], values["maxima_max_pixels"]
    if fewest > most:
        raise InputError(
            f"{where['maxima_min_pixels']}: maxima_min_pixels = {fewest} must not be above maxima_max_pixels = {most} "
            f"({where['maxima_max_pixels']})"
        )


def _check_sweeps(sweeps: Sequence[Settings]) -> None:
    """Raise an InputError unless sweeps share all but experiment and frames, and ask for nothing of one scan only."""
    own = {field.name for group in (Experiment, FrameSettings) for field in fields(group)}
    first = sweeps[0]
    for other in sweeps[1:]:
        for name, value in other.values.items():
            if name not in own and value != first.values[name]:
                raise InputError(
                    f"{other.where[name]}: {name} = {value}, but {first.values[name]} at {first.where[name]}: sweeps "
                    "share all but experiment and frames; keep one value"
                )
    seen = set()
    for sweep in sweeps:
        if sweep.frames is not None:
            names = os.path.normpath(sweep.frames.images_prefix), sweep.frames.images_postfix
            if names in seen:
                raise InputError(f"{sweep.conf_file}: the frames of another sweep, {'…'.join(names)}; name its own")
            seen.add(names)
        for name in ("centering_file", "background_prefix"):
            if sweep.values[name] is not None:
                raise InputError(
                    f"{sweep.where[name]}: {name} is not available with several sweeps; harvest them one by one, or "
                    "leave it out"
                )


def check_sensor(values: Mapping[str, Any], where: Mapping[str, str]) -> None:
    """Raise an InputError unless the sensor has both a thickness and an absorption, or neither, and is thin."""
    thickness, mu, dist = values["sensor_thickness"], values["sensor_mu"], values["dist"]
    if bool(thickness) != bool(mu):
        given, missing = ("sensor_thickness", "sensor_mu") if thickness else ("sensor_mu", "sensor_thickness")
        raise InputError(f"{where[given]}: {given} without {missing}: parallax needs both; give both or neither")
    if thickness and dist is not None and thickness > dist / 10:
        raise InputError(
            f"{where['sensor_thickness']}: sensor_thickness = {thickness:g} mm is more than a tenth of dist = {dist:g} "
            "mm; correct one of them"
        )


def _check_scale(values: Mapping[str, Any], where: Mapping[str, str]) -> None:
    for name in ("known", "bragg_scale"):
        if values[name] and values["scale"] == "held":
            raise InputError(
                f'{where[name]}: {name} gives the scale that scale = "held" ({where["scale"]}) holds: leave one out'
            )
    if values["bragg_prefix"] is None and values["bragg_attenuation"] != (1.0, 0.0):
        raise InputError(
            f"{where['bragg_attenuation']}: bragg_attenuation is that of an attenuated scan: name its frames with "
            "bragg_prefix"
        )
    if (values["expansion"] is None) != (values["heat_capacity"] is None):
        given, missing = ("expansion", "heat_capacity")[:: 1 if values["heat_capacity"] is None else -1]
        raise InputError(f"{where[given]}: {given} leads to adiabatic constants only with {missing}: give both")


NEXT_ORDER = ("dispersion", "spot_gradient", "internal_strain")


def _check_model(values: Mapping[str, Any], where: Mapping[str, str], warnings: list[str]) -> None:
    """The terms beyond the elastic limit act together with it only, and need a fit."""
    if values["model"] == "elastic":
        idle = [name for name in (*NEXT_ORDER, "dispersion_terms") if where[name] != "default"]
        if idle:
            warnings.append(f'{where[idle[0]]}: {", ".join(idle)} without effect: model = "elastic" has no such terms')
        return
    if not any(values[name] for name in NEXT_ORDER):
        raise InputError(
            f'{where["model"]}: model = "next-order" without {", ".join(NEXT_ORDER)} is the elastic limit: set one of '
            'them to True, or model = "elastic"'
        )
    if values["fitSpots"] and values["CGUESS"] is not None and not values["doMinimisation"]:
        raise InputError(
            f'{where["model"]}: model = "next-order" cannot be simulated, since its terms have no start values: set '
            'doMinimisation = 1, or model = "elastic"'
        )
    if values["dispersion_terms"] is not None and not values["dispersion"]:
        raise InputError(
            f"{where['dispersion_terms']}: dispersion_terms needs dispersion = True: set it, or take the terms out"
        )


def _check_cell(values: Mapping[str, Any], where: Mapping[str, str]) -> None:
    """A cell has a volume if its angles sum to less than 360 and each is less than the sum of the others."""
    angles = [values[name] for name in CELL[3:]]
    if None not in angles and (sum(angles) >= 360 or 2 * max(angles) >= sum(angles)):
        shown = ", ".join(f"{name} = {values[name]:g}" for name in CELL[3:])
        raise InputError(f"{where['aAA']}: {shown}: no cell has these angles; check them")
