"""Proxy between server and Asterisk that damages the event WebSocket as a network does."""

from __future__ import annotations

import asyncio
import contextlib


class SocketProxy:
    """A proxy that listens at the port that the server knows as Asterisk's, and forwards to the real one."""

    def __init__(self, port: int, target: int, begins: bytes = b"") -> None:
        """Create the proxy. `begins`: the first bytes of connections to damage; all others are only forwarded."""
        self._port, self._target, self._begins = port, target, begins
        self._links: set[Link] = set()

    async def __aenter__(self) -> SocketProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.close_all()

    def close_all(self) -> None:
        for link in tuple(self._links):
            link.abort()

    def freeze(self) -> list[Link]:
        """Let open connections forward nothing any more without closing them; new ones work."""
        for link in self._links:
            link.passes.clear()
        return list(self._links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer)
        with contextlib.suppress(OSError):
            first = await reader.read(65536)
            if first:
                await self._pass_on(link, first, reader)
        link.abort()

    async def _pass_on(self, link: Link, first: bytes, reader: asyncio.StreamReader) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        link.ends.append(far_writer)
        if first.startswith(self._begins):
            self._links.add(link)
        try:
            far_writer.write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(link.pump(reader, far_writer))
                group.create_task(link.pump(far_reader, link.ends[0]))
        finally:
            self._links.discard(link)


class Link:
    """One connection of the server."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self.ends = list(ends)
        self.passes = asyncio.Event()
        self.passes.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while packet := await reader.read(65536):
                await self.passes.wait()
                writer.write(packet)
                await writer.drain()
        # While it is frozen, its end is not forwarded either.
        await self.passes.wait()
        self.abort()

    def abort(self) -> None:
        self.passes.set()
        for end in self.ends:
            end.transport.abort()
