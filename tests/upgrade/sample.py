"""Sample of a release's state: all keys in Redis, what Asterisk had, and what happened before, as JSON.

The values are written as text, not in Redis' own format, so that every version of Redis and Valkey can load them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from redis import Redis

SAMPLES = Path(__file__).parent / "samples"
PORT = 18931
"""Port of the application in the samples, which have its URLs. It is outside the range of free ports."""
EPOCH_MS = re.compile(r"(?<![\d.])1[789]\d{11}(?!\d)")
"""Time of this century's second to fourth decade in epoch milliseconds."""


def dump(redis: Redis) -> list[dict[str, Any]]:
    """Return all keys with their types, values and remaining lifetimes, in the order of their names."""
    client: Any = redis
    found = []
    for key in sorted(client.scan_iter("*", count=1000)):
        kind = client.type(key).decode()
        ttl_ms = client.pttl(key)
        if kind != "none":
            value = _read(client, key, kind)
            found.append({"key": key.decode(), "type": kind, "ttl_ms": max(0, ttl_ms), "value": value})
    return found


def load(redis: Redis, keys: list[dict[str, Any]], shift_ms: int) -> None:
    """Write keys to an empty Redis, as if they had been written `shift_ms` milliseconds later."""

    def shifted(text: str) -> str:
        return EPOCH_MS.sub(lambda found: str(int(found[0]) + shift_ms), text)

    client: Any = redis
    for key in json.loads(shifted(json.dumps(keys))):
        if key["key"].startswith("ari_conf:clock:"):
            # Taken on another machine: this machine's time since its boot was not moved.
            key["value"]["boot"] = "of another machine"
        _write(client, key["key"], key["type"], key["value"])
        if key["ttl_ms"]:
            client.pexpire(key["key"], key["ttl_ms"])


def _read(client: Any, key: bytes, kind: str) -> Any:
    match kind:
        case "string":
            return client.get(key).decode()
        case "list":
            return [item.decode() for item in client.lrange(key, 0, -1)]
        case "set":
            return sorted(item.decode() for item in client.smembers(key))
        case "hash":
            return {name.decode(): value.decode() for name, value in sorted(client.hgetall(key).items())}
        case "zset":
            return [[item.decode(), _number(score)] for item, score in client.zrange(key, 0, -1, withscores=True)]
        case "stream":
            return [
                [id.decode(), {name.decode(): value.decode() for name, value in fields.items()}]
                for id, fields in client.xrange(key)
            ]
    raise TypeError(f"{key.decode()} has the type {kind}, which samples do not know")


def _number(score: float) -> int | float:
    return int(score) if score.is_integer() else score


def _write(client: Any, key: str, kind: str, value: Any) -> None:
    match kind:
        case "string":
            client.set(key, value)
        case "list":
            client.rpush(key, *value)
        case "set":
            client.sadd(key, *value)
        case "hash":
            client.hset(key, mapping=value)
        case "zset":
            client.zadd(key, dict(value))
        case "stream":
            for id, fields in value:
                client.xadd(key, fields, id=id)
