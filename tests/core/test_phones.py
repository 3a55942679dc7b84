"""Phones within a call: they hold, stop sending, or begin another stream; and what is sent to them."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.elements import GetDigits, Play, Wait
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.reconciliation.plan import expectations, make_plan
from tests.core.stage import START, Stage, players, stay, waiting


@pytest.fixture
def stage() -> Stage:
    return Stage()


def floor(stage: Stage) -> list[str]:
    return [reported for reported in stage.callback_texts() if reported.startswith("floor")]


def added(stage: Stage) -> list[str]:
    return [effect.channel_id for effect in stage.all(do.AddChannel)]


def muted(stage: Stage) -> list[tuple[str, bool]]:
    return [(effect.channel_id, effect.muted) for effect in stage.all(do.MuteChannel)]


def seen(stage: Stage, name: str, source: int) -> list[do.Effect]:
    return stage.tell(ev.StreamSeen(name, source))


# Hold.


def test_holding_member_is_heard_by_nobody_until_the_hold_ends(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.tell(ev.PhoneHeld("ann"), ev.PhoneHeld("ann"))
    assert stage.hears("bob") == set()
    stage.tell(ev.PhoneResumed("ann"), ev.PhoneResumed("ann"))
    assert stage.hears("bob") == {"ann"}
    assert muted(stage) == [("ann", True), ("ann", False)]
    assert not [reported for reported in stage.callback_texts() if reported.startswith("exit")]


def test_a_hold_that_ends_while_the_member_leaves_leaves_nobody_muted(stage: Stage) -> None:
    stage.call("ann", stay(), Wait(60))
    stage.call("bob", stay(end_conference_on_exit=True))
    stage.tell(ev.PhoneHeld("ann"))
    stage.held = {do.RemoveChannel}
    stage.hang_up("bob")
    stage.tell(ev.PhoneResumed("ann"))
    stage.let_go()
    assert muted(stage) == [("ann", True), ("ann", False)] and not stage.asterisk.channels["ann"].muted


def test_hold_and_mute_end_each_by_itself(stage: Stage) -> None:
    players(stage, "ann", muted=True)
    players(stage, "bob")
    stage.tell(ev.PhoneHeld("ann"), ev.PhoneResumed("ann"))
    assert muted(stage) == [("ann", True)]
    assert stage.hears("bob") == set()


def test_member_who_held_before_they_joined_is_not_heard(stage: Stage) -> None:
    players(stage, "bob")
    stage.call("ann", GetDigits(num_digits=1), stay())
    stage.tell(ev.PhoneHeld("ann"))
    stage.press("ann", "1")
    stage.go_on()
    assert stage.asterisk.channels["ann"].muted
    stage.tell(ev.PhoneResumed("ann"))
    assert not stage.asterisk.channels["ann"].muted


def test_the_floor_of_one_who_holds_is_anothers_who_talks(stage: Stage) -> None:
    players(stage, "ann", "bob", "cid", floor_event=True)
    for name in ("ann", "bob", "cid"):
        stage.talk(name)
        stage.pass_time(1)
    stage.tell(ev.PhoneHeld("ann"))
    assert floor(stage) == ["floor ann", "floor bob"]
    stage.tell(ev.TalkingStarted("ann"))
    stage.fall_silent("bob")
    stage.tell(ev.TalkingStarted("ann"))
    assert floor(stage) == ["floor ann", "floor bob"], "music takes no floor"


def test_talk_ends_with_the_hold(stage: Stage) -> None:
    players(stage, "ann", "bob", record=True)
    stage.talk("ann")
    stage.pass_time(3)
    stage.tell(ev.PhoneHeld("ann"))
    stage.pass_time(5)
    stage.hang_up("ann", "bob")
    assert [(note.start_ms, note.end_ms - note.start_ms) for note in stage.all(do.AddSpeechNote)] == [(START, 3000)]


# Sound that stops.


def test_talking_ends_with_the_sound_and_can_start_again(stage: Stage) -> None:
    players(stage, "ann", "bob", record=True, floor_event=True)
    stage.talk("ann")
    stage.talk("bob")
    stage.pass_time(5)
    stage.tell(ev.AudioStopped("ann", 1000))
    assert floor(stage) == ["floor ann", "floor bob"]
    assert [note.end_ms - note.start_ms for note in stage.all(do.AddSpeechNote)] == [4000]
    assert [(e.channel_id, e.silence_ms) for e in stage.all(do.DetectTalking)][-2:] == [("ann", None), ("ann", 500)]
    stage.tell(ev.AudioStopped("ann", 1500))
    assert len(stage.all(do.AddSpeechNote)) == 1


def test_the_floor_of_one_whose_sound_stops_is_free(stage: Stage) -> None:
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    stage.fall_silent("ann")
    stage.talk("ann")
    assert floor(stage) == ["floor ann"], "silence alone leaves the floor to ann"
    stage.tell(ev.AudioStopped("ann", 1000))
    (conference,) = stage.engine.conferences.values()
    assert conference.floor is None
    stage.talk("ann")
    assert floor(stage) == ["floor ann", "floor ann"]


@pytest.mark.parametrize(("for_ms", "ends_after"), [(1000, 1.0), (2000, 0.0), (3000, 0.0)])
def test_wait_silence_counts_from_the_last_sound(stage: Stage, for_ms: int, ends_after: float) -> None:
    stage.call("ann", GetDigits(num_digits=1), Wait(60, silence=True, min_silence=2000))
    stage.press("ann", "1")
    stage.talk("ann")
    stage.pass_time(5)
    stage.tell(ev.AudioStopped("ann", for_ms))
    stage.pass_time(max(ends_after - 0.1, 0))
    assert bool(stage.all(do.HangUp)) == (ends_after == 0)
    stage.pass_time(0.2)
    assert stage.all(do.HangUp)


def test_wait_silence_goes_on_when_they_talk_again(stage: Stage) -> None:
    stage.call("ann", GetDigits(num_digits=1), Wait(60, silence=True, min_silence=2000))
    stage.press("ann", "1")
    stage.talk("ann")
    stage.tell(ev.AudioStopped("ann", 1000))
    stage.talk("ann")
    stage.pass_time(10)
    assert not stage.all(do.HangUp)


# Another stream.


def test_another_stream_lets_its_channel_leave_and_enter_again_and_nobody_notices(stage: Stage) -> None:
    players(stage, "ann", "bob", floor_event=True, record=True)
    stage.talk("ann")
    before = stage.callback_texts(), len(stage.all(do.PlayMedia))
    seen(stage, "ann", 1)
    assert added(stage) == ["ann", "bob"], "the first stream that is seen is the channel's present one"
    stage.asterisk.begin_stream("ann")
    assert stage.hears("bob") == set()
    seen(stage, "ann", 2)
    seen(stage, "ann", 2)
    assert added(stage) == ["ann", "bob", "ann"]
    assert stage.hears("bob") == {"ann"}
    assert (stage.callback_texts(), len(stage.all(do.PlayMedia))) == before
    assert not stage.all(do.StopRecording) and not stage.all(do.AddSpeechNote)


def test_numbers_that_jumped_are_another_stream(stage: Stage) -> None:
    players(stage, "ann", "bob")
    seen(stage, "ann", 1)
    stage.tell(ev.StreamSeen("ann", 1, jumped=True))
    assert added(stage) == ["ann", "bob", "ann"]


def test_private_sound_ends_first(stage: Stage) -> None:
    stage.sounds["http://s/1"] = (Play("http://media.example/a.mp3"),)
    stage.call("ann", stay(wait_sound="http://s/1"))
    seen(stage, "ann", 1)
    seen(stage, "ann", 2)
    assert added(stage) == ["ann"]
    players(stage, "bob")
    assert added(stage).count("ann") == 2


@pytest.mark.parametrize("hangs_up", [True, False])
def test_member_who_leaves_during_the_reentry_is_out(stage: Stage, hangs_up: bool) -> None:
    players(stage, "ann", "bob", hangup_on_star=True)
    seen(stage, "ann", 1)
    stage.held.add(do.AddChannel)
    seen(stage, "ann", 2)
    if hangs_up:
        stage.hang_up("ann")
    else:
        stage.press("ann", "*")
    stage.let_go(do.AddChannel)
    stage.pass_time(10)
    assert len([reported for reported in stage.callback_texts() if reported.startswith("exit ann")]) == 1
    assert stage.asterisk.channels.get("ann") is None or stage.asterisk.channels["ann"].bridge is None


def test_member_whose_reentry_fails_continues_if_still_in_the_bridge(stage: Stage) -> None:
    players(stage, "ann", "bob")
    seen(stage, "ann", 1)
    effects = stage.engine.handle_event(ev.StreamSeen("ann", 2), stage.now)
    (again,) = [effect for effect in effects if isinstance(effect, do.AddChannel)]
    stage.tell(ev.EffectFailed(again, "Asterisk is tired", refused=True))
    conference = stage.conference()
    assert conference is not None
    assert [m.state for m in conference.members.values()] == [MemberState.IN_BRIDGE] * 2
    assert len(stage.problems()) == 1


def test_next_owner_continues_the_reentry(stage: Stage) -> None:
    """Only the process that died knew whether it was done."""
    players(stage, "ann", "bob")
    seen(stage, "ann", 1)
    stage.engine.handle_event(ev.StreamSeen("ann", 2), stage.now)
    bridge = stage.bridge_id()
    there = AsteriskState({"ann": True, "bob": True}, {bridge: frozenset({"ann", "bob"})})
    found = make_plan(stage.engine, expectations(stage.engine), there, why="takeover", ours=bool)
    assert [effect for effect in found.repeat if isinstance(effect, do.AddChannel)] == [do.AddChannel("ann", bridge, 1)]
    assert found.missed_events == []


# What is sent.


def test_caller_is_sent_silence_until_a_conference(stage: Stage) -> None:
    stage.call("ann", GetDigits(num_digits=1), stay())
    stage.tell(ev.NothingSent("ann"))
    assert stage.asterisk.channels["ann"].silence
    players(stage, "bob")
    stage.press("ann", "1")
    assert not stage.asterisk.channels["ann"].silence
    assert stage.hears("ann") == {"bob"}
    stage.tell(ev.NothingSent("ann"))
    assert not stage.asterisk.channels["ann"].silence, "ann would hear nothing else there"


def test_nobody_is_sent_silence_before_the_answer(stage: Stage) -> None:
    stage.call("ann", Wait(60), waiting())
    stage.tell(ev.NothingSent("ann"))
    assert not stage.asterisk.channels["ann"].silence
