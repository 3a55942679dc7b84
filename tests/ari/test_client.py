"""Tests of the client on a minimal fake Asterisk: cases that are rare on a real one."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from ari_conf.ari import event_sockets as sockets_module
from ari_conf.ari.address import AriConfig
from ari_conf.ari.client import Client
from ari_conf.ari.permission import ALWAYS_PERMITTED, ActPermission
from ari_conf.errors import AriError, AriLate, AriNotFound, AriUnreachable, SetupFailed
from ari_conf.local.processes import free_port
from tests import lateness

AUTHORIZATION = aiohttp.encode_basic_auth("ada", "secret")
Serve = Callable[[web.WebSocketResponse], Awaitable[None]]


class FakeAsterisk:
    def __init__(self) -> None:
        self.port = free_port()
        self.seen: list[tuple[str, str, Any]] = []
        self.connections = 0
        self.own_event = 503
        """Status for the event that a client sends to itself; with 503 it is unknown whether the client receives it."""
        self.serve: Serve = self.take_requests
        self.answer: Callable[[web.Request], Awaitable[web.Response]] = self.no_content
        app = web.Application()
        app.router.add_get("/ari/events", self.events)
        app.router.add_route("*", "/ari/{path:.*}", self.requests)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def events(self, request: web.Request) -> web.WebSocketResponse:
        assert request.headers["Authorization"] == AUTHORIZATION
        assert dict(request.query) == {"app": "app", "subscribeAll": "false"}
        self.connections += 1
        websocket = web.WebSocketResponse(autoping=True)
        await websocket.prepare(request)
        await self.serve(websocket)
        return websocket

    async def requests(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == AUTHORIZATION
        if "/events/user/" in request.path:
            return web.Response(status=self.own_event)
        text = await request.text()
        self.seen.append((request.method, request.path_qs, json.loads(text) if text else None))
        return await self.answer(request)

    async def no_content(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def take_requests(self, websocket: web.WebSocketResponse) -> None:
        async for message in websocket:
            asked = json.loads(message.data)
            self.seen.append((asked["method"], asked["uri"], asked["query_strings"]))
            answer = {"status_code": 200, "reason_phrase": "OK", "message_body": '{"ping": "pong"}'}
            await websocket.send_json({"type": "RESTResponse", "request_id": asked["request_id"], **answer})

    async def read_on(self, websocket: web.WebSocketResponse) -> None:
        """Behave like an Asterisk that is too old for requests over the WebSocket."""
        async for _ in websocket:
            pass


class Listener:
    def __init__(self) -> None:
        self.reported: list[str] = []
        self.changed = asyncio.Event()

    def tell(self, what: str) -> None:
        self.reported.append(what)
        self.changed.set()

    async def until(self, *expected: str) -> None:
        async with lateness.timeout():
            while self.reported != list(expected):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    fake = FakeAsterisk()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
def listener() -> Listener:
    return Listener()


Made = Callable[..., Awaitable[Client]]


@pytest.fixture
async def connect(listener: Listener) -> AsyncIterator[Made]:
    made: list[Client] = []

    async def start(port: int, permission: ActPermission = ALWAYS_PERMITTED, **settings: Any) -> Client:
        server = AriConfig(f"http://127.0.0.1:{port}/ari", "app", "ada", "secret", **settings)

        def take(message: dict[str, Any]) -> None:
            listener.tell(message["type"])
            if message["type"] == "Poison":
                raise ValueError

        reported = (lambda: listener.tell("connected"), lambda: listener.tell("disconnected"))
        client = Client(server, take, *reported, permission)
        made.append(client)
        await client.start()
        return client

    yield start
    for client in made:
        await client.close()


async def test_events_come_in_order_and_none_stops_those_after_it(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    async def serve(websocket: web.WebSocketResponse) -> None:
        await websocket.send_str('{"type": "First"}')
        await websocket.send_str("no JSON")
        await websocket.send_str("[]")
        await websocket.send_str('{"type": "Poison"}')
        await websocket.send_str('{"type": "Last"}')
        await asterisk.read_on(websocket)

    asterisk.serve = serve
    await connect(asterisk.port)

    await listener.until("connected", "First", "Poison", "Last")


async def test_it_connects_again_and_says_so(asterisk: FakeAsterisk, connect: Made, listener: Listener) -> None:
    async def hang_up_once(websocket: web.WebSocketResponse) -> None:
        if asterisk.connections > 1:
            await asterisk.read_on(websocket)

    asterisk.serve = hang_up_once
    await connect(asterisk.port)

    await listener.until("connected", "disconnected", "connected")


Hangs = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Prot")
    writer.close()


async def no_answer_that_it_is(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\0\0\0\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("ends", [at_once, asked, half_an_answer, no_answer_that_it_is])
async def test_an_asterisk_that_dies_before_the_websocket_stands(
    asterisk: FakeAsterisk, connect: Made, listener: Listener, ends: Hangs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets_module, "MIN_RETRY_DELAY_S", 0.02)
    await asterisk.stop()
    died = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal died
        died += 1
        await ends(reader, writer)

    async with await asyncio.start_server(accept, "127.0.0.1", asterisk.port, reuse_address=True):
        await connect(asterisk.port)
        async with lateness.timeout():
            while died < 2:  # noqa: ASYNC110  it tries again
                await asyncio.sleep(0.01)
    reborn = FakeAsterisk()
    reborn.port = asterisk.port
    await reborn.start()
    await listener.until("connected")
    await reborn.stop()


async def test_a_dead_connection_is_noticed(
    asterisk: FakeAsterisk, connect: Made, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets_module, "HEARTBEAT_S", 0.2)

    async def say_nothing(websocket: web.WebSocketResponse) -> None:
        await asyncio.sleep(60 if asterisk.connections == 1 else 0)
        await asterisk.read_on(websocket)

    asterisk.serve = say_nothing
    await connect(asterisk.port)

    await listener.until("connected", "disconnected", "connected")


async def test_requests_go_over_the_socket_where_it_takes_them(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    client = await connect(asterisk.port, events=("StasisStart",))
    await listener.until("connected")
    async with lateness.timeout():
        while await client.request("GET", "/again", over="socket") is None:  # None while it still goes over HTTP
            pass
    assert await client.request("POST", "/a%2Fb", {"q": "1 & 2"}, over="socket") == {"ping": "pong"}

    assert asterisk.seen[-1] == ("POST", "a%2Fb", [{"name": "q", "value": "1 & 2"}])
    # To the filter, RESTResponse is an event: if it were missing, no answer would arrive over the socket.
    names = ("StasisStart", "RESTResponse", "ChannelUserevent", "ApplicationReplaced")
    wanted = {"allowed": [{"type": name} for name in names]}
    assert ("PUT", "/ari/applications/app/eventFilter", wanted) in asterisk.seen


async def test_and_over_http_where_it_does_not(asterisk: FakeAsterisk, connect: Made, listener: Listener) -> None:
    asterisk.serve = asterisk.read_on
    client = await connect(asterisk.port)
    await listener.until("connected")

    assert await client.request("POST", "/a%2Fb", {"q": "1+1 & 2"}, {"body": 1}, over="socket") is None
    assert ("POST", "/ari/a%2Fb?q=1%2B1%20%26%202", {"body": 1}) in asterisk.seen


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (404, '{"message": "Channel not found"}', AriNotFound, "404 to GET /x: Channel not found"),
        (409, '{"message": "Not in Stasis"}', AriError, "409 to GET /x: Not in Stasis"),
        (401, '{"error": "Authentication required"}', AriError, "401 to GET /x: Authentication required"),
        (503, "<html>busy</html>", AriError, "503 to GET /x: Service Unavailable"),
    ],
)
async def test_a_refusal_in_asterisks_words(
    asterisk: FakeAsterisk, connect: Made, status: int, body: str, error: type[AriError], words: str
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    asterisk.answer = refuse
    client = await connect(asterisk.port)

    with pytest.raises(error, match=words) as raised:
        await client.request("GET", "/x")
    assert raised.value.status == status


async def test_an_answer_that_is_late(asterisk: FakeAsterisk, connect: Made) -> None:
    async def later(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    asterisk.answer = later
    client = await connect(asterisk.port, request_timeout_s=0.2)

    with pytest.raises(AriUnreachable, match=r"did not answer GET /x within 0\.2 s"):
        await client.request("GET", "/x")


async def test_nobody_there(connect: Made) -> None:
    client = await connect(free_port())

    with pytest.raises(AriUnreachable, match="Asterisk is unreachable at"):
        await client.request("GET", "/x", over="socket")


async def test_a_request_that_waits_as_the_socket_ends(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    async def answer_pings(websocket: web.WebSocketResponse) -> None:
        asked = json.loads((await websocket.receive()).data)
        answer = {"request_id": asked["request_id"], "status_code": 200}
        await websocket.send_json({"type": "RESTResponse", **answer})
        await websocket.receive()  # receive the next request, do not answer, and end

    asterisk.serve = answer_pings
    client = await connect(asterisk.port)
    await listener.until("connected")

    with pytest.raises(AriUnreachable, match="closed before the answer arrived"):
        while asterisk.connections == 1:
            await client.request("GET", "/x", over="socket")


# Asterisk opens the WebSocket.


async def opened(http: aiohttp.ClientSession, port: int, authorization: str) -> aiohttp.ClientWebSocketResponse[Any]:
    headers = {"Authorization": authorization}
    return await http.ws_connect(f"http://127.0.0.1:{port}/ari", headers=headers, protocols=("ari",))


async def test_a_websocket_needs_the_password(asterisk: FakeAsterisk, connect: Made, listener: Listener) -> None:
    port = free_port()
    await connect(asterisk.port, listen=("127.0.0.1", port))

    async with aiohttp.ClientSession() as http:
        for wrong in ("", "Basic", aiohttp.encode_basic_auth("ada", "guess"), AUTHORIZATION + "=", "Basic \u00e4"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await opened(http, port, wrong)
    assert listener.reported == []


class Lease:
    """A lease that is not known to be held until a caller asks for it."""

    is_held = False

    async def wait_until_held(self) -> None:
        self.is_held = True


async def test_none_is_accepted_before_it_is_permitted(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    """Otherwise a process that was stopped, and no longer owns the calls, would take the application from the owner."""
    port, lease = free_port(), Lease()
    await connect(asterisk.port, lease, listen=("127.0.0.1", port))
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await opened(http, port, AUTHORIZATION)
        # The client has asked for the lease, so the next attempt succeeds.
        assert lease.is_held and listener.reported == []
        await opened(http, port, AUTHORIZATION)
        await listener.until("connected")


class Doubt:
    """A lease that is held until it is in doubt; then callers wait for it."""

    def __init__(self) -> None:
        self._had = asyncio.Event()
        self._had.set()
        self.asked = 0

    @property
    def is_held(self) -> bool:
        return self._had.is_set()

    async def wait_until_held(self) -> None:
        self.asked += 1
        await self._had.wait()

    def set(self, had: bool) -> None:
        (self._had.set if had else self._had.clear)()


@pytest.mark.parametrize("over", ["http", "socket"])
async def test_no_request_is_sent_while_the_lease_is_not_held(
    asterisk: FakeAsterisk, connect: Made, listener: Listener, over: str
) -> None:
    """Neither way sends the request, and the wait does not count against the request's deadline."""
    lease = Doubt()
    client = await connect(asterisk.port, lease, request_timeout_s=1.0)
    await listener.until("connected")
    async with lateness.timeout():
        while over == "socket" and await client.request("GET", "/again", over="socket") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # until the client knows that Asterisk accepts requests over the socket

    def asked() -> list[str]:
        return [path for _, path, _ in asterisk.seen if path.endswith("/answer")]

    lease.set(False)
    asking = asyncio.create_task(client.request("POST", "/channels/ann/answer", over=over))  # type: ignore[arg-type]
    await asyncio.wait([asking], timeout=1.2)
    assert not asking.done() and not asked()
    lease.set(True)
    await lateness.soon(asking)
    assert [path.removeprefix("/ari/") for path in asked()] == ["channels/ann/answer"]


async def test_a_late_answer_is_distinguished_from_none(asterisk: FakeAsterisk, connect: Made) -> None:
    """Asterisk may still carry out a request whose answer is late."""
    held = asyncio.Event()

    async def late(_: web.Request) -> web.Response:
        await held.wait()
        return web.Response(status=204)

    asterisk.answer = late
    client = await connect(asterisk.port, request_timeout_s=0.2)
    with pytest.raises(AriLate) as failed:
        await client.request("POST", "/channels/ann/answer")
    held.set()
    assert failed.value.sent


@pytest.mark.parametrize("listens", [True, False])
async def test_an_internal_error_of_the_connection_is_raised(
    asterisk: FakeAsterisk, connect: Made, monkeypatch: pytest.MonkeyPatch, listens: bool
) -> None:
    """Otherwise the process would continue without ever receiving another event."""

    async def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sockets_module.picows, "ws_connect", breaks)
    monkeypatch.setattr(sockets_module, "POLL_INTERVAL_S", 0.01)
    client = await connect(
        asterisk.port, listen=("127.0.0.1", free_port()) if listens else None, own_socket_timeout_s=0.0
    )
    with capture_logs(), pytest.raises(ZeroDivisionError):
        await lateness.soon(client.wait_until_closed())


async def test_while_it_is_seen_to_nothing_has_ended(asterisk: FakeAsterisk, connect: Made, listener: Listener) -> None:
    client = await connect(asterisk.port)
    await listener.until("connected")
    closed = asyncio.create_task(client.wait_until_closed())
    await asyncio.wait([closed], timeout=0.05)
    assert not closed.done()
    await client.finish()
    await lateness.soon(closed)


async def test_a_newer_one_takes_the_place_of_an_older(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    port = free_port()
    client = await connect(asterisk.port, listen=("127.0.0.1", port))

    async with aiohttp.ClientSession() as http:
        older = await opened(http, port, AUTHORIZATION)
        assert older.protocol == "ari"
        newer = await opened(http, port, AUTHORIZATION)
        while (await older.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        assert older.closed
        await newer.send_str('{"type": "News"}')
        await listener.until("connected", "disconnected", "connected", "News")
        assert client.connected


async def test_a_port_that_a_suspended_owner_still_has(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    """The client opens a WebSocket immediately; once the port is free, Asterisk can open one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        await connect(asterisk.port, listen=("127.0.0.1", port))
        await listener.until("connected")
    async with aiohttp.ClientSession() as http, lateness.timeout():
        while True:
            try:
                await opened(http, port, AUTHORIZATION)
                break
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.05)
        await listener.until("connected", "connected")


async def test_a_port_that_can_not_be_had(asterisk: FakeAsterisk, connect: Made) -> None:
    with pytest.raises(SetupFailed, match=r"can't listen on 192\.0\.2\.1:99"):
        await connect(asterisk.port, listen=("192.0.2.1", 99))


async def test_an_application_that_is_gone_is_had_again_by_a_websocket_of_ours(
    asterisk: FakeAsterisk, connect: Made, listener: Listener
) -> None:
    """Asterisk's own WebSocket is open, but would never carry an event."""
    port = free_port()
    asterisk.own_event = 404
    await connect(asterisk.port, listen=("127.0.0.1", port))
    async with aiohttp.ClientSession() as http:
        own = await opened(http, port, AUTHORIZATION)
        await listener.until("connected", "connected")
        assert asterisk.connections == 1
        assert not own.closed
