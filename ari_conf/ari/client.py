"""Client of Asterisk's REST interface (ARI): receives its events and sends requests to it. Of this project it needs
only the errors and the supervision of tasks.

Events arrive over one WebSocket, which either side may open:

outbound   Asterisk connects to the server (20.15, 21.10, 22.5 and later). While the server is disconnected, Asterisk
           keeps the Stasis application registered, and later sends the missed events: a call placed in that time is not
           lost.
inbound    the server connects to Asterisk. While it is disconnected, Stasis() fails.

Requests go over a pool of HTTP connections or over that WebSocket. The WebSocket is faster, but Asterisk runs its
requests sequentially: one that waits for a channel (answer, addChannel) would delay all those behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from ari_conf.ari.address import AriConfig
from ari_conf.ari.event_sockets import EventHandlers, EventSockets
from ari_conf.ari.http_requests import HttpRequests, encode_body, late
from ari_conf.ari.permission import ALWAYS_PERMITTED, ActPermission
from ari_conf.ari.websocket import decode_response

Transport = Literal["http", "socket"]


class Client:
    """ARI client. `on_event` gets each event, decoded, in order; all three callbacks must return immediately.

    `on_connected` is called before the first event of a connection, `on_disconnected` after its last. What happened in
    between may be unknown, so reconcile with Asterisk at every `on_connected`.
    """

    def __init__(
        self,
        server: AriConfig,
        on_event: Callable[[dict[str, Any]], None],
        on_connected: Callable[[], None] = lambda: None,
        on_disconnected: Callable[[], None] = lambda: None,
        permission: ActPermission = ALWAYS_PERMITTED,
    ) -> None:
        """Create a client that is not connected. It sends no request while `permission` is not held."""
        self._server = server
        self.permission = permission
        self._http = HttpRequests(server, permission)
        handlers = EventHandlers(on_event, on_connected, on_disconnected)
        self._sockets = EventSockets(server, self._http, permission, handlers)

    @property
    def app(self) -> str:
        return self._server.app

    @property
    def host(self) -> str:
        """Asterisk's host name or address."""
        return urlsplit(self._server.url).hostname or ""

    @property
    def media_host(self) -> str:
        return self._server.media_host

    @property
    def connected(self) -> bool:
        """True while an event WebSocket is connected."""
        return self._sockets.newest is not None

    async def start(self, timeout_s: float | None = None) -> None:
        """Start to connect, without waiting for the connection. Raises SetupFailed if the server can't listen on
        `listen`. `timeout_s`: seconds that replace the server's for the first connection."""
        await self._sockets.start(self._server.own_socket_timeout_s if timeout_s is None else timeout_s)

    async def wait_until_closed(self) -> None:
        """Wait until the event WebSocket is no longer kept open: after `finish`, or after an internal error, which is
        raised."""
        await self._sockets.wait_until_closed()

    async def finish(self, timeout_s: float = 1.0) -> None:
        """Close the event WebSocket within `timeout_s` seconds. What Asterisk has sent until then is received, and
        nothing after it. Requests can still be made."""
        await self._sockets.finish(timeout_s)

    async def close(self) -> None:
        await self._sockets.close()
        self._http.close()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        over: Transport = "http",
        kind: Any = Any,
        idempotent: bool = False,
    ) -> Any:
        """Send a request, and return Asterisk's response, decoded as a `kind`; None if it is empty.

        `path` begins with a slash, below /ari, its parts percent-encoded; `body` is sent as JSON. Without a WebSocket,
        or if this Asterisk takes no requests there, "socket" means HTTP. `idempotent`: the request does no harm if it
        is carried out twice. Raises AriNotFound (404), AriUnreachable (no connection, or no response in time), AriError
        (anything else).
        """
        if over == "http":
            return await self._http.request(method, path, query, body, kind=kind, idempotent=idempotent)
        await self.permission.wait_until_held()
        socket = self._sockets.newest
        if socket is None or not socket.accepts_requests:
            return await self._http.request(method, path, query, body, kind=kind, idempotent=idempotent)
        encoded_body = encode_body(body)
        try:
            async with asyncio.timeout(self._server.request_timeout_s):
                response = await socket.request(method, path, query or {}, encoded_body)
        except TimeoutError:
            raise late(self._server.request_timeout_s, method, path) from None
        return decode_response(method, path, response, kind)
