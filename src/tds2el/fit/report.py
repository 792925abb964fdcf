"""A fit as text for people: constants, tensor, moduli, spots, and what to know before they are used."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from tds2el import __version__
from tds2el.crystal.elasticity import TensorStructure
from tds2el.crystal.frames import FrameBlock, standard_frame
from tds2el.crystal.moduli import eigenvalues, is_stable
from tds2el.fit.context import BELOW_FLOOR, FitContext, constant_status, percent, result_notes, result_warnings
from tds2el.fit.derived import averages_with_sigma, tensor_sigma
from tds2el.fit.minimise import Iteration
from tds2el.fit.next_order_report import comparison_table, dispersion_table, gradient_table, strain_table
from tds2el.fit.parameters import Scale, guess_skeleton
from tds2el.fit.result import FitResult
from tds2el.fit.scale_report import adiabatic_table, bragg_table, correlation_table, interval_table, known_table
from tds2el.fit.text import WIDTH, table, with_error, wrapped


def fit_report(result: FitResult, context: FitContext) -> str:
    """The whole report, at most 100 columns wide.

    Parameters
    ----------
    result : FitResult
    context : FitContext
    """
    sections = [
        warnings_text(result, context),
        circumstances_text(result, context),
        constants_table(result, context),
        "" if context.simulated else sigma_table(result),
        "" if context.simulated else known_table(result),
        bragg_table(result),
        interval_table(result),
        "" if context.simulated else correlation_table(result),
        adiabatic_table(result, context.thermal),
        comparison_table(result),
        dispersion_table(result),
        corrections_table(result),
        *(tensor_text(result, block) for block in standard_frame(result.tensor, context.group)),
        moduli_table(result),
        spot_table(result),
        centre_table(result),
        gradient_table(result),
        strain_table(result),
        quality_table(result, context),
        "\n".join(wrapped(result_notes(result, context), "")),
    ]
    return "\n\n".join(section for section in sections if section)


def dry_run_text(structure: TensorStructure, terms: Sequence[str] = ()) -> str:
    """What a run without CGUESS prints: the structure of the tensor, start values to paste, and terms of dispersion."""
    text = (
        f"{structure.text()}\n\nThe free constants of this crystal, to paste into a par-file (start, min, max in GPa; "
        f"min = max freezes):\n\n{guess_skeleton(structure)}"
    )
    if terms:
        listed = textwrap.fill(", ".join(terms), WIDTH, break_long_words=False, break_on_hyphens=False)
        text += f"\n\nThe {len(terms)} terms of its dispersion, of which dispersion_terms takes some:\n\n{listed}"
    return text


def iteration_line(iteration: Iteration, names: Sequence[str]) -> str:
    """One pass over the points, for the log."""
    values_ = [*iteration.constants, *iteration.geometry]
    predicted = f"{iteration.predicted:.4g}" if np.isfinite(iteration.predicted) else "-"
    values = " ".join(f"{name} {value:.4f}" for name, value in zip(names, values_, strict=True))
    verdict = "accepted" if iteration.accepted else "rejected"
    return (
        f"deviance {iteration.deviance:.10g}, predicted decrease {predicted}, damping {iteration.damping:g}, "
        f"{verdict}: {values}"
    )


def warnings_text(result: FitResult, context: FitContext) -> str:
    """The warnings under a heading, or nothing."""
    warnings = result_warnings(result, context)
    return "\n".join(["WARNINGS", *wrapped(warnings, "- ")]) if warnings else ""


def circumstances_text(result: FitResult, context: FitContext) -> str:
    """Program, device, crystal, points kept and lost, how the fit ended."""
    spots, n_used = result.spots, int((~result.spots.left_out).sum())
    assumed = [
        f"{text}{'' if name in context.given else ' (default)'}"
        for name, text in (
            ("Temperature", f"{context.temperature:g} K"),
            ("density", f"{context.density:g} g/cm³"),
        )
    ]
    points = f"{spots.points.sum()} in {len(spots.points)} spots"
    if context.nred > 1:
        points += f", one in {context.nred} of {context.harvested}"
    lost = ", ".join(f"{number} {cause.replace('_', ' ')}" for cause, number in context.lost.items())
    foreign = int(spots.foreign.sum())
    if foreign:
        lost += f", {foreign} rejected as foreign in {spots.regions.sum()} regions"
    if spots.cut.any():
        lost += f", {spots.cut.sum()} inside the inner radius round centres that moved"
    own = "factors, baselines and centres" if np.isfinite(spots.sigma_offset).any() else "factors and baselines"
    beyond = [
        name
        for name, there in (
            ("dispersion", result.fitted_terms > 0),
            ("gradients", np.isfinite(spots.sigma_gradient).any()),
            ("internal strains", np.isfinite(spots.sigma_strain).any()),
        )
        if there
    ]
    model = (
        "elastic limit" if context.model == "elastic" else f"next order: {', '.join(beyond) or 'no term determined'}"
    )
    work = f"constants as given, {own} fitted" if context.simulated else "constants fitted"
    state = "converged" if result.converged else "NOT converged"
    entries = (
        ("program", f"tds2el {__version__}"),
        ("device", context.device),
        ("crystal", f"{context.group.name}, {context.group.system}; {', '.join(assumed)}"),
        ("model", model),
        ("quantum", f"correction of {percent(context.quantum_term)} at the outer radius of the shells"),
        ("beam", "direct beam at row {:.2f}, column {:.2f}".format(*context.direct_beam)),
        ("points", points),
        ("lost", lost or "none"),
        ("fit", f"{work}; {state} in {len(result.iterations)} passes over {n_used} spots"),
        (
            "quality",
            f"chi²/dof {result.chi2 / result.dof:.4f}, deviance/dof {result.deviance / result.dof:.4f} (above 1 at few "
            f"counts even if all is well) with {result.dof} degrees of freedom",
        ),
    )
    return "\n".join(
        line
        for label, text in entries
        for line in textwrap.wrap(text, WIDTH, initial_indent=f"{label:9}", subsequent_indent=" " * 9)
    )


def constants_table(result: FitResult, context: FitContext) -> str:
    """The primary result: ratios to the held constant while the scale is held, else GPa."""
    names, sigma, held = result.constants.names, result.errors.largest, result.held
    status = ["as given"] * len(names) if context.simulated else constant_status(result)
    flagged = [f"{text} !" if "bound" in text else text for text in status]
    bounds = [_bounds(*limits) for limits in zip(result.constants.lower, result.constants.upper, strict=True)]
    start = [f"{value:g}" for value in result.constants.start]
    gpa = [with_error(v, s) for v, s in zip(result.values, sigma, strict=True)]
    if context.simulated:
        return "\n".join(["ELASTIC CONSTANTS as given, frame W", *table(["", "GPa"], zip(names, gpa, strict=True))])
    end = ["status", "start", "bounds"]
    if held is None:
        title = {
            Scale.KNOWN: "scale known from what CGUESS freezes",
            Scale.FREE: "scale fitted: the quantum terms determine it",
            Scale.DATUM: "scale from what is known",
        }[result.scale]
        rows = zip(names, gpa, flagged, start, bounds, strict=True)
        return "\n".join([f"ELASTIC CONSTANTS, frame W; {title}", *table(["", "GPa", *end], rows)])
    unit = float(result.values[held])
    ratios = [with_error(v / unit, s / abs(unit)) for v, s in zip(result.values, sigma, strict=True)]
    return "\n".join(
        [
            f"ELASTIC CONSTANTS, frame W; ratios to {names[held]}: these data do not determine the overall scale",
            *table(
                ["", f"ratio to {names[held]}", _condition(result), *end],
                zip(names, ratios, gpa, flagged, start, bounds, strict=True),
            ),
            f"{names[held]} was held at its start value. If you know any constant or modulus, scale all GPa by it.",
        ]
    )


def sigma_table(result: FitResult) -> str:
    """The three estimates of σ; the largest is the one that all other tables show."""
    if not len(result.fitted):
        return ""
    errors, held = result.errors, result.held
    unit = 1.0 if held is None else abs(float(result.values[held]))
    what = "GPa" if held is None else f"of the ratios to {result.constants.names[held]}"
    rows = [
        [
            result.constants.names[i],
            *(
                "" if np.isnan(s[i]) else f"{s[i] / unit:#.2g}".rstrip(".")
                for s in (errors.poisson, errors.scaled, errors.clustered)
            ),
        ]
        for i in result.fitted
    ]
    return "\n".join(
        [
            f"STANDARD DEVIATIONS, {what}; the largest is used throughout",
            *table(["", "Poisson", "× √(deviance/dof)", "clustered by spot"], rows),
        ]
    )


def corrections_table(result: FitResult) -> str:
    """Corrections to geometry and cell, where there are any."""
    found = result.corrections
    if found is None:
        return ""
    rows = [
        [
            name,
            f"{start:.6g}",
            with_error(correction, sigma),
            with_error(start + correction, sigma),
            f"{status} !" if "bound" in status or status == "held" else status,
            _bounds(low, high),
        ]
        for name, start, correction, sigma, status, low, high in zip(
            found.names, found.start, found.correction, found.sigma, found.status, found.lower, found.upper, strict=True
        )
    ]
    header = ["", "harvested", "correction", "value", "status", "bounds of the correction"]
    return "\n".join(["GEOMETRY AND CELL, in the units of the options", *table(header, rows)])


def tensor_text(result: FitResult, block: FrameBlock) -> str:
    """The 6×6 tensor in one frame with its errors, and the rotation that leads there from frame W."""
    sigma = tensor_sigma(result, block.rotation)
    zero = 1e-9 * np.abs(block.tensor).max()
    cells = [
        ["0" if abs(v) < zero and s < zero else with_error(v, s) for v, s in zip(*row, strict=True)]
        for row in zip(block.tensor, sigma, strict=True)
    ]
    unit = "GPa" if result.held is None else _condition(result)
    title = textwrap.wrap(f"TENSOR, {unit}; {block.title}", WIDTH)
    lines = [*title, f"axes: {block.axes}", *table(None, cells)]
    if not np.array_equal(block.rotation, np.eye(3)):
        rotation = table(None, [[f"{x:.6f}" for x in row + 0.0] for row in block.rotation])
        lines += ["rotation, whose rows are the axes x, y, z in frame W:", *rotation]
    return "\n".join(lines)


def moduli_table(result: FitResult) -> str:
    """Averages for polycrystals, anisotropy, eigenvalues and stability."""
    held = result.held
    unit = 1.0 if held is None else float(result.values[held])
    found = averages_with_sigma(result)

    def modulus(name: str) -> str:
        value, sigma = found[name]
        return with_error(value / unit, sigma / abs(unit))

    rows = [
        ["bulk modulus", *(modulus(f"bulk_{mean}") for mean in ("voigt", "reuss", "hill"))],
        ["shear modulus", *(modulus(f"shear_{mean}") for mean in ("voigt", "reuss", "hill"))],
        ["Young's modulus", "", "", modulus("young_hill")],
        ["Poisson's ratio", "", "", with_error(*found["poisson_hill"])],
    ]
    what = "GPa" if held is None else f"ratios to {result.constants.names[held]}"
    values = eigenvalues(result.tensor)
    stable = "mechanically stable" if is_stable(result.tensor) else "NOT mechanically stable"
    lines = [
        f"MODULI of an untextured polycrystal, {what}",
        *table(["", "Voigt", "Reuss", "Hill"], rows),
        f"universal anisotropy {with_error(*found['universal_anisotropy'])}",
        f"eigenvalues (Kelvin), {what}: {', '.join(f'{v:.5g}' for v in values / unit)}",
        f"the crystal is {stable}",
    ]
    return "\n".join(lines)


def spot_table(result: FitResult) -> str:
    """Every spot: points, factor, baseline, χ²/dof, and what is wrong with it."""
    spots = result.spots
    rows = []
    for n, (h, k, l) in enumerate(spots.hkl):
        low = spots.below_floor[n] / max(1, spots.points[n])
        flags = ["left out"] if spots.left_out[n] else []
        flags = ["left out, chi²"] if spots.filtered[n] else flags
        flags += [f"{percent(low)} below floor"] if low > BELOW_FLOOR else []
        flags += [f"{spots.foreign[n]} foreign"] if spots.foreign[n] else []
        flags += [f"{spots.cut[n]} cut"] if spots.cut[n] else []
        rows.append(
            [
                f"{h:3d} {k:3d} {l:3d}",
                f"{spots.angle[n]:.2f}",
                f"{spots.points[n]}",
                with_error(spots.factor[n], spots.sigma_factor[n]),
                with_error(spots.baseline[n], spots.sigma_baseline[n]),
                f"{spots.chi2[n] / spots.dof[n]:.3f}",
                ", ".join(flags),
            ]
        )
    header = ["h   k   l", "angle", "points", "factor f", "baseline b", "chi²/dof", ""]
    title = "SPOTS: intensity = f S + b, in counts per unit of correction; S in 1/GPa; angle in degrees"
    return "\n".join([title, *table(header, rows)])


def centre_table(result: FitResult) -> str:
    """Offset of every halo's centre from its node, and its distance from the Bragg peak; where centres were fitted."""
    spots = result.spots
    if not np.isfinite(spots.sigma_offset).any():
        return ""
    rows = []
    for n, (h, k, l) in enumerate(spots.hkl):
        offset = [1e3 * x for x in spots.offset[n]]
        sigma = [1e3 * x for x in spots.sigma_offset[n]]
        distance = 1e3 * float(np.linalg.norm(spots.offset[n] - spots.peak[n]))
        rows.append(
            [
                f"{h:3d} {k:3d} {l:3d}",
                f"{spots.angle[n]:.2f}",
                *(with_error(x, s) for x, s in zip(offset, sigma, strict=True)),
                f"{distance:.3f}" if np.isfinite(distance) else "",
                "held: not determined" if spots.centre_held[n] else "",
            ]
        )
    header = ["h   k   l", "angle", "x", "y", "z", "from Bragg peak", ""]
    return "\n".join(["CENTRES of the halos relative to their nodes, 0.001 Å⁻¹, frame W", *table(header, rows)])


def quality_table(result: FitResult, context: FitContext) -> str:
    """How much trust each spot's data deserve; what spot_filter judges by."""
    quality, spots = context.quality, result.spots
    if quality is None:
        return ""
    rows = [
        [
            f"{h:3d} {k:3d} {l:3d}",
            f"{spots.angle[n]:.2f}",
            f"{quality.points[n]}",
            f"{quality.coverage[n]:.2f}",
            f"{quality.signal[n]:.3g}" if np.isfinite(quality.signal[n]) else "",
            f"{quality.lost_frames[n]:.2f}",
            f"{quality.offset_pixels[n]:.2f}" if np.isfinite(quality.offset_pixels[n]) else "",
        ]
        for n, (h, k, l) in enumerate(spots.hkl)
    ]
    header = ["h   k   l", "angle", "harvested", "coverage", "signal", "frames lost", "Bragg peak off by, pixels"]
    title = "DATA of the spots: part of the directions of q, halo over baseline, part of the frames over threshold"
    return "\n".join([title, *table(header, rows)])


def _condition(result: FitResult) -> str:
    """The heading of GPa while the scale is held."""
    assert result.held is not None
    return f"GPa if {result.constants.names[result.held]} = {result.values[result.held]:g}"


def _bounds(lower: float, upper: float) -> str:
    if lower == upper:
        return ""
    if np.isinf([lower, upper]).all():
        return "none"
    return f"{lower:g} to {upper:g}"
