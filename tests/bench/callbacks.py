"""Callback delivery benchmark, `make bench-callbacks`: throughput, latency, fairness and memory.

The reference is a bare loop of requests.Session with the same number of threads and the same requests to the same
receiver, in the same run: the ratios count, since other machines have other rates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import requests
from rich.console import Console
from rich.table import Table

from ari_conf.core.effects import PostCallback
from ari_conf.queues import outbox, partitioned_queue
from ari_conf.store import accounts
from tests.bench.events import FILLING
from tests.bench.receiver import FastReceiver, flat_out
from tests.bench.sip_cpu import Used
from tests.redis import RedisServer, start
from tests.tasks.fleet import ROOT, Receiver, Worker, callback, post, until

THREADS = 64
LANES = 500
SLOW_S = 0.1
EVENTS_A_SECOND = 200
CPU_AT = 120
WAITING = 100_000
FLOOD = 10_000
BESIDE = 50
"""The number of callbacks sent beside the flood."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def progress(text: str) -> None:
    console.print(f"{time.strftime('%H:%M:%S')}  {text}", style="dim")


def starved_s() -> float:
    """Return the seconds since the start of the machine in which a runnable task found no free core."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return float("nan")
    return int(some.rpartition("total=")[2]) / 1e6


class Bench:
    def __init__(self, folder: Path, scale: float) -> None:
        self.folder = folder
        self.number = max(THREADS * 20, int(20_000 * scale))
        self.seconds = max(5.0, 30.0 * scale)
        self.redis = start(folder / "redis")
        self.table = Table("", "", "beside the bare loop", box=None, pad_edge=False, header_style="bold")

    def row(self, what: str, found: str, beside: str = "") -> None:
        self.table.add_row(what, found, beside)

    def empty(self) -> RedisServer:
        self.redis.client.flushall()
        for auth_id in ("MA1", "MA2"):
            accounts.add(self.redis.client, 1, auth_id)
        return self.redis

    def workers(self, stack: ExitStack, number: int) -> list[Worker]:
        """Start workers, and return once all of them run."""
        started = [Worker(self.redis, self.folder, THREADS) for _ in range(number)]
        for worker in started:
            stack.callback(worker.end)
        until(lambda: self.redis.client.zcard("ari_conf:callbacks:workers") == number, 60)
        return started

    # Rate.

    def rates(self, answer_s: float) -> None:
        """Measure the rates, with the bare loop before and after, to show changes of the machine in the meantime."""
        with FastReceiver(answer_s) as receiver:
            if not answer_s:
                self.row("the receiver, flat out", f"{flat_out(receiver, _request(), self.number, THREADS):.0f}/s")
            about = f", answered in {answer_s * 1000:.0f} ms" if answer_s else ""
            bare = [self.bare(receiver)]
            found = [self.fleet(receiver, number) for number in (1, 2)]
            bare.append(self.bare(receiver))
            yardstick = statistics.mean(bare)
            self.row(f"bare loop, {THREADS} threads{about}", " and ".join(f"{rate:.0f}/s" for rate in bare), "1.00")
            for number, (rate, busy) in enumerate(found, 1):
                what = f"{number} worker{'s' if number > 1 else ''} of {THREADS} threads{about}"
                self.row(what, f"{rate:.0f}/s (the receiver's CPU: {busy:.0%})", f"{rate / yardstick:.2f}")

    def bare(self, receiver: FastReceiver) -> float:
        progress(f"a bare loop of {THREADS} threads …")

        def loop() -> None:
            with requests.Session() as session:
                for _ in range(self.number // THREADS):
                    session.post(receiver.url + "/cb", data=dict(FILLING), timeout=5)

        threads = [threading.Thread(target=loop) for _ in range(THREADS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.number / (time.monotonic() - began)

    def fleet(self, receiver: FastReceiver, number: int) -> tuple[float, float]:
        """Return (callbacks per second, the receiver's share of a core), from the outbox to the last arrival."""
        progress(f"{number} worker{'s' if number > 1 else ''} …")
        redis = self.empty()
        callbacks = [_callback(receiver.url, n, LANES) for n in range(self.number)]
        entries = [outbox.enqueue_item(one, time.time_ns() // 1_000_000) for one in callbacks]
        with ExitStack() as stack:
            self.workers(stack, number)
            at, cpu_s, began = receiver.count, receiver.cpu_s, time.monotonic()
            for first in range(0, self.number, 2000):
                partitioned_queue.enqueue(redis.client, entries[first : first + 2000])
            until(lambda: receiver.count >= at + self.number, 300)
            took_s = time.monotonic() - began
            return self.number / took_s, (receiver.cpu_s - cpu_s) / took_s

    # Latency.

    def latency(self) -> None:
        progress(f"{EVENTS_A_SECOND} events/s for {self.seconds:.0f} s …")
        redis, rate = self.empty(), EVENTS_A_SECOND
        with FastReceiver() as receiver, ExitStack() as stack:
            self.workers(stack, 1)
            starved, began = starved_s(), time.monotonic()
            self._events(redis, receiver, rate, self.seconds)
            starved = (starved_s() - starved) / (time.monotonic() - began)
            took = sorted(receiver.took_ms)
            assert len(took) == int(rate * self.seconds), f"{len(took)} arrived"
        found = {"median": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "worst": took[-1]}
        told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in found.items())
        self.row(f"event to arrival, {rate} events/s, 1 worker", told, f"(no core free: {starved:.0%} of the time)")

    def _events(self, redis: RedisServer, receiver: FastReceiver, rate: int, seconds: float) -> None:
        command = [sys.executable, "-m", "tests.bench.events", receiver.url + "/cb", str(rate), str(seconds)]
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"ARI_CONF_REDIS_URL": redis.url})

    # CPU.

    def cpu(self) -> None:
        """Measure CPU per callback as at 60 calls/s: each callback wakes the worker separately, which costs more than
        in a flood."""
        progress(f"{CPU_AT} events/s for {self.seconds:.0f} s …")
        redis = self.empty()
        with FastReceiver() as receiver, ExitStack() as stack:
            (worker,) = self.workers(stack, 1)
            used = Used({"worker": worker.process.pid, "Redis": redis.client.info()["process_id"]})
            self._events(redis, receiver, CPU_AT, self.seconds)
            per = {name: f"{name} {s * 1000 / receiver.count:.2f} ms" for name, s in used.so_far().items()}
        self.row(f"CPU per callback, {CPU_AT} events/s, 1 worker", ", ".join(per.values()), "(Redis' with the steps')")

    # Fairness, memory.

    def fairness(self) -> None:
        """Measure one account's callbacks, one at a time, while another account's take 10 s each."""
        progress("a flood …")
        redis = self.empty()
        with FastReceiver(10.0) as slow, Receiver() as receiver, ExitStack() as stack:
            (worker,) = self.workers(stack, 1)
            for first in range(0, FLOOD, 1000):
                post(redis, [callback(slow.url, n, lane=str(n)) for n in range(first, first + 1000)])
            until(lambda: slow.count >= 20)
            took = []
            for n in range(BESIDE):
                began = time.monotonic()
                post(redis, [callback(receiver.url, n, auth_id="MA2", lane=str(n))])
                receiver.wait(lambda n=n: len(receiver.received) > n)
                took.append((time.monotonic() - began) * 1000)
            worker.kill()
        told = f"median {statistics.median(took):.0f} ms, worst {max(took):.0f} ms"
        self.row(f"beside another account's {FLOOD:,} that take 10 s each", told)

    def memory(self) -> None:
        used = self.bytes_of_waiting(WAITING)
        self.row(
            f"{WAITING:,} waiting, {len(FILLING)} parameters each, in 10,000 lanes", f"{used / 1e6:.0f} MB of Redis"
        )

    def bytes_of_waiting(self, number: int) -> int:
        """Return the bytes of Redis that this number of queued callbacks takes."""
        progress(f"{number:,} that wait …")
        redis = self.empty()
        before = redis.client.info("memory")["used_memory"]
        for first in range(0, number, 2000):
            post(redis, [_callback("https://example.com/a/url", n, 10_000) for n in range(first, first + 2000)])
        return int(redis.client.info("memory")["used_memory"] - before)


def _callback(url: str, number: int, lanes_: int) -> PostCallback:
    return PostCallback(f"conference-{number % lanes_}", "MA1", url + "/cb", "POST", FILLING)


def _request() -> bytes:
    """Return the request as a worker sends it."""
    body = urlencode(FILLING).encode()
    signature = "X-Plivo-Signature-V3: " + "x" * 44 + "\r\n"
    return f"POST /cb HTTP/1.1\r\nHost: a\r\n{signature * 5}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: a tenth of the callbacks")
    parser.add_argument("parts", nargs="*", default=["rates", "slow", "latency", "cpu", "fairness", "memory"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.scale)
        parts = {
            "rates": lambda: bench.rates(0.0),
            "slow": lambda: bench.rates(SLOW_S),
            "latency": bench.latency,
            "cpu": bench.cpu,
            "fairness": bench.fairness,
            "memory": bench.memory,
        }
        progress(f"{bench.number:,} callbacks, {LANES} lanes; load of the machine {os.getloadavg()[0]:.1f}")
        try:
            for part in given.parts:
                parts[part]()
        finally:
            bench.redis.kill()
    console.print()
    console.print(bench.table)


if __name__ == "__main__":
    main()
