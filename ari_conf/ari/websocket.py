"""ARI WebSocket: one connection with events in, REST requests out, and their responses in.

Each message is decoded and handled in the call that reads it from the connection: a queue and a task that waits for it
would cost half as much again (docs/development/performance.md). Asterisk drops a client that doesn't read for
`websocket_write_timeout`, so `on_event` must store the event and return.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec
import structlog
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from ari_conf.errors import REPORT_HINT, AriError, AriNotFound, AriUnreachable

log = structlog.get_logger()

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class AriResponse:
    status: int
    reason: str
    body: bytes | str


def decode_response(method: str, path: str, response: AriResponse, kind: Any = Any) -> Any:
    """Return the response's JSON, decoded as a `kind` that msgspec knows; None if it is empty, not JSON, or not such a
    kind. Raises AriNotFound or AriError with Asterisk's own words."""
    try:
        expected = kind if 200 <= response.status < 300 else Any
        found = msgspec.json.decode(response.body, type=expected) if response.body else None
    except NOT_JSON:
        found = None
    if 200 <= response.status < 300:
        return found
    message = found.get("message") or found.get("error") if isinstance(found, dict) else None
    text = f"Asterisk answered {response.status} to {method} {path}: {message or response.reason or 'no reason given'}"
    raise (AriNotFound if response.status == 404 else AriError)(text, response.status)


class AriWebSocket(WSListener):
    def __init__(
        self,
        on_event: Callable[[dict[str, Any]], None],
        on_opened: Callable[[AriWebSocket], None],
        on_ended: Callable[[AriWebSocket], None],
        opened_by_server: bool = False,
    ) -> None:
        """Create a WebSocket. All three callbacks must return immediately."""
        self._on_event, self._on_opened, self._on_ended = on_event, on_opened, on_ended
        self.opened_by_server = opened_by_server
        """True if the server opened it, False if Asterisk did."""
        self._transport: WSTransport | None = None
        self._connection: socket.socket | None = None
        """Socket of a connection whose messages are acknowledged immediately."""
        self._partial_message = bytearray()
        """Beginning of a message that arrives in parts."""
        self._waiting: dict[str, asyncio.Future[AriResponse]] = {}
        self._ids = count(1)
        self.accepts_requests = False
        """True once this Asterisk has shown that it takes requests here (20.14, 21.9, 22.4 and later do)."""
        self._ended = asyncio.Event()

    # Called by picows.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if not self.opened_by_server and hasattr(socket, "TCP_QUICKACK"):
            self._connection = transport.underlying_transport.get_extra_info("socket")
        self._on_opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._acknowledge()
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            if frame.fin and not self._partial_message:
                self._receive(frame.get_payload_as_memoryview())
                return
            self._partial_message += frame.get_payload_as_memoryview()
            if frame.fin:
                whole, self._partial_message = self._partial_message, bytearray()
                self._receive(whole)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Fail each waiting request with AriUnreachable."""
        self._transport = self._connection = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(AriUnreachable("the WebSocket to Asterisk was closed before the answer arrived"))
        self._waiting.clear()
        self._ended.set()
        self._on_ended(self)

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    async def request(self, method: str, path: str, query: Mapping[str, str], body: bytes | None) -> AriResponse:
        """Send a request and return the response. `path` begins with a slash and is percent-encoded. The calling code
        sets the deadline. Raises AriUnreachable."""
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
        if self._transport is None or self._transport.is_close_frame_sent:
            raise AriUnreachable("the WebSocket to Asterisk is closed", sent=False)
        response: asyncio.Future[AriResponse] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = response
        try:
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode(request))
            return await response
        finally:
            self._waiting.pop(request_id, None)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, whichever side ends it."""
        await self._ended.wait()

    def start_close(self) -> None:
        """Send a close frame. What Asterisk sends before its own close frame is still received; then the connection
        ends."""
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)

    def close(self) -> None:
        """Send a close frame and disconnect without waiting for Asterisk's: nothing more is received."""
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def _receive(self, received: bytes | bytearray | memoryview) -> None:
        try:
            message = msgspec.json.decode(received)
        except NOT_JSON as error:
            log.warning("invalid json from asterisk", reason=str(error))
            return
        if not isinstance(message, dict):
            return
        if message.get("type") == "RESTResponse":
            self._on_response(message)
            return
        try:
            self._on_event(message)
        except Exception:
            # One event whose handling raises must not cost all later events.
            log.exception("event handling raised", type=message.get("type"), hint=REPORT_HINT)

    def _on_response(self, message: dict[str, Any]) -> None:
        waiting = self._waiting.get(str(message.get("request_id")))
        if waiting is not None and not waiting.done():
            status, reason = message.get("status_code"), message.get("reason_phrase")
            body = message.get("message_body")
            status = status if isinstance(status, int) else 0
            waiting.set_result(AriResponse(status, str(reason or ""), body if isinstance(body, str) else ""))

    def _acknowledge(self) -> None:
        """Acknowledge the received data immediately. A WebSocket that Asterisk has opened sends by Nagle's algorithm
        (seen on 22.10.1): its next message, a response or an event, would wait for the acknowledgment of the last one,
        which Linux delays by 40 ms. The option applies only once (tcp(7))."""
        if self._connection is not None:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
