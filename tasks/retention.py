"""Retention: deletes recordings that their accounts no longer keep (`recordings_days`).

One worker at a time does this: the one with the lock in Redis. If it dies, the lock expires, and another continues. A
recording is deleted in S3 first, then in the index together with its callback. An interrupted deletion is therefore
repeated, and the callback is queued once.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from redis import Redis, RedisError

from ari_conf.common.redis_keys import PREFIX
from ari_conf.errors import REPORT_HINT, HistoryUnavailable, RecordingFailed
from ari_conf.history.database import HistoryDatabase
from ari_conf.recordings import deletion, index, jobs, library
from ari_conf.recordings.bucket import Bucket, is_refused
from ari_conf.recordings.index import StoredRecording
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tasks import supervised_threads

log = structlog.get_logger()
LOCK_KEY = PREFIX + "retention-lock"
LOCK_S = 300.0
"""Seconds for which the lock is held without renewal; longer than the deletion of one recording can take."""
INTERVAL_S = 600.0
PAGE = 100
"""Recordings of one account that are looked at before it is the next account's turn."""
MAX_REFUSED = 100
"""Deletions of one account that S3 may refuse before the account's others wait for the next time."""
STOP_S = 2.0


@dataclass
class Expired:
    """Progress with the expired recordings of an account."""

    auth_id: str
    before_ms: int
    """Recordings that ended at this time or earlier are deleted."""
    deleted: int = 0
    skipped: int = 0
    """Recordings that stay in the index: those that ended later, can't be read, or can't be deleted."""
    refused: int = 0
    reason: str = ""
    kept: list[str] = field(default_factory=list)
    """Recordings of the database that S3 refuses to delete."""

    def report(self) -> None:
        if self.deleted:
            log.info("expired recordings deleted", auth_id=self.auth_id, count=self.deleted)
        if self.refused:
            log.error("expired recordings not deleted", auth_id=self.auth_id, count=self.refused, reason=self.reason)


class Retention:
    def __init__(self, redis: Redis, database: HistoryDatabase) -> None:
        self._redis, self._database = redis, database
        self._lock = redis.lock(LOCK_KEY, timeout=LOCK_S, blocking=False, thread_local=False)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = supervised_threads.run("retention", self._run, self._stopping.is_set)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.delete_expired()
            except (RecordingFailed, HistoryUnavailable, RedisError, OSError) as error:
                log.warning("retention interrupted", reason=str(error), retry_in_s=INTERVAL_S)
            except Exception:
                log.exception("retention raised", hint=REPORT_HINT)
            self._stopping.wait(INTERVAL_S)

    def delete_expired(self) -> None:
        """Delete all expired recordings, unless another worker does. Raises RecordingFailed, RedisError and OSError."""
        now_ms = int(self._redis.time()[0]) * 1000
        days = {record.auth_id: record.recordings_days for record in accounts.list_all(self._redis)}
        expired = {auth_id: Expired(auth_id, now_ms - kept * DAY_MS) for auth_id, kept in days.items() if kept}
        if not expired or not self._lock.acquire():
            return
        try:
            self._delete_in_turns(list(expired.values()), Bucket(settings()))
        finally:
            for one in expired.values():
                one.report()
            with suppress(RedisError, OSError):  # otherwise it expires
                self._lock.release()

    def _delete_in_turns(self, accounts: list[Expired], bucket: Bucket) -> None:
        """Delete one page of each account, then the next, so that an account with very many delays no other."""
        while accounts:
            accounts = [one for one in accounts if self._delete_page(one, bucket) or self._delete_older(one, bucket)]

    def _delete_page(self, expired: Expired, bucket: Bucket) -> bool:
        """Delete one page, and return whether there may be more."""
        page = index.started_before(self._redis, expired.auth_id, expired.before_ms, offset=expired.skipped, limit=PAGE)
        for stored in page:
            if self._stopping.is_set():
                return False
            self._lock.reacquire()
            if stored is None or stored.end_ms > expired.before_ms:
                expired.skipped += 1
            else:
                self._delete(expired, stored, bucket)
        return len(page) == PAGE and expired.refused < MAX_REFUSED

    def _delete_older(self, expired: Expired, bucket: Bucket) -> bool:
        """Delete one page of what is in the history's database alone, and return whether there may be more."""
        if not self._redis.hexists(library.MOVED_KEY, expired.auth_id):
            return False
        page = library.ended_before(self._database, expired.auth_id, expired.before_ms, PAGE, expired.kept)
        for stored in page:
            if self._stopping.is_set():
                return False
            self._lock.reacquire()
            refused = expired.refused
            self._delete(expired, stored, bucket)
            if expired.refused > refused:
                expired.kept.append(stored.recording_id)
        return len(page) == PAGE and expired.refused < MAX_REFUSED

    def _delete(self, expired: Expired, stored: StoredRecording, bucket: Bucket) -> None:
        """Delete a recording, or skip it if S3 refuses that. Raises RecordingFailed if S3 does not respond."""
        callbacks = jobs.deletion_callback(stored, "retention", time.time_ns() // 1_000_000)
        try:
            expired.deleted += deletion.delete(self._redis, self._database, bucket, stored, callbacks)
        except RecordingFailed as failure:
            if not is_refused(failure):
                raise
            expired.skipped, expired.refused, expired.reason = expired.skipped + 1, expired.refused + 1, str(failure)
