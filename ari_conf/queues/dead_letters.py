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

AT_ONCE = 8
"""Entries that are read in one piece."""
MOST_BYTES = 4 * 1024 * 1024
"""Maximum bytes of entries in one list."""
PACE_MS = 20
"""Milliseconds between callbacks that are resent together: their receiver failed before."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: str
    """Stream id; begins with the epoch milliseconds at which the callback was dead-lettered."""
    lane: str
    entry: CallbackEntry

    @property
    def died_ms(self) -> int:
        return int(self.id.partition("-")[0])


def list_newest(redis: Redis, auth_id: str, limit: int = 100, before: str | None = None) -> list[DeadLetter]:
    """Return an account's dead letters, the newest first; with `before`, those older than that id.

    Their entries have at most MOST_BYTES, so there may be fewer than `limit` although more exist."""
    found, left = list[DeadLetter](), MOST_BYTES
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
        found = cast("list[tuple[bytes, Fields]]", redis.xrevrange(_key(auth_id), end, "-", count=AT_ONCE))
        for id, fields in found:
            if letter := _letter(id, fields):
                yield letter, len(fields[b"entry"])
        if len(found) < AT_ONCE:
            return
        before = found[-1][0].decode()


def count(redis: Redis, auth_id: str) -> int:
    return redis.xlen(_key(auth_id))


def get(redis: Redis, auth_id: str, id: str) -> DeadLetter | None:
    found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), id, id))
    return _letter(*found[0]) if found else None


def resend(redis: Redis, auth_id: str, ids: list[str] | None = None, most: int | None = None) -> int:
    """Move dead letters to the ends of their partitions, with their attempts cleared; return how many were moved.

    `ids` are moved in their order. Without `ids` all are moved, `most` at most, the oldest first, and one starts every
    PACE_MS. A script moves each atomically. A dead letter that no longer exists does not count."""
    lanes, sent, after = PartitionedQueue(redis, QUEUE), 0, "-"
    if ids is not None:
        chosen = [letter for id in ids if (letter := get(redis, auth_id, id))]
        return lanes.requeue_dead_letters(auth_id, [(letter.id, _fresh(letter)) for letter in chosen])
    found = cast("list[tuple[bytes, Fields]]", redis.xrevrange(_key(auth_id), count=1))
    end = found[0][0].decode() if found else "-"  # those that fail again in the meantime are not resent
    while most is None or sent < most:
        count = AT_ONCE if most is None else min(AT_ONCE, most - sent)
        found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), after, end, count=count))
        if not found:
            break
        letters = [letter for each in found if (letter := _letter(*each))]
        pairs = [(letter.id, _fresh(letter)) for letter in letters]
        sent += lanes.requeue_dead_letters(auth_id, pairs, pace_ms=PACE_MS, before=sent)
        after = f"({found[-1][0].decode()}"
    return sent


def trim_expired(redis: Redis, auth_ids: Iterable[str], kept_ms: int) -> None:
    """Remove dead letters older than `kept_ms`. New ones trigger this as well, but not all accounts have new ones."""
    seconds, _ = redis.time()
    pipe = redis.pipeline(transaction=False)
    for auth_id in auth_ids:
        pipe.xtrim(_key(auth_id), minid=str(max(0, seconds * 1000 - kept_ms)), approximate=False)
    pipe.execute()


def _fresh(letter: DeadLetter) -> bytes:
    return encode(msgspec.structs.replace(letter.entry, tries=(), reason=None))


def _letter(id: bytes, fields: Fields) -> DeadLetter | None:
    """Return the dead letter; None if another version wrote it. It then stays, and does not affect the others."""
    try:
        return DeadLetter(id.decode(), fields[b"lane"].decode(), decode(fields[b"entry"]))
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        log.warning("dead letter unreadable", id=id.decode(errors="replace"), reason=str(error))
        return None


def _key(auth_id: str) -> str:
    return f"{prefix(QUEUE)}dead:{auth_id}"
