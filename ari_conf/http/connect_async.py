"""Connections of aiohttp that go to checked addresses."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from ipaddress import ip_address

import aiohttp
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from ari_conf.http import guard
from ari_conf.http.guard import Networks
from ari_conf.http.hop import KEPT_ALIVE_S, tls_context
from ari_conf.http.lookup import Lookups

LOOKUPS_AT_ONCE = 32
"""In threads of their own: the default executor has few, and others need them."""


class Resolver(AbstractResolver):
    """Looks up once and checks; what it gives are numbers, so that nothing is looked up again."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks
        self._lookups = Lookups(LOOKUPS_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        # Who gives up must not end it for the others who ask for that name.
        found = await asyncio.shield(asyncio.wrap_future(self._lookups.start(host, port, self._networks)))
        return [
            ResolveResult(
                hostname=host, host=address[0], port=port, family=of, proto=0, flags=int(socket.AI_NUMERICHOST)
            )
            for of, address in found
        ]

    async def close(self) -> None:
        self._lookups.close()


def pinned_session(networks: Networks) -> aiohttp.ClientSession:
    """Without cookies, credentials, proxies; bodies as they come. To be made in a running loop."""
    connector = aiohttp.TCPConnector(
        resolver=Resolver(networks),
        use_dns_cache=False,
        socket_factory=partial(checked_socket, networks),
        ssl=tls_context(),
        # No limit: who waits for a free connection would wait for other users' slow servers.
        limit=0,
        keepalive_timeout=KEPT_ALIVE_S,
    )
    return aiohttp.ClientSession(
        connector=connector, connector_owner=True, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


def checked_socket(networks: Networks, info: AddrInfoType) -> socket.socket:
    """The last gate, whatever aiohttp did before: the address that is about to be connected to."""
    family, kind, proto, _, address = info
    guard.check_address(ip_address(address[0]), networks)
    return socket.socket(family, kind, proto)
