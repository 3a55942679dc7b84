"""The HTTP server of `ari-conf web`: uvicorn's, which alone would wait for a slow client for ever."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ari_conf.settings import Settings, address
from ari_conf.web.caller import network_of
from ari_conf.web.errors import NOT_KEPT, RETRY_AFTER_S
from ari_conf.web.parts import Parts

MOST_OF_A_HEAD = 256 * 1024
"""Bytes of a request's line and headers: a name of 10,000 characters may be 120,000, URL-encoded."""
HEAD_S = 10.0
"""Until a request's line and headers must be here. Of its body `body` sees to that."""
HALF_OPEN_SHARE = 10
"""One address has at most a tenth of the connections without having sent a whole request, for longer than GRACE_S."""
GRACE_S = 1.0
"""A burst of connections may be larger: each of them sends its request at once."""
READ_MS = 30_000
"""A client that takes nothing of what it is sent for so long is cut off."""
LAST_S = 10


class Unused:
    """The connections of a server on which no whole request is under way: half open ones, and idle ones between two
    requests. An address that opens many keeps no other from being served."""

    def __init__(self) -> None:
        self._of: dict[str, dict[Connection, bool]] = {}
        """Of each address, whether they are half open; the one that did nothing for longest comes first."""
        self._half_open = Counter[str]()
        self._trimmed_soon = set[str]()

    def mark(self, connection: Connection, most_half_open: int) -> None:
        """As it is now."""
        self.forget(connection)
        cycle, address = connection.cycle, connection.address
        idle = cycle is not None and cycle.response_complete
        if not idle and cycle is not None and not cycle.more_body:
            return
        self._of.setdefault(address, {})[connection] = not idle
        self._half_open[address] += not idle
        if self._half_open[address] > most_half_open and address not in self._trimmed_soon:
            self._trimmed_soon.add(address)
            connection.loop.call_later(GRACE_S, self._trim, address, most_half_open)

    def forget(self, connection: Connection) -> None:
        of_address = self._of.get(connection.address, {})
        self._half_open[connection.address] -= of_address.pop(connection, False)
        if not of_address:
            self._of.pop(connection.address, None)
            del self._half_open[connection.address]

    def make_room(self) -> bool:
        """Ends one of the address that has most. False: there is none."""
        if not self._of:
            return False
        largest = max(self._of.values(), key=len)
        self._end(next(iter(largest)))
        return True

    def _trim(self, address: str, most: int) -> None:
        self._trimmed_soon.discard(address)
        waiting = [connection for connection, half_open in self._of.get(address, {}).items() if half_open]
        for connection in waiting[: max(0, len(waiting) - most)]:
            self._end(connection)

    def _end(self, connection: Connection) -> None:
        self.forget(connection)
        connection.transport.abort()


class Connection(H11Protocol):
    """uvicorn makes one for each."""

    unused: Unused
    """Of the server; set with the class that the server makes of this one."""
    address = ""
    _most_half_open = 0
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn would answer with a word of text.
        most, self.limit_concurrency = self.limit_concurrency or 0, None
        made_room = len(self.connections) > most and self.unused.make_room()
        if len(self.connections) > most + most // 4 + 1 and not made_room:
            # Those above the limit are told so, if they ask something; but they, too, are so many and no more.
            transport.abort()
            return
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READ_MS)
        inner: Any = self.app

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["abort"] = transport.abort
            if len(self.connections) > most:
                await too_many(scope, receive, send)
            elif not _is_unambiguous(scope):
                await ambiguous(scope, receive, send)
            else:
                await inner(scope, receive, send)

        self.app = cast(Any, app)
        self.address = network_of(self.client[0] if self.client else "")
        self._most_half_open = max(1, most // HALF_OPEN_SHARE)
        self.unused.mark(self, self._most_half_open)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mark()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._head is None:
            self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._mark()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unused.forget(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def _mark(self) -> None:
        if not self.transport.is_closing():
            self.unused.mark(self, self._most_half_open)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None


def _is_unambiguous(scope: Scope) -> bool:
    """RFC 9112, 6.1 and 6.3: where a body's length is told in two ways, or in one that HTTP/1.0 doesn't have, a proxy
    before us may have seen another end of this request, and so another beginning of the next one."""
    names = {name for name, _ in scope["headers"]}
    return b"transfer-encoding" not in names or (b"content-length" not in names and scope["http_version"] != "1.0")


def refusal(status: int, error: str, headers: Mapping[str, str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told = {"api_id": str(uuid.uuid4()), "error": error}
        await JSONResponse(told, status, {**NOT_KEPT, **headers, "Connection": "close"})(scope, receive, send)

    return app


too_many = refusal(503, "too many connections are open: try again", {"Retry-After": str(RETRY_AFTER_S)})
ambiguous = refusal(400, "either Content-Length or Transfer-Encoding is allowed, the latter with HTTP/1.1", {})


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
            http=type("Connection", (Connection,), {"unused": Unused()}),
            # With uvloop, which uvicorn takes where it finds it, a port that is taken makes it hang instead of end.
            loop="asyncio",
            lifespan="on",
            ws="none",
            h11_max_incomplete_event_size=MOST_OF_A_HEAD,
            limit_concurrency=settings.web_connections,
            timeout_graceful_shutdown=LAST_S,
            **given,
        )
        super().__init__(config)
        self._app = app

    @property
    def broken(self) -> bool:
        """A task ended that runs as long as the process does: what it did nobody does any more, so the process ends."""
        return self.started and self.lifespan.error_occurred

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.broken

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Event streams never end by themselves.
        cast(Parts, self._app.state.parts).feeds.end()
        await super().shutdown(sockets)
