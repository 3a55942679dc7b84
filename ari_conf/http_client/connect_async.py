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
from ari_conf.http_client.policy import KEEP_ALIVE_S, AttemptFailed, ResponseMeter, tls_context
from ari_conf.http_client.url_guard import Networks

MAX_WAITING_LOOKUPS = 1000
"""Maximum number of waiting look-ups of an account; further ones are refused."""
MAX_UNCHECKED_BYTES = 8 * 1024
"""Bytes after which received data is checked: a packet may hold ten thousand responses."""

current_account: ContextVar[str] = ContextVar("current_account", default="")
"""The account on behalf of which this task sends requests."""


class CheckedResolver(AbstractResolver):
    """Resolver that looks a name up once and checks its addresses. They are numeric, so aiohttp looks nothing up."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._turns = Shares(dns_lookup.MAX_LOOKUPS, dns_lookup.MAX_LOOKUPS_PER_ACCOUNT, MAX_WAITING_LOOKUPS)
        self._in_progress: dict[tuple[str, int], asyncio.Task[dns_lookup.Addresses]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the checked addresses of `host`. Raises TooManyWaiting, and what `url_guard.resolve` raises."""
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=family, proto=0, flags=int(socket.AI_NUMERICHOST)
            )
            for family, address in await self._look_up(host, port)
        ]

    async def _look_up(self, host: str, port: int) -> dns_lookup.Addresses:
        key = host, port
        looking_up = self._in_progress.get(key)
        if looking_up is None:
            async with AsyncExitStack() as turn:
                # Not every task has set its account; without one, each host name has a share of its own.
                await turn.enter_async_context(self._turns.turn(current_account.get() or host))
                looking_up = self._in_progress.get(key)
                if looking_up is None:
                    looking_up = asyncio.create_task(self._look_up_in_thread(key, turn.pop_all()))
                    looking_up.add_done_callback(_retrieve_exception)
                    self._in_progress[key] = looking_up
        # A canceled waiter must not cancel the look-up that others wait for, nor free its turn: the thread is busy.
        return await asyncio.shield(looking_up)

    async def _look_up_in_thread(self, key: tuple[str, int], turn: AsyncExitStack) -> dns_lookup.Addresses:
        async with turn:
            try:
                return await asyncio.wrap_future(dns_lookup.start(*key, self._networks))
            finally:
                del self._in_progress[key]

    async def close(self) -> None:
        for looking_up in tuple(self._in_progress.values()):
            looking_up.cancel()


def _retrieve_exception(looking_up: asyncio.Task[dns_lookup.Addresses]) -> None:
    if not looking_up.cancelled():
        looking_up.exception()  # retrieves it: otherwise asyncio logs an error if no task waits any more


class _Handler(ResponseHandler):
    """Handler that bounds what aiohttp does not: interim responses, heads, and framing (chunk sizes, trailers)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._reset()

    def set_response_params(self, **params: Any) -> None:
        """Reset the meter; aiohttp calls this before each request."""
        self._reset()
        super().set_response_params(**params)

    def _reset(self) -> None:
        self._meter = ResponseMeter()
        self._body: aiohttp.StreamReader | None = None

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Report a head to the meter; aiohttp calls this for each one, with (message, body)."""
        if 100 <= data[0].code < 200:
            self._meter.receive_interim_head()
        else:
            self._meter.receive_final_head()
            self._body = data[1]
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if len(data) <= MAX_UNCHECKED_BYTES:
            self._receive(data)
            return
        for first in range(0, len(data), MAX_UNCHECKED_BYTES):
            if self.transport is None or self.transport.is_closing():
                return
            self._receive(data[first : first + MAX_UNCHECKED_BYTES])

    def _receive(self, data: bytes) -> None:
        self._meter.received_bytes += len(data)
        try:
            super().data_received(data)
            if self._body is not None:
                self._meter.body_bytes = self._body.total_bytes
            self._meter.check()
        except AttemptFailed as error:
            self._abort(error)

    def _abort(self, error: AttemptFailed) -> None:
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
        keepalive_timeout=KEEP_ALIVE_S,
    )
    return aiohttp.ClientSession(
        connector=connector, connector_owner=True, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


def checked_socket(networks: Networks, info: AddrInfoType) -> socket.socket:
    """Return a socket, after a last check of the address to connect to. Raises RequestRefused if it is forbidden."""
    family, kind, proto, _, address = info
    url_guard.check_address(ip_address(address[0]), networks)
    return socket.socket(family, kind, proto)
