import random
from collections.abc import Callable

import pytest

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.queues import limits, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import (
    AccountProblem,
    ClaimedEntry,
    Disposition,
    PartitionedQueue,
    ack,
    dead_letter,
    enqueue,
    release,
    retry,
)
from ari_conf.store import accounts
from ari_conf.store.problems import Problem, encoded, problems_key, read_problems
from tests.redis import RedisServer


class Play:
    """Workers that claim and settle, one after another."""

    def __init__(self, server: RedisServer) -> None:
        self.server, self.queue, self.last = server, PartitionedQueue(server.client), 0

    def take(
        self, worker: str = "w1", threads: int = 64, disposition: Disposition | None = None
    ) -> ClaimedEntry | None:
        self.last += 1
        if disposition is None:
            return self.queue.claim(worker, threads, self.last)
        return self.queue.settle_and_claim(worker, threads, disposition, self.last)

    def settle(self, disposition: Disposition, worker: str = "w1") -> None:
        self.queue.settle(worker, 64, disposition)

    def put(self, lane: str, *texts: str) -> None:
        enqueue(self.server.client, [(lane, text.encode()) for text in texts])

    def take_all(self, worker: str = "w1", threads: int = 64) -> list[str]:
        found = []
        while taken := self.take(worker, threads):
            found.append(taken.partition)
        return found


@pytest.fixture
def play(redis_server: RedisServer) -> Play:
    return Play(redis_server)


def test_a_lane_is_served_in_order_one_entry_at_a_time(play: Play):
    play.put("A:o:1", "a", "b")
    first = play.take("w1")
    assert first.entry == b"a"
    assert play.take("w2") is None, "the next entry was given out before the first was done"
    second = play.take("w1", disposition=ack(first))
    assert second.entry == b"b"
    play.put("A:o:1", "c")
    assert play.take("w2") is None
    assert play.take("w1", disposition=ack(second)).entry == b"c"


def test_lanes_dont_wait_for_each_other(play: Play):
    play.put("A:o:1", "a")
    play.put("A:o:2", "b")
    assert [play.take().entry, play.take().entry] == [b"a", b"b"]


def test_after_each_entry_the_next_account_has_its_turn(play: Play):
    play.put("A:o:1", "a1", "a2", "a3")
    play.put("B:o:1", "b1", "b2")
    seen, disposition = [], None
    while taken := play.take(disposition=disposition):
        seen.append(taken.entry.decode())
        disposition = ack(taken)
    assert seen == ["a1", "b1", "a2", "b2", "a3"]


def test_a_retry_waits_at_the_head_of_its_lane(play: Play):
    play.put("A:o:1", "a", "b")
    play.settle(retry(play.take(), b"a, tried once", 0))
    assert play.take().entry == b"a, tried once"


def test_a_retry_is_not_due_early(play: Play):
    play.put("A:o:1", "a")
    play.settle(retry(play.take(), b"a", 60_000))
    assert play.take() is None
    assert play.queue.issue_wakeups() == []


def test_a_dead_letter_frees_the_partition_for_the_next_entry(play: Play):
    play.put("A:o:1", "a", "b")
    assert play.take(disposition=dead_letter(play.take(), b"a, given up", 10, 60_000)).entry == b"b"
    ((_, fields),) = play.server.client.xrange("ari_conf:callbacks:dead-letters:A")
    assert fields == {b"partition": b"A:o:1", b"entry": b"a, given up"}


def test_the_newest_dead_letters_are_kept(play: Play):
    play.put("A:o:1", "a", "b", "c")
    for text in (b"a", b"b", b"c"):
        play.settle(dead_letter(play.take(), text, 2, 60_000))
    letters = play.server.client.xrange("ari_conf:callbacks:dead-letters:A")
    assert [fields[b"entry"] for _, fields in letters] == [b"b", b"c"]


def test_old_dead_letters_are_deleted(play: Play):
    play.server.client.xadd("ari_conf:callbacks:dead-letters:A", {"partition": "A:o:1", "entry": "old"}, id="1000-0")
    play.put("A:o:1", "a")
    play.settle(dead_letter(play.take(), b"a", 10, 60_000))
    letters = play.server.client.xrange("ari_conf:callbacks:dead-letters:A")
    assert [fields[b"entry"] for _, fields in letters] == [b"a"]
    assert 0 < play.server.client.pttl("ari_conf:callbacks:dead-letters:A") <= 60_000


def test_a_flood_leaves_a_quarter_of_the_threads_to_other_accounts(play: Play):
    for n in range(100):
        play.put(f"A:slow:{n}", "x")
    flood = play.take_all(threads=64)
    assert len(flood) == 42  # 64 x 3/4 x 7/8
    play.put("B:o:1", "x")
    assert play.take(threads=64).partition == "B:o:1"


def test_a_dead_receiver_leaves_threads_to_the_same_accounts_others(play: Play):
    for n in range(100):
        play.put(f"A:slow:{n}", "x")
    play.take_all(threads=64)
    play.put("A:good:1", "x")
    assert play.take(threads=64).partition == "A:good:1"


@pytest.mark.parametrize(("threads", "taken"), [(1, 1), (2, 1), (4, 2), (8, 5)])
def test_a_small_worker_serves_a_flood_too(play: Play, threads: int, taken: int):
    for n in range(10):
        play.put(f"A:o:{n}", "x")
    assert len(play.take_all(threads=threads)) == taken


def test_many_floods_dont_take_everything(play: Play):
    for account in "ABCD":
        for n in range(100):
            play.put(f"{account}:slow:{n}", "x")
    assert len(play.take_all(threads=64)) < 64
    play.put("E:o:1", "x")
    assert play.take(threads=64).partition == "E:o:1"


def test_the_lanes_of_a_dead_worker_are_taken_over(play: Play, monkeypatch: pytest.MonkeyPatch):
    play.put("A:o:1", "a", "b")
    monkeypatch.setattr(partitioned_queue, "WORKER_LEASE_MS", 1)
    first = play.take("w1")
    monkeypatch.setattr(partitioned_queue, "WORKER_LEASE_MS", 60_000)
    while not play.queue.heartbeat("w2", 64, [], 0, reclaim=True):
        pass
    again = play.take("w2")
    assert again.entry == b"a"
    play.settle(ack(first), "w1")
    assert play.take("w2", disposition=ack(again)).entry == b"b", "the late disposition of the dead worker counted"


def test_while_its_lease_runs_nobody_takes_a_workers_lanes(play: Play):
    play.put("A:o:1", "a")
    play.take("w1")
    assert play.queue.heartbeat("w2", 64, [], 0, reclaim=True) == 0
    assert play.take("w2") is None


def test_a_disposition_that_is_sent_twice_counts_once(play: Play):
    play.put("A:o:1", "a", "b")
    first = play.take()
    play.settle(ack(first))
    play.settle(ack(first))
    assert play.take().entry == b"b"


def test_a_lane_that_was_taken_while_the_answer_got_lost_is_given_back(play: Play):
    play.put("A:o:1", "a")
    play.put("A:o:2", "b")
    lost, kept = play.take(), play.take()
    assert play.queue.heartbeat("w1", 64, [kept.claim_number], kept.claim_number, reclaim=False) == 1
    assert play.take().partition == lost.partition


def test_a_beat_leaves_what_was_taken_after_it_looked(play: Play):
    play.put("A:o:1", "a")
    looked_at = play.last
    play.take()
    assert play.queue.heartbeat("w1", 64, [], looked_at, reclaim=False) == 0


def test_a_worker_that_leaves_gives_its_lanes_back(play: Play):
    play.put("A:o:1", "a")
    play.take("w1")
    play.queue.deregister("w1")
    assert play.take("w2").entry == b"a"


def test_released_entry_is_ready_again(play: Play):
    play.put("A:o:1", "a", "b")
    assert play.take(disposition=release(play.take())).entry == b"a"


def test_there_are_no_more_wakeups_than_partitions_and_free_threads(play: Play):
    play.put("A:o:1", "a", "b", "c")
    assert play.queue.issue_wakeups() == [], "a wake-up without a worker"
    play.queue.heartbeat("w1", 4, [], 0, reclaim=True)
    assert len(play.queue.issue_wakeups()) == 1, "one partition, one wake-up"
    assert play.queue.issue_wakeups() == []
    for n in range(100):
        play.put(f"B{n}:o:1", "x")
    wakeups = play.queue.issue_wakeups()
    assert len(wakeups) == 3
    play.queue.acknowledge_wakeup(wakeups[0])
    assert len(play.queue.issue_wakeups()) == 1


def test_a_claim_answers_its_wakeup_and_no_other(play: Play):
    play.put("A:o:1", "a")
    play.put("B:o:1", "b")
    play.queue.heartbeat("w1", 4, [], 0, reclaim=True)
    answered, other = play.queue.issue_wakeups()
    assert play.queue.claim("w1", 4, 1, answered).entry == b"a"
    assert play.server.client.zrange("ari_conf:callbacks:unanswered-wakeups", 0, -1) == [other.encode()]


def test_settling_alone_claims_nothing(play: Play):
    play.put("A:o:1", "a", "b")
    play.settle(ack(play.take()))
    assert not play.server.client.exists("ari_conf:callbacks:claims:w1")
    assert play.take().entry == b"b"


def test_a_turn_leaves_a_lease_of_at_least_what_it_promises(play: Play):
    def until_ms() -> float:
        return play.server.client.zscore("ari_conf:callbacks:workers", "w1")

    for left_ms, renews in (
        (partitioned_queue.LEASE_MARGIN_MS - 500, True),
        (partitioned_queue.LEASE_MARGIN_MS + 500, False),
    ):
        seconds, micros = play.server.client.time()
        was = seconds * 1000 + micros // 1000 + left_ms
        play.server.client.zadd("ari_conf:callbacks:workers", {"w1": was})
        play.take("w1")
        assert (until_ms() > was) is renews
    play.queue.deregister("w1")
    play.take("w1")
    assert until_ms() and play.server.client.hgetall("ari_conf:callbacks:threads") == {b"w1": b"64"}


def test_a_receiver_with_its_full_share_gets_no_wakeups(play: Play):
    for n in range(100):
        play.put(f"A:slow:{n}", "x")
    play.take_all(threads=64)
    assert play.queue.issue_wakeups() == []
    play.put("B:o:1", "x")
    assert len(play.queue.issue_wakeups()) == 1


def test_a_lost_wakeup_is_replaced(play: Play, monkeypatch: pytest.MonkeyPatch):
    play.put("A:o:1", "a")
    play.queue.heartbeat("w1", 4, [], 0, reclaim=True)
    assert len(play.queue.issue_wakeups()) == 1
    monkeypatch.setattr(partitioned_queue, "WAKEUP_LOST_MS", -1)
    assert len(play.queue.issue_wakeups()) == 1


def test_nothing_is_left_behind(play: Play):
    for n in range(20):
        play.put(f"A:o:{n}", "a", "b")
    disposition = None
    while taken := play.take(disposition=disposition):
        disposition = ack(taken)
    play.queue.deregister("w1")
    assert play.server.client.keys("*") == [b"ari_conf:callbacks:counts"]


# Bounds.


def counted(play: Play) -> dict[bytes, tuple[int, int]]:
    """Return the number and bytes of queued callbacks by account, as Redis has counted them."""
    entries, sizes = (play.server.client.hgetall(f"ari_conf:callbacks:{kind}") for kind in ("entries", "bytes"))
    return {account: (int(number), int(sizes[account])) for account, number in entries.items()}


def there(play: Play) -> dict[bytes, tuple[int, int]]:
    """Return the actual number and bytes."""
    found: dict[bytes, tuple[int, int]] = {}
    for key in play.server.client.scan_iter("ari_conf:callbacks:partition:*"):
        account = key.split(b":")[3]
        texts = play.server.client.lrange(key, 0, -1)
        number, size = found.get(account, (0, 0))
        found[account] = (number + len(texts), size + sum(map(len, texts)))
    return found


def reported(play: Play, account: str = "A") -> list[str]:
    return [one.text for one in read_problems(play.server.client, account)]


def test_how_much_waits_is_counted_whatever_becomes_of_it(play: Play):
    dice, dispositions = random.Random(5), []
    for number in range(400):
        if dice.random() < 0.5:
            play.put(f"{dice.choice('AB')}:o:{dice.randrange(6)}", "x" * dice.randrange(1, 50))
        elif taken := play.take(disposition=dispositions.pop() if dispositions else None):
            text = b"y" * dice.randrange(1, 90)
            dispositions.append(
                dice.choice([ack(taken), release(taken), retry(taken, text, 0), dead_letter(taken, text, 100, 60_000)])
            )
        if number % 50 == 49:
            letters = play.server.client.xrange("ari_conf:callbacks:dead-letters:A", count=2)
            play.queue.requeue_dead_letters("A", [(id.decode(), b"again") for id, _ in letters])
        assert counted(play) == there(play)


def test_a_lane_takes_no_more_than_it_may(play: Play):
    accounts.add(play.server.client, 1, "A")
    most = limits.MAX_PARTITION_ENTRIES
    for first in range(0, most, 1000):
        play.put("A:o:1", *(str(n) for n in range(first, min(most, first + 1000))))
    play.put("A:o:1", "one more", "another")
    play.put("A:o:2", "of another lane")
    play.put("B:o:1", "of another account")
    lane = play.server.client.lrange("ari_conf:callbacks:partition:A:o:1", 0, -1)
    assert len(lane) == most and lane[-1] == str(most - 1).encode()
    assert counted(play)[b"A"][0] == most + 1 and counted(play)[b"B"][0] == 1
    (problem,) = reported(play)
    assert f"{most} callbacks of one conference to one URL wait already" in problem
    assert reported(play, "B") == [] and outbox.totals(play.server.client).dropped == 2
    play.take(disposition=ack(play.take()))
    play.put("A:o:1", "there is room again")
    assert play.server.client.lindex("ari_conf:callbacks:partition:A:o:1", -1) == b"there is room again"


def test_an_account_takes_no_more_than_it_may(play: Play):
    accounts.add(play.server.client, 1, "A")
    most = limits.MAX_ACCOUNT_ENTRIES
    for lane in range(20):
        for _ in range(0, most // 20, 1000):
            play.put(f"A:o:{lane}", *["x"] * 1000)
    play.put("A:o:new", "one more")
    play.put("B:o:1", "of another account")
    assert {account: number for account, (number, _) in counted(play).items()} == {b"A": most, b"B": 1}
    (problem,) = reported(play)
    assert f"{most} callbacks of this account" in problem


def test_the_problem_of_a_full_queue_has_its_kind_and_removes_no_other(play: Play, monkeypatch: pytest.MonkeyPatch):
    """ARI_CONF_PROBLEMS_KEPT may be above the default."""
    earlier = [encoded(Problem(n, "", ProblemKind.DOCUMENT_INVALID, f"earlier {n}")) for n in range(300)]
    play.server.client.rpush(problems_key("A"), *earlier)
    play.server.client.hset("ari_conf:callbacks:bytes", "A", limits.MAX_ACCOUNT_MB * 1024**2)
    play.server.client.set("ari_conf:callbacks:recounted:A", 1)  # the wrong count is believed
    play.put("A:o:1", "x", "y")
    newest, *others = read_problems(play.server.client, "A", 1000)
    assert newest.kind == ProblemKind.CALLBACKS_FULL and len(others) == 300


def test_an_account_takes_no_more_bytes_than_it_may(play: Play):
    play.put("A:o:1", "x")
    play.server.client.hset("ari_conf:callbacks:bytes", "A", limits.MAX_ACCOUNT_MB * 1024**2 - 5)
    play.server.client.set("ari_conf:callbacks:recounted:A", 1)  # the wrong count is believed
    play.put("A:o:2", "12345", "1")
    assert play.server.client.lrange("ari_conf:callbacks:partition:A:o:2", 0, -1) == [b"12345"]


def test_a_count_that_is_wrong_is_counted_again_before_anything_is_dropped(play: Play):
    """Entries may have been removed by hand, or by a version that did not count."""
    play.put("A:o:1", "a", "b")
    play.put("A:o:2", "c")
    play.put("A:o:3", "d")
    play.take()
    play.settle(retry(play.take(), b"c, tried", 60_000))
    play.server.client.hset("ari_conf:callbacks:entries", "A", 10**9)
    play.put("A:o:4", "e")
    assert play.server.client.exists("ari_conf:callbacks:partition:A:o:4") and reported(play) == []
    assert counted(play)[b"A"][0] == there(play)[b"A"][0] == 5


def test_other_queues_have_no_bounds(play: Play):
    """No one would learn of a dropped recording."""
    most = limits.MAX_PARTITION_ENTRIES
    for _ in range(0, most, 1000):
        enqueue(play.server.client, [("A:o:1", b"x")] * 1000, "recordings")
    enqueue(play.server.client, [("A:o:1", b"x")], "recordings")
    assert play.server.client.llen("ari_conf:recordings:partition:A:o:1") == most + 1


def test_a_dead_letter_without_room_for_resending_stays(play: Play):
    play.put("A:o:1", "a")
    play.settle(dead_letter(play.take(), b"a", 10, 60_000))
    ((id, _),) = play.server.client.xrange("ari_conf:callbacks:dead-letters:A")
    for _ in range(0, limits.MAX_PARTITION_ENTRIES, 1000):
        play.put("A:o:1", *["x"] * 1000)
    assert play.queue.requeue_dead_letters("A", [(id.decode(), b"a")]) == 0
    assert play.server.client.xlen("ari_conf:callbacks:dead-letters:A") == 1


def test_the_bytes_of_dead_letters_are_bounded(play: Play):
    size, most = 1024**2, limits.MAX_DEAD_LETTER_BYTES
    for number in range(most // size + 20):
        play.put("A:o:1", "x")
        play.settle(dead_letter(play.take(), b"%d" % number + b"x" * size, 10_000, 60_000))
        assert play.server.client.memory_usage("ari_conf:callbacks:dead-letters:A", samples=0) <= most + 2 * size
    ((_, newest),) = play.server.client.xrevrange("ari_conf:callbacks:dead-letters:A", count=1)
    assert newest[b"entry"].startswith(b"%dx" % number), "the newest entry was dropped"
    assert play.server.client.xlen("ari_conf:callbacks:dead-letters:A") > most // size // 2


# Damaged entries affect only themselves.


def test_a_lane_that_has_nothing_or_is_none_is_passed_over(play: Play):
    for lane in ("A:o:1", "A:o:2", "A:o:3"):
        play.put(lane, lane)
    play.server.client.delete("ari_conf:callbacks:partition:A:o:1")
    play.server.client.delete("ari_conf:callbacks:partition:A:o:2")
    play.server.client.set("ari_conf:callbacks:partition:A:o:2", "no list")
    taken = play.take()
    assert taken.entry == b"A:o:3"
    assert play.take(disposition=ack(taken)) is None


@pytest.mark.parametrize(
    "dispose", [ack, release, lambda taken: retry(taken, b"x", 0), lambda t: dead_letter(t, b"x", 9, 9999)]
)
def test_settlement_of_a_removed_entry_delays_nobody(play: Play, dispose: Callable[[ClaimedEntry], Disposition]):
    play.put("A:o:1", "a")
    play.put("A:o:2", "b")
    taken = play.take()
    play.server.client.delete("ari_conf:callbacks:partition:A:o:1")
    assert play.take(disposition=dispose(taken)).entry == b"b"


@pytest.mark.parametrize("damage", [b"no JSON", b"5", b'{"text": 5}'])
def test_problems_that_can_not_be_read_do_not_keep_a_disposition_from_counting(play: Play, damage: bytes):
    play.server.client.lpush(problems_key("A"), damage)
    play.put("A:o:1", "a", "b")
    problem = AccountProblem(
        problems_key("A"), b'{"at_ms": 1, "call_uuid": "", "kind": "callback_dead_lettered", "text": "down"}', 200
    )
    second = play.take(disposition=dead_letter(play.take(), b"a", 10, 60_000, problem))
    assert second.entry == b"b"
    play.server.client.delete(problems_key("A"))
    play.server.client.set(problems_key("A"), "no list")
    play.put("A:o:1", "c")
    assert play.take(disposition=dead_letter(second, b"b", 10, 60_000, problem)).entry == b"c"


def test_problems_of_names_that_no_account_has_are_kept_for_a_day_and_of_so_many_names(
    play: Play, monkeypatch: pytest.MonkeyPatch
):
    client = play.server.client
    accounts.add(client, 1, "A")
    problem = b'{"at_ms": 1, "call_uuid": "", "kind": "callback_dead_lettered", "text": "down"}'
    for name in ("A", *(f"misspelt{n}" for n in range(limits.MAX_UNKNOWN_ACCOUNTS + 20))):
        play.put(f"{name}:o:1", "x")
        play.settle(dead_letter(play.take(), b"x", 10, 60_000, AccountProblem(problems_key(name), problem, 200)))
    kept = [key.decode() for key in client.scan_iter(problems_key("misspelt*"))]
    assert len(kept) == limits.MAX_UNKNOWN_ACCOUNTS == client.zcard("ari_conf:unknown-accounts")
    day_ms = limits.UNKNOWN_ACCOUNT_PROBLEMS_TTL_MS
    assert all(0 < client.pttl(key) <= day_ms for key in kept)
    assert client.pttl(problems_key("A")) > day_ms


@pytest.mark.parametrize("later", ["at rest", "written to"])
@pytest.mark.parametrize(
    "key",
    [
        "accounts",
        "receivers:A",
        "ready:A:o",
        "delayed",
        "claims:w1",
        "workers",
        "threads",
        "health",
        "unanswered-wakeups",
        "partition:A:p:9",
    ],
)
def test_overwritten_key_hides_no_callback(play: Play, key: str, later: str):
    play.put("A:o:1", "a", "b")
    play.put("A:p:1", "c")
    play.put("B:o:1", "d")
    play.take()
    play.settle(retry(play.take(), b"d, tried", 60_000))
    play.server.client.set(f"ari_conf:callbacks:{key}", "nonsense")
    if later == "written to":
        play.put("A:o:2", "e")
        play.put("A:p:9", "f")
    served = []
    for _ in range(2):
        play.queue.heartbeat("w1", 64, [], 0, reclaim=True)
        served += play.take_all() + play.take_all("w2")
    held_or_waiting = {"delayed": {"A:o:1"}, "claims:w1": {"B:o:1"}}.get(key, {"A:o:1", "B:o:1"})
    wanted = {"A:o:1", "A:p:1", "B:o:1"} - held_or_waiting | ({"A:o:2", "A:p:9"} if later == "written to" else set())
    assert sorted(served) == sorted(wanted)
    if later == "written to":
        assert play.server.client.type(f"ari_conf:callbacks:{key}") != b"string"


@pytest.mark.parametrize("key", ["accounts", "receivers:A", "ready:A:o"])
def test_nor_if_a_worker_looks_before_the_next_beat(play: Play, key: str):
    play.put("A:o:1", "a")
    play.put("B:o:1", "b")
    play.server.client.set(f"ari_conf:callbacks:{key}", "nonsense")
    served = [*play.take_all(), *play.queue.issue_wakeups(0)]
    play.queue.heartbeat("w1", 64, [], 0, reclaim=True)
    assert sorted(served + play.take_all()) == ["A:o:1", "B:o:1"]


def test_a_sound_queue_is_not_made_again(play: Play):
    play.put("A:o:1", "a")
    play.server.client.rpush("ari_conf:callbacks:ready:A:o", "A:o:nothing")
    play.queue.heartbeat("w1", 64, [], 0, reclaim=True)
    assert play.server.client.lrange("ari_conf:callbacks:ready:A:o", 0, -1) == [b"A:o:1", b"A:o:nothing"]
