"""Remains: what is left of an account, live and stored."""

from __future__ import annotations

from typing import Any

from msgspec import structs
from redis import Redis

from ari_conf.common.redis_keys import PREFIX
from ari_conf.queues import history_inbox, outbox
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.recordings import library
from ari_conf.recordings.jobs import QUEUES
from ari_conf.store.live_state import LiveCount, count_live
from ari_conf.store.problems import problems_key
from ari_conf.store.removals import Remains

SCAN_BATCH = 1000


def count(redis: Redis, auth_id: str, lost_ms: int) -> tuple[Remains, list[LiveCount]]:
    """Return what is left of an account, and the Asterisks with live calls; `lost_ms` as for `count_live`."""
    live = count_live(redis, auth_id, lost_ms)
    calls, conferences = sum(one.calls for one in live), sum(one.conferences for one in live)
    return structs.replace(stored(redis, auth_id), calls=calls, conferences=conferences), live


def stored(redis: Redis, auth_id: str) -> Remains:
    """Return what is stored of an account, or queued, without its live calls."""
    callbacks = prefix(outbox.QUEUE)
    pipe: Any = redis.pipeline(transaction=False)
    pipe.hget(callbacks + "entries", auth_id).llen(f"{callbacks}delivered:{auth_id}").llen(problems_key(auth_id))
    pipe.hget(history_inbox.WRITTEN_KEY, auth_id)
    pipe.llen(history_inbox.key(auth_id)).llen(history_inbox.UNREADABLE + auth_id)
    for queue in QUEUES:
        pipe.xlen(f"{prefix(queue)}dead-letters:{auth_id}")
    entries, delivered, problems, written, waiting, unreadable, *dead_letters = pipe.execute()
    return Remains(
        callbacks=int(entries or 0),
        recordings=library.count(redis, auth_id),
        recording_jobs=sum(len(outbox.partitions_of(redis, queue, auth_id)) for queue in QUEUES[1:]),
        delivered_callbacks=delivered,
        dead_letters=sum(dead_letters),
        problems=problems,
        history_entries=int(written or 0) + waiting + unreadable,
    )


def queued(redis: Redis, auth_id: str) -> dict[str, list[str]]:
    """Return the account's partitions with entries, by queue.

    None is missing, unlike in `stored`, which reads the places of partitions while they move."""
    found: dict[str, list[str]] = {queue: [] for queue in QUEUES}
    for key in redis.scan_iter(match="".join((PREFIX, "*:partition:", auth_id, ":*")), count=SCAN_BATCH):
        queue, _, partition = key.decode(errors="replace").removeprefix(PREFIX).partition(":partition:")
        if queue in found:
            found[queue].append(partition)
    return found
