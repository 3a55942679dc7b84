"""History of real calls: what the API and the dashboard say of a conference after its last member has left."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.integration.dashboard import SOON_MS, chromium, looking
from tests.integration.stage import Stage
from tests.integration.test_api import ANN, BOB
from tests.lateness import Patience

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference record="true" callbackUrl="{url}/events">Weekly stand-up</Conference>'
HOST_ROOM = ROOM.replace("<Conference", '<Conference endConferenceOnExit="true"')
WRITTEN_S = 30
"""Seconds within which a record must be in the history."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncGenerator[Browser]:
    async with chromium() as browser:
        yield browser


async def ask(stage: Stage, method: str, path: str) -> tuple[int, Any]:
    url = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/{path}"
    headers = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
    async with aiohttp.ClientSession(headers=headers) as client, client.request(method, url) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def written(stage: Stage, path: str, is_complete: Any = lambda found: True) -> Any:
    """Return the reply to a GET once it is a 200 and complete."""
    patience = Patience(WRITTEN_S)
    while True:
        status, found = await ask(stage, "GET", path)
        if status == 200 and is_complete(found):
            return found
        assert not patience.over, (status, found)
        await asyncio.sleep(0.2)


async def talked(stage: Stage) -> str:
    """Hold a conference of three: one talks, one is kicked, one ends it. Return its UUID."""
    async with stage.callers(3) as (ann, bob, host):
        await stage.call(ann, ROOM, display_name="Ann Baker")
        entered = await stage.enters(ann)
        await stage.call(bob, ROOM)
        await stage.enters(bob)
        await stage.call(host, HOST_ROOM)
        await stage.enters(host)
        ann.tone(ANN)
        await stage.hears(bob, ANN)
        await stage.listen(bob, 1500)
        ann.silence()
        await stage.goes_quiet(bob)
        bob.tone(BOB)
        await stage.hears(ann, BOB)
        bob.silence()
        bob_id = (await stage.enters(bob)).params["ConferenceMemberID"]
        assert (await ask(stage, "POST", f"Conference/Weekly stand-up/Member/{bob_id}/Kick/"))[0] == 202
        await stage.leaves(bob)
        status, refused = await ask(stage, "GET", f"Call/{entered.params['CallUUID']}/")
        assert status == 404 and "use status=live" in refused["error"]
        await host.hang_up()
        await stage.leaves(host)
        await stage.leaves(ann)
    await stage.event("ConferenceRecord", 20)
    return entered.params["ConferenceUUID"]


async def test_an_ended_conference_is_looked_up(stage: Stage, browser: Browser) -> None:
    uuid = await talked(stage)
    found = await written(
        stage, f"ConferenceHistory/{uuid}/", lambda one: one["recordings"] and one["callbacks"]["delivered"] >= 7
    )
    (listed,) = (await written(stage, "ConferenceHistory/?search=stand-up"))["objects"]
    assert (listed["conference_uuid"], listed["conference_name"]) == (uuid, "Weekly stand-up")
    assert (listed["member_count"], listed["peak_member_count"], listed["recording_count"]) == (3, 3, 1)
    assert (listed["end_reason"], listed["started"], listed["callbacks"]["dead"]) == ("host_left", True, 0)
    ann, bob, host = found["members"]
    assert [m["exit_reason"] for m in found["members"]] == ["host_left", "kick", "hangup"]
    assert 0 <= ann["join_ms"] < bob["join_ms"] < host["join_ms"] < bob["exit_ms"] <= host["exit_ms"]
    # The others leave as soon as Asterisk has taken them out, a moment after the end.
    assert ann["exit_ms"] - found["duration_ms"] < 2000
    (talk,) = ann["talk"]
    assert talk["end_ms"] - talk["start_ms"] > 1000
    assert host["talk"] == [] and ann["caller_name"] == "Ann Baker"
    await calls_are_listed(stage, ann, bob)
    await the_page_shows_it(stage, browser, uuid, ann["from"], bob["from"])


async def calls_are_listed(stage: Stage, ann: dict[str, Any], bob: dict[str, Any]) -> None:
    record = await written(stage, f"Call/{ann['call_uuid']}/")
    assert (record["call_state"], record["call_direction"], record["from_number"]) == ("ANSWER", "inbound", ann["from"])
    assert record["bill_duration"] >= 1 and record["conference_uuid"]
    calls = await written(stage, f"Call/?from_number={bob['from'][1:]}", lambda one: one["objects"])
    assert [one["call_uuid"] for one in calls["objects"]] == [bob["call_uuid"]]
    assert len((await written(stage, "Call/", lambda one: len(one["objects"]) == 3))["objects"]) == 3
    status, text = await ask(stage, "GET", "ConferenceHistory/?format=csv")
    assert status == 200 and text.count("Weekly stand-up") == 1


async def the_page_shows_it(stage: Stage, browser: Browser, uuid: str, ann: str, bob: str) -> None:
    for look in ("light", "dark", "phone"):
        async with looking(browser, stage, look) as seen:
            await seen.log_in("history")
            await seen.page.get_by_label("Name or number").fill(bob)
            await seen.sees("1 ended conference")
            await seen.is_sound()
            await seen.page.get_by_role("link", name="Weekly stand-up").click()
            line = seen.page.get_by_role("listitem").filter(has_text=ann)
            await seen.sees("Left when the host left", within=line)
            await expect(line.locator(".span")).to_have_count(1)
            await seen.sees("Kicked with the API", "3 members, at most 3 at the same time")
            await seen.is_sound()
            await seen.page.get_by_role("link", name=re.compile("^(?!CSV).*mp3")).click()
            await expect(seen.page.get_by_role("heading", level=1)).to_have_text("Weekly stand-up", timeout=SOON_MS)
            await expect(seen.page.get_by_role("button", name="Play", exact=True)).to_be_visible(timeout=SOON_MS)
            await seen.page.go_back()
            await seen.page.get_by_role("link", name="Callbacks of this conference").click()
            await expect(seen.page).to_have_url(re.compile(f"#/callbacks/{uuid}$"))
