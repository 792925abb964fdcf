"""The points of a harvest on the devices of several ranks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tds2el.fit.data import FitData, harvest_points, point_sums
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.quality import quality_sums
from tds2el.model.device import identity_of, make_engine, try_device
from tds2el.model.engine import Columns, Conditions, Engine, Points, State, Sums
from tds2el.model.shared_engine import EngineShare, SharedEngine
from tds2el.model.sharing import points_of, shares
from tds2el.model.smearing import Smearing
from tds2el.parallel import World
from tds2el.team import Team

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class HarvestShare:
    """What one rank does with its share of a harvest's points, as the member of a `Team`.

    Parameters
    ----------
    harvest : HarvestFile
        Each rank opens it by itself, and reads no more than its share.
    world : World
    """

    def __init__(self, harvest: HarvestFile, world: World) -> None:
        self._harvest, self._world = harvest, world
        self._part: EngineShare | None = None

    def quality_sums(self) -> tuple[npt.NDArray[np.bool_], Array]:
        """See `tds2el.harvest.quality.quality_sums`."""
        return quality_sums(self._harvest, self._world.rank, self._world.size, self._world.cores)

    def sums(self, blobs: Integers, nred: int) -> Array:
        """See `tds2el.fit.data.point_sums`."""
        sizes = -(-self._harvest.n_points[blobs] // nred)
        return point_sums(self._harvest, blobs, nred, shares(sizes, self._world.size)[self._world.rank])

    def try_device(self, choice: str | None) -> None:
        """See `tds2el.model.device.try_device`."""
        try_device(choice, self._world)

    def load(
        self,
        choice: str | None,
        blobs: Integers,
        nred: int,
        pixels: bool,
        means: Array,
        columns: Columns,
        conditions: Conditions,
        smearing: Smearing | None,
        neighbours: Array | None,
    ) -> tuple[str, str]:
        """Put the share of the points on this rank's device, in place of those before.

        Returns
        -------
        description, identity : str
            Of the device; empty if the share is.
        """
        self._part = None
        points: Points = harvest_points(self._harvest, blobs, means, nred, pixels=pixels)
        points = replace(points, smearing=smearing, neighbours=neighbours)
        share = shares(points.sizes, self._world.size)[self._world.rank]
        engine: Engine | None = None
        if len(share.blobs):
            engine = make_engine(
                choice,
                points_of(points, share),
                columns,
                conditions,
                cores=self._world.cores,
                number=self._world.node_rank,
            )
        self._part = EngineShare(engine, share, columns)
        return ("", "") if engine is None else (engine.description, identity_of(engine))

    def evaluate(self, state: State) -> Sums:
        """See `EngineShare`."""
        return self._loaded.evaluate(state)

    def intensity(self, state: State, blob: int) -> Array:
        """See `EngineShare`."""
        return self._loaded.intensity(state, blob)

    def use(self, blob: int, used: npt.NDArray[np.bool_]) -> None:
        """See `EngineShare`."""
        self._loaded.use(blob, used)

    def set_floors(self, floors: Array) -> None:
        """See `EngineShare`."""
        self._loaded.set_floors(floors)

    @property
    def _loaded(self) -> EngineShare:
        assert self._part is not None  # what an engine is asked, it is asked after `load`
        return self._part


def shared_engine(
    team: Team, choice: str | None, data: FitData, columns: Columns, conditions: Conditions
) -> SharedEngine:
    """The engine that the option `device` names, on every rank of a team of `HarvestShare`; it replaces that before."""
    team.ask("try_device", choice)
    points = data.points
    means = np.column_stack([points.mean_counts, points.mean_correction, points.mean_background])
    devices = team.ask(
        "load",
        choice,
        data.blobs,
        data.nred,
        points.pixels,
        means,
        columns,
        conditions,
        points.smearing,
        points.neighbours,
    )
    return SharedEngine(team, points, columns, devices)
