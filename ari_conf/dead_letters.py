"""Callbacks that could not be delivered: one Redis stream per account, the newest, for some days.

> After the last try a callback is a **dead letter**: kept with all its tries (time, status or error, ms), listed, and
> resent on demand; never dropped silently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import msgspec
from redis import Redis

from ari_conf.lanes import Lanes, prefix
from ari_conf.outbox import QUEUE, Entry, decode, encode

Fields = dict[bytes, bytes]


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
    """An account's dead letters, the newest first; `before` an id: the page after it."""
    end = f"({before}" if before else "+"
    found = cast("list[tuple[bytes, Fields]]", redis.xrevrange(_key(auth_id), end, "-", count=limit))
    return [_letter(*letter) for letter in found]


def count(redis: Redis, auth_id: str) -> int:
    return redis.xlen(_key(auth_id))


def show(redis: Redis, auth_id: str, id: str) -> DeadLetter | None:
    found = cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), id, id))
    return _letter(*found[0]) if found else None


def resend(redis: Redis, auth_id: str, ids: list[str] | None = None) -> int:
    """Puts these, or all, the oldest first, to the ends of their lanes with their tries forgotten, and takes each out
    of the dead letters in the same step. Returns how many; one that is there no more doesn't count."""
    lanes, sent, after = Lanes(redis, QUEUE), 0, "-"
    if ids is not None:
        chosen = [letter for id in ids if (letter := show(redis, auth_id, id))]
        return lanes.resend(auth_id, [(letter.id, _fresh(letter)) for letter in chosen])
    newest = listed(redis, auth_id, 1)
    end = newest[0].id if newest else "-"  # those that die again meanwhile are not sent again
    while found := cast("list[tuple[bytes, Fields]]", redis.xrange(_key(auth_id), after, end, count=200)):
        letters = [_letter(*letter) for letter in found]
        sent += lanes.resend(auth_id, [(letter.id, _fresh(letter)) for letter in letters])
        after = f"({letters[-1].id}"
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


def _letter(id: bytes, fields: Fields) -> DeadLetter:
    return DeadLetter(id.decode(), fields[b"lane"].decode(), decode(fields[b"entry"]))


def _key(auth_id: str) -> str:
    return f"{prefix(QUEUE)}dead:{auth_id}"
