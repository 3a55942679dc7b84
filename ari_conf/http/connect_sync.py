"""Connections of urllib3 that go to checked addresses, and that no drip can hold beyond a deadline.

`requests-hardened` does the first, but looks the name up for each request (also when the connection is already there),
takes the first address alone, and knows of no allowed networks. Here the check stands where urllib3 opens a socket: a
connection kept alive is by construction one to a checked address.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ari_conf.http import guard
from ari_conf.http.guard import Networks
from ari_conf.http.hop import KEPT_ALIVE_S, MOST_HEAD, MOST_INTERIM, TOO_MUCH_HEAD, TryFailed, tls_context
from ari_conf.http.lookup import Lookups

HOSTS_KEPT_ALIVE = 8
"""By one thread."""
MOST_BODY = 1024 * 1024
"""Bytes that are read of a body, its framing included: what of it is wanted is far less."""
lookups = Lookups()


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the try that this thread is at."""

    connect_s: float
    read_s: float
    deadline: float
    """Of time.monotonic()."""
    networks: Networks
    account: str = ""
    """For which names are looked up."""

    def left(self, most: float) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return min(left, most)


class _Here(threading.local):
    limits: Limits
    pools: dict[Networks, _Pools]

    def __init__(self) -> None:
        self.pools = {}


here = _Here()


class EnoughRead(Exception):
    """More than `most` bytes came."""


class _TimedReads(io.RawIOBase):
    """Before each packet: how long may it take? A socket's own timeout starts anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, most: int) -> None:
        self._raw, self._sock = raw, sock
        self.left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.left <= 0:
            raise EnoughRead
        self._sock.settimeout(here.limits.left(here.limits.read_s))
        count = self._raw.readinto(buffer)
        self.left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reads = _TimedReads(self.fp.detach(), sock, MOST_HEAD)
        self._interim = -1
        self.fp = io.BufferedReader(self._reads)

    def begin(self) -> None:
        try:
            super().begin()
        except EnoughRead:
            raise TryFailed("body", TOO_MUCH_HEAD) from None
        self._reads.left = MOST_BODY

    def _read_status(self) -> tuple[str, int, str]:
        """Called for each answer, also for those before the one that counts."""
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise TryFailed("body", TOO_MUCH_HEAD)
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found


def _connected(host: str, port: int) -> socket.socket:
    """A socket connected to the first of the checked addresses that accepts."""
    limits = here.limits
    until = time.monotonic() + limits.left(limits.connect_s)
    error: OSError = TimeoutError("timed out")
    addresses = _addresses(host, port, until)
    for index, (family, address) in enumerate(addresses):
        left = (until - time.monotonic()) / (len(addresses) - index)
        if left <= 0:
            break
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(left)
            sock.connect(address)
        except OSError as failed:
            error = failed
            sock.close()
        else:
            # ct is for the TLS handshake, too.
            sock.settimeout(max(until - time.monotonic(), 0.001))
            return sock
    raise TryFailed("connect", f"no connection to {host}: {error.strerror or error}".lower()) from None


def _addresses(host: str, port: int, until: float) -> Sequence[guard.Resolved]:
    limits = here.limits
    try:
        return lookups.look_up(limits.account, host, port, limits.networks, until)
    except TimeoutError:
        raise TryFailed("connect", f"no connection to {host}: its name was not resolved in time") from None
    except OSError as error:
        raise TryFailed("dns", f"the name {host} has no address: {error.strerror or error}") from None


class _Http(HTTPConnection):
    response_class = _TimedResponse
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return _connected(self.host.strip("[]"), self.port or self.default_port)


class _Https(HTTPSConnection):
    response_class = _TimedResponse
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return _connected(self.host.strip("[]"), self.port or self.default_port)

    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError:
            raise TryFailed("connect", f"no connection to {self.host}: timed out") from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise TryFailed("tls", f"no TLS connection: {error}") from None


class _Kept:
    """Of a pool: no connection that was idle for long."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        if conn.used_at < time.monotonic() - KEPT_ALIVE_S:
            conn.close()  # it opens itself again, and is checked then
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.used_at = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


class _HttpPool(_Kept, HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(_Kept, HTTPSConnectionPool):
    ConnectionCls = _Https


class _Pools(PoolManager):
    def __init__(self) -> None:
        super().__init__(HOSTS_KEPT_ALIVE, maxsize=1)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def pool(scheme: str, host: str, port: int, networks: Networks) -> HTTPConnectionPool:
    """This thread's. One for each set of networks: what was allowed under one is not reused under another."""
    pools = here.pools.get(networks)
    if pools is None:
        pools = here.pools[networks] = _Pools()
    # The context verifies; it is made once.
    return pools.connection_from_host(host, port, scheme, {"ssl_context": tls_context()} if scheme == "https" else None)
