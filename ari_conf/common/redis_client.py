"""Redis clients: the meaning of their errors, and how they find the new primary after a failover.

An address (a name, a virtual IP, a proxy) may lead to another server from one moment to the next. Open connections
stay with the old server, which is now a replica and refuses every write. A connection that receives such a refusal is
therefore closed, together with the other connections of its client; the next request opens a new one.

Every client is created here, from a URL as `redis_url` parses it: TLS, sockets, users and Sentinels mean the same for
all. With Sentinels, each new connection first asks them for the primary.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from typing import Any

import redis
import redis.asyncio
from redis import RedisError, ResponseError

from ari_conf.common import redis_url
from ari_conf.common.redis_url import SENTINEL_OPTIONS, RedisUrl

TEMPORARY_ERRORS = {
    "BUSY": "Redis is busy with a script that takes too long: it continues when that ends (`redis-cli script kill`)",
    "CLUSTERDOWN": "the Redis cluster is down: bring it up again",
    "LOADING": "Redis is starting and loads its data: it continues when that is done",
    "MASTERDOWN": "this Redis is a replica that has lost its primary: point ARI_CONF_REDIS_URL at the primary",
    "MISCONF": "Redis can't write to its disk: free space there, or see Redis' log",
    "NOAUTH": "Redis requires a password: add it to ARI_CONF_REDIS_URL",
    "NOPERM": "Redis' ACL forbids a key, channel or command: use the ACL of docs/operations/redis.md for this user",
    "NOREPLICAS": "Redis has fewer replicas than min-replicas-to-write requires: start more, or lower that setting",
    "OOM": "Redis' memory is full: raise maxmemory, or remove keys of other applications",
    "READONLY": "this Redis is a replica, which accepts no writes: the primary is looked up at the same address",
    "TRYAGAIN": "Redis is moving keys: it continues when that is done",
    "UNBLOCKED": "this Redis has become a replica: the primary is looked up at the same address",
    "UNKILLABLE": "Redis is busy with a script that can't be stopped: see Redis' log",
    "WRONGPASS": "Redis rejects the password: correct it in ARI_CONF_REDIS_URL",
}
"""Error codes that Redis returns while it can't execute a request -> their meaning, and what to do."""
SENTINEL_TIMEOUT_S = 1.0
"""Seconds to wait for one Sentinel before the next is asked."""
UNVERIFIED = "CERTIFICATE_VERIFY_FAILED"
"""Part of OpenSSL's error text for a certificate that can't be verified."""
TCP_OPTIONS = ("socket_keepalive", "socket_keepalive_options")
"""Connection options that Unix sockets do not have."""
NOT_PRIMARY = ("READONLY", "MASTERDOWN", "UNBLOCKED")
"""Error codes of a server that is no longer the primary."""
# Redis 6 puts words of its own before the code of an error in a script.
_IN_A_SCRIPT = re.compile(rf"\b({'|'.join(TEMPORARY_ERRORS)})\b")


def code_of(error: BaseException) -> str:
    """Return the code at the beginning of a Redis error, such as WRONGTYPE; "" if Redis did not return the error."""
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
    """Return True if Redis is reachable, and would refuse the same request again."""
    return isinstance(error, ResponseError) and code_of(error) not in TEMPORARY_ERRORS


def explain_error(error: BaseException) -> str:
    """Return a text on what is wrong with Redis, and what to do."""
    code = code_of(error)
    return _find_advice(error) or f"Redis is unavailable: {f'{code} {error}'.strip() or type(error).__name__}"


def explain_to_user(error: BaseException, otherwise: str = "Redis is unavailable") -> str:
    """Return the same for a user who typed a command. `otherwise` begins the text if only the error's text is known."""
    return _find_advice(error) or f"{otherwise} ({error}): start it, or correct ARI_CONF_REDIS_URL"


def _find_advice(error: BaseException) -> str | None:
    if UNVERIFIED in str(error):
        return (
            "Redis' certificate could not be verified: add the file of its CA to ARI_CONF_REDIS_URL, as "
            f"?ssl_ca_certs=FILE, and use the host name of the certificate ({error})"
        )
    return TEMPORARY_ERRORS.get(code_of(error))


def connect(url: str, **options: Any) -> redis.asyncio.Redis:
    """Return an asyncio client. `options` are those of redis-py's connections."""
    kind, arguments = asyncio_connection(redis_url.parse(url))
    pool = redis.asyncio.ConnectionPool(connection_class=kind, **supported_options(kind, arguments | options))
    return follow_primary(redis.asyncio.Redis.from_pool(pool))


def connect_waiting(url: str, most: int, wait_s: float, **options: Any) -> redis.asyncio.Redis:
    """Return an asyncio client with `most` connections; further requests wait up to `wait_s` seconds for one."""
    kind, arguments = asyncio_connection(redis_url.parse(url))
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=most, timeout=wait_s, connection_class=kind, **supported_options(kind, arguments | options)
    )
    return follow_primary(redis.asyncio.Redis.from_pool(pool))


def connect_in_threads(url: str, **options: Any) -> redis.Redis:
    """Return a blocking client."""
    kind, arguments = blocking_connection(redis_url.parse(url))
    pool = redis.ConnectionPool(connection_class=kind, **supported_options(kind, arguments | options))
    return follow_primary_in_threads(redis.Redis.from_pool(pool))


def blocking_connection(url: RedisUrl) -> tuple[type[Any], dict[str, Any]]:
    """Return the class of blocking connections, and its arguments."""
    if url.path:
        return redis.UnixDomainSocketConnection, _connection_arguments(url)
    kind: Any = redis.SSLConnection if url.tls else redis.Connection
    return (_by_sentinels_in_threads(kind, url) if url.service else kind), _connection_arguments(url)


def asyncio_connection(url: RedisUrl) -> tuple[type[Any], dict[str, Any]]:
    """Return the class of asyncio connections, and its arguments."""
    if url.path:
        return redis.asyncio.UnixDomainSocketConnection, _connection_arguments(url)
    kind: Any = redis.asyncio.SSLConnection if url.tls else redis.asyncio.Connection
    return (_by_sentinels(kind, url) if url.service else kind), _connection_arguments(url)


def _connection_arguments(url: RedisUrl) -> dict[str, Any]:
    where: dict[str, Any] = {"path": url.path} if url.path else {"host": url.hosts[0][0], "port": url.hosts[0][1]}
    return where | {"db": url.database, "username": url.username, "password": url.password} | url.tls_options()


def supported_options(kind: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that connections of this class have."""
    sockets = redis.UnixDomainSocketConnection, redis.asyncio.UnixDomainSocketConnection
    return {name: value for name, value in options.items() if name not in TCP_OPTIONS or not issubclass(kind, sockets)}


# Sentinels: they return the address of the primary for the name of a service.


def _sentinel_arguments(url: RedisUrl, host: str, port: int) -> dict[str, Any]:
    """Return the arguments of a connection to one Sentinel."""
    login = {name.removeprefix("sentinel_"): url.options[name] for name in SENTINEL_OPTIONS if name in url.options}
    waits = {"socket_timeout": SENTINEL_TIMEOUT_S, "socket_connect_timeout": SENTINEL_TIMEOUT_S}
    return {"host": host, "port": port, "retry": None, **login, **waits, **url.tls_options()}


def _no_primary_error(url: RedisUrl, why: BaseException | None) -> redis.ConnectionError:
    reason = f" ({why})" if why else ": check the name of the service in their configuration"
    return redis.ConnectionError(f"no Sentinel returned the primary of {url.service!r}{reason}")


def _by_sentinels_in_threads(kind: Any, url: RedisUrl) -> Any:
    sentinel_class: Any = redis.SSLConnection if url.tls else redis.Connection
    order = _SentinelOrder(url)

    class BySentinels(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            self.host, self.port = self._primary()
            return super()._connect()

        def _primary(self) -> tuple[str, int]:
            failure: BaseException | None = None
            for host, port in order:
                sentinel = sentinel_class(**_sentinel_arguments(url, host, port))
                try:
                    sentinel.connect()
                    sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
                    if reply := sentinel.read_response():
                        order.record_answer((host, port))
                        return reply[0].decode(), int(reply[1])
                except (RedisError, OSError) as error:
                    failure = error
                finally:
                    sentinel.disconnect()
            raise _no_primary_error(url, failure)

    return BySentinels


def _by_sentinels(kind: Any, url: RedisUrl) -> Any:
    sentinel_class: Any = redis.asyncio.SSLConnection if url.tls else redis.asyncio.Connection
    order = _SentinelOrder(url)

    class BySentinels(kind):  # type: ignore[misc]
        async def _connect(self) -> None:
            self.host, self.port = await self._primary()
            await super()._connect()

        async def _primary(self) -> tuple[str, int]:
            failure: BaseException | None = None
            for host, port in order:
                sentinel = sentinel_class(**_sentinel_arguments(url, host, port))
                try:
                    await sentinel.connect()
                    await sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.service)
                    if reply := await sentinel.read_response():
                        order.record_answer((host, port))
                        return reply[0].decode(), int(reply[1])
                except (RedisError, OSError) as error:
                    failure = error
                finally:
                    await sentinel.disconnect(nowait=True)
            raise _no_primary_error(url, failure)

    return BySentinels


class _SentinelOrder:
    """Sentinels in the order in which they are asked: the one that answered last comes first.

    A Sentinel that is being asked moves to the end: if its machine is unreachable, and a deadline passes in the
    meantime, the next attempt begins with another."""

    def __init__(self, url: RedisUrl) -> None:
        self._hosts = url.hosts
        self._first = 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        begins = self._first
        for number in range(begins, begins + len(self._hosts)):
            self._first = (number + 1) % len(self._hosts)
            yield self._hosts[number % len(self._hosts)]

    def record_answer(self, host: tuple[str, int]) -> None:
        self._first = self._hosts.index(host)


def follow_primary(client: redis.asyncio.Redis) -> redis.asyncio.Redis:
    """Make the client close all of its connections when a server is no longer the primary; return the client.

    A task that uses it can also be canceled at any time. redis-py sends within `asyncio.wait_for`, which in Python 3.11
    loses a cancellation that arrives when the sending is just done, and the task would continue."""
    pool: Any = client.connection_pool

    class Following(pool.connection_class):  # type: ignore[misc]
        async def connect(self, *arguments: Any, **named: Any) -> None:
            await self._cancellable(super().connect(*arguments, **named))

        async def send_packed_command(self, *given: Any, **named: Any) -> None:
            await self._cancellable(super().send_packed_command(*given, **named))

        async def read_response(self, *given: Any, **named: Any) -> Any:
            try:
                return await super().read_response(*given, **named)
            except ResponseError as error:
                if code_of(error) in NOT_PRIMARY:
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


def follow_primary_in_threads(client: redis.Redis) -> redis.Redis:
    """Do the same with a blocking client. Connections in use by other threads close when they receive the error."""
    pool: Any = client.connection_pool

    class Following(pool.connection_class):  # type: ignore[misc]
        def read_response(self, *given: Any, **named: Any) -> Any:
            try:
                return super().read_response(*given, **named)
            except ResponseError as error:
                if code_of(error) in NOT_PRIMARY:
                    self.disconnect()
                    pool.disconnect(inuse_connections=False)
                raise

    pool.connection_class = Following
    return client
