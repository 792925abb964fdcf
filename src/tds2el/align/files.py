"""The files of an alignment: points in reciprocal space, the tagged table, aligned.par and align.txt."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.align.align import Alignment, tagged
from tds2el.align.points import Places, covariance_of_q, motion_with_place
from tds2el.align.sweeps import Sweeps
from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.maxima import Cloud, Maxima, write_maxima
from tds2el.fit.refined import rewrite_conf
from tds2el.options import BY_NAME
from tds2el.output import replaced
from tds2el.parfile import read_parfile
from tds2el.settings import Experiment, Settings

Array = npt.NDArray[np.float64]

POINTS_TEXT, POINTS = "q3d.txt", "q3d.h5"
TAGGED = "maxima_tagged.h5"
ALIGNED, ALIGNED_SWEEP = "aligned.par", "aligned_{}.par"
REPORT = "align.txt"


def write_points(folder: Path, maxima: Maxima, places: Places, sweeps: Sweeps, cell: Cell | None) -> None:
    """q3d.txt and q3d.h5: the peaks as points in reciprocal space, as the geometry stands.

    Parameters
    ----------
    folder : Path
    maxima : Maxima
    places : Places
        Of them.
    sweeps : Sweeps
        r1, r2, r3 of 0 give the goniometer's frame.
    cell : Cell or None
        Its axes go to q3d.h5, if it is known.
    """
    points = sweeps.q_crystal(places)
    sigma = _errors_of_q(sweeps, places, maxima)
    turned = "; ".join(f"r1 = {e.r1:g}, r2 = {e.r2:g}, r3 = {e.r3:g}" for e in sweeps.experiments)
    header = (
        "peaks in reciprocal space, |Q| = 2 sin(theta)/lambda without 2 pi, in 1/angstrom; "
        "crystal frame (x along a*, z along c) "
        f"of {turned} (all 0: the frame of the goniometer's innermost axis)\n"
        "x y z counts sigma_x sigma_y sigma_z"
    )
    text = io.StringIO()
    np.savetxt(text, np.column_stack([points, maxima.counts, sigma]), fmt="%.7g", header=header)
    with replaced(folder / POINTS_TEXT) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    write_maxima(folder / POINTS, maxima, "output_folder", Cloud(points, None if cell is None else cell.B))


def write_alignment(
    folder: Path, maxima: Maxima, places: Places, found: Alignment, settings: Settings, report: str
) -> list[str]:
    """maxima_tagged.h5, aligned.par, of several sweeps aligned_1.par, aligned_2.par …, and align.txt.

    Returns
    -------
    list of str
        What they assign and the conf_files did not.
    """
    cloud = Cloud(found.sweeps.q_crystal(places), found.cell.B)
    write_maxima(folder / TAGGED, tagged(maxima, found), "output_folder", cloud)
    missing: dict[str, None] = {}  # in the order of their lines
    for path, experiment, own in aligned_files(folder, found, settings):
        values = changed_options(found, experiment, own)
        missing |= dict.fromkeys(rewrite_conf(path, own.conf_file, values, "aligned", {}))
    with replaced(folder / REPORT) as temporary:
        temporary.write_text(report + "\n", encoding="utf-8")
    return list(missing)


def aligned_files(folder: Path, found: Alignment, settings: Settings) -> list[tuple[Path, Experiment, Settings]]:
    """The conf_file of each sweep that is written, what it describes, and the settings that it comes from."""
    members = settings.sweeps or (settings,)
    names = [ALIGNED_SWEEP.format(n + 1) for n in range(len(members))] if settings.sweeps else [ALIGNED]
    return list(zip([folder / name for name in names], found.sweeps.experiments, members, strict=True))


def changed_options(found: Alignment, experiment: Experiment, settings: Settings) -> dict[str, str]:
    """What must be assigned so that a conf_file describes the aligned crystal, as a par-file has it."""
    values: dict[str, object] = asdict(experiment)
    values |= dict(zip(CELL_OPTIONS, found.cell.parameters, strict=True))
    if found.centring is not None:
        values["centring"] = found.centring
    assigned = _assigned(settings.conf_file)
    return {
        name: _text(value)
        for name, value in values.items()
        if not _same(value, assigned.get(name, BY_NAME[name].default))
    }


def _assigned(conf_file: Path) -> Mapping[str, object]:
    """What a par-file assigns to options, the last of each."""
    pairs = read_parfile(conf_file).assignments
    return {BY_NAME[pair.name].name: pair.value for pair in pairs if pair.name in BY_NAME}


def _same(value: object, other: object) -> bool:
    if isinstance(value, tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(_same(x, y) for x, y in zip(value, other, strict=True))
    return value == other


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return repr(list(value))
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _errors_of_q(sweeps: Sweeps, places: Places, maxima: Maxima) -> Array:
    """Standard deviations of the components of Q, (n, 3); NaN where the errors of places are not known."""
    sigma = np.column_stack([maxima.row_error, maxima.column_error, maxima.angle_index_error])
    moves = np.empty((len(places), 3, 3))
    for experiment, here in sweeps.parts(places):
        moves[here] = motion_with_place(Geometry(experiment), places[here])
    return np.asarray(np.sqrt(np.diagonal(covariance_of_q(moves, sigma), axis1=1, axis2=2)))
