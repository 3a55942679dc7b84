"""Connections of aiohttp: only to checked addresses, with a bound on what a server sends besides a body."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from contextvars import ContextVar
from functools import partial
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from ari_conf.common.fair_shares import Shares
from ari_conf.http_client import dns_lookup, url_guard
from ari_conf.http_client.prepared_request import (
    FRAMING_PER_BYTE,
    KEPT_ALIVE_S,
    MOST_HEAD,
    MOST_INTERIM,
    TOO_MUCH_HEAD,
    tls_context,
)
from ari_conf.http_client.url_guard import Networks

LOOKUPS_WAITING = 1000
"""Maximum number of waiting look-ups of an account; further ones are refused."""
PIECE = 8 * 1024
"""Bytes after which received data is checked: a packet may hold ten thousand responses."""

asker: ContextVar[str] = ContextVar("asker", default="")
"""The account on whose behalf this task sends requests."""


class TooMuch(aiohttp.ClientError):
    """Failure of a response that exceeds a bound; the text is a sentence."""


class CheckedResolver(AbstractResolver):
    """Resolver that looks a name up once and checks its addresses. They are numeric, so aiohttp looks nothing up."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._turns = Shares(dns_lookup.AT_ONCE, dns_lookup.OF_ACCOUNT, LOOKUPS_WAITING)
        self._under_way: dict[tuple[str, int], asyncio.Task[dns_lookup.Found]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the checked addresses of `host`. Raises TooManyWaiting, and what `url_guard.resolve` raises."""
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=of, proto=0, flags=int(socket.AI_NUMERICHOST)
            )
            for of, address in await self._look_up(host, port)
        ]

    async def _look_up(self, host: str, port: int) -> dns_lookup.Found:
        key = host, port
        looking_up = self._under_way.get(key)
        if looking_up is None:
            async with AsyncExitStack() as turn:
                # Not every task has set its account; without one, each host name has a share of its own.
                await turn.enter_async_context(self._turns.turn(asker.get() or host))
                looking_up = self._under_way.get(key)
                if looking_up is None:
                    looking_up = asyncio.create_task(self._in_thread(key, turn.pop_all()))
                    looking_up.add_done_callback(_seen)
                    self._under_way[key] = looking_up
        # A canceled waiter must not cancel the look-up that others wait for, nor free its turn: the thread is busy.
        return await asyncio.shield(looking_up)

    async def _in_thread(self, key: tuple[str, int], turn: AsyncExitStack) -> dns_lookup.Found:
        async with turn:
            try:
                return await asyncio.wrap_future(dns_lookup.start(*key, self._networks))
            finally:
                del self._under_way[key]

    async def close(self) -> None:
        for looking_up in tuple(self._under_way.values()):
            looking_up.cancel()


def _seen(looking_up: asyncio.Task[dns_lookup.Found]) -> None:
    if not looking_up.cancelled():
        looking_up.exception()  # retrieves it: otherwise asyncio logs an error if no task waits any more


class _Handler(ResponseHandler):
    """Handler that limits what aiohttp does not: interim responses, the head, body framing (chunk sizes, trailers)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._begin()

    def set_response_params(self, **params: Any) -> None:
        """Reset the counters; aiohttp calls this before each request."""
        self._begin()
        super().set_response_params(**params)

    def _begin(self) -> None:
        self._received = self._interim = self._answers = 0
        self._body: aiohttp.StreamReader | None = None

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Count a response; aiohttp calls this for each one, with (message, body)."""
        if 100 <= data[0].code < 200:
            self._interim += 1
        else:
            self._answers += 1
            self._body = data[1]
        if self._interim <= MOST_INTERIM:
            super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if len(data) <= PIECE:
            self._piece_received(data)
            return
        for first in range(0, len(data), PIECE):
            if self.transport is None or self.transport.is_closing():
                return
            self._piece_received(data[first : first + PIECE])

    def _piece_received(self, piece: bytes) -> None:
        self._received += len(piece)
        super().data_received(piece)
        if self._interim > MOST_INTERIM or (self._received >= MOST_HEAD and not self._answers):
            self._refuse(TOO_MUCH_HEAD)
        elif self._answers > 1:
            self._refuse("it sent more than one response")
        elif self._body and self._received > 2 * MOST_HEAD + FRAMING_PER_BYTE * self._body.total_bytes:
            self._refuse("its response has more framing around the body than body")

    def _refuse(self, why: str) -> None:
        error = TooMuch(why)
        self.set_exception(error)
        if self._body is not None and not self._body.is_eof():
            self._body.set_exception(error)
        self._payload = None
        if self.transport is not None:
            self.transport.abort()


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment]  # aiohttp has no public way


def pinned_session(networks: Networks) -> aiohttp.ClientSession:
    """Return a session without cookies, credentials and proxies, which does not decode bodies. Needs a running loop."""
    connector = _Connector(
        resolver=CheckedResolver(networks),
        use_dns_cache=False,
        socket_factory=partial(checked_socket, networks),
        ssl=tls_context(),
        # No limit: a request that waits for a free connection would wait for other users' slow servers.
        limit=0,
        keepalive_timeout=KEPT_ALIVE_S,
    )
    return aiohttp.ClientSession(
        connector=connector, connector_owner=True, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


def checked_socket(networks: Networks, info: AddrInfoType) -> socket.socket:
    """Return a socket, after a last check of the address to connect to. Raises RequestRefused if it is forbidden."""
    family, kind, proto, _, address = info
    url_guard.check_address(ip_address(address[0]), networks)
    return socket.socket(family, kind, proto)
