"""Redis script on a connection of its own: one round trip and one answer for each run.

redis-py's own way, a transaction of commands, takes an answer for each of them. With hiredis' packing and one answer,
the server takes a third of that time for each step that it writes (docs/development/performance.md).
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


class RedisScript:
    """Script that is run once at a time: the caller waits for the answer before the next run."""

    def __init__(self, client: redis.asyncio.Redis, script: str) -> None:
        self._pool: Any = client.connection_pool
        self._script = script
        self._sha = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._connection: Any = None
        self._answer_timeout_s: float | None = None

    async def run(self, keys: Sequence[str], arguments: Sequence[Part]) -> Any:
        """Run the script, and return its answer.

        Raises ResponseError if Redis refuses it. After RedisError or TimeoutError, Redis may have run it."""
        parts = (len(keys), *keys, *arguments)
        try:
            if self._connection is None:
                self._connection = await self._pool.get_connection()
                # redis-py's own timeout takes a task and a timer for each request and for each answer.
                self._answer_timeout_s = self._connection.socket_timeout
                self._connection.socket_timeout = None
            async with asyncio.timeout(self._answer_timeout_s):
                try:
                    return await self._send("EVALSHA", self._sha, parts)
                except NoScriptError:  # Redis was restarted in the meantime
                    return await self._send("EVAL", self._script, parts)
        except ResponseError:
            raise
        except BaseException:  # it is unknown what is still to be read from the connection
            await self.close()
            raise

    async def _send(self, command: str, script: str, parts: tuple[Part, ...]) -> Any:
        """Send EVAL with the script's text, or EVALSHA with its hash, and return the answer."""
        # Its type stub allows only one part.
        packed = hiredis.pack_command(cast(Any, (command, script, *parts)))
        await self._connection.send_packed_command(packed, check_health=False)
        return await self._connection.read_response()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.socket_timeout = self._answer_timeout_s
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)
