"""Volumes in the files of other programs: Yell's HDF5, which meerkat writes too and DISCUS reads, and CCP4/MRC maps.

Both know a grid along the three axes of a lattice, and nothing else. So the vectors of the grid's axes are taken for
the reciprocal lattice of a crystal, which is the crystal's own with volume_axes = "hkl", a cube of 1 Å with
"cartesian", and some other for a basis; coordinates along them stay what they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tds2el.crystal.cell import Cell, cell_from_metric
from tds2el.output import replaced
from tds2el.volume.file import CHUNK, VolumeFile
from tds2el.volume.grid import Grid

log = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]

YELL = "Yell 1.0"
FLOATS = 2
"""Mode of a map."""
ON_NODE = 1e-3
"""Steps by which the origin of a map's lattice may miss the places of its points."""


def write_yell(volume: VolumeFile, path: Path) -> None:
    """Write the intensity as Yell 1.0: data [h, k, l], NaN where no pixel is, lower_limits and step_sizes, unit_cell.

    The layout is that of A. Simonov's Yell and meerkat. Nothing is compressed, since not every HDF5 knows all filters.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import h5py

    grid = volume.grid
    _check_handedness(grid, path)
    with replaced(path, "--yell") as temporary, h5py.File(temporary, "w") as file:
        data = file.create_dataset("data", grid.shape, np.float32)
        for first, slab in _slabs(volume):
            data[first : first + len(slab)] = slab
        file["format"] = YELL
        file["is_direct"] = False
        file["lower_limits"] = _lower_limits(grid)
        file["step_sizes"] = grid.steps
        file["unit_cell"] = np.array(lattice_of(grid).parameters)


def write_map(volume: VolumeFile, path: Path) -> None:
    """Write the intensity as a CCP4/MRC map, 0 where no pixel is, of which 1 Å is 1 Å⁻¹.

    The map's cell is the box of the volume, its edges N steps long; x, y and z run along the axes of the grid. Points
    are numbered from Q = 0 (NXSTART …). Where that lies between points, ORIGIN says where the first point is.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import gemmi

    grid = volume.grid
    _check_handedness(grid, path)
    values = np.empty(grid.shape, np.float32, order="F")
    for first, slab in _slabs(volume):
        values[first : first + len(slab)] = np.nan_to_num(slab, nan=0.0)
    edges = np.array(grid.shape) * grid.steps
    box = gemmi.UnitCell(*_lattice(axis_vectors(grid) * edges).parameters)
    ccp4 = gemmi.Ccp4Map()
    ccp4.grid = gemmi.FloatGrid(values, box, gemmi.SpaceGroup("P 1"))
    ccp4.update_ccp4_header(FLOATS, True)
    start = _lower_limits(grid) / grid.steps
    if np.abs(start - np.rint(start)).max() < ON_NODE:
        for word, number in enumerate(start, 5):
            ccp4.set_header_i32(word, int(np.rint(number)))
    else:
        first_point = box.orthogonalize(gemmi.Fractional(*(start / grid.shape)))
        for word, place in enumerate(first_point.tolist(), 50):
            ccp4.set_header_float(word, place)
        log.warning(
            "%s: Q = 0 lies between the points of the grid, so the map says in ORIGIN where its first point lies; "
            "programs that take no notice show it shifted",
            path,
        )
    ccp4.set_header_i32(56, 1)
    ccp4.set_header_str(57, f"{'tds2el: reciprocal space, 1 A is 1/A':<80}")
    with replaced(path, "--map") as temporary:
        ccp4.write_ccp4_map(str(temporary))


def _slabs(volume: VolumeFile) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """The intensity in slabs of a chunk's depth, each with the number of its first layer."""
    for first in range(0, volume.grid.shape[0], CHUNK):
        yield first, volume.intensity[first : first + CHUNK]


def axis_vectors(grid: Grid) -> Array:
    """Columns (3, 3) in Å⁻¹: one unit along each axis of the grid."""
    return np.asarray(grid.cell.B @ grid.basis.T if grid.kind == "hkl" else grid.basis.T)


def lattice_of(grid: Grid) -> Cell:
    """The cell whose reciprocal lattice the vectors of the axes are."""
    return cell_from_metric(np.linalg.inv(_gram(axis_vectors(grid))))


def _lattice(vectors: Array) -> Cell:
    """Lengths and angles of the columns of a matrix."""
    return cell_from_metric(_gram(vectors))


def _gram(vectors: Array) -> Array:
    return np.asarray(vectors.T @ vectors)


def _lower_limits(grid: Grid) -> Array:
    """Coordinates of the first node, counted from Q = 0."""
    return np.asarray(grid.first + np.linalg.solve(grid.basis.T, grid.origin))


def _check_handedness(grid: Grid, path: Path) -> None:
    if np.linalg.det(grid.basis) < 0:
        log.warning("%s: the axes of the volume are left-handed: other programs will show its mirror image", path)
