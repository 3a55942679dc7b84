"""Tests of receivers that fail repeatedly: they rest for a while, so that retries flood no receiver, and no callback is
lost."""

from __future__ import annotations

import pytest

from ari_conf.common import lua
from ari_conf.queues import partitioned_queue
from ari_conf.queues.limits import (
    GIVE_UP_MS,
    MAX_ACCOUNT_FAILURES,
    MAX_RECEIVER_FAILURES,
    MAX_RECEIVERS_PER_CLAIM,
    RECEIVER_FAILURE_MS,
)
from ari_conf.queues.partitioned_queue import (
    ClaimedEntry,
    Disposition,
    PartitionedQueue,
    ack,
    dead_letter,
    enqueue,
    retry,
)
from tests.redis import RedisServer

FAILING = "ari_conf:callbacks:failing:"
CLOCK = """
local function now_ms()
  return tonumber(redis.call('GET', 'clock'))
end
"""


class Play:
    """A worker that claims and settles, on a Redis whose clock stands still until the test advances it."""

    def __init__(self, server: RedisServer) -> None:
        self.server, self.queue, self.last = server, PartitionedQueue(server.client), 0
        server.client.set("clock", 1_790_000_000_000)

    def put(self, *partitions: str) -> None:
        enqueue(self.server.client, [(partition, b"x") for partition in partitions])

    def take(self, worker: str = "w1") -> ClaimedEntry | None:
        self.last += 1
        return self.queue.claim(worker, 64, self.last)

    def take_all(self, worker: str = "w1") -> list[ClaimedEntry]:
        found = []
        while taken := self.take(worker):
            found.append(taken)
        return found

    def settle(self, disposition: Disposition, worker: str = "w1") -> None:
        self.queue.settle(worker, 64, disposition)

    def fail(self, receiver: str, times: int, wasted: int = 1) -> None:
        """Send the receiver that many callbacks, one after another; each becomes a dead letter after one attempt."""
        self.put(*(f"{receiver}:lane{n}" for n in range(times)))
        for _ in range(times):
            taken = self.take()
            assert taken is not None
            self.settle(dead_letter(taken, b"x", 1000, 60_000, wasted=wasted))

    def pass_ms(self, ms: int) -> None:
        self.server.client.incrby("clock", ms)


@pytest.fixture
def play(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Play:
    clock, _, _ = lua.without_comments(lua.source("ari_conf.common.scripts.clock")).partition("return {")
    for name in ("CLAIM", "SETTLE", "SETTLE_AND_CLAIM", "ISSUE_WAKEUPS", "ENQUEUE"):
        script = getattr(partitioned_queue, name)
        assert clock in script
        monkeypatch.setattr(partitioned_queue, name, script.replace(clock, CLOCK))
    return Play(redis_server)


def test_a_failing_receiver_gets_fewer_and_fewer_requests(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES // 2)
    play.put(*(f"A:down:{n}" for n in range(100)))
    taken = play.take_all()
    assert len(taken) == 42, "up to half of its share: as always (64 x 3/4 x 7/8)"
    for one in taken:
        play.settle(retry(one, b"x", 0, wasted=1))
    assert play.take() is None, "its share is used up, and the receiver rests"
    assert play.queue.issue_wakeups() == [], "no worker is woken for entries that it may not claim"
    play.pass_ms(12 * RECEIVER_FAILURE_MS)
    assert len(play.take_all()) == 1, "one at a time per worker"
    assert len(play.take_all("w2")) == 1


def test_it_rests_between_two_tries(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES + 1)
    play.put(*(f"A:down:{n}" for n in range(5)))
    assert play.take() is None
    for _ in range(3):
        play.pass_ms(RECEIVER_FAILURE_MS)
        taken = play.take()
        assert taken is not None
        play.settle(retry(taken, b"x", 60_000, wasted=1))
        assert play.take() is None


def test_others_don_t_rest_with_it(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES + 1)
    play.put("A:down:1", "A:up:1", "B:down:1")
    assert {taken.partition for taken in play.take_all()} == {"A:up:1", "B:down:1"}


def test_a_recovered_receiver_gets_all_requests(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES + 1)
    play.put(*(f"A:down:{n}" for n in range(200)))
    play.pass_ms(RECEIVER_FAILURE_MS)
    reported = 0
    while (taken := play.take()) is not None:
        play.settle(ack(taken, wasted=-1))
        reported += 1
        if reported == MAX_RECEIVER_FAILURES // 2 + 1:
            assert len(play.take_all()) == 42
            return
    pytest.fail(f"it rests again after {reported} that were well")


def test_one_that_fails_now_and_then_never_rests(play: Play) -> None:
    for n in range(3 * MAX_RECEIVER_FAILURES):
        play.put(f"A:flaky:{n}")
        taken = play.take()
        assert taken is not None and not taken.given_up
        play.settle(retry(taken, b"x", 60_000, wasted=1) if n % 2 else ack(taken, wasted=-1))


def test_one_success_among_many_failures_changes_nothing(play: Play) -> None:
    """The receiver is a page that answers any request, besides many unwanted ones that fail."""
    asked = 0
    for n in range(1000):
        play.put(f"A:victim:{n}")
        taken = play.take()
        if taken is None:
            break
        asked += 1
        play.settle(ack(taken, wasted=-1) if n % 10 == 0 else dead_letter(taken, b"x", 1000, 60_000, wasted=1))
    assert MAX_RECEIVER_FAILURES < asked < 2 * MAX_RECEIVER_FAILURES


def test_redirects_count(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES // 6 + 1, wasted=6)
    play.put("A:down:1")
    assert play.take() is None


def test_many_host_names_share_the_limit_of_the_account(play: Play) -> None:
    names = MAX_ACCOUNT_FAILURES // 10
    for n in range(names):
        play.fail(f"A:name{n}", 10)
    play.fail("A:last", 1)
    play.put("A:name1:x", "A:name2:x", "A:never:x", "B:name1:x")
    assert {taken.partition for taken in play.take_all()} == {"A:never:x", "B:name1:x"}, "one that never failed is free"


def test_wait_of_more_than_a_minute_ends(play: Play) -> None:
    """This prevents a pile of callbacks; some are still sent, to see if the receiver works again."""
    play.fail("A:down", MAX_RECEIVER_FAILURES + 1)
    play.put(*(f"A:down:{n}" for n in range(50)))
    for _ in range(GIVE_UP_MS // RECEIVER_FAILURE_MS + 1):
        play.pass_ms(RECEIVER_FAILURE_MS)
        taken = play.take()
        assert taken is not None and not taken.given_up
        play.settle(retry(taken, b"x", 0, wasted=1))
    assert len(play.queue.issue_wakeups()) == 42
    given_up = play.take_all()
    assert len(given_up) == 42 and all(taken.given_up for taken in given_up)
    for taken in given_up:
        play.settle(dead_letter(taken, b"x", 1000, 60_000))
    play.pass_ms(RECEIVER_FAILURE_MS)
    probe = play.take()
    assert probe is not None and not probe.given_up
    play.settle(ack(probe, wasted=-1))
    after = play.take()
    assert after is not None and not after.given_up, "the receiver works again"


def test_one_that_answered_within_the_minute_is_waited_for(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES + 1)
    play.put(*(f"A:down:{n}" for n in range(50)))
    for seconds in range(0, 110, 5):
        play.pass_ms(5000)
        taken = play.take()
        assert taken is not None and not taken.given_up
        if seconds == 50:
            play.settle(ack(taken, wasted=-1))
        else:
            play.settle(retry(taken, b"x", 0, wasted=1000))
            assert play.take() is None, "the queued entries are still kept"


def test_a_failing_receiver_is_retried_within_seconds(play: Play) -> None:
    play.fail("A:down", 1, wasted=1000)
    play.put("A:down:1")
    play.pass_ms(9 * RECEIVER_FAILURE_MS)
    assert play.take() is None
    play.pass_ms(RECEIVER_FAILURE_MS)
    assert play.take() is not None


def test_failures_are_forgotten(play: Play) -> None:
    play.fail("A:down", MAX_RECEIVER_FAILURES + 1)
    keys = list(play.server.client.scan_iter(FAILING + "*"))
    assert len(keys) == 2
    assert all(0 < play.server.client.pttl(key) <= (MAX_RECEIVER_FAILURES + 10) * RECEIVER_FAILURE_MS for key in keys)
    play.fail("B:flaky", 1)
    play.put("B:flaky:1")
    play.settle(ack(play.take(), wasted=-1))
    assert set(play.server.client.scan_iter(FAILING + "*")) == set(keys)


def test_a_verdict_that_holds_no_more_changes_nothing(play: Play) -> None:
    play.put("A:down:1")
    taken = play.take()
    play.settle(retry(taken, b"x", 60_000, wasted=1000))
    before = play.server.client.get(FAILING + "A:down")
    play.settle(retry(taken, b"x", 60_000, wasted=1000))
    assert play.server.client.get(FAILING + "A:down") == before


def test_many_that_rest_leave_redis_its_time(play: Play) -> None:
    """A turn looks at some of an account's receivers, and the next turn at others."""
    for n in range(MAX_RECEIVERS_PER_CLAIM + 50):
        play.put(f"A:down{n}:1")
        play.server.client.set(f"{FAILING}A:down{n}", f"{1 << 52} {1 << 52}")
    play.put("A:up:1")
    assert play.take() is None
    taken = play.take()
    assert taken is not None and taken.partition == "A:up:1"


def test_unreadable_count_is_zero(play: Play) -> None:
    play.server.client.set(FAILING + "A:o", "soon")
    play.server.client.hset(FAILING + "A", "x", "y")
    play.put("A:o:1", "A:o:2")
    first, second = play.take(), play.take()
    assert first is not None and second is not None
    play.settle(retry(first, b"x", 60_000, wasted=1))
    play.settle(ack(second, wasted=-1))
    assert play.take() is None


def test_other_queues_know_of_none(play: Play) -> None:
    enqueue(play.server.client, [("A:recordings:1", b"x")], "recordings")
    recordings = PartitionedQueue(play.server.client, "recordings")
    for n in range(1, MAX_RECEIVER_FAILURES + 5):
        taken = recordings.claim("w1", 2, n)
        assert taken is not None and not taken.given_up
        recordings.settle("w1", 2, retry(taken, b"x", 0))
    assert list(play.server.client.scan_iter("*failing*")) == []
