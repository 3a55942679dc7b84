"""Commands of the API on a live call, whatever it does meanwhile: transfer, sounds, digits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ari_conf.core import commands as do
from ari_conf.core import effects
from ari_conf.core import events as ev
from ari_conf.core.bounds import MAX_QUEUED, MAX_TRANSFERS
from ari_conf.core.calls.live_media import DIGIT_MS, schedule
from ari_conf.core.elements import DTMF, Element, GetDigits, GetInput, Play, PreAnswer, Speak, Wait
from ari_conf.core.invariants import call_violations
from ari_conf.core.placing import Confirmation, MachineDetectionSettings
from ari_conf.core.queued_sound import SoundList
from tests.core.copies import copied
from tests.core.stage import ACTION, Stage, players, stay, waiting

DOCUMENT = "http://transfer.example/document"
HELLO = Play("hello")
SONG = Play("song")


def api(stage: Stage, command: do.CallCommand, name: str = "ann", auth: str = "A") -> dict[str, Any]:
    """Send the command; return the status and the body of the reply."""
    addressed = do.ForCall(auth, f"call-{name}", command)
    reported = stage.tell(ev.CommandReceived(f"c{len(stage.effects)}", addressed, stage.now + 5000))
    (reply,) = [effect for effect in reported if isinstance(effect, effects.CommandReply)]
    for call in stage.engine.calls.values():
        assert list(call_violations(call)) == [] and copied(call) == call
    return {"status": reply.status, **dict(reply.body)}


def transfer(stage: Stage, *elements: Element, name: str = "ann", **more: Any) -> dict[str, Any]:
    stage.documents[DOCUMENT] = elements
    return api(stage, do.Transfer(aleg_url=DOCUMENT, **more), name)


def requests(stage: Stage) -> list[effects.FetchDocument]:
    return [e for e in stage.all(effects.FetchDocument) if e.source == DOCUMENT]


def play(stage: Stage, sound: Any = HELLO, name: str = "ann") -> dict[str, Any]:
    return api(stage, do.PlayToCall(sound), name)


def offsets(stage: Stage, media: str) -> list[int]:
    return [e.offset_ms for e in stage.all(effects.PlayMedia) if e.media == (media,)]


ACCEPTED = {"status": 202, "message": "call transferred"}

# Transfer.


@pytest.mark.parametrize("element", [SONG, Wait(99), GetDigits((Speak("PIN"),)), DTMF("WWWWWW", async_=False)])
def test_a_transfer_breaks_off_what_runs(stage: Stage, element: Element):
    stage.call("ann", element, Speak("never"), answered=True)
    assert transfer(stage, Speak("elsewhere"), aleg_method="GET") == ACCEPTED
    assert stage.media("ann")[-1] == "elsewhere" and stage.hears("ann") == {stage.asterisk.channels["ann"].playbacks[0]}
    (request,) = requests(stage)
    params = dict(request.params)
    assert (request.method, params["Event"], params["CallStatus"]) == ("GET", "Transfer", "in-progress")
    stage.finish("ann")
    assert "never" not in stage.media("ann") and "ann" not in stage.asterisk.channels


def test_a_transfer_while_a_document_is_requested_replaces_the_request(stage: Stage):
    stage.held = {effects.FetchDocument}
    stage.call("ann", Speak("never"))
    assert transfer(stage, Speak("elsewhere")) == ACCEPTED
    stage.let_go()
    assert stage.media("ann") == ["elsewhere"]


def test_a_transfer_out_of_a_conference(stage: Stage):
    players(stage, "ann", "bob", "cid", action=ACTION)
    assert transfer(stage, SONG) == ACCEPTED
    assert stage.callback_texts()[-1] == "exit ann transfer"
    assert stage.media("ann") == ["song"] and stage.hears("bob") == {"cid"}
    assert stage.actions() == [], "the action is broken off as well"


def test_a_transfer_waits_until_the_member_is_out(stage: Stage):
    players(stage, "ann", "bob")
    stage.held = {effects.RemoveChannel}
    assert transfer(stage, stay("other")) == ACCEPTED
    assert requests(stage) == []
    again = api(stage, do.Transfer(aleg_url="http://transfer.example/again"))
    assert again == ACCEPTED, "the newest one counts"
    stage.documents["http://transfer.example/again"] = (stay("third"),)
    stage.let_go()
    assert requests(stage) == [] and stage.conference("third") is not None
    assert stage.callback_texts()[-2:] == ["exit ann transfer", "enter ann"]


def test_a_transfer_into_another_conference_leaves_the_others_as_they_are(stage: Stage):
    players(stage, "ann", "bob", "cid")
    players(stage, "dan", "eve", name="other")
    before = len(stage.effects)
    transfer(stage, stay("other"))
    assert stage.hears("ann") == {"dan", "eve"} and stage.hears("dan") == {"ann", "eve"}
    moved = [e.channel_id for e in stage.effects[before:] if isinstance(e, effects.AddChannel | effects.RemoveChannel)]
    assert moved == ["ann", "ann"], "nobody else is moved"


@pytest.mark.parametrize("state", ["unclaimed", "waiting", "held"])
def test_a_transfer_of_a_member_who_is_not_in_the_bridge(stage: Stage, state: str):
    if state == "unclaimed":
        stage.held = {effects.ClaimName}
    stage.call("ann", waiting() if state == "waiting" else stay())
    if state == "held":
        member = do.ForConference("A", "standup", do.Hold(None, True))
        stage.tell(ev.CommandReceived("hold", member, stage.now + 5000))
    assert transfer(stage, SONG) == ACCEPTED
    stage.let_go()
    assert stage.media("ann") == ["song"]
    assert stage.conference() is None


def test_a_caller_who_hangs_up_while_they_are_being_transferred(stage: Stage):
    stage.account = {"hangup_url": "http://hangup.example/"}
    players(stage, "ann", "bob", action=ACTION)
    stage.held = {effects.RemoveChannel}
    transfer(stage, SONG)
    stage.hang_up("ann")
    stage.let_go()
    assert requests(stage) == [] and stage.hangup_request("ann")["HangupCauseCode"] == "4000"
    stage.hang_up("bob")
    stage.assert_nothing_is_left()


def test_a_transfer_of_a_caller_whose_call_still_rings(stage: Stage):
    stage.call("ann", PreAnswer((SONG,)), Speak("never"))
    transfer(stage, Speak("elsewhere"))
    assert stage.media("ann") == ["song", "elsewhere"]


@pytest.mark.parametrize(
    ("failed", "code"), [(None, 7013), (ev.DocumentFailed("", ev.ProblemKind.DOCUMENT_INVALID, "no XML"), 8013)]
)
def test_a_document_that_fails(stage: Stage, failed: Any, code: int):
    stage.account = {"hangup_url": "http://hangup.example/"}
    stage.call("ann", SONG)
    if failed is not None:
        stage.documents[DOCUMENT] = failed
    assert api(stage, do.Transfer(aleg_url=DOCUMENT)) == ACCEPTED
    assert stage.codes() == [code] and stage.hangup_request("ann")["HangupCauseCode"] == str(code)


def test_the_fallback_url_is_asked_for_a_transfer_too(stage: Stage):
    stage.account = {"fallback_url": "http://fallback.example/"}
    stage.documents["http://fallback.example/"] = (Speak("sorry"),)
    stage.call("ann", SONG)
    api(stage, do.Transfer(aleg_url=DOCUMENT))
    assert stage.media("ann") == ["song", "sorry"]
    assert dict(stage.all(effects.FetchDocument)[-1].params)["Event"] == "Transfer"


def test_seventy_transfers_and_no_more(stage: Stage):
    stage.account = {"hangup_url": "http://hangup.example/"}
    players(stage, "ann", "bob")
    for _ in range(MAX_TRANSFERS):
        assert transfer(stage, stay()) == ACCEPTED
    refused = transfer(stage, stay())
    assert (refused["status"], "70 times" in refused["error"]) == (409, True)
    assert stage.hangup_request("ann")["HangupCauseCode"] == "2060" and stage.codes() == [2060]
    assert transfer(stage, stay())["status"] == 404
    stage.hang_up("bob")
    stage.assert_nothing_is_left()


@pytest.mark.parametrize("legs", ["bleg", "both"])
@pytest.mark.parametrize(
    "command",
    [do.Transfer("bleg", bleg_url=DOCUMENT), do.PlayToCall(HELLO, "bleg"), do.SendDigitsToCall("1", "bleg")],
)
def test_there_is_no_second_leg(stage: Stage, command: Any, legs: Any):
    stage.call("ann", SONG)
    refused = api(stage, msgspec.structs.replace(command, legs=legs))
    assert refused["status"] == 409 and f"no second leg: legs={legs}" in refused["error"]
    assert stage.media("ann") == ["song"]


@pytest.mark.parametrize(
    "command",
    [do.Transfer(aleg_url=DOCUMENT), do.PlayToCall(HELLO), do.StopPlayingToCall("Play"), do.SendDigitsToCall("1")],
)
def test_another_account_s_call_and_one_that_has_ended(stage: Stage, command: Any):
    stage.call("ann", SONG)
    missing = {"status": 404, "error": "call not found: it has ended, or the account has no such call"}
    assert api(stage, command, auth="B") == api(stage, command, "nobody") == missing
    stage.held = {effects.HangUp}
    api(stage, do.HangUpCall())
    assert api(stage, command) == missing
    stage.let_go()
    assert api(stage, command) == missing
    stage.assert_nothing_is_left()


def test_a_call_that_has_only_just_arrived(stage: Stage):
    stage.held = {effects.IdentifyCall}
    stage.call("ann", SONG)
    assert transfer(stage, HELLO)["status"] == play(stage)["status"] == 503


# Sounds.


def test_a_sound_interrupts_the_element_which_then_continues(stage: Stage):
    stage.call("ann", SONG, Speak("next"))
    stage.now += 3000
    assert play(stage) == {"status": 202, "message": "play started"}
    assert stage.media("ann") == ["song", "hello"] and len(stage.asterisk.channels["ann"].playbacks) == 1
    stage.now += 700
    stage.finish("ann")
    assert stage.media("ann") == ["song", "hello", "song"] and offsets(stage, "song") == [0, 3000]
    stage.now += 500
    play(stage, Speak("again"))
    stage.finish("ann")
    assert offsets(stage, "song") == [0, 3000, 3500]
    stage.finish("ann")
    assert stage.media("ann")[-1] == "next" and offsets(stage, "next") == [0]


def test_an_endless_element_continues_from_its_beginning_in_the_next_round(stage: Stage):
    stage.call("ann", Play("song", loop=0))
    stage.now += 3000
    play(stage)
    stage.finish("ann")
    stage.finish("ann")
    assert offsets(stage, "song") == [0, 3000, 0]


def test_sounds_are_played_one_after_another_and_the_element_waits_for_all_of_them(stage: Stage):
    stage.call("ann", SONG)
    for sound in (HELLO, Speak("words"), Play("last")):
        play(stage, sound)
    for expected in ("hello", "words", "last", "song"):
        assert stage.media("ann")[-1] == expected
        stage.finish("ann")
    assert "ann" not in stage.asterisk.channels


def test_the_next_elements_wait_for_the_sound_but_time_goes_on(stage: Stage):
    stage.call("ann", Wait(2), GetDigits((Speak("PIN"),), action=ACTION, num_digits=1), answered=True)
    play(stage)
    stage.pass_time(2)
    assert stage.media("ann") == ["hello"], "the prompt waits"
    stage.press("ann", "7")
    assert [dict(e.params)["Digits"] for e in stage.all(effects.FetchDocument) if e.source == ACTION] == ["7"]
    assert stage.media("ann") == ["hello"]


def test_the_prompt_continues_after_the_sound(stage: Stage):
    stage.call("ann", GetInput((Speak("PIN"),), action=ACTION))
    play(stage)
    stage.finish("ann")
    assert stage.media("ann") == ["PIN", "hello", "PIN"]
    stage.finish("ann")
    stage.pass_time(15)
    assert "ann" not in stage.asterisk.channels


def test_a_sound_while_a_document_is_requested(stage: Stage):
    stage.call("ann", GetDigits(action=ACTION, num_digits=1))
    stage.held = {effects.FetchDocument}
    stage.documents[ACTION] = (SONG,)
    stage.press("ann", "1")
    play(stage)
    assert stage.media("ann") == ["hello"]
    stage.let_go()
    assert stage.media("ann") == ["hello"], "the new document's sound waits"
    stage.finish("ann")
    assert stage.media("ann") == ["hello", "song"]


def test_a_sound_that_cannot_be_played_interrupts_nothing(stage: Stage):
    stage.call("ann", SONG)
    play(stage, Play("broken"))
    assert stage.media("ann") == ["song"] and len(stage.problems()) == 1
    assert offsets(stage, "song") == [0]


def test_a_refused_playback_is_reported_and_the_element_continues(stage: Stage):
    stage.call("ann", SONG)
    stage.failing[effects.PlayMedia] = 1
    play(stage)
    assert stage.media("ann")[-1] == "song" and len(stage.problems()) == 1


@pytest.mark.parametrize(("kind", "left"), [("Play", ["words"]), ("Speak", ["hello", "last"])])
def test_sounds_of_one_kind_are_stopped(stage: Stage, kind: Any, left: list[str]):
    stage.call("ann", SONG)
    for sound in (HELLO, Speak("words"), Play("last")):
        play(stage, sound)
    assert api(stage, do.StopPlayingToCall(kind)) == {"status": 204}
    for expected in (*left, "song"):
        assert stage.media("ann")[-1] == expected
        stage.finish("ann")


def test_stopping_when_nothing_plays(stage: Stage):
    stage.call("ann", SONG)
    assert api(stage, do.StopPlayingToCall("Play")) == {"status": 204}
    assert stage.media("ann") == ["song"] and offsets(stage, "song") == [0]


def test_several_sounds_are_repeated_together_until_they_are_stopped(stage: Stage):
    stage.call("ann", Wait(99), answered=True)
    play(stage, SoundList((HELLO, SONG), loop=True))
    for expected in ("hello", "song"):
        assert stage.media("ann")[-1] == expected
        stage.finish("ann")
    stage.pass_time(1)
    assert stage.media("ann")[-1] == "hello"
    api(stage, do.StopPlayingToCall("Play"))
    assert stage.hears("ann") == set()


def test_length_ends_a_sound_so_many_seconds_after_its_beginning(stage: Stage):
    stage.call("ann", SONG)
    stage.held = {effects.PrepareSound}
    play(stage, SoundList((Play("hello", loop=0),), length=5))
    stage.pass_time(60)
    stage.let_go()
    stage.pass_time(4)
    assert stage.media("ann")[-1] == "hello"
    stage.pass_time(1)
    assert stage.media("ann")[-1] == "song"


def test_a_hundred_sounds_wait_and_no_more(stage: Stage):
    stage.call("ann", SONG)
    for _ in range(MAX_QUEUED):
        assert play(stage)["status"] == 202
    assert play(stage)["status"] == 409
    api(stage, do.StopPlayingToCall("Play"))
    assert play(stage)["status"] == 202


def test_an_unanswered_call_hears_nothing_of_the_api(stage: Stage):
    stage.call("ann", PreAnswer((SONG,)))
    assert play(stage)["status"] == api(stage, do.SendDigitsToCall("1"))["status"] == 409


def test_a_hung_up_call_plays_and_sends_nothing(stage: Stage):
    stage.call("ann", SONG)
    play(stage)
    api(stage, do.SendDigitsToCall("1W2"))
    stage.held = {effects.HangUp}
    api(stage, do.HangUpCall())
    stage.pass_time(5)
    assert stage.asterisk.channels["ann"].heard_digits == "1" and stage.hears("ann") == set()
    stage.let_go()
    stage.assert_nothing_is_left()


# In a conference.


def test_in_a_conference_only_this_member_hears_it(stage: Stage):
    players(stage, "ann", "bob")
    assert play(stage)["status"] == 202
    assert stage.media("ann") == ["hello"] and stage.media("bob") == []
    play(stage, SoundList((SONG,), length=5))
    stage.finish("ann")
    stage.pass_time(5)
    assert stage.media("ann") == ["hello", "song"] and stage.hears("ann") == {"bob"}
    play(stage)
    assert api(stage, do.StopPlayingToCall("Play")) == {"status": 204}
    assert stage.hears("ann") == {"bob"}


def test_a_member_who_is_leaving_hears_it_outside(stage: Stage):
    players(stage, "ann", "bob")
    stage.held = {effects.RemoveChannel}
    transfer(stage, SONG)
    assert play(stage)["status"] == 202 and stage.media("ann") == []
    stage.let_go()
    stage.finish("ann")
    assert stage.media("ann") == ["hello", "song"]


def test_a_sound_goes_along_into_a_conference_and_past_one_that_is_full(stage: Stage):
    stage.call("bob", stay(max_members=2))
    stage.call("ann", Wait(1), stay(), answered=True)
    play(stage)
    stage.pass_time(1)
    assert stage.media("ann") == ["hello", "hello"], "moved, and begun again"
    stage.call("cid", Wait(1), stay(), SONG, answered=True)
    play(stage, name="cid")
    stage.pass_time(1)
    assert stage.media("cid")[:2] == ["hello", "hello"], "it could not join"
    stage.finish("cid")
    assert stage.media("cid")[-1] == "song"


def test_digits_of_a_member_interrupt_what_they_alone_hear(stage: Stage):
    players(stage, "ann", "bob")
    play(stage)
    stage.now += 2000
    api(stage, do.SendDigitsToCall("12"))
    assert stage.asterisk.channels["ann"].heard_digits == "12" and offsets(stage, "hello") == [0, 2000]
    assert stage.asterisk.channels["bob"].heard_digits == ""


# Digits.


@pytest.mark.parametrize(
    ("text", "runs", "end"),
    [
        ("12", ((0, "12"),), 400),
        ("1w2W3", ((0, "1"), (700, "2"), (1900, "3")), 2100),
        ("w1", ((500, "1"),), 700),
        ("1w", ((0, "1"),), 700),
        ("WW", (), 2000),
        ("123456789012", ((0, "1234567890"), (2000, "12")), 2400),
    ],
)
def test_the_schedule_of_digits(text: str, runs: Any, end: int):
    assert schedule(text, 0) == (runs, end)


def test_digits_are_sent_with_their_pauses_and_after_those_before(stage: Stage):
    stage.call("ann", Wait(99), answered=True)
    assert api(stage, do.SendDigitsToCall("1w2")) == {"status": 202, "message": "digits sent"}
    api(stage, do.SendDigitsToCall("3"))
    heard = stage.asterisk.channels["ann"]
    assert heard.heard_digits == "1"
    stage.pass_time((500 + DIGIT_MS) / 1000)
    assert heard.heard_digits == "12"
    stage.pass_time(DIGIT_MS / 1000)
    assert heard.heard_digits == "123"


def test_digits_interrupt_the_sound_that_plays(stage: Stage):
    """Otherwise Asterisk would send them after the sound."""
    stage.call("ann", SONG)
    stage.now += 1000
    api(stage, do.SendDigitsToCall("1"))
    last = [type(e) for e in stage.effects[-4:]]
    assert last[:3] == [effects.StopPlayback, effects.SendDigits, effects.PlayMedia]
    assert offsets(stage, "song") == [0, 1000]


def test_digits_go_on_in_a_conference_and_while_a_document_is_requested(stage: Stage):
    stage.call("ann", Wait(1), stay(), SONG, answered=True)
    api(stage, do.SendDigitsToCall("1WW2W3"))
    stage.pass_time(3)
    assert stage.conference() is not None and stage.asterisk.channels["ann"].heard_digits == "12"
    stage.held = {effects.FetchDocument}
    transfer(stage, SONG)
    stage.pass_time(3)
    assert stage.asterisk.channels["ann"].heard_digits == "12", "broken off by the transfer"
    api(stage, do.SendDigitsToCall("4"))
    assert stage.asterisk.channels["ann"].heard_digits == "124"


def test_so_many_digits_wait_and_no_more(stage: Stage):
    stage.call("ann", Wait(999), answered=True)
    assert [api(stage, do.SendDigitsToCall("1" * 100))["status"] for _ in range(4)] == [202, 202, 409, 409]
    stage.call("bob", Wait(999), answered=True)
    replies = [api(stage, do.SendDigitsToCall("W" * 100), "bob")["status"] for _ in range(9)]
    assert replies == [202] * 7 + [409] * 2


def test_a_dtmf_element_lets_the_next_element_run_at_once_or_after_it(stage: Stage):
    stage.call("ann", DTMF("1w2"), SONG)
    assert stage.asterisk.channels["ann"].up and stage.media("ann") == ["song"]
    stage.pass_time(1)
    assert stage.asterisk.channels["ann"].heard_digits == "12"
    stage.call("bob", DTMF("1w2", async_=False), SONG)
    stage.pass_time(0.8)
    assert stage.asterisk.channels["bob"].heard_digits == "12" and stage.media("bob") == []
    stage.pass_time(0.1)
    assert stage.media("bob") == ["song"]


def test_dtmf_elements_wait_when_too_many_digits_wait(stage: Stage):
    stage.call("ann", *[DTMF("1" * 100)] * 4, SONG)
    assert stage.media("ann") == []
    stage.pass_time(400 * DIGIT_MS / 1000)
    assert stage.asterisk.channels["ann"].heard_digits == "1" * 400
    assert set(stage.media("ann")) == {"song"}


def test_early_digits_do_not_answer(stage: Stage):
    stage.call("ann", PreAnswer((DTMF("1", async_=False), SONG)))
    stage.pass_time(1)
    assert not stage.asterisk.channels["ann"].up and stage.asterisk.channels["ann"].heard_digits == "1"


@pytest.mark.parametrize(
    "command",
    [
        do.Transfer(aleg_url=DOCUMENT),
        do.PlayToCall(SoundList((HELLO, Speak("x")), True, 5)),
        do.PlayToCall(HELLO),
        do.StopPlayingToCall("Speak"),
        do.SendDigitsToCall("1w"),
    ],
)
def test_a_command_stands_its_way_through_redis(command: Any):
    addressed = do.ForCall("A", "u1", command)
    assert msgspec.json.decode(msgspec.json.encode(addressed), type=do.ForCall) == addressed


def test_sounds_whose_turn_comes_later_are_prepared_in_advance(stage: Stage):
    def warmed() -> list[Any]:
        return [sound for effect in stage.all(effects.WarmSounds) for sound in effect.sounds if sound != SONG]

    stage.call("ann", SONG)
    play(stage, HELLO)
    assert warmed() == []
    play(stage, SoundList((Play("second"), Play("third"))))
    assert warmed() == [Play("second"), Play("third")]


def test_a_transfer_of_a_call_that_is_answered_and_not_decided_says_what_it_waits_for(stage: Stage):
    stage.place("ann", machine_detection=MachineDetectionSettings())
    stage.place("bob", confirmation=Confirmation("1"))
    assert "not answered yet" in transfer(stage, SONG)["error"]
    for name, expected in (("ann", "by a machine"), ("bob", "confirmed yet by the key")):
        stage.phone(name, "pick_up")
        reply = transfer(stage, SONG, name=name)
        assert reply["status"] == 409 and expected in reply["error"]
    assert not requests(stage)
