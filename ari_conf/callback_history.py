"""How an account's callbacks stand: those that wait in their lanes, the newest delivered ones, dead letters.

All three are read piece by piece, and no further than the page needs: a page costs what it shows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

import msgspec
import structlog
from redis import Redis

from ari_conf import dead_letters
from ari_conf.lanes import prefix
from ari_conf.outbox import QUEUE, Entry, decode

log = structlog.get_logger()

State = Literal["waiting", "trying", "delivered", "dead"]

MOST_LOOKED_AT = 4000
"""Callbacks, of those that one page or the search for a conference's may look at."""
MOST_BYTES = 4 * 1024 * 1024
"""The same, of their entries: ordinary ones are some hundred bytes, so this is only met where they are made large."""
AT_ONCE = 8
"""Read in one piece."""
LANES_AT_ONCE = 32
"""Whose callbacks are put in order of time among each other."""
SCANNED_AT_ONCE = 1000
MOST_LANES, MOST_SCANNED = 2000, 100_000
"""Lanes of the account that are listed; and lanes of all accounts in which something is to be tried again, that are
looked through for its own."""
KEPT_MS = 7 * 24 * 3600 * 1000
"""For how long a delivered one is: who looks for it does so soon, and it holds phone numbers."""


@dataclass(frozen=True, slots=True)
class Callback:
    state: State
    entry: Entry
    changed_ms: int
    """When it came into this state."""
    next_try_ms: int | None = None
    """trying: when. None: now."""
    letter_id: str | None = None
    """dead: which letter it is."""

    @property
    def conference_uuid(self) -> str:
        return dict(self.entry.params).get("ConferenceUUID", "")


def listed(
    redis: Redis, auth_id: str, conference_uuid: str | None, limit: int, offset: int
) -> tuple[int, list[Callback]]:
    """(how many can be listed, some of them). Those that wait come first, then the others by when that happened, the
    newest first; with a conference only those about it."""
    reading = _Reading(redis, auth_id)
    found = islice(reading.callbacks(), MOST_LOOKED_AT)
    if conference_uuid is not None:
        about = [one for one in found if one.conference_uuid == conference_uuid]
        return len(about), about[offset : offset + limit]
    page = list(islice(found, offset, offset + limit))
    reached = offset + len(page) if page else 0
    return (reached if reading.exhausted else max(min(reading.count(), MOST_LOOKED_AT), reached)), page


class _Reading:
    """The callbacks of one account, while there are bytes left to read."""

    def __init__(self, redis: Any, auth_id: str) -> None:
        self._redis, self._auth_id = redis, auth_id
        self._keys = prefix(QUEUE)
        self._left = MOST_BYTES
        self._lanes = self._of_account()

    @property
    def exhausted(self) -> bool:
        return self._left <= 0

    def count(self) -> int:
        pipe = self._redis.pipeline(transaction=False)
        pipe.llen(f"{self._keys}delivered:{self._auth_id}").xlen(f"{self._keys}dead:{self._auth_id}")
        for lane in self._lanes:
            pipe.llen(f"{self._keys}lane:{lane}")
        return sum(pipe.execute())

    def callbacks(self) -> Iterator[Callback]:
        lanes = list(self._lanes.items())
        some = (lanes[first : first + LANES_AT_ONCE] for first in range(0, len(lanes), LANES_AT_ONCE))
        waiting = (_newest_first(*(self._waiting(*lane) for lane in batch)) for batch in some)
        return chain(chain.from_iterable(waiting), _newest_first(self._delivered(), self._dead()))

    def _waiting(self, lane: str, due_ms: int | None) -> Iterator[Callback]:
        # From its end; of most lanes no more than the last one is needed.
        last, size = -1, 1
        while not self.exhausted:
            texts = self._redis.lrange(f"{self._keys}lane:{lane}", last - size + 1, last)
            for entry in self._entries(reversed(texts)):
                # Only the first of a lane is tried.
                yield Callback(
                    "trying" if entry.tries else "waiting", entry, entry.at_ms, due_ms if entry.tries else None
                )
            if len(texts) < size:
                return
            last, size = last - size, AT_ONCE

    def _delivered(self) -> Iterator[Callback]:
        first = 0
        while not self.exhausted:
            texts = self._redis.lrange(f"{self._keys}delivered:{self._auth_id}", first, first + AT_ONCE - 1)
            for entry in self._entries(texts):
                at_ms = entry.tries[-1].at_ms + entry.tries[-1].ms if entry.tries else entry.at_ms
                yield Callback("delivered", entry, at_ms)
            if len(texts) < AT_ONCE:
                return
            first += AT_ONCE

    def _dead(self) -> Iterator[Callback]:
        for letter, size in dead_letters.newest(self._redis, self._auth_id):
            self._left -= size
            yield Callback("dead", letter.entry, letter.died_ms, letter_id=letter.id)
            if self.exhausted:
                return

    def _entries(self, texts: Iterator[bytes]) -> Iterator[Entry]:
        for text in texts:
            self._left -= len(text)
            try:
                yield decode(text)
            except msgspec.MsgspecError as error:
                log.warning(
                    "a callback's entry can't be read: it is not listed", auth_id=self._auth_id, reason=str(error)
                )

    def _of_account(self) -> dict[str, int | None]:
        """Its lanes, wherever they are -> when the first of each is due; None: now."""
        found: dict[str, int | None] = {}
        cursor = 0
        for _ in range(0, MOST_SCANNED, SCANNED_AT_ONCE):
            asked = {"match": f"{self._auth_id}:*", "count": SCANNED_AT_ONCE}
            cursor, some = self._redis.zscan(self._keys + "waiting", cursor, **asked)
            found |= {lane.decode(): int(due) for lane, due in some}
            if cursor == 0 or len(found) >= MOST_LANES:
                break
        pipe = self._redis.pipeline(transaction=False)
        for flow in self._redis.lrange(f"{self._keys}flows:{self._auth_id}", 0, MOST_LANES - 1):
            pipe.lrange(f"{self._keys}ready:{flow.decode()}", 0, MOST_LANES - 1)
        for worker in self._redis.zrange(self._keys + "workers", 0, -1):
            pipe.hkeys(f"{self._keys}held:{worker.decode()}")
        for some in pipe.execute():
            for lane in some:
                if lane.startswith(f"{self._auth_id}:".encode()):
                    found.setdefault(lane.decode(), None)
        return dict(islice(found.items(), MOST_LANES))


def _newest_first(*found: Iterator[Callback]) -> Iterator[Callback]:
    return heapq.merge(*found, key=lambda one: -one.changed_ms)
