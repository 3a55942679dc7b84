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
from typing import Any

import urllib3
from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ari_conf.http_client.dns_lookup import Addresses, DnsLookups
from ari_conf.http_client.policy import (
    KEEP_ALIVE_S,
    Exchange,
    ResponseMeter,
    no_address,
    not_connected,
    tls_context,
    tls_failed,
)
from ari_conf.http_client.url_guard import Networks

MAX_HOSTS_KEPT_ALIVE = 8
"""Maximum number of hosts to which one thread keeps connections alive."""
lookups = DnsLookups()


class _ThreadState(threading.local):
    """The attempt that this thread is making. urllib3 passes nothing to the code that connects and reads."""

    exchange: Exchange
    networks: Networks
    account: str
    """The account whose share of look-ups is used."""
    pools: dict[Networks, _Pools]

    def __init__(self) -> None:
        self.pools = {}


thread_state = _ThreadState()


def begin(exchange: Exchange, networks: Networks, account: str) -> None:
    """Begin an attempt of this thread: `networks` are allowed besides the public Internet, `account` looks names up."""
    thread_state.exchange, thread_state.networks, thread_state.account = exchange, networks, account


class _TimedReads(io.RawIOBase):
    """Reader that sets the socket timeout before each packet: the socket's own timeout restarts with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, meter: ResponseMeter) -> None:
        self._raw, self._sock, self._meter = raw, sock, meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._meter.check()
        exchange = thread_state.exchange
        self._sock.settimeout(exchange.time_left(time.monotonic(), exchange.read_s))
        count = self._raw.readinto(buffer)
        self._meter.received_bytes += count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._meter = ResponseMeter()
        self.fp = io.BufferedReader(_TimedReads(self.fp.detach(), sock, self._meter))

    def begin(self) -> None:
        super().begin()
        self._meter.receive_final_head()

    def _read_status(self) -> tuple[str, int, str]:
        """Count interim responses; http.client calls this for each of them and for the final response."""
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        if found[1] == http.HTTPStatus.CONTINUE:  # http.client takes other 1xx for final responses
            self._meter.receive_interim_head()
        return found

    def read(self, amt: int | None = None) -> bytes:
        body = super().read(amt)
        self._meter.body_bytes += len(body)
        return body


def _connect(host: str, port: int) -> socket.socket:
    """Return a socket connected to the first checked address that accepts. Raises AttemptFailed, RequestRefused."""
    exchange, now = thread_state.exchange, time.monotonic()
    until = now + exchange.time_left(now, exchange.connect_s)
    error: OSError = TimeoutError("timed out")
    addresses = _look_up(host, port, until)
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
    raise not_connected(host, f"{error.strerror or error}".lower()) from None


def _look_up(host: str, port: int, until: float) -> Addresses:
    try:
        return lookups.look_up(thread_state.account, host, port, thread_state.networks, until)
    except TimeoutError:
        raise not_connected(host, "its name was not resolved in time") from None
    except OSError as error:
        raise no_address(host, error.strerror or error) from None


class _Http(HTTPConnection):
    response_class = _TimedResponse
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return _connect(self.host.strip("[]"), self.port or self.default_port)


class _Https(HTTPSConnection):
    response_class = _TimedResponse
    used_at = 0.0

    def _new_conn(self) -> socket.socket:
        return _connect(self.host.strip("[]"), self.port or self.default_port)

    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError:
            raise not_connected(self.host, "timed out") from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise tls_failed(error) from None


class _IdleTimeoutMixin:
    """Mixin of pools: before the next use, closes a connection that was idle for longer than KEEP_ALIVE_S."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        if conn.used_at < time.monotonic() - KEEP_ALIVE_S:
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
        super().__init__(MAX_HOSTS_KEPT_ALIVE, maxsize=1)
        self.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def pool(scheme: str, host: str, port: int) -> HTTPConnectionPool:
    """Return this thread's pool for a host. Connections are not shared between sets of networks, which may differ."""
    networks = thread_state.networks
    pools = thread_state.pools.get(networks)
    if pools is None:
        pools = thread_state.pools[networks] = _Pools()
    # The context verifies certificates; it is created once.
    return pools.connection_from_host(host, port, scheme, {"ssl_context": tls_context()} if scheme == "https" else None)
