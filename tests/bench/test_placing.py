"""Test of the benchmark of placed calls. Its times need an idle machine, so none of them is asserted."""

from __future__ import annotations

import asyncio

from tests.bench.placing import Figures, run, told


def test_calls_are_placed_and_compared_and_none_fails():
    found = asyncio.run(run(["invite", "both"], 3, 2.0, 2.0))
    assert [len(found.invite_ms[variant]) for variant in ("ours", "bare", "errands")] == [3, 3, 3]
    assert all(ms > 0 for times in found.invite_ms.values() for ms in times)
    assert found.failures == {} and (found.placed, found.arrived, found.joined) == (4, 4, 8)
    assert len(told(found)) == 5


def test_a_ratio_that_exceeds_the_goal_is_said():
    found = Figures({"ours": [10.0] * 20 + [90.0], "bare": [8.0] * 21, "errands": [10.0] * 21})
    assert told(found) == [
        "API request to INVITE, median: 1.25 times a bare originate (10.0 and 8.0 ms); goal 2: yes",
        "API request to INVITE, median: 1.00 times an application that loses no call (10.0 and 10.0 ms); goal 2: yes",
        "API request to INVITE, p95: 10.25 times a bare originate (82.0 and 8.0 ms); goal 2: no",
        "API request to INVITE, p95: 8.20 times an application that loses no call (82.0 and 10.0 ms); goal 2: no",
    ]
