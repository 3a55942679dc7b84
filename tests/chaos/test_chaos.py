"""A short `make chaos`: the schedule is always the same, and only the machine's speed varies."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.report import Report
from tests.chaos.run import Plan, run
from tests.chaos.schedule import BY_NAME, schedule

SEED, MINUTES = 345, 0.9
LEFT_OUT = (
    "application killed",
    "both applications killed",
    "worker stopped",
    "worker paused",
    "web killed",
    "s3 killed",
)
KINDS = tuple(kind for kind in BY_NAME if kind not in LEFT_OUT)
"""The kinds of faults of this run, all of which occur; all kinds would take longer."""


def shown(report: Report) -> str:
    return "\n".join([report.table(), *report.wrong()])


async def test_nobody_on_the_phone_notices(tmp_path: Path) -> None:
    faults = schedule(SEED, MINUTES * 60, KINDS)
    report = await run(Plan(SEED, MINUTES), tmp_path, faults)
    print(shown(report))
    assert report.passed, shown(report)
    # The run was meaningful: every kind occurred, with all callers there.
    assert set(report.by_kind()) == set(KINDS)
    assert report.figures["pair-seconds listened to"] > 1000
    assert report.figures["recordings"] >= 3
    assert report.figures["mutes by the API"] >= 2
    assert report.figures["calls dialed"] >= 15 and report.figures["orders that were sent again"] >= 1
    assert report.moments >= 1, "it was never killed at the moment at which it was to be"


async def test_planted_fault_is_found(tmp_path: Path) -> None:
    plan = Plan(1, 0.1, callers=4, plant=frozenset({"silence", "callback", "bridge", "crash", "call"}), settles_s=10.0)
    report = await run(plan, tmp_path, [])
    assert report.left["/bridges"] == ["planted"]
    texts = [finding.text for finding in report.findings]
    assert any("does not hear" in text for text in texts), texts
    assert any("these numbers never came" in text for text in texts), texts
    assert any("dialed 2 times" in text for text in texts), texts
    assert "Asterisk ended with signal 6, and nobody had killed it" in texts, texts
