"""Has stored recordings transcribed: the words go beside the recording and to the transcriptionUrl, once."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import structlog
from msgspec import MsgspecError, json, structs
from redis import RedisError

from ari_conf import lanes, outbox, recordings, transcribers
from ari_conf.bucket import Bucket
from ari_conf.core.effects import PostCallback
from ari_conf.errors import RecordingFailed, TranscriptionFailed, TranscriptionRefused, TranscriptionUnusable
from ari_conf.lanes import Taken, Verdict
from ari_conf.problems import Problem, encoded, problems_key
from ari_conf.recording_document import object_key, with_transcript
from ari_conf.recording_index import Stored
from ari_conf.recordings import Transcribing
from ari_conf.settings import settings
from tasks import speech
from tasks.answers import Word
from tasks.app import app
from tasks.engines import ENGLISH, RATE, engine, installed
from tasks.recordings import KEPT, KEPT_MS, Interrupted, checked, retry_ms
from tasks.turns import Talk, turns
from tasks.worker import Worker, come, serves, unreadable

log = structlog.get_logger()
SHORTEST_MS, LONGEST_MS, LARGEST = 500, 4 * 3600 * 1000, 2 * 1000**3
"""> A recording must be longer than 500 ms, shorter than 4 hours and smaller than 2 GB"""
MINUTE_MS = 60_000
MOST_TRIES = 300
"""For a day an engine is awaited; then it is told that there is none."""
MOST_UNUSABLE = 3
"""Answers that are no transcription, or that break us: each may have been paid for."""


@app.task(name="tasks.transcriptions.transcribe")  # type: ignore[untyped-decorator]
def transcribe(token: str) -> None:
    come(recordings.TRANSCRIPTIONS, token)


def serve(worker: Worker, taken: Taken) -> Verdict:
    """Makes one try."""
    try:
        job = json.decode(taken.entry, type=Transcribing)
    except MsgspecError as error:
        return unreadable(worker, taken, error)
    stored = recordings.get(worker.redis, job.recording_id)
    if stored is None or (stored.transcript and not (job.again and stored.transcript == recordings.FAILED)):
        return lanes.done(taken)  # deleted meanwhile, or it was told and only that was lost
    try:
        refused = _transcribe(worker, job, stored)
    except Interrupted:
        return lanes.back(taken)
    except (TranscriptionFailed, RecordingFailed) as failure:
        return _tried(worker, taken, job, stored, failure)
    except RedisError:
        raise
    except Exception as error:  # each of the engine's libraries has exceptions of its own
        log.exception("a transcription broke", recording_id=job.recording_id)
        broken = TranscriptionUnusable(f"the transcription broke off: {type(error).__name__}")
        return _tried(worker, taken, job, stored, broken)
    return _given_up(taken, job, refused) if refused else lanes.done(taken)


def _tried(worker: Worker, taken: Taken, job: Transcribing, stored: Stored, failure: Exception) -> Verdict:
    """It is tried again, some times; then it has failed."""
    unusable = job.unusable + isinstance(failure, TranscriptionUnusable)
    tried = structs.replace(job, error=str(failure), tries=job.tries + 1, unusable=unusable)
    again = lanes.retry(taken, json.encode(tried), retry_ms(tried.tries))
    log.warning("not transcribed yet", recording_id=job.recording_id, tries=tried.tries, reason=tried.error)
    if unusable < MOST_UNUSABLE and tried.tries < MOST_TRIES:
        return again
    reason = f"{failure}, {f'{unusable} times' if unusable >= MOST_UNUSABLE else 'for a day'}"
    try:
        _finish(worker, tried, stored, [], reason)
    except Interrupted:
        return lanes.back(taken)
    except RecordingFailed:
        return again  # S3 is away: it can't be written that it failed
    return _given_up(taken, tried, reason)


def _given_up(taken: Taken, job: Transcribing, reason: str) -> Verdict:
    """Listed among what was given up, from where it can be tried again; and the account is told."""
    text = f"the recording {job.recording_id} was not transcribed: {reason}"
    problem = Problem(time.time_ns() // 1_000_000, "", text)
    told = (problems_key(job.auth_id), encoded(problem), settings().problems_kept)
    return lanes.dead(taken, json.encode(structs.replace(job, error=reason)), KEPT, KEPT_MS, told)


def refusal(duration_ms: int, size: int) -> str | None:
    if duration_ms <= SHORTEST_MS:
        return "Recording duration too short for transcription"
    if duration_ms >= LONGEST_MS:
        return "Recording duration too long for transcription"
    return "Recording file size too large for transcription" if size >= LARGEST else None


def charge(rate: str, duration_ms: int) -> str:
    """> charge = rate x minutes, each started minute counted."""
    return format(Decimal(rate) * -(-duration_ms // MINUTE_MS), "f")


def _transcribe(worker: Worker, job: Transcribing, stored: Stored) -> str | None:
    """Returns why it never can be."""
    checked(worker)
    bucket = Bucket(settings())
    if _document(bucket, stored) is None:
        return None
    error = refusal(stored.duration_ms, stored.size)
    words: list[Word] = []
    if error is None and not installed(settings()) and transcribers.are_missing(worker.redis):
        # Another worker's would be waited for.
        error = transcribers.MISSING
    if error is None:
        try:
            words = _words(worker, stored, bucket, _language(worker, job))
        except TranscriptionRefused as refused:
            error = str(refused)
    _finish(worker, job, stored, words, error)
    return error


def _document(bucket: Bucket, stored: Stored) -> dict[str, Any] | None:
    """What stands beside the recording; None: it was deleted meanwhile."""
    found = bucket.get_json(_beside(stored))
    if found is None and not bucket.can_read():
        raise RecordingFailed("what stands beside the recording can't be read: allow the key s3:GetObject")
    return found


def _beside(stored: Stored) -> str:
    return object_key(stored.auth_id, stored.recording_id, stored.start_ms, "json")


def _language(worker: Worker, job: Transcribing) -> str:
    """What the document asked for, or the account's."""
    account = worker.account(job.auth_id)
    return job.language or (account.transcription_language if account else ENGLISH)


def _finish(worker: Worker, job: Transcribing, stored: Stored, words: list[Word], error: str | None) -> None:
    """Beside the recording, and to the transcriptionUrl. Raises Interrupted, RecordingFailed."""
    checked(worker)
    bucket = Bucket(settings())
    document = _document(bucket, stored)
    if document is None:
        return
    text = " ".join(word.text for word in words)
    if error:
        transcript: dict[str, object] = {"state": "failed", "error": error}
    else:
        talk = [Talk(one["member_id"], one["start_ms"], one["end_ms"]) for one in document["talk"]]
        numbers = {one["member_id"]: one["from"] for one in document["members"]}
        name, language = engine(settings()).name, _language(worker, job)
        said = turns(words, talk, numbers)
        transcript = {"state": "done", "language": language, "engine": name, "text": text, "turns": said}
    checked(worker)
    bucket.put_json(_beside(stored), with_transcript(document, transcript))
    told = _callback(worker, job, stored, text, error)
    if recordings.transcribed(worker.redis, stored, str(transcript["state"]), told, again=job.again) is None:
        bucket.delete(_beside(stored))  # it was deleted meanwhile
    log.info("transcribed", recording_id=job.recording_id, auth_id=job.auth_id, words=len(words), error=error)


def _words(worker: Worker, stored: Stored, bucket: Bucket, language: str) -> list[Word]:
    using, found, done_ms = engine(settings()), list[Word](), 0
    known = [json.decode(piece, type=list[Word]) for piece in recordings.pieces_done(worker.redis, stored.recording_id)]
    for number, piece in enumerate(speech.pieces(bucket.read_at_leisure(stored.key), settings().ffmpeg)):
        percent = 100 * done_ms // max(1, stored.duration_ms)
        recordings.progress(worker.redis, stored.recording_id, min(99, percent))
        # Pieces are cut at the same places each time.
        heard = known[number] if number < len(known) else using.transcribe(piece, language)
        if number >= len(known):
            recordings.keep_piece(worker.redis, stored.recording_id, number, json.encode(heard))
        found += [Word(done_ms + word.start_ms, done_ms + word.end_ms, word.text) for word in heard]
        done_ms += len(piece) // 2 * 1000 // RATE
        checked(worker)
    return found


def _callback(
    worker: Worker, job: Transcribing, stored: Stored, text: str, error: str | None
) -> list[tuple[str, bytes]]:
    if job.url is None:
        return []
    account = worker.account(job.auth_id)
    rate = account.transcription_rate if account else "0"
    params = (
        ("transcription", text),
        ("transcription_charge", "0" if error else charge(rate, stored.duration_ms)),
        ("transcription_rate", rate),
        ("duration", str(round(stored.duration_ms / 1000))),
        ("call_uuid", stored.call_uuid),
        ("recording_id", stored.recording_id),
        ("error", error or ""),
    )
    post = PostCallback(stored.conference_id, stored.auth_id, job.url, job.method, params)
    return [outbox.entry(post, time.time_ns() // 1_000_000, outbox.MOST_TRANSCRIPTION_BYTES)]


def _tell(worker: Worker) -> None:
    transcribers.tell(worker.redis, worker.id, installed(settings()))


serves(recordings.TRANSCRIPTIONS, lambda: 1, serve, _tell)
