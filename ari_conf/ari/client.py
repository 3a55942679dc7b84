"""A client of Asterisk's REST interface (ARI): its events, and requests to it. Of the project it needs the errors and
the supervision of tasks.

Events come over one WebSocket, which either side may open:

outbound   Asterisk connects to us (20.15, 21.10, 22.5 and later). It keeps the application registered while we are
           away, and sends what happened meanwhile: a call placed during our restart is not lost.
inbound    we connect to Asterisk. While we are away, Stasis() fails.

Requests go over a pool of HTTP connections or over that WebSocket. There they are quicker, but run one after another:
one that waits for a channel (answer, addChannel) would hold up all those behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from aiohttp import encode_basic_auth

from ari_conf.ari.rest import Connections
from ari_conf.ari.sockets import Permission, Sockets, Told
from ari_conf.ari.wire import content
from ari_conf.errors import AriLate

Over = Literal["http", "socket"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where Asterisk is, and as what we speak to it."""

    url: str
    """Such as http://127.0.0.1:8088/ari."""
    app: str
    user: str
    password: str = field(repr=False)
    listen: tuple[str, int] | None = None
    """outbound: where Asterisk's WebSocket is awaited, with the same user and password. None: inbound."""
    deadline: float = 5.0
    """Seconds for each request, waiting for a free connection included."""
    connections: int = 16
    """HTTP connections at most; `sessionlimit` in http.conf must be above it."""
    patience: float = 3.0
    """outbound: seconds for which Asterisk is given time to open its WebSocket; then we open one."""
    media_host: str = "127.0.0.1"
    """The IPv4 address of ours to which Asterisk may send a channel's sound."""
    events: tuple[str, ...] = ()
    """The types of events that are wanted; Asterisk sends no others. Empty: all."""


class Always:
    """Permission that is always had."""

    fresh = True

    async def confirmed(self) -> None:
        return


ALWAYS = Always()


class Client:
    """`on_event` gets each event, decoded, in order; all three callbacks must return at once.

    `on_connected` comes before the first event of a connection, `on_disconnected` after its last: what happened in
    between may be unknown, so compare with what Asterisk has at every `on_connected`.
    """

    def __init__(
        self,
        server: Server,
        on_event: Callable[[dict[str, Any]], None],
        on_connected: Callable[[], None] = lambda: None,
        on_disconnected: Callable[[], None] = lambda: None,
        permission: Permission = ALWAYS,
    ) -> None:
        """`permission`: without it nothing is asked of Asterisk."""
        self._server = server
        self.permission = permission
        self._sockets = Sockets(server, self, Told(on_event, on_connected, on_disconnected))
        authorization = encode_basic_auth(server.user, server.password)
        self._rest = Connections(server.url, authorization, server.connections, permission.confirmed)

    @property
    def app(self) -> str:
        return self._server.app

    @property
    def host(self) -> str:
        """Asterisk's, by name or address."""
        return urlsplit(self._server.url).hostname or ""

    @property
    def media_host(self) -> str:
        return self._server.media_host

    @property
    def connected(self) -> bool:
        """The events' WebSocket stands."""
        return self._sockets.newest is not None

    async def start(self, patience: float | None = None) -> None:
        """Returns at once; the connection comes when it comes. Raises SetupFailed if `listen` can't be had.
        `patience`: another than the server's, for the first connection."""
        await self._sockets.start(self._server.patience if patience is None else patience)

    async def ended(self) -> None:
        """Wait until the events' WebSocket is no longer seen to: after `finish`, or by a defect, which is raised."""
        await self._sockets.ended()

    async def finish(self, within: float = 1.0) -> None:
        """Ends the events' WebSocket: what Asterisk has sent until then is heard, and nothing after it. Requests can
        still be made."""
        await self._sockets.finish(within)

    async def close(self) -> None:
        await self._sockets.close()
        self._rest.close()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        over: Over = "http",
        kind: Any = Any,
        twice: bool = False,
    ) -> Any:
        """What Asterisk answers, decoded as that `kind`; None if it is empty.

        `path` begins with a slash, below /ari, its parts percent-encoded; `body` is sent as JSON. Without a WebSocket,
        or if this Asterisk takes no requests there, "socket" means HTTP. `twice`: it does no harm if it is done twice.
        Raises AriNotFound (404), AriUnreachable (no connection, or no answer in time), AriError (anything else).
        """
        await self.permission.confirmed()
        socket = self._sockets.newest if over == "socket" else None
        sent = msgspec.json.encode(body) if body is not None else None
        try:
            async with asyncio.timeout(self._server.deadline):
                if socket is not None and socket.answers:
                    answer = await socket.request(method, path, query or {}, sent)
                else:
                    asked = urlencode(query, quote_via=quote) if query else ""
                    answer = await self._rest.request(method, path, asked, sent, twice)
        except TimeoutError:
            late = f"Asterisk did not answer {method} {path} within {self._server.deadline:g} s"
            raise AriLate(late) from None
        return content(method, path, answer, kind)
