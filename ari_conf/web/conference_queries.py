"""Conference queries: names from Redis, and the state that the owner writes there in each step."""

from __future__ import annotations

from typing import Any

from ari_conf.store import members as member_fields
from ari_conf.store.state_store import names_key, parse_name_owner, state_key
from ari_conf.web import live_view
from ari_conf.web.account_feeds import CALLS_AT_ONCE
from ari_conf.web.async_calls import now_ms
from ari_conf.web.errors import ApiError
from ari_conf.web.resources import Resources

MOST_OF_A_NAME = 200

not_found = ApiError(404, "conference not found")


async def list_names(parts: Resources, auth_id: str) -> list[str]:
    redis: Any = parts.redis
    return sorted(name.decode() for name in await redis.hkeys(names_key(auth_id)))


async def list_owners(parts: Resources, auth_id: str) -> list[tuple[str, str]]:
    """Return (name, owner) of each conference of the account."""
    redis: Any = parts.redis
    found = await redis.hgetall(names_key(auth_id))
    return [(name.decode(), parse_name_owner(text)[1]) for name, text in found.items()]


async def get_owner(parts: Resources, auth_id: str, name: str) -> tuple[str, str]:
    """Return (conference id, owner) of a conference. Raises ApiError 404 if the name is unknown."""
    redis: Any = parts.redis
    found = await redis.hget(names_key(auth_id), name) if len(name) <= MOST_OF_A_NAME else None
    if found is None:
        raise not_found
    return parse_name_owner(found)


async def get_conference(parts: Resources, auth_id: str, name: str) -> dict[str, Any]:
    """Return a conference in the format of the API. Raises ApiError 404 if it does not exist or has no members."""
    conference_id, asterisk = await get_owner(parts, auth_id, name)
    redis: Any = parts.redis
    key = state_key(asterisk)
    (text,) = await member_fields.read_consistent(redis, key, [conference_id])
    found = live_view.readable(text)
    members = live_view.present_members(found) if found and found["auth_id"] == auth_id else []
    if not found or not members:
        raise not_found
    now, told = await now_ms(redis), []
    for first in range(0, len(members), CALLS_AT_ONCE):
        some = members[first : first + CALLS_AT_ONCE]
        calls = await redis.hmget(key, [m["call_uuid"] for m in some])
        told += [_member(m, call, now) for m, text in zip(some, calls, strict=True) if (call := live_view.call(text))]
    return {
        "conference_name": found["name"],
        "conference_run_time": _seconds(now - found["created_at"]),
        "conference_member_count": str(len(told)),
        "conference_uuid": conference_id,
        "started": found["started"],
        "locked": found["locked"],
        "members": told,
    }


def _member(member: live_view.StateRecord, call: live_view.StateRecord, now: float) -> dict[str, Any]:
    return {
        "member_id": str(member["member_id"]),
        "muted": member["muted"],
        "deaf": member["deaf"],
        "held": member["hold_requested"],
        "from": call["from_"].removeprefix("+"),
        "to": call["to"].removeprefix("+"),
        "caller_name": call["caller_name"],
        "direction": call["direction"],
        "call_uuid": member["call_uuid"],
        "join_time": _seconds(now - member["joined_at"]),
    }


def _seconds(ms: float) -> str:
    return str(max(0, int(ms // 1000)))
