"""Health of workers as Redis has it, and what `ari-conf worker --check` says about it."""

from __future__ import annotations

import importlib
import re
import socket
from collections.abc import Iterator

import pytest

from ari_conf.cli import worker_check
from ari_conf.errors import WorkerUnhealthy
from ari_conf.queues import outbox, partitioned_queue, queue_names, worker_health
from ari_conf.queues.partitioned_queue import PartitionedQueue
from ari_conf.queues.worker_health import NO_HEARTBEAT, NO_LEASE, WorkerHealth
from ari_conf.settings import settings
from tests.redis import RedisServer

WORKER = "host-a-17-c0ffee00"


@pytest.fixture
def queue(redis_server: RedisServer) -> PartitionedQueue:
    return PartitionedQueue(redis_server.client)


def beat(queue: PartitionedQueue, worker: str = WORKER, threads: int = 8, fault: str = "") -> None:
    queue.heartbeat(worker, threads, [], 0, reclaim=False, fault=fault)


def health(queue: PartitionedQueue) -> list[WorkerHealth]:
    return worker_health.read(queue.redis, queue.name)


def test_a_heartbeat_says_how_a_worker_is(queue: PartitionedQueue) -> None:
    beat(queue)
    assert health(queue) == [WorkerHealth(WORKER, False, "")]
    beat(queue, fault="it sleeps")
    assert health(queue) == [WorkerHealth(WORKER, False, "it sleeps")]
    beat(queue, threads=0)
    assert health(queue) == [WorkerHealth(WORKER, True, "")]
    assert (health(queue)[0].host, health(queue)[0].pid) == ("host-a", 17)


def test_a_worker_that_ends_leaves_nothing(queue: PartitionedQueue) -> None:
    beat(queue)
    queue.deregister(WORKER)
    assert health(queue) == []
    assert queue.redis.keys() == []


def test_a_worker_that_another_found_dead_leaves_nothing(queue: PartitionedQueue) -> None:
    beat(queue)
    (until_ms,) = [until for _, until in queue.redis.zrange(queue.prefix + "workers", 0, -1, withscores=True)]
    queue.redis.zincrby(queue.prefix + "workers", -partitioned_queue.WORKER_LEASE_MS - 1000, WORKER)
    assert health(queue) == [WorkerHealth(WORKER, False, NO_LEASE)]
    queue.redis.zadd(queue.prefix + "workers", {WORKER: until_ms - worker_health.FORGOTTEN_MS - 10_000})
    assert health(queue) == []
    queue.heartbeat("host-b-1-0", 8, [], 0, reclaim=True)
    assert [each.host for each in health(queue)] == ["host-b"]
    assert queue.redis.hkeys(queue.prefix + "health") == [b"host-b-1-0"]


def test_a_worker_without_a_lease_is_not_counted(queue: PartitionedQueue) -> None:
    for worker, threads in (("host-a-1-0", 8), ("host-b-2-0", 4)):
        beat(queue, worker, threads)
    for totals in (outbox.totals(queue.redis), outbox.counted(queue.redis)):
        assert (totals.workers, totals.threads) == (2, 12)
    queue.redis.zadd(queue.prefix + "workers", {"host-a-1-0": 1})
    for totals in (outbox.totals(queue.redis), outbox.counted(queue.redis)):
        assert (totals.workers, totals.threads) == (1, 4)


def test_claims_renew_a_lease_but_are_no_heartbeat(queue: PartitionedQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    beat(queue)
    monkeypatch.setattr(worker_health, "WORKER_LEASE_MS", -1)
    assert queue.claim(WORKER, 8, 1) is None
    assert health(queue) == [WorkerHealth(WORKER, False, NO_HEARTBEAT)]


@pytest.mark.parametrize("damage", ["no json", "{}", None])
def test_what_another_release_wrote_is_no_fault(queue: PartitionedQueue, damage: str | None) -> None:
    beat(queue)
    if damage is None:
        queue.redis.hdel(queue.prefix + "health", WORKER)
    else:
        queue.redis.hset(queue.prefix + "health", WORKER, damage)
    assert health(queue) == [WorkerHealth(WORKER, False, "")]


def test_a_key_of_a_wrong_type_is_made_again(queue: PartitionedQueue) -> None:
    queue.redis.set(queue.prefix + "health", "text")
    beat(queue)
    assert health(queue) == [WorkerHealth(WORKER, False, "")]


def test_ids_that_name_no_process_are_left_out(queue: PartitionedQueue) -> None:
    for strange in ("w1", "a-b-c", "host-1"):
        beat(queue, strange)
    assert health(queue) == []


# The sentence.


def workers(*healths: tuple[str, int, str]) -> list[WorkerHealth]:
    return [WorkerHealth(f"{host}-{pid}-abc", False, fault) for host, pid, fault in healths]


def test_all_workers_of_this_machine_must_work_in_all_queues() -> None:
    found = {
        "callbacks": workers(("me", 5, ""), ("me", 7, ""), ("you", 9, "stuck")),
        "recordings": workers(("me", 7, ""), ("me", 5, "")),
    }
    assert worker_check.judge(found, "me") == "worker 5, 7 of this machine consumes callbacks, recordings"
    found["recordings"] = workers(("me", 7, "a thread is stuck"), ("me", 5, ""))
    sentence = "the worker 7 does not work off the queue recordings: a thread is stuck"
    with pytest.raises(WorkerUnhealthy, match=f"^{sentence}$"):
        worker_check.judge(found, "me")
    assert worker_check.judge(found, "me", 5) == "worker 5 of this machine consumes callbacks, recordings"
    with pytest.raises(WorkerUnhealthy, match=r"^no worker of process 8 on this machine consumes the queue callbacks"):
        worker_check.judge(found, "me", 8)
    with pytest.raises(WorkerUnhealthy, match=r"^no worker of this machine \(other\) consumes the queue callbacks"):
        worker_check.judge(found, "other")


def test_a_worker_that_stops_is_no_fault() -> None:
    stopping = {"callbacks": [WorkerHealth("me-5-abc", True, "")]}
    assert worker_check.judge(stopping, "me") == "worker 5 of this machine is stopping"


# The queues.


@pytest.fixture
def settings_for(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ARI_CONF_REDIS_URL", redis_server.url)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("settings_for")
def test_the_check_knows_every_queue(redis_server: RedisServer) -> None:
    """Without -Q it asks for all; with -Q for those alone, whichever they are."""
    worker, host = f"{socket.gethostname()}-5-abc", socket.gethostname()
    for number, name in enumerate(queue_names.ALL):
        missing = rf"no worker of this machine \({re.escape(host)}\) consumes the queue {name}"
        for arguments in ([], ["-Q", name]):
            with pytest.raises(WorkerUnhealthy, match=missing):
                worker_check.run(arguments)
        beat(PartitionedQueue(redis_server.client, name), worker)
        assert worker_check.run(["-Q", name]) == f"worker 5 of this machine consumes {name}"
        assert (number + 1 == len(queue_names.ALL)) == _passes()
    beat(PartitionedQueue(redis_server.client, queue_names.REMOVALS), worker, fault="a thread is stuck")
    with pytest.raises(WorkerUnhealthy, match="the worker 5 does not work off the queue removals: a thread is stuck"):
        worker_check.run([])


def _passes() -> bool:
    try:
        worker_check.run([])
    except WorkerUnhealthy:
        return False
    return True


def test_the_check_refuses_a_queue_that_no_worker_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        worker_check.run(["-Q", "callbacks,removal"])
    assert ended.value.code == 2
    names = ", ".join(queue_names.ALL)
    assert f"no queue is named 'removal': expected some of {names}" in capsys.readouterr().err


def test_the_tasks_of_a_worker_are_those_of_the_list() -> None:
    app = importlib.import_module("tasks.app").app
    app.loader.import_default_modules()
    entry_task = importlib.import_module("tasks.entry_task").EntryTask
    tasks = {task.name: task.queue_name for task in app.tasks.values() if isinstance(task, entry_task)}
    assert tasks == queue_names.QUEUE_BY_TASK
    assert set(app.conf.task_queues) == set(queue_names.ALL)
