"""Requests to Asterisk over HTTP, with their deadline, and with the response decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import encode_basic_auth

from ari_conf.ari.address import AriConfig
from ari_conf.ari.http_pool import HttpPool
from ari_conf.ari.permission import ActPermission
from ari_conf.ari.websocket import decode_response
from ari_conf.errors import AriLate


class HttpRequests:
    def __init__(self, server: AriConfig, permission: ActPermission) -> None:
        """No request is sent while `permission` is not held."""
        self._server = server
        self._permission = permission
        authorization = encode_basic_auth(server.user, server.password)
        self._pool = HttpPool(server.url, authorization, server.connections, permission.wait_until_held)

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        kind: Any = Any,
        idempotent: bool = False,
    ) -> Any:
        """Send a request, and return Asterisk's response: see `Client.request`."""
        await self._permission.wait_until_held()
        encoded_query = urlencode(query, quote_via=quote) if query else ""
        encoded_body = encode_body(body)
        try:
            async with asyncio.timeout(self._server.request_timeout_s):
                response = await self._pool.request(method, path, encoded_query, encoded_body, idempotent)
        except TimeoutError:
            raise late(self._server.request_timeout_s, method, path) from None
        return decode_response(method, path, response, kind)

    def close(self) -> None:
        self._pool.close()


def encode_body(body: Any) -> bytes | None:
    return msgspec.json.encode(body) if body is not None else None


def late(seconds: float, method: str, path: str) -> AriLate:
    return AriLate(f"Asterisk did not answer {method} {path} within {seconds:g} s")
