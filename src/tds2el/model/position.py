"""Where harvested pixels lie in reciprocal space at a state of the fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tds2el.experiment.motion import change_of_q
from tds2el.model.engine import Piece, Points, State

Array = npt.NDArray[np.float64]


def node_now(points: Points, state: State, blob: int) -> Array:
    """G of a blob at a state, (3,) in Å⁻¹."""
    return np.asarray(points.nodes[blob] if state.nodes is None else state.nodes[blob])


def shift_of_q(points: Points, state: State) -> Array:
    """G of the harvest − G now − d, (n_blobs, 3): what is added to q beside the change of Q itself."""
    shift = np.zeros_like(points.nodes) if state.nodes is None else points.nodes - state.nodes
    return shift if state.offset is None else shift - state.offset


def q_now(points: Points, state: State, blob: int, piece: Piece) -> Array:
    """q = Q − d − G of a piece's pixels at a state, (n, 3) in Å⁻¹."""
    q = np.asarray(piece.q, dtype=float) + shift_of_q(points, state)[blob]
    if state.motion is not None:
        q = q + change_of_q(state.motion, *piece.place)
    return np.asarray(q, dtype=float)
