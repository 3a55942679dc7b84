"""Tests of the clock of `serve`: it runs steadily, whatever happens to a wall clock, and from one process to the next
too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio
from redis import RedisError

from ari_conf.server import clock as clock_module
from ari_conf.server.clock import SLEW_MS, TOLERANCE_MS, Clock, clock_key
from ari_conf.store import state_store
from tests import lateness
from tests.redis import RedisServer

HOUR = 3_600_000
NAME = "pbx"


class Machine:
    """A machine's clocks, which the test sets."""

    def __init__(self, place: str = "boot one") -> None:
        self.place = place
        self.steady = 5_000_000
        self.wall = 1_800_000_000_000

    def clock(self) -> Clock:
        return Clock(lambda: self.steady, lambda: self.wall, self.place)

    def pass_ms(self, ms: int) -> None:
        self.steady += ms
        self.wall += ms


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    made = state_store.connect(redis_server.url)
    yield made
    await made.aclose()


async def redis_ms(client: redis.asyncio.Redis) -> int:
    seconds, micros = await client.time()
    return int(seconds) * 1000 + int(micros) // 1000


async def recorded(clock: Clock, client: redis.asyncio.Redis) -> None:
    """Record the clock once, as `run` does; the clock then approaches Redis' clock a little."""
    keeping = asyncio.create_task(clock.run(client, NAME))
    async with lateness.timeout():
        while not await client.exists(clock_key(NAME)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.wait([keeping])


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_of_the_wall_clock_changes_nothing(machine: Machine, step: int) -> None:
    clock = machine.clock()
    before = clock.now_ms()
    machine.wall += step
    machine.pass_ms(5000)
    assert clock.now_ms() == before + 5000


async def test_without_calls_it_begins_with_the_time_of_redis(machine: Machine, client: redis.asyncio.Redis) -> None:
    """This holds even if there is a record: a wrong clock must not be kept for longer than calls need it."""
    await recorded(machine.clock(), client)
    clock = machine.clock()
    await clock.start(client, NAME, has_calls=False)
    assert abs(clock.now_ms() - await redis_ms(client)) < 60_000 < abs(machine.wall - await redis_ms(client))


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_the_next_process_of_the_machine_goes_on_with_it(
    machine: Machine, client: redis.asyncio.Redis, step: int
) -> None:
    """This holds however long the process was down, and whatever happened to the clocks of both machines in the
    meantime."""
    first = machine.clock()
    await recorded(first, client)
    machine.wall += step
    await client.hincrby(clock_key(NAME), "redis_ms", step)  # type: ignore[misc]
    machine.pass_ms(7 * HOUR)
    second = machine.clock()
    await second.start(client, NAME, has_calls=True)
    assert abs(second.now_ms() - first.now_ms()) <= SLEW_MS


async def test_a_process_elsewhere_goes_on_by_what_has_passed_in_redis(
    machine: Machine, client: redis.asyncio.Redis
) -> None:
    """The other machine's own clock may show any time."""
    first = machine.clock()
    await recorded(first, client)
    said = first.now_ms()
    await client.hincrby(clock_key(NAME), "redis_ms", -20_000)  # type: ignore[misc]
    other = Machine("boot two")
    other.wall, other.steady = machine.wall + 9 * HOUR, 7
    second = other.clock()
    await second.start(client, NAME, has_calls=True)
    assert said + 20_000 - SLEW_MS <= second.now_ms() < said + 80_000


async def test_redis_set_back_meanwhile_sets_nothing_back(machine: Machine, client: redis.asyncio.Redis) -> None:
    first = machine.clock()
    await recorded(first, client)
    await client.hincrby(clock_key(NAME), "redis_ms", HOUR)  # type: ignore[misc]
    second = Machine("boot two").clock()
    await second.start(client, NAME, has_calls=True)
    assert abs(second.now_ms() - first.now_ms()) <= SLEW_MS


@pytest.mark.parametrize("text", ["x", "", b"\xff", "\u00b2", "9" * 400], ids=range(5))
@pytest.mark.parametrize("damage", ["server_ms", "boottime_ms", "redis_ms"])
async def test_a_record_that_makes_no_sense_is_none(
    machine: Machine, client: redis.asyncio.Redis, damage: str, text: str | bytes
) -> None:
    await recorded(machine.clock(), client)
    await client.hset(clock_key(NAME), damage, text)  # type: ignore[misc,arg-type]
    clock = machine.clock()
    await clock.start(client, NAME, has_calls=True)
    assert abs(clock.now_ms() - await redis_ms(client)) < 60_000


async def test_a_key_that_holds_something_else_is_no_record_and_becomes_one(
    machine: Machine, client: redis.asyncio.Redis
) -> None:
    """A process that waited for a readable record would never take over."""
    await client.set(clock_key(NAME), "x")
    clock = machine.clock()
    await lateness.soon(clock.start(client, NAME, has_calls=True))
    assert abs(clock.now_ms() - await redis_ms(client)) < 60_000
    keeping = asyncio.create_task(clock.run(client, NAME))
    async with lateness.timeout():
        while await client.type(clock_key(NAME)) != b"hash":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    keeping.cancel()


async def test_it_waits_for_redis(
    machine: Machine, client: redis.asyncio.Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_module, "RETRY_DELAY_S", 0.01)
    redis_server.kill()
    clock = machine.clock()
    beginning = asyncio.create_task(clock.start(client, NAME, has_calls=True))
    await asyncio.wait([beginning], timeout=0.1)
    assert not beginning.done()
    redis_server.start()
    await lateness.soon(beginning)


def test_it_approaches_another_clock_so_slowly_that_nobody_notices(machine: Machine) -> None:
    clock = machine.clock()
    for other in (HOUR, -HOUR):
        before = clock.now_ms()
        clock.approach(before + other)
        assert clock.now_ms() - before == (SLEW_MS if other > 0 else -SLEW_MS)
    assert SLEW_MS / 1000 / clock_module.RECORD_INTERVAL_S <= 0.001
    before = clock.now_ms()
    clock.approach(before + TOLERANCE_MS)
    assert clock.now_ms() == before


async def test_it_is_kept_while_redis_is_away(machine: Machine) -> None:
    class Away:
        asked = 0

        def eval(self, *_: object) -> object:
            self.asked += 1
            raise RedisError("away")

    away, clock = Away(), machine.clock()
    keeping = asyncio.create_task(clock.run(away, NAME))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert away.asked == 1 and not keeping.done()
    keeping.cancel()
