"""Comparison of libraries by measurement: `python -m tests.bench.choices`. Libraries that are not installed are left
out.

The libraries take turns, so that other load affects all alike. The best turn counts, since every disturbance makes a
turn slower.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.table import Table

from ari_conf.store.state_codec import decode, encode
from tests.bench.fake_ari import _bridge, _channel
from tests.bench.plays import SIZE, TALKING, Recorder

TURNS, TIMES = 7, 300
MESSAGES = 20_000


def an_event() -> bytes:
    channels = [f"1700000000.{n}" for n in range(SIZE)]
    head = b'{"type":"ChannelEnteredBridge","timestamp":"2026-11-22T12:00:00.000+0000","application":"ari_conf",'
    return head + b'"bridge":%s,"channel":%s}' % (_bridge("b", channels), _channel(channels[0], "100", True))


def of_a_conference() -> dict[str, dict[str, Callable[[], Any]]]:
    recorder = Recorder(TALKING)
    for _ in range(SIZE):
        recorder.arrives("0")
        recorder.go_on()
    (conference,) = recorder.engine.conferences.values()
    text, kind = encode(conference), type(conference)
    return {
        f"writing a conference of {SIZE}": {
            "msgspec, from the structs": lambda: encode(conference),
            "plain values, then msgspec": lambda: msgspec.json.encode(msgspec.to_builtins(conference, str_keys=True)),
            "plain values, then json": lambda: json.dumps(msgspec.to_builtins(conference, str_keys=True)),
        },
        f"reading a conference of {SIZE}": {
            "msgspec, to the structs": lambda: decode(text, {}),
            "json, then msgspec": lambda: msgspec.convert(json.loads(text), kind, str_keys=True),
        },
    }


def of_an_event() -> dict[str, dict[str, Callable[[], Any]]]:
    text = an_event()
    ways: dict[str, Callable[[], Any]] = {
        "msgspec": lambda: msgspec.json.decode(text),
        "json": lambda: json.loads(text),
    }
    if importlib.util.find_spec("orjson"):
        loads = importlib.import_module("orjson").loads
        ways["orjson"] = lambda: loads(text)
    return {f"reading an ARI event of {len(text)} bytes": ways}


def measured(ways: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the CPU time of one call in us."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(TURNS):
        for name, work in ways.items():
            began = time.process_time()
            for _ in range(TIMES):
                work()
            best[name] = min(best[name], (time.process_time() - began) / TIMES * 1e6)
    return best


# The WebSocket and the event loop: one process sends, another reads and decodes; the result is the reader's CPU time.

EVENTS = {"many at once": (MESSAGES, 0.0), "one by one": (1000, 1 / 300)}
"""The number of messages, and the seconds between two."""


async def send(port: int) -> None:
    from aiohttp import web

    async def give(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        text = an_event().decode()
        number, pause = EVENTS[request.query["how"]]
        for _ in range(number):
            await socket.send_str(text)
            if pause:
                await asyncio.sleep(pause)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", give)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def read_with_aiohttp(url: str, take: Callable[[Any], None]) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, max_msg_size=0, decode_text=False) as socket,
    ):
        async for message in socket:
            take(message.data)


async def read_with_websockets(url: str, take: Callable[[Any], None]) -> None:
    connect = importlib.import_module("websockets.asyncio.client").connect
    async with connect(url, max_size=None, compression=None) as socket:
        async for message in socket:
            take(message)


async def read_with_picows(url: str, take: Callable[[Any], None]) -> None:
    import picows

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type is picows.WSMsgType.CLOSE:
                transport.disconnect()
            else:
                take(frame.get_payload_as_memoryview())

    transport, _ = await picows.ws_connect(Listener, url, use_aiofastnet=False)
    await transport.wait_disconnected()


LIBRARIES = {"aiohttp": read_with_aiohttp, "websockets": read_with_websockets, "picows": read_with_picows}


def read(way: str, how: str, port: int) -> None:
    """Receive the messages, in a process of its own, and print the CPU time of one in us."""
    library, loop = way.split(" on ")
    if loop == "uvloop":
        importlib.import_module("uvloop").install()
    spent: list[float] = []

    def take(message: Any) -> None:
        msgspec.json.decode(message)
        spent.append(time.process_time())

    asyncio.run(LIBRARIES[library](f"ws://127.0.0.1:{port}/?how={quote(how)}", take))
    assert len(spent) == EVENTS[how][0]
    print((spent[-1] - spent[0]) / (len(spent) - 1) * 1e6)


def of_sockets(turns: int) -> dict[str, dict[str, float]]:
    from ari_conf.local.processes import free_port

    libraries = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    loops = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
    ways = [f"{library} on {loop}" for library in libraries for loop in loops]
    port, best = free_port(), {how: dict.fromkeys(ways, float("inf")) for how in EVENTS}
    me = [sys.executable, "-m", "tests.bench.choices"]
    sending = subprocess.Popen([*me, "send", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert sending.stdout and sending.stdout.readline() == b"ready\n"
        for _ in range(turns):
            for how, found in best.items():
                for way in ways:
                    told = subprocess.run(
                        [*me, "read", way, how, str(port)], capture_output=True, text=True, check=True
                    )
                    found[way] = min(found[way], float(told.stdout))
    finally:
        sending.kill()
        sending.wait()
    return {f"receiving and reading such an event, {how}": found for how, found in best.items()}


def main() -> None:
    table = Table("what for", "how", "us of CPU", "beside the best", box=None, pad_edge=False)
    found = {what: measured(ways) for what, ways in (of_an_event() | of_a_conference()).items()}
    found |= of_sockets(3)
    for what, best in found.items():
        for name, spent in sorted(best.items(), key=lambda pair: pair[1]):
            table.add_row(what, name, f"{spent:.1f}", f"{spent / min(best.values()):.2f}")
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", port]:
            asyncio.run(send(int(port)))
        case ["read", way, how, port]:
            read(way, how, int(port))
        case _:
            argparse.ArgumentParser(description=__doc__).parse_args()
            main()
