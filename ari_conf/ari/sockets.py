"""The WebSockets over which Asterisk tells what happens: opened by it, by us, or (after a takeover) one of each.

Asterisk tells of an application on one of them only, and which it is can't be asked. An application that was taken over
by a WebSocket that we opened is gone once that ends: Asterisk's own is back then, and says nothing (seen on 22.10.1,
until ari.conf changes or Asterisk restarts). So whenever one comes or goes we send ourselves an event, and where it
isn't heard we open one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlencode

import picows
import structlog
from aiohttp import encode_basic_auth
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from ari_conf.ari.wire import Socket
from ari_conf.errors import AriError, AriNotFound, SetupFailed
from ari_conf.supervision import Tasks

if TYPE_CHECKING:
    from ari_conf.ari.client import Server

log = structlog.get_logger()

HEARTBEAT = 3.0
"""Seconds without a message until a ping; half of it later, without a pong, the connection is taken for dead."""
FIRST_RETRY, LAST_RETRY = 0.25, 5.0
"""Seconds between tries to connect (inbound): doubled each time, with jitter."""
HEARS = "ari_conf_hears"
"""The event that we send ourselves."""
HEARS_S, HEARS_TRIES = 0.8, 2
"""Twice, since an Asterisk that has much to do should not be taken for one that says nothing."""
LISTEN_AGAIN_S, LOOK_AGAIN_S, GOODBYE_S = 1.0, 0.25, 1.0
NEEDED = ("RESTResponse", "ChannelUserevent", "ApplicationReplaced")
"""The filter holds for answers on the WebSocket as well: without RESTResponse none would come (seen on 22.10.1)."""
UNREACHED = (picows.WSError, OSError)
"""TimeoutError is an OSError."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears of it. All must return at once."""

    event: Callable[[dict[str, Any]], None]
    connected: Callable[[], None]
    disconnected: Callable[[], None]


class Asks(Protocol):
    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        *,
        over: Literal["http", "socket"] = "http",
    ) -> Any: ...

    @property
    def permission(self) -> Permission: ...


class Permission(Protocol):
    """To act for these calls."""

    @property
    def fresh(self) -> bool:
        """It is had."""

    async def confirmed(self) -> None:
        """Returns when it is had."""


class Sockets:
    def __init__(self, server: Server, asks: Asks, told: Told) -> None:
        self._server, self._asks, self._told = server, asks, told
        self._authorization = encode_basic_auth(server.user, server.password)
        self._open: list[Socket] = []
        """The newest last."""
        self._listening: asyncio.Server | None = None
        self._alone_since = 0.0
        self._finished = False
        self._doubt, self._heard, self._empty = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._tasks = Tasks()
        self._connecting: asyncio.Task[None] | None = None
        self._preparing: dict[Socket, asyncio.Task[None]] = {}

    @property
    def newest(self) -> Socket | None:
        return self._open[-1] if self._open else None

    async def start(self, patience: float) -> None:
        """`patience`: for the first connection. Raises SetupFailed if `listen` can't be had."""
        if self._server.listen is None:
            self._connecting = self._tasks.start(self._connect_for_ever())
            return
        self._alone_since = asyncio.get_running_loop().time() - self._server.patience + patience
        await self._listen(*self._server.listen)
        self._connecting = self._tasks.start(self._connect_if_deaf())

    async def ended(self) -> None:
        """Wait until nobody sees to it any more that there is a WebSocket: after `finish`, or, before it, by a defect,
        which is raised."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
            self._connecting.result()

    async def finish(self, within: float) -> None:
        self._finished = True
        self._accept_no_more()
        for socket in tuple(self._open):
            socket.finish()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), within)

    async def close(self) -> None:
        self._finished = True
        self._accept_no_more()
        await self._tasks.close()
        for socket in tuple(self._open):
            socket.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), GOODBYE_S)

    # Opened by Asterisk.

    async def _listen(self, host: str, port: int) -> None:
        try:
            await self._listen_on(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                reason = error.strerror
                raise SetupFailed(f"can't listen on {host}:{port} for Asterisk's WebSocket: {reason}") from None
            # By an owner before us, who is stopped and doesn't know yet that he is none.
            log.error("the port for Asterisk's WebSocket is taken: we open one meanwhile", listen=f"{host}:{port}")
            self._alone_since = float("-inf")
            self._tasks.start(self._listen_again(host, port))

    async def _listen_again(self, host: str, port: int) -> None:
        while True:
            await asyncio.sleep(LISTEN_AGAIN_S)
            with contextlib.suppress(OSError):
                await self._listen_on(host, port)
                log.info("the port for Asterisk's WebSocket is free again", listen=f"{host}:{port}")
                return

    async def _listen_on(self, host: str, port: int) -> None:
        self._listening = await picows.ws_create_server(self._accepted, host, port, **_options())

    def _accept_no_more(self) -> None:
        # Asterisk is back within a millisecond, and waits for ever for an answer to its handshake.
        if self._listening is not None:
            self._listening.close()

    def _accepted(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        offered = request.headers.get("Authorization", "")
        if not hmac.compare_digest(offered.encode(errors="replace"), self._authorization.encode()):
            log.warning("websocket refused: wrong user or password")
            return _refused(401, {"WWW-Authenticate": 'Basic realm="ari"'})
        if not self._asks.permission.fresh:
            # It is tried again in half a second; by then it is known, or another has it.
            self._tasks.start(self._asks.permission.confirmed())
            return _refused(503, {"Retry-After": "1"})
        chosen = {"Sec-WebSocket-Protocol": "ari"} if "Sec-WebSocket-Protocol" in request.headers else {}
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(chosen), self._socket(ours=False))

    # Opened by us.

    async def _connect_for_ever(self) -> None:
        wait = FIRST_RETRY
        while not self._finished:
            try:
                socket = await self._connect()
            except UNREACHED as error:
                log.warning("asterisk not reached", url=self._server.url, reason=str(error) or "no answer in time")
            else:
                wait = FIRST_RETRY
                await socket.end()
            await asyncio.sleep(random.uniform(wait / 2, wait))
            wait = min(wait * 2, LAST_RETRY)

    async def _connect_if_deaf(self) -> None:
        """Should Asterisk's own come after all, both stay: we hear on one of them."""
        while not self._finished:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), min(self._server.patience / 2, LOOK_AGAIN_S))
            in_doubt = self._doubt.is_set()
            self._doubt.clear()
            if self._open and (not in_doubt or await self._hears()):
                continue
            if not self._open and asyncio.get_running_loop().time() < self._alone_since + self._server.patience:
                continue
            try:
                await self._connect()
            except UNREACHED:
                self._doubt.set()
                await asyncio.sleep(FIRST_RETRY)
                continue
            log.warning("asterisk tells nothing on a websocket of its own: we opened one", app=self._server.app)

    async def _connect(self) -> Socket:
        await self._asks.permission.confirmed()
        asked = urlencode({"app": self._server.app, "subscribeAll": "false"})
        url = f"ws{self._server.url.rstrip('/').removeprefix('http')}/events?{asked}"
        socket = self._socket(ours=True)
        async with asyncio.timeout(self._server.deadline):
            login = {"Authorization": self._authorization}
            await picows.ws_connect(lambda: socket, url, extra_headers=login, **_options())
        if not socket.stands:
            # picows returns all the same, and would never say that it has ended (seen with 2.3.1).
            raise ConnectionResetError("it ended the connection before the WebSocket stood")
        return socket

    async def _hears(self) -> bool:
        """Whether Asterisk's events come to us. True if that can't be told."""
        self._heard.clear()
        for _ in range(HEARS_TRIES):
            try:
                await self._asks.request("POST", f"/events/user/{HEARS}", {"application": self._server.app})
                await asyncio.wait_for(self._heard.wait(), HEARS_S)
            except AriNotFound:
                return False  # the application is gone
            except TimeoutError:
                continue
            except AriError as error:
                log.debug("not known whether we hear", reason=str(error))
            return True
        return False

    # Either way.

    def _socket(self, *, ours: bool) -> Socket:
        return Socket(self._receive, self._opened, self._over, ours)

    def _opened(self, socket: Socket) -> None:
        """It may take an older one's place: Asterisk may be back before we notice that it was gone."""
        older = [one for one in self._open if one.ours == socket.ours]
        self._open = [one for one in self._open if one not in older] + [socket]
        self._empty.clear()
        if older:
            self._told.disconnected()
        for one in older:
            one.close()
        log.info("asterisk connected", app=self._server.app, opened_by="us" if socket.ours else "asterisk")
        self._told.connected()
        self._preparing[socket] = self._tasks.start(self._prepare(socket))

    def _over(self, socket: Socket) -> None:
        if (preparing := self._preparing.pop(socket, None)) is not None:
            preparing.cancel()
        if socket in self._open:
            self._open.remove(socket)
            self._doubt.set()
            self._ended()

    def _ended(self) -> None:
        if self._open:
            return
        self._alone_since = asyncio.get_running_loop().time()
        self._empty.set()
        log.log(20 if self._finished else 30, "asterisk disconnected", app=self._server.app)
        self._told.disconnected()

    def _receive(self, message: dict[str, Any]) -> None:
        match message:
            case {"type": "ChannelUserevent", "eventname": name} if name == HEARS:
                self._heard.set()
            case {"type": "ApplicationReplaced"}:
                self._doubt.set()
            case _:
                self._told.event(message)

    async def _prepare(self, socket: Socket) -> None:
        names = (*self._server.events, *NEEDED) if self._server.events else ()
        wanted = {"allowed": [{"type": name} for name in names]}
        path = f"/applications/{self._server.app}/eventFilter"
        for _ in range(5):
            try:
                await self._asks.request("PUT", path, body=wanted)
                break
            except AriNotFound:
                break  # Asterisk tells nothing there: in doubt we open one
            except AriError as error:
                log.warning("event filter not set", reason=str(error))
                await asyncio.sleep(1.0)
        self._doubt.set()
        # An Asterisk that is too old ignores what it gets here, so that it is asked rather than told by its version.
        try:
            async with asyncio.timeout(self._server.deadline):
                await socket.request("GET", "/asterisk/ping", {}, None)
            socket.answers = True
        except (TimeoutError, AriError):
            log.info("asterisk takes no requests over the websocket: all go over HTTP")


def _options() -> dict[str, Any]:
    """Of picows, whoever opens it."""
    return {
        "enable_auto_ping": True,
        "auto_ping_idle_timeout": HEARTBEAT,
        "auto_ping_reply_timeout": HEARTBEAT / 2,
        "max_frame_size": 2**30,
        "use_aiofastnet": False,
    }


def _refused(status: int, headers: Mapping[str, str]) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, None, headers), None)
