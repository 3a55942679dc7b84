"""Owner of a call: the server whose state has the call's record. Redis has no index of calls, so each server's state is
asked; the names of the servers are remembered for a moment."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from ari_conf.store.state_codec import is_conference
from ari_conf.store.state_store import state_key
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources

MAX_ID_CHARS = 100
SERVERS_KEPT_S, REFRESH_S = 10.0, 1.0
"""Seconds for which the names of the servers are remembered; and if none of them has the call."""
SCAN_BATCH = 1000

not_found = ApiError(404, "call not found")

_servers: WeakKeyDictionary[Any, tuple[float, list[str]]] = WeakKeyDictionary()
"""Redis client -> time of the search, and names of the servers that were found."""


class _Owned(msgspec.Struct, frozen=True):
    auth_id: str


async def get_owner(resources: Resources, auth_id: str, call_uuid: str) -> str:
    """Return the name of the server that has the account's call. Raises ApiError 404 if none has, and RedisError."""
    redis: Any = resources.redis
    if not 0 < len(call_uuid) <= MAX_ID_CHARS:
        raise not_found
    for max_age_s in (SERVERS_KEPT_S, REFRESH_S):
        names = await _server_names(redis, max_age_s)
        pipe = redis.pipeline(transaction=False)
        for name in names:
            pipe.hget(state_key(name), call_uuid)
        for name, text in zip(names, await pipe.execute() if names else [], strict=True):
            if text is not None and not is_conference(text) and _is_of(text, auth_id):
                return name
    raise not_found


async def _server_names(redis: Any, max_age_s: float) -> list[str]:
    at, names = _servers.get(redis, (float("-inf"), []))
    if time.monotonic() - at > max_age_s:
        keys = [key async for key in redis.scan_iter(match=state_key("*"), count=SCAN_BATCH, _type="hash")]
        names = sorted(key.decode(errors="replace").removeprefix(state_key("")) for key in keys)
        _servers[redis] = time.monotonic(), names
    return names


def _is_of(text: bytes, auth_id: str) -> bool:
    try:
        return msgspec.json.decode(text, type=_Owned).auth_id == auth_id
    except (ValueError, RecursionError):
        return False
