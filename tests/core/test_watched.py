"""Watched accounts: talking is detected for as long as a user looks at the account's conferences."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Wait
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.reconciliation.plan import expectations as expected
from ari_conf.core.reconciliation.plan import make_plan
from tests.core.stage import START, Stage, players, stay, waiting

LEASE_MS = 30_000


@pytest.fixture
def stage() -> Stage:
    return Stage()


def watch(stage: Stage, auth: str = "A") -> None:
    stage.tell(ev.AccountWatched(auth, stage.now + LEASE_MS))


def detected(stage: Stage) -> list[tuple[str, bool]]:
    return [(effect.channel_id, effect.silence_ms is not None) for effect in stage.all(do.DetectTalking)]


def talking(stage: Stage) -> set[str]:
    conference = stage.conference()
    assert conference is not None
    return {m.channel_id for m in conference.members.values() if m.talking}


def test_talking_is_detected_while_somebody_looks_and_no_longer(stage: Stage) -> None:
    players(stage, "ann", "bob")
    watch(stage)
    assert detected(stage) == [("ann", True), ("bob", True)]
    stage.talk("ann")
    assert talking(stage) == {"ann"}
    stage.pass_time(29)
    watch(stage)
    stage.pass_time(29)
    assert len(detected(stage)) == 2, "the watch was renewed in time"
    stage.pass_time(1)
    assert detected(stage)[2:] == [("ann", False), ("bob", False)]
    assert talking(stage) == set()
    assert stage.asterisk.channels["ann"].silence_ms is None


def test_a_late_talking_event_without_detection_is_ignored(stage: Stage) -> None:
    players(stage, "ann", "bob")
    watch(stage)
    stage.pass_time(31)
    stage.talk("ann")
    assert talking(stage) == set()


def test_it_holds_for_those_who_come_later_and_for_conferences_that_begin_later(stage: Stage) -> None:
    watch(stage)
    players(stage, "ann")
    stage.call("bob", waiting())
    assert detected(stage) == [("ann", True), ("bob", True)]
    stage.pass_time(31)
    assert len(detected(stage)) == 4
    stage.hang_up("ann", "bob")
    players(stage, "cid")
    assert len(detected(stage)) == 4


def test_others_conferences_are_not_concerned(stage: Stage) -> None:
    players(stage, "ann", "bob")
    watch(stage, "B")
    assert detected(stage) == []


def test_expired_watch_detects_nothing(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.tell(ev.AccountWatched("A", START))
    players(stage, "cid")
    assert detected(stage) == []


@pytest.mark.parametrize("needed", [{"floor_event": True}, {"record": True}], ids=["floorEvent", "record"])
def test_talk_detection_with_another_purpose_stays(stage: Stage, needed: dict[str, bool]) -> None:
    players(stage, "ann", "bob", **needed)
    watch(stage)
    stage.talk("ann")
    stage.pass_time(31)
    assert (detected(stage), talking(stage)) == ([("ann", True), ("bob", True)], {"ann"})


def test_talk_detection_stops_after_the_conference(stage: Stage) -> None:
    players(stage, "ann")
    stage.call("bob", stay(hangup_on_star=True), Wait(60))
    watch(stage)
    stage.press("bob", "*")
    stage.pass_time(31)
    assert detected(stage) == [("ann", True), ("bob", True), ("bob", False), ("ann", False)]


def test_the_floor_of_a_conference_that_nobody_looked_at_is_free(stage: Stage) -> None:
    players(stage, "ann", "bob")
    watch(stage)
    stage.talk("ann")
    conference = stage.conference()
    assert conference is not None and conference.floor == 1
    stage.pass_time(31)
    assert conference.floor is None


def test_talk_detection_restarts_after_a_reconnection(stage: Stage) -> None:
    """ann holds the floor, and bob talks as well: no event says whether they still do."""
    players(stage, "ann", "bob", "cid")
    watch(stage)
    stage.talk("ann")
    stage.talk("bob")
    channels = dict.fromkeys(("ann", "bob", "cid"), True)
    there = AsteriskState(channels, {stage.bridge_id(): frozenset(channels)}, frozenset(), frozenset())
    expectations = expected(stage.engine)
    found = make_plan(stage.engine, expectations, there, why="connection", ours=lambda _: False)
    assert found.missed_events == [ev.TalkingFinished("ann"), ev.TalkingFinished("bob")]
    assert found.repeat == [
        do.DetectTalking("ann", None),
        do.DetectTalking("ann", 500),
        do.DetectTalking("bob", None),
        do.DetectTalking("bob", 500),
    ]
