"""Event WebSockets: the connections over which Asterisk sends events, opened by Asterisk, by the server, or (after a
takeover) one by each.

Asterisk sends an application's events over only one of them, and can't be asked which. If a WebSocket that the server
opened has taken over the application, the application no longer exists once that WebSocket ends: Asterisk's own is back
then, but carries no events (seen on 22.10.1, until ari.conf changes or Asterisk restarts). So whenever a WebSocket
opens or ends, the server sends itself an event, and opens a WebSocket if that doesn't arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import picows
import structlog
from aiohttp import encode_basic_auth
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from ari_conf.ari.address import AriConfig
from ari_conf.ari.http_requests import HttpRequests
from ari_conf.ari.permission import ActPermission
from ari_conf.ari.websocket import AriWebSocket
from ari_conf.common.supervision import Tasks
from ari_conf.errors import AriError, AriNotFound, SetupFailed

log = structlog.get_logger()

HEARTBEAT_S = 3.0
"""Seconds without a message until a ping; half of that later, without a pong, the connection counts as dead."""
MIN_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 0.25, 5.0
"""Seconds between attempts to connect (inbound): doubled each time, with jitter."""
PROBE_EVENT = "ari_conf_hears"
"""Name of the event that the server sends itself."""
PROBE_TIMEOUT_S, PROBE_ATTEMPTS = 0.8, 2
"""Seconds to wait for that event, and number of attempts: two, so that a busy Asterisk doesn't count as one that sends
no events."""
LISTEN_RETRY_S, POLL_INTERVAL_S, CLOSE_TIMEOUT_S = 1.0, 0.25, 1.0
REQUIRED_EVENTS = ("RESTResponse", "ChannelUserevent", "ApplicationReplaced")
"""Event types that the filter must allow. It applies to responses on the WebSocket as well: without RESTResponse none
would arrive (seen on 22.10.1)."""
CONNECT_ERRORS = (picows.WSError, OSError)
"""Errors of an attempt to connect. TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True)
class EventHandlers:
    """Callbacks for events, connections and disconnections. All must return immediately."""

    event: Callable[[dict[str, Any]], None]
    connected: Callable[[], None]
    disconnected: Callable[[], None]


class EventSockets:
    def __init__(
        self, server: AriConfig, http: HttpRequests, permission: ActPermission, handlers: EventHandlers
    ) -> None:
        self._server, self._http, self._permission, self._handlers = server, http, permission, handlers
        self._authorization = encode_basic_auth(server.user, server.password)
        self._open: list[AriWebSocket] = []
        """Connected WebSockets, the newest last."""
        self._listener: asyncio.Server | None = None
        self._disconnected_since = 0.0
        self._finished = False
        self._check_needed, self._probe_received, self._all_closed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._all_closed.set()
        self._tasks = Tasks()
        self._connecting: asyncio.Task[None] | None = None
        self._preparing: dict[AriWebSocket, asyncio.Task[None]] = {}

    @property
    def newest(self) -> AriWebSocket | None:
        return self._open[-1] if self._open else None

    async def start(self, timeout_s: float) -> None:
        """Start to connect, or to listen. `timeout_s`: seconds for the first connection. Raises SetupFailed if the
        server can't listen on `listen`."""
        if self._server.listen is None:
            self._connecting = self._tasks.start(self._keep_connected())
            return
        self._disconnected_since = asyncio.get_running_loop().time() - self._server.own_socket_timeout_s + timeout_s
        await self._listen(*self._server.listen)
        self._connecting = self._tasks.start(self._connect_if_not_receiving())

    async def wait_until_closed(self) -> None:
        """Wait until no WebSocket is kept open any more: after `finish`, or, before it, after an internal error, which
        is raised."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
            self._connecting.result()

    async def finish(self, timeout_s: float) -> None:
        self._finished = True
        self._stop_accepting()
        for socket in tuple(self._open):
            socket.start_close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), timeout_s)

    async def close(self) -> None:
        self._finished = True
        self._stop_accepting()
        await self._tasks.close()
        for socket in tuple(self._open):
            socket.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_closed.wait(), CLOSE_TIMEOUT_S)

    # WebSockets that Asterisk opens.

    async def _listen(self, host: str, port: int) -> None:
        try:
            await self._listen_on(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = f"{error.strerror}; correct ARI_CONF_ARI_LISTEN"
                raise SetupFailed(f"can't listen on {host}:{port} for Asterisk's WebSocket: {reason}") from None
            # The port belongs to a previous owner, a suspended process that doesn't know yet that it has lost the
            # lease.
            action = "the server opens a WebSocket itself"
            log.error("event websocket port in use", listen=f"{host}:{port}", action=action)
            self._disconnected_since = float("-inf")
            self._tasks.start(self._retry_listening(host, port))

    async def _retry_listening(self, host: str, port: int) -> None:
        while True:
            await asyncio.sleep(LISTEN_RETRY_S)
            with contextlib.suppress(OSError):
                await self._listen_on(host, port)
                log.info("event websocket port available", listen=f"{host}:{port}")
                return

    async def _listen_on(self, host: str, port: int) -> None:
        self._listener = await picows.ws_create_server(self._on_upgrade, host, port, **_picows_options())

    def _stop_accepting(self) -> None:
        # Asterisk reconnects within a millisecond, and waits indefinitely for a response to its handshake.
        if self._listener is not None:
            self._listener.close()

    def _on_upgrade(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = request.headers.get("Authorization", "")
        if not hmac.compare_digest(offered.encode(errors="replace"), self._authorization.encode()):
            log.warning("websocket rejected", reason="wrong user or password")
            return _refuse(401, {"WWW-Authenticate": 'Basic realm="ari"'})
        if not self._permission.is_held:
            # Asterisk tries again in half a second. By then the permission is confirmed, or another process has it.
            self._tasks.start(self._permission.wait_until_held())
            return _refuse(503, {"Retry-After": "1"})
        chosen = {"Sec-WebSocket-Protocol": "ari"} if "Sec-WebSocket-Protocol" in request.headers else {}
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(chosen), self._socket(opened_by_server=False)
        )

    # WebSockets that the server opens.

    async def _keep_connected(self) -> None:
        retry_delay_s = MIN_RETRY_DELAY_S
        while not self._finished:
            try:
                socket = await self._connect()
            except CONNECT_ERRORS as error:
                log.warning("asterisk unreachable", url=self._server.url, reason=str(error) or "no answer in time")
            else:
                retry_delay_s = MIN_RETRY_DELAY_S
                await socket.wait_closed()
            await asyncio.sleep(random.uniform(retry_delay_s / 2, retry_delay_s))
            retry_delay_s = min(retry_delay_s * 2, MAX_RETRY_DELAY_S)

    async def _connect_if_not_receiving(self) -> None:
        """Open a WebSocket whenever Asterisk's own is missing or carries no events. If Asterisk's own opens after all,
        both stay open; events arrive on one of them."""
        while not self._finished:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._check_needed.wait(), min(self._server.own_socket_timeout_s / 2, POLL_INTERVAL_S)
                )
            in_doubt = self._check_needed.is_set()
            self._check_needed.clear()
            if self._open and (not in_doubt or await self._receives_events()):
                continue
            if (
                not self._open
                and asyncio.get_running_loop().time() < self._disconnected_since + self._server.own_socket_timeout_s
            ):
                continue
            try:
                await self._connect()
            except CONNECT_ERRORS:
                self._check_needed.set()
                await asyncio.sleep(MIN_RETRY_DELAY_S)
                continue
            reason = "no events on a WebSocket that Asterisk opened"
            log.warning("event websocket opened by server", app=self._server.app, reason=reason)

    async def _connect(self) -> AriWebSocket:
        await self._permission.wait_until_held()
        query = urlencode({"app": self._server.app, "subscribeAll": "false"})
        url = f"ws{self._server.url.rstrip('/').removeprefix('http')}/events?{query}"
        socket = self._socket(opened_by_server=True)
        async with asyncio.timeout(self._server.request_timeout_s):
            login = {"Authorization": self._authorization}
            await picows.ws_connect(lambda: socket, url, extra_headers=login, **_picows_options())
        if not socket.is_open:
            # picows returns normally all the same, and never reports the end (seen with 2.3.1).
            raise ConnectionResetError("Asterisk closed the connection before the WebSocket was open")
        return socket

    async def _receives_events(self) -> bool:
        """Return True if Asterisk's events reach the server, or if that is unknown."""
        self._probe_received.clear()
        for _ in range(PROBE_ATTEMPTS):
            try:
                await self._http.request("POST", f"/events/user/{PROBE_EVENT}", {"application": self._server.app})
                await asyncio.wait_for(self._probe_received.wait(), PROBE_TIMEOUT_S)
            except AriNotFound:
                return False  # the Stasis application no longer exists
            except TimeoutError:
                continue
            except AriError as error:
                log.debug("event probe failed", reason=str(error))
            return True
        return False

    # Both kinds.

    def _socket(self, *, opened_by_server: bool) -> AriWebSocket:
        return AriWebSocket(self._receive, self._on_opened, self._on_ended, opened_by_server)

    def _on_opened(self, socket: AriWebSocket) -> None:
        """Register a WebSocket. It replaces older ones that the same side opened: Asterisk may reconnect before the
        server notices the disconnection."""
        older = [one for one in self._open if one.opened_by_server == socket.opened_by_server]
        self._open = [one for one in self._open if one not in older] + [socket]
        self._all_closed.clear()
        if older:
            self._handlers.disconnected()
        for one in older:
            one.close()
        opened_by = "server" if socket.opened_by_server else "asterisk"
        log.info("asterisk connected", app=self._server.app, opened_by=opened_by)
        self._handlers.connected()
        self._preparing[socket] = self._tasks.start(self._prepare(socket))

    def _on_ended(self, socket: AriWebSocket) -> None:
        if (preparing := self._preparing.pop(socket, None)) is not None:
            preparing.cancel()
        if socket in self._open:
            self._open.remove(socket)
            self._check_needed.set()
            self._on_disconnected()

    def _on_disconnected(self) -> None:
        if self._open:
            return
        self._disconnected_since = asyncio.get_running_loop().time()
        self._all_closed.set()
        log.log(20 if self._finished else 30, "asterisk disconnected", app=self._server.app)
        self._handlers.disconnected()

    def _receive(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "ChannelUserevent", "eventname": name} if name == PROBE_EVENT:
                self._probe_received.set()
            case {"type": "ApplicationReplaced"}:
                self._check_needed.set()
            case _:
                self._handlers.event(message)

    async def _prepare(self, socket: AriWebSocket) -> None:
        names = (*self._server.events, *REQUIRED_EVENTS) if self._server.events else ()
        wanted = {"allowed": [{"type": name} for name in names]}
        path = f"/applications/{self._server.app}/eventFilter"
        for _ in range(5):
            try:
                await self._http.request("PUT", path, body=wanted)
                break
            except AriNotFound:
                break  # Asterisk sends no events there; after a check the server opens one
            except AriError as error:
                log.warning("event filter not set", reason=str(error))
                await asyncio.sleep(1.0)
        self._check_needed.set()
        # An Asterisk that is too old ignores requests here: this is tested, and not derived from its version.
        try:
            async with asyncio.timeout(self._server.request_timeout_s):
                await socket.request("GET", "/asterisk/ping", {}, None)
            socket.accepts_requests = True
        except (TimeoutError, AriError):
            log.info("websocket requests unsupported", action="all requests go over HTTP")


def _picows_options() -> dict[str, Any]:
    """Return the options of picows, for both kinds of WebSockets."""
    return {
        "enable_auto_ping": True,
        "auto_ping_idle_timeout": HEARTBEAT_S,
        "auto_ping_reply_timeout": HEARTBEAT_S / 2,
        "max_frame_size": 2**30,
        "use_aiofastnet": False,
    }


def _refuse(status: int, headers: Mapping[str, str]) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, None, headers), None)
