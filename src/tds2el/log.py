"""Where the messages of a run go: the screen of rank 0 and the file tds2el.log beside the results."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TextIO

from tds2el import __version__
from tds2el.errors import InputError
from tds2el.progress import show_bars

LOG_FILE = "tds2el.log"

_logger = logging.getLogger("tds2el")
_installed: list[logging.Handler] = []


class _Screen(logging.Handler):
    """Information to stdout as it is, warnings to stderr with a prefix and each only once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.warnings: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            if record.levelno < logging.WARNING:
                _write(text, sys.stdout)
            elif text not in self.warnings:
                self.warnings[text] = None
                _write(f"tds2el: {record.levelname.lower()}: {text}", sys.stderr)
        except BrokenPipeError:
            # Whoever read stdout, such as head, has gone: the run goes on, and the log file has everything.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception:
            self.handleError(record)


class _LogFile(logging.FileHandler):
    """Once it cannot be written, on a full disk say, the run goes on without it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            reason = error.strerror
            _write(f"tds2el: warning: {self.baseFilename} cannot be written ({reason}) and is not complete", sys.stderr)


def configure(rank: int, log_file: Path | None = None, level: int = logging.INFO) -> None:
    """Send the messages of the logger "tds2el" where they belong; a second call replaces the first.

    Rank 0 shows information on stdout, and warnings and the progress of long stages on stderr. It writes all messages,
    and what is only of interest afterwards (level debug: the iterations of a fit), with the time to the log file.
    Other ranks are silent.

    Parameters
    ----------
    rank : int
    log_file : Path, optional
        Appended to, so that harvest and fit of one folder make one log.
    level : int
        What the screen shows: from logging.WARNING on no progress either; from logging.DEBUG on everything.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    handlers: list[logging.Handler] = [_Screen(level)] if rank == 0 else [logging.NullHandler()]
    if rank == 0 and log_file is not None:
        try:
            to_file = _LogFile(log_file)
        except OSError as error:
            raise InputError(
                f"output_folder: {log_file} cannot be written ({error.strerror}); check folder and permissions"
            ) from None
        to_file.emit(_record(f"tds2el {__version__}: {shlex.join(sys.argv)}"))
        handlers.append(to_file)
    for handler in _installed:
        _logger.removeHandler(handler)
        handler.close()
    _installed[:] = handlers
    for handler in handlers:
        _logger.addHandler(handler)
    _logger.setLevel(logging.DEBUG)
    show_bars(rank == 0 and level < logging.WARNING)


def shown_warnings() -> tuple[str, ...]:
    """The warnings of this run so far, for its results."""
    return tuple(text for handler in _installed if isinstance(handler, _Screen) for text in handler.warnings)


def _record(message: str) -> logging.LogRecord:
    return logging.LogRecord(_logger.name, logging.INFO, __file__, 0, message, None, None)


def _write(text: str, stream: TextIO) -> None:
    """One message, at once, above a progress bar if there is one: tqdm takes its bars away and draws them again."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        tqdm.tqdm.write(text, file=stream)
    else:
        print(text, file=stream)
    stream.flush()
