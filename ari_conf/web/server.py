"""HTTP server of `ari-conf web`: uvicorn's, with the timeouts and limits for slow clients that uvicorn lacks."""

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

from ari_conf.common import systemd
from ari_conf.settings import Settings, parse_listen_address
from ari_conf.web.auth import network_of
from ari_conf.web.errors import DEFAULT_HEADERS, RETRY_AFTER_S
from ari_conf.web.resources import Resources

MAX_HEAD_BYTES = 256 * 1024
"""Maximum size of request line and headers, in bytes. A name of 10,000 characters may have 120,000 bytes when
URL-encoded."""
HEAD_TIMEOUT_S = 10.0
"""Seconds within which request line and headers must arrive. `parameters.BODY_TIMEOUT_S` limits the body."""
HALF_OPEN_SHARE = 10
"""Divisor of `web_connections`: for longer than GRACE_S, one address may have at most a tenth of them half open, which
means that no whole request has arrived."""
GRACE_S = 1.0
"""Seconds for which one address may exceed that share: in a burst, each connection sends its request immediately."""
CLIENT_READ_TIMEOUT_MS = 30_000
"""Milliseconds after which a client that reads nothing of its response is disconnected."""
SHUTDOWN_TIMEOUT_S = 10


class UnusedConnections:
    """Unused connections of a server: half-open ones, and idle ones between two requests.

    They make room for new ones, so that an address that opens many connections does not block other addresses."""

    def __init__(self) -> None:
        self._by_address: dict[str, dict[LimitedH11Protocol, bool]] = {}
        """Address -> connection -> whether it is half open. The connection that has been unused longest comes first."""
        self._half_open = Counter[str]()
        self._trim_scheduled = set[str]()

    def mark(self, connection: LimitedH11Protocol, most_half_open: int) -> None:
        """Update the entry of a connection: half open, idle, or none while a request is in progress."""
        self.forget(connection)
        cycle, address = connection.cycle, connection.address
        idle = cycle is not None and cycle.response_complete
        if not idle and cycle is not None and not cycle.more_body:
            return
        self._by_address.setdefault(address, {})[connection] = not idle
        self._half_open[address] += not idle
        if self._half_open[address] > most_half_open and address not in self._trim_scheduled:
            self._trim_scheduled.add(address)
            connection.loop.call_later(GRACE_S, self._trim, address, most_half_open)

    def forget(self, connection: LimitedH11Protocol) -> None:
        of_address = self._by_address.get(connection.address, {})
        self._half_open[connection.address] -= of_address.pop(connection, False)
        if not of_address:
            self._by_address.pop(connection.address, None)
            del self._half_open[connection.address]

    def make_room(self) -> bool:
        """Close the longest unused connection of the address that has most of them. Return False if none exists."""
        if not self._by_address:
            return False
        largest = max(self._by_address.values(), key=len)
        self._abort(next(iter(largest)))
        return True

    def _trim(self, address: str, most: int) -> None:
        self._trim_scheduled.discard(address)
        waiting = [connection for connection, half_open in self._by_address.get(address, {}).items() if half_open]
        for connection in waiting[: max(0, len(waiting) - most)]:
            self._abort(connection)

    def _abort(self, connection: LimitedH11Protocol) -> None:
        self.forget(connection)
        connection.transport.abort()


class LimitedH11Protocol(H11Protocol):
    """Protocol of one connection, with a limit on connections and a timeout for the request head."""

    unused: UnusedConnections
    """Unused connections of the server. `WebServer` sets this in a subclass of its own."""
    address = ""
    _most_half_open = 0
    _head_timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn would refuse a connection with plain text instead of JSON.
        most, self.limit_concurrency = self.limit_concurrency or 0, None
        made_room = len(self.connections) > most and self.unused.make_room()
        if len(self.connections) > most + most // 4 + 1 and not made_room:
            # Connections above the limit get a 503 for their request. Their number is limited, too.
            transport.abort()
            return
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_READ_TIMEOUT_MS)
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
        self._start_head_timeout()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._mark()
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timeout()
        elif self._head_timeout is None:
            self._start_head_timeout()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._mark()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unused.forget(self)
        self._stop_head_timeout()
        super().connection_lost(exc)

    def _mark(self) -> None:
        if not self.transport.is_closing():
            self.unused.mark(self, self._most_half_open)

    def _start_head_timeout(self) -> None:
        self._head_timeout = self.loop.call_later(HEAD_TIMEOUT_S, self.timeout_keep_alive_handler)

    def _stop_head_timeout(self) -> None:
        if self._head_timeout is not None:
            self._head_timeout.cancel()
            self._head_timeout = None


def _is_unambiguous(scope: Scope) -> bool:
    """Return whether the length of the body is unambiguous (RFC 9112, 6.1 and 6.3).

    If a request has both Content-Length and Transfer-Encoding, or HTTP/1.0 with Transfer-Encoding, a proxy in front of
    this server may see a different end of this request, and so a different start of the next one."""
    names = {name for name, _ in scope["headers"]}
    return b"transfer-encoding" not in names or (b"content-length" not in names and scope["http_version"] != "1.0")


def refusal(status: int, error: str, headers: Mapping[str, str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = {"api_id": str(uuid.uuid4()), "error": error}
        await JSONResponse(body, status, {**DEFAULT_HEADERS, **headers, "Connection": "close"})(scope, receive, send)

    return app


too_many = refusal(503, "too many connections are open: try again", {"Retry-After": str(RETRY_AFTER_S)})
ambiguous = refusal(400, "either Content-Length or Transfer-Encoding is allowed, the latter only with HTTP/1.1", {})


class WebServer(uvicorn.Server):
    def __init__(self, app: FastAPI, settings: Settings, **more: Any) -> None:
        host, port = parse_listen_address(settings.web_listen)
        given: dict[str, Any] = {"host": host, "port": port, **more}
        config = uvicorn.Config(
            app,
            # uvicorn's own logging would add lines in another format.
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=settings.trusted_proxies,
            http=type("Connection", (LimitedH11Protocol,), {"unused": UnusedConnections()}),
            # uvicorn uses uvloop if it is installed, and then hangs instead of exiting if the port is in use.
            loop="asyncio",
            lifespan="on",
            ws="none",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            limit_concurrency=settings.web_connections,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
            **given,
        )
        super().__init__(config)
        self._app = app

    @property
    def broken(self) -> bool:
        """True if a task failed that should run as long as the process: nothing replaces it, so the process exits."""
        return self.started and self.lifespan.error_occurred

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.broken

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            systemd.notify_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Event streams never end unless the server closes them.
        cast(Resources, self._app.state.resources).feeds.end()
        await super().shutdown(sockets)
