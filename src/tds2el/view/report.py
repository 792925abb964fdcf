"""report.html: a fit on one page that needs nothing else, to read, print and mail."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

import numpy as np

from tds2el.fit.context import percent
from tds2el.fit.read import FitFile, FrameTensor, read_fit_file
from tds2el.fit.text import with_error
from tds2el.options import BY_NAME
from tds2el.output import replaced
from tds2el.view.beyond import next_order
from tds2el.view.cubes import CUBES, cubes_belong, read_planes
from tds2el.view.page import (
    Alarm,
    Cell,
    Number,
    bullets,
    definitions,
    details,
    document,
    figure,
    heading,
    links,
    paragraph,
    section,
    table,
    verbatim,
)
from tds2el.view.pictures import Picture, draw_pictures
from tds2el.view.style import DPI

REPORT = "report.html"
FIGURES = "figures"
MOST_COLUMNS = 8
VOIGT = ("11", "22", "33", "23", "13", "12")
SECTIONS = (
    ("run", "Data and run"),
    ("constants", "Elastic constants"),
    ("beyond", "Beyond the elastic limit"),
    ("errors", "Error bars"),
    ("geometry", "Geometry and cell"),
    ("moduli", "Moduli and stability"),
    ("pictures", "Pictures"),
    ("spots", "Spots"),
    ("course", "Course of the fit"),
    ("notes", "Notes"),
    ("settings", "Settings and versions"),
)

Row = list[Cell]


def make_report(fit_file: Path, path: Path) -> None:
    """Draw the pictures of a fit, and write them and the report.

    Parameters
    ----------
    fit_file : Path
        The tds2el_fit.h5; a simtests.h5 beside it that shows the same constants adds the spots' central planes.
    path : Path
        Of the page; the pictures also go into the folder `FIGURES` beside it.

    Raises
    ------
    InputError
        If the fit file cannot be read, or something cannot be written.
    """
    fit = read_fit_file(fit_file)
    cubes = fit_file.with_name(CUBES)
    planes = read_planes(cubes) if cubes_belong(cubes, fit.constants.value) else None
    write_report(path, fit, draw_pictures(fit, path.with_name(FIGURES), planes))


def write_report(path: Path, fit: FitFile, pictures: Sequence[Picture]) -> None:
    """Write the report of a fit.

    Parameters
    ----------
    path : Path
        Replaced when the new page is whole.
    fit : FitFile
    pictures : sequence of Picture

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    with replaced(path) as temporary:
        temporary.write_text(report_html(fit, pictures), encoding="utf-8", errors="backslashreplace")


def report_html(fit: FitFile, pictures: Sequence[Picture]) -> str:
    """The report as HTML, with pictures, style and program inside: it loads nothing."""
    contents = {
        "run": _run(fit),
        "constants": _constants(fit),
        "beyond": next_order(fit),
        "errors": _errors(fit),
        "geometry": _corrections(fit),
        "moduli": _moduli(fit),
        "pictures": _pictures(pictures),
        "spots": [_spots(fit)],
        "course": _course(fit),
        "notes": [bullets(fit.notes)] if fit.notes else [],
        "settings": _settings(fit),
    }
    shown = [(name, title) for name, title in SECTIONS if contents[name]]
    name = Path(fit.inputs[0]).name if fit.inputs else fit.path.name
    date = datetime.fromisoformat(fit.program["date"]).isoformat(" ", "minutes")
    body = [
        "<header>",
        paragraph(f"tds2el {fit.program['version']} · {name} · {date}", "kicker"),
        "<h1>Elastic constants</h1>",
        paragraph(_lead(fit), "lead"),
        definitions(_glance(fit), "glance"),
        links(shown),
        "</header>",
        "<main>",
        *([section("warnings", "Warnings", [bullets(fit.warnings)], "warnings")] if fit.warnings else []),
        *(section(name, title, contents[name]) for name, title in shown),
        "</main>",
        "<footer>",
        paragraph(f"Written by tds2el {fit.program['version']} from {fit.path.name}. This page loads nothing."),
        "</footer>",
    ]
    return document(f"Elastic constants, {name}", body)


def _lead(fit: FitFile) -> str:
    origin = "as given" if fit.constants.simulated else "from thermal diffuse scattering"
    used = int((~fit.spots.left_out).sum())
    return (
        f"Isothermal elastic constants of a {fit.system} crystal ({fit.point_group}) at {fit.temperature:g} K, {origin}"
        f" round {used} Bragg spots."
    )


def _glance(fit: FitFile) -> Iterator[tuple[str, str]]:
    """The state of the fit in a few words each."""
    yield "Warnings", str(len(fit.warnings) or "none")
    constants, spots = fit.constants, fit.spots
    passes = len(fit.iterations.deviance)
    state = "converged" if fit.iterations.converged else "NOT converged"
    yield "Simulation" if constants.simulated else "Fit", f"{state} in {passes} passes"
    yield "Chi²/dof", f"{fit.chi2 / fit.dof:.4f}"
    left_out = f", {spots.left_out.sum()} left out" if spots.left_out.any() else ""
    yield "Spots", f"{len(spots.hkl)}{left_out}"
    yield "Points", _thousands(spots.points.sum())
    if constants.simulated:
        yield "Scale", "as given"
    elif constants.held is not None:
        yield "Scale", f"held: ratios to {constants.held}"
    else:
        yield "Scale", {"known": "known", "free": "fitted", "datum": "from known values"}[constants.scale]
    yield "Stability", "stable" if fit.eigenvalues.min() > 0 else "NOT stable"


def _run(fit: FitFile) -> list[str]:
    """What was run, on which data."""
    harvest, spots = fit.harvest_settings, fit.spots
    points = f"{_thousands(spots.points.sum())} in {len(spots.points)} spots"
    if fit.nred > 1:
        points += f", one in {fit.nred} of {_thousands(fit.harvested)}"
    lost = ", ".join(f"{_thousands(number)} {cause.replace('_', ' ')}" for cause, number in fit.lost.items() if number)
    a, b, c, alpha, beta, gamma = fit.cell
    entries = [
        ("Read", ", ".join(fit.inputs)),
        ("Frames", f"{fit.n_frames}, {harvest['images_prefix']}…{harvest['images_postfix']}"),
        ("Wavelength", f"{harvest['lmbda']:g} Å"),
        ("Shells", "|q| from {:.4g} to {:.4g} Å⁻¹ round each node".format(*fit.shell)),
        ("Points", points),
        ("Not harvested", lost or "none of the shells' points"),
        ("Direct beam", "row {:.2f}, column {:.2f}".format(*fit.direct_beam)),
        ("Crystal", f"{fit.point_group}, {fit.system}; {fit.temperature:g} K, {fit.density:g} g/cm³"),
        ("Cell", f"a = {a:g} Å, b = {b:g} Å, c = {c:g} Å, α = {alpha:g}°, β = {beta:g}°, γ = {gamma:g}°"),
        ("Quantum correction", f"{percent(fit.quantum_term)} at the outer radius of the shells"),
        ("Error beside counting", percent(fit.relative_error) if fit.relative_error else "none"),
        ("Device", fit.program["device"]),
        ("Command", _command(fit.program["command_line"])),
    ]
    return [definitions((term, text) for term, text in entries if text)]


def _command(line: str) -> str:
    """The command without the folder of the program."""
    program, *arguments = shlex.split(line)
    return shlex.join(["tds2el" if Path(program).name == "__main__.py" else Path(program).name, *arguments])


def _constants(fit: FitFile) -> list[str]:
    """The primary result, then the tensor in each frame."""
    given = fit.constants.simulated
    scale = f"Scale {fit.constants.scale_in_words}."
    if fit.constants.held is not None:
        scale += " If you know any constant or modulus, scale all GPa by it."
    parts = [paragraph(scale), _constants_table(fit)]
    if not given:
        parts.append(paragraph("Numbers in parentheses are one standard deviation, in units of the last digits."))
    return [*parts, *(_tensor(fit, frame) for frame in fit.frames.values())]


def _constants_table(fit: FitFile) -> str:
    constants, unit = fit.constants, fit.constants.unit
    columns = list(zip(constants.names, constants.value, constants.sigma, strict=True))
    if constants.simulated:
        rows: list[Row] = [[name, _number(value, np.nan)] for name, value, _ in columns]
        return table("Elastic constants as given, frame W", ["Constant", "GPa"], rows)
    header = ["Constant", "GPa", "σ in %", "Status", "Start in GPa", "Bounds in GPa"]
    rows = []
    for n, (name, value, sigma) in enumerate(columns):
        relative = 100 * sigma / abs(value) if value else np.nan
        rows.append(
            [
                name,
                _number(value, sigma),
                Number(f"{relative:#.2g}".rstrip(".") if np.isfinite(relative) else "", relative),
                Alarm(constants.status[n]) if "bound" in constants.status[n] else constants.status[n],
                Number(f"{constants.start[n]:g}", constants.start[n]),
                _bounds(constants.lower[n], constants.upper[n]),
            ]
        )
        if constants.held is not None:
            rows[-1].insert(1, _number(value / unit, sigma / abs(unit)))
    if constants.held is None:
        return table("Elastic constants, working frame W", header, rows)
    header[1:2] = [f"Ratio to {constants.held}", f"GPa if {constants.held} = {unit:g}"]
    return table(f"Elastic constants, working frame W, as ratios to {constants.held}", header, rows)


def _corrections(fit: FitFile) -> list[str]:
    """Geometry and cell, where the fit corrected them."""
    found = fit.corrections
    if found is None:
        return []
    rows: list[Row] = [
        [
            name,
            Number(f"{found.start[n]:.7g}", float(found.start[n])),
            _number(found.correction[n], found.sigma[n]),
            _number(found.value[n], found.sigma[n]),
            Alarm(found.status[n]) if "bound" in found.status[n] or found.status[n] == "held" else found.status[n],
            _bounds(found.lower[n], found.upper[n]),
        ]
        for n, name in enumerate(found.names)
    ]
    header = ["Option", "Harvested with", "Correction", "Value", "Status", "Bounds"]
    return [table("Corrections in the units of the options; what is tied follows another", header, rows)]


def _tensor(fit: FitFile, frame: FrameTensor) -> str:
    """The 6×6 matrix with its errors; while the scale is held, of ratios."""
    unit, held = fit.constants.unit, fit.constants.held
    zero = 1e-9 * np.abs(frame.stiffness).max()
    rows: list[Row] = [
        [
            VOIGT[i],
            *(
                Number("0", 0.0, faint=True)
                if abs(value) < zero and sigma < zero
                else _number(value / unit, sigma / abs(unit))
                for value, sigma in zip(frame.stiffness[i], frame.sigma[i], strict=True)
            ),
        ]
        for i in range(6)
    ]
    what = "GPa" if held is None else f"ratios to {held}"
    parts = [heading(frame.title), table(f"{what}; {frame.axes}", ["", *VOIGT], rows)]
    if not np.array_equal(frame.rotation, np.eye(3)):
        rotation: list[Row] = [
            [axis, *(Number(f"{x:.6f}", float(x)) for x in row + 0.0)]
            for axis, row in zip("xyz", frame.rotation, strict=True)
        ]
        parts.append(details("Rotation from frame W", [table("Axes of this frame in frame W", ["", *"xyz"], rotation)]))
    return "\n".join(parts)


def _errors(fit: FitFile) -> list[str]:
    """The three estimates of σ, and the correlations."""
    constants, unit = fit.constants, abs(fit.constants.unit)
    if not constants.fitted:
        return []
    three = (constants.sigma_poisson, constants.sigma_scaled, constants.sigma_clustered)
    chosen = [constants.names.index(name) for name in constants.fitted]
    rows: list[Row] = [[constants.names[i], *(_two_digits(sigma[i] / unit) for sigma in three)] for i in chosen]
    correlation: list[Row] = [
        [name, *(Number(f"{x:.2f}", float(x)) for x in row)]
        for name, row in zip(constants.fitted, constants.correlation, strict=True)
    ]
    what = "GPa" if constants.held is None else f"of the ratios to {constants.held}"
    return [
        paragraph("The largest of the three estimates is the σ of every other table."),
        table(
            f"Standard deviations, {what}",
            ["Constant", "Poisson", "× √(deviance/dof)", "Clustered by spot"],
            rows,
        ),
        details("Correlations", [table("Correlation matrix", ["", *constants.fitted], correlation, "dense")]),
    ]


def _moduli(fit: FitFile) -> list[str]:
    unit, held = fit.constants.unit, fit.constants.held

    def modulus(name: str) -> Number:
        value, sigma = fit.moduli[name]
        return _number(value / unit, sigma / abs(unit))

    rows: list[Row] = [
        [f"{kind.capitalize()} modulus", *(modulus(f"{kind}_{mean}") for mean in ("voigt", "reuss", "hill"))]
        for kind in ("bulk", "shear")
    ]
    none = Number("", np.nan)
    rows.append(["Young’s modulus", none, none, modulus("young_hill")])
    rows.append(["Poisson’s ratio", none, none, _number(*fit.moduli["poisson_hill"])])
    what = "GPa" if held is None else f"ratios to {held}"
    return [
        table(f"Untextured polycrystal, {what}", ["", "Voigt", "Reuss", "Hill"], rows),
        definitions(
            [
                ("Universal anisotropy", _number(*fit.moduli["universal_anisotropy"]).text),
                (f"Kelvin eigenvalues, {what}", ", ".join(f"{value:.5g}" for value in fit.eigenvalues / unit)),
                ("Mechanical stability", "stable" if fit.eigenvalues.min() > 0 else "NOT stable"),
            ]
        ),
    ]


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    """Kind by kind; those of single spots are shown when asked for."""
    parts = []
    for (title, one_spot), kind in groupby(pictures, lambda picture: (picture.title, picture.one_spot)):
        shown = list(kind)
        if one_spot:
            images = [figure(p.png, p.subject.partition(":")[0], f"{title}: {p.subject}", DPI) for p in shown]
            parts.append(details(f"{title}: {len(shown)} pictures", [paragraph(shown[0].caption), *images], "screen"))
        else:
            images = [figure(p.png, p.caption, f"{title}: {p.subject or p.caption}", DPI) for p in shown]
            parts += [heading(title), *images]
    return parts


def _spots(fit: FitFile) -> str:
    """Every spot; a click on a heading sorts."""
    spots = fit.spots
    low = 100 * spots.below_floor / np.maximum(spots.points, 1)
    columns: dict[str, list[Cell]] = {
        "Spot": [Number(str(n), n) for n in range(len(spots.hkl))],
        **{name: [Number(str(x), int(x)) for x in spots.hkl[:, i]] for i, name in enumerate("hkl")},
        "Angle, °": [Number(f"{x:.2f}", float(x)) for x in spots.angle],
        "Points": [Number(_thousands(x), int(x)) for x in spots.points],
        "Factor f": [_number(*both) for both in zip(spots.factor, spots.sigma_factor, strict=True)],
        "Baseline b": [_number(*both) for both in zip(spots.baseline, spots.sigma_baseline, strict=True)],
        "χ²/dof": [Number(f"{x:.3f}", float(x)) for x in spots.chi2_per_dof],
    }
    if low.any():
        columns["Below floor, %"] = [Number(f"{x:.2g}", float(x), faint=x == 0) for x in low]
    for title, numbers in (("Foreign points", spots.foreign), ("Cut points", spots.cut)):
        if numbers.any():
            columns[title] = [Number(_thousands(x), int(x), faint=not x) for x in numbers]
    if np.isfinite(spots.sigma_offset).any():
        length = 1e3 * np.linalg.norm(spots.offset, axis=1)
        distance = 1e3 * np.linalg.norm(spots.offset - spots.peak, axis=1)
        columns["Centre, 0.001 Å⁻¹"] = [Number(f"{x:.3f}", float(x)) for x in length]
        columns["From Bragg peak"] = [Number(f"{x:.3f}" if np.isfinite(x) else "", float(x)) for x in distance]
    for title, figures in (
        ("Coverage", spots.coverage),
        ("Signal", spots.signal),
        ("Frames lost", spots.lost_frames),
        ("Peak off, pixels", spots.offset_pixels),
    ):
        if np.isfinite(figures).any():
            columns[title] = [Number(f"{x:.2f}" if np.isfinite(x) else "", float(x)) for x in figures]
    if spots.left_out.any() or spots.centre_held.any():
        columns["Remark"] = [
            Alarm("left out, χ²") if filtered else Alarm("left out") if left_out else "centre held" if held else ""
            for left_out, filtered, held in zip(spots.left_out, spots.filtered, spots.centre_held, strict=True)
        ]
    caption = (
        "Intensity = f S + b in counts per unit correction, S in 1/GPa; angle of the goniometer at closest approach; "
        "of the data: part of the directions of q, halo over baseline, part of the frames lost to the threshold"
    )
    return _table_of(caption, columns, "sortable")


def _course(fit: FitFile) -> list[str]:
    """The passes over the points; many constants make several tables, for paper is not wide."""
    found = fit.iterations
    passes: list[Cell] = [Number(str(n + 1), n + 1) for n in range(len(found.deviance))]
    steps: dict[str, list[Cell]] = {
        "Pass": passes,
        "Deviance": [Number(f"{x:.10g}", float(x)) for x in found.deviance],
        "Predicted decrease": [Number(f"{x:.3g}" if np.isfinite(x) else "", float(x)) for x in found.predicted],
        "Damping": [Number(f"{x:g}", float(x)) for x in found.damping],
        "Step": ["accepted" if accepted else "rejected" for accepted in found.accepted],
    }
    tables = [_table_of("Steps", steps)]
    moved = fit.corrections.moved if fit.corrections else ()
    for caption, names, values, digits in (
        ("Constants after each pass, GPa", fit.constants.names, found.constants, 4),
        ("Corrections after each pass, in the units of the options", moved, found.corrections, 6),
    ):
        for first in range(0, len(names), MOST_COLUMNS):
            columns = {"Pass": passes}
            for i, name in enumerate(names[first : first + MOST_COLUMNS], first):
                columns[name] = [Number(f"{x:.{digits}f}", float(x)) for x in values[:, i]]
            tables.append(_table_of(caption, columns))
    return [details(f"{len(passes)} passes over the points", tables)]


def _table_of(caption: str, columns: dict[str, list[Cell]], kind: str = "") -> str:
    return table(caption, list(columns), list(zip(*columns.values(), strict=True)), kind)


def _settings(fit: FitFile) -> list[str]:
    changed: list[Row] = []
    defaults: list[Row] = []
    for name, value in fit.settings.items():
        option = BY_NAME.get(name)
        row: Row = [name, repr(value), option.unit if option else "", option.help if option else ""]
        is_default = option is not None and json.dumps(option.default) == json.dumps(value)
        (defaults if is_default else changed).append(row)
    header = ["Option", "Value", "Unit", "Meaning"]
    known = ("date", "device", "command_line", "program", "version")
    versions = [("tds2el", fit.program["version"])]
    versions += [(name, version) for name, version in fit.program.items() if name not in known]
    return [
        details("Options with values of their own", [table("Options", header, changed, "wide")]),
        details("Options at their defaults", [table("Options", header, defaults, "wide")]),
        details("The report as printed", [verbatim(fit.report)], "screen"),
        definitions(versions),
    ]


def _number(value: float, sigma: float) -> Number:
    return Number(with_error(float(value), float(sigma)), float(value))


def _two_digits(value: float) -> Number:
    return Number(f"{value:#.2g}".rstrip("."), float(value))


def _bounds(lower: float, upper: float) -> str:
    if lower == upper:
        return ""
    return "none" if np.isinf([lower, upper]).all() else f"{lower:g} to {upper:g}".replace("-", "−")


def _thousands(number: int | np.int64) -> str:
    """1 093 124, with thin spaces that no line breaks."""
    return f"{number:,}".replace(",", "\u202f")
