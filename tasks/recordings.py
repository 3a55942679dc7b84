"""Recording storage: moves a recording from Asterisk into the bucket, then queues the `record` callback and
transcription.

Any worker can repeat any step, wherever the previous attempt stopped. A file in the bucket counts once its sidecar
is beside it, which is written after S3's copy has been verified. Only then is the file deleted in Asterisk. Only
then is the callback queued, in one atomic Redis script that takes effect once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import structlog
from msgspec import json, structs

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import RecordingFailed, RecordingMissing
from ari_conf.queues import partitioned_queue
from ari_conf.queues.partitioned_queue import AccountProblem, ClaimedEntry, Disposition
from ari_conf.recordings import jobs
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.jobs import StoreJob, TranscriptionJob
from ari_conf.recordings.sidecar import build_sidecar, metadata, object_key, sidecar_key
from ari_conf.settings import settings
from ari_conf.store import removals
from ari_conf.store.problems import Problem, encoded, problems_key
from tasks.app import app
from tasks.asterisk_recording import CONTENT_TYPES, ENCODERS, AsteriskRecordings
from tasks.entry_task import AttemptContext, EntryDescription, EntryTask

log = structlog.get_logger()
FIRST_RETRY_MS, MAX_RETRY_MS = 1_000, 300_000
PROGRESS_INTERVAL_S = 1.0
KEPT, KEPT_MS = 100_000, 10 * 365 * 24 * 3600 * 1000
"""Limits of the dead letters: entries, and milliseconds. They stay listed for ten years."""


FINISH_POLLS, FINISH_POLL_S = 20, 0.1
UNFINISHED = "Asterisk has not finished the recording yet"
INTERRUPTED = "the worker is stopping, or its lease has expired"


class Interrupted(Exception):
    """The worker is stopping, or no longer holds the partition."""


class RecordingTask(EntryTask):
    name = "ari_conf.recording"
    queue_name = jobs.STORE_QUEUE
    attempt_limit_s = 6 * 3600.0

    def max_threads(self) -> int:
        return settings().recording_threads

    def decode(self, entry: bytes) -> StoreJob:
        return json.decode(entry, type=StoreJob)

    def describe(self, job: StoreJob) -> EntryDescription:
        arguments = {"account": job.auth_id, "recording": job.recording_id, "conference": job.conference_id}
        return EntryDescription(job.recording_id.encode(), arguments, job.attempts)

    def attempt(self, worker: AttemptContext, claimed: ClaimedEntry, job: StoreJob) -> Disposition:
        return store_once(worker, claimed, job)


def store_once(worker: AttemptContext, claimed: ClaimedEntry, job: StoreJob) -> Disposition:
    """Make one attempt to store a recording, and return the disposition."""
    try:
        _store(worker, job)
    except Interrupted:
        return partitioned_queue.release(claimed, INTERRUPTED)
    except RecordingMissing as lost:
        if job.failed:
            # The recording never began, which was reported at that time.
            log.warning("recording has no file", **_named(job))
            return partitioned_queue.ack(claimed)
        return _lost(claimed, structs.replace(job, error=str(lost), attempts=job.attempts + 1))
    except RecordingFailed as failure:
        tried = structs.replace(job, error=str(failure), attempts=job.attempts + 1)
        delay_ms = retry_ms(tried.attempts)
        log.warning(
            "recording store attempt failed",
            **_named(job),
            attempts=tried.attempts,
            reason=tried.error,
            retry_in_ms=delay_ms,
        )
        return partitioned_queue.retry(claimed, json.encode(tried), delay_ms, tried.error)
    return partitioned_queue.ack(claimed)


def retry_ms(tries: int) -> int:
    """Return the delay before the next attempt. Attempts have no limit: the file stays on Asterisk's disk."""
    return int(min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** min(tries - 1, 20)))


def raise_if_interrupted(worker: AttemptContext) -> None:
    """Raise Interrupted if the worker is stopping or has lost its lease."""
    if worker.stopping.is_set() or not worker.has_lease:
        raise Interrupted


def _store(worker: AttemptContext, job: StoreJob) -> None:
    raise_if_interrupted(worker)
    asterisk = AsteriskRecordings(job.ari_url, settings())
    try:
        if removals.is_purged(worker.redis, job.auth_id):
            _discard(job, asterisk)
        elif jobs.get(worker.redis, job.recording_id) is None:
            bucket = Bucket(settings())
            document = bucket.get_json(sidecar_key(job)) or _uploaded(worker, job, asterisk, bucket)
            raise_if_interrupted(worker)
            _delete(job, asterisk)
            _publish_stored(worker, job, document)
        else:
            _delete(job, asterisk)
    finally:
        asterisk.close()


def _discard(job: StoreJob, asterisk: AsteriskRecordings) -> None:
    """Delete the file in Asterisk: the account is being removed together with its data."""
    if _is_live(job, asterisk):
        raise RecordingFailed(UNFINISHED)
    with suppress(RecordingMissing):
        _delete(job, asterisk)
    log.info("recording discarded", **_named(job))


def _delete(job: StoreJob, asterisk: AsteriskRecordings) -> None:
    for name in job.names:
        asterisk.delete(name)


def _is_live(job: StoreJob, asterisk: AsteriskRecordings) -> bool:
    return any(asterisk.is_live(name) for name in job.names)


def _wait_until_finished(worker: AttemptContext, job: StoreJob, asterisk: AsteriskRecordings) -> None:
    """Wait until Asterisk has finished the recording. That of a call is handed over at the hangup, a moment before.

    Raises RecordingFailed if it takes longer than that moment."""
    for left in reversed(range(FINISH_POLLS if job.tracks else 1)):
        if not _is_live(job, asterisk):
            return
        raise_if_interrupted(worker)
        if left:
            time.sleep(FINISH_POLL_S)
    raise RecordingFailed(UNFINISHED)


def _uploaded(worker: AttemptContext, job: StoreJob, asterisk: AsteriskRecordings, bucket: Bucket) -> dict[str, Any]:
    try:
        return _upload(worker, job, asterisk, bucket)
    except RecordingMissing:
        if bucket.can_read():
            raise
        raise RecordingFailed(
            "Asterisk does not have the file, and S3 does not say whether it has it: allow the key s3:GetObject"
        ) from None


def _upload(worker: AttemptContext, job: StoreJob, asterisk: AsteriskRecordings, bucket: Bucket) -> dict[str, Any]:
    """Upload the file and return its sidecar, which is then in the bucket too."""
    _wait_until_finished(worker, job, asterisk)
    key = object_key(job.auth_id, job.recording_id, job.start_ms, job.file_format)
    bucket.abort_uploads(key)
    began = time.monotonic()
    with asterisk.open_streams(job.names) as tape:
        encoder = ENCODERS[job.file_format](tape)
        upload = bucket.upload(key, CONTENT_TYPES[job.file_format], metadata(job))
        try:
            upload.write(encoder.start())
            progress_at = 0.0
            for samples in tape:
                upload.write(encoder.feed(samples))
                if time.monotonic() - progress_at > PROGRESS_INTERVAL_S:
                    raise_if_interrupted(worker)
                    progress_at = time.monotonic()
                    jobs.set_progress(worker.redis, job.recording_id, 100 * tape.read // max(1, tape.expected))
            upload.write(encoder.finish())
            raise_if_interrupted(worker)
            uploaded = upload.finish()
        except BaseException as failure:
            upload.abandon(failure)
            raise
    bucket.verify(key, uploaded, upload.etag)
    notes = jobs.read_notes(worker.redis, job.recording_id)
    document = build_sidecar(job, notes, uploaded, tape.duration_ms, tape.rate)
    bucket.put_json(sidecar_key(job), document)
    took = round(time.monotonic() - began, 3)
    log.info("recording stored", **_named(job), key=key, size=uploaded.size, ms=tape.duration_ms, seconds=took)
    return document


def _publish_stored(worker: AttemptContext, job: StoreJob, document: dict[str, Any]) -> None:
    now_ms, duration_ms = time.time_ns() // 1_000_000, int(document["duration_ms"])
    stored = StoredRecording(
        recording_id=job.recording_id,
        auth_id=job.auth_id,
        conference_id=job.conference_id,
        conference_name=job.conference_name,
        call_uuid=job.call_uuid,
        file_format=job.file_format,
        key=str(document["key"]),
        size=int(document["size"]),
        duration_ms=duration_ms,
        start_ms=job.start_ms,
        end_ms=job.end_ms,
        stored_ms=now_ms,
        record_url=job.record_url,
        numbers=_numbers(job, document),
        callback=job.callback[:2] if job.callback else None,
        by_api=bool(job.tracks and job.callback and "api_id" in dict(job.callback[2])),
    )
    more = {"RecordingDuration": str(round(duration_ms / 1000)), "RecordingDurationMs": str(duration_ms)}
    jobs.add(worker.redis, stored, jobs.record_callback(job, more, now_ms), _transcription(job, now_ms))


def _numbers(job: StoreJob, document: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    members = sorted(document["members"], key=lambda one: bool(one["call_uuid"] != job.call_uuid))
    return tuple(dict.fromkeys((str(one["from"]), str(one["to"])) for one in members))


def _transcription(job: StoreJob, now_ms: int) -> tuple[str, bytes] | None:
    if not job.transcribe:
        return None
    asked = TranscriptionJob(
        recording_id=job.recording_id,
        auth_id=job.auth_id,
        at_ms=now_ms,
        url=job.transcription_url,
        method=job.transcription_method,
        language=job.transcription_language,
    )
    return jobs.partition_key(job.auth_id, "", job.recording_id), json.encode(asked)


def _lost(claimed: ClaimedEntry, job: StoreJob) -> Disposition:
    """Return a dead letter with a problem: the recording exists neither in Asterisk nor in the bucket."""
    log.error("recording lost", **_named(job), reason=job.error)
    text = f"recording {job.recording_id} of {job.title} is lost: {job.error}"
    report = Problem(time.time_ns() // 1_000_000, job.call_uuid, ProblemKind.RECORDING_LOST, text)
    problem = AccountProblem(problems_key(job.auth_id), encoded(report), settings().problems_kept)
    return partitioned_queue.dead_letter(claimed, json.encode(job), KEPT, KEPT_MS, problem, str(job.error))


def _named(job: StoreJob) -> dict[str, str]:
    of = {"conference_id": job.conference_id} if job.conference_id else {"call_uuid": job.call_uuid}
    return {"recording_id": job.recording_id, "auth_id": job.auth_id, **of}


app.register_task(RecordingTask())
