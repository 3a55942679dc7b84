"""Tests of retention: expired recordings are deleted everywhere, once, and nothing else is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from ari_conf import settings as settings_module
from ari_conf.errors import RecordingFailed
from ari_conf.history.database import HistoryDatabase
from ari_conf.recordings import index, jobs, library
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.sidecar import object_key
from ari_conf.settings import from_environment
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tasks import retention
from tasks.retention import LOCK_KEY, Retention
from tasks.retention_runner import LOCK_S
from tests.redis import RedisServer
from tests.strict_s3 import LEAST, StrictS3, strict_s3
from tests.tasks.fleet import Receiver, Worker, until
from tests.tasks.proxy import Proxy
from tests.tasks.store_stage import S3Server

CALLBACK = "/record"


class Shelf:
    """Recordings in S3 and in the index, and accounts that keep them for different times."""

    def __init__(self, redis_server: RedisServer, variables: dict[str, str], url: str = "http://127.0.0.1:9") -> None:
        self.server, self.redis, self.url = redis_server, redis_server.client, url
        self.variables = {"ARI_CONF_REDIS_URL": redis_server.url, "ARI_CONF_S3_DEADLINE": "2"} | variables
        self.variables |= {"ARI_CONF_DATABASE_URL": f"sqlite:///{redis_server.folder}/history.db"}
        self.bucket = Bucket(from_environment(self.variables))
        self.database = HistoryDatabase(from_environment(self.variables))
        for auth_id, days in (("MA1", 7), ("MA2", 1), ("forever", 0)):
            accounts.add(self.redis, 1, auth_id, recordings_days=days)

    def put(
        self, name: str, auth_id: str, ended_days_ago: float, *, hours: float = 1, **more: object
    ) -> StoredRecording:
        now_ms = time.time_ns() // 1_000_000
        end_ms = now_ms - round(ended_days_ago * DAY_MS)
        start_ms = end_ms - round(hours * 3_600_000)
        fields: dict[str, object] = {
            "recording_id": name,
            "auth_id": auth_id,
            "conference_id": f"conference-{name}",
            "conference_name": "standup",
            "call_uuid": "call",
            "file_format": "mp3",
            "key": object_key(auth_id, name, start_ms, "mp3"),
            "size": 1,
            "duration_ms": 1,
            "start_ms": start_ms,
            "end_ms": end_ms,
            "stored_ms": end_ms,
            "record_url": "",
            "numbers": (("1", "2"),),
            "callback": (self.url + CALLBACK, "POST"),
            **more,
        }
        stored = StoredRecording(**fields)  # type: ignore[arg-type]
        assert jobs.add(self.redis, stored, [], None)
        self.bucket.call("put_object", Key=stored.key, Body=b"audio")
        self.bucket.put_json(beside(stored), {"transcript": {"text": "secret"}})
        return stored

    def is_gone(self, stored: StoredRecording) -> bool:
        """Return whether the recording is gone; it must not be there in part."""
        parts = {
            "record": self._is_known(stored),
            "index": any(self.redis.zscore(key, stored.recording_id) is not None for key in index.keys(stored))
            or (self._is_known(stored) and not self.redis.exists(index.key(stored.recording_id))),
            "sidecar": self.bucket.get_json(beside(stored)) is not None,
            "file": self._has_file(stored.key),
        }
        assert len(set(parts.values())) == 1, parts
        return not any(parts.values())

    def _is_known(self, stored: StoredRecording) -> bool:
        """Return whether the recording is in Redis, or in the history alone."""
        if self.redis.exists(index.key(stored.recording_id)) or not self.redis.hexists(
            library.MOVED_KEY, stored.auth_id
        ):
            return bool(self.redis.exists(index.key(stored.recording_id)))
        return library.get(self.redis, self.database, stored.recording_id) is not None

    def _has_file(self, key: str) -> bool:
        try:
            return self.bucket.size(key) > 0
        except RecordingFailed:
            return False

    def queued(self) -> list[str]:
        """Return the recording IDs of the queued callbacks."""
        keys = self.redis.scan_iter("ari_conf:callbacks:partition:*")
        entries = [entry for key in keys for entry in self.redis.lrange(key, 0, -1)]
        return sorted(dict(msgspec.json.decode(entry)["params"])["RecordingID"] for entry in entries)


def beside(stored: StoredRecording) -> str:
    return object_key(stored.auth_id, stored.recording_id, stored.start_ms, "json")


@pytest.fixture
def strict() -> Iterator[StrictS3]:
    with strict_s3(LEAST) as server:
        yield server


@pytest.fixture
def shelf(redis_server: RedisServer, strict: StrictS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    shelf = Shelf(redis_server, strict.variables)
    for name, value in shelf.variables.items():
        monkeypatch.setenv(name, value)
    settings_module.settings.cache_clear()
    yield shelf
    settings_module.settings.cache_clear()


def test_expired_recordings_are_deleted_and_no_others(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    expired = [shelf.put(f"old{n}", "MA1", 7.01 + n) for n in range(5)]
    expired += [shelf.put(f"other{n}", "MA2", 2) for n in range(3)]
    # It started eight days ago, and ended within the last seven.
    kept = [shelf.put("long", "MA1", 6.9, hours=26), shelf.put("young", "MA1", 6.9), shelf.put("mine", "forever", 999)]
    shelf.redis.zadd("ari_conf:recording-index:MA1:all:", {"without record": 1})
    with capture_logs() as logged:
        Retention(shelf.redis, shelf.database).delete_expired()
    assert all(shelf.is_gone(one) for one in expired) and not any(shelf.is_gone(one) for one in kept)
    assert shelf.queued() == sorted(one.recording_id for one in expired)
    counts = {line["auth_id"]: line["count"] for line in logged if line["event"] == "expired recordings deleted"}
    assert counts == {"MA1": 5, "MA2": 3}
    assert not shelf.redis.exists(LOCK_KEY)


def test_the_callback_says_what_was_deleted(shelf: Shelf) -> None:
    by_document, by_api = shelf.put("a", "MA1", 8), shelf.put("b", "MA1", 8, call_uuid="")
    shelf.put("without a URL", "MA1", 8, callback=None)
    Retention(shelf.redis, shelf.database).delete_expired()
    keys = shelf.redis.scan_iter("ari_conf:callbacks:partition:*")
    entries = [msgspec.json.decode(entry) for key in keys for entry in shelf.redis.lrange(key, 0, -1)]
    assert {(entry["url"], entry["method"], entry["auth_id"]) for entry in entries} == {
        ("http://127.0.0.1:9/record", "POST", "MA1")
    }
    told = sorted((dict(entry["params"]) for entry in entries), key=len)
    of_document = next(params for params in told if "RecordingID" in params)
    of_api = next(params for params in told if "recording_id" in params)
    timestamp = of_document.pop("Timestamp")
    assert abs(int(timestamp) - time.time() * 1000) < 60_000 and of_api.pop("timestamp")
    assert of_document == {
        "ParentAuthID": "MA1",
        "Event": "RecordingDeleted",
        "ConferenceName": "standup",
        "ConferenceUUID": "conference-a",
        "RecordingID": "a",
        "RecordingStartMs": str(by_document.start_ms),
        "RecordingEndMs": str(by_document.end_ms),
        "RecordingDeletedReason": "retention",
    }
    assert of_api == {
        "parent_auth_id": "MA1",
        "event": "RecordingDeleted",
        "conference_name": "standup",
        "conference_uuid": "conference-b",
        "recording_id": "b",
        "recording_start_ms": str(by_api.start_ms),
        "recording_end_ms": str(by_api.end_ms),
        "recording_deleted_reason": "retention",
    }


def test_one_worker_at_a_time_deletes(shelf: Shelf) -> None:
    expired = shelf.put("old", "MA1", 8)
    other = shelf.redis.lock(LOCK_KEY, timeout=LOCK_S)
    assert other.acquire()
    Retention(shelf.redis, shelf.database).delete_expired()
    assert not shelf.is_gone(expired)
    other.release()
    Retention(shelf.redis, shelf.database).delete_expired()
    assert shelf.is_gone(expired)


def test_a_bucket_that_does_not_respond_delays_and_loses_nothing(shelf: Shelf, strict: StrictS3) -> None:
    expired = shelf.put("old", "MA1", 8)
    strict.is_away = True
    with pytest.raises(RecordingFailed):
        Retention(shelf.redis, shelf.database).delete_expired()
    strict.is_away = False
    assert not shelf.is_gone(expired) and shelf.queued() == [] and not shelf.redis.exists(LOCK_KEY)
    Retention(shelf.redis, shelf.database).delete_expired()
    assert shelf.is_gone(expired) and shelf.queued() == ["old"]


def test_what_the_bucket_refuses_to_delete_stays_and_is_reported(
    shelf: Shelf, strict: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    monkeypatch.setattr(retention, "MAX_REFUSED", 3)
    kept = [shelf.put(f"old{n}", "MA1", 8) for n in range(10)]
    strict.allowed = LEAST - {"DeleteObject"}
    strict.asked.clear()
    with capture_logs() as logged:
        Retention(shelf.redis, shelf.database).delete_expired()
    (line,) = [line for line in logged if line["event"] == "expired recordings not deleted"]
    assert line["count"] == 4 and "AccessDenied" in line["reason"], "it ends after the page in which 3 were refused"
    assert sum(asked.startswith("DELETE") for asked in strict.asked) == 4
    assert not any(shelf.is_gone(one) for one in kept) and shelf.queued() == []


def test_a_deletion_that_was_interrupted_is_repeated_and_reported_once(shelf: Shelf) -> None:
    """The previous worker had deleted the objects, but not the entry; or everything."""
    half, whole = shelf.put("half", "MA1", 8), shelf.put("whole", "MA1", 9)
    shelf.bucket.delete(half.key, beside(half))
    assert jobs.remove(shelf.redis, whole, jobs.deletion_callback(whole, "retention", 1))
    assert not jobs.remove(shelf.redis, whole, jobs.deletion_callback(whole, "retention", 1))
    Retention(shelf.redis, shelf.database).delete_expired()
    assert shelf.is_gone(half) and shelf.queued() == ["half", "whole"]


def test_a_killed_worker_is_replaced_and_each_callback_comes_once(
    redis_server: RedisServer, s3_server: S3Server, tmp_path: Path
) -> None:
    """A real worker and a real S3 server. The first worker is killed while S3 does not answer a deletion."""
    proxy = Proxy(s3_server.port)
    login = {"ARI_CONF_S3_ACCESS_KEY": "key", "ARI_CONF_S3_SECRET_KEY": "secret-of-the-tests"}
    direct = login | {"ARI_CONF_S3_ENDPOINT": f"http://127.0.0.1:{s3_server.port}"}
    through_proxy = login | {"ARI_CONF_S3_ENDPOINT": f"http://127.0.0.1:{proxy.port}", "ARI_CONF_S3_DEADLINE": "30"}
    with Receiver() as receiver:
        shelf = Shelf(redis_server, direct, receiver.url)
        expired = [shelf.put(f"old{n}", "MA1", 20 - n) for n in range(6)]
        young = shelf.put("young", "MA1", 1)
        proxy.hold = expired[3].key.encode()
        first = Worker(redis_server, tmp_path, **shelf.variables | through_proxy)
        second: Worker | None = None
        try:
            assert proxy.held.wait(60), "the fourth deletion has begun"
            first.kill()
            assert 0 < redis_server.client.pttl(LOCK_KEY) <= LOCK_S * 1000, "nobody keeps the lock indefinitely"
            redis_server.client.pexpire(LOCK_KEY, 1)  # as if five minutes had passed
            until(lambda: not redis_server.client.exists(LOCK_KEY))
            proxy.let_go()
            second = Worker(redis_server, tmp_path, **shelf.variables | through_proxy)
            receiver.wait(lambda: len(receiver.received) >= len(expired), 60)
            until(lambda: not redis_server.client.exists(LOCK_KEY))
            assert all(shelf.is_gone(one) for one in expired) and not shelf.is_gone(young)
        finally:
            first.end()
            if second is not None:
                second.end()
            proxy.end()
        told = [got.params["RecordingID"] for got in receiver.received]
        assert sorted(told) == [one.recording_id for one in expired]
        assert all("X-Plivo-Signature-V3" in got.headers for got in receiver.received)


def test_a_stopping_worker_stops_deleting(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    expired = [shelf.put(f"old{n}", "MA1", 8) for n in range(3)]
    job, deleted = Retention(shelf.redis, shelf.database), threading.Event()
    remove = jobs.remove

    def remove_and_stop(*arguments: object) -> bool:
        job.stop()
        deleted.set()
        return remove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "remove", remove_and_stop)
    job.delete_expired()
    assert deleted.is_set() and sum(shelf.is_gone(one) for one in expired) == 1
    assert not shelf.redis.exists(LOCK_KEY)
