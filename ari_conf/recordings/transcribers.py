"""Registry of transcription engines: each worker that serves transcriptions reports its engine.

The dashboard does not offer transcription if such workers exist and none of them has an engine.

| key | is |
|---|---|
| ari_conf:transcribers | sorted set: "WORKER ENGINE", or "WORKER " if it has none -> seconds, Redis' clock |
"""

from __future__ import annotations

from typing import cast

from redis import Redis

from ari_conf.common.redis_keys import PREFIX

KEY = PREFIX + "transcribers"
REPORT_INTERVAL_S = 10.0
REPORT_TTL_S = 60
"""Seconds after its last report for which a worker counts as running."""
MISSING = "nothing that transcribes is installed here: the operator can install it (docs/operations/workers.md)"


def report(redis: Redis, worker_id: str, engine: str) -> None:
    """Report the engine of a worker, or "" if it has none. Raises RedisError."""
    now = _now(redis)
    pipe = redis.pipeline(transaction=True)
    pipe.zremrangebyscore(KEY, "-inf", now - REPORT_TTL_S)
    pipe.zadd(KEY, {f"{worker_id} {engine}": now})
    pipe.expire(KEY, REPORT_TTL_S)
    pipe.execute()


def engines(redis: Redis) -> list[str] | None:
    """Return the engines of the workers; None if no worker serves transcriptions at present. Raises RedisError."""
    reports = cast("list[bytes]", redis.zrangebyscore(KEY, _now(redis) - REPORT_TTL_S, "+inf"))
    names = {entry.decode(errors="replace").partition(" ")[2] for entry in reports}
    return sorted(names - {""}) if reports else None


def are_missing(redis: Redis) -> bool:
    """Return whether workers serve transcriptions and none of them has an engine. Raises RedisError."""
    return engines(redis) == []


def _now(redis: Redis) -> int:
    return int(redis.time()[0])
