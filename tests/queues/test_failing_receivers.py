"""Tests of receivers that fail repeatedly: they rest for a while, so that retries flood no receiver, and no callback is
lost."""

from __future__ import annotations

import pytest

from ari_conf.queues import partitioned_queue as lanes
from ari_conf.queues import scripts
from ari_conf.queues.partitioned_queue import ClaimedEntry, PartitionedQueue, ack, dead_letter, enqueue
from ari_conf.queues.partitioned_queue import retry as retry
from ari_conf.queues.scripts import FAILED_MS, GIVEN_UP_MS, MOST_FAILED, MOST_FAILED_OF_ACCOUNT, MOST_FLOWS
from tests.redis import RedisServer

FAILING = "ari_conf:callbacks:failing:"
CLOCK = """
local function clock()
  return tonumber(redis.call('GET', 'clock'))
end
"""


class Play:
    """A worker that claims and settles, on a Redis whose clock stands still until the test advances it."""

    def __init__(self, server: RedisServer) -> None:
        self.server, self.lanes, self.last = server, PartitionedQueue(server.client), 0
        server.client.set("clock", 1_790_000_000_000)

    def put(self, *lanes: str) -> None:
        enqueue(self.server.client, [(lane, b"x") for lane in lanes])

    def take(self, worker: str = "w1") -> ClaimedEntry | None:
        self.last += 1
        return self.lanes.settle_and_claim(worker, 64, self.last, None)

    def take_all(self, worker: str = "w1") -> list[ClaimedEntry]:
        found = []
        while taken := self.take(worker):
            found.append(taken)
        return found

    def tell(self, verdict: lanes.Disposition, worker: str = "w1") -> None:
        self.lanes.settle_and_claim(worker, 64, None, verdict)

    def fail(self, receiver: str, times: int, wasted: int = 1) -> None:
        """Send the receiver that many callbacks, one after another; each becomes a dead letter after one attempt."""
        self.put(*(f"{receiver}:lane{n}" for n in range(times)))
        for _ in range(times):
            taken = self.take()
            assert taken is not None
            self.tell(dead_letter(taken, b"x", 1000, 60_000, wasted=wasted))

    def pass_ms(self, ms: int) -> None:
        self.server.client.incrby("clock", ms)


@pytest.fixture
def play(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Play:
    for name in ("SETTLE_AND_CLAIM", "ISSUE_WAKEUPS", "ENQUEUE"):
        script = getattr(scripts, name)
        assert scripts.CLOCK in script
        monkeypatch.setattr(scripts, name, script.replace(scripts.CLOCK, CLOCK))
    return Play(redis_server)


def test_one_that_fails_is_asked_less_and_less(play: Play) -> None:
    play.fail("A:down", MOST_FAILED // 2)
    play.put(*(f"A:down:{n}" for n in range(100)))
    taken = play.take_all()
    assert len(taken) == 42, "up to half of its share: as always (64 x 3/4 x 7/8)"
    for one in taken:
        play.tell(retry(one, b"x", 0, wasted=1))
    assert play.take() is None, "its share is used up, and the receiver rests"
    assert play.lanes.issue_wakeups() == [], "no worker is woken for entries that it may not claim"
    play.pass_ms(12 * FAILED_MS)
    assert len(play.take_all()) == 1, "one at a time per worker"
    assert len(play.take_all("w2")) == 1


def test_it_rests_between_two_tries(play: Play) -> None:
    play.fail("A:down", MOST_FAILED + 1)
    play.put(*(f"A:down:{n}" for n in range(5)))
    assert play.take() is None
    for _ in range(3):
        play.pass_ms(FAILED_MS)
        taken = play.take()
        assert taken is not None
        play.tell(retry(taken, b"x", 60_000, wasted=1))
        assert play.take() is None


def test_others_don_t_rest_with_it(play: Play) -> None:
    play.fail("A:down", MOST_FAILED + 1)
    play.put("A:down:1", "A:up:1", "B:down:1")
    assert {taken.partition for taken in play.take_all()} == {"A:up:1", "B:down:1"}


def test_it_is_asked_as_ever_when_it_answers_again(play: Play) -> None:
    play.fail("A:down", MOST_FAILED + 1)
    play.put(*(f"A:down:{n}" for n in range(200)))
    play.pass_ms(FAILED_MS)
    told = 0
    while (taken := play.take()) is not None:
        play.tell(ack(taken, wasted=-1))
        told += 1
        if told == MOST_FAILED // 2 + 1:
            assert len(play.take_all()) == 42
            return
    pytest.fail(f"it rests again after {told} that were well")


def test_one_that_fails_now_and_then_never_rests(play: Play) -> None:
    for n in range(3 * MOST_FAILED):
        play.put(f"A:flaky:{n}")
        taken = play.take()
        assert taken is not None and not taken.given_up
        play.tell(retry(taken, b"x", 60_000, wasted=1) if n % 2 else ack(taken, wasted=-1))


def test_who_answers_one_of_many_is_asked_no_oftener(play: Play) -> None:
    """The receiver is a page that answers any request, besides many unwanted ones that fail."""
    asked = 0
    for n in range(1000):
        play.put(f"A:victim:{n}")
        taken = play.take()
        if taken is None:
            break
        asked += 1
        play.tell(ack(taken, wasted=-1) if n % 10 == 0 else dead_letter(taken, b"x", 1000, 60_000, wasted=1))
    assert MOST_FAILED < asked < 2 * MOST_FAILED


def test_redirects_count(play: Play) -> None:
    play.fail("A:down", MOST_FAILED // 6 + 1, wasted=6)
    play.put("A:down:1")
    assert play.take() is None


def test_many_names_of_one_server_are_asked_no_oftener_than_one_account_may(play: Play) -> None:
    names = MOST_FAILED_OF_ACCOUNT // 10
    for n in range(names):
        play.fail(f"A:name{n}", 10)
    play.fail("A:last", 1)
    play.put("A:name1:x", "A:name2:x", "A:never:x", "B:name1:x")
    assert {taken.partition for taken in play.take_all()} == {"A:never:x", "B:name1:x"}, "one that never failed is free"


def test_what_waits_for_more_than_a_minute_is_waited_for_no_more(play: Play) -> None:
    """This prevents a pile of callbacks; some are still sent, to see if the receiver works again."""
    play.fail("A:down", MOST_FAILED + 1)
    play.put(*(f"A:down:{n}" for n in range(50)))
    for _ in range(GIVEN_UP_MS // FAILED_MS + 1):
        play.pass_ms(FAILED_MS)
        taken = play.take()
        assert taken is not None and not taken.given_up
        play.tell(retry(taken, b"x", 0, wasted=1))
    assert len(play.lanes.issue_wakeups()) == 42
    given_up = play.take_all()
    assert len(given_up) == 42 and all(taken.given_up for taken in given_up)
    for taken in given_up:
        play.tell(dead_letter(taken, b"x", 1000, 60_000))
    play.pass_ms(FAILED_MS)
    probe = play.take()
    assert probe is not None and not probe.given_up
    play.tell(ack(probe, wasted=-1))
    after = play.take()
    assert after is not None and not after.given_up, "the receiver works again"


def test_one_that_answered_within_the_minute_is_waited_for(play: Play) -> None:
    play.fail("A:down", MOST_FAILED + 1)
    play.put(*(f"A:down:{n}" for n in range(50)))
    for seconds in range(0, 110, 5):
        play.pass_ms(5000)
        taken = play.take()
        assert taken is not None and not taken.given_up
        if seconds == 50:
            play.tell(ack(taken, wasted=-1))
        else:
            play.tell(retry(taken, b"x", 0, wasted=1000))
            assert play.take() is None, "the queued entries are still kept"


def test_however_many_came_to_nothing_it_is_asked_again_in_some_seconds(play: Play) -> None:
    play.fail("A:down", 1, wasted=1000)
    play.put("A:down:1")
    play.pass_ms(9 * FAILED_MS)
    assert play.take() is None
    play.pass_ms(FAILED_MS)
    assert play.take() is not None


def test_what_is_known_is_forgotten(play: Play) -> None:
    play.fail("A:down", MOST_FAILED + 1)
    keys = list(play.server.client.scan_iter(FAILING + "*"))
    assert len(keys) == 2
    assert all(0 < play.server.client.pttl(key) <= (MOST_FAILED + 10) * FAILED_MS for key in keys)
    play.fail("B:flaky", 1)
    play.put("B:flaky:1")
    play.tell(ack(play.take(), wasted=-1))
    assert set(play.server.client.scan_iter(FAILING + "*")) == set(keys)


def test_a_verdict_that_holds_no_more_changes_nothing(play: Play) -> None:
    play.put("A:down:1")
    taken = play.take()
    play.tell(retry(taken, b"x", 60_000, wasted=1000))
    before = play.server.client.get(FAILING + "A:down")
    play.tell(retry(taken, b"x", 60_000, wasted=1000))
    assert play.server.client.get(FAILING + "A:down") == before


def test_many_that_rest_leave_redis_its_time(play: Play) -> None:
    """A turn looks at some of an account's receivers, and the next turn at others."""
    for n in range(MOST_FLOWS + 50):
        play.put(f"A:down{n}:1")
        play.server.client.set(f"{FAILING}A:down{n}", f"{1 << 52} {1 << 52}")
    play.put("A:up:1")
    assert play.take() is None
    taken = play.take()
    assert taken is not None and taken.partition == "A:up:1"


def test_what_can_t_be_read_counts_as_nothing(play: Play) -> None:
    play.server.client.set(FAILING + "A:o", "soon")
    play.server.client.hset(FAILING + "A", "x", "y")
    play.put("A:o:1", "A:o:2")
    first, second = play.take(), play.take()
    assert first is not None and second is not None
    play.tell(retry(first, b"x", 60_000, wasted=1))
    play.tell(ack(second, wasted=-1))
    assert play.take() is None


def test_other_queues_know_of_none(play: Play) -> None:
    enqueue(play.server.client, [("A:recordings:1", b"x")], "recordings")
    recordings = PartitionedQueue(play.server.client, "recordings")
    for n in range(1, MOST_FAILED + 5):
        taken = recordings.settle_and_claim("w1", 2, n)
        assert taken is not None and not taken.given_up
        recordings.settle_and_claim("w1", 2, None, retry(taken, b"x", 0))
    assert list(play.server.client.scan_iter("*failing*")) == []
