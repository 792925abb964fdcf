"""Result files appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tds2el.errors import InputError


@contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turn any failure to write `path`, which `option` chose, into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, UnicodeError) as error:  # h5py reports a full disk as either of the first two
        reason = " ".join(str(error).split())  # h5py's have several lines
        raise InputError(f"{option}: {path} cannot be written ({reason}); check space and permissions") from error


@contextmanager
def replaced(path: Path, option: str = "output_folder") -> Iterator[Path]:
    """A temporary name in the same folder that becomes `path` when all went well; `option` is what chose the path.

    Raises
    ------
    InputError
        If the file cannot be written; one of that name is then untouched, as after any other error.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with writing(path, option):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def now() -> str:
    """Date and time with the offset from UTC, for the record."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
