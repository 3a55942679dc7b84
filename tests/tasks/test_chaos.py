"""No matter what dies, every callback of every conference arrives in order, or becomes a dead letter.

At random: workers are killed, Redis is restarted, the receiver fails. CHAOS_SEED repeats a run's decisions.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ari_conf.queues import dead_letters, outbox
from ari_conf.server.step_writer import StepWriter
from ari_conf.store import accounts, state_store
from ari_conf.store.state_store import StateStore, Step
from tests.redis import RedisServer
from tests.tasks.fleet import Received, Receiver, Worker, callback, until

CHAOS_S = 30.0
WORKERS, CONFERENCES, EACH = 3, 24, 40
RESTARTS = 2
SETTLED_S = 60
POLICY = "#rc=3&rp=all&rt=10000&tt=40000"

Callback = tuple[str, int]
"""The conference's path and the callback's number in it."""


@dataclass
class Moody:
    """A receiver that fails at random and never accepts some callbacks. It accepts repeats of accepted callbacks, as
    every receiver must, because a callback can arrive twice."""

    random: random.Random
    accepted: set[Callback] = field(default_factory=set)
    refused: set[Callback] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, got: Received) -> int:
        this = (got.path, int(got.params["N"]))
        with self._lock:
            mood = self.random.random()
            if this in self.accepted:
                return 200
            if this in self.refused or mood < 0.02:
                self.refused.add(this)
                return 500
            if mood > 0.25:
                self.accepted.add(this)
                return 200
        if mood < 0.05:
            time.sleep(1)  # the receiver is silent, then closes the connection
        return 0 if mood < 0.10 else 404 if mood < 0.15 else 503


@contextmanager
def chaos(server: RedisServer, folder: Path, dice: random.Random) -> Iterator[list[str]]:
    """Kill workers and restart Redis while the context is open; yield the list of these actions."""
    done: list[str] = []
    workers = [Worker(server, folder) for _ in range(WORKERS)]
    until(lambda: server.client.zcard("ari_conf:callbacks:workers") == WORKERS, 60)
    over = threading.Event()

    def kill_workers() -> None:
        while not over.wait(dice.uniform(3, 6)):
            victim = dice.randrange(WORKERS)
            workers[victim].kill()
            done.append("kill")
            workers[victim] = Worker(server, folder)

    def restart_redis() -> None:
        for _ in range(RESTARTS):
            if over.wait(dice.uniform(0.2, 0.4) * CHAOS_S):
                return
            server.stop()
            time.sleep(dice.uniform(0.5, 4))
            server.start()
            done.append("restart")

    threads = [threading.Thread(target=kill_workers), threading.Thread(target=restart_redis)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.end()


async def conferences(server: RedisServer, url: str, dice: random.Random) -> None:
    """Write each conference's callbacks in order, spread over the chaos, in the way the application does."""
    redis = state_store.connect(server.url)
    writer = StepWriter(StateStore(redis, "chaos"), lambda _: None)
    writing = asyncio.create_task(writer.run())
    turns = [conference for conference in range(CONFERENCES) for _ in range(EACH)]
    dice.shuffle(turns)
    said = [0] * CONFERENCES
    for conference in turns:
        said[conference] += 1
        one = callback(f"{url}/{conference}{POLICY}", said[conference], lane=str(conference))
        state = {f"conference:{conference}": str(said[conference]).encode()}
        writer.submit(Step(time.time_ns() // 1_000_000, state, [one]), [])
        await asyncio.sleep(dice.uniform(0, 2) * CHAOS_S / len(turns))
    await asyncio.wait_for(writer.wait_until_drained(), SETTLED_S)
    writing.cancel()
    await redis.aclose()


def test_every_callback_arrives_in_order_or_is_a_dead_letter(redis_server: RedisServer, tmp_path: Path):
    seed = os.environ.get("CHAOS_SEED") or str(random.randrange(1_000_000))
    print(f"CHAOS_SEED={seed}")
    dice = random.Random(seed)
    accounts.add(redis_server.client, 1, "MA1")
    moody = Moody(random.Random(dice.random()))
    with Receiver(moody.answer) as receiver:
        with chaos(redis_server, tmp_path, random.Random(dice.random())) as done:
            asyncio.run(conferences(redis_server, receiver.url, random.Random(dice.random())))
            until(lambda: outbox.totals(redis_server.client).waiting == 0, SETTLED_S)
        letters = dead_letters.list_newest(redis_server.client, "MA1", 10_000)
        arrived = {f"/{n}": receiver.numbers(f"/{n}") for n in range(CONFERENCES)}
    dead = [(path, number) for path, number in map(_who, letters)]
    repeated = sum(map(len, arrived.values())) - CONFERENCES * EACH
    print(f"{done.count('kill')} workers killed, Redis restarted {done.count('restart')} times, seed {seed}")
    print(f"{CONFERENCES * EACH} callbacks, {repeated} arrived again, {len(dead)} dead letters")

    assert done.count("kill") >= 3
    assert done.count("restart") == RESTARTS
    for path, numbers in arrived.items():
        assert sorted(set(numbers)) == list(range(1, EACH + 1)), f"{path} lost callbacks; seed {seed}"
        assert numbers == sorted(numbers), f"{path} out of order; seed {seed}"
    everything = {(path, number) for path in arrived for number in range(1, EACH + 1)}
    assert sorted(dead) == sorted(everything - moody.accepted), f"seed {seed}"
    assert set(dead) >= moody.refused
    assert all(len(letter.entry.attempts) == 4 for letter in letters), "a callback was given up before its last retry"


def _who(letter: dead_letters.DeadLetter) -> Callback:
    path = letter.entry.url.partition("#")[0].rpartition("/")[2]
    return f"/{path}", int(dict(letter.entry.params)["N"])
