"""Tests of `lateness`: it must tell a late machine from one that is not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import lateness
from tests.lateness import MAX_PATIENCE, MAX_SHARE, TICK_S, Patience, Threads, Watch


@pytest.fixture
def watch() -> Watch:
    """Return a Watch that the test drives with ticks."""
    watch = Watch()
    watch._at = [0.0]
    return watch


def test_process_woken_in_time_is_not_late(watch: Watch) -> None:
    for _ in range(100):
        watch.tick(TICK_S + 0.001, 0.0)
    assert watch.late_s(0, 1) == watch.stalled_s(0, 1) == 0


def test_process_woken_late_is_late_by_the_difference(watch: Watch) -> None:
    for passed in (TICK_S, 0.5, TICK_S):
        watch.tick(passed, 0.0)
    for found in (watch.late_s, watch.stalled_s):
        assert found(0, 10) == pytest.approx(0.5 - TICK_S, abs=0.005)
        assert found(0, 0.005) == 0
        assert found(0.26, 0.51) == pytest.approx(0.25 * MAX_SHARE, abs=0.02), "of a part of it, that part"


def test_waiting_for_a_processor_counts_as_late(watch: Watch) -> None:
    for _ in range(100):
        watch.tick(TICK_S, TICK_S / 4)
    assert watch.late_s(0, 1) == pytest.approx(0.25)
    assert watch.stalled_s(0, 1) == 0


def test_watched_process_is_late_while_the_watcher_is_woken(watch: Watch) -> None:
    for starved in (0.0, 0.3, 0.0):
        watch.tick(TICK_S, 0.0, starved)
    assert watch.stalled_s(0, 10) == pytest.approx(0.3)
    assert [s for _, s in watch.starved()] == [0.3]


def test_a_thread_that_shares_its_processor_waits() -> None:
    processor = str(min(os.sched_getaffinity(0)))
    busy = [subprocess.Popen(("taskset", "-c", processor, "sha256sum", "/dev/zero")) for _ in range(2)]
    try:
        threads = [Threads(process.pid) for process in busy]
        patience, waited = Patience(10), [0.0, 0.0]
        while min(waited) < 0.2:
            assert not patience.over, waited
            time.sleep(0.05)
            waited = [before + each.longest_s() for before, each in zip(waited, threads, strict=True)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [each.longest_s() for each in threads] == [0, 0], "of one that is gone"


def test_one_that_is_stopped_does_not_wait() -> None:
    """Check that a stopped process has no excuse, whatever stopped it."""
    with subprocess.Popen(("sha256sum", "/dev/zero")) as process:
        try:
            os.kill(process.pid, signal.SIGSTOP)
            while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                time.sleep(0.01)
            threads = Threads(process.pid)
            time.sleep(0.3)
            assert threads.longest_s() == 0
        finally:
            process.kill()


def test_a_limit_is_at_most_ten_times_as_long(watch: Watch) -> None:
    watch.tick(100.0, 0.0)
    assert watch.late_s(10, 20) == pytest.approx(9)


async def test_a_late_machine_extends_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness._watch, "late_s", lambda began, ended: 0.5 * (ended - began))
    patience = Patience(0.6)
    async with lateness.timeout(0.6):
        await asyncio.sleep(1)
    assert not patience.over


async def test_a_deadline_is_extended_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness._watch, "late_s", lambda began, ended: MAX_SHARE * (ended - began))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with lateness.timeout(0.1):
            await asyncio.Event().wait()
    assert time.monotonic() - began >= 0.1 * (1 + MAX_PATIENCE)
    assert lateness.took_s(began) == pytest.approx((1 - MAX_SHARE) * (time.monotonic() - began), rel=0.1)


async def test_a_wait_in_vain_is_reported() -> None:
    with pytest.raises(TimeoutError):
        async with lateness.timeout(0.05):
            await asyncio.Event().wait()


def test_slow_step_fails_and_says_how_long() -> None:
    now = time.time() * 1000
    lateness.lasted(now - 1000, now, 990, 1010)
    for least, below in ((0, 90), (12_000, 13_000)):
        with pytest.raises(AssertionError, match="it lasted 1000 ms"):
            lateness.lasted(now - 1000, now, least, below)
