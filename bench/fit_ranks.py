"""Speed of the fit on several ranks beside one of them, over the same synthetic points.

    mpirun -n 2 python bench/fit_ranks.py [--points 2e7] [--device CPU] [--json FILE]

An iteration is timed as in fit_speed.py, with the six constants of calcite and the centres of the spots: first by rank
0 alone with all points, then by all ranks, each with its share. In both cases a rank has its share of the node's cores,
or a GPU of its own if there are enough. Loading takes in making the points, on the host. Ends with exit code 1 if the
sums of the two differ by more than 1e-9.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from figures import figure, hand_over
from fit_speed import seconds_per_pass
from synthetic import CONDITIONS, calcite, reflections, synthetic_points
from tds2el.fit.common import Common, SpotTerms
from tds2el.fit.parameters import Constants
from tds2el.model.device import identity_of, make_engine
from tds2el.model.engine import Engine, State
from tds2el.model.shared_engine import EngineShare, SharedEngine
from tds2el.model.sharing import points_of, shares
from tds2el.parallel import World, connect
from tds2el.team import Team


def free_constants() -> Common:
    """The six constants of calcite, free, and centres."""
    crystal, free = calcite(), np.full(6, np.inf)
    constants = Constants(crystal.structure, crystal.constants, -free, free)
    return Common(constants, constants.initial_scale("auto"), terms=SpotTerms(centre=True))


class Member(EngineShare):
    """A rank with its share of synthetic points."""

    def __init__(self, world: World, device: str | None, n_points: int, n_blobs: int) -> None:
        self.world, self.device, self.common = world, device, free_constants()
        self.points = synthetic_points(n_points, reflections(n_blobs), repeated=True)

    def engine(self, points) -> Engine:
        """An engine on the device of this rank."""
        common, world = self.common, self.world
        return make_engine(self.device, points, common.columns, CONDITIONS, cores=world.cores, number=world.node_rank)

    def load(self) -> tuple[str, str]:
        """Put the share on the device."""
        share = shares(self.points.sizes, self.world.size)[self.world.rank]
        engine = self.engine(points_of(self.points, share))
        super().__init__(engine, share, self.common.columns)
        return engine.description, identity_of(engine)

    def state(self) -> State:
        """Where the sums are compared."""
        n = len(self.points.nodes)
        state = State(np.eye(6), np.full(n, 0.02), np.full(n, 2.0), offset=np.zeros((n, 3)))
        return self.common.placed(state, self.common.start)


def measure(world: World, device: str | None, n_points: int, n_blobs: int = 41, repeats: int = 7) -> dict[str, object]:
    """Seconds per iteration by rank 0 alone and by all ranks (collective).

    Returns
    -------
    dict
        On rank 0: number of ranks, the device of each, seconds of an iteration and of loading alone and together, and
        the largest difference of the sums relative to the largest of their spot. Empty on other ranks.
    """
    member = Member(world, device, n_points, n_blobs)
    team, found = Team(world, member), {}

    def timed(make):
        start = time.perf_counter()
        engine = make()
        return engine, time.perf_counter() - start

    def lead() -> None:
        state, points, common = member.state(), member.points, member.common
        # The first engine of a process compiles, and wakes the driver.
        few = points_of(points, shares(points.sizes, 100)[0])
        seconds_per_pass(member.engine(few), few, common, 1)
        engine, loading = timed(lambda: member.engine(points))
        expected, alone = engine.evaluate(state).gram, seconds_per_pass(engine, points, common, repeats)
        del engine
        team.ask("load")
        devices, shared_loading = timed(lambda: team.ask("load"))
        engine = SharedEngine(team, points, common.columns, devices)
        gram, together = engine.evaluate(state).gram, seconds_per_pass(engine, points, common, repeats)
        difference = np.abs(gram - expected).max(axis=(1, 2)) / np.abs(expected).max(axis=(1, 2))
        found.update(
            ranks=world.size,
            devices=[f"{description} [{identity}]" for description, identity in devices],
            description=engine.description,
            points=int(points.sizes.sum()),
            seconds={"alone": alone, "together": together},
            loading_seconds={"alone": loading, "together": shared_loading},
            difference=float(difference.max()),
            figures=[
                figure(
                    f"iteration of {n_points:.0e} points, {world.size} ranks",
                    1e3 * together,
                    "ms",
                    beside=1e3 * alone,
                    than="rank 0 alone",
                )
            ],
        )

    team.run(lead)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=float, default=2e7)
    parser.add_argument("--blobs", type=int, default=41)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", help="as the option of that name; by default the GPUs, else the CPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    world = connect()
    if world.size == 1:
        parser.error("start it with mpirun -n 2 or more")
    found = measure(world, options.device, int(options.points), options.blobs, options.repeats)
    if world.rank:
        return 0
    points, seconds, loading = found["points"], found["seconds"], found["loading_seconds"]
    print(f"{points:.3g} points on {found['description']}")
    for rank, device in enumerate(found["devices"]):
        print(f"  rank {rank}: {device}")
    for name, ranks in (("alone", "rank 0 alone"), ("together", f"{world.size} ranks")):
        speed = f"{1e3 * seconds[name]:.2f} ms per iteration, {points / seconds[name]:.3g} points/s"
        print(f"  {ranks}: {speed}; loaded in {loading[name]:.2f} s")
    print(f"  ratio {seconds['alone'] / seconds['together']:.2f}; sums differ by {found['difference']:.1e}")
    hand_over(found, options.json)
    return int(found["difference"] > 1e-9)


if __name__ == "__main__":
    sys.exit(main())
