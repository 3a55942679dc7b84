"""Tests of Redis being away, full, read-only, replaced, empty, or as it was earlier: calls continue, and then Redis has
the live state."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from ari_conf.common.redis_client import follow_primary_in_threads
from ari_conf.core import effects as do
from ari_conf.core.commands import ForConference, Lock
from ari_conf.core.effects import CommandReply
from ari_conf.core.engine import Engine
from ari_conf.core.restoration import Restoration
from ari_conf.ownership import lease
from ari_conf.ownership.lease import OwnershipLease
from ari_conf.queues import outbox
from ari_conf.queues.command_queue import CommandClient, CommandConsumer, connect
from ari_conf.queues.partitioned_queue import PartitionedQueue, ack, enqueue
from ari_conf.server import takeover
from ari_conf.server.name_claims import NameClaims
from ari_conf.server.state_rewriter import WRITE_BATCH, StateRewriter
from ari_conf.server.step_builder import StepBuilder
from ari_conf.server.step_writer import StepWriter
from ari_conf.store import accounts, state_store
from ari_conf.store.members import members_key
from ari_conf.store.state_store import StateStore, names_key, state_key
from ari_conf.store.step_batch import NameClaim, Step
from tests.between import between
from tests.core.stage import Stage, players, stay
from tests.redis import RedisServer, start
from tests.tasks.proxy import Proxy

SOON_S = 30.0
"""Seconds: much longer than anything here takes on a busy machine."""


class Owner:
    """The core on its stage, and everything that uses Redis, joined as `service` does it."""

    def __init__(self, url: str, stage: Stage, name: str = "pbx") -> None:
        self.stage = stage
        self.redis = state_store.connect(url)
        self.lease = OwnershipLease(
            self.redis,
            name,
            on_data_loss=lambda: self.rewriting.write_all(),
            confirmed_batch_id=lambda: self.store.confirmed,
        )
        self.store = StateStore(self.redis, name, fencing_token=lambda: self.lease.fencing_token)
        settings: Any = SimpleNamespace(asterisk_name="pbx")
        self.steps = StepBuilder(stage.engine, settings, lambda _: lambda _: None)
        self.done: list[do.Effect] = []
        self.writer = StepWriter(
            self.store,
            self.done.append,
            self.lease.mark_lost,
            write_all=lambda: self.rewriting.write_all(),
        )
        compared = asyncio.Event()
        compared.set()
        self.problems: list[tuple[str, ...]] = []
        names = NameClaims(
            stage.engine, self.writer, lambda *reported: self.problems.append(reported), compared, lambda: stage.now
        )
        self.rewriting = StateRewriter(stage.engine, self.steps, self.store, self.writer, names, lambda: stage.now)
        self._written = 0

    def write(self) -> None:
        """Write the new effects of the stage."""
        effects, self._written = self.stage.effects[self._written :], len(self.stage.effects)
        for effect in effects:
            if isinstance(effect, do.ClaimName):
                step = Step(self.stage.now)
                step.claims.append(NameClaim(effect, lambda _: None))
                self.writer.submit(step, [])
        self.writer.submit(*self.steps.build(effects, self.stage.now))

    async def drained(self) -> None:
        await asyncio.wait_for(self.writer.wait_until_drained(), SOON_S)


@asynccontextmanager
async def owning(url: str, stage: Stage, name: str = "pbx") -> AsyncIterator[Owner]:
    owner = Owner(url, stage, name)
    await owner.lease.acquire()
    tasks = [
        asyncio.create_task(w) for w in (owner.writer.run(), owner.lease.renew_until_lost(), owner.rewriting.run())
    ]
    try:
        yield owner
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await owner.store.close()
        await owner.redis.aclose()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def posted(server: RedisServer) -> list[str]:
    """Return the numbers of the queued callbacks, in order."""
    keys = sorted(server.client.scan_iter("ari_conf:callbacks:partition:*"))
    texts = [text for key in keys for text in server.client.lrange(key, 0, -1)]
    params = [dict(outbox.decode(text).params) for text in texts]
    return [found["N"] for found in params if "N" in found]


def callback(number: int, auth_id: str = "MA1") -> do.PostCallback:
    return do.PostCallback("c", auth_id, "http://x.example", "POST", (("N", str(number)), ("Filling", "x" * 700)))


def put(owner: Owner, *numbers: int) -> None:
    for number in numbers:
        owner.writer.submit(Step(1, {"call-u1": b"%d" % number}, [callback(number)]), [do.Answer(str(number))])


# Redis returns without the data that it had.


def copied(server: RedisServer) -> dict[bytes, bytes]:
    return {key: server.client.dump(key) for key in server.client.keys("*")}


def put_back(server: RedisServer, copy: dict[bytes, bytes]) -> None:
    pipe = server.client.pipeline(transaction=True)
    pipe.flushall()
    for key, value in copy.items():
        pipe.restore(key, 0, value)
    pipe.execute()


def is_as_it_lives(server: RedisServer, stage: Stage) -> bool:
    """Return True if Redis has the whole live state, and nothing else."""
    state = {key.decode(errors="replace") for key in server.client.hkeys(state_key("pbx"))} - {takeover.NEXT_MEMBER_ID}
    live = stage.engine.conferences
    members = {key.decode() for key in server.client.scan_iter(members_key("*"))}
    names = {key: id.split(b" ")[0].decode() for key, id in server.client.hgetall(names_key("A")).items()}
    return (
        state == {*stage.engine.calls, *live}
        and members == {members_key(id) for id, conference in live.items() if conference.members}
        and names == {conference.name.encode(): id for id, conference in live.items() if not conference.ending}
    )


async def successor_of(server: RedisServer) -> Engine:
    client = state_store.connect(server.url)
    engine = Engine(lambda: "new")
    await takeover.restore(StateStore(client, "pbx"), Restoration(engine))
    await client.aclose()
    return engine


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_it_comes_back_from_an_older_copy_and_no_dead_call_rises(redis_server: RedisServer, stage: Stage):
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann", "bob")
        for name in ("stays", "stays too", "leaves"):
            stage.call(name, stay("a room that lives on"))
        for number in range(WRITE_BATCH):
            stage.call(f"old{number}", stay(f"room {number}"))
        owner.write()
        await owner.drained()
        copy = copied(redis_server)
        stage.hang_up("bob", "ann", "leaves", *(f"old{number}" for number in range(WRITE_BATCH)))
        players(stage, "cid", "dan")
        for number in range(2 * WRITE_BATCH):
            stage.call(f"new{number}", stay(f"room {number // 2}"))
        owner.write()
        await owner.drained()
        redis_server.client.hset(names_key("A"), "of another", "c9 elsewhere")
        copy |= {names_key("A").encode(): redis_server.client.dump(names_key("A"))}
        put_back(redis_server, copy)
        redis_server.client.hset(names_key("B"), "of who is gone", "c8 pbx")
        await until(lambda: not redis_server.client.exists(names_key("B")))
        redis_server.client.hdel(names_key("A"), "of another")
        assert is_as_it_lives(redis_server, stage)
        found = await successor_of(redis_server)
        assert (found.calls, found.conferences) == (stage.engine.calls, stage.engine.conferences)
        assert owner.problems == []


async def test_live_records_are_written_before_dead_ones_are_removed(
    redis_server: RedisServer, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """Live state must not be missing even if the process dies in between."""
    there: list[set[str]] = []
    forget = StateStore.forget

    def looked_at(kept: StateStore, pipe: Any, ids: Any) -> None:
        there.append({key.decode() for key in redis_server.client.hkeys(state_key("pbx"))})
        forget(kept, pipe, ids)

    monkeypatch.setattr(StateStore, "forget", looked_at)
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann")
        owner.write()
        await owner.drained()
        copy = copied(redis_server)
        stage.hang_up("ann")
        for number in range(2 * WRITE_BATCH):
            stage.call(f"new{number}", stay(f"room {number}"))
        owner.write()
        await owner.drained()
        put_back(redis_server, copy)
        await until(lambda: there and is_as_it_lives(redis_server, stage))
    assert all(seen >= {*stage.engine.calls, *stage.engine.conferences} for seen in there)


async def test_it_is_killed_and_comes_back_empty(redis_server: RedisServer, stage: Stage, tmp_path: Path):
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann", "bob")
        owner.write()
        await owner.drained()
        redis_server.kill()
        shutil.rmtree(redis_server.folder / "appendonlydir")
        players(stage, "cid")
        owner.write()
        await until(lambda: owner.writer.redis_unavailable)
        stage.hang_up("bob")
        owner.write()
        redis_server.start()
        await owner.drained()
        await until(lambda: is_as_it_lives(redis_server, stage))
        found = await successor_of(redis_server)
        assert set(found.calls) == {"call-ann", "call-cid"}
        assert owner.lease.is_held


async def test_unreadable_record_is_removed(redis_server: RedisServer, stage: Stage):
    redis_server.client.hset(state_key("pbx"), mapping={"u7": "of another version", "c7": "{", b"\xff": "?"})
    redis_server.client.hset(members_key("c7"), "7", "{")
    redis_server.client.hset(names_key("A"), "lost", "c7 pbx")
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann")
        owner.write()
        owner.rewriting.remove_stale()
        await until(lambda: is_as_it_lives(redis_server, stage))


async def test_it_forgets_again_while_all_is_written_again(redis_server: RedisServer, stage: Stage):
    async with owning(redis_server.url, stage) as owner:
        for number in range(3 * WRITE_BATCH):
            stage.call(f"caller{number}", stay(f"room {number}"))
        owner.write()
        await owner.drained()
        redis_server.client.flushall()
        await until(lambda: redis_server.client.exists(state_key("pbx")))
        redis_server.client.flushall()
        await until(lambda: is_as_it_lives(redis_server, stage))


# Redis is reachable, and refuses writes.


@asynccontextmanager
async def full(server: RedisServer) -> AsyncIterator[None]:
    server.client.config_set("maxmemory", "1")
    yield
    server.client.config_set("maxmemory", "0")


@asynccontextmanager
async def without_disk(server: RedisServer) -> AsyncIterator[None]:
    server.client.config_set("save", "1 1")
    shutil.rmtree(server.folder)
    server.client.bgsave()
    await until(lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err")
    yield
    server.client.config_set("stop-writes-on-bgsave-error", "no")


@asynccontextmanager
async def locked(server: RedisServer) -> AsyncIterator[None]:
    server.client.config_set("requirepass", "secret")
    server.client.client_kill_filter(_type="normal", skipme=True)
    yield
    server.client.config_set("requirepass", "")


@asynccontextmanager
async def without_replicas(server: RedisServer) -> AsyncIterator[None]:
    server.client.config_set("min-replicas-to-write", "1")
    yield
    server.client.config_set("min-replicas-to-write", "0")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(full, "memory is full"), (without_disk, "can't write to its disk"), (locked, "requires a password"),
     (without_replicas, "fewer replicas")],
)  # fmt: skip
async def test_calls_go_on_from_memory_and_are_written_when_it_takes_them_again(
    stage: Stage, tmp_path: Path, trouble: Any, said: str
):
    server = start(tmp_path / "redis", "--appendonly", "no")
    try:
        async with owning(server.url, stage) as owner:
            put(owner, 1)
            await owner.drained()
            with capture_logs() as logged:
                async with trouble(server):
                    put(owner, 2)
                    await until(lambda: owner.writer.redis_unavailable)
                    put(owner, 3, 4)
                    assert [effect.channel_id for effect in owner.done] == ["1", "2", "3", "4"]
                    # Names belong to this server until Redis can be asked, and no other process takes over the calls.
                    with pytest.raises(state_store.StoreUnavailable):
                        await owner.store.claim("MA1", "standup", "c1")
                    await asyncio.sleep(lease.ACT_WITHIN_S + 0.5)
                    assert owner.lease.is_held
                    assert posted(server) == ["1"]
                await owner.drained()
            reasons = [line["reason"] for line in logged if line["event"] == "redis unavailable"]
            assert said in reasons[-1]
            assert posted(server) == ["1", "2", "3", "4"] and not owner.writer.redis_unavailable
            assert await owner.store.claim("MA1", "standup", "c1") is None
    finally:
        server.kill()


# Another server becomes the primary.


@pytest.fixture
def replica(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    server = start(tmp_path / "replica")
    server.follow(redis_server)
    yield server
    server.kill()


def fail_over(old: RedisServer, new: RedisServer) -> None:
    """Fail over as an operator or Sentinel does; the old server is alive, and is a replica from now on."""
    new.promote()
    old.client.replicaof("127.0.0.1", new.port)


async def test_serve_and_web_find_the_new_primary(redis_server: RedisServer, replica: RedisServer, stage: Stage):
    """The old primary is alive, and keeps all its connections."""
    async with between(redis_server.port) as way, owning(way.url, stage) as owner:
        asks = connect(way.url)
        asker = CommandClient(asks, "web")

        def reply(answer: CommandReply) -> None:
            step = Step(1)
            step.extra_commands.append(commands.reply_writer(answer))
            owner.writer.submit(step, [])

        commands = CommandConsumer(
            owner.redis,
            "pbx",
            lambda event: reply(CommandReply(event.command_id, 202)),
            lambda: True,
            reply,
            lambda: asyncio.sleep(0),
        )
        tasks = [asyncio.create_task(commands.run()), asyncio.create_task(asker.receive_replies())]
        assert await asker.send("pbx", ForConference("MA1", "x", Lock(True)), "c1", 10) == CommandReply("c1", 202)
        put(owner, 1)
        await owner.drained()
        beat = int(redis_server.client.hget(lease.lease_key("pbx"), "heartbeat"))

        fail_over(redis_server, replica)
        way.target = replica.port
        put(owner, 2)
        await owner.drained()
        await until(lambda: int(replica.client.hget(lease.lease_key("pbx"), "heartbeat")) > beat)
        assert posted(replica) == ["1", "2"] and replica.client.info("replication")["role"] == "master"
        assert owner.lease.is_held
        with capture_logs():
            for number in range(20):
                try:
                    found = await asker.send("pbx", ForConference("MA1", "x", Lock(True)), f"d{number}", 3)
                except (redis.RedisError, OSError):
                    continue  # this is how the client learns of it
                if found == CommandReply(f"d{number}", 202):
                    break
            else:
                pytest.fail("no command came through")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asks.aclose()


async def test_a_failover_that_lost_writes_is_made_good(redis_server: RedisServer, replica: RedisServer, stage: Stage):
    async with between(redis_server.port) as way, owning(way.url, stage) as owner:
        players(stage, "ann")
        owner.write()
        await owner.drained()
        replica.promote()  # the old primary learns nothing more
        players(stage, "bob")
        owner.write()
        await owner.drained()
        assert not is_as_it_lives(replica, stage)
        way.target = replica.port
        redis_server.client.replicaof("127.0.0.1", replica.port)
        await until(lambda: is_as_it_lives(replica, stage))
        assert owner.lease.is_held


async def test_a_standby_that_waits_at_the_old_primary_takes_over_at_the_new_one(
    redis_server: RedisServer, replica: RedisServer, stage: Stage
):
    async with between(redis_server.port) as way:
        client = state_store.connect(way.url)
        standby = OwnershipLease(client, "pbx")
        async with owning(way.url, stage) as owner:
            waiting = asyncio.create_task(standby.acquire())
            await until(lambda: standby.state == "standby")
            fail_over(redis_server, replica)
            way.target = replica.port
            await until(lambda: lease.read_status(replica.client, "pbx").age_ms < 400)
            await owner.lease.release()
        await asyncio.wait_for(waiting, SOON_S)
        assert standby.is_held
        await client.aclose()


def test_a_worker_finds_the_new_primary(redis_server: RedisServer, replica: RedisServer):
    proxy = Proxy(redis_server.port)
    try:
        client = follow_primary_in_threads(redis.Redis.from_url(f"redis://127.0.0.1:{proxy.port}/0", socket_timeout=10))
        lanes, taken = PartitionedQueue(client), []

        def turn(claim_number: int, disposition: Any = None) -> Any:
            deadline = time.monotonic() + SOON_S
            while True:
                try:
                    if disposition is None:
                        return lanes.claim("w1", 8, claim_number)
                    return lanes.settle_and_claim("w1", 8, disposition, claim_number)
                except redis.RedisError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)

        def in_another_thread(work: Callable[[], Any]) -> Any:
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(work()))
            thread.start()
            thread.join()
            return found[0]

        accounts.add(client, 1, "A")
        enqueue(redis_server.client, [("A:o:1", b"a"), ("A:o:1", b"b"), ("A:o:2", b"c")])
        first = turn(1)
        replica.follow(redis_server)
        fail_over(redis_server, replica)
        proxy.target = replica.port
        taken = [turn(2, ack(first)), in_another_thread(lambda: turn(3))]
        assert sorted(one.entry for one in taken) == [b"b", b"c"]
        assert accounts.rotate_token(client, "A").auth_id == "A"
        assert replica.client.hlen("ari_conf:callbacks:claims:w1") == 2
    finally:
        proxy.end()
