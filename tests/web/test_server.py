"""Tests of slow clients, and of too many clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from ari_conf.local.processes import free_port
from ari_conf.settings import from_environment
from ari_conf.web import async_calls, server
from tests import redis as redis_of
from tests.web.conftest import Api, Owner, Served, account, basic
from tests.web.test_event_stream import eventually

BEGUN = [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "]


def answer(wire: socket.socket) -> bytes:
    """Return the answer of /healthz, whose head and body may arrive separately."""
    got = b""
    while not got.endswith(b"}") and (more := wire.recv(1000)):
        got += more
    return got


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


@pytest.mark.parametrize("begun", BEGUN)
def test_a_connection_that_brings_no_request_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch, begun: bytes):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.3)
    with connected(api.port) as slow:
        slow.sendall(begun)
        began = time.monotonic()
        assert slow.recv(100) == b""
        assert 0.2 < time.monotonic() - began < 15


def test_a_byte_now_and_then_is_not_enough(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.5)
    with connected(api.port) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in answer(slow)
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 20:
                slow.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < 15, "the limit also applies to the second request"


def test_a_connection_serves_several_requests(api: Api, monkeypatch: pytest.MonkeyPatch):
    """More time has passed since the connection was opened than a head may take."""
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 2.0)
    with connected(api.port) as wire:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in answer(wire)


def test_connection_without_http_is_refused(api: Api):
    with connected(api.port) as wire:
        wire.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert b" 400 " in wire.recv(1000)


def test_a_head_that_is_too_large_is_refused(api: Api):
    with connected(api.port) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (server.MAX_HEAD_BYTES + 10))
        assert b" 400 " in wire.recv(1000)


@pytest.fixture
def ten(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Yield a `web` with ten connections, of which one address may hold all half open."""
    monkeypatch.setattr(server, "HALF_OPEN_SHARE", 1)
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_WEB_CONNECTIONS": "10", "ARI_CONF_API_RATE": "0"}
    with Served(from_environment(given), owner) as served:
        api = account(served, "A")
        api.served = served  # type: ignore[attr-defined]
        yield api


def server_of(api: Api) -> server.WebServer:
    found: server.WebServer = api.served.server  # type: ignore[attr-defined]
    return found


def streaming(api: Api) -> socket.socket:
    """Return a connection on which a request is in progress indefinitely."""
    wire = connected(api.port)
    login = f"Authorization: {basic(api.auth_id, api.token)}"
    wire.sendall(f"GET /v1/Account/A/Events/ HTTP/1.1\r\nHost: x\r\n{login}\r\n\r\n".encode())
    assert b" 200 " in wire.recv(1000)
    return wire


def test_no_more_connections_than_the_setting_says(ten: Api):
    with ExitStack() as open_ones:
        busy = [open_ones.enter_context(streaming(ten)) for _ in range(10)]
        response = ten.get("Conference/")
        assert (response.status, set(response.json)) == (503, {"api_id", "error"})
        assert int(response.headers["Retry-After"]) > 0
        more = [open_ones.enter_context(connected(ten.port)) for _ in range(10)]
        eventually(lambda: len(server_of(ten).server_state.connections) <= 13)
        for wire in more:
            wire.close()
        busy[0].close()
        eventually(lambda: ten.get("Conference/").status == 200)


UNUSED = {
    "nothing sent": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost",
    "no body": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
    "half a chunk": b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "a whole request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "one and a half": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHos",
}


def connected_from(address: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20, (address, 0))


@pytest.mark.parametrize("sent", UNUSED.values(), ids=UNUSED)
def test_many_half_open_connections_block_no_other_client(ten: Api, sent: bytes):
    """The client opens all connections, and more as soon as some are closed."""
    with ExitStack() as open_ones:

        def full() -> bool:
            wire = open_ones.enter_context(connected_from("127.0.0.2", ten.port))
            with suppress(OSError):
                wire.sendall(sent)
            return len(server_of(ten).server_state.connections) >= 10

        for _ in range(3):
            for _ in range(14):
                full()
            eventually(full)
            assert [ten.get("Conference/").status for _ in range(3)] == [200] * 3


def test_connections_being_served_are_not_displaced(ten: Api):
    with ExitStack() as open_ones:
        streams = [open_ones.enter_context(streaming(ten)) for _ in range(5)]
        for _ in range(30):
            open_ones.enter_context(connected(ten.port))
        assert ten.get("Conference/").status == 200
        for stream in streams:
            stream.setblocking(False)
            with suppress(BlockingIOError):
                while got := stream.recv(1000):
                    pass
                assert got, "the connection was closed"


def test_one_address_has_a_tenth_without_a_whole_head(owner: Owner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "GRACE_S", 0.1)
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_WEB_CONNECTIONS": "100"}
    with Served(from_environment(given), owner) as served, ExitStack() as open_ones:
        api = account(served, "A")
        stream = open_ones.enter_context(streaming(api))
        idle = open_ones.enter_context(connected(served.port))
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in answer(idle)
        other = open_ones.enter_context(connected_from("127.0.0.2", served.port))
        wires = [open_ones.enter_context(connected(served.port)) for _ in range(30)]
        for wire in wires:
            wire.sendall(b"GET / HT")
        closed = [ended(wire) for wire in wires[:20]]
        assert closed == [True] * 20, "the oldest"
        for wire in (*wires[20:], other):
            wire.sendall(b"TP/1.1\r\nHost: x\r\n\r\n" if wire is not other else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 303 " in wire.recv(1000), "that many may be slow, and other addresses have their own count"
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in answer(idle)
        stream.setblocking(False)
        with pytest.raises(BlockingIOError):
            while stream.recv(1000):
                pass


def ended(wire: socket.socket) -> bool:
    try:
        return wire.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_burst_of_whole_requests_is_answered(owner: Owner):
    """The requests are more than one address may have half open."""
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_WEB_CONNECTIONS": "100"}
    with Served(from_environment(given), owner) as served, ExitStack() as open_ones:
        wires = [open_ones.enter_context(connected(served.port)) for _ in range(60)]
        for wire in wires:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert all(b" 200 " in answer(wire) for wire in wires)


AMBIGUOUS = {
    "a length, and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks, and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "no length, and chunks": b"Content-Length: 0\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 0\r\n\r\n",
    "chunks of an unknown kind": b"Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_where_a_body_ends_in_two_ways_nothing_is_done_and_the_connection_is_closed(api: Api, rest: bytes):
    head = f"POST /v1/Account/A/DeadLetter/Resend/ HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('A', api.token)}\r\n"
    with connected(api.port) as wire:
        wire.sendall(head.encode() + rest + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        with suppress(ConnectionResetError):
            while more := wire.recv(1000):
                got += more
    status = int(got.split()[1])
    assert status in (400, 501)
    assert got.count(b"HTTP/1.1 ") == 1, "the smuggled request is not answered"
    assert b"connection: close" in got.lower()


def test_http_1_0_has_no_chunks(api: Api):
    with connected(api.port) as wire:
        wire.sendall(b"POST /login HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert b" 400 " in wire.recv(1000)


# Headers of every answer.


def test_no_answer_is_kept_or_taken_for_another_kind(api: Api, owner: Owner):
    """The page's files are the exception: they have cache headers of their own."""
    owner.joins("ann")
    asked = [
        "Conference/",
        "Conference/standup/",
        "Conference/nothing/",
        "Recording/x.mp3",
        "Callback/",
        "Callback/?limit=x",
    ]
    asked += ["/v1/Account/B/Conference/", "/nothing", "/openapi.json", "/login/me", "/metrics", "/healthz", "/"]
    answers = [api.get(path) for path in asked] + [
        api.post("Conference/standup/Lock/"),
        api.delete("Conference/standup/Lock/"),
    ]
    answers += [api.get("Conference/", Authorization=""), api.send("PUT", "Conference/")]
    assert {response.status for response in answers} >= {200, 202, 204, 303, 400, 401, 404, 405}
    for response in answers:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert api.get("/static/js/app.js").headers["Cache-Control"] == "no-cache"


# Background tasks of the process.


def test_the_end_of_a_task_that_never_ends_ends_the_process(owner: Owner, monkeypatch: pytest.MonkeyPatch):
    given = {"ARI_CONF_REDIS_URL": owner.url}
    broken = threading.Event()

    async def looks(_: object) -> None:
        if broken.is_set():
            raise KeyError("of another version")

    monkeypatch.setattr(async_calls, "POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(async_calls.AbandonedCalls, "_complete_all", looks)
    with Served(from_environment(given), owner) as served:
        assert account(served, "A").get("Conference/").status == 200
        assert not served.server.broken
        broken.set()
        served._thread.join(20)
        assert not served._thread.is_alive()
        assert served.server.broken


def test_then_its_exit_code_says_so(redis_for_web: redis_of.RedisServer):
    """The supervisor then restarts it. The process ends immediately, even with listening clients."""
    code = (
        "from ari_conf.web.async_calls import AbandonedCalls\n"
        "async def breaks(self): raise KeyError('of another version')\n"
        "AbandonedCalls._complete_all = breaks\n"
        "from ari_conf.cli.processes import web\n"
        "web()"
    )
    given = {"ARI_CONF_REDIS_URL": redis_for_web.url, "ARI_CONF_WEB_LISTEN": f"127.0.0.1:{free_port()}"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | given, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1
    assert "of another version" in ran.stderr
