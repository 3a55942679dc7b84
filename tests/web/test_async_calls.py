"""Tests of the cost of asynchronous calls, which is bounded: no list contains itself, and nothing is retried
forever."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import msgspec
import pytest

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.queues import dead_letters, outbox
from ari_conf.queues.callback_outcomes import history_entry
from ari_conf.queues.partitioned_queue import PartitionedQueue, ack, prefix
from ari_conf.store.problems import read_problems
from ari_conf.web import async_calls as later
from tests.web.conftest import Api, Owner, Served, account, within
from tests.web.test_dead_letters import dies, soon, waiting
from tests.web.test_event_stream import eventually

SENT_TO = "callback_url=https%3A%2F%2Fexample.com%2Fresult"
RESULT = {"callback_url": "https://example.com/result"}


def lists(api: Api, owner: Owner) -> list[str]:
    """Return every call whose answer may contain the data that was sent to a callback URL."""
    return ["Callback/", "DeadLetter/", f"DeadLetter/{dies(owner)}/"]


def test_no_list_of_what_was_sent_is_sent_itself(api: Api, owner: Owner):
    for path in lists(api, owner):
        response = api.get(f"{path}?{SENT_TO}&limit=100")
        assert response.status == 400, path
        assert response.json["error"].startswith("callback_url: ")
        assert api.get(f"{path}?callback_url=").status == 200, f"{path}: SDKs send a missing value as an empty one"
    assert not waiting(owner)
    assert not owner.redis.exists(later.KEY)


def test_the_description_says_so(api: Api):
    described = api.get("/openapi.json").json["paths"]
    for path in ("Callback/", "DeadLetter/", "DeadLetter/{id}/"):
        call = described["/v1/Account/{auth_id}/" + path]["get"]
        assert "202" not in call["responses"]
        assert not [one for one in call["parameters"] if one["name"].startswith("callback_")]


def test_many_asynchronous_calls_leave_nothing_behind(api: Api, owner: Owner):
    """Each answer is delivered, and is in the next list, before that list is requested."""
    lanes, sizes = PartitionedQueue(owner.redis), []
    for number in range(1, 16):
        for path in (*lists(api, owner), "Conference/", "Problem/", "Recording/"):
            api.get(f"{path}?{SENT_TO}&limit=20")
        eventually(lambda: len(waiting(owner)) == 3)
        while taken := lanes.claim("w1", 64, number * 100):
            outcome = history_entry(taken.partition, outbox.decode(taken.entry), "delivered", number)
            lanes.settle("w1", 64, ack(taken, history=outcome))
        sizes.append(len(api.get("Callback/?limit=100").text))
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    assert max(grown) < 2 * min(grown), "as many more as requests, and no larger"
    assert sizes[-1] < 100_000


def test_a_result_that_is_too_large_is_replaced_by_an_error(api: Api, owner: Owner):
    for number in range(400):
        owner.redis.hset("ari_conf:names:A", f"{number} " + "x" * 195, "id fake")
    response = api.get(f"Conference/?{SENT_TO}")
    assert response.status == 202
    entry = soon(owner)
    params = dict(entry.params)
    assert params["status_code"] == "413"
    assert "repeat the call without callback_url" in json.loads(params["response"])["error"]
    assert len(outbox.encode(entry)) < 1000
    assert len(api.get("Conference/").json["conferences"]) == 400, "the reply itself may be larger"


@within(1)
def test_an_account_has_so_many_under_way_and_no_more(api: Api, owner: Owner, served: Served, monkeypatch: Any):
    monkeypatch.setattr(later, "MAX_PER_ACCOUNT", 3)
    other = account(served, "B")
    owner.joins("ann")
    owner.joins("eve", auth="B")
    owner.deaf = True
    mute = "Conference/standup/Member/all/Mute/"
    answers = [api.post(mute, RESULT) for _ in range(5)]
    assert [response.status for response in answers] == [202] * 3 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert owner.redis.hlen(later.KEY) == 3, "a refused request leaves nothing"
    assert api.get("Conference/").status == 200
    assert other.post(mute, RESULT).status == 202
    eventually(lambda: owner.redis.hlen(later.KEY) == 0)
    eventually(lambda: not served.server._app.state.resources.async_call_counts)
    assert {dict(entry.params)["status_code"] for entry in waiting(owner)} == {"503"}
    assert api.post(mute, RESULT).status == 202


REFUSES = "a key that no part of ari_conf reads"


class TestRefused:
    """Redis answers, and refuses the result of the account A."""

    @pytest.fixture(autouse=True)
    def _quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("RETRY_DELAY_S", 0.01), ("MAX_ATTEMPTS", 5), ("POLL_INTERVAL_S", 0.05)):
            monkeypatch.setattr(later, name, value)

    @pytest.fixture
    def tried(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        ids, end = list[str](), later.complete

        async def counted(parts: Any, api_id: str, *more: Any) -> None:
            ids.append(api_id)
            await end(parts, api_id, *more)

        monkeypatch.setattr(later, "complete", counted)
        return ids

    @pytest.fixture
    def refuses(self, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refuse it as long as the key REFUSES exists."""
        refused = f"""
if ARGV[2]:sub(1, 2) == 'A:' and redis.call('EXISTS', '{REFUSES}') == 1 then
  return redis.error_reply('ERR not this one')
end
"""
        monkeypatch.setattr(later, "_SEND_RESULT", refused + later._SEND_RESULT)
        owner.redis.set(REFUSES, 1)

    def test_its_own_process_tries_so_often_and_no_more(
        self, served: Served, api: Api, owner: Owner, tried: list[str], refuses: None
    ):
        response = api.get(f"Conference/?{SENT_TO}")
        assert response.status == 202
        eventually(lambda: len(tried) >= 5)
        eventually(lambda: not served.server._app.state.resources.async_call_counts)
        assert tried == [response.json["api_id"]] * 5
        assert owner.redis.hlen(later.KEY) == 1, "it is kept for the processes that look for abandoned calls"

    @pytest.fixture
    def left(self, owner: Owner) -> None:
        """Leave results of a process that died, so long ago that they are given up if they fail now."""
        now_ms = owner.redis.time()[0] * 1000
        for number, auth_id in ((1, "A"), (2, "B")):
            pending = later.PendingResult(auth_id, "https://example.com/", "POST", now_ms - later.RESULT_TTL_MS - 1000)
            owner.redis.hset(later.KEY, f"call-{number}", msgspec.json.encode(pending))

    def test_an_undeliverable_result_becomes_a_problem_and_others_are_sent(
        self, api: Api, owner: Owner, refuses: None, left: None
    ):
        eventually(lambda: owner.redis.hlen(later.KEY) == 0)
        (problem,) = read_problems(owner.redis, "A")
        assert "call-1" in problem.text and "not sent" in problem.text
        assert problem.kind == ProblemKind.RESULT_LOST
        owner.redis.delete(REFUSES)
        (entry,) = waiting(owner)
        assert (entry.auth_id, dict(entry.params)["status_code"]) == ("B", "503")
        assert read_problems(owner.redis, "B") == []

    def test_one_that_was_left_lately_is_tried_on(self, api: Api, owner: Owner, refuses: None, tried: list[str]):
        now_ms = owner.redis.time()[0] * 1000
        pending = later.PendingResult("A", "https://example.com/", "POST", now_ms - 1000)
        owner.redis.hset(later.KEY, "call-1", msgspec.json.encode(pending))
        eventually(lambda: len(tried) >= 3)
        assert owner.redis.hexists(later.KEY, "call-1")
        owner.redis.delete(REFUSES)
        assert dict(soon(owner).params)["api_id"] == "call-1"

    def test_one_that_nobody_can_read_costs_itself_alone(self, api: Api, owner: Owner, left: None):
        owner.redis.hset(later.KEY, "call-0", "{")
        owner.redis.hset(later.KEY, b"\xff", '{"auth_id": 1}')
        eventually(lambda: owner.redis.hlen(later.KEY) == 0)
        assert sorted(dict(entry.params)["api_id"] for entry in waiting(owner)) == ["call-1", "call-2"]

    @within(3)
    def test_clock_of_redis_decides_which_process_is_late(self, owner: Owner, served: Served, monkeypatch: Any):
        """One `web` is an hour ahead of the one that carries out the call."""
        api = account(served, "A")
        owner.joins("ann")
        owner.deaf = True
        looked, real = list[str](), time.time
        monkeypatch.setattr(later.AbandonedCalls, "_complete", lambda _, api_id, *__, **___: looked.append(api_id))
        assert api.post("Conference/standup/Lock/", RESULT).status == 202
        monkeypatch.setattr(time, "time", lambda: real() + 3600)
        rounds = count_of(owner, "hscan")
        eventually(lambda: count_of(owner, "hscan") > rounds + 3)
        assert not looked


def count_of(owner: Owner, command: str) -> int:
    stats: dict[str, Any] = owner.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


# Sending all dead letters again.


def many_die(owner: Owner, number: int, auth_id: str = "A") -> None:
    pipe = owner.redis.pipeline()
    for n in range(number):
        entry = outbox.CallbackEntry(auth_id, f"http://example.com/{n}", "POST", (), 1)
        fields = {"partition": f"{auth_id}:o:{n}", "entry": outbox.encode(entry)}
        pipe.xadd(f"{prefix(outbox.QUEUE)}dead-letters:{auth_id}", fields)
    pipe.execute()


def test_all_are_sent_again_once_a_minute_so_many_and_one_after_another(api: Api, owner: Owner, served: Served):
    other = account(served, "B")
    many_die(owner, 1030)
    many_die(owner, 2, "B")
    before = owner.redis.time()
    answers = [api.post("DeadLetter/Resend/") for _ in range(25)]
    assert [response.status for response in answers] == [202] + [429] * 24
    assert (answers[0].json["resent"], answers[0].json["left"]) == (1000, 30)
    assert 0 < int(answers[1].headers["Retry-After"]) <= 60
    due = [int(at) for _, at in owner.redis.zrange("ari_conf:callbacks:delayed", 0, -1, withscores=True)]
    assert len(due) == 999, "the first of them starts immediately"
    began = before[0] * 1000 + before[1] // 1000
    assert due[-1] - began >= 999 * dead_letters.RESEND_INTERVAL_MS
    assert all(later - earlier >= dead_letters.RESEND_INTERVAL_MS // 2 for earlier, later in itertools.pairwise(due))
    # Each account has its own limit, and a single dead letter may be sent again at any time.
    assert other.post("DeadLetter/Resend/").json["resent"] == 2
    last = api.get("DeadLetter/?limit=1").json["dead_letters"][0]["id"]
    assert api.post(f"DeadLetter/{last}/Resend/").json["left"] == 29


def test_the_operator_sends_all_of_them_paced(owner: Owner):
    many_die(owner, 100)
    assert dead_letters.resend_all(owner.redis, "A") == 100
    due = owner.redis.zrange("ari_conf:callbacks:delayed", 0, -1, withscores=True)
    assert due[-1][1] - due[0][1] >= 98 * dead_letters.RESEND_INTERVAL_MS


def test_one_that_can_not_be_read_is_in_nobodys_way(api: Api, owner: Owner):
    key = f"{prefix(outbox.QUEUE)}dead-letters:A"
    dies(owner)
    valid = outbox.encode(outbox.CallbackEntry("A", "u", "POST", (), 1))
    strange = [
        owner.redis.xadd(key, {"partition": "A:o:l", "entry": "{"}),
        owner.redis.xadd(key, {"partition": "A:o:l"}),
        owner.redis.xadd(key, {"partition": b"\xff", "entry": valid}),
    ]
    dies(owner)
    assert len(api.get("DeadLetter/").json["dead_letters"]) == 2
    assert len(api.get("Callback/").json["objects"]) == 2
    for id in strange:
        assert api.get(f"DeadLetter/{id.decode()}/").status == 404
    assert api.post("DeadLetter/Resend/").json["resent"] == 2
