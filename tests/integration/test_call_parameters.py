"""The remaining parameters of calls out, of calling people into a conference, and of Dial: one row for each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from ari_conf.local.system import LocalSystem
from demo import audio_analysis
from demo.phone import CallFailed, now_ms
from tests.integration.called_phone import CalledPhone
from tests.integration.receiver import Request
from tests.integration.stage import ALLOWED, Stage
from tests.integration.test_calling_out import Caller, api, calling, ending
from tests.integration.test_dial_element import dial, told_of
from tests.integration.test_recordings import decoded, fetched
from tests.lateness import SOON_S, Patience, lasted

__all__ = ["api", "calling"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOST, CALLED, WAITING, AFTER = 1475, 1875, 2275, 2875
BEEP_HZ = 700
ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[LocalSystem]:
    async with LocalSystem(tmp_path_factory.mktemp("parameters"), ALLOWED) as system:
        yield system


async def to(stage: Stage, path: str) -> Request:
    return await stage.receiver.wait_for(lambda request: request.path == path)


# Call/.


@pytest.mark.row("Call: answer_method, ring_method, hangup_method", "GET: the parameters are in the query")
async def test_the_methods_of_a_call(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", "<Wait length='30'/>")
    methods = dict.fromkeys(("answer_method", "ring_method", "hangup_method"), "GET")
    async with CalledPhone() as ann:
        uuid = await api.place(ann, ring_url=stage.receiver.url("/ring"), **methods)
        await ann.invited()
        ann.reply("180 Ringing")
        await api.told("Ring", CallUUID=uuid)
        ann.answer()
        await api.told("StartApp", CallUUID=uuid)
        ann.hang_up()
        await api.told("Hangup", CallUUID=uuid)
    asked = [request for request in stage.receiver.requests if request.params.get("CallUUID") == uuid]
    assert [(one.path, one.method) for one in asked] == [("/ring", "GET"), ("/answer", "GET"), ("/hangup", "GET")]
    stage.saw("ring, answer and hangup by GET")


@pytest.mark.row("Call: fallback_method", "GET: the fallback is asked by it, the answer_url by its own")
async def test_the_method_of_the_fallback(api: Caller) -> None:
    stage = api.stage
    stage.document("/instead", "<Wait length='30'/>")
    urls = {"answer_url": stage.receiver.url("/missing"), "fallback_url": stage.receiver.url("/instead")}
    async with CalledPhone() as ann:
        await api.place(ann, **urls, fallback_method="GET")
        await ann.invited()
        ann.answer()
        assert (await to(stage, "/instead")).method == "GET"
        ann.hang_up()
        await api.told("Hangup")
    assert {request.method for request in stage.receiver.requests_to("/missing")} == {"POST"}


async def ended(api: Caller, uuid: str) -> dict[str, Any]:
    """Return the ended call's record, which follows some seconds after its end."""
    patience = Patience(SOON_S)
    while (found := await api.ask("GET", f"Call/{uuid}/"))[0] == 404:
        assert not patience.over, "no record of the call"
        await asyncio.sleep(0.1)  # no event reports it
    return found[1]


@pytest.mark.row(
    "Call: parent_call_uuid, error_if_parent_not_found",
    "the ended call shows its parent; without such a call, true: 404, nobody is called; false: the call is placed",
)
async def test_the_parent_of_a_call(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", "<Wait length='30'/>")
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, ROOM)
        parent = (await stage.enters(host)).params["CallUUID"]
        urls = {"from": "4930123", "to": ann.uri, "answer_url": stage.receiver.url("/answer")}
        api.allow(ann.host)
        for unknown in ("no-such-call", "0" * 36):
            more = {"parent_call_uuid": unknown, "error_if_parent_not_found": "true"}
            status, refused = await api.ask("POST", "Call/", **urls, **more)
            assert status == 404 and "parent_call_uuid" in refused["error"]
        assert not ann.invites
        for given, shown in ((parent, parent), ("no-such-call", None)):
            uuid = await api.place(ann, parent_call_uuid=given)
            await ann.invited(1 if given == parent else 2)
            ann.reply("486 Busy Here")
            await api.told("Hangup", CallUUID=uuid)
            assert (await ended(api, uuid))["parent_call_uuid"] == shown
        await host.hang_up()


@pytest.mark.row("Call: callback_url, callback_method", "the request's result is sent there; the reply comes at once")
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_asynchronous_request(api: Caller, method: str) -> None:
    stage = api.stage
    async with CalledPhone() as ann:
        api.allow(ann.host)
        urls = {"answer_url": stage.receiver.url("/answer"), "hangup_url": stage.receiver.url("/hangup")}
        result = {"callback_url": stage.receiver.url("/result"), "callback_method": method}
        status, reply = await api.ask("POST", "Call/", **{"from": "4930123", "to": ann.uri}, **urls, **result)
        assert status == 202 and "request_uuid" not in reply
        told = await to(stage, "/result")
        assert (told.method, told.params["api_id"], told.params["status_code"]) == (method, reply["api_id"], "201")
        uuid = json.loads(told.params["response"])["request_uuid"]
        await ann.invited()
        ann.reply("486 Busy Here")
        said = await api.told("Hangup", CallUUID=uuid)
    assert ending(said)[0] == "busy" and len(ann.invites) == 1


@pytest.mark.row("Calls: to_number, limit, offset", "a part of the number; so many, from there on")
async def test_the_list_of_live_calls(api: Caller) -> None:
    async with CalledPhone("4915550001") as ann, CalledPhone("4915550002") as bob:
        uuids = await api.place(ann, bob)
        for phone in (ann, bob):
            await phone.invited()
            phone.reply("180 Ringing")

        async def listed(**query: str) -> list[str]:
            found: list[str] = (await api.ask("GET", "Call/", status="live", **query))[1]["calls"]
            return found

        assert await listed(to_number="5550002") == [uuids[1]]
        both = await listed()
        assert set(both) == set(uuids)
        assert [await listed(limit="1"), await listed(limit="1", offset="1")] == [[both[0]], [both[1]]]
        for phone in (ann, bob):
            phone.reply("486 Busy Here")
        for uuid in uuids:
            await api.told("Hangup", CallUUID=uuid)


# Conference/{name}/Member/.


async def called_in(api: Caller, ann: CalledPhone, **more: Any) -> str:
    """Call Ann into the conference; return her CallUUID."""
    api.allow(ann.host)
    urls = {
        "callback_url": api.stage.receiver.url("/member"),
        "call_status_callback_url": api.stage.receiver.url("/state"),
    }
    status, reply = await api.ask(
        "POST", "Conference/standup/Member/", **{"from": "4930123", "to": ann.uri} | urls | more
    )
    assert status == 201, reply
    return str(reply["request_uuid"])


async def enters(api: Caller, ann: CalledPhone, **more: Any) -> str:
    uuid = await called_in(api, ann, **more)
    await ann.invited()
    ann.answer()
    await api.stage.event("ConferenceEnter", CallUUID=uuid)
    return uuid


@pytest.mark.row("Member: muted, enter_sound, exit_sound", "not heard, but hears; those in the room hear both sounds")
async def test_a_muted_member_with_sounds(api: Caller) -> None:
    stage = api.stage
    stage.document("/bye", f"<Play>{stage.tones('/bye.wav', (AFTER, 400))}</Play>")
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, ROOM)
        more = {"muted": True, "enter_sound": "beep:1", "exit_sound": stage.receiver.url("/bye"), "dial_music": "none"}
        uuid = await enters(api, ann, **more)
        ann.tone(CALLED)
        await stage.hears(host, BEEP_HZ)
        host.tone(HOST)
        await stage.until(lambda: ann.hears(HOST))
        ann.hang_up()
        await stage.hears(host, AFTER)
        await api.told("CallCompleted", CallUUID=uuid)
        assert not audio_analysis.intervals_of(host.heard.audio, CALLED)
        await host.hang_up()
    api.stage.saw("the beep and the exit sound heard by the other, the muted one not")


@pytest.mark.row(
    "Member: start_conference_on_enter, wait_sound", "false: who is called waits for the start, and hears the sound"
)
async def test_a_member_who_waits(api: Caller) -> None:
    stage = api.stage
    stage.document("/waiting", f"<Play>{stage.tones('/waiting.wav', (WAITING, 20_000))}</Play>")
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        more = {"start_conference_on_enter": False, "wait_sound": stage.receiver.url("/waiting")}
        uuid = await enters(api, ann, **more)
        await stage.until(lambda: ann.hears(WAITING))
        assert not ann.hears(HOST)
        host.tone(HOST)
        await stage.call(host, ROOM)
        await stage.until(lambda: ann.hears(HOST))
        ann.hang_up()
        await api.told("CallCompleted", CallUUID=uuid)
        await host.hang_up()
    api.stage.saw("the sound until the start, then the other one")


@pytest.mark.row(
    "Member: digits_match, relay_dtmf, callback_method, hangup_on_star, action, method, redirect",
    "a match is told by GET, the other digits go to nobody; * ends it, and the action's document runs",
)
async def test_the_keys_of_a_member(api: Caller) -> None:
    stage = api.stage
    stage.document("/left", f"<Play>{stage.tones('/after.wav', (AFTER, 2000))}</Play>")
    more = {"digits_match": "12", "relay_dtmf": False, "callback_method": "GET", "hangup_on_star": True}
    action = {"action": stage.receiver.url("/left"), "method": "GET", "redirect": True}
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, ROOM)
        uuid = await enters(api, ann, **more, **action)
        for digit in "712":
            await ann.press(digit)
        matched = await stage.event("ConferenceDigitsMatch", CallUUID=uuid)
        assert (matched.path, matched.method, matched.params["ConferenceDigitsMatch"]) == ("/member", "GET", "12")
        await ann.press("*")
        assert (await to(stage, "/left")).method == "GET"
        await stage.until(lambda: ann.hears(AFTER))
        assert host.received == []
        ann.hang_up()
        await api.told("CallCompleted", CallUUID=uuid)
        await host.hang_up()
    api.stage.saw("7 went to nobody, 12 was told, the star ended it")


@pytest.mark.row("Member: redirect", "false: the action is told, its document does not run, and the call is hung up")
async def test_the_action_of_a_member_is_only_told(api: Caller) -> None:
    stage = api.stage
    stage.document("/left", f"<Play>{stage.tones('/after.wav', (AFTER, 2000))}</Play>")
    async with CalledPhone() as ann:
        more = {"hangup_on_star": True, "action": stage.receiver.url("/left"), "redirect": False}
        uuid = await enters(api, ann, **more)
        await ann.press("*")
        assert (await to(stage, "/left")).method == "POST"
        await ann.hung_up()
        await api.told("CallCompleted", CallUUID=uuid)
        assert not ann.hears(AFTER)


@pytest.mark.row(
    "Member: end_conference_on_exit", "true: the conference ends for the others when who was called leaves"
)
async def test_a_member_ends_the_conference(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, ROOM)
        uuid = await enters(api, ann, end_conference_on_exit=True)
        ann.hang_up()
        left = await stage.leaves(host)
        assert left.params["ConferenceExitReason"] == "host_left"
        await api.told("CallCompleted", CallUUID=uuid)
        await host.wait_until_hung_up()


@pytest.mark.row("Member: stay_alone, max_members", "false: it ends once one is left alone; full: not let in")
async def test_a_member_left_alone_and_a_full_conference(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(2) as (host, late), CalledPhone() as ann:
        uuid = await enters(api, ann, stay_alone=False, max_members=2)
        await stage.call(host, ROOM)
        await stage.enters(host)
        with pytest.raises(CallFailed):
            await stage.call(late, ROOM + '<Hangup reason="busy"/>')
        assert not [one for one in stage.events("ConferenceEnter") if one.params["From"] == stage.number(late)]
        await host.hang_up()
        left = await stage.event("ConferenceExit", CallUUID=uuid)
        assert left.params["ConferenceExitReason"] == "left_alone"
        await ann.hung_up()
        await api.told("CallCompleted", CallUUID=uuid)


@pytest.mark.row("Member: time_limit, floor_event", "the conference ends after so many seconds; who speaks is told")
async def test_the_time_limit_of_a_member(api: Caller) -> None:
    stage = api.stage
    async with CalledPhone() as ann:
        uuid = await enters(api, ann, time_limit=3, floor_event=True)
        entered = (await stage.event("ConferenceEnter", CallUUID=uuid)).at_ms
        ann.tone(CALLED)
        await stage.event("ConferenceFloor", CallUUID=uuid)
        left = await stage.event("ConferenceExit", CallUUID=uuid)
        lasted(entered, left.at_ms, 2700, 3600)
        assert left.params["ConferenceExitReason"] == "time_limit"
        await ann.hung_up()
        await api.told("CallCompleted", CallUUID=uuid)
    api.stage.saw("over after 3 s, the floor told")


@pytest.mark.row("Member: record, record_file_format", "the conference is recorded, in that format")
async def test_a_member_who_has_it_recorded(api: Caller) -> None:
    stage = api.stage
    async with CalledPhone() as ann:
        uuid = await enters(api, ann, record=True, record_file_format="wav")
        ann.tone(CALLED)
        await asyncio.sleep(1.5)  # in real time, since the audio is recorded
        ann.hang_up()
        recorded = await stage.event("ConferenceRecord")
        await api.told("CallCompleted", CallUUID=uuid)
        url = recorded.params["RecordUrl"]
        assert url.endswith(".wav")
        await stage.until(lambda: fetched(url).status_code == 200, 20)
    assert audio_analysis.intervals_of(decoded(fetched(url).content), CALLED)


@pytest.mark.row(
    "Member: caller_name, sip_headers, send_digits, call_status_callback_method",
    "name and X-PH-… in the INVITE; digits for the others at the entry; the states by GET",
)
async def test_what_the_phone_of_a_member_gets(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, ROOM)
        more = {"caller_name": "The team", "sip_headers": "Team=blue", "send_digits": "4w2"}
        uuid = await enters(api, ann, call_status_callback_method="GET", **more)
        assert ann.caller == ("4930123", "The team") and ann.invites[0].first("x-ph-team") == "blue"
        await host.wait_for_digits("42")
        ann.hang_up()
        await api.told("CallCompleted", CallUUID=uuid)
        await host.hang_up()
    assert {request.method for request in stage.receiver.requests_to("/state")} == {"GET"}


@pytest.mark.row("Member: ring_timeout", "not answered by then: canceled")
async def test_the_ring_timeout_of_a_member(api: Caller) -> None:
    async with CalledPhone() as ann:
        uuid = await called_in(api, ann, ring_timeout=1)
        await ann.invited()
        ann.reply("180 Ringing")
        await ann.canceled()
        said = await api.told("CallCompleted", CallUUID=uuid)
    assert ending(said) == ("timeout", "NO_ANSWER", "6010", "Plivo")


@pytest.mark.row(
    "Member: dial_music, confirm_key_sound_method", "a URL: those in the room hear it; the prompt is asked for by POST"
)
async def test_the_music_and_the_method_of_the_prompt(api: Caller) -> None:
    stage = api.stage
    stage.document("/prompt", f"<Play>{stage.tones('/prompt.wav', (WAITING, 400))}</Play>")
    music = stage.tones("/music.wav", (1175, 20_000))
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, ROOM)
        prompt = {"confirm_key_sound_url": stage.receiver.url("/prompt"), "confirm_key_sound_method": "POST"}
        uuid = await called_in(api, ann, dial_music=music, confirm_key="1", **prompt)
        await ann.invited()
        ann.reply("180 Ringing")
        await stage.hears(host, 1175)
        ann.answer()
        await stage.until(lambda: ann.hears(WAITING))
        assert (await to(stage, "/prompt")).method == "POST"
        await ann.press("1")
        await stage.event("ConferenceEnter", CallUUID=uuid)
        ann.hang_up()
        await api.told("CallCompleted", CallUUID=uuid)
        await host.hang_up()


# Dial.


@pytest.mark.row("Dial: method, callbackMethod, redirect", "GET; false: the action is told, the next element runs")
async def test_the_methods_of_a_dial(api: Caller) -> None:
    stage = api.stage
    after = f"<Play>{stage.tones('/after.wav', (AFTER, 400))}</Play>"
    stage.document("/dialed", "<Hangup/>")
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        body = dial(api, bob, method="GET", callbackMethod="GET", redirect="false") + after
        arriving = asyncio.create_task(stage.call(ann, body))
        await bob.invited()
        bob.answer()
        await arriving
        await told_of(stage, "connected")
        bob.hang_up()
        await stage.hears(ann, AFTER)
        assert (await to(stage, "/dialed")).method == "GET"
        await ann.wait_until_hung_up()
    assert {request.method for request in stage.receiver.requests_to("/leg")} == {"GET"}
    api.stage.saw("action and callbacks by GET, then the next element")


@pytest.mark.row("Dial: confirmTimeout", "so many seconds after each of three prompts; then who answered is hung up on")
async def test_a_key_that_is_not_pressed(api: Caller) -> None:
    stage = api.stage
    stage.document("/dialed", f"<Play>{stage.tones('/after.wav', (AFTER, 400))}</Play>")
    stage.document("/prompt", f"<Play>{stage.tones('/prompt.wav', (WAITING, 300))}</Play>")
    more = {"confirmKey": "5", "confirmTimeout": "1", "confirmSound": "{url}/prompt"}
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob, **more)))
        await bob.invited()
        bob.answer()
        answered = now_ms()
        await arriving
        await bob.hung_up()
        lasted(answered, now_ms(), 3900, 6000)
        await stage.hears(ann, AFTER)
        assert (await to(stage, "/dialed")).params["DialStatus"] != "completed"
        await ann.wait_until_hung_up()
    assert "connected" not in [one.params["DialAction"] for one in stage.receiver.requests_to("/leg")]


@pytest.mark.row("Number: sendDigits, sipHeaders", "digits after the answer; X-PH-… in the INVITE of this one alone")
async def test_the_attributes_of_a_number(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as cid:
        users = dial(api, bob, cid)
        number = f'<Number sendDigits="4w2" sipHeaders="Team=blue">{bob.uri}</Number>'
        arriving = asyncio.create_task(stage.call(ann, users.replace(f"<User >{bob.uri}</User>", number)))
        await bob.invited()
        await cid.invited()
        assert bob.invites[0].first("x-ph-team") == "blue" and not cid.invites[0].first("x-ph-team")
        bob.answer()
        await arriving
        await stage.until(lambda: "".join(digit for _, digit in bob.digits) == "42")
        await ann.hang_up()
        await bob.hung_up()
    api.stage.saw("the digits 4 and 2, and the header at one of two phones")


@pytest.mark.row("Transfer: legs, bleg_method", "both: each leg runs its own document; GET")
async def test_both_legs_are_transferred(api: Caller) -> None:
    stage = api.stage
    stage.document("/caller", f"<Play>{stage.tones('/caller.wav', (AFTER, 5000))}</Play>")
    stage.document("/called", f"<Play>{stage.tones('/called.wav', (WAITING, 5000))}</Play>")
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob)))
        await bob.invited()
        bob.answer()
        await arriving
        uuid = (await told_of(stage, "connected")).params["DialALegUUID"]
        urls = {"aleg_url": stage.receiver.url("/caller"), "bleg_url": stage.receiver.url("/called")}
        status, reply = await api.ask("POST", f"Call/{uuid}/", legs="both", bleg_method="GET", **urls)
        assert status == 202, reply
        await stage.hears(ann, AFTER)
        await stage.until(lambda: bob.hears(WAITING))
        await ann.hang_up()
        bob.hang_up()
    assert (await to(stage, "/called")).method == "GET" and (await to(stage, "/caller")).method == "POST"
    api.stage.saw("each leg hears its own document")


@pytest.mark.row("Call Play, Call Speak: legs", "both: each of the two legs hears it")
@pytest.mark.parametrize("what", ["Play", "Speak"])
async def test_both_legs_hear_a_sound(api: Caller, what: str) -> None:
    stage = api.stage
    body = {"urls": stage.tones("/sound.wav", (AFTER, 3000))} if what == "Play" else {"text": "Hello, this is a test."}
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob)))
        await bob.invited()
        bob.answer()
        await arriving
        uuid = (await told_of(stage, "connected")).params["DialALegUUID"]
        await stage.goes_quiet(ann)
        began, before = now_ms(), len(bob.heard())
        assert (await api.ask("POST", f"Call/{uuid}/{what}/", legs="both", **body))[0] == 202
        await stage.until(lambda: not audio_analysis.silent(ann.heard.since(began)))
        await stage.until(lambda: not audio_analysis.silent(bob.heard()[before:]))
        assert (await api.ask("DELETE", f"Call/{uuid}/{what}/"))[0] == 204
        await ann.hang_up()
        await bob.hung_up()
    stage.saw(f"{what}: both hear it")


@pytest.mark.row(
    "Call Play, Call Speak: mix", "whatever it says, the sound is heard in place of the other leg (differs from Plivo)"
)
@pytest.mark.parametrize("mix", [True, False])
async def test_a_sound_is_heard_in_place_of_the_other_leg(api: Caller, mix: bool) -> None:
    stage = api.stage
    sound = stage.tones("/sound.wav", (AFTER, 1500))
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob)))
        await bob.invited()
        bob.answer()
        bob.tone(CALLED)
        await arriving
        uuid = (await told_of(stage, "connected")).params["DialALegUUID"]
        await stage.hears(ann, CALLED)
        for what, body in (("Play", {"urls": sound}), ("Speak", {"text": "This is a test of speech, of two seconds."})):
            began = now_ms()
            assert (await api.ask("POST", f"Call/{uuid}/{what}/", mix=mix, **body))[0] == 202
            await stage.until(lambda began=began: stage.gaps(ann, CALLED, began), 15)
            await stage.hears(ann, CALLED, after=now_ms() + 2500)
            holes = audio_analysis.gaps(ann.heard.since(began), CALLED, longest_ms=100.0)
            assert max(end - start for start, end in holes) > 800
            stage.saw(f"{what}: the other leg is not heard for {max(end - start for start, end in holes):.0f} ms")
        await ann.hang_up()
        await bob.hung_up()


@pytest.mark.row("Record: startOnDialAnswer", "recorded from the answer of the next Dial on, both voices")
async def test_a_recording_from_the_answer_of_the_dial_on(api: Caller) -> None:
    stage = api.stage
    record = '<Record startOnDialAnswer="true" fileFormat="wav" callbackUrl="{url}/recorded" callbackMethod="GET"/>'
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, record + dial(api, bob)))
        await bob.invited()
        bob.reply("180 Ringing")
        await arriving
        await stage.hears(ann, 425)
        ann.tone(HOST)
        await asyncio.sleep(1.5)  # audio that must not be recorded
        bob.answer()
        connected = now_ms()
        bob.tone(CALLED)
        await stage.hears(ann, CALLED)
        await stage.listen(ann, 1500)
        over = now_ms()
        await ann.hang_up()
        await bob.hung_up()
    told = await to(stage, "/recorded")
    assert told.method == "GET"
    lasted(connected, connected + int(told.params["RecordingDurationMs"]), 1400, over - connected + 700)
    audio = decoded(fetched(told.params["RecordUrl"]).content)
    assert not audio_analysis.intervals_of(audio, 425), "the ringing is not in it"
    stage.saw(f"{told.params['RecordingDurationMs']} ms, without the ringing before the answer")


# Transcriptions: of less than half a second, each is told as an error; so the test needs no speech.


async def transcription(api: Caller) -> None:
    told = await to(api.stage, "/transcription")
    assert (told.method, told.params["error"]) == ("GET", "Recording duration too short for transcription")


@pytest.mark.row(
    "Call Record: transcription_type, transcription_url, transcription_method", "told there, by GET; here: too short"
)
async def test_the_transcription_of_a_recording_of_the_api(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,):
        await stage.call(ann, ROOM)
        uuid = (await stage.enters(ann)).params["CallUUID"]
        url = stage.receiver.url("/transcription")
        wanted = {"transcription_type": "auto", "transcription_url": url, "transcription_method": "GET"}
        assert (await api.ask("POST", f"Call/{uuid}/Record/", **wanted))[0] == 202
        assert (await api.ask("DELETE", f"Call/{uuid}/Record/"))[0] == 204
        await transcription(api)
        await ann.hang_up()


@pytest.mark.row(
    "Record: transcriptionType, transcriptionUrl, transcriptionMethod", "told there, by GET; here: too short"
)
async def test_the_transcription_of_a_record_element(api: Caller) -> None:
    wanted = 'transcriptionType="auto" transcriptionUrl="{url}/transcription" transcriptionMethod="GET"'
    async with api.stage.callers(1) as (ann,):
        await api.stage.call(ann, f'<Record recordSession="true" {wanted}/><Hangup/>')
        await ann.wait_until_hung_up()
        await transcription(api)


@pytest.mark.row(
    "Member: transcription_type, transcription_url, transcription_method", "told there, by GET; here: too short"
)
async def test_the_transcription_that_a_member_asks_for(api: Caller) -> None:
    url = api.stage.receiver.url("/transcription")
    wanted = {"transcription_type": "auto", "transcription_url": url, "transcription_method": "GET"}
    async with CalledPhone() as ann:
        uuid = await enters(api, ann, record=True, **wanted)
        ann.hang_up()
        await api.told("CallCompleted", CallUUID=uuid)
        await transcription(api)
