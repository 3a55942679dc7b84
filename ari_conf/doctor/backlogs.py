"""Checks of the workers of the queues in Redis, and of their backlogs."""

from __future__ import annotations

from typing import Any

import msgspec
import redis

from ari_conf.common.redis_client import connect_in_threads
from ari_conf.doctor.check import DEADLINE, CheckFailed, Doubtful
from ari_conf.queues import outbox, queue_names, worker_health
from ari_conf.settings import Settings
from ari_conf.store import removals

MAX_WAIT_MS = 60_000
"""Milliseconds for which an entry that is ready may wait; one that waits longer lacks a worker."""


class _Entry(msgspec.Struct):
    at_ms: int


def callback_workers(settings: Settings) -> str:
    totals, oldest_ms = _totals_and_age(settings, outbox.QUEUE)
    if not totals.workers:
        raise no_worker_result(settings, outbox.QUEUE, "delivers callbacks")
    if faults := _faults(settings):
        raise CheckFailed(f"{'; '.join(faults)}: restart {'it' if len(faults) == 1 else 'them'}")
    summary = f"{totals.workers} with {totals.threads} threads; {totals.waiting} callbacks wait"
    if oldest_ms > MAX_WAIT_MS:
        raise Doubtful(
            f"{summary}, the oldest of those that could be sent now for {oldest_ms / 1000:.0f} s: "
            "start more workers, and "
            "see `ari-conf lanes`"
        )
    return summary


def _faults(settings: Settings) -> list[str]:
    """Return what keeps workers from working, each as a sentence. Raises CheckFailed."""
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        return [
            f"the worker {each.pid} on {each.host} does not work off the queue {queue}: {each.fault}"
            for queue in queue_names.ALL
            for each in worker_health.read(client, queue)
            if each.fault
        ]
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()


def removal_workers(settings: Settings) -> str:
    totals, _ = _totals_and_age(settings, removals.QUEUE)
    if not totals.workers:
        raise no_worker_result(settings, removals.QUEUE, "removes accounts")
    return f"{totals.workers}; {totals.waiting} accounts are being removed"


def no_worker_result(settings: Settings, queue: str, work: str) -> CheckFailed | Doubtful:
    """Return the exception to raise if a queue has no worker: CheckFailed if entries wait, otherwise Doubtful."""
    totals, _ = _totals_and_age(settings, queue)
    todo = f"start `ari-conf worker`, or `ari-conf worker -Q {queue}` for this alone, on any machine"
    if totals.waiting:
        return CheckFailed(f"no worker {work} now, and {totals.waiting} wait: {todo}")
    return Doubtful(f"no worker {work} now; nothing waits yet: {todo}")


def _totals_and_age(settings: Settings, queue: str) -> tuple[outbox.QueueTotals, int]:
    """Return the totals of the queue, and the age in ms of the oldest entry that is ready. Raises CheckFailed."""
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        totals = outbox.counted(client, queue)
        seconds, micros = client.time()
        now_ms = seconds * 1000 + micros // 1000
        created_ms = [
            _created_ms(head.first_entry, now_ms)
            for head in outbox.partition_heads(client, queue)
            if head.place.state == "ready"
        ]
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()
    return totals, max(0, now_ms - min(created_ms, default=now_ms))


def _created_ms(head: bytes, now_ms: int) -> int:
    try:
        return msgspec.json.decode(head, type=_Entry).at_ms
    except msgspec.MsgspecError:
        return now_ms  # an entry of another version
