"""Library: all stored recordings of an account. The newest are in Redis' index, the others in the history's database.

The database has all of them. A recording is in Redis, too, until it is KEPT_MS old and its transcription has ended:
Redis decides what is stored once, and what a transcription changes. Functions raise HistoryUnavailable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
from redis import Redis
from sqlalchemy import delete, select

from ari_conf.common.redis_keys import PREFIX
from ari_conf.history import queries, tables
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox, partitioned_queue
from ari_conf.recordings import index, jobs
from ari_conf.recordings.index import StoredRecording
from ari_conf.store.accounts import DAY_MS

KEPT_MS = DAY_MS
"""Milliseconds for which a recording is in Redis at least; no attempt to store it is repeated as late."""
MAX_IN_REDIS = 20_000
"""Recordings of an account in Redis above which the database is not asked: after an upgrade, until they are moved."""
PIECE = 100
MOVED_KEY = PREFIX + "recordings-in-history"
"""Hash, account -> number of recordings that are in the database alone."""


def get(redis: Redis, database: HistoryDatabase, recording_id: str) -> StoredRecording | None:
    """Return a recording of any account: its caller checks `auth_id`."""
    if (stored := jobs.get(redis, recording_id)) is not None:
        return stored
    with database.read() as connection:
        row = queries.get_recording(connection, recording_id)
    return index.decode(row.document.encode()) if row is not None else None


def count(redis: Redis, auth_id: str) -> int:
    """Return the number of recordings of an account, without the database."""
    moved = cast("bytes | None", redis.hget(MOVED_KEY, auth_id))
    return index.search(redis, auth_id, limit=0)[0] + int(moved or 0)


def search(
    redis: Redis,
    database: HistoryDatabase,
    auth_id: str,
    *,
    by: Mapping[str, str] = {},
    since_ms: float = float("-inf"),
    until_ms: float = float("inf"),
    limit: int = 20,
    offset: int = 0,
) -> tuple[int, list[StoredRecording]]:
    """Return (total, one page with the latest first) as `index.search` does."""
    given: dict[str, Any] = {"by": by, "since_ms": since_ms, "until_ms": until_ms}
    if not redis.hexists(MOVED_KEY, auth_id):
        return index.search(redis, auth_id, **given, limit=limit, offset=offset)
    here = index.matching(redis, auth_id, **given)[:MAX_IN_REDIS]
    # The page lies between so many rows of the database, wherever those of Redis are among them.
    skipped = max(0, offset - len(here))
    with database.read() as connection:
        page = queries.list_recordings(
            connection,
            auth_id,
            by,
            since_ms,
            until_ms,
            limit=limit + offset - skipped,
            offset=skipped,
            without=[recording_id for recording_id, _ in here],
        )
    rows = [(row.recording_id, row.start_ms, row.document) for row in page.rows]
    merged: list[tuple[str, float, str | None]] = [*((id, at, None) for id, at in here), *rows]
    merged.sort(key=lambda one: (-one[1], one[0]))
    wanted = merged[offset - skipped : offset - skipped + limit]
    texts = index.texts(redis, [id for id, _, document in wanted if document is None])
    found = [texts.get(id) if document is None else document.encode() for id, _, document in wanted]
    return page.total + len(here), [stored for one in found if one and (stored := index.decode(one))]


def remove(
    redis: Redis, database: HistoryDatabase, stored: StoredRecording, callbacks: list[tuple[str, bytes]] | None = None
) -> bool:
    """Remove a recording, and enqueue `callbacks`. Return False, and change nothing, if it is already removed."""
    if jobs.remove(redis, stored, callbacks):
        return True
    if not redis.hexists(MOVED_KEY, stored.auth_id):
        return False
    r, n = tables.recordings, tables.recording_numbers
    with database.read() as connection:
        row = queries.get_recording(connection, stored.recording_id)
    if row is None or row.auth_id != stored.auth_id:
        return False
    if callbacks:
        # If this process dies before the row is deleted, they are sent again: callbacks are delivered at least once.
        partitioned_queue.enqueue(redis, callbacks)
    with database.write() as connection:
        for table in (r, n):
            own = (table.c.recording_id == stored.recording_id) & (table.c.auth_id == stored.auth_id)
            connection.execute(delete(table).where(own))
    if redis.hincrby(MOVED_KEY, stored.auth_id, -1) <= 0:
        redis.hdel(MOVED_KEY, stored.auth_id)
    return True


def ended_before(
    database: HistoryDatabase, auth_id: str, before_ms: int, limit: int, without: list[str]
) -> list[StoredRecording]:
    """Return recordings of the database that ended at `before_ms` or earlier."""
    r = tables.recordings.c
    wanted = select(r.document).where(r.auth_id == auth_id, r.end_ms <= before_ms, r.recording_id.not_in(without))
    with database.read() as connection:
        found = connection.execute(wanted.order_by(r.start_ms).limit(limit)).scalars().all()
    return [stored for text in found if (stored := index.decode(text.encode()))]


def move_older(
    redis: Redis, database: HistoryDatabase, auth_id: str, now_ms: int, may_continue: Callable[[], bool]
) -> int:
    """Remove from Redis what is KEPT_MS old and in the database as it is; return the number.

    What the database lacks, such as recordings of a release before the history, goes to the inbox."""
    moved = skipped = 0
    while may_continue():
        page = index.started_before(redis, auth_id, now_ms - KEPT_MS, offset=skipped, limit=PIECE)
        old = [one for one in page if one is not None and _is_final(redis, one, now_ms)]
        written = _documents(database, auth_id, [one.recording_id for one in old])
        for stored in old:
            document = written.get(stored.recording_id)
            if document is None or msgspec.json.decode(document, type=StoredRecording) != stored:
                history_inbox.add(redis, auth_id, jobs.history_entry(stored))
            elif jobs.move(redis, stored, MOVED_KEY):
                moved += 1
                continue
            skipped += 1
        skipped += len(page) - len(old)
        if len(page) < PIECE:
            break
    return moved


def _is_final(redis: Redis, stored: StoredRecording, now_ms: int) -> bool:
    """Return whether nothing will change the recording: a failed transcription may be repeated."""
    if stored.stored_ms > now_ms - KEPT_MS or stored.transcript == jobs.FAILED:
        return False
    partition = jobs.partition_key(stored.auth_id, "", stored.recording_id)
    return not redis.exists(f"{partitioned_queue.prefix(jobs.TRANSCRIPTION_QUEUE)}partition:{partition}")


def _documents(database: HistoryDatabase, auth_id: str, ids: list[str]) -> dict[str, str]:
    if not ids:
        return {}
    r = tables.recordings.c
    with database.read() as connection:
        found = connection.execute(
            select(r.recording_id, r.document).where(r.auth_id == auth_id, r.recording_id.in_(ids))
        ).all()
    return {row.recording_id: row.document for row in found}
