"""Admission against a real Redis: limits over several processes, slots that follow the calls, and what is refused."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from ari_conf.common import redis_client
from ari_conf.dialing import keys, ledger, trunk_store, trunks
from ari_conf.dialing.admission import Admission, Admitted, Refused
from ari_conf.dialing.ledger import LedgerEntry
from ari_conf.dialing.permissions import Permissions, Reason
from tests.redis import RedisServer

ALLOWED = Permissions(prefixes="+49", caller_ids="+4930123456", calls=3, calls_per_minute=100, minutes_per_day=60)
FROM, TO = "4930123456", "+491711234567"
MINUTE_MS, DAY_MS = 60_000, 86_400_000


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis_client.connect(redis_server.url)
    yield client
    await client.aclose()


def add_trunk(server: RedisServer, name: str = "main", **fields: Any) -> None:
    made = trunks.make(name, {"dial": f"PJSIP/{{number}}@{name}", "prefixes": "+49", **fields})
    trunk_store.add(server.client, made, (), lambda *_: None)


async def admit(client: Any, call: str, permissions: Permissions = ALLOWED, to: str = TO, **more: Any) -> Any:
    return await Admission(client).admit("MA1", permissions, call, FROM, to, **more)


def reason_of(found: Admitted | Refused) -> Reason | None:
    return found.reason if isinstance(found, Refused) else None


async def test_nothing_is_dialed_without_a_trunk(client: Any):
    found = await admit(client, "c1")
    assert (reason_of(found), found.status) == (Reason.NO_TRUNK, 403)


async def test_an_admitted_call_has_its_route_and_its_time(client: Any, redis_server: RedisServer):
    add_trunk(redis_server)
    found = await admit(client, "c1", time_limit_s=100)
    assert isinstance(found, Admitted)
    assert [(a.trunk, a.endpoint) for a in found.attempts] == [("main", "PJSIP/491711234567@main")]
    assert (found.to, found.caller_id, found.time_limit_s, found.delay_ms) == (TO, "4930123456", 100, 0)


async def test_calls_at_the_same_time_are_limited_until_one_ends(client: Any, redis_server: RedisServer):
    add_trunk(redis_server)
    for call in ("c1", "c2", "c3"):
        assert reason_of(await admit(client, call)) is None
    assert reason_of(await admit(client, "c4")) is Reason.TOO_MANY_CALLS
    assert reason_of(await admit(client, "c3")) is None, "the same call counts once"
    ended = LedgerEntry("MA1", "c1", "main", 0)
    ledger.end(redis_server.client, ended, 0)
    assert reason_of(await admit(client, "c4")) is None


async def test_two_processes_race_for_the_last_slot(redis_server: RedisServer):
    add_trunk(redis_server, per_second=0)
    clients = [redis_client.connect(redis_server.url) for _ in range(2)]
    calls = [admit(clients[n % 2], f"c{n}") for n in range(40)]
    found = [reason_of(each) for each in await asyncio.gather(*calls)]
    for each in clients:
        await each.aclose()
    assert (found.count(None), found.count(Reason.TOO_MANY_CALLS)) == (3, 37)


async def test_a_call_that_the_server_never_got_frees_its_slot(client: Any, redis_server: RedisServer):
    add_trunk(redis_server)
    one = ALLOWED._replace(calls=1)
    found = await admit(client, "c1", one)
    assert reason_of(await admit(client, "c2", one)) is Reason.TOO_MANY_CALLS
    await Admission(client).release("MA1", "c1", found.attempts)
    assert reason_of(await admit(client, "c2", one)) is None
    # The web process died: its slot is free when its time has passed.
    await client.zadd(keys.calls_key("MA1"), {"c2": time.time() * 1000 - 1})
    assert reason_of(await admit(client, "c3", one)) is None


async def test_calls_per_minute(client: Any, redis_server: RedisServer):
    add_trunk(redis_server)
    two = ALLOWED._replace(calls_per_minute=2)
    assert [reason_of(await admit(client, call, two)) for call in ("c1", "c2", "c3")] == [
        *(None, None, Reason.TOO_MANY_PER_MINUTE)
    ]
    await client.zadd(keys.minute_key("MA1"), {"c1": time.time() * 1000 - MINUTE_MS - 1})
    assert reason_of(await admit(client, "c3", two)) is None


def now_ms(server: RedisServer) -> int:
    seconds, micros = server.client.time()
    return int(seconds) * 1000 + micros // 1000


async def test_minutes_of_the_day_count_running_and_ended_calls(client: Any, redis_server: RedisServer):
    add_trunk(redis_server)
    now = now_ms(redis_server)
    hour = min(20 * MINUTE_MS, now % DAY_MS)  # shortly after midnight less of a call counts for today
    running = LedgerEntry("MA1", "running", "main", now + MINUTE_MS, now - hour)
    ledger.write(redis_server.client, running)
    found = await admit(client, "c1", ALLOWED._replace(minutes_per_day=21), time_limit_s=7200)
    assert found.time_limit_s == pytest.approx(21 * 60 - hour / 1000, abs=2)
    ledger.end(redis_server.client, running, now)
    ended = await admit(client, "c2", ALLOWED._replace(minutes_per_day=21), time_limit_s=7200)
    assert ended.time_limit_s == pytest.approx(found.time_limit_s, abs=2)
    if hour >= MINUTE_MS:
        assert reason_of(await admit(client, "c3", ALLOWED._replace(minutes_per_day=0))) is Reason.NO_MINUTES_LEFT
    assert await client.hlen(keys.ended_key("MA1")) == 0


async def test_minutes_of_yesterday_do_not_count(client: Any, redis_server: RedisServer):
    add_trunk(redis_server)
    now = now_ms(redis_server)
    midnight = now - now % DAY_MS
    ledger.end(redis_server.client, LedgerEntry("MA1", "old", "main", 0, midnight - DAY_MS), midnight - 1)
    found = await admit(client, "c1", ALLOWED, time_limit_s=3600)
    assert found.time_limit_s == 3600


async def test_a_full_trunk_is_left_out_and_the_next_one_is_used(client: Any, redis_server: RedisServer):
    add_trunk(redis_server, "first", calls=1, priority=0)
    add_trunk(redis_server, "second", calls=1, priority=1)
    used = [(await admit(client, call)) for call in ("c1", "c2", "c3")]
    assert [[a.trunk for a in each.attempts] for each in used[:2]] == [["first", "second"], ["second"]]
    assert reason_of(used[2]) is Reason.TRUNKS_FULL


async def test_a_trunk_is_dialed_no_faster_than_it_may(client: Any, redis_server: RedisServer):
    add_trunk(redis_server, per_second=2, calls=0)
    many = ALLOWED._replace(calls=1000, calls_per_minute=1000)
    delays = [(await admit(client, f"c{n}", many)).delay_ms for n in range(5)]
    assert delays == pytest.approx([0, 500, 1000, 1500, 2000], abs=400)
    assert delays == sorted(delays)


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("+12125550123", Reason.DESTINATION_NOT_ALLOWED),
        ("+499001234567", Reason.SPECIAL_NUMBER),
        ("112", Reason.SPECIAL_NUMBER),
        ("1000", Reason.SPECIAL_NUMBER),
        ("sip:anna@example.com", Reason.DESTINATION_NOT_ALLOWED),
        ("+491711234567&PJSIP/900@main", Reason.DESTINATION_INVALID),
    ],
)
async def test_refusals_count_nowhere(client: Any, redis_server: RedisServer, to: str, reason: Reason):
    add_trunk(redis_server)
    assert reason_of(await admit(client, "c1", to=to)) is reason
    assert await client.exists(keys.calls_key("MA1"), keys.minute_key("MA1"), keys.trunk_key("main")) == 0


async def test_what_is_released_gives_its_turn_back_once(client: Any, redis_server: RedisServer):
    """A stolen token could otherwise make the calls of all accounts wait, with requests of which a part is refused."""
    add_trunk(redis_server, per_second=1)
    assert (await admit(client, "c0")).delay_ms == 0
    for number in range(100):
        found = await admit(client, f"refused{number}")
        for _ in range(2):
            await Admission(client).release("MA1", f"refused{number}", found.attempts)
    assert 0 < (await admit(client, "c1")).delay_ms <= 1000
