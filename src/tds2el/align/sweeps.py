"""One crystal seen in one or several sweeps: how each is turned against the first, and a geometry refined for all.

Every sweep has its own experiment. U of sweep k is S_k U of the first, where S_k is what the conf_files say that the
goniometer did in between. A turn of the crystal is common to all: it changes U of the first, and the others follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tds2el.align.orientation import angles_of, orientation_of
from tds2el.align.points import Places, goniometer_q
from tds2el.corrections import Correction
from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import PointGroup
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.motion import motion
from tds2el.fit.retune import Retuning, make_retuning
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ANGLES = ("r1", "r2", "r3")


@dataclass(frozen=True)
class Sweeps:
    """The experiments of sweeps of one crystal; mostly there is one.

    Attributes
    ----------
    experiments : tuple of Experiment
    """

    experiments: tuple[Experiment, ...]

    @property
    def first(self) -> Experiment:
        """The experiment whose goniometer's frame is that of all."""
        return self.experiments[0]

    @property
    def orientation(self) -> Array:
        """U of the first."""
        return _orientation(self.first)

    @cached_property
    def turns(self) -> list[Array]:
        """S_k, (3, 3) each: U of sweep k = S_k · U of the first."""
        return [_orientation(e) @ self.orientation.T for e in self.experiments]

    def oriented(self, U: Array) -> Sweeps:
        """With the crystal turned so that U is that of the first."""
        return Sweeps(tuple(_oriented(e, S @ U) for e, S in zip(self.experiments, self.turns, strict=True)))

    def changed(self, change: Callable[[Experiment], Experiment]) -> Sweeps:
        """With the same change, which must not be one of r1, r2, r3, of every experiment."""
        return Sweeps(tuple(change(e) for e in self.experiments))

    def parts(self, places: Places) -> Iterator[tuple[Experiment, Mask]]:
        """Each experiment, and which of the places are its."""
        return ((e, places.sweep == n) for n, e in enumerate(self.experiments))

    def q(self, places: Places) -> Array:
        """Q in the goniometer's frame of the first sweep, (n, 3) in Å⁻¹, whatever the orientation of the crystal."""
        q = np.empty((len(places), 3))
        for (experiment, here), turn in zip(self.parts(places), self.turns, strict=True):
            q[here] = goniometer_q(experiment, places[here]) @ turn
        return q

    def q_crystal(self, places: Places) -> Array:
        """Q in the crystal frame, (n, 3) in Å⁻¹."""
        return self.q(places) @ self.orientation

    def basis(self, cell: Cell) -> Array:
        """Rows a, b, c in the goniometer's frame of the first sweep, Å."""
        return np.asarray(cell.A @ self.orientation.T)


@dataclass(frozen=True)
class JointRetuning:
    """The free corrections of all sweeps: added in each of them, but r1, r2, r3 in the first, which the others follow.

    Attributes
    ----------
    members : tuple of Retuning
        One for each sweep, of the same corrections.
    turns : list of ndarray, shape (3, 3)
        S_k, see `Sweeps`.
    """

    members: tuple[Retuning, ...]
    turns: list[Array]

    @property
    def first(self) -> Retuning:
        """That of the first sweep, which has the names, values and bounds of all."""
        return self.members[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the free corrections."""
        return self.first.names

    def sweeps(self, x: Array) -> Sweeps:
        """The sweeps at free values x (names,)."""
        own = [member.geometry(x)[0] for member in self.members]
        U = _orientation(own[0])
        return Sweeps((own[0], *(_oriented(e, S @ U) for e, S in zip(own[1:], self.turns[1:], strict=True))))

    def geometry(self, x: Array) -> tuple[Sweeps, Cell]:
        """Sweeps and cell at x.

        Raises
        ------
        InputError
            If they are impossible.
        """
        return self.sweeps(x), self.first.geometry(x)[1]

    def derivatives(self, x: Array, places: Places, hkl: IntArray) -> Array:
        """∂(Q − G)/∂ free corrections at x, (n, names, 3), in the crystal frame."""
        total = np.empty((len(places), len(self.names), 3))
        sweeps = self.sweeps(x)
        lead = motion(self.first.experiment, sweeps.first, self.first.moved)
        # A turn of the crystal turns Q in its frame, in which all sweeps are alike.
        common = [n for n, name in enumerate(lead.names) if name in ANGLES]
        for member, (experiment, here) in zip(self.members, sweeps.parts(places), strict=True):
            own = motion(member.experiment, experiment, member.moved)
            own.turns[common] = lead.turns[common]
            part = places[here]
            phi = Geometry(experiment).phi(part.angle_index)
            total[here] = member.derivatives(x, part.row, part.column, phi, hkl[here], own)
        return total


def make_joint_retuning(
    corrections: Sequence[Correction], sweeps: Sweeps, cell: Cell, group: PointGroup
) -> JointRetuning:
    """The free corrections of sweeps whose crystals share cell and symmetry: see `make_retuning`."""
    members = tuple(make_retuning(corrections, e, cell, group) for e in sweeps.experiments)
    return JointRetuning(members, sweeps.turns)


def _orientation(experiment: Experiment) -> Array:
    return orientation_of(experiment.r1, experiment.r2, experiment.r3)


def _oriented(experiment: Experiment, U: Array) -> Experiment:
    r1, r2, r3 = angles_of(U)
    return replace(experiment, r1=r1, r2=r2, r3=r3)
