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
        self._came = bytearray()
        self._head: tuple[int, str, int | None, int] | None = None
        """Status, reason, length of the body (None: until the connection ends), start of the body."""
        self._answer: asyncio.Future[AriResponse] | None = None
        self.idle_since = 0.0
        self.open = True
        """True while another request can be sent."""

    async def ask(self, request: bytes) -> AriResponse:
        """Send a request and return the response. Raises ConnectionBroken."""
        assert self._transport is not None
        if not self.open:
            raise ConnectionBroken(CLOSED, unanswered=True, sent=False)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            # If the waiting request was canceled, the response would be taken for that of the next one.
            if not self._answer.done() or self._answer.cancelled():
                self.close()
            self._answer = None

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        try:
            self._read()
        except (ValueError, IndexError):
            self._broken(ConnectionBroken("its response is not HTTP"))

    def eof_received(self) -> None:
        self.open = False
        if self._head is not None and self._head[2] is None:
            self._done(bytes(self._came[self._head[3] :]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._broken(ConnectionBroken(str(exc) if exc else CLOSED, unanswered=not self._came))

    def _read(self) -> None:
        if self._head is None:
            end = self._came.find(b"\r\n\r\n")
            if end < 0:
                if len(self._came) > MAX_HEAD_BYTES:
                    raise ValueError
                return
            self._head = self._parsed(bytes(self._came[:end]).decode("latin-1"), end + 4)
        _, _, length, begins = self._head
        if length is not None and len(self._came) >= begins + length:
            self._done(bytes(self._came[begins : begins + length]))

    def _parsed(self, head: str, begins: int) -> tuple[int, str, int | None, int]:
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
            return 204, reason, 0, begins
        return int(status), reason, None if length is None else int(length), begins

    def _done(self, body: bytes) -> None:
        assert self._head is not None
        status, reason, _, _ = self._head
        self._came, self._head = bytearray(), None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(AriResponse(status, reason, body))
        else:
            self.close()  # no request waits for a response

    def _broken(self, error: ConnectionBroken) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()


class HttpPool:
    """Pool with at most `most` concurrent requests; further ones wait."""

    def __init__(self, url: str, authorization: str, most: int, permitted: Callable[[], Awaitable[None]]) -> None:
        """Create an empty pool. `permitted` is awaited once a request has a connection, which may take long."""
        where = urlsplit(url)
        self._url = url
        self._host = where.hostname or ""
        self._tls = ssl.create_default_context() if where.scheme == "https" else None
        self._port = where.port or (443 if self._tls else 80)
        self._prefix = where.path.rstrip("/")
        host = where.netloc.rpartition("@")[2]
        self._headers = f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n"
        self._free = asyncio.Semaphore(most)
        self._kept: list[HttpConnection] = []
        self._permitted = permitted

    async def request(self, method: str, path: str, query: str, body: bytes | None, twice: bool = False) -> AriResponse:
        """Send a request and return the response. `path` and `query` are percent-encoded, `body` is JSON. The calling
        code sets the deadline. `twice`: a POST that does no harm if it is carried out twice. Raises AriUnreachable."""
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        asked = f"{self._prefix}{path}?{query}" if query else self._prefix + path
        head = f"{method} {asked}{self._headers}{kind}Content-Length: {len(body or b'')}\r\n\r\n"
        async with self._free:
            try:
                return await self._ask(head.encode() + (body or b""), twice or method in IDEMPOTENT_METHODS)
            except (OSError, ConnectionBroken) as error:
                # An OSError comes from connecting, before anything is sent.
                sent = isinstance(error, ConnectionBroken) and error.sent
                raise AriUnreachable(f"Asterisk is unreachable at {self._url}: {error}", sent=sent) from None

    async def _ask(self, request: bytes, twice: bool) -> AriResponse:
        connection, kept = await self._connection()
        try:
            return await self._asked(connection, request)
        except ConnectionBroken as error:
            if not (kept and error.unanswered and (twice or not error.sent)):
                raise
        return await self._asked(await self._connect(), request)

    async def _asked(self, connection: HttpConnection, request: bytes) -> AriResponse:
        try:
            await self._permitted()
            answer = await connection.ask(request)
        except BaseException:
            # The pool doesn't have this connection, and the request may be canceled while it waits for permission.
            connection.close()
            raise
        if connection.open:
            connection.idle_since = asyncio.get_running_loop().time()
            self._kept.append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self) -> tuple[HttpConnection, bool]:
        """Return a connection, and True if it was used before. The last one that was used comes first, so that the
        others grow old."""
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._kept:
            connection = self._kept.pop()
            if connection.open and connection.idle_since > oldest:
                return connection, True
            connection.close()
        return await self._connect(), False

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(HttpConnection, self._host, self._port, ssl=self._tls)
        return connection

    def close(self) -> None:
        for connection in self._kept:
            connection.close()
        self._kept.clear()
