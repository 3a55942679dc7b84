"""Plays of people who are called into a conference: competing calls, the key that confirms, and the dial music."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core import invariants
from ari_conf.core.calls.call_state import CallState
from ari_conf.core.elements import Play, Speak
from ari_conf.core.placing import RINGBACK, Confirmation
from tests.core.stage import Stage, stay

STATUS = "http://status.example/"
PROMPT = "http://sounds.example/prompt"


@pytest.fixture
def stage() -> Stage:
    return Stage()


def call_in(stage: Stage, *names: str, **options: Any) -> None:
    """Call people into the conference `standup`."""
    stage.place(*names, **{"answer_url": None, "conference": stay(), "is_race": len(names) > 1, **options})


def state(stage: Stage, name: str) -> CallState | None:
    call = stage.call_of(name)
    assert call is None or list(invariants.call_violations(call)) == []
    return call.state if call is not None else None


def ended(stage: Stage, name: str) -> tuple[str, ...]:
    (said,) = stage.told(name, "Hangup")
    return said["CallStatus"], said["HangupCause"], said["HangupCauseCode"], said["HangupSource"]


def dial_music(stage: Stage) -> list[str]:
    """Return what plays into the conference."""
    (conference,) = stage.engine.conferences.values()
    return [
        item.url
        for player in conference.shared_playback.players.values()
        for item in player.items
        if isinstance(item, Play)
    ]


def test_whoever_answers_is_a_member_at_once_and_the_states_are_told(stage: Stage) -> None:
    call_in(stage, "ann", status_url=STATUS)
    stage.phone("ann", "ring")
    stage.phone("ann", "pick_up")
    assert state(stage, "ann") is CallState.IN_CONFERENCE
    stage.hang_up(stage.channel_of("ann"))
    told = [dict(e.params)["Event"] for e in stage.all(do.PostCallback) if e.url == STATUS]
    assert told == ["CallInitiated", "CallRinging", "CallAnswered", "CallCompleted"]
    stage.assert_nothing_is_left()


def test_the_first_who_answers_wins_and_the_others_are_canceled(stage: Stage) -> None:
    call_in(stage, "ann", "bob", "cid")
    for name in ("ann", "bob", "cid"):
        stage.phone(name, "ring")
    stage.phone("bob", "pick_up")
    assert state(stage, "bob") is CallState.IN_CONFERENCE
    for name in ("ann", "cid"):
        assert ended(stage, name) == ("cancel", "LOSE_RACE", "9000", "Plivo")
    canceled = {e.reason for e in stage.all(do.HangUp)}
    assert canceled == {"answered_elsewhere"}
    stage.hang_up(stage.channel_of("bob"))
    stage.assert_nothing_is_left()


def test_of_two_who_answer_the_first_who_presses_the_key_wins(stage: Stage) -> None:
    call_in(stage, "ann", "bob", confirmation=Confirmation("1"))
    stage.phone("ann", "pick_up")
    stage.phone("bob", "pick_up")
    assert state(stage, "ann") is state(stage, "bob") is CallState.CONFIRMING
    spoken = [e.sound.markup for e in stage.all(do.PrepareSound) if isinstance(e.sound, Speak)]
    assert spoken == ["You have a call. Press 1 to accept it."] * 2
    stage.press(stage.channel_of("bob"), "1")
    assert state(stage, "bob") is CallState.IN_CONFERENCE
    assert ended(stage, "ann") == ("completed", "LOSE_RACE", "9000", "Plivo")
    stage.hang_up(stage.channel_of("bob"))
    stage.assert_nothing_is_left()


def test_a_wrong_key_or_none_does_not_confirm(stage: Stage) -> None:
    call_in(stage, "ann", confirmation=Confirmation("1"))
    stage.phone("ann", "pick_up")
    channel = stage.channel_of("ann")
    stage.press(channel, "2")
    assert state(stage, "ann") is CallState.CONFIRMING
    for _ in range(40):
        stage.pass_time(1)
        while state(stage, "ann") is CallState.CONFIRMING and stage.asterisk.channels[channel].playbacks:
            stage.finish(channel)
    assert ended(stage, "ann") == ("completed", "NORMAL_CLEARING", "3020", "Callee")
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("is_there", [True, False])
def test_the_prompt_of_the_application_asks_for_the_key(stage: Stage, is_there: bool) -> None:
    if is_there:
        stage.sounds[PROMPT] = (Speak("Come in?"),)
    call_in(stage, "ann", confirmation=Confirmation("#", PROMPT))
    stage.phone("ann", "pick_up")
    (spoken,) = [e.sound.markup for e in stage.all(do.PrepareSound) if isinstance(e.sound, Speak)]
    assert spoken == ("Come in?" if is_there else "You have a call. Press pound to accept it.")
    stage.press(stage.channel_of("ann"), "#")
    assert state(stage, "ann") is CallState.IN_CONFERENCE


def test_those_in_the_conference_hear_ringing_until_the_answer(stage: Stage) -> None:
    stage.call("host", stay())
    call_in(stage, "ann", dial_music=RINGBACK)
    assert dial_music(stage) == [RINGBACK]
    stage.phone("ann", "pick_up")
    assert dial_music(stage) == []
    call_in(stage, "bob", dial_music="http://sounds.example/music")
    assert dial_music(stage) == ["http://sounds.example/music"]
    stage.refuse("bob", 17, 486)
    assert dial_music(stage) == []
    stage.hang_up("host", stage.channel_of("ann"))
    stage.assert_nothing_is_left()


def test_other_sounds_are_heard_in_place_of_the_dial_music(stage: Stage) -> None:
    stage.call("host", stay())
    call_in(stage, "ann", dial_music=RINGBACK)
    stage.call("guest", stay(enter_sound="beep:1"))
    assert dial_music(stage) == ["beep:1"]
    (conference,) = stage.engine.conferences.values()
    stage.finish(conference.bridge_id)
    assert dial_music(stage) == [RINGBACK]
    stage.hang_up("host", "guest")
    stage.phone("ann", "pick_up")
    assert state(stage, "ann") is CallState.IN_CONFERENCE


def test_nobody_hears_dial_music_of_another_conference(stage: Stage) -> None:
    stage.call("host", stay("other"))
    call_in(stage, "ann", dial_music=RINGBACK)
    assert dial_music(stage) == []


def test_one_who_loses_while_their_call_waits_for_its_turn_is_never_dialed(stage: Stage) -> None:
    stage.engine.registry.dial_pace = type(stage.engine.registry.dial_pace)(1.0)
    call_in(stage, "ann", "bob")
    assert state(stage, "bob") is CallState.QUEUED
    stage.phone("ann", "pick_up")
    assert stage.asterisk.dialed == ["PJSIP/ann@provider"]
    assert ended(stage, "bob") == ("cancel", "LOSE_RACE", "9000", "Plivo")
