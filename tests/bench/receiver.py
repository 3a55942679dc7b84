"""Callback receiver that costs almost no CPU, in a process of its own; and a measurement of its capacity."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.tasks.fleet import until

MAX_TIMED = 100_000
SENT_AT = b"SentAt="
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class _Requests(asyncio.Protocol):
    def __init__(self, count: Any, timed: Any, took_ms: Any, answer_s: float, answer: Callable[[bytes], bytes]) -> None:
        self.count, self.timed, self.took_ms, self.answer_s, self.answer = count, timed, took_ms, answer_s, answer
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, received: bytes) -> None:
        self.buffer += received
        while (end := self._end()) <= len(self.buffer):
            request, self.buffer = self.buffer[:end], self.buffer[end:]
            self._received(request)

    def _end(self) -> int:
        """Return the offset of the end of the first request."""
        head = self.buffer.find(b"\r\n\r\n") + 4
        if head < 4:
            return len(self.buffer) + 1
        at = self.buffer.lower().find(b"content-length:", 0, head)
        return head + (int(self.buffer[at + 15 : self.buffer.index(b"\r\n", at)]) if at >= 0 else 0)

    def _received(self, request: bytes) -> None:
        at = request.rfind(SENT_AT)
        if at >= 0:
            sent_ns = int(request[at + len(SENT_AT) :].split(b"&")[0])
            self.took_ms[self.timed.value % MAX_TIMED] = (time.time_ns() - sent_ns) / 1e6
            self.timed.value += 1
        self.count.value += 1
        if self.answer_s:
            asyncio.get_running_loop().call_later(self.answer_s, self.transport.write, self.answer(request))
        else:
            self.transport.write(self.answer(request))


def _serve(port: Synchronized[int], *shared: Any) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Requests(*shared), "127.0.0.1", 0, backlog=500)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


class FastReceiver:
    """A receiver that answers each request with 200 after `answer_s` seconds, or with the bytes that `answer` returns
    for it."""

    def __init__(self, answer_s: float = 0.0, answer: Callable[[bytes], bytes] = lambda _: ANSWER) -> None:
        port = multiprocessing.Value("i", 0)
        self._count, self._timed = (multiprocessing.Value(ctypes.c_long, 0, lock=False) for _ in range(2))
        self._took_ms = multiprocessing.Array(ctypes.c_double, MAX_TIMED, lock=False)
        self._process = multiprocessing.Process(
            target=_serve, args=(port, self._count, self._timed, self._took_ms, answer_s, answer), daemon=True
        )
        self._process.start()
        until(lambda: bool(port.value))
        self.port = port.value
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FastReceiver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.join()

    @property
    def count(self) -> int:
        return int(self._count.value)

    @property
    def took_ms(self) -> list[float]:
        """Return the ms from SentAt to the arrival, for the requests that have SentAt."""
        return [float(took) for took in self._took_ms[: self._timed.value]]

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flat_out(receiver: FastReceiver, request: bytes, number: int, connections: int) -> float:
    """Return the requests per second of a client that costs almost no CPU either."""

    async def one(times: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        for _ in range(times):
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number // connections) for _ in range(connections)))

    began = time.monotonic()
    asyncio.run(all_of_them())
    return number / (time.monotonic() - began)
