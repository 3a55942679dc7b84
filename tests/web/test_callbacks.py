"""Tests of the states of callbacks, from the queues, the newest delivered ones and the dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ari_conf.core.effects import PostCallback
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import callback_outcomes, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import PartitionedQueue
from ari_conf.settings import from_environment
from tests.history.drain import drain
from tests.web.conftest import Api, Owner, Served, account
from tests.web.test_dead_letters import dies

KEPT_MS = 60_000


@pytest.fixture
def history(tmp_path: Path) -> Iterator[HistoryDatabase]:
    """Return the database of the web process, with its tables."""
    database = HistoryDatabase(from_environment({"ARI_CONF_DATABASE_URL": f"sqlite:///{tmp_path}/history.db"}))
    database.migrate()
    yield database
    database.close()


def post(owner: Owner, number: int, conference: str = "c1", auth: str = "A", lane: str = "c1") -> None:
    params = (("Event", "ConferenceEnter"), ("ConferenceUUID", conference), ("ConferenceName", "standup"))
    callback = PostCallback(lane, auth, "http://example.com/events", "POST", (*params, ("Number", str(number))))
    partitioned_queue.enqueue(owner.redis, [outbox.enqueue_item(callback, 1_700_000_000_000 + number)])


class Worker:
    now_ms = 1_700_000_100_000

    def __init__(self, owner: Owner) -> None:
        self.lanes = PartitionedQueue(owner.redis)
        self.last = 0

    def take(self) -> partitioned_queue.ClaimedEntry:
        self.last += 1
        taken = self.lanes.claim("w1", 64, self.last)
        assert taken is not None
        return taken

    def tell(self, verdict: partitioned_queue.Disposition) -> None:
        self.lanes.settle("w1", 64, verdict)


def delivered(taken: partitioned_queue.ClaimedEntry) -> partitioned_queue.Disposition:
    """Return what a worker says of a callback that was delivered."""
    Worker.now_ms += 1
    entry = outbox.decode(with_try(taken, 200))
    outcome = callback_outcomes.history_entry(taken.partition, entry, "delivered", Worker.now_ms)
    return partitioned_queue.ack(taken, history=outcome)


def with_try(taken: partitioned_queue.ClaimedEntry, status: int) -> bytes:
    entry = outbox.decode(taken.entry)
    tries = (*entry.attempts, outbox.Attempt(1_700_000_001_000, 12, status))
    return outbox.encode(outbox.CallbackEntry(entry.auth_id, entry.url, entry.method, entry.params, entry.at_ms, tries))


def listed(api: Api, query: str = "") -> list[tuple[str, str, int]]:
    response = api.get(f"Callback/?{query}").json["objects"]
    return [(one["params"]["Number"], one["state"], len(one["tries"])) for one in response]


def test_each_callback_is_listed_with_its_state(api: Api, owner: Owner):
    worker = Worker(owner)
    for number in range(4):
        post(owner, number)
    assert listed(api) == [(str(n), "waiting", 0) for n in (3, 2, 1, 0)]
    taken = worker.take()
    worker.tell(delivered(taken))
    taken = worker.take()
    worker.tell(partitioned_queue.dead_letter(taken, with_try(taken, 500), 10, KEPT_MS))
    taken = worker.take()
    worker.tell(partitioned_queue.retry(taken, with_try(taken, 503), 30_000))
    assert listed(api) == [("3", "waiting", 0), ("2", "trying", 1), ("1", "dead", 1), ("0", "delivered", 1)]
    response: list[dict[str, Any]] = api.get("Callback/").json["objects"]
    trying, dead, done = response[1:]
    assert trying["next_try"] is not None and dead["next_try"] is None
    assert dead["dead_letter_id"] == api.get("DeadLetter/").json["dead_letters"][0]["id"]
    assert done["tries"] == [{"time": "2023-11-14T22:13:21.000+00:00", "status": 200, "error": "", "ms": 12}]
    assert (done["event"], done["conference_uuid"], done["conference_name"]) == (
        "ConferenceEnter",
        "c1",
        "standup",
    )


def test_one_that_is_being_delivered_is_there_too(api: Api, owner: Owner):
    post(owner, 1)
    Worker(owner).take()
    assert listed(api) == [("1", "waiting", 0)]


def test_of_one_conference_and_in_parts(api: Api, owner: Owner, served: Served):
    for number in range(5):
        post(owner, number, "c1" if number % 2 else "c2", lane=f"lane {number}")
    post(owner, 9, "c1", auth="B")
    account(served, "B")
    assert [number for number, *_ in listed(api, "conference_uuid=c1")] == ["3", "1"]
    assert [number for number, *_ in listed(api, "conference_uuid=c2&limit=2&offset=1")] == ["2", "0"]
    meta = api.get("Callback/?limit=2&offset=2").json["meta"]
    assert (meta["total_count"], meta["limit"], meta["offset"]) == (5, 2, 2)
    assert meta["next"].endswith("/Callback/?limit=2&offset=4")
    assert meta["previous"].endswith("/Callback/?limit=2&offset=0")
    assert listed(api, "conference_uuid=") == listed(api)
    assert listed(api, "conference_uuid=nothing") == []


def test_delivered_ones_are_listed_before_and_after_they_are_written(api: Api, owner: Owner, history: HistoryDatabase):
    worker = Worker(owner)
    for number in range(5):
        post(owner, number, "c1" if number % 2 else "c2")
        taken = worker.take()
        worker.tell(delivered(taken))
        worker.tell(delivered(taken))  # the answer was lost
        if number == 2:
            drain(owner.redis, history)
    assert [number for number, *_ in listed(api)] == ["4", "3", "2", "1", "0"]
    assert [number for number, *_ in listed(api, "conference_uuid=c2")] == ["4", "2", "0"]
    drain(owner.redis, history)
    assert [number for number, *_ in listed(api)] == ["4", "3", "2", "1", "0"]
    assert [number for number, *_ in listed(api, "conference_uuid=c1")] == ["3", "1"]
    meta = api.get("Callback/?limit=2&offset=1").json["meta"]
    assert meta["total_count"] == 5 and not owner.redis.keys("ari_conf:history-inbox:*")


def test_without_the_database_the_others_are_listed_and_it_says_so(api: Api, owner: Owner):
    post(owner, 1)
    response = api.get("Callback/").json
    assert [one["state"] for one in response["objects"]] == ["waiting"] and response["incomplete"] is True


def test_of_an_older_worker_they_are_listed_too(api: Api, owner: Owner, history: HistoryDatabase):
    post(owner, 1)
    taken = Worker(owner).take()
    owner.redis.lpush("ari_conf:callbacks:delivered:A", with_try(taken, 200))
    assert ("1", "delivered", 1) in listed(api)
    assert "incomplete" not in api.get("Callback/").json


# The cost of a list.


class Reads:
    """Counter of the bytes that were read from Redis since the last request."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.since()

    def since(self) -> int:
        sent = int(self.owner.redis.info("stats")["total_net_output_bytes"])
        read, self._sent = sent - getattr(self, "_sent", sent), sent
        return read


def large(owner: Owner, size: int, number: int, auth: str = "A") -> None:
    """Create that many of each kind (queued, delivered, dead) as the worker leaves them, whatever made them so
    large."""
    entry = outbox.encode(
        outbox.CallbackEntry(auth, "http://example.com/" + "a" * size, "POST", (("ConferenceUUID", "c1"),), 1)
    )
    pipe = owner.redis.pipeline(transaction=False)
    for n in range(number):
        pipe.xadd(f"ari_conf:callbacks:dead-letters:{auth}", {"partition": f"{auth}:o:l", "entry": entry})
        pipe.lpush(f"ari_conf:callbacks:delivered:{auth}", entry)
        pipe.rpush(f"ari_conf:callbacks:partition:{auth}:o:{n % 50}", entry)
        pipe.zadd("ari_conf:callbacks:delayed", {f"{auth}:o:{n % 50}": 1e15})
        if n % 100 == 99:
            pipe.execute()
    pipe.execute()


def test_a_page_reads_what_it_shows_and_not_all_that_there_is(api: Api, owner: Owner, history: HistoryDatabase):
    for number in range(300):
        post(owner, number, lane=f"lane {number}")
    worker = Worker(owner)
    for _ in range(300):
        taken = worker.take()
        worker.tell(delivered(taken))
    drain(owner.redis, history)
    for _ in range(300):
        dies(owner)
    reads = Reads(owner)
    assert api.get("Callback/?limit=1").json["meta"]["total_count"] == 600
    one = reads.since()
    assert len(api.get("Callback/?limit=100&offset=400").json["objects"]) == 100
    many = reads.since()
    assert one < 30_000 < many


LISTS = ["Callback/?limit=1", "Callback/?limit=100&offset=900", "Callback/?conference_uuid=c1", "DeadLetter/?limit=200"]


@pytest.mark.parametrize("query", LISTS)
def test_however_large_they_are_a_list_reads_and_gives_a_bounded_amount(api: Api, owner: Owner, query: str):
    large(owner, 60_000, 300)
    reads = Reads(owner)
    response = api.get(query)
    assert response.status == 200
    assert reads.since() < 8_000_000
    assert len(response.text) < 6_000_000


def test_only_reachable_callbacks_are_counted(api: Api, owner: Owner):
    """Otherwise the page would link to empty pages."""
    large(owner, 60_000, 100)
    seen, path = 0, "/Callback/?limit=20"
    while path:
        response = api.get(path.rpartition("/Account/A/")[2].lstrip("/")).json
        seen += len(response["objects"])
        path = response["meta"]["next"]
    assert seen == response["meta"]["total_count"] > 20


def test_one_accounts_expensive_lists_are_not_waited_for_by_another(api: Api, owner: Owner, served: Served):
    """The account sends many requests concurrently, each as large as possible; the other account's are answered in the
    meantime."""
    other = account(served, "B")
    large(owner, 60_000, 80)
    post(owner, 1, auth="B")
    other.get("Callback/")
    with ThreadPoolExecutor(60) as threads:
        asked = [threads.submit(api.get, "Callback/?limit=100") for _ in range(60)]
        answered = 0
        while not all(one.done() for one in asked):
            assert other.get("Callback/").json["meta"]["total_count"] == 1
            answered += 1
        statuses = Counter(one.result().status for one in asked)
    assert statuses.keys() <= {200, 429}
    assert statuses[200] >= 50, "that many may wait"
    print(f"answered {answered} times meanwhile")
    assert answered > 10, "the other account is served in turn, not after all earlier requests"


def test_unreadable_callback_is_left_out(api: Api, owner: Owner):
    for number in range(2):
        post(owner, number)
        owner.redis.rpush(next(owner.redis.scan_iter("ari_conf:callbacks:partition:*")), "{")
    owner.redis.lpush("ari_conf:callbacks:delivered:A", '{"auth_id": 1}')
    assert [state for _, state, _ in listed(api)] == ["waiting", "waiting"]
