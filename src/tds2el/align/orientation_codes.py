"""Which orientation codes and signs of the rotation fit.

A lattice looks the same from both sides. Changing signs of the detector's axes, and of the rotation, may turn or mirror
the whole cloud of peaks, and a turned or mirrored lattice is a lattice of the same cell. So the peaks fit several
pairs of code and sign alike, a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tds2el.align.index import deviations
from tds2el.align.points import Places
from tds2el.align.sweeps import Sweeps
from tds2el.settings import Experiment

Array = npt.NDArray[np.float64]

SAME_CLOUD = 0.02
"""Relative: clouds that a turn or a mirror makes as equal as this are tried once."""
NEAR = 0.3
"""Of whole numbers, in each of h, k, l: small tilts of the detector, which change sides, are not refined anew."""
AS_GOOD = 0.8
"""Share of the peaks that must be near nodes; by chance it would be 0.2."""


@dataclass(frozen=True)
class Pair:
    """A code, and whether the rotation goes the other way than `angular_step` says."""

    code: int
    reversed: bool

    def of(self, experiment: Experiment) -> Experiment:
        """The experiment with this pair."""
        step = -experiment.angular_step if self.reversed else experiment.angular_step
        return replace(experiment, orientation_codes=self.code, angular_step=step)


PAIRS = tuple(Pair(code, back) for back in (False, True) for code in range(8))


def classes(sweeps: Sweeps, places: Places) -> list[list[Pair]]:
    """All pairs, sorted into classes whose clouds of peaks are the same but for a turn or a mirror."""
    found: list[tuple[Array, list[Pair]]] = []
    for pair in PAIRS:
        q = sweeps.changed(pair.of).q(places)
        for cloud, members in found:
            moved = q @ _turn_or_mirror(q, cloud)
            if np.sqrt(np.mean((moved - cloud) ** 2)) < SAME_CLOUD * np.sqrt(np.mean(cloud**2)):
                members.append(pair)
                break
        else:
            found.append((q, [pair]))
    return [members for _, members in found]


def fitting_pairs(sweeps: Sweeps, places: Places, basis: Array) -> list[Pair]:
    """The pairs with which the peaks fit the lattice too.

    Parameters
    ----------
    sweeps : Sweeps
        Refined.
    places : Places
        Of accepted peaks.
    basis : ndarray, shape (3, 3)
        Rows a, b, c in the goniometer's frame of the first sweep.
    """
    q = sweeps.q(places)
    fitting = []
    for pair in PAIRS:
        other = sweeps.changed(pair.of).q(places)
        moved = other @ _turn_or_mirror(other, q)
        if (np.abs(deviations(basis, moved)).max(axis=1) < NEAR).mean() >= AS_GOOD:
            fitting.append(pair)
    return fitting


def describe(pairs: Sequence[Pair], angular_step: float) -> str:
    """A class of pairs in words."""
    ways = []
    for back in (False, True):
        codes = [str(pair.code) for pair in pairs if pair.reversed == back]
        if codes:
            step = -angular_step if back else angular_step
            ways.append(f"{', '.join(codes)} with angular_step = {step:g}")
    return "; ".join(ways)


def _turn_or_mirror(cloud: Array, onto: Array) -> Array:
    """The orthogonal matrix S with cloud · S nearest to `onto` (Procrustes)."""
    from scipy.linalg import orthogonal_procrustes

    return np.asarray(orthogonal_procrustes(cloud, onto)[0])
