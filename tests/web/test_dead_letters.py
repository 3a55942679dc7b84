"""Tests of dead letters and problems, asynchronous calls, and metrics: everything that is stored in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from ari_conf.core.effects import CommandReply, PostCallback
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.queues import outbox, partitioned_queue, queue_names
from ari_conf.queues.command_queue import reply_key
from ari_conf.queues.partitioned_queue import PartitionedQueue, prefix
from ari_conf.store.problems import Problem, encoded, problems_key
from ari_conf.web import async_calls, metrics
from tests.lateness import Patience
from tests.web.conftest import Api, Owner, Served, account


def dies(owner: Owner, auth_id: str = "A", url: str = "http://example.com/events") -> str:
    """Create a callback that could not be delivered, and return its id."""
    tries = (
        outbox.Attempt(1_700_000_000_000, 12, status=500),
        outbox.Attempt(1_700_000_000_300, 2000, error="no answer"),
    )
    entry = outbox.CallbackEntry(auth_id, url, "POST", (("Event", "ConferenceEnter"),), 1_700_000_000_000, tries)
    fields = {"partition": f"{auth_id}:o:l", "entry": outbox.encode(entry)}
    return owner.redis.xadd(f"{prefix(outbox.QUEUE)}dead-letters:{auth_id}", fields).decode()


def waiting(owner: Owner) -> list[outbox.CallbackEntry]:
    """Return the callbacks that the workers have to deliver."""
    keys = sorted(owner.redis.scan_iter(f"{prefix(outbox.QUEUE)}partition:*"))
    return [outbox.decode(text) for key in keys for text in owner.redis.lrange(key, 0, -1)]


def test_dead_letters_are_listed_the_newest_first(api: Api, owner: Owner):
    ids = [dies(owner) for _ in range(3)]
    dies(owner, "B")
    response = api.get("DeadLetter/").json["dead_letters"]
    assert [letter["id"] for letter in response] == ids[::-1]
    assert response[0]["url"] == "http://example.com/events"
    assert response[0]["params"] == {"Event": "ConferenceEnter"}
    assert response[0]["tries"] == [
        {"time": "2023-11-14T22:13:20.000+00:00", "status": 500, "error": "", "ms": 12},
        {"time": "2023-11-14T22:13:20.300+00:00", "status": 0, "error": "no answer", "ms": 2000},
    ]
    assert [letter["id"] for letter in api.get(f"DeadLetter/?limit=1&before={ids[2]}").json["dead_letters"]] == [ids[1]]


def test_no_list_shows_the_password_of_a_url(api: Api, owner: Owner):
    id = dies(owner, url="https://me:s3cret@example.com/events?a=1")
    for response in (api.get("DeadLetter/"), api.get(f"DeadLetter/{id}/"), api.get("Callback/")):
        assert "https://***@example.com/events?a=1" in str(response.json) and "s3cret" not in str(response.json)
    assert api.post(f"DeadLetter/{id}/Resend/").status == 202
    (entry,) = waiting(owner)
    assert entry.url == "https://me:s3cret@example.com/events?a=1", "it is sent again unchanged"
    assert "s3cret" not in str(api.get("Callback/").json)


def test_one_is_shown(api: Api, owner: Owner):
    id = dies(owner)
    assert api.get(f"DeadLetter/{id}/").json["dead_letter"]["id"] == id
    of_another = dies(owner, "B")
    for wrong in ("1-1", "x", "%2A", of_another, "-", "+"):
        assert api.get(f"DeadLetter/{wrong}/").json["error"] == "dead letter not found"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=1000", "before=x"])
def test_a_bad_page(api: Api, query: str):
    response = api.get(f"DeadLetter/?{query}")
    assert response.status == 400
    assert response.json["error"].startswith(query.partition("=")[0])


def test_one_is_sent_again(api: Api, owner: Owner):
    id = dies(owner)
    dies(owner)
    response = api.post(f"DeadLetter/{id}/Resend/")
    assert (response.status, response.json["resent"]) == (202, 1)
    (entry,) = waiting(owner)
    assert (entry.url, entry.attempts) == ("http://example.com/events", ())
    assert api.post(f"DeadLetter/{id}/Resend/").status == 404
    assert len(api.get("DeadLetter/").json["dead_letters"]) == 1


def test_all_are_sent_again_and_none_of_anothers(api: Api, owner: Owner):
    for _ in range(3):
        dies(owner)
    dies(owner, "B")
    first = api.post("DeadLetter/Resend/", Idempotency_Key="k")
    assert first.json["resent"] == 3
    assert {entry.auth_id for entry in waiting(owner)} == {"A"}
    assert api.post("DeadLetter/Resend/", Idempotency_Key="k").json == first.json
    again = api.post("DeadLetter/Resend/")
    assert (again.status, 50 < int(again.headers["Retry-After"]) <= 60) == (429, True)


def test_problems(api: Api, served: Served, owner: Owner):
    problem = Problem(1_700_000_000_000, "c1", ProblemKind.DOCUMENT_UNREACHABLE, "the answer URL is away", 7011)
    owner.redis.lpush(problems_key("A"), encoded(problem))
    (response,) = api.get("Problem/").json["problems"]
    assert response == {
        "time": "2023-11-14T22:13:20.000+00:00",
        "call_uuid": "c1",
        "kind": "document_unreachable",
        "code": 7011,
        "text": problem.text,
    }
    assert account(served, "B").get("Problem/").json["problems"] == []


# Asynchronous calls.


def test_the_result_is_sent_to_the_callback_url(api: Api, owner: Owner):
    owner.joins("ann")
    url = "https://example.com/result#rc=2"
    response = api.post("Conference/standup/Member/all/Mute/", {"callback_url": url, "callback_method": "GET"})
    assert (response.status, set(response.json)) == (202, {"api_id"})
    entry = soon(owner)
    assert (entry.url, entry.method, entry.auth_id) == (url, "GET", "A")
    params = dict(entry.params)
    assert (params["api_id"], params["status_code"]) == (response.json["api_id"], "202")
    assert json.loads(params["response"]) == {"api_id": response.json["api_id"], "message": "muted", "member_id": ["1"]}


def test_so_is_an_error(api: Api, owner: Owner):
    response = api.delete("Conference/nothing/", {"callback_url": "https://example.com/result"})
    assert response.status == 202
    params = dict(soon(owner).params)
    assert params["status_code"] == "404"
    assert json.loads(params["response"]) == {"api_id": response.json["api_id"], "error": "conference not found"}


def test_a_get_may_be_asynchronous(api: Api, owner: Owner):
    assert api.get("Conference/?callback_url=https%3A%2F%2Fexample.com%2Fresult").status == 202
    assert json.loads(dict(soon(owner).params)["response"])["conferences"] == []


class TestLeftUndone:
    """The process that accepted the call died during it: only `ari_conf:pending-results` is left."""

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(async_calls, "POLL_INTERVAL_S", 0.05)

    def left(self, owner: Owner, until_ms: int) -> None:
        promised = async_calls.PendingResult("A", "https://example.com/result", "POST", until_ms)
        owner.redis.hset(async_calls.KEY, "call-1", msgspec.json.encode(promised))

    def test_the_reply_of_the_owner_is_returned(self, owner: Owner, api: Api):
        reply = CommandReply("call-1", 202, (("message", "muted"),))
        owner.redis.set(reply_key("call-1"), msgspec.json.encode(reply))
        self.left(owner, 1)
        params = dict(soon(owner).params)
        assert (params["api_id"], params["status_code"]) == ("call-1", "202")
        assert json.loads(params["response"]) == {"api_id": "call-1", "message": "muted"}
        assert not owner.redis.exists(async_calls.KEY)

    def test_without_a_reply_that_it_was_interrupted(self, owner: Owner, api: Api):
        self.left(owner, 1)
        params = dict(soon(owner).params)
        assert (params["status_code"], "interrupted" in params["response"]) == ("503", True)

    def test_not_while_it_may_still_be_under_way_and_once_by_several(self, owner: Owner, api: Api, served: Served):
        now_ms = owner.redis.time()[0] * 1000
        with Served(served.settings, Owner(owner.url)):
            self.left(owner, now_ms + 3_600_000)
            self.all_look(owner)
            assert waiting(owner) == []
            self.left(owner, now_ms - 1000)
            soon(owner)
            self.all_look(owner)
            assert len(waiting(owner)) == 1

    def all_look(self, owner: Owner) -> None:
        """Wait for some more rounds: all processes look equally often."""

        def rounds() -> int:
            return int(owner.redis.info("commandstats").get("cmdstat_hscan", {"calls": 0})["calls"])

        before, patience = rounds(), Patience(20)
        while rounds() < before + 8:
            assert not patience.over
            time.sleep(0.01)


def soon(owner: Owner) -> outbox.CallbackEntry:
    patience = Patience(5)
    while not (found := waiting(owner)):
        assert not patience.over, "no callback was queued"
        time.sleep(0.01)
    (entry,) = found
    return entry


# Metrics.


def test_metrics(api: Api, owner: Owner):
    callback = PostCallback("lane", "A", "http://example.com/", "POST", ())
    partitioned_queue.enqueue(owner.redis, [outbox.enqueue_item(callback, int(time.time() * 1000) - 5000)])
    made = int(time.time() * 1000) - 9000
    partitioned_queue.enqueue(owner.redis, [(f"A:o:{n}", b'{"at_ms": %d}' % made) for n in range(2)], "recordings")
    api.get("Conference/")
    api.get("Conference/nothing/")
    api.send("BREW", "Conference/")
    removals = PartitionedQueue(owner.redis, queue_names.REMOVALS)
    removals.heartbeat("host-5-abc", 1, [], 0, reclaim=False, fault="a thread is stuck")
    text = api.get("/metrics", Authorization="").text.decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    place = "/v1/Account/{auth_id}/Conference/"
    assert lines[f'ari_conf_api_requests_total{{method="GET",path="{place}",status="200"}}'] == "1.0"
    assert lines[f'ari_conf_api_requests_total{{method="GET",path="{place}{{name}}/",status="404"}}'] == "1.0"
    assert any('method="other"' in line for line in lines) and "BREW" not in text
    assert lines["ari_conf_callbacks_waiting"] == lines["ari_conf_callback_lane_depth"] == "1.0"
    assert lines["ari_conf_recordings_waiting"] == "2.0"
    assert 9 <= float(lines["ari_conf_recordings_oldest_seconds"]) < 20
    assert lines["ari_conf_transcriptions_waiting"] == "0.0"
    stuck = {name: lines[f'ari_conf_stuck_workers{{queue="{name}"}}'] for name in queue_names.ALL}
    assert stuck == {name: "1.0" if name == queue_names.REMOVALS else "0.0" for name in queue_names.ALL}
    assert lines["ari_conf_event_streams"] == "0.0"
    assert float(lines["ari_conf_callbacks_oldest_seconds"]) >= 5
    assert "standup" not in text and "nothing" not in text


MANY = "for i = ARGV[1] + 1, ARGV[1] + ARGV[2] do redis.call('SET', 'ari_conf:recording:'..i, 'x') end"


def commands_of(owner: Owner, what: Callable[[], Any]) -> dict[str, int]:
    """Return how often each Redis command ran during the call."""
    owner.redis.config_resetstat()
    what()
    return {name: stats["calls"] for name, stats in owner.redis.info("commandstats").items()}


def test_cost_of_metrics_does_not_grow_with_redis(api: Api, owner: Owner, monkeypatch: Any):
    """Metrics need no login. 400,000 keys are those of 100,000 recordings."""
    monkeypatch.setattr(metrics, "UPDATE_INTERVAL_S", 0.0)

    def ask() -> None:
        assert api.get("/metrics", Authorization="").status == 200

    for number in range(300):
        callback = PostCallback(f"c{number}", "A", f"http://example.com/{number}", "POST", ())
        partitioned_queue.enqueue(owner.redis, [outbox.enqueue_item(callback, 1)])
    few = commands_of(owner, ask)
    for first in range(0, 400_000, 20_000):
        owner.redis.eval(MANY, 0, first, 20_000)
    many = commands_of(owner, ask)
    assert "cmdstat_scan" not in many and "cmdstat_keys" not in many
    for name in few.keys() | many.keys():
        # The owner and the listeners send a request from time to time.
        assert abs(many.get(name, 0) - few.get(name, 0)) < 20, name


def test_concurrent_metrics_requests_share_one_update(api: Api, owner: Owner):
    def ask() -> None:
        with ThreadPoolExecutor(20) as threads:
            asked = [threads.submit(api.get, "/metrics", Authorization="") for _ in range(60)]
            assert {one.result().status for one in asked} == {200}

    began = time.monotonic()
    commands = commands_of(owner, ask)
    looks = 1 + (time.monotonic() - began) / metrics.UPDATE_INTERVAL_S
    assert commands["cmdstat_zcard"] <= 3 * looks


def test_unreadable_dead_letter_is_counted(api: Api, owner: Owner):
    partitioned_queue.enqueue(owner.redis, [("A:o:strange", b"{"), ("A:o:other", b'{"at_ms": "x"}')])
    text = api.get("/metrics", Authorization="").text.decode()
    assert "ari_conf_callbacks_waiting 2.0" in text
    assert "ari_conf_callback_lanes 2.0" in text
