"""The members of conferences in Redis: of each conference a hash, its members' ids -> JSON.

Beside the conference's own field, so that what changes with one who joins, talks or leaves is written, and not all the
others who are in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redis import RedisError, ResponseError

from ari_conf.core.member import Member
from ari_conf.fenced import Part
from ari_conf.lanes import PREFIX
from ari_conf.written import encoded, joined

READ_AT_ONCE = 100
MOST_KEYS = 1000
"""Of a command."""


def members_key(conference_id: str) -> str:
    return f"{PREFIX}members:{conference_id}"


def texts(members: Mapping[int, Member | None]) -> dict[int, bytes | None]:
    """As they are written; None: one is gone."""
    return {id: None if member is None else encoded(member) for id, member in members.items()}


def commands(changed: Mapping[str, Mapping[int, Member | None]], ended: Sequence[str]) -> list[Sequence[Part]]:
    """As `commands_of`, of the members as they are now."""
    return commands_of({conference_id: texts(members) for conference_id, members in changed.items()}, ended)


def commands_of(changed: Mapping[str, Mapping[int, bytes | None]], ended: Sequence[str]) -> list[Sequence[Part]]:
    """What writes these members' texts by their conferences' ids, None: one is gone; and forgets those of conferences
    that have ended. Other ids among `ended` do no harm."""
    found = list[Sequence[Part]]()
    for conference_id, members in changed.items():
        key = members_key(conference_id)
        if kept := [part for id, text in members.items() if text is not None for part in (id, text)]:
            found.append(("HSET", key, *kept))
        if gone := [id for id, text in members.items() if text is None]:
            found.append(("HDEL", key, *gone))
    return [*found, *(("DEL", *some) for some in _keys(ended))]


def forget(pipe: Any, conference_ids: Sequence[str]) -> None:
    for some in _keys(conference_ids):
        pipe.delete(*some)


def _keys(conference_ids: Sequence[str]) -> Iterator[list[str]]:
    for first in range(0, len(conference_ids), MOST_KEYS):
        yield [members_key(conference_id) for conference_id in conference_ids[first : first + MOST_KEYS]]


async def whole(redis: Any, conferences: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Of each conference (id -> its field) all of its JSON; nobody may be writing it."""
    found: dict[bytes, bytes] = {}
    ids = list(conferences)
    for first in range(0, len(ids), READ_AT_ONCE):
        some = ids[first : first + READ_AT_ONCE]
        pipe = redis.pipeline(transaction=False)
        for conference_id in some:
            pipe.hgetall(members_key(conference_id.decode(errors="replace")))
        for conference_id, members in zip(some, await pipe.execute(raise_on_error=False), strict=True):
            found[conference_id] = _joined(conferences[conference_id], members)
    return found


async def each(redis: Any, ids: Sequence[str]) -> dict[str, dict[bytes, bytes]]:
    """What stands where the members of these would be, by their ids."""
    found: dict[str, dict[bytes, bytes]] = {}
    for first in range(0, len(ids), READ_AT_ONCE):
        some = ids[first : first + READ_AT_ONCE]
        pipe = redis.pipeline(transaction=False)
        for id in some:
            pipe.hgetall(members_key(id))
        for id, members in zip(some, await pipe.execute(raise_on_error=False), strict=True):
            if isinstance(members, RedisError) and not isinstance(members, ResponseError):
                raise members
            found[id] = members if isinstance(members, dict) else {}
    return found


async def read(redis: Any, state: str, conference_ids: Sequence[str]) -> list[bytes | None]:
    """The same of these, as they are in one moment, whoever writes them meanwhile; None: there is none. `state` is the
    key of their Asterisk's state."""
    if not conference_ids:
        return []
    pipe = redis.pipeline(transaction=True)
    pipe.hmget(state, conference_ids)
    for conference_id in conference_ids:
        pipe.hgetall(members_key(conference_id))
    texts, *members = await pipe.execute(raise_on_error=False)
    if isinstance(texts, RedisError):
        raise texts
    return [(text and _joined(text, theirs)) or None for text, theirs in zip(texts, members, strict=True)]


def _joined(conference: bytes, members: Any) -> bytes:
    """Empty if another kind of value stands where its members should be."""
    if isinstance(members, ResponseError):
        return b""
    if isinstance(members, RedisError):
        raise members
    return joined(conference, members)
