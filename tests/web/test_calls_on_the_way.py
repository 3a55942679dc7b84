"""Calls on their way into conferences, as the event stream names them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from ari_conf.core import events as ev
from ari_conf.dialing.keys import calls_key
from ari_conf.store import live_state
from ari_conf.web import calls_on_the_way
from tests.core.stage import Stage as Core
from tests.core.stage import stay
from tests.integration.dashboard import SIZES, chromium, looking
from tests.integration.stage import Stage
from tests.web.conftest import Api, Owner
from tests.web.test_calls import NUMBER, OTHER, PLACED, dialer
from tests.web.test_event_stream import Listener, listening

__all__ = ["dialer"]

INVITED = {"from": "4930123456", "to": NUMBER}
SHOWN = {"conference_name": "standup", "from": "4930123456", "to": NUMBER}


def invite(api: Api, name: str = "standup", **more: Any) -> list[str]:
    placed = api.post(f"Conference/{quote(name, safe='')}/Member/", INVITED | more)
    assert placed.status == 201, placed.json
    return [call["call_uuid"] for call in placed.json["calls"]]


def next_calls(ear: Listener) -> dict[str, Any]:
    """Return the next `calls`, whatever else comes before."""
    while True:
        kind, data = ear.next()
        assert kind in ("snapshot", "change", "calls"), kind
        if kind == "calls":
            return dict(data)


def tell(owner: Owner, call_uuid: str, event: Any) -> None:
    """Tell the call's channel an event of Asterisk's."""

    def happens(stage: Core) -> None:
        stage.tell(event(stage.engine.calls[call_uuid].channel_id))

    owner.plays(happens)


def test_each_state_until_they_are_members(dialer: Api, owner: Owner) -> None:
    with listening(dialer) as ear, listening(dialer) as other:
        (uuid,) = invite(dialer)
        for state, event in (("calling", None), ("ringing", ev.ChannelRinging)):
            if event is not None:
                tell(owner, uuid, event)
            assert next_calls(ear) == next_calls(other) == {uuid: SHOWN | {"state": state}}
        tell(owner, uuid, ev.ChannelAnswered)
        assert next_calls(ear) == {}


def test_who_has_to_press_a_key_is_on_their_way_until_then(dialer: Api, owner: Owner) -> None:
    with listening(dialer) as ear:
        (uuid,) = invite(dialer, confirm_key="1")
        assert next_calls(ear)[uuid]["state"] == "calling"
        tell(owner, uuid, ev.ChannelAnswered)
        assert next_calls(ear)[uuid]["state"] == "confirming"


def test_a_page_that_opens_later_has_them_after_the_snapshot(dialer: Api) -> None:
    first, second = invite(dialer, to=f"{NUMBER}<{OTHER}")
    with listening(dialer) as ear:
        assert ear.next()[0] == "snapshot"
        kind, calls = ear.next()
        assert (kind, calls) == (
            "calls",
            {uuid: SHOWN | {"to": to, "state": "calling"} for uuid, to in ((first, NUMBER), (second, OTHER))},
        )
        with listening(dialer) as late:
            assert late.next()[0] == "snapshot" and late.next() == ("calls", calls)


def test_other_calls_and_those_of_other_accounts_are_not_named(dialer: Api, owner: Owner) -> None:
    dialer.post("Call/", PLACED)
    owner.joins("bob")
    (theirs,) = invite(dialer, "secret")
    record = owner.redis.hget("ari_conf:state:fake", theirs)
    assert record is not None and b'"auth_id":"A"' in record
    owner.redis.hset("ari_conf:state:fake", theirs, record.replace(b'"auth_id":"A"', b'"auth_id":"B"'))
    with listening(dialer) as ear:
        (mine,) = invite(dialer)
        assert set(next_calls(ear)) == {mine}


def test_the_conference_of_a_dial_is_not_named() -> None:
    record = b"""{"call_uuid": "u", "request_uuid": "u", "caller_name": "", "auth_id": "A", "from_": "1", "to": "2",
        "direction": "outbound", "started_at": 1, "state": "ringing",
        "outgoing": {"options": {"conference": {"name": "c.x.1"%s}}}}"""
    for dialed_by, name in ((b"", "c.x.1"), (b', "dialed_by": "x"', None)):
        call = live_state.decode(record % dialed_by, live_state.PlacedCallRecord)
        assert call is not None and call.conference_name == name


async def test_each_other_call_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The records of a busy account, with long documents, are not read every second."""
    asked: list[list[str]] = []

    async def read(redis: Any, asterisk: str, call_uuids: list[str]) -> dict[str, Any]:
        asked.append(call_uuids)
        return {uuid: None for uuid in call_uuids if uuid != "on-order"}

    class Redis:
        async def zrange(self, key: str, first: int, last: int) -> list[bytes]:
            assert key == calls_key("A") and last < 10_000
            return [b"on-order", *(b"%d" % number for number in range(calls_on_the_way.MAX_READ + 50))]

        async def smembers(self, key: str) -> set[bytes]:
            return {b"fake"}

    monkeypatch.setattr(calls_on_the_way, "read_placed_calls", read)
    calls = calls_on_the_way.CallsOnTheWay(Redis(), "A")
    assert [await calls.read() for _ in range(3)] == [{}] * 3
    assert [len(one) for one in asked] == [200, 52, 1] and asked[-1] == ["on-order"]


async def test_they_read_well(dialer: Api, owner: Owner, tmp_path: Path) -> None:
    """In each look: calls among the members, and into a conference that nobody is in. Markup in its name is text."""
    folder = Path(os.environ.get("DASHBOARD_SCREENS", tmp_path))
    markup = "<img src=x onerror=alert(1)>"
    system = SimpleNamespace(settings=SimpleNamespace(web_listen=f"127.0.0.1:{dialer.port}"))
    stage = cast(Stage, SimpleNamespace(system=system, account="A", token=dialer.token))

    def begin() -> None:
        owner.stage.now = round(time.time() * 1000)
        for name in ("Ann Baker", "Bob"):
            owner.plays(lambda core, name=name: core.call(name, stay("Weekly stand-up"), caller_name=name))
        ringing, asked = invite(dialer, "Weekly stand-up", to=f"{NUMBER}<{OTHER}", confirm_key="1")
        tell(owner, ringing, ev.ChannelRinging)
        tell(owner, asked, ev.ChannelAnswered)
        invite(dialer, "Support, Northwind", to="4930111222")

    await asyncio.to_thread(begin)
    async with chromium() as browser:
        for look in SIZES:
            async with looking(browser, stage, look) as seen:
                await seen.log_in()
                await seen.sees("1 conference, 2 members", "Ringing", "Asked for the key", "Nobody is in yet")
                await expect(seen.conference("Weekly stand-up").locator(".placed")).to_have_count(2)
                await seen.is_sound()
                await seen.picture(folder, f"{look}-calls")
        async with looking(browser, stage) as seen:
            await seen.log_in()
            await asyncio.to_thread(invite, dialer, markup, to="4930111223")
            await seen.sees("Calling", within=seen.conference(markup))
            assert not await seen.page.locator("main img").count()
