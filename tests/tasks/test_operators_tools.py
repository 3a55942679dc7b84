"""Operators' tools on real workers: `celery inspect`, `celery events` and Flower show callbacks, recordings and
transcriptions as tasks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ari_conf.local.processes import free_port
from ari_conf.queues import dead_letters, outbox, partitioned_queue, queue_names
from ari_conf.recordings import jobs
from ari_conf.recordings.jobs import StoreJob, TranscriptionJob
from ari_conf.store import accounts
from tests.redis import RedisServer
from tests.tasks.fleet import Received, Receiver, Worker, callback, celery, environment, post, until

NOWHERE = "http://127.0.0.1:1/ari"


@pytest.fixture
def worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[Worker]:
    accounts.add(redis_server.client, 1, "MA1")
    worker = Worker(redis_server, tmp_path, ARI_CONF_S3_ENDPOINT="http://127.0.0.1:1")
    until(lambda: "ready." in Path(worker.log.name).read_text(), 60)
    yield worker
    worker.end()


def inspect(server: RedisServer, worker: Worker, what: str) -> Any:
    """Return the worker's answer."""
    (answer,) = json.loads(celery(server, "inspect", what, "--json", "-t", "20", "-d", worker.name)).values()
    return answer


@contextmanager
def events(server: RedisServer, worker: Worker) -> Iterator[Path]:
    """Run `celery events --dump` once the worker sends events; yield the file to which it writes them."""
    celery(server, "control", "enable_events", "-t", "20", "-d", worker.name)
    written = server.folder / "events"
    command = [sys.executable, "-u", "-m", "celery", "-A", "tasks", "events", "--dump"]
    with written.open("wb") as file:
        process = subprocess.Popen(command, env=environment(server), cwd=server.folder, stdout=file, stderr=file)
        try:
            until(lambda: " heartbeat: " in written.read_text(), 60)
            yield written
        finally:
            process.kill()
            process.wait()


def seen(written: Path, task: str) -> list[tuple[str, str]]:
    """Return (event, task id) of that task's events, in their order."""
    return re.findall(rf"\] task (\w+):? {re.escape(task)}\(([^)]+)\)", written.read_text())


def test_inspect_shows_the_work_of_a_worker(redis_server: RedisServer, worker: Worker):
    released = threading.Event()
    with Receiver(lambda _: 200 if released.wait(60) else 500) as receiver:
        items = [callback(f"{receiver.url}/{n}?secret=1#rt=60000&tt=60000", n) for n in range(3)]
        post(redis_server, items)
        receiver.wait(lambda: len(receiver.received) == 3, 60)
        active = inspect(redis_server, worker, "active")
        released.set()
        until(lambda: outbox.totals(redis_server.client).waiting == 0)
    assert {task["name"] for task in active} == {"ari_conf.callback"} and len({task["id"] for task in active}) == 3
    assert sorted(task["args"] for task in active) == sorted([outbox.partition_key(item)] for item in items)
    assert sorted(task["kwargs"]["url"] for task in active) == [f"{receiver.url}/{n}" for n in range(3)]
    assert {task["kwargs"]["account"] for task in active} == {"MA1"}
    until(lambda: inspect(redis_server, worker, "active") == [])
    stats = inspect(redis_server, worker, "stats")
    assert stats["total"]["ari_conf.callback"] == 3 and stats["pool"]["max-concurrency"] == 14
    assert inspect(redis_server, worker, "registered") == [
        "ari_conf.callback",
        "ari_conf.history",
        "ari_conf.recording",
        "ari_conf.removal",
        "ari_conf.transcription",
    ]


def test_attempts_retries_and_failures_are_events(redis_server: RedisServer, worker: Worker):
    """Each callback is one task with one id: the second is retried once, the third never succeeds."""

    def answer(got: Received) -> int:
        times = Counter(one.params["N"] for one in list(receiver.received))
        return {"1": 503 if times["1"] == 1 else 200, "2": 404}.get(got.params["N"], 200)

    with Receiver(answer) as receiver, events(redis_server, worker) as written:
        urls = [f"{receiver.url}/{n}#rc=1&rp=5xx" for n in range(3)]
        post(redis_server, [callback(url, n) for n, url in enumerate(urls)])
        until(lambda: outbox.totals(redis_server.client).waiting == 0)
        until(lambda: Counter(event for event, _ in seen(written, "ari_conf.callback"))["succeeded"] == 2)
        text = written.read_text()
    histories: dict[str, list[str]] = {}
    for event, id in seen(written, "ari_conf.callback"):
        histories.setdefault(id, []).append(event)
    begun = ["received", "started"]
    assert sorted(histories.values()) == sorted(
        [[*begun, "succeeded"], [*begun, "retried", *begun, "succeeded"], [*begun, "failed"]]
    ), text
    assert "status 503" in text and "status 404" in text and "'account': 'MA1'" in text
    assert len(dead_letters.list_newest(redis_server.client, "MA1")) == 1


def test_recordings_and_transcriptions_are_events(redis_server: RedisServer, worker: Worker):
    store = StoreJob(
        recording_id="r-1",
        auth_id="MA1",
        conference_id="c-1",
        conference_name="standup",
        call_uuid="u-1",
        file_format="mp3",
        start_ms=1,
        end_ms=2,
        ari_url=NOWHERE,
        at_ms=2,
        record_url="",
    )
    transcribe = TranscriptionJob(recording_id="r-2", auth_id="MA1", at_ms=2)
    with events(redis_server, worker) as written:
        for queue, job in ((jobs.STORE_QUEUE, store), (jobs.TRANSCRIPTION_QUEUE, transcribe)):
            entry = (jobs.partition_key("MA1", "", job.recording_id), msgspec.json.encode(job))
            partitioned_queue.enqueue(redis_server.client, [entry], queue)
        until(lambda: len(seen(written, "ari_conf.recording")) >= 3 and seen(written, "ari_conf.transcription"), 60)
        text = written.read_text()
    assert [event for event, _ in seen(written, "ari_conf.recording")][:3] == ["received", "started", "retried"], text
    assert "'account': 'MA1', 'recording': 'r-1', 'conference': 'c-1'" in text
    assert "'account': 'MA1', 'recording': 'r-2'" in text
    assert inspect(redis_server, worker, "stats")["total"]["ari_conf.recording"] >= 1


def test_flower_shows_workers_and_callbacks(redis_server: RedisServer, worker: Worker):
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "tasks", "flower", "--address=127.0.0.1", f"--port={port}"]
    with (redis_server.folder / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            command, env=environment(redis_server), cwd=redis_server.folder, stdout=log, stderr=log
        )

    def asked(path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=20) as answer:
                return json.load(answer)
        except OSError:
            assert flower.poll() is None, (redis_server.folder / "flower.log").read_text()
            return {}

    numbers = iter(range(1000))

    def shown() -> dict[str, str]:
        """Return the state of each task by its account, after further callbacks: events count once Flower listens."""
        post(redis_server, [callback(receiver.url, next(numbers)), callback(f"{receiver.url}/no#rc=0", next(numbers))])
        time.sleep(0.5)
        return {task["state"]: task["kwargs"] for task in asked("tasks?taskname=ari_conf.callback").values()}

    with Receiver(lambda got: 404 if got.path == "/no" else 200) as receiver:
        try:
            until(lambda: {"SUCCESS", "FAILURE"} <= shown().keys(), 60)
            assert "'account': 'MA1'" in shown()["FAILURE"] and f"{receiver.url}/no" in shown()["FAILURE"]
            (about,) = asked("workers?refresh=1").values()
            assert about["stats"]["total"]["ari_conf.callback"] > 0 and len(about["active_queues"]) == len(
                queue_names.ALL
            )
            assert "ari_conf.recording" in about["registered"]
        finally:
            flower.terminate()
            flower.wait(20)


def test_a_message_of_celery_starts_nothing(redis_server: RedisServer, worker: Worker):
    """Entries are only in their partitions; the worker rejects the message, and continues."""
    celery(redis_server, "call", "ari_conf.callback")
    until(lambda: "a message of Celery has none" in Path(worker.log.name).read_text(), 60)
    with Receiver() as receiver:
        post(redis_server, [callback(receiver.url, 1)])
        receiver.wait(lambda: len(receiver.received) == 1, 60)
    assert worker.process.poll() is None
