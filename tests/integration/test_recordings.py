"""From record="true" to a file in the bucket: the stored files and the callbacks, as users see them."""

from __future__ import annotations

import io
import subprocess
import time
import wave
from typing import Any

import jsonschema_rs
import numpy as np
import plivo
import pytest
import requests
from plivo.exceptions import ResourceNotFoundError
from plivo.exceptions import ValidationError as PlivoValidationError
from plivo.rest import client as sdk

from ari_conf.recordings import jobs
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key, schema
from ari_conf.store import accounts
from demo import audio_analysis
from demo.codec import G722, PCMU, Codec
from demo.phone import Switchboard
from demo.received_audio import Samples
from tests.integration.receiver import Request
from tests.integration.stage import Stage
from tests.lateness import late_ms

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORDED = '<Conference record="true" recordFileFormat="{form}" callbackUrl="{{url}}/events">stand up</Conference>'
ANN, BOB = 1075, 1675


def decoded(file: bytes, rate: int = 8000) -> Samples:
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "s16le", "-ac", "1", "-ar", str(rate), "-"]
    return np.frombuffer(subprocess.run(command, input=file, capture_output=True, check=True).stdout, "<i2")


def fetched(url: str, **more: Any) -> requests.Response:
    return requests.get(url, timeout=10, **more)


async def recorded(stage: Stage, form: str) -> Request:
    """Record Ann's tone and then Bob's, and return the `record` callback."""
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, RECORDED.format(form=form))
        await stage.enters(ann)
        await stage.call(bob, RECORDED.format(form=form))
        await stage.enters(bob)
        ann.tone(ANN)
        await stage.hears(bob, ANN)
        await stage.listen(bob, 1200)
        ann.silence()
        await stage.listen(bob, 800)
        bob.tone(BOB)
        await stage.hears(ann, BOB)
        await stage.listen(bob, 1200)
        await ann.hang_up()
        await stage.leaves(ann)
        await bob.hang_up()
    return await stage.event("ConferenceRecord")


@pytest.mark.row(
    "record", "the callback is the last, and tells of a file that is there, with the duration of its audio"
)
@pytest.mark.parametrize("form", ["mp3", "wav"])
async def test_the_file_exists_when_the_callback_arrives(stage: Stage, form: str) -> None:
    """ "`record` is sent when the file is in the bucket and RecordUrl can be fetched, never before." """
    told = (await recorded(stage, form)).params
    assert not {"ConferenceMemberID", "CallUUID"} & told.keys()
    assert told["ConferenceAction"] == "record"
    numbers = [int(one.params["ConferenceSequence"]) for one in stage.receiver.requests_to("/events")]
    assert numbers == list(range(1, len(numbers) + 1)), "record is the last of them"
    file = fetched(told["RecordUrl"])
    assert file.status_code == 200
    assert file.headers["Content-Type"] == {"mp3": "audio/mpeg", "wav": "audio/wav"}[form]
    audio, ms = decoded(file.content), int(told["RecordingDurationMs"])
    # The duration is that of the audio, and that of the clock between start and end.
    assert abs(len(audio) / 8 - ms) < 300
    began, ended = int(told["RecordingStartMs"]), int(told["RecordingEndMs"])
    assert abs(ended - began - ms) < 300 + late_ms(began, ended)
    assert int(told["RecordingDuration"]) == round(ms / 1000)
    tones = audio_analysis.tones(audio, (ANN, BOB))
    assert tones[ANN][0][1] < tones[BOB][0][0]
    stage.saw(f"{ms} ms told, {len(audio) / 8:.0f} ms in the {form}")
    # Asterisk has no file of the recording any more.
    folder = stage.system.settings.recording_folder
    assert folder is not None and not [*(folder / stage.account).glob("*")]


@pytest.mark.row("record", "beside it: members, who spoke when, by a schema")
async def test_the_sidecar_describes_the_recording(stage: Stage) -> None:
    told = (await recorded(stage, "wav")).params
    bucket = Bucket(stage.system.settings)
    start_ms = int(told["RecordingStartMs"])
    key = object_key(stage.account, told["RecordingID"], start_ms, "wav")
    assert key.startswith(time.strftime(f"recordings/{stage.account}/%Y/%m/%d/", time.gmtime(start_ms / 1000)))
    metadata = bucket.call("head_object", Key=key)["Metadata"]
    assert metadata["conference-name"] == "stand up"
    assert metadata["start-ms"] == told["RecordingStartMs"]
    document = bucket.get_json(key.replace(".wav", ".json"))
    assert document is not None
    jsonschema_rs.validate(schema(), document)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(schema(), document | {"size": -1})
    assert document["size"] == len(b"".join(bucket.read(key)))
    assert document["sample_rate"] == 8000
    ann, bob = document["members"]
    enters, exits = stage.events("ConferenceEnter"), stage.events("ConferenceExit")
    for member, number, enter, exit_ in zip((ann, bob), ("15550001", "15550002"), enters, exits, strict=True):
        assert member["from"] == number
        assert member["call_uuid"] == enter.params["CallUUID"]
        assert member["entered_ms"] == int(enter.params["Timestamp"])
        assert member["left_ms"] == int(exit_.params["Timestamp"])
    # The audio itself shows the same times of speech.
    heard = audio_analysis.tones(decoded(b"".join(bucket.read(key))), (ANN, BOB))
    spoke = {member["member_id"]: [] for member in (ann, bob)}
    for one in document["talk"]:
        spoke[one["member_id"]].append((one["start_ms"], one["end_ms"]))
    for member, hz in ((ann, ANN), (bob, BOB)):
        ((start, end),) = spoke[member["member_id"]]
        late = late_ms(start_ms, int(told["RecordingEndMs"]))
        assert abs(start - heard[hz][0][0]) < 200 + late and abs(end - heard[hz][-1][1]) < 400 + late
    stage.saw(f"said by the timeline {document['talk']}, heard {heard}")


@pytest.mark.row("record", "Plivo's SDK lists, shows and deletes it")
async def test_the_sdk_lists_shows_and_deletes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    base = f"{stage.system.settings.public_url}/v1/Account"
    for name in ("API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1", "API_VOICE_BASE_URI_FALLBACK_2"):
        monkeypatch.setattr(sdk, name, base)
    stage.account = f"MA{stage.account[1:].upper():A<18}"[:20]
    stage.token = stage.receiver.token = accounts.add(stage.redis, int(time.time() * 1000), stage.account).token
    api = plivo.RestClient(stage.account, stage.token)
    told = (await recorded(stage, "mp3")).params
    (listed,) = api.recordings.list(conference_name="stand up")
    shown = api.recordings.get(told["RecordingID"])
    for one in (listed, shown):
        assert one.recording_id == told["RecordingID"]
        assert one.recording_url == told["RecordUrl"]
        assert float(one.recording_duration_ms) == int(told["RecordingDurationMs"])
        assert one.conference_name == "stand up"
        # The number of the member who was in the bridge first, which may be the second one's on a busy machine.
        assert one.from_number in ("15550001", "15550002")
        assert (one.to_number, one.recording_storage_duration) == ("15550100", 0)
    assert api.recordings.list(conference_name="another").objects == []
    assert api.recordings.list(add_time__lt="2020-01-01 00:00").objects == []
    assert len(api.recordings.list(add_time__gt="2020-01-01 00:00").objects) == 1
    for both, count in (("15550002", 1), ("15550003", 0)):
        assert len(api.recordings.list(from_number=both, conference_name="stand up").objects) == count
    assert len(api.recordings.list(to_number="15550100", recording_storage_duration=0).objects) == 1
    assert api.recordings.list(recording_storage_duration__gte=1).objects == []
    with pytest.raises(PlivoValidationError, match="multiparty calls are not offered"):
        api.recordings.list(mpc_name="stand up")
    api.recordings.delete(told["RecordingID"])
    with pytest.raises(ResourceNotFoundError):
        api.recordings.get(told["RecordingID"])
    assert fetched(told["RecordUrl"]).status_code == 404
    start_ms = int(told["RecordingStartMs"])
    for extension in ("mp3", "json"):
        key = object_key(stage.account, told["RecordingID"], start_ms, extension)
        assert Bucket(stage.system.settings).get_json(key) is None


async def test_an_account_may_ask_for_a_login(stage: Stage) -> None:
    stage.set_account(recording_auth="basic")
    told = (await recorded(stage, "mp3")).params
    refused = fetched(told["RecordUrl"])
    assert refused.status_code == 401 and refused.json()["api_id"]
    assert fetched(told["RecordUrl"], auth=(stage.account, "wrong")).status_code == 401
    assert fetched(told["RecordUrl"], auth=(stage.account, stage.token)).status_code == 200


@pytest.mark.row("record", "before it is stored RecordUrl is a 404 that says so")
async def test_a_recording_before_it_is_stored(stage: Stage) -> None:
    """ "before the upload is done 404 with a JSON error that says so" """
    async with stage.callers(1) as (ann,):
        await stage.call(ann, RECORDED.format(form="mp3").replace("callback", 'action="{url}/ann" callback'))
        await stage.enters(ann)
        await stage.until(lambda: stage.redis.hgetall(f"ari_conf:state:{stage.asterisk_name}"))
        await stage.listen(ann, 500)
        await stage.system.stop("worker")
        await ann.hang_up()
        await stage.until(lambda: jobs.pending(stage.redis), description="a recording that waits")
        (waits,) = jobs.pending(stage.redis)
        answer = fetched(waits.job.record_url)
        assert answer.status_code == 404
        assert "not stored yet" in answer.json()["error"]
        await stage.system.start("worker")
    told = (await stage.event("ConferenceRecord")).params
    assert told["RecordUrl"] == waits.job.record_url
    assert fetched(told["RecordUrl"]).status_code == 200


@pytest.mark.row("record", "one who is muted and alone: silence, as long as it lasts")
async def test_a_muted_member_alone_is_recorded_as_silence(stage: Stage) -> None:
    """The recording lasts as long as the conference, no matter which members speak."""
    async with stage.callers(1) as (ann,):
        await stage.call(ann, RECORDED.format(form="wav").replace("<Conference", '<Conference muted="true"'))
        await stage.enters(ann)
        await stage.listen(ann, 2000)
        await ann.hang_up()
    told = (await stage.event("ConferenceRecord")).params
    began, ended = int(told["RecordingStartMs"]), int(told["RecordingEndMs"])
    between = ended - began
    assert abs(int(told["RecordingDurationMs"]) - between) < 300 + late_ms(began, ended)
    assert between + late_ms(began, ended) >= 1900
    assert audio_analysis.silent(decoded(fetched(told["RecordUrl"]).content))


@pytest.mark.row("record", "a conference that ends at once")
async def test_a_conference_that_ends_at_once(stage: Stage) -> None:
    """The conference ends within 100 ms of its start: one callback at most, with a file that plays."""
    async with stage.callers(1) as (ann,):
        await stage.call(ann, RECORDED.format(form="mp3"))
        await stage.enters(ann)
        await ann.hang_up()
        await stage.leaves(ann)
    await stage.nothing_left()
    said = stage.events("ConferenceRecord")
    if said:
        (told,) = said
        assert fetched(told.params["RecordUrl"]).status_code == 200
        assert len(decoded(fetched(told.params["RecordUrl"]).content)) < 8000
        stage.saw(f"{told.params['RecordingDurationMs']} ms")


HIGH_HZ = 6000
"""A pitch above the range of 8000 samples a second."""


def strength(audio: Samples, hz: int, rate: int) -> float:
    """Return the dBFS of that tone in the loudest half second."""
    pieces = np.split(audio[: len(audio) // (rate // 2) * (rate // 2)], len(audio) // (rate // 2))
    turn = np.exp(-2j * np.pi * hz * np.arange(rate // 2) / rate)
    return float(max(20 * np.log10(2 * abs(np.dot(piece, turn)) / len(piece) / 32768 + 1e-9) for piece in pieces))


@pytest.mark.row("record", "16 kHz with a wideband caller in it, and what is above 4 kHz; else 8 kHz")
@pytest.mark.parametrize(("codec", "form", "rate"), [(G722, "wav", 16000), (G722, "mp3", 16000), (PCMU, "wav", 8000)])
async def test_a_recording_has_the_best_sample_rate_of_the_conference(
    stage: Stage, codec: Codec, form: str, rate: int
) -> None:
    """Bob calls with mu-law and waits for the start; Ann starts the conference, with G.722 in the first two cases.
    Ann's sound above 4 kHz is in the file."""
    asks = RECORDED.format(form=form)
    async with Switchboard() as board:
        bob, ann = board.phone(), board.phone(codec=codec)
        await stage.call(bob, asks.replace("<Conference", '<Conference startConferenceOnEnter="false"'))
        ann.tone(BOB)
        await stage.call(ann, asks)
        for phone in (bob, ann):
            await stage.enters(phone)
        await stage.hears(bob, BOB)
        await stage.listen(bob, 1000)
        ann.tone(HIGH_HZ if codec is G722 else ANN)
        await stage.listen(bob, 1500)
        for phone in (ann, bob):
            await phone.hang_up()
            await stage.leaves(phone)
    told = (await stage.event("ConferenceRecord")).params
    key = object_key(stage.account, told["RecordingID"], int(told["RecordingStartMs"]), "json")
    document = Bucket(stage.system.settings).get_json(key)
    assert document is not None and document["sample_rate"] == rate
    file = fetched(told["RecordUrl"]).content
    if form == "wav":
        with wave.open(io.BytesIO(file)) as sound:
            assert (sound.getframerate(), sound.getnchannels()) == (rate, 1)
    audio = decoded(file, rate)
    assert abs(len(audio) * 1000 / rate - int(told["RecordingDurationMs"])) < 300
    low, high = strength(audio, BOB, rate), strength(audio, HIGH_HZ, rate) if rate == 16000 else -np.inf
    stage.saw(f"{codec.name}, {form} of {rate} Hz: {BOB} Hz at {low:.0f} dBFS, {HIGH_HZ} Hz at {high:.0f} dBFS")
    assert low > -25
    assert high > -25 if codec is G722 else high == -np.inf


@pytest.mark.row("record", "Asterisk refuses to record: a problem is told, no number is left out, nothing waits")
async def test_asterisk_refuses_to_record(stage: Stage) -> None:
    """Asterisk refuses when the folder of its recordings is missing."""
    folder = stage.system.settings.recording_folder
    assert folder is not None
    folder.rename(folder.with_name("away"))
    try:
        async with stage.callers(2) as (ann, bob):
            for phone in (ann, bob):
                await stage.call(phone, RECORDED.format(form="mp3"))
                await stage.enters(phone)
            (problem,) = await stage.until(stage.problems, description="a problem")
            assert "could not be started" in problem
            ann.tone(ANN)
            await stage.hears(bob, ANN)
            for phone in (ann, bob):
                await phone.hang_up()
                await stage.leaves(phone)
    finally:
        folder.with_name("away").rename(folder)
    await stage.nothing_left()
    assert jobs.pending(stage.redis) == []
    assert jobs.given_up(stage.redis, [stage.account]) == []
    requests = stage.receiver.requests_to("/events")
    assert [int(one.params["ConferenceSequence"]) for one in requests] == [1, 2, 3, 4]
    assert stage.events("ConferenceRecord") == [] and stage.problems() == [problem]
    stage.saw(problem.partition("could not be started: ")[2])


async def test_asterisk_can_not_write_the_file(stage: Stage) -> None:
    """Asterisk reports the start and immediately the end, without a file. A problem reports that; no job is left."""
    folder = stage.system.settings.recording_folder
    assert folder is not None
    in_the_way = folder / stage.account
    in_the_way.write_text("not a folder")
    try:
        async with stage.callers(1) as (ann,):
            await stage.call(ann, RECORDED.format(form="mp3"))
            await stage.enters(ann)
            lost = "is lost: Asterisk has no such recording"
            (problem,) = await stage.until(
                lambda: [told for told in stage.problems() if lost in told], description="that it is lost"
            )
            assert any("stopped unexpectedly" in told for told in stage.problems())
            await ann.hang_up()
            await stage.leaves(ann)
    finally:
        in_the_way.unlink()
    await stage.nothing_left()
    assert jobs.pending(stage.redis) == []
    ((_, _, job),) = jobs.given_up(stage.redis, [stage.account])
    assert job.recording_id in problem
