"""`ari-conf worker --check`, beside real workers that work, hang, are suspended or do not run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_conf.queues import queue_names
from ari_conf.store import accounts
from tests.redis import RedisServer
from tests.tasks.fleet import Receiver, Worker, callback, environment, post, until
from tests.tasks.test_supervised_threads import broken

REGISTERED_S = 120
QUICK_S = 15
"""Seconds within which the check ends whatever happens: it waits 2 s for each response of Redis."""


class Check:
    def __init__(self, server: RedisServer) -> None:
        self.server = server

    def __call__(self, *words: str) -> tuple[int, str]:
        """Return the exit code, and what was printed."""
        command = [sys.executable, "-m", "ari_conf", "worker", "--check", *words]
        ran = subprocess.run(
            command,
            env=environment(self.server),
            cwd=self.server.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return ran.returncode, ran.stdout.strip()

    def until(self, code: int, part: str, *words: str) -> None:
        """Wait until the check ends with this code and says this."""
        said = -1, ""

        def is_said() -> bool:
            nonlocal said
            said = self(*words)
            return said[0] == code and part in said[1]

        try:
            until(is_said, 60)
        except AssertionError:
            raise AssertionError(said) from None
        assert "\n" not in said[1], "one sentence"


@pytest.fixture
def check(redis_server: RedisServer) -> Check:
    accounts.add(redis_server.client, 1, "MA1")
    return Check(redis_server)


def registered(server: RedisServer, queue: str = "callbacks") -> bool:
    return bool(server.client.zcard(f"ari_conf:{queue}:workers"))


@pytest.fixture
def worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(redis_server, tmp_path, threads=4)
    until(lambda: all(registered(redis_server, queue) for queue in ("callbacks", "transcriptions")), REGISTERED_S)
    yield worker
    worker.process.send_signal(signal.SIGCONT)
    worker.end()


def test_a_worker_that_works_is_suspended_and_continues(check: Check, worker: Worker) -> None:
    pid = worker.process.pid
    sentence = f"worker {pid} of this machine consumes {', '.join(queue_names.ALL)}"
    assert check() == (0, sentence)
    assert check("--pid", str(pid), "-Q", "callbacks") == (0, f"worker {pid} of this machine consumes callbacks")
    code, said = check("--pid", "1")
    assert code == 1 and said.startswith(
        "ari-conf: no worker of process 1 on this machine consumes the queue callbacks"
    )
    worker.process.send_signal(signal.SIGSTOP)
    check.until(1, "its lease has expired")
    worker.process.send_signal(signal.SIGCONT)
    check.until(0, sentence)
    worker.end()
    check.until(1, "consumes the queue callbacks: look at its log, and restart it")


def test_a_worker_of_one_queue(check: Check, redis_server: RedisServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ari_conf", "worker", "-Q", "recordings"]
    process = subprocess.Popen(command, env=environment(redis_server), cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        until(lambda: registered(redis_server, "recordings"), REGISTERED_S)
        assert check("-Q", "recordings") == (0, f"worker {process.pid} of this machine consumes recordings")
        code, said = check()
        assert code == 1 and "consumes the queue callbacks" in said
    finally:
        process.terminate()
        process.wait(30)


def test_without_a_worker_or_redis_it_fails_soon(check: Check, redis_server: RedisServer) -> None:
    assert check()[0] == 1
    redis_server.stop()
    began = time.monotonic()
    code, said = check()
    assert code == 1 and said.startswith("ari-conf: the worker can't work: ") and "\n" not in said
    assert time.monotonic() - began < QUICK_S


def test_a_wrong_queue_is_wrong_usage(check: Check) -> None:
    code, said = check("-Q", "callback")
    assert code == 2
    assert "no queue is named 'callback': expected some of callbacks, recordings, transcriptions" in said


ATTEMPTS = """
from tasks.callbacks import CallbackTask
CallbackTask.attempt_limit_s = 0.5
import threading
CallbackTask.attempt = lambda *_: threading.Event().wait()
"""
POOL = """
import tasks.worker
tasks.worker.WAKEUP_LIMIT_S = 0.5
from celery.concurrency.thread import TaskPool
TaskPool.on_apply = lambda *_, **__: None
"""
LISTENER = """
import threading, tasks.worker
tasks.worker.LISTENER_LIMIT_S = 0.5
from ari_conf.queues.partitioned_queue import PartitionedQueue
PartitionedQueue.take_wakeup = lambda *_: threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("patch", "fault"),
    [
        (ATTEMPTS, "a thread has been attempting one entry for "),
        (POOL, "no thread has been free for "),
        (LISTENER, "it has not looked for wake-ups for "),
    ],
    ids=["an attempt", "the pool", "the listener"],
)
def test_a_worker_that_hangs(check: Check, redis_server: RedisServer, tmp_path: Path, patch: str, fault: str) -> None:
    with broken(redis_server, patch, tmp_path) as process, Receiver() as receiver:
        until(lambda: registered(redis_server), REGISTERED_S)
        post(redis_server, [callback(receiver.url, 1)])
        check.until(1, f"the worker {process.pid} does not work off the queue callbacks: {fault}", "-Q", "callbacks")
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
