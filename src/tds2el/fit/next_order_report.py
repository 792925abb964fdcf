"""What the report says beyond the elastic limit: the two models side by side, dispersion, and the spots' own terms."""

from __future__ import annotations

import numpy as np

from tds2el.fit.beyond import compare
from tds2el.fit.result import FitResult
from tds2el.fit.text import table, with_error, wrapped


def comparison_table(result: FitResult) -> str:
    """The elastic limit beside what lies beyond it: constants, shifts, and the price in σ."""
    found, elastic = compare(result), result.elastic
    if found is None or elastic is None:
        return ""
    rows = [
        [
            name,
            with_error(found.elastic[n], found.sigma_elastic[n]),
            with_error(found.beyond[n], found.sigma_beyond[n]),
            f"{100 * (found.beyond[n] / found.elastic[n] - 1):+.2f} %",
            f"{found.shift[n]:+.1f}",
            f"{found.sigma_beyond[n] / found.sigma_elastic[n]:.2f}",
        ]
        for n, name in enumerate(found.names)
    ]
    what = "GPa" if found.reference is None else f"ratios to {found.reference}"
    header = ["", "elastic limit", "next order", "shift", "in σ of the shift", "σ wider by"]
    verdict = (
        "The elastic limit is biased for these data"
        if found.biased
        else "These data show no bias of the elastic limit, whose constants have smaller errors"
    )
    more = elastic.dof - result.dof
    return "\n".join(
        [
            f"ELASTIC LIMIT AND NEXT ORDER, {what}, of the same points",
            *table(header, rows),
            *wrapped(
                [
                    f"{verdict}: noise alone makes all shifts together as large with a probability of "
                    f"{found.probability:.2g}. The deviance is lower by {elastic.deviance - result.deviance:.5g} with "
                    f"{more} more parameters."
                ],
                "",
            ),
        ]
    )


def dispersion_table(result: FitResult) -> str:
    """Coefficients of dispersion, where they were fitted."""
    found = result.dispersion
    if found is None:
        return ""
    rows = [
        [name, with_error(value, sigma), "held: not determined" if held else ""]
        for name, value, sigma, held in zip(found.names, found.value, found.sigma, found.held, strict=True)
    ]
    unit = "GPa Å²"
    if result.held is not None:
        unit += f" if {result.constants.names[result.held]} = {result.values[result.held]:g}"
    form = "; the inverse of Γ + T is expanded to first order in T" if found.expanded else ""
    return "\n".join([f"DISPERSION T(q), {unit}, q without 2π, frame W{form}", *table(["", "coefficient", ""], rows)])


def gradient_table(result: FitResult) -> str:
    """How every spot's form factor changes with q, where that was fitted."""
    return _own_table(result, "GRADIENTS g of the amplitude 1 + g·q, Å, frame W", "gradient", ["x", "y", "z"])


def strain_table(result: FitResult) -> str:
    """Every spot's internal strain, where it was fitted."""
    title = "INTERNAL STRAIN: H in Q + Hq, frame W" + (
        ", without its part along G, which g has" if np.isfinite(result.spots.sigma_gradient).any() else ""
    )
    return _own_table(result, title, "strain", ["xx", "yy", "zz", "yz", "xz", "xy"])


def _own_table(result: FitResult, title: str, name: str, components: list[str]) -> str:
    """What every spot has of its own beyond the elastic limit, with errors."""
    spots = result.spots
    values, sigma = getattr(spots, name), getattr(spots, f"sigma_{name}")
    if not np.isfinite(sigma).any():
        return ""
    rows = []
    for n, (h, k, l) in enumerate(spots.hkl):
        held = bool(np.isnan(sigma[n]).any())
        cells = ["0"] * len(components) if held else [with_error(*x) for x in zip(values[n], sigma[n], strict=True)]
        rows.append([f"{h:3d} {k:3d} {l:3d}", f"{spots.angle[n]:.2f}", *cells, "held" if held else ""])
    return "\n".join([title, *table(["h   k   l", "angle", *components, ""], rows)])
