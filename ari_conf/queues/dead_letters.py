"""Dead letters: callbacks that could not be delivered. One Redis stream per account keeps the newest, for some days.

Spec: "After the last try a callback is a **dead letter**: kept with all its tries (time, status or error, ms), listed,
and resent on demand; never dropped silently."
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import msgspec
import structlog
from redis import Redis

from ari_conf.queues.outbox import QUEUE, CallbackEntry, decode, encode
from ari_conf.queues.partitioned_queue import PartitionedQueue, prefix

log = structlog.get_logger()

Fields = dict[bytes, bytes]

READ_BATCH = 8
"""Entries that are read in one piece."""
MAX_BYTES = 4 * 1024 * 1024
"""Maximum bytes of entries in one list."""
RESEND_INTERVAL_MS = 20
"""Milliseconds between callbacks that are resent together: their receiver failed before."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: str
    """Stream id; begins with the epoch milliseconds at which the callback was dead-lettered."""
    partition: str
    entry: CallbackEntry

    @property
    def died_ms(self) -> int:
        return int(self.id.partition("-")[0])


def list_newest(redis: Redis, auth_id: str, limit: int = 100, before: str | None = None) -> list[DeadLetter]:
    """Return an account's dead letters, the newest first; with `before`, those older than that id.

    Their entries have at most MAX_BYTES, so there may be fewer than `limit` although more exist."""
    found, left = list[DeadLetter](), MAX_BYTES
    for letter, size in newest(redis, auth_id, before):
        left -= size
        if found and left < 0:
            break
        found.append(letter)
        if len(found) >= limit:
            break
    return found


def newest(redis: Redis, auth_id: str, before: str | None = None) -> Iterator[tuple[DeadLetter, int]]:
    """Yield (dead letter, bytes of its entry), the newest first, read piece by piece."""
    while True:
        end = f"({before}" if before else "+"
        found = cast("list[tuple[bytes, Fields]]", redis.xrevrange(_key(auth_id), end, "-", count=READ_BATCH))
        for id, fields in found:
            if letter := _decode(id, fields):
                yield letter, len(fields[b"entry"])
        if len(found) < READ_BATCH:
            return
        before = found[-1][0].decode()


def count(redis: Redis, auth_id: str) -> int:
    return redis.xlen(_key(auth_id))


def get(redis: Redis, auth_id: str, id: str) -> DeadLetter | None:
    found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), id, id))
    return _decode(*found[0]) if found else None


def resend(redis: Redis, auth_id: str, ids: Iterable[str]) -> int:
    """Move dead letters to the ends of their partitions, in this order, with their attempts cleared.

    Return how many were moved. A script moves each atomically. A dead letter that no longer exists does not count."""
    letters = [letter for id in ids if (letter := get(redis, auth_id, id))]
    return PartitionedQueue(redis, QUEUE).requeue_dead_letters(auth_id, _without_attempts(letters))


def resend_all(redis: Redis, auth_id: str, max_resent: int | None = None) -> int:
    """Move all dead letters as `resend` does, the oldest first, `max_resent` at most; return how many were moved.

    One starts every RESEND_INTERVAL_MS."""
    queue, resent, after = PartitionedQueue(redis, QUEUE), 0, "-"
    found = cast("list[tuple[bytes, Fields]]", redis.xrevrange(_key(auth_id), count=1))
    newest_at_start = found[0][0].decode() if found else "-"  # those that fail again in the meantime are not resent
    while max_resent is None or resent < max_resent:
        count = READ_BATCH if max_resent is None else min(READ_BATCH, max_resent - resent)
        found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), after, newest_at_start, count=count))
        if not found:
            break
        letters = [letter for id, fields in found if (letter := _decode(id, fields))]
        resent += queue.requeue_dead_letters(
            auth_id, _without_attempts(letters), pace_ms=RESEND_INTERVAL_MS, moved_before=resent
        )
        after = f"({found[-1][0].decode()}"
    return resent


def trim_expired(redis: Redis, auth_ids: Iterable[str], kept_ms: int) -> None:
    """Remove dead letters older than `kept_ms`. New ones trigger this as well, but not all accounts have new ones."""
    seconds, _ = redis.time()
    pipe = redis.pipeline(transaction=False)
    for auth_id in auth_ids:
        pipe.xtrim(_key(auth_id), minid=str(max(0, seconds * 1000 - kept_ms)), approximate=False)
    pipe.execute()


def _without_attempts(letters: Iterable[DeadLetter]) -> list[tuple[str, bytes]]:
    """Return (id, entry to append) of each dead letter."""
    return [(letter.id, encode(msgspec.structs.replace(letter.entry, attempts=(), reason=None))) for letter in letters]


def _decode(id: bytes, fields: Fields) -> DeadLetter | None:
    """Return the dead letter; None if another version wrote it. It then stays, and does not affect the others."""
    try:
        return DeadLetter(id.decode(), fields[b"partition"].decode(), decode(fields[b"entry"]))
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        log.warning("dead letter unreadable", id=id.decode(errors="replace"), reason=str(error))
        return None


def _key(auth_id: str) -> str:
    return f"{prefix(QUEUE)}dead-letters:{auth_id}"
