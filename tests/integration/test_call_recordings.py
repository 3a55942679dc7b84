"""Recordings of calls: Record, and Call/{uuid}/Record/; what users hear in the stored files."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import plivo
import pytest
import pytest_asyncio
import requests
from plivo.rest import client as sdk

from ari_conf.local.system import LocalSystem
from ari_conf.recordings import jobs
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key, schema
from ari_conf.store import accounts
from demo import audio_analysis
from demo.codec import G722
from demo.phone import Phone, Switchboard, now_ms
from demo.received_audio import Samples
from tests.integration.receiver import Request
from tests.integration.stage import ALLOWED, Stage, staged
from tests.integration.test_disk_full import disk, fill, small
from tests.integration.test_recordings import HIGH_HZ, decoded, fetched, strength
from tests.lateness import late_ms

__all__ = ["disk", "small"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEEP_HZ = 1000
ANN, BOB, PROMPT, AFTER_HZ = 1675, 2075, 2575, 2875
LONG = "<Speak>Hello.</Speak><Wait length='30'/>"
PLAYED = '<Play>{url}/prompt.wav</Play><Wait length="30"/>'
AFTER = "<Play>{url}/after.wav</Play>"


def channels(file: bytes) -> tuple[Samples, Samples]:
    """Return the left and the right channel of a WAV file."""
    assert file[22:24] == b"\2\0", "stereo"
    at = file.index(b"data") + 8
    both = np.frombuffer(file[at : at + (len(file) - at) // 4 * 4], "<i2")
    return both[0::2], both[1::2]


async def said(stage: Stage, phone: Phone, hz: int, ms: float) -> None:
    phone.tone(hz)
    await stage.listen(phone, ms)
    phone.silence()


def call_uuid(stage: Stage) -> str:
    return stage.receiver.requests_to(f"/document/{stage.calls}")[-1].params["CallUUID"]


async def asked(
    stage: Stage, method: str, path: str, login: tuple[str, str] | None = None, **body: Any
) -> requests.Response:
    """Return the reply to a request to the API."""
    login = login or (stage.account, stage.token)
    url = f"{stage.system.settings.public_url}/v1/Account/{login[0]}/{path}"
    return await asyncio.to_thread(requests.request, method, url, json=body, auth=login, timeout=10)


async def record(stage: Stage, method: str, uuid: str, **body: Any) -> requests.Response:
    return await asked(stage, method, f"Call/{uuid}/Record/", **body)


async def told(stage: Stage, path: str = "/told") -> Request:
    return await stage.receiver.wait_for(lambda request: request.path == path)


def hears_whole(audio: Samples, hz: int, ms: float, late: float = 0.0) -> None:
    """Assert that the tone is there for as long as it was said, without a gap."""
    spans = audio_analysis.intervals_of(audio, hz)
    assert spans, f"no {hz} Hz: {audio_analysis.tones(audio)}"
    assert spans[-1][1] - spans[0][0] >= ms - 150 - late, spans
    assert not [(a, b) for a, b in audio_analysis.gaps(audio, hz, longest_ms=100.0) if b - a > 100 + late]


@pytest.mark.row(
    "Record: timeout, playBeep, action, callbackUrl, fileFormat",
    "seconds of silence end it; a beep that is not recorded; the action and the callback with their parameters",
)
async def test_a_voicemail_ends_with_the_silence(stage: Stage) -> None:
    """ "timeout: seconds of silence": a beep, what the caller says, two seconds of silence, the action."""
    stage.document("/done", "<Wait/>")
    body = '<Record action="{url}/done" fileFormat="wav" timeout="2" callbackUrl="{url}/told" finishOnKey="9"/>'
    async with stage.callers(1) as (ann,):
        answered = await stage.call(ann, body)
        beep_at = await stage.hears(ann, BEEP_HZ)
        await stage.goes_quiet(ann, 200)
        began = now_ms()
        await said(stage, ann, ANN, 3000)
        ended = now_ms()
        done = await told(stage, "/done")
        await ann.wait_until_hung_up()
    params, callback = done.params, (await told(stage)).params
    assert params["CallStatus"] == "in-progress" and params["Event"] == "Redirect" and params["Digits"] == ""
    assert {"RecordUrl", "RecordingID", "RecordingDuration", "RecordingDurationMs"} <= params.keys()
    late = late_ms(answered, now_ms())
    assert 1800 < done.at_ms - ended < 2700 + late, "two seconds of silence end it"
    assert callback["Event"] == "Record" and "Digits" not in callback
    assert (callback["RecordingID"], callback["RecordUrl"]) == (params["RecordingID"], params["RecordUrl"])
    file = fetched(callback["RecordUrl"])
    assert file.status_code == 200 and file.headers["Content-Type"] == "audio/wav"
    audio = decoded(file.content)
    assert file.content[22:24] == b"\1\0", "one voice: mono"
    hears_whole(audio, ANN, ended - began, late)
    assert not audio_analysis.intervals_of(audio, BEEP_HZ), "the beep is not recorded"
    ms = int(callback["RecordingDurationMs"])
    assert abs(ms - len(audio) / 8) < 50
    assert abs(int(params["RecordingDurationMs"]) - ms) < 300 + late
    first = audio_analysis.intervals_of(audio, ANN)[0][0]
    stage.saw(f"beep {beep_at - answered:.0f} ms after the answer, voice from {first:.0f} ms on, {ms} ms in all")
    start = int(callback["RecordingStartMs"])
    assert abs(began - start - first) < 250 + late, "nothing of the beginning is missing"


@pytest.mark.row(
    "Record: finishOnKey, redirect, fileFormat",
    "a key ends it and is told as Digits, other keys do not; redirect=false: the next element runs; mp3",
)
async def test_a_key_ends_it(stage: Stage) -> None:
    stage.tones("/after.wav", (AFTER_HZ, 400))
    body = '<Record action="{url}/done" redirect="false" finishOnKey="*#" callbackUrl="{url}/told"/>' + AFTER
    async with stage.callers(1) as (ann,):
        await stage.call(ann, body)
        await stage.hears(ann, BEEP_HZ)
        await stage.goes_quiet(ann, 200)
        await said(stage, ann, ANN, 1000)
        await ann.press("5")
        await stage.listen(ann, 500)
        await ann.press("*")
        await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
    done, callback = (await told(stage, "/done")).params, (await told(stage)).params
    assert done["Digits"] == "*"
    assert 1000 < int(done["RecordingDurationMs"]) < 4000 + late_ms(now_ms() - 10_000, now_ms())
    assert fetched(callback["RecordUrl"]).headers["Content-Type"] == "audio/mpeg"
    assert audio_analysis.intervals_of(decoded(fetched(callback["RecordUrl"]).content), ANN)


@pytest.mark.row(
    "Record: maxLength, playBeep, method, callbackMethod", "so many seconds; no beep; nothing is missing; GET"
)
async def test_it_ends_after_max_length_without_a_beep(stage: Stage) -> None:
    stage.tones("/after.wav", (AFTER_HZ, 400))
    body = (
        '<Record maxLength="2" playBeep="false" fileFormat="wav" callbackUrl="{url}/told" callbackMethod="GET" '
        'action="{url}/done" method="GET" redirect="false"/>'
    ) + AFTER
    async with stage.callers(1) as (ann,):
        ann.tone(ANN)
        answered = await stage.call(ann, body)
        await stage.hears(ann, AFTER_HZ)
        assert not audio_analysis.intervals_of(ann.heard.audio, BEEP_HZ)
        await ann.wait_until_hung_up()
    assert (await told(stage, "/done")).method == (await told(stage)).method == "GET"
    callback = (await told(stage)).params
    late = late_ms(answered, now_ms())
    assert abs(int(callback["RecordingDurationMs"]) - 2000) < 150 + late
    audio = decoded(fetched(callback["RecordUrl"]).content)
    hears_whole(audio, ANN, 1950, late)
    first = audio_analysis.intervals_of(audio, ANN)[0][0]
    stage.saw(f"{callback['RecordingDurationMs']} ms; the voice from {first:.0f} ms on")


@pytest.mark.row("Record: action", "a hangup ends it: the action is told, the reply is ignored")
async def test_a_caller_who_hangs_up_has_left_a_message(stage: Stage) -> None:
    body = '<Record action="{url}/done" fileFormat="wav" callbackUrl="{url}/told"/>'
    stage.set_account(hangup_url="{url}/hung-up")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, body)
        await stage.hears(ann, BEEP_HZ)
        await stage.goes_quiet(ann, 200)
        ann.tone(ANN)
        await stage.listen(ann, 2000)
        await ann.hang_up()
    done, callback = (await told(stage, "/done")).params, (await told(stage)).params
    assert done["CallStatus"] == "completed"
    assert done["RecordUrl"] == callback["RecordUrl"]
    audio = decoded(fetched(callback["RecordUrl"]).content)
    hears_whole(audio, ANN, 1900, late_ms(now_ms() - 10_000, now_ms()))
    assert abs(int(done["RecordingDurationMs"]) - len(audio) / 8) < 300 + late_ms(now_ms() - 10_000, now_ms())


@pytest.mark.row(
    "Record: recordSession, recordChannelType",
    "the whole call, in and out of a conference; stereo: caller left, what they hear right",
)
async def test_the_whole_call_is_recorded_wherever_it_is(stage: Stage) -> None:
    """ "recordSession: background, whole call": prompts, a conference, hold, and what follows, without a gap."""
    stage.tones("/prompt.wav", (PROMPT, 1000))
    stage.tones("/after.wav", (AFTER_HZ, 1000))
    body = (
        '<Record recordSession="true" fileFormat="wav" maxLength="3600" action="{url}/started" redirect="false" '
        'callbackUrl="{url}/told"/><Play>{url}/prompt.wav</Play>'
        '<Conference callbackUrl="{url}/events" hangupOnStar="true">team</Conference>' + AFTER
    )
    async with stage.callers(2) as (ann, bob):
        bob.tone(BOB)
        await stage.call(bob, '<Conference callbackUrl="{url}/events">team</Conference>')
        await stage.enters(bob)
        ann.tone(ANN)
        answered = await stage.call(ann, body)
        await stage.hears(ann, PROMPT)
        await stage.hears(ann, BOB)
        await stage.listen(ann, 1500)
        await ann.press("*")
        await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
        over = now_ms()
        await bob.hang_up()
    started, callback = (await told(stage, "/started")).params, (await told(stage)).params
    assert (started["RecordingDuration"], started["RecordingDurationMs"]) == ("-1", "-1")
    assert started["RecordUrl"] == callback["RecordUrl"]
    late = late_ms(answered, over)
    left, right = channels(fetched(callback["RecordUrl"]).content)
    length = len(left) / 8
    assert abs(length - (over - answered)) < 500 + late, "the whole call"
    assert abs(length - int(callback["RecordingDurationMs"])) < 50
    # Left: Ann from the first to the last moment. Right: what she heard, in order.
    hears_whole(left, ANN, length - 400, late)
    assert set(audio_analysis.tones(left)) == {ANN}
    heard = audio_analysis.tones(right, (PROMPT, BOB, AFTER_HZ, ANN))
    assert heard[PROMPT][0][0] < heard[BOB][0][0] < heard[AFTER_HZ][0][0]
    assert heard[PROMPT][0][0] < 800 + late, "the first second is there"
    assert not heard.get(ANN), "she does not hear herself"
    hears_whole(right, BOB, 1400, late)
    gap = heard[BOB][0][0] - heard[PROMPT][-1][1]
    stage.saw(f"{length:.0f} ms of {over - answered:.0f}, {gap:.0f} ms from the prompt to the conference")
    shown = (await asked(stage, "GET", f"Recording/{callback['RecordingID']}/")).json()
    assert (shown["recording_type"], shown["call_uuid"]) == ("call", callback["CallUUID"])
    assert (shown["from_number"], shown["to_number"]) == (stage.number(ann), "15550100")
    bucket = Bucket(stage.system.settings)
    document = bucket.get_json(
        object_key(stage.account, callback["RecordingID"], int(callback["RecordingStartMs"]), "json")
    )
    jsonschema_rs.validate(schema(), document)
    assert document is not None and document["conference"] is None and document["channels"] == 2


@pytest.mark.row(
    "Call Record: time_limit, callback_url, callback_method, file_format, record_channel_type",
    "POST records until time_limit, DELETE stops, a URL stops that one alone; callback in snake_case",
)
async def test_the_api_records_and_stops(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        ann.tone(ANN)
        await stage.call(ann, LONG)
        await stage.listen(ann, 300)
        uuid = call_uuid(stage)
        first = await record(
            stage, "POST", uuid, callback_url=f"{stage.url}/told", callback_method="GET", file_format="wav"
        )
        other = await record(stage, "POST", uuid, record_channel_type="mono", time_limit=2)
        assert first.status_code == other.status_code == 202, first.text
        started = first.json()
        assert started["message"] == "call recording started"
        assert started.keys() == {"url", "message", "recording_id", "api_id"}
        await stage.listen(ann, 1500)
        stopped = await record(stage, "DELETE", uuid, URL=started["url"])
        assert (stopped.status_code, stopped.content) == (204, b"")
        callback = await told(stage)
        params = callback.params
        assert callback.method == "GET"
        # The other one goes on until its limit.
        await stage.until(lambda: fetched(other.json()["url"]).status_code == 200, 10)
        assert (await record(stage, "DELETE", uuid)).status_code == 404
        assert len(await stage.ari.request("GET", "/channels")) == 1, "nothing listens to the call any more"
        await ann.hang_up()
    assert params.keys() == {
        *("api_id", "record_url", "call_uuid", "recording_id", "recording_duration", "recording_duration_ms"),
        *("recording_start_ms", "recording_end_ms"),
    }
    assert (params["call_uuid"], params["record_url"]) == (uuid, started["url"])
    late = late_ms(now_ms() - 15_000, now_ms())
    left, _ = channels(fetched(started["url"]).content)
    hears_whole(left, ANN, 1400, late)
    mono = decoded(fetched(other.json()["url"]).content)
    assert abs(len(mono) / 8 - 2000) < 200 + late
    hears_whole(mono, ANN, 1900, late)
    stage.saw(f"{len(left) / 8:.0f} ms until DELETE, {len(mono) / 8:.0f} ms with time_limit=2")


@pytest.mark.row("Call Record", "another account can neither record nor stop")
async def test_another_account_can_not_record_it(stage: Stage) -> None:
    mallory = accounts.add(stage.redis, int(now_ms()), f"M{stage.account[1:]}")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, LONG)
        uuid = call_uuid(stage)
        for method in ("POST", "DELETE"):
            reply = await asked(stage, method, f"Call/{uuid}/Record/", (mallory.auth_id, mallory.token))
            assert reply.status_code == 404 and reply.json()["error"].startswith("call not found")
        assert (await record(stage, "POST", "no-such-call")).status_code == 404
        assert (await record(stage, "POST", uuid, time_limit=0)).status_code == 400
        await ann.hang_up()


@pytest.mark.row("Call Record", "Plivo's SDK records, stops, lists and deletes")
async def test_plivos_sdk_records(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"{stage.system.settings.public_url}/v1/Account"
    for name in ("API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1", "API_VOICE_BASE_URI_FALLBACK_2"):
        monkeypatch.setattr(sdk, name, base)
    stage.account = f"MA{stage.account[1:].upper():A<18}"[:20]
    stage.token = stage.receiver.token = accounts.add(stage.redis, int(now_ms()), stage.account).token
    client = plivo.RestClient(stage.account, stage.token)
    async with stage.callers(1) as (ann,):
        ann.tone(ANN)
        await stage.call(ann, LONG)
        await stage.listen(ann, 300)
        uuid = call_uuid(stage)
        started = await asyncio.to_thread(
            client.calls.record, uuid, file_format="wav", callback_url=f"{stage.url}/told", record_channel_type="mono"
        )
        assert started.message == "call recording started"
        await stage.listen(ann, 1000)
        await asyncio.to_thread(client.calls.stop_recording, uuid, None, None)
        params = (await told(stage)).params
        assert (started.recording_id, started.url) == (params["recording_id"], params["record_url"])
        await ann.hang_up()
    (listed,) = (await asyncio.to_thread(client.recordings.list, call_uuid=uuid)).objects
    assert (listed.recording_id, listed.recording_type) == (started.recording_id, "call")
    await asyncio.to_thread(client.recordings.delete, started.recording_id)
    assert fetched(started.url).status_code == 404


@pytest.mark.row("Record", "16 kHz of a wideband caller")
async def test_a_wideband_caller_is_recorded_at_16_khz(stage: Stage) -> None:
    body = '<Record timeout="2" playBeep="false" fileFormat="wav" callbackUrl="{url}/told"/>'
    async with Switchboard() as board:
        ann = board.phone(codec=G722)
        ann.tone(HIGH_HZ)
        await stage.call(ann, body)
        await stage.listen(ann, 1500)
        await ann.hang_up()
    file = fetched((await told(stage)).params["RecordUrl"]).content
    with wave.open(io.BytesIO(file)) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (16000, 1)
    assert strength(decoded(file, 16000), HIGH_HZ, 16000) > -25


@pytest.mark.row(
    "Record", "recordSession goes on while the member is on hold: their voice without a gap, and the music"
)
async def test_on_hold_and_back_without_a_gap(stage: Stage) -> None:
    """The API holds a member and takes them back: their voice is there all the time, and what they hear as well."""
    body = (
        '<Record recordSession="true" fileFormat="wav" maxLength="600" callbackUrl="{url}/told"/>'
        '<Conference callbackUrl="{url}/events">held</Conference>'
    )
    async with stage.callers(2) as (ann, bob):
        bob.tone(BOB)
        await stage.call(bob, '<Conference callbackUrl="{url}/events">held</Conference>')
        ann.tone(ANN)
        answered = await stage.call(ann, body)
        member = (await stage.enters(ann)).params["ConferenceMemberID"]
        await stage.hears(ann, BOB)
        await stage.listen(ann, 700)
        await asked(stage, "POST", f"Conference/held/Member/{member}/Hold/")
        await stage.listen(ann, 2000)
        await asked(stage, "DELETE", f"Conference/held/Member/{member}/Hold/")
        back = now_ms()
        await stage.hears(ann, BOB, after=back)
        await stage.listen(ann, 1000)
        over = now_ms()
        await ann.hang_up()
        await bob.hang_up()
    left, right = channels(fetched((await told(stage)).params["RecordUrl"]).content)
    late = late_ms(answered, over)
    hears_whole(left, ANN, over - answered - 400, late)
    spans = audio_analysis.intervals_of(right, BOB)
    stage.saw(f"the voice for {len(left) / 8:.0f} of {over - answered:.0f} ms; the music between {spans}")
    assert len(spans) >= 2 and not audio_analysis.silent(right[round(spans[0][1] * 8) + 4000 : round(spans[-1][0] * 8)])


# What fails meanwhile.


@pytest_asyncio.fixture(loop_scope="session")
async def mortal(tmp_path: Path) -> AsyncGenerator[Stage]:
    """Yield a stage with a bucket, whose system the test may kill."""
    parts = ("redis", "s3", "asterisk", "worker", "serve")
    async with LocalSystem(tmp_path, ALLOWED, parts) as system, staged(system) as stage:
        yield stage


def file_of(stage: Stage, params: Mapping[str, str], form: str = "wav") -> bytes:
    """Return the file from the bucket."""
    key = object_key(stage.account, params["RecordingID"], int(params["RecordingStartMs"]), form)
    return b"".join(Bucket(stage.system.settings).read(key))


@pytest.mark.row("Record", "recordSession goes on while the application is dead")
@pytest.mark.parametrize("hangs_up", ["while it is away", "afterwards"])
async def test_the_application_dies_and_nothing_is_missing(mortal: Stage, hangs_up: str) -> None:
    body = '<Record recordSession="true" fileFormat="wav" maxLength="600" callbackUrl="{url}/told"/>' + PLAYED
    mortal.tones("/prompt.wav", (PROMPT, 300))
    async with mortal.callers(1) as (ann,):
        ann.tone(ANN)
        answered = await mortal.call(ann, body)
        await mortal.hears(ann, PROMPT)
        await mortal.listen(ann, 1000)
        await mortal.system.kill("serve")
        await mortal.listen(ann, 1500)
        if hangs_up == "while it is away":
            await ann.hang_up()
        over = now_ms()
        await mortal.system.start("serve")
        if hangs_up == "afterwards":
            await mortal.listen(ann, 1500)
            over = now_ms()
            await ann.hang_up()
    params = (await told(mortal)).params
    assert mortal.problems() == []
    left, _ = channels(file_of(mortal, params))
    late = late_ms(answered, over)
    assert abs(len(left) / 8 - (over - answered)) < 600 + late
    hears_whole(left, ANN, over - answered - 500, late)


async def test_the_application_dies_while_a_message_is_left(mortal: Stage) -> None:
    body = '<Record action="{url}/done" fileFormat="wav" timeout="3" playBeep="false" callbackUrl="{url}/told"/>'
    mortal.document("/done", "<Hangup/>")
    async with mortal.callers(1) as (ann,):
        ann.tone(ANN)
        await mortal.call(ann, body)
        await mortal.listen(ann, 1000)
        await mortal.system.kill("serve")
        await mortal.listen(ann, 1000)
        ann.silence()
        await mortal.system.start("serve")
        back = now_ms()
        done = await told(mortal, "/done")
        await ann.wait_until_hung_up()
    assert done.at_ms - back < 4500 + late_ms(back, now_ms()), "the silence ends it, although nobody heard it begin"
    params = (await told(mortal)).params
    assert done.params["RecordingID"] == params["RecordingID"]
    hears_whole(decoded(file_of(mortal, params)), ANN, 1900, late_ms(now_ms() - 20_000, now_ms()))


async def test_the_bucket_is_away(mortal: Stage) -> None:
    body = '<Record action="{url}/done" redirect="false" fileFormat="wav" maxLength="2" callbackUrl="{url}/told"/>'
    await mortal.system.stop("s3")
    async with mortal.callers(1) as (ann,):
        ann.tone(ANN)
        await mortal.call(ann, body)
        await ann.wait_until_hung_up()
    await told(mortal, "/done")
    await mortal.until(lambda: [one for one in jobs.pending(mortal.redis) if one.job.attempts > 0], 20)
    assert not mortal.receiver.requests_to("/told"), "it is not there yet"
    await mortal.system.start("s3")
    hears_whole(decoded(file_of(mortal, (await told(mortal)).params)), ANN, 1900, late_ms(now_ms() - 20_000, now_ms()))


async def test_asterisk_dies_and_what_it_wrote_is_stored(mortal: Stage) -> None:
    body = '<Record recordSession="true" fileFormat="wav" callbackUrl="{url}/told"/>' + PLAYED
    mortal.tones("/prompt.wav", (PROMPT, 300))
    async with mortal.callers(1) as (ann,):
        ann.tone(ANN)
        await mortal.call(ann, body)
        await mortal.hears(ann, PROMPT)
        await mortal.listen(ann, 2000)
        await mortal.system.kill("asterisk")
        await mortal.system.start("asterisk")
    left, right = channels(file_of(mortal, (await told(mortal)).params))
    assert len(left) == len(right) and len(left) / 8 > 1500
    assert audio_analysis.intervals_of(left, ANN)


async def test_asterisks_disk_is_full(small: Stage) -> None:
    # Nothing is spoken: the sounds are on the same disk.
    body = '<Record recordSession="true" fileFormat="wav" callbackUrl="{url}/told"/><Wait length="30"/>'
    async with small.callers(1) as (ann,):
        ann.tone(ANN)
        await small.call(ann, body)
        await small.listen(ann, 1500)
        full = fill(small)
        await small.until(lambda: [text for text in small.problems() if "is Asterisk's disk full?" in text])
        params = (await told(small)).params
        assert int(params["RecordingDurationMs"]) > 0
        assert len(await small.ari.request("GET", "/channels")) == 1, "the call goes on, and nothing listens to it"
        full.unlink()
        await ann.hang_up()
    assert audio_analysis.intervals_of(channels(file_of(small, params))[0], ANN)
    assert len(small.problems()) == 1
