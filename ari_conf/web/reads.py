"""Conferences as Redis has them: the names, and the state that the owner writes at each step."""

from __future__ import annotations

from typing import Any

from ari_conf import member_fields
from ari_conf.store import holder, names_key, state_key
from ari_conf.web import live
from ari_conf.web.errors import Refused
from ari_conf.web.feeds import CALLS_AT_ONCE
from ari_conf.web.later import now_ms
from ari_conf.web.parts import Parts

MOST_OF_A_NAME = 200

not_found = Refused(404, "conference not found")


async def names(parts: Parts, auth_id: str) -> list[str]:
    redis: Any = parts.redis
    return sorted(name.decode() for name in await redis.hkeys(names_key(auth_id)))


async def owners(parts: Parts, auth_id: str) -> list[tuple[str, str]]:
    """(name, owner) of each conference of the account."""
    redis: Any = parts.redis
    found = await redis.hgetall(names_key(auth_id))
    return [(name.decode(), holder(text)[1]) for name, text in found.items()]


async def owner(parts: Parts, auth_id: str, name: str) -> tuple[str, str]:
    """(conference id, owner). Raises Refused 404."""
    redis: Any = parts.redis
    found = await redis.hget(names_key(auth_id), name) if len(name) <= MOST_OF_A_NAME else None
    if found is None:
        raise not_found
    return holder(found)


async def conference(parts: Parts, auth_id: str, name: str) -> dict[str, Any]:
    """As the API tells of it. Raises Refused 404."""
    conference_id, asterisk = await owner(parts, auth_id, name)
    redis: Any = parts.redis
    key = state_key(asterisk)
    (text,) = await member_fields.read(redis, key, [conference_id])
    found = live.readable(text)
    members = live.present(found) if found and found["auth_id"] == auth_id else []
    if not found or not members:
        raise not_found
    now, told = await now_ms(redis), []
    for first in range(0, len(members), CALLS_AT_ONCE):
        some = members[first : first + CALLS_AT_ONCE]
        calls = await redis.hmget(key, [m["call_uuid"] for m in some])
        told += [_member(m, call, now) for m, text in zip(some, calls, strict=True) if (call := live.call(text))]
    return {
        "conference_name": found["name"],
        "conference_run_time": _seconds(now - found["created_at"]),
        "conference_member_count": str(len(told)),
        "conference_uuid": conference_id,
        "started": found["started"],
        "locked": found["locked"],
        "members": told,
    }


def _member(member: live.Shot, call: live.Shot, now: float) -> dict[str, Any]:
    return {
        "member_id": str(member["member_id"]),
        "muted": member["muted"],
        "deaf": member["deaf"],
        "held": member["held"],
        "from": call["from_"].removeprefix("+"),
        "to": call["to"].removeprefix("+"),
        "caller_name": call["caller_name"],
        "direction": call["direction"],
        "call_uuid": member["call_uuid"],
        "join_time": _seconds(now - member["joined_at"]),
    }


def _seconds(ms: float) -> str:
    return str(max(0, int(ms // 1000)))
