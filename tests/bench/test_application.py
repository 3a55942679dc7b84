"""Tests of the benchmark of the core and of the whole server: it works, and neither has become twice as slow."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench import core
from tests.bench.application import ROWS, run
from tests.bench.calibrated import step_us
from tests.bench.plays import TALKING, recorded

CORE_STEPS = {"a meeting": 21, "joins and leaves alone": 33}
"""The cost of an event in the core, in steps of the calibrated loop."""
JOIN_STEPS = 13_500
"""The cost of a join and a leave in the server, in the same unit."""
SLOWER = 1.7
"""The ratio that is a failure: above the differences between machines and Pythons, and below 2."""


def test_two_sizes_are_taken_over_and_compared(tmp_path: Path):
    sizes = ["--members", "40,80", "--conferences", "2", "--rounds", "2", "--seconds", "0.5", "--at-once", "2"]
    before = step_us()
    results = json.loads(run([*sizes, "--folder", str(tmp_path)]).read_text())
    step = max(before, step_us())
    assert set(results["application"]) == {"40", "80"}
    for found in results["application"].values():
        assert found.keys() >= ROWS.keys()
        assert found["joins_joins_per_s"] > 0
    assert results["core"].keys() >= core.MIXES.keys()
    for path in tmp_path.glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")
    join_us = min(found["joins_cpu_ms_per_join_and_leave"] for found in results["application"].values()) * 1000
    print(f"a join and a leave: {join_us / step:.0f} steps")
    assert join_us / step < JOIN_STEPS * SLOWER


@pytest.mark.parametrize("mix", core.MIXES)
def test_the_core_is_as_fast_as_it_was(mix: str):
    events = recorded(core.MIXES[mix], 20)
    # In turns, since a machine may become slower in the meantime; the best counts, since any may be disturbed.
    steps = [core.replay(events) / len(events) * 1e6 / step_us() for _ in range(5)]
    print(f"an event: {min(steps):.1f} to {max(steps):.1f} steps")
    assert min(steps) < CORE_STEPS[mix] * SLOWER


def test_a_play_is_the_same_each_time():
    assert recorded(TALKING, 2) == recorded(TALKING, 2)
