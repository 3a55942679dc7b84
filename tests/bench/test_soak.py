"""Tests of the leak detection: it must find leaks, and ignore what only looks like one."""

from __future__ import annotations

import os
import random

import pytest

from tests.bench.memory import OfProcess, Sample, of_process
from tests.bench.soak import OURS, WATCHED, Plan, judged, slope


def samples(leak_kb: float = 0.0, leak_fds: float = 0.0, redis_kb: float = 0.0) -> list[Sample]:
    """Return samples of 3000 calls, with noise in each process and a warm-up; leaks are per 1000 calls, in `serve`."""
    dice = random.Random(1)
    found = []
    for calls in range(0, 3001, 20):
        warms = 8000 * min(calls / 800, 1)
        processes = {}
        for name in WATCHED:
            kb = 60_000 + warms + dice.uniform(-300, 300) + (5000 if dice.random() < 0.05 else 0)
            fds = 40.0 + dice.randrange(5)
            if name == "serve":
                kb, fds = kb + leak_kb * calls / 1000, fds + leak_fds * calls / 1000
            processes[name] = OfProcess(round(kb), round(fds))
        found.append(Sample(calls / 10, calls, processes, 5000 + redis_kb * calls / 1000))
    return found


def test_constant_memory_has_no_slope() -> None:
    found = judged(Plan(3000, 10.0), samples(), 300)
    assert found.wrong == []
    assert all(abs(found.slopes[name].kb_per_1000) < 100 for name in OURS)


def test_a_leak_of_memory() -> None:
    found = judged(Plan(3000, 10.0), samples(leak_kb=1500), 300)
    (wrong,) = found.wrong
    assert wrong.startswith("serve grows by 1")
    assert found.slopes["serve"].kb_per_1000 == pytest.approx(1500, abs=100)
    assert found.slopes["serve"].kb_per_hour == pytest.approx(36 * 1500, rel=0.1)


def test_a_leak_of_file_descriptors() -> None:
    (wrong,) = judged(Plan(3000, 10.0), samples(leak_fds=50), 300).wrong
    assert wrong.startswith("serve: ") and wrong.endswith("more file descriptors per 1000 calls")


def test_growth_of_redis_is_found() -> None:
    (wrong,) = judged(Plan(3000, 10.0), samples(redis_kb=2000), 300).wrong
    assert wrong == "Redis holds 2000 kB more per 1000 calls"


def test_a_peak_bends_nothing() -> None:
    assert slope([0, 1000, 2000, 3000, 4000], [1, 2, 3, 900, 5]) == pytest.approx(1, abs=0.5)
    assert slope([5], [1]) == 0.0


def test_a_process_is_measured_as_the_kernel_has_it() -> None:
    before = of_process(os.getpid())
    held, files = bytearray(os.urandom(20_000_000)), [open(os.devnull) for _ in range(10)]  # noqa: SIM115, PTH123
    after = of_process(os.getpid())
    assert 15_000 < after.kb - before.kb < 30_000
    assert after.fds - before.fds == 10
    for file in files:
        file.close()
    del held
