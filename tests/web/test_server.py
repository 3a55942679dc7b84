"""Slow clients, and too many of them."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from ari_conf.settings import from_environment
from ari_conf.web import server
from tests.web.conftest import Api, Owner, Served, account

BEGUN = [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "]


def answer(wire: socket.socket) -> bytes:
    """Of /healthz: head and body may come one by one."""
    got = b""
    while not got.endswith(b"}") and (more := wire.recv(1000)):
        got += more
    return got


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("begun", BEGUN)
def test_a_connection_that_brings_no_request_is_closed(api: Api, monkeypatch: pytest.MonkeyPatch, begun: bytes):
    monkeypatch.setattr(server, "HEAD_S", 0.3)
    with connected(api.port) as slow:
        slow.sendall(begun)
        began = time.monotonic()
        assert slow.recv(100) == b""
        assert 0.2 < time.monotonic() - began < 3


def test_a_byte_now_and_then_is_not_enough(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    with connected(api.port) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in answer(slow)
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 5:
                slow.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - began < 3, "also of the second request"


def test_who_asks_again_on_the_same_connection_is_answered(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server, "HEAD_S", 1.0)
    with connected(api.port) as wire:
        for _ in range(4):
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in answer(wire)
            time.sleep(0.4)


def test_what_is_no_http_is_refused(api: Api):
    with connected(api.port) as wire:
        wire.sendall(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
        assert b" 400 " in wire.recv(1000)


def test_a_head_that_is_too_large_is_refused(api: Api):
    with connected(api.port) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (server.MOST_OF_A_HEAD + 10))
        assert b" 400 " in wire.recv(1000)


def test_no_more_connections_than_the_setting_says(owner: Owner):
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_WEB_CONNECTIONS": "10"}
    with Served(from_environment(given), owner) as served:
        api = account(served, "A")
        with ExitStack() as open_ones:
            idle = [open_ones.enter_context(connected(served.port)) for _ in range(10)]
            told = api.get("Conference/")
            assert (told.status, set(told.json)) == (503, {"api_id", "error"})
            assert int(told.headers["Retry-After"]) > 0
            more = [open_ones.enter_context(connected(served.port)) for _ in range(10)]
            assert [wire.recv(1) for wire in more[-6:]] == [b""] * 6
            assert len(served.server.server_state.connections) <= 13
            idle[0].close()
            for wire in more:
                wire.close()
        end = time.monotonic() + 5
        while api.get("Conference/").status != 200:
            assert time.monotonic() < end
