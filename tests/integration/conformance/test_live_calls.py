"""Commands on live calls, with a real Asterisk, through PyPI's `plivo`; phones hear the results."""

from __future__ import annotations

import asyncio
from pathlib import Path

import plivo
import pytest
from plivo.exceptions import PlivoRestError, ResourceNotFoundError, ValidationError

from ari_conf.local.system import LocalSystem
from demo import audio_analysis
from demo.phone import Phone, now_ms
from tests.integration.stage import ALLOWED, Stage, spans_of, staged
from tests.integration.test_api import ANN, BOB, CID, SOUND, api, becomes, client_of, heard
from tests.lateness import lasted, stalled_ms

__all__ = ["api"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

SONG, ROOM = 1525, '<Conference callbackUrl="{url}/events">room</Conference>'
OTHER = ROOM.replace("room", "other")
do = asyncio.to_thread


@pytest.fixture(autouse=True)
def sounds(stage: Stage) -> None:
    stage.tones("/song.wav", (SONG, 60_000))
    stage.tones("/sound.wav", (SOUND, 1000))
    stage.tones("/long.wav", (SOUND, 20_000))
    stage.document("/wait", "<Wait length='60'/>")


async def calls(stage: Stage, phone: Phone, body: str) -> str:
    """Let the phone call with this document and return its CallUUID."""
    await stage.call(phone, body)
    asked = await stage.event("StartApp", of=phone)
    return asked.params["CallUUID"]


async def in_room(stage: Stage, *phones: Phone) -> list[str]:
    uuids = []
    for phone, hz in zip(phones, (ANN, BOB, CID), strict=False):
        phone.tone(hz)
        uuids.append(await calls(stage, phone, ROOM))
    for phone, hz in zip(phones, (ANN, BOB, CID), strict=False):
        await asyncio.gather(*(stage.hears(other, hz) for other in phones if other is not phone))
    return uuids


# Transfer.


@pytest.mark.row(
    "Transfer: legs, aleg_url", "what runs is broken off, and the document of the URL runs; Event=Transfer"
)
@pytest.mark.parametrize(
    "body",
    [
        "<Play loop='0'>{url}/song.wav</Play>",
        "<Speak loop='0'>One two three four five.</Speak>",
        "<Play>{url}/sound.wav</Play><Wait length='60'/>",
        "<GetInput action='{url}/wait'><Play>{url}/song.wav</Play></GetInput>",
    ],
    ids=["Play", "Speak", "Wait", "GetInput"],
)
async def test_a_transfer_breaks_off_what_runs(stage: Stage, api: plivo.RestClient, body: str) -> None:
    stage.tones("/next.wav", (2875, 500))
    stage.document("/next", "<Play>{url}/next.wav</Play>")
    async with stage.callers(1) as (ann,):
        call_uuid = await calls(stage, ann, body)
        await stage.until(lambda: not audio_analysis.silent(ann.heard.audio), 20, "the element is heard")
        began = now_ms()
        told = await do(api.calls.transfer, call_uuid, legs="aleg", aleg_url=stage.receiver.url("/next"))
        assert told.message == "call transferred"
        heard_at = await stage.hears(ann, 2875)
        lasted(began, heard_at, 0, 1500)
        stage.saw(f"the new document heard {heard_at - began:.0f} ms after the request")
        await ann.wait_until_hung_up()
    (asked,) = stage.receiver.requests_to("/next")
    assert (asked.method, asked.params["Event"], asked.params["CallUUID"]) == ("POST", "Transfer", call_uuid)
    with pytest.raises(ResourceNotFoundError, match="it has ended"):
        await do(api.calls.transfer, call_uuid, legs="aleg", aleg_url=stage.receiver.url("/next"))


@pytest.mark.row(
    "Transfer: aleg_method",
    "out of a conference (ConferenceExitReason=transfer) and into another, without a gap for those who stay",
)
async def test_out_of_one_conference_and_into_another_without_a_gap(stage: Stage, api: plivo.RestClient) -> None:
    stage.document("/other", OTHER)
    stage.document("/room", ROOM)
    async with stage.callers(4) as (ann, bob, cid, dan):
        uuid, *_ = await in_room(stage, ann, bob, cid)
        dan.tone(3025)
        await calls(stage, dan, OTHER)
        since = now_ms()
        await do(api.calls.transfer, uuid, legs="aleg", aleg_url=stage.receiver.url("/other"))
        left = await stage.leaves(ann)
        assert left.params["ConferenceExitReason"] == "transfer"
        await stage.hears(dan, ANN)
        await becomes(stage, ann, {3025})
        await becomes(stage, bob, {CID})
        back = now_ms()
        await do(api.calls.transfer, uuid, legs="aleg", aleg_url=stage.receiver.url("/room"), aleg_method="GET")
        await stage.hears(bob, ANN, after=back)
        await becomes(stage, ann, {BOB, CID})
        await becomes(stage, dan, set())
        # Those who stayed heard each other all the time.
        assert stage.gaps(bob, CID, since, cid) == stage.gaps(cid, BOB, since, bob) == []
        stage.saw("there and back; the two who stayed heard each other without a gap of 100 ms")
    (asked,) = stage.receiver.requests_to("/other")
    assert asked.params["Event"] == "Transfer"


@pytest.mark.row("Transfer: aleg_url", "unreachable: 7013; invalid: 8013")
async def test_a_transfer_to_a_document_that_fails(stage: Stage, api: plivo.RestClient) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    stage.receiver.documents["/nonsense"] = "nonsense"
    async with stage.callers(2) as (ann, bob):
        first = await calls(stage, ann, "<Play>{url}/song.wav</Play>")
        second = await calls(stage, bob, ROOM)
        await do(api.calls.transfer, first, legs="aleg", aleg_url=stage.receiver.url("/nonsense"))
        await do(api.calls.transfer, second, legs="aleg", aleg_url="http://127.0.0.1:1/")
        await asyncio.gather(ann.wait_until_hung_up(), bob.wait_until_hung_up())
        codes = {
            first: (await stage.event("Hangup", of=ann)).params["HangupCauseCode"],
            second: (await stage.event("Hangup", of=bob)).params["HangupCauseCode"],
        }
    assert codes == {first: "8013", second: "7013"}
    stage.saw("hung up with 8013 out of a Play, with 7013 out of a conference")


@pytest.mark.row("Transfer: legs", "bleg and both need a second leg")
async def test_what_is_refused(stage: Stage, api: plivo.RestClient) -> None:
    async with stage.callers(1) as (ann,):
        uuid = await calls(stage, ann, "<Play loop='0'>{url}/song.wav</Play>")
        url = stage.receiver.url("/wait")
        await stage.hears(ann, SONG)
        for refused in (
            lambda: api.calls.transfer(uuid, legs="bleg", bleg_url=url),
            lambda: api.calls.transfer(uuid, legs="both", aleg_url=url, bleg_url=url),
            lambda: api.calls.play(uuid, url, legs="both"),
            lambda: api.calls.send_digits(uuid, "1", leg="bleg"),
        ):
            with pytest.raises(PlivoRestError, match="no second leg"):
                await do(refused)
        with pytest.raises(ValidationError, match="aleg_url is required"):
            await do(api.calls.transfer, uuid, legs="aleg")
        assert SONG in await heard(stage, ann)
        stage.saw("refused with 409 and a sentence; the call goes on")


# Sounds.


@pytest.mark.row("Call Play: urls", "a sound interrupts the running element, which continues where it was")
async def test_a_sound_interrupts_an_element_which_then_continues_where_it_was(
    stage: Stage, api: plivo.RestClient
) -> None:
    stage.tones("/steps.wav", (2575, 8000), (2875, 60_000))
    async with stage.callers(1) as (ann,):
        uuid = await calls(stage, ann, "<Play>{url}/steps.wav</Play>")
        began = await stage.hears(ann, 2575)
        await asyncio.sleep(1.5)
        told = await do(api.calls.play, uuid, stage.receiver.url("/sound.wav"))
        assert told.message == "play started"
        heard_at = await stage.hears(ann, SOUND)
        await stage.hears(ann, 2875)
        first, second = spans_of(ann.heard.audio, 2575)
        await ann.hang_up()
    at = ann.heard.start_ms
    parts = first[1] - first[0], second[1] - second[0]
    assert parts[0] > 1000
    stage.saw(f"8000 ms in two parts: {parts[0]:.0f} ms before the sound, {parts[1]:.0f} ms after it")
    # Together, the two parts are the whole: nothing is heard twice, and nothing is left out.
    assert sum(parts) == pytest.approx(8000, abs=250 + stalled_ms(at, now_ms()))
    lasted(heard_at, at + second[0], 900, 1500)
    assert began < heard_at


@pytest.mark.row("Call Play: urls, length, loop", "one after another; so many seconds; again and again; until DELETE")
async def test_sounds_in_a_row_their_length_and_their_end(stage: Stage, api: plivo.RestClient) -> None:
    url = stage.receiver.url
    stage.tones("/low.wav", (2575, 500))
    stage.tones("/high.wav", (2875, 500))
    async with stage.callers(1) as (ann,):
        uuid = await calls(stage, ann, "<Play>{url}/sound.wav</Play><Wait length='60'/>")
        await stage.hears(ann, SOUND)
        await stage.goes_quiet(ann)
        await do(api.calls.play, uuid, f"{url('/low.wav')},{url('/high.wav')}")
        low, high = await stage.hears(ann, 2575), await stage.hears(ann, 2875)
        lasted(low, high, 400, 900)
        await stage.goes_quiet(ann)
        began = now_ms()
        await do(api.calls.play, uuid, url("/long.wav"), length=2, loop=True)
        start = await stage.hears(ann, SOUND, after=began)
        lasted(start, await stage.goes_quiet(ann), 1700, 2600)
        began = now_ms()
        await do(api.calls.play, uuid, url("/song.wav"), loop=True, mix=False)
        await stage.hears(ann, SONG, after=began)
        await do(api.calls.play_stop, uuid)
        await stage.goes_quiet(ann)
        await ann.hang_up()


@pytest.mark.row(
    "Call Speak: text, voice, language, type, loop", "text and SSML during a prompt, which then continues; until DELETE"
)
async def test_speech_during_a_prompt_which_continues(stage: Stage, api: plivo.RestClient) -> None:
    stage.document("/input", "<Hangup/>")
    ask = '<GetInput action="{url}/input" numDigits="2"><Play loop="0">{url}/song.wav</Play></GetInput>'
    async with stage.callers(1) as (ann,):
        uuid = await calls(stage, ann, ask)
        await stage.hears(ann, SONG)
        told = await do(api.calls.speak, uuid, "Please hold the line.", voice="WOMAN", language="en-US")
        assert told.message == "speak started"
        gone = await stage.until(lambda: SONG not in audio_analysis.tones(ann.heard.since(ann.heard.end_ms - 200)), 15)
        assert gone
        await stage.hears(ann, SONG, after=now_ms())
        await do(api.calls.speak, uuid, "<speak>One <break time='1s'/> two.</speak>", type="ssml", loop=True)
        await stage.until(lambda: SONG not in audio_analysis.tones(ann.heard.since(ann.heard.end_ms - 200)), 15)
        await do(api.calls.speak_stop, uuid)
        await stage.hears(ann, SONG, after=now_ms())
        await ann.press("42")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/input")
        await ann.wait_until_hung_up()
    assert (asked.params["InputType"], asked.params["Digits"], asked.params["Speech"]) == ("dtmf", "42", "")


@pytest.mark.row("Call Play: urls", "in a conference only this member hears it, and the others each other")
async def test_in_a_conference_only_this_member_hears_it(stage: Stage, api: plivo.RestClient) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        uuid, *_ = await in_room(stage, ann, bob, cid)
        since = now_ms()
        await do(api.calls.play, uuid, stage.receiver.url("/long.wav"))
        await stage.hears(ann, SOUND)
        assert SOUND not in await heard(stage, bob)
        await do(api.calls.play_stop, uuid)
        await becomes(stage, ann, {BOB, CID})
        await becomes(stage, bob, {ANN, CID})
        # The others hear each other all the time.
        assert stage.gaps(bob, CID, since, cid) == []


@pytest.mark.row("Call Play, DTMF", "while a document is being requested")
async def test_while_a_document_is_requested(stage: Stage, api: plivo.RestClient) -> None:
    stage.document("/slow", "<Play>{url}/song.wav</Play>")
    answer = stage.receiver.holds("/slow")
    async with stage.callers(1) as (ann,):
        uuid = await calls(stage, ann, "<Play>{url}/sound.wav</Play><Redirect>{url}/slow</Redirect>")
        await stage.hears(ann, SOUND)
        await stage.receiver.wait_for(lambda request: request.path == "/slow")
        began = now_ms()
        await do(api.calls.play, uuid, stage.receiver.url("/sound.wav"))
        await do(api.calls.send_digits, uuid, "7")
        await stage.hears(ann, SOUND, after=began)
        await ann.wait_for_digits("7")
        answer.set()
        await stage.hears(ann, SONG)
        await ann.hang_up()


# Digits.


@pytest.mark.row("Call DTMF: digits, leg", "digits with their pauses, while a sound plays")
async def test_digits_are_sent_at_once_while_a_sound_plays(stage: Stage, api: plivo.RestClient) -> None:
    async with stage.callers(1) as (ann,):
        uuid = await calls(stage, ann, "<Play>{url}/song.wav</Play>")
        await stage.hears(ann, SONG)
        began = now_ms()
        told = await do(api.calls.send_digits, uuid, "1w2#W*", leg="aleg")
        assert told.message == "digits sent"
        await ann.wait_for_digits("12#*")
        times = [at for at, _ in ann.received]
        lasted(began, times[0], 0, 1000)
        lasted(times[0], times[1], 500, 1200)
        lasted(times[2], times[3], 1000, 1700)
        stage.saw(f"the first digit {times[0] - began:.0f} ms after the request, then 1w2#W*; the sound continues")
        await stage.hears(ann, SONG, after=now_ms())
        await ann.hang_up()


@pytest.mark.row("Call DTMF: digits", "in a conference they reach this member alone")
async def test_digits_in_a_conference_reach_this_member_alone(stage: Stage, api: plivo.RestClient) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        uuid, *_ = await in_room(stage, ann, bob, cid)
        since = now_ms()
        await do(api.calls.play, uuid, stage.receiver.url("/long.wav"))
        await stage.hears(ann, SOUND)
        began = now_ms()
        await do(api.calls.send_digits, uuid, "159")
        await ann.wait_for_digits("159")
        lasted(began, ann.received[0][0], 0, 1000)
        stage.saw(f"the first digit {ann.received[0][0] - began:.0f} ms after the request, and none at the others")
        await stage.hears(ann, SOUND, after=now_ms())
        assert bob.received == cid.received == [] and stage.gaps(bob, CID, since, cid) == []


@pytest.mark.row("DTMF: async", "the next element runs at once, or when the digits are sent")
async def test_the_dtmf_element(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, "<DTMF>1w23</DTMF><Play>{url}/song.wav</Play>")
        await stage.hears(ann, SONG)
        await ann.wait_for_digits("123")
        await stage.call(bob, "<DTMF async='false'>1W2</DTMF><Play>{url}/song.wav</Play>")
        first = await stage.hears(bob, SONG)
        assert "".join(digit for _, digit in bob.received) == "12"
        assert bob.received[-1][0] <= first + 100
        await ann.hang_up()
        await bob.hang_up()


# A server that dies.


@pytest.mark.row("live calls", "a server that is killed in the middle: sounds, digits and a transfer go on")
async def test_a_server_that_is_killed_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound and digits of the API outlive the server; a transfer that it has accepted takes place."""
    parts = ("redis", "asterisk", "worker", "serve", "web")
    async with LocalSystem(tmp_path, ALLOWED, parts) as system, staged(system) as own:
        api = await client_of(own, monkeypatch)
        own.tones("/song.wav", (SONG, 60_000))
        own.tones("/long.wav", (SOUND, 8000))
        own.document("/next", "<Play>{url}/song.wav</Play><Wait length='60'/>")
        async with own.callers(4) as (ann, bob, cid, dan):
            first, second, _ = await in_room(own, ann, bob, cid)
            dan.tone(3025)
            await calls(own, dan, ROOM)
            await own.hears(cid, 3025)
            await do(api.calls.play, first, own.receiver.url("/long.wav"))
            await own.hears(ann, SOUND)
            await do(api.calls.send_digits, first, "1WWWWWWWW2")
            await ann.wait_for_digits("1")
            answer = own.receiver.holds("/next")
            since = now_ms()
            await do(api.calls.transfer, second, legs="aleg", aleg_url=own.receiver.url("/next"))
            await system.kill("serve")
            await system.start("serve")
            answer.set()
            await own.hears(bob, SONG)
            await ann.wait_for_digits("12")
            await becomes(own, ann, {CID, 3025}, 15)
            await becomes(own, cid, {ANN, 3025})
            assert own.gaps(cid, 3025, since, dan) == []
            left = await own.leaves(bob)
            assert left.params["ConferenceExitReason"] == "transfer"
