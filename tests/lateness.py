"""Lateness of this machine, so that assertions about time exclude delays that the machine caused.

    began = time.monotonic()
    ...
    assert took_s(began) < 1                    # seconds of this process's monotonic clock
    assert took_ms(asked.at_ms, answered) < 400  # between two times in epoch ms

    patience = Patience(10)                     # a deadline that a late machine extends
    while not found():
        assert not patience.over

A moment is late if a runnable task found no free processor, or if this process was not woken at the time that it asked
for: other work is late by as much. A moment is stalled if this process was not woken. A stall is what disturbs audio,
which needs little processor time, but every 20 ms. On an idle machine both are nearly zero, and limits hold as written.
For a process that `watch` names, such as Asterisk, the time that one of its threads waited for a processor counts too:
a process that needs more processor time than this one waits longer. Neither exceeds nine tenths of the time in
question: a limit is at most ten times as long as written, even on the busiest machine.
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
"""The kernel's own measure. Where it does not exist, only the late wake-ups of this process count."""
SOON_S = 30.0
"""The time to wait before a failure, for an event without a promised deadline."""
TICK_S = 0.01
SLACK_S = 0.002
"""The normal delay of any timer."""
MAX_SHARE = 0.9
MAX_PATIENCE = 3
KEPT = 200_000
"""The number of ticks in memory: half an hour of them, and 20 MB."""
THREADS_EACH_TICKS = 5
STARVED_S = 0.01
"""A thread that waited for less than this during these ticks counts as not delayed."""


class Threads:
    """The threads of a process, and the time that each waited for a processor, which the kernel adds when it
    gets one."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/task")
        self._waited: dict[str, int] = {}
        self.longest_s()

    def longest_s(self) -> float:
        """Return the longest wait of one thread since the previous call; 0 if the process has ended or the kernel does
        not count."""
        before, self._waited = self._waited, {}
        with contextlib.suppress(OSError):
            for thread in self._folder.iterdir():
                with contextlib.suppress(OSError):
                    self._waited[thread.name] = int((thread / "schedstat").read_bytes().split()[1])
        return max((ns - before[thread] for thread, ns in self._waited.items() if thread in before), default=0) / 1e9


class Watch:
    """A thread that notes for each tick how late the machine was."""

    def __init__(self) -> None:
        self._at = [time.monotonic()]
        self._late = [0.0]
        """The total in seconds up to the time at the same index of `_at`."""
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
        """Return the lateness in that interval of the monotonic clock."""
        return self._of(self._late, began, ended)

    def stalled_s(self, began: float, ended: float) -> float:
        return self._of(self._stalled, began, ended)

    def watch(self, pid: int) -> None:
        with self._lock:
            self._threads[pid] = Threads(pid)

    def starved(self) -> list[tuple[float, float]]:
        """Return (end, seconds) of each wait of a watched thread."""
        with self._lock:
            return list(self._starved)

    def tick(self, passed_s: float, waited_s: float, starved_s: float = 0.0) -> None:
        """Record a tick of TICK_S that took `passed_s`. `waited_s`: the kernel's measure of all processes; `starved_s`:
        of the watched ones."""
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
        """Return the seconds for which anything waited for a processor.

        The kernel reports the mean over all processors, but each task waits for only one of them.
        """
        if self._file is None:
            return 0.0
        some = os.pread(self._file, 256, 0).split(b"\n", 1)[0]
        return int(some.rpartition(b"total=")[2]) / 1e6 * self._processors

    def _of(self, sums: list[float], began: float, ended: float) -> float:
        with self._lock:
            found = self._until(sums, ended) - self._until(sums, began)
        return min(found, MAX_SHARE * (ended - began)) if ended > began else 0.0

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
    """Count delays of that process as the machine's if its threads waited for a processor."""
    _watch.watch(pid)


def starved() -> list[tuple[float, float]]:
    """Return (end in epoch ms, duration in ms) of each wait of a watched thread."""
    offset = time.time() - time.monotonic()
    return [((until + offset) * 1000, s * 1000) for until, s in _watch.starved()]


def late_s(began: float, ended: float | None = None) -> float:
    return _watch.late_s(began, time.monotonic() if ended is None else ended)


def took_s(began: float, ended: float | None = None) -> float:
    """Return the seconds since `began` by the monotonic clock, minus those that the machine was late."""
    ended = time.monotonic() if ended is None else ended
    return ended - began - late_s(began, ended)


def late_ms(from_ms: float, to_ms: float) -> float:
    """Return the lateness in an interval of the wall clock, in epoch ms."""
    offset = time.time() - time.monotonic()
    return late_s(from_ms / 1000 - offset, to_ms / 1000 - offset) * 1000


def stalled_ms(from_ms: float, to_ms: float) -> float:
    offset = time.time() - time.monotonic()
    return _watch.stalled_s(from_ms / 1000 - offset, to_ms / 1000 - offset) * 1000


def took_ms(from_ms: float, to_ms: float) -> float:
    return to_ms - from_ms - late_ms(from_ms, to_ms)


def lasted(from_ms: float, to_ms: float, least_ms: float, below_ms: float) -> None:
    """Fail if the interval, in epoch ms, was shorter or longer: either of its ends may be late."""
    late, took = late_ms(from_ms, to_ms), to_ms - from_ms
    assert least_ms <= took + late and took - late < below_ms, (
        f"it lasted {took:.0f} ms, the machine was late for {late:.0f} of them: not {least_ms:g} to {below_ms:g}"
    )


class Patience:
    """A deadline of `within_s` seconds on a machine that is never late, and of at most four times as much on any
    machine."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._began = time.monotonic()

    @property
    def left_s(self) -> float:
        now = time.monotonic()
        return self._within_s + min(late_s(self._began, now), MAX_PATIENCE * self._within_s) - (now - self._began)

    @property
    def over(self) -> bool:
        return self.left_s < 0


@contextlib.asynccontextmanager
async def timeout(within_s: float = SOON_S) -> AsyncIterator[None]:
    """Limit a block as asyncio.timeout does, but with Patience."""
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
