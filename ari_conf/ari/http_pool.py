"""HTTP pool: sends requests to Asterisk over a few persistent connections. It supports only the HTTP that Asterisk's
server uses.

A general client takes five times as long, and each call needs several requests (docs/development/performance.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from ari_conf.ari.websocket import AriResponse
from ari_conf.errors import AriUnreachable

IDLE_S = 30.0
"""Seconds for which an idle connection is kept: less than `session_keep_alive` in http.conf, so that this side closes
it first."""
IDEMPOTENT_METHODS = ("GET", "PUT", "DELETE")
"""Methods that are sent again if a kept connection closes at the moment of its use: they do no harm twice (RFC
9110)."""
MAX_HEAD_BYTES = 64 * 1024
CLOSED = "it closed the connection"


class ConnectionBroken(Exception):
    """End of the connection, or received data that is not HTTP. `unanswered`: nothing of a response had arrived. Not
    `sent`: the request was not even started."""

    def __init__(self, reason: str, unanswered: bool = False, sent: bool = True) -> None:
        super().__init__(reason)
        self.unanswered = unanswered
        self.sent = sent


class HttpConnection(asyncio.Protocol):
    """HTTP connection, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._head: tuple[int, str, int | None, int] | None = None
        """Status, reason, length of the body (None: until the connection ends), start of the body."""
        self._response: asyncio.Future[AriResponse] | None = None
        self.idle_since = 0.0
        self.open = True
        """True while another request can be sent."""

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
        self._received += data
        try:
            self._parse()
        except (ValueError, IndexError):
            self._fail(ConnectionBroken("its response is not HTTP"))

    def eof_received(self) -> None:
        self.open = False
        if self._head is not None and self._head[2] is None:
            self._complete(bytes(self._received[self._head[3] :]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._fail(ConnectionBroken(str(exc) if exc else CLOSED, unanswered=not self._received))

    def _parse(self) -> None:
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                if len(self._received) > MAX_HEAD_BYTES:
                    raise ValueError
                return
            self._head = self._parse_head(bytes(self._received[:end]).decode("latin-1"), end + 4)
        _, _, length, body_start = self._head
        if length is not None and len(self._received) >= body_start + length:
            self._complete(bytes(self._received[body_start : body_start + length]))

    def _parse_head(self, head: str, body_start: int) -> tuple[int, str, int | None, int]:
        first, *lines = head.split("\r\n")
        version, status, reason = [*first.split(" ", 2), ""][:3]
        if not version.startswith("HTTP/1."):
            raise ValueError
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "transfer-encoding" in headers:
            raise ValueError  # Asterisk's server always states a length
        length = headers.get("content-length")
        if version != "HTTP/1.1" or length is None or headers.get("connection", "").lower() == "close":
            self.open = False
        if int(status) == 204:
            return 204, reason, 0, body_start
        return int(status), reason, None if length is None else int(length), body_start

    def _complete(self, body: bytes) -> None:
        assert self._head is not None
        status, reason, _, _ = self._head
        self._received, self._head = bytearray(), None
        if self._response is not None and not self._response.done():
            self._response.set_result(AriResponse(status, reason, body))
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

    async def request(self, method: str, path: str, query: str, body: bytes | None, twice: bool = False) -> AriResponse:
        """Send a request and return the response. `path` and `query` are percent-encoded, `body` is JSON. The calling
        code sets the deadline. `twice`: a POST that does no harm if it is carried out twice. Raises AriUnreachable."""
        content_type = "Content-Type: application/json\r\n" if body is not None else ""
        target = f"{self._prefix}{path}?{query}" if query else self._prefix + path
        head = f"{method} {target}{self._headers}{content_type}Content-Length: {len(body or b'')}\r\n\r\n"
        async with self._slots:
            try:
                return await self._ask_with_retry(head.encode() + (body or b""), twice or method in IDEMPOTENT_METHODS)
            except (OSError, ConnectionBroken) as error:
                # An OSError comes from connecting, before anything is sent.
                sent = isinstance(error, ConnectionBroken) and error.sent
                raise AriUnreachable(f"Asterisk is unreachable at {self._url}: {error}", sent=sent) from None

    async def _ask_with_retry(self, request: bytes, twice: bool) -> AriResponse:
        connection, was_idle = await self._acquire()
        try:
            return await self._ask_over(connection, request)
        except ConnectionBroken as error:
            if not (was_idle and error.unanswered and (twice or not error.sent)):
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
        oldest = asyncio.get_running_loop().time() - IDLE_S
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
