"""Points of a fit from a spring lattice, without noise: shells round reflections, whole or as a scan cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.crystal.centring import allowed_nodes
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.plan import make_plan
from tds2el.harvest.reach import brightest_apart
from tds2el.model.engine import Piece, Points
from tds2el.simulate.crystal import observable
from tds2el.simulate.lattice.scattering import Scatterer

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

HALO, BASELINE = 20.0, 2.0
"""Expected counts per pixel: mean of the brightest halo, and what lies below all of them."""
# Degrees between the directions of the reflections.
_SEPARATION = 10.0


@dataclass(frozen=True)
class Shell:
    """Where the points of one spot are: q = Q − G (n, 3) in Å⁻¹, and κ (n,)."""

    q: Array
    correction: Array


def strong_reflections(
    scatterer: Scatterer,
    longest: float,
    number: int,
    scan: tuple[Geometry, tuple[int, int], int, float] | None = None,
) -> Integers:
    """The nodes with the largest |F|²|G|² in directions that differ by 10°.

    Parameters
    ----------
    scatterer : Scatterer
    longest : float
        Largest |G|, Å⁻¹.
    number : int
        At most.
    scan : (Geometry, (rows, columns), frames, radius in Å⁻¹), optional
        Only nodes that the scan passes once as a whole, with a ball of this radius on the detector.

    Returns
    -------
    ndarray of int, shape (n, 3)
    """
    lattice = scatterer.lattice
    hkl = allowed_nodes(lattice.cell, lattice.space_group, longest)
    nodes = hkl @ lattice.cell.B.T
    if scan is not None:
        seen = observable(nodes, *scan)
        hkl, nodes = hkl[seen], nodes[seen]
    brightness = np.abs(scatterer.structure_factors(nodes)) ** 2 * np.sum(nodes**2, axis=1)
    return np.asarray(hkl[brightest_apart(nodes, brightness, number, (_SEPARATION,))])


def shells_all_round(n_spots: int, number: int, q_min: float, q_max: float) -> list[Shell]:
    """The same points for every spot, evenly in the volume between two radii (Å⁻¹), with κ = 1.

    With every q there is −q, as there nearly is in a scan: what is odd in q then biases nothing.
    """
    from scipy.stats.qmc import Sobol

    # Sobol' points are even only in powers of two.
    half = (number + 1) // 2
    u = Sobol(3, scramble=False).random_base2(int(np.ceil(np.log2(half))))[:half]
    radius = np.cbrt(q_min**3 + (q_max**3 - q_min**3) * u[:, 0])
    z, azimuth = 2 * u[:, 1] - 1, 2 * np.pi * u[:, 2]
    across = np.sqrt(1 - z**2)
    directions = np.stack([across * np.cos(azimuth), across * np.sin(azimuth), z], axis=1)
    q = radius[:, None] * directions
    return [Shell(np.concatenate([q, -q])[:number], np.ones(number))] * n_spots


def shells_of_scan(
    geometry: Geometry, nodes: Array, shape: tuple[int, int], n_frames: int, q_min: float, q_max: float, number: int
) -> list[Shell]:
    """The pixels that a scan has in the shells of nodes, at most `number` per spot, evenly taken from all.

    Parameters
    ----------
    geometry : Geometry
    nodes : ndarray, shape (n, 3)
        Each of which the scan passes once, Å⁻¹.
    shape : (rows, columns)
    n_frames : int
    q_min, q_max : float
        Å⁻¹.
    number : int

    Raises
    ------
    ValueError
        A node that is not passed just once.
    """
    index = np.arange(n_frames, dtype=float)
    plan = make_plan(geometry, nodes, index, q_max, shape)
    if not np.array_equal(np.sort(plan.node), np.arange(len(nodes))):
        raise ValueError("every node must pass once within the scan")
    shells: list[Shell | None] = [None] * len(nodes)
    for blob, node in enumerate(plan.node):
        found: list[tuple[Array, Array]] = []
        for visit in np.flatnonzero(plan.blob == blob):
            first, end, left, right = plan.region[visit]
            row, column = (i.ravel().astype(float) for i in np.mgrid[first:end, left:right])
            q = geometry.q_crystal(row, column, geometry.phi(index[plan.frame[visit]])) - nodes[node]
            length = np.linalg.norm(q, axis=1)
            within = (length >= q_min) & (length <= q_max)
            row, column = row[within], column[within]
            kappa = geometry.polarisation(row, column) * geometry.solid_angle(row, column)
            found.append((q[within], kappa))
        q, kappa = (np.concatenate(column) for column in zip(*found, strict=True))
        # A stride would follow the detector's columns.
        taken = np.random.default_rng(int(node)).permutation(len(q))[:number]
        shells[node] = Shell(q[taken], kappa[taken])
    return [shell for shell in shells if shell is not None]


def points_of(scatterer: Scatterer, nodes: Array, shells: list[Shell]) -> Points:
    """Points whose counts are what is expected of the one-phonon intensity and a constant baseline.

    One factor belongs to all spots: the brightest halo has on average `HALO` counts.

    Parameters
    ----------
    scatterer : Scatterer
    nodes : ndarray, shape (n, 3)
        Å⁻¹.
    shells : list of Shell, n of them
    """
    halos = [scatterer.one_phonon(shell.q, node) for node, shell in zip(nodes, shells, strict=True)]
    return points_from_intensities(nodes, shells, halos)


def points_from_intensities(nodes: Array, shells: list[Shell], halos: list[Array]) -> Points:
    """The same from intensities (n,) of each spot in any unit."""
    factor = HALO / max(float(halo.mean()) for halo in halos)
    counts = [shell.correction * (factor * halo + BASELINE) for shell, halo in zip(shells, halos, strict=True)]

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        part = slice(start, stop)
        yield Piece(shells[blob].q[part], counts[blob][part], shells[blob].correction[part])

    lengths = [np.linalg.norm(shell.q, axis=1) for shell in shells]
    return Points(
        nodes=nodes,
        sizes=np.array([len(shell.q) for shell in shells]),
        mean_counts=np.array([n.mean() for n in counts]),
        mean_correction=np.array([shell.correction.mean() for shell in shells]),
        q_max=max(float(length.max()) for length in lengths),
        pieces=pieces,
        q_min=min(float(length.min()) for length in lengths),
    )
