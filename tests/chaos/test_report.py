from __future__ import annotations

import json

from tests.chaos.hearing import Finding
from tests.chaos.report import Report
from tests.chaos.seen import Injected, due


def report() -> Report:
    faults = [Injected("worker killed", 12_000, 14_000), Injected("application killed", 20_000, 22_500, 1.2)]
    return Report(7, 2.0, 24, 6, 10_000, faults, {"calls": 31, "longest gap, ms": 45.5})


def test_it_passes_when_nothing_is_wrong_and_nothing_is_left() -> None:
    assert report().passed
    one = report()
    one.left = {"/bridges": ["b1"]}
    assert not one.passed
    assert one.wrong() == ["left behind: /bridges: ['b1']; seed 7"]


def test_a_failure_names_the_preceding_fault_and_the_seed() -> None:
    one = report()
    one.add([Finding(21_000, "a gap"), Finding(11_000, "early"), Finding(0.0, "once")])
    assert not one.passed
    assert one.wrong() == [
        "once; seed 7",
        "at 1.0 s: early; seed 7",
        "at 11.0 s: a gap; before it: application killed at 10.0 s; seed 7",
    ]


def test_the_figures() -> None:
    text = report().table()
    assert text.splitlines()[0] == "seed 7, 2 min, 24 callers"
    assert [line.split("  ")[-1].strip() for line in text.splitlines()[1:]] == ["2", "1", "1", "31", "45.5"]
    one = report()
    one.left = {"names": {b"room": b"c0ffee"}}
    json.dumps(one.json())
    assert report().json()["by_kind"] == {"application killed": 1, "worker killed": 1}


def test_a_deadline_during_an_outage_moves_to_its_end() -> None:
    faults = [*report().faults, Injected("application paused", 23_000, 25_000)]
    assert due(15_000, faults) == 15_000
    assert due(12_500, faults) == 12_500, "a worker's fault delays no caller"
    assert due(21_000, faults) == 25_000
