"""The lattice of points when the cell is not known, by the Fourier method.

Projected on the direction of a vector of the direct lattice, the nodes of the reciprocal lattice lie at multiples
of 1/length, so that the Fourier transform of the projections has a peak at this length: Rossmann & van Beek, Acta
Cryst. D55, 1631 (1999); Steller, Bolotovsky & Rossmann, J. Appl. Cryst. 30, 1036 (1997).
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from tds2el.align.index import deviations, fit_basis

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_POINTS = 2000
"""Peaks that a search looks at: the brightest."""
PROJECTED = 400
"""Of these, those that are projected on directions: the lowest, which errors of the geometry move least."""
SHORTEST = 2.0
"""Å: lattice vectors shorter than this are not looked for."""
SPACINGS = (0.012, 0.03)
"""Radians between directions: at least, at most."""
CHUNK = 2000
DAMPING = 0.02
STARTS = 400
"""Directions that are refined to lattice vectors."""
KEPT = 30
GOOD = 0.7
"""A lattice vector's score relative to the best one's."""
WITHIN = 0.2
"""Of whole numbers, in each of h, k, l: a peak that belongs to a lattice, while the geometry is rough."""


def hemisphere(spacing: float) -> Array:
    """Unit vectors, (n, 3), evenly over half a sphere, about `spacing` radians apart: a spiral of Fibonacci."""
    n = int(np.ceil(2 * np.pi / spacing**2))
    z = (np.arange(n) + 0.5) / n
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    radius = np.sqrt(1 - z * z)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z])


def spacing_for(longest: float, reach: float) -> float:
    """Radians between directions such that projections of vectors up to `longest` keep in phase up to |Q| = `reach`."""
    return float(np.clip(0.35 / (longest * reach), *SPACINGS))


def likely_longest(q: Array) -> float:
    """How long an edge of the cell may be, in Å, from how near peaks (n, 3) are to each other.

    The nearest neighbours of nodes are 1/longest edge apart where none is missing; some are, and some peaks are false.
    """
    from scipy.spatial import KDTree

    distance = KDTree(q).query(q, k=2)[0][:, 1]
    distance = distance[distance > 0.008]  # one peak that was found twice
    if not len(distance):
        return 50.0
    return float(np.clip(1.5 / np.quantile(distance, 0.1), 15.0, 100.0))


def find_basis(q: Array, max_cell: float) -> tuple[Array, float]:
    """A primitive basis of the direct lattice of which most points are reciprocal nodes.

    Parameters
    ----------
    q : ndarray, shape (n, 3)
        Peaks in the goniometer's frame, Å⁻¹.
    max_cell : float
        Å: longest basis vector looked for.

    Returns
    -------
    basis : ndarray, shape (3, 3)
        Rows are reduced basis vectors in Å, right-handed: hkl = basis · Q. Zero where nothing was found.
    share : float
        Share of the points that lie within 0.2 of whole numbers.
    """
    vectors, scores = lattice_vectors(q, max_cell)
    nothing = np.zeros((3, 3)), 0.0
    if len(vectors) < 3:
        return nothing
    good = vectors[scores > GOOD * scores.max()]
    good = good[np.argsort(np.linalg.norm(good, axis=1))][:KEPT]
    triples = np.array(list(combinations(range(len(good)), 3)), dtype=int).reshape(-1, 3)
    volumes = np.abs(np.linalg.det(good[triples]))
    lengths = np.linalg.norm(good, axis=1)[triples].prod(axis=1)
    solid = volumes > 0.1 * lengths
    triples, volumes = triples[solid], volumes[solid]
    triples = triples[np.argsort(volumes)][: 10 * KEPT]
    if not len(triples):
        return nothing
    shares = np.array([_share(good[triple], q) for triple in triples])
    first = int(np.flatnonzero(shares >= 0.95 * shares.max())[0])
    basis = _primitive(fit_basis(good[triples[first]], q), q)
    basis = reduced(basis)
    return basis, _share(basis, q)


def lattice_vectors(q: Array, max_cell: float) -> tuple[Array, Array]:
    """Vectors v of which most points have Q·v near a whole number, best first.

    Returns
    -------
    vectors : ndarray, shape (m, 3)
        Å, one of each pair ±v.
    scores : ndarray, shape (m,)
        Mean of cos(2π Q·v).
    """
    size = np.linalg.norm(q, axis=1)
    low = q[np.argsort(size)[:PROJECTED]]
    reach = float(np.linalg.norm(low, axis=1).max())
    directions = hemisphere(spacing_for(max_cell, reach))
    lengths, heights = _periods(low, directions, reach, max_cell)
    best = np.argsort(-heights)[:STARTS]
    return distinct(refined_vectors(directions[best] * lengths[best, None], q), q)


def _periods(q: Array, directions: Array, reach: float, max_cell: float) -> tuple[Array, Array]:
    """The strongest period of the projections on each direction, in Å, and its height."""
    from scipy.fft import next_fast_len, rfft

    width = 1 / (4 * max_cell)
    bins = next_fast_len(2 * int(np.ceil(2 * reach / width)), real=True)  # padded, for a finer scale of lengths
    length = np.arange(bins // 2 + 1) / (bins * width)
    first, last = np.searchsorted(length, [SHORTEST, max_cell])
    lengths, heights = np.empty(len(directions)), np.empty(len(directions))
    for start in range(0, len(directions), CHUNK):
        part = directions[start : start + CHUNK]
        place = ((part @ q.T + reach) / width).astype(np.int32)
        place += bins * np.arange(len(part), dtype=np.int32)[:, None]
        counts = np.bincount(place.ravel(), minlength=bins * len(part)).reshape(len(part), bins).astype(np.float32)
        spectrum = np.abs(rfft(counts, axis=1)[:, first:last])
        peak = spectrum.max(axis=1)
        # Multiples of a vector are periods too: the shortest that is nearly as strong.
        shortest = (spectrum > 0.85 * peak[:, None]).argmax(axis=1)
        near = np.arange(first, last)[None, :] - first - shortest[:, None]
        window = np.where((near >= 0) & (near < 4), spectrum, 0)
        place_of_peak = window.argmax(axis=1)
        lengths[start : start + CHUNK] = length[first + place_of_peak]
        heights[start : start + CHUNK] = window.max(axis=1)
    return lengths, heights


def refined_vectors(vectors: Array, q: Array) -> Array:
    """Each vector (m, 3) moved to where the points near whole numbers put it, from low |Q| to all."""
    size = np.linalg.norm(q, axis=1)
    limits = np.quantile(size, [0.25, 0.5, 1.0, 1.0])
    vectors = vectors.copy()
    for limit in limits:
        phase = vectors @ q.T
        index = np.rint(phase)
        used = (size <= limit) & (np.abs(phase - index) < 0.25)
        normal = (used @ (q[:, :, None] * q[:, None, :]).reshape(-1, 9)).reshape(-1, 3, 3)
        # Damped: where few points lie in a plane, they say nothing of what is across it.
        normal += DAMPING * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-12 * np.eye(3)
        vectors += np.linalg.solve(normal, ((used * (index - phase)) @ q)[:, :, None])[:, :, 0]
    return vectors


def distinct(vectors: Array, q: Array) -> tuple[Array, Array]:
    """Vectors that differ from each other (v and −v are one), and their scores, best first."""
    length = np.linalg.norm(vectors, axis=1)
    vectors = vectors[length > SHORTEST]
    scores = np.cos(2 * np.pi * (q @ vectors.T)).mean(axis=0)
    kept: list[int] = []
    for n in np.argsort(-scores):
        apart = [
            min(np.linalg.norm(vectors[n] - vectors[m]), np.linalg.norm(vectors[n] + vectors[m]))
            > 0.05 * np.linalg.norm(vectors[m])
            for m in kept
        ]
        if all(apart):
            kept.append(int(n))
    return vectors[kept], scores[kept]


def reduced(basis: Array) -> Array:
    """The right-handed basis of the Niggli cell, rows."""
    import gemmi

    metric = basis @ basis.T
    edges = np.sqrt(np.diag(metric))
    cosines = np.array([metric[1, 2], metric[0, 2], metric[0, 1]]) / (edges.prod() / edges)
    cell = gemmi.UnitCell(*edges, *np.rad2deg(np.arccos(cosines)))
    gruber = gemmi.GruberVector(cell, "P", True)
    gruber.niggli_reduce()
    operation = gruber.change_of_basis
    found = (np.array(operation.rot) / gemmi.Op.DEN).T @ basis
    return np.asarray(found if np.linalg.det(found) > 0 else -found)


def _share(basis: Array, q: Array) -> float:
    return float((np.abs(deviations(basis, q)).max(axis=1) < WITHIN).mean())


def _primitive(basis: Array, q: Array) -> Array:
    """The basis with vectors that it lacks: if v·hkl is a multiple of m for all nodes, v/m is a lattice vector."""
    for m in (2, 3, 5, 2, 3):
        hkl = np.rint(q @ basis.T).astype(np.int64)
        hkl = hkl[np.abs(deviations(basis, q)).max(axis=1) < WITHIN]
        steps = np.stack(np.meshgrid(*[np.arange(m)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[1:]
        whole = ((hkl @ steps.T) % m == 0).mean(axis=0)
        best = int(whole.argmax())
        if len(hkl) < 10 or whole[best] < 0.9:
            continue
        vector = steps[best] @ basis / m
        place = int(np.flatnonzero(steps[best])[0])
        # The vector replaces one that it has a part of.
        basis = np.vstack([np.delete(basis, place, axis=0), vector])
    return basis
