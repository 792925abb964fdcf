"""Pieces of an HTML page, as strings: every text that is given is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import NamedTuple

CSS_DPI = 96
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
# What no reader of the page can undo by accident: nothing is loaded, not even from the folder it lies in.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


class Number(NamedTuple):
    """A cell that is right-aligned, and sorted by its value.

    Attributes
    ----------
    text : str
        As shown, such as "85.32(47)".
    value : float
    faint : bool
        Of little interest, such as a zero that symmetry demands.
    """

    text: str
    value: float
    faint: bool = False


class Alarm(NamedTuple):
    """A cell that must not be overlooked."""

    text: str


Cell = str | Number | Alarm


def document(title: str, body: Iterable[str], further: str = "") -> str:
    """A whole page, with style and program in it, and those of the files `further`.css and .js."""
    files = resources.files(__package__)
    names = ["report", further] if further else ["report"]
    style, program = (
        "\n".join(files.joinpath(f"{name}.{kind}").read_text(encoding="utf-8") for name in names)
        for kind in ("css", "js")
    )
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            *body,
            f"<script>\n{program}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def data(name: str, value: object) -> str:
    """Numbers and texts for a program of the page, as JSON under an id."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def section(name: str, title: str, content: Iterable[str], kind: str = "") -> str:
    """A part of the page under a heading; `name` is where links lead."""
    style = f' class="{escape(kind)}"' if kind else ""
    heading = f'<h2 id="{escape(name)}">{escape(title)}</h2>'
    return "\n".join([f'<section{style} aria-labelledby="{escape(name)}">', heading, *content, "</section>"])


def heading(title: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(title)}</h3>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """A list."""
    return "\n".join(["<ul>", *(f"<li>{escape(text)}</li>" for text in texts), "</ul>"])


def definitions(entries: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """Terms and what is said of them."""
    rows = (f"<div><dt>{escape(term)}</dt><dd>{escape(text)}</dd></div>" for term, text in entries)
    return "\n".join([f'<dl class="{escape(kind)}">', *rows, "</dl>"])


def details(summary: str, content: Iterable[str], kind: str = "") -> str:
    """Something that is shown when asked for, and on paper unless it is of the kind "screen"."""
    return "\n".join([f"<details{_classes(kind)}>", f"<summary>{escape(summary)}</summary>", *content, "</details>"])


def verbatim(text: str) -> str:
    """Text in columns, as on a terminal."""
    return f'<pre tabindex="0">{escape(text)}</pre>'


def links(entries: Iterable[tuple[str, str]]) -> str:
    """The table of contents: names of sections and their titles."""
    items = (f'<li><a href="#{escape(name)}">{escape(title)}</a></li>' for name, title in entries)
    return "\n".join(['<nav aria-label="Contents">', "<ul>", *items, "</ul>", "</nav>"])


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], kind: str = "") -> str:
    """A table that scrolls by itself where the page is narrow; the first column names the rows.

    Parameters
    ----------
    caption : str
    header : sequence of str
        A column whose cells are all `Number` is right-aligned.
    rows : sequence of rows
    kind : str
        "sortable": a click on a heading sorts. "wide": long texts are broken into lines.
    """
    numeric = [bool(rows) and all(isinstance(row[i], Number) for row in rows) for i in range(len(header))]
    head = "".join(
        f'<th scope="col"{_classes("number" if right else "")}>{escape(title)}</th>'
        for title, right in zip(header, numeric, strict=True)
    )
    return "\n".join(
        [
            f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">',
            f"<table{_classes(kind)}>",
            f"<caption><span>{escape(caption)}</span></caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *(f"<tr>{''.join(_cell(cell, i == 0) for i, cell in enumerate(row))}</tr>" for row in rows),
            "</tbody>",
            "</table>",
            "</div>",
        ]
    )


def figure(png: bytes, caption: str, alternative: str, dpi: float) -> str:
    """A picture within the page.

    Parameters
    ----------
    png : bytes
        A PNG file.
    caption : str
    alternative : str
        What it shows, for who cannot see it.
    dpi : float
        Pixels per inch: the size at which all pictures have letters of one size.
    """
    width, height = (round(pixels * CSS_DPI / dpi) for pixels in struct.unpack(">II", png[16:24]))
    data = base64.b64encode(png).decode("ascii")
    return "\n".join(
        [
            "<figure>",
            f'<img{_classes("tall" if height > width else "")} src="data:image/png;base64,{data}" width="{width}" '
            f'height="{height}" alt="{escape(alternative)}">',
            f"<figcaption>{escape(caption)}</figcaption>",
            "</figure>",
        ]
    )


def typeset(text: str) -> str:
    """A printed number with a true minus and power of ten: -3.2(1)e-06 becomes −3.2(1) × 10⁻⁶."""
    mantissa, _, exponent = text.partition("e") if re.fullmatch(r"\S*[\d)]e[+-]?\d+", text) else (text, "", "")
    power = f" × 10{str(int(exponent)).translate(SUPERSCRIPTS)}" if exponent else ""
    return mantissa.replace("-", "−") + power


def _cell(cell: Cell, names_row: bool) -> str:
    tag, scope = ("th", ' scope="row"') if names_row else ("td", "")
    if isinstance(cell, Alarm):
        return f'<{tag}{scope} class="alarm">{escape(cell.text)}</{tag}>'
    if not isinstance(cell, Number):
        return f"<{tag}{scope}>{escape(cell)}</{tag}>"
    classes = _classes("number", "faint" if cell.faint else "")
    return f'<{tag}{scope}{classes} data-value="{cell.value!r}">{escape(typeset(cell.text))}</{tag}>'


def _classes(*names: str) -> str:
    given = " ".join(name for name in names if name)
    return f' class="{given}"' if given else ""
