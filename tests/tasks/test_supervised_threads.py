"""Supervised threads: a worker that can't continue ends and is restarted, instead of idling while it looks alive."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ari_conf.store import accounts
from tests.lateness import SOON_S
from tests.redis import RedisServer
from tests.tasks.fleet import ROOT, Receiver, Worker, callback, post, until

NAMES = ("callbacks", "recordings", "transcriptions")
QUEUES = (*(f"ari_conf:celery:{name}" for name in NAMES), *(f"ari_conf:{name}:wakeups" for name in NAMES))


def message(text: str = '[["token"], {}, {}]', **changed: Any) -> bytes:
    """Return a message as Celery writes it, except for the changed fields."""
    tag, empty = str(uuid.uuid4()), dict.fromkeys(("root_id", "parent_id", "group", "eta", "expires"))
    delivery = {"exchange": "", "routing_key": "callbacks"}
    whole = {
        "body": base64.b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "ari_conf.callback", "id": tag, "retries": 0, **empty},
        "properties": {"delivery_tag": tag, "delivery_info": delivery, "body_encoding": "base64", "priority": 0},
    }
    return json.dumps(whole | {name.replace("_", "-"): value for name, value in changed.items()}).encode()


GARBAGE = [
    b"garbage",
    b"",
    b"\xff\xfe",
    b"1",
    b"null",
    b"[]",
    b'"text"',
    b'{"a": 1}',
    b"[" * 100_000,
    b'{"__type__": "os.system", "__value__": "id"}',
    message(properties={}),
    message(properties=None),
    message(headers=None),
    message(headers={"task": ["a"]}),
    message(headers={}),
    message(body=5),
    message(content_type=5),
    message(content_type="application/x-python-serialize"),
    *map(message, ("{}", "garbage", "[]", "[1, 2, 3]", '[["a", "b", "c"], {}, {}]', '[[], {"none": 1}, {}]')),
    message('[["x"], {"a": {"__type__": "os.system", "__value__": "id"}}, {}]'),
]


@pytest.fixture
def worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    accounts.add(redis_server.client, 1, "MA1")
    worker = Worker(redis_server, tmp_path, threads=4)
    until(lambda: redis_server.client.zcard("ari_conf:callbacks:workers") == 1, 120)
    yield worker
    worker.end()


def test_invalid_message_is_dropped_and_the_worker_continues(redis_server: RedisServer, worker: Worker):
    """The garbage exceeds the number of threads: none of it counts as a task in progress."""
    with Receiver() as receiver:
        for number, garbage in enumerate(GARBAGE * 3):
            redis_server.client.lpush(QUEUES[number % len(QUEUES)], garbage)
            redis_server.client.lpush(QUEUES[(number + 3) % len(QUEUES)], garbage)

        def taken() -> bool:
            assert worker.process.poll() is None, "the worker has ended"
            return not any(redis_server.client.llen(queue) for queue in QUEUES)

        until(taken, 60)
        post(redis_server, [callback(receiver.url, number, lane=str(number)) for number in range(12)])
        receiver.wait(lambda: len(receiver.received) == 12, 60)
        assert worker.process.poll() is None
    told = Path(worker.log.name).read_text()
    assert told.count("invalid celery message discarded") >= len(GARBAGE)
    assert "Unrecoverable" not in told


LEASE = """
from ari_conf.queues.partitioned_queue import PartitionedQueue
def heartbeat(*_, **__): raise KeyError("of another version")
PartitionedQueue.heartbeat = heartbeat
"""
WAKEUPS = """
from ari_conf.queues.partitioned_queue import PartitionedQueue
def take_wakeup(*_): raise SystemExit
PartitionedQueue.take_wakeup = take_wakeup
"""
START = """
from celery.__main__ import main
sys.argv = ["celery", "-A", "tasks", "worker"]
main()
"""


@contextmanager
def broken(redis_server: RedisServer, patch: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a worker whose code is patched before it starts."""
    given = {"ARI_CONF_REDIS_URL": redis_server.url, "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"}
    given |= {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys, tasks\n{patch}{START}"],
        env=os.environ | given,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("patch", [LEASE, WAKEUPS], ids=["that renews the lease", "that listens for wake-ups"])
def test_the_unexpected_end_of_a_thread_ends_the_worker(redis_server: RedisServer, tmp_path: Path, patch: str):
    with broken(redis_server, patch, tmp_path) as process:
        said, _ = process.communicate(timeout=3 * SOON_S)
    assert process.returncode == 1
    assert "thread raised" in said and "worker process ended" in said


STUCK = """
import redis
from ari_conf.settings import settings
from tasks import transport, worker
worker.EXIT_DEADLINE_S = 1.0
usual, known = transport.Channel._brpop_read, redis.Redis.from_url(settings().redis_url.get_secret_value())
def read(channel, **options):
    if known.exists("break"):
        raise AttributeError("a defect")
    return usual(channel, **options)
transport.Channel._brpop_read = read
"""


def test_one_that_can_not_even_stop_ends_all_the_same(redis_server: RedisServer, tmp_path: Path):
    """Celery's loop breaks while a thread is busy for long, and Celery waits for that thread."""
    accounts.add(redis_server.client, 1, "MA1")
    released = threading.Event()
    hanging = Receiver(lambda _: 200 if released.wait(300) else 500)
    with hanging, broken(redis_server, STUCK, tmp_path) as process:
        try:
            post(redis_server, [callback(hanging.url + "#rt=60000&tt=60000", 1)])
            hanging.wait(lambda: len(hanging.received) == 1, 120)
            redis_server.client.set("break", 1)
            redis_server.client.lpush("ari_conf:celery:recordings", message())
            said, _ = process.communicate(timeout=50)
        finally:
            released.set()
    assert process.returncode == 1
    assert "could not stop" in said


def test_one_that_is_told_to_end_is_no_failure(redis_server: RedisServer, worker: Worker):
    worker.end()
    assert worker.process.returncode == 0
    assert "worker process ended" not in Path(worker.log.name).read_text()
