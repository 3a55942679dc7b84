"""Retention of the history: deletes what accounts no longer keep (`history_days`), and delivered callbacks."""

from __future__ import annotations

import structlog

from ari_conf.common.redis_keys import PREFIX
from ari_conf.history import deletion, queries
from ari_conf.queues import history_inbox
from ari_conf.recordings import library
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tasks.retention_runner import RetentionRunner

log = structlog.get_logger()
LOCK_KEY = PREFIX + "history-retention-lock"


class HistoryRetention(RetentionRunner):
    of, lock_key = "history", LOCK_KEY

    def delete_expired(self) -> None:
        """Delete all that has expired, unless another worker does. Raises HistoryUnavailable, RedisError, OSError."""
        with self._lock_held() as is_held:
            # What a worker has not migrated yet is nothing that has expired.
            if is_held and self._database.is_migrated():
                self._delete_expired(int(self._redis.time()[0]) * 1000)

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
