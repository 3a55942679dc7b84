"""Queue consumer of a worker: its lease, and the threads that claim one entry after another.

Redis knows what a worker serves, together with its lease. When the worker dies, its partitions become ready for
others after `WORKER_LEASE_MS`. They repeat what it was doing: delivery is at least once.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from celery import signals  # type: ignore[import-untyped]
from redis import Redis, RedisError

from ari_conf.common.redis_client import connect_in_threads, is_refused
from ari_conf.errors import REPORT_HINT
from ari_conf.queues import dead_letters, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition, PartitionedQueue
from ari_conf.recordings.transcribers import TELL_S
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord
from tasks import supervised_threads
from tasks.wakeups import WakeupPublisher

log = structlog.get_logger()
RUN_S = 10.0
"""Seconds after which a task claims no new entry, so that other queues get the thread too."""
POLL_INTERVAL_S = 0.25
BUG_RETRY_MS = 10_000
TRIM_INTERVAL_S = 600.0
ACCOUNT_CACHE_S = 5.0
MOST_ACCOUNTS = 10_000
"""The maximum number of accounts in the cache, each for ACCOUNT_CACHE_S seconds."""


class QueueConsumer:
    """The consumer of one queue in this process."""

    def __init__(self, redis: Redis, threads: int, queue: str = "callbacks") -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.redis = redis
        self.threads = threads
        self.queue = queue
        self.lanes = PartitionedQueue(redis, queue)
        self.wakeups = WakeupPublisher(redis, POLL_INTERVAL_S, queue)
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._last = 0
        self._serving: set[int] = set()
        self._leased_at = float("-inf")
        self._failed_at = float("-inf")
        self._forgot_at = float("-inf")
        self._accounts: dict[str, tuple[float, AccountRecord | None]] = {}
        self.tell: Callable[[QueueConsumer], None] = lambda _: None
        """A function called every TELL_S while the consumer runs. It may raise RedisError."""
        self._told_at = float("-inf")

    def start(self) -> None:
        supervised_threads.run(f"lease {self.queue}", self._heartbeat_loop, self.stopping.is_set)
        self.wakeups.start()

    def stop(self) -> None:
        self.stopping.set()
        self.wakeups.stop()
        with suppress(RedisError):  # otherwise the lease expires
            self.lanes.deregister(self.id)

    @property
    def has_lease(self) -> bool:
        return time.monotonic() - self._leased_at < partitioned_queue.LEASE_MARGIN_MS / 1000

    def settle_and_claim(self, verdict: Disposition | None, take: bool, came: str = "") -> ClaimedEntry | None:
        """Call `PartitionedQueue.settle_and_claim` until Redis responds, since a disposition must not be lost."""
        pause = 0.05
        while True:
            token = self._new_token() if take else None
            try:
                if verdict is None and token is None:
                    if came:
                        self.lanes.acknowledge_wakeup(came)
                    return None
                asked_at = time.monotonic()
                taken = self._request(verdict, token, came)
            except (RedisError, OSError) as error:
                if verdict and is_refused(error):
                    # For example, a key has another type. The next heartbeat releases the partition.
                    partition = verdict.claimed.partition
                    log.error("entry outcome rejected by redis", partition=partition, reason=str(error))
                    self._forget(verdict.claimed.claim_number)
                    verdict = None
                # It is unknown if Redis claimed a partition. If so, the next heartbeat releases it: no thread serves
                # this claim number.
                self._forget(token)
                if self.stopping.wait(pause * random.uniform(0.5, 1)):
                    return None
                pause = min(2.0, pause * 2)
                continue
            self._leased_at = max(self._leased_at, asked_at)
            if verdict:
                self._forget(verdict.claimed.claim_number)
            if not taken:
                self._forget(token)
            return taken

    def _request(
        self, disposition: Disposition | None, claim_number: int | None, wakeup_id: str
    ) -> ClaimedEntry | None:
        if disposition is None:
            assert claim_number is not None
            return self.lanes.claim(self.id, self.threads, claim_number, wakeup_id)
        if claim_number is None:
            self.lanes.settle(self.id, self.threads, disposition)
            return None
        return self.lanes.settle_and_claim(self.id, self.threads, disposition, claim_number)

    def account(self, auth_id: str) -> AccountRecord | None:
        """Return the account, at most 5 s old, or None if it does not exist. Raises RedisError."""
        read_at, record = self._accounts.get(auth_id, (float("-inf"), None))
        if time.monotonic() - read_at > ACCOUNT_CACHE_S:
            record = accounts.get(self.redis, auth_id)
            if len(self._accounts) >= MOST_ACCOUNTS:
                self._accounts.clear()
            self._accounts[auth_id] = (time.monotonic(), record)
        return record

    def _new_token(self) -> int:
        with self._lock:
            self._last += 1
            self._serving.add(self._last)
            return self._last

    def _forget(self, token: int | None) -> None:
        with self._lock:
            self._serving.discard(token or 0)

    def _heartbeat_loop(self) -> None:
        while not self.stopping.is_set():
            with self._lock:
                serving, last = list(self._serving), self._last
            asked_at = time.monotonic()
            # After an outage of Redis all leases have expired: other workers get time to renew theirs.
            reclaim = asked_at - self._failed_at > partitioned_queue.WORKER_LEASE_MS / 1000
            try:
                count = self.lanes.heartbeat(self.id, self.threads, serving, last, reclaim=reclaim)
                self._forget_old_letters(asked_at)
                if asked_at - self._told_at >= TELL_S:
                    self.tell(self)
                    self._told_at = asked_at
            except (RedisError, OSError):
                self._failed_at = time.monotonic()
            else:
                self._leased_at = max(self._leased_at, asked_at)
                if count:
                    log.warning("partitions reclaimed", count=count)
                    self.wakeups.wake()
            self.stopping.wait(partitioned_queue.HEARTBEAT_MS / 1000)

    def _forget_old_letters(self, now: float) -> None:
        if self.queue == outbox.QUEUE and now - self._forgot_at > TRIM_INTERVAL_S:
            self._forgot_at = now
            dead_letters.trim_expired(self.redis, accounts.ids(self.redis), dead_letter_ttl_ms())


def dead_letter_ttl_ms() -> int:
    return settings().dead_letters_days * accounts.DAY_MS


@dataclass(frozen=True, slots=True)
class QueueHandler:
    threads: Callable[[], int]
    serve: Callable[[QueueConsumer, ClaimedEntry], Disposition]
    tell: Callable[[QueueConsumer], None]


_served: dict[str, QueueHandler] = {}
_workers: dict[str, QueueConsumer] = {}


def register_handler(
    queue: str,
    threads: Callable[[], int],
    serve: Callable[[QueueConsumer, ClaimedEntry], Disposition],
    tell: Callable[[QueueConsumer], None] = lambda _: None,
) -> None:
    """Register `serve` for every entry of the queue, in each worker that consumes it."""
    _served[queue] = QueueHandler(threads, serve, tell)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: Any) -> None:
    for queue, served in _served.items():
        if queue in sender.app.amqp.queues.consume_from:
            _workers[queue] = QueueConsumer(redis_client(), min(served.threads(), sender.pool.limit), queue)
            _workers[queue].tell = served.tell
            _workers[queue].start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _shutting_down(**_: Any) -> None:
    for worker in _workers.values():
        worker.stopping.set()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _shutdown(**_: Any) -> None:
    for worker in _workers.values():
        worker.stop()


def redis_client() -> Redis:
    url = settings().redis_url.get_secret_value()
    return connect_in_threads(url, socket_connect_timeout=2, socket_timeout=5)


def unreadable(worker: QueueConsumer, taken: ClaimedEntry, error: Exception) -> Disposition:
    """Return a dead letter for an entry that is damaged or from another version, so that its partition continues."""
    log.error(
        "queue entry undecodable",
        queue=worker.queue,
        partition=taken.partition,
        reason=str(error),
        action="dead-lettered",
    )
    return partitioned_queue.dead_letter(taken, taken.entry, settings().dead_letters_kept, dead_letter_ttl_ms())


def process_wakeup(queue: str, token: str) -> None:
    """Process entries of a queue. `token` only tells Redis which wake-up was answered; Redis chooses the entries."""
    worker = _workers.get(queue)
    if worker is None:
        return
    _process_queue(worker, token, time.monotonic() + RUN_S, _served[queue].serve)


def _process_queue(
    worker: QueueConsumer, came: str, until: float, serve: Callable[[QueueConsumer, ClaimedEntry], Disposition]
) -> None:
    verdict: Disposition | None = None
    while True:
        take = time.monotonic() < until and not worker.stopping.is_set()
        taken = worker.settle_and_claim(verdict, take, came)
        if taken is None:
            break
        came = ""
        try:
            verdict = serve(worker, taken)
        except RedisError:
            verdict = partitioned_queue.release(taken)
        except Exception:
            # A bug in our code. The entry is kept and retried, so nothing in the partition is lost until it is fixed.
            log.exception("job raised", queue=worker.queue, partition=taken.partition, hint=REPORT_HINT)
            verdict = partitioned_queue.retry(taken, taken.entry, BUG_RETRY_MS)
    if not take:
        worker.wakeups.wake()
