"""One WebSocket of ARI's: events in, REST requests out and their answers back in. Knows nothing of who opened it.

The reader only decodes and hands on. Asterisk drops a client that doesn't read for `websocket_write_timeout`, so
`on_event` must put the event away and return.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import structlog
from aiohttp import WSCloseCode, WSMsgType

from ari_conf.errors import AriError, AriNotFound, AriUnreachable

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse
    from aiohttp.web import WebSocketResponse

    # Not decoded to str: the JSON decoder takes bytes.
    WebSocket = ClientWebSocketResponse[Literal[False]] | WebSocketResponse[Literal[False]]

log = structlog.get_logger()

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    reason: str
    body: bytes | str


def content(method: str, path: str, answer: Answer, kind: Any = Any) -> Any:
    """What the answer's JSON says, as a `kind` that msgspec knows; None if it is empty, or no JSON, or no such kind.
    Raises AriNotFound or AriError in Asterisk's own words."""
    try:
        asked = kind if 200 <= answer.status < 300 else Any
        found = msgspec.json.decode(answer.body, type=asked) if answer.body else None
    except NOT_JSON:
        found = None
    if 200 <= answer.status < 300:
        return found
    words = found.get("message") or found.get("error") if isinstance(found, dict) else None
    what = f"Asterisk answered {answer.status} to {method} {path}: {words or answer.reason or 'no reason given'}"
    raise (AriNotFound if answer.status == 404 else AriError)(what, answer.status)


class Socket:
    def __init__(self, websocket: WebSocket, on_event: Callable[[dict[str, Any]], None], ours: bool = False) -> None:
        self._websocket = websocket
        self._on_event = on_event
        self.ours = ours
        """Opened by us, not by Asterisk."""
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._ids = count(1)
        self.answers = False
        """This Asterisk has shown that it takes requests here (20.14, 21.9, 22.4 and later do)."""

    async def read(self) -> None:
        """Until the WebSocket ends; then every request that still waits fails with AriUnreachable."""
        try:
            async for message in self._websocket:
                _acknowledge(self._websocket)
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._receive(message.data)
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(AriUnreachable("the WebSocket to Asterisk ended before the answer came"))
            self._waiting.clear()

    async def request(self, method: str, path: str, query: Mapping[str, str], body: bytes | None) -> Answer:
        """The caller sets the deadline. `path` begins with a slash and is percent-encoded."""
        request_id = str(next(self._ids))
        request: dict[str, Any] = {
            "type": "RESTRequest",
            "transaction_id": request_id,
            "request_id": request_id,
            "method": method,
            "uri": path.removeprefix("/"),
            "query_strings": [{"name": name, "value": value} for name, value in query.items()],
        }
        if body is not None:
            request |= {"content_type": "application/json", "message_body": body.decode()}
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        try:
            await self._websocket.send_frame(msgspec.json.encode(request), WSMsgType.TEXT)
            return await answer
        except (ConnectionError, RuntimeError) as error:  # aiohttp says RuntimeError for a WebSocket that is closing
            raise AriUnreachable(f"the WebSocket to Asterisk is gone: {error}") from None
        finally:
            self._waiting.pop(request_id, None)

    async def finish(self) -> None:
        """Says goodbye. What Asterisk has sent before it says so as well is still read: `read` then returns."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._websocket.send_frame(struct.pack("!H", WSCloseCode.OK), WSMsgType.CLOSE)

    async def close(self) -> None:
        await self._websocket.close()

    def _receive(self, received: bytes | str) -> None:
        try:
            message = msgspec.json.decode(received)
        except NOT_JSON as error:
            log.warning("asterisk sent no JSON", reason=str(error))
            return
        if not isinstance(message, dict):
            return
        if message.get("type") == "RESTResponse":
            self._answered(message)
            return
        try:
            self._on_event(message)
        except Exception:
            # One event that can't be taken must not cost all those after it.
            log.exception("event lost", type=message.get("type"))

    def _answered(self, message: dict[str, Any]) -> None:
        waiting = self._waiting.get(str(message.get("request_id")))
        if waiting is not None and not waiting.done():
            status, reason = message.get("status_code"), message.get("reason_phrase")
            body = message.get("message_body")
            status = status if isinstance(status, int) else 0
            waiting.set_result(Answer(status, str(reason or ""), body if isinstance(body, str) else ""))


def _acknowledge(websocket: WebSocket) -> None:
    """At once, what has come. A WebSocket that Asterisk has opened sends by Nagle's rule (seen on 22.10.1): its next
    message, an answer or an event, would wait for the acknowledgement of the last, which Linux puts off for 40 ms.
    The option holds for this one time (tcp(7))."""
    connection = websocket.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
