"""Conference queries: names from Redis, and the state that the owner writes there in each step."""

from __future__ import annotations

from typing import Any

from ari_conf.store.state_store import names_key, parse_name_owner
from ari_conf.web.async_calls import now_ms
from ari_conf.web.conference_view import read_views
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources

MAX_NAME_CHARS = 200

not_found = ApiError(404, "conference not found")


async def list_names(resources: Resources, auth_id: str) -> list[str]:
    redis: Any = resources.redis
    return sorted(name.decode() for name in await redis.hkeys(names_key(auth_id)))


async def list_owners(resources: Resources, auth_id: str) -> list[tuple[str, str]]:
    """Return (name, owner) of each conference of the account."""
    redis: Any = resources.redis
    found = await redis.hgetall(names_key(auth_id))
    return [(name.decode(), parse_name_owner(text)[1]) for name, text in found.items()]


async def get_owner(resources: Resources, auth_id: str, name: str) -> tuple[str, str]:
    """Return (conference id, owner) of a conference. Raises ApiError 404 if the name is unknown."""
    redis: Any = resources.redis
    found = await redis.hget(names_key(auth_id), name) if len(name) <= MAX_NAME_CHARS else None
    if found is None:
        raise not_found
    return parse_name_owner(found)


async def get_conference(resources: Resources, auth_id: str, name: str) -> dict[str, Any]:
    """Return a conference in the format of the API. Raises ApiError 404 if it does not exist or has no members."""
    conference_id, asterisk = await get_owner(resources, auth_id, name)
    found = await read_views(resources.redis, asterisk, auth_id, [conference_id], {})
    if not found:
        raise not_found
    return found[0].to_api(await now_ms(resources.redis))
