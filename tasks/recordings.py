"""Stores recordings: from Asterisk into the bucket, then the `record` callback, then the transcription.

Each step can be done again, by this worker or by another, wherever it was broken off: what is in the bucket counts once
its description is beside it, which is written when S3 has been verified; only then is the file deleted in Asterisk, and
only then, in one step of Redis that is done once, is it told.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from msgspec import MsgspecError, json, structs

from ari_conf import lanes, recordings
from ari_conf.bucket import Bucket
from ari_conf.errors import RecordingFailed, RecordingLost
from ari_conf.lanes import Taken, Verdict
from ari_conf.problems import Problem, encoded, problems_key
from ari_conf.recording_document import described, metadata, object_key
from ari_conf.recording_index import Stored
from ari_conf.recordings import Job, Transcribing
from ari_conf.settings import settings
from tasks.app import app
from tasks.tape import CONTENT_TYPES, ENCODERS, Recordings
from tasks.worker import Worker, come, serves, unreadable

log = structlog.get_logger()
FIRST_RETRY_MS, MOST_RETRY_MS = 1_000, 300_000
STILL_RUNNING_MS = 2_000
TELL_EVERY_S = 1.0
KEPT, KEPT_MS = 100_000, 10 * 365 * 24 * 3600 * 1000
"""What was given up stays listed."""


class Interrupted(Exception):
    """This worker ends, or doesn't hold the lane any more."""


@app.task(name="tasks.recordings.store")  # type: ignore[untyped-decorator]
def store_recording(token: str) -> None:
    come(recordings.QUEUE, token)


def serve(worker: Worker, taken: Taken) -> Verdict:
    """Makes one try."""
    try:
        job = json.decode(taken.entry, type=Job)
    except MsgspecError as error:
        return unreadable(worker, taken, error)
    try:
        _store(worker, job)
    except Interrupted:
        return lanes.back(taken)
    except RecordingLost as lost:
        if job.failed:
            # It never began: that was told then.
            log.warning("nothing was recorded", **_named(job))
            return lanes.done(taken)
        return _lost(taken, structs.replace(job, error=str(lost), tries=job.tries + 1))
    except RecordingFailed as failure:
        tried = structs.replace(job, error=str(failure), tries=job.tries + 1)
        delay_ms = retry_ms(tried.tries)
        log.warning("recording not stored yet", **_named(job), tries=tried.tries, reason=tried.error, again_ms=delay_ms)
        return lanes.retry(taken, json.encode(tried), delay_ms)
    return lanes.done(taken)


def retry_ms(tries: int) -> int:
    """No last one: the file waits on Asterisk's disk for as long as it takes."""
    return int(min(MOST_RETRY_MS, FIRST_RETRY_MS * 2 ** min(tries - 1, 20)))


def checked(worker: Worker) -> None:
    """Raises Interrupted."""
    if worker.stopping.is_set() or not worker.leased:
        raise Interrupted


def _store(worker: Worker, job: Job) -> None:
    checked(worker)
    asterisk = Recordings(job.ari_url, settings())
    try:
        if recordings.get(worker.redis, job.recording_id) is None:
            bucket = Bucket(settings())
            document = bucket.get_json(_json_key(job)) or _uploaded(worker, job, asterisk, bucket)
            checked(worker)
            asterisk.delete(job.auth_id, job.recording_id)
            _tell(worker, job, document)
        else:
            asterisk.delete(job.auth_id, job.recording_id)
    finally:
        asterisk.close()


def _uploaded(worker: Worker, job: Job, asterisk: Recordings, bucket: Bucket) -> dict[str, Any]:
    try:
        return _upload(worker, job, asterisk, bucket)
    except RecordingLost:
        if bucket.can_read():
            raise
        raise RecordingFailed(
            "Asterisk has no such file (any more), and whether S3 has it can't be seen: allow the key s3:GetObject"
        ) from None


def _upload(worker: Worker, job: Job, asterisk: Recordings, bucket: Bucket) -> dict[str, Any]:
    """Returns its description, which is in the bucket too then."""
    if asterisk.runs(job.auth_id, job.recording_id):
        raise RecordingFailed("Asterisk has not ended it yet")
    key = object_key(job.auth_id, job.recording_id, job.start_ms, job.file_format)
    bucket.abort_uploads(key)
    began = time.monotonic()
    with asterisk.tape(job.auth_id, job.recording_id) as tape:
        encoder = ENCODERS[job.file_format](tape)
        upload = bucket.upload(key, CONTENT_TYPES[job.file_format], metadata(job))
        try:
            upload.write(encoder.begin())
            told_at = 0.0
            for samples in tape:
                upload.write(encoder.feed(samples))
                if time.monotonic() - told_at > TELL_EVERY_S:
                    checked(worker)
                    told_at = time.monotonic()
                    recordings.progress(worker.redis, job.recording_id, 100 * tape.read // max(1, tape.expected))
            upload.write(encoder.finish())
            checked(worker)
            uploaded = upload.finish()
        except BaseException as failure:
            upload.abandon(failure)
            raise
    bucket.verify(key, uploaded, upload.etag)
    notes = recordings.notes(worker.redis, job.recording_id)
    document = described(job, notes, uploaded, tape.duration_ms, tape.rate)
    bucket.put_json(_json_key(job), document)
    took = round(time.monotonic() - began, 3)
    log.info("recording stored", **_named(job), key=key, size=uploaded.size, ms=tape.duration_ms, seconds=took)
    return document


def _tell(worker: Worker, job: Job, document: dict[str, Any]) -> None:
    now_ms, duration_ms = time.time_ns() // 1_000_000, int(document["duration_ms"])
    stored = Stored(
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
    )
    more = {"RecordingDuration": str(round(duration_ms / 1000)), "RecordingDurationMs": str(duration_ms)}
    recordings.add(worker.redis, stored, recordings.callback(job, more, now_ms), _transcription(job, now_ms))


def _numbers(job: Job, document: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    members = sorted(document["members"], key=lambda one: bool(one["call_uuid"] != job.call_uuid))
    return tuple(dict.fromkeys((str(one["from"]), str(one["to"])) for one in members))


def _transcription(job: Job, now_ms: int) -> tuple[str, bytes] | None:
    if not job.transcribe:
        return None
    asked = Transcribing(
        recording_id=job.recording_id,
        auth_id=job.auth_id,
        at_ms=now_ms,
        url=job.transcription_url,
        method=job.transcription_method,
        language=job.transcription_language,
    )
    return recordings.lane(job.auth_id, "", job.recording_id), json.encode(asked)


def _lost(taken: Taken, job: Job) -> Verdict:
    """Nothing to be had: given up, listed, and told."""
    log.error("recording lost", **_named(job), reason=job.error)
    text = f"the recording {job.recording_id} of the conference {job.conference_name!r} is lost: {job.error}"
    problem = Problem(time.time_ns() // 1_000_000, job.call_uuid, text)
    told = (problems_key(job.auth_id), encoded(problem), settings().problems_kept)
    return lanes.dead(taken, json.encode(job), KEPT, KEPT_MS, told)


def _named(job: Job) -> dict[str, str]:
    return {"recording_id": job.recording_id, "auth_id": job.auth_id, "conference_id": job.conference_id}


def _json_key(job: Job) -> str:
    return object_key(job.auth_id, job.recording_id, job.start_ms, "json")


serves(recordings.QUEUE, lambda: settings().recording_threads, serve)
