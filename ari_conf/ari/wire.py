"""One WebSocket of ARI's: events in, REST requests out and their answers back in. Knows nothing of who opened it.

What comes is decoded and handed on within the call that reads it from the connection: by way of a queue and a task that
waits for it, it would cost half as much again (docs/performance.md). Asterisk drops a client that doesn't read for
`websocket_write_timeout`, so `on_event` must put the event away and return.
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

from ari_conf.errors import AriError, AriNotFound, AriUnreachable

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


class Socket(WSListener):
    def __init__(
        self,
        on_event: Callable[[dict[str, Any]], None],
        on_opened: Callable[[Socket], None],
        on_ended: Callable[[Socket], None],
        ours: bool = False,
    ) -> None:
        """All three must return at once."""
        self._on_event, self._on_opened, self._on_ended = on_event, on_opened, on_ended
        self.ours = ours
        """Opened by us, not by Asterisk."""
        self._transport: WSTransport | None = None
        self._connection: socket.socket | None = None
        """Of one whose messages are to be acknowledged at once."""
        self._begun = bytearray()
        """Of a message that comes in parts."""
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._ids = count(1)
        self.answers = False
        """This Asterisk has shown that it takes requests here (20.14, 21.9, 22.4 and later do)."""
        self._ended = asyncio.Event()

    # Called by picows.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if not self.ours and hasattr(socket, "TCP_QUICKACK"):
            self._connection = transport.underlying_transport.get_extra_info("socket")
        self._on_opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._acknowledge()
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            if frame.fin and not self._begun:
                self._receive(frame.get_payload_as_memoryview())
                return
            self._begun += frame.get_payload_as_memoryview()
            if frame.fin:
                whole, self._begun = self._begun, bytearray()
                self._receive(whole)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Every request that still waits fails with AriUnreachable."""
        self._transport = self._connection = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(AriUnreachable("the WebSocket to Asterisk ended before the answer came"))
        self._waiting.clear()
        self._ended.set()
        self._on_ended(self)

    @property
    def stands(self) -> bool:
        return self._transport is not None

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
        if self._transport is None or self._transport.is_close_frame_sent:
            raise AriUnreachable("the WebSocket to Asterisk is gone", sent=False)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        try:
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode(request))
            return await answer
        finally:
            self._waiting.pop(request_id, None)

    async def end(self) -> None:
        """Returns when it has ended, by whomever."""
        await self._ended.wait()

    def finish(self) -> None:
        """Says goodbye. What Asterisk has sent before it says so as well is still heard; then it ends."""
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)

    def close(self) -> None:
        """Says goodbye and waits for no answer: nothing more is heard."""
        if self._transport is not None:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def _receive(self, received: bytes | bytearray | memoryview) -> None:
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

    def _acknowledge(self) -> None:
        """At once, what has come. A WebSocket that Asterisk has opened sends by Nagle's rule (seen on 22.10.1): its
        next message, an answer or an event, would wait for the acknowledgement of the last, which Linux puts off for
        40 ms. The option holds for this one time (tcp(7))."""
        if self._connection is not None:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
