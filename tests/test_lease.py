"""Of several processes one owns an Asterisk's calls: on a real Redis; time is an argument."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from ari_conf import holder, lease, store
from ari_conf.core.effects import ClaimName
from ari_conf.errors import LeaseLost, StoreUnavailable
from ari_conf.lease import LEASE_S, LOOK_S, OWN_S, Lease, Watch
from ari_conf.store import Step, Store
from tests.redis import RedisServer

NOW = 1_790_000_000_000
Made = Callable[..., Lease]


class Clock:
    """Of one process; it goes by itself too, so that what waits comes to its end."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return lease.boottime() + self.ahead


@pytest.fixture
async def make(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Made]:
    clients = []

    def made(host: str = "one", forgotten: Callable[[], None] = lambda: None, clock: Clock | None = None) -> Lease:
        """On a machine of its own: whether it lives can't be told from the others."""
        monkeypatch.setattr(holder, "this", lambda: f'{{"host":"{host}","pid":1,"started":"1","place":"{host}"}}')
        clients.append(store.connect(redis_server.url))
        return Lease(clients[-1], "pbx", forgotten=forgotten, clock=clock or Clock())

    yield made
    for client in clients:
        await client.aclose()


async def fenced(redis_server: RedisServer, owner: Lease) -> Store:
    return Store(store.connect(redis_server.url), "pbx", token=lambda: owner.token)


async def test_the_first_waits_only_for_one_who_may_have_been_forgotten(make: Made):
    began = lease.boottime()
    one = make()
    await one.acquire()
    assert one.fresh and not one.after_another
    assert lease.EMPTY_S <= lease.boottime() - began < lease.EMPTY_S + 1.0


async def test_a_second_waits_as_long_as_the_first_renews_and_takes_over_when_it_does_no_more(make: Made):
    one, two = make("one"), make("two")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    waiting = asyncio.create_task(two.acquire())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), LEASE_S + 1.0)
    assert (two.state, two.waiting_for) == ("standby", "one pid 1")
    keeping.cancel()
    died = lease.boottime()
    await waiting
    assert LEASE_S - lease.RENEW_S <= lease.boottime() - died < LEASE_S + 3 * LOOK_S
    assert two.fresh and two.after_another


async def test_what_was_given_back_is_taken_at_once(make: Made):
    one, two = make("one"), make("two")
    await one.acquire()
    await one.release()
    assert not one.fresh
    began = lease.boottime()
    await two.acquire()
    assert lease.boottime() - began < 0.2
    assert not two.after_another


async def test_of_ten_at_once_one_gets_it(make: Made):
    one, others = make("one"), [make(f"other {n}") for n in range(10)]
    await one.acquire()
    waiting = [asyncio.create_task(other.acquire()) for other in others]
    await one.release()
    done, left = await asyncio.wait(waiting, timeout=1.0)
    assert len(done) == 1 and len(left) == 9
    for task in left:
        task.cancel()


async def test_one_who_was_stopped_does_not_act_before_he_has_asked(make: Made):
    clock = Clock()
    one = make(clock=clock)
    await one.acquire()
    assert one.fresh
    clock.ahead += OWN_S
    assert not one.fresh
    asking = asyncio.create_task(one.confirmed())
    await asyncio.sleep(0)
    assert not asking.done()
    keeping = asyncio.create_task(one.keep())
    await asyncio.wait_for(asking, 0.3)
    assert one.fresh
    keeping.cancel()


async def test_one_who_wakes_up_after_another_took_over_never_acts_again(make: Made, redis_server: RedisServer):
    clock = Clock()
    one, two = make("one", clock=clock), make("two")
    await one.acquire()
    await two.acquire()
    clock.ahead += 60
    asking = asyncio.create_task(one.confirmed())
    await one.keep()
    assert one.state == "lost" and not one.fresh
    await one.until_lost()
    assert not asking.done()
    asking.cancel()
    assert two.fresh
    assert lease.seen(redis_server.client, "pbx").owner == "two pid 1"


async def test_what_a_former_owner_writes_is_refused_all_of_it(make: Made, redis_server: RedisServer):
    one, two = make("one"), make("two")
    await one.acquire()
    kept = await fenced(redis_server, one)
    await kept.write([Step(NOW, {"call:u1": b"1"})])
    await two.acquire()
    with pytest.raises(LeaseLost):
        await kept.write([Step(NOW, {"call:u1": b"2"}, also=[lambda pipe: pipe.set("more", "1")])])
    with pytest.raises(LeaseLost):
        await kept.claim("MA1", "weekly", "c1")
    assert await kept.load() == {"call:u1": b"1"}
    assert redis_server.client.get("more") is None
    await (await fenced(redis_server, two)).write([Step(NOW, {"call:u1": b"3"})])
    assert await kept.load() == {"call:u1": b"3"}
    await kept.close()


async def test_a_takeover_between_looking_and_writing_refuses_the_write(make: Made, redis_server: RedisServer):
    """The transaction is under way when the key changes: what was watched no longer holds."""
    one = make("one")
    await one.acquire()
    kept = await fenced(redis_server, one)
    for n in range(50):
        await kept.write([Step(NOW, {"call:u1": b"%d" % n})])
    redis_server.client.set(lease.owner_key("pbx"), "another")
    with pytest.raises(LeaseLost):
        await kept.write([Step(NOW, {"call:u1": b"late"})])
    assert await kept.load() == {"call:u1": b"49"}
    await kept.close()


async def test_after_giving_it_back_nothing_is_written(make: Made, redis_server: RedisServer):
    one = make("one")
    await one.acquire()
    kept = await fenced(redis_server, one)
    await one.release()
    with pytest.raises(LeaseLost):
        await kept.write([Step(NOW, {"call:u1": b"1"})])
    await kept.close()


async def test_while_redis_is_away_a_lone_owner_goes_on_and_nobody_takes_his_place(
    make: Made, redis_server: RedisServer
):
    one, two = make("one"), make("two")
    await one.acquire()
    keeping, waiting = asyncio.create_task(one.keep()), asyncio.create_task(two.acquire())
    redis_server.kill()
    for _ in range(40):  # two seconds longer than a lease lasts
        await asyncio.sleep((LEASE_S + 2) / 40)
        assert one.fresh, "the owner held up a call"
    redis_server.start()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), LEASE_S + 1.0)
    assert one.fresh
    keeping.cancel()
    waiting.cancel()


async def test_redis_comes_back_empty_and_the_owner_is_it_again_and_writes_all(make: Made, redis_server: RedisServer):
    rewritten = asyncio.Event()
    one, two = make("one", rewritten.set), make("two")
    await one.acquire()
    kept = await fenced(redis_server, one)
    await kept.write([Step(NOW, {"call:u1": b"1"})])
    keeping, waiting = asyncio.create_task(one.keep()), asyncio.create_task(two.acquire())
    redis_server.client.flushall()
    with pytest.raises(StoreUnavailable):
        await kept.write([Step(NOW, {"call:u1": b"2"})])
    await asyncio.wait_for(rewritten.wait(), 2)
    await kept.write([Step(NOW, {"call:u1": b"3"})])
    assert await kept.load() == {"call:u1": b"3"}
    assert not waiting.done() and one.fresh
    keeping.cancel()
    waiting.cancel()
    await kept.close()


async def test_redis_comes_back_as_it_was_before_this_owner(make: Made, redis_server: RedisServer):
    """From an old copy: the owner in it is none any more."""
    rewritten = asyncio.Event()
    one = make("one", rewritten.set)
    redis_server.client.hset(lease.lease_key("pbx"), mapping={"number": 4, "beat": 9, "at": 1, "holder": ""})
    redis_server.client.set(lease.owner_key("pbx"), "")
    await one.acquire()
    redis_server.client.hset(lease.lease_key("pbx"), "number", 4)
    redis_server.client.set(lease.owner_key("pbx"), "4.old")
    keeping = asyncio.create_task(one.keep())
    await asyncio.wait_for(rewritten.wait(), 2)
    assert one.fresh
    keeping.cancel()


async def test_one_who_slept_while_redis_was_emptied_and_another_began_is_none_any_more(
    make: Made, redis_server: RedisServer
):
    clock = Clock()
    one = make("one", clock=clock)
    for _ in range(3):  # so that its number is the higher one
        await one.acquire()
        await one.release()
    await one.acquire()
    redis_server.client.flushall()
    two = make("two")
    await two.acquire()
    clock.ahead += 60
    await one.keep()
    assert one.state == "lost" and two.fresh


async def test_a_dead_process_of_this_machine_is_not_waited_for(redis_server: RedisServer):
    def died() -> None:
        script = (
            "import asyncio, sys; from ari_conf import lease, store\n"
            "asyncio.run(lease.Lease(store.connect(sys.argv[1]), 'pbx').acquire())"
        )
        subprocess.run([sys.executable, "-c", script, redis_server.url], check=True)

    await asyncio.to_thread(died)
    client = store.connect(redis_server.url)
    two = Lease(client, "pbx")
    began = lease.boottime()
    await two.acquire()
    assert lease.boottime() - began < 0.5
    assert two.after_another
    await client.aclose()


def test_this_process_lives_and_another_under_its_number_would_not_be_it():
    mine = holder.this()
    assert not holder.is_dead(mine)
    assert holder.named(mine).endswith(f" pid {os.getpid()}")
    assert not holder.is_dead("") and not holder.is_dead("{}")
    assert not holder.is_dead(mine.replace('"place":"', '"place":"elsewhere')), "of another machine nobody can tell"
    started = holder._started(os.getpid())
    assert holder.is_dead(mine.replace(f'"started":"{started}"', '"started":"1"'))


def test_a_watch_with_a_gap_begins_anew():
    """Redis was away, or who waits was stopped: the owner may have renewed, or not have been able to."""
    watch = Watch()
    times = [n * LOOK_S for n in range(12)]
    assert not any(watch.may_take("1.a", "7", "", now) for now in times)
    assert not watch.may_take("1.a", "7", "", times[-1] + 10)
    assert not watch.may_take("1.a", "7", "", times[-1] + 10 + LOOK_S)


# Names.


async def test_a_name_of_an_owner_who_never_returns_may_be_taken_after_a_while(redis_server: RedisServer):
    client = store.connect(redis_server.url)
    one, two = Store(client, "one"), Store(client, "two", names_kept_s=0.2)
    await one.claim("MA1", "weekly", "c1")
    assert await two.claim("MA1", "weekly", "c2") == "one", "the time counts from the first who asked"
    await asyncio.sleep(0.25)
    assert await two.claim("MA1", "weekly", "c2") is None
    assert await two.names("MA1") == {"weekly": ("c2", "two")}
    await client.aclose()


async def test_a_name_of_an_owner_who_renews_is_kept(redis_server: RedisServer, make: Made):
    one = make("one")
    await one.acquire()
    keeping = asyncio.create_task(one.keep())
    kept = await fenced(redis_server, one)
    await kept.claim("MA1", "weekly", "c1")
    other = Store(store.connect(redis_server.url), "elsewhere", names_kept_s=0.8)
    for _ in range(4):
        await asyncio.sleep(0.3)
        assert await other.claim("MA1", "weekly", "c2") == "pbx"
    keeping.cancel()


async def test_names_that_were_claimed_alone_are_written_later_and_a_conflict_is_told(redis_server: RedisServer):
    client = store.connect(redis_server.url)
    one, two = Store(client, "one"), Store(client, "two")
    await two.claim("MA1", "taken", "c9")
    told: list[str] = []
    step = Step(NOW, {"call:u1": b"1"})
    step.claims += [(ClaimName("MA1", "weekly", "c1"), told.append), (ClaimName("MA1", "taken", "c2"), told.append)]
    await one.write([step])
    assert await one.names("MA1") == {"weekly": ("c1", "one"), "taken": ("c9", "two")}
    assert told == ["two"]
    await client.aclose()
