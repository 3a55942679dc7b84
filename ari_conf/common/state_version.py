"""Version of the persisted state: one number in Redis for the names and contents of all keys.

The first process writes the number, and each process compares it with its own before it reads or writes anything else:
an older release must not read the state of a newer one, nor write beside it.

A release that changes the names or contents of keys raises VERSION, and brings a migration: the first of its processes
that finds the previous number converts the state, and writes the new number in the same transaction. `require` is the
place for that. There has been no other version yet, so a lower number is refused, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import redis.asyncio
from redis import Redis, RedisError, ResponseError

from ari_conf.common.redis_client import code_of, connect_in_threads
from ari_conf.common.redis_keys import STATE_VERSION_KEY
from ari_conf.errors import StateVersionRefused

VERSION = 1
TIMEOUT_S = 2.0


def check(client: Redis) -> None:
    """Write the version if Redis has none. Raises StateVersionRefused if it has another one, and RedisError."""
    found = _read(client)
    if found is None:
        client.set(STATE_VERSION_KEY, VERSION, nx=True)
        found = _read(client)
    require(found)


async def check_async(client: redis.asyncio.Redis) -> None:
    """Do the same with an asyncio client."""
    try:
        found = cast("bytes | None", await client.get(STATE_VERSION_KEY))
        if found is None:
            await client.set(STATE_VERSION_KEY, VERSION, nx=True)
            found = cast("bytes | None", await client.get(STATE_VERSION_KEY))
    except ResponseError as error:
        raise _meaning(error) from None
    require(found)


def check_at_start(url: str) -> None:
    """Check before a process starts. Raises StateVersionRefused.

    An unreachable Redis prevents no start: the process checks again as soon as it reaches Redis."""
    client = connect_in_threads(url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, retry=None)
    with client, suppress(RedisError, OSError):
        check(client)


def read(client: Redis) -> int | None:
    """Return the version in Redis, None without one. Raises StateVersionRefused for another one, and RedisError."""
    found = _read(client)
    if found is not None:
        require(found)
    return None if found is None else VERSION


def require(found: bytes | None) -> None:
    """Raise StateVersionRefused unless this release reads the state of the version that was found."""
    text = (found or b"").decode(errors="replace")
    if not (text.isascii() and text.isdigit()):
        raise _unreadable(f"contains {text!r:.80}")
    version = int(text[:20])
    if version > VERSION:
        raise StateVersionRefused(
            f"the state in Redis has version {version}, which a newer ari_conf has written, and this one needs version "
            f"{VERSION}: upgrade this process"
        )
    if version < VERSION:
        raise StateVersionRefused(
            f"the state in Redis has version {version}, and this ari_conf needs version {VERSION}, without a migration "
            "from that one: use the release that wrote it, or another database of Redis"
        )


def _read(client: Any) -> bytes | None:
    try:
        return cast("bytes | None", client.get(STATE_VERSION_KEY))
    except ResponseError as error:
        raise _meaning(error) from None


def _meaning(error: ResponseError) -> Exception:
    return _unreadable("has another type") if code_of(error) == "WRONGTYPE" else error


def _unreadable(what: str) -> StateVersionRefused:
    return StateVersionRefused(
        f"{STATE_VERSION_KEY} in Redis {what}, instead of a number: set it to the version of the state there, which is "
        f"{VERSION} if this ari_conf has written it"
    )
