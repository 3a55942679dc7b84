"""Watches the machine itself: what stands still on it for as long is not the fault of what runs there.

One process for each processor, of Asterisk's own priority, that wants to run each 5 ms and notes when it could not.
One that needs so little is served sooner than Asterisk, so its threads are watched as well.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from ari_conf import niceness
from tests import lateness
from tests.chaos.seen import Stall

TICK_S = 0.005
STALL_MS = 30.0
"""Shorter ones nobody needs as an excuse."""
NICE = -10
"""As Asterisk's in these tests, and its phones'."""
_spawn = multiprocessing.get_context("spawn")


class Witness:
    """Use as a context manager; `stalls` says what was seen so far."""

    def __enter__(self) -> Witness:
        self._watching = []
        for processor in sorted(os.sched_getaffinity(0)):
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(target=_watch, args=(theirs, processor), daemon=True)
            process.start()
            theirs.close()
            self._watching.append((process, ours))
        return self

    def __exit__(self, *_: object) -> None:
        for process, ours in self._watching:
            ours.close()
            process.kill()
            process.join()

    def stalls(self) -> list[Stall]:
        found: list[Stall] = []
        for _, ours in self._watching:
            ours.send("tell")
            found += ours.recv()
        return sorted(found + lateness.starved())


def prefer(pid: int) -> None:
    """Before all that starts, works and listens on the same two cores: an Asterisk in earnest is not alone with them
    either, but has what it needs. Where we may not, we don't. What it has to wait for all the same is noted."""
    lateness.watch(pid)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), NICE)
    # Which alone says nothing to processes of other sessions, where the kernel weighs those first.
    with contextlib.suppress(OSError):
        if os.getsid(pid) == pid:
            niceness.session_yields(pid, NICE)


def _watch(theirs: Connection, processor: int) -> None:
    os.sched_setaffinity(0, {processor})
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    stalls: list[Stall] = []
    before = time.monotonic()
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked = theirs.poll(TICK_S)
            now = time.monotonic()
            late_ms = (now - before - TICK_S) * 1000
            if late_ms > STALL_MS:
                stalls.append((time.time() * 1000, late_ms))
            before = now
            if asked:
                theirs.recv()
                theirs.send(stalls)
