"""A fleet for tests: a receiver of callbacks, and the processes of `ari-conf worker`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ari_conf.core.effects import PostCallback
from ari_conf.queues import outbox, partitioned_queue
from tests.lateness import Patience
from tests.redis import RedisServer

ROOT = Path(__file__).parents[2]


@dataclass
class Received:
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    at: float


@dataclass
class Receiver:
    """A receiver that responds with the status from `answer(received)`, by default 200; 0: it closes the connection."""

    answer: Callable[[Received], int] = lambda _: 200
    retry_after: str | None = None
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> Receiver:
        receiver = self
        self.changed = threading.Condition()

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed during the request
                    self.close_connection = True
                    return
                got = Received(self.path, dict(parse_qsl(body.decode())), dict(self.headers), time.monotonic())
                with receiver.changed:
                    receiver.received.append(got)
                    receiver.changed.notify_all()
                status = receiver.answer(got)
                if not status:
                    self.close_connection = True
                    return
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    if receiver.retry_after:
                        self.send_header("Retry-After", receiver.retry_after)
                    self.end_headers()
                except OSError:
                    pass  # the sender was killed

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Requests)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def numbers(self, path: str) -> list[int]:
        return [int(got.params["N"]) for got in list(self.received) if got.path == path]

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        patience = Patience(seconds)
        with self.changed:
            while not self.changed.wait_for(condition, max(0.1, patience.left_s)):
                assert not patience.over, f"not within {seconds} s: {len(self.received)} received"


class Worker:
    """A worker process that delivers up to `threads` callbacks concurrently."""

    def __init__(
        self, redis_server: RedisServer, folder: Path, threads: int = 8, prefix: list[str] | None = None, **more: str
    ) -> None:
        self.name = f"{time.monotonic_ns()}@test"
        environment = os.environ | {
            "ARI_CONF_REDIS_URL": redis_server.url,
            "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ARI_CONF_CALLBACK_THREADS": str(threads),
            "ARI_CONF_DATABASE_URL": f"sqlite:///{folder}/history.db",
            "PYTHONPATH": str(ROOT),
            **more,
        }
        command = [
            *(prefix or []),
            sys.executable,
            "-m",
            "tasks",
            "-n",
            self.name,
        ]
        self.log = (folder / f"worker-{time.monotonic_ns()}.log").open("wb")
        self.process = subprocess.Popen(command, env=environment, cwd=folder, stdout=self.log, stderr=self.log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()


def environment(server: RedisServer) -> dict[str, str]:
    return os.environ | {"ARI_CONF_REDIS_URL": server.url, "PYTHONPATH": str(ROOT), "FLOWER_UNAUTHENTICATED_API": "1"}


def celery(server: RedisServer, *words: str) -> str:
    """Run `celery -A tasks …` and return what it prints."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", *words]
    ran = subprocess.run(
        command, env=environment(server), cwd=server.folder, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran
    return ran.stdout


def callback(url: str, number: int, *, lane: str = "conference", auth_id: str = "MA1") -> PostCallback:
    return PostCallback(lane, auth_id, url, "POST", (("N", str(number)), ("Event", "ConferenceEnter")))


def post(redis_server: RedisServer, callbacks: Iterable[PostCallback]) -> None:
    now_ms = time.time_ns() // 1_000_000
    partitioned_queue.enqueue(redis_server.client, [outbox.enqueue_item(callback, now_ms) for callback in callbacks])


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition that gives no signal, by asking Redis again and again."""
    patience = Patience(seconds)
    while not condition():
        assert not patience.over, f"not within {seconds} s"
        time.sleep(0.02)
