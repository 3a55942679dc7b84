"""The phones, against a real Asterisk."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from demo import audio_analysis
from demo.codec import G722
from demo.phone import CallFailed, Phone, Switchboard, now_ms
from demo.received_audio import AudioRecorder
from demo.rtp import RtpSession
from demo.speech import speech_files
from tests.lateness import lasted, late_ms, took_ms

Dial = Callable[[str], str]

LATE_MS = 60
"""The jitter in ms that an ordinary phone compensates."""


def slips(phone: Phone) -> float:
    """Return the tolerance in ms between two pieces of one sound in the received audio, on this machine."""
    return audio_analysis.SLIP_MS + late_ms(phone.called_at or 0, now_ms())


async def test_hears_its_own_tone_from_an_echo_in_time(dial: Dial) -> None:
    async with Switchboard(1) as (ann,):
        ann.silence()
        await ann.call(dial("echo"))
        tone = ann.tone(475)
        await ann.wait_for_audio(lambda heard: audio_analysis.is_tone_present(heard, 475), window_ms=500)
        heard = ann.heard
        assert tone.started_ms is not None
        ((start, _),) = audio_analysis.intervals_of(heard.audio, 475)
        lasted(tone.started_ms, heard.start_ms + start, 0, 60)
        assert abs(audio_analysis.level_dbfs(heard.since(heard.end_ms - 300)) - -20) < 0.5
        await ann.hang_up()
        assert ann.state == "ended"


async def test_three_in_a_conference_each_hear_the_other_two(dial: Dial) -> None:
    async with Switchboard(3) as phones:
        for phone, pitch in zip(phones, audio_analysis.PITCHES, strict=False):
            phone.tone(pitch, -24)
            await phone.call(dial("standup"))
        pitches = audio_analysis.PITCHES[:3]
        for phone, own in zip(phones, pitches, strict=True):
            others = set(pitches) - {own}
            await phone.wait_for_audio(partial(_only, others), window_ms=400)


def _only(pitches: set[int], heard: audio_analysis.Samples) -> bool:
    return set(audio_analysis.tones(heard)) == pitches


async def test_digits_go_both_ways(dial: Dial) -> None:
    async with Switchboard(2) as (ann, bob):
        await ann.call(dial("digits"))
        await ann.wait_for_digits("1379*#0")
        await ann.wait_until_hung_up()
        assert ann.cause == 16
        await bob.call(dial("repeat"))
        await bob.press("15*37")
        await bob.wait_for_digits("15*37")
        assert [digit for _, digit in bob.pressed] == list("15*37")
        pressed = [at for at, _ in bob.pressed]
        for one, next_one in pairwise(pressed):
            lasted(one, next_one, 185, 215)


def test_an_event_keeps_its_timestamp_grows_and_says_its_end_three_times() -> None:
    """The far end is not Asterisk, which guesses an end that was never sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        far.settimeout(1)
        line = RtpSession("127.0.0.1", lambda at, digit: None)
        line.destination = far.getsockname()
        line.press("#", 60, 20, lambda at, digit: None)
        for _ in range(4):
            line.send(0)
        packets = [far.recv(200) for _ in range(6)]
        line.close()
    marked = [packet[1] >> 7 for packet in packets]
    kinds = [packet[1] & 0x7F for packet in packets]
    events = [struct.unpack("!BBH", packet[12:]) for packet in packets[:5]]
    stamps = [struct.unpack_from("!I", packet, 4)[0] for packet in packets]
    assert kinds == [101] * 5 + [0]
    assert marked[:5] == [1, 0, 0, 0, 0]
    assert events == [(11, 10, 160), (11, 10, 320), *[(11, 0x8A, 480)] * 3]
    assert stamps[:5] == [stamps[0]] * 5
    assert (stamps[5] - stamps[0]) % (1 << 32) == 480


async def test_speech_goes_on_under_digits_and_stays_in_time(dial: Dial) -> None:
    async with Switchboard(1) as (ann,):
        await ann.call(dial("echo"))
        speech = speech_files()[0]
        said = ann.say(speech.path)
        await ann.press("12")
        await ann.wait_for_audio(lambda heard: not audio_analysis.silent(heard), window_ms=3000)
        match = audio_analysis.find_reference(ann.heard.audio, audio_analysis.wav(speech.path)[:24000])
        assert match.score > audio_analysis.FOUND
        assert said.started_ms is not None
        # The position in the received audio is known to one packet.
        lasted(said.started_ms, ann.heard.start_ms + match.offset_ms, -20, 60)


async def test_early_media_is_heard_before_the_answer(dial: Dial) -> None:
    async with Switchboard(1) as (ann,):
        call = asyncio.create_task(ann.call(dial("early")))
        await ann.early_media.wait()
        assert ann.answered_at is None
        await call
        assert ann.answered_at is not None
        assert audio_analysis.is_tone_present(ann.heard.between(ann.answered_at - 600, ann.answered_at - 100), 600)


async def test_a_refused_call_says_why(dial: Dial) -> None:
    async with Switchboard(1) as (ann,):
        with pytest.raises(CallFailed, match="486 Busy Here") as busy:
            await ann.call(dial("busy"))
        assert (busy.value.status, busy.value.cause) == (486, 17)
        with pytest.raises(CallFailed, match="404"):
            await ann.call(dial("nobody"))


async def test_hanging_up_while_it_rings_cancels_the_call(dial: Dial) -> None:
    async with Switchboard(1) as (ann,):
        call = asyncio.create_task(ann.call(dial("ringing")))
        await ann.ringing.wait()
        await ann.hang_up()
        with pytest.raises(CallFailed, match="487 Request Terminated"):
            await call
        assert ann.answered_at is None


async def test_headers_and_caller_arrive(dial: Dial) -> None:
    async with Switchboard(1) as (ann,):
        await ann.call(dial("who"), headers={"X-Greeting": "hello"}, from_user="15550001", display_name="Ann")
        await ann.wait_until_hung_up()
        with pytest.raises(CallFailed):
            await ann.call(dial("who"), headers={"X-Greeting": "bye"}, from_user="15550001", display_name="Ann")


async def test_music_on_hold_is_distinguished_from_speech(dial: Dial, sounds: Path) -> None:
    async with Switchboard(2) as (ann, bob):
        await asyncio.gather(ann.call(dial("music")), bob.call(dial("speech")))
        await ann.wait_for_audio(lambda heard: not audio_analysis.silent(heard), window_ms=3000)
        await bob.wait_for_audio(lambda heard: not audio_analysis.silent(heard), window_ms=3000)
        songs, slip_ms = sorted((sounds / "moh").glob("*.wav")), slips(ann)
        _, music = audio_analysis.best_match(ann.as_sent(), songs, slip_ms)
        _, speech = audio_analysis.best_match(bob.as_sent(), songs, slip_ms)
        assert music.score > audio_analysis.FOUND
        assert speech.score < 0.3
        congratulations = audio_analysis.wav(sounds / "sounds/en_US_f_Allison/demo-congrats.wav")
        assert audio_analysis.find_reference(bob.as_sent(), congratulations, slip_ms).score > audio_analysis.FOUND
        assert audio_analysis.find_reference(ann.as_sent(), congratulations, slip_ms).score < 0.3


async def test_the_speakers_in_a_conference_are_recognized(dial: Dial) -> None:
    first, second, third = speech_files()
    async with Switchboard(3) as (ann, bob, cid):
        for phone in (ann, bob, cid):
            await phone.call(dial("standup"))
        ann.say(first.path)
        bob.say(second.path)
        start = now_ms()
        await cid.wait_for_audio(lambda heard: not audio_analysis.silent(heard), window_ms=6000)
        heard = cid.heard.since(start)
        for speech, there in ((first, True), (second, True), (third, False)):
            score = audio_analysis.find_reference(heard, audio_analysis.wav(speech.path)[: 8 * 5000], slips(cid)).score
            assert (score > audio_analysis.FOUND) if there else (score < 0.3), (speech.name, score)


async def _talk(phones: list[Phone], uri: str, seconds: float) -> tuple[float, float]:
    """Let all talk in one conference for this time; return (start, end) in epoch ms of the time with all present."""
    for phone, pitch in zip(phones, audio_analysis.PITCHES * 2, strict=False):
        phone.tone(pitch, -32)
    await asyncio.gather(*(phone.call(uri, from_user=f"1555{at:04}") for at, phone in enumerate(phones)))
    start = now_ms() + 300
    await asyncio.sleep(seconds + 0.3)
    return start, start + seconds * 1000


async def test_twenty_in_a_conference_hear_nineteen_without_gaps(dial: Dial) -> None:
    async with Switchboard(20) as board:
        cpu = time.process_time()
        start, end = await _talk(board.phones, dial("standup"), 4)
        print(f"CPU of the phones: {(time.process_time() - cpu) / 4.3:.0%}")
        for phone, own in zip(board.phones, audio_analysis.PITCHES, strict=True):
            missing = phone.heard.missing(start, end, longer_than_ms=LATE_MS)
            assert [span for span in missing if took_ms(*span) > LATE_MS] == []
            audio = phone.heard.between(start, end)
            others = set(audio_analysis.PITCHES) - {own}
            assert set(audio_analysis.tones(audio)) == others
            for pitch in others:
                gaps = audio_analysis.gaps(audio, pitch, LATE_MS)
                assert [gap for gap in gaps if took_ms(start + gap[0], start + gap[1]) > LATE_MS] == [], pitch


def test_a_lost_packet_is_a_hole_and_jitter_is_not() -> None:
    recorder = AudioRecorder()
    tone = np.full(160, 0x80, np.uint8).tobytes()
    for number in range(20):
        if number != 7:
            late = 12_000_000 if number % 3 else 0
            head = bytes([0x80, 0]) + number.to_bytes(2, "big") + (number * 160).to_bytes(4, "big") + b"abcd"
            recorder.arrived.append((1_000_000_000 + number * 20_000_000 + late, head + tone))
    heard = recorder.heard()
    assert heard.start_ms == 1000
    assert heard.missing(1000, 1400) == [(1140.0, 1160.0)]
    assert not heard.between(1140, 1160).any()
    assert heard.between(1160, 1400).all()
    assert heard.longest_wait(1000, 1400) == pytest.approx(52)


async def test_a_switchboard_ends_the_calls_that_are_left(dial: Dial) -> None:
    async with Switchboard(2) as (ann, bob):
        await ann.call(dial("echo"))
        await bob.call(dial("echo"))
    assert (ann.state, bob.state) == ("ended", "ended")


async def test_a_wideband_caller_is_heard_and_hears(dial: Dial) -> None:
    """The phone speaks G.722, in a conference with a phone that speaks mu-law."""
    async with Switchboard() as board:
        ann, bob = board.phone(codec=G722), board.phone()
        for phone, pitch in zip((ann, bob), audio_analysis.PITCHES, strict=False):
            phone.tone(pitch)
            await phone.call(dial("standup"))
        await bob.wait_for_audio(partial(_only, {audio_analysis.PITCHES[0]}), window_ms=400)
        await ann.wait_for_audio(partial(_only, {audio_analysis.PITCHES[1]}), window_ms=400)
        level = audio_analysis.level_dbfs(ann.heard.audio[-3200:])
        assert abs(level - -20) < 1.5
        ann.silence()
        bob.silence()
        for phone in (ann, bob):
            await phone.wait_for_audio(audio_analysis.silent, window_ms=400)


def test_late_packets_are_heard_in_the_order_of_sending() -> None:
    """Five packets come in one burst, 80 ms late, and one is overtaken: `heard` has a hole, `as_sent` has none."""
    recorder = AudioRecorder()
    tone = np.full(160, 0x80, np.uint8).tobytes()
    for number in [*range(10), 11, 10, *range(25, 30)]:
        arrives_ms = 20 * (number if number not in range(4, 9) else 8)
        head = bytes([0x80, 0]) + number.to_bytes(2, "big") + (number * 160).to_bytes(4, "big") + b"abcd"
        recorder.arrived.append((1_000_000_000 + arrives_ms * 1_000_000, head + tone))
    spans = listen_to(recorder.as_sent())
    assert spans == [(0, 200), (220, 240), (500, 600)]
    assert listen_to(recorder.heard().audio) != spans


def test_a_sender_that_sets_its_clock_back_loses_nothing() -> None:
    """The sender was late by 2 s, put that into the time of one packet, and then counted on from the earlier time."""
    recorder = AudioRecorder()
    tone = np.full(160, 0x80, np.uint8).tobytes()
    for number in range(30):
        late = 16_000 if number == 10 else 0
        head = bytes([0x80, 0]) + number.to_bytes(2, "big") + (number * 160 + late).to_bytes(4, "big") + b"abcd"
        recorder.arrived.append((1_000_000_000 + number * 20_000_000, head + tone))
    assert listen_to(recorder.as_sent()) == [(0, 200), (2200, 2600)]


def listen_to(samples: audio_analysis.Samples) -> list[tuple[float, float]]:
    """Return (from, to) in ms of each interval that is not silent."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], samples != 0, [False])).astype(np.int8)))
    return [(float(a), float(b)) for a, b in edges.reshape(-1, 2) / 8]
