"""What is compared part by part is what is compared at once; and what may wait for calls to be served first."""

from __future__ import annotations

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conference import FLOOR_SILENCE_MS
from ari_conf.core.elements import Play, Wait
from ari_conf.core.reconcile import Compared, There, compared, expected
from ari_conf.core.reconcile_parts import compared_in_parts, expected_of_each, put_off, still_wanted
from tests.core.stage import Stage, players, stay


def many(stage: Stage) -> None:
    for name in ("east", "west", "south"):
        for who in ("ann", "bob"):
            stage.call(f"{who} {name}", stay(name=name, floor_event=True, muted=who == "bob"))
    for n in range(3):
        stage.call(f"singer{n}", Play("song"), Wait(60, silence=True))


def there(stage: Stage, gone: tuple[str, ...] = ()) -> There:
    asterisk = stage.asterisk
    return There(
        {c.channel_id: c.up for c in asterisk.channels.values() if c.channel_id not in gone},
        {b.bridge_id: frozenset(b.channels).difference(gone) for b in asterisk.bridges.values()}
        | {"nobody's": frozenset()},
        frozenset(asterisk.playbacks),
    )


def parts(stage: Stage, seen: There) -> list[Compared]:
    before = dict(expected_of_each(stage.directory))
    return list(compared_in_parts(stage.directory, before, seen, why="takeover", ours=lambda _: True, conferences=1))


def test_part_by_part_the_same_is_found_as_at_once(stage: Stage) -> None:
    many(stage)
    seen = there(stage, gone=("ann east", "bob west", "singer1"))
    whole = compared(stage.directory, expected(stage.directory), seen, why="takeover", ours=lambda _: True)
    found = parts(stage, seen)
    assert len(found) > 3
    assert sorted(map(repr, (e for part in found for e in part.again))) == sorted(map(repr, whole.again))
    assert sorted(map(repr, (e for part in found for e in part.missed))) == sorted(map(repr, whole.missed))
    assert do.DestroyBridge("nobody's") in whole.again


def test_who_hung_up_has_done_so_in_the_part_of_his_conference(stage: Stage) -> None:
    many(stage)
    told = [part.missed for part in parts(stage, there(stage, gone=("ann east",)))]
    (missed,) = [events for events in told if events]
    assert [type(event) for event in missed] == [ev.ChannelHungUp, ev.ChannelLeftBridge]


def test_what_events_tell_between_two_parts_is_not_told_once_more(stage: Stage) -> None:
    many(stage)
    before = dict(expected_of_each(stage.directory))
    seen = there(stage, gone=("ann west",))
    in_parts = compared_in_parts(stage.directory, before, seen, why="takeover", ours=bool, conferences=1)
    assert next(in_parts).missed == []
    stage.hang_up("ann west")
    assert not [event for part in in_parts for event in part.missed]


def test_of_what_effects_are_just_changing_nothing_is_missed(stage: Stage) -> None:
    many(stage)
    before, seen = dict(expected_of_each(stage.directory)), there(stage, gone=("ann east",))
    for busy, told in ((lambda _: False, 2), (lambda lane: lane == "ann east", 0)):
        found = compared_in_parts(stage.directory, before, seen, why="takeover", ours=bool, busy=busy)
        assert sum(len(part.missed) for part in found) == told


def test_what_is_most_likely_so_already_may_wait(stage: Stage) -> None:
    many(stage)
    at_once, later = put_off(stage.directory, [e for part in parts(stage, there(stage)) for e in part.again])
    detecting = [
        do.DetectTalking(f"{who} {name}", FLOOR_SILENCE_MS)
        for name in ("east", "west", "south")
        for who in ("ann", "bob")
    ]
    muting = [do.MuteChannel(f"bob {name}", True) for name in ("east", "west", "south")]
    assert later == muting + detecting, "who is to be heard by nobody is first"
    assert not set(later) & set(at_once)
    assert do.DestroyBridge("nobody's") in at_once


def test_where_more_is_done_with_a_channel_all_keeps_its_order(stage: Stage) -> None:
    players(stage, "ann")
    undone = do.MuteChannel("ann", False)
    again = [undone, do.MuteChannel("ann", True), do.DetectTalking("ann", FLOOR_SILENCE_MS)]
    assert put_off(stage.directory, again) == (again, [])


def test_a_wait_that_listens_for_silence_does_not_wait(stage: Stage) -> None:
    stage.call("ann", Wait(60, silence=True))
    again = [do.DetectTalking("ann", 2000)]
    assert put_off(stage.directory, again) == (again, [])


def test_what_was_put_off_is_done_only_if_it_still_is_to_be(stage: Stage) -> None:
    players(stage, "ann", muted=True, floor_event=True)
    effects = [do.MuteChannel("ann", True), do.DetectTalking("ann", FLOOR_SILENCE_MS)]
    assert all(still_wanted(stage.directory, effect) for effect in effects)
    assert not still_wanted(stage.directory, do.DeafenChannel("ann", True))
    stage.tell(ev.CommandReceived("c1", "A", "standup", api.Mute((1,), False), stage.now + 5000))
    assert [still_wanted(stage.directory, effect) for effect in effects] == [False, True]
    stage.hang_up("ann")
    assert not any(still_wanted(stage.directory, effect) for effect in effects)
