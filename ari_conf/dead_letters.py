"""Callbacks that could not be delivered: one Redis stream per account, the newest, for some days.

> After the last try a callback is a **dead letter**: kept with all its tries (time, status or error, ms), listed, and
> resent on demand; never dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import msgspec
import structlog
from redis import Redis

from ari_conf.lanes import Lanes, prefix
from ari_conf.outbox import QUEUE, Entry, decode, encode

log = structlog.get_logger()

Fields = dict[bytes, bytes]

AT_ONCE = 8
"""Read in one piece."""
MOST_BYTES = 4 * 1024 * 1024
"""Of entries, that are listed at once."""
PACE_MS = 20
"""Between two that are sent again, of all that are asked for together: the receiver was in trouble before."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: str
    """Begins with when it died, epoch milliseconds."""
    lane: str
    entry: Entry

    @property
    def died_ms(self) -> int:
        return int(self.id.partition("-")[0])


def listed(redis: Redis, auth_id: str, limit: int = 100, before: str | None = None) -> list[DeadLetter]:
    """An account's dead letters, the newest first; `before` an id: the page after it. At most MOST_BYTES of them, so
    there may be fewer than `limit` where there are more."""
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
    """(letter, bytes of its entry) of all of them, read piece by piece."""
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


def show(redis: Redis, auth_id: str, id: str) -> DeadLetter | None:
    found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), id, id))
    return _letter(*found[0]) if found else None


def resend(redis: Redis, auth_id: str, ids: list[str] | None = None, most: int | None = None) -> int:
    """Puts these, or all (at most so many), the oldest first, to the ends of their lanes with their tries forgotten,
    and takes each out of the dead letters in the same step. Of all, one begins each PACE_MS. Returns how many; one that
    is there no more doesn't count."""
    lanes, sent, after = Lanes(redis, QUEUE), 0, "-"
    if ids is not None:
        chosen = [letter for id in ids if (letter := show(redis, auth_id, id))]
        return lanes.resend(auth_id, [(letter.id, _fresh(letter)) for letter in chosen])
    found = cast("list[tuple[bytes, Fields]]", redis.xrevrange(_key(auth_id), count=1))
    end = found[0][0].decode() if found else "-"  # those that die again meanwhile are not sent again
    while most is None or sent < most:
        count = AT_ONCE if most is None else min(AT_ONCE, most - sent)
        found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), after, end, count=count))
        if not found:
            break
        letters = [letter for each in found if (letter := _letter(*each))]
        pairs = [(letter.id, _fresh(letter)) for letter in letters]
        sent += lanes.resend(auth_id, pairs, pace_ms=PACE_MS, before=sent)
        after = f"({found[-1][0].decode()}"
    return sent


def forget_old(redis: Redis, auth_ids: Iterable[str], kept_ms: int) -> None:
    """Those that died longer ago. Each new one makes room as well; this is for accounts without new ones."""
    seconds, _ = redis.time()
    pipe = redis.pipeline(transaction=False)
    for auth_id in auth_ids:
        pipe.xtrim(_key(auth_id), minid=str(max(0, seconds * 1000 - kept_ms)), approximate=False)
    pipe.execute()


def _fresh(letter: DeadLetter) -> bytes:
    return encode(msgspec.structs.replace(letter.entry, tries=(), reason=None))


def _letter(id: bytes, fields: Fields) -> DeadLetter | None:
    """None: another version wrote it. It stays, and costs the others nothing."""
    try:
        return DeadLetter(id.decode(), fields[b"lane"].decode(), decode(fields[b"entry"]))
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        log.warning("a dead letter can't be read", id=id.decode(errors="replace"), reason=str(error))
        return None


def _key(auth_id: str) -> str:
    return f"{prefix(QUEUE)}dead:{auth_id}"
