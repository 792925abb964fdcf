"""An alignment as text for people."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt

from tds2el import __version__
from tds2el.align.align import Alignment
from tds2el.align.orientation import describe_turn
from tds2el.align.orientation_codes import describe
from tds2el.align.sweeps import ANGLES
from tds2el.crystal.cell import CELL_OPTIONS
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.maxima import Maxima
from tds2el.fit.text import with_error
from tds2el.options import BY_NAME

WIDTH = 100
SPLIT = 2.0
"""Degrees below which a second lattice may not be one."""
SEVERAL = 5
"""Pairs of code and sign: more than an axis of rotation along e3 makes equal."""
STRONG = 0.9
"""Correlations from here on are printed."""


def align_report(found: Alignment, maxima: Maxima) -> str:
    """The whole report.

    Parameters
    ----------
    found : Alignment
    maxima : Maxima
        The table of peaks that was aligned.
    """
    sections = [
        f"Alignment by tds2el {__version__}",
        _peaks(found, maxima),
        _parameters(found),
        _correlations(found),
        _residuals(found),
        _orientation(found),
        _codes(found),
        _second(found),
        _sweeps(found),
        "\n".join(f"- {note}" for note in found.notes),
    ]
    return "\n\n".join(_wrapped(section) for section in sections if section)


def _wrapped(text: str) -> str:
    """No line longer than a page; tables are not."""
    return "\n".join(
        line if len(line) <= WIDTH else textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in text.split("\n")
    )


def summary(found: Alignment, maxima: Maxima) -> str:
    """What a run says at its end, a few lines."""
    n, accepted = len(found.hkl), int(found.accepted.sum())
    cell = " ".join(f"{value:.5g}" for value in found.cell.parameters)
    e = found.experiment
    spread = found.refinement.spread
    return (
        f"{accepted} of {n} peaks accepted ({100 * accepted / n:.1f} %), with "
        f"{100 * _share(maxima.counts, found.accepted):.1f} % of all counts; cell {cell}, {found.group.system}\n"
        f"r1 = {e.r1:.4f}, r2 = {e.r2:.4f}, r3 = {e.r3:.4f}; residuals {spread[0]:.3f} rows, {spread[1]:.3f} columns, "
        f"{spread[2]:.3f} frames"
    )


def _peaks(found: Alignment, maxima: Maxima) -> str:
    n, indexed, accepted = len(found.hkl), int(found.hkl.any(axis=1).sum()), int(found.accepted.sum())
    row, column = Geometry(found.experiment).direct_beam()
    lines = [
        f"{n} peaks, {indexed} near a node ({indexed / n:.1%}), {accepted} accepted ({accepted / n:.1%})",
        f"their counts: {100 * _share(maxima.counts, found.accepted):.1f} % of all",
        f"direct beam at row {row:.2f}, column {column:.2f}",
    ]
    if found.exchanged:
        lines.append("det_origin_X and det_origin_Y were exchanged in the par-files")
    return "\n".join(lines)


def _parameters(found: Alignment) -> str:
    """Geometry and cell: what was given, what came out, and how well it is known."""
    retuning = found.refinement.retuning.first
    experiment, cell = found.experiment, found.cell
    values = {c.name: getattr(experiment, c.name) for c in retuning.corrections if c.name not in CELL_OPTIONS}
    values = {name: getattr(experiment, name) for name in ANGLES} | values
    values |= dict(zip(CELL_OPTIONS, cell.parameters, strict=True))
    lines = [f"{'parameter':16s}{'start':>14s}{'refined':>18s}  {'unit':6s} status"]
    for name, value in values.items():
        start = (
            getattr(retuning.experiment, name)
            if name not in CELL_OPTIONS
            else getattr(retuning.cell, ("a", "b", "c", "alpha", "beta", "gamma")[CELL_OPTIONS.index(name)])
        )
        sigma, status = _sigma(found, name)
        lines.append(f"{name:16s}{start:14.5f}{with_error(value, sigma):>18s}  {BY_NAME[name].unit:6s} {status}")
    lines.append("start: where the refinement began, with the orientation (and the cell, if not given) as found")
    return "\n".join(lines)


def _sigma(found: Alignment, name: str) -> tuple[float, str]:
    refinement, retuning = found.refinement, found.refinement.retuning.first
    if name in retuning.names:
        place = retuning.names.index(name)
        if name in refinement.held:
            return np.nan, "held: the peaks do not determine it"
        if refinement.at_bound[place]:
            return np.nan, "at a bound of variations"
        return float(refinement.sigma[place]), "refined"
    places = [c.name for c in retuning.corrections]
    if name in places:
        moves = retuning.moves[:, places.index(name)]
        if moves.any():
            leader = retuning.names[int(np.abs(moves).argmax())]
            return float(np.sqrt(np.nansum((moves * refinement.sigma) ** 2))), f"follows {leader}"
    return np.nan, "fixed"


def _correlations(found: Alignment) -> str:
    names, matrix = found.refinement.retuning.names, found.refinement.correlation
    strong = [
        (abs(matrix[i, j]), f"{names[i]} and {names[j]}: {matrix[i, j]:+.3f}")
        for i in range(len(names))
        for j in range(i)
        if abs(matrix[i, j]) >= STRONG
    ]
    if not strong:
        return f"No two refined parameters are correlated by {STRONG} or more."
    return "\n".join([f"Correlations of {STRONG} or more:", *(text for _, text in sorted(strong, reverse=True))])


def _residuals(found: Alignment) -> str:
    residual = found.residual[found.accepted]
    rms = np.sqrt(np.nanmean(residual**2, axis=0))
    spread, worst = found.refinement.spread, np.nanmax(np.abs(residual), axis=0)
    lines = [f"{'residuals of accepted peaks':30s}{'rms':>10s}{'robust σ':>10s}{'largest':>10s}"]
    for name, *values in zip(("row (pixels)", "column (pixels)", "angle (frames)"), rms, spread, worst, strict=True):
        lines.append(f"{name:30s}" + "".join(f"{value:10.3f}" for value in values))
    return "\n".join(lines)


def _orientation(found: Alignment) -> str:
    lines = []
    if len(found.same) > 1:
        turn = describe_turn(found.same[found.chosen].hkl_operation)
        lines.append(
            f"{len(found.same)} orientations have the same nodes (rotations of the lattice); that with r1, r2, r3 "
            f"nearest to the start values is taken (from the one found first by h, k, l -> {turn})"
        )
    if found.different:
        lines.append(
            "Indexings that fit as well but are not equivalent by the crystal's symmetry; signs of constants such as "
            "A15 or A16 may differ, which only intensities can decide:"
        )
        lines += [f"  h, k, l -> {describe_turn(other.hkl_operation)}" for other in found.different]
    elif found.different is None and len(found.same) > 1:
        lines.append("Give ascii_generators to learn which of them are equal by the crystal's symmetry.")
    return "\n".join(lines)


def _codes(found: Alignment) -> str:
    e = found.experiment
    others = [pair for pair in found.pairs if pair.code != e.orientation_codes or pair.reversed]
    if not others:
        return f"Only orientation_codes = {e.orientation_codes} with angular_step = {e.angular_step:g} fits."
    short = " A longer scan would tell more of them apart." if len(others) >= SEVERAL else ""
    return (
        f"orientation_codes = {e.orientation_codes} with angular_step = {e.angular_step:g}; the peaks fit as well with "
        f"{describe(others, e.angular_step)} (r1, r2, r3 differ, the elastic constants do not).{short}"
    )


def _second(found: Alignment) -> str:
    if not found.second:
        return "No second lattice is seen among the other peaks."
    lines = ["Further lattices of this cell among the other peaks:"]
    for one in found.second:
        axis = " ".join(f"{x:.3f}" for x in one.axis)
        near = ": a split crystal, or pieces of halos" if one.angle < SPLIT else ""
        lines.append(f"  {one.peaks} peaks, turned by {one.angle:.2f}° about ({axis}) in the crystal frame{near}")
    return "\n".join(lines)


def _sweeps(found: Alignment) -> str:
    """How the sweeps go together."""
    if not found.agreement:
        return ""
    lines = [f"{'sweep':>5s}{'peaks':>8s}{'accepted':>10s}{'r1':>12s}{'r2':>12s}{'r3':>12s}  turned"]
    for n, (one, e) in enumerate(zip(found.agreement, found.sweeps.experiments, strict=True), start=1):
        turn = f"{one.angle:.3f}°" if np.isfinite(one.angle) else "too few peaks"
        lines.append(f"{n:5d}{one.peaks:8d}{one.accepted:10d}{e.r1:12.4f}{e.r2:12.4f}{e.r3:12.4f}  {turn}")
    lines.append(
        "turned: what lies between the orientation by this sweep's peaks and that by the others'; the parameters above "
        "are those of sweep 1: r1, r2, r3 of the others follow, all else is corrected by the same amount"
    )
    return "\n".join(lines)


def _share(counts: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]) -> float:
    total = float(np.nansum(counts))
    return float(np.nansum(counts[chosen])) / total if total else 0.0
