"""Health of workers, as their heartbeats report it: what `ari-conf worker --check` and the metrics show."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from redis import Redis

from ari_conf.queues.partitioned_queue import WORKER_LEASE_MS, prefix

NO_LEASE = "its lease has expired: the process is suspended, or does not reach Redis"
FORGOTTEN_MS = 600_000
"""Milliseconds after the end of its lease for which a worker counts as faulty: then it has probably been removed."""
NO_HEARTBEAT = "its thread for heartbeats has stopped"


class WorkerHealth(NamedTuple):
    worker: str
    """Id of the worker as a consumer of this queue: HOST-PID-RANDOM."""
    is_stopping: bool
    fault: str
    """The reason why the worker does not work, as part of a sentence; empty if it works."""

    @property
    def host(self) -> str:
        return self.worker.rsplit("-", 2)[0]

    @property
    def pid(self) -> int:
        return int(self.worker.rsplit("-", 2)[1])


class _Heartbeat(msgspec.Struct):
    at_ms: int
    fault: str


_decode = msgspec.json.Decoder(_Heartbeat).decode


def threads_of_live(client: Redis, queue: str) -> dict[str, int]:
    """Return the number of threads of each worker with a lease. Raises RedisError.

    A worker that was killed stays registered until another one finds it, which may be never."""
    keys, redis = prefix(queue), client.pipeline(transaction=False)
    redis.time()
    redis.zrange(keys + "workers", 0, -1, withscores=True)
    redis.hgetall(keys + "threads")
    (seconds, micros), leases, threads = redis.execute()
    now_ms = seconds * 1000 + micros // 1000
    return {worker.decode(): int(threads.get(worker, 0)) for worker, until_ms in leases if until_ms > now_ms}


def read(client: Redis, queue: str) -> list[WorkerHealth]:
    """Return the health of the workers that consume a queue. Raises RedisError.

    Workers that ended, that another one has found dead, or that died FORGOTTEN_MS ago are left out."""
    keys, redis = prefix(queue), client.pipeline(transaction=False)
    redis.time()
    redis.zrange(keys + "workers", 0, -1, withscores=True)
    redis.hgetall(keys + "threads")
    redis.hgetall(keys + "health")
    (seconds, micros), leases, threads, heartbeats = redis.execute()
    now_ms = seconds * 1000 + micros // 1000
    return [
        WorkerHealth(
            worker.decode(), threads.get(worker) == b"0", _fault(until_ms - now_ms, heartbeats.get(worker), now_ms)
        )
        for worker, until_ms in leases
        if _is_id(worker) and now_ms - until_ms < FORGOTTEN_MS
    ]


def _is_id(worker: bytes) -> bool:
    parts = worker.rsplit(b"-", 2)
    return len(parts) == 3 and parts[1].isdigit()


def _fault(lease_ms: float, heartbeat: Any, now_ms: int) -> str:
    if lease_ms <= 0:
        return NO_LEASE
    if heartbeat is None:
        return ""  # a worker of an older release: it has a lease
    try:
        found = _decode(heartbeat)
    except msgspec.MsgspecError:
        return ""  # of another release
    return NO_HEARTBEAT if now_ms - found.at_ms > WORKER_LEASE_MS else found.fault
