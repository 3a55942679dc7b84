import time

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.effects import PostCallback
from ari_conf.errors import CallbackTooLong
from ari_conf.queues import dead_letters, outbox, partitioned_queue
from ari_conf.queues.outbox import Attempt, CallbackEntry
from ari_conf.queues.partitioned_queue import PartitionedQueue
from tests.core.stage import Stage, stay
from tests.redis import RedisServer


def callback(
    number: int = 1, lane: str = "c1", url: str = "https://Example.com/cb", auth_id: str = "MA1"
) -> PostCallback:
    return PostCallback(lane, auth_id, url, "POST", (("N", str(number)),))


def post(server: RedisServer, *callbacks: PostCallback, age_ms: int = 0) -> None:
    now_ms = time.time_ns() // 1_000_000 - age_ms
    partitioned_queue.enqueue(server.client, [outbox.enqueue_item(one, now_ms) for one in callbacks])


def give_up(server: RedisServer, token: int, worker: str = "w1") -> None:
    taken = PartitionedQueue(server.client).claim(worker, 8, token)
    entry = outbox.decode(taken.entry)
    tries = (Attempt(1, 5, 503, delay_ms=10), Attempt(16, 2000, error="no connection"))
    tried = CallbackEntry(entry.auth_id, entry.url, entry.method, entry.params, entry.at_ms, tries)
    PartitionedQueue(server.client).settle(
        worker, 8, partitioned_queue.dead_letter(taken, outbox.encode(tried), 1000, 60_000)
    )


def test_a_conference_and_a_url_make_a_lane():
    lane = outbox.partition_key(callback())
    assert lane == outbox.partition_key(callback(2))
    others = [callback(lane="c2"), callback(url="https://example.com/other"), callback(auth_id="MA2")]
    assert len({lane, *map(outbox.partition_key, others)}) == 4


def test_lanes_to_one_receiver_share_its_origin():
    origins = {
        outbox.partition_key(one).split(":")[1]
        for one in (callback(), callback(lane="c2", url="https://example.com/x"))
    }
    assert len(origins) == 1


def test_an_entry_is_kept_as_it_was():
    params = (("From", "14155550100"), ("X-PH-Ünï", 'a"b\n'), ("From", "again"))
    _, kept = outbox.enqueue_item(PostCallback("c1", "MA1", "https://example.com/#rc=3", "GET", params), 7)
    assert outbox.decode(kept) == CallbackEntry("MA1", "https://example.com/#rc=3", "GET", params, 7)


def test_a_callback_that_is_too_long_is_none():
    short, long = (
        PostCallback("c1", "MA1", f"https://example.com/{n * 'a'}?token=secret", "POST", ()) for n in (60_000, 66_000)
    )
    assert len(outbox.enqueue_item(short, 1)[1]) > 60_000
    with pytest.raises(CallbackTooLong) as refused:
        outbox.enqueue_item(long, 1)
    assert f"{outbox.MAX_BYTES} are allowed" in str(refused.value)
    assert "secret" not in str(refused.value) and len(str(refused.value)) < 500
    assert outbox.enqueue_item(long, 1, outbox.MAX_TRANSCRIPTION_BYTES), "a transcription of four hours is long"


def test_the_overview_tells_where_each_lane_is(redis_server: RedisServer):
    post(redis_server, callback(1, "leased"), callback(2, "leased"), age_ms=3000)
    PartitionedQueue(redis_server.client).claim("w1", 8, 1)
    post(redis_server, callback(1, "waiting"), age_ms=2000)
    taken = PartitionedQueue(redis_server.client).claim("w1", 8, 2)
    PartitionedQueue(redis_server.client).settle("w1", 8, partitioned_queue.retry(taken, taken.entry, 60_000))
    post(redis_server, callback(1, "ready"), age_ms=1000)

    found = outbox.list_partitions(redis_server.client)
    assert [(lane.state, lane.depth) for lane in found] == [("leased", 2), ("waiting", 1), ("ready", 1)]
    assert {(lane.auth_id, lane.url) for lane in found} == {("MA1", "https://Example.com/cb")}
    assert 3000 <= found[0].oldest_ms < 10_000
    assert 50_000 < found[1].due_in_ms <= 60_000
    partitioned_queue.enqueue(redis_server.client, [("MA1:o:damaged", b"no JSON")])
    assert [lane.state for lane in outbox.list_partitions(redis_server.client)] == ["leased", "waiting", "ready"]
    redis_server.client.delete("ari_conf:callbacks:partition:MA1:o:damaged")
    totals = outbox.totals(redis_server.client)
    assert (totals.waiting, totals.partitions, totals.workers, totals.threads, totals.retried) == (4, 3, 1, 8, 1)


def test_a_partition_that_is_claimed_again_while_it_is_looked_for_is_counted(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    post(redis_server, callback(1))
    queue, client = PartitionedQueue(redis_server.client), redis_server.client
    taken = queue.claim("w1", 8, 1)
    queue.settle("w1", 8, partitioned_queue.retry(taken, taken.entry, 60_000))
    zrange = client.zrange

    def claimed_just_before(key: str, *given: object, **named: object) -> object:
        if key.endswith(":delayed"):
            client.zadd(key, {taken.partition: 1})
            assert queue.claim("w1", 8, 2) is not None
        return zrange(key, *given, **named)

    monkeypatch.setattr(client, "zrange", claimed_just_before)
    assert outbox.totals(client).waiting == 1


def test_a_dead_letter_is_listed_with_its_attempts(redis_server: RedisServer):
    post(redis_server, callback(1), callback(2))
    give_up(redis_server, 1)
    give_up(redis_server, 2)
    newest, oldest = dead_letters.list_newest(redis_server.client, "MA1")
    assert [dict(letter.entry.params)["N"] for letter in (newest, oldest)] == ["2", "1"]
    assert oldest.entry.attempts == (Attempt(1, 5, 503, delay_ms=10), Attempt(16, 2000, error="no connection"))
    assert dead_letters.get(redis_server.client, "MA1", oldest.id) == oldest
    assert dead_letters.list_newest(redis_server.client, "MA1", before=newest.id) == [oldest]
    assert dead_letters.list_newest(redis_server.client, "MA2") == []
    assert abs(oldest.died_ms - time.time() * 1000) < 10_000


def test_a_resent_dead_letter_goes_to_the_end_of_its_partition(redis_server: RedisServer):
    post(redis_server, callback(1))
    give_up(redis_server, 1)
    post(redis_server, callback(2))
    (letter,) = dead_letters.list_newest(redis_server.client, "MA1")
    assert dead_letters.resend(redis_server.client, "MA1", [letter.id]) == 1
    assert dead_letters.resend(redis_server.client, "MA1", [letter.id]) == 0, "it was sent twice"
    assert dead_letters.count(redis_server.client, "MA1") == 0
    (key,) = redis_server.client.scan_iter("*:partition:*")
    entries = [outbox.decode(kept) for kept in redis_server.client.lrange(key, 0, -1)]
    assert [(dict(entry.params)["N"], entry.attempts) for entry in entries] == [("2", ()), ("1", ())]


def test_all_are_resent_in_the_order_in_which_they_died(redis_server: RedisServer):
    post(redis_server, *(callback(n) for n in range(450)))
    for n in range(450):
        give_up(redis_server, n + 1)
    assert dead_letters.resend_all(redis_server.client, "MA1") == 450
    (key,) = redis_server.client.scan_iter("*:partition:*")
    entries = [outbox.decode(kept) for kept in redis_server.client.lrange(key, 0, -1)]
    assert [dict(entry.params)["N"] for entry in entries] == [str(n) for n in range(450)]
    assert PartitionedQueue(redis_server.client).claim("w1", 8, 1000), "the partition was not made ready"


def test_old_dead_letters_are_removed(redis_server: RedisServer):
    key = "ari_conf:callbacks:dead-letters:MA1"
    redis_server.client.xadd(
        key, {"partition": "MA1:o:1", "entry": outbox.enqueue_item(callback(1), 1)[1]}, id="1000-0"
    )
    post(redis_server, callback(2))
    give_up(redis_server, 1)
    redis_server.client.xadd(key, {"partition": "MA1:o:1", "entry": outbox.enqueue_item(callback(3), 1)[1]})
    dead_letters.trim_expired(redis_server.client, ["MA1", "MA2"], 60_000)
    found = dead_letters.list_newest(redis_server.client, "MA1")
    assert [dict(letter.entry.params)["N"] for letter in found] == ["3", "2"]
    assert redis_server.client.keys("*MA2*") == []


@pytest.mark.parametrize("id", ["1-0", "99999999999999-0"])
def test_unknown_dead_letter_is_not_shown(redis_server: RedisServer, id: str):
    assert dead_letters.get(redis_server.client, "MA1", id) is None


@pytest.mark.parametrize(
    "value", ['"' * 3900, "\\" * 3900, "v" * 3900, "\u00e4" * 3900], ids=("quotes", "backslashes", "letters", "umlauts")
)
def test_no_caller_makes_the_callbacks_about_them_too_long_to_be_sent(value: str) -> None:
    """Each callback contains every header, and a callback of more than 64 KB is not sent."""
    stage = Stage()
    stage.held = {do.IdentifyCall}
    stage.call("ann", stay())
    headers = tuple((f"X-PH-{n}", value) for n in range(16))
    stage.give_up()
    stage.tell(ev.CallIdentified("call-ann", Account("A"), headers, False))
    enters = next(e for e in stage.all(do.PostCallback) if dict(e.params).get("ConferenceAction") == "enter")
    assert outbox.enqueue_item(enters, stage.now)
    reported = [name for name, _ in enters.params if name.startswith("X-PH-")]
    assert reported == [name for name, _ in headers][: len(reported)] and 3 <= len(reported) < 16, (
        "the first headers are sent"
    )
    (problem,) = stage.all(do.ReportProblem)
    assert f"{16 - len(reported)} X-PH- headers" in problem.text
