"""Two applications for one Asterisk: the second takes over when the first dies, is suspended, or shuts down."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from ari_conf.doctor import backends, run_check
from ari_conf.local import processes
from ari_conf.local.processes import Process, free_port
from ari_conf.ownership import lease
from ari_conf.settings import from_environment
from demo.phone import Phone, now_ms
from tests.integration.stage import Stage
from tests.integration.test_takeover import ROOM, sequence
from tests.lateness import SOON_S, Patience, took_s
from tests.tasks.proxy import Proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVES = r"reconciliation completed"
"""The log line of a process once its state and Asterisk agree."""
TAKEN_OVER_S = 5.0
ELSEWHERE = """
import socket, sys
host = sys.argv.pop(1)
socket.gethostname = lambda: host
from ari_conf.__main__ import main
main()
"""


class Second:
    """A further `ari-conf serve` process of the same system."""

    def __init__(self, process: Process, port: int) -> None:
        self.process, self.port = process, port

    async def ready(self) -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def second(
    stage: Stage, name: str = "second", *, host: str = "", says: str = "standby started", **more: str
) -> AsyncGenerator[Second]:
    """Run another `serve` process. `host`: the host name that it sees, for a different machine."""
    port = free_port()
    command = [sys.executable, "-m", "ari_conf", "serve"]
    if host:
        command[1:] = ["-c", ELSEWHERE, host, "serve"]
    environment = os.environ | stage.system.values | {"ARI_CONF_METRICS_LISTEN": f"127.0.0.1:{port}", **more}
    log = stage.system.folder / "logs" / f"{name}.log"
    waits = processes.log_matches(says)
    process = await processes.start(name, command, log, ready=waits, deadline=90.0, environment=environment)
    try:
        yield Second(process, port)
    finally:
        await processes.stop(process)


async def says(process: Process, pattern: str, within: float = SOON_S, after: int = 0) -> float:
    """Return the seconds until the process's log has that line, less those that the machine was late."""
    began, patience = time.monotonic(), Patience(within)
    while not re.search(pattern, process.read_log()[after:]):
        assert not patience.over, f"not said within {within} s: {pattern}\n{process.log_tail(20)}"
        await asyncio.sleep(0.01)
    return took_s(began)


async def talking(stage: Stage, phones: tuple[Phone, ...]) -> Callable[[float], None]:
    """Let all phones talk with each other; return a function that asserts that no gap occurred since a given time."""
    tones = (2575, 2875, 3175, 3475)[: len(phones)]
    for phone, hz in zip(phones, tones, strict=True):
        phone.tone(hz)
        await stage.call(phone, ROOM)
    await asyncio.gather(
        *(stage.hears(phone, hz) for phone in phones for hz in tones if hz != tones[phones.index(phone)])
    )

    def no_gap(since: float) -> None:
        for ear in phones:
            for voice, hz in zip(phones, tones, strict=True):
                assert ear is voice or stage.gaps(ear, hz, since, voice) == []

    return no_gap


async def over(stage: Stage, phones: tuple[Phone, ...], joined: int) -> None:
    """Hang up all phones, and assert that every callback came once and in order."""
    for phone in phones:
        await phone.hang_up()
    await stage.event("ConferenceExit", ConferenceLastMember="true")
    told = sequence(stage)
    assert [number for number, _ in told] == [str(n) for n in range(1, 2 * joined + 1)]
    assert sorted(action for _, action in told) == ["enter"] * joined + ["exit"] * joined


async def test_the_second_takes_over_when_the_first_is_killed(own: Stage) -> None:
    async with second(own) as standby, own.callers(4) as board:
        phones = tuple(board)
        status, text = await standby.ready()
        assert status == 503 and "is the owner; this process takes over" in text
        assert f"pid {own.system.process('serve').pid}" in text
        assert f"pid {standby.process.pid} stands by" in await asyncio.to_thread(backends.owner, own.system.settings)
        no_gap = await talking(own, phones[:3])
        died = now_ms()
        await own.system.kill("serve")
        took = await says(standby.process, SERVES)
        assert took < TAKEN_OVER_S
        await own.call(phones[3], ROOM)
        await own.hears(phones[3], 2575)
        no_gap(died)
        own.saw(f"standby on this machine: {took:.2f} s after the death")
        assert (await standby.ready())[0] == 200
        await over(own, phones, 4)


async def test_a_standby_on_another_machine_is_one(own: Stage) -> None:
    async with second(own, host="elsewhere") as standby, own.callers(2) as board:
        _, text = await standby.ready()
        assert f"pid {own.system.process('serve').pid} is the owner" in text
        no_gap = await talking(own, tuple(board))
        died = now_ms()
        await own.system.kill("serve")
        await says(standby.process, SERVES)
        owner = lease.read_status(own.redis, own.asterisk_name).owner
        assert owner == f"elsewhere pid {standby.process.pid}"
        no_gap(died)
        await over(own, tuple(board), 2)


@pytest.mark.parametrize("how", ["another Redis", "another name"])
async def test_a_rival_takes_no_call_away_and_says_what_to_do(own: Stage, how: str) -> None:
    url = own.system.settings.redis_url.get_secret_value()
    more = (
        {"ARI_CONF_REDIS_URL": url.removesuffix("/0") + "/1"}
        if how == "another Redis"
        else {"ARI_CONF_ASTERISK_NAME": "elsewhere"}
    )
    async with second(own, "rival", says="already serves this Asterisk", **more) as rival, own.callers(3) as board:
        ann, bob, _ = board
        since = now_ms()
        status, text = await rival.ready()
        first = own.system.process("serve")
        assert status == 503 and f"pid {first.pid} already serves this Asterisk" in text
        told = await asyncio.to_thread(run_check, "owner", from_environment(own.system.values | more))
        assert told.state == "failure" and f"pid {first.pid} already serves this Asterisk" in told.text
        no_gap = await talking(own, (ann, bob))
        no_gap(since)
        assert "asterisk disconnected" not in first.read_log() and "asterisk connected" not in rival.process.read_log()
        await over(own, (ann, bob), 2)
        # Once the first is gone for good, the rival can serve.
        await own.system.kill("serve")
        await says(rival.process, "asterisk connected", within=30)
        await processes.stop(rival.process)
    await own.system.start("serve")


async def test_the_first_goes_and_the_second_takes_over_at_once(own: Stage) -> None:
    async with second(own) as standby, own.callers(2) as board:
        phones = tuple(board)
        no_gap = await talking(own, phones)
        went = now_ms()
        stopping = asyncio.create_task(own.system.stop("serve"))
        took = await says(standby.process, SERVES)
        assert took < TAKEN_OVER_S
        await stopping
        no_gap(went)
        own.saw(f"handed over: {took:.2f} s after SIGTERM")
        await over(own, phones, 2)


async def test_a_suspended_server_resumes_after_the_takeover_and_does_no_harm(own: Stage) -> None:
    first = own.system.process("serve")
    async with second(own) as standby, own.callers(4) as (ann, bob, cid, dan):
        no_gap = await talking(own, (ann, bob))
        stopped = now_ms()
        os.kill(first.pid, signal.SIGSTOP)
        # Asterisk sends this call to the suspended process, which must ignore it after waking up.
        arriving = asyncio.create_task(own.call(cid, ROOM))
        took = await says(standby.process, SERVES)
        assert took < TAKEN_OVER_S
        await arriving
        await own.hears(cid, 2575)
        await own.call(dan, ROOM)
        await own.enters(dan)
        words = len(first.read_log())
        os.kill(first.pid, signal.SIGCONT)
        await says(first, "standby started", after=words)
        woken = first.read_log()[words:]
        assert "lease lost" in woken
        assert '"kind":"effect"' not in woken, "the woken process ran an effect"
        no_gap(stopped)
        # The first is a standby now, and takes over when the second dies.
        processes.kill(standby.process)
        again = await says(first, SERVES, after=words)
        assert again < TAKEN_OVER_S
        no_gap(stopped)
        own.saw(
            f"stopped: taken over after {took:.2f} s; woken, and took over again {again:.2f} s after the next death"
        )
        await over(own, (ann, bob, cid, dan), 4)


async def test_a_takeover_of_a_stopped_one_leaves_an_asterisk_that_can_still_be_served(own: Stage) -> None:
    """Asterisk's own WebSocket is then silent for every process: the next one to serve must notice that."""
    async with own.callers(2) as (ann, bob):
        ann.tone(2575)
        first = own.system.process("serve")
        async with second(own) as standby:
            os.kill(first.pid, signal.SIGSTOP)
            await says(standby.process, SERVES)
            await own.call(ann, ROOM)
            await own.enters(ann)
            await own.system.kill("serve")
            processes.kill(standby.process)
        await own.system.start("serve")
        await own.call(bob, ROOM)
        await own.hears(bob, 2575)
        await over(own, (ann, bob), 2)


async def test_redis_is_emptied_and_the_owner_writes_everything_again(own: Stage) -> None:
    async with second(own) as standby, own.callers(3) as board:
        phones = tuple(board)
        no_gap = await talking(own, phones[:2])
        await own.event("ConferenceEnter", ConferenceSequence="2")
        names = own.redis.hgetall(f"ari_conf:names:{own.account}")
        account = own.redis.hget("ari_conf:accounts", own.account)
        since = now_ms()
        own.redis.flushall()
        own.redis.hset("ari_conf:accounts", own.account, account)  # the operator restores it
        await own.until(lambda: own.redis.hgetall(f"ari_conf:names:{own.account}") == names, 3)
        assert own.redis.hlen(f"ari_conf:state:{own.asterisk_name}") == 4
        await own.system.kill("serve")
        await says(standby.process, SERVES)
        await own.call(phones[2], ROOM)
        await own.hears(phones[2], 2575)
        no_gap(since)
        assert lease.read_status(own.redis, own.asterisk_name).standbys == []
        await over(own, phones, 3)


async def test_an_owner_that_is_cut_off_from_redis_hears_from_asterisk_that_it_was_replaced(own: Stage) -> None:
    """The owner still has Asterisk. Without Asterisk's message, two owners would exist until the network is back."""
    url = own.system.settings.redis_url.get_secret_value()
    port = own.redis.connection_pool.connection_kwargs["port"]
    proxy = Proxy(port)
    behind = {"ARI_CONF_REDIS_URL": url.replace(f":{port}/", f":{proxy.port}/")}
    try:
        async with second(own, "cut off", **behind) as cut_off, own.callers(3) as board:
            phones = tuple(board)
            await own.system.kill("serve")
            await says(cut_off.process, SERVES)
            no_gap = await talking(own, phones[:2])
            async with second(own, "third") as third:
                cut = now_ms()
                proxy.refuse()
                await says(third.process, SERVES, within=30)
                await says(cut_off.process, "owner mark replaced", within=30)
                await own.call(phones[2], ROOM)
                await own.hears(phones[2], 2575)
                no_gap(cut)
                await over(own, phones, 3)
    finally:
        proxy.end()
