"""Connections of urllib3: only to checked addresses, and with a deadline that a slow trickle of bytes can't extend.

`requests-hardened` checks addresses too, but it looks the name up for each request (even if a connection exists), uses
only the first address, and does not support allowed networks. This module checks where urllib3 opens a socket, so that
every connection that is kept alive leads to a checked address.
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

from ari_conf.http_client import url_guard
from ari_conf.http_client.dns_lookup import DnsLookups
from ari_conf.http_client.prepared_request import (
    KEPT_ALIVE_S,
    MOST_HEAD,
    MOST_INTERIM,
    TOO_MUCH_HEAD,
    AttemptFailed,
    tls_context,
)
from ari_conf.http_client.url_guard import Networks

HOSTS_KEPT_ALIVE = 8
"""Number of hosts to which one thread keeps connections alive."""
MOST_BODY = 1024 * 1024
"""Maximum number of bytes read of a body, including its framing; far less of it is needed."""
lookups = DnsLookups()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the attempt that this thread is making."""

    connect_s: float
    read_s: float
    deadline: float
    """Deadline in seconds of time.monotonic()."""
    networks: Networks
    account: str = ""
    """The account whose share of look-ups is used."""

    def time_left(self, most: float) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return min(left, most)


class _ThreadState(threading.local):
    limits: Limits
    pools: dict[Networks, _Pools]

    def __init__(self) -> None:
        self.pools = {}


thread_state = _ThreadState()


class EnoughRead(Exception):
    """Signal that more than `most` bytes were received."""


class _TimedReads(io.RawIOBase):
    """Reader that sets the socket timeout before each packet: the socket's own timeout restarts with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, most: int) -> None:
        self._raw, self._sock = raw, sock
        self.left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.left <= 0:
            raise EnoughRead
        self._sock.settimeout(thread_state.limits.time_left(thread_state.limits.read_s))
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
            raise AttemptFailed("body", TOO_MUCH_HEAD) from None
        self._reads.left = MOST_BODY

    def _read_status(self) -> tuple[str, int, str]:
        """Count the response; http.client calls this for the final response and for each interim response."""
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise AttemptFailed("body", TOO_MUCH_HEAD)
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found


def _connected(host: str, port: int) -> socket.socket:
    """Return a socket connected to the first checked address that accepts. Raises AttemptFailed."""
    limits = thread_state.limits
    until = time.monotonic() + limits.time_left(limits.connect_s)
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
            # ct includes the TLS handshake.
            sock.settimeout(max(until - time.monotonic(), 0.001))
            return sock
    raise AttemptFailed("connect", f"no connection to {host}: {error.strerror or error}".lower()) from None


def _addresses(host: str, port: int, until: float) -> Sequence[url_guard.Resolved]:
    limits = thread_state.limits
    try:
        return lookups.look_up(limits.account, host, port, limits.networks, until)
    except TimeoutError:
        raise AttemptFailed("connect", f"no connection to {host}: its name was not resolved in time") from None
    except OSError as error:
        raise AttemptFailed("dns", f"the name {host} has no address: {error.strerror or error}") from None


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
            raise AttemptFailed("connect", f"no connection to {self.host}: timed out") from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise AttemptFailed("tls", f"no TLS connection: {error}") from None


class _IdleTimeoutMixin:
    """Mixin of pools: before the next use, closes a connection that was idle for longer than KEPT_ALIVE_S."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        if conn.used_at < time.monotonic() - KEPT_ALIVE_S:
            conn.close()  # urllib3 opens it again, which checks the address
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.used_at = time.monotonic()
        super()._put_conn(conn)  # type: ignore[misc]


class _HttpPool(_IdleTimeoutMixin, HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(_IdleTimeoutMixin, HTTPSConnectionPool):
    ConnectionCls = _Https


class _Pools(PoolManager):
    def __init__(self) -> None:
        super().__init__(HOSTS_KEPT_ALIVE, maxsize=1)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def pool(scheme: str, host: str, port: int, networks: Networks) -> HTTPConnectionPool:
    """Return this thread's pool for a host. Connections are not shared between sets of networks, which may differ."""
    pools = thread_state.pools.get(networks)
    if pools is None:
        pools = thread_state.pools[networks] = _Pools()
    # The context verifies certificates; it is created once.
    return pools.connection_from_host(host, port, scheme, {"ssl_context": tls_context()} if scheme == "https" else None)
