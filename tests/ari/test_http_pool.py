"""Tests of requests over kept connections, to a server that sends exactly the bytes that it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from ari_conf.ari import http_pool
from ari_conf.ari.http_pool import HttpPool
from ari_conf.ari.permission import ALWAYS_PERMITTED
from ari_conf.ari.websocket import AriResponse
from ari_conf.errors import AriUnreachable
from tests import lateness

FINE = b"HTTP/1.1 200 OK\r\nServer: Asterisk\r\nContent-Length: 2\r\nContent-type: application/json\r\n\r\n{}"
CLOSES = object()
"""The server closes the connection immediately."""


class Server:
    """Server that answers each request with the next of its answers, in the pieces that the answer consists of."""

    def __init__(self) -> None:
        self.answers: list[list[bytes | object]] = []
        self.asked: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.held: asyncio.Event | None = None
        """Event to wait for before an answer, or None."""
        self.began, self.closed = asyncio.Event(), asyncio.Event()
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.asked.append(head + await reader.readexactly(length))
                self.began.set()
                if self.held is not None:
                    await self.held.wait()
                for piece in self.answers.pop(0) if self.answers else [FINE]:
                    if piece is CLOSES:
                        return
                    assert isinstance(piece, bytes)
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            self.open -= 1
            self.closed.set()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[..., HttpPool]]:
    made: list[HttpPool] = []

    def connected(most: int = 4) -> HttpPool:
        made.append(
            HttpPool(f"http://127.0.0.1:{server.port}/ari/", "Basic YTpi", most, ALWAYS_PERMITTED.wait_until_held)
        )
        return made[-1]

    yield connected
    for one in made:
        one.close()


Connect = Callable[..., HttpPool]


async def test_request_on_the_wire(server: Server, connect: Connect):
    connections = connect()
    assert await connections.request("POST", "/a%2Fb", "q=1%20%26", b'{"x":1}') == AriResponse(200, "OK", b"{}")
    head, _, body = server.asked[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /ari/a%2Fb?q=1%20%26 HTTP/1.1"
    assert set(lines[1:]) == {
        b"Host: 127.0.0.1:%d" % server.port,
        b"Authorization: Basic YTpi",
        b"Content-Type: application/json",
        b"Content-Length: 7",
    }
    assert body == b'{"x":1}'


async def test_one_connection_serves_one_request_after_another(server: Server, connect: Connect):
    connections = connect()
    for _ in range(5):
        await connections.request("GET", "/x", "", None)
    assert server.connections == 1
    await asyncio.gather(*(connections.request("GET", "/x", "", None) for _ in range(3)))
    assert server.connections == 3


@pytest.mark.parametrize("cut", [1, 9, 17, 40, len(FINE) - 3, len(FINE) - 1])
async def test_an_answer_in_pieces(server: Server, connect: Connect, cut: int):
    connections = connect()
    server.answers = [[FINE[:cut], FINE[cut:]], [bytes([byte]) for byte in FINE]]
    for _ in range(2):
        assert await connections.request("GET", "/x", "", None) == AriResponse(200, "OK", b"{}")


async def test_an_answer_in_chunks(server: Server, connect: Connect):
    connections = connect()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers = [[head, b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"]]
    for _ in range(2):
        assert await connections.request("GET", "/x", "", None) == AriResponse(200, "OK", b"{}")
    assert server.connections == 1


async def test_a_long_answer(server: Server, connect: Connect):
    connections = connect()
    body = b"x" * (3 * http_pool.MAX_HEAD_BYTES)
    server.answers = [[b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]]
    assert (await connections.request("GET", "/x", "", None)).body == body
    await connections.request("GET", "/x", "", None)
    assert server.connections == 1


async def test_an_interim_response_is_not_the_answer(server: Server, connect: Connect):
    connections = connect()
    server.answers = [[b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + FINE]]
    assert await connections.request("POST", "/x", "", None) == AriResponse(200, "OK", b"{}")
    await connections.request("GET", "/x", "", None)
    assert server.connections == 1


@pytest.mark.parametrize("extra", [b"garbage", FINE, FINE[:9]], ids=["garbage", "another answer", "half of one"])
async def test_a_connection_with_more_than_an_answer_is_used_no_more(server: Server, connect: Connect, extra: bytes):
    connections = connect()
    server.answers = [[FINE + extra], [FINE.replace(b"{}", b"[]")]]
    assert (await connections.request("GET", "/x", "", None)).body == b"{}"
    assert (await connections.request("GET", "/x", "", None)).body == b"[]"
    assert server.connections == 2


async def test_a_connection_that_changes_its_protocol_is_used_no_more(
    server: Server, connect: Connect, caplog: pytest.LogCaptureFixture
):
    connections = connect()
    server.answers = [[b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"]]
    assert (await connections.request("GET", "/x", "", None)).status == 101
    assert (await connections.request("GET", "/x", "", None)).status == 200
    assert server.connections == 2
    assert not caplog.records, "asyncio logs what data_received raises"


async def test_no_content_and_a_refusal(server: Server, connect: Connect):
    connections = connect()
    server.answers = [
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        [b'HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 15\r\n\r\n{"message":"x"}'],
        [b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n"],
    ]
    assert await connections.request("POST", "/x", "", None) == AriResponse(204, "No Content", b"")
    assert await connections.request("POST", "/x", "", None) == AriResponse(
        422, "Unprocessable Entity", b'{"message":"x"}'
    )
    assert await connections.request("POST", "/x", "", None) == AriResponse(404, "", b"")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\n\r\nall", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nall"],
)
async def test_a_connection_that_ends_with_its_answer_is_used_no_more(server: Server, connect: Connect, answer: bytes):
    connections = connect()
    server.answers = [[answer, CLOSES]]
    assert await connections.request("GET", "/x", "", None) == AriResponse(200, "OK", b"all")
    await connections.request("GET", "/x", "", None)
    assert server.connections == 2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", b"HTTP/1.0 200 OK\r\n"])
async def test_a_connection_that_is_to_be_closed_is_used_no_more(server: Server, connect: Connect, head: bytes):
    """The server may close it at any moment, and the next request would be lost."""
    connections = connect()
    server.answers = [[head + b"Content-Length: 3\r\n\r\nall"]]
    assert await connections.request("GET", "/x", "", None) == AriResponse(200, "OK", b"all")
    await connections.request("GET", "/x", "", None)
    assert server.connections == 2


async def test_a_kept_connection_that_is_closed_meanwhile_harms_nobody(server: Server, connect: Connect):
    connections = connect()
    server.answers = [[FINE], [CLOSES], [FINE]]
    await connections.request("GET", "/1", "", None)
    assert (await connections.request("GET", "/2", "", None)).status == 200
    assert [asked.split(b" ")[1] for asked in server.asked] == [b"/ari/1", b"/ari/2", b"/ari/2"]


async def test_nor_a_post_that_does_no_harm_twice(server: Server, connect: Connect):
    connections = connect()
    server.answers = [[FINE], [CLOSES], [FINE]]
    await connections.request("GET", "/1", "", None)
    assert (await connections.request("POST", "/2", "", None, idempotent=True)).status == 200
    assert [asked.split(b" ")[1] for asked in server.asked] == [b"/ari/1", b"/ari/2", b"/ari/2"]


async def test_a_connection_that_is_closed_before_anything_is_sent_harms_no_request(server: Server):
    """The connection may close while the request waits for permission: the request has not been sent by then."""
    permitted = asyncio.Event()
    permitted.set()
    connections = HttpPool(f"http://127.0.0.1:{server.port}/ari", "Basic YTpi", 1, permitted.wait)
    server.answers = [[FINE, CLOSES]]
    closed = server.closed
    await connections.request("GET", "/1", "", None)
    permitted.clear()
    asking = asyncio.create_task(connections.request("POST", "/2", "", None))
    await closed.wait()
    await asyncio.sleep(0.01)
    permitted.set()
    assert (await asking).status == 200
    assert [asked.split(b" ")[1] for asked in server.asked] == [b"/ari/1", b"/ari/2"]
    connections.close()


async def test_unsent_request_is_known_not_to_be_done(server: Server, connect: Connect):
    nobody = HttpPool("http://127.0.0.1:1/ari", "Basic YTpi", 1, ALWAYS_PERMITTED.wait_until_held)
    with pytest.raises(AriUnreachable) as never:
        await nobody.request("POST", "/x", "", None)
    assert not never.value.sent
    server.answers = [[CLOSES]]
    with pytest.raises(AriUnreachable) as perhaps:
        await connect().request("POST", "/x", "", None)
    assert perhaps.value.sent


@pytest.mark.parametrize("kept", [True, False])
async def test_a_request_canceled_while_it_waits_for_permission_leaves_no_connection(server: Server, kept: bool):
    """Asterisk allows a limited number of connections, and each lapse of the lease would cost some of them."""
    permitted = asyncio.Event()
    permitted.set()
    connections = HttpPool(f"http://127.0.0.1:{server.port}/ari", "Basic YTpi", 4, permitted.wait)
    if kept:
        await asyncio.gather(*(connections.request("GET", "/x", "", None) for _ in range(4)))
    for _ in range(5):
        permitted.clear()
        asking = [asyncio.create_task(connections.request("GET", "/x", "", None)) for _ in range(4)]
        await asyncio.wait(asking, timeout=0.05)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        permitted.set()
        await asyncio.gather(*(connections.request("GET", "/x", "", None) for _ in range(4)))
    async with lateness.timeout():
        while server.open > 4:
            server.closed.clear()
            await server.closed.wait()
    assert server.open <= 4
    connections.close()


async def test_one_that_is_refused_permission_leaves_none_either(server: Server):
    class Lost(Exception):
        pass

    async def lost() -> None:
        raise Lost

    connections = HttpPool(f"http://127.0.0.1:{server.port}/ari", "Basic YTpi", 1, lost)
    with pytest.raises(Lost):
        await connections.request("GET", "/x", "", None)
    async with lateness.timeout():
        while server.open:
            server.closed.clear()
            await server.closed.wait()
    assert server.asked == []


async def test_each_request_needs_permission(server: Server):
    asked = 0

    async def permitted() -> None:
        nonlocal asked
        asked += 1

    connections = HttpPool(f"http://127.0.0.1:{server.port}/ari", "Basic YTpi", 1, permitted)
    server.answers = [[FINE], [CLOSES]]
    for _ in range(2):
        await connections.request("GET", "/x", "", None)
    assert asked == len(server.asked) == 3
    connections.close()


async def test_a_request_that_is_not_idempotent_is_not_repeated(server: Server, connect: Connect):
    connections = connect()
    server.answers = [[FINE], [CLOSES]]
    await connections.request("POST", "/1", "", None)
    with pytest.raises(AriUnreachable, match="closed the connection"):
        await connections.request("POST", "/2", "", None)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [b"SIP/2.0 200 OK\r\n\r\n"],
        [b"HTTP/1.1 two OK\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ntwo\r\n{}\r\n0\r\n\r\n"],
        [b"x" * (http_pool.MAX_HEAD_BYTES + 1)],
        [b"HTTP/1.1 200 OK\r\n" + b"X-Endless: x\r\n" * (http_pool.MAX_HEAD_BYTES // 14 + 1)],
        [b"HTTP/1.1 200 OK\r\nX-Endless: " + b"x" * http_pool.MAX_HEAD_BYTES],
        [b"HTTP/1.1 100 Continue\r\n\r\n" * (http_pool.MAX_HEAD_BYTES // 25 + 1)],
        [b"HTTP/1.1 100 Continue\r\n\r\n", CLOSES],
        [FINE[:-1], CLOSES],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nal", CLOSES],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", CLOSES],
    ],
)
async def test_invalid_answer_fails_the_request(server: Server, connect: Connect, pieces: list[bytes | object]):
    connections = connect()
    server.answers = [pieces]
    with pytest.raises(AriUnreachable, match=r"not HTTP|closed the connection"):
        await connections.request("GET", "/x", "", None)
    assert (await connections.request("GET", "/x", "", None)).status == 200


async def test_the_response_to_a_canceled_request_goes_to_no_other(server: Server, connect: Connect):
    connections = connect(1)
    server.held = asyncio.Event()
    server.answers = [[FINE.replace(b"{}", b"no")]]
    late = asyncio.create_task(connections.request("GET", "/late", "", None))
    await server.began.wait()
    late.cancel()
    await asyncio.wait([late])
    server.held.set()
    assert (await connections.request("GET", "/x", "", None)).body == b"{}"
    assert server.connections == 2


async def test_no_more_at_a_time_than_there_may_be(server: Server, connect: Connect):
    connections = connect(2)
    await asyncio.gather(*(connections.request("GET", f"/{n}", "", None) for n in range(10)))
    assert server.connections == 2 and len(server.asked) == 10


async def test_nobody_there():
    connections = HttpPool("http://127.0.0.1:1/ari", "Basic YTpi", 1, ALWAYS_PERMITTED.wait_until_held)
    with pytest.raises(AriUnreachable, match=r"Asterisk is unreachable at http://127\.0\.0\.1:1/ari"):
        await connections.request("GET", "/x", "", None)


async def test_a_connection_that_was_idle_for_long_is_not_used(
    server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http_pool, "MAX_IDLE_S", 0.0)
    connections = connect()
    for _ in range(2):
        await connections.request("GET", "/x", "", None)
    assert server.connections == 2


async def test_nothing_is_sent_before_it_is_permitted(server: Server):
    permitted = asyncio.Event()

    async def when() -> None:
        await permitted.wait()

    connections = HttpPool(f"http://127.0.0.1:{server.port}/ari", "Basic YTpi", 1, when)
    asking = asyncio.create_task(connections.request("GET", "/x", "", None))
    await asyncio.wait([asking], timeout=0.05)
    assert server.asked == [] and not asking.done()
    permitted.set()
    assert (await asking).status == 200
    connections.close()
