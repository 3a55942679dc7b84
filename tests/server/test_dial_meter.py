"""Dial meter and the limits of placed calls, as the server writes and reads them in a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from ari_conf.common import redis_client
from ari_conf.core import events as ev
from ari_conf.core.account import Account
from ari_conf.core.calls.call import Call
from ari_conf.core.placing import CallOptions, CallToPlace, DialAttempt
from ari_conf.dialing import keys, ledger
from ari_conf.dialing.ledger import LedgerEntry
from ari_conf.server.dial_meter import INTERVAL_S, DialMeter
from ari_conf.server.step_builder import StepBuilder
from ari_conf.settings import from_environment
from ari_conf.store import accounts
from tests.core.stage import Stage
from tests.redis import RedisServer


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis_client.connect(redis_server.url)
    yield client
    await client.aclose()


def now_ms(server: RedisServer) -> int:
    seconds, micros = server.client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def place(stage: Stage, call_uuid: str, answered_ms: int) -> Call:
    placed = CallToPlace(call_uuid, "+49171", "4930", "Ann", (DialAttempt("main", "PJSIP/49171@main"),), 3600)
    call = Call.to_place(placed, CallOptions(answer_url="http://a.example/"), Account("A"), answered_ms, answered_ms)
    call.start_dialing(answered_ms)
    call.handle_event(ev.ChannelCreated(call.channel_id), answered_ms)
    call.handle_event(ev.ChannelAnswered(call.channel_id), answered_ms)
    stage.engine.calls[call_uuid] = call
    return call


def write(server: RedisServer, entry: LedgerEntry) -> None:
    ledger.write(server.client, entry)


async def test_calls_of_all_servers_count_together_and_those_of_this_one_are_ended(
    client: Any, redis_server: RedisServer
) -> None:
    stage, ended = Stage(), list[ev.Event]()
    now = now_ms(redis_server)
    accounts.add(redis_server.client, now, "A", dial_minutes_per_day=1)
    day = f"{keys.day_prefix('A')}{now // 86_400_000}"
    redis_server.client.set(day, 50_000)
    meter = DialMeter(client, stage.engine, ended.append)
    assert await meter.measure() == INTERVAL_S, "no call is placed"
    for name in ("here", "also here"):
        call = place(stage, name, now - 1000)
        write(redis_server, LedgerEntry("A", name, "main", now + 3_600_000, call.answered_at))
    # 10 s are left, 2 s are used by the running calls: 8 s for two of them.
    assert await meter.measure() == INTERVAL_S
    for n in range(6):
        write(redis_server, LedgerEntry("A", f"elsewhere{n}", "main", now + 3_600_000, now - 1000))
    # 2 s are left for eight calls.
    assert 0.1 <= await meter.measure() < 0.5
    assert ended == []
    redis_server.client.set(day, 60_000)
    await meter.measure()
    assert ended == [ev.MinutesUsedUp("here"), ev.MinutesUsedUp("also here")]


async def test_a_rewrite_restores_the_slots_of_placed_calls(redis_server: RedisServer) -> None:
    stage = Stage()
    now = now_ms(redis_server)
    call = place(stage, "c1", now)
    steps = StepBuilder(stage.engine, from_environment({}), lambda _reply: lambda _pipe: None)
    pipe = redis_server.client.pipeline(transaction=True)
    for add in steps.build_rewrite(["c1"], now).extra_commands:
        add(pipe)
    pipe.execute()
    assert redis_server.client.zrange(keys.calls_key("A"), 0, -1) == [b"c1"]
    assert redis_server.client.zrange(keys.trunk_key("main"), 0, -1) == [b"c1"]
    assert redis_server.client.hgetall(keys.answered_key("A")) == {b"c1": str(call.answered_at).encode()}
