"""Requests over a few kept HTTP connections to Asterisk. Of HTTP it knows what Asterisk's server speaks.

Of its own, since it is asked for each call several times: a general client takes five times as long
(docs/performance.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from ari_conf.ari.wire import Answer
from ari_conf.errors import AriUnreachable

IDLE_S = 30.0
"""For which an idle connection is kept: less than `session_keep_alive` in http.conf, so that we close it first."""
TWICE = ("GET", "PUT", "DELETE")
"""Sent again if a kept connection is closed at the moment when it is taken: they do no harm twice (RFC 9110)."""
MOST_HEAD = 64 * 1024
CLOSED = "it closed the connection"


class Broken(Exception):
    """The connection ended, or what came is not HTTP. Nothing of an answer was there if `unanswered`; the request was
    not even begun if not `sent`."""

    def __init__(self, reason: str, unanswered: bool = False, sent: bool = True) -> None:
        super().__init__(reason)
        self.unanswered = unanswered
        self.sent = sent


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._head: tuple[int, str, int | None, int] | None = None
        """Status, reason, length of the body (None: until the connection ends), where it begins."""
        self._answer: asyncio.Future[Answer] | None = None
        self.kept_since = 0.0
        self.open = True
        """Another request can be sent."""

    async def ask(self, request: bytes) -> Answer:
        """Raises Broken."""
        assert self._transport is not None
        if not self.open:
            raise Broken(CLOSED, unanswered=True, sent=False)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            # Should nobody wait any more, the answer would be taken for the next one's.
            if not self._answer.done() or self._answer.cancelled():
                self.close()
            self._answer = None

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        try:
            self._read()
        except (ValueError, IndexError):
            self._broken(Broken("its answer is not HTTP"))

    def eof_received(self) -> None:
        self.open = False
        if self._head is not None and self._head[2] is None:
            self._done(bytes(self._came[self._head[3] :]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._broken(Broken(str(exc) if exc else CLOSED, unanswered=not self._came))

    def _read(self) -> None:
        if self._head is None:
            end = self._came.find(b"\r\n\r\n")
            if end < 0:
                if len(self._came) > MOST_HEAD:
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
            raise ValueError  # Asterisk's server sends lengths
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
            self._answer.set_result(Answer(status, reason, body))
        else:
            self.close()  # nobody has asked

    def _broken(self, error: Broken) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()


class Connections:
    """`most` at a time; who finds none free waits."""

    def __init__(self, url: str, authorization: str, most: int, permitted: Callable[[], Awaitable[None]]) -> None:
        """`permitted` is awaited when a connection is there, which may have taken long."""
        where = urlsplit(url)
        self._url = url
        self._host = where.hostname or ""
        self._tls = ssl.create_default_context() if where.scheme == "https" else None
        self._port = where.port or (443 if self._tls else 80)
        self._prefix = where.path.rstrip("/")
        host = where.netloc.rpartition("@")[2]
        self._headers = f" HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n"
        self._free = asyncio.Semaphore(most)
        self._kept: list[Connection] = []
        self._permitted = permitted

    async def request(self, method: str, path: str, query: str, body: bytes | None, twice: bool = False) -> Answer:
        """`path` and `query` percent-encoded, `body` JSON. The caller sets the deadline. `twice`: a POST that does no
        harm if it is done twice. Raises AriUnreachable."""
        kind = "Content-Type: application/json\r\n" if body is not None else ""
        asked = f"{self._prefix}{path}?{query}" if query else self._prefix + path
        head = f"{method} {asked}{self._headers}{kind}Content-Length: {len(body or b'')}\r\n\r\n"
        async with self._free:
            try:
                return await self._ask(head.encode() + (body or b""), twice or method in TWICE)
            except (OSError, Broken) as error:
                # An OSError comes from connecting.
                sent = isinstance(error, Broken) and error.sent
                raise AriUnreachable(f"Asterisk can't be reached at {self._url}: {error}", sent=sent) from None

    async def _ask(self, request: bytes, twice: bool) -> Answer:
        connection, kept = await self._connection()
        try:
            return await self._asked(connection, request)
        except Broken as error:
            if not (kept and error.unanswered and (twice or not error.sent)):
                raise
        return await self._asked(await self._connect(), request)

    async def _asked(self, connection: Connection, request: bytes) -> Answer:
        try:
            await self._permitted()
            answer = await connection.ask(request)
        except BaseException:
            # Nobody else knows of it: while permission is waited for, a caller may give up.
            connection.close()
            raise
        if connection.open:
            connection.kept_since = asyncio.get_running_loop().time()
            self._kept.append(connection)
        else:
            connection.close()
        return answer

    async def _connection(self) -> tuple[Connection, bool]:
        """And whether it was used before. The last one that was: the others grow old."""
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._kept:
            connection = self._kept.pop()
            if connection.open and connection.kept_since > oldest:
                return connection, True
            connection.close()
        return await self._connect(), False

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port, ssl=self._tls)
        return connection

    def close(self) -> None:
        for connection in self._kept:
            connection.close()
        self._kept.clear()
