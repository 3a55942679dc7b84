"""Recordings that have moved from Redis' index into the history's database: listed, found and deleted as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from ari_conf.administration import remains
from ari_conf.errors import HistoryUnavailable
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox, outbox, partitioned_queue
from ari_conf.recordings import index, jobs, library
from ari_conf.recordings.index import StoredRecording
from ari_conf.settings import Settings
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tests.history.drain import drain
from tests.redis import RedisServer

NOW = 1_790_000_000_000
OLD = NOW - 2 * DAY_MS


@pytest.fixture
def redis(redis_server: RedisServer) -> Redis:
    for auth_id in ("A", "B"):
        accounts.add(redis_server.client, 1, auth_id)
    return redis_server.client


@pytest.fixture
def database(tmp_path: Path) -> Iterator[HistoryDatabase]:
    opened = HistoryDatabase(Settings(database_url=f"sqlite:///{tmp_path}/history.db"))  # type: ignore[arg-type]
    opened.migrate()
    yield opened
    opened.close()


def stored(number: int, start_ms: int = OLD, auth_id: str = "A", **more: Any) -> StoredRecording:
    fields: dict[str, Any] = {
        "recording_id": f"r{number}", "auth_id": auth_id, "conference_id": f"c{number % 2}",
        "conference_name": "standup", "call_uuid": f"u{number}", "file_format": "mp3", "key": f"k{number}", "size": 1,
        "duration_ms": 1, "start_ms": start_ms + number, "end_ms": start_ms + number + 1,
        "stored_ms": start_ms + number + 2, "record_url": "", "numbers": ((f"{number % 3}", "100"),),
    }  # fmt: skip
    return StoredRecording(**(fields | more))


def add(redis: Redis, *recordings: StoredRecording) -> None:
    for one in recordings:
        assert jobs.add(redis, one, [], None)


def move(redis: Redis, database: HistoryDatabase, auth_id: str = "A") -> int:
    return library.move_older(redis, database, auth_id, NOW, lambda: True)


def ids(found: tuple[int, list[StoredRecording]]) -> tuple[int, list[str]]:
    return found[0], [one.recording_id for one in found[1]]


def test_what_is_old_and_written_moves_and_nothing_else(redis: Redis, database: HistoryDatabase):
    add(redis, stored(1), stored(2, transcript="failed"), stored(3, NOW), stored(4))
    transcription = jobs.TranscriptionJob(recording_id="r4", auth_id="A", at_ms=1)
    entry = jobs.partition_key("A", "", "r4"), msgspec.json.encode(transcription)
    partitioned_queue.enqueue(redis, [entry], jobs.TRANSCRIPTION_QUEUE)
    assert move(redis, database) == 0, "the database has none of them"
    drain(redis, database)
    assert move(redis, database) == 1
    assert ids(index.search(redis, "A")) == (3, ["r3", "r4", "r2"])
    assert not redis.exists(index.key("r1")) and library.count(redis, "A") == 4
    assert remains.stored(redis, "A").recordings == 4
    assert ids(library.search(redis, database, "A")) == (4, ["r3", "r4", "r2", "r1"])
    found = library.get(redis, database, "r1")
    assert found == stored(1)


def test_a_recording_that_has_changed_is_written_again_before_it_moves(redis: Redis, database: HistoryDatabase):
    add(redis, stored(1))
    drain(redis, database)
    assert jobs.save_transcript_state(redis, stored(1), "done", [])
    redis.delete(history_inbox.key("A"))
    assert move(redis, database) == 0
    drain(redis, database)
    assert move(redis, database) == 1
    found = library.get(redis, database, "r1")
    assert found is not None and found.transcript == "done"


def test_recordings_of_a_release_without_a_history_move_too(redis: Redis, database: HistoryDatabase):
    add(redis, *(stored(n) for n in range(250)))
    redis.delete(history_inbox.key("A"))
    assert move(redis, database) == 0 and redis.llen(history_inbox.key("A")) == 250
    drain(redis, database)
    assert move(redis, database) == 250
    assert index.search(redis, "A")[0] == 0 and library.search(redis, database, "A")[0] == 250
    assert not redis.keys("ari_conf:recording*index:A:*")


@pytest.mark.parametrize(
    "more",
    [
        {}, {"by": {"name": "standup"}}, {"by": {"uuid": "c1"}}, {"by": {"from": "2"}},
        {"by": {"from": "2", "uuid": "c1"}},
        {"since_ms": OLD + 4}, {"until_ms": OLD + 9}, {"by": {"call": "u7"}}, {"by": {"name": "other"}},
    ],
)  # fmt: skip
def test_every_page_is_the_same_wherever_the_recordings_are(
    redis: Redis, database: HistoryDatabase, more: dict[str, Any]
):
    add(redis, *(stored(n, transcript="failed" if n % 4 == 0 else "") for n in range(20)), stored(99, auth_id="B"))
    pages = [(limit, offset) for limit in (0, 1, 3, 7, 30) for offset in range(0, 22, 2)]
    before = [ids(index.search(redis, "A", **more, limit=limit, offset=offset)) for limit, offset in pages]
    for auth_id in ("A", "B"):
        drain(redis, database, auth_id)
        move(redis, database, auth_id)
    assert redis.zcard(index.all_key("A")) == 5
    after = [ids(library.search(redis, database, "A", **more, limit=limit, offset=offset)) for limit, offset in pages]
    assert after == before


def test_a_moved_recording_is_deleted_once_with_its_callback(redis: Redis, database: HistoryDatabase):
    add(redis, stored(1), stored(2))
    drain(redis, database)
    assert move(redis, database) == 2
    one = stored(1, callback=("http://x.example/", "POST"))
    callbacks = jobs.deletion_callback(one, "retention", NOW)
    assert not library.remove(redis, database, stored(1, auth_id="B"), callbacks)
    assert library.remove(redis, database, one, callbacks)
    assert not library.remove(redis, database, one, callbacks)
    assert outbox.totals(redis).waiting == 1
    assert ids(library.search(redis, database, "A")) == (1, ["r2"]) and library.count(redis, "A") == 1
    assert [r.recording_id for r in library.ended_before(database, "A", NOW, 10, [])] == ["r2"]
    assert library.remove(redis, database, stored(2)) and not redis.exists(library.MOVED_KEY)


def test_without_the_database_an_account_that_has_moved_none_is_served(redis: Redis, tmp_path: Path):
    away = HistoryDatabase(Settings(database_url="sqlite:////proc/x/history.db"))  # type: ignore[arg-type]
    add(redis, stored(1))
    assert ids(library.search(redis, away, "A")) == (1, ["r1"])
    assert library.get(redis, away, "r1") == stored(1) and library.remove(redis, away, stored(1))
    redis.hset(library.MOVED_KEY, "A", 1)
    with pytest.raises(HistoryUnavailable):
        library.search(redis, away, "A")
