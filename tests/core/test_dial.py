"""Plays of Dial: a document calls people, and the caller talks to the first who answers."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from ari_conf.core import commands as do_command
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import invariants
from ari_conf.core.calls.call_state import CallState
from ari_conf.core.dial_pace import DialPace
from ari_conf.core.elements import Dial, GetDigits, Hangup, Number, Play, Record, Speak, Wait
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.placing import RINGBACK
from ari_conf.core.restoration import Restoration
from tests.core.copies import copied
from tests.core.stage import ACTION, HANGUP, Stage

CALLBACK = "http://dial.example/"
AFTER = Wait(3600)


@pytest.fixture
def stage() -> Stage:
    return Stage(hangup_url=HANGUP)


def dial(stage: Stage, *numbers: str, then: tuple[Any, ...] = (AFTER,), **attributes: Any) -> None:
    """Let `host` call, with a document that dials these numbers."""
    stage.documents[ACTION] = (AFTER,)
    urls = {"action": ACTION, "callback_url": CALLBACK}
    stage.call("host", Dial(tuple(Number(number) for number in numbers), **(urls | attributes)), *then)


def check(stage: Stage) -> None:
    for call in stage.engine.calls.values():
        assert list(invariants.call_violations(call)) == []
    for conference in stage.engine.conferences.values():
        assert list(invariants.conference_violations(conference)) == []


def talks_to(stage: Stage, number: str) -> bool:
    channel = stage.channel_of(number)
    return any({"host", channel} <= set(bridge.channels) for bridge in stage.asterisk.bridges.values())


def rings(stage: Stage) -> list[str]:
    """Return what has been played to those in the conference."""
    (conference,) = stage.engine.conferences.values()
    return stage.media(conference.bridge_id)


def results(stage: Stage) -> list[dict[str, str]]:
    """Return the parameters of the element's action, without the UUIDs and the standard parameters."""
    found = [dict(e.params) for e in stage.effects if getattr(e, "source", getattr(e, "url", "")) == ACTION]
    names = "DialStatus", "DialRingStatus", "DialHangupCause"
    return [{name: params[name] for name in names} for params in found if "DialStatus" in params]


def callbacks(stage: Stage) -> list[str]:
    """Return the callbacks of the element: "answer bob", "hangup bob Lost Race"."""
    found = [dict(e.params) for e in stage.all(do.PostCallback) if e.url == CALLBACK]
    assert {params["CallUUID"] for params in found} <= {"call-host"}
    texts = [
        (params["DialAction"], params["DialBLegTo"], params.get("DialBLegHangupCauseName", "")) for params in found
    ]
    return [" ".join(filter(None, text)) for text in texts]


def hang_up(stage: Stage, number: str) -> None:
    stage.hang_up(stage.channel_of(number))


def test_the_caller_hears_ringing_and_then_talks_to_the_one_who_answers(stage: Stage) -> None:
    dial(stage, "bob")
    check(stage)
    assert rings(stage) == [RINGBACK]
    stage.phone("bob", "ring")
    stage.phone("bob", "pick_up")
    check(stage)
    assert talks_to(stage, "bob") and stage.hears("host") == {stage.channel_of("bob")}
    leg = stage.leg("bob")
    assert leg is not None and (leg.from_, leg.direction) == ("+4930123", "outbound")
    hang_up(stage, "bob")
    check(stage)
    assert results(stage) == [
        {"DialStatus": "completed", "DialRingStatus": "true", "DialHangupCause": "NORMAL_CLEARING"}
    ]
    assert callbacks(stage) == ["answer bob", "connected bob", "hangup bob Normal Hangup"]
    assert not stage.engine.conferences and stage.call_of("host") is not None
    stage.hang_up("host")
    stage.assert_nothing_is_left()


def test_nobody_else_sees_the_conference(stage: Stage) -> None:
    dial(stage, "bob")
    stage.phone("bob", "pick_up")
    (conference,) = stage.engine.conferences.values()
    addressed = do_command.ForConference("A", conference.name, do_command.Lock(True))
    stage.tell(ev.CommandReceived("lock", addressed, stage.now + 1000))
    (reply,) = stage.all(do.CommandReply)
    assert reply.status == 404
    stage.tell(ev.AccountWatched("A", stage.now + 60_000))
    assert not stage.all(do.DetectTalking)
    stage.hang_up("host")
    stage.assert_nothing_is_left()
    for kind in (do.ClaimName, do.ReleaseName, do.ArchiveConference, do.ArchiveMember):
        assert not stage.all(kind)
    assert {call.parent_call_uuid for call in stage.all(do.ArchiveCall)} == {None, "call-host"}


def test_the_caller_hangs_up_while_it_rings(stage: Stage) -> None:
    dial(stage, "bob")
    stage.phone("bob", "ring")
    stage.hang_up("host")
    stage.assert_nothing_is_left()
    assert results(stage) == [
        {"DialStatus": "cancel", "DialRingStatus": "true", "DialHangupCause": "ORIGINATOR_CANCEL"}
    ]
    assert callbacks(stage) == ["hangup bob Canceled"]
    assert stage.hangup_request("host")["HangupCauseCode"] == "4000"


def test_the_caller_hangs_up_during_the_talk(stage: Stage) -> None:
    dial(stage, "bob")
    stage.phone("bob", "pick_up")
    stage.hang_up("host")
    stage.assert_nothing_is_left()
    (result,) = results(stage)
    assert result["DialStatus"] == "completed"
    assert callbacks(stage)[-1] == "hangup bob Normal Hangup"


@pytest.mark.parametrize(
    ("cause", "sip", "status"), [(17, 486, "busy"), (21, 603, "busy"), (1, 404, "failed"), (18, 408, "no-answer")]
)
def test_a_phone_that_refuses(stage: Stage, cause: int, sip: int, status: str) -> None:
    dial(stage, "bob", action=None)
    stage.phone("bob", "ring")
    stage.refuse("bob", cause, sip)
    check(stage)
    call = stage.call_of("host")
    assert call is not None and call.state is CallState.RUNNING and call.dial is None
    dialed_again = Stage(hangup_url=HANGUP)
    dial(dialed_again, "bob")
    dialed_again.phone("bob", "ring")
    dialed_again.refuse("bob", cause, sip)
    (result,) = results(dialed_again)
    assert (result["DialRingStatus"], result["DialStatus"] != "completed") == ("true", True)


def test_several_ring_and_the_first_wins(stage: Stage) -> None:
    dial(stage, "bob", "cid", "dan")
    for number in ("bob", "cid", "dan"):
        stage.phone(number, "ring")
    stage.refuse("dan", 17, 486)
    stage.phone("cid", "pick_up")
    check(stage)
    assert stage.leg("bob") is None and talks_to(stage, "cid")
    hang_up(stage, "cid")
    assert callbacks(stage) == [
        "hangup dan Busy Line",
        "answer cid",
        "connected cid",
        "hangup bob Lost Race",
        "hangup cid Normal Hangup",
    ]
    assert results(stage)[0]["DialStatus"] == "completed"


def test_several_in_turn(stage: Stage) -> None:
    dial(stage, "bob", action=None, then=(Dial((Number("cid"),)), AFTER))
    stage.refuse("bob", 17, 486)
    stage.phone("cid", "pick_up")
    assert talks_to(stage, "cid")
    stage.hang_up("host")
    stage.assert_nothing_is_left()


def test_nobody_answers_within_the_timeout(stage: Stage) -> None:
    dial(stage, "bob", timeout=20)
    stage.phone("bob", "ring")
    stage.pass_time(19)
    assert stage.leg("bob") is not None
    stage.pass_time(2)
    assert stage.leg("bob") is None
    assert results(stage)[0]["DialStatus"] in ("no-answer", "timeout")
    stage.hang_up("host")
    stage.assert_nothing_is_left()


def test_the_time_limit_ends_the_talk_and_the_document_continues(stage: Stage) -> None:
    dial(stage, "bob", time_limit=60, action=None)
    stage.phone("bob", "pick_up")
    stage.pass_time(61)
    assert stage.leg("bob") is None
    assert callbacks(stage)[-1] == "hangup bob Scheduled Hangup"
    call = stage.call_of("host")
    assert call is not None and call.state is CallState.RUNNING


def test_what_may_not_be_dialed_is_a_problem_and_the_document_continues(stage: Stage) -> None:
    stage.denied = {"bob"}
    dial(stage, "bob", action=None)
    assert [text for _, text in stage.problems()] == ["Dial: the account may not call bob"]
    call = stage.call_of("host")
    assert call is not None and call.state is CallState.RUNNING and not stage.engine.conferences
    both = Stage(hangup_url=HANGUP)
    both.denied = {"bob"}
    dial(both, "bob", "cid")
    both.phone("cid", "pick_up")
    assert talks_to(both, "cid") and len(both.problems()) == 1


def test_nothing_is_dialed_for_a_caller_who_hangs_up_while_the_policy_is_asked(stage: Stage) -> None:
    stage.held = {do.AdmitDial}
    dial(stage, "bob")
    check(stage)
    stage.hang_up("host")
    stage.let_go()
    stage.assert_nothing_is_left()
    assert not stage.all(do.CreateChannel) and not stage.all(do.Answer)


def test_a_policy_that_can_not_be_asked_refuses(stage: Stage) -> None:
    stage.held = {do.AdmitDial}
    dial(stage, "bob", action=None)
    stage.tell(ev.EffectFailed(stage.give_up(), "internal error"))
    assert [text for _, text in stage.problems()] == ["Dial: internal error"]
    assert not stage.all(do.CreateChannel)


def test_only_who_presses_the_key_is_connected(stage: Stage) -> None:
    stage.sounds["http://sounds.example/key"] = (Speak("A call for you"),)
    dial(stage, "bob", "cid", confirm_key="5", confirm_sound="http://sounds.example/key", confirm_timeout=9)
    stage.phone("bob", "pick_up")
    stage.phone("cid", "pick_up")
    (asked, _) = [e for e in stage.all(do.PrepareSound) if isinstance(e.sound, Speak)]
    assert asked.sound == Speak("A call for you") and not talks_to(stage, "bob")
    leg = stage.leg("bob")
    assert leg is not None and getattr(leg.running, "element", None) == GetDigits(
        (Speak("A call for you"),),
        timeout=9,
        finish_on_key="",
        num_digits=1,
        retries=3,
        valid_digits="5",
        log=False,
    )
    stage.press(stage.channel_of("cid"), "5")
    assert talks_to(stage, "cid") and stage.leg("bob") is None
    assert callbacks(stage) == ["answer bob", "answer cid", "connected cid", "hangup bob Lost Race"]


def test_the_star_ends_the_talk(stage: Stage) -> None:
    dial(stage, "bob", hangup_on_star=True)
    stage.phone("bob", "pick_up")
    stage.press("host", "*")
    assert stage.leg("bob") is None and results(stage)[0]["DialStatus"] == "completed"
    without = Stage(hangup_url=HANGUP)
    dial(without, "bob")
    without.phone("bob", "pick_up")
    without.press("host", "*")
    assert talks_to(without, "bob")


def test_digits_that_are_waited_for_are_told(stage: Stage) -> None:
    dial(stage, "bob", digits_match=("12",), digits_match_b_leg=("34",))
    stage.press("host", "12")
    stage.phone("bob", "pick_up")
    leg = stage.leg("bob")
    assert leg is not None
    stage.press("host", "1234")
    stage.press(stage.channel_of("bob"), "1234")
    stage.pass_time(10)
    told = [dict(e.params) for e in stage.all(do.PostCallback) if "DialDigitsMatch" in dict(e.params)]
    digits = [(params["DialDigitsMatch"], params["DialDigitsPressedBy"], params["Event"]) for params in told]
    assert digits == [("12", "call-host", "DialDigitsMatch"), ("34", leg.call_uuid, "DialDigitsMatch")]
    assert not stage.callbacks()


def test_headers_digits_and_music(stage: Stage) -> None:
    number = Number("bob", send_digits="1", sip_headers=(("X-PH-B", "2"),))
    element = Dial((number,), caller_id="+4930999", caller_name="Sales", dial_music="http://sounds.example/jazz",
                   sip_headers=(("X-PH-A", "1"),))  # fmt: skip
    stage.call("host", element)
    (created,) = stage.all(do.CreateChannel)
    assert created.headers == (("X-PH-A", "1"), ("X-PH-B", "2"))
    (asked,) = stage.all(do.AdmitDial)
    assert (asked.caller_ids, asked.caller_name) == (("+4930999",), "Sales")
    assert rings(stage) == ["http://sounds.example/jazz"]
    stage.phone("bob", "pick_up")
    assert [e.digits for e in stage.all(do.SendDigits)] == ["1"]
    assert stage.hears("host") == {stage.channel_of("bob")}


def test_a_recording_begins_at_the_answer(stage: Stage) -> None:
    record = Record(start_on_dial_answer=True)
    stage.call("host", record, Dial((Number("bob"),)), AFTER)
    assert not stage.all(do.StartRecording)
    stage.phone("bob", "pick_up")
    assert stage.all(do.StartRecording)
    assert stage.problems() == []


def test_the_api_hangs_the_second_leg_up(stage: Stage) -> None:
    dial(stage, "bob", action=None)
    stage.phone("bob", "pick_up")
    leg = stage.leg("bob")
    assert leg is not None
    addressed = do_command.ForCall("A", leg.call_uuid, do_command.HangUpCall())
    stage.tell(ev.CommandReceived("c", addressed, stage.now + 1000))
    call = stage.call_of("host")
    assert call is not None and call.state is CallState.RUNNING and stage.leg("bob") is None
    check(stage)


def send(stage: Stage, command: Any) -> int:
    stage.tell(ev.CommandReceived("c", do_command.ForCall("A", "call-host", command), stage.now + 1000))
    return stage.all(do.CommandReply)[-1].status


@pytest.mark.parametrize("legs", ["aleg", "bleg", "both"])
def test_a_transfer_of_either_leg_or_both(stage: Stage, legs: Any) -> None:
    dial(stage, "bob")
    stage.phone("bob", "pick_up")
    for name in ("aleg", "bleg"):
        stage.documents[f"http://{name}.example/"] = (AFTER,)
    assert send(stage, do_command.Transfer(legs, "http://aleg.example/", "POST", "http://bleg.example/", "GET")) == 202
    check(stage)
    fetched = {e.source for e in stage.all(do.FetchDocument)}
    wanted = {"aleg": {"http://aleg.example/"}, "bleg": {"http://bleg.example/"}}
    wanted["both"] = wanted["aleg"] | wanted["bleg"]
    assert fetched & wanted["both"] == wanted[legs]
    assert (stage.leg("bob") is None) == (legs == "aleg")
    # The document of one who is left behind continues: with the action.
    assert len(results(stage)) == (legs == "bleg")
    assert not stage.engine.conferences


def test_a_transfer_by_the_uuid_of_the_second_leg(stage: Stage) -> None:
    """The caller does not wait for somebody who talks elsewhere."""
    dial(stage, "bob")
    stage.phone("bob", "pick_up")
    leg = stage.leg("bob")
    assert leg is not None
    stage.documents["http://alone.example/"] = (AFTER,)
    command = do_command.Transfer("aleg", "http://alone.example/", "POST", "", "POST")
    stage.tell(ev.CommandReceived("c", do_command.ForCall("A", leg.call_uuid, command), stage.now + 1000))
    assert stage.all(do.CommandReply)[-1].status == 202
    check(stage)
    assert stage.leg("bob") is not None and len(results(stage)) == 1
    assert not stage.engine.conferences
    hang_up(stage, "host")
    assert stage.leg("bob") is not None
    stage.hang_up(stage.channel_of("bob"))
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("key", ["5", "6"])
def test_the_caller_hears_the_ringing_until_the_key_is_pressed(stage: Stage, key: str) -> None:
    dial(stage, "bob", confirm_key="5")
    (conference,) = stage.engine.conferences.values()
    stage.phone("bob", "pick_up")
    assert conference.shared_playback.players and conference.dial_music
    bob = stage.channel_of("bob")
    stage.press(bob, key)
    if key == "5":
        assert talks_to(stage, "bob")
        assert not conference.shared_playback.players and not conference.dial_music
    else:
        hang_up(stage, "bob")
        assert [found["DialStatus"] for found in results(stage)] == ["no-answer"]


def test_sounds_and_digits_for_either_leg(stage: Stage) -> None:
    dial(stage, "bob")
    assert send(stage, do_command.SendDigitsToCall("1", "bleg")) == 409
    stage.phone("bob", "pick_up")
    assert send(stage, do_command.SendDigitsToCall("1", "bleg")) == 202
    assert send(stage, do_command.SendDigitsToCall("2", "both")) == 202
    stage.pass_time(5)
    bob = stage.channel_of("bob")
    sent = [(e.channel_id, e.digits) for e in stage.all(do.SendDigits)]
    assert sorted(sent) == sorted([(bob, "1"), (bob, "2"), ("host", "2")])


def test_what_becomes_of_the_legs_is_lost(stage: Stage) -> None:
    """A defect, or a damaged record: the caller does not wait without end."""
    dial(stage, "bob", timeout=20)
    leg = stage.leg("bob")
    assert leg is not None and leg.outgoing is not None
    leg.outgoing.first_leg = ""
    stage.refuse("bob", 17, 486)
    stage.pass_time(100)
    assert not results(stage)
    stage.pass_time(200)
    assert results(stage)[0]["DialStatus"] == "failed" and "lost" in stage.problems()[-1][1]


def test_a_confirmation_that_takes_long_is_waited_for(stage: Stage) -> None:
    """A prompt of more than a minute, and the key at the end of its third time."""
    stage.sounds["http://confirm.example/"] = (Play("http://confirm.example/long.mp3"),)
    dial(stage, "bob", confirm_key="5", confirm_sound="http://confirm.example/", timeout=20)
    stage.phone("bob", "pick_up")
    bob = stage.channel_of("bob")
    for _ in range(2):
        stage.pass_time(90)
        stage.finish(bob)
        stage.pass_time(6)
    stage.pass_time(90)
    check(stage)
    stage.press(bob, "5")
    assert talks_to(stage, "bob") and stage.problems() == []
    stage.hang_up("host")
    stage.assert_nothing_is_left()


def test_calls_whose_turn_comes_late_are_waited_for(stage: Stage) -> None:
    stage.engine.registry.dial_pace = DialPace(0.01)
    dial(stage, "bob", "cid", "dan", "eve", timeout=20)
    for number in ("bob", "cid", "dan"):
        stage.refuse(number, 17, 486)
        assert not results(stage)
        stage.pass_time(100)
    stage.phone("eve", "pick_up")
    assert talks_to(stage, "eve") and stage.problems() == []


def test_a_conference_that_fails_is_no_caller_who_cancels(stage: Stage) -> None:
    stage.failing[do.CreateBridge] = 1
    dial(stage, "bob")
    check(stage)
    assert stage.leg("bob") is None
    assert [(found["DialStatus"], found["DialHangupCause"]) for found in results(stage)] == [
        ("failed", "DESTINATION_OUT_OF_ORDER")
    ]
    stage.hang_up("host")
    stage.pass_time(60)
    stage.assert_nothing_is_left()


def test_the_limit_of_members_is_not_for_a_dial() -> None:
    stage = Stage(hangup_url=HANGUP, max_members=1)
    dial(stage, "bob")
    stage.phone("bob", "pick_up")
    check(stage)
    assert talks_to(stage, "bob") and stage.problems() == []


def restored(stage: Stage, *without: str) -> tuple[Engine, list[do.Effect]]:
    """Return an engine that takes over without the records of these calls, and the effects of that."""
    numbers = count(1)
    engine = Engine(lambda: f"new{next(numbers)}", "https://conference.example")
    restoration = Restoration(engine)
    calls = [copied(call) for key, call in stage.engine.calls.items() if key not in without]
    restoration.add(calls, [copied(c) for c in stage.engine.conferences.values()], 100)
    return engine, restoration.finish(stage.now)


def test_a_takeover_while_the_policy_is_asked_asks_again(stage: Stage) -> None:
    stage.held = {do.AdmitDial}
    dial(stage, "bob")
    (asked,) = stage.all(do.AdmitDial)
    engine, effects = restored(stage)
    assert effects == []
    there = AsteriskState(dict.fromkeys(stage.asterisk.channels, False), {})
    assert asked in engine.calls["call-host"].resume(there)


def test_a_takeover_without_the_record_of_the_caller_ends_the_second_leg(stage: Stage) -> None:
    dial(stage, "bob")
    stage.phone("bob", "ring")
    leg = stage.leg("bob")
    assert leg is not None
    _, effects = restored(stage, "call-host")
    assert leg.channel_id in {e.channel_id for e in effects if isinstance(e, do.HangUp)}


def test_a_takeover_without_the_record_of_the_second_leg_goes_on(stage: Stage) -> None:
    dial(stage, "bob")
    leg = stage.leg("bob")
    assert leg is not None
    engine, effects = restored(stage, leg.call_uuid)
    assert do.HangUp("host") not in effects
    call = engine.calls["call-host"]
    assert call.dial is None or not call.dial.legs
    assert [e.channel_id for e in effects if isinstance(e, do.RemoveChannel)] == ["host"]


def test_a_dial_first_of_all_answers_only_if_it_may_dial(stage: Stage) -> None:
    stage.denied = {"bob"}
    dial(stage, "bob", action=None, then=(Hangup("busy"),))
    assert not stage.all(do.Answer)
    stage.assert_nothing_is_left()
