"""Transcriptions: limits, price, exactly one run each, and the effects of a failing engine."""

from __future__ import annotations

import shutil
import threading
import time
import wave

import jsonschema_rs
import msgspec
import numpy as np
import pytest

from ari_conf.queues import partitioned_queue
from ari_conf.recordings import jobs, transcribers
from ari_conf.recordings.sidecar import schema
from ari_conf.store import accounts
from ari_conf.transcription.answers import Word
from demo import audio_analysis
from demo.speech import speech_files
from tasks.audio_chunks import PIECE_S
from tasks.transcriptions import MAX_ATTEMPTS, MAX_UNUSABLE, charge, rejection_reason
from tests.redis import RedisServer
from tests.tasks.store_stage import ACCOUNT, StoreStage
from tests.tasks.whisper_server import WhisperServer
from tests.tasks.words import error_rate, plain

HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _rate(stage: StoreStage, redis_server: RedisServer) -> None:
    accounts.update(redis_server.client, ACCOUNT, transcription_rate="0.0095")


@pytest.mark.parametrize(
    ("duration_ms", "size", "error"),
    [
        (500, 1, "Recording duration too short for transcription"),
        (501, 1, None),
        (4 * HOUR_MS - 1, 1, None),
        (4 * HOUR_MS, 1, "Recording duration too long for transcription"),
        (60_000, 2_000_000_000 - 1, None),
        (60_000, 2_000_000_000, "Recording file size too large for transcription"),
    ],
)
def test_limits(duration_ms: int, size: int, error: str | None) -> None:
    """ "A recording must be longer than 500 ms, shorter than 4 hours and smaller than 2 GB" """
    assert rejection_reason(duration_ms, size) == error


@pytest.mark.parametrize(("ms", "price"), [(1, "0.0095"), (60_000, "0.0095"), (60_001, "0.0190"), (HOUR_MS, "0.5700")])
def test_charge(ms: int, price: str) -> None:
    """ "charge = rate x minutes, each started minute counted" """
    assert charge("0.0095", ms) == price


def records_speech(stage: StoreStage) -> str:
    speech = speech_files()[0]
    stage.tape.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(speech.path, stage.tape)
    return speech.text


def hand_on(stage: StoreStage) -> None:
    stage.hand_on("mp3", callback=None, transcribe=True, transcription_url=f"{stage.receiver.url}/transcription")


def told_once(stage: StoreStage) -> dict[str, str]:
    stage.is_told(60)
    stage.until(lambda: not stage.pending())
    stage.until(lambda: not stage.redis.keys("ari_conf:callbacks:partition:*"))
    (received,) = stage.receiver.received
    document = stage.bucket.get_json(stage.key("json"))
    jsonschema_rs.validate(schema(), document)
    return received.params


def http(server: WhisperServer) -> dict[str, str]:
    return {
        "ARI_CONF_TRANSCRIPTION_ENGINE": "http",
        "ARI_CONF_TRANSCRIPTION_URL": server.url,
        "ARI_CONF_TRANSCRIPTION_KEY": "sk-test",
    }


def test_an_engine_that_fails_is_asked_again_and_it_is_told_once(stage: StoreStage) -> None:
    said = records_speech(stage)
    statuses = [500, 503]
    with WhisperServer(answer=lambda: statuses.pop() if statuses else None) as server:
        stage.worker(**http(server))
        hand_on(stage)
        params = told_once(stage)
        assert len(server.asked) == 3
    assert error_rate(plain(said), plain(params["transcription"])) <= 0.1
    assert not params.get("error")
    assert (params["transcription_rate"], params["transcription_charge"]) == ("0.0095", "0.0095")
    assert (params["call_uuid"], params["duration"]) == ("u1", "17")


def test_one_that_refuses_it_is_told_as_an_error(stage: StoreStage) -> None:
    records_speech(stage)
    with WhisperServer(answer=lambda: 400) as server:
        stage.worker(**http(server))
        hand_on(stage)
        params = told_once(stage)
    assert "status 400" in params["error"] and params["transcription_charge"] == "0"
    document = stage.bucket.get_json(stage.key("json"))
    assert document is not None and document["transcript"]["state"] == "failed"


def test_killed_in_the_middle_another_goes_on(stage: StoreStage) -> None:
    records_speech(stage)
    with WhisperServer() as server:
        killed = []

        def answer() -> int | None:
            if not killed:
                killed.append(first.kill())
            return None

        server.answer = answer
        first = stage.worker(**http(server))
        hand_on(stage)
        stage.until(lambda: killed)
        assert [one.kind for one in stage.pending()] == ["transcriptions"]
        stage.worker(**http(server))
        told_once(stage)
        assert len(server.asked) == 2


def records_long_speech(stage: StoreStage, seconds: int) -> None:
    samples = np.resize(np.concatenate([audio_analysis.wav(one.path) for one in speech_files()]), seconds * 8000)
    stage.tape.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(stage.tape), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())


def test_a_long_one_is_not_begun_twice_and_goes_on_where_it_was(stage: StoreStage) -> None:
    """The transcription takes longer than a lease, and workers are woken again; then its worker is killed. The progress
    is visible."""
    records_long_speech(stage, 2 * PIECE_S)
    second, go_on = threading.Event(), threading.Event()

    def answer() -> int | None:
        if len(server.asked) == 2:
            second.set()
            go_on.wait(60)
        return None

    with WhisperServer(answer=answer, understand=lambda samples: [Word(0, 1000, f"piece{len(samples)}")]) as server:
        first = stage.worker(**http(server))
        hand_on(stage)
        assert second.wait(60)
        (being_done,) = stage.pending()
        assert being_done.kind == "transcriptions" and being_done.percent and 40 <= being_done.percent <= 60
        stage.redis.lpush("ari_conf:transcriptions:wakeups", "again", "and again")
        other = stage.worker(**http(server))
        stage.until(lambda: stage.redis.zcard("ari_conf:transcriptions:workers") == 2)
        time.sleep(
            partitioned_queue.WORKER_LEASE_MS / 1000 + 1
        )  # the test is about this: a lease runs out if no worker renews it
        assert len(server.asked) == 2 and stage.pending()[0].state == "leased"
        first.kill()
        go_on.set()
        params = told_once(stage)
        assert other.process.poll() is None
    assert len(server.asked) == 4, "not exactly the second piece and the rest were repeated"
    assert len(params["transcription"].split()) == 3
    assert not stage.redis.keys("ari_conf:transcript-chunks:*")


# The transcription ends, no matter how a server responds.


def test_answers_that_are_no_transcription_are_paid_for_three_times_and_it_can_be_tried_again(
    stage: StoreStage,
) -> None:
    records_speech(stage)
    bad: list[bytes | None] = [b'{"text": null}']
    with WhisperServer(
        raw=lambda _: (200, bad[0]) if bad[0] else None, understand=lambda _: [Word(0, 900, "seven")]
    ) as server:
        stage.worker(**http(server))
        hand_on(stage)
        params = told_once(stage)
        assert len(server.asked) == MAX_UNUSABLE
        assert "its text is not a string, 3 times" in params["error"] and params["transcription_charge"] == "0"
        document = stage.bucket.get_json(stage.key("json"))
        assert document is not None and document["transcript"]["state"] == "failed"
        stage.until(lambda: jobs.given_up(stage.redis, [ACCOUNT]))
        ((_, kind, job),) = jobs.given_up(stage.redis, [ACCOUNT])
        assert kind == jobs.TRANSCRIPTION_QUEUE and "not a string" in job.error
        assert any("was not transcribed" in text for text in stage.problems())
        bad[0] = None
        assert jobs.retry(stage.redis, [ACCOUNT]) == 1
        stage.receiver.wait(lambda: len(stage.receiver.received) == 2, 60)
        again = stage.receiver.received[1].params
        assert again["transcription"].startswith("seven") and not again.get("error")
        stage.until(lambda: not stage.pending() and not jobs.given_up(stage.redis, [ACCOUNT]))


def test_without_an_engine_it_has_failed_at_once_and_the_account_is_told(stage: StoreStage) -> None:
    records_speech(stage)
    stage.worker(ARI_CONF_TRANSCRIPTION_MODEL=str(stage.folder / "none"))
    stage.until(lambda: transcribers.are_missing(stage.redis), 60)
    hand_on(stage)
    params = told_once(stage)
    assert params["error"] == transcribers.MISSING
    stage.until(lambda: any(transcribers.MISSING in text for text in stage.problems()))


@pytest.mark.parametrize(("of_document", "asked"), [(None, "de"), ("fr", "fr")])
def test_it_is_understood_in_the_language_of_the_document_or_the_account(
    stage: StoreStage, redis_server: RedisServer, of_document: str | None, asked: str
) -> None:
    records_speech(stage)
    accounts.update(redis_server.client, ACCOUNT, transcription_language="de-DE")
    with WhisperServer(understand=lambda _: [Word(0, 900, "sieben")]) as server:
        stage.worker(**http(server))
        more = {"transcription_url": f"{stage.receiver.url}/t", "transcription_language": of_document}
        stage.hand_on("mp3", callback=None, transcribe=True, **more)
        told_once(stage)
        assert server.asked[0]["language"] == asked
    document = stage.bucket.get_json(stage.key("json"))
    assert document is not None and document["transcript"]["language"] == asked


def test_a_server_that_is_away_is_awaited_for_a_day_and_then_it_is_told(stage: StoreStage) -> None:
    """The test replaces the day by the number of tries that a worker makes in it."""
    records_speech(stage)
    with WhisperServer(answer=lambda: 503) as server:
        stage.worker(**http(server))
        stage.hand_on("mp3", callback=None, transcribe=False)
        stage.until(lambda: jobs.get(stage.redis, stage.recording_id))
        waited = jobs.TranscriptionJob(
            recording_id=stage.recording_id,
            auth_id=ACCOUNT,
            at_ms=1,
            url=f"{stage.receiver.url}/transcription",
            attempts=MAX_ATTEMPTS - 2,
        )
        lane = jobs.partition_key(ACCOUNT, "", stage.recording_id)
        partitioned_queue.enqueue(stage.redis, [(lane, msgspec.json.encode(waited))], jobs.TRANSCRIPTION_QUEUE)
        stage.until(lambda: any(one.job.attempts == MAX_ATTEMPTS - 1 for one in stage.pending()))
        (again,) = stage.redis.zrange("ari_conf:transcriptions:delayed", 0, -1)
        stage.redis.zadd("ari_conf:transcriptions:delayed", {again: 0}, xx=True)
        params = told_once(stage)
    assert params["error"].endswith("status 503, for a day")
