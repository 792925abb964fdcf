"""A virtual crystal: its nodes, their structure factors, and the spots worth harvesting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el import _core
from tds2el.crystal.symmetry import PointGroup
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.reach import brightest_apart, whole_passages

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Explicit terms of S where the halos are only compared with each other.
_TERMS_OF_LEVELS = 20
# Stream of random numbers that a seed gives for reflections.
_REFLECTIONS = 3
# Degrees between the directions of the chosen nodes.
_SEPARATION = 10.0


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


def choose_spots(candidates: Halos, number: int) -> Indices:
    """The brightest nodes in directions that differ by at least 10°: (m, 3), m ≤ number."""
    return candidates.hkl[brightest_apart(candidates.nodes, candidates.brightness, number, (_SEPARATION,))]


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
    passages = whole_passages(geometry, nodes, np.arange(n_frames, dtype=float), ball, shape)
    seen = np.zeros(len(nodes), dtype=np.bool_)
    seen[passages.node[passages.only]] = True
    return seen


def _sphere(number: int) -> Array:
    """Directions evenly spread over the sphere (Fibonacci), shape (number, 3)."""
    z = 1 - (2 * np.arange(number) + 1) / number
    azimuth = np.pi * (3 - np.sqrt(5)) * np.arange(number)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=-1)
