"""Transactions that Redis does only as long as a key holds what it should: one round trip each.

WATCH makes EXEC fail if the key was touched since. So that this costs no further round trip, the key is watched and
read again in the same breath as each transaction, for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import redis.asyncio
from redis.exceptions import ResponseError

from ari_conf.errors import LeaseLost, StoreUnavailable

Command = Sequence[Any]


class Fenced:
    """On a connection of its own; one transaction at a time."""

    def __init__(self, client: redis.asyncio.Redis, key: str) -> None:
        self._pool: Any = client.connection_pool
        self._key = key
        self._connection: Any = None
        self._armed = False
        self._held: bytes | None = None
        """What the key holds, watched; if armed."""

    async def execute(self, commands: Iterable[Command], token: str) -> list[Any]:
        """What each was answered. Raises LeaseLost, StoreUnavailable, RedisError; then nothing was done, or after a
        lost answer all of it."""
        try:
            return await self._execute(list(commands), token.encode())
        except (LeaseLost, StoreUnavailable):
            raise
        except BaseException:  # whatever is still to be read there is no longer known
            await self._drop()
            raise

    async def _execute(self, commands: list[Command], token: bytes) -> list[Any]:
        connection = await self._ready()
        self._judge(token)
        self._armed = False
        watch = [("WATCH", self._key), ("GET", self._key)]
        await connection.send_packed_command(connection.pack_commands([("MULTI",), *commands, ("EXEC",), *watch]))
        refused = [error for _ in range(len(commands) + 1) if (error := await self._queued(connection))]
        try:
            answers = await connection.read_response()
        except ResponseError as error:
            refused.append(error)
        await self._watched(connection)
        if refused:
            raise refused[0]
        if answers is None:
            self._judge(token)
            raise StoreUnavailable("Redis has had the lease written meanwhile: try again")
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return cast("list[Any]", answers)

    async def _ready(self) -> Any:
        if self._connection is None:
            self._connection = await self._pool.get_connection()
            self._armed = False
        if not self._armed:
            connection = self._connection
            watch = [("UNWATCH",), ("WATCH", self._key), ("GET", self._key)]
            await connection.send_packed_command(connection.pack_commands(watch))
            await connection.read_response()
            await self._watched(connection)
        return self._connection

    async def _watched(self, connection: Any) -> None:
        await connection.read_response()
        self._held = await connection.read_response()
        self._armed = True

    def _judge(self, token: bytes) -> None:
        if self._held == token:
            return
        self._armed = False
        if self._held is None:
            raise StoreUnavailable("Redis has forgotten whose the calls are: it is about to be told")
        raise LeaseLost("another process has taken over")

    async def _queued(self, connection: Any) -> ResponseError | None:
        try:
            await connection.read_response()
        except ResponseError as error:
            return error
        return None

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    async def close(self) -> None:
        await self._drop()
