"""Queue consumers of a worker: each has a lease, and threads that claim one entry after another.

Redis knows what a worker holds, together with its lease. When the worker dies, its partitions become ready for
others after `WORKER_LEASE_MS`. They repeat what it was doing: delivery is at least once.
"""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import structlog
from celery import bootsteps, signals  # type: ignore[import-untyped]
from redis import Redis, RedisError

from ari_conf.common import state_version, systemd
from ari_conf.common.redis_client import connect_in_threads, is_refused
from ari_conf.errors import REPORT_HINT, StateVersionRefused
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import dead_letters, history_inbox, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition, PartitionedQueue
from ari_conf.recordings import jobs
from ari_conf.recordings.transcribers import REPORT_INTERVAL_S
from ari_conf.settings import settings
from ari_conf.store import accounts, removals
from ari_conf.store.accounts import AccountRecord
from tasks import supervised_threads
from tasks.entry_task import BUG_RETRY_MS, EntryTask, dead_letter_ttl_ms
from tasks.event_sender import EventSender
from tasks.history_retention import HistoryRetention
from tasks.retention import Retention
from tasks.retention_runner import RetentionRunner

log = structlog.get_logger()
RUN_S = 10.0
"""Seconds after which a thread claims no new entry, so that other queues get the thread too."""
POLL_INTERVAL_S = 0.25
UNREACHABLE_PAUSE_S = 0.5
TRIM_INTERVAL_S = 600.0
ACCOUNT_CACHE_S = 5.0
MAX_ACCOUNTS = 10_000
"""The maximum number of accounts in the cache, each for ACCOUNT_CACHE_S seconds."""
LISTENER_LIMIT_S = 30.0
"""Seconds without a look for wake-ups after which the worker reports a fault. Each look ends within 7 s, also while
Redis does not respond."""
WAKEUP_LIMIT_S = 30.0
"""The same for a wake-up that no thread of the pool has answered: only as many are issued as threads are free."""
EXIT_DEADLINE_S = 20.0
"""Seconds that a worker that cannot continue has for giving back what it holds."""


class QueueConsumer:
    """The consumer of one queue in this process; its entries are those of `task`."""

    def __init__(self, redis: Redis, celery_worker: Any, task: EntryTask, event_sender: EventSender) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.redis = redis
        self.task = task
        self.event_sender = event_sender
        self.threads: int = min(task.max_threads(), celery_worker.pool.limit)
        self.queue = PartitionedQueue(redis, task.queue_name)
        self.stopping = threading.Event()
        """Set once no thread claims another entry."""
        self._ended = threading.Event()
        """Set once all threads have ended; until then, the lease protects what they attempt."""
        self._celery_worker = celery_worker
        self._lock = threading.Lock()
        self._last_claim = 0
        self._claims: dict[int, float] = {}
        """Claim numbers of the entries that threads are attempting, or are about to claim; each with its time."""
        self._unanswered: dict[str, float] = {}
        """Wake-ups that were given to the pool, and that no thread has answered yet; each with its time."""
        self._listened_at = time.monotonic()
        self._listener: threading.Thread | None = None
        self._is_version_checked = False
        self._lease_keeper: threading.Thread | None = None
        self._leased_at = float("-inf")
        self._failed_at = float("-inf")
        self._trimmed_at = float("-inf")
        self._reported_at = float("-inf")
        self._accounts: dict[str, tuple[float, AccountRecord | None]] = {}

    def start(self) -> None:
        name = self.queue.name
        self._lease_keeper = supervised_threads.run(f"lease {name}", self._heartbeat_loop, self._ended.is_set)
        self._listener = supervised_threads.run(f"wake-ups {name}", self._listen, self.stopping.is_set)

    def stop(self) -> None:
        """Start no more threads. Those that run end after their attempt."""
        self.stopping.set()
        if self._listener is not None:
            self._listener.join(2 * POLL_INTERVAL_S)

    def deregister(self) -> None:
        self.stopping.set()
        self._ended.set()
        if self._lease_keeper is not None:
            self._lease_keeper.join(partitioned_queue.HEARTBEAT_MS / 1000)  # it would register the worker again
        with suppress(RedisError):  # otherwise the lease expires
            self.queue.deregister(self.id)

    @property
    def hostname(self) -> str:
        return str(self._celery_worker.hostname)

    @property
    def has_lease(self) -> bool:
        return time.monotonic() - self._leased_at < partitioned_queue.LEASE_MARGIN_MS / 1000

    def account(self, auth_id: str) -> AccountRecord | None:
        """Return the account, at most 5 s old, also while it is being removed; None if it does not exist.

        Raises RedisError."""
        read_at, record = self._accounts.get(auth_id, (float("-inf"), None))
        if time.monotonic() - read_at > ACCOUNT_CACHE_S:
            record = removals.signer(self.redis, auth_id)
            if len(self._accounts) >= MAX_ACCOUNTS:
                self._accounts.clear()
            self._accounts[auth_id] = (time.monotonic(), record)
        return record

    def _check_state_version(self) -> None:
        """Check the version once, when Redis is first reachable; a refusal ends the process. Raises RedisError."""
        if not self._is_version_checked:
            try:
                state_version.check(self.redis)
            except StateVersionRefused as refused:
                supervised_threads.end_process(str(refused))
            self._is_version_checked = True

    # Wake-ups.

    def _listen(self) -> None:
        """Start a thread of the pool for each wake-up, and issue those that are due: retries, and lost ones."""
        issued_at, working = float("-inf"), True
        while not self.stopping.is_set():
            self._listened_at = time.monotonic()
            try:
                self._check_state_version()
                if time.monotonic() - issued_at >= POLL_INTERVAL_S:
                    self.queue.issue_wakeups()
                    issued_at = time.monotonic()
                wakeup_id = self.queue.take_wakeup(POLL_INTERVAL_S)
            except (RedisError, OSError) as error:
                if working:
                    log.warning("wake-ups not available", queue=self.queue.name, reason=str(error))
                working = False
                self.stopping.wait(UNREACHABLE_PAUSE_S)
                continue
            working = True
            if wakeup_id is not None and not self.stopping.is_set():
                self._unanswered[wakeup_id] = time.monotonic()
                self._celery_worker.pool.apply_async(self._serve, (wakeup_id,), callback=_ignore_result)

    def _issue_wakeups(self) -> None:
        with suppress(RedisError, OSError):  # otherwise the listener issues them
            self.queue.issue_wakeups()

    # Entries.

    def _serve(self, wakeup_id: str) -> None:
        self._unanswered.pop(wakeup_id, None)
        try:
            self._attempt_entries(wakeup_id, time.monotonic() + RUN_S)
        except Exception:
            log.exception("task raised", task=self.task.name, hint=REPORT_HINT)

    def _attempt_entries(self, wakeup_id: str, until: float) -> None:
        """Attempt entries, as Redis chooses them. `wakeup_id` only tells Redis which wake-up was answered."""
        disposition: Disposition | None = None
        while True:
            claims_next = time.monotonic() < until and not self.stopping.is_set()
            claimed = self._settle_and_claim(disposition, claims_next, wakeup_id)
            if claimed is None:
                break
            wakeup_id = ""
            try:
                disposition = self.task.execute(self, claimed)
            except Exception as error:
                # A bug. Without a disposition, the partition would count as served until this process ends.
                log.exception("task raised", task=self.task.name, partition=claimed.partition, hint=REPORT_HINT)
                reason = f"raised {type(error).__name__}"
                disposition = partitioned_queue.retry(claimed, claimed.entry, BUG_RETRY_MS, reason)
        if not claims_next:
            self._issue_wakeups()

    def _settle_and_claim(
        self, disposition: Disposition | None, claims_next: bool, wakeup_id: str
    ) -> ClaimedEntry | None:
        """Call `PartitionedQueue.settle_and_claim` until Redis responds, since a disposition must not be lost."""
        pause = 0.05
        while True:
            claim_number = self._next_claim() if claims_next else None
            try:
                if disposition is None and claim_number is None:
                    if wakeup_id:
                        self.queue.acknowledge_wakeup(wakeup_id)
                    return None
                asked_at = time.monotonic()
                claimed = self._request(disposition, claim_number, wakeup_id)
            except (RedisError, OSError) as error:
                if disposition and is_refused(error):
                    # For example, a key has another type. The next heartbeat releases the partition.
                    partition = disposition.claimed.partition
                    log.error("entry outcome rejected by redis", partition=partition, reason=str(error))
                    self._end_claim(disposition.claimed.claim_number)
                    disposition = None
                # It is unknown if Redis claimed a partition. If so, the next heartbeat releases it: no thread serves
                # this claim number.
                self._end_claim(claim_number)
                if self.stopping.wait(pause * random.uniform(0.5, 1)):
                    return None
                pause = min(2.0, pause * 2)
                continue
            self._leased_at = max(self._leased_at, asked_at)
            if disposition:
                self._end_claim(disposition.claimed.claim_number)
            if not claimed:
                self._end_claim(claim_number)
            return claimed

    def _request(
        self, disposition: Disposition | None, claim_number: int | None, wakeup_id: str
    ) -> ClaimedEntry | None:
        if disposition is None:
            assert claim_number is not None
            return self.queue.claim(self.id, self.threads, claim_number, wakeup_id)
        if claim_number is None:
            self.queue.settle(self.id, self.threads, disposition)
            return None
        return self.queue.settle_and_claim(self.id, self.threads, disposition, claim_number)

    def _next_claim(self) -> int:
        with self._lock:
            self._last_claim += 1
            self._claims[self._last_claim] = time.monotonic()
            return self._last_claim

    def _end_claim(self, number: int | None) -> None:
        with self._lock:
            self._claims.pop(number or 0, None)

    # Lease.

    def _heartbeat_loop(self) -> None:
        while not self._ended.is_set():
            # A worker that is stopping takes no wake-ups.
            threads = 0 if self.stopping.is_set() else self.threads
            with self._lock:
                claims, last = list(self._claims), self._last_claim
            asked_at = time.monotonic()
            # After an outage of Redis all leases have expired: other workers get time to renew theirs.
            reclaim = asked_at - self._failed_at > partitioned_queue.WORKER_LEASE_MS / 1000
            try:
                self._check_state_version()
                count = self.queue.heartbeat(
                    self.id, threads, claims, last, reclaim=reclaim, fault=self._fault(asked_at)
                )
                self._trim_dead_letters(asked_at)
                if asked_at - self._reported_at >= REPORT_INTERVAL_S:
                    self.task.report(self)
                    self._reported_at = asked_at
            except (RedisError, OSError):
                self._failed_at = time.monotonic()
            else:
                self._leased_at = max(self._leased_at, asked_at)
                if count:
                    log.warning("partitions reclaimed", count=count)
                    self._issue_wakeups()
            self._ended.wait(partitioned_queue.HEARTBEAT_MS / 1000)

    def _fault(self, now: float) -> str:
        """Return what keeps this worker from working, as part of a sentence, or ""."""
        if self.stopping.is_set():
            return ""
        if (listened := now - self._listened_at) > LISTENER_LIMIT_S:
            return f"it has not looked for wake-ups for {listened:.0f} s"
        if (waits := now - min(list(self._unanswered.values()), default=now)) > WAKEUP_LIMIT_S:
            return f"no thread has been free for {waits:.0f} s"
        with self._lock:
            attempts = now - min(self._claims.values(), default=now)
        if self.task.attempt_limit_s is not None and attempts > self.task.attempt_limit_s:
            return f"a thread has been attempting one entry for {attempts:.0f} s"
        return ""

    def _trim_dead_letters(self, now: float) -> None:
        if self.queue.name == outbox.QUEUE and now - self._trimmed_at > TRIM_INTERVAL_S:
            self._trimmed_at = now
            dead_letters.trim_expired(self.redis, accounts.ids(self.redis), dead_letter_ttl_ms())


def _ignore_result(_: Any) -> None:
    pass


def redis_client() -> Redis:
    url = settings().redis_url.get_secret_value()
    return connect_in_threads(url, socket_connect_timeout=2, socket_timeout=5)


class QueueConsumers(bootsteps.StartStopStep):  # type: ignore[misc]
    """The bootstep that consumes the worker's queues: all, or those of `celery worker -Q`."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._consumers: list[QueueConsumer] = []
        self._retentions: list[RetentionRunner] = []

    def start(self, worker: Any) -> None:
        selected = worker.app.amqp.queues.consume_from
        tasks = [
            task for task in worker.app.tasks.values() if isinstance(task, EntryTask) and task.queue_name in selected
        ]
        event_sender = EventSender(worker)
        event_sender.start()
        self._consumers = [QueueConsumer(redis_client(), worker, task, event_sender) for task in tasks]
        for consumer in self._consumers:
            consumer.start()
        self._retentions = []
        if jobs.STORE_QUEUE in selected:
            self._retentions.append(Retention(redis_client(), HistoryDatabase(settings())))
        if history_inbox.QUEUE in selected:
            self._retentions.append(HistoryRetention(redis_client(), HistoryDatabase(settings())))
        for retention in self._retentions:
            retention.start()
        systemd.notify_ready()  # also without Redis, for which it waits as long as necessary
        signals.worker_shutting_down.connect(self._shutting_down)
        signals.worker_shutdown.connect(self._shutdown)

    def close(self, worker: Any) -> None:
        if worker.exitcode:
            # The worker cannot continue. Celery waits for its threads without a limit, and until then such a worker
            # looks alive.
            ending = threading.Timer(EXIT_DEADLINE_S, supervised_threads.end_process, ("the worker could not stop",))
            ending.daemon = True
            ending.start()

    def stop(self, worker: Any) -> None:
        for consumer in self._consumers:
            consumer.stop()
        for retention in self._retentions:
            retention.stop()

    terminate = stop

    def _shutting_down(self, **_: Any) -> None:
        for consumer in self._consumers:
            consumer.stopping.set()

    def _shutdown(self, **_: Any) -> None:
        """Return what the worker holds, after the threads of its pool have ended."""
        for consumer in self._consumers:
            consumer.deregister()
