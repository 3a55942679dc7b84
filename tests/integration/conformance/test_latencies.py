"""Latencies until a change is heard: reported, not asserted, since the conference can't help a busy machine."""

from __future__ import annotations

import statistics

import aiohttp
import pytest

from demo.phone import Phone, now_ms
from tests.integration.receiver import Request
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

TIMES = 5
ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
WAITS = ROOM.replace("<Conference", '<Conference startConferenceOnEnter="false"')


def describe(ms: list[float]) -> str:
    return f"median {statistics.median(ms):.0f} ms, longest {max(ms):.0f} ms of {len(ms)}"


def timestamp(request: Request) -> float:
    return float(request.params["Timestamp"])


async def part(stage: Stage, *phones: Phone) -> None:
    for phone in phones:
        await phone.hang_up()
    await stage.event("ConferenceExit", ConferenceLastMember="true")
    await stage.nothing_left()
    stage.receiver.requests.clear()


@pytest.mark.row("latency", "from the second member's entry until each hears the other")
async def test_until_each_hears_the_other(stage: Stage) -> None:
    first, second = [], []
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        for _ in range(TIMES):
            await stage.call(ann, ROOM)
            await stage.call(bob, ROOM)
            entered = timestamp(await stage.enters(bob))
            first.append(await stage.hears(ann, 2875) - entered)
            second.append(await stage.hears(bob, 2575) - entered)
            await part(stage, ann, bob)
    stage.saw(f"the first hears the second: {describe(first)}")
    stage.saw(f"the second hears the first: {describe(second)}")


@pytest.mark.row("latency", "from the start until the waiting music is silent, and until the starter is heard")
async def test_until_the_music_is_silent(stage: Stage) -> None:
    silent, heard = [], []
    async with stage.callers(2) as (ann, host):
        for _ in range(TIMES):
            host.silence()
            await stage.call(ann, WAITS)
            await stage.until(lambda: ann.heard.end_ms - ann.heard.start_ms > 500)
            await stage.call(host, ROOM)
            started = timestamp(await stage.enters(host))
            silent.append(await stage.goes_quiet(ann) - started)
            await part(stage, ann, host)
        for _ in range(TIMES):
            host.tone(2875)
            await stage.call(ann, WAITS)
            await stage.until(lambda: ann.heard.end_ms - ann.heard.start_ms > 200)
            await stage.call(host, ROOM)
            heard.append(await stage.hears(ann, 2875) - timestamp(await stage.enters(host)))
            await part(stage, ann, host)
    stage.saw(f"silent: {describe(silent)}")
    stage.saw(f"the starter is heard: {describe(heard)}")


@pytest.mark.row("latency", "from the request to mute until the others hear nothing")
async def test_from_mute_to_silence(stage: Stage) -> None:
    silent = []
    base = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Conference/standup/Member"
    async with stage.callers(2) as (ann, bob), aiohttp.ClientSession() as http:
        login = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
        ann.tone(2575)
        await stage.call(bob, ROOM)
        for _ in range(TIMES):
            await stage.call(ann, ROOM)
            member = (await stage.enters(ann)).params["ConferenceMemberID"]
            await stage.hears(bob, 2575, after=now_ms())
            asked = now_ms()
            async with http.post(f"{base}/{member}/Mute/", headers=login) as response:
                assert response.status == 202, await response.text()
            silent.append(await stage.goes_quiet(bob) - asked)
            await ann.hang_up()
            await stage.leaves(ann)
            stage.receiver.requests.clear()
        await bob.hang_up()
    stage.saw(f"silent: {describe(silent)}")
