"""Redis away, full, read-only, replaced, empty, or as it was earlier: calls go on, and then it has what lives."""

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

from ari_conf import accounts, lease, outbox, store, takeover
from ari_conf.batch import Step
from ari_conf.command_queue import Asker, Commands, connect
from ari_conf.core import effects as do
from ari_conf.core.commands import Lock
from ari_conf.core.directory import Directory
from ari_conf.core.effects import Reply
from ari_conf.lanes import Lanes, done, enqueue
from ari_conf.lease import Lease
from ari_conf.member_fields import members_key
from ari_conf.names import Names
from ari_conf.redis_client import following_in_threads
from ari_conf.rewriting import WRITTEN_AT_ONCE, Rewriting
from ari_conf.steps import Steps
from ari_conf.store import Store, names_key, state_key
from ari_conf.writer import Writer
from tests.between import between
from tests.core.stage import Stage, players, stay
from tests.redis import RedisServer, start
from tests.tasks.proxy import Proxy

SOON_S = 30.0
"""Much longer than anything here takes on a busy machine."""


class Owner:
    """As `service` joins them: the core on its stage, and all that has to do with Redis."""

    def __init__(self, url: str, stage: Stage, name: str = "pbx") -> None:
        self.stage = stage
        self.redis = store.connect(url)
        self.lease = Lease(
            self.redis, name, forgotten=lambda: self.rewriting.write_all(), written=lambda: self.store.confirmed
        )
        self.store = Store(self.redis, name, token=lambda: self.lease.token)
        self.steps = Steps(stage.directory, SimpleNamespace(), lambda _: lambda _: None)  # type: ignore[arg-type]
        self.done: list[do.Effect] = []
        self.writer = Writer(
            self.store, self.done.append, lambda: None, self.lease.lose, write_all=lambda: self.rewriting.write_all()
        )
        compared = asyncio.Event()
        compared.set()
        self.problems: list[str] = []
        names = Names(
            stage.directory, self.writer, lambda _, text: self.problems.append(text), compared, lambda: stage.now
        )
        self.rewriting = Rewriting(stage.directory, self.steps, self.store, self.writer, names, lambda: stage.now)
        self._written = 0

    def write(self) -> None:
        """What the stage has brought."""
        effects, self._written = self.stage.effects[self._written :], len(self.stage.effects)
        for effect in effects:
            if isinstance(effect, do.ClaimName):
                step = Step(self.stage.now)
                step.claims.append((effect, lambda _: None))
                self.writer.put(step, [])
        self.writer.put(*self.steps.of(effects, self.stage.now))

    async def drained(self) -> None:
        await asyncio.wait_for(self.writer.drained(), SOON_S)


@asynccontextmanager
async def owning(url: str, stage: Stage, name: str = "pbx") -> AsyncIterator[Owner]:
    owner = Owner(url, stage, name)
    await owner.lease.acquire()
    tasks = [asyncio.create_task(w) for w in (owner.writer.run(), owner.lease.keep(), owner.rewriting.run())]
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
    """The numbers of the callbacks that wait, as they were put."""
    keys = sorted(server.client.scan_iter("ari_conf:callbacks:lane:*"))
    texts = [text for key in keys for text in server.client.lrange(key, 0, -1)]
    params = [dict(outbox.decode(text).params) for text in texts]
    return [found["N"] for found in params if "N" in found]


def callback(number: int, auth_id: str = "MA1") -> do.PostCallback:
    return do.PostCallback("c", auth_id, "http://x.example", "POST", (("N", str(number)), ("Filling", "x" * 700)))


def put(owner: Owner, *numbers: int) -> None:
    for number in numbers:
        owner.writer.put(Step(1, {"call-u1": b"%d" % number}, [callback(number)]), [do.Answer(str(number))])


# It comes back, and has not what it had.


def copied(server: RedisServer) -> dict[bytes, bytes]:
    return {key: server.client.dump(key) for key in server.client.keys("*")}


def put_back(server: RedisServer, copy: dict[bytes, bytes]) -> None:
    pipe = server.client.pipeline(transaction=True)
    pipe.flushall()
    for key, value in copy.items():
        pipe.restore(key, 0, value)
    pipe.execute()


def is_as_it_lives(server: RedisServer, stage: Stage) -> bool:
    """Redis has all that lives and nothing else."""
    state = {key.decode(errors="replace") for key in server.client.hkeys(state_key("pbx"))} - {takeover.NEXT_MEMBER_ID}
    live = stage.directory.conferences
    members = {key.decode() for key in server.client.scan_iter(members_key("*"))}
    names = {key: id.split(b" ")[0].decode() for key, id in server.client.hgetall(names_key("A")).items()}
    return (
        state == {*stage.directory.calls, *live}
        and members == {members_key(id) for id, conference in live.items() if conference.members}
        and names == {conference.name.encode(): id for id, conference in live.items() if not conference.ending}
    )


async def successor_of(server: RedisServer) -> Directory:
    client = store.connect(server.url)
    directory = Directory(lambda: "new")
    await takeover.restore(Store(client, "pbx"), directory)
    await client.aclose()
    return directory


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_it_comes_back_from_an_older_copy_and_no_dead_call_rises(redis_server: RedisServer, stage: Stage):
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann", "bob")
        for name in ("stays", "stays too", "leaves"):
            stage.call(name, stay("a room that lives on"))
        for number in range(WRITTEN_AT_ONCE):
            stage.call(f"old{number}", stay(f"room {number}"))
        owner.write()
        await owner.drained()
        copy = copied(redis_server)
        stage.hang_up("bob", "ann", "leaves", *(f"old{number}" for number in range(WRITTEN_AT_ONCE)))
        players(stage, "cid", "dan")
        for number in range(2 * WRITTEN_AT_ONCE):
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
        assert (found.calls, found.conferences) == (stage.directory.calls, stage.directory.conferences)
        assert owner.problems == []


async def test_what_lives_is_written_before_anything_is_taken_out(
    redis_server: RedisServer, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """Whoever dies in between leaves nothing out."""
    there: list[set[str]] = []
    forget = Store.forget

    def looked_at(kept: Store, pipe: Any, ids: Any) -> None:
        there.append({key.decode() for key in redis_server.client.hkeys(state_key("pbx"))})
        forget(kept, pipe, ids)

    monkeypatch.setattr(Store, "forget", looked_at)
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann")
        owner.write()
        await owner.drained()
        copy = copied(redis_server)
        stage.hang_up("ann")
        for number in range(2 * WRITTEN_AT_ONCE):
            stage.call(f"new{number}", stay(f"room {number}"))
        owner.write()
        await owner.drained()
        put_back(redis_server, copy)
        await until(lambda: there and is_as_it_lives(redis_server, stage))
    assert all(seen >= {*stage.directory.calls, *stage.directory.conferences} for seen in there)


async def test_it_is_killed_and_comes_back_empty(redis_server: RedisServer, stage: Stage, tmp_path: Path):
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann", "bob")
        owner.write()
        await owner.drained()
        redis_server.kill()
        shutil.rmtree(redis_server.folder / "appendonlydir")
        players(stage, "cid")
        owner.write()
        await until(lambda: owner.writer.away)
        stage.hang_up("bob")
        owner.write()
        redis_server.start()
        await owner.drained()
        await until(lambda: is_as_it_lives(redis_server, stage))
        found = await successor_of(redis_server)
        assert set(found.calls) == {"call-ann", "call-cid"}
        assert owner.lease.fresh


async def test_what_nobody_could_read_does_not_stay_for_ever(redis_server: RedisServer, stage: Stage):
    redis_server.client.hset(state_key("pbx"), mapping={"u7": "of another version", "c7": "{", b"\xff": "?"})
    redis_server.client.hset(members_key("c7"), "7", "{")
    redis_server.client.hset(names_key("A"), "lost", "c7 pbx")
    async with owning(redis_server.url, stage) as owner:
        players(stage, "ann")
        owner.write()
        owner.rewriting.clean()
        await until(lambda: is_as_it_lives(redis_server, stage))


async def test_it_forgets_again_while_all_is_written_again(redis_server: RedisServer, stage: Stage):
    async with owning(redis_server.url, stage) as owner:
        for number in range(3 * WRITTEN_AT_ONCE):
            stage.call(f"caller{number}", stay(f"room {number}"))
        owner.write()
        await owner.drained()
        redis_server.client.flushall()
        await until(lambda: redis_server.client.exists(state_key("pbx")))
        redis_server.client.flushall()
        await until(lambda: is_as_it_lives(redis_server, stage))


# It is there, and takes nothing.


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
    [(full, "memory is full"), (without_disk, "can't write to its disk"), (locked, "asks for a password"),
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
                    await until(lambda: owner.writer.away)
                    put(owner, 3, 4)
                    assert [effect.channel_id for effect in owner.done] == ["1", "2", "3", "4"]
                    # Names are ours until Redis can be asked; and nobody takes the calls.
                    with pytest.raises(store.StoreUnavailable):
                        await owner.store.claim("MA1", "standup", "c1")
                    await asyncio.sleep(lease.OWN_S + 0.5)
                    assert owner.lease.fresh
                    assert posted(server) == ["1"]
                await owner.drained()
            reasons = [line["reason"] for line in logged if line["event"].startswith("redis away")]
            assert said in reasons[-1]
            assert posted(server) == ["1", "2", "3", "4"] and not owner.writer.away
            assert await owner.store.claim("MA1", "standup", "c1") is None
    finally:
        server.kill()


# Another is the primary.


@pytest.fixture
def replica(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    server = start(tmp_path / "replica")
    server.follow(redis_server)
    yield server
    server.kill()


def fail_over(old: RedisServer, new: RedisServer) -> None:
    """As an operator, or Sentinel, does it; the old one lives, and is a replica from now on."""
    new.promote()
    old.client.replicaof("127.0.0.1", new.port)


async def test_serve_and_web_find_the_new_primary(redis_server: RedisServer, replica: RedisServer, stage: Stage):
    """The old one lives, and keeps all connections that it has."""
    async with between(redis_server.port) as way, owning(way.url, stage) as owner:
        asks = connect(way.url)
        asker = Asker(asks, "web")

        def reply(answer: Reply) -> None:
            step = Step(1)
            step.also.append(commands.answer(answer))
            owner.writer.put(step, [])

        commands = Commands(owner.redis, "pbx", lambda event: reply(Reply(event.command_id, 202)), lambda: True, reply)
        tasks = [asyncio.create_task(commands.run()), asyncio.create_task(asker.listen())]
        assert await asker.ask("pbx", Lock(True), "c1", "MA1", "x", 10) == Reply("c1", 202)
        put(owner, 1)
        await owner.drained()
        beat = int(redis_server.client.hget(lease.lease_key("pbx"), "beat"))

        fail_over(redis_server, replica)
        way.target = replica.port
        put(owner, 2)
        await owner.drained()
        await until(lambda: int(replica.client.hget(lease.lease_key("pbx"), "beat")) > beat)
        assert posted(replica) == ["1", "2"] and replica.client.info("replication")["role"] == "master"
        assert owner.lease.fresh
        with capture_logs():
            for number in range(20):
                try:
                    found = await asker.ask("pbx", Lock(True), f"d{number}", "MA1", "x", 3)
                except (redis.RedisError, OSError):
                    continue  # this is how it hears of it
                if found == Reply(f"d{number}", 202):
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
        replica.promote()  # it hears of nothing more
        players(stage, "bob")
        owner.write()
        await owner.drained()
        assert not is_as_it_lives(replica, stage)
        way.target = replica.port
        redis_server.client.replicaof("127.0.0.1", replica.port)
        await until(lambda: is_as_it_lives(replica, stage))
        assert owner.lease.fresh


async def test_a_standby_that_waits_at_the_old_primary_takes_over_at_the_new_one(
    redis_server: RedisServer, replica: RedisServer, stage: Stage
):
    async with between(redis_server.port) as way:
        client = store.connect(way.url)
        standby = Lease(client, "pbx")
        async with owning(way.url, stage) as owner:
            waiting = asyncio.create_task(standby.acquire())
            await until(lambda: standby.state == "standby")
            fail_over(redis_server, replica)
            way.target = replica.port
            await until(lambda: lease.seen(replica.client, "pbx").age_ms < 400)
            await owner.lease.release()
        await asyncio.wait_for(waiting, SOON_S)
        assert standby.fresh
        await client.aclose()


def test_a_worker_finds_the_new_primary(redis_server: RedisServer, replica: RedisServer):
    proxy = Proxy(redis_server.port)
    try:
        client = following_in_threads(redis.Redis.from_url(f"redis://127.0.0.1:{proxy.port}/0", socket_timeout=10))
        lanes, taken = Lanes(client), []

        def turn(token: int, verdict: Any = None) -> Any:
            deadline = time.monotonic() + SOON_S
            while True:
                try:
                    return lanes.turn("w1", 8, token, verdict)
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
        taken = [turn(2, done(first)), in_another_thread(lambda: turn(3))]
        assert sorted(one.entry for one in taken) == [b"b", b"c"]
        assert accounts.rotate_token(client, "A").auth_id == "A"
        assert replica.client.hlen("ari_conf:callbacks:held:w1") == 2
    finally:
        proxy.end()
