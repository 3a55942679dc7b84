"""Transcription of stored recordings: the words go into the sidecar and to the transcriptionUrl, once."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import structlog
from msgspec import json, structs
from redis import RedisError

from ari_conf.core.effects import PostCallback
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import (
    REPORT_HINT,
    RecordingFailed,
    TranscriptionFailed,
    TranscriptionRefused,
    TranscriptionUnusable,
)
from ari_conf.queues import outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import AccountProblem, ClaimedEntry, Disposition
from ari_conf.recordings import jobs, transcribers
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.jobs import TranscriptionJob
from ari_conf.recordings.sidecar import sidecar_key, with_transcript
from ari_conf.settings import settings
from ari_conf.store.problems import Problem, encoded, problems_key
from ari_conf.transcription.answers import Word
from ari_conf.transcription.engines import ENGLISH, RATE, create_engine, installed
from tasks import audio_chunks
from tasks.app import app
from tasks.entry_task import AttemptContext, EntryDescription, EntryTask
from tasks.recordings import INTERRUPTED, KEPT, KEPT_MS, Interrupted, raise_if_interrupted, retry_ms
from tasks.speaker_turns import SpeechInterval, speaker_turns

log = structlog.get_logger()
SHORTEST_MS, LONGEST_MS, LARGEST = 500, 4 * 3600 * 1000, 2 * 1000**3
"""Limits. Spec: "A recording must be longer than 500 ms, shorter than 4 hours and smaller than 2 GB"
"""
MINUTE_MS = 60_000
MAX_ATTEMPTS = 300
"""Attempts for about a day while the engine is unavailable; then the failure is reported."""
MAX_UNUSABLE = 3
"""Responses that are not a transcription, or that raise an exception: each may have been charged for."""


class TranscriptionTask(EntryTask):
    name = "ari_conf.transcription"
    queue_name = jobs.TRANSCRIPTION_QUEUE

    def max_threads(self) -> int:
        return 1

    def decode(self, entry: bytes) -> TranscriptionJob:
        return json.decode(entry, type=TranscriptionJob)

    def describe(self, job: TranscriptionJob) -> EntryDescription:
        arguments = {"account": job.auth_id, "recording": job.recording_id}
        return EntryDescription(job.recording_id.encode(), arguments, job.attempts)

    def attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: TranscriptionJob) -> Disposition:
        return transcribe_once(worker, claimed, job)

    def report(self, worker: AttemptContext) -> None:
        transcribers.report(worker.redis, worker.id, installed(settings()))


def transcribe_once(worker: AttemptContext, claimed: ClaimedEntry, job: TranscriptionJob) -> Disposition:
    """Make one attempt to transcribe a recording, and return the disposition."""
    stored = jobs.get(worker.redis, job.recording_id)
    if stored is None or (stored.transcript and not (job.is_repeated and stored.transcript == jobs.FAILED)):
        # Deleted in the meantime, or finished and only the acknowledgment was lost.
        return partitioned_queue.ack(claimed)
    try:
        refused = _transcribe(worker, job, stored)
    except Interrupted:
        return partitioned_queue.release(claimed, INTERRUPTED)
    except (TranscriptionFailed, RecordingFailed) as failure:
        return _retry_or_give_up(worker, claimed, job, stored, failure)
    except RedisError:
        raise
    except Exception as error:  # every engine library has exceptions of its own
        log.exception("transcription raised", recording_id=job.recording_id, hint=REPORT_HINT)
        broken = TranscriptionUnusable(f"the transcription engine raised {type(error).__name__}")
        return _retry_or_give_up(worker, claimed, job, stored, broken)
    return _give_up(claimed, job, refused) if refused else partitioned_queue.ack(claimed)


def _retry_or_give_up(
    worker: AttemptContext, claimed: ClaimedEntry, job: TranscriptionJob, stored: StoredRecording, failure: Exception
) -> Disposition:
    """Return a retry, or a dead letter after the last attempt."""
    unusable = job.unusable_answers + isinstance(failure, TranscriptionUnusable)
    tried = structs.replace(job, error=str(failure), attempts=job.attempts + 1, unusable_answers=unusable)
    again = partitioned_queue.retry(claimed, json.encode(tried), retry_ms(tried.attempts), tried.error)
    log.warning(
        "transcription attempt failed", recording_id=job.recording_id, attempts=tried.attempts, reason=tried.error
    )
    if unusable < MAX_UNUSABLE and tried.attempts < MAX_ATTEMPTS:
        return again
    reason = f"{failure}, {f'{unusable} times' if unusable >= MAX_UNUSABLE else 'for a day'}"
    try:
        _finish(worker, tried, stored, [], reason)
    except Interrupted:
        return partitioned_queue.release(claimed, INTERRUPTED)
    except RecordingFailed:
        return again  # S3 is unreachable: the failure cannot be written
    return _give_up(claimed, tried, reason)


def _give_up(claimed: ClaimedEntry, job: TranscriptionJob, reason: str) -> Disposition:
    """Return a dead letter, from where the job can be retried, with a problem for the account."""
    text = f"recording {job.recording_id} was not transcribed: {reason}"
    report = Problem(time.time_ns() // 1_000_000, "", ProblemKind.TRANSCRIPTION_FAILED, text)
    problem = AccountProblem(problems_key(job.auth_id), encoded(report), settings().problems_kept)
    entry = json.encode(structs.replace(job, error=reason))
    return partitioned_queue.dead_letter(claimed, entry, KEPT, KEPT_MS, problem, reason)


def rejection_reason(duration_ms: int, size: int) -> str | None:
    if duration_ms <= SHORTEST_MS:
        return "Recording duration too short for transcription"
    if duration_ms >= LONGEST_MS:
        return "Recording duration too long for transcription"
    return "Recording file size too large for transcription" if size >= LARGEST else None


def charge(rate: str, duration_ms: int) -> str:
    """Return the charge. Spec: "charge = rate x minutes, each started minute counted." """
    return format(Decimal(rate) * -(-duration_ms // MINUTE_MS), "f")


def _transcribe(worker: AttemptContext, job: TranscriptionJob, stored: StoredRecording) -> str | None:
    """Return the reason if the recording can never be transcribed, otherwise None."""
    raise_if_interrupted(worker)
    bucket = Bucket(settings())
    if _document(bucket, stored) is None:
        return None
    error = rejection_reason(stored.duration_ms, stored.size)
    words: list[Word] = []
    if error is None and not installed(settings()) and transcribers.are_missing(worker.redis):
        # Otherwise the job would wait for the engine of another worker.
        error = transcribers.MISSING
    if error is None:
        try:
            words = _words(worker, stored, bucket, _language(worker, job))
        except TranscriptionRefused as refused:
            error = str(refused)
    _finish(worker, job, stored, words, error)
    return error


def _document(bucket: Bucket, stored: StoredRecording) -> dict[str, Any] | None:
    """Return the recording's sidecar, or None if it was deleted in the meantime."""
    found = bucket.get_json(sidecar_key(stored))
    if found is None and not bucket.can_read():
        raise RecordingFailed("the recording's sidecar could not be read: allow the key s3:GetObject")
    return found


def _language(worker: AttemptContext, job: TranscriptionJob) -> str:
    """Return the language from the document, or else the account's."""
    account = worker.account(job.auth_id)
    return job.language or (account.transcription_language if account else ENGLISH)


def _finish(
    worker: AttemptContext, job: TranscriptionJob, stored: StoredRecording, words: list[Word], error: str | None
) -> None:
    """Write the transcript into the sidecar and queue the callback to the transcriptionUrl.

    Raises Interrupted or RecordingFailed.
    """
    raise_if_interrupted(worker)
    bucket = Bucket(settings())
    document = _document(bucket, stored)
    if document is None:
        return
    text = " ".join(word.text for word in words)
    if error:
        transcript: dict[str, object] = {"state": "failed", "error": error}
    else:
        talk = [SpeechInterval(one["member_id"], one["start_ms"], one["end_ms"]) for one in document["talk"]]
        numbers = {one["member_id"]: one["from"] for one in document["members"]}
        name, language = create_engine(settings()).name, _language(worker, job)
        said = speaker_turns(words, talk, numbers)
        transcript = {"state": "done", "language": language, "engine": name, "text": text, "turns": said}
    raise_if_interrupted(worker)
    bucket.put_json(sidecar_key(stored), with_transcript(document, transcript))
    callbacks = _callback(worker, job, stored, text, error)
    if (
        jobs.save_transcript_state(worker.redis, stored, str(transcript["state"]), callbacks, again=job.is_repeated)
        is None
    ):
        bucket.delete(sidecar_key(stored))  # the recording was deleted in the meantime
    log.info(
        "transcription finished", recording_id=job.recording_id, auth_id=job.auth_id, words=len(words), error=error
    )


def _words(worker: AttemptContext, stored: StoredRecording, bucket: Bucket, language: str) -> list[Word]:
    using, found, done_ms = create_engine(settings()), list[Word](), 0
    known = [json.decode(piece, type=list[Word]) for piece in jobs.finished_chunks(worker.redis, stored.recording_id)]
    for number, piece in enumerate(audio_chunks.audio_chunks(bucket.read_by_range(stored.key), settings().ffmpeg)):
        percent = 100 * done_ms // max(1, stored.duration_ms)
        jobs.set_progress(worker.redis, stored.recording_id, min(99, percent))
        # Every attempt cuts the chunks at the same places.
        heard = known[number] if number < len(known) else using.transcribe(piece, language)
        if number >= len(known):
            jobs.save_chunk(worker.redis, stored.recording_id, number, json.encode(heard))
        found += [Word(done_ms + word.start_ms, done_ms + word.end_ms, word.text) for word in heard]
        done_ms += len(piece) // 2 * 1000 // RATE
        raise_if_interrupted(worker)
    return found


def _callback(
    worker: AttemptContext, job: TranscriptionJob, stored: StoredRecording, text: str, error: str | None
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
    post = PostCallback(stored.conference_id or stored.call_uuid, stored.auth_id, job.url, job.method, params)
    return [outbox.enqueue_item(post, time.time_ns() // 1_000_000, outbox.MAX_TRANSCRIPTION_BYTES)]


app.register_task(TranscriptionTask())
