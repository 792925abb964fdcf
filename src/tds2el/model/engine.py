"""What every engine takes and gives.

The columns of a pixel are, in this order (see `Columns`): ∂S/∂p of the differentiated constants and of the
coefficients of dispersion, ∂S/∂ln s, ∂S/∂p of the parameters of the geometry, ∂S/∂G, ∂S/∂d of the centre's offset d,
∂S/∂g, ∂S/∂H, S, 1, q, the background, and the residual. They are in units of intensity, that is counts/κ, where κ =
`correction` is the expected counts per unit intensity. The expected counts are m = κ (f S + b + c·q) + τ B.

S is (1 + g·q)² Σ_n Q'ᵀ(Γ + T + n²a)⁻¹Q' with Q' = Q + Hq; in the elastic limit T, g and H are 0. Where the points have
a `Smearing`, S and its derivatives are averages over it. With neighbours f S is f S + Σ_j f_j S_j, where S_j belongs to
the node G + a_j, has none of T, g and H, and is not smeared; there are further columns S_j, after the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tds2el.experiment.motion import Motion
from tds2el.model.smearing import Smearing

Array = npt.NDArray[np.float64]

FLOOR_FRACTION = 0.05
"""Below this fraction of a blob's mean count ln m is replaced by its second-order Taylor polynomial there."""


@dataclass(frozen=True)
class Piece:
    """Some pixels of one blob, n of them.

    Attributes
    ----------
    Q : ndarray, shape (n, 3)
        Of the harvest, Å⁻¹, from the same origin as `node`.
    counts, correction : ndarray, shape (n,)
        N and κ, of any type; κ = 0 marks a pixel that is not used.
    background, weight : ndarray, shape (n,), optional
        τB at τ = 1, in counts, and the factor 0 < ω ≤ 1 on the pixel's information that its own variance leaves.
        Both or neither.
    row, column, phi, frame : ndarray, shape (n,), optional
        Where the pixel is on the detector, the goniometer angle of its frame in degrees, and the frame's number.
    entry_row, entry_column : ndarray, shape (n,), optional
        Where its rays enter the sensor, by the harvest's geometry; None: at row and column.
    node : ndarray, shape (3,)
        G of the harvest, Å⁻¹; by default Q is relative to it.
    """

    Q: Array
    counts: npt.NDArray[Any]
    correction: npt.NDArray[Any]
    background: Array | None = None
    weight: Array | None = None
    row: Array | None = None
    column: Array | None = None
    phi: Array | None = None
    frame: Array | None = None
    entry_row: Array | None = None
    entry_column: Array | None = None
    node: Array = field(default_factory=lambda: np.zeros(3))

    @property
    def q(self) -> Array:
        """Q − G, Å⁻¹, (n, 3)."""
        return np.asarray(self.Q - self.node)

    @property
    def place(self) -> tuple[Array, Array, Array]:
        """What a change of geometry moves: row and column of the entry, φ."""
        assert self.row is not None
        assert self.column is not None
        assert self.phi is not None
        row = self.row if self.entry_row is None else self.entry_row
        column = self.column if self.entry_column is None else self.entry_column
        return row, column, self.phi


class Pieces(Protocol):
    """Reads the pixels of one blob."""

    def __call__(self, blob: int, start: int = 0, stop: int | None = None) -> Iterator[Piece]:
        """`Piece` after piece of pixels start:stop, in order, some 1e6 pixels at a time."""


@dataclass(frozen=True)
class Points:
    """The harvested pixels of the fitted blobs, read piece by piece.

    Attributes
    ----------
    nodes : ndarray, shape (n_blobs, 3)
        Q of the nodes G at the harvest, Å⁻¹.
    sizes : ndarray of int, shape (n_blobs,)
        Pixels per blob, those with κ = 0 included.
    mean_counts, mean_correction : ndarray, shape (n_blobs,)
    q_max : float
        Largest |q|, Å⁻¹.
    pieces : Pieces
        ``pieces(blob)`` yields each `Piece` of a blob in order, ``pieces(blob, start, stop)`` those of a range; engines
        need only the former.
    q_min : float
        Smallest |q|, Å⁻¹.
    background, pixels : bool
        Whether the pieces have background and weight, and row, column, phi and frame.
    mean_background : ndarray, shape (n_blobs,), or 0
        Mean of τB at τ = 1, counts.
    smearing : Smearing, optional
        What the halos are averaged over; None: nothing.
    neighbours : ndarray, shape (n_blobs, n, 3), optional
        a_j: from the node to others whose halos reach its points, Å⁻¹; NaN where a blob has fewer, these come last.
    """

    nodes: Array
    sizes: npt.NDArray[np.int64]
    mean_counts: Array
    mean_correction: Array
    q_max: float
    pieces: Pieces
    q_min: float = 0.0
    background: bool = False
    pixels: bool = False
    mean_background: Array | float = 0.0
    smearing: Smearing | None = None
    neighbours: Array | None = None

    @property
    def reach(self) -> float:
        """Largest |q| at which an engine evaluates S, Å⁻¹."""
        far = 0.0 if self.neighbours is None else float(np.nan_to_num(np.linalg.norm(self.neighbours, axis=2)).max())
        return self.q_max + max(far, 0.0 if self.smearing is None else self.smearing.reach)

    @property
    def floors(self) -> Array:
        """m₀ of each blob, counts."""
        return FLOOR_FRACTION * self.mean_counts


@dataclass(frozen=True)
class Conditions:
    """What the model needs to know beside its parameters.

    Attributes
    ----------
    temperature, density : float
        K and g/cm³.
    relative_error : float
        ε in the variance m + (ε m)².
    """

    temperature: float
    density: float
    relative_error: float = 0.0


@dataclass(frozen=True)
class Columns:
    """Which columns an engine computes, in this order; then always the residual.

    Attributes
    ----------
    derivatives : ndarray, shape (k, 6, 6)
        ∂C/∂p of the differentiated constants.
    scale : bool
        ∂S/∂ln s: C → s C and T → s T at fixed f/s, which leaves only the quantum terms.
    motion : bool
        Whether Q is recomputed from row, column and phi by `State.motion`; needs `Points.pixels`. Its derivatives:
    turns, planes, beams : int
        Number of ∂S/∂p for the parameters of `Motion.turns`, `Motion.planes` and `Motion.beams`.
    lmbda : bool
        ∂S/∂λ.
    node : bool
        Three columns ∂S/∂G at fixed Q: only q = Q − G changes.
    centre : bool
        Three columns ∂S/∂d of the offset d of the centre: q = Q − G − d, and Q − d takes the place of Q in S.
    slope : bool
        Three columns q, after S and 1: a linear baseline.
    background : bool
        One column B/κ: a free τ; needs `Points.background`.
    neighbours : int
        Columns S_j, as many as `Points.neighbours` has.
    entries : ndarray of bool, shape (6, 6), optional
        Which entries of C can differ from 0; None: all.
    dispersion : ndarray, shape (t, 6, 15)
        ∂T/∂p of the coefficients of dispersion, as in `State.dispersion`, which has no others.
    expanded : bool
        Whether (Γ + T + n²a)⁻¹ is only its expansion to first order in T, which has no poles but that at q = 0.
    gradient : bool
        Three columns ∂S/∂g.
    strain : bool
        Six columns ∂S/∂H, H_xx H_yy H_zz H_yz H_xz H_xy.
    """

    derivatives: Array
    scale: bool = False
    motion: bool = False
    turns: int = 0
    planes: int = 0
    beams: int = 0
    lmbda: bool = False
    node: bool = False
    centre: bool = False
    slope: bool = False
    background: bool = False
    neighbours: int = 0
    entries: npt.NDArray[np.bool_] | None = None
    dispersion: Array = field(default_factory=lambda: np.zeros((0, 6, 15)))
    expanded: bool = False
    gradient: bool = False
    strain: bool = False

    @property
    def tensors(self) -> int:
        """Number of columns of constants and coefficients of dispersion."""
        return len(self.derivatives) + len(self.dispersion)

    @property
    def geometry(self) -> int:
        """Number of columns of the geometry, without ∂S/∂G."""
        return self.turns + self.planes + self.beams + self.lmbda

    @property
    def common(self) -> int:
        """Number of columns of common parameters, without ∂S/∂G."""
        return self.tensors + self.scale + self.geometry

    @property
    def own(self) -> int:
        """Index of the first of the columns ∂S/∂d, ∂S/∂g, ∂S/∂H of a spot's own parameters."""
        return self.common + 3 * self.node

    @property
    def signal(self) -> int:
        """Index of the column S."""
        return self.own + 3 * self.centre + 3 * self.gradient + 6 * self.strain

    @property
    def count(self) -> int:
        """Number of columns, with S, 1 and the residual."""
        return self.signal + 3 + 3 * self.slope + self.background + self.neighbours


@dataclass(frozen=True)
class State:
    """A point of the parameter space.

    Attributes
    ----------
    tensor : ndarray, shape (6, 6)
        C, GPa.
    factor, baseline : ndarray, shape (n_blobs,)
    slope : ndarray, shape (n_blobs, 3), optional
        c in the baseline b + c·q, per Å⁻¹.
    background : ndarray, shape (n_blobs,), optional
        τ; None: 1 where the points have a background.
    offset : ndarray, shape (n_blobs, 3), optional
        d: the centre of a halo lies at G + d, Å⁻¹.
    nodes : ndarray, shape (n_blobs, 3), optional
        G, Å⁻¹; None: as harvested.
    motion : Motion, optional
        The geometry relative to that of the harvest; None: the same. Needs `Columns.motion`.
    dispersion : ndarray, shape (6, 15), optional
        T as coefficients of the monomials `tds2el.crystal.dispersion.QUARTICS` in T_ik(q), GPa Å². Needs
        `Columns.dispersion`.
    gradient : ndarray, shape (n_blobs, 3), optional
        g, Å. Needs `Columns.gradient`.
    strain : ndarray, shape (n_blobs, 6), optional
        H_xx H_yy H_zz H_yz H_xz H_xy. Needs `Columns.strain`.
    neighbours : ndarray, shape (n_blobs, n), optional
        f_j. Needs `Columns.neighbours`.
    """

    tensor: Array
    factor: Array
    baseline: Array
    slope: Array | None = None
    background: Array | None = None
    offset: Array | None = None
    nodes: Array | None = None
    motion: Motion | None = None
    dispersion: Array | None = None
    gradient: Array | None = None
    strain: Array | None = None
    neighbours: Array | None = None

    @property
    def ratios(self) -> Array | None:
        """f_j/f, (n_blobs, n); 0 without f."""
        if self.neighbours is None:
            return None
        factor = self.factor[:, None]
        return np.divide(self.neighbours, factor, out=np.zeros(self.neighbours.shape), where=factor != 0)


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

    def intensity(self, state: State, blob: int) -> Array:
        """S of every pixel of one blob, with Σ_j S_j f_j/f of its neighbours, shape (n,)."""

    def use(self, blob: int, used: npt.NDArray[np.bool_]) -> None:
        """Say which pixels (n,) of a blob count from now on, of those that the points came with."""

    def set_floors(self, floors: Array) -> None:
        """Change m₀ of every blob, counts (n_blobs,)."""
