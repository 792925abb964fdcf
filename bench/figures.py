"""The form in which every script hands over its figures.

A script has a function ``measure(...) -> dict`` whose result goes to JSON; its entry "figures" is a list of what
`figure` makes. ``python SCRIPT --json FILE`` prints the same for people and writes that result. `bench/__main__.py`
runs scripts as processes of their own, so that memory and threads of one do not touch another.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

Figure = dict[str, object]


def figure(
    what: str,
    ours: float,
    unit: str,
    *,
    beside: float | None = None,
    than: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Figure:
    """A figure of which less is better, with what a user would pick instead.

    Parameters
    ----------
    what : str
        What is measured, and of how much.
    ours, beside : float
        In `unit`.
    than : str
        What `beside` is.
    at_least : float, optional
        Target of beside/ours.
    at_most : float, optional
        Target of `ours`.
    """
    ratio = None if beside is None else beside / ours
    met = (at_least is None or (ratio is not None and ratio >= at_least)) and (at_most is None or ours <= at_most)
    target = "" if at_least is None else f"≥ {at_least:g} ×"
    if at_most is not None:
        target = f"≤ {at_most:g} {unit}"
    return {"what": what, "ours": ours, "unit": unit, "beside": beside, "than": than, "ratio": ratio,
            "target": target, "met": met}  # fmt: skip


def table(figures: Sequence[Figure]) -> str:
    """The figures as lines: what, ours, beside, ratio, target."""
    rows = [("what", "ours", "beside", "ratio", "target")]
    for f in figures:
        beside = "" if f["beside"] is None else f"{_number(f['beside'])} {f['unit']} ({f['than']})"
        ratio = "" if f["ratio"] is None else f"{f['ratio']:.3g} ×"
        target = str(f["target"]) + ("" if f["met"] else "  MISSED")
        rows.append((str(f["what"]), f"{_number(f['ours'])} {f['unit']}", beside, ratio, target))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def hand_over(result: dict[str, object], path: Path | None) -> None:
    """Print the figures, and write the whole result if a file is named."""
    figures = result["figures"]
    assert isinstance(figures, list)
    print(table(figures))
    if path is not None:
        path.write_text(json.dumps(result, indent=1))


def _number(value: object) -> str:
    assert isinstance(value, float | int)
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.2e}"
