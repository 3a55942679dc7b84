"""Workers that write the history: nothing is lost and nothing is there twice, whatever is killed or away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import json
from redis import Redis

from ari_conf.core import effects as do
from ari_conf.history import deletion, entries, queries, tables
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox, limits, queue_names
from ari_conf.queues.partitioned_queue import PartitionedQueue
from ari_conf.settings import Settings
from ari_conf.store import accounts, step_batch
from ari_conf.store.state_store import StateStore, connect
from ari_conf.store.step_batch import Step
from tests.history.conftest import KINDS, open_database
from tests.history.drain import drain
from tests.history.samples import T0, call, conference, everything, member, problem, texts
from tests.postgresql import PostgresServer
from tests.redis import RedisServer
from tests.tasks.fleet import Worker, until


@pytest.fixture
def redis(redis_server: RedisServer) -> Redis:
    for auth_id in ("A", "B"):
        accounts.add(redis_server.client, 1, auth_id)
    return redis_server.client


def feed(redis: Redis, first: int, count: int, auth_id: str = "A") -> None:
    for text in texts(*(call(n, auth_id, call_uuid=f"{auth_id}{n}") for n in range(first, first + count))):
        history_inbox.add(redis, auth_id, text)


def calls(database: HistoryDatabase, auth_id: str = "A") -> int:
    try:
        with database.read() as connection:
            return queries.count_all(connection, auth_id)["calls"]
    except Exception:
        return -1


class Workers:
    def __init__(self, server: RedisServer, folder: Path, url: str) -> None:
        self._server, self._folder, self._url = server, folder, url
        self.running: list[Worker] = []

    def start(self) -> Worker:
        more = {"ARI_CONF_DATABASE_URL": self._url, "ARI_CONF_LOG_FORMAT": "json"}
        self.running.append(worker := Worker(self._server, self._folder, **more))
        return worker

    def end(self) -> None:
        for worker in self.running:
            worker.end()

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in self._folder.glob("worker-*.log"))


@pytest.fixture
def workers(redis_server: RedisServer, tmp_path: Path, url: str) -> Iterator[Workers]:
    started = Workers(redis_server, tmp_path, url)
    yield started
    started.end()


def test_two_workers_write_everything_once_although_one_is_killed_again_and_again(
    redis: Redis, workers: Workers, url: str
):
    database = open_database(url)
    workers.start()
    unlucky = workers.start()
    for round_ in range(3):
        for auth_id in ("A", "B"):
            feed(redis, 1_000 * round_, 1_000, auth_id)
        until(lambda: calls(database) > 1_000 * round_, 60)  # noqa: B023 -- done before the next one
        unlucky.kill()
        unlucky = workers.start()
    until(lambda: (calls(database), calls(database, "B")) == (3_000, 3_000), 60)
    until(lambda: not redis.keys("ari_conf:history-inbox:*"))
    assert redis.hgetall(history_inbox.WRITTEN_KEY).keys() == {b"A", b"B"}
    until(lambda: not redis.keys("ari_conf:history:partition:*"))
    database.close()


def test_what_a_worker_wrote_before_it_died_is_written_again_without_effect(redis: Redis, database: HistoryDatabase):
    from ari_conf.history import writer

    for text in texts(*everything()):
        history_inbox.add(redis, "A", text)
    # A worker writes, and is killed before it removes the entries.
    writer.write(database, history_inbox.oldest(redis, "A"))
    assert drain(redis, database) == 7
    with database.read() as connection:
        assert queries.count_all(connection, "A") == {
            "calls": 1, "conferences": 1, "recordings": 1, "callbacks": 1, "problems": 1,
        }  # fmt: skip


def test_a_worker_that_was_suspended_removes_nothing_that_another_has_not_written(redis: Redis):
    feed(redis, 0, 10)
    late = history_inbox.oldest(redis, "A")
    assert history_inbox.remove(redis, "A", late, [])
    feed(redis, 10, 5)
    assert not history_inbox.remove(redis, "A", late, [])
    assert redis.llen(history_inbox.key("A")) == 5
    assert redis.hget(history_inbox.WRITTEN_KEY, "A") == b"10"


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_database_away_it_is_written_when_it_is_back(
    redis: Redis, redis_server: RedisServer, tmp_path: Path, kind: str, request: pytest.FixtureRequest
):
    server: PostgresServer | None = None
    if kind == "postgresql":
        server = PostgresServer()
        server.start()
        request.addfinalizer(server.end)
        url = server.url()
    else:
        url = f"sqlite:///{tmp_path}/away/history.db"
        (tmp_path / "away").write_text("a file where the folder should be")
    workers = Workers(redis_server, tmp_path, url)
    request.addfinalizer(workers.end)
    database = open_database(url)
    if server is not None:
        workers.start()
        feed(redis, 0, 50)
        until(lambda: calls(database) == 50, 60)
        server.stop()
    else:
        workers.start()
    feed(redis, 100, 300)
    until(lambda: history_inbox.backlog(redis).failures >= 2, 60)
    backlog = history_inbox.backlog(redis)
    assert backlog.entries == 300 and backlog.oldest_ms > 0 and backlog.dropped == 0
    assert "history not written" in workers.log and "of the tests" not in workers.log
    if server is not None:
        server.start()
    else:
        (tmp_path / "away").unlink()
    until(lambda: calls(database) == 300 + (50 if server else 0), 90)
    until(lambda: history_inbox.backlog(redis).entries == 0)
    assert history_inbox.backlog(redis).written == 300 + (50 if server else 0)
    database.close()


def test_entries_that_can_not_be_written_are_kept_apart_and_can_be_retried(redis: Redis, database: HistoryDatabase):
    history_inbox.add(redis, "A", b'{"at_ms":1,"item":{"type":"OfTheFuture"}}')
    feed(redis, 0, 3)
    assert drain(redis, database) == 3
    assert redis.llen(history_inbox.UNREADABLE + "A") == 1 and history_inbox.backlog(redis).unreadable == 1
    assert history_inbox.retry(redis, "A") == 1
    assert redis.llen(history_inbox.key("A")) == 1 and not redis.exists(history_inbox.UNREADABLE + "A")


def test_the_backlog_is_bounded_and_the_oldest_are_dropped(redis: Redis, monkeypatch: pytest.MonkeyPatch):
    pipe = redis.pipeline(transaction=False)
    for number in range(limits.MAX_INBOX_ENTRIES):
        pipe.rpush(history_inbox.key("A"), b"%d" % number)
        if number % 10_000 == 9_999:
            pipe.execute()
    feed(redis, 0, 1)
    left, dropped = redis.llen(history_inbox.key("A")), history_inbox.backlog(redis).dropped
    assert left + dropped == limits.MAX_INBOX_ENTRIES + 1 and dropped == 10_001
    assert redis.lindex(history_inbox.key("A"), 0) == b"10001"


def test_large_entries_are_bounded_too(redis: Redis):
    large = texts(problem(text="x" * 100_000))[0]
    for _ in range(1_500):
        history_inbox.add(redis, "A", large)
    assert redis.memory_usage(history_inbox.key("A")) < limits.MAX_INBOX_BYTES + 600 * 100_000
    assert history_inbox.backlog(redis).dropped > 0


def test_a_batch_is_bounded(redis: Redis):
    large = texts(problem(text="x" * 100_000))[0]
    for _ in range(100):
        history_inbox.add(redis, "A", large)
    assert 20 <= len(history_inbox.oldest(redis, "A")) < 100
    feed(redis, 0, 1_000, "B")
    assert len(history_inbox.oldest(redis, "B")) == history_inbox.BATCH


def test_names_that_no_account_has_get_no_history(redis: Redis):
    history_inbox.add(redis, "nobody", texts(call(auth_id="nobody"))[0])
    assert not redis.keys("ari_conf:history*")


def test_an_inbox_that_was_forgotten_is_found_with_its_next_entry(redis: Redis):
    feed(redis, 0, 3)
    redis.delete("ari_conf:history:partition:A:-:-", "ari_conf:history:ready:A:-")
    feed(redis, 3, 1)
    queue = PartitionedQueue(redis, queue_names.HISTORY)
    claimed = queue.claim("w", 1, 1)
    assert claimed is not None and json.decode(claimed.entry)["auth_id"] == "A"


async def test_a_step_and_its_history_are_written_together_and_once(redis: Redis, redis_server: RedisServer):
    client = connect(redis_server.url)
    store = StateStore(client, "pbx", 10)
    batch = store.batch()
    text = texts(call())[0]
    unknown = do.ReportProblem("A", "call1", problem_kind(), None, "odd")
    batch.add(Step(T0, state={"call1": None}, history=[("A", text), ("nobody", text)], problems=[unknown]))
    batch.close()
    for _ in range(3):  # the answer was lost
        await store.send(batch)
    found = [entries.decode(one) for one in redis.lrange(history_inbox.key("A"), 0, -1)]
    assert [type(one.item).__name__ for one in found] == ["ArchiveCall", "ProblemFound"]
    assert found[0].asterisk == "pbx" and not redis.exists(history_inbox.key("nobody"))
    first, rest = halves(store, text)
    assert (first.jobs, rest.jobs) == (0, 0)
    await client.aclose()


def problem_kind() -> do.ProblemKind:
    return do.ProblemKind.ASTERISK_FAILED


def halves(store: StateStore, text: bytes) -> tuple[step_batch.Batch, step_batch.Batch]:
    batch = store.batch()
    batch.add(Step(T0, history=[("A", text), ("A", text)]))
    batch.close()
    found = batch.halves()
    assert found is not None
    return found


def test_deletion_by_age_leaves_what_is_younger_and_what_is_of_others(redis: Redis, database: HistoryDatabase):
    for auth_id, prefix in (("A", "a"), ("B", "b")):
        items = (
            call(1, auth_id, call_uuid=prefix + "1", ended_ms=T0),
            call(2, auth_id, call_uuid=prefix + "2", ended_ms=T0 + 10),
            conference(1, auth_id, conference_id=prefix, ended_ms=T0),
            member(1, prefix, auth_id, left_ms=T0),
        )
        for text in texts(*items):
            history_inbox.add(redis, auth_id, text)
        drain(redis, database, auth_id)
    assert deletion.delete_ended_before(database, "A", T0 + 5, lambda: True) == 2
    with database.read() as connection:
        assert [row.call_uuid for row in queries.list_calls(connection, "A").rows] == ["a2"]
        assert queries.count_all(connection, "B")["conferences"] == 1
    assert deletion.delete_account(database, "B", lambda: True)
    with database.read() as connection:
        assert not any(queries.count_all(connection, "B").values())
        assert queries.list_calls(connection, "A").total == 1


def test_deletion_is_made_in_pieces(redis: Redis, database: HistoryDatabase, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deletion, "PIECE", 10)
    feed(redis, 0, 25)
    drain(redis, database)
    turns = iter([True] * 2 + [False] * 100)
    assert not deletion.delete_account(database, "A", lambda: next(turns))
    left = calls(database)
    assert 0 < left < 25
    assert deletion.delete_account(database, "A", lambda: True) and calls(database) == 0


def test_two_that_write_at_once_wait_for_each_other(redis: Redis, database: HistoryDatabase, url: str):
    from ari_conf.history import writer

    other = open_database(url)
    failures: list[Exception] = []

    def write(opened: HistoryDatabase, first: int) -> None:
        try:
            for n in range(first, first + 40):
                writer.write(opened, texts(call(n), conference(n)))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(one, n * 20)) for n, one in enumerate((database, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and calls(database) == 60
    other.close()


def test_no_table_is_without_an_account_or_an_end():
    for table in tables.metadata.sorted_tables:
        assert "auth_id" in table.c
    assert set(tables.metadata.sorted_tables) - set(tables.ENDS) == {tables.recordings, tables.recording_numbers}
    assert Settings().delivered_callbacks_days == 7
