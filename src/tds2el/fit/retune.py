"""Geometry and cell as parameters of a fit: which are free, what follows them, and how they move Q and the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.corrections import Correction
from tds2el.crystal.cell import CELL_OPTIONS, Cell, cell_from_metric
from tds2el.crystal.symmetry import PointGroup
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.motion import Motion, derivatives_of_q, motion
from tds2el.fit.data import FitData
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]

RANK = 1e-9
"""Relative singular value below which turning parameters of the crystal turn it in the same ways as others."""
PEAK_STEPS = 4
PEAK_RANK = 1e-5
"""Eigenvalue of the scaled normal matrix below which the peaks do not determine a combination of corrections."""
NUDGE = 1.0
"""Degrees by which angles are moved to find how many ways of turning there are in general, not at special angles."""


@dataclass(frozen=True)
class Retuning:
    """The free corrections of a fit.

    Attributes
    ----------
    experiment : Experiment
        Of the harvest.
    cell : Cell
        Of the harvest.
    corrections : tuple of Correction
        Everything that is corrected.
    names : tuple of str
        Those that are free by themselves.
    moves : ndarray, shape (names, corrections)
        Change of each correction per unit change of each free one.
    start, lower, upper : ndarray, shape (names,)
    notes : tuple of str
        What was tied or held because of the crystal's symmetry, a line each.
    turning : int
        In how many independent ways the free parameters turn the crystal.
    """

    experiment: Experiment
    cell: Cell
    corrections: tuple[Correction, ...]
    names: tuple[str, ...]
    moves: Array
    start: Array
    lower: Array
    upper: Array
    notes: tuple[str, ...]
    turning: int

    def values(self, x: Array) -> dict[str, float]:
        """Every corrected option's correction at free values x (names,)."""
        fixed = np.array([c.value for c in self.corrections])
        total = fixed + (x - self.start) @ self.moves
        return {c.name: float(v) for c, v in zip(self.corrections, total, strict=True)}

    def geometry(self, x: Array) -> tuple[Experiment, Cell]:
        """Experiment and cell at x.

        Raises
        ------
        InputError
            If they are impossible.
        """
        values = self.values(x)
        changed = {n: getattr(self.experiment, n) + v for n, v in values.items() if n not in CELL_OPTIONS}
        experiment = replace(self.experiment, **changed)
        if experiment.dist <= 0 or experiment.lmbda <= 0:
            raise InputError("A_variables: dist or lmbda would not be positive; tighten the bounds")
        pairs = zip(CELL_OPTIONS, self.cell.parameters, strict=True)
        return experiment, Cell(*(parameter + values.get(name, 0.0) for name, parameter in pairs))

    @property
    def moved(self) -> tuple[str, ...]:
        """Options that some free parameter moves."""
        used = np.any(self.moves != 0, axis=0)
        return tuple(c.name for c, moving in zip(self.corrections, used, strict=True) if moving)

    def at_start(self) -> Retuning:
        """The same corrections, none of them free."""
        fixed = tuple(replace(c, lower=c.value, upper=c.value) for c in self.corrections)
        nothing = np.zeros(0)
        moves = np.zeros((0, len(fixed)))
        return replace(
            self, corrections=fixed, names=(), moves=moves, start=nothing, lower=nothing, upper=nothing, turning=0
        )

    def motion(self, x: Array) -> Motion:
        """The motion at x for an engine: its turns are a basis of those of the parameters."""
        return self._motion(x)[0]

    def transform(self, x: Array, hkl: npt.NDArray[np.int64]) -> Array:
        """∂S of the free parameters as combinations of the engine's columns of geometry and node.

        Returns
        -------
        ndarray, shape (n_blobs, names, geometry + 3)
        """
        reduced, names, mixing = self._motion(x)
        _, cell = self.geometry(x)
        columns = len(reduced.turns) + len(reduced.planes) + len(reduced.beams) + reduced.lmbda
        rows = np.zeros((len(hkl), len(self.names), columns + 3))
        for place, correction in enumerate(self.corrections):
            moves = self.moves[:, place]
            if correction.name in CELL_OPTIONS:
                nodes = hkl @ cell.B_derivatives[CELL_OPTIONS.index(correction.name)].T
                rows[:, :, columns:] += moves[None, :, None] * nodes[:, None, :]
            elif correction.name in names:
                rows[:, :, :columns] += moves[:, None] * mixing[names.index(correction.name)]
        return rows

    def derivatives(
        self,
        x: Array,
        row: Array,
        column: Array,
        phi: Array,
        hkl: npt.NDArray[np.int64],
        now: Motion | None = None,
    ) -> Array:
        """∂(Q − G)/∂ free parameters at x, (n, names, 3), of pixels on frames at phi (degrees) and their nodes.

        `now` is the motion at x, for a crystal that is turned in another way than by r1, r2, r3 of its own.
        """
        experiment, cell = self.geometry(x)
        now = motion(self.experiment, experiment, self.moved) if now is None else now
        moves = derivatives_of_q(now, *Geometry(self.experiment).entry(row, column), phi)
        total = np.zeros((len(row), len(self.names), 3))
        for place, correction in enumerate(self.corrections):
            if correction.name in CELL_OPTIONS:
                change = -hkl @ cell.B_derivatives[CELL_OPTIONS.index(correction.name)].T
            elif correction.name in now.names:
                change = moves[:, now.names.index(correction.name)]
            else:
                continue
            total += self.moves[None, :, place, None] * change[:, None, :]
        return total

    def _motion(self, x: Array) -> tuple[Motion, tuple[str, ...], Array]:
        """The motion with a basis of turns; the options it has derivatives for; their mixture of its columns."""
        experiment, _ = self.geometry(x)
        found = motion(self.experiment, experiment, self.moved)
        rest = len(found.names) - len(found.turns)
        turns = found.turns.reshape(len(found.turns), 9)
        basis = np.linalg.svd(turns, full_matrices=False)[2][: self.turning] if len(turns) else turns
        mixing = np.zeros((len(found.names), len(basis) + rest))
        mixing[: len(turns), : len(basis)] = turns @ basis.T
        mixing[len(turns) :, len(basis) :] = np.eye(rest)
        return replace(found, turns=basis.reshape(-1, 3, 3)), found.names, mixing


def make_retuning(corrections: Sequence[Correction], experiment: Experiment, cell: Cell, group: PointGroup) -> Retuning:
    """The free corrections, with those of the cell tied so that it keeps the crystal's symmetry.

    Parameters
    ----------
    corrections : sequence of Correction
    experiment, cell
        Of the harvest.
    group : PointGroup
    """
    listed = list(corrections)
    names = [c.name for c in listed]
    if any(name in CELL_OPTIONS for name in names):  # symmetry may move the others along
        listed += [Correction(name, 0.0, 0.0, 0.0) for name in CELL_OPTIONS if name not in names]
    places = {c.name: n for n, c in enumerate(listed)}
    free, rows, notes = [], [], []
    symmetric = _symmetric_changes(cell, group)
    taken: list[Array] = []
    for correction in listed:
        if not correction.free:
            continue
        row = np.zeros(len(listed))
        row[places[correction.name]] = 1.0
        for other in listed:
            if other.tied_to == correction.name:
                row[places[other.name]] = 1.0
        if any(row[places[name]] for name in CELL_OPTIONS if name in places):
            along = symmetric @ np.array([row[places[name]] for name in CELL_OPTIONS])
            own = along[CELL_OPTIONS.index(correction.name)] if correction.name in CELL_OPTIONS else 1.0
            if abs(own) < 1e-6:
                notes.append(f"{correction.name} is held: the symmetry {group.name} fixes it")
                continue
            along = along / own
            if taken and np.linalg.matrix_rank(np.array([*taken, along]), tol=1e-6) <= len(taken):
                notes.append(f"{correction.name} is tied to the cell parameters before it by the symmetry {group.name}")
                continue
            taken.append(along)
            followers = [
                name
                for name, move in zip(CELL_OPTIONS, along, strict=True)
                if abs(move) > 1e-6 and not row[places[name]]
            ]
            if followers:
                follow = "follows" if len(followers) == 1 else "follow"
                notes.append(f"{', '.join(followers)} {follow} {correction.name} by the symmetry {group.name}")
            for name, move in zip(CELL_OPTIONS, along, strict=True):
                row[places[name]] = move if abs(move) > 1e-6 else 0.0
        free.append(correction)
        rows.append(row)
    moves = np.array(rows).reshape(len(free), len(listed))
    found = Retuning(
        experiment,
        cell,
        tuple(listed),
        tuple(c.name for c in free),
        moves,
        start=np.array([c.value for c in free]),
        lower=np.array([c.lower for c in free]),
        upper=np.array([c.upper for c in free]),
        notes=tuple(notes),
        turning=0,
    )
    return replace(found, turning=_ways_of_turning(found))


def _ways_of_turning(found: Retuning) -> int:
    """Rank of the free parameters' turns, at angles that are nothing special."""
    random = np.random.default_rng(1)
    angles = ("r1", "r2", "r3", "omega", "alpha", "beta", "kappa")
    nudged = {name: getattr(found.experiment, name) + NUDGE * random.uniform(0.3, 1.0) for name in angles}
    turns = motion(found.experiment, replace(found.experiment, **nudged), found.moved).turns
    if not len(turns):
        return 0
    values = np.linalg.svd(turns.reshape(len(turns), 9), compute_uv=False)
    return int((values > RANK * values[0]).sum())


def _symmetric_changes(cell: Cell, group: PointGroup) -> Array:
    """(6, 6): which part of a change of each cell parameter keeps the symmetry, from averages of the metric."""
    operations = group.hkl_operations

    def symmetrised(parameters: Array) -> Array:
        metric = Cell(*parameters).metric
        mean = (operations @ metric @ operations.transpose(0, 2, 1)).mean(axis=0)
        return np.array(cell_from_metric(mean).parameters)

    centre = symmetrised(np.array(cell.parameters))
    step = 1e-4
    changes = [(symmetrised(centre + s) - symmetrised(centre - s)) / (2 * step) for s in step * np.eye(6)]
    return np.array(changes).T


def start_from_peaks(found: Retuning, data: FitData) -> Array:
    """Corrections that bring the measured Bragg peaks to their nodes, as start values of a fit; (names,).

    A few steps of Gauss and Newton from the user's start values, within the bounds; of combinations that the peaks do
    not determine the last parameter stays. Spots without a measured peak do not count.
    """
    seen = np.flatnonzero(np.isfinite(data.peak_pixel).all(axis=1))
    x = found.start.copy()
    if not len(seen):
        return x
    row, column, phi = data.peak_pixel[seen].T
    hkl = data.hkl[seen]
    for _ in range(PEAK_STEPS):
        experiment, cell = found.geometry(x)
        residual = Geometry(experiment).q_crystal(row, column, phi) - hkl @ cell.B.T
        jacobian = found.derivatives(x, row, column, phi, hkl)
        matrix = np.swapaxes(jacobian, 1, 2).reshape(-1, len(found.names))
        moving = determined(matrix)
        step = np.zeros(len(x))
        step[moving] = np.linalg.lstsq(matrix[:, moving], -residual.reshape(-1), rcond=None)[0]
        x = np.clip(x + step, found.lower, found.upper)
    return x


def determined(matrix: Array) -> list[int]:
    """The columns (parameters) that data determine; of a combination that they do not, the last one is left out."""
    chosen = [n for n in range(matrix.shape[1]) if np.any(matrix[:, n])]
    while chosen:
        columns = matrix[:, chosen] / np.linalg.norm(matrix[:, chosen], axis=0)
        values, vectors = np.linalg.eigh(columns.T @ columns)
        if values[0] > PEAK_RANK:
            break
        weights = np.abs(vectors[:, 0])
        chosen.pop(int(np.flatnonzero(weights > 0.3 * weights.max())[-1]))
    return chosen
