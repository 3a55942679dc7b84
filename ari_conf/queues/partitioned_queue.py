"""Partitioned queues in Redis: the entries of a partition are processed in order, one at a time.

Partitions are shared out fairly among a fleet of workers. A partition (`lane` in the keys) is a Redis list. Its first
entry stays there until it is settled. A partition with entries is in exactly one place:

    ready:RECEIVER  a list: waits for a thread      RECEIVER = ACCOUNT:ORIGIN
    held:WORKER     a hash, partition -> claim number: being processed by a thread of that worker
    waiting         a sorted set by time: waits for its next attempt

`wakeups` is a list of wake-up ids, each of which starts one thread of a worker. `tokens` has those that no thread has
answered yet: scripts issue as many as there are free threads worth starting, never more.

`accounts` lists the accounts with ready receivers, `flows:ACCOUNT` the receivers with ready partitions. Both rotate, so
that each gets its turn after every single entry. `failing:RECEIVER` and `failing:ACCOUNT` record recent failures:
partitions of such a receiver stay ready, but are handed out more rarely (docs/guide/callbacks.md, "When a receiver
fails repeatedly"). `workers` holds each worker's lease: what a worker without a lease holds becomes ready again.
`spoiled` records that one of these keys had a wrong type: the next heartbeat rebuilds them. The clock is Redis' own,
because workers run on any number of machines.

Every script may be sent again after a lost answer: the claim number of a settled entry is no longer valid.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from ari_conf.common.redis_keys import PREFIX
from ari_conf.queues import scripts

WORKER_LEASE_MS = 6_000
LEASE_MARGIN_MS = 4_500
"""Minimum milliseconds that are left of a lease after each claim, which renews the lease only if less is left."""
HEARTBEAT_MS = 1_000
WAKEUP_LOST_MS = 2_000
"""Milliseconds after which a wake-up that no worker has answered counts as lost."""


@dataclass(frozen=True, slots=True)
class ClaimedEntry:
    partition: str
    claim_number: int
    entry: bytes
    given_up: bool = False
    """True if the receiver has failed for so long that nothing is sent now, and the entry does not wait for it."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """Disposition of the claimed entry `taken`, created by one of the functions below."""

    taken: ClaimedEntry
    word: str
    arguments: tuple[bytes | str | int, ...] = field(default=())
    wasted: int = 0
    """Failed requests to add to the receiver's count; a negative number takes as many off it."""
    reason: str = ""
    """Reason for a retry, release or dead letter, for Celery's events; it is not stored."""


def ack(taken: ClaimedEntry, entry: bytes = b"", kept: int = 0, kept_ms: int = 1, *, wasted: int = 0) -> Disposition:
    """Remove the entry. A given `entry` is kept among the account's newest `kept`, until `kept_ms` after the latest."""
    return Disposition(taken, "done", (entry, kept, kept_ms) if entry and kept else (), wasted)


def release(taken: ClaimedEntry, reason: str = "") -> Disposition:
    """Give back an entry that was not attempted, for any worker."""
    return Disposition(taken, "back", reason=reason)


def retry(taken: ClaimedEntry, entry: bytes, delay_ms: int, reason: str = "", *, wasted: int = 0) -> Disposition:
    return Disposition(taken, "retry", (entry, delay_ms), wasted, reason)


def dead_letter(
    taken: ClaimedEntry,
    entry: bytes,
    kept: int,
    kept_ms: int,
    told: tuple[str, bytes, int] | None = None,
    reason: str = "",
    *,
    wasted: int = 0,
) -> Disposition:
    """Move the entry from its partition to the account's dead letters: the newest `kept` of them, for `kept_ms`.

    `told` is a problem to add atomically: the list's key, the problem as JSON, and the number of problems to keep.
    """
    return Disposition(taken, "dead", (entry, kept, kept_ms, *(told or ())), wasted, reason)


class PartitionedQueue:
    """Partitions of one queue. Each method is one round trip and raises redis.RedisError."""

    def __init__(self, redis: Redis, queue: str = "callbacks") -> None:
        self.redis = redis
        self.name = queue
        self.prefix = prefix(queue)
        self._own = threading.local()
        self._turn = redis.register_script(scripts.SETTLE_AND_CLAIM)
        self._beat = redis.register_script(scripts.HEARTBEAT)
        self._tokens = redis.register_script(scripts.ISSUE_WAKEUPS)
        self._resend = redis.register_script(scripts.RESEND)

    def settle_and_claim(
        self, worker: str, threads: int, token: int | None, verdict: Disposition | None = None, came: str = ""
    ) -> ClaimedEntry | None:
        """Settle one entry with `verdict`, and claim the next. `token` is the new claim number, None to claim nothing.

        A worker's claim numbers only increase. `came` is the wake-up id that this thread answers. Returns None if this
        worker may claim nothing now. A disposition for a partition that the worker no longer holds changes nothing.
        """
        told: tuple[str | bytes | int, ...] = ("", "", "", LEASE_MARGIN_MS, 0)
        if verdict:
            taken = verdict.taken
            told = (
                taken.partition,
                taken.claim_number,
                verdict.word,
                LEASE_MARGIN_MS,
                verdict.wasted,
                *verdict.arguments,
            )
        answer = self._asked(self._turn, worker, threads, "" if token is None else token, WORKER_LEASE_MS, came, *told)
        if not answer or token is None:
            return None
        lane, entry, given_up = answer
        return ClaimedEntry(lane.decode(), token, entry, bool(given_up))

    def _asked(self, script: Script, *arguments: str | bytes | int) -> Any:
        """Run the script over a connection that this thread keeps: that takes a third of the time of `script(...)`."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connection()
        try:
            connection.send_command("EVALSHA", script.sha, 1, self.prefix, *arguments)
            return connection.read_response()
        except NoScriptError:
            return script([self.prefix], arguments)
        except BaseException:
            connection.disconnect()  # a late answer must not be taken for the next one
            raise

    def _connection(self) -> Any:
        pool = self.redis.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def heartbeat(self, worker: str, threads: int, serving: Iterable[int], last: int, *, reclaim: bool) -> int:
        """Renew the worker's lease; make partitions that no thread serves ready again, and return their number.

        These are claims up to number `last` that are not in `serving`, because an answer was lost. With `reclaim`, also
        everything that workers without a lease hold."""
        return cast(int, self._beat([self.prefix], [worker, threads, WORKER_LEASE_MS, last, int(reclaim), *serving]))

    def deregister(self, worker: str) -> None:
        """Remove a worker that ends: what it holds is immediately ready for others."""
        self._beat([self.prefix], [worker, 0, 0, 0, 0])

    def issue_wakeups(self, most: int = 1000) -> list[str]:
        """Issue as many wake-ups as free threads are worth starting now, and return their ids."""
        return [token.decode() for token in cast("list[bytes]", self._tokens([self.prefix], [most, WAKEUP_LOST_MS]))]

    def take_wakeup(self, timeout_s: float) -> str | None:
        """Wait for a wake-up and return its id; None if there is none within `timeout_s`."""
        popped: Any = self.redis.brpop([f"{self.prefix}wakeups"], timeout_s)
        return popped[1].decode(errors="replace") if popped else None

    def requeue_dead_letters(
        self, auth_id: str, letters: Iterable[tuple[str, bytes]], *, pace_ms: int = 0, before: int = 0
    ) -> int:
        """Move each dead letter (id, entry) to the end of its partition; return how many of them still existed.

        With `pace_ms`, each partition that was empty starts so much later than the one before it; `before` is the
        number of dead letters that were moved already."""
        flat: list[str | bytes] = [part for letter in letters for part in letter]
        return cast(int, self._resend([self.prefix], [auth_id, pace_ms, before, *flat]))


def prefix(queue: str) -> str:
    return f"{PREFIX}{queue}:"


def enqueue(redis: Any, entries: Iterable[tuple[str, bytes]], queue: str = "callbacks") -> Any:
    """Append (partition, entry) pairs; `redis` may be a pipeline, sync or async.

    It uses EVAL, because a transaction can't retry a script that a restarted Redis does not know."""
    flat = [part for entry in entries for part in entry]
    return redis.eval(scripts.ENQUEUE, 1, prefix(queue), *flat)
