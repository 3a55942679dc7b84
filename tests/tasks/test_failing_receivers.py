"""Real workers on a real Redis do not flood a receiver that refuses its callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ari_conf.http_client.retry_policy import AttemptOutcome
from ari_conf.queues import dead_letters, outbox
from ari_conf.queues.limits import GIVE_UP_MS, MAX_RECEIVER_FAILURES, RECEIVER_FAILURE_MS
from ari_conf.queues.partitioned_queue import ClaimedEntry, Disposition, Outcome
from ari_conf.store import accounts
from ari_conf.store.problems import read_problems
from tasks import callbacks
from tests.http_client.misbehaving import receiving
from tests.redis import RedisServer
from tests.tasks.fleet import Receiver, Worker, callback, post, until

THREADS = 8
POLICY = "#rc=5&rp=all&tt=5000"
"""The policy with the most requests for one callback: six tries, of up to six requests each."""


@pytest.fixture
def workers(redis_server: RedisServer, tmp_path: Path) -> Iterator[None]:
    accounts.add(redis_server.client, 1, "MA1")
    running = [Worker(redis_server, tmp_path, THREADS) for _ in range(2)]
    yield
    for worker in running:
        worker.end()


@pytest.mark.parametrize(
    ("outcome", "wasted"),
    [
        (AttemptOutcome(0, 5, 200), -1),
        (AttemptOutcome(0, 5, 200, redirects=2), -1),
        (AttemptOutcome(0, 5, 200, redirects=5), 2),
        (AttemptOutcome(0, 5, 500), 1),
        (AttemptOutcome(0, 5, 404, redirects=5), 6),
        (AttemptOutcome(0, 5, failure="connect", reason="refused"), 1),
        (AttemptOutcome(0, 5, failure="redirects", reason="too many", redirects=5), 6),
        (AttemptOutcome(0, 5, failure="refused", reason="private"), 0),
        (AttemptOutcome(0, 5, failure="refused", reason="private", redirects=1), 1),
    ],
)
@pytest.mark.parametrize("policy", ["", "#rc=5&rp=all"])
def test_cost_of_an_attempt(outcome: AttemptOutcome, wasted: int, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, asked = served(monkeypatch, outcome, policy)
    assert verdict.wasted == wasted
    assert asked[0]["account"] == "MA1"


def test_for_one_that_is_given_up_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, asked = served(monkeypatch, AttemptOutcome(0, 5, 200), given_up=True)
    assert asked == [] and (verdict.outcome, verdict.wasted) == (Outcome.DEAD_LETTER, 0)


def served(
    monkeypatch: pytest.MonkeyPatch, outcome: AttemptOutcome, policy: str = "", *, given_up: bool = False
) -> tuple[Disposition, list[dict[str, Any]]]:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(callbacks, "attempt", lambda *_, **more: asked.append(more) or outcome)
    account = accounts.AccountRecord(auth_id="MA1", token="t", created_ms=0)
    worker: Any = SimpleNamespace(account=lambda _: account, has_lease=True)
    _, entry = outbox.enqueue_item(callback(f"http://receiver.test/{policy}", 1), 1)
    return callbacks.deliver_once(worker, ClaimedEntry("MA1:o:1", 1, entry, given_up), outbox.decode(entry)), asked


def most(began: float, each: int = 1) -> float:
    """Return the most requests to one receiver since `began`: allowed at once, already under way, and later."""
    later = (time.monotonic() - began) * 1000 / RECEIVER_FAILURE_MS
    return MAX_RECEIVER_FAILURES + (2 * THREADS + 10) * each + 2 * later * each


def watched(seconds: float, count: Callable[[], int], bound: Callable[[], float]) -> None:
    until_ = time.monotonic() + seconds
    while time.monotonic() < until_:
        # The bound is read after the count, because it grows with time.
        found = count()
        assert found <= bound()
        time.sleep(0.1)


def test_one_that_fails_is_left_alone_and_nothing_is_lost(redis_server: RedisServer, workers: None) -> None:
    works = []
    with Receiver(lambda _: 200 if works else 500) as receiver, Receiver() as good:
        post(redis_server, [callback(f"{receiver.url}/{lane}{POLICY}", n) for n in range(2) for lane in range(200)])
        receiver.wait(lambda: len(receiver.received) >= MAX_RECEIVER_FAILURES // 2, 60)
        began = time.monotonic()
        watched(5, lambda: len(receiver.received), lambda: most(began))
        post(redis_server, [callback(f"{good.url}/{lane}", 0) for lane in range(50)])
        good.wait(lambda: len(good.received) == 50)
        works.append(True)
        until(lambda: outbox.totals(redis_server.client).waiting == 0, 60)
        assert dead_letters.list_newest(redis_server.client, "MA1") == []
        for lane in range(200):
            assert sorted(set(receiver.numbers(f"/{lane}"))) == [0, 1]
            assert receiver.numbers(f"/{lane}")[-1] == 1


def test_redirects_are_no_way_around_it(redis_server: RedisServer, workers: None) -> None:
    with receiving() as victim:
        post(redis_server, [callback(f"{victim.url('/loop')}?{lane}{POLICY}", 0) for lane in range(200)])
        until(lambda: len(victim.seen) >= MAX_RECEIVER_FAILURES // 2, 60)
        began = time.monotonic()
        watched(5, lambda: len(victim.seen), lambda: most(began, each=6))


def test_after_a_minute_callbacks_are_dead_letters_untried(redis_server: RedisServer, workers: None) -> None:
    with Receiver(lambda _: 500) as receiver:
        post(redis_server, [callback(f"{receiver.url}/{lane}{POLICY}", 0) for lane in range(200)])
        receiver.wait(lambda: len(receiver.received) >= MAX_RECEIVER_FAILURES, 60)
        (key,) = redis_server.client.scan_iter("ari_conf:callbacks:failing:MA1:*")
        till, since = redis_server.client.get(key).split()
        redis_server.client.set(key, f"{int(till)} {int(since) - GIVE_UP_MS}", keepttl=True)
        until(lambda: outbox.totals(redis_server.client).waiting == 0, 60)
        asked = len(receiver.received)
    assert outbox.totals(redis_server.client).dead == 200 and asked < 200
    letters = dead_letters.list_newest(redis_server.client, "MA1")
    untried = [letter for letter in letters if not letter.entry.attempts]
    assert untried and all("failed for more than a minute" in letter.entry.reason for letter in untried)
    assert any(
        "is a dead letter after 0 tries: its receiver has failed for more than a minute" in problem.text
        for problem in read_problems(redis_server.client, "MA1")
    )
