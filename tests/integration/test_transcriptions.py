"""Transcription of real people's speech in a conference: the words, and the speaker of each."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema_rs
import pytest

from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key, schema
from ari_conf.store import accounts
from ari_conf.transcription.engines import create_engine
from demo import audio_analysis
from demo.g711 import RATE
from demo.phone import Phone, now_ms
from demo.speech import Speech, speech_files
from tests.integration.stage import Stage
from tests.integration.test_recordings import decoded, fetched
from tests.lateness import SOON_S, late_ms, stalled_ms
from tests.tasks.words import clean_rate, error_rate, plain

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENT = (
    '<Conference record="true" callbackUrl="{url}/events" transcriptionType="auto" '
    'transcriptionUrl="{url}/transcription">talk</Conference>'
)
WORSE_BY = 0.12
PAUSE_MS = 1000
NOTICEABLE_STALL_MS = 300
"""ms between one speaker and the next."""


async def says(stage: Stage, phone: Phone, speech: Speech, listener: Phone) -> None:
    """Let the phone say the whole speech, and assert that the listener has heard it."""
    audio = audio_analysis.wav(speech.path)
    said = phone.say(audio)
    ended = await stage.until(lambda: said.ended_ms, within=len(audio) / RATE + SOON_S)
    began = said.started_ms
    assert began is not None
    await stage.until(lambda: now_ms() > ended + PAUSE_MS)
    heard = listener.heard.between(began, ended + PAUSE_MS)
    slip_ms = audio_analysis.SLIP_MS + late_ms(began, ended)
    assert audio_analysis.find_reference(heard, audio, slip_ms).score > audio_analysis.FOUND


async def document_of(stage: Stage, told: dict[str, str]) -> dict[str, Any]:
    key = object_key(stage.account, told["RecordingID"], int(told["RecordingStartMs"]), "json")
    found = Bucket(stage.system.settings).get_json(key)
    assert found is not None
    jsonschema_rs.validate(schema(), found)
    return found


@pytest.mark.row("transcriptionType", "three callers, real speech, in turns: the words in order, each with its speaker")
async def test_three_callers_take_turns(stage: Stage) -> None:
    accounts.update(stage.redis, stage.account, transcription_rate="0.0095")
    speeches = speech_files()
    using = create_engine(stage.system.settings)
    clean = {speech.name: await asyncio.to_thread(clean_rate, speech, using) for speech in speeches}
    async with stage.callers(3) as switchboard:
        phones = list(switchboard)
        for phone in phones:
            await stage.call(phone, DOCUMENT)
            await stage.enters(phone)
        began = now_ms()
        for phone, speech in zip(phones, speeches, strict=True):
            await says(stage, phone, speech, phones[(phones.index(phone) + 1) % 3])
        stalled = stalled_ms(began, now_ms())
        for phone in phones:
            await phone.hang_up()
            await stage.leaves(phone)
    told = dict((await stage.event("ConferenceRecord")).params)
    sent = (await stage.receiver.wait_for(lambda one: one.path == "/transcription", 90)).params
    ms = int(told["RecordingDurationMs"])
    assert abs(len(decoded(fetched(told["RecordUrl"]).content)) / 8 - ms) < 300
    assert sent["recording_id"] == told["RecordingID"] and sent["error"] == ""
    assert (sent["transcription_rate"], sent["duration"]) == ("0.0095", str(round(ms / 1000)))
    assert sent["transcription_charge"] == "0.0095"
    document = await document_of(stage, told)
    assert document["transcript"]["text"] == sent["transcription"]
    numbers = [stage.number(phone) for phone in phones]
    turns = document["transcript"]["turns"]
    # Nobody is known to have spoken words that a stalled machine put where talking was not detected.
    order = [turn["from"] for turn in turns if turn["from"] or stalled < NOTICEABLE_STALL_MS]
    assert order == sorted(order, key=numbers.index), "the turns are not in the order of the speakers"
    words = {speech.name: plain(speech.text) for speech in speeches}
    wrong, wrong_in_clean = 0.0, 0.0
    for number, speech in zip(numbers, speeches, strict=True):
        heard = " ".join(turn["text"] for turn in turns if turn["from"] == number)
        rate, count = error_rate(words[speech.name], plain(heard)), len(words[speech.name])
        stage.saw(f"{speech.name}: WER {rate:.3f} in the conference, {clean[speech.name]:.3f} on the clean file")
        wrong, wrong_in_clean = wrong + rate * count, wrong_in_clean + clean[speech.name] * count
        # In a short text, one word that comes four times may be half of the misunderstood words.
        assert rate <= clean[speech.name] + 2 * WORSE_BY, heard
    assert wrong <= wrong_in_clean + WORSE_BY * sum(map(len, words.values())), turns


@pytest.mark.row("transcriptionType", "two who speak at once")
async def test_two_who_speak_at_once(stage: Stage) -> None:
    """The engine understands mostly one of two simultaneous voices, but its input has every word of both."""
    first, second, _ = speech_files()
    async with stage.callers(2) as (ann, bob):
        for phone in (ann, bob):
            await stage.call(phone, DOCUMENT)
            await stage.enters(phone)
        both = [ann.say(audio_analysis.wav(first.path)), bob.say(audio_analysis.wav(second.path))]
        await stage.until(lambda: all(one.ended_ms for one in both), within=18 + SOON_S)
        for phone in (ann, bob):
            await phone.hang_up()
            await stage.leaves(phone)
    told = dict((await stage.event("ConferenceRecord")).params)
    sent = (await stage.receiver.wait_for(lambda one: one.path == "/transcription", 90)).params
    document = await document_of(stage, told)
    recorded = decoded(fetched(told["RecordUrl"]).content)
    for speech in (first, second):
        found = audio_analysis.find_reference(recorded, audio_analysis.wav(speech.path))
        rate = error_rate(plain(speech.text), plain(sent["transcription"]))
        stage.saw(f"{speech.name}: {found.score:.2f} of its sound is in the recording; WER {rate:.2f} of what was said")
    talk = {one["member_id"]: one for one in document["talk"]}
    assert len(talk) == 2, "both are in the timeline"
    assert sent["error"] == ""


@pytest.mark.row("transcriptionUrl", "too short: error, nothing charged")
async def test_too_short_recording(stage: Stage) -> None:
    """ "A recording must be longer than 500 ms": error, and nothing is charged."""
    accounts.update(stage.redis, stage.account, transcription_rate="0.0095")
    folder = stage.system.settings.recording_folder
    assert folder is not None
    async with stage.callers(1) as (ann,):
        await stage.call(ann, DOCUMENT)
        await stage.until(lambda: [*(folder / stage.account).glob("*")], description="a recording has begun")
        await ann.hang_up()
    sent = (await stage.receiver.wait_for(lambda one: one.path == "/transcription")).params
    assert sent["error"] == "Recording duration too short for transcription"
    assert (sent["transcription"], sent["transcription_charge"]) == ("", "0")
