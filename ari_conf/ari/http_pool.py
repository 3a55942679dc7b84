"""HTTP pool: sends requests to Asterisk over a few persistent connections.

A general client takes five times as long, and each call needs several requests (docs/development/performance.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ari_conf.ari.websocket import AriResponse
from ari_conf.errors import AriUnreachable

MAX_IDLE_S = 30.0
"""Seconds for which an idle connection is kept: less than `session_keep_alive` in http.conf, so that this side closes
it first."""
IDEMPOTENT_METHODS = ("GET", "PUT", "DELETE")
"""Methods that are sent again if a kept connection closes at the moment of its use: they do no harm twice (RFC
9110)."""
MAX_HEAD_BYTES = 64 * 1024
CLOSED, NOT_HTTP = "it closed the connection", "its response is not HTTP"
LENGTH_HEADERS = (b"content-length", b"transfer-encoding")
"""Without these headers, a body ends with the connection (RFC 9112 §6.3)."""


class ConnectionBroken(Exception):
    """End of the connection, or received data that is not HTTP. `unanswered`: nothing of a response had arrived. Not
    `sent`: the request was not even started."""

    def __init__(self, reason: str, unanswered: bool = False, sent: bool = True) -> None:
        super().__init__(reason)
        self.unanswered = unanswered
        self.sent = sent


class HttpConnection(asyncio.Protocol):
    """HTTP connection, for one request at a time. httptools parses the responses."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._response: asyncio.Future[AriResponse] | None = None
        self.idle_since = 0.0
        self.open = True
        """True while another request can be sent."""
        self._reset()

    def _reset(self) -> None:
        self._received_bytes = 0
        self._has_head = self._states_length = False
        self._reason, self._chunks = b"", list[bytes]()

    async def ask(self, request: bytes) -> AriResponse:
        """Send a request and return the response. Raises ConnectionBroken."""
        assert self._transport is not None
        if not self.open:
            raise ConnectionBroken(CLOSED, unanswered=True, sent=False)
        self._response = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._response
        finally:
            # If the waiting request was canceled, the response would be taken for that of the next one.
            if not self._response.done() or self._response.cancelled():
                self.close()
            self._response = None

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._fail(ConnectionBroken(NOT_HTTP))
        else:
            if self._received_bytes > MAX_HEAD_BYTES and not self._has_head:
                self._fail(ConnectionBroken(NOT_HTTP))

    def eof_received(self) -> None:
        self.open = False
        if self._has_head and not self._states_length:
            self.on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail(ConnectionBroken(str(exc) if exc else CLOSED, unanswered=not self._received_bytes))

    # Called by httptools.

    def on_message_begin(self) -> None:
        if self._response is None or self._response.done():
            # No request waits for a response: what has begun would be taken for that of the next request.
            self.close()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in LENGTH_HEADERS:
            self._states_length = True

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        status, reason = self._parser.get_status_code(), self._reason.decode("latin-1")
        if status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS:
            # An interim response: the final one follows (RFC 9110 §15.2). Its bytes count as those of the head.
            self._has_head = self._states_length = False
            self._reason = b""
            return
        response = AriResponse(status, reason, b"".join(self._chunks))
        self._reset()
        if not self._parser.should_keep_alive():
            self.open = False
        if self._response is not None and not self._response.done():
            self._response.set_result(response)
        else:
            self.close()  # no request waits for a response

    def _fail(self, error: ConnectionBroken) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(error)
        self.close()


class HttpPool:
    """Pool with at most `most` concurrent requests; further ones wait."""

    def __init__(
        self, url: str, authorization: str, most: int, wait_until_permitted: Callable[[], Awaitable[None]]
    ) -> None:
        """Create an empty pool. `wait_until_permitted` may take long; it is awaited once a request has a connection."""
        parts = urlsplit(url)
        self._url = url
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        self._headers = f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n"
        self._slots = asyncio.Semaphore(most)
        self._idle: list[HttpConnection] = []
        self._wait_until_permitted = wait_until_permitted

    async def request(
        self, method: str, path: str, query: str, body: bytes | None, idempotent: bool = False
    ) -> AriResponse:
        """Send a request and return the response. `path` and `query` are percent-encoded, `body` is JSON. The calling
        code sets the deadline. `idempotent`: a POST that does no harm if it is carried out twice. Raises
        AriUnreachable."""
        content_type = "Content-Type: application/json\r\n" if body is not None else ""
        target = f"{self._prefix}{path}?{query}" if query else self._prefix + path
        head = f"{method} {target}{self._headers}{content_type}Content-Length: {len(body or b'')}\r\n\r\n"
        async with self._slots:
            try:
                return await self._ask_with_retry(
                    head.encode() + (body or b""), idempotent or method in IDEMPOTENT_METHODS
                )
            except (OSError, ConnectionBroken) as error:
                # An OSError comes from connecting, before anything is sent.
                sent = isinstance(error, ConnectionBroken) and error.sent
                raise AriUnreachable(f"Asterisk is unreachable at {self._url}: {error}", sent=sent) from None

    async def _ask_with_retry(self, request: bytes, idempotent: bool) -> AriResponse:
        connection, was_idle = await self._acquire()
        try:
            return await self._ask_over(connection, request)
        except ConnectionBroken as error:
            if not (was_idle and error.unanswered and (idempotent or not error.sent)):
                raise
        return await self._ask_over(await self._connect(), request)

    async def _ask_over(self, connection: HttpConnection, request: bytes) -> AriResponse:
        try:
            await self._wait_until_permitted()
            response = await connection.ask(request)
        except BaseException:
            # The pool doesn't have this connection, and the request may be canceled while it waits for permission.
            connection.close()
            raise
        if connection.open:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()
        return response

    async def _acquire(self) -> tuple[HttpConnection, bool]:
        """Return a connection, and True if it was used before. The last one that was used comes first, so that the
        others grow old."""
        oldest = asyncio.get_running_loop().time() - MAX_IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.idle_since > oldest:
                return connection, True
            connection.close()
        return await self._connect(), False

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(HttpConnection, self._host, self._port, ssl=self._tls)
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()
