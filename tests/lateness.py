"""How late this machine is, so that a judgment about time leaves out what the machine owes.

    began = time.monotonic()
    ...
    assert took_s(began) < 1                    # seconds of this process's monotonic clock
    assert took_ms(asked.at_ms, answered) < 400  # between two times in epoch ms
    patience = Patience(10)                     # a deadline that a late machine extends
    while not found():
        assert not patience.over

A moment is late if something that could run found no free processor, or if this process, which asked to be woken, was
not: what works comes that much later. It is stalled if this process was not woken: that is what sound suffers, which
needs little of a processor, but each 20 ms. On a machine where nothing else runs both are next to nothing, and limits
hold as they are written. Of a process that is told by `watch`, Asterisk say, it counts as well for how long one of its
threads waited for a processor: whoever needs more of one than this process does waits longer. They never exceed nine
tenths of the time that is judged: a limit is at most ten times as long
as written, on the busiest machine too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable
from itertools import count
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
PRESSURE = Path("/proc/pressure/cpu")
"""The kernel's own count; where it has none, what is left is how late this process wakes up."""
SOON_S = 30.0
"""For what is to come at some time, where no promise says when: so long is a failure waited for."""
TICK_S = 0.01
SLACK_S = 0.002
"""By so much any timer is late."""
MOST_SHARE = 0.9
MOST_PATIENCE = 3
KEPT = 200_000
"""Ticks that are remembered: half an hour of them, and 20 MB."""
THREADS_EACH_TICKS = 5
STARVED_S = 0.01
"""A thread that waited for less of these ticks has had what it needs."""


class Threads:
    """Those of a process, and for how long they waited for a processor. The kernel counts it when they get one."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/task")
        self._waited: dict[str, int] = {}
        self.longest_s()

    def longest_s(self) -> float:
        """The longest that one of them waited, of what was counted since it was last asked; 0 of a process that is
        gone, or where the kernel doesn't count."""
        before, self._waited = self._waited, {}
        with contextlib.suppress(OSError):
            for thread in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    self._waited[thread.name] = int((thread / "schedstat").read_bytes().split()[1])
        return max((ns - before[thread] for thread, ns in self._waited.items() if thread in before), default=0) / 1e9


class Watch:
    """Notes, on a thread of its own, how late the machine was in each tick."""

    def __init__(self) -> None:
        self._at = [time.monotonic()]
        self._late = [0.0]
        """Seconds in all, until the time at the same place in `_at`."""
        self._stalled = [0.0]
        self._threads: dict[int, Threads] = {}
        self._starved: list[tuple[float, float]] = []
        self._lock = threading.Lock()
        self._processors = len(os.sched_getaffinity(0))
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(PRESSURE, os.O_RDONLY | os.O_CLOEXEC)
        self._waited = self._pressure()

    def start(self) -> None:
        threading.Thread(target=self._run, name="lateness", daemon=True).start()

    def late_s(self, began: float, ended: float) -> float:
        """Of that stretch of the monotonic clock."""
        return self._of(self._late, began, ended)

    def stalled_s(self, began: float, ended: float) -> float:
        return self._of(self._stalled, began, ended)

    def watch(self, pid: int) -> None:
        with self._lock:
            self._threads[pid] = Threads(pid)

    def starved(self) -> list[tuple[float, float]]:
        """(until when, for how long) a thread of what is watched waited."""
        with self._lock:
            return list(self._starved)

    def tick(self, passed_s: float, waited_s: float, starved_s: float = 0.0) -> None:
        """One that was to last TICK_S has lasted `passed_s`; `waited_s` is what the kernel counts of everything,
        `starved_s` of what is watched."""
        stalled = max(passed_s - TICK_S - SLACK_S, starved_s, 0.0)
        with self._lock:
            self._at.append(self._at[-1] + passed_s)
            self._late.append(self._late[-1] + min(passed_s, max(stalled, waited_s)))
            self._stalled.append(self._stalled[-1] + stalled)
            if starved_s:
                self._starved.append((self._at[-1], starved_s))
                del self._starved[:-KEPT]
            if len(self._at) > 2 * KEPT:
                del self._at[:KEPT], self._late[:KEPT], self._stalled[:KEPT]

    def _run(self) -> None:
        for number in count(1):
            time.sleep(TICK_S)
            starved = 0.0 if number % THREADS_EACH_TICKS else self._longest_s()
            now, waited = time.monotonic(), self._pressure()
            self.tick(now - self._at[-1], waited - self._waited, starved)
            self._waited = waited

    def _longest_s(self) -> float:
        with self._lock:
            longest = max((threads.longest_s() for threads in self._threads.values()), default=0.0)
        return longest if longest > STARVED_S else 0.0

    def _pressure(self) -> float:
        """Seconds for which something waited for a processor. The kernel gives the mean of the processors; who waits
        waits for one of them."""
        if self._file is None:
            return 0.0
        some = os.pread(self._file, 256, 0).split(b"\n", 1)[0]
        return int(some.rpartition(b"total=")[2]) / 1e6 * self._processors

    def _of(self, sums: list[float], began: float, ended: float) -> float:
        with self._lock:
            found = self._until(sums, ended) - self._until(sums, began)
        return min(found, MOST_SHARE * (ended - began)) if ended > began else 0.0

    def _until(self, sums: list[float], moment: float) -> float:
        after = bisect_left(self._at, moment)
        if after == 0:
            return sums[0]
        if after == len(self._at):
            return sums[-1]
        share = (moment - self._at[after - 1]) / (self._at[after] - self._at[after - 1])
        return sums[after - 1] + share * (sums[after] - sums[after - 1])


_watch = Watch()


def start() -> None:
    _watch.start()


def watch(pid: int) -> None:
    """What is served late by that process because it waited for a processor is the machine's making."""
    _watch.watch(pid)


def starved() -> list[tuple[float, float]]:
    """(until when, in epoch ms; for how many ms) a thread of what is watched waited."""
    offset = time.time() - time.monotonic()
    return [((until + offset) * 1000, s * 1000) for until, s in _watch.starved()]


def late_s(began: float, ended: float | None = None) -> float:
    return _watch.late_s(began, time.monotonic() if ended is None else ended)


def took_s(began: float, ended: float | None = None) -> float:
    """Seconds since `began`, by the monotonic clock, less those that the machine was late."""
    ended = time.monotonic() if ended is None else ended
    return ended - began - late_s(began, ended)


def late_ms(from_ms: float, to_ms: float) -> float:
    """Of a stretch of the wall clock, in epoch ms."""
    offset = time.time() - time.monotonic()
    return late_s(from_ms / 1000 - offset, to_ms / 1000 - offset) * 1000


def stalled_ms(from_ms: float, to_ms: float) -> float:
    offset = time.time() - time.monotonic()
    return _watch.stalled_s(from_ms / 1000 - offset, to_ms / 1000 - offset) * 1000


def took_ms(from_ms: float, to_ms: float) -> float:
    return to_ms - from_ms - late_ms(from_ms, to_ms)


def lasted(from_ms: float, to_ms: float, least_ms: float, below_ms: float) -> None:
    """Fails if that stretch, of epoch ms, was shorter or longer: either of its ends may be late."""
    late, took = late_ms(from_ms, to_ms), to_ms - from_ms
    assert least_ms <= took + late and took - late < below_ms, (
        f"it lasted {took:.0f} ms, the machine was late for {late:.0f} of them: not {least_ms:g} to {below_ms:g}"
    )


class Patience:
    """For so many seconds on a machine that is never late; for at most four times as many on any."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._began = time.monotonic()

    @property
    def left_s(self) -> float:
        now = time.monotonic()
        return self._within_s + min(late_s(self._began, now), MOST_PATIENCE * self._within_s) - (now - self._began)

    @property
    def over(self) -> bool:
        return self.left_s < 0


@contextlib.asynccontextmanager
async def timeout(within_s: float = SOON_S) -> AsyncIterator[None]:
    """asyncio's, with patience."""
    loop, patience = asyncio.get_running_loop(), Patience(within_s)
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            nonlocal looking
            if patience.over:
                limit.reschedule(loop.time())
            else:
                looking = loop.call_later(max(patience.left_s, TICK_S), look)

        looking = loop.call_later(within_s, look)
        try:
            yield
        finally:
            looking.cancel()


async def soon(what: Awaitable[T], within_s: float = SOON_S) -> T:
    async with timeout(within_s):
        return await what
