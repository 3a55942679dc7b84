"""Receiver that misbehaves on purpose, on 127.0.0.1, in a thread of its own; the path selects the behavior."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

DRIP_S = 0.02
BOMB = gzip.compress(bytes(10_000_000))
"""A compressed body of 10 KB that expands to 10 MB."""

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Seen:
    method: str
    target: str
    headers: dict[str, str]
    """Header names are in lower case."""
    body: str
    connection: int
    """The client's port: the same port means the same connection."""


@dataclass
class Receiver:
    scheme: str = "http"
    port: int = 0
    seen: list[Seen] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The receiver may ignore a client that leaves, and the end of the test.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            while await self._one(reader, writer):
                await writer.drain()
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == b"\x16":  # a TLS handshake, which this receiver does not speak
            writer.write(response("400"))
            return False
        lines = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.seen.append(Seen(method, target, headers, body.decode(), writer.get_extra_info("peername")[1]))
        word, _, rest = target.partition("?")[0].strip("/").partition("/")
        behaviour = BEHAVIOURS.get(word)
        if behaviour is not None:
            await behaviour(writer)
            return False
        writer.write(simple(word, unquote(rest), headers))
        return True


def simple(word: str, rest: str, headers: dict[str, str]) -> bytes:
    """Return the answers that are well-formed."""
    match word:
        case "status":
            return response(rest)
        case "retry-after":
            return response("503", f"Retry-After: {rest}")
        case "loop":
            return response("302", "Location: /loop")
        case "hops":
            return response("302", f"Location: /hops/{int(rest) - 1}" if rest != "1" else "Location: /ok")
        case "redirect":
            status, _, location = rest.partition("/")
            return response(status, f"Location: {location}")
        case "gzip":
            return response("200", "Content-Encoding: gzip")
        case "bomb":
            return response("200", "Content-Encoding: gzip", BOMB)
        case "interim":
            return b"HTTP/1.1 100 Continue\r\n\r\n" * int(rest) + response("200")
        case "headers":
            return response("200", "\r\n".join(f"X-{n}: {'x' * 1000}" for n in range(int(rest))))
        case "single-bytes":
            return CHUNKED + b"1\r\nx\r\n" * int(rest) + b"0\r\n\r\n"
        case "small-chunks":
            return CHUNKED + b"5\r\nxxxxx\r\n" * int(rest) + b"0\r\n\r\n"
        case "large":
            return response("200", body=b"x" * int(rest))
        case "etag":
            return response("304" if headers.get("if-none-match") == '"1"' else "200", 'ETag: "1"', b"sound")
    return response("200")


def response(status: str, header: str = "X-Nothing: 1", body: bytes = b"ok") -> bytes:
    if status in ("204", "304"):
        return f"HTTP/1.1 {status} Said\r\n{header}\r\n\r\n".encode()
    return f"HTTP/1.1 {status} Said\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def late(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def stall(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
    await writer.drain()
    await asyncio.Event().wait()


async def slow_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await drip(writer)


async def slow_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await drip(writer)


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def truncated(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")


async def truncated_chunk(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf of it")


async def closed(_: asyncio.StreamWriter) -> None:
    pass


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.com ESMTP ready\r\n\r\n")


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 16384)
        await writer.drain()


async def repeated(writer: asyncio.StreamWriter, first: bytes, again: bytes) -> None:
    """Write without an end, as fast as the client reads."""
    writer.write(first)
    while True:
        writer.write(again * (16384 // len(again)))
        await writer.drain()


async def endless_interim(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, b"", b"HTTP/1.1 100 Continue\r\n\r\n")


async def slow_interim(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(DRIP_S)


async def endless_interim_headers(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, b"HTTP/1.1 100 Continue\r\n", b"X-Endless: x\r\n")


async def endless_headers(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, b"HTTP/1.1 200 OK\r\n", b"X-Endless: " + b"x" * 4000 + b"\r\n")


async def endless_header(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x")


async def endless_trailers(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, CHUNKED + b"2\r\nok\r\n0\r\n", b"X-Endless: x\r\n")


async def endless_extension(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, CHUNKED + b"2;x=", b"x")


async def endless_answers(writer: asyncio.StreamWriter) -> None:
    await repeated(writer, b"", b"HTTP/1.1 204 No\r\n\r\n")


BEHAVIOURS = {
    "endless-interim": endless_interim,
    "slow-interim": slow_interim,
    "endless-interim-headers": endless_interim_headers,
    "endless-headers": endless_headers,
    "endless-header": endless_header,
    "endless-trailers": endless_trailers,
    "endless-extension": endless_extension,
    "endless-answers": endless_answers,
    "late": late,
    "stall": stall,
    "slow-headers": slow_headers,
    "slow-body": slow_body,
    "truncated": truncated,
    "truncated-chunk": truncated_chunk,
    "closed": closed,
    "garbage": garbage,
    "endless": endless,
}


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver("https" if tls else "http")
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = await asyncio.start_server(receiver.answer, "127.0.0.1", 0, ssl=tls)
        receiver.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    yield receiver
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@contextmanager
def refusing() -> Iterator[int]:
    """Yield a port that is reserved, but on which no process listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def silent() -> Iterator[int]:
    """Yield a port on which the system accepts connections, but no process reads or writes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@contextmanager
def full() -> Iterator[int]:
    """Yield a port whose queue of connections is full: the next one is neither accepted nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
