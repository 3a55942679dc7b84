"""Drain of the history's inbox in one call, as a worker does it."""

from __future__ import annotations

from redis import Redis

from ari_conf.history import writer
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox


def drain(redis: Redis, database: HistoryDatabase, auth_id: str = "A") -> int:
    """Write what waits in the account's inbox; return the number of entries."""
    database.migrate()
    total = 0
    while entries := history_inbox.oldest(redis, auth_id):
        written = writer.write(database, entries)
        assert history_inbox.remove(redis, auth_id, entries, written.unreadable)
        total += written.rows
    return total
