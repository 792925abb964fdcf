"""Refining and indexing in turn, until every peak that fits the lattice has its hkl."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.align.index import index
from tds2el.align.points import Places
from tds2el.align.refine import Refinement, refine, residuals, total_errors
from tds2el.align.search import FEWEST
from tds2el.align.sweeps import JointRetuning, Sweeps
from tds2el.crystal.cell import Cell
from tds2el.errors import InputError

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STAGES = ((0.4, True), (0.7, True), (1.0, True), (1.0, True), (1.0, False), (1.0, False))
"""Of a refinement: reach as a share of the largest |Q|, and whether outliers are expected."""
ROUGH = 0.3
"""How far h, k, l may be from whole numbers while outliers are expected."""
OUTLIER = 5.0
"""Length of a residual, in standard deviations, beyond which a peak is not accepted."""


def cycles(
    found: JointRetuning, places: Places, errors: Array, centring: str | None, tolerance: float
) -> tuple[Refinement, tuple[IntArray, Mask, Array]]:
    """Refine and index in turn: first what low angles show, with outliers; then everything without them."""
    x = found.first.start
    refinement: Refinement | None = None
    for stage, robust in STAGES:
        hkl, accepted, _ = tags(
            found.geometry(x), places, errors, centring, max(ROUGH, tolerance) if robust else tolerance, robust
        )
        size = np.linalg.norm(found.sweeps(x).q(places), axis=1)
        used = accepted & (size <= stage * size.max())
        if 3 * used.sum() < 3 * FEWEST + 2 * len(x) and stage < 1:
            continue
        if not used.any():
            break
        refinement = refine(found, places[used], hkl[used], errors[used], x, robust=robust)
        x = refinement.x
    if refinement is None:
        raise InputError("maxima_file: no peak fits the lattice well enough to refine it; raise hkl_tolerance")
    return refinement, tags(found.geometry(x), places, errors, centring, tolerance, False, last=True)


def tags(
    geometry: tuple[Sweeps, Cell],
    places: Places,
    errors: Array,
    centring: str | None,
    tolerance: float,
    rough: bool,
    last: bool = False,
) -> tuple[IntArray, Mask, Array]:
    """hkl, accepted and residual of all peaks.

    Errors that most residuals show to be too large may be right for some: of wide, saturated or slow peaks. The
    refinement does without these, but in the end none is refused that lies within its own error.
    """
    sweeps, cell = geometry
    hkl, indexed = index(sweeps.basis(cell), sweeps.q(places), centring, tolerance)
    residual = np.full((len(places), 3), np.nan)
    residual[indexed], _ = residuals(sweeps, cell, places[indexed], hkl[indexed])
    accepted = indexed.copy()
    if not rough and indexed.any():
        sigma = total_errors(residual[indexed], errors[indexed])
        pulls = residual[indexed] / (np.fmax(sigma, errors[indexed]) if last else sigma)
        accepted[indexed] = np.sqrt(np.nansum(pulls**2, axis=1)) < OUTLIER
    return hkl, accepted, residual
