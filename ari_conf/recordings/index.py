"""Index of the recordings in the bucket, by search criterion.

| key | is |
|---|---|
| ari_conf:recording-index:ACCOUNT:KIND:VALUE | sorted set by start: id |

KIND: all (no value), name and uuid of the conference, call (whose element requested it), from and to (a member's
numbers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.common.redis_keys import PREFIX

log = structlog.get_logger()


class StoredRecording(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Recording in the bucket."""

    recording_id: str
    auth_id: str
    conference_id: str
    conference_name: str
    call_uuid: str
    file_format: str
    key: str
    size: int
    duration_ms: int
    start_ms: int
    end_ms: int
    stored_ms: int
    record_url: str
    numbers: tuple[tuple[str, str], ...] = ()
    """(from, to) of each member's call, first of the call that requested the recording."""
    transcript: str = ""
    """`done` or `failed`; empty until the transcription has ended."""
    callback: tuple[str, str] | None = None
    """URL and method of the record callback; None without one."""


def key(recording_id: str) -> str:
    return f"{PREFIX}recording:{recording_id}"


def keys(stored: StoredRecording) -> list[str]:
    """Return the keys of the sorted sets that contain the recording."""
    kinds = [
        ("all", ""),
        ("name", stored.conference_name),
        ("uuid", stored.conference_id),
        ("call", stored.call_uuid),
        *(("from", from_) for from_, _ in stored.numbers if from_),
        *(("to", to) for _, to in stored.numbers if to),
    ]
    return [_index_key(stored.auth_id, kind, value) for kind, value in dict.fromkeys(kinds)]


def all_key(auth_id: str) -> str:
    """Return the key of the sorted set of all recordings of an account."""
    return _index_key(auth_id, "all", "")


def search(
    redis: Redis,
    auth_id: str,
    *,
    by: Mapping[str, str] = {},
    since_ms: float = float("-inf"),
    until_ms: float = float("inf"),
    limit: int = 20,
    offset: int = 0,
) -> tuple[int, list[StoredRecording]]:
    """Return (total, one page with the latest first) of the recordings that match all of `by`, KIND -> VALUE."""
    client: Any = redis
    sets = [_index_key(auth_id, kind, value) for kind, value in by.items()] or [all_key(auth_id)]
    if len(sets) == 1:
        total = client.zcount(sets[0], since_ms, until_ms)
        ids = client.zrevrangebyscore(sets[0], until_ms, since_ms, start=offset, num=limit)
    else:
        both = client.zinter(sets, aggregate="MAX", withscores=True)
        found = [id for id, start_ms in reversed(both) if since_ms <= start_ms <= until_ms]
        total, ids = len(found), found[offset : offset + limit]
    kept = cast("list[bytes | None]", client.mget([key(id.decode()) for id in ids])) if ids else []
    return total, [stored for one in kept if one and (stored := decode(one))]


def matching(
    redis: Redis, auth_id: str, *, by: Mapping[str, str] = {}, since_ms: float, until_ms: float
) -> list[tuple[str, float]]:
    """Return (id, start) of all recordings that match, the latest first."""
    client: Any = redis
    sets = [_index_key(auth_id, kind, value) for kind, value in by.items()] or [all_key(auth_id)]
    if len(sets) == 1:
        found = client.zrevrangebyscore(sets[0], until_ms, since_ms, withscores=True)
    else:
        both = client.zinter(sets, aggregate="MAX", withscores=True)
        found = [(id, start_ms) for id, start_ms in reversed(both) if since_ms <= start_ms <= until_ms]
    return [(id.decode(), start_ms) for id, start_ms in found]


def texts(redis: Redis, ids: list[str]) -> dict[str, bytes]:
    """Return the recordings with these ids, as JSON; those that do not exist are left out."""
    if not ids:
        return {}
    kept = cast("list[bytes | None]", redis.mget([key(id) for id in ids]))
    return {id: text for id, text in zip(ids, kept, strict=True) if text}


def started_before(
    redis: Redis, auth_id: str, before_ms: int, *, offset: int = 0, limit: int = 100
) -> list[StoredRecording | None]:
    """Return one page of the recordings that started before `before_ms`, the earliest first.

    A recording that can't be read is None, so that the length of the page tells if there are more.
    """
    client: Any = redis
    ids = client.zrange(_index_key(auth_id, "all", ""), "-inf", f"({before_ms}", byscore=True, offset=offset, num=limit)
    kept = cast("list[bytes | None]", client.mget([key(id.decode()) for id in ids])) if ids else []
    return [decode(one) if one else None for one in kept]


def decode(text: bytes) -> StoredRecording | None:
    """Decode a recording. Return None if another version wrote it: the search then omits it and lists the others."""
    try:
        return msgspec.json.decode(text, type=StoredRecording)
    except msgspec.MsgspecError as error:
        log.warning("stored recording unreadable", reason=str(error))
        return None


def _index_key(auth_id: str, kind: str, value: str) -> str:
    return f"{PREFIX}recording-index:{auth_id}:{kind}:{value}"
