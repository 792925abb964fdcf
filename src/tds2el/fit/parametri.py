"""parametri.txt, the fitted constants as text that reads as a par-file; see docs/file-formats.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tds2el import __version__
from tds2el.crystal.frames import standard_frame
from tds2el.fit.beyond import compare
from tds2el.fit.context import FitContext, constant_status, result_notes, result_warnings, scale_in_words
from tds2el.fit.result import FitResult
from tds2el.fit.scale_report import adiabatic_table, bragg_table, known_table
from tds2el.fit.text import with_error
from tds2el.output import now, replaced

PARAMETRI = "parametri.txt"


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
    text = "\n".join(
        [
            *_header(result, context),
            "",
            *_constants(result, context),
            *_beside(result, context),
            "",
            *_next_order(result),
            *_corrections(result),
            *_spots(result),
            "",
        ]
    )
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _header(result: FitResult, context: FitContext) -> list[str]:
    frame = standard_frame(result.tensor, context.group)[0]
    lines = [
        f"tds2el {__version__}, {now()}: elastic constants",
        f"frame: {frame.title}, {frame.axes}",
        f"scale {scale_in_words(result, context)}",
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
        for label, found in (("profile", result.profile), ("bootstrap", result.bootstrap)):
            if found is not None and np.isfinite([found.lower[n], found.upper[n]]).any():
                comment += f", {label} {found.lower[n] - value:+.3g} {found.upper[n] - value:+.3g}"
        lines.append(f"{name} = {value!r}   # {comment}")
    return lines


def _beside(result: FitResult, context: FitContext) -> list[str]:
    """Where the scale comes from and the adiabatic constants, as comments."""
    sections = [
        "" if context.simulated else known_table(result),
        bragg_table(result),
        adiabatic_table(result, context.thermal),
    ]
    return [f"# {line}" for section in sections if section for line in section.splitlines()]


def _next_order(result: FitResult) -> list[str]:
    """The elastic limit for comparison, and the coefficients of dispersion."""
    lines, found = [], compare(result)
    if found is not None:
        what = "GPa" if found.reference is None else f"ratios to {found.reference}"
        lines.append(
            f"# elastic limit of the same points, {what}; shift to the constants above in sigma of the difference"
        )
        lines += [
            f"# {name:>9} {with_error(found.elastic[n], found.sigma_elastic[n]):>14}   shift {found.shift[n]:+.2f}"
            for n, name in enumerate(found.names)
        ]
    terms = result.dispersion
    if terms is not None:
        form = ", first order of an expansion" if terms.expanded else ""
        lines.append(f"# dispersion, GPa angstrom^2, q without 2 pi{form}: coefficient, sigma")
        lines += [
            f"# {name:>9} {value:14.7g} {'held' if held else format(sigma, '10.3g')}"
            for name, value, sigma, held in zip(terms.names, terms.value, terms.sigma, terms.held, strict=True)
        ]
    return [*lines, ""] if lines else []


def _corrections(result: FitResult) -> list[str]:
    """Corrected values of geometry and cell, which a conf_file takes."""
    found = result.corrections
    if found is None:
        return []
    lines = []
    for n, name in enumerate(found.names):
        error = float(found.sigma[n])
        shown = f"{error:.3g}" if np.isfinite(error) else "none"
        lines.append(
            f"{name} = {float(found.value[n])!r}   # correction {found.correction[n]:.7g}, sigma {shown}, harvested "
            f"with {found.start[n]:.10g}, bounds {found.lower[n]:g} to {found.upper[n]:g}, {found.status[n]}"
        )
    return [*lines, ""]


def _spots(result: FitResult) -> list[str]:
    spots = result.spots
    lines = [
        "# spots: intensity = f S + b in counts per unit correction, S in 1/GPa; angle in degrees",
        f"# {'h':>4} {'k':>4} {'l':>4} {'angle':>10} {'points':>9} {'f':>14} {'sigma':>10} {'b':>14} {'sigma':>10}"
        f" {'chi2/dof':>9}",
    ]
    for n, (h, k, l) in enumerate(spots.hkl):
        lines.append(
            f"# {h:4d} {k:4d} {l:4d} {spots.angle[n]:10.3f} {spots.points[n]:9d} {spots.factor[n]:14.7g}"
            f" {spots.sigma_factor[n]:10.3g} {spots.baseline[n]:14.7g} {spots.sigma_baseline[n]:10.3g}"
            f" {spots.chi2[n] / spots.dof[n]:9.4f}{'  left out' if spots.left_out[n] else ''}"
        )
    if np.isfinite(spots.sigma_offset).any():
        lines.append(
            f"# centres, 1/angstrom: {'h':>4} {'k':>4} {'l':>4} {'angle':>10}   offset   sigma   from Bragg peak"
        )
        for n, (h, k, l) in enumerate(spots.hkl):
            offset = " ".join(f"{x:.7f}" for x in spots.offset[n])
            sigma = " ".join(f"{x:.7f}" for x in spots.sigma_offset[n])
            distance = float(np.linalg.norm(spots.offset[n] - spots.peak[n]))
            lines.append(f"# {h:4d} {k:4d} {l:4d} {spots.angle[n]:10.3f}   {offset}   {sigma}   {distance:.7f}")
    for name, what in (("gradient", "gradients, angstrom, x y z"), ("strain", "internal strains, xx yy zz yz xz xy")):
        errors = getattr(spots, f"sigma_{name}")
        if np.isfinite(errors).any():
            lines.append(f"# {what}: {'h':>4} {'k':>4} {'l':>4} {'angle':>10}   values   sigma (nan: held at 0)")
            for n, (h, k, l) in enumerate(spots.hkl):
                both = "   ".join(" ".join(f"{x:.6g}" for x in row) for row in (getattr(spots, name)[n], errors[n]))
                lines.append(f"# {h:4d} {k:4d} {l:4d} {spots.angle[n]:10.3f}   {both}")
    return lines
