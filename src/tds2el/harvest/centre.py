"""The measured centres of the Bragg peaks: from the pixels above threshold of a harvest to the shifts of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.errors import InputError
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.nodes import blob_names
from tds2el.harvest.plan import Plan
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]

OPTION = "centering_file"
CORE = 0.5
"""Of the largest count of a peak: pixels above are its core."""
SAME_ANGLE = 1e-6
"""Degrees by which the angles of a blob in two harvests of the same scan may differ."""
FAR = 0.25
"""A centre farther from its node than this part of the outer radius is worth a word."""


def peak_offsets(harvest: HarvestFile) -> Array:
    """Where the Bragg peak of every blob lies, from its node and in the stored Q.

    The mean of Q over the core of the peak, weighted by counts: the pixels with more than half of the blob's largest
    count, and all that are saturated. The tails, which the shape of the crystal and the threshold cut as they like,
    do not count.

    Returns
    -------
    ndarray, shape (blobs, 3)
        Å⁻¹, beyond the `HarvestFile.shift` already applied; NaN where a blob has no pixel above threshold.
    """
    return _means_over_cores(harvest, lambda blob: harvest.peaks(blob)[2] - harvest.centre[blob])


def peak_places(harvest: HarvestFile) -> Array:
    """Where the Bragg peak of every blob was recorded: means over its core as for `peak_offsets`.

    Returns
    -------
    ndarray, shape (blobs, 3)
        Row, column, and the goniometer angle of the frame in degrees; NaN where a blob has no pixel above threshold.
    """

    def places(blob: int) -> Array:
        row, column, frame = harvest.peak_pixels(blob)
        return np.column_stack([row, column, harvest.phi[frame]])

    return _means_over_cores(harvest, places)


def _means_over_cores(harvest: HarvestFile, columns: Callable[[int], Array]) -> Array:
    """Means of three columns over the cores of the peaks, weighted by counts, (blobs, 3)."""
    means = np.full((harvest.n_blobs, 3), np.nan)
    for blob in np.flatnonzero(harvest.n_peaks).tolist():
        counts = harvest.peaks(blob)[0]
        # The largest value of an unsigned type, saturation by convention, is a largest count.
        core = (counts > CORE * float(counts.max())) | (counts >= harvest.saturation)
        weight = counts[core].astype(float)
        means[blob] = weight @ columns(blob)[core] / weight.sum()
    return means


def read_shifts(
    path: Path,
    experiment: Experiment,
    cell: Cell,
    frame_names: Sequence[str],
    phi: Array,
    hkl: npt.NDArray[np.int64],
    plan: Plan,
) -> tuple[Array, list[str]]:
    """Where an earlier harvest of the same scan found the peaks of a plan's blobs.

    Parameters
    ----------
    path : Path
        The earlier harvest, itself centred or not.
    experiment, cell, frame_names, phi
        Of the new harvest; phi is that of each frame, degrees.
    hkl : ndarray of int, shape (nodes, 3)
        What the plan's nodes are.
    plan : Plan

    Returns
    -------
    shift : ndarray, shape (blobs, 3)
        Å⁻¹; zero for blobs without a measured centre.
    warnings : list of str

    Raises
    ------
    InputError
        The file is no harvest, or one of another geometry, cell or series of frames.
    """
    with HarvestFile(path, OPTION) as harvest:
        _refuse_another_scan(harvest, experiment, cell, frame_names, phi)
        measured = harvest.shift + peak_offsets(harvest)
        rows: dict[tuple[int, ...], list[int]] = {}
        for row, node in enumerate(harvest.hkl.tolist()):
            rows.setdefault(tuple(node), []).append(row)
        shift = np.full((len(plan.node), 3), np.nan)
        for blob, (node, angle) in enumerate(zip(hkl[plan.node].tolist(), plan.angle, strict=True)):
            for row in rows.get(tuple(node), ()):
                if abs(harvest.angle[row] - angle) <= SAME_ANGLE:
                    shift[blob] = measured[row]
        delta_max = harvest.delta_max
    missing = np.flatnonzero(np.isnan(shift).any(axis=1))
    shift[missing] = 0.0
    far = np.flatnonzero(np.linalg.norm(shift, axis=1) > FAR * delta_max)
    warnings = []
    if missing.size:
        warnings.append(
            f"{OPTION}: no Bragg peak in {path.name} for {blob_names(hkl[plan.node], plan.angle, missing)}: "
            "harvested about the calculated node"
        )
    if far.size:
        warnings.append(
            f"{OPTION}: the peak is more than a quarter of DeltaQ_max from the node for "
            f"{blob_names(hkl[plan.node], plan.angle, far)}: is it this reflection, and not a hot pixel?"
        )
    return shift, warnings


def _refuse_another_scan(
    harvest: HarvestFile, experiment: Experiment, cell: Cell, frame_names: Sequence[str], phi: Array
) -> None:
    def refuse(what: str) -> InputError:
        return InputError(f"{OPTION} = {harvest.path}: {what}; give a harvest of this scan with the same values")

    own: dict[str, object] = asdict(experiment) | dict(zip(CELL_OPTIONS, cell.parameters, strict=True))
    old = asdict(harvest.experiments[0]) | dict(zip(CELL_OPTIONS, harvest.cell.parameters, strict=True))
    changed = [name for name, value in own.items() if old.get(name) != value]
    if changed:
        shown = ", ".join(f"{name} = {_shown(old.get(name))} there, {_shown(own[name])} here" for name in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise refuse(f"made with other values ({shown}{more})")
    if len(harvest.frame_names) != len(frame_names):
        raise refuse(f"made of {len(harvest.frame_names)} frames, here are {len(frame_names)}")
    for number, names in enumerate(zip(harvest.frame_names, frame_names, strict=True)):
        there, here = (name.rsplit("/", 1)[-1] for name in names)
        if there != here:
            raise refuse(f"its frame {number} is {there}, here {here}")
    if not np.allclose(harvest.phi, phi, rtol=0, atol=SAME_ANGLE):
        frame = int(np.argmax(np.abs(harvest.phi - phi) > SAME_ANGLE))
        raise refuse(f"phi of frame {frame} is {harvest.phi[frame]:g} there, {phi[frame]:g} here (frame_angle)")


def _shown(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
