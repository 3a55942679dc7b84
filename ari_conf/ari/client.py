"""A client of Asterisk's REST interface (ARI): its events, and requests to it. Of the project it needs only the errors.

Events come over one WebSocket, which either side may open:

outbound   Asterisk connects to us (20.15, 21.10, 22.5 and later). It keeps the application registered while we are
           away, and sends what happened meanwhile: a call placed during our restart is not lost.
inbound    we connect to Asterisk. While we are away, Stasis() fails.

Requests go over a pool of HTTP connections or over that WebSocket. There they are quicker, but run one after another:
one that waits for a channel (answer, addChannel) would hold up all those behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import msgspec
import structlog
from aiohttp import web
from yarl import URL

from ari_conf.ari.wire import Answer, Socket, content
from ari_conf.errors import AriError, AriUnreachable, SetupFailed

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

    from ari_conf.ari.wire import WebSocket

log = structlog.get_logger()

Over = Literal["http", "socket"]

HEARTBEAT = 3.0
"""Seconds without a message until a ping; half of it later, without a pong, the connection is taken for dead."""
IDLE = 30.0
"""Seconds an idle HTTP connection is kept: less than `session_keep_alive` in http.conf, so that we close it first."""
FIRST_RETRY, LAST_RETRY = 0.25, 5.0
"""Seconds between tries to connect (inbound): doubled each time, with jitter."""


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
    events: tuple[str, ...] = ()
    """The types of events that are wanted; Asterisk sends no others. Empty: all."""


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
    ) -> None:
        self._server = server
        self._on_event, self._on_connected, self._on_disconnected = on_event, on_connected, on_disconnected
        self._authorization = aiohttp.encode_basic_auth(server.user, server.password)
        self._http: aiohttp.ClientSession | None = None
        self._media: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._socket: Socket | None = None
        self._alone_since = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def app(self) -> str:
        return self._server.app

    @property
    def connected(self) -> bool:
        """The events' WebSocket stands."""
        return self._socket is not None

    async def start(self) -> None:
        """Returns at once; the connection comes when it comes. Raises SetupFailed if `listen` can't be had."""
        self._http = aiohttp.ClientSession(
            # One more: an inbound WebSocket takes a connection as well.
            connector=aiohttp.TCPConnector(limit=self._server.connections + 1, keepalive_timeout=IDLE),
            headers={"Authorization": self._authorization},
            timeout=aiohttp.ClientTimeout(total=None),
        )
        # Each of them is a connection as well: they must not take those of the requests.
        self._media = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": self._authorization}
        )
        if self._server.listen is None:
            self._spawn(self._connect_for_ever(self._http))
        else:
            await self._listen(*self._server.listen)
            self._alone_since = asyncio.get_running_loop().time()
            self._spawn(self._connect_if_left_alone(self._http))

    async def close(self) -> None:
        # First no new ones: Asterisk is back within a millisecond, and waits for ever for an answer to its handshake.
        for site in tuple(self._runner.sites) if self._runner is not None else ():
            await site.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()
        if self._runner is not None:
            await self._runner.cleanup()
        for http in (self._http, self._media):
            if http is not None:
                await http.close()

    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, *, over: Over = "http"
    ) -> Any:
        """What Asterisk answers, decoded; None if it is empty.

        `path` begins with a slash, below /ari, its parts percent-encoded; `body` is sent as JSON. Without a WebSocket,
        or if this Asterisk takes no requests there, "socket" means HTTP.
        Raises AriNotFound (404), AriUnreachable (no connection, or no answer in time), AriError (anything else).
        """
        socket = self._socket if over == "socket" else None
        sent = msgspec.json.encode(body) if body is not None else None
        try:
            async with asyncio.timeout(self._server.deadline):
                if socket is not None and socket.answers:
                    answer = await socket.request(method, path, query or {}, sent)
                else:
                    answer = await self._over_http(method, path, query or {}, sent)
        except TimeoutError:
            late = f"Asterisk did not answer {method} {path} within {self._server.deadline:g} s"
            raise AriUnreachable(late) from None
        return content(method, path, answer)

    async def _over_http(self, method: str, path: str, query: Mapping[str, str], body: bytes | None) -> Answer:
        if self._http is None:
            raise AriUnreachable("the connection to Asterisk was not started")
        url = URL(self._server.url.rstrip("/") + path, encoded=True).with_query(query)
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            async with self._http.request(method, url, data=body, headers=headers) as response:
                return Answer(response.status, response.reason or "", await response.read())
        except aiohttp.ClientError as error:
            raise AriUnreachable(f"Asterisk can't be reached at {self._server.url}: {error}") from None

    async def media(self, connection_id: str) -> ClientWebSocketResponse[Literal[False]]:
        """The sound of a channel that `POST /channels/externalMedia` made, with `external_host=INCOMING`; to be closed.

        Raises AriUnreachable.
        """
        if self._media is None:
            raise AriUnreachable("the connection to Asterisk was not started")
        url = URL(self._server.url.rstrip("/")).parent / "media" / connection_id
        try:
            async with asyncio.timeout(self._server.deadline):
                return await self._media.ws_connect(url, heartbeat=HEARTBEAT, decode_text=False)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise AriUnreachable(f"Asterisk's media can't be reached: {error or 'no answer in time'}") from None

    # The WebSocket, opened by Asterisk.

    async def _listen(self, host: str, port: int) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._accept)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise SetupFailed(f"can't listen on {host}:{port} for Asterisk's WebSocket: {error.strerror}") from None

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        offered = request.headers.get("Authorization", "")
        if not hmac.compare_digest(offered.encode(errors="replace"), self._authorization.encode()):
            log.warning("websocket refused: wrong user or password", remote=request.remote)
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="ari"'})
        websocket: web.WebSocketResponse[Literal[False]] = web.WebSocketResponse(
            protocols=("ari",), heartbeat=HEARTBEAT, compress=False, max_msg_size=0, decode_text=False
        )
        await websocket.prepare(request)
        await self._serve(websocket)
        return websocket

    # The WebSocket, opened by us.

    async def _connect_for_ever(self, http: aiohttp.ClientSession) -> None:
        wait = FIRST_RETRY
        while True:
            try:
                websocket = await self._connect(http)
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
                log.warning("asterisk not reached", url=self._server.url, reason=str(error) or "no answer in time")
            else:
                wait = FIRST_RETRY
                await self._serve(websocket)
            await asyncio.sleep(random.uniform(wait / 2, wait))
            wait = min(wait * 2, LAST_RETRY)

    async def _connect_if_left_alone(self, http: aiohttp.ClientSession) -> None:
        """An Asterisk that was stopped for a while sometimes never opens its WebSocket again (seen on 22.10.1), though
        it answers requests: then we open one. Should its own come after all, that takes the place of ours."""
        patience = self._server.patience
        while True:
            await asyncio.sleep(patience / 2)
            if self._socket is not None or asyncio.get_running_loop().time() < self._alone_since + patience:
                continue
            with contextlib.suppress(aiohttp.ClientError, OSError):
                websocket = await self._connect(http)
                log.warning("asterisk did not open its websocket: we opened one", app=self._server.app)
                await self._serve(websocket)

    async def _connect(self, http: aiohttp.ClientSession) -> WebSocket:
        async with asyncio.timeout(self._server.deadline):
            return await http.ws_connect(
                self._server.url.rstrip("/") + "/events",
                params={"app": self._server.app, "subscribeAll": "false"},
                heartbeat=HEARTBEAT,
                max_msg_size=0,
                decode_text=False,
            )

    # Either way.

    async def _serve(self, websocket: WebSocket) -> None:
        """Until it ends, or a newer one takes its place (Asterisk may be back before we notice that it was gone)."""
        socket = Socket(websocket, self._on_event)
        older, self._socket = self._socket, socket
        if older is not None:
            self._on_disconnected()
            self._spawn(older.close())  # a dead one would make us wait for its goodbye
        log.info("asterisk connected", app=self._server.app)
        self._on_connected()
        preparing = self._spawn(self._prepare(socket))
        try:
            await socket.read()
        finally:
            preparing.cancel()
            if self._socket is socket:
                self._socket = None
                self._alone_since = asyncio.get_running_loop().time()
                log.warning("asterisk disconnected", app=self._server.app)
                self._on_disconnected()

    async def _prepare(self, socket: Socket) -> None:
        # The filter holds for answers on the WebSocket as well: without RESTResponse none would come (seen on 22.10.1).
        names = (*self._server.events, "RESTResponse") if self._server.events else ()
        wanted = {"allowed": [{"type": name} for name in names]}
        path = f"/applications/{self._server.app}/eventFilter"
        for _ in range(5):
            try:
                await self.request("PUT", path, body=wanted)
                break
            except AriError as error:
                log.warning("event filter not set", reason=str(error))
                await asyncio.sleep(1.0)
        # An Asterisk that is too old ignores what it gets here, so that it is asked rather than told by its version.
        try:
            async with asyncio.timeout(self._server.deadline):
                await socket.request("GET", "/asterisk/ping", {}, None)
            socket.answers = True
        except (TimeoutError, AriError):
            log.info("asterisk takes no requests over the websocket: all go over HTTP")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
