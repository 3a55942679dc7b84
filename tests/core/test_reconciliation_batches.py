"""Reconciliation in batches finds what a single pass finds, and leaves to the end what can wait."""

from __future__ import annotations

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS
from ari_conf.core.elements import Play, Wait
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.reconciliation.batches import (
    expectations_by_owner,
    is_still_needed,
    plan_in_batches,
    split_deferrable,
)
from ari_conf.core.reconciliation.plan import ReconciliationPlan, expectations, make_plan
from tests.core.stage import Stage, players, stay


def many(stage: Stage) -> None:
    for name in ("east", "west", "south"):
        for who in ("ann", "bob"):
            stage.call(f"{who} {name}", stay(name=name, floor_event=True, muted=who == "bob"))
    for n in range(3):
        stage.call(f"singer{n}", Play("song"), Wait(60, silence=True))


def there(stage: Stage, gone: tuple[str, ...] = ()) -> AsteriskState:
    asterisk = stage.asterisk
    return AsteriskState(
        {c.channel_id: c.up for c in asterisk.channels.values() if c.channel_id not in gone},
        {b.bridge_id: frozenset(b.channels).difference(gone) for b in asterisk.bridges.values()}
        | {"nobody's": frozenset()},
        frozenset(asterisk.playbacks),
    )


def parts(stage: Stage, seen: AsteriskState) -> list[ReconciliationPlan]:
    before = dict(expectations_by_owner(stage.engine))
    return list(plan_in_batches(stage.engine, before, seen, why="takeover", ours=lambda _: True, conferences=1))


def test_part_by_part_the_same_is_found_as_at_once(stage: Stage) -> None:
    many(stage)
    seen = there(stage, gone=("ann east", "bob west", "singer1"))
    whole = make_plan(stage.engine, expectations(stage.engine), seen, why="takeover", ours=lambda _: True)
    found = parts(stage, seen)
    assert len(found) > 3
    assert sorted(map(repr, (e for part in found for e in part.repeat))) == sorted(map(repr, whole.repeat))
    assert sorted(map(repr, (e for part in found for e in part.missed_events))) == sorted(
        map(repr, whole.missed_events)
    )
    assert do.DestroyBridge("nobody's") in whole.repeat


def test_a_missed_hangup_is_in_the_batch_of_the_conference(stage: Stage) -> None:
    many(stage)
    reported = [part.missed_events for part in parts(stage, there(stage, gone=("ann east",)))]
    (missed,) = [events for events in reported if events]
    assert [type(event) for event in missed] == [ev.ChannelHungUp, ev.ChannelLeftBridge]


def test_events_between_two_batches_are_not_repeated(stage: Stage) -> None:
    many(stage)
    before = dict(expectations_by_owner(stage.engine))
    seen = there(stage, gone=("ann west",))
    in_parts = plan_in_batches(stage.engine, before, seen, why="takeover", ours=bool, conferences=1)
    assert next(in_parts).missed_events == []
    stage.hang_up("ann west")
    assert not [event for part in in_parts for event in part.missed_events]


def test_of_what_effects_are_just_changing_nothing_is_missed(stage: Stage) -> None:
    many(stage)
    before, seen = dict(expectations_by_owner(stage.engine)), there(stage, gone=("ann east",))
    for busy, reported in ((lambda _: False, 2), (lambda lane: lane == "ann east", 0)):
        found = plan_in_batches(stage.engine, before, seen, why="takeover", ours=bool, busy=busy)
        assert sum(len(part.missed_events) for part in found) == reported


def test_settings_most_likely_in_place_are_put_off(stage: Stage) -> None:
    many(stage)
    at_once, later = split_deferrable(stage.engine, [e for part in parts(stage, there(stage)) for e in part.repeat])
    detecting = [
        do.DetectTalking(f"{who} {name}", FLOOR_SILENCE_MS)
        for name in ("east", "west", "south")
        for who in ("ann", "bob")
    ]
    muting = [do.MuteChannel(f"bob {name}", True) for name in ("east", "west", "south")]
    assert later == muting + detecting, "muting comes first: nobody is to hear these members"
    assert not set(later) & set(at_once)
    assert do.DestroyBridge("nobody's") in at_once


def test_where_more_is_done_with_a_channel_all_keeps_its_order(stage: Stage) -> None:
    players(stage, "ann")
    undone = do.MuteChannel("ann", False)
    again = [undone, do.MuteChannel("ann", True), do.DetectTalking("ann", FLOOR_SILENCE_MS)]
    assert split_deferrable(stage.engine, again) == (again, [])


def test_a_wait_that_listens_for_silence_does_not_wait(stage: Stage) -> None:
    stage.call("ann", Wait(60, silence=True))
    again = [do.DetectTalking("ann", 2000)]
    assert split_deferrable(stage.engine, again) == (again, [])


def test_postponed_effect_runs_only_if_it_is_still_wanted(stage: Stage) -> None:
    players(stage, "ann", muted=True, floor_event=True)
    effects = [do.MuteChannel("ann", True), do.DetectTalking("ann", FLOOR_SILENCE_MS)]
    assert all(is_still_needed(stage.engine, effect) for effect in effects)
    assert not is_still_needed(stage.engine, do.DeafenChannel("ann", True))
    stage.tell(ev.CommandReceived("c1", api.ForConference("A", "standup", api.Mute((1,), False)), stage.now + 5000))
    assert [is_still_needed(stage.engine, effect) for effect in effects] == [False, True]
    stage.hang_up("ann")
    assert not any(is_still_needed(stage.engine, effect) for effect in effects)
