"""The event stream on real calls: it reports changes on Asterisk within a second."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from ari_conf.web import live_view
from tests.integration.stage import Stage
from tests.integration.test_api import ANN, BOB, ROOM, three

pytestmark = pytest.mark.asyncio(loop_scope="session")

WITHIN_S = 1.0
NAME = "stand%2Fup%20%E2%98%95"


class Ear:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.view: live_view.View = {}

    async def follow(self) -> str:
        found: dict[str, str] = {}
        async for line in self._response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if not name and "event" in found:
                told = json.loads(found["data"])
                self.view = told if found["event"] == "snapshot" else live_view.apply_change(self.view, told)
                return found["event"]
            found[name] = value
        raise AssertionError("the stream has ended")

    async def until(self, holds: Callable[[], bool], within: float) -> float:
        began = time.monotonic()
        while not holds():
            await self.follow()
        took = time.monotonic() - began
        assert took < within
        return took

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the members by their number."""
        return {m["from"]: m for one in self.view.values() for m in one["members"].values()}


@asynccontextmanager
async def listening(stage: Stage) -> AsyncIterator[Ear]:
    auth = aiohttp.encode_basic_auth(stage.account, stage.token)
    address = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Events/"
    timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
    async with (
        aiohttp.ClientSession(timeout=timeout) as client,
        client.get(address, headers={"Authorization": auth}) as response,
    ):
        assert response.status == 200
        ear = Ear(response)
        assert await ear.follow() == "snapshot"
        yield ear


async def _asks(stage: Stage, method: str, path: str) -> None:
    auth = aiohttp.encode_basic_auth(stage.account, stage.token)
    place = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Conference/{NAME}/{path}"
    async with (
        aiohttp.ClientSession() as client,
        client.request(method, place, headers={"Authorization": auth}) as told,
    ):
        assert told.status in (202, 204), await told.text()


async def test_it_is_there_within_a_second(stage: Stage) -> None:
    async with listening(stage) as ear, stage.callers(2) as (ann, bob):
        assert ear.view == {}

        async def within(what: Awaitable[Any], holds: Callable[[], bool], seconds: float = WITHIN_S) -> None:
            await what
            await ear.until(holds, seconds)

        one, two = stage.number(ann), stage.number(bob)
        # No element asks for floor events or a recording: talk detection runs because of this listener.
        ids = await three(stage, ann, bob, body=ROOM)
        await ear.until(lambda: ear.members().keys() == {one, two}, WITHIN_S)
        assert {m["state"] for m in ear.members().values()} == {"in"}
        await ear.until(lambda: all(m["talking"] for m in ear.members().values()), 3)

        await within(_hush(ann), lambda: not ear.members()[one]["talking"], 1 + WITHIN_S)
        await within(_hush(bob), lambda: not ear.members()[two]["talking"], 1 + WITHIN_S)
        await within(_speaks(bob, BOB), lambda: ear.members()[two]["talking"])
        assert ear.members()[two]["floor"] or ear.members()[one]["floor"]
        await within(_hush(bob), lambda: not ear.members()[two]["talking"], 1 + WITHIN_S)
        await within(_speaks(ann, ANN), lambda: ear.members()[one]["talking"] and ear.members()[one]["floor"])

        await within(_asks(stage, "POST", f"Member/{ids[0]}/Mute/"), lambda: ear.members()[one]["muted"])
        assert not ear.members()[one]["talking"]
        await within(_asks(stage, "POST", f"Member/{ids[1]}/Hold/"), lambda: ear.members()[two]["state"] == "held")
        await within(_asks(stage, "DELETE", f"Member/{ids[1]}/Hold/"), lambda: ear.members()[two]["state"] == "in")
        await within(_asks(stage, "POST", "Record/"), lambda: any(c["recording"] for c in ear.view.values()))
        await within(_asks(stage, "DELETE", "Record/"), lambda: not any(c["recording"] for c in ear.view.values()))
        await within(_asks(stage, "POST", "Lock/"), lambda: any(c["locked"] for c in ear.view.values()))
        await within(_asks(stage, "DELETE", f"Member/{ids[1]}/"), lambda: ear.members().keys() == {one})
        async with listening(stage) as other:
            assert other.view == ear.view
        await within(_asks(stage, "DELETE", ""), lambda: ear.view == {})


async def _hush(phone: Any) -> None:
    phone.silence()


async def _speaks(phone: Any, hz: int) -> None:
    phone.tone(hz)
