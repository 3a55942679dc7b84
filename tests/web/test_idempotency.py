"""Tests of the bounds on the stored Idempotency-Keys of an account."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from redis import RedisError

from ari_conf.web import idempotency
from ari_conf.web.idempotency import IdempotencyRecord
from tests.web.conftest import Api, Owner, Served, account

MUTE = "Conference/standup/Member/all/Mute/"


@pytest.fixture(autouse=True)
def _there(owner: Owner) -> None:
    owner.joins("ann")


def kept(owner: Owner, auth_id: str = "A") -> tuple[int, int]:
    """Return the number of keys and their bytes, which must agree with the counters."""
    place = f"ari_conf:idempotency:{auth_id}"
    found = owner.redis.hgetall(place)
    size = int(found.pop(b"bytes", 0))
    assert size == sum(map(len, found.values()))
    assert set(found) == set(owner.redis.zrange(f"{place}:order", 0, -1))
    return len(found), size


REFUSED: list[tuple[str, Any, int]] = [
    ("Conference/none/Lock/", None, 404),
    ("Conference/standup/Member/999/Mute/", None, 404),
    ("DeadLetter/1-1/Resend/", None, 404),
    ("Conference/standup/Member/all/Speak/", {"text": ""}, 400),
    ("Conference/standup/Announce/", {}, 400),
]


@pytest.mark.parametrize(("path", "body", "status"), REFUSED)
def test_nothing_is_kept_of_what_was_refused(api: Api, owner: Owner, path: str, body: Any, status: int):
    for number in range(20):
        assert api.post(path, body, Idempotency_Key=f"k{number}").status == status
    assert kept(owner) == (0, 0)


def test_nor_of_what_can_not_be_done_now(api: Api, owner: Owner):
    assert api.post("Conference/standup/Record/", Idempotency_Key="k").status == 202
    assert api.post("Conference/standup/Record/", Idempotency_Key="k2").status == 409
    assert kept(owner)[0] == 1
    assert api.delete("Conference/standup/Record/").status == 204
    assert api.post("Conference/standup/Record/", Idempotency_Key="k3").status == 202


def test_an_account_has_so_many_and_the_oldest_go(api: Api, owner: Owner, served: Served, monkeypatch: Any):
    monkeypatch.setattr(idempotency, "MAX_KEYS", 5)
    other = account(served, "B")
    owner.joins("eve", auth="B")
    assert other.post(MUTE, Idempotency_Key="k0").status == 202
    for number in range(12):
        assert api.post(MUTE, Idempotency_Key=f"k{number}").status == 202
        assert kept(owner)[0] <= 5
    done = len(owner.commands)
    for number in (7, 8, 9, 10, 11):
        assert api.post(MUTE, Idempotency_Key=f"k{number}").status == 202
    assert len(owner.commands) == done, "the newest keys are known"
    assert other.post(MUTE, Idempotency_Key="k0").status == 202
    assert len(owner.commands) == done, "the other account's keys are unaffected"
    before = owner.redis.zrange("ari_conf:idempotency:A:order", 0, -1)
    assert api.post(MUTE, Idempotency_Key="k0").status == 202
    after = owner.redis.zrange("ari_conf:idempotency:A:order", 0, -1)
    assert after[:-1] == before[1:] and after[-1] not in before, "a removed key counts as a new one"


def test_and_so_many_bytes(api: Api, owner: Owner, monkeypatch: Any):
    monkeypatch.setattr(idempotency, "MAX_BYTES", 1000)
    for number in range(12):
        assert api.post(MUTE, Idempotency_Key=f"k{number}").status == 202
        # The size of a reply is known only after its place was reserved.
        assert kept(owner)[1] <= 1000 + 300
    assert 2 <= kept(owner)[0] <= 5


def test_by_the_clock_of_redis_a_day(api: Api, owner: Owner, monkeypatch: Any):
    assert 0 < idempotency.RECORD_TTL_MS == 24 * 3600 * 1000
    assert api.post(MUTE, Idempotency_Key="k").status == 202
    for place in ("ari_conf:idempotency:A", "ari_conf:idempotency:A:order"):
        assert 0 < owner.redis.pttl(place) <= idempotency.RECORD_TTL_MS
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 2 * 24 * 3600)
    done = len(owner.commands)
    assert api.post(MUTE, Idempotency_Key="k").status == 202
    assert len(owner.commands) == done
    (field,) = owner.redis.zrange("ari_conf:idempotency:A:order", 0, -1)
    owner.redis.zadd("ari_conf:idempotency:A:order", {field: 1})  # as if it were long ago
    assert api.post(MUTE, Idempotency_Key="k").status == 202
    assert kept(owner)[0] == 1


def test_one_that_can_not_be_read_is_done_again(api: Api, owner: Owner):
    assert api.post(MUTE, Idempotency_Key="k").status == 202
    (field,) = owner.redis.zrange("ari_conf:idempotency:A:order", 0, -1)
    owner.redis.hset("ari_conf:idempotency:A", field, "{")
    assert api.post(MUTE, Idempotency_Key="k").status == 202


def test_a_process_that_died_over_it_is_known_by_the_clock_of_redis(api: Api, owner: Owner, monkeypatch: Any):
    """The `web` that checks is an hour ahead, and the request is still in progress."""
    before = len(owner.commands)
    assert api.post(MUTE, Idempotency_Key="k").status == 202
    (field,) = owner.redis.zrange("ari_conf:idempotency:A:order", 0, -1)
    text = owner.redis.hget("ari_conf:idempotency:A", field)
    under_way = msgspec.structs.replace(msgspec.json.decode(text, type=IdempotencyRecord), result=None)
    owner.redis.hset("ari_conf:idempotency:A", field, msgspec.json.encode(under_way))
    owner.redis.zadd("ari_conf:idempotency:A:order", {field: owner.redis.time()[0] * 1000 - 9_000})  # of 12
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    began = time.monotonic()
    assert api.post(MUTE, Idempotency_Key="k").status == 202
    assert time.monotonic() - began > 0.1, "the request waited"
    assert len(owner.commands) == before + 1, "the answer is the owner's reply"


def test_a_record_that_is_not_written_does_not_make_a_503_of_what_was_done(
    api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    """503 says that nothing was done: a client that repeats the request then does it twice."""

    async def fails(*_: Any) -> None:
        raise RedisError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(idempotency.IdempotencyEntry, "settle", fails)
        first = api.post("Conference/standup/Record/", Idempotency_Key="k")
    assert first.status == 202 and len(owner.commands) == 1
    assert api.post("Conference/standup/Record/", Idempotency_Key="k").json == first.json
    assert len(owner.commands) == 1
