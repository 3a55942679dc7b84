"""A run of a task in a consumer's thread, on a real Redis: what raises loses no entry and no outcome."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ari_conf.queues import outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition
from tasks.app import app
from tasks.entry_task import EntryDescription, EntryTask
from tasks.event_sender import EventSender
from tasks.worker import QueueConsumer
from tests.redis import RedisServer


class Task(EntryTask):
    name = "test.entry"
    queue_name = outbox.QUEUE

    def max_threads(self) -> int:
        return 1

    def decode(self, entry: bytes) -> bytes:
        return entry

    def describe(self, job: bytes) -> EntryDescription:
        return EntryDescription(job, {}, 0)

    def attempt(self, worker: Any, claimed: ClaimedEntry, job: bytes) -> Disposition:
        return partitioned_queue.ack(claimed)


@pytest.fixture
def task() -> Task:
    task = Task()
    task.bind(app)
    return task


def serve(redis_server: RedisServer, task: Task) -> tuple[int, int, int]:
    """Let a consumer serve one entry; return the numbers of queued entries, claimed and delayed partitions."""
    worker = SimpleNamespace(pool=SimpleNamespace(limit=1), hostname="w@test", consumer=None)
    consumer = QueueConsumer(redis_server.client, worker, task, EventSender(worker))
    partitioned_queue.enqueue(redis_server.client, [("MA1:o:1", b"entry")])
    consumer._serve("")
    client, keys = redis_server.client, partitioned_queue.prefix(outbox.QUEUE)
    claimed = client.hlen(f"{keys}claims:{consumer.id}")
    return client.llen(f"{keys}partition:MA1:o:1"), claimed, client.zcard(f"{keys}delayed")


def test_an_entry_is_attempted_and_settled(redis_server: RedisServer, task: Task):
    assert serve(redis_server, task) == (0, 0, 0)


@pytest.mark.parametrize("method", ["decode", "describe", "_request_for", "attempt"])
def test_an_entry_is_retried_after_what_raises_before_its_outcome(
    redis_server: RedisServer, task: Task, method: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task, method, lambda *_: 1 // 0)
    assert serve(redis_server, task) == (1, 0, 1)


def test_error_after_the_attempt_repeats_nothing(
    redis_server: RedisServer, task: Task, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(task, "_tell_outcome", lambda *_: 1 // 0)
    assert serve(redis_server, task) == (0, 0, 0)


def test_events_that_nobody_takes_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tasks.event_sender.MAX_WAITING_EVENTS", 3)
    sender = EventSender(SimpleNamespace(consumer=None))
    for number in range(5):
        sender.send("task-started", uuid=str(number))
    assert sender._waiting.qsize() == 3
