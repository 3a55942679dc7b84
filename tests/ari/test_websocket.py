"""Tests of WebSocket messages that are not JSON from Asterisk: only the message itself is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from picows import WSMsgType
from picows.picows import _make_test_ws_frame

from ari_conf.ari.websocket import AriResponse, AriWebSocket, decode_response
from ari_conf.errors import AriError

HOSTILE = [b"", b"{", b"\xff", b'"\xff"', b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"5", b"null"]


def ignore(_: object) -> None:
    pass


class Wire:
    is_close_frame_sent = False

    def send(self, _kind: object, text: bytes) -> None:
        self.sent = json.loads(text)


@pytest.mark.parametrize("received", HOSTILE, ids=lambda received: repr(received[:10]))
def test_invalid_message_is_skipped(received: bytes) -> None:
    heard: list[dict[str, Any]] = []
    socket = AriWebSocket(heard.append, ignore, ignore)
    socket._receive(received)
    socket._receive(b'{"type": "StasisEnd"}')
    assert heard == [{"type": "StasisEnd"}]


def test_a_message_in_parts() -> None:
    heard: list[dict[str, Any]] = []
    socket = AriWebSocket(heard.append, ignore, ignore)
    parts = (WSMsgType.TEXT, b'{"type": "S'), (WSMsgType.CONTINUATION, b"tasis"), (WSMsgType.CONTINUATION, b'End"}')
    for n, (kind, text) in enumerate(parts, 1):
        assert heard == []
        socket.on_ws_frame(Wire(), _make_test_ws_frame(kind, text, n == len(parts), False))  # type: ignore[arg-type]
    socket.on_ws_frame(Wire(), _make_test_ws_frame(WSMsgType.TEXT, b'{"type": "Next"}', True, False))  # type: ignore[arg-type]
    assert heard == [{"type": "StasisEnd"}, {"type": "Next"}]


@pytest.mark.parametrize("body", [{"a": 1}, ["x"], 5, True])
async def test_an_answer_whose_body_is_no_text_is_an_empty_one(body: object) -> None:
    wire = Wire()
    socket = AriWebSocket(ignore, ignore, ignore)
    socket._transport = wire  # type: ignore[assignment]
    asking = asyncio.create_task(socket.request("GET", "/channels", {}, None))
    await asyncio.sleep(0)
    answer = {"type": "RESTResponse", "request_id": wire.sent["request_id"], "status_code": 200, "message_body": body}
    socket._receive(json.dumps(answer).encode())
    assert decode_response("GET", "/channels", await asking) is None


@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b'{"message": {"x": 1}}', b"<html>"])
def test_an_answer_that_can_not_be_read_is_an_error_in_a_sentence(body: bytes) -> None:
    with pytest.raises(AriError, match="Asterisk answered 500 to GET /channels"):
        decode_response("GET", "/channels", AriResponse(500, "no", body))
