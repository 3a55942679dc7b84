"""Retention of the history: deletes what accounts no longer keep (`history_days`), and delivered callbacks.

One worker at a time does this: the one with the lock in Redis. If it dies, the lock expires, and another continues.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import structlog
from redis import Redis, RedisError

from ari_conf.common.redis_keys import PREFIX
from ari_conf.errors import REPORT_HINT, HistoryUnavailable
from ari_conf.history import deletion, queries
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox
from ari_conf.recordings import library
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tasks import supervised_threads

log = structlog.get_logger()
LOCK_KEY = PREFIX + "history-retention-lock"
LOCK_S = 300.0
"""Seconds for which the lock is held without renewal; longer than the deletion of one piece takes."""
INTERVAL_S = 600.0
STOP_S = 2.0


class HistoryRetention:
    def __init__(self, redis: Redis, database: HistoryDatabase) -> None:
        self._redis, self._database = redis, database
        self._lock = redis.lock(LOCK_KEY, timeout=LOCK_S, blocking=False, thread_local=False)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = supervised_threads.run("history retention", self._run, self._stopping.is_set)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.delete_expired()
            except (HistoryUnavailable, RedisError, OSError) as error:
                log.warning("history retention interrupted", reason=str(error), retry_in_s=INTERVAL_S)
            except Exception:
                log.exception("history retention raised", hint=REPORT_HINT)
            self._stopping.wait(INTERVAL_S)

    def delete_expired(self) -> None:
        """Delete all that has expired, unless another worker does. Raises HistoryUnavailable, RedisError, OSError."""
        if not self._lock.acquire():
            return
        try:
            # What a worker has not migrated yet is nothing that has expired.
            if self._database.is_migrated():
                self._delete_expired(int(self._redis.time()[0]) * 1000)
        finally:
            with suppress(RedisError, OSError):  # otherwise it expires
                self._lock.release()

    def _delete_expired(self, now_ms: int) -> None:
        days = settings().delivered_callbacks_days
        delivered = deletion.delete_delivered_before(self._database, now_ms - days * DAY_MS, self._may_continue)
        if delivered:
            log.info("old callbacks deleted", count=delivered)
        for record in accounts.list_all(self._redis):
            moved = library.move_older(self._redis, self._database, record.auth_id, now_ms, self._may_continue)
            if moved:
                log.info("recordings moved", auth_id=record.auth_id, count=moved)
            if not record.history_days or self._stopping.is_set():
                continue
            before_ms = now_ms - record.history_days * DAY_MS
            count = deletion.delete_ended_before(self._database, record.auth_id, before_ms, self._may_continue)
            if count:
                log.info("expired history deleted", auth_id=record.auth_id, count=count)
                with self._database.read() as connection:
                    left = sum(queries.count_all(connection, record.auth_id).values())
                history_inbox.set_written(self._redis, record.auth_id, left)

    def _may_continue(self) -> bool:
        if self._stopping.is_set():
            return False
        self._lock.reacquire()
        return True
