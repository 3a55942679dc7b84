"""Tests of the dashboard's data, built from the state that the owner writes; a snapshot and the changes must agree."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from ari_conf.core import commands as do
from ari_conf.core import events as ev
from ari_conf.core.engine import Engine
from ari_conf.store.live_state import CallRecord, ConferenceRecord, decode
from ari_conf.store.state_codec import encode
from ari_conf.web import live_view
from ari_conf.web.conference_view import ConferenceView
from tests.core.stage import Stage, stay
from tests.simulation.test_simulation import COURSES, MOMENTS, play
from tests.simulation.world import World

SEEDS, STEPS = 6, 200


def records(engine: Engine) -> tuple[dict[str, ConferenceRecord], dict[str, CallRecord]]:
    """Return the conferences and calls as they would be read from Redis."""
    conferences = {key: decode(encode(c), ConferenceRecord) for key, c in engine.conferences.items()}
    calls = {key: decode(encode(c), CallRecord) for key, c in engine.calls.items()}
    assert None not in (*conferences.values(), *calls.values())
    return conferences, calls  # type: ignore[return-value]


def fresh(engine: Engine, auth_id: str = "A") -> live_view.View:
    conferences, calls = records(engine)
    return live_view.build_view(ConferenceView.of(c, calls) for c in conferences.values() if c.auth_id == auth_id)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def only(stage: Stage) -> dict[str, Any]:
    (conference,) = fresh(stage.engine).values()
    return dict(conference)


def members(stage: Stage) -> dict[str, dict[str, Any]]:
    """Return the members by the caller's name."""
    return {m["call_uuid"]: m for m in only(stage)["members"].values()}


def test_a_conference_and_its_members_are_shown(stage: Stage):
    stage.call("ann", stay())
    shown = only(stage)
    (ann,) = shown.pop("members").values()
    conference = stage.conference()
    assert conference is not None
    assert shown == {
        "conference_uuid": conference.conference_id,
        "conference_name": "standup",
        "started": True,
        "locked": False,
        "created_ms": conference.created_at,
        "recording": None,
    }
    assert (ann["from"], ann["to"]) == ("4930123", "100")
    assert (ann["state"], ann["muted"], ann["deaf"], ann["held"], ann["talking"], ann["floor"]) == (
        "in",
        *(False,) * 5,
    )


def test_waiting_member_is_shown_waiting(stage: Stage):
    stage.call("ann", stay(start_conference_on_enter=False))
    assert members(stage)[call(stage, "ann")]["state"] == "waiting"
    stage.call("bob", stay())
    assert {m["state"] for m in members(stage).values()} == {"in"}


def call(stage: Stage, name: str) -> str:
    return next(c.call_uuid for c in stage.engine.calls.values() if c.channel_id == name)


def test_muted_member_does_not_talk(stage: Stage):
    stage.call("ann", stay(floor_event=True))
    stage.call("bob", stay())
    stage.talk("ann")
    ann = call(stage, "ann")
    assert (members(stage)[ann]["talking"], members(stage)[ann]["floor"]) == (True, True)
    member = next(m.member_id for m in stage.conference().members.values() if m.channel_id == "ann")  # type: ignore[union-attr]
    stage.tell(ev.CommandReceived("c1", do.ForConference("A", "standup", do.Mute((member,), True)), stage.now + 1000))
    assert (members(stage)[ann]["talking"], members(stage)[ann]["floor"]) == (False, False)


def test_ended_things_are_removed_and_unchanged_ones_not_sent():
    member = {"state": "in", "muted": False}
    old = {"x": {"started": False, "recording": {"since_ms": 1}, "members": {"1": member, "2": member}}, "y": {}}
    new = {"x": {"started": True, "recording": None, "members": {"1": {**member, "muted": True}, "3": member}}}
    change = live_view.diff(old, new)
    assert change == {
        "x": {"started": True, "recording": None, "members": {"2": None, "1": {"muted": True}, "3": member}},
        "y": None,
    }
    assert live_view.apply_change(old, change) == new
    assert live_view.diff(new, new) == {}


class Watched(World):
    """A world in which a client watches the account A and receives what `serve` reports: the conferences that a step
    has touched."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: live_view.View = {}
        self.changes = 0

    def receive(self, event: ev.Event) -> None:
        super().receive(event)
        # The judge has already asked the engine, which reports each change only once.
        response, self.judge.touched = self.judge.touched, set()
        conferences, calls = records(self.engine)
        read = {key: value for key, value in self.shown.items() if key not in response}
        changed = [conferences[key] for key in response & conferences.keys() if conferences[key].auth_id == "A"]
        read |= live_view.build_view(ConferenceView.of(record, calls) for record in changed)
        change = json.loads(json.dumps(live_view.diff(self.shown, read)))
        self.changes += bool(change)
        self.shown = live_view.apply_change(self.shown, change)
        assert self.shown == fresh(self.engine), str(event)


@pytest.mark.parametrize("kinds", COURSES)
def test_snapshot_and_changes_are_a_fresh_snapshot_at_every_step(kinds: str):
    changes = talked = 0
    for seed in range(SEEDS):
        dice, world = Random(seed), Watched()
        for _ in range(STEPS):
            if dice.random() < 0.05:
                world.receive(ev.AccountWatched("A", world.now + dice.choice(MOMENTS)))
            # Changes of talking are the most frequent reports, and are checked here.
            play(world, (dice.choice((*COURSES[kinds], *("talk",) * 4)), dice.randrange(10_000)))
            talked += any(m["talking"] for c in world.shown.values() for m in c["members"].values())
        world.end()
        assert world.shown == {}
        changes += world.changes
    assert changes > SEEDS * 5
    assert talked > SEEDS
