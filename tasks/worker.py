"""What a worker holds of a queue's lanes: its lease, and the threads that take one entry after another.

What a worker serves stands in Redis, with its lease. When it dies, its lanes are ready for others after LEASE_MS; what
it was at is then done again: at least once.
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

from ari_conf import accounts, dead_letters, lanes, outbox
from ari_conf.accounts import AccountRecord
from ari_conf.lanes import Lanes, Taken, Verdict
from ari_conf.redis_client import connect_in_threads, is_refused
from ari_conf.settings import settings
from ari_conf.transcribers import TELL_S
from tasks import supervised
from tasks.tokens import Tokens

log = structlog.get_logger()
RUN_S = 10.0
"""A task takes no new entry after it, so that other queues get the thread as well."""
LOOK_S = 0.25
BROKEN_MS = 10_000
FORGET_S = 600.0
ACCOUNT_CACHE_S = 5.0
MOST_ACCOUNTS = 10_000
"""Remembered for so long."""


class Worker:
    """This process, for one queue."""

    def __init__(self, redis: Redis, threads: int, queue: str = "callbacks") -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.redis = redis
        self.threads = threads
        self.queue = queue
        self.lanes = Lanes(redis, queue)
        self.tokens = Tokens(redis, LOOK_S, queue)
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._last = 0
        self._serving: set[int] = set()
        self._leased_at = float("-inf")
        self._failed_at = float("-inf")
        self._forgot_at = float("-inf")
        self._accounts: dict[str, tuple[float, AccountRecord | None]] = {}
        self.tell: Callable[[Worker], None] = lambda _: None
        """Said each TELL_S, for as long as it lives. May raise RedisError."""
        self._told_at = float("-inf")

    def start(self) -> None:
        supervised.run(f"lease {self.queue}", self._beats, self.stopping.is_set)
        self.tokens.start()

    def stop(self) -> None:
        self.stopping.set()
        self.tokens.end()
        with suppress(RedisError):  # else the lease ends by itself
            self.lanes.leave(self.id)

    @property
    def leased(self) -> bool:
        return time.monotonic() - self._leased_at < lanes.SURE_MS / 1000

    def turn(self, verdict: Verdict | None, take: bool, came: str = "") -> Taken | None:
        """As `Lanes.turn`; asks until Redis answers, since a verdict must not be lost."""
        pause = 0.05
        while True:
            token = self._new_token() if take else None
            try:
                asked_at = time.monotonic()
                taken = self.lanes.turn(self.id, self.threads, token, verdict, came)
            except (RedisError, OSError) as error:
                if verdict and is_refused(error):
                    # A key holds something else, say. The next beat gives its lane back.
                    log.error("redis refuses what became of an entry", lane=verdict.taken.lane, reason=str(error))
                    self._forget(verdict.taken.token)
                    verdict = None
                # Whether it took a lane is not known; if so, the next beat gives it back: nobody serves this token.
                self._forget(token)
                if self.stopping.wait(pause * random.uniform(0.5, 1)):
                    return None
                pause = min(2.0, pause * 2)
                continue
            self._leased_at = max(self._leased_at, asked_at)
            if verdict:
                self._forget(verdict.taken.token)
            if not taken:
                self._forget(token)
            return taken

    def account(self, auth_id: str) -> AccountRecord | None:
        """At most 5 s old. Raises RedisError."""
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

    def _beats(self) -> None:
        while not self.stopping.is_set():
            with self._lock:
                serving, last = list(self._serving), self._last
            asked_at = time.monotonic()
            # After an outage of Redis' all leases have run out: the others get the time to renew theirs.
            reclaim = asked_at - self._failed_at > lanes.LEASE_MS / 1000
            try:
                count = self.lanes.beat(self.id, self.threads, serving, last, reclaim=reclaim)
                self._forget_old_letters(asked_at)
                if asked_at - self._told_at >= TELL_S:
                    self.tell(self)
                    self._told_at = asked_at
            except (RedisError, OSError):
                self._failed_at = time.monotonic()
            else:
                self._leased_at = max(self._leased_at, asked_at)
                if count:
                    log.warning("lanes taken over", count=count)
                    self.tokens.wake()
            self.stopping.wait(lanes.BEAT_MS / 1000)

    def _forget_old_letters(self, now: float) -> None:
        if self.queue == outbox.QUEUE and now - self._forgot_at > FORGET_S:
            self._forgot_at = now
            dead_letters.forget_old(self.redis, accounts.ids(self.redis), letters_kept_ms())


def letters_kept_ms() -> int:
    return settings().dead_letters_days * accounts.DAY_MS


@dataclass(frozen=True, slots=True)
class Served:
    threads: Callable[[], int]
    serve: Callable[[Worker, Taken], Verdict]
    tell: Callable[[Worker], None]


_served: dict[str, Served] = {}
_workers: dict[str, Worker] = {}


def serves(
    queue: str,
    threads: Callable[[], int],
    serve: Callable[[Worker, Taken], Verdict],
    tell: Callable[[Worker], None] = lambda _: None,
) -> None:
    """Each entry of that queue's lanes is for this function, in a worker that consumes the queue."""
    _served[queue] = Served(threads, serve, tell)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: Any) -> None:
    for queue, served in _served.items():
        if queue in sender.app.amqp.queues.consume_from:
            _workers[queue] = Worker(redis_client(), min(served.threads(), sender.pool.limit), queue)
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


def unreadable(worker: Worker, taken: Taken, error: Exception) -> Verdict:
    """Another version wrote it, or it is damaged: it is given up, so that the lane's others have their turn."""
    log.error("an entry can't be read: it is given up", queue=worker.queue, lane=taken.lane, reason=str(error))
    return lanes.dead(taken, taken.entry, settings().dead_letters_kept, letters_kept_ms())


def come(queue: str, token: str) -> None:
    """`token` only says that somebody came for it: which lanes are served, Redis knows."""
    worker = _workers.get(queue)
    if worker is None:
        return
    run(worker, token, time.monotonic() + RUN_S, _served[queue].serve)


def run(worker: Worker, came: str, until: float, serve: Callable[[Worker, Taken], Verdict]) -> None:
    verdict: Verdict | None = None
    while True:
        take = time.monotonic() < until and not worker.stopping.is_set()
        taken = worker.turn(verdict, take, came)
        if taken is None:
            break
        came = ""
        try:
            verdict = serve(worker, taken)
        except RedisError:
            verdict = lanes.back(taken)
        except Exception:
            # Ours to mend: nothing of the lane is lost meanwhile.
            log.exception("a job can't be tried", queue=worker.queue, lane=taken.lane)
            verdict = lanes.retry(taken, taken.entry, BROKEN_MS)
    if not take:
        worker.tokens.wake()
