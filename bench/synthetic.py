"""The crystals and points that the benchmarks share.

Points are made as they are read, so that they take no memory; the same seed gives the same points each time. Counts are
Poisson counts of f S + b with three expected counts per pixel, two of them from the halo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from itertools import repeat

import numpy as np

from numpy_model import intensity
from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import TensorStructure, tensor_structure
from tds2el.crystal.symmetry import PointGroup, point_group
from tds2el.model.engine import Conditions, Piece, Points
from tds2el.model.quantum import quantum_sum

CELL = Cell(4.99, 4.99, 17.061, 90, 90, 120)
CALCITE = np.array([147.1, 85.3, 34.0, 46.5, 53.7, -20.6])
CONDITIONS = Conditions(300.0, 2.71)
EXPERIMENT_PAR = """\
conf_file = "conf.par"
pixel_size = 0.172
dist = 160.0
lmbda = 0.7
det_origin_X = 840.0
det_origin_Y = 737.0
angular_step = 0.1
r1 = 20.0
r2 = 35.0
r3 = 10.0
AA = 4.990
BB = 4.990
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
"""
"""Par-file of that crystal before a Pilatus 2M."""
Q_MIN, Q_MAX = 0.0093, 0.035
HALO, BASELINE = 2.0, 1.0
"""Expected counts per pixel."""
PIECE = 1 << 18


@dataclass(frozen=True)
class Crystal:
    """A crystal whose constants (k,) in GPa are known."""

    cell: Cell
    group: PointGroup
    structure: TensorStructure
    constants: np.ndarray

    @property
    def tensor(self) -> np.ndarray:
        """C (6, 6)."""
        return self.structure.tensor(self.constants)


def calcite() -> Crystal:
    """Six constants."""
    group = point_group("1~,3(z),2(y)", CELL, None)
    return Crystal(CELL, group, tensor_structure(group), CALCITE)


def cubic() -> Crystal:
    """Three constants, those of MgO."""
    cell = Cell(4.21, 4.21, 4.21, 90, 90, 90)
    group = point_group("m-3m", cell, None)
    return Crystal(cell, group, tensor_structure(group), np.array([297.0, 155.0, 95.0]))


def triclinic() -> Crystal:
    """21 constants: those of calcite, of which none is zero any more or equal to another."""
    cell = Cell(4.9, 5.3, 16.8, 88, 93, 118)
    group = point_group("1~", cell, None)
    structure = tensor_structure(group)
    random = np.random.default_rng(21).normal(size=(6, 6))
    return Crystal(cell, group, structure, structure.constants(calcite().tensor + 2.0 * (random + random.T)))


def reflections(n: int) -> np.ndarray:
    """hkl (n, 3) in many directions."""
    return np.random.default_rng(0).integers(-4, 5, size=(n, 3)) + np.array([0, 0, 9])


def synthetic_points(
    n_points: int, hkl: np.ndarray, pixels: bool = False, crystal: Crystal | None = None, repeated: bool = False
) -> Points:
    """Points of as many spots as there are reflections, all of one size.

    Their `pieces` also take start and stop, for a part of a spot. With `pixels` they have places on a detector, which
    go with nothing, and if `repeated` the first piece of a spot comes again and again: good for timing alone.
    """
    crystal = calcite() if crystal is None else crystal
    nodes, size, tensor = hkl @ crystal.cell.B.T, n_points // len(hkl), crystal.tensor
    quantum = quantum_sum(tensor, Q_MAX, CONDITIONS.temperature, CONDITIONS.density, 1e-10)

    def directions(random: np.random.Generator, n: int) -> np.ndarray:
        q = random.normal(size=(n, 3))
        q *= (random.uniform(Q_MIN, Q_MAX, n) / np.sqrt(np.einsum("ij,ij->i", q, q)))[:, None]
        return q

    factor = np.array(
        [HALO / intensity(directions(np.random.default_rng(1), 4096), node, tensor, quantum).mean() for node in nodes]
    )

    def piece(blob: int, start: int) -> Piece:
        random, n = np.random.default_rng([blob, start]), min(PIECE, size - start)
        q = directions(random, n)
        counts = random.poisson(factor[blob] * intensity(q, nodes[blob], tensor, quantum) + BASELINE).astype(float)
        where = {}
        if pixels:
            where = {"row": random.uniform(0, 600, n), "column": random.uniform(0, 480, n),
                     "phi": random.uniform(0, 90, n)}  # fmt: skip
        return Piece(q, counts, np.ones(n), **where)

    first_piece = cache(lambda blob: piece(blob, 0))

    def pieces(blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        end = size if stop is None else min(stop, size)
        firsts = range(start - start % PIECE, end, PIECE)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            made = repeat(first_piece(blob)) if repeated else pool.map(lambda first: piece(blob, first), firsts)
            for first, whole in zip(firsts, made, strict=False):
                yield _part(whole, max(start - first, 0), end - first)

    mean = np.array([first_piece(blob).counts.mean() for blob in range(len(hkl))])
    return Points(nodes, np.full(len(hkl), size), mean, np.ones(len(hkl)), Q_MAX, pieces, Q_MIN, pixels=pixels)


def _part(piece: Piece, start: int, stop: int) -> Piece:
    columns = {field.name: getattr(piece, field.name) for field in fields(Piece) if field.name != "node"}
    return Piece(**{name: None if values is None else values[start:stop] for name, values in columns.items()})
