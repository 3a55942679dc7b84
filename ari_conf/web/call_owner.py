"""Owner of a call: the server whose state has the call's record. Redis has no index of calls, so each server's state is
asked; the names of the servers are remembered for a moment."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

from ari_conf.common.redis_keys import PREFIX
from ari_conf.ownership.lease import lease_key
from ari_conf.store.state_store import state_key
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources

MAX_ID_CHARS = 100
SERVERS_KEPT_S = 10.0
SCAN_BATCH = 1000

not_found = ApiError(404, "call not found")

_servers: WeakKeyDictionary[Any, tuple[float, list[str]]] = WeakKeyDictionary()
"""Redis client -> time of the search, and names of the servers that were found."""


async def find(resources: Resources, call_uuid: str) -> str:
    """Return the name of the server that has the call. Raises ApiError 404 if none has, and RedisError.

    The server checks the call's account."""
    redis: Any = resources.redis
    if not 0 < len(call_uuid) <= MAX_ID_CHARS:
        raise not_found
    for fresh in (False, True):
        names, searched = await _server_names(redis, fresh=fresh)
        pipe = redis.pipeline(transaction=False)
        for name in names:
            pipe.hexists(state_key(name), call_uuid)
        for name, found in zip(names, await pipe.execute() if names else [], strict=True):
            if found:
                return name
        if searched:
            break
    raise not_found


async def _server_names(redis: Any, *, fresh: bool) -> tuple[list[str], bool]:
    """Return the names of the servers, and whether they were searched for just now."""
    at, names = _servers.get(redis, (float("-inf"), []))
    age = time.monotonic() - at
    if age < SERVERS_KEPT_S and not (fresh and age > 1.0):
        return names, fresh
    pattern = f"{PREFIX}lease:*"
    keys = [key.decode(errors="replace") async for key in redis.scan_iter(match=pattern, count=SCAN_BATCH)]
    names = sorted(key.removeprefix(lease_key("")) for key in keys)
    _servers[redis] = time.monotonic(), names
    return names, True
