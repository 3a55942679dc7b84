"""Callback history of an account: undelivered callbacks in their partitions, delivered ones, dead letters.

Delivered ones are in the history's database, and before that in its inbox. All are read piece by piece, and no further
than the page needs: the cost of a page depends on its size.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from redis import Redis

from ari_conf.errors import HistoryUnavailable
from ari_conf.history import entries, queries
from ari_conf.history.database import HistoryDatabase
from ari_conf.history.entries import CallbackOutcome
from ari_conf.queues import dead_letters, history_inbox
from ari_conf.queues.outbox import QUEUE, CallbackEntry, decode
from ari_conf.queues.partitioned_queue import prefix

log = structlog.get_logger()

State = Literal["waiting", "trying", "delivered", "dead"]

MAX_EXAMINED = 4000
"""Maximum callbacks that one page, or the search for those of a conference, may examine."""
MAX_BYTES = 4 * 1024 * 1024
"""Maximum bytes of their entries: ordinary ones have some hundred bytes, so only deliberately large ones reach this."""
READ_BATCH = 8
"""Entries that are read in one piece."""
MERGED_PARTITIONS = 32
"""Partitions whose callbacks are merged in order of time."""
SCAN_BATCH = 1000
MAX_PARTITIONS, MAX_SCANNED = 2000, 100_000
"""Maximum partitions of the account that are listed; and maximum partitions of all accounts waiting for a retry that
are searched for the account's own."""
HISTORY_BATCH = 50
"""Delivered callbacks that are read from the database in one piece."""
MAX_PENDING = 500
"""Maximum entries of the history's inbox that are searched for callbacks."""


@dataclass(frozen=True, slots=True)
class CallbackStatus:
    state: State
    entry: CallbackEntry
    changed_ms: int
    """Epoch milliseconds of the change to this state."""
    next_try_ms: int | None = None
    """Epoch milliseconds of the next attempt in state trying; None: now."""
    letter_id: str | None = None
    """Id of the dead letter in state dead."""

    @property
    def conference_uuid(self) -> str:
        return dict(self.entry.params).get("ConferenceUUID", "")


class CallbackPage(NamedTuple):
    total: int
    """Number of callbacks that can be listed."""
    callbacks: list[CallbackStatus]
    is_complete: bool
    """False: the database of the history is not available, so that delivered callbacks are missing."""


def list_callbacks(
    redis: Redis, history: HistoryDatabase, auth_id: str, conference_uuid: str | None, limit: int, offset: int
) -> CallbackPage:
    """Return one page of callbacks.

    Undelivered ones come first, then the others by the time of their outcome, the newest first. With a conference, only
    callbacks about it are listed."""
    reader = _HistoryReader(redis, history, auth_id, conference_uuid)
    found = islice(reader.callbacks(), MAX_EXAMINED)
    if conference_uuid is not None:
        about = [one for one in found if one.conference_uuid == conference_uuid]
        return CallbackPage(len(about), about[offset : offset + limit], reader.is_complete)
    page = list(islice(found, offset, offset + limit))
    reached = offset + len(page) if page else 0
    total = reached if reader.is_exhausted else max(min(reader.count(), MAX_EXAMINED), reached)
    return CallbackPage(total, page, reader.is_complete)


class _HistoryReader:
    """Reader of one account's callbacks, which ends when MAX_BYTES have been read."""

    def __init__(self, redis: Any, history: HistoryDatabase, auth_id: str, conference_uuid: str | None) -> None:
        self._redis, self._history, self._auth_id = redis, history, auth_id
        self._conference_uuid = conference_uuid
        self._keys = prefix(QUEUE)
        self.is_complete = True
        self._bytes_left = MAX_BYTES
        self._partitions = self._find_partitions()

    @property
    def is_exhausted(self) -> bool:
        return self._bytes_left <= 0

    def count(self) -> int:
        pipe = self._redis.pipeline(transaction=False)
        pipe.llen(f"{self._keys}delivered:{self._auth_id}").xlen(f"{self._keys}dead-letters:{self._auth_id}")
        for partition in self._partitions:
            pipe.llen(f"{self._keys}partition:{partition}")
        waiting_and_dead: list[int] = pipe.execute()
        return sum(waiting_and_dead) + self._count_history()

    def _count_history(self) -> int:
        try:
            with self._history.read() as connection:
                written = queries.list_callbacks(connection, self._auth_id, outcome="delivered", limit=0).total
        except HistoryUnavailable:
            written = 0
        return written + len(self._pending)

    def callbacks(self) -> Iterator[CallbackStatus]:
        partitions = list(self._partitions.items())
        firsts = range(0, len(partitions), MERGED_PARTITIONS)
        batches = (partitions[first : first + MERGED_PARTITIONS] for first in firsts)
        waiting = (_newest_first(*(self._waiting(*partition) for partition in batch)) for batch in batches)
        pending = iter(self._pending.values())
        delivered = _newest_first(pending, self._in_history(), self._of_older_release())
        return chain(chain.from_iterable(waiting), _newest_first(delivered, self._dead()))

    def _waiting(self, partition: str, due_ms: int | None) -> Iterator[CallbackStatus]:
        # From the end: of most partitions only the last callback is needed.
        last, size = -1, 1
        while not self.is_exhausted:
            texts = self._redis.lrange(f"{self._keys}partition:{partition}", last - size + 1, last)
            for entry in self._entries(reversed(texts)):
                # Only the first entry of a partition has attempts.
                yield CallbackStatus(
                    "trying" if entry.attempts else "waiting", entry, entry.at_ms, due_ms if entry.attempts else None
                )
            if len(texts) < size:
                return
            last, size = last - size, READ_BATCH

    @cached_property
    def _pending(self) -> dict[str, CallbackStatus]:
        """Return the delivered callbacks that the database does not have yet, the newest first, by id."""
        found = list[CallbackOutcome]()
        for text in history_inbox.newest(self._redis, self._auth_id, MAX_PENDING):
            with suppress(msgspec.MsgspecError, RecursionError):
                item = entries.decode(text).item
                if isinstance(item, CallbackOutcome) and item.outcome == "delivered":
                    found.append(item)
        found.sort(key=lambda one: -one.settled_ms)
        pending = dict[str, CallbackStatus]()
        for item in found:
            for entry in self._entries(iter([bytes(item.document)])):
                pending.setdefault(item.callback_id, CallbackStatus("delivered", entry, item.settled_ms))
        return pending

    def _in_history(self) -> Iterator[CallbackStatus]:
        first = 0
        while not self.is_exhausted:
            try:
                with self._history.read() as connection:
                    rows = queries.list_callbacks(
                        connection,
                        self._auth_id,
                        self._conference_uuid,
                        "delivered",
                        limit=HISTORY_BATCH,
                        offset=first,
                        counts=False,
                    ).rows
            except HistoryUnavailable as error:
                log.warning("history unavailable", reason=str(error))
                self.is_complete = False
                return
            for row in rows:
                if row.callback_id not in self._pending:
                    for entry in self._entries(iter([row.document.encode()])):
                        yield CallbackStatus("delivered", entry, row.settled_ms)
            if len(rows) < HISTORY_BATCH:
                return
            first += HISTORY_BATCH

    def _of_older_release(self) -> Iterator[CallbackStatus]:
        """Yield what a worker of the release before the history has delivered; it expires a week after the last."""
        first = 0
        while not self.is_exhausted:
            texts = self._redis.lrange(f"{self._keys}delivered:{self._auth_id}", first, first + READ_BATCH - 1)
            for entry in self._entries(texts):
                at_ms = entry.attempts[-1].at_ms + entry.attempts[-1].ms if entry.attempts else entry.at_ms
                yield CallbackStatus("delivered", entry, at_ms)
            if len(texts) < READ_BATCH:
                return
            first += READ_BATCH

    def _dead(self) -> Iterator[CallbackStatus]:
        for letter, size in dead_letters.newest(self._redis, self._auth_id):
            self._bytes_left -= size
            yield CallbackStatus("dead", letter.entry, letter.died_ms, letter_id=letter.id)
            if self.is_exhausted:
                return

    def _entries(self, texts: Iterator[bytes]) -> Iterator[CallbackEntry]:
        for text in texts:
            self._bytes_left -= len(text)
            try:
                yield decode(text)
            except msgspec.MsgspecError as error:
                log.warning("callback entry unreadable", auth_id=self._auth_id, reason=str(error), action="not listed")

    def _find_partitions(self) -> dict[str, int | None]:
        """Return the account's partitions, wherever they are -> epoch milliseconds when due; None: now."""
        found: dict[str, int | None] = {}
        cursor = 0
        for _ in range(0, MAX_SCANNED, SCAN_BATCH):
            options = {"match": f"{self._auth_id}:*", "count": SCAN_BATCH}
            cursor, scanned = self._redis.zscan(self._keys + "delayed", cursor, **options)
            found |= {partition.decode(): int(due_ms) for partition, due_ms in scanned}
            if cursor == 0 or len(found) >= MAX_PARTITIONS:
                break
        pipe = self._redis.pipeline(transaction=False)
        for receiver in self._redis.lrange(f"{self._keys}receivers:{self._auth_id}", 0, MAX_PARTITIONS - 1):
            pipe.lrange(f"{self._keys}ready:{receiver.decode()}", 0, MAX_PARTITIONS - 1)
        for worker in self._redis.zrange(self._keys + "workers", 0, -1):
            pipe.hkeys(f"{self._keys}claims:{worker.decode()}")
        for partition in chain.from_iterable(pipe.execute()):
            if partition.startswith(f"{self._auth_id}:".encode()):
                found.setdefault(partition.decode(), None)
        return dict(islice(found.items(), MAX_PARTITIONS))


def _newest_first(*found: Iterator[CallbackStatus]) -> Iterator[CallbackStatus]:
    return heapq.merge(*found, key=lambda one: -one.changed_ms)
