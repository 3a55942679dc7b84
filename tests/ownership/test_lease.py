"""Tests of the lease: one of several processes owns an Asterisk's calls. Redis is real, and time is an argument."""

from __future__ import annotations

import asyncio
import heapq
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import count
from typing import Any

import pytest

from ari_conf.common import process_identity, state_version
from ari_conf.common.redis_keys import STATE_VERSION_KEY
from ari_conf.core.effects import ClaimName
from ari_conf.errors import LeaseLost, StateVersionRefused, StoreUnavailable
from ari_conf.ownership import lease
from ari_conf.ownership.lease import ACT_WITHIN_S, LEASE_S, POLL_INTERVAL_S, LeaseObservation, OwnershipLease
from ari_conf.store import state_store
from ari_conf.store.state_store import StateStore, Step
from ari_conf.store.step_batch import NameClaim
from tests.between import between
from tests.redis import RedisServer

NOW = 1_790_000_000_000
Made = Callable[..., OwnershipLease]


class Time:
    """The time of all processes of a test: it stands still while they ask Redis, and passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._tasks: list[asyncio.Task[None]] = []

    async def sleep(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self.now + seconds, next(self._numbers), waking))
        await waking

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a process, which sleeps by this time."""
        self._tasks.append(asyncio.create_task(work))
        return self._tasks[-1]

    async def passes(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while True:
            await self._all_sleep()
            if until():
                return
            if not self._sleeping or self._sleeping[0][0] > end:
                break
            self.now, _, waking = heapq.heappop(self._sleeping)
            if not waking.done():
                waking.set_result(None)
        self.now = end

    async def _all_sleep(self) -> None:
        """Wait until all processes sleep or have ended. Their requests to Redis take as long as they take."""
        async with asyncio.timeout(60):
            while True:
                self._sleeping = [one for one in self._sleeping if not one[2].done()]
                heapq.heapify(self._sleeping)
                if sum(not task.done() for task in self._tasks) <= len(self._sleeping):
                    return
                await asyncio.sleep(0.001)

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


class Clock:
    """The clock of one process, which may have been suspended: then time has passed that it did not notice."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._time.now + self.ahead


@pytest.fixture
async def time() -> AsyncIterator[Time]:
    time = Time()
    yield time
    time.end()


@pytest.fixture
async def make(redis_server: RedisServer, time: Time, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    clients = []

    def made(host: str = "one", forgotten: Callable[[], None] = lambda: None, **more: Any) -> OwnershipLease:
        """Return a lease of a process on its own machine: other machines cannot tell if the process is alive."""
        monkeypatch.setattr(
            process_identity, "current", lambda: f'{{"host":"{host}","pid":1,"started":"1","pid_namespace":"{host}"}}'
        )
        clients.append(state_store.connect(redis_server.url))
        more = {"clock": Clock(time), "sleep": time.sleep} | more
        return OwnershipLease(clients[-1], "pbx", on_data_loss=forgotten, **more)

    yield made
    for client in clients:
        await client.aclose()


async def owner_of(time: Time, one: OwnershipLease) -> OwnershipLease:
    time.run(one.acquire())
    await time.passes(30, until=lambda: one.state == "owner")
    assert one.is_held
    return one


async def fenced(redis_server: RedisServer, owner: OwnershipLease) -> StateStore:
    return StateStore(state_store.connect(redis_server.url), "pbx", fencing_token=lambda: owner.fencing_token)


async def test_a_first_server_waits_only_for_an_owner_that_redis_may_have_lost(make: Made, time: Time):
    began = time.now
    one = await owner_of(time, make())
    assert not one.succeeded_unreleased
    assert lease.EMPTY_REDIS_WAIT_S <= time.now - began <= lease.EMPTY_REDIS_WAIT_S + POLL_INTERVAL_S


async def test_a_second_waits_as_long_as_the_first_renews_and_takes_over_when_it_does_no_more(make: Made, time: Time):
    one, two = make("one"), make("two")
    await owner_of(time, one)
    keeping = time.run(one.renew_until_lost())
    time.run(two.acquire())
    await time.passes(60)
    assert (two.state, two.current_owner) == ("standby", "one pid 1")
    keeping.cancel()
    died = time.now
    await time.passes(30, until=lambda: two.state == "owner")
    assert LEASE_S - lease.RENEW_S <= time.now - died <= LEASE_S + 2 * POLL_INTERVAL_S
    assert two.is_held and two.succeeded_unreleased


async def test_a_released_lease_is_taken_at_once(make: Made, time: Time):
    one, two = make("one"), make("two")
    await owner_of(time, one)
    await one.release()
    assert not one.is_held
    began = time.now
    await owner_of(time, two)
    assert time.now == began and not two.succeeded_unreleased


async def test_one_of_ten_concurrent_servers_gets_the_lease(make: Made, time: Time):
    one, others = make("one"), [make(f"other {n}") for n in range(10)]
    await owner_of(time, one)
    for other in others:
        time.run(other.acquire())
    await one.release()
    await time.passes(1.0)
    assert sorted(other.state for other in others) == ["owner"] + 9 * ["standby"]


async def test_a_suspended_owner_does_not_act_before_a_renewal(make: Made, time: Time):
    clock = Clock(time)
    one = await owner_of(time, make(clock=clock))
    clock.ahead += ACT_WITHIN_S + 0.01
    assert not one.is_held
    asking = asyncio.create_task(one.wait_until_held())
    await asyncio.sleep(0)
    assert not asking.done()
    time.run(one.renew_until_lost())
    await asyncio.wait_for(asking, 10)
    assert one.is_held


async def test_an_owner_that_must_act_renews_at_once(make: Made, time: Time):
    clock = Clock(time)
    one = await owner_of(time, make(clock=clock))
    time.run(one.renew_until_lost())
    await time.passes(0)
    clock.ahead += ACT_WITHIN_S + 0.01
    # It sleeps until the next renewal, and is woken for this call; no time passes.
    await asyncio.wait_for(one.wait_until_held(), 10)
    assert one.is_held


async def test_an_owner_that_resumes_after_a_takeover_never_acts_again(
    make: Made, time: Time, redis_server: RedisServer
):
    clock = Clock(time)
    one, two = make("one", clock=clock), make("two")
    await owner_of(time, one)
    await owner_of(time, two)
    clock.ahead += 60
    asking = asyncio.create_task(one.wait_until_held())
    await one.renew_until_lost()
    assert one.state == "lost" and not one.is_held
    await one.until_lost()
    assert not asking.done()
    asking.cancel()
    assert two.is_held
    assert lease.read_status(redis_server.client, "pbx").owner == "two pid 1"


async def test_all_writes_of_a_former_owner_are_refused(make: Made, time: Time, redis_server: RedisServer):
    one, two = make("one"), make("two")
    await owner_of(time, one)
    kept = await fenced(redis_server, one)
    await kept.write([Step(NOW, {"call:u1": b"1"})])
    await owner_of(time, two)
    with pytest.raises(LeaseLost):
        await kept.write([Step(NOW, {"call:u1": b"2"}, extra_commands=[lambda pipe: pipe.set("more", "1")])])
    with pytest.raises(LeaseLost):
        await kept.claim("MA1", "weekly", "c1")
    assert await kept.load() == {"call:u1": b"1"}
    assert redis_server.client.get("more") is None
    await (await fenced(redis_server, two)).write([Step(NOW, {"call:u1": b"3"})])
    assert await kept.load() == {"call:u1": b"3"}
    await kept.close()


@pytest.mark.parametrize("what", ["a write", "a claim"])
async def test_a_takeover_between_looking_and_writing_refuses_it(
    make: Made, time: Time, redis_server: RedisServer, what: str
):
    """The write was sent by a process that certainly was the owner, and is still on its way when another takes over."""
    one, two = make("one"), make("two")
    await owner_of(time, one)
    async with between(redis_server.port) as way:
        kept = StateStore(state_store.connect(way.url), "pbx", fencing_token=lambda: one.fencing_token)
        await kept.write([Step(NOW, {"call:u1": b"1"})])
        way.hold(b"EVAL")
        assert one.is_held
        late = kept.write([Step(NOW, {"call:u1": b"2"})]) if what == "a write" else kept.claim("MA1", "weekly", "c1")
        writing = asyncio.create_task(late)
        await way.held.wait()
        await owner_of(time, two)
        way.let_through()
        with pytest.raises(LeaseLost):
            await writing
    assert await (await fenced(redis_server, two)).load() == {"call:u1": b"1"}
    assert redis_server.client.keys("ari_conf:names:*") == []
    await kept.close()


async def test_nothing_is_written_after_the_release(make: Made, time: Time, redis_server: RedisServer):
    one = await owner_of(time, make("one"))
    kept = await fenced(redis_server, one)
    await one.release()
    with pytest.raises(LeaseLost):
        await kept.write([Step(NOW, {"call:u1": b"1"})])
    await kept.close()


async def test_while_redis_is_away_a_lone_owner_goes_on_and_nobody_takes_its_place(
    make: Made, time: Time, redis_server: RedisServer
):
    one, two = make("one"), make("two")
    await owner_of(time, one)
    time.run(one.renew_until_lost())
    time.run(two.acquire())
    await time.passes(1)
    redis_server.kill()
    for _ in range(40):
        await time.passes(LEASE_S / 10)
        assert one.is_held, "the owner delayed a call"
    redis_server.start()
    await time.passes(60)
    assert one.is_held and two.state == "standby"


async def test_redis_comes_back_empty_and_the_owner_is_it_again_and_writes_all(
    make: Made, time: Time, redis_server: RedisServer
):
    forgotten: list[bool] = []
    one, two = make("one", lambda: forgotten.append(True)), make("two")
    await owner_of(time, one)
    kept = await fenced(redis_server, one)
    await kept.write([Step(NOW, {"call:u1": b"1"})])
    time.run(one.renew_until_lost())
    time.run(two.acquire())
    await time.passes(1)
    redis_server.client.flushall()
    with pytest.raises(StoreUnavailable):
        await kept.write([Step(NOW, {"call:u1": b"2"})])
    await time.passes(lease.RENEW_S + 0.01)
    assert forgotten == [True]
    await kept.write([Step(NOW, {"call:u1": b"3"})])
    assert await kept.load() == {"call:u1": b"3"}
    await time.passes(60)
    assert one.is_held and two.state == "standby" and forgotten == [True]
    await kept.close()


async def test_a_standby_ends_when_the_state_was_upgraded(make: Made, time: Time, redis_server: RedisServer):
    one, two = make("one"), make("two")
    await owner_of(time, one)
    await one.release()
    time.run(make("three").acquire())
    await time.passes(1)
    standing_by = time.run(two.acquire())
    await time.passes(1)
    assert two.state == "standby"
    redis_server.client.set(STATE_VERSION_KEY, state_version.VERSION + 1)
    await time.passes(2 * POLL_INTERVAL_S)
    assert standing_by.done()
    with pytest.raises(StateVersionRefused, match="upgrade this process"):
        standing_by.result()


async def test_an_upgrade_between_looking_and_taking_prevents_the_takeover(
    make: Made, time: Time, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    one, two = make("one"), make("two")
    await owner_of(time, one)
    await one.release()
    look = two._look

    async def upgraded_meanwhile() -> lease.SeenLease:
        seen = await look()
        redis_server.client.set(STATE_VERSION_KEY, state_version.VERSION + 1)
        return seen

    monkeypatch.setattr(two, "_look", upgraded_meanwhile)
    taking = time.run(two.acquire())
    await time.passes(2 * POLL_INTERVAL_S)
    assert isinstance(taking.exception(), StateVersionRefused)
    assert redis_server.client.get(lease.owner_key("pbx")) == b"", "it has not taken the lease"


async def test_redis_comes_back_empty_and_gets_the_version_of_the_owner_again(
    make: Made, time: Time, redis_server: RedisServer
):
    one = make("one")
    await owner_of(time, one)
    time.run(one.renew_until_lost())
    redis_server.client.flushall()
    await time.passes(lease.RENEW_S + 0.01)
    assert state_version.read(redis_server.client) == state_version.VERSION


async def test_redis_comes_back_as_it_was_before_this_owner(make: Made, time: Time, redis_server: RedisServer):
    """Redis restarts from an old copy, and the owner in that copy no longer exists."""
    forgotten: list[bool] = []
    one = make("one", lambda: forgotten.append(True))
    redis_server.client.hset(
        lease.lease_key("pbx"), mapping={"number": 4, "heartbeat": 9, "renewed_ms": 1, "identity": ""}
    )
    redis_server.client.set(lease.owner_key("pbx"), "")
    await owner_of(time, one)
    redis_server.client.hset(lease.lease_key("pbx"), "number", 4)
    redis_server.client.set(lease.owner_key("pbx"), "4.old")
    time.run(one.renew_until_lost())
    await time.passes(0.1)
    assert one.is_held and forgotten == [True]


@pytest.mark.parametrize("lives", [True, False])
@pytest.mark.parametrize(
    "nonsense", ["owner", "owner's bytes", "lease", "standby", "number", "heartbeat", "renewed_ms", "identity", "realm"]
)
async def test_nonsense_in_the_place_of_a_record_stops_neither_the_owner_nor_who_waits(
    make: Made, time: Time, redis_server: RedisServer, nonsense: str, lives: bool
):
    first, second = make(), make()
    time.run(first.acquire())
    await time.passes(2)
    keeping = time.run(first.renew_until_lost())
    time.run(second.acquire())
    await time.passes(1)
    if not lives:
        keeping.cancel()
        await time.passes(0)
    client = redis_server.client
    if nonsense == "owner":
        client.delete(lease.owner_key("pbx"))
        client.rpush(lease.owner_key("pbx"), "x")
    elif nonsense == "owner's bytes":
        client.set(lease.owner_key("pbx"), b"\xff\x00")
    elif nonsense in ("lease", "standby"):
        key = {"lease": lease.lease_key, "standby": lease.standby_key}[nonsense]("pbx")
        client.delete(key)
        client.set(key, b"\xff")
    else:
        client.hset(lease.lease_key("pbx"), nonsense, b"\xffx")
    await time.passes(LEASE_S + 1)
    assert (first.is_held, second.state == "owner") == (lives, not lives)


async def test_loss_in_redis_between_two_renewals_is_noticed(make: Made, time: Time, redis_server: RedisServer):
    """A replica that became the primary had not received the last write, but the renewal before it."""
    forgotten: list[str] = []
    kept: list[StateStore] = []
    one = make("one", lambda: forgotten.append(kept[0].confirmed), confirmed_batch_id=lambda: kept[0].confirmed)
    await owner_of(time, one)
    kept.append(await fenced(redis_server, one))
    time.run(one.renew_until_lost())
    for n in range(3):
        await kept[0].write([Step(NOW, {"call:u1": b"%d" % n})])
        copy = {key: redis_server.client.dump(key) for key in redis_server.client.keys("*")}
        await time.passes(5)
    assert forgotten == []
    await kept[0].write([Step(NOW, {"call:u1": b"3"})])
    for key, value in copy.items():
        if key != lease.lease_key("pbx").encode():
            redis_server.client.restore(key, 0, value, replace=True)
    await time.passes(lease.RENEW_S + 0.01)
    assert forgotten == [kept[0].confirmed]
    await time.passes(60)
    assert len(forgotten) == 1, "the loss was reported again, although nothing more was lost"
    await kept[0].write([Step(NOW, {"call:u1": b"4"})])
    await time.passes(5)
    redis_server.client.delete(lease.last_batch_key("pbx"))
    await time.passes(5)
    assert len(forgotten) == 2
    for number, damaged in enumerate((b"\xff", f"{kept[0].confirmed.partition('-')[0]}-²".encode())):
        redis_server.client.set(lease.last_batch_key("pbx"), damaged)
        await time.passes(5)
        assert len(forgotten) == 3 + number, "the rewritten state is complete again"
    redis_server.client.delete(lease.last_batch_key("pbx"))
    redis_server.client.rpush(lease.last_batch_key("pbx"), "something else")
    await time.passes(5)
    assert len(forgotten) == 5 and one.is_held
    await kept[0].close()


async def test_a_suspended_owner_has_lost_the_lease_if_redis_was_emptied_and_another_started(
    make: Made, time: Time, redis_server: RedisServer
):
    clock = Clock(time)
    one = make("one", clock=clock)
    for _ in range(3):  # so that its number is the higher one
        await owner_of(time, one)
        await one.release()
    await owner_of(time, one)
    redis_server.client.flushall()
    two = await owner_of(time, make("two"))
    clock.ahead += 60
    await one.renew_until_lost()
    assert one.state == "lost" and two.is_held


async def test_a_dead_process_of_this_machine_is_not_waited_for(redis_server: RedisServer, time: Time):
    def died() -> None:
        script = (
            "import asyncio, sys; from ari_conf.ownership import lease; from ari_conf.store import state_store\n"
            "asyncio.run(lease.OwnershipLease(state_store.connect(sys.argv[1]), 'pbx').acquire())"
        )
        subprocess.run([sys.executable, "-c", script, redis_server.url], check=True)

    await asyncio.to_thread(died)
    client = state_store.connect(redis_server.url)
    began = time.now
    two = await owner_of(time, OwnershipLease(client, "pbx", clock=Clock(time), sleep=time.sleep))
    assert time.now == began
    assert two.succeeded_unreleased
    await client.aclose()


def test_a_pid_with_another_start_time_is_another_process():
    mine = process_identity.current()
    assert not process_identity.is_dead(mine)
    assert process_identity.describe(mine).endswith(f" pid {os.getpid()}")
    assert not process_identity.is_dead("") and not process_identity.is_dead("{}")
    assert not process_identity.is_dead(mine.replace('"pid_namespace":"', '"pid_namespace":"elsewhere')), (
        "another machine's process cannot be judged"
    )
    started = process_identity._start_time(os.getpid())
    assert process_identity.is_dead(mine.replace(f'"started":"{started}"', '"started":"1"'))


def test_an_observation_with_a_gap_restarts():
    """Redis was unreachable, or the standby was suspended: the owner may have renewed, or been unable to."""
    watch = LeaseObservation()
    times = [n * POLL_INTERVAL_S for n in range(12)]
    assert not any(watch.may_take("1.a", "7", "", now) for now in times)
    assert not watch.may_take("1.a", "7", "", times[-1] + 10)
    assert not watch.may_take("1.a", "7", "", times[-1] + 10 + POLL_INTERVAL_S)


# Names.


def ago(redis_server: RedisServer, seconds: int) -> int:
    """Return Redis' time in ms, that many seconds ago."""
    return int((redis_server.client.time()[0] - seconds) * 1000)


async def test_a_name_of_an_owner_who_never_returns_may_be_taken_after_a_while(redis_server: RedisServer):
    client = state_store.connect(redis_server.url)
    one, two = StateStore(client, "one"), StateStore(client, "two", names_kept_s=600)
    await one.claim("MA1", "weekly", "c1")
    assert await two.claim("MA1", "weekly", "c2") == "one", "the time counts from the first request"
    at = int(redis_server.client.hget(lease.lease_key("one"), "renewed_ms"))
    assert abs(at - ago(redis_server, 0)) < 60_000
    redis_server.client.hset(lease.lease_key("one"), "renewed_ms", at - 590_000)
    assert await two.claim("MA1", "weekly", "c2") == "one"
    redis_server.client.hset(lease.lease_key("one"), "renewed_ms", at - 601_000)
    assert await two.claim("MA1", "weekly", "c2") is None
    assert await two.names("MA1") == {"weekly": ("c2", "two")}
    await client.aclose()


async def test_a_name_of_an_owner_who_renews_is_kept(redis_server: RedisServer, make: Made, time: Time):
    one = await owner_of(time, make("one"))
    time.run(one.renew_until_lost())
    kept = await fenced(redis_server, one)
    await kept.claim("MA1", "weekly", "c1")
    other = StateStore(state_store.connect(redis_server.url), "elsewhere", names_kept_s=600)
    for _ in range(4):
        redis_server.client.hset(lease.lease_key("pbx"), "renewed_ms", ago(redis_server, 700))
        await time.passes(lease.RENEW_S)
        assert await other.claim("MA1", "weekly", "c2") == "pbx"
    await kept.close()
    await other.close()


async def test_names_claimed_during_an_outage_are_written_later_and_a_conflict_is_reported(redis_server: RedisServer):
    client = state_store.connect(redis_server.url)
    one, two = StateStore(client, "one"), StateStore(client, "two")
    await two.claim("MA1", "taken", "c9")
    told: list[str] = []
    step = Step(NOW, {"call:u1": b"1"})
    step.claims += [
        NameClaim(ClaimName("MA1", name, id), told.append) for name, id in (("weekly", "c1"), ("taken", "c2"))
    ]
    await one.write([step])
    assert await one.names("MA1") == {"weekly": ("c1", "one"), "taken": ("c9", "two")}
    assert told == ["two"]
    await client.aclose()
