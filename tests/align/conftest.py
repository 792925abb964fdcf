"""Tables of peaks from exact geometry: where the nodes of a crystal cross the Ewald sphere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.centring import allowed_nodes
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.maxima import Maxima
from tds2el.settings import Experiment

E = Experiment(
    pixel_size=0.172, dist=110.0, lmbda=0.7, beam_tilt_angle=0.05, det_origin_X=420.0, det_origin_Y=388.0, d1=0.3,
    d2=-0.2, theta=0.0, theta_offset=0.0, omega=12.0, omega_offset=0.0, alpha=0.0, beta=0.0, kappa=0.0, phi=-30.0,
    angular_step=0.5, r1=21.0, r2=-34.0, r3=77.0, orientation_codes=0, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
SHAPE = (830, 770)
ERRORS = (0.15, 0.15, 0.1)
"""Of row, column and angle index."""


@dataclass(frozen=True)
class Truth:
    """What a table was made from; false peaks have hkl 0 0 0."""

    experiment: Experiment
    cell: Cell
    hkl: np.ndarray


def passages(experiment: Experiment, cell: Cell, hkl: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Row, column and angle index (n, 3) of crossings on the detector, by bisection of |k| = 1/λ; and which node."""
    geometry = Geometry(experiment)
    nodes = hkl @ cell.B.T
    index = np.arange(-0.5, frames, 0.25)

    def excess(at: np.ndarray, g: np.ndarray) -> np.ndarray:
        lab = np.einsum("...ji,...j->...i", geometry.lab_to_crystal(geometry.phi(at)), g)
        return np.linalg.norm(experiment.lmbda * lab - geometry.beam, axis=-1) - 1

    values = np.stack([excess(np.full(len(nodes), x), nodes) for x in index], axis=1)
    node, step = np.nonzero(values[:, :-1] * values[:, 1:] < 0)
    low, high, start = index[step], index[step + 1], values[node, step]
    for _ in range(45):
        middle = (low + high) / 2
        same = excess(middle, nodes[node]) * start > 0
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    lab = np.einsum("nji,nj->ni", geometry.lab_to_crystal(geometry.phi(low)), nodes[node])
    pixel = geometry.pixel_of(experiment.lmbda * lab - geometry.beam)
    seen = ((pixel > 0) & (pixel < np.array(SHAPE) - 1)).all(axis=1)
    return np.column_stack([pixel, low])[seen], hkl[node[seen]]


def _table(
    cell: Cell,
    centring: str | None = None,
    *,
    experiment: Experiment = E,
    frames: int = 360,
    radius: float = 1.0,
    share: float = 1.0,
    false: float = 0.05,
    seed: int = 1,
    with_errors: bool = True,
) -> tuple[Maxima, Truth]:
    """Peaks with Gaussian errors and a share of false ones, in random order."""
    random = np.random.default_rng(seed)
    places, hkl = passages(experiment, cell, allowed_nodes(cell, centring, radius), frames)
    kept = random.random(len(hkl)) < share
    places, hkl = places[kept] + random.normal(size=(int(kept.sum()), 3)) * ERRORS, hkl[kept]
    extra = round(false / (1 - false) * len(hkl))
    places = np.concatenate([places, random.random((extra, 3)) * [*SHAPE, frames]])
    hkl = np.concatenate([hkl, np.zeros((extra, 3), dtype=np.int64)])
    order = random.permutation(len(hkl))
    row, column, angle = places[order].T
    n = len(hkl)
    errors = {f"{name}_error": np.full(n, e) for name, e in zip(("row", "column", "angle_index"), ERRORS, strict=True)}
    maxima = Maxima(
        row, column, angle, random.lognormal(5, 1, n), np.zeros((n, 3), dtype=np.int64), np.zeros(n, dtype=bool),
        **(errors if with_errors else {}),
    )  # fmt: skip
    return maxima, Truth(experiment, cell, hkl[order])


@pytest.fixture(scope="session")
def make_table() -> Callable[..., tuple[Maxima, Truth]]:
    """Called with a cell, a centring and keywords: see `_table`."""
    return _table


@pytest.fixture
def experiment() -> Experiment:
    """The true geometry of the tables."""
    return E


def off(experiment: Experiment, **changes: float) -> Experiment:
    """The experiment with numbers added."""
    return replace(experiment, **{name: getattr(experiment, name) + change for name, change in changes.items()})


@pytest.fixture
def rough() -> Experiment:
    """The geometry as a user knows it: 1° off in the crystal's angles, 0.3 % in distance, 2 pixels in the origin."""
    return off(E, r1=1.0, r2=-1.0, r3=1.0, dist=0.003 * E.dist, det_origin_X=2.0, det_origin_Y=-2.0)
