"""Witness of the machine: records stalls, which are not the fault of the software under test.

One process per processor, with Asterisk's priority, wakes every 5 ms and notes when it could not. A process that needs
so little is scheduled sooner than Asterisk, so Asterisk's threads are watched too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from ari_conf import process_priority
from tests import lateness
from tests.chaos.seen import Stall

TICK_S = 0.005
STALL_MS = 30.0
"""Shorter stalls are not needed as an excuse."""
NICE = -10
"""The niceness of Asterisk in these tests, and of its phones."""
_spawn = multiprocessing.get_context("spawn")


class Witness:
    """The witness as a context manager; `stalls` returns what it has seen so far."""

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
    """Give the process priority over everything else that works on the same two cores.

    A production Asterisk is not alone on its cores either, but has the processor time that it needs. Without the
    permission, nothing changes. The time that the process waits in spite of it is recorded.
    """
    lateness.watch(pid)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), NICE)
    # The priority alone has no effect on processes of other sessions where the kernel weighs sessions first.
    with contextlib.suppress(OSError):
        if os.getsid(pid) == pid:
            process_priority.lower_session_priority(pid, NICE)


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
