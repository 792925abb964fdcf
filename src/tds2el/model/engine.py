"""What every engine takes and gives.

The columns of a pixel are, in this order: ∂S/∂p of each differentiated constant, ∂S/∂ln s if the scale is asked for,
S, 1, and the residual. They are in units of intensity, that is counts/κ, where κ = `correction` is the expected counts
per unit intensity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FLOOR_FRACTION = 0.05
"""Below this fraction of a blob's mean count ln m is replaced by its second-order Taylor polynomial there."""


@dataclass(frozen=True)
class Points:
    """The harvested pixels of the fitted blobs, read piece by piece.

    Attributes
    ----------
    nodes : ndarray, shape (n_blobs, 3)
        Q of the nodes G, Å⁻¹.
    sizes : ndarray of int, shape (n_blobs,)
        Pixels per blob.
    mean_counts, mean_correction : ndarray, shape (n_blobs,)
    q_max : float
        Largest |q|, Å⁻¹.
    pieces : callable
        ``pieces(blob)`` yields (q, counts, correction) in order, some 1e6 pixels at a time: q = Q − G as float64 (n, 3)
        in Å⁻¹, counts (n,), correction (n,).
    q_min : float
        Smallest |q|, Å⁻¹.
    """

    nodes: Array
    sizes: npt.NDArray[np.int64]
    mean_counts: Array
    mean_correction: Array
    q_max: float
    pieces: Callable[[int], Iterator[tuple[Array, Array, Array]]]
    q_min: float = 0.0

    @property
    def floors(self) -> Array:
        """m₀ of each blob, counts."""
        return FLOOR_FRACTION * self.mean_counts


@dataclass(frozen=True)
class Columns:
    """Which derivatives an engine computes.

    Attributes
    ----------
    derivatives : ndarray, shape (k, 6, 6)
        ∂C/∂p of the differentiated constants.
    scale : bool
        Whether the column ∂S/∂ln s is computed: C → s C at fixed f/s, which leaves only the quantum terms.
    """

    derivatives: Array
    scale: bool = False

    @property
    def count(self) -> int:
        """Number of columns, with S, 1 and the residual."""
        return len(self.derivatives) + self.scale + 3


@dataclass(frozen=True)
class State:
    """A point of the parameter space: tensor C (6, 6) in GPa, factor and baseline (n_blobs,)."""

    tensor: Array
    factor: Array
    baseline: Array


@dataclass(frozen=True)
class Sums:
    """What one pass over the pixels returns, per blob.

    Attributes
    ----------
    deviance : ndarray, shape (n_blobs,)
        −2 ln(likelihood ratio to the perfect fit).
    gram : ndarray, shape (n_blobs, columns, columns)
        Σ w c cᵀ with w = κ²/variance of the model; gram[:, -1, -1] is Pearson's χ².
    below_floor : ndarray, shape (n_blobs,)
        Pixels whose model lies below the blob's floor.
    """

    deviance: Array
    gram: Array
    below_floor: Array


class Engine(Protocol):
    """A device that holds the pixels and passes over them."""

    description: str

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""

    def intensity(self, tensor: Array, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
