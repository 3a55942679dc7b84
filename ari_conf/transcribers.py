"""What transcribes. Each worker that serves transcriptions tells it, so that nothing is offered that nobody does.

| key | is |
|---|---|
| ari_conf:transcribers | sorted set: "WORKER ENGINE", or "WORKER " if it has none -> seconds, Redis' clock |
"""

from __future__ import annotations

from typing import cast

from redis import Redis

from ari_conf.lanes import PREFIX

KEY = PREFIX + "transcribers"
TELL_S = 10.0
KEPT_S = 60
"""Who has told nothing for so long is gone."""
MISSING = "nothing that transcribes is installed here: the operator can install it (docs/recordings.md)"


def tell(redis: Redis, worker_id: str, engine: str) -> None:
    """`engine`: its name; "" if there is none. Raises RedisError."""
    now = _now(redis)
    pipe = redis.pipeline(transaction=True)
    pipe.zremrangebyscore(KEY, "-inf", now - KEPT_S)
    pipe.zadd(KEY, {f"{worker_id} {engine}": now})
    pipe.expire(KEY, KEPT_S)
    pipe.execute()


def engines(redis: Redis) -> list[str] | None:
    """Those that workers have; None: no worker serves transcriptions now, so nobody knows. Raises RedisError."""
    told = cast("list[bytes]", redis.zrangebyscore(KEY, _now(redis) - KEPT_S, "+inf"))
    names = {one.decode(errors="replace").partition(" ")[2] for one in told}
    return sorted(names - {""}) if told else None


def are_missing(redis: Redis) -> bool:
    """There are workers, and none can. Raises RedisError."""
    return engines(redis) == []


def _now(redis: Redis) -> int:
    return int(redis.time()[0])
