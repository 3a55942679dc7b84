"""Call queries: the server that owns a live call, from the state that each owner writes to Redis."""

from __future__ import annotations

from typing import Any

import msgspec

from ari_conf.store.state_codec import is_conference
from ari_conf.store.state_store import state_key
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources

MAX_UUID_CHARS = 64
KNOWN_FOR_S = 60.0
"""Seconds for which the list of Asterisks counts as current."""
REFRESH_S = 2.0
"""Seconds after which the list is read again for a call that is on none of them: Redis looks through all of its keys
for it, and calls that have ended are asked for all the time."""

not_found = ApiError(404, "call not found: it has ended, or the account has no such call")


class _Owned(msgspec.Struct, frozen=True):
    auth_id: str


async def get_owner(resources: Resources, auth_id: str, call_uuid: str) -> str:
    """Return the name of the Asterisk that has the account's call. Raises ApiError 404 if there is none."""
    asterisks, redis = resources.asterisks, resources.redis
    if not call_uuid or len(call_uuid) > MAX_UUID_CHARS:
        raise not_found
    await asterisks.refresh(redis, KNOWN_FOR_S)
    owner = await _find(redis, asterisks.names, auth_id, call_uuid)
    if owner is None and await asterisks.refresh(redis, REFRESH_S):
        owner = await _find(redis, asterisks.names, auth_id, call_uuid)
    if owner is None:
        raise not_found
    return owner


async def _find(redis: Any, names: list[str], auth_id: str, call_uuid: str) -> str | None:
    pipe = redis.pipeline(transaction=False)
    for name in names:
        pipe.hget(state_key(name), call_uuid)
    for name, text in zip(names, await pipe.execute() if names else (), strict=True):
        if text is not None and not is_conference(text) and _is_of(text, auth_id):
            return name
    return None


def _is_of(text: bytes, auth_id: str) -> bool:
    try:
        return msgspec.json.decode(text, type=_Owned).auth_id == auth_id
    except (ValueError, RecursionError):
        return False
