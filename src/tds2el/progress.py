"""How far a long stage of a run has come: a bar on a terminal, and a line now and then for the log file."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Self

_logger = logging.getLogger("tds2el")

DELAY = 0.5
"""Seconds before a bar appears: what is over by then needs none."""
EVERY = 60.0
"""Seconds between two lines in the log file."""
LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"
LINE_WITHOUT_END = "{desc}: {n_fmt}, {rate_fmt}{postfix}"

_bars = False


def show_bars(shown: bool) -> None:
    """Whether stages may draw bars on standard error; they never do where that is no terminal."""
    global _bars
    _bars = shown


class Stage:
    """A stage of a run, as a context manager that counts.

    Parameters
    ----------
    title : str
        What is done, such as "harvest".
    total : int, optional
        Without it, rate but no time left is shown.
    unit : str
        What is counted, in the singular.
    """

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        from tqdm import tqdm

        self._title, self._total, self._unit = title, total, f" {unit}"
        self._done, self._note = 0, ""
        self._start = self._told = time.monotonic()
        # disable=None: no bar unless standard error is a terminal.
        self._bar: Any = tqdm(
            total=total,
            desc=title,
            unit=self._unit,
            unit_scale=self._large,
            leave=False,
            delay=DELAY,
            dynamic_ncols=True,
            disable=None if _bars else True,
        )

    def update(self, number: int = 1, note: str = "") -> None:
        """Count what is done, with a remark on where things stand."""
        self._done += number
        self._note = note
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(number)
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            _logger.debug("%s", self)

    @property
    def _plural(self) -> str:
        return self._unit + ("es" if self._unit.endswith("s") else "s")

    @property
    def _large(self) -> bool:
        """Whether numbers are shown as 1.09M."""
        return self._total is not None and self._total >= 100_000

    def __str__(self) -> str:
        line = LINE_WITHOUT_END if self._total is None else LINE
        text = self._bar.format_meter(
            n=self._done,
            total=self._total,
            elapsed=time.monotonic() - self._start,
            prefix=self._title,
            unit=self._unit,
            unit_scale=self._large,
            postfix=self._note,
            bar_format=line,
        )
        return str(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if error is None:
            seconds = time.monotonic() - self._start
            _logger.debug("%s: %d%s in %.1f s", self._title, self._done, self._plural, seconds)
