"""Recording jobs in Redis: recordings to be stored or transcribed, their notes, and their move into the index.

| key | is |
|---|---|
| ari_conf:recordings:…, ari_conf:transcriptions:… | see `partitioned_queue`: a partition for each recording |
| ari_conf:recording:ID | JSON of a stored recording |
| ari_conf:recording-index:… | see `recordings.index` |
| ari_conf:recording-notes:ID | sorted set: attendance and speech intervals, until the recording is stored |
| ari_conf:transcript-chunks:ID | list: JSON of each transcribed chunk, until the transcription has ended |
| ari_conf:recording-progress:ID | percent done of a job in progress; it expires |
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Any, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.common.redis_keys import PREFIX
from ari_conf.core.effects import AddAttendanceNote, AddSpeechNote, PostCallback, StoreRecording
from ari_conf.history import entries
from ari_conf.queues import history_inbox, outbox, partitioned_queue, queue_names
from ari_conf.recordings import index as recording_index
from ari_conf.recordings.index import StoredRecording
from ari_conf.settings import Settings

log = structlog.get_logger()

STORE_QUEUE, TRANSCRIPTION_QUEUE = queue_names.RECORDINGS, queue_names.TRANSCRIPTIONS
QUEUES = (outbox.QUEUE, STORE_QUEUE, TRANSCRIPTION_QUEUE)
"""Queues of what calls leave to workers."""
FAILED = "failed"
"""The only state of a transcript that can change to another."""
CHUNKS_TTL_S = 7 * 24 * 3600
NOTES_TTL_S = 30 * 24 * 3600
PROGRESS_TTL_S = 3600
"""Seconds for which the last reported progress is kept: a long interval of speech takes minutes."""
MAX_NOTES = 100_000
"""Maximum number of notes (attendance and speech intervals) of a recording; later ones are dropped."""


class StoreJob(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Job to store a recording; the entry of a partition."""

    recording_id: str
    auth_id: str
    conference_id: str
    conference_name: str
    call_uuid: str
    file_format: str
    start_ms: int
    end_ms: int
    ari_url: str
    """ARI URL of the Asterisk that has the file."""
    at_ms: int
    record_url: str
    failed: bool = False
    callback: tuple[str, str, tuple[tuple[str, str], ...]] | None = None
    """URL, method and parameters of the callback, without the parameters that depend on the file."""
    transcribe: bool = False
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    attempts: int = 0
    error: str = ""
    """Error of the last attempt."""


class TranscriptionJob(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Job to transcribe a stored recording; the entry of a partition."""

    recording_id: str
    auth_id: str
    at_ms: int
    url: str | None = None
    method: str = "POST"
    language: str | None = None
    """Language code; None for the account's language."""
    attempts: int = 0
    unusable_answers: int = 0
    """Number of responses that were no transcription; each may have cost money."""
    is_repeated: bool = False
    """True if an operator retries a job that was given up, whose failure has already been reported."""
    error: str = ""


KINDS: tuple[tuple[str, type[StoreJob] | type[TranscriptionJob]], ...] = (
    (STORE_QUEUE, StoreJob),
    (TRANSCRIPTION_QUEUE, TranscriptionJob),
)


class _AttendanceNote(msgspec.Struct, frozen=True, array_like=True, tag="attendance"):
    member_id: int
    call_uuid: str
    from_: str
    to: str
    entered_ms: int
    left_ms: int | None


class _SpeechNote(msgspec.Struct, frozen=True, array_like=True, tag="speech"):
    member_id: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class RecordingNotes:
    members: tuple[dict[str, Any], ...]
    talk: tuple[tuple[int, int, int], ...]
    """(member ID, start, end) of each speech interval, in epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class PendingJob:
    """Job that is waiting or being processed."""

    job: StoreJob | TranscriptionJob
    kind: str
    state: str
    due_in_ms: int
    percent: int | None


def enqueue_item(effect: StoreRecording, settings: Settings, now_ms: int) -> tuple[str, bytes]:
    """Return (partition key, JSON) for `partitioned_queue.enqueue`."""
    post = effect.callback
    ari_url = settings.ari_url_for_workers or settings.ari_url
    job = StoreJob(
        recording_id=effect.recording_id,
        auth_id=effect.auth_id,
        conference_id=effect.conference_id,
        conference_name=effect.conference_name,
        call_uuid=effect.call_uuid,
        file_format=effect.file_format,
        start_ms=effect.start_ms,
        end_ms=effect.end_ms,
        ari_url=ari_url,
        at_ms=now_ms,
        record_url=effect.record_url,
        failed=effect.failed,
        callback=(post.url, post.method, post.params) if post else None,
        transcribe=effect.transcribe,
        transcription_url=effect.transcription_url,
        transcription_method=effect.transcription_method,
        transcription_language=effect.transcription_language,
    )
    return partition_key(effect.auth_id, ari_url, effect.recording_id), msgspec.json.encode(job)


def partition_key(auth_id: str, origin: str, recording_id: str) -> str:
    """Return ACCOUNT:ORIGIN:RECORDING; the origin identifies the Asterisk that has the file."""
    return f"{auth_id}:{blake2s(origin.encode(), digest_size=8).hexdigest()}:{recording_id}"


def record_callback(job: StoreJob, more: dict[str, str], now_ms: int) -> list[tuple[str, bytes]]:
    """Return the `record` callback for `partitioned_queue.enqueue`, in its conference's partition; empty without one.

    `more` has the parameters that depend on the file.
    """
    if job.callback is None:
        return []
    url, method, params = job.callback
    if "api_id" in dict(params):
        # The API requested the recording.
        more = _snake_case(more)
    post = PostCallback(job.conference_id, job.auth_id, url, method, (*params, *more.items()))
    return [outbox.enqueue_item(post, now_ms)]


# Notes of a recording in progress.


def add_note(pipe: Any, effect: AddAttendanceNote | AddSpeechNote) -> None:
    """Add a note; adding it again has no effect."""
    if isinstance(effect, AddAttendanceNote):
        stay = effect.from_, effect.to, effect.entered_ms, effect.left_ms
        note, at = ["attendance", effect.member_id, effect.call_uuid, *stay], effect.entered_ms
    else:
        note, at = ["speech", effect.member_id, effect.start_ms, effect.end_ms], effect.start_ms
    key = _notes_key(effect.recording_id)
    pipe.zadd(key, {json.dumps(note): at})
    pipe.zremrangebyrank(key, MAX_NOTES, -1)
    pipe.expire(key, NOTES_TTL_S)


def read_notes(redis: Redis, recording_id: str) -> RecordingNotes:
    """Return the notes of a recording, without those that can't be read: they must not prevent its storage."""
    members: list[dict[str, Any]] = []
    talk: list[tuple[int, int, int]] = []
    for one in cast("list[bytes]", redis.zrange(_notes_key(recording_id), 0, -1)):
        try:
            note: _AttendanceNote | _SpeechNote = msgspec.json.decode(one, type=_AttendanceNote | _SpeechNote)
        except ValueError as error:
            log.error("recording note unreadable", recording_id=recording_id, reason=str(error))
            continue
        if isinstance(note, _SpeechNote):
            talk.append((note.member_id, note.start_ms, note.end_ms))
        else:
            members.append({name.rstrip("_"): value for name, value in msgspec.structs.asdict(note).items()})
    return RecordingNotes(tuple(members), tuple(talk))


# The index.


def add(
    redis: Redis, stored: StoredRecording, callbacks: list[tuple[str, bytes]], transcription: tuple[str, bytes] | None
) -> bool:
    """Add a recording to the index, and enqueue its callbacks and transcription, all in one transaction.

    Return False, and change nothing, if the recording is in the index already.
    """

    def transaction(pipe: Any) -> bool:
        if pipe.exists(recording_index.key(stored.recording_id)):
            pipe.multi()
            return False
        pipe.multi()
        pipe.set(recording_index.key(stored.recording_id), msgspec.json.encode(stored))
        for index in recording_index.keys(stored):
            pipe.zadd(index, {stored.recording_id: stored.start_ms})
        if callbacks:
            partitioned_queue.enqueue(pipe, callbacks)
        if transcription:
            partitioned_queue.enqueue(pipe, [transcription], TRANSCRIPTION_QUEUE)
        history_inbox.add(pipe, stored.auth_id, history_entry(stored))
        pipe.delete(_notes_key(stored.recording_id))
        return True

    return bool(
        cast(Any, redis).transaction(transaction, recording_index.key(stored.recording_id), value_from_callable=True)
    )


def history_entry(stored: StoredRecording) -> bytes:
    """Return what the history keeps of a recording."""
    item = entries.RecordingStored(
        recording_id=stored.recording_id,
        auth_id=stored.auth_id,
        conference_id=stored.conference_id,
        conference_name=stored.conference_name,
        call_uuid=stored.call_uuid,
        start_ms=stored.start_ms,
        end_ms=stored.end_ms,
        numbers=stored.numbers,
        document=msgspec.Raw(msgspec.json.encode(stored)),
    )
    return entries.encode(entries.Entry(stored.stored_ms, item))


def get(redis: Redis, recording_id: str) -> StoredRecording | None:
    found = cast("bytes | None", redis.get(recording_index.key(recording_id)))
    return msgspec.json.decode(found, type=StoredRecording) if found else None


def finished_chunks(redis: Redis, recording_id: str) -> list[bytes]:
    """Return the chunks transcribed so far, so that another worker can continue an interrupted transcription."""
    return cast("list[bytes]", redis.lrange(_chunks_key(recording_id), 0, -1))


def save_chunk(redis: Redis, recording_id: str, number: int, chunk: bytes) -> None:
    """Append the transcription of chunk `number`, counted from 0, unless it has been saved already."""
    key = _chunks_key(recording_id)

    def transaction(pipe: Any) -> None:
        saved = pipe.llen(key)
        pipe.multi()
        if saved == number:
            pipe.rpush(key, chunk)
            pipe.expire(key, CHUNKS_TTL_S)

    cast(Any, redis).transaction(transaction, key)


def save_transcript_state(
    redis: Redis, stored: StoredRecording, state: str, callbacks: list[tuple[str, bytes]], *, again: bool = False
) -> bool | None:
    """Record the final state of a transcript, enqueue its callbacks and delete its chunks, in one transaction.

    Return None if the recording no longer exists, and False if it has a final state already. `again`: FAILED may be
    replaced.
    """
    key = recording_index.key(stored.recording_id)

    def transaction(pipe: Any) -> bool | None:
        found = pipe.get(key)
        known = msgspec.json.decode(found, type=StoredRecording) if found else None
        pipe.multi()
        pipe.delete(_chunks_key(stored.recording_id))
        if known is None or (known.transcript and not (again and known.transcript == FAILED)):
            return None if known is None else False
        changed = msgspec.structs.replace(known, transcript=state)
        pipe.set(key, msgspec.json.encode(changed))
        history_inbox.add(pipe, changed.auth_id, history_entry(changed))
        if callbacks:
            partitioned_queue.enqueue(pipe, callbacks)
        return True

    done: bool | None = cast(Any, redis).transaction(transaction, key, value_from_callable=True)
    return done


def remove(redis: Redis, stored: StoredRecording, callbacks: list[tuple[str, bytes]] | None = None) -> bool:
    """Remove a recording from the index, and enqueue `callbacks`, in one transaction.

    Return False, and change nothing, if it is not in the index.
    """
    key = recording_index.key(stored.recording_id)

    def transaction(pipe: Any) -> bool:
        is_there = bool(pipe.exists(key))
        pipe.multi()
        for index in recording_index.keys(stored):
            pipe.zrem(index, stored.recording_id)
        pipe.delete(key)
        forget_progress(pipe, stored.recording_id)
        if is_there:
            item = entries.RecordingDeleted(stored.recording_id, stored.auth_id)
            history_inbox.add(pipe, stored.auth_id, entries.encode(entries.Entry(stored.stored_ms, item)))
        if is_there and callbacks:
            partitioned_queue.enqueue(pipe, callbacks)
        return is_there

    return bool(cast(Any, redis).transaction(transaction, key, value_from_callable=True))


def move(redis: Redis, stored: StoredRecording, counter: str) -> bool:
    """Remove a recording from the index, because the history's database has it; count it in the hash `counter`.

    Return False, and change nothing, if it has changed in the meantime."""
    key = recording_index.key(stored.recording_id)

    def transaction(pipe: Any) -> bool:
        found = pipe.get(key)
        is_same = found is not None and recording_index.decode(found) == stored
        pipe.multi()
        if is_same:
            for index in recording_index.keys(stored):
                pipe.zrem(index, stored.recording_id)
            pipe.delete(key)
            pipe.hincrby(counter, stored.auth_id, 1)
        return is_same

    return bool(cast(Any, redis).transaction(transaction, key, value_from_callable=True))


def deletion_callback(stored: StoredRecording, reason: str, now_ms: int) -> list[tuple[str, bytes]]:
    """Return the callback that reports a deletion, for `partitioned_queue.enqueue`; empty if the recording has no URL.

    It has no RecordUrl: receivers would take it for a new recording.
    """
    if stored.callback is None:
        return []
    url, method = stored.callback
    params = {
        "ParentAuthID": stored.auth_id,
        "Event": "RecordingDeleted",
        "ConferenceName": stored.conference_name,
        "ConferenceUUID": stored.conference_id,
        "RecordingID": stored.recording_id,
        "RecordingStartMs": str(stored.start_ms),
        "RecordingEndMs": str(stored.end_ms),
        "RecordingDeletedReason": reason,
        "Timestamp": str(now_ms),
    }
    if not stored.call_uuid:
        # The API requested the recording.
        params = _snake_case(params)
    post = PostCallback(stored.conference_id, stored.auth_id, url, method, tuple(params.items()))
    return [outbox.enqueue_item(post, now_ms)]


def _snake_case(params: dict[str, str]) -> dict[str, str]:
    """Return the parameters in the names of the API's callbacks. Spec: "Its callback is snake_case"."""
    names = (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in params)
    return dict(zip(names, params.values(), strict=True))


def forget_progress(pipe: Any, recording_id: str) -> None:
    """Delete what was kept of a recording for jobs that are in progress."""
    pipe.delete(_notes_key(recording_id), _chunks_key(recording_id), _progress_key(recording_id))


# Waiting jobs, and jobs that were given up.


def set_progress(redis: Redis, recording_id: str, percent: int) -> None:
    redis.set(_progress_key(recording_id), percent, ex=PROGRESS_TTL_S)


def pending(redis: Redis, limit: int = 1000) -> list[PendingJob]:
    """Return the unfinished jobs of both queues, the oldest first; `limit` is the maximum for each queue."""
    found = []
    for queue, kind in KINDS:
        for head in outbox.partition_heads(redis, queue, limit):
            try:
                job = msgspec.json.decode(head.first_entry, type=kind)
            except msgspec.MsgspecError:  # the worker that claims it logs it
                continue
            is_leased = head.place.state == "leased"
            done = cast("bytes | None", redis.get(_progress_key(job.recording_id))) if is_leased else None
            found.append(PendingJob(job, queue, *head.place, int(done) if done else None))
    return sorted(found, key=lambda one: one.job.at_ms)


def given_up(redis: Redis, auth_ids: Sequence[str]) -> list[tuple[str, str, StoreJob | TranscriptionJob]]:
    """Return (dead-letter ID, queue, job) of the jobs that were given up; the job's `error` is the reason."""
    found: list[tuple[str, str, StoreJob | TranscriptionJob]] = []
    for auth_id in auth_ids:
        for queue, kind in KINDS:
            letters = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrevrange(_dead_letters_key(queue, auth_id)))
            for id, kept in letters:
                with contextlib.suppress(msgspec.MsgspecError):
                    found.append((id.decode(), queue, msgspec.json.decode(kept[b"entry"], type=kind)))
    return found


def retry(redis: Redis, auth_ids: Sequence[str]) -> int:
    """Enqueue each job that was given up as a new one, and return the number of jobs."""
    sent = 0
    for letter_id, queue, job in given_up(redis, auth_ids):
        fresh_job: StoreJob | TranscriptionJob = msgspec.structs.replace(job, attempts=0, error="")
        if isinstance(fresh_job, TranscriptionJob):
            fresh_job = msgspec.structs.replace(fresh_job, unusable_answers=0, is_repeated=True)
        fresh = msgspec.json.encode(fresh_job)
        sent += partitioned_queue.PartitionedQueue(redis, queue).requeue_dead_letters(job.auth_id, [(letter_id, fresh)])
    return sent


def _dead_letters_key(queue: str, auth_id: str) -> str:
    return f"{partitioned_queue.prefix(queue)}dead-letters:{auth_id}"


def _chunks_key(recording_id: str) -> str:
    return f"{PREFIX}transcript-chunks:{recording_id}"


def _notes_key(recording_id: str) -> str:
    return f"{PREFIX}recording-notes:{recording_id}"


def _progress_key(recording_id: str) -> str:
    return f"{PREFIX}recording-progress:{recording_id}"
