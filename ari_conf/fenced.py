"""A script of Redis' that only its owner's word runs: one round trip, and one answer, on a connection of its own.

redis-py's own way, a transaction of commands, costs an answer for each of them: with hiredis packing and one answer the
application takes a third of that for each step that it writes (docs/performance.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, cast

import hiredis
import redis.asyncio
from redis.exceptions import NoScriptError, ResponseError

Part = str | bytes | int


class Fenced:
    """One at a time: who asks waits for the answer before he asks again."""

    def __init__(self, client: redis.asyncio.Redis, script: str) -> None:
        self._pool: Any = client.connection_pool
        self._script = script
        self._sha = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._connection: Any = None
        self._answer_s: float | None = None

    async def run(self, keys: Sequence[str], arguments: Sequence[Part]) -> Any:
        """Its answer. Raises ResponseError if Redis says no; RedisError or TimeoutError: it may have done it."""
        parts = (len(keys), *keys, *arguments)
        try:
            if self._connection is None:
                self._connection = await self._pool.get_connection()
                # Its own way takes a task and a timer for each half of a question.
                self._answer_s, self._connection.socket_timeout = self._connection.socket_timeout, None
            async with asyncio.timeout(self._answer_s):
                try:
                    return await self._ask("EVALSHA", self._sha, parts)
                except NoScriptError:  # Redis was started meanwhile
                    return await self._ask("EVAL", self._script, parts)
        except ResponseError:
            raise
        except BaseException:  # whatever is still to be read there is no longer known
            await self.close()
            raise

    async def _ask(self, command: str, what: str, parts: tuple[Part, ...]) -> Any:
        # Its stub says that it takes one part.
        packed = hiredis.pack_command(cast(Any, (command, what, *parts)))
        await self._connection.send_packed_command(packed, check_health=False)
        return await self._connection.read_response()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.socket_timeout = self._answer_s
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
