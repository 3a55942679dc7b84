"""Callbacks from real workers on a real Redis, as a receiver sees them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import plivo.utils
import pytest

from ari_conf.queues import dead_letters, outbox, partitioned_queue
from ari_conf.store import accounts
from ari_conf.store.problems import problems_key, read_problems
from tests.lateness import took_s
from tests.redis import RedisServer
from tests.tasks.fleet import Received, Receiver, Worker, callback, celery, post, until
from tests.tasks.proxy import Proxy

TAKEN_OVER_S = 15
"""> everything still arrives, in order, within 15 s of the kill"""

Start = Callable[..., Worker]


@pytest.fixture
def start_worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[Start]:
    accounts.add(redis_server.client, 1, "MA1")
    workers: list[Worker] = []

    def start(threads: int = 8, **more: str) -> Worker:
        workers.append(Worker(redis_server, tmp_path, threads, **more))
        return workers[-1]

    yield start
    for worker in workers:
        worker.end()


def all_run(server: RedisServer, workers: int) -> None:
    until(lambda: server.client.zcard("ari_conf:callbacks:workers") == workers, 30)


def letters(server: RedisServer) -> list[dead_letters.DeadLetter]:
    return dead_letters.list_newest(server.client, "MA1")


def test_each_lane_arrives_in_order_signed_and_lanes_dont_wait(redis_server: RedisServer, start_worker: Start):
    """A receiver that never answers holds up only its own lane."""
    released = threading.Event()
    hanging = Receiver(lambda _: 200 if released.wait(30) else 500)
    with Receiver() as receiver, hanging:
        start_worker()
        post(redis_server, [callback(hanging.url + "/x#rt=30000", n) for n in range(5)])
        urls = [f"{receiver.url}/{lane}" for lane in range(6)]
        post(redis_server, [callback(url, n) for n in range(20) for url in urls])
        receiver.wait(lambda: len(receiver.received) == 120)
        assert [receiver.numbers(f"/{lane}") for lane in range(6)] == [list(range(20))] * 6
        assert len(hanging.received) <= 1
        until(lambda: outbox.totals(redis_server.client).waiting == 5)
        got, token = receiver.received[0], accounts.get(redis_server.client, "MA1").token
        nonce, signature = (got.headers[f"X-Plivo-Signature-V3{end}"] for end in ("-Nonce", ""))
        url = receiver.url + got.path
        released.set()
        assert plivo.utils.validate_v3_signature("POST", url, nonce, token, signature, got.params)


def test_undeliverable_callback_becomes_a_dead_letter_and_is_resent(redis_server: RedisServer, start_worker: Start):
    broken = {"1"}
    with Receiver(lambda got: 503 if got.params["N"] in broken else 200) as receiver:
        start_worker(ARI_CONF_DEAD_LETTERS_KEPT="2")
        url = receiver.url + "/cb#rc=2&rp=5xx"
        post(redis_server, [callback(url, n) for n in range(3)])
        receiver.wait(lambda: len(receiver.received) == 5)
        assert receiver.numbers("/cb") == [0, 1, 1, 1, 2]

        (letter,) = letters(redis_server)
        assert dict(letter.entry.params)["N"] == "1"
        assert [tried.status for tried in letter.entry.attempts] == [503, 503, 503]
        assert all(tried.at_ms > 1_000_000_000_000 and tried.ms >= 0 for tried in letter.entry.attempts)

        broken.clear()
        assert dead_letters.resend_all(redis_server.client, "MA1") == 1
        receiver.wait(lambda: receiver.numbers("/cb") == [0, 1, 1, 1, 2, 1])
        assert letters(redis_server) == []

        broken.update("0123456789")
        post(redis_server, [callback(url, n) for n in range(4)])
        until(lambda: outbox.totals(redis_server.client).waiting == 0)
        assert [dict(letter.entry.params)["N"] for letter in letters(redis_server)] == ["3", "2"]


def test_dead_letter_of_a_missing_receiver_says_why(redis_server: RedisServer, start_worker: Start):
    with Receiver() as receiver:
        gone = receiver.url
    start_worker()
    post(redis_server, [callback(gone, 1), callback("http://10.0.0.1/", 2), callback(gone, 3, auth_id="MAREMOVED")])
    until(lambda: outbox.totals(redis_server.client).dead == 3)
    reasons = {dict(letter.entry.params)["N"]: letter.entry.attempts for letter in letters(redis_server)}
    assert ["refused" in tried.error for tried in reasons["1"]] == [True, True]
    assert len(reasons["2"]) == 1
    assert "ARI_CONF_ALLOWED_NETWORKS" in reasons["2"][0].error
    (removed,) = dead_letters.list_newest(redis_server.client, "MAREMOVED")
    assert "account was removed" in removed.entry.reason
    assert read_problems(redis_server.client, "MAREMOVED") == []


def test_a_dead_letter_is_told_where_its_user_looks(redis_server: RedisServer, start_worker: Start):
    """The account's problem list reports the dead letter, with one entry for repeated failures."""
    for n in range(3):
        redis_server.client.lpush(
            problems_key("MA1"), f'{{"at_ms": {n}, "call_uuid": "u", "kind": "call_transferred", "text": "earlier"}}'
        )
    with Receiver(lambda _: 404) as receiver:
        start_worker()
        url = f"{receiver.url}/cb?secret=1#rc=0"
        post(redis_server, [callback(url, n) for n in range(20)])
        post(redis_server, [callback("http://10.0.0.1/", 1)])
        until(lambda: outbox.totals(redis_server.client).dead == 21)
    found = [problem.text for problem in read_problems(redis_server.client, "MA1")]
    assert sorted(found)[:2] == [
        "a callback to http://10.0.0.1/ is a dead letter after 1 try: it points to a private, loopback or reserved "
        "network; the operator can list that in ARI_CONF_ALLOWED_NETWORKS",
        f"a callback to {receiver.url}/cb is a dead letter after 1 try: it responded with status 404",
    ]
    assert found[2:] == ["earlier"] * 3


def test_after_kill_9_another_worker_goes_on(redis_server: RedisServer, start_worker: Start):
    """The kill hits deliveries in flight, waiting retries, and lanes that no worker has begun."""
    lanes, each, killed, redis = 12, 6, threading.Event(), redis_server.client

    def answer(got: Received) -> int:
        """Ask for a retry of each lane's callback 1 after 2 s, once; let callback 2 hang until the kill."""
        if got.params["N"] == "2":
            killed.wait(20)
        seen = sum(one.path == got.path and one.params == got.params for one in list(receiver.received))
        return 503 if seen == 1 and got.params["N"] == "1" else 200

    with Receiver(answer, retry_after="2") as receiver:
        first, _ = start_worker(), start_worker()
        all_run(redis_server, 2)
        urls = [f"{receiver.url}/{lane}#rp=all&rc=3" for lane in range(lanes)]
        post(redis_server, [callback(url, n) for n in range(each) for url in urls[:6]])
        receiver.wait(lambda: sum(2 in receiver.numbers(f"/{lane}") for lane in range(6)) == 6)
        post(redis_server, [callback(url, n) for n in range(each) for url in urls[6:]])
        until(lambda: redis.zcard("ari_conf:callbacks:delayed") > 0)
        (held,) = redis.keys(f"ari_conf:callbacks:claims:*-{first.process.pid}-*")
        assert redis.hlen(held) > 0, "the killed worker has nothing in flight"
        first.kill()
        killed_at = time.monotonic()
        killed.set()
        until(lambda: outbox.totals(redis).waiting == 0, TAKEN_OVER_S)
        took_s = time.monotonic() - killed_at
        print(f"all delivered {took_s:.1f} s after the kill")
        assert took_s > 1, "nothing was left to take over"
        for lane in range(lanes):
            numbers = receiver.numbers(f"/{lane}")
            assert numbers == sorted(numbers), f"lane {lane} out of order"
            assert sorted(set(numbers)) == list(range(each)), f"lane {lane} lost some"
        assert letters(redis_server) == []


def test_a_restart_of_redis_loses_nothing(redis_server: RedisServer, start_worker: Start):
    lanes, each, away_s = 6, 30, 9
    with Receiver(lambda _: time.sleep(0.05) or 200) as receiver:
        start_worker()
        urls = [f"{receiver.url}/{lane}" for lane in range(lanes)]
        post(redis_server, [callback(url, n) for n in range(each) for url in urls])
        receiver.wait(lambda: len(receiver.received) >= 30)
        redis_server.kill()
        time.sleep(away_s)  # an outage takes its time
        redis_server.start()
        began = time.monotonic()
        until(lambda: outbox.totals(redis_server.client).waiting == 0, TAKEN_OVER_S)
        print(f"all delivered {time.monotonic() - began:.1f} s after Redis was back")
        for lane in range(lanes):
            numbers = receiver.numbers(f"/{lane}")
            assert numbers == sorted(numbers), f"lane {lane} out of order"
            assert sorted(set(numbers)) == list(range(each)), f"lane {lane} lost some"
        post(redis_server, [callback(urls[0], each)])
        receiver.wait(lambda: receiver.numbers("/0")[-1] == each, TAKEN_OVER_S)


def test_messages_that_celery_lost_are_replaced(redis_server: RedisServer, start_worker: Start):
    with Receiver() as receiver:
        start_worker()
        all_run(redis_server, 1)
        # These wake-ups count as issued but are in no list.
        redis_server.client.zadd(
            "ari_conf:callbacks:unanswered-wakeups", {f"lost {n}": time.time() * 1000 for n in range(8)}
        )
        post(redis_server, [callback(receiver.url, 1)])
        receiver.wait(lambda: len(receiver.received) == 1, 10)


def test_celerys_broker_is_not_needed_for_callbacks(redis_server: RedisServer, start_worker: Start):
    with Receiver(lambda got: 503 if len(receiver.received) == 1 else 200) as receiver:
        worker = start_worker(ARI_CONF_BROKER_URL="redis://127.0.0.1:1/0")
        post(redis_server, [callback(f"{receiver.url}#rp=5xx&rc=1", 1)])
        receiver.wait(lambda: len(receiver.received) == 2)
        assert worker.process.poll() is None


def test_a_flood_of_one_account_delays_another_by_less_than_a_second(redis_server: RedisServer, start_worker: Start):
    """The flood goes to a receiver that answers only afterwards, so that it takes all threads that it can get."""
    accounts.add(redis_server.client, 1, "MA2")
    over = threading.Event()
    with Receiver(lambda _: 200 if over.wait(120) else 500) as slow, Receiver() as receiver:
        start_worker()
        all_run(redis_server, 1)
        post(redis_server, [callback(slow.url + "#rt=60000&tt=60000", 1, lane=str(n)) for n in range(1000)])
        slow.wait(lambda: len(slow.received) >= 5)
        for n in range(5):
            began = time.monotonic()
            post(redis_server, [callback(receiver.url, n, lane=str(n), auth_id="MA2")])
            receiver.wait(lambda n=n: len(receiver.received) > n)
            assert took_s(began) < 1
        assert len(slow.received) < 8, "no thread stayed free"
        over.set()


def test_a_worker_that_is_told_to_end_leaves_nothing_behind(redis_server: RedisServer, start_worker: Start):
    with Receiver(lambda _: time.sleep(0.05) or 200) as receiver:
        worker = start_worker()
        post(redis_server, [callback(receiver.url, n, lane=str(n % 4)) for n in range(200)])
        receiver.wait(lambda: len(receiver.received) >= 8)
        worker.end()
        assert worker.process.returncode == 0
        assert redis_server.client.keys("ari_conf:callbacks:claims:*") == []
        assert redis_server.client.zcard("ari_conf:callbacks:workers") == 0
        start_worker()
        until(lambda: outbox.totals(redis_server.client).waiting == 0)
        assert sorted(set(receiver.numbers("/"))) == list(range(200))
        assert len(receiver.received) == 200, "a worker that ended normally sent something twice"


def test_a_worker_that_is_stopping_keeps_what_it_attempts(redis_server: RedisServer, start_worker: Start):
    """The receiver takes longer than a lease lasts; meanwhile the other worker must not send the callback again."""
    answer_s = 3 * partitioned_queue.WORKER_LEASE_MS / 1000
    with Receiver(lambda got: (got.params["N"] == "1" and time.sleep(answer_s)) or 200) as receiver:
        workers = start_worker(), start_worker()
        all_run(redis_server, 2)
        post(redis_server, [callback(f"{receiver.url}/{n}#rt=60000&tt=60000", 1) for n in range(4)])
        receiver.wait(lambda: len(receiver.received) == 4)
        claims = b" ".join(redis_server.client.keys("ari_conf:callbacks:claims:*")).decode()
        stopping = next(worker.process for worker in workers if f"-{worker.process.pid}-" in claims)
        post(redis_server, [callback(f"{receiver.url}/{n}#rt=60000&tt=60000", 2) for n in range(4)])
        stopping.send_signal(signal.SIGTERM)
        assert stopping.wait(60) == 0
        until(lambda: outbox.totals(redis_server.client).waiting == 0, 60)
        assert [receiver.numbers(f"/{n}") for n in range(4)] == [[1, 2]] * 4
        all_run(redis_server, 1)


def test_a_broker_that_hangs_delays_no_callback(redis_server: RedisServer, start_worker: Start):
    """The worker sends events, and the broker does not answer; its connections stay open."""
    proxy = Proxy(redis_server.port)
    with Receiver() as receiver:
        worker = start_worker(ARI_CONF_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
        until(lambda: "ready." in Path(worker.log.name).read_text(), 60)
        celery(redis_server, "control", "enable_events", "-t", "20", "-d", worker.name)
        post(redis_server, [callback(receiver.url, 0)])
        receiver.wait(lambda: len(receiver.received) == 1)
        proxy.hold = b"PUBLISH"
        post(redis_server, [callback(receiver.url, n, lane=str(n)) for n in range(1, 100)])
        receiver.wait(lambda: len(receiver.received) == 100, 10)
        assert proxy.held.is_set(), "no event was sent"
        events = redis_server.client.pubsub(ignore_subscribe_messages=True)
        events.psubscribe("*celeryev*")
        proxy.let_go()
        numbers = iter(range(100, 10_000))

        def is_sent() -> bool:
            post(redis_server, [callback(receiver.url, next(numbers))])
            message = events.get_message(timeout=0.5)
            return message is not None and b"task-succeeded" in b64decode(json.loads(message["data"])["body"])

        until(is_sent)
        assert worker.process.poll() is None


@pytest.mark.parametrize("damage", [b"[" * 100_000, b"\xff", b'"x'], ids=["nested", "bytes", "cut"])
def test_a_damaged_entry_is_a_dead_letter(redis_server: RedisServer, start_worker: Start, damage: bytes):
    start_worker()
    with Receiver() as receiver:
        partition, entry = outbox.enqueue_item(callback(receiver.url, 1), 1)
        damaged = entry.removesuffix(b"}") + b',"more":' + damage + b"}"
        partitioned_queue.enqueue(redis_server.client, [(partition, damaged), (partition, entry)])
        receiver.wait(lambda: len(receiver.received) == 1)
        assert outbox.totals(redis_server.client).dead == 1


def test_a_worker_yields_to_calls(redis_server: RedisServer, start_worker: Start):
    """All of the worker's threads are nice, later ones too; otherwise a transcription slows the mixing of sound."""
    worker = start_worker(ARI_CONF_WORKER_NICE="7")
    all_run(redis_server, 1)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [int(one.name) for one in Path(f"/proc/{worker.process.pid}/task").iterdir()]
    nice = {os.getpriority(os.PRIO_PROCESS, thread) - before for thread in threads}
    assert nice == {min(7, 19 - before)} and len(threads) > 2
