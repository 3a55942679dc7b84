"""A receiver that doesn't want our callbacks is not flooded with them, by real workers on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ari_conf import accounts, dead_letters, outbox
from ari_conf.http.retry import Outcome
from ari_conf.lane_scripts import FAILED_MS, GIVEN_UP_MS, MOST_FAILED
from ari_conf.lanes import Taken, Verdict
from ari_conf.problems import read_problems
from tasks import callbacks
from tests.http.misbehaving import receiving
from tests.redis import RedisServer
from tests.tasks.fleet import Receiver, Worker, callback, post, until

THREADS = 8
POLICY = "#rc=5&rp=all&tt=5000"
"""What makes the most of one callback: six tries, of up to six requests each."""


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
        (Outcome(0, 5, 200), -1),
        (Outcome(0, 5, 200, redirects=2), -1),
        (Outcome(0, 5, 200, redirects=5), 2),
        (Outcome(0, 5, 500), 1),
        (Outcome(0, 5, 404, redirects=5), 6),
        (Outcome(0, 5, failure="connect", reason="refused"), 1),
        (Outcome(0, 5, failure="redirects", reason="too many", redirects=5), 6),
        (Outcome(0, 5, failure="refused", reason="private"), 0),
        (Outcome(0, 5, failure="refused", reason="private", redirects=1), 1),
    ],
)
@pytest.mark.parametrize("policy", ["", "#rc=5&rp=all"])
def test_what_a_try_costs(outcome: Outcome, wasted: int, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, asked = served(monkeypatch, outcome, policy)
    assert verdict.wasted == wasted
    assert asked[0]["account"] == "MA1"


def test_for_one_that_is_given_up_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict, asked = served(monkeypatch, Outcome(0, 5, 200), given_up=True)
    assert asked == [] and (verdict.word, verdict.wasted) == ("dead", 0)


def served(
    monkeypatch: pytest.MonkeyPatch, outcome: Outcome, policy: str = "", *, given_up: bool = False
) -> tuple[Verdict, list[dict[str, Any]]]:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(callbacks, "attempt", lambda *_, **more: asked.append(more) or outcome)
    account = accounts.AccountRecord(auth_id="MA1", token="t", created_ms=0)
    worker: Any = SimpleNamespace(account=lambda _: account, leased=True)
    _, entry = outbox.entry(callback(f"http://receiver.test/{policy}", 1), 1)
    return callbacks.serve(worker, Taken("MA1:o:1", 1, entry, given_up)), asked


def most(began: float, each: int = 1) -> float:
    """Requests that one receiver may have got since: what it may at once, what was under way, and what comes later."""
    later = (time.monotonic() - began) * 1000 / FAILED_MS
    return MOST_FAILED + (2 * THREADS + 10) * each + 2 * later * each


def watched(seconds: float, count: Callable[[], int], bound: Callable[[], float]) -> None:
    until_ = time.monotonic() + seconds
    while time.monotonic() < until_:
        # The bound is taken after what it bounds: time goes on between them.
        found = count()
        assert found <= bound()
        time.sleep(0.1)


def test_one_that_fails_is_left_alone_and_nothing_is_lost(redis_server: RedisServer, workers: None) -> None:
    works = []
    with Receiver(lambda _: 200 if works else 500) as receiver, Receiver() as good:
        post(redis_server, [callback(f"{receiver.url}/{lane}{POLICY}", n) for n in range(2) for lane in range(200)])
        receiver.wait(lambda: len(receiver.received) >= MOST_FAILED // 2, 60)
        began = time.monotonic()
        watched(5, lambda: len(receiver.received), lambda: most(began))
        post(redis_server, [callback(f"{good.url}/{lane}", 0) for lane in range(50)])
        good.wait(lambda: len(good.received) == 50)
        works.append(True)
        until(lambda: outbox.totals(redis_server.client).waiting == 0, 60)
        assert dead_letters.listed(redis_server.client, "MA1") == []
        for lane in range(200):
            assert sorted(set(receiver.numbers(f"/{lane}"))) == [0, 1]
            assert receiver.numbers(f"/{lane}")[-1] == 1


def test_redirects_are_no_way_around_it(redis_server: RedisServer, workers: None) -> None:
    with receiving() as victim:
        post(redis_server, [callback(f"{victim.url('/loop')}?{lane}{POLICY}", 0) for lane in range(200)])
        until(lambda: len(victim.seen) >= MOST_FAILED // 2, 60)
        began = time.monotonic()
        watched(5, lambda: len(victim.seen), lambda: most(began, each=6))


def test_after_a_minute_callbacks_are_dead_letters_untried(redis_server: RedisServer, workers: None) -> None:
    with Receiver(lambda _: 500) as receiver:
        post(redis_server, [callback(f"{receiver.url}/{lane}{POLICY}", 0) for lane in range(200)])
        receiver.wait(lambda: len(receiver.received) >= MOST_FAILED, 60)
        (key,) = redis_server.client.scan_iter("ari_conf:callbacks:failing:MA1:*")
        till, since = redis_server.client.get(key).split()
        redis_server.client.set(key, f"{int(till)} {int(since) - GIVEN_UP_MS}", keepttl=True)
        until(lambda: outbox.totals(redis_server.client).waiting == 0, 60)
        asked = len(receiver.received)
    assert outbox.totals(redis_server.client).dead == 200 and asked < 200
    letters = dead_letters.listed(redis_server.client, "MA1")
    untried = [letter for letter in letters if not letter.entry.tries]
    assert untried and all("failed for more than a minute" in letter.entry.reason for letter in untried)
    assert any(
        "is a dead letter after 0 tries: its receiver has failed for more than a minute" in problem.text
        for problem in read_problems(redis_server.client, "MA1")
    )
