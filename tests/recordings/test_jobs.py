"""Tests of the index of the recordings in the bucket, and of the list of queued jobs."""

from __future__ import annotations

import msgspec
import pytest
from typer.testing import CliRunner

from ari_conf.cli.main import app
from ari_conf.core.effects import AddAttendanceNote, AddSpeechNote
from ari_conf.queues import outbox, partitioned_queue
from ari_conf.recordings import index, jobs
from ari_conf.recordings.index import StoredRecording
from ari_conf.recordings.jobs import StoreJob
from ari_conf.settings import settings
from ari_conf.store import accounts
from tests.redis import RedisServer


def stored(number: int, **more: object) -> StoredRecording:
    fields: dict[str, object] = {
        "recording_id": f"r{number}",
        "auth_id": "MA1",
        "conference_id": f"c{number}",
        "conference_name": "standup",
        "call_uuid": f"u{number}",
        "file_format": "mp3",
        "key": f"recordings/MA1/2026/01/01/r{number}.mp3",
        "size": 1,
        "duration_ms": 1,
        "start_ms": number * 1000,
        "end_ms": number * 1000 + 1,
        "stored_ms": 0,
        "record_url": "",
        **more,
    }
    return StoredRecording(**fields)  # type: ignore[arg-type]


def job(**more: object) -> StoreJob:
    fields = {name: getattr(stored(1), name) for name in StoreJob.__struct_fields__ if hasattr(stored(1), name)}
    return StoreJob(**{**fields, "ari_url": "http://127.0.0.1:1/ari", "at_ms": 1, **more})  # type: ignore[arg-type]


def ids(found: tuple[int, list[StoredRecording]]) -> tuple[int, list[str]]:
    return found[0], [one.recording_id for one in found[1]]


def test_a_stored_recording_is_indexed_and_reported_once(redis_server: RedisServer) -> None:
    redis, callbacks = redis_server.client, [("MA1:o:lane", b"{}")]
    assert jobs.add(redis, stored(1), callbacks, ("MA1:o:r1", b"{}"))
    assert not jobs.add(redis, stored(1), callbacks, ("MA1:o:r1", b"{}"))
    assert redis.llen("ari_conf:callbacks:partition:MA1:o:lane") == 1
    assert redis.llen("ari_conf:transcriptions:partition:MA1:o:r1") == 1
    assert jobs.save_transcript_state(redis, stored(1), "done", callbacks)
    assert jobs.save_transcript_state(redis, stored(1), "done", callbacks) is False
    assert jobs.save_transcript_state(redis, stored(2), "done", callbacks) is None
    assert redis.llen("ari_conf:callbacks:partition:MA1:o:lane") == 2


def test_recordings_are_listed_by_time_and_criterion(redis_server: RedisServer) -> None:
    redis = redis_server.client
    for one in (stored(1), stored(2, conference_name="other"), stored(3), stored(4, auth_id="MA2")):
        jobs.add(redis, one, [], None)
    assert ids(index.search(redis, "MA1")) == (3, ["r3", "r2", "r1"])
    assert ids(index.search(redis, "MA1", limit=1, offset=1)) == (3, ["r2"])
    assert ids(index.search(redis, "MA1", by={"name": "standup"})) == (2, ["r3", "r1"])
    assert ids(index.search(redis, "MA1", by={"uuid": "c2"})) == (1, ["r2"])
    assert ids(index.search(redis, "MA1", since_ms=1001, until_ms=2000)) == (1, ["r2"])
    jobs.remove(redis, stored(3))
    assert ids(index.search(redis, "MA1", by={"name": "standup"})) == (1, ["r1"])
    assert jobs.get(redis, "r3") is None
    assert not redis.keys("*:uuid:c3")


def test_a_search_matches_all_of_its_criteria(redis_server: RedisServer) -> None:
    redis = redis_server.client
    ann, bob = ("15550001", "15559999"), ("15550002", "15559999")
    made = [
        stored(1, numbers=(ann,)),
        stored(2, numbers=(ann, bob)),
        stored(3, numbers=(bob,), conference_name="other"),
    ]
    for one in made:
        jobs.add(redis, one, [], None)

    def found(**more: object) -> tuple[int, list[str]]:
        return ids(index.search(redis, "MA1", **more))  # type: ignore[arg-type]

    assert found(by={"from": "15550001"}) == (2, ["r2", "r1"])
    assert found(by={"to": "15559999", "name": "standup"}) == (2, ["r2", "r1"])
    assert found(by={"from": "15550002", "name": "standup"}) == (1, ["r2"])
    assert found(by={"from": "15550002", "to": "15559999"}, until_ms=2000) == (1, ["r2"])
    assert found(by={"from": "15550002", "to": "15559999"}, limit=1, offset=1) == (2, ["r2"])
    assert found(by={"from": "15550002", "to": "15550002"}) == (0, [])
    for one in made:
        jobs.remove(redis, one)
    assert not redis.keys("ari_conf:recording*")


def test_the_commands_list_waiting_and_given_up_jobs(redis_server: RedisServer, monkeypatch) -> None:
    redis, lane = redis_server.client, jobs.partition_key("MA1", "asterisk", "r1")
    accounts.add(redis, 1, "MA1")
    monkeypatch.setenv("ARI_CONF_REDIS_URL", redis_server.url)
    settings.cache_clear()

    def said(*words: str) -> str:
        return CliRunner().invoke(app, ["recordings", *words], catch_exceptions=False).stdout

    partitioned_queue.enqueue(redis, [(lane, msgspec.json.encode(job()))], jobs.STORE_QUEUE)
    assert "r1\tto be stored\t" in said("pending")
    fleet = partitioned_queue.PartitionedQueue(redis, jobs.STORE_QUEUE)
    taken = fleet.claim("worker", 1, 1)
    assert taken is not None and jobs.set_progress(redis, "r1", 40) is None
    assert 0 < redis.ttl("ari_conf:recording-progress:r1") <= jobs.PROGRESS_TTL_S, "it would stay indefinitely"
    assert "r1\tbeing stored, 40 %\t" in said("pending")
    tried = msgspec.json.encode(job(attempts=3, error="S3 is away"))
    fleet.settle("worker", 1, partitioned_queue.retry(taken, tried, 60_000))
    assert "to be stored, tried 3 times, again in " in said("pending")
    assert "S3 is away" in said("pending") and said("lost") == ""
    redis.zadd("ari_conf:recordings:delayed", {lane: 0})
    again = fleet.claim("worker", 1, 2)
    assert again is not None
    lost = msgspec.json.encode(job(error="no such file"))
    fleet.settle("worker", 1, partitioned_queue.dead_letter(again, lost, 10, 10**9))
    assert said("pending") == "" and "no such file" in said("lost")
    assert "1 recording will be retried" in said("retry")
    assert [one.job.error for one in jobs.pending(redis)] == [""]
    assert outbox.partition_heads(redis, jobs.STORE_QUEUE)[0].length == 1
    partitioned_queue.enqueue(redis, [("MA1:o:r0", b"no JSON")], jobs.STORE_QUEUE)
    redis.xadd("ari_conf:recordings:dead-letters:MA1", {"partition": lane, "entry": b'{"other": "version"}'})
    assert "r1\tto be stored" in said("pending") and said("lost") == "", "an unreadable job hides all others"
    settings.cache_clear()


def test_attendance_and_speech_are_noted_up_to_a_bound(redis_server: RedisServer, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "MAX_NOTES", 3)
    pipe = redis_server.client.pipeline()
    for at in (5, 1, 2, 3, 4):
        jobs.add_note(pipe, AddSpeechNote("r1", 1, at, at + 1))
    pipe.execute()
    assert [start for _, start, _ in jobs.read_notes(redis_server.client, "r1").talk] == [1, 2, 3]
    assert redis_server.client.ttl("ari_conf:recording-notes:r1") > 0


@pytest.mark.parametrize(
    "damaged", [b"{", b"\xff", b"[]", b'["attendance"]', b'["speech",1,"x",3]', b'["sings",1,2,3]', b"{}"]
)
def test_a_note_that_can_not_be_read_costs_no_recording(redis_server: RedisServer, damaged: bytes) -> None:
    jobs.add_note(redis_server.client, AddAttendanceNote("r1", 1, "u1", "4930", "100", 5, 9))
    jobs.add_note(redis_server.client, AddAttendanceNote("r1", 2, "u2", "4931", "100", 6, None))
    jobs.add_note(redis_server.client, AddSpeechNote("r1", 1, 6, 7))
    redis_server.client.zadd("ari_conf:recording-notes:r1", {damaged: 6})
    found = jobs.read_notes(redis_server.client, "r1")
    assert [member["from"] for member in found.members] == ["4930", "4931"] and found.talk == ((1, 6, 7),)
    assert found.members[1] == {
        "member_id": 2,
        "call_uuid": "u2",
        "from": "4931",
        "to": "100",
        "entered_ms": 6,
        "left_ms": None,
    }
