"""Delivers callbacks: a task takes lanes, one entry at a time, until there is nothing to take.

What a worker serves stands in Redis, with its lease. When it dies, its lanes are ready for others after LEASE_MS; what
it was at is then sent again: at least once.
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
from celery import signals  # type: ignore[import-untyped]
from msgspec import json, structs
from redis import Redis, RedisError

from ari_conf import accounts, dead_letters, lanes, outbox, store
from ari_conf.accounts import AccountRecord
from ari_conf.http.deliver import attempt
from ari_conf.http.hop import without_query
from ari_conf.http.retry import Outcome, next_try, parse
from ari_conf.lanes import Lanes, Taken, Verdict
from ari_conf.settings import settings
from tasks.app import app
from tasks.tokens import Tokens

log = structlog.get_logger()
RUN_S = 10.0
"""A task ends after it, so that other queues get the thread as well."""
LOOK_S = 0.25
BROKEN_MS = 10_000
ACCOUNT_CACHE_S = 5.0
FORGET_S = 600.0
"""Between two looks for dead letters that are too old."""


class Worker:
    """This process: what it holds, and the threads that keep its lease and look for work."""

    def __init__(self, redis: Redis, threads: int) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.redis = redis
        self.threads = threads
        self.lanes = Lanes(redis)
        self.tokens = Tokens(redis, LOOK_S)
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._last = 0
        self._serving: set[int] = set()
        self._leased_at = float("-inf")
        self._failed_at = float("-inf")
        self._forgot_at = float("-inf")
        self._accounts: dict[str, tuple[float, AccountRecord | None]] = {}

    def start(self) -> None:
        threading.Thread(target=self._beats, name="lease", daemon=True).start()
        self.tokens.start()

    def stop(self) -> None:
        self.stopping.set()
        self.tokens.end()
        with suppress(RedisError):  # else the lease ends by itself
            self.lanes.leave(self.id)

    @property
    def leased(self) -> bool:
        return time.monotonic() - self._leased_at < lanes.LEASE_MS / 1000

    def turn(self, verdict: Verdict | None, take: bool) -> Taken | None:
        """As `Lanes.turn`; asks until Redis answers, since a verdict must not be lost."""
        pause = 0.05
        while True:
            token = self._new_token() if take else None
            try:
                asked_at = time.monotonic()
                taken = self.lanes.turn(self.id, self.threads, token, verdict)
            except (RedisError, OSError):
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
            except (RedisError, OSError):
                self._failed_at = time.monotonic()
            else:
                self._leased_at = max(self._leased_at, asked_at)
                if count:
                    log.warning("lanes taken over", count=count)
                    self.tokens.wake()
            self.stopping.wait(lanes.BEAT_MS / 1000)

    def _forget_old_letters(self, now: float) -> None:
        if now - self._forgot_at > FORGET_S:
            self._forgot_at = now
            dead_letters.forget_old(self.redis, accounts.ids(self.redis), _letters_kept_ms())


def _letters_kept_ms() -> int:
    return settings().dead_letters_days * accounts.DAY_MS


_worker: Worker | None = None


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _ready(sender: Any, **_: Any) -> None:
    global _worker
    if "callbacks" in sender.app.amqp.queues.consume_from:
        threads = min(settings().callback_threads, sender.pool.limit)
        _worker = Worker(redis_client(), threads)
        _worker.start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _shutting_down(**_: Any) -> None:
    if _worker:
        _worker.stopping.set()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _shutdown(**_: Any) -> None:
    if _worker:
        _worker.stop()


def redis_client() -> Redis:
    return Redis.from_url(settings().redis_url.get_secret_value(), socket_connect_timeout=2, socket_timeout=5)


@app.task(name="tasks.callbacks.deliver")  # type: ignore[untyped-decorator]
def deliver(token: str) -> None:
    """`token` only says that somebody came for it: which lanes are served, Redis knows."""
    worker = _worker
    if worker is None:
        return
    worker.lanes.arrived(token)
    run(worker, time.monotonic() + RUN_S)


def run(worker: Worker, until: float) -> None:
    verdict: Verdict | None = None
    while True:
        take = time.monotonic() < until and not worker.stopping.is_set()
        taken = worker.turn(verdict, take)
        if taken is None:
            break
        try:
            verdict = serve(worker, taken)
        except RedisError:
            verdict = lanes.back(taken)
        except Exception:
            # Ours to mend: nothing of the lane is lost meanwhile.
            log.exception("callback can't be tried", lane=taken.lane)
            verdict = lanes.retry(taken, taken.entry, BROKEN_MS)
    if not take:
        worker.tokens.wake()


def serve(worker: Worker, taken: Taken) -> Verdict:
    """Makes one try."""
    entry = outbox.decode(taken.entry)
    record = worker.account(entry.auth_id)
    if record is None:
        reason = "its account was removed: nothing can sign it"
        return _dead(taken, structs.replace(entry, reason=reason), reason, tell=False)
    if not worker.leased:
        return lanes.back(taken)  # we were stopped for long: another worker may be at it
    bare, policy, warnings = parse(entry.url)
    if not entry.tries:
        for warning in warnings:
            log.warning("url fragment", auth_id=entry.auth_id, url=without_query(bare), warning=warning)
    outcome = attempt(
        entry.method,
        bare,
        entry.params,
        tokens=record.tokens(time.time_ns() // 1_000_000),
        policy=policy,
        allowed_networks=settings().allowed_networks,
        remaining_ms=max(1, policy.total_ms - entry.elapsed_ms),
    )
    if outcome.ok:
        return lanes.done(taken)
    tried = outbox.Try(outcome.at_ms, outcome.ms, outcome.status, outcome.reason)
    tries = [*(Outcome(t.at_ms, t.ms, t.status) for t in entry.tries), outcome]
    delay_ms = next_try(policy, tries, entry.elapsed_ms + outcome.ms, random.random())
    if delay_ms is None:
        return _dead(taken, structs.replace(entry, tries=(*entry.tries, tried)), outcome.told, tell=True)
    tried = structs.replace(tried, delay_ms=delay_ms)
    return lanes.retry(taken, outbox.encode(structs.replace(entry, tries=(*entry.tries, tried))), delay_ms)


def _dead(taken: Taken, entry: outbox.Entry, why: str, *, tell: bool) -> Verdict:
    """`tell`: the account's problem list as well, since a user looks there."""
    count, url = len(entry.tries), without_query(entry.url)
    log.warning("callback not delivered", auth_id=entry.auth_id, url=url, tries=count, reason=why)
    told = None
    if tell:
        tries = f"{count} tries" if count > 1 else "1 try"
        text = f"a callback to {url} is a dead letter after {tries}: {why}"
        problem = store.Problem(time.time_ns() // 1_000_000, dict(entry.params).get("CallUUID", ""), text)
        told = (store.problems_key(entry.auth_id), json.encode(problem), settings().problems_kept)
    return lanes.dead(taken, outbox.encode(entry), settings().dead_letters_kept, _letters_kept_ms(), told)
