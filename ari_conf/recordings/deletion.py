"""Deletion of stored recordings: the file, its sidecar, and the index entry."""

from __future__ import annotations

from redis import Redis

from ari_conf.history.database import HistoryDatabase
from ari_conf.recordings import library
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.sidecar import sidecar_key


def delete(
    redis: Redis,
    database: HistoryDatabase,
    bucket: Bucket,
    stored: StoredRecording,
    callbacks: list[tuple[str, bytes]] | None = None,
) -> bool:
    """Delete a recording, and enqueue `callbacks`. Return False if another process has deleted it.

    The index entry is last, so that an interrupted deletion can be repeated. Raises RecordingFailed, and
    HistoryUnavailable if the recording is in the database alone."""
    bucket.delete(stored.key, sidecar_key(stored))
    return library.remove(redis, database, stored, callbacks)
