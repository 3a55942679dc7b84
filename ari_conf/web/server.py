"""The HTTP server of `ari-conf web`: uvicorn's, which alone would wait for a slow client for ever."""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ari_conf.settings import Settings, address
from ari_conf.web.errors import RETRY_AFTER_S
from ari_conf.web.parts import Parts

MOST_OF_A_HEAD = 256 * 1024
"""Bytes of a request's line and headers: a name of 10,000 characters may be 120,000, URL-encoded."""
HEAD_S = 10.0
"""Until a request's line and headers must be here. Of its body `body` sees to that."""
READ_MS = 30_000
"""One who takes nothing of what he is sent for so long is cut off."""
LAST_S = 10


class Connection(H11Protocol):
    """uvicorn makes one for each."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn would answer with a word of text.
        most, self.limit_concurrency = self.limit_concurrency or 0, None
        if len(self.connections) > most + most // 4 + 1:
            # Those above the limit are told so, if they ask something; but they, too, are so many and no more.
            transport.abort()
            return
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READ_MS)
        inner: Any = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["abort"] = transport.abort
            await (too_many if len(self.connections) > most else inner)(scope, receive, send)

        self.app = cast(Any, app)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._head is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


async def too_many(scope: Scope, receive: Receive, send: Send) -> None:
    told = {"api_id": str(uuid.uuid4()), "error": "too many connections are open: try again"}
    headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
    await JSONResponse(told, 503, headers)(scope, receive, send)


class Server(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings, **more: Any) -> None:
        host, port = address(settings.web_listen)
        given: dict[str, Any] = {"host": host, "port": port, **more}
        config = uvicorn.Config(
            app,
            # Its own logging would write a second form beside ours.
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=settings.trusted_proxies,
            http=Connection,
            # With uvloop, which uvicorn takes where it finds it, a port that is taken makes it hang instead of end.
            loop="asyncio",
            ws="none",
            h11_max_incomplete_event_size=MOST_OF_A_HEAD,
            limit_concurrency=settings.web_connections,
            timeout_graceful_shutdown=LAST_S,
            **given,
        )
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Event streams never end by themselves.
        cast(Parts, self._app.state.parts).feeds.end()
        await super().shutdown(sockets)
