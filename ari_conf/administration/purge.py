"""Purge: the deletion of everything that is stored of an account, in Redis and in the bucket, piece by piece.

It can be interrupted anywhere, and repeated: what is deleted already is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import msgspec
from redis import Redis

from ari_conf.administration import remains
from ari_conf.common.redis_keys import PENDING_RESULTS_KEY, PREFIX
from ari_conf.history import deletion as deletion_of_history
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.recordings import index, jobs, library
from ari_conf.recordings.bucket import FOLDER, Bucket
from ari_conf.recordings.jobs import QUEUES
from ari_conf.recordings.sidecar import sidecar_key

BATCH = 20
"""Recordings that are deleted before the progress is reported."""
KEYS_AT_ONCE = 100
SCAN_BATCH = 1000
UNKNOWN_ACCOUNTS_KEY = PREFIX + "unknown-accounts"
FAMILIES = (
    "names:ACCOUNT",
    "problems:ACCOUNT",
    "history-inbox:ACCOUNT",
    "history-unreadable:ACCOUNT",
    "sessions:ACCOUNT",
    "idempotency:ACCOUNT",
    "idempotency:ACCOUNT:order",
    "api-rate:ACCOUNT",
    "api-rate:WHAT:ACCOUNT",
    "auth-failures:ADDRESS:ACCOUNT",
    "recording-index:ACCOUNT:KIND:VALUE",
    "QUEUE:partition:ACCOUNT:ORIGIN:HASH",
    "QUEUE:receivers:ACCOUNT",
    "QUEUE:ready:ACCOUNT:ORIGIN",
    "QUEUE:dead-letters:ACCOUNT",
    "QUEUE:delivered:ACCOUNT",
    "QUEUE:failing:ACCOUNT",
    "QUEUE:failing:ACCOUNT:ORIGIN",
    "QUEUE:recounted:ACCOUNT",
)
"""Names of the keys that belong to one account, after PREFIX; the words in capitals are variable."""


class _PendingResult(msgspec.Struct, frozen=True):
    auth_id: str


def delete_recordings(redis: Redis, bucket: Bucket, auth_id: str) -> bool:
    """Delete up to BATCH recordings, with files and sidecars. Return False if none is left. Raises RecordingFailed."""
    everything = index.all_key(auth_id)
    ids = [id.decode() for id in cast("list[bytes]", redis.zrange(everything, 0, BATCH - 1))]
    for recording_id in ids:
        text = cast("bytes | None", redis.get(index.key(recording_id)))
        stored = index.decode(text) if text else None
        if stored is not None and stored.auth_id == auth_id:
            bucket.delete(stored.key, sidecar_key(stored))
            jobs.remove(redis, stored)
        else:
            # Another version wrote it; its files are found by their prefix.
            pipe: Any = redis.pipeline(transaction=True)
            pipe.delete(index.key(recording_id)).zrem(everything, recording_id)
            jobs.forget_progress(pipe, recording_id)
            pipe.execute()
    return bool(ids)


def delete_files(bucket: Bucket, auth_id: str) -> bool:
    """Delete files that no recording has, such as those of an interrupted upload. Return False if none is left."""
    return bucket.delete_below(f"{FOLDER}{auth_id}/") > 0


def delete_history(redis: Redis, database: HistoryDatabase, auth_id: str, may_continue: Callable[[], bool]) -> bool:
    """Delete the account's history. Return False if it was interrupted, or if a worker is writing some at this moment.

    Raises HistoryUnavailable."""
    if history_inbox.delete(redis, auth_id):
        return False
    has_tables = database.revision() is not None
    if has_tables and not deletion_of_history.delete_account(database, auth_id, may_continue):
        return False
    history_inbox.set_written(redis, auth_id, 0)
    redis.hdel(library.MOVED_KEY, auth_id)
    return True


def discard_queued(redis: Redis, auth_id: str) -> bool:
    """Delete the account's entries of all queues. Return False if none is left: workers may be attempting some."""
    claimed = 0
    for queue, found in remains.queued(redis, auth_id).items():
        partitions = iter(found)
        while some := list(islice(partitions, KEYS_AT_ONCE)):
            claimed += partitioned_queue.discard(redis, queue, some)
    return claimed > 0


def delete_keys(redis: Redis, auth_id: str, may_continue: Callable[[], bool]) -> bool:
    """Delete all other keys of the account. Return False if none is left, and True if it was interrupted."""
    for session in cast("list[bytes]", redis.lrange(f"{PREFIX}sessions:{auth_id}", 0, -1)):
        redis.delete(session)
    _delete_pending_results(redis, auth_id)
    keys = _keys_of(redis, auth_id, may_continue)
    while some := list(islice(keys, KEYS_AT_ONCE)):
        redis.unlink(*some)
    callbacks = prefix(outbox.QUEUE)
    pipe: Any = redis.pipeline(transaction=False)
    pipe.hdel(callbacks + "entries", auth_id).hdel(callbacks + "bytes", auth_id).zrem(UNKNOWN_ACCOUNTS_KEY, auth_id)
    pipe.execute()
    return not may_continue()


def _delete_pending_results(redis: Redis, auth_id: str) -> None:
    for api_id, text in redis.hscan_iter(PENDING_RESULTS_KEY, count=SCAN_BATCH):
        try:
            is_own = msgspec.json.decode(text, type=_PendingResult).auth_id == auth_id
        except ValueError:
            continue
        if is_own:
            redis.hdel(PENDING_RESULTS_KEY, api_id)


def _keys_of(redis: Redis, auth_id: str, may_continue: Callable[[], bool]) -> Iterator[bytes]:
    is_own = pattern(auth_id).fullmatch
    cursor = 0
    while may_continue():
        found: Any = redis.scan(cursor, match="".join((PREFIX, "*:", auth_id, "*")), count=SCAN_BATCH)
        cursor, keys = found
        yield from (key for key in keys if is_own(key.decode(errors="replace")))
        if not cursor:
            return


def pattern(auth_id: str) -> re.Pattern[str]:
    """Return the pattern of the keys of FAMILIES that belong to this account."""
    queues = "|".join((*QUEUES, history_inbox.QUEUE))
    variable = {"ACCOUNT": re.escape(auth_id), "QUEUE": f"({queues})", "KIND": "[^:]*", "ORIGIN": "[^:]*"}
    families = [
        ":".join(variable.get(word, ".*" if word.isupper() else re.escape(word)) for word in family.split(":"))
        for family in FAMILIES
    ]
    return re.compile(re.escape(PREFIX) + f"({'|'.join(families)})", re.DOTALL)
