"""Which recordings there are, by what they are asked for.

| key | is |
|---|---|
| ari_conf:recording-index:ACCOUNT:KIND:VALUE | sorted set by start: id |

KIND: all (no value), name and uuid of the conference, call (whose element asked), from and to (a member's numbers).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
import structlog
from redis import Redis

from ari_conf.lanes import PREFIX

log = structlog.get_logger()


class Stored(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A recording in the bucket."""

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
    """(from, to) of each member's call; of the one that asked for it first."""
    transcript: str = ""
    """done or failed, once that is known."""


def key(recording_id: str) -> str:
    return f"{PREFIX}recording:{recording_id}"


def keys(stored: Stored) -> list[str]:
    """Of the sorted sets that it is in."""
    kinds = [
        ("all", ""),
        ("name", stored.conference_name),
        ("uuid", stored.conference_id),
        ("call", stored.call_uuid),
        *(("from", from_) for from_, _ in stored.numbers if from_),
        *(("to", to) for _, to in stored.numbers if to),
    ]
    return [_index(stored.auth_id, kind, value) for kind, value in dict.fromkeys(kinds)]


def listed(
    redis: Redis,
    auth_id: str,
    *,
    by: Mapping[str, str] = {},
    since_ms: float = float("-inf"),
    until_ms: float = float("inf"),
    limit: int = 20,
    offset: int = 0,
) -> tuple[int, list[Stored]]:
    """(how many there are, a page of them, the latest first) for which all of `by`, KIND -> VALUE, holds."""
    client: Any = redis
    sets = [_index(auth_id, kind, value) for kind, value in by.items()] or [_index(auth_id, "all", "")]
    if len(sets) == 1:
        total = client.zcount(sets[0], since_ms, until_ms)
        ids = client.zrevrangebyscore(sets[0], until_ms, since_ms, start=offset, num=limit)
    else:
        both = client.zinter(sets, aggregate="MAX", withscores=True)
        found = [id for id, start_ms in reversed(both) if since_ms <= start_ms <= until_ms]
        total, ids = len(found), found[offset : offset + limit]
    kept = cast("list[bytes | None]", client.mget([key(id.decode()) for id in ids])) if ids else []
    return total, [stored for one in kept if one and (stored := decode(one))]


def decode(text: bytes) -> Stored | None:
    """None: another version wrote it. It is not listed, and costs the others nothing."""
    try:
        return msgspec.json.decode(text, type=Stored)
    except msgspec.MsgspecError as error:
        log.warning("a stored recording can't be read", reason=str(error))
        return None


def _index(auth_id: str, kind: str, value: str) -> str:
    return f"{PREFIX}recording-index:{auth_id}:{kind}:{value}"
