"""Recordings in Redis: those that wait to be stored or transcribed, and the index of those that are in the bucket.

| key | is |
|---|---|
| ari_conf:recordings:…, ari_conf:transcriptions:… | see `lanes`: a lane for each recording |
| ari_conf:recording:ID | JSON of a stored one |
| ari_conf:recording-index:… | see `recording_index` |
| ari_conf:recording-notes:ID | sorted set: who was in and who spoke, until it is stored |
| ari_conf:recording-words:ID | list: JSON of what was understood, piece by piece, until all is |
| ari_conf:recording-progress:ID | percent, of what is being worked at; it expires |
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

from ari_conf import lanes, outbox, recording_index
from ari_conf.core.effects import NoteStay, NoteTalk, PostCallback, StoreRecording
from ari_conf.lanes import PREFIX
from ari_conf.recording_index import Stored
from ari_conf.settings import Settings

log = structlog.get_logger()

QUEUE, TRANSCRIPTIONS = "recordings", "transcriptions"
FAILED = "failed"
"""Of a transcript's states, that which may become another."""
WORDS_KEPT_S = 7 * 24 * 3600
NOTES_KEPT_S = 30 * 24 * 3600
PROGRESS_KEPT_S = 3600
"""After it was told last: a long piece of speech takes minutes."""
MOST_NOTES = 100_000
"""Of a recording: who was in and who spoke. What comes after that is not noted."""


class Job(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A recording that is to be stored, in its lane."""

    recording_id: str
    auth_id: str
    conference_id: str
    conference_name: str
    call_uuid: str
    file_format: str
    start_ms: int
    end_ms: int
    ari_url: str
    """Of the Asterisk that has the file."""
    at_ms: int
    record_url: str
    failed: bool = False
    callback: tuple[str, str, tuple[tuple[str, str], ...]] | None = None
    """URL, method, parameters without those that only the file tells."""
    transcribe: bool = False
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    tries: int = 0
    error: str = ""
    """Of the last try."""


class Transcribing(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A stored recording that is to be transcribed, in its lane."""

    recording_id: str
    auth_id: str
    at_ms: int
    url: str | None = None
    method: str = "POST"
    language: str | None = None
    """None: the account's."""
    tries: int = 0
    unusable: int = 0
    """Answers that were no transcription: each may have been paid for."""
    again: bool = False
    """It was given up and told, and is tried again because somebody wants it."""
    error: str = ""


KINDS: tuple[tuple[str, type[Job] | type[Transcribing]], ...] = ((QUEUE, Job), (TRANSCRIPTIONS, Transcribing))


class _Stay(msgspec.Struct, frozen=True, array_like=True, tag="stay"):
    member_id: int
    call_uuid: str
    from_: str
    to: str
    entered_ms: int
    left_ms: int | None


class _Talk(msgspec.Struct, frozen=True, array_like=True, tag="talk"):
    member_id: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Notes:
    members: tuple[dict[str, Any], ...]
    talk: tuple[tuple[int, int, int], ...]
    """(member id, start, end), epoch ms."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One that waits, or is being worked at."""

    job: Job | Transcribing
    kind: str
    state: str
    due_in_ms: int
    percent: int | None


def entry(effect: StoreRecording, settings: Settings, now_ms: int) -> tuple[str, bytes]:
    """(lane, JSON), as `lanes.enqueue` takes them."""
    post = effect.callback
    ari_url = settings.ari_url_for_workers or settings.ari_url
    job = Job(
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
    return lane(effect.auth_id, ari_url, effect.recording_id), msgspec.json.encode(job)


def lane(auth_id: str, origin: str, recording_id: str) -> str:
    """ACCOUNT:ORIGIN:LANE; the origin is the Asterisk that has the file."""
    return f"{auth_id}:{blake2s(origin.encode(), digest_size=8).hexdigest()}:{recording_id}"


def callback(job: Job, more: dict[str, str], now_ms: int) -> list[tuple[str, bytes]]:
    """Its `record` callback with what the file tells, for `lanes.enqueue`; in the lane of its conference's others."""
    if job.callback is None:
        return []
    url, method, params = job.callback
    if "api_id" in dict(params):
        # The API asked for it: "Its callback is snake_case".
        more = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): value for name, value in more.items()}
    post = PostCallback(job.conference_id, job.auth_id, url, method, (*params, *more.items()))
    return [outbox.entry(post, now_ms)]


# Beside a recording, while it goes on.


def note(pipe: Any, effect: NoteStay | NoteTalk) -> None:
    """The same one twice is one."""
    if isinstance(effect, NoteStay):
        told = ["stay", effect.member_id, effect.call_uuid, effect.from_, effect.to, effect.entered_ms, effect.left_ms]
        at = effect.entered_ms
    else:
        told, at = ["talk", effect.member_id, effect.start_ms, effect.end_ms], effect.start_ms
    key = _notes_key(effect.recording_id)
    pipe.zadd(key, {json.dumps(told): at})
    pipe.zremrangebyrank(key, MOST_NOTES, -1)
    pipe.expire(key, NOTES_KEPT_S)


def notes(redis: Redis, recording_id: str) -> Notes:
    """One that can't be read costs no recording."""
    members: list[dict[str, Any]] = []
    talk: list[tuple[int, int, int]] = []
    for one in cast("list[bytes]", redis.zrange(_notes_key(recording_id), 0, -1)):
        try:
            note: _Stay | _Talk = msgspec.json.decode(one, type=_Stay | _Talk)
        except ValueError as error:
            log.error("a note beside a recording can't be read", recording_id=recording_id, reason=str(error))
            continue
        if isinstance(note, _Talk):
            talk.append((note.member_id, note.start_ms, note.end_ms))
        else:
            members.append({name.rstrip("_"): value for name, value in msgspec.structs.asdict(note).items()})
    return Notes(tuple(members), tuple(talk))


# The index.


def add(
    redis: Redis, stored: Stored, callbacks: list[tuple[str, bytes]], transcription: tuple[str, bytes] | None
) -> bool:
    """In one step, once: it is in the index, and what follows from that is under way. False: it was before."""

    def transaction(pipe: Any) -> bool:
        if pipe.exists(recording_index.key(stored.recording_id)):
            pipe.multi()
            return False
        pipe.multi()
        pipe.set(recording_index.key(stored.recording_id), msgspec.json.encode(stored))
        for index in recording_index.keys(stored):
            pipe.zadd(index, {stored.recording_id: stored.start_ms})
        if callbacks:
            lanes.enqueue(pipe, callbacks)
        if transcription:
            lanes.enqueue(pipe, [transcription], TRANSCRIPTIONS)
        pipe.delete(_notes_key(stored.recording_id))
        return True

    return bool(
        cast(Any, redis).transaction(transaction, recording_index.key(stored.recording_id), value_from_callable=True)
    )


def get(redis: Redis, recording_id: str) -> Stored | None:
    found = cast("bytes | None", redis.get(recording_index.key(recording_id)))
    return msgspec.json.decode(found, type=Stored) if found else None


def pieces_done(redis: Redis, recording_id: str) -> list[bytes]:
    """What was understood of it so far: who goes on after another need not begin anew."""
    return cast("list[bytes]", redis.lrange(_words_key(recording_id), 0, -1))


def keep_piece(redis: Redis, recording_id: str, number: int, understood: bytes) -> None:
    """Of piece `number`, from 0 on; done once."""
    key = _words_key(recording_id)

    def transaction(pipe: Any) -> None:
        there = pipe.llen(key)
        pipe.multi()
        if there == number:
            pipe.rpush(key, understood)
            pipe.expire(key, WORDS_KEPT_S)

    cast(Any, redis).transaction(transaction, key)


def transcribed(
    redis: Redis, stored: Stored, state: str, callbacks: list[tuple[str, bytes]], *, again: bool = False
) -> bool | None:
    """In one step, once: it is known, and its callback is under way. None: there is no such recording any more.
    `again`: also if it had failed."""
    key = recording_index.key(stored.recording_id)

    def transaction(pipe: Any) -> bool | None:
        found = pipe.get(key)
        known = msgspec.json.decode(found, type=Stored) if found else None
        pipe.multi()
        pipe.delete(_words_key(stored.recording_id))
        if known is None or (known.transcript and not (again and known.transcript == FAILED)):
            return None if known is None else False
        pipe.set(key, msgspec.json.encode(msgspec.structs.replace(known, transcript=state)))
        if callbacks:
            lanes.enqueue(pipe, callbacks)
        return True

    done: bool | None = cast(Any, redis).transaction(transaction, key, value_from_callable=True)
    return done


def remove(redis: Redis, stored: Stored) -> None:
    pipe = redis.pipeline(transaction=True)
    for index in recording_index.keys(stored):
        pipe.zrem(index, stored.recording_id)
    pipe.delete(recording_index.key(stored.recording_id))
    pipe.execute()


# Those that wait.


def progress(redis: Redis, recording_id: str, percent: int) -> None:
    redis.set(_progress_key(recording_id), percent, ex=PROGRESS_KEPT_S)


def pending(redis: Redis, limit: int = 1000) -> list[Pending]:
    """The one that waits for longest first."""
    found = []
    for queue, kind in KINDS:
        for _, place, _, head in outbox.heads(redis, queue, limit):
            try:
                job = msgspec.json.decode(head, type=kind)
            except msgspec.MsgspecError:  # its worker says so
                continue
            done = cast("bytes | None", redis.get(_progress_key(job.recording_id))) if place[0] == "leased" else None
            found.append(Pending(job, queue, *place, int(done) if done else None))
    return sorted(found, key=lambda one: one.job.at_ms)


def lost(redis: Redis, auth_ids: Sequence[str]) -> list[tuple[str, str, Job | Transcribing]]:
    """(id, kind, job) of those that were given up: their `error` says why."""
    found: list[tuple[str, str, Job | Transcribing]] = []
    for auth_id in auth_ids:
        for queue, kind in KINDS:
            letters = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrevrange(_dead(queue, auth_id)))
            for id, kept in letters:
                with contextlib.suppress(msgspec.MsgspecError):
                    found.append((id.decode(), queue, msgspec.json.decode(kept[b"entry"], type=kind)))
    return found


def retry(redis: Redis, auth_ids: Sequence[str]) -> int:
    """Those that were given up are tried again. Returns how many."""
    sent = 0
    for id, queue, job in lost(redis, auth_ids):
        fresh_job: Job | Transcribing = msgspec.structs.replace(job, tries=0, error="")
        if isinstance(fresh_job, Transcribing):
            fresh_job = msgspec.structs.replace(fresh_job, unusable=0, again=True)
        fresh = msgspec.json.encode(fresh_job)
        sent += lanes.Lanes(redis, queue).resend(job.auth_id, [(id, fresh)])
    return sent


def _dead(queue: str, auth_id: str) -> str:
    return f"{lanes.prefix(queue)}dead:{auth_id}"


def _words_key(recording_id: str) -> str:
    return f"{PREFIX}recording-words:{recording_id}"


def _notes_key(recording_id: str) -> str:
    return f"{PREFIX}recording-notes:{recording_id}"


def _progress_key(recording_id: str) -> str:
    return f"{PREFIX}recording-progress:{recording_id}"
