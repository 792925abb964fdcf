"""One engine of several ranks, each with a share of the points on a device of its own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from tds2el.model.engine import Columns, Engine, Points, State, Sums
from tds2el.model.sharing import Share, shares, state_of
from tds2el.team import Team

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class EngineShare:
    """A rank's part in a `SharedEngine`: numbers and states of blobs are those of the whole.

    Parameters
    ----------
    engine : Engine or None
        Holds the points of the share; None if there are none.
    share : Share
    columns : Columns
    """

    def __init__(self, engine: Engine | None, share: Share, columns: Columns) -> None:
        self._engine, self._share, self._columns = engine, share, columns
        self._place = {int(blob): place for place, blob in enumerate(share.blobs)}

    def evaluate(self, state: State) -> Sums:
        """One pass over the share; the sums are those of its own blobs, in their order."""
        if self._engine is None:
            width = self._columns.count
            return Sums(np.zeros(0), np.zeros((0, width, width)), np.zeros(0))
        return self._engine.evaluate(state_of(state, self._share.blobs))

    def intensity(self, state: State, blob: int) -> Array:
        """S of the share's points of one blob, in their order; perhaps of none."""
        if self._engine is None or blob not in self._place:
            return np.zeros(0)
        return self._engine.intensity(state_of(state, self._share.blobs), self._place[blob])

    def use(self, blob: int, used: Mask) -> None:
        """Say which points of a whole blob count from now on."""
        if self._engine is not None and blob in self._place:
            place = self._place[blob]
            self._engine.use(place, used[self._share.starts[place] : self._share.stops[place]])

    def set_floors(self, floors: Array) -> None:
        """Change m₀ of all blobs."""
        if self._engine is not None:
            self._engine.set_floors(floors[self._share.blobs])


class SharedEngine:
    """The engine that rank 0 works with; see `tds2el.model.engine.Engine`.

    Sums are added in the order of ranks, so that a run can be repeated to the last digit.

    Parameters
    ----------
    team : Team
        Its members have the methods of `EngineShare`.
    points : Points
        All of them.
    columns : Columns
    devices : list of (str, str)
        For each rank the description of its engine and what tells its device from others; empty without points.
    """

    def __init__(self, team: Team, points: Points, columns: Columns, devices: list[tuple[str, str]]) -> None:
        self._team, self._n_blobs, self._width = team, len(points.nodes), columns.count
        self._blobs = [share.blobs for share in shares(points.sizes, team.size)]
        self.description = describe(devices)

    def evaluate(self, state: State) -> Sums:
        """One pass: deviance, score and Gram matrices of every blob at `state`."""
        n, width = self._n_blobs, self._width
        whole = Sums(np.zeros(n), np.zeros((n, width, width)), np.zeros(n))
        for blobs, part in zip(self._blobs, self._team.ask("evaluate", state), strict=True):
            whole.deviance[blobs] += part.deviance
            whole.gram[blobs] += part.gram
            whole.below_floor[blobs] += part.below_floor
        return whole

    def intensity(self, state: State, blob: int) -> Array:
        """S of every pixel of one blob, shape (n,)."""
        return np.concatenate(self._team.ask("intensity", state, blob))

    def use(self, blob: int, used: Mask) -> None:
        """Say which pixels (n,) of a blob count from now on, of those that the points came with."""
        self._team.ask("use", blob, used)

    def set_floors(self, floors: Array) -> None:
        """Change m₀ of every blob, counts (n_blobs,)."""
        self._team.ask("set_floors", floors)


def describe(devices: list[tuple[str, str]]) -> str:
    """How many ranks work on which devices; see `SharedEngine`."""
    working = [device for device in devices if device[0]]
    numbers = Counter(description for description, _ in dict.fromkeys(working))
    named = (text if number == 1 else f"{number} × {text}" for text, number in numbers.items())
    return f"{' and '.join(named)}, {len(working)} rank{'s' * (len(working) != 1)}"
