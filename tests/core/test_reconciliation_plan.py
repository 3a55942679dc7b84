"""Reconciliation plan: the cases in which the order counts, or what is left alone.

tests/simulation/test_crashes.py checks that a run that is cut ends like one that is not.
"""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import commands as api
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS
from ari_conf.core.elements import Play, Speak, Wait
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.reconciliation.plan import ReconciliationPlan, Why, expectations, make_plan
from ari_conf.core.recording import RecordingState
from tests.core.stage import Stage, players, stay


def there(stage: Stage, **instead: Any) -> AsteriskState:
    asterisk = stage.asterisk
    found = {
        "channels": {c.channel_id: c.up for c in asterisk.channels.values()},
        "bridges": {b.bridge_id: frozenset(b.channels) for b in asterisk.bridges.values()},
        "playbacks": frozenset(asterisk.playbacks),
        "recordings": frozenset(asterisk.recordings),
    }
    return AsteriskState(**{**found, **instead})


def found(stage: Stage, why: Why = "takeover", ours: tuple[str, ...] = (), **instead: Any) -> ReconciliationPlan:
    before = expectations(stage.engine)
    return make_plan(stage.engine, before, there(stage, **instead), why=why, ours=ours.__contains__)


def nothing_of(channel_id: str, effects: list[Any]) -> bool:
    return not any(getattr(effect, "channel_id", "") == channel_id for effect in effects)


def test_where_all_is_as_it_was_nothing_is_missed(stage: Stage) -> None:
    players(stage, "ann", "bob", record=True)
    stage.call("cid", Play("song"), Wait(5))
    assert found(stage).missed_events == []
    assert found(stage, why="connection") == ReconciliationPlan([], [])


def test_a_missed_hangup_comes_before_the_end_of_the_sound(stage: Stage) -> None:
    stage.call("bob", Play("song"))
    stage.call("ann", Play("song"), Speak("next"))
    missed = found(stage, channels={"bob": True}, playbacks=frozenset()).missed_events
    assert missed[0] == ev.ChannelHungUp("ann", 0)
    assert [type(event) for event in missed[1:]] == [ev.PlaybackFinished, ev.PlaybackFinished]


def test_a_missed_exit_comes_before_the_missed_hangup(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.held = {do.RemoveChannel, do.HangUp}
    member = ev.CommandReceived("c1", api.ForConference("A", "standup", api.HangUpMembers((1,))), stage.now + 5000)
    stage.tell(member)
    bridge = stage.bridge_id()
    again = [type(effect) for effect in found(stage).repeat if getattr(effect, "channel_id", "") == "ann"]
    assert again.index(do.RemoveChannel) < again.index(do.HangUp)
    missed = found(stage, channels={"bob": True}, bridges={bridge: frozenset({"bob"})}).missed_events
    assert missed == [ev.ChannelLeftBridge("ann", bridge), ev.ChannelHungUp("ann", 0)]


def test_a_sound_that_has_begun_and_is_gone_has_ended(stage: Stage) -> None:
    stage.call("ann", Play("song"))
    seen = found(stage, playbacks=frozenset())
    assert not [effect for effect in seen.repeat if isinstance(effect, do.PlayMedia)]
    assert seen.missed_events == [ev.PlaybackFinished("c.call-ann.2.1")]


def test_one_that_was_never_heard_to_begin_begins_for_who_takes_over(stage: Stage) -> None:
    stage.held = {do.PlayMedia}
    stage.call("ann", Play("song"))
    assert do.PlayMedia(do.Target("channel", "ann"), "c.call-ann.2.1", ("song",)) in found(stage).repeat
    assert found(stage).missed_events == []
    # A process that did not die is still starting the sound, or has missed its beginning and its end.
    assert found(stage, why="connection") == ReconciliationPlan([], [ev.PlaybackFinished("c.call-ann.2.1")])


def test_a_sound_of_the_api_that_ended_or_never_began(stage: Stage) -> None:
    """The interrupted element waits for it, and would otherwise wait forever."""
    stage.call("ann", Play("song"))
    addressed = api.ForCall("A", "call-ann", api.PlayToCall(Play("hello")))
    stage.tell(ev.CommandReceived("c1", addressed, stage.now + 5000))
    seen = found(stage, playbacks=frozenset())
    assert seen.missed_events == [ev.PlaybackFinished("c.call-ann.live.1.1")]
    assert not [effect for effect in seen.repeat if isinstance(effect, do.PlayMedia)]
    stage.tell(*seen.missed_events)
    assert stage.media("ann") == ["song", "hello", "song"]
    stage.held = {do.PlayMedia}
    stage.tell(ev.CommandReceived("c2", addressed, stage.now + 5000))
    assert do.PlayMedia(do.Target("channel", "ann"), "c.call-ann.live.2.1", ("hello",)) in found(stage).repeat


def command(stage: Stage, *wanted: api.ConferenceCommand) -> None:
    for each in wanted:
        stage.tell(
            ev.CommandReceived(f"c{len(stage.effects)}", api.ForConference("A", "standup", each), stage.now + 5000)
        )


@pytest.mark.parametrize(
    ("kind", "on", "off"),
    [
        (do.MuteChannel, api.Mute((1,), True), api.Mute((1,), False)),
        (do.DeafenChannel, api.Deafen((1,), True), api.Deafen((1,), False)),
        (do.StopMusic, api.Hold((1,), True), api.Hold((1,), False)),
    ],
)
def test_switch_off_is_not_repeated_once_it_is_on_again(
    stage: Stage, kind: type[Any], on: api.ConferenceCommand, off: api.ConferenceCommand
) -> None:
    players(stage, "ann", "bob")
    command(stage, on, off)
    is_off = stage.all(kind)[-1]
    assert is_off in found(stage).repeat, "its request may have died with the process that was to make it"
    stage.pass_time(3600)
    command(stage, on)
    again = [effect for effect in found(stage).repeat if getattr(effect, "channel_id", "") == "ann"]
    assert is_off not in again


def test_listening_that_was_ended_and_has_begun_once_more_is_not_ended_again(stage: Stage) -> None:
    players(stage, "ann", "bob")
    for _ in range(2):
        stage.tell(ev.AccountWatched("A", stage.now + 1000))
        listened, stage_now = found(stage).repeat, stage.now
        stage.pass_time(2)
        assert do.DetectTalking("ann", None) not in listened, stage_now
        assert do.DetectTalking("ann", None) in found(stage).repeat


def test_a_recording_that_was_to_end_is_ended_also_if_another_has_begun(stage: Stage) -> None:
    players(stage, "ann")
    stage.held = {do.StopRecording}
    command(stage, api.Record("first"), api.StopRecording())
    (stop,) = stage.waiting
    assert found(stage).repeat.count(stop) == 1
    stage.pass_time(6)
    stage.give_up()
    command(stage, api.Record("second"))
    assert stop in found(stage).repeat
    assert not [e for e in found(stage).repeat if isinstance(e, do.StopRecording) and e.recording_id == "second"]


def test_a_beep_is_listened_for_again(stage: Stage) -> None:
    stage.call("ann", Wait(60, beep=True))
    assert do.DetectBeep("ann", True, "call-ann") in found(stage).repeat


def test_an_announcement_that_was_to_stop_is_stopped(stage: Stage) -> None:
    players(stage, "ann")
    stage.tell(ev.CommandReceived("c1", api.ForConference("A", "standup", api.Announce(Play("all"))), stage.now + 5000))
    stage.held = {do.StopPlayback}
    stage.tell(ev.CommandReceived("c2", api.ForConference("A", "standup", api.StopAnnouncing()), stage.now + 5000))
    (stopping,) = stage.waiting
    assert stopping in found(stage).repeat
    assert stopping not in found(stage, bridges={}).repeat, "gone with its bridge"


def test_a_recording_that_ran_and_is_gone_is_not_begun_again(stage: Stage) -> None:
    players(stage, "ann", record=True)
    seen = found(stage, recordings=frozenset())
    assert not [effect for effect in seen.repeat if isinstance(effect, do.StartRecording)]
    assert [type(event) for event in seen.missed_events] == [ev.RecordingFinished]


def test_a_recording_with_a_missed_start_began_when_it_was_requested(stage: Stage) -> None:
    stage.held = {do.StartRecording}
    players(stage, "ann", record=True)
    conference = stage.conference()
    assert conference is not None and conference.newest_recording is not None
    (missed,) = found(stage, recordings=frozenset({conference.newest_recording.recording_id})).missed_events
    asked, stage.now = stage.now, stage.now + 3000
    stage.tell(missed)
    assert (
        conference.newest_recording.state is RecordingState.RUNNING and conference.newest_recording.started_at == asked
    )


def test_the_floor_of_a_member_who_fell_silent_becomes_free(stage: Stage) -> None:
    players(stage, "ann", "bob", floor_event=True)
    stage.talk("ann")
    seen = found(stage, why="connection")
    assert seen.missed_events == [ev.TalkingFinished("ann")]
    # If ann keeps talking, Asterisk reports it again, and ann still has the floor.
    assert seen.repeat == [do.DetectTalking("ann", None), do.DetectTalking("ann", FLOOR_SILENCE_MS)]
    stage.tell(*seen.missed_events, ev.TalkingStarted("ann"))
    assert stage.callback_texts().count("floor ann") == 1
    stage.tell(ev.TalkingFinished("ann"), ev.TalkingStarted("bob"))
    assert stage.callback_texts()[-1] == "floor bob"


def test_one_in_the_bridge_who_is_no_member_is_removed(stage: Stage) -> None:
    players(stage, "ann")
    bridge = stage.bridge_id()
    seen = found(stage, why="connection", bridges={bridge: frozenset({"ann", "ghost"})})
    assert seen.repeat == [do.RemoveChannel("ghost", bridge)]


def test_a_bridge_of_nobody_is_removed_and_anothers_is_not(stage: Stage) -> None:
    players(stage, "ann")
    bridge = stage.bridge_id()
    bridges = {bridge: frozenset({"ann"}), "orphan": frozenset({"x"}), "another's": frozenset({"y"})}
    again = found(stage, ours=(bridge, "orphan"), bridges=bridges).repeat
    assert [effect for effect in again if isinstance(effect, do.DestroyBridge)] == [do.DestroyBridge("orphan")]
    assert not [effect for effect in again if isinstance(effect, do.RemoveChannel)]
    assert nothing_of("x", again) and nothing_of("y", again)


def test_events_since_the_snapshot_are_not_repeated(stage: Stage) -> None:
    players(stage, "ann", "bob")
    before = expectations(stage.engine)
    before_he_is_held = there(stage, bridges={stage.bridge_id(): frozenset({"bob"})})
    assert make_plan(stage.engine, before, before_he_is_held, why="connection", ours=bool).missed_events
    stage.tell(ev.CommandReceived("c1", api.ForConference("A", "standup", api.Hold((1,), True)), stage.now + 5000))
    assert make_plan(stage.engine, before, before_he_is_held, why="connection", ours=bool).missed_events == []


# On the timer.


def test_while_nothing_is_lost_nothing_is_done(stage: Stage) -> None:
    players(stage, "ann", "bob", floor_event=True, record=True)
    stage.call("cid", Play("song"), Wait(5))
    stage.call("dan", Wait(60, silence=True))
    stage.talk("ann")
    stage.talk("dan")
    command(stage, api.Mute((2,), True), api.Hold((2,), True), api.Announce(Play("one")), api.Announce(Play("two")))
    assert len(stage.asterisk.playbacks) == 3, "one of them waits"
    assert found(stage, why="timer") == ReconciliationPlan([], [])
    conference = stage.conference()
    assert conference is not None and conference.floor == 1 and conference.members[1].talking


def test_lost_events_are_delivered(stage: Stage) -> None:
    """The timer finds it although the connection was not interrupted."""
    players(stage, "ann", "bob", record=True)
    stage.call("cid", Play("song"), Wait(5))
    stage.call("dan", Wait(60))
    bridge = stage.bridge_id()
    seen = found(
        stage,
        why="timer",
        channels={"ann": True, "bob": True, "cid": True},
        bridges={bridge: frozenset({"ann"})},
        playbacks=frozenset(),
        recordings=frozenset(),
    )
    assert seen.repeat == []
    assert seen.missed_events[0] == ev.ChannelHungUp("dan", 0)
    assert set(seen.missed_events[1:]) == {
        ev.ChannelLeftBridge("bob", bridge),
        ev.PlaybackFinished("c.call-cid.2.1"),
        ev.RecordingFinished(stage.conference_id(), "id2"),
    }
    assert found(stage, why="timer", bridges={}).missed_events[0] == ev.BridgeDestroyed(bridge)


@pytest.mark.parametrize("why", ["timer", "connection", "takeover"])
def test_a_member_who_is_on_hold_and_in_the_bridge_is_removed(stage: Stage, why: Why) -> None:
    players(stage, "ann", "bob")
    command(stage, api.Hold((2,), True))
    bridge = stage.bridge_id()
    again = found(stage, why, bridges={bridge: frozenset({"ann", "bob"})}).repeat
    assert [effect for effect in again if isinstance(effect, do.RemoveChannel)] == [do.RemoveChannel("bob", bridge)]


def test_a_member_who_left_and_came_back_since_somebody_looked_is_where_they_are(stage: Stage) -> None:
    players(stage, "ann", "bob")
    bridge = stage.bridge_id()
    before = expectations(stage.engine)
    command(stage, api.Hold((2,), True))
    looked = there(stage)
    assert looked.bridges[bridge] == {"ann"}
    command(stage, api.Hold((2,), False))
    assert make_plan(stage.engine, before, looked, why="timer", ours=bool) == ReconciliationPlan([], [])


def test_a_member_who_has_left_since_somebody_looked_is_not_removed_once_more(stage: Stage) -> None:
    players(stage, "ann", "bob")
    stage.call("cid", stay(hangup_on_star=True), Wait(60))
    before, looked = expectations(stage.engine), there(stage)
    stage.press("cid", "*")
    command(stage, api.Hold((2,), True))
    assert make_plan(stage.engine, before, looked, why="timer", ours=bool) == ReconciliationPlan([], [])


def test_a_call_that_came_or_went_since_somebody_looked_is_left_alone(stage: Stage) -> None:
    players(stage, "ann", "bob")
    before, looked = expectations(stage.engine), there(stage)
    stage.hang_up("ann")
    stage.call("cid", stay(), Play("song"))
    stage.call("dan", Play("song"))
    assert make_plan(stage.engine, before, looked, why="timer", ours=bool) == ReconciliationPlan([], [])
