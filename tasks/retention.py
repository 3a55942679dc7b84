"""Retention: deletes recordings that their accounts no longer keep (`recordings_days`).

A recording is deleted in S3 first, then in the index together with its callback. An interrupted deletion is therefore
repeated, and the callback is queued once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import structlog

from ari_conf.common.redis_keys import PREFIX
from ari_conf.errors import RecordingFailed
from ari_conf.recordings import deletion, index, jobs, library
from ari_conf.recordings.bucket import Bucket, is_refused
from ari_conf.recordings.index import StoredRecording
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tasks.retention_runner import RetentionRunner

log = structlog.get_logger()
LOCK_KEY = PREFIX + "retention-lock"
PAGE = 100
"""Recordings of one account that are looked at before it is the next account's turn."""
MAX_REFUSED = 100
"""Deletions of one account that S3 may refuse before the account's others wait for the next time."""


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


class Retention(RetentionRunner):
    of, lock_key = "recordings", LOCK_KEY

    def delete_expired(self) -> None:
        """Delete all expired recordings, unless another worker does. Raises RecordingFailed, RedisError and OSError."""
        now_ms = int(self._redis.time()[0]) * 1000
        days = {record.auth_id: record.recordings_days for record in accounts.list_all(self._redis)}
        expired = {auth_id: Expired(auth_id, now_ms - kept * DAY_MS) for auth_id, kept in days.items() if kept}
        if not expired:
            return
        with self._lock_held() as is_held:
            if is_held:
                try:
                    self._delete_in_turns(list(expired.values()), Bucket(settings()))
                finally:
                    for one in expired.values():
                        one.report()

    def _delete_in_turns(self, accounts: list[Expired], bucket: Bucket) -> None:
        """Delete one page of each account, then the next, so that an account with very many delays no other."""
        while accounts:
            accounts = [one for one in accounts if self._delete_page(one, bucket) or self._delete_older(one, bucket)]

    def _delete_page(self, expired: Expired, bucket: Bucket) -> bool:
        """Delete one page, and return whether there may be more."""
        page = index.started_before(self._redis, expired.auth_id, expired.before_ms, offset=expired.skipped, limit=PAGE)
        for stored in page:
            if not self._may_continue():
                return False
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
            if not self._may_continue():
                return False
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
