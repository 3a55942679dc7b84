"""Partitioned queues in Redis: the entries of a partition are processed in order, one at a time.

Partitions are shared out fairly among a fleet of workers. A partition is a Redis list, `partition:PARTITION`. Its
first entry stays there until it is settled. A partition with entries is in exactly one place:

    ready:RECEIVER  a list: waits for a thread      RECEIVER = ACCOUNT:ORIGIN
    claims:WORKER   a hash, partition -> claim number: being processed by a thread of that worker
    delayed         a sorted set by time: waits for its next attempt

`wakeups` is a list of wake-up ids, each of which starts one thread of a worker. `unanswered-wakeups` has those
that no thread has answered yet: scripts issue as many as there are free threads worth starting, never more.

`accounts` lists the accounts with ready receivers, `receivers:ACCOUNT` those with ready partitions. Both rotate, so
that each gets its turn after every single entry. `failing:RECEIVER` and `failing:ACCOUNT` record recent failures:
partitions of such a receiver stay ready, but are handed out more rarely (docs/guide/callbacks.md, "When a receiver
fails repeatedly"). `workers` holds each worker's lease: what a worker without a lease holds becomes ready again.
`health` has what each worker's last heartbeat said of itself (`worker_health`).
`damaged` records that one of these keys had a wrong type: the next heartbeat rebuilds them. The clock is Redis' own,
because workers run on any number of machines.

Every script may be sent again after a lost answer: the claim number of a settled entry is no longer valid.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, cast

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from ari_conf.common import lua
from ari_conf.common.redis_keys import PREFIX

WORKER_LEASE_MS = 6_000
LEASE_MARGIN_MS = 4_500
"""Minimum milliseconds that are left of a lease after each request, which renews the lease only if less is left."""
HEARTBEAT_MS = 1_000
WAKEUP_LOST_MS = 2_000
"""Milliseconds after which a wake-up that no worker has answered counts as lost."""

ENQUEUE = lua.load("ari_conf.queues.scripts.enqueue")
CLAIM = lua.load("ari_conf.queues.scripts.claim")
SETTLE = lua.load("ari_conf.queues.scripts.settle")
SETTLE_AND_CLAIM = lua.load("ari_conf.queues.scripts.settle_and_claim")
HEARTBEAT = lua.load("ari_conf.queues.scripts.heartbeat")
DEREGISTER = lua.load("ari_conf.queues.scripts.deregister")
ISSUE_WAKEUPS = lua.load("ari_conf.queues.scripts.issue_wakeups")
DISCARD = lua.load("ari_conf.queues.scripts.discard")
REQUEUE_DEAD_LETTERS = lua.load("ari_conf.queues.scripts.requeue_dead_letters")


@dataclass(frozen=True, slots=True)
class ClaimedEntry:
    partition: str
    claim_number: int
    entry: bytes
    given_up: bool = False
    """True if the receiver has failed for so long that nothing is sent now, and the entry does not wait for it."""


class Outcome(StrEnum):
    """Outcome of a claimed entry. The values are fields of the counts in Redis as well."""

    ACK = "ack"
    RELEASE = "release"
    RETRY = "retry"
    DEAD_LETTER = "dead_letter"


class AccountProblem(NamedTuple):
    """Problem to add to an account's list."""

    list_key: str
    problem: bytes
    """The problem as JSON."""
    max_problems: int
    """Maximum problems to keep in the list."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """Disposition of a claimed entry, created by one of the functions below."""

    claimed: ClaimedEntry
    outcome: Outcome
    wasted: int = 0
    """Failed requests to add to the receiver's count; a negative number takes as many off it."""
    entry: bytes = b""
    """New content of the entry; empty if nothing of it is kept."""
    delay_ms: int = 0
    """Milliseconds until the next attempt."""
    max_kept: int = 0
    """Maximum entries to keep of the account's dead letters."""
    ttl_ms: int = 0
    """Milliseconds to keep each of them."""
    problem: AccountProblem | None = None
    history: bytes = b""
    """Entry for the history; empty if there is none."""
    reason: str = ""
    """Reason for a retry, release or dead letter, for Celery's events; it is not stored."""


def ack(claimed: ClaimedEntry, *, history: bytes = b"", wasted: int = 0) -> Disposition:
    """Remove the entry. `history`: entry that the account's history gets."""
    return Disposition(claimed, Outcome.ACK, wasted, history=history)


def release(claimed: ClaimedEntry, reason: str = "") -> Disposition:
    """Give back an entry that was not attempted, for any worker."""
    return Disposition(claimed, Outcome.RELEASE, reason=reason)


def retry(claimed: ClaimedEntry, entry: bytes, delay_ms: int, reason: str = "", *, wasted: int = 0) -> Disposition:
    return Disposition(claimed, Outcome.RETRY, wasted, entry, delay_ms=delay_ms, reason=reason)


def dead_letter(
    claimed: ClaimedEntry,
    entry: bytes,
    max_kept: int,
    ttl_ms: int,
    problem: AccountProblem | None = None,
    reason: str = "",
    *,
    history: bytes = b"",
    wasted: int = 0,
) -> Disposition:
    """Move the entry from its partition to the account's dead letters: the newest `max_kept` of them, for `ttl_ms`.

    `problem` is added to the account's problems atomically, and `history` to its history."""
    return Disposition(
        claimed,
        Outcome.DEAD_LETTER,
        wasted,
        entry,
        max_kept=max_kept,
        ttl_ms=ttl_ms,
        problem=problem,
        history=history,
        reason=reason,
    )


def encode_disposition(disposition: Disposition) -> tuple[str | bytes | int, ...]:
    """Return the disposition as arguments of a script; `read` in scripts/settlement.lua is the decoder."""
    claimed = disposition.claimed
    list_key, problem, max_problems = disposition.problem or ("", b"", 0)
    return (
        claimed.partition,
        claimed.claim_number,
        disposition.outcome,
        disposition.wasted,
        disposition.entry,
        disposition.delay_ms,
        disposition.max_kept,
        disposition.ttl_ms,
        list_key,
        problem,
        max_problems,
        disposition.history,
    )


class PartitionedQueue:
    """Partitions of one queue. Each method is one round trip and raises redis.RedisError."""

    def __init__(self, redis: Redis, queue: str = "callbacks") -> None:
        self.redis = redis
        self.name = queue
        self.prefix = prefix(queue)
        self._thread_local = threading.local()
        self._claim = redis.register_script(CLAIM)
        self._settle = redis.register_script(SETTLE)
        self._settle_and_claim = redis.register_script(SETTLE_AND_CLAIM)
        self._heartbeat = redis.register_script(HEARTBEAT)
        self._deregister = redis.register_script(DEREGISTER)
        self._issue_wakeups = redis.register_script(ISSUE_WAKEUPS)
        self._requeue_dead_letters = redis.register_script(REQUEUE_DEAD_LETTERS)

    def claim(self, worker: str, threads: int, claim_number: int, wakeup_id: str = "") -> ClaimedEntry | None:
        """Claim the next entry. Return None if this worker may claim nothing now.

        A worker's claim numbers only increase. `wakeup_id` is the wake-up that this thread answers."""
        return self._claimed(claim_number, self._run(self._claim, worker, threads, claim_number, wakeup_id))

    def settle(self, worker: str, threads: int, disposition: Disposition) -> None:
        """Settle an entry. This changes nothing if the worker no longer holds the partition under its claim number."""
        self._run(self._settle, worker, threads, *encode_disposition(disposition))

    def settle_and_claim(
        self, worker: str, threads: int, disposition: Disposition, claim_number: int
    ) -> ClaimedEntry | None:
        """Settle an entry and claim the next one: `settle` and `claim` in one round trip."""
        arguments = (claim_number, *encode_disposition(disposition))
        return self._claimed(claim_number, self._run(self._settle_and_claim, worker, threads, *arguments))

    def acknowledge_wakeup(self, wakeup_id: str) -> None:
        """Record that a wake-up was answered, by a thread that claims nothing."""
        self.redis.zrem(f"{self.prefix}unanswered-wakeups", wakeup_id)

    @staticmethod
    def _claimed(claim_number: int, answer: Any) -> ClaimedEntry | None:
        if not answer:
            return None
        partition, entry, given_up = answer
        return ClaimedEntry(partition.decode(), claim_number, entry, bool(given_up))

    def _run(self, script: Script, worker: str, threads: int, *arguments: str | bytes | int) -> Any:
        """Run a script that renews the lease.

        It uses a connection that this thread keeps: that takes a third of the time of `script(...)`."""
        parts = (worker, threads, WORKER_LEASE_MS, LEASE_MARGIN_MS, *arguments)
        connection = getattr(self._thread_local, "connection", None)
        if connection is None:
            connection = self._thread_local.connection = self._new_connection()
        try:
            connection.send_command("EVALSHA", script.sha, 1, self.prefix, *parts)
            return connection.read_response()
        except NoScriptError:
            return script([self.prefix], parts)
        except BaseException:
            connection.disconnect()  # a late answer must not be taken for the next one
            raise

    def _new_connection(self) -> Any:
        pool = self.redis.connection_pool
        return pool.connection_class(**pool.connection_kwargs)

    def heartbeat(
        self,
        worker: str,
        threads: int,
        served: Iterable[int],
        last_claim_number: int,
        *,
        reclaim: bool,
        fault: str = "",
    ) -> int:
        """Renew the worker's lease; make partitions that no thread serves ready again, and return their number.

        These are claims up to `last_claim_number` that are not in `served`, because an answer was lost. With `reclaim`,
        also everything that workers without a lease hold. `fault`: what keeps the worker from working, or ""."""
        parts: list[str | int] = [worker, threads, WORKER_LEASE_MS, last_claim_number, int(reclaim), fault, *served]
        return cast(int, self._heartbeat([self.prefix], parts))

    def deregister(self, worker: str) -> None:
        """Remove a worker that ends: what it holds is immediately ready for others."""
        self._deregister([self.prefix], [worker])

    def issue_wakeups(self, max_wakeups: int = 1000) -> list[str]:
        """Issue as many wake-ups as free threads are worth starting now, and return their ids."""
        ids = cast("list[bytes]", self._issue_wakeups([self.prefix], [max_wakeups, WAKEUP_LOST_MS]))
        return [id.decode() for id in ids]

    def take_wakeup(self, timeout_s: float) -> str | None:
        """Wait for a wake-up and return its id; None if there is none within `timeout_s`."""
        popped: Any = self.redis.brpop([f"{self.prefix}wakeups"], timeout_s)
        return popped[1].decode(errors="replace") if popped else None

    def requeue_dead_letters(
        self, auth_id: str, letters: Iterable[tuple[str, bytes]], *, pace_ms: int = 0, moved_before: int = 0
    ) -> int:
        """Move each dead letter (id, entry) to the end of its partition; return how many of them still existed.

        With `pace_ms`, each partition that was empty starts so much later than the one before it; `moved_before` is the
        number of dead letters that were moved already."""
        flat: list[str | bytes] = [part for letter in letters for part in letter]
        return cast(int, self._requeue_dead_letters([self.prefix], [auth_id, pace_ms, moved_before, *flat]))


def discard(redis: Redis, queue: str, partitions: Iterable[str]) -> int:
    """Delete partitions with their entries; return the number of those whose first entry a worker is attempting."""
    return cast(int, redis.eval(DISCARD, 1, prefix(queue), *partitions))


def prefix(queue: str) -> str:
    return f"{PREFIX}{queue}:"


def enqueue(redis: Any, entries: Iterable[tuple[str, bytes]], queue: str = "callbacks") -> Any:
    """Append (partition, entry) pairs; `redis` may be a pipeline, sync or async.

    It uses EVAL, because a transaction can't retry a script that a restarted Redis does not know."""
    flat = [part for entry in entries for part in entry]
    return redis.eval(ENQUEUE, 1, prefix(queue), *flat)
