"""A small fit of calcite to Poisson counts, made once."""

from pathlib import Path

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.elasticity import tensor_structure
from tds2el.crystal.symmetry import point_group
from tds2el.fit.clean import Usage
from tds2el.fit.common import Common
from tds2el.fit.context import FitContext
from tds2el.fit.data import FitData
from tds2el.fit.minimise import Minimiser
from tds2el.fit.parameters import constants_from_guess
from tds2el.fit.result import result_of
from tds2el.model.engine import Columns, Conditions, Piece, Points, State
from tds2el.model.numpy_engine import NumpyEngine

CELL = Cell(4.990, 4.990, 17.061, 90, 90, 120)
TRUTH = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": 20.6}
SPOTS = np.array([(1, 0, 4), (2, -1, 6), (0, 2, 4), (1, 1, -6), (-2, 1, 3), (1, -2, 0), (0, 1, 8), (-1, 0, 14)])
STATE = {"temperature": 300.0, "density": 2.71}
N_POINTS = 1500


class Scan:
    """Counts round calcite's nodes, and fits to them."""

    def __init__(self):
        self.group = point_group("1~,3(z),2(y)", CELL, None)
        self.structure = tensor_structure(self.group)
        rng = np.random.default_rng(7)
        directions = rng.normal(size=(len(SPOTS), N_POINTS, 3))
        radii = rng.uniform(0.01, 0.03, size=(len(SPOTS), N_POINTS, 1))
        q = radii * directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        kappa = np.linspace(0.9, 1.1, N_POINTS)

        def made_of(counts):
            return Points(
                nodes=SPOTS @ CELL.B.T,
                sizes=np.full(len(SPOTS), N_POINTS),
                mean_counts=counts.mean(axis=1),
                mean_correction=np.full(len(SPOTS), kappa.mean()),
                q_max=0.03,
                pieces=lambda blob: iter([Piece(q[blob, s], counts[blob, s], kappa[s]) for s in self.halves]),
            )

        self.halves = [slice(0, 700), slice(700, N_POINTS)]
        empty = made_of(np.ones((len(SPOTS), N_POINTS)))
        tensor = self.structure.tensor([TRUTH[name] for name in self.structure.names])
        engine = NumpyEngine(empty, Columns(np.zeros((0, 6, 6))), Conditions(300.0, 2.71))
        state = State(tensor, np.ones(len(SPOTS)), np.zeros(len(SPOTS)))
        shape = np.array([engine.intensity(state, blob) for blob in range(len(SPOTS))])
        self.counts = rng.poisson(kappa * (90 * shape / shape.mean(axis=1, keepdims=True) + 10)).astype(float)
        self.points = made_of(self.counts)
        nowhere = np.full((len(SPOTS), 3), np.nan)
        self.data = FitData(self.points, np.arange(len(SPOTS)), SPOTS, np.linspace(0, 70, len(SPOTS)), nowhere, nowhere)

    def fit(self, **guess):
        """A fit from 10 % off; keywords give other start values and bounds."""
        default = {name: (1.1 * value, 0.0, 500.0) for name, value in TRUTH.items()}
        constants = constants_from_guess({**default, "A11": (147.1, 0.0, 500.0), **guess}, self.structure)
        scale = constants.initial_scale("auto")
        common, conditions = Common(constants, scale), Conditions(300.0, 2.71)
        engine = NumpyEngine(self.points, common.columns, conditions)
        minimum = Minimiser(engine, self.points, common, conditions).run()
        self.engine, self.state = engine, minimum.state
        return result_of(minimum, self.data, Usage.everything(self.points), np.zeros(len(SPOTS), dtype=bool))


@pytest.fixture(scope="session")
def scan():
    return Scan()


@pytest.fixture(scope="session")
def held(scan):
    """The scale is held at A11."""
    return scan.fit()


@pytest.fixture(scope="session")
def known(scan):
    """A11 is frozen at the truth."""
    return scan.fit(A11=(147.1, 147.1, 147.1))


@pytest.fixture(scope="session")
def at_bound(scan):
    return scan.fit(A11=(147.1, 147.1, 147.1), A33=(70.0, 0.0, 80.0))


@pytest.fixture
def context(scan):
    return FitContext(
        group=scan.group,
        device="numpy, double precision",
        **STATE,
        quantum_term=2.5e-4,
        direct_beam=(512.25, 498.5),
        shell=(0.01, 0.03),
        n_frames=900,
        harvested=12000,
        lost={"masked": 120, "over_threshold": 34},
        given=frozenset({"Temperature"}),
        settings={"DeltaQ_max": 0.15, "images_prefix": None},
        harvest_settings={"DeltaQ_max": 0.15, "images_prefix": "frames/a_", "images_postfix": ".cbf", "lmbda": 0.7},
        inputs=(Path("input.par"), Path("harvest.h5")),
        warnings=("conf.par:3: lmbda is assigned again",),
    )
