"""What every rank knows of a volume before the first frame is read: all that can be wrong with it is told here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import PointGroup, point_group
from tds2el.errors import InputError
from tds2el.experiment.headers import Headers
from tds2el.settings import Settings
from tds2el.volume.file import CHUNK, VOLUME
from tds2el.volume.grid import Grid, make_grid, reached, symmetric_limits
from tds2el.volume.sums import BACKGROUND_COLUMNS, COLUMNS
from tds2el.volume.sweep import Sweep, read_sweep

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Symmetry:
    """How nodes of a grid are equivalent.

    Attributes
    ----------
    group : PointGroup
    turns, shifts : ndarray of int, shapes (n, 3, 3) and (n, 3)
        Operations on the numbers of nodes.
    first : ndarray of int, shape (3,)
        Number of the grid's first node in the grid that is collected, which has the images of all.
    """

    group: PointGroup
    turns: IntArray
    shifts: IntArray
    first: IntArray


@dataclass(frozen=True, eq=False)
class VolumeInputs:
    """A volume as it was asked for.

    Attributes
    ----------
    path : Path
        The file to write.
    sweeps : list of Sweep
    microsteps : int
    grid : Grid
        What is written.
    collected : Grid
        What frames are collected on: larger if `symmetry` brings in nodes beyond the grid.
    symmetry : Symmetry or None
    slabs : int
        Nodes along the first axis of `collected` that are in memory together.
    notes : list of str
    """

    path: Path
    sweeps: list[Sweep]
    microsteps: int
    grid: Grid
    collected: Grid
    symmetry: Symmetry | None
    slabs: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def has_background(self) -> bool:
        """Whether a background is subtracted from any sweep."""
        return any(sweep.background is not None for sweep in self.sweeps)

    @property
    def columns(self) -> int:
        """Sums per voxel."""
        return len(COLUMNS) + (len(BACKGROUND_COLUMNS) if self.has_background else 0)

    @property
    def operations(self) -> int:
        """Voxels that may be averaged."""
        return 1 if self.symmetry is None else len(self.symmetry.turns)


def prepare(sweeps: Sequence[Settings], scanned: Sequence[Headers]) -> VolumeInputs:
    """Read all but the frames, and lay out the grid.

    Parameters
    ----------
    sweeps : sequence of Settings
        Of each scan; they differ in experiment and frames only.
    scanned : sequence of Headers
        The headers of their frames.

    Raises
    ------
    InputError
        For any fault of the inputs.
    """
    settings = sweeps[0]
    options, parameters = settings.volume, settings.crystal.cell
    assert parameters is not None  # as load_settings has made sure
    path, cell = output_path(settings), Cell(*parameters)
    read = [read_sweep(own, headers) for own, headers in zip(sweeps, scanned, strict=True)]
    views = [sweep.view for sweep, _ in read]

    grid = make_grid(options, cell, views)
    collected, symmetry = grid, None
    if options.volume_symmetrise:
        assert settings.crystal.ascii_generators is not None
        group = point_group(settings.crystal.ascii_generators, cell, settings.crystal.centring)
        if options.volume_limits is None:
            grid = symmetric_limits(grid, group)
        turns, shifts = grid.node_operations(group.hkl_operations, group.operations)
        collected, first = grid.enclosing(turns, shifts, reached(grid, views))
        symmetry = Symmetry(group, turns, shifts, first)
    notes = [f"volume goes to {path}", *(note for _, notes in read for note in notes)]
    inputs = VolumeInputs(
        path, [sweep for sweep, _ in read], options.microsteps, grid, collected, symmetry, notes=notes
    )
    return _with_slabs(inputs, options.volume_memory)


def output_path(settings: Settings) -> Path:
    """The file to write; InputError if it cannot be written there."""
    path = settings.volume.volume_file or settings.run.output_folder / VOLUME
    if not path.parent.is_dir():
        raise InputError(f"volume_file = {path}: the folder {path.parent} does not exist; create it")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"volume_file = {path}: cannot be written there; choose another name or folder")
    return path


def _with_slabs(inputs: VolumeInputs, memory: float | None) -> VolumeInputs:
    """With as many slabs at a time as the memory (GB) has room for; whole chunks of the file if possible."""
    grid = inputs.collected
    limit = memory * 1e9 if memory else 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    slab = 8 * inputs.columns * grid.shape[1] * grid.shape[2]
    n = min(int(limit / slab), grid.shape[0])
    if n >= CHUNK and n < grid.shape[0]:
        n -= n % CHUNK
    whole = slab * grid.shape[0]
    if n < 1 or (inputs.symmetry is not None and n < grid.shape[0]):
        needed = slab if inputs.symmetry is None else whole
        reason = "one layer of the volume" if inputs.symmetry is None else "with volume_symmetrise the volume"
        raise InputError(
            f"volume_memory: {limit / 1e9:.2g} GB, but {reason} takes {needed / 1e9:.2g} GB; allow more, or make "
            "volume_shape smaller"
        )
    passes = -(-grid.shape[0] // n)
    notes = [
        *_grid_notes(inputs),
        f"{slab * n / 1e9:.2g} GB of memory per node, {passes} pass{'es' * (passes > 1)} over the frames",
    ]
    return replace(inputs, slabs=n, notes=[*inputs.notes, *notes])


def _grid_notes(inputs: VolumeInputs) -> list[str]:
    grid = inputs.grid
    axes = ", ".join(
        f"{name} {axis[0]:g} to {axis[-1]:g}"
        for name, axis in zip(grid.names, (grid.axis(n) for n in range(3)), strict=True)
    )
    shape, steps = "×".join(map(str, grid.shape)), ", ".join(f"{x:.3g}" for x in grid.step_lengths)
    notes = [f"{shape} voxels of {steps} Å⁻¹: {axes}"]
    if inputs.symmetry is not None:
        group = inputs.symmetry.group
        notes.append(f"averaged over the {len(group.operations)} operations of {group.name}")
    return notes
