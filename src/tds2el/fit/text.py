"""Numbers, tables and paragraphs of the report as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

WIDTH = 100

Rows = Iterable[Sequence[str]]


def with_error(value: float, sigma: float) -> str:
    """A number as crystallographers print it, two digits of σ in parentheses: 85.32(47), 1240(130), 3.21(15)e-06.

    Without a σ (zero or NaN) the value has six digits.
    """
    if not (np.isfinite(sigma) and sigma > 0 and np.isfinite(value)):
        return f"{value:.6g}"
    size = max(abs(value), sigma)
    if not 1e-4 <= size < 1e6:
        exponent = int(np.floor(np.log10(size)))
        return f"{with_error(value / 10.0**exponent, sigma / 10.0**exponent)}e{exponent:+03d}"
    digits = 1 - int(np.floor(np.log10(sigma)))
    last = round(sigma * 10.0**digits)
    if last == 100:
        digits, last = digits - 1, 10
    rounded = round(value, digits) + 0.0  # no "-0.00"
    if digits >= 0:
        return f"{rounded:.{digits}f}({last})"
    return f"{rounded:.0f}({last * 10**-digits})"


def table(header: Sequence[str] | None, rows: Rows) -> list[str]:
    """Right-aligned columns, indented by two; a last column that has no header is left-aligned."""
    cells = [list(row) for row in ([header] if header else [])] + [list(row) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    free_text = header is not None and not header[-1]
    if free_text:
        widths[-1] = 0
    return [
        ("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in cells
    ]


def wrapped(texts: Iterable[str], bullet: str) -> list[str]:
    """Paragraphs of at most `WIDTH` columns, each after a bullet."""
    indent = " " * len(bullet)
    return [
        line for text in texts for line in textwrap.wrap(text, WIDTH, initial_indent=bullet, subsequent_indent=indent)
    ]
