from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from ari_conf.local.processes import free_port
from tests.chaos.socket_proxy import SocketProxy


@pytest.fixture
async def proxy() -> AsyncGenerator[tuple[SocketProxy, int]]:
    """Yield a proxy before an echo server, and its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while packet := await reader.read(100):
            writer.write(packet)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = free_port()
        async with SocketProxy(port, server.sockets[0].getsockname()[1]) as proxy:
            yield proxy, port


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def says(self, word: bytes) -> bytes:
        self._writer.write(word)
        async with asyncio.timeout(0.5):
            return await self._reader.read(100)

    async def is_closed(self) -> bool:
        try:
            return await self.says(b"still there?") == b""
        except ConnectionError:
            return True


async def test_data_is_forwarded(proxy: tuple[SocketProxy, int]) -> None:
    caller = await Caller.to(proxy[1])
    assert await caller.says(b"hello") == b"hello"


async def test_a_half_open_connection_is_silent_and_a_new_one_works(proxy: tuple[SocketProxy, int]) -> None:
    old = await Caller.to(proxy[1])
    assert await old.says(b"hello") == b"hello"
    links = proxy[0].freeze()
    with pytest.raises(TimeoutError):
        await old.says(b"again")
    assert await (await Caller.to(proxy[1])).says(b"hello") == b"hello"
    for link in links:
        link.abort()
    with pytest.raises(ConnectionError):
        await old.says(b"again")


async def test_other_connections_are_only_forwarded() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while packet := await reader.read(100):
            writer.write(packet)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = free_port()
        async with SocketProxy(port, server.sockets[0].getsockname()[1], b"GET /events") as proxy:
            events, other = await Caller.to(port), await Caller.to(port)
            assert await events.says(b"GET /events") == b"GET /events"
            assert await other.says(b"GET /channels") == b"GET /channels"
            assert len(proxy.freeze()) == 1
            assert await other.says(b"again") == b"again"
            proxy.close_all()
            assert await other.says(b"and again") == b"and again"
            assert await events.is_closed()


async def test_all_are_closed(proxy: tuple[SocketProxy, int]) -> None:
    caller = await Caller.to(proxy[1])
    assert await caller.says(b"hello") == b"hello"
    proxy[0].close_all()
    with pytest.raises(ConnectionError):
        await caller.says(b"again")
