"""What became of callbacks: told from the lanes, the newest delivered ones and the dead letters."""

from __future__ import annotations

import time
from typing import Any

from ari_conf import lanes, outbox
from ari_conf.core.effects import PostCallback
from ari_conf.lanes import Lanes
from tests.web.conftest import Api, Owner, Served, account

KEPT_MS = 60_000


def post(owner: Owner, number: int, conference: str = "c1", auth: str = "A", lane: str = "c1") -> None:
    params = (("Event", "ConferenceEnter"), ("ConferenceUUID", conference), ("ConferenceName", "standup"))
    callback = PostCallback(lane, auth, "http://example.com/events", "POST", (*params, ("Number", str(number))))
    lanes.enqueue(owner.redis, [outbox.entry(callback, 1_700_000_000_000 + number)])


class Worker:
    def __init__(self, owner: Owner) -> None:
        self.lanes = Lanes(owner.redis)
        self.last = 0

    def take(self) -> lanes.Taken:
        self.last += 1
        taken = self.lanes.turn("w1", 64, self.last)
        assert taken is not None
        return taken

    def tell(self, verdict: lanes.Verdict) -> None:
        self.lanes.turn("w1", 64, None, verdict)


def with_try(taken: lanes.Taken, status: int) -> bytes:
    entry = outbox.decode(taken.entry)
    tries = (*entry.tries, outbox.Try(1_700_000_001_000, 12, status))
    return outbox.encode(outbox.Entry(entry.auth_id, entry.url, entry.method, entry.params, entry.at_ms, tries))


def listed(api: Api, query: str = "") -> list[tuple[str, str, int]]:
    told = api.get(f"Callback/?{query}").json["objects"]
    return [(one["params"]["Number"], one["state"], len(one["tries"])) for one in told]


def test_each_is_told_with_how_it_stands(api: Api, owner: Owner):
    worker = Worker(owner)
    for number in range(4):
        post(owner, number)
    assert listed(api) == [(str(n), "waiting", 0) for n in (3, 2, 1, 0)]
    taken = worker.take()
    worker.tell(lanes.done(taken, with_try(taken, 200), 10, KEPT_MS))
    taken = worker.take()
    worker.tell(lanes.dead(taken, with_try(taken, 500), 10, KEPT_MS))
    taken = worker.take()
    worker.tell(lanes.retry(taken, with_try(taken, 503), 30_000))
    assert listed(api) == [("3", "waiting", 0), ("2", "trying", 1), ("1", "dead", 1), ("0", "delivered", 1)]
    told: list[dict[str, Any]] = api.get("Callback/").json["objects"]
    trying, dead, delivered = told[1:]
    assert trying["next_try"] is not None and dead["next_try"] is None
    assert dead["dead_letter_id"] == api.get("DeadLetter/").json["dead_letters"][0]["id"]
    assert delivered["tries"] == [{"time": "2023-11-14T22:13:21.000+00:00", "status": 200, "error": "", "ms": 12}]
    assert (delivered["event"], delivered["conference_uuid"], delivered["conference_name"]) == (
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


def test_the_newest_delivered_ones_are_kept_and_no_more(api: Api, owner: Owner):
    worker = Worker(owner)
    for number in range(5):
        post(owner, number)
        taken = worker.take()
        worker.tell(lanes.done(taken, with_try(taken, 200), 3, KEPT_MS))
        worker.tell(lanes.done(taken, with_try(taken, 200), 3, KEPT_MS))
    assert [number for number, *_ in listed(api)] == ["4", "3", "2"]
    assert 0 < owner.redis.pttl("ari_conf:callbacks:delivered:A") <= KEPT_MS


def test_with_none_kept_none_is(api: Api, owner: Owner):
    worker = Worker(owner)
    post(owner, 1)
    taken = worker.take()
    worker.tell(lanes.done(taken, with_try(taken, 200), 0, KEPT_MS))
    assert listed(api) == []
    assert not owner.redis.exists("ari_conf:callbacks:delivered:A")


def test_a_thousand_are_looked_through_quickly(api: Api, owner: Owner):
    worker = Worker(owner)
    for number in range(300):
        post(owner, number, lane=f"lane {number}")
    for _ in range(200):
        taken = worker.take()
        worker.tell(lanes.done(taken, with_try(taken, 200), 1000, KEPT_MS))
    began = time.monotonic()
    assert api.get("Callback/").json["meta"]["total_count"] == 300
    assert time.monotonic() - began < 0.5
