"""How fast callbacks are delivered, how fair, and what they weigh: `python -m tests.tasks.bench`.

The yardstick is a bare loop of requests.Session with as many threads.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import requests

from ari_conf import accounts
from tests.redis import RedisServer, start
from tests.tasks.fleet import Receiver, Worker, callback, post, until

THREADS = 64
URL_PARAMETERS = 25


def serve(port: Synchronized[int], count: Synchronized[int], answer_s: float) -> None:
    """A receiver that costs next to nothing."""

    class Requests(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport, self.buffer = transport, b""

        def data_received(self, received: bytes) -> None:
            self.buffer += received
            head, found, body = self.buffer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0) if found else 0
            if found and len(body) >= length:
                self.buffer = body[length:]
                count.value += 1
                asyncio.get_running_loop().call_later(answer_s, self.answer)

        def answer(self) -> None:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")  # type: ignore[attr-defined]

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Requests, "127.0.0.1", 0, backlog=500)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


class FastReceiver:
    def __init__(self, answer_s: float) -> None:
        port, self.count = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0, lock=False)
        self.process = multiprocessing.Process(target=serve, args=(port, self.count, answer_s), daemon=True)
        self.process.start()
        until(lambda: bool(port.value))
        self.url = f"http://127.0.0.1:{port.value}"


def bare(url: str, number: int) -> float:
    """Callbacks a second of THREADS threads, each with a Session."""
    params = {f"Parameter{n}": f"value{n}" for n in range(URL_PARAMETERS)}

    def loop() -> None:
        with requests.Session() as session:
            for _ in range(number // THREADS):
                session.post(url, data=params, timeout=5)

    threads = [threading.Thread(target=loop) for _ in range(THREADS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return number / (time.monotonic() - began)


def fill(redis: RedisServer, url: str, number: int, lanes: int) -> None:
    filling = {f"Parameter{n}": f"value{n}" for n in range(URL_PARAMETERS)}
    for first in range(0, number, 1000):
        some = []
        for n in range(first, first + 1000):
            one = callback(url, n, lane=f"conference-{n % lanes}")
            some.append(type(one)(one.lane, one.auth_id, one.url, one.method, tuple(filling.items())))
        post(redis, some)


def delivered(redis: RedisServer) -> int:
    return int(redis.client.hget("ari_conf:callbacks:counts", "done") or 0)


def rate(redis: RedisServer, folder: Path, receiver: FastReceiver, number: int, workers: int) -> float:
    """From when all workers run; the workers' start is left out."""
    started = [Worker(redis, folder, THREADS) for _ in range(workers)]
    try:
        until(lambda: redis.client.zcard("ari_conf:callbacks:workers") == workers, 30)
        fill(redis, receiver.url + "/cb", number + 1000, lanes=1000)
        at = delivered(redis)
        began = time.monotonic()
        until(lambda: delivered(redis) >= at + number * 0.9, 300)
        return (delivered(redis) - at) / (time.monotonic() - began)
    finally:
        for worker in started:
            worker.end()
        redis.client.flushall()


def fairness(redis: RedisServer, folder: Path) -> list[float]:
    """Seconds until each of 50 callbacks of one account arrived, while another has 10,000 that take 10 s each."""
    accounts.add(redis.client, 1, "MA2")
    worker, slow = Worker(redis, folder, THREADS), FastReceiver(10.0)
    try:
        until(lambda: redis.client.zcard("ari_conf:callbacks:workers") == 1, 30)
        fill(redis, slow.url + "/cb", 10_000, lanes=10_000)
        until(lambda: slow.count.value >= 20)
        with Receiver() as receiver:
            took = []
            for n in range(50):
                began = time.monotonic()
                post(redis, [callback(receiver.url, n, auth_id="MA2", lane=str(n))])
                receiver.wait(lambda n=n: len(receiver.received) > n)
                took.append(time.monotonic() - began)
            return took
    finally:
        worker.kill()
        slow.process.terminate()
        redis.client.flushall()


def prepared(redis: RedisServer) -> None:
    accounts.add(redis.client, 1, "MA1")


def main(say: Callable[[str], None] = print) -> None:
    with tempfile.TemporaryDirectory() as folder:
        redis = start(Path(folder) / "redis")
        try:
            for answer_s, number in ((0.0, 8_000), (0.1, 8_000)):
                receiver = FastReceiver(answer_s)
                say(f"a receiver that answers in {answer_s * 1000:.0f} ms")
                say(f"  bare, {THREADS} threads: {bare(receiver.url, number):.0f} callbacks/s")
                for workers in (1, 2):
                    prepared(redis)
                    say(f"  workers {workers}: {rate(redis, Path(folder), receiver, number, workers):.0f} callbacks/s")
                receiver.process.terminate()
            prepared(redis)
            took = sorted(fairness(redis, Path(folder)))
            say(f"beside a flood: median {took[25] * 1000:.0f} ms, worst {took[-1] * 1000:.0f} ms")
            before = redis.client.info("memory")["used_memory"]
            fill(redis, "https://example.com/a/callback/url", 100_000, lanes=10_000)
            after = redis.client.info("memory")["used_memory"]
            say(f"100,000 waiting, {URL_PARAMETERS} parameters each: {(after - before) / 1e6:.0f} MB")
        finally:
            redis.kill()


if __name__ == "__main__":
    main()
