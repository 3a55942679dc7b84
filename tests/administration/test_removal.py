"""The removal of an account, step by step, on a real Redis: what a worker does, without the worker."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import SecretStr
from redis import Redis

from ari_conf.administration import audit, purge, remains, removal
from ari_conf.administration.audit import Actor
from ari_conf.administration.remains import QUEUES
from ari_conf.core.effects import CommandReply, PostCallback
from ari_conf.errors import AccountConflict, AccountNotFound, RecordingFailed
from ari_conf.history import queries
from ari_conf.ownership.lease import lease_key
from ari_conf.queues import command_queue, dead_letters, history_inbox, outbox, partitioned_queue
from ari_conf.queues.command_queue import CommandMessage
from ari_conf.queues.partitioned_queue import PartitionedQueue
from ari_conf.recordings import index, jobs
from ari_conf.settings import Settings, from_environment
from ari_conf.store import accounts, removals
from ari_conf.store.problems import problems_key
from ari_conf.store.state_store import state_key
from tests.history.conftest import open_database
from tests.history.drain import drain
from tests.history.samples import callback, everything, texts
from tests.redis import RedisServer
from tools.reference import redis_keys

ADMIN = Actor("alice", "api")
HISTORY = texts(callback(auth_id="acme"))[0]
OTHER = "acme2"
"""Another account, whose auth id begins with that of the removed one."""


class Stage:
    def __init__(self, server: RedisServer) -> None:
        self.redis: Redis = server.client
        self.url = server.url
        self.settings: Settings = from_environment(
            {
                "ARI_CONF_REDIS_URL": server.url,
                "ARI_CONF_COMMAND_DEADLINE": "1",
                "ARI_CONF_DATABASE_URL": f"sqlite:///{server.folder}/history.db",
            }
        )
        self.token = accounts.add(self.redis, 1, "acme").token
        accounts.add(self.redis, 1, OTHER)

    def begin(self, calls: Any = None, purge: bool = False) -> removals.Removal:
        return removal.begin(self.redis, ADMIN, self.settings, "acme", calls, purge)

    def advance(self) -> int | None:
        return removal.advance(self.redis, self.settings, "acme", lambda: True)

    def removal(self) -> removals.Removal | None:
        return removals.get(self.redis, "acme")

    def wait_over(self) -> None:
        """Let the time pass for which a server may still know the account."""
        self.change(phase_ms=1)

    def change(self, **fields: Any) -> None:
        removals.change(self.redis, "acme", lambda now: msgspec.structs.replace(now, **fields), None)

    def call(self, uuid: str, auth_id: str = "acme", asterisk: str = "pbx", kind: str = "Call") -> None:
        self.redis.hset(state_key(asterisk), uuid, msgspec.json.encode({"type": kind, "auth_id": auth_id}))

    def callback(self, auth_id: str = "acme", n: int = 1) -> None:
        post = PostCallback(f"c{n}", auth_id, f"http://x.example/{n}", "POST", ())
        partitioned_queue.enqueue(self.redis, [outbox.enqueue_item(post, 1)])

    def record(self, recording_id: str, auth_id: str = "acme") -> None:
        stored = index.StoredRecording(
            recording_id=recording_id, auth_id=auth_id, conference_id="c1", conference_name=OTHER, call_uuid="u1",
            file_format="mp3", key=f"recordings/{auth_id}/2026/01/01/{recording_id}.mp3", size=1, duration_ms=1,
            start_ms=1_700_000_000_000, end_ms=2, stored_ms=3, record_url="http://x.example/", numbers=(("1", "2"),),
        )  # fmt: skip
        jobs.add(self.redis, stored, [], None)


class FakeBucket:
    """The bucket, as far as a purge uses it. `tests/tasks/test_removals.py` has a real one."""

    def __init__(self, _: Settings) -> None:
        pass

    files: ClassVar[set[str]] = set()
    fails = False

    def delete(self, *keys: str) -> None:
        if self.fails:
            raise RecordingFailed("S3 delete_object failed: refused")
        self.files.difference_update(keys)

    def delete_below(self, prefix: str) -> int:
        found = {key for key in self.files if key.startswith(prefix)}
        self.files.difference_update(found)
        return len(found)


@pytest.fixture
def stage(redis_server: RedisServer) -> Stage:
    return Stage(redis_server)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> type[FakeBucket]:
    FakeBucket.files, FakeBucket.fails = set(), False
    monkeypatch.setattr(removal, "Bucket", FakeBucket)
    return FakeBucket


# Its beginning.


def test_from_its_beginning_the_account_exists_for_nobody_but_still_signs(stage: Stage):
    stage.begin()
    assert accounts.get(stage.redis, "acme") is None
    signer = removals.signer(stage.redis, "acme")
    assert signer is not None and signer.removed and signer.signing_tokens() == [stage.token]
    assert removals.signer(stage.redis, OTHER) == accounts.get(stage.redis, OTHER)
    assert removals.signer(stage.redis, "nobody") is None


def test_live_calls_need_a_choice(stage: Stage):
    stage.call("u1")
    stage.call("f1", kind="Conference")
    stage.call("u2", auth_id=OTHER)
    with pytest.raises(AccountConflict, match=r"acme has live calls \(1\) in 1 conferences: .*calls=end.*calls=keep"):
        stage.begin()
    assert accounts.get(stage.redis, "acme") is not None and audit.read(stage.redis)[0] == 0
    begun = stage.begin("keep")
    assert (begun.calls, begun.total.calls, begun.total.conferences) == ("keep", 1, 1)
    (entry,) = audit.read(stage.redis)[1]
    assert (entry.who, entry.action) == ("alice", "removal begun")
    assert entry.details == {"calls": "keep", "purge": "false", "left": "1 call, 1 conference"}


def test_calls_of_an_asterisk_that_nobody_owns_any_more_do_not_count(stage: Stage):
    stage.call("u1", asterisk="old")
    stage.redis.hset(lease_key("old"), "renewed_ms", 1)
    assert stage.begin().total.calls == 0


def test_what_does_not_exist_is_not_removed(stage: Stage):
    with pytest.raises(AccountNotFound):
        removal.begin(stage.redis, ADMIN, stage.settings, "nobody", None, False)


def test_an_account_that_cant_be_read_is_removed_too(stage: Stage):
    stage.redis.hset(accounts.KEY, "acme", b"{")
    stage.begin()
    stage.wait_over()
    while stage.advance() is not None:
        pass
    assert stage.removal() is None


# Its steps.


def test_without_calls_and_data_nothing_is_left_in_the_end(stage: Stage):
    stage.begin()
    delay_ms = stage.advance()
    assert delay_ms is not None and 0 < delay_ms <= removal.CACHE_MS, "a server may still accept a call"
    stage.wait_over()
    assert [stage.advance() for _ in range(2)] == [0, None]
    assert stage.removal() is None and accounts.get(stage.redis, "acme") is None
    assert [one.action for one in audit.read(stage.redis)[1]] == ["removed", "removal begun"]
    assert stage.advance() is None
    accounts.add(stage.redis, 1, "acme")


def test_kept_calls_are_waited_for_and_a_late_one_too(stage: Stage):
    stage.call("u1")
    stage.begin("keep")
    stage.wait_over()
    assert stage.advance() == removal.KEPT_POLL_MS
    stage.redis.hdel(state_key("pbx"), "u1")
    stage.advance()
    assert stage.removal().phase == "callbacks"
    stage.call("u2")
    assert stage.advance() == removal.KEPT_POLL_MS and stage.removal().phase == "calls"


def test_the_account_signs_until_its_last_callback_is_out(stage: Stage):
    stage.callback()
    stage.begin()
    stage.wait_over()
    stage.advance()
    for _ in range(2):
        assert stage.advance() == removal.POLL_MS
        assert removals.signer(stage.redis, "acme") is not None
    queue = PartitionedQueue(stage.redis)
    claimed = queue.claim("w", 1, 1)
    queue.settle("w", 1, partitioned_queue.ack(claimed, history=HISTORY))
    assert stage.advance() is None
    assert removals.signer(stage.redis, "acme") is None
    # The delivered callback is data: the auth id is not given out again, and it can be purged later.
    kept = stage.removal()
    assert (kept.phase, kept.left.counted(), kept.record) == ("removed", {"history_entries": 1}, None)
    with pytest.raises(AccountConflict, match="was removed already; what is left of it: 1 history entry"):
        stage.begin()
    stage.begin(purge=True)
    stage.wait_over()
    while stage.advance() is not None:
        pass
    assert stage.removal() is None and not stage.redis.exists("ari_conf:callbacks:delivered:acme")


def test_a_second_request_may_ask_for_more(stage: Stage):
    stage.call("u1")
    stage.begin("keep")
    changed = stage.begin("end")
    assert (changed.calls, changed.purge) == ("end", False)
    changed = stage.begin(purge=True)
    assert (changed.calls, changed.purge) == ("end", True)
    assert stage.begin("end").purge, "data that is being deleted can't be kept"


class FakeOwner:
    """The owner of an Asterisk's calls: hangs up what it is told to, and replies."""

    def __init__(self, stage: Stage, asterisk: str = "pbx", status: int = 202) -> None:
        self.stage, self.asterisk, self.status = stage, asterisk, status
        self.commands: list[CommandMessage] = []
        self._stopping = threading.Event()
        self._redis = Redis.from_url(stage.url)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> FakeOwner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        position = "0"
        while not self._stopping.is_set():
            found: Any = self._redis.xread({command_queue.queue_key(self.asterisk): position}, block=50)
            for _, entries in found:
                for id, fields in entries:
                    position = id
                    self._obey(msgspec.json.decode(fields[b"command"], type=CommandMessage))

    def _obey(self, command: CommandMessage) -> None:
        self.commands.append(command)
        addressed: Any = command.addressed
        calls = [key for key, text in self._redis.hgetall(state_key(self.asterisk)).items() if b'"acme"' in text]
        for key in calls[: addressed.command.at_most]:
            self._redis.hdel(state_key(self.asterisk), key)
        left = len(calls[addressed.command.at_most :])
        body = (("left", str(left)),) if self.status == 202 else (("error", "the call's Asterisk is unreachable"),)
        reply = msgspec.json.encode(CommandReply(command.command_id, self.status, body))
        self._redis.publish(command_queue.replies_key(command.sender), f"{command.command_id} ".encode() + reply)


def test_calls_are_hung_up_in_bounded_batches_by_each_owner(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(removal, "CALLS_AT_ONCE", 4)
    for n in range(10):
        stage.call(f"u{n}")
    stage.call("v1", asterisk="pbx2")
    stage.call("w1", auth_id=OTHER)
    stage.begin("end")
    with FakeOwner(stage) as first, FakeOwner(stage, "pbx2") as second:
        assert stage.advance() == removal.POLL_MS
        assert [len(first.commands), len(second.commands)] == [3, 1]
        assert {one.addressed.auth_id for one in first.commands} == {"acme"}
    assert stage.redis.hkeys(state_key("pbx")) == [b"w1"] and not stage.redis.hkeys(state_key("pbx2"))


@pytest.mark.parametrize("status", [None, 503], ids=["no owner", "Asterisk unreachable"])
def test_calls_that_cant_be_hung_up_now_are_tried_again_and_shown(stage: Stage, status: int | None):
    stage.call("u1")
    stage.begin("end")
    if status is None:
        stage.advance()
        assert stage.removal().error == "calls on Asterisk pbx could not be hung up: did not answer"
    else:
        with FakeOwner(stage, status=status):
            stage.advance()
        assert stage.removal().error.endswith("the call's Asterisk is unreachable")
    with FakeOwner(stage):
        stage.advance()
    assert stage.removal().error == "" and not stage.redis.exists(state_key("pbx"))


# Purge.


def fill(stage: Stage, auth_id: str) -> None:
    """Store something under each family of keys that belongs to one account."""
    for n in range(25):
        stage.record(f"{auth_id}-r{n}", auth_id)
    for n in range(3):
        stage.callback(auth_id, n)
    post = PostCallback("c9", auth_id, "http://x.example/9", "POST", ())
    partition, entry = outbox.enqueue_item(post, 1)
    stage.redis.xadd(f"ari_conf:callbacks:dead-letters:{auth_id}", {"partition": partition, "entry": entry})
    stage.redis.hset("ari_conf:pending-results", f"api-{auth_id}", msgspec.json.encode({"auth_id": auth_id}))
    stage.redis.zadd("ari_conf:unknown-accounts", {auth_id: 1})
    stage.redis.lpush(f"ari_conf:sessions:{auth_id}", f"ari_conf:session:{auth_id}")
    for family in families():
        words = {"ACCOUNT": auth_id, "QUEUE": "transcriptions", "ADDRESS": "2001:db8::/64"}
        name = "ari_conf:" + ":".join(words.get(word, word.lower()) for word in family.name.split(":"))
        if not stage.redis.exists(name):
            MAKERS[family.type](stage.redis, name)


MAKERS: dict[str, Any] = {
    "string": lambda redis, name: redis.set(name, "x"),
    "list": lambda redis, name: redis.lpush(name, "x"),
    "hash": lambda redis, name: redis.hset(name, "x", "x"),
    "sorted set": lambda redis, name: redis.zadd(name, {"x": 1}),
    "stream": lambda redis, name: redis.xadd(name, {"x": "x"}),
}


def families() -> list[redis_keys.Family]:
    """Return the families of keys, as the reference lists them, that have an account in their name."""
    named = [family for group in redis_keys.GROUPS.values() for family in group]
    return [family for family in named if "ACCOUNT" in family.name and family.type != "channel"]


def keys_of(stage: Stage, auth_id: str) -> set[bytes]:
    return {key for key in stage.redis.scan_iter(f"*{auth_id}*") if f":{auth_id}2".encode() not in key}


def test_a_purge_deletes_every_family_of_keys_and_touches_no_other_account(stage: Stage, bucket: type[FakeBucket]):
    fill(stage, "acme")
    fill(stage, OTHER)
    stage.redis.set("ari_conf:state:acme", "an Asterisk of this name")
    bucket.files = {f"recordings/{one}/2026/01/01/{name}" for one in ("acme", OTHER) for name in ("a.mp3", "stray.wav")}
    of_other = {key for key in stage.redis.scan_iter(f"*{OTHER}*") if b"recording-index:acme:" not in key}
    assert len(families()) > 12 and len(keys_of(stage, "acme")) > 30
    stage.begin(purge=True)
    stage.change(phase="data", record=None)
    for _ in range(50):
        if stage.advance() is None:
            break
    queue_of_removals = b"ari_conf:removals:"
    assert {key for key in keys_of(stage, "acme") if not key.startswith(queue_of_removals)} == {b"ari_conf:state:acme"}
    assert stage.removal() is None
    assert stage.redis.hkeys("ari_conf:pending-results") == [f"api-{OTHER}".encode()]
    assert stage.redis.zrange("ari_conf:unknown-accounts", 0, -1) == [OTHER.encode()]
    assert stage.redis.hkeys("ari_conf:callbacks:entries") == [OTHER.encode()]
    assert set(stage.redis.scan_iter(f"*{OTHER}*")) == of_other
    assert bucket.files == {f"recordings/{OTHER}/2026/01/01/{name}" for name in ("a.mp3", "stray.wav")}


def test_a_purge_continues_after_an_interruption_and_reports_its_progress(stage: Stage, bucket: type[FakeBucket]):
    for n in range(45):
        stage.record(f"r{n}")
    bucket.files = {f"recordings/acme/2023/11/14/r{n}.mp3" for n in range(45)}
    stage.begin(purge=True)
    stage.change(phase="data")
    attempts = iter((True, False))
    removal.advance(stage.redis, stage.settings, "acme", lambda: next(attempts, False))
    half = stage.removal()
    assert half.phase == "data" and half.total.recordings == 45 and 0 < half.left.recordings < 45
    bucket.fails = True
    assert stage.advance() == removal.KEPT_POLL_MS
    assert stage.removal().error == "S3 delete_object failed: refused"
    bucket.fails = False
    while stage.advance() is not None:
        pass
    assert stage.removal() is None and not index.search(stage.redis, "acme")[0]


def test_a_callback_that_a_worker_attempts_is_deleted_after_its_attempt(stage: Stage):
    stage.callback()
    queue = PartitionedQueue(stage.redis)
    claimed = queue.claim("w", 1, 1)
    stage.callback()
    stage.begin(purge=True)
    stage.change(phase="data")
    assert stage.advance() == removal.POLL_MS and stage.removal().left.callbacks == 1
    queue.settle("w", 1, partitioned_queue.dead_letter(claimed, claimed.entry, 10, 100_000))
    while stage.advance() is not None:
        pass
    assert stage.removal() is None and not dead_letters.count(stage.redis, "acme")
    assert not stage.redis.exists("ari_conf:callbacks:entries")


def test_a_purge_does_not_wait_for_callbacks_for_ever(stage: Stage):
    stage.callback()
    stage.begin(purge=True)
    stage.wait_over()
    stage.advance()
    assert stage.advance() == removal.POLL_MS
    stage.change(phase_ms=1)
    while stage.advance() is not None:
        pass
    assert stage.removal() is None and not outbox.partitions_of(stage.redis, outbox.QUEUE, "acme")


def test_an_entry_that_no_place_of_a_queue_has_is_waited_for_and_deleted(stage: Stage):
    stage.callback()
    stage.redis.delete("ari_conf:callbacks:ready:acme:x", *stage.redis.keys("ari_conf:callbacks:ready:*"))
    stage.redis.delete("ari_conf:callbacks:entries")
    stage.begin()
    stage.wait_over()
    assert [stage.advance() for _ in range(2)] == [0, removal.POLL_MS]
    stage.begin(purge=True)
    stage.change(phase="data")
    while stage.advance() is not None:
        pass
    assert stage.removal() is None and not stage.redis.keys("ari_conf:callbacks:partition:*")


def test_a_purge_deletes_the_history_and_no_other_account_s(stage: Stage):
    database = open_database(stage.settings.database_url.get_secret_value())
    for auth_id, prefix in (("acme", "a"), (OTHER, "b")):
        for item in everything(auth_id):
            ids = {name: f"{prefix}{getattr(item, name)}" for name in IDS if hasattr(item, name)}
            history_inbox.add(stage.redis, auth_id, texts(msgspec.structs.replace(item, **ids))[0])
        drain(stage.redis, database, auth_id)
        history_inbox.add(stage.redis, auth_id, texts(callback(2, auth_id))[0])
    assert remains.stored(stage.redis, "acme").history_entries == 8
    stage.begin(purge=True)
    stage.change(phase="data", record=None)
    for _ in range(50):
        if stage.advance() is None:
            break
    assert stage.removal() is None and not remains.stored(stage.redis, "acme").counted()
    assert remains.stored(stage.redis, OTHER).history_entries == 8
    with database.read() as connection:
        assert not any(queries.count_all(connection, "acme").values())
        assert all(queries.count_all(connection, OTHER).values())
    database.close()


def test_a_purge_waits_for_the_database(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    history_inbox.add(stage.redis, "acme", HISTORY)
    stage.begin(purge=True)
    stage.change(phase="data", record=None)
    away = stage.settings.model_copy(update={"database_url": SecretStr("sqlite:////proc/x/history.db")})
    with monkeypatch.context() as patched:
        patched.setattr(stage, "settings", away)
        assert stage.advance() == removal.KEPT_POLL_MS
        assert "can't be opened" in stage.removal().error and "ARI_CONF_DATABASE_URL" in stage.removal().error
    while stage.advance() is not None:
        pass
    assert stage.removal() is None


IDS = ("call_uuid", "conference_id", "callback_id", "recording_id")


def test_the_pattern_of_an_account_s_keys_matches_no_other_s():
    matches = purge.pattern("acme").fullmatch
    assert matches("ari_conf:recording-index:acme:name:a\nb:c") and matches("ari_conf:auth-failures:2001:db8::/64:acme")
    foreign = ["recording-index:B:name:acme", "state:acme", "lease:acme", "commands:acme", "problems:acme2", "names:B"]
    assert not [name for name in foreign if matches(f"ari_conf:{name}")]
    assert set(QUEUES) == {"callbacks", "recordings", "transcriptions"} and problems_key("x")
