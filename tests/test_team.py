"""Rank 0 asks, all work; what fails on one ends for all."""

import subprocess
import sys
from pathlib import Path

import pytest

from tds2el.parallel import environment_without_launcher

MPIRUN = Path(sys.executable).parent / "mpirun"
pytestmark = pytest.mark.skipif(not MPIRUN.exists(), reason=f"no mpirun beside {sys.executable}")

PROGRAM = """
import os, signal, sys
import numpy as np
from tds2el.errors import InputError
from tds2el.parallel import connect
from tds2el.team import Team
world = connect()
class Member:
    def times(self, values):
        return values * world.rank
    def fails(self, *ranks):
        if world.rank in ranks:
            raise OSError(f"disk of {world.rank}")
        return world.rank
    def interrupted(self):
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
team = Team(world, Member())
def lead():
    {lead}
try:
    team.run(lead)
    end = "done"
except InputError as error:
    end = f"error: {error}"
except KeyboardInterrupt:
    os.write(1, b"interrupted")
    world.comm.Abort(130)
before = signal.getsignal(signal.SIGTERM)
os.write(1, f"{world.rank} {end}, {before == signal.SIG_DFL}\\n".encode())
"""


def run(lead, ranks=3):
    program = PROGRAM.replace("{lead}", lead.replace("\n", "\n    "))
    return subprocess.run(
        [MPIRUN, "-n", str(ranks), sys.executable, "-c", program],
        env=environment_without_launcher(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_answers_come_in_the_order_of_ranks():
    done = run(
        "found = team.ask('times', np.arange(100_000.0))\n"
        "assert all(np.array_equal(a, np.arange(100_000.0) * rank) for rank, a in enumerate(found))\n"
        "assert team.size == len(found) == 3"
    )
    assert sorted(done.stdout.splitlines()) == [f"{rank} done, True" for rank in range(3)], done.stderr


def test_the_leader_hears_the_lowest_failing_rank_and_may_go_on():
    done = run(
        "for ranks, first in (((2, 1), 1), ((0, 2), 0)):\n"
        "    try:\n"
        "        team.ask('fails', *ranks)\n"
        "    except InputError as error:\n"
        "        assert str(error) == f'disk of {first}'\n"
        "assert team.ask('fails') == [0, 1, 2]\n"
    )
    assert sorted(done.stdout.splitlines()) == [f"{rank} done, True" for rank in range(3)], done.stderr


@pytest.mark.parametrize("lead", ["team.ask('fails', 1)", "raise OSError('disk of 1')"])
def test_what_ends_the_leader_ends_all(lead):
    done = run(lead)
    assert sorted(done.stdout.splitlines()) == [f"{rank} error: disk of 1, True" for rank in range(3)], done.stderr


def test_an_interrupt_of_a_member_reaches_the_leader():
    done = run("team.ask('interrupted')")
    assert done.stdout.strip().startswith("interrupted")
    assert done.returncode == 130
