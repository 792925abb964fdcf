"""A virtual crystal: its nodes, their structure factors, and the spots worth harvesting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el import _core
from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed
from tds2el.crystal.symmetry import PointGroup
from tds2el.experiment.geometry import Geometry

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Explicit terms of S where the halos are only compared with each other.
_TERMS_OF_LEVELS = 20
# Stream of random numbers that a seed gives for reflections.
_REFLECTIONS = 3
# Weaker ones than this fraction of the brightest tell little; what is left out of a model weighs most there.
_FAINTEST = 0.03


def allowed_nodes(cell: Cell, centring: str | None, radius: float) -> Indices:
    """All allowed nodes but 000 with |G| ≤ radius (Å⁻¹), int array (n, 3) in ascending order of hkl."""
    reach = np.ceil(radius * np.linalg.norm(cell.A, axis=1)).astype(int)
    axes = [np.arange(-n, n + 1) for n in reach]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near = (np.linalg.norm(hkl @ cell.B.T, axis=1) <= radius) & hkl.any(axis=1)
    hkl = hkl[near]
    return np.asarray(hkl[allowed(hkl, centring)], dtype=np.int64)


def squared_structure_factors(hkl: Indices, group: PointGroup, seed: int, decay: float) -> Array:
    """|F|² of nodes: random, alike for all reflections that the Laue group makes equivalent.

    Acentric Wilson statistics (an exponential distribution of mean 1) times the Debye-Waller-like exp(−decay·|G|²/2).
    The value of a reflection depends on its indices and the seed alone, not on which others are asked for.

    Parameters
    ----------
    hkl : ndarray of int, shape (n, 3)
    group : PointGroup
    seed : int
    decay : float
        B in Å².

    Returns
    -------
    ndarray, shape (n,)
    """
    images = np.einsum("oij,nj->noi", group.hkl_operations, hkl)
    images = np.concatenate([images, -images], axis=1)  # Friedel's law makes the point group a Laue group
    offset = int(np.abs(images).max(initial=0)) + 1
    key = ((images[..., 0] + offset) * 2 * offset + images[..., 1] + offset) * 2 * offset + images[..., 2] + offset
    first = images[np.arange(len(hkl)), key.argmax(axis=1)]
    orbits, orbit_of = np.unique(first, axis=0, return_inverse=True)
    strengths = np.array([_wilson(seed, orbit.tolist()) for orbit in orbits])
    length2 = np.sum((hkl @ group.cell.B.T) ** 2, axis=1)
    return np.asarray(strengths[orbit_of.reshape(-1)] * np.exp(-decay * length2 / 2))


def _wilson(seed: int, hkl: list[int]) -> float:
    # Indices as unsigned words: a seed sequence takes no negative numbers.
    words = tuple(index % 2**32 for index in hkl)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_REFLECTIONS, *words))).exponential()


@dataclass(frozen=True)
class Halos:
    """Strength of the halos of nodes.

    Attributes
    ----------
    hkl : ndarray of int, shape (n, 3)
    nodes : ndarray, shape (n, 3)
        G in Å⁻¹.
    structure : ndarray, shape (n,)
        |F|².
    brightness : ndarray, shape (n,)
        |F|²·S averaged over directions at the reference |q|, 1/GPa.
    """

    hkl: Indices
    nodes: Array
    structure: Array
    brightness: Array


def halos(
    hkl: Indices, group: PointGroup, structure: Array, stiffness: Array, thermal: float, q_reference: float
) -> Halos:
    """The halos of nodes, with their brightness at |q| = q_reference (Å⁻¹)."""
    nodes = hkl @ group.cell.B.T
    directions = _sphere(60)
    q = np.tile(q_reference * directions, (len(nodes), 1))
    Q = np.repeat(nodes, len(directions), axis=0) + q
    S = _core.halo_strength(Q, q, stiffness, thermal, _TERMS_OF_LEVELS)
    return Halos(hkl, nodes, structure, structure * S.reshape(len(nodes), -1).mean(axis=1))


def observable(
    nodes: Array, geometry: Geometry, shape: tuple[int, int], n_frames: int, ball: float
) -> npt.NDArray[np.bool_]:
    """Which nodes the scan passes once as a whole, with their ball (radius in Å⁻¹) wholly on the detector.

    Parameters
    ----------
    nodes : ndarray, shape (n, 3)
    geometry : Geometry
    shape : (rows, columns)
    n_frames : int
    ball : float

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    wavelength = geometry.experiment.lmbda
    rotations = geometry.lab_to_crystal(geometry.phi(np.arange(n_frames)))
    # Lab vectors G R from the centre of the Ewald sphere: Q0 = (d + beam)/λ with |d| = 1.
    from_centre = np.einsum("fij,ni->fnj", rotations, nodes) - geometry.beam / wavelength
    distance = np.linalg.norm(from_centre, axis=-1) - 1 / wavelength
    inside = np.abs(distance) < ball
    sides = np.sign(distance)
    crossings = np.sum(sides[1:] != sides[:-1], axis=0)
    # A ball that grazes the sphere a second time, or is cut when the scan begins or ends, is no whole passage.
    entries = np.sum(inside[1:] & ~inside[:-1], axis=0)
    whole = (crossings == 1) & (entries == 1) & ~inside[0] & ~inside[-1]
    middle = np.argmin(np.abs(distance), axis=0)
    direction = from_centre[middle, np.arange(len(nodes))]
    place = geometry.pixel_of(direction / np.linalg.norm(direction, axis=-1, keepdims=True))
    margin = _pixels_of_ball(geometry, place, ball)
    fits = (place >= margin[:, None]) & (place <= np.array(shape) - 1 - margin[:, None])
    return np.asarray(whole & fits.all(axis=1))


def choose_spots(candidates: Halos, number: int, separation: float = 10.0) -> Indices:
    """The brightest nodes in directions that differ by at least `separation` degrees: (m, 3), m ≤ number.

    Directions along ±G give the same halo; well-spread ones determine all constants.
    """
    chosen: list[int] = []
    units = candidates.nodes / np.linalg.norm(candidates.nodes, axis=1, keepdims=True)
    limit = np.cos(np.deg2rad(separation))
    enough = _FAINTEST * candidates.brightness.max(initial=0)
    for index in np.argsort(-candidates.brightness, kind="stable"):
        if candidates.brightness[index] < enough or len(chosen) == number:
            break
        if np.all(np.abs(units[chosen] @ units[index]) < limit):
            chosen.append(int(index))
    return candidates.hkl[chosen]


def _pixels_of_ball(geometry: Geometry, place: Array, ball: float) -> Array:
    """Radius in pixels of a ball round a node that is seen at a place on the detector, on the safe side."""
    plane = (place - geometry.origin) @ geometry.pixel_to_plane.T
    e = geometry.experiment
    distance2 = e.dist**2 + np.sum(plane**2, axis=-1)
    # Oblique incidence stretches by (r/dist) beyond the distance r.
    return np.asarray(1.1 * ball * e.lmbda * distance2 / e.dist / e.pixel_size)


def _sphere(number: int) -> Array:
    """Directions evenly spread over the sphere (Fibonacci), shape (number, 3)."""
    z = 1 - (2 * np.arange(number) + 1) / number
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(number)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=-1)
