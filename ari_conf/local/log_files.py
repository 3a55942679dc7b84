"""Logs of a local system: bounded files that programs append to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 20_000_000
"""Size beyond which a log is moved away. With the one earlier log that is kept, a program's logs take twice as much."""


def limit_all(folders: Iterable[Path], max_bytes: int) -> None:
    """Limit each log in these folders."""
    for folder in folders:
        for log in folder.glob("*.log"):
            limit(log, max_bytes)


def limit(log: Path, max_bytes: int) -> None:
    """Move the content of a log that is too long to LOG.1, and empty the log.

    The log must be open for appending alone: its program then continues at the beginning of the file. What the program
    writes during the move is lost.
    """
    with suppress(OSError):  # without space on the disk, the log is emptied all the same
        if log.stat().st_size <= max_bytes:
            return
        earlier = log.with_name(log.name + ".1")
        with suppress(OSError):
            shutil.copyfile(log, earlier)
            shutil.copymode(log, earlier)
        os.truncate(log, 0)


def start_of(log: Path, offset: int) -> int:
    """Return the offset from which a reader of a log continues: 0 if the log was emptied since."""
    with suppress(OSError):
        if log.stat().st_size < offset:
            return 0
    return offset
