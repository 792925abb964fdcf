"""Where the scale of the constants comes from, and what follows from it, as text of the report."""

from __future__ import annotations

import numpy as np

from tds2el.crystal.thermal import Thermal
from tds2el.fit.bragg import BraggScale
from tds2el.fit.derived import adiabatic_constants
from tds2el.fit.known import shares
from tds2el.fit.result import FitResult
from tds2el.fit.text import table, with_error, wrapped

WIDEST = 12
"""Most constants whose correlations fit on a page as a matrix."""


def known_table(result: FitResult) -> str:
    """What was known, what the fit makes of it, and how much of each constant's variance comes from there."""
    known = result.constants.known
    if known is None:
        return ""
    tensor = result.tensor
    rows = []
    for datum in known.data:
        found = datum.quantity(tensor)[0]
        pull = (found - datum.value) / datum.sigma
        rows.append(
            [datum.name, with_error(datum.value, datum.sigma), f"{found:.6g}", f"{pull:.2f}", datum.state or " "]
        )
    lines = ["KNOWN from elsewhere, in GPa, compressibilities in 1/GPa"]
    lines += table(["", "known", "fitted", "difference, σ", ""], rows)
    if len(result.fitted):
        part = shares(known, result.values, result.fitted, result.covariance)
        listed = ", ".join(
            f"{result.constants.names[i]} {100 * x:.0f} %" for i, x in zip(result.fitted, part, strict=True)
        )
        lines += wrapped([f"part of the variance that would vanish if they were exact: {listed}"], "")
    return "\n".join(lines)


def bragg_table(result: FitResult) -> str:
    """What the Bragg peak of every spot says of the scale, and the scale at no extinction."""
    found = result.bragg
    if found is None:
        return ""
    rows = []
    for n, (h, k, l) in enumerate(result.spots.hkl):
        ratio = np.exp(found.log_ratio[n])
        rows.append(
            [
                f"{h:3d} {k:3d} {l:3d}",
                f"{result.spots.angle[n]:.2f}",
                f"{found.strength[n]:.3f}" if np.isfinite(found.strength[n]) else "",
                with_error(ratio, ratio * found.sigma[n]) if np.isfinite(ratio) else "",
                f"not used: {found.flaw[n]}" if found.flaw[n] else "",
            ]
        )
    scale = np.exp(found.log_scale)
    said = (
        f"scale without extinction {with_error(scale, scale * found.sigma_scale)}; extinction of the strongest "
        f"{_extinction(found)}; chi²/dof of the spots {found.excess:.2f}"
    )
    header = ["h   k   l", "angle", "strength", "scale", ""]
    title = "BRAGG INTENSITIES: scale of the constants of a first fit, against |F|²/sin 2θ"
    return "\n".join([title, *table(header, rows), *wrapped([said], "")])


def _extinction(found: BraggScale) -> str:
    if not np.isfinite(found.sigma_extinction):
        return "not fitted, since fewer than three reflections can be used: the scale may be too low by it"
    loss, sigma = found.loss
    return f"{100 * loss:.1f} % ± {100 * sigma:.1f} %"


def adiabatic_table(result: FitResult, thermal: Thermal | None) -> str:
    """The adiabatic constants, which the speed of sound gives, beside the isothermal ones."""
    if thermal is None:
        return ""
    structure = result.constants.structure
    values, sigma = adiabatic_constants(result, thermal)
    rows = [
        [name, with_error(value, error), f"{value - isothermal:+.3g}"]
        for name, value, error, isothermal in zip(structure.names, values, sigma, result.values, strict=True)
    ]
    held = result.held
    condition = "" if held is None else f", if {result.constants.names[held]} = {result.values[held]:g}"
    conditions = f"{thermal.temperature:g} K, c_p = {thermal.heat_capacity:g} J/(g K){condition}"
    return "\n".join(
        [
            f"ADIABATIC CONSTANTS, frame W; {conditions}",
            *table(["", "GPa", "minus isothermal"], rows),
        ]
    )


def interval_table(result: FitResult) -> str:
    """Intervals of 68 % beside the Gaussian σ, where they were asked for."""
    kinds = [(n, x) for n, x in (("profile", result.profile), ("bootstrap", result.bootstrap)) if x is not None]
    if not kinds or not len(result.fitted):
        return ""
    held, sigma = result.held, result.errors.largest
    unit = 1.0 if held is None else abs(float(result.values[held]))
    rows = []
    for i in result.fitted:
        row = [result.constants.names[i], f"{sigma[i] / unit:#.3g}"]
        for _, found in kinds:
            row += [_shift(end[i] - result.values[i], unit) for end in (found.lower, found.upper)]
        rows.append(row)
    what = "GPa" if held is None else f"of the ratios to {result.constants.names[held]}"
    header = ["", "σ", *(f"{name} {sign}" for name, _ in kinds for sign in "−+")]
    return "\n".join([f"INTERVALS of 68 % beside the Gaussian σ, {what}", *table(header, rows)])


def _shift(difference: float, unit: float) -> str:
    return f"{difference / unit:+#.3g}" if np.isfinite(difference) else "none"


def correlation_table(result: FitResult) -> str:
    """Correlations of the fitted constants, the lower triangle."""
    names = [result.constants.names[i] for i in result.fitted]
    if len(names) < 2 or not np.isfinite(result.covariance).all():
        return ""
    found, title = result.correlation, "CORRELATIONS of the constants"
    if len(names) > WIDEST:
        pairs = [(abs(found[i, j]), i, j) for i in range(len(names)) for j in range(i)]
        strong = [f"{names[j]} {names[i]} {found[i, j]:.2f}" for _, i, j in sorted(pairs, reverse=True)[:WIDEST]]
        return "\n".join([f"{title}, the strongest", *wrapped([", ".join(strong)], "  ")])
    columns = range(len(names) - 1)
    rows = [[names[i], *(f"{found[i, j]:.2f}" if j < i else "" for j in columns)] for i in range(1, len(names))]
    return "\n".join([title, *table(["", *names[:-1]], rows)])
