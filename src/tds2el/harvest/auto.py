"""collectSpots = "auto": the reflections of a scan that tell most about the constants, by a look at a few frames.

A halo is told from what lies under it by a cut through the shell, where the Ewald sphere passes the node at the middle
radius: what the inner half of that cut has more than its rim, over what 1/q² has, since cuts go deeper or less deep by
half a frame. Two cuts are looked at, before and after the node.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tds2el.crystal.centring import allowed_nodes
from tds2el.errors import InputError
from tds2el.harvest.inputs import ScanInputs
from tds2el.harvest.nodes import node_names
from tds2el.harvest.plan import regions
from tds2el.harvest.reach import brightest_apart, longest_q, sphere_distance, whole_passages
from tds2el.parallel import World
from tds2el.progress import Stage
from tds2el.settings import Settings

logger = logging.getLogger("tds2el")

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SEPARATIONS = (10.0, 7.0, 5.0, 3.0)
"""Degrees between the directions of chosen reflections: less and less, until there are enough."""
SIGNIFICANT = 2.0
"""A halo of fewer standard errors of counting noise is none."""
# Columns of the sums of a cut: counts, corrections, corrections times (middle radius/q)² of the inner half and the rim.
_COLUMNS = 6
# Parts of the area of a cut through the shell, from the inside: what is bright, and beyond what the rim begins.
_INNER, _RIM = 0.5, 0.75
# Frames between two agreements of the ranks on whether all is well.
_BLOCK = 16


@dataclass(frozen=True)
class Candidates:
    """Nodes that the scan passes as a whole, and cuts through their shells.

    Attributes
    ----------
    hkl : ndarray of int, shape (n, 3)
    nodes : ndarray, shape (n, 3)
        G, Å⁻¹.
    frame : ndarray of int, shape (cuts,)
        Ascending.
    node : ndarray of int, shape (cuts,)
        Which of the nodes is looked at there.
    depth : ndarray, shape (cuts,)
        Distance of the Ewald sphere from the node, Å⁻¹.
    region : ndarray of int, shape (cuts, 4)
        First row, end row, first column, end column (ends exclusive).
    """

    hkl: IntArray
    nodes: Array
    frame: IntArray
    node: IntArray
    depth: Array
    region: IntArray


def with_chosen_spots(settings: Settings, scan: ScanInputs, world: World) -> Settings:
    """The settings with the chosen reflections in the place of "auto" (collective).

    Parameters
    ----------
    settings : Settings
    scan : ScanInputs
        As `read_scan` gives it for these settings.
    world : World

    Raises
    ------
    InputError
        On all ranks alike: a frame that cannot be read, no reflection to choose.
    """
    found = world.attempt(lambda: candidates(scan, settings.crystal.centring))
    brightness = measured_brightness(found, scan, world)
    chosen = found.hkl[brightest_apart(found.nodes, brightness, settings.harvest.n_spots, SEPARATIONS)]
    if not len(chosen):
        raise InputError(
            f'collectSpots = "auto": none of {len(found.hkl)} reflections has a halo above the noise; check geometry '
            "and orientation, or give a list of reflections"
        )
    if world.rank == 0:
        logger.info(
            "collectSpots = auto: %d of %d reflections that pass as a whole: %s",
            len(chosen),
            len(found.hkl),
            node_names(chosen, most=len(chosen)),
        )
    spots = [(int(h), int(k), int(ell)) for h, k, ell in chosen]
    return replace(
        settings,
        harvest=replace(settings.harvest, collectSpots=tuple(spots)),
        values=settings.values | {"collectSpots": [list(spot) for spot in spots]},
    )


def candidates(scan: ScanInputs, centring: str | None) -> Candidates:
    """The allowed nodes whose ball passes the Ewald sphere within the scan and on the detector, with their cuts.

    Of a node that passes several times, as in a scan of a full turn, all whole passages count.

    Raises
    ------
    InputError
        If there is none.
    """
    geometry, series = scan.geometry, scan.series
    hkl = allowed_nodes(scan.cell, centring, longest_q(geometry, series.shape))
    nodes = hkl @ scan.cell.B.T
    passages = whole_passages(geometry, nodes, series.angle_index, scan.delta_max, series.shape)
    if not passages.node.size:
        raise InputError(
            'collectSpots = "auto": no reflection passes as a whole within the scan and on the detector; take a '
            "smaller DeltaQ_max, or give a list of reflections"
        )
    used, node = np.unique(passages.node, return_inverse=True)
    nodes = nodes[used]
    middle = (scan.delta_min + scan.delta_max) / 2
    cuts: list[tuple[int, int, float]] = []
    for n, first, last in zip(node.reshape(-1).tolist(), passages.first, passages.last, strict=True):
        distance = sphere_distance(geometry, nodes[n : n + 1], series.angle_index[first : last + 1])[0]
        cuts += sorted(
            {
                (int(first + i), n, float(abs(distance[i])))
                for i in (np.argmin(np.abs(distance - middle)), np.argmin(np.abs(distance + middle)))
            }
        )
    cuts.sort()
    frame, of_node = (np.array([cut[i] for cut in cuts], dtype=np.int64) for i in (0, 1))
    phi = geometry.phi(series.angle_index[frame])
    region = regions(geometry, nodes[of_node], phi, scan.delta_max, series.shape)
    return Candidates(hkl[used], nodes, frame, of_node, np.array([cut[2] for cut in cuts]), region)


def measured_brightness(found: Candidates, scan: ScanInputs, world: World) -> Array:
    """The halos of candidates at the middle radius, counts per unit correction (collective).

    Every frame is read once, by one rank; sums are made in the same order on all ranks.

    Returns
    -------
    ndarray, shape (n,)
        0 where no halo rises above counting noise.

    Raises
    ------
    InputError
        On all ranks alike, for a frame that cannot be read.
    """
    frames, first = np.unique(found.frame, return_index=True)
    cuts = [np.arange(a, b) for a, b in zip(first, [*first[1:], found.frame.size], strict=True)]
    shares = np.array_split(np.arange(frames.size), world.size)
    mine = shares[world.rank]
    sums = [np.zeros((0, _COLUMNS))]

    def read(part: IntArray) -> None:
        for i in part:
            sums.append(_frame_sums(int(frames[i]), cuts[i], found, scan))
            stage.update()

    with Stage("choose spots", len(mine), "frame") as stage:
        for start in range(0, len(shares[0]), _BLOCK):
            world.attempt(partial(read, mine[start : start + _BLOCK]))
    # Ranks hold ascending blocks of frames: all cuts in their order.
    total = np.zeros((len(found.hkl), _COLUMNS))
    np.add.at(total, found.node, np.concatenate(world.gather_all(np.concatenate(sums))))
    return _brightness(total)


def _brightness(sums: Array) -> Array:
    """Halos from the sums of `_frame_sums`, 0 where there is none."""
    inner, inner_kappa, inner_halo, rim, rim_kappa, rim_halo = sums.T
    seen = (inner_kappa > 0) & (rim_kappa > 0)
    a, b = np.where(seen, inner_kappa, 1.0), np.where(seen, rim_kappa, 1.0)
    halo = inner / a - rim / b
    noise = np.sqrt((inner + 1) / a**2 + (rim + 1) / b**2)
    contrast = inner_halo / a - rim_halo / b
    return np.where(
        seen & (halo > SIGNIFICANT * noise) & (contrast > 0), halo / np.where(contrast > 0, contrast, 1.0), 0.0
    )


def _frame_sums(frame: int, cuts: IntArray, found: Candidates, scan: ScanInputs) -> Array:
    """The sums of every cut in a frame, (cuts, 6)."""
    image = scan.series.read(frame)
    mask, phi = scan.masks.mask(frame), float(scan.geometry.phi(scan.series.angle_index[frame]))
    middle = (scan.delta_min + scan.delta_max) / 2
    result = np.zeros((len(cuts), _COLUMNS))
    for i, cut in enumerate(cuts):
        top, bottom, left, right = found.region[cut]
        counts = image[top:bottom, left:right]
        row, column = np.mgrid[top:bottom, left:right]
        distance = np.linalg.norm(scan.geometry.q_crystal(row, column, phi) - found.nodes[found.node[cut]], axis=-1)
        lowest, highest = max(float(found.depth[cut]), scan.delta_min) ** 2, scan.delta_max**2
        # Equal steps of the squared distance are equal areas.
        part = (distance**2 - lowest) / (highest - lowest)
        good = mask[top:bottom, left:right] & (counts >= 0) & (counts <= scan.threshold) & (counts < scan.saturation)
        if counts.dtype.kind == "u":
            good &= counts != np.iinfo(counts.dtype).max
        good &= (distance >= scan.delta_min) & (distance <= scan.delta_max)
        kappa = scan.geometry.polarisation(row, column) * scan.geometry.solid_angle(row, column)
        kappa *= scan.denominator[frame]
        halo = (middle / np.maximum(distance, middle / 4)) ** 2
        for j, chosen in enumerate((good & (part <= _INNER), good & (part >= _RIM))):
            sums = counts[chosen].sum(dtype=np.float64), kappa[chosen].sum(), (kappa * halo)[chosen].sum()
            result[i, 3 * j : 3 * j + 3] = sums
    return result
