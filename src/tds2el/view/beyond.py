"""The part of the report on what lies beyond the elastic limit."""

from __future__ import annotations

import numpy as np

from tds2el.fit.beyond import Comparison
from tds2el.fit.read import FitFile
from tds2el.fit.result import DispersionTable
from tds2el.fit.text import with_error
from tds2el.view.page import Alarm, Cell, Number, details, paragraph, table


def next_order(fit: FitFile) -> list[str]:
    """The elastic limit beside the next order, the dispersion, and the spots' own terms, where there are any."""
    found = fit.next_order
    if found is None:
        return []
    parts = [] if found.comparison is None else _comparison(found.comparison)
    if found.dispersion is not None:
        parts.append(_dispersion(found.dispersion))
    own = []
    for title, components, values, sigma in (
        ("Gradients g of the amplitude, Å", "xyz", found.gradient, found.sigma_gradient),
        ("Internal strain H", ("xx", "yy", "zz", "yz", "xz", "xy"), found.strain, found.sigma_strain),
    ):
        if values is not None and sigma is not None:
            rows: list[list[Cell]] = [
                [label, *(_number(*x) for x in zip(value, error, strict=True))]
                for label, value, error in zip(fit.spots.label, values, sigma, strict=True)
            ]
            own.append(table(f"{title}, frame W; 0 where the data do not determine it", ["Spot", *components], rows))
    return [*parts, details("Terms of each spot", own)] if own else parts


def _comparison(found: Comparison) -> list[str]:
    rows: list[list[Cell]] = [
        [
            name,
            _number(found.elastic[n], found.sigma_elastic[n]),
            _number(found.beyond[n], found.sigma_beyond[n]),
            Number(f"{found.shift[n]:+.1f}", float(found.shift[n])),
            Number(f"{found.sigma_beyond[n] / found.sigma_elastic[n]:.2f}", float(found.sigma_beyond[n])),
        ]
        for n, name in enumerate(found.names)
    ]
    what = "GPa" if found.reference is None else f"as ratios to {found.reference}"
    verdict = "The elastic limit is biased for these data" if found.biased else "No bias of the elastic limit shows"
    header = ["Constant", "Elastic limit", "Next order", "Shift in σ of the shift", "σ wider by"]
    return [
        table(f"The two models on the same points, {what}", header, rows),
        paragraph(f"{verdict}: noise alone makes such shifts with a probability of {found.probability:.2g}."),
    ]


def _dispersion(found: DispersionTable) -> str:
    rows: list[list[Cell]] = [
        [name, _number(value, sigma), Alarm("held: not determined") if held else "fitted"]
        for name, value, sigma, held in zip(found.names, found.value, found.sigma, found.held, strict=True)
    ]
    form = "; intensity to first order in it" if found.expanded else ""
    return table(f"Dispersion T, GPa Å² for q without 2π, frame W{form}", ["Term", "Coefficient", "Status"], rows)


def _number(value: float, sigma: float) -> Number:
    return Number(with_error(float(value), float(sigma) if np.isfinite(sigma) else 0.0), float(value))
