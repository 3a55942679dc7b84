"""Members of conferences in Redis: one hash for each conference, member id -> JSON.

They are not part of the conference's own field, so that a member who joins, talks or leaves is written without all the
other members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from redis import RedisError, ResponseError

from ari_conf.common.redis_keys import PREFIX
from ari_conf.core.conferences.member import Member
from ari_conf.store.redis_script import Part
from ari_conf.store.state_codec import encode, merge_members

READ_BATCH = 100
MAX_KEYS = 1000
"""Maximum keys of one command."""


def members_key(conference_id: str) -> str:
    return f"{PREFIX}members:{conference_id}"


def texts(members: Mapping[int, Member | None]) -> dict[int, bytes | None]:
    """Return the members as JSON; None stands for a member who has left."""
    return {id: None if member is None else encode(member) for id, member in members.items()}


def write_commands(changed: Mapping[str, Mapping[int, Member | None]], ended: Sequence[str]) -> list[Sequence[Part]]:
    """Return the commands of `commands_of` for the members as they are now."""
    return commands_of({conference_id: texts(members) for conference_id, members in changed.items()}, ended)


def commands_of(changed: Mapping[str, Mapping[int, bytes | None]], ended: Sequence[str]) -> list[Sequence[Part]]:
    """Return the commands that write members and delete those of ended conferences.

    `changed`: conference id -> member id -> JSON; None stands for a member who has left. `ended` may have other ids."""
    found = list[Sequence[Part]]()
    for conference_id, members in changed.items():
        key = members_key(conference_id)
        if kept := [part for id, text in members.items() if text is not None for part in (id, text)]:
            found.append(("HSET", key, *kept))
        if gone := [id for id, text in members.items() if text is None]:
            found.append(("HDEL", key, *gone))
    return [*found, *(("DEL", *some) for some in _keys(ended))]


def delete(pipe: Any, conference_ids: Sequence[str]) -> None:
    for some in _keys(conference_ids):
        pipe.delete(*some)


def _keys(conference_ids: Sequence[str]) -> Iterator[list[str]]:
    for first in range(0, len(conference_ids), MAX_KEYS):
        yield [members_key(conference_id) for conference_id in conference_ids[first : first + MAX_KEYS]]


async def load_full(redis: Any, conferences: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the complete JSON of conferences, given as id -> field. No process may be writing them."""
    found: dict[bytes, bytes] = {}
    ids = list(conferences)
    for first in range(0, len(ids), READ_BATCH):
        some = ids[first : first + READ_BATCH]
        pipe = redis.pipeline(transaction=False)
        for conference_id in some:
            pipe.hgetall(members_key(conference_id.decode(errors="replace")))
        for conference_id, members in zip(some, await pipe.execute(raise_on_error=False), strict=True):
            found[conference_id] = _joined(conferences[conference_id], members)
    return found


async def each(redis: Any, ids: Sequence[str]) -> dict[str, dict[bytes, bytes]]:
    """Return the hash of members of each conference id; empty if the key has another type."""
    found: dict[str, dict[bytes, bytes]] = {}
    for first in range(0, len(ids), READ_BATCH):
        some = ids[first : first + READ_BATCH]
        pipe = redis.pipeline(transaction=False)
        for id in some:
            pipe.hgetall(members_key(id))
        for id, members in zip(some, await pipe.execute(raise_on_error=False), strict=True):
            if isinstance(members, RedisError) and not isinstance(members, ResponseError):
                raise members
            found[id] = members if isinstance(members, dict) else {}
    return found


async def read_consistent(redis: Any, state: str, conference_ids: Sequence[str]) -> list[bytes | None]:
    """Return the complete JSON of conferences at one moment, even if a server is writing them.

    None: the conference does not exist, or its members can't be read. `state` is the key of their Asterisk's state."""
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
    """Return the conference with its members; empty if the key of its members has another type."""
    if isinstance(members, ResponseError):
        return b""
    if isinstance(members, RedisError):
        raise members
    return merge_members(conference, members)
