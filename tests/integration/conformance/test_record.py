"""record, recordFileFormat and the transcription attributes: the recording itself."""

from __future__ import annotations

import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import aiohttp
import numpy as np
import pytest

from ari_conf.core.ids import parse_recording_name
from demo import audio_analysis
from demo.received_audio import Samples
from tests.integration.stage import Stage
from tests.lateness import lasted, late_ms

pytestmark = pytest.mark.asyncio(loop_scope="session")


def files(stage: Stage) -> list[Path]:
    """Return the account's recordings in Asterisk's recording folder."""
    folder = stage.system.settings.recording_folder
    assert folder is not None
    return sorted((folder / stage.account).glob("*"))


@dataclass
class Tape:
    """A recording in progress, opened while its file exists: a complete recording is handed on and may be deleted."""

    path: Path
    file: IO[bytes]

    @property
    def recording_id(self) -> str:
        name = parse_recording_name(f"{self.path.parent.name}/{self.path.stem}")
        assert name is not None
        return name.recording_id

    def audio(self) -> Samples:
        """Return all of the audio; only for a recording that has ended."""
        self.file.seek(0)
        with self.file, wave.open(self.file) as sound:
            assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 8000)
            return np.frombuffer(sound.readframes(sound.getnframes()), "<i2")


async def tape(stage: Stage) -> Tape:
    """Return the account's only recording as soon as it exists."""
    (path,) = await stage.until(lambda: files(stage), description="a recording")
    return Tape(path, path.open("rb"))


def state(stage: Stage) -> Mapping[str, object]:
    """Return the state of the only conference, as Redis has it."""
    kept = stage.redis.hgetall(f"ari_conf:state:{stage.asterisk_name}")
    found = [json.loads(text) for text in kept.values()]
    mine = [one for one in found if isinstance(one, dict) and one.get("auth_id") == stage.account]
    (conference,) = [one for one in mine if "members" in one]
    return dict(conference)


def conference(attributes: str, action: str) -> str:
    return f'<Conference {attributes} callbackUrl="{{url}}/events" action="{{url}}{action}">c</Conference>'


@pytest.mark.row(
    "record", "begins when the conference has started and a member whose record is true is in; ends with the conference"
)
async def test_a_waiting_member_is_recorded_from_the_start_on(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, conference('record="true" startConferenceOnEnter="false" recordFileFormat="wav"', "/ann"))
        await stage.listen(ann, 1000)
        assert files(stage) == []
        starts = await stage.call(bob, conference("", "/bob"))
        await stage.hears(bob, 2575)
        tape_ = await tape(stage)
        await stage.listen(bob, 1000)
        # The recording stops with the conference, not with the member who requested it.
        await ann.hang_up()
        asked = await stage.receiver.wait_for(lambda request: request.path == "/ann")
        await stage.leaves(ann)
        await stage.listen(bob, 1000)
        await bob.hang_up()
        await stage.nothing_left()
    recorded = tape_.audio()
    tones = audio_analysis.tones(recorded)
    assert set(tones) == {2575, 2875}
    both = tones[2575][0]
    # The recording begins at the start: no second of waiting precedes it.
    lasted(starts, starts + both[0], 0, 300)
    length = len(recorded) / 8
    alone = length - both[1]
    assert alone >= 900
    assert audio_analysis.is_tone_present(recorded[round(both[1] + 100) * 8 :], 2875)
    # "RecordUrl and RecordingID are known from its beginning", in the action request of those with record=true.
    assert asked.params["RecordingID"] == tape_.recording_id
    assert asked.params["RecordUrl"].endswith(f"/{tape_.recording_id}.wav")
    assert not [name for name in stage.receiver.requests_to("/bob")[0].params if name.startswith("Record")]
    stage.saw(
        f"both tones in the WAV from {both[0]:.0f} ms on, {length:.0f} ms in all, {alone:.0f} ms of them without her"
    )


@pytest.mark.row(
    "record", "one per conference; others' record=true changes nothing, they get RecordUrl and RecordingID too"
)
async def test_a_second_request_gets_the_same_recording(stage: Stage) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, conference("", "/ann"))
        await stage.call(bob, conference("", "/bob"))
        await stage.hears(ann, 2875)
        await stage.listen(ann, 500)
        assert files(stage) == []
        await bob.hang_up()
        bob.tone(3025)
        await stage.call(bob, conference('record="true"', "/bob2"))
        began = await tape(stage)
        cid.tone(3175)
        await stage.call(cid, conference('record="true" recordFileFormat="wav"', "/cid"))
        await stage.hears(bob, 3175)
        await stage.listen(bob, 500)
        for phone in (ann, bob, cid):
            await phone.hang_up()
        await stage.nothing_left()
        requests = [stage.receiver.requests_to(path)[0].params for path in ("/ann", "/bob", "/bob2", "/cid")]
    urls = [params.get("RecordUrl") for params in requests]
    # "that member's element decides the format": mp3 is the default.
    assert urls[:2] == [None, None]
    assert urls[2] == urls[3]
    assert str(urls[2]).endswith(f"/{began.recording_id}.mp3")
    assert requests[2]["RecordingID"] == requests[3]["RecordingID"] == began.recording_id
    recorded = began.audio()
    assert set(audio_analysis.tones(recorded)) == {2575, 3025, 3175}
    stage.saw("begins with the first who asks for it; what was said before is not in it; both get the same RecordUrl")


@pytest.mark.row("record", "false: nothing is recorded")
async def test_no_recording_without_a_request(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        ann.tone(2575)
        await stage.call(ann, conference('record="false" recordFileFormat="wav"', "/ann"))
        await stage.enters(ann)
        await stage.listen(ann, 300)
        assert files(stage) == []
        await ann.hang_up()
        left = await stage.receiver.wait_for(lambda request: request.path == "/ann")
    assert "RecordUrl" not in left.params
    assert "RecordingID" not in left.params
    assert files(stage) == []
    stage.saw("no file, no RecordUrl")


@pytest.mark.row(
    "transcriptionType", "auto, hybrid and manual are accepted; type, URL and method are carried to the recording"
)
@pytest.mark.parametrize("kind", ["auto", "hybrid", "manual"])
async def test_the_transcription_is_carried_to_the_recording(stage: Stage, kind: str) -> None:
    asked = f'transcriptionType="{kind}" transcriptionUrl="{{url}}/transcription#rc=2" transcriptionMethod="GET"'
    async with stage.callers(1) as (ann,):
        ann.tone(2575)
        await stage.call(ann, conference(f'record="true" {asked}', "/ann"))
        began = await tape(stage)
        recordings = state(stage)["recordings"]
        assert isinstance(recordings, dict)
        (recording,) = recordings.values()
        element = recording["element"]
        assert recording["recording_id"] == began.recording_id
        assert element["transcription_type"] == kind
        assert element["transcription_url"] == f"{stage.url}/transcription#rc=2"
        assert element["transcription_method"] == "GET"
        await ann.hang_up()
        await stage.leaves(ann)
        began.file.close()
    assert stage.problems() == []
    stage.saw(f"{kind}: all three are in the state of the recording")


@pytest.mark.row("callbackUrl", "record: when the file is in the bucket and RecordUrl can be fetched; the last of all")
async def test_the_record_callback(stage: Stage) -> None:
    room = '<Conference callbackUrl="{url}/events" record="true" recordFileFormat="wav">standup</Conference>'
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        await stage.call(ann, room)
        await stage.call(bob, room)
        await stage.hears(bob, 2575)
        await stage.listen(bob, 1500)
        await ann.hang_up()
        await bob.hang_up()
        record = (await stage.event("ConferenceRecord")).params
    assert record["ConferenceAction"] == "record" and record["RecordUrl"].endswith(f"/{record['RecordingID']}.wav")
    assert not {"ConferenceMemberID", "CallUUID"} & set(record)
    length = int(record["RecordingDurationMs"])
    assert int(record["RecordingDuration"]) == round(length / 1000) and length > 1000
    began, ended = int(record["RecordingStartMs"]), int(record["RecordingEndMs"])
    assert abs(ended - began - length) < 500 + late_ms(began, ended)
    numbers = [request.params["ConferenceSequence"] for request in stage.receiver.requests_to("/events")]
    assert numbers == ["1", "2", "3", "4", "5"] and record["ConferenceSequence"] == "5"
    async with aiohttp.ClientSession() as http, http.get(record["RecordUrl"]) as response:
        file = await response.read()
    assert response.status == 200 and file[:4] == b"RIFF"
    stage.saw(f"the last of five; {length} ms, {len(file)} bytes fetched from RecordUrl at once")
