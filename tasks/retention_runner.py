"""Runner of a retention: a thread that deletes what has expired, every 10 minutes, in one worker at a time.

That worker has the lock in Redis. If it dies, the lock expires, and another continues.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import structlog
from redis import Redis, RedisError

from ari_conf.errors import REPORT_HINT, HistoryUnavailable, RecordingFailed
from ari_conf.history.database import HistoryDatabase
from tasks import supervised_threads

log = structlog.get_logger()
LOCK_S = 300.0
"""Seconds for which the lock is held without renewal; longer than the deletion of one piece takes."""
INTERVAL_S = 600.0
STOP_S = 2.0


class RetentionRunner:
    of: ClassVar[str]
    """Kind of data that is deleted, for logs."""
    lock_key: ClassVar[str]

    def __init__(self, redis: Redis, database: HistoryDatabase) -> None:
        self._redis, self._database = redis, database
        self._lock = redis.lock(self.lock_key, timeout=LOCK_S, blocking=False, thread_local=False)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = supervised_threads.run(f"retention of {self.of}", self._run, self._stopping.is_set)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.delete_expired()
            except (RecordingFailed, HistoryUnavailable, RedisError, OSError) as error:
                log.warning("retention interrupted", of=self.of, reason=str(error), retry_in_s=INTERVAL_S)
            except Exception:
                log.exception("retention raised", of=self.of, hint=REPORT_HINT)
            self._stopping.wait(INTERVAL_S)

    def delete_expired(self) -> None:
        """Delete all that has expired, unless another worker does. Raises what `_run` logs as an interruption."""
        raise NotImplementedError

    @contextmanager
    def _lock_held(self) -> Iterator[bool]:
        """Yield whether this worker may delete: no other one does."""
        is_held = self._lock.acquire()
        try:
            yield is_held
        finally:
            if is_held:
                with suppress(RedisError, OSError):  # otherwise it expires
                    self._lock.release()

    def _may_continue(self) -> bool:
        if self._stopping.is_set():
            return False
        self._lock.reacquire()
        return True
