"""What a report needs beside the result itself, and the warnings and notes that belong to the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tds2el.crystal.elasticity import indexing_notes
from tds2el.crystal.symmetry import PointGroup
from tds2el.crystal.thermal import Thermal
from tds2el.fit.beyond import compare
from tds2el.fit.parameters import Scale
from tds2el.fit.result import FitResult
from tds2el.fit.two_phonon import TwoPhonon, two_phonon
from tds2el.harvest.quality import SpotQuality

QUANTUM_WORTH_A_WARNING = 1e-3
"""Quantum term above which temperature and density must not be left at their defaults."""
BELOW_FLOOR = 0.01
"""Share of a spot's points below the floor of the model that is worth a warning."""
CLUSTERED_EXCESS = 3.0
"""Ratio of the clustered to the counting σ that noise does not give."""
MANY = 0.25
"""Part of the spots without a halo that points to the geometry."""
SHOWN = 6
INNER_EXCESS, INNER_SIGMAS = 0.01, 5.0
"""Excess in the innermost tenth of the shells, relative and in σ, that is worth a warning."""
FAR_CENTRE = 3.0
"""Distance of a fitted centre from the Bragg peak's, in σ and relative to the inner radius below, worth a warning."""
FAR_OF_SHELL, FAR_OF_PEAK = 0.1, 0.3
MUCH_TWO_PHONON = 0.05
"""I₂/I₁ at the outer radius that is worth a warning: ratios of constants are then off by some 0.3 %."""
MUCH_FOREIGN = 0.1
"""Part of a spot's points rejected as foreign that is worth a warning."""


@dataclass(frozen=True)
class FitContext:
    """The circumstances of a fit.

    Attributes
    ----------
    group : PointGroup
    device : str
        What computed, as the engine describes itself.
    temperature, density : float
        K and g/cm³.
    quantum_term : float
        x coth x − 1 of the stiffest mode at the outer radius, see `tds2el.model.quantum.quantum_term`.
    direct_beam : tuple of float
        Row and column, pixels.
    shell : tuple of float
        Inner and outer radius of the shells, Å⁻¹.
    n_frames : int
        Frames of the scan.
    harvested : int
        Points that the harvest holds of the fitted spots; with nred = 1 all of them are used.
    lost : mapping
        Cause → points of the fitted spots that were not harvested.
    nred : int
        One point in nred was used.
    given : frozenset of str
        The options that the user gave.
    simulated : bool
        The constants were taken as given: only factors and baselines were fitted.
    relative_error : float
        ε in the variance m + (ε m)² of the counts.
    settings : mapping
        Every option's value in types that JSON knows, for the record.
    harvest_settings : mapping
        The same at the harvest, which a later fit may reuse.
    inputs : tuple of Path
        Par-files and harvest file.
    warnings : tuple of str
        What the user should know about the input, a line each.
    left_out : mapping
        Spots that spot_filter left out before the fit → why.
    inner_excess : tuple of float
        Excess of data over model in the innermost tenth of the shells: relative, and in σ.
    reject : float or None
        Pull beyond which points were rejected as foreign.
    quality : SpotQuality or None
        Figures of the fitted spots from the harvest.
    thermal : Thermal or None
        What leads to adiabatic constants, where it was given.
    model : str
        "elastic" or "next-order".
    surroundings : tuple of str
        What of resolution and neighbours the model has, a sentence each.
    """

    group: PointGroup
    device: str
    temperature: float
    density: float
    quantum_term: float
    direct_beam: tuple[float, float]
    shell: tuple[float, float]
    n_frames: int
    harvested: int
    lost: Mapping[str, int]
    nred: int = 1
    given: frozenset[str] = frozenset()
    simulated: bool = False
    relative_error: float = 0.0
    settings: Mapping[str, object] = field(default_factory=dict)
    harvest_settings: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    inner_excess: tuple[float, float] = (0.0, 0.0)
    reject: float | None = None
    quality: SpotQuality | None = None
    thermal: Thermal | None = None
    model: str = "elastic"
    surroundings: tuple[str, ...] = ()


def constant_status(result: FitResult) -> list[str]:
    """How each constant came by its value: fitted, frozen, held, at lower bound or at upper bound."""
    status = np.where(result.constants.frozen, "frozen", "fitted").astype(object)
    if result.held is not None:
        status[result.held] = "held"
    constants = result.constants
    upper = constants.upper - result.values < result.values - constants.lower
    status[result.at_bound & upper] = "at upper bound"
    status[result.at_bound & ~upper] = "at lower bound"
    return [str(text) for text in status]


def result_warnings(result: FitResult, context: FitContext) -> list[str]:
    """What the user must know before the numbers are used, one line each; first those about the input."""
    warnings = list(context.warnings)
    spots = result.spots
    if not result.converged:
        warnings.append(
            f"the fit did not converge in {len(result.iterations)} passes over the points: do not use its constants; "
            "start from other values in CGUESS or freeze a constant"
        )
    for name, status in zip(result.constants.names, constant_status(result), strict=True):
        if "bound" in status:
            warnings.append(
                f"{name} is {status.replace('at', 'at its')} and pushed against it: it has no error bar, and the other "
                "constants are biased unless the bound is the truth; widen it in CGUESS"
            )
    for why in dict.fromkeys(context.left_out.values()):
        names_ = [name for name, reason in context.left_out.items() if reason == why]
        more = f" and {len(names_) - SHOWN} more" if len(names_) > SHOWN else ""
        warnings.append(f"left out by spot_filter, {why}: {', '.join(names_[:SHOWN])}{more}")
    if spots.filtered.any():
        names = _spots(result, np.flatnonzero(spots.filtered))
        warnings.append(f"left out by spot_filter, chi²/dof above max_chi2: {names}")
    lost = spots.left_out & ~spots.filtered
    if lost.any():
        names = _spots(result, np.flatnonzero(lost))
        warnings.append(f"left out, since no halo with a positive factor was found: {names}")
        if lost.mean() > MANY:
            warnings.append(
                "many spots show no halo that falls off from their node: check the geometry (direct beam at row "
                "{:.1f}, column {:.1f}; are the origins exchanged?), the orientation and the cell".format(
                    *context.direct_beam
                )
            )
    excess = result.errors.clustered / result.errors.poisson
    if np.isfinite(excess).any() and np.nanmax(excess) > CLUSTERED_EXCESS:
        worst = int(np.nanargmax(excess))
        warnings.append(
            f"σ of {result.constants.names[worst]} clustered by spot is {excess[worst]:.1f} times that of the counts: "
            "the model misses something in whole spots; check the symmetry, the geometry, the centres and the masks"
        )
    low = np.flatnonzero(~spots.left_out & (spots.below_floor > BELOW_FLOOR * spots.points))
    if len(low):
        warnings.append(
            f"the model falls below 0.05 of the mean counts at more than {percent(BELOW_FLOOR)} of the points of "
            f"{_spots(result, low)}: the negative baseline there hides something other than thermal diffuse scattering"
        )
    warnings += [*_centre_warnings(result, context), *_correction_warnings(result), *_next_order_warnings(result)]
    much = np.flatnonzero(spots.foreign > MUCH_FOREIGN * (spots.points + spots.foreign))
    if len(much):
        warnings.append(
            f"more than {percent(MUCH_FOREIGN)} of the points of {_spots(result, much)} were rejected as foreign: look "
            "at the frames for other crystals and shadows, or at the model if it is all spots"
        )
    second = second_order(result, context)
    strong = np.flatnonzero(~spots.left_out & (second.ratio > MUCH_TWO_PHONON))
    if len(strong):
        most, left = (percent(float(values[strong].max())) for values in (second.ratio, second.left))
        warnings.append(
            f"two-phonon scattering is estimated at up to {most} of the halo at the outer radius of "
            f"{_spots(result, strong)}; beside factor and baseline {left} are left, which bias the constants: compare "
            "with a smaller DeltaQ_max, a lower temperature or smaller |G|"
        )
    relative, sigmas = context.inner_excess
    if relative > INNER_EXCESS and sigmas > INNER_SIGMAS:
        warnings.append(
            f"in the innermost tenth of the shells the data exceed the model by {percent(relative)} ({sigmas:.0f} σ): "
            "the tail of the Bragg peaks; harvest with a larger DeltaQ_min"
        )
    defaulted = [name for name in ("Temperature", "density") if name not in context.given]
    if defaulted and context.quantum_term > QUANTUM_WORTH_A_WARNING:
        values = {"Temperature": f"{context.temperature:g} K", "density": f"{context.density:g} g/cm³"}
        assumed = " and ".join(f"{name} = {values[name]}" for name in defaulted)
        warnings.append(
            f"{assumed} assumed by default, while the quantum term reaches {percent(context.quantum_term)}: "
            f"give {'both' if len(defaulted) == 2 else 'it'}"
        )
    return warnings


def second_order(result: FitResult, context: FitContext) -> TwoPhonon:
    """The estimate of two-phonon scattering of each spot."""
    nodes = result.spots.hkl @ context.group.cell.B.T
    return two_phonon(result.tensor, nodes, context.shell, context.temperature)


def _centre_warnings(result: FitResult, context: FitContext) -> list[str]:
    spots = result.spots
    warnings: list[str] = []
    inner, outer = context.shell
    used = ~spots.left_out
    if result.unsettled:
        warnings.append(
            "which points are used still changed when the fit ended: look at the spots with many rejected points, at "
            "spot_filter and at reject"
        )
    if result.on_the_way:
        warnings.append(
            "the centres of some halos still moved when the fit ended: harvest again with centering_file, or correct "
            "the geometry"
        )
    centred = np.isfinite(spots.sigma_offset).all(axis=1)
    if centred.any():
        distance = np.linalg.norm(spots.offset - spots.peak, axis=1)
        sigma = np.linalg.norm(spots.sigma_offset, axis=1)
        far = np.flatnonzero(
            used & centred & (distance > FAR_OF_PEAK * inner) & (distance > FAR_CENTRE * sigma) & np.isfinite(distance)
        )
        if len(far):
            warnings.append(
                f"the halo's centre is more than {percent(FAR_OF_PEAK)} of the inner radius away from the Bragg peak "
                f"of {_spots(result, far)}: another peak, or something else in the shell"
            )
    elif result.corrections is None or not result.fitted_corrections:
        off = np.flatnonzero(used & (np.linalg.norm(spots.peak - spots.offset, axis=1) > FAR_OF_SHELL * inner))
        if len(off):
            worst = float(np.nanmax(np.linalg.norm(spots.peak - spots.offset, axis=1)[off]))
            warnings.append(
                f"Bragg peaks lie up to {worst:.4f} Å⁻¹ (inner radius {inner:.4f} Å⁻¹) off their nodes in "
                f"{len(off)} spots, {_spots(result, off)}, and neither centres nor geometry are fitted: the constants "
                "are biased; set fit_centres = True, harvest with centering_file, or free the geometry with A_variables"
            )
    large = np.flatnonzero(used & (np.linalg.norm(spots.offset, axis=1) > 0.5 * outer))
    if len(large):
        warnings.append(
            f"the centre of {_spots(result, large)} is more than half of DeltaQ_max from its node: their shells are "
            "cut on one side; harvest again with centering_file"
        )
    return warnings


def _correction_warnings(result: FitResult) -> list[str]:
    found = result.corrections
    warnings: list[str] = []
    if found is None:
        return warnings
    by_symmetry = {note.split()[0] for note in found.notes if " is held: " in note}
    held = [
        name
        for name, status in zip(found.names, found.status, strict=True)
        if status == "held" and name not in by_symmetry
    ]
    if held:
        verb, them = ("is", "it") if len(held) == 1 else ("are", "them")
        warnings.append(
            f"{', '.join(held)} {verb} held: the data do not determine {them}, alone or beside the other corrections "
            "that are free"
        )
    for name, status in zip(found.names, found.status, strict=True):
        if "bound" in status:
            warnings.append(f"the correction to {name} is {status.replace('at', 'at its')}: widen A_variables")
    return warnings


def _next_order_warnings(result: FitResult) -> list[str]:
    """Terms beyond the elastic limit that are not determined, and whether that limit would have done."""
    warnings: list[str] = []
    found, spots = result.dispersion, result.spots
    if found is not None and found.held.any():
        names = [name for name, held in zip(found.names, found.held, strict=True) if held]
        verb, them = ("is", "it") if len(names) == 1 else ("are", "them")
        warnings.append(
            f"{', '.join(names)} {verb} held at 0: the data do not determine {them}, alone or beside the other terms "
            "of dispersion"
        )
    for what, sigma in (("gradient", spots.sigma_gradient), ("internal strain", spots.sigma_strain)):
        held = np.flatnonzero(~spots.left_out & np.isnan(sigma).any(axis=1))
        if np.isfinite(sigma).any() and len(held):
            warnings.append(f"the {what} of {_spots(result, held)} is held at 0: their data do not determine it")
    comparison = compare(result)
    if comparison is not None and comparison.biased:
        worst = comparison.worst
        change = comparison.beyond[worst] / comparison.elastic[worst] - 1
        warnings.append(
            f"the elastic limit is biased for these data: beyond it {comparison.names[worst]} is "
            f"{percent(abs(change))} {'larger' if change > 0 else 'smaller'}, by "
            f"{abs(comparison.shift[worst]):.1f} σ of the difference; do not use elastic results of these shells"
        )
    elastic = result.elastic
    if elastic is not None and not elastic.converged:
        warnings.append("the elastic fit before this one did not converge: do not compare with it")
    return warnings


def result_notes(result: FitResult, context: FitContext) -> list[str]:
    """What the constants are, for whoever publishes them, one line each."""
    notes = ["The constants are isothermal: the energy-integrated intensity measures the isothermal response."]
    if may_be_piezoelectric(context.group):
        notes.append(
            "The crystal has no centre of symmetry: the constants are the piezoelectrically stiffened, effective ones."
        )
    if result.dispersion is not None and result.dispersion.gain is not None:
        kept, other = ("expansion to first order in T", "full (Γ + T)⁻¹")
        if not result.dispersion.expanded:
            kept, other = other, kept
        notes.append(
            f"Dispersion nearly makes a mode unstable within the shells, so that both forms were tried: the {kept} is "
            f"kept, since the deviance of the {other} is higher by {result.dispersion.gain:.4g}."
        )
    if result.corrections is not None:
        notes += [f"{note[0].upper()}{note[1:]}." for note in result.corrections.notes]
    notes += context.surroundings
    return [*notes, *indexing_notes(context.group, result.constants.structure)]


def scale_in_words(result: FitResult, context: FitContext) -> str:
    """Where the overall scale of the constants comes from."""
    if context.simulated:
        return "as given: no constant was fitted"
    names = result.constants.names
    if result.held is not None:
        return (
            f"held: {names[result.held]} keeps its start value, the data give the ratios to it only; "
            f"all GPa are for {names[result.held]} = {result.values[result.held]:g}"
        )
    if result.scale is Scale.FREE:
        return "free: fitted, the quantum terms determine it"
    if result.scale is Scale.DATUM and result.constants.known is not None:
        data = result.constants.known.data
        return f"fitted: {', '.join(datum.name for datum in data)} {'is' if len(data) == 1 else 'are'} known"
    return "known: from the constants that are frozen"


def may_be_piezoelectric(group: PointGroup) -> bool:
    """Whether the point group lacks the inversion; of those, only 432 forbids piezoelectricity (Nye 1957)."""
    operations = group.operations
    centric = bool(np.isclose(operations, -np.eye(3)).all(axis=(1, 2)).any())
    proper = bool((np.linalg.det(operations) > 0).all())
    return not centric and not (group.system == "cubic" and len(operations) == 24 and proper)


def percent(fraction: float) -> str:
    """A fraction with two digits, such as 0.25 %, or whole per cent from 100 on."""
    value = 100 * fraction
    return f"{value:.2g} %" if value < 99.5 else f"{value:.0f} %"


def _spots(result: FitResult, indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    names = ["({} {} {})".format(*result.spots.hkl[i]) for i in indices[:SHOWN]]
    if len(indices) > SHOWN:
        names.append(f"and {len(indices) - SHOWN} more")
    return ", ".join(names)
