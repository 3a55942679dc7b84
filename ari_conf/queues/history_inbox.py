"""History's inbox: entries that wait for the database, in Redis.

| key | is |
|---|---|
| ari_conf:history-inbox:ACCOUNT | list: entries (JSON, `history.entries`), the oldest first |
| ari_conf:history-unreadable:ACCOUNT | list: the newest entries that could not be written, and never will be |
| ari_conf:history-entries | hash, account -> number of its entries in the database, approximately |
| ari_conf:history:… | see `partitioned_queue`: an entry for each inbox that is not empty |

An entry is added by the script that makes what it tells: a step, or the settlement of a callback. A worker writes a
batch into the database, and then removes it here: what is written twice has no effect (`history.writer`). At most
`limits.MAX_INBOX_ENTRIES` of an account wait, and `limits.MAX_INBOX_BYTES`; the oldest are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from redis import Redis

from ari_conf.common import lua
from ari_conf.common.redis_keys import PREFIX
from ari_conf.queues import outbox, partitioned_queue, queue_names

QUEUE = queue_names.HISTORY
INBOX = PREFIX + "history-inbox:"
UNREADABLE = PREFIX + "history-unreadable:"
WRITTEN_KEY = PREFIX + "history-entries"
FILES_KEY = PREFIX + "history-files"
MAX_UNREADABLE = 1000
"""Maximum entries of an account that are kept although they could not be written, the newest."""
BATCH, BATCH_BYTES = 500, 2 * 1024 * 1024
"""Maximum entries, and approximate maximum bytes, that are written in one transaction."""
PIECE = 50
WRITTEN, KEPT = "written", "unreadable"
"""Fields of the queue's counts: entries that were written, and entries that could not be."""
_REMOVE = lua.load("ari_conf.queues.scripts.remove_from_inbox")
_ADD = lua.load("ari_conf.queues.scripts.add_to_inbox")


class Job(msgspec.Struct, frozen=True, omit_defaults=True):
    """Entry of the queue."""

    auth_id: str
    at_ms: int
    attempts: int = 0


class Backlog(NamedTuple):
    entries: int
    """Entries that wait for the database."""
    oldest_ms: int
    """Age of the oldest, in milliseconds."""
    written: int
    """Entries written since Redis was set up."""
    failures: int
    """Attempts that failed."""
    dropped: int
    """Entries that were removed because too many waited."""
    unreadable: int


class _Dated(msgspec.Struct):
    at_ms: int


def key(auth_id: str) -> str:
    return INBOX + auth_id


def add(redis: Any, auth_id: str, entry: bytes) -> Any:
    """Add an entry; `redis` may be a pipeline, sync or async."""
    return redis.eval(_ADD, 1, key(auth_id), auth_id, entry)


def oldest(redis: Redis, auth_id: str) -> list[bytes]:
    """Return the oldest entries: at most BATCH, of about BATCH_BYTES."""
    found, size = list[bytes](), 0
    while len(found) < BATCH and size < BATCH_BYTES:
        piece = cast("list[bytes]", redis.lrange(key(auth_id), len(found), len(found) + PIECE - 1))
        found += piece
        size += sum(map(len, piece))
        if len(piece) < PIECE:
            break
    return found[:BATCH]


def newest(redis: Redis, auth_id: str, limit: int) -> list[bytes]:
    """Return the newest entries, the newest first."""
    return cast("list[bytes]", redis.lrange(key(auth_id), -limit, -1))[::-1]


def remove(redis: Redis, auth_id: str, entries: Sequence[bytes], unreadable: Iterable[bytes]) -> bool:
    """Remove the oldest entries, which are these, and keep the unreadable ones apart. Return False, and change nothing,
    if another worker has removed them."""
    kept = list(unreadable)
    parts: list[bytes | str | int] = [
        auth_id,
        entries[0],
        len(entries),
        len(entries) - len(kept),
        MAX_UNREADABLE,
        *kept,
    ]
    return bool(redis.eval(_REMOVE, 2, key(auth_id), UNREADABLE + auth_id, *parts))


def retry(redis: Redis, auth_id: str) -> int:
    """Return the entries that could not be written to the inbox, such as after an upgrade; return their number."""
    moved = 0
    while entry := cast("bytes | None", redis.rpop(UNREADABLE + auth_id)):
        add(redis, auth_id, entry)
        moved += 1
    return moved


def report_file(redis: Redis, host: str, file_id: str) -> None:
    """Record which file of SQLite the workers of a machine write; "": none."""
    if file_id:
        redis.hset(FILES_KEY, host, file_id)
    else:
        redis.hdel(FILES_KEY, host)


def files(redis: Redis) -> dict[str, str]:
    """Return the file of SQLite that the workers of each machine write, as last reported."""
    found = cast("dict[bytes, bytes]", redis.hgetall(FILES_KEY))
    return {host.decode(): file.decode() for host, file in found.items()}


def set_written(redis: Redis, auth_id: str, count: int) -> None:
    """Set the number of an account's entries that are in the database; 0: there are none."""
    if count:
        redis.hset(WRITTEN_KEY, auth_id, count)
    else:
        redis.hdel(WRITTEN_KEY, auth_id)


def delete(redis: Redis, auth_id: str) -> bool:
    """Delete what waits of an account. Return True if a worker is writing some of it at this moment."""
    redis.delete(key(auth_id), UNREADABLE + auth_id)
    return partitioned_queue.discard(redis, QUEUE, [f"{auth_id}:-:-"]) > 0


def backlog(client: Redis) -> Backlog:
    """Return what waits for the database, of up to 1000 accounts."""
    redis: Any = client
    heads = outbox.partition_heads(client, QUEUE)
    accounts = [head.partition.partition(":")[0] for head in heads]
    pipe = redis.pipeline(transaction=False)
    pipe.time().hgetall(partitioned_queue.prefix(QUEUE) + "counts")
    for auth_id in accounts:
        pipe.llen(key(auth_id)).lindex(key(auth_id), 0)
    (seconds, micros), counts, *found = pipe.execute()
    now_ms = seconds * 1000 + micros // 1000
    added = [at_ms for entry in found[1::2] if entry and (at_ms := _added_ms(entry)) is not None]
    numbers = (int(counts.get(name.encode(), 0)) for name in (WRITTEN, "retry", outbox.DROPPED, KEPT))
    return Backlog(sum(found[::2]), max(0, now_ms - min(added, default=now_ms)), *numbers)


def _added_ms(entry: bytes) -> int | None:
    try:
        return msgspec.json.decode(entry, type=_Dated).at_ms
    except (msgspec.MsgspecError, RecursionError):
        return None
