"""Proxy between asynchronous clients and Redis: fails as a network, a virtual IP or a proxy may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Between:
    def __init__(self, target: int) -> None:
        self.target = target
        """The port of 127.0.0.1 for new connections; open connections keep theirs."""
        self.url = ""
        self.held = asyncio.Event()
        """Set while the proxy holds something back."""
        self.connections = 0
        """The number of connections since the start."""
        self._hold: bytes | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()

    def hold(self, what: bytes = b"") -> None:
        """Hold back, from now on, requests that contain `what`, and all that follows on the same connection."""
        self._hold = what
        self._flows.clear()
        self.held.clear()

    def let_through(self) -> None:
        """Let everything through, including what was held back."""
        self._hold = None
        self._flows.set()

    def cut(self) -> None:
        """Close all connections."""
        for writer in self._open:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, to = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        self._open |= {writer, to}
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, to, asks=True), self._pump(there, writer, asks=False))
        self._open -= {writer, to}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asks: bool) -> None:
        try:
            while data := await reader.read(65536):
                if asks and self._hold is not None and self._hold in data:
                    self.held.set()
                    await self._flows.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def between(port: int) -> AsyncIterator[Between]:
    one = Between(port)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    try:
        yield one
    finally:
        server.close()
        one.let_through()
        one.cut()
