"""Stands between Asterisk and the application, and does to the events' WebSocket what a network does."""

from __future__ import annotations

import asyncio
import contextlib


class SocketProxy:
    """Listens where Asterisk was told that the application does, and passes on to where it is."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
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
        """What stands now passes nothing on any more, and is not closed; what comes later works."""
        for link in self._links:
            link.passes.clear()
        return list(self._links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, far_writer)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.pump(reader, far_writer))
                group.create_task(link.pump(far_reader, writer))
        finally:
            self._links.discard(link)
            link.abort()


class Link:
    """One connection of Asterisk's."""

    def __init__(self, *ends: asyncio.StreamWriter) -> None:
        self._ends = ends
        self.passes = asyncio.Event()
        self.passes.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while packet := await reader.read(65536):
                await self.passes.wait()
                writer.write(packet)
                await writer.drain()
        # Its end isn't passed on either while it is frozen.
        await self.passes.wait()
        self.abort()

    def abort(self) -> None:
        self.passes.set()
        for end in self._ends:
            end.transport.abort()
