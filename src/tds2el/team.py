"""Work of several ranks that the first one leads: what it asks for, all do, each on its own share.

So what rank 0 runs is written as for a single process, and only what is asked for need be thought of in parallel.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tds2el.errors import InputError
from tds2el.parallel import World

STOP = "stop"
PATIENCE, PAUSE = 5e-3, 1e-3
"""Seconds after which a rank that waits for its leader begins to sleep, and for how long at a time."""


class Team:
    """The ranks of a run, rank 0 as their leader.

    Parameters
    ----------
    world : World
        Of several ranks.
    member : object
        What this rank works with; its methods are the tasks that can be asked for.
    """

    def __init__(self, world: World, member: object) -> None:
        from mpi4py.util.pkl5 import Intracomm  # arrays of any size, without copies

        self._world, self._member, self._comm = world, member, Intracomm(world.comm)

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._world.size

    def run(self, lead: Callable[[], None]) -> None:
        """Let rank 0 do its work, which may ask; the others serve until it has ended (collective).

        Raises
        ------
        InputError
            On all ranks alike, if the leader's work has failed or what it asked for has.
        """
        self._world.attempt((lambda: self._lead(lead)) if self._world.rank == 0 else self._serve)

    def ask(self, task: str, *arguments: object) -> list[Any]:
        """What a method of every rank's member returns, in the order of ranks; only rank 0 calls this.

        Raises
        ------
        InputError
            Of the lowest rank that has failed. The others go on to serve.
        KeyboardInterrupt
            If another rank was interrupted.
        """
        self._tell(task, *arguments)
        answers = self._comm.gather((*self._do(task, arguments), False), root=0) or []
        if any(interrupted for _, _, interrupted in answers):
            raise KeyboardInterrupt
        for _, error, _ in answers:
            if error is not None:
                raise InputError(error)
        return [result for result, _, _ in answers]

    def _lead(self, lead: Callable[[], None]) -> None:
        # A mistake of ours, or Ctrl-C, may come in the middle of a task: the command line then aborts all ranks.
        try:
            lead()
        except (InputError, OSError):
            self._tell(STOP)
            raise
        self._tell(STOP)

    def _tell(self, task: str, *arguments: object) -> None:
        self._world.comm.Ibcast(bytearray(1), root=0).Wait()
        self._comm.bcast((task, arguments), root=0)

    def _serve(self) -> None:
        with _noted_interrupts() as interrupts:
            while True:
                self._wait()
                task, arguments = self._comm.bcast(None, root=0)
                if task == STOP:
                    return
                self._comm.gather((*self._do(task, arguments), bool(interrupts)), root=0)

    def _wait(self) -> None:
        """Until the leader calls: a blocking call of MPI would keep a core busy, which the leader may need."""
        called = self._world.comm.Ibcast(bytearray(1), root=0)
        start = time.monotonic()
        while not called.Test():
            if time.monotonic() - start < PATIENCE:
                os.sched_yield()
            else:
                time.sleep(PAUSE)

    def _do(self, task: str, arguments: tuple[object, ...]) -> tuple[Any, str | None]:
        """The result of a task on this rank, or what went wrong."""
        try:
            return getattr(self._member, task)(*arguments), None
        except (InputError, OSError) as error:
            return None, str(error)


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Collect the numbers of Ctrl-C and the like, for the leader to end the run: it has files to take away."""
    noted: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: noted.append(number)) for number in numbers]
    try:
        yield noted
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
