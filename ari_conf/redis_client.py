"""Clients of Redis: what their errors mean, and how they find the new primary after a failover.

An address may lead to another server from one moment to the next: a name, a virtual IP, a proxy. Connections that are
there stay with the old server, which is a replica now and refuses each write. So a connection that hears this is
closed, and its client's others with it: the next request opens a new one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import redis
import redis.asyncio
from redis import RedisError, ResponseError

PASSES = {
    "BUSY": "Redis is busy with a script that takes too long: it goes on when that ends (`redis-cli script kill`)",
    "CLUSTERDOWN": "the Redis cluster is down: bring it up again",
    "LOADING": "Redis is starting and reads its data: it goes on when that is done",
    "MASTERDOWN": "this Redis is a replica that has lost its primary: point ARI_CONF_REDIS_URL at the primary",
    "MISCONF": "Redis can't write to its disk: free space there, or see Redis' log",
    "NOAUTH": "Redis asks for a password: put it into ARI_CONF_REDIS_URL",
    "NOPERM": "Redis' ACL forbids a command: allow this user all commands on ari_conf:*, and Celery's queues",
    "NOREPLICAS": "Redis has fewer replicas than min-replicas-to-write asks for: start them, or lower it",
    "OOM": "Redis' memory is full: raise maxmemory, or remove keys of others",
    "READONLY": "this Redis is a replica, which can't be written: the primary is looked for under the same address",
    "TRYAGAIN": "Redis is moving keys: it goes on when that is done",
    "UNBLOCKED": "this Redis has become a replica: the primary is looked for under the same address",
    "UNKILLABLE": "Redis is busy with a script that can't be stopped: see Redis' log",
    "WRONGPASS": "Redis refuses the password: correct the one in ARI_CONF_REDIS_URL",
}
"""What Redis answers while it can't do what it is asked for -> what that means, and what to do."""
LEFT = ("READONLY", "MASTERDOWN", "UNBLOCKED")
"""A connection that hears one of these is with a server that is the primary no more."""
# Redis 6 puts what went wrong in a script behind words of its own.
_IN_A_SCRIPT = re.compile(rf"\b({'|'.join(PASSES)})\b")


def code_of(error: BaseException) -> str:
    """The word with which Redis begins an error, such as WRONGTYPE; "" if Redis didn't say this."""
    if not isinstance(error, RedisError):
        return ""
    if error.status_code:
        return error.status_code
    if not isinstance(error, ResponseError):
        return ""
    first = str(error).partition(" ")[0].lstrip("-")
    if first == "ERR" and (found := _IN_A_SCRIPT.search(str(error))):
        return found[1]
    return first


def is_refused(error: BaseException) -> bool:
    """Redis is there, and would refuse the same thing again."""
    return isinstance(error, ResponseError) and code_of(error) not in PASSES


def why(error: BaseException) -> str:
    """What is wrong with Redis, and what to do."""
    code = code_of(error)
    return PASSES.get(code) or f"Redis can't be used: {f'{code} {error}'.strip() or type(error).__name__}"


def following(client: redis.asyncio.Redis) -> redis.asyncio.Redis:
    """It leaves a server that is the primary no more, with all of its connections; and a task that uses it can be
    cancelled at any time: `asyncio.wait_for`, in which redis-py sends, forgets that in Python 3.11 if it is done just
    then, and the task would go on."""
    pool: Any = client.connection_pool

    class Following(pool.connection_class):  # type: ignore[misc]
        async def connect(self, *given: Any, **named: Any) -> None:
            await self._cancellable(super().connect(*given, **named))

        async def send_packed_command(self, *given: Any, **named: Any) -> None:
            await self._cancellable(super().send_packed_command(*given, **named))

        async def read_response(self, *given: Any, **named: Any) -> Any:
            try:
                return await super().read_response(*given, **named)
            except ResponseError as error:
                if code_of(error) in LEFT:
                    await self.disconnect(nowait=True)
                    await pool.disconnect()
                raise

        async def _cancellable(self, work: Coroutine[Any, Any, None]) -> None:
            task = asyncio.current_task()
            before = task.cancelling() if task else 0
            await work
            if task and task.cancelling() > before:
                await self.disconnect(nowait=True)
                raise asyncio.CancelledError

    pool.connection_class = Following
    return client


def following_in_threads(client: redis.Redis) -> redis.Redis:
    """The same of a client that blocks. What another thread is using closes when that hears of it itself."""
    pool: Any = client.connection_pool

    class Following(pool.connection_class):  # type: ignore[misc]
        def read_response(self, *given: Any, **named: Any) -> Any:
            try:
                return super().read_response(*given, **named)
            except ResponseError as error:
                if code_of(error) in LEFT:
                    self.disconnect()
                    pool.disconnect(inuse_connections=False)
                raise

    pool.connection_class = Following
    return client
