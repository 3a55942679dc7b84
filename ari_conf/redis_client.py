"""Clients of Redis: what their errors mean, and how they find the new primary after a failover.

An address may lead to another server from one moment to the next: a name, a virtual IP, a proxy. Connections that are
there stay with the old server, which is a replica now and refuses each write. So a connection that hears this is
closed, and its client's others with it: the next request opens a new one.

Every client is made here, of the URL as `redis_url` reads it: TLS, sockets, users and Sentinels mean the same for all.
With Sentinels, each new connection first asks them which Redis is the primary.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from typing import Any

import redis
import redis.asyncio
from redis import RedisError, ResponseError

from ari_conf import redis_url
from ari_conf.redis_url import SENTINEL_OPTIONS, RedisUrl

PASSES = {
    "BUSY": "Redis is busy with a script that takes too long: it goes on when that ends (`redis-cli script kill`)",
    "CLUSTERDOWN": "the Redis cluster is down: bring it up again",
    "LOADING": "Redis is starting and reads its data: it goes on when that is done",
    "MASTERDOWN": "this Redis is a replica that has lost its primary: point ARI_CONF_REDIS_URL at the primary",
    "MISCONF": "Redis can't write to its disk: free space there, or see Redis' log",
    "NOAUTH": "Redis asks for a password: put it into ARI_CONF_REDIS_URL",
    "NOPERM": "Redis' ACL forbids a key, channel or command: give this user the line of docs/operations/redis.md",
    "NOREPLICAS": "Redis has fewer replicas than min-replicas-to-write asks for: start them, or lower it",
    "OOM": "Redis' memory is full: raise maxmemory, or remove keys of others",
    "READONLY": "this Redis is a replica, which can't be written: the primary is looked for under the same address",
    "TRYAGAIN": "Redis is moving keys: it goes on when that is done",
    "UNBLOCKED": "this Redis has become a replica: the primary is looked for under the same address",
    "UNKILLABLE": "Redis is busy with a script that can't be stopped: see Redis' log",
    "WRONGPASS": "Redis refuses the password: correct the one in ARI_CONF_REDIS_URL",
}
"""What Redis answers while it can't do what it is asked for -> what that means, and what to do."""
SENTINEL_S = 1.0
"""For so long one Sentinel is waited for; then the next is asked."""
UNVERIFIED = "CERTIFICATE_VERIFY_FAILED"
"""In what OpenSSL says."""
OF_TCP = ("socket_keepalive", "socket_keepalive_options")
"""Options that a socket of this machine doesn't have."""
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
    return _known(error) or f"Redis can't be used: {f'{code} {error}'.strip() or type(error).__name__}"


def what_to_do(error: BaseException, otherwise: str = "Redis can't be used") -> str:
    """The same for one who has typed a command. `otherwise`: if nothing more is known of the error than its text."""
    return _known(error) or f"{otherwise} ({error}): start it, or correct ARI_CONF_REDIS_URL"


def _known(error: BaseException) -> str | None:
    if UNVERIFIED in str(error):
        return (
            "Redis' certificate can't be verified: name its CA's file in ARI_CONF_REDIS_URL, as ?ssl_ca_certs=FILE, "
            f"and its host as the certificate does ({error})"
        )
    return PASSES.get(code_of(error))


def connect(url: str, **options: Any) -> redis.asyncio.Redis:
    """Of asyncio. `options` are those of redis-py's connections."""
    kind, given = in_asyncio(redis_url.parse(url))
    pool = redis.asyncio.ConnectionPool(connection_class=kind, **fitting(kind, given | options))
    return following(redis.asyncio.Redis.from_pool(pool))


def connect_waiting(url: str, most: int, wait_s: float, **options: Any) -> redis.asyncio.Redis:
    """With `most` connections: more requests than those wait `wait_s` for one."""
    kind, given = in_asyncio(redis_url.parse(url))
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=most, timeout=wait_s, connection_class=kind, **fitting(kind, given | options)
    )
    return following(redis.asyncio.Redis.from_pool(pool))


def connect_in_threads(url: str, **options: Any) -> redis.Redis:
    """One that blocks."""
    kind, given = in_threads(redis_url.parse(url))
    pool = redis.ConnectionPool(connection_class=kind, **fitting(kind, given | options))
    return following_in_threads(redis.Redis.from_pool(pool))


def in_threads(url: RedisUrl) -> tuple[type[Any], dict[str, Any]]:
    """The class of connections that block, and what they are made with."""
    if url.path:
        return redis.UnixDomainSocketConnection, _given(url)
    kind: Any = redis.SSLConnection if url.tls else redis.Connection
    return (_by_sentinels_in_threads(kind, url) if url.service else kind), _given(url)


def in_asyncio(url: RedisUrl) -> tuple[type[Any], dict[str, Any]]:
    """The same of asyncio's."""
    if url.path:
        return redis.asyncio.UnixDomainSocketConnection, _given(url)
    kind: Any = redis.asyncio.SSLConnection if url.tls else redis.asyncio.Connection
    return (_by_sentinels(kind, url) if url.service else kind), _given(url)


def _given(url: RedisUrl) -> dict[str, Any]:
    where: dict[str, Any] = {"path": url.path} if url.path else {"host": url.hosts[0][0], "port": url.hosts[0][1]}
    return where | {"db": url.database, "username": url.username, "password": url.password} | url.tls_options()


def fitting(kind: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Those that such connections have."""
    sockets = redis.UnixDomainSocketConnection, redis.asyncio.UnixDomainSocketConnection
    return {name: value for name, value in options.items() if name not in OF_TCP or not issubclass(kind, sockets)}


# Sentinels: of the service's name, they tell who is the primary.


def _sentinel(url: RedisUrl, host: str, port: int) -> dict[str, Any]:
    """How one of them is asked."""
    login = {name.removeprefix("sentinel_"): url.options[name] for name in SENTINEL_OPTIONS if name in url.options}
    waits = {"socket_timeout": SENTINEL_S, "socket_connect_timeout": SENTINEL_S}
    return {"host": host, "port": port, "retry": None, **login, **waits, **url.tls_options()}


def _nobody_knows(url: RedisUrl, why: BaseException | None) -> redis.ConnectionError:
    reason = f" ({why})" if why else ": see its name in their configuration"
    return redis.ConnectionError(f"no Sentinel tells who is the primary of {url.service!r}{reason}")


def _by_sentinels_in_threads(kind: Any, url: RedisUrl) -> Any:
    asked: Any = redis.SSLConnection if url.tls else redis.Connection
    turns = _Turns(url)

    class BySentinels(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            self.host, self.port = self._primary()
            return super()._connect()

        def _primary(self) -> tuple[str, int]:
            failure: BaseException | None = None
            for host, port in turns:
                sentinel = asked(**_sentinel(url, host, port))
                try:
                    sentinel.connect()
                    sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
                    if told := sentinel.read_response():
                        turns.answered((host, port))
                        return told[0].decode(), int(told[1])
                except (RedisError, OSError) as error:
                    failure = error
                finally:
                    sentinel.disconnect()
            raise _nobody_knows(url, failure)

    return BySentinels


def _by_sentinels(kind: Any, url: RedisUrl) -> Any:
    asked: Any = redis.asyncio.SSLConnection if url.tls else redis.asyncio.Connection
    turns = _Turns(url)

    class BySentinels(kind):  # type: ignore[misc]
        async def _connect(self) -> None:
            self.host, self.port = await self._primary()
            await super()._connect()

        async def _primary(self) -> tuple[str, int]:
            failure: BaseException | None = None
            for host, port in turns:
                sentinel = asked(**_sentinel(url, host, port))
                try:
                    await sentinel.connect()
                    await sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
                    if told := await sentinel.read_response():
                        turns.answered((host, port))
                        return told[0].decode(), int(told[1])
                except (RedisError, OSError) as error:
                    failure = error
                finally:
                    await sentinel.disconnect(nowait=True)
            raise _nobody_knows(url, failure)

    return BySentinels


class _Turns:
    """The Sentinels in the order in which they are asked: the one that answered last first. One that is being asked
    goes to the end: if its machine is gone, and a deadline passes meanwhile, the next try begins with another."""

    def __init__(self, url: RedisUrl) -> None:
        self._hosts = url.hosts
        self._first = 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        begins = self._first
        for number in range(begins, begins + len(self._hosts)):
            self._first = (number + 1) % len(self._hosts)
            yield self._hosts[number % len(self._hosts)]

    def answered(self, host: tuple[str, int]) -> None:
        self._first = self._hosts.index(host)


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
