"""People are called into a conference from the dashboard, in a real Chromium: the page shows how each call goes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Route, expect

from tests.integration.called_phone import CalledPhone
from tests.integration.dashboard import SIZES, SOON_MS, Dashboard, Look, chromium, looking
from tests.integration.test_calling_out import Caller, api, calling, system

__all__ = ["api", "calling", "system"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "<Conference>Stand-up</Conference>"
FROM = "4930123"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncGenerator[Browser]:
    async with chromium() as browser:
        yield browser


async def ask_for(seen: Dashboard, *phones: CalledPhone, confirms: bool = False, sender: str = FROM) -> None:
    """Fill in the dialog and send it, with the keyboard alone."""
    keys = seen.page.keyboard
    await seen.page.get_by_role("button", name="Call someone").focus()
    await keys.press("Enter")
    await expect(seen.page.get_by_label("Number to call")).to_be_focused()
    await keys.type(", ".join(phone.uri for phone in phones))
    await keys.press("Tab")
    await keys.press("ControlOrMeta+A")
    await keys.type(sender)
    await keys.press("Tab")
    await keys.press("Tab")
    if confirms:
        await keys.press("Tab")
        await keys.press("Space")
    await keys.press("Enter")


def call_to(seen: Dashboard, phone: CalledPhone) -> Locator:
    return seen.page.locator(".placed").filter(has_text=phone.uri)


async def test_who_answers_is_a_member_and_who_declines_is_said(api: Caller, browser: Browser) -> None:
    stage = api.stage
    async with looking(browser, stage) as seen, stage.callers(1) as (host,), CalledPhone() as ann, CalledPhone() as bob:
        api.allow(ann.host, bob.host)
        await seen.log_in()
        await stage.call(host, ROOM)
        await seen.sees("1 conference, 1 member")
        await ask_for(seen, ann)
        await ann.invited()
        await seen.sees("Calling", within=call_to(seen, ann))
        ann.reply("180 Ringing")
        await seen.sees("Ringing", within=call_to(seen, ann))
        await expect(seen.page.locator("#spoken")).to_have_text(f"{ann.uri}: Ringing")
        await seen.is_sound()
        ann.answer()
        await seen.sees("1 conference, 2 members")
        await expect(call_to(seen, ann)).to_have_count(0)
        await ask_for(seen, bob)
        await bob.invited()
        bob.reply("603 Decline")
        await seen.sees("Declined", within=call_to(seen, bob))
        await expect(call_to(seen, bob).get_by_role("button")).to_have_count(0)
        await expect(call_to(seen, bob)).to_have_count(0, timeout=SOON_MS)
        ann.hang_up()
        await seen.sees("1 conference, 1 member")


@pytest.mark.parametrize("look", list(SIZES))
async def test_a_call_is_canceled(api: Caller, browser: Browser, look: Look, tmp_path: Path) -> None:
    stage = api.stage
    folder = Path(os.environ.get("DASHBOARD_SCREENS", tmp_path))
    async with looking(browser, stage, look) as seen, stage.callers(1) as (host,), CalledPhone() as ann:
        api.allow(ann.host)
        await seen.log_in()
        await stage.call(host, ROOM)
        await ask_for(seen, ann)
        await ann.invited()
        ann.reply("180 Ringing")
        await seen.sees("Ringing", within=call_to(seen, ann))
        await seen.is_sound()
        await seen.picture(folder, f"{look}-ringing")
        await seen.press(f"Cancel the call to {ann.uri}")
        await ann.canceled()
        await seen.sees("Canceled", within=call_to(seen, ann))


async def test_who_has_to_press_a_key(api: Caller, browser: Browser) -> None:
    stage = api.stage
    async with looking(browser, stage) as seen, stage.callers(1) as (host,), CalledPhone() as ann:
        api.allow(ann.host)
        await seen.log_in()
        await stage.call(host, ROOM)
        await ask_for(seen, ann, confirms=True)
        await ann.invited()
        ann.answer()
        await seen.sees("Asked for the key", within=call_to(seen, ann))
        await ann.press("1")
        await seen.sees("1 conference, 2 members")
        ann.hang_up()
        await seen.sees("1 conference, 1 member")


async def test_a_refusal_is_shown_in_the_dialog(api: Caller, browser: Browser, tmp_path: Path) -> None:
    """The dialog keeps the input, and every look of it is sound."""
    stage = api.stage
    folder = Path(os.environ.get("DASHBOARD_SCREENS", tmp_path))
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        api.allow(ann.host)
        await stage.call(host, ROOM)
        for look in SIZES:
            async with looking(browser, stage, look) as seen:
                await seen.log_in()
                await ask_for(seen, ann, sender="15550000000")
                refused = seen.page.get_by_role("alert").filter(has_text="The account may not show the caller ID")
                await expect(refused).to_be_visible(timeout=SOON_MS)
                seen.takes_note("403")
                await seen.is_sound()
                await seen.picture(folder, f"{look}-refused")
                await expect(seen.page.get_by_label("Number to call")).to_have_value(ann.uri)
        assert not ann.invites


async def invite(api: Caller, *phones: CalledPhone, **more: str) -> str:
    """Call the phones into the conference over the API; return the UUID of the first call."""
    api.allow(*(phone.host for phone in phones))
    to = "<".join(phone.uri for phone in phones)
    status, reply = await api.ask("POST", "Conference/Stand-up/Member/", **{"from": FROM, "to": to, **more})
    assert status == 201, reply
    return str(reply["calls"][0]["call_uuid"])


async def test_every_browser_shows_all_calls_on_their_way(api: Caller, browser: Browser) -> None:
    """The API calls somebody into a conference that nobody is in. Two browsers show it, one of them after a reload."""
    stage = api.stage
    async with looking(browser, stage) as one, looking(browser, stage) as other, CalledPhone() as ann:
        both = (one, other)
        for seen in both:
            await seen.log_in()
            await seen.sees("No live conferences")
        await invite(api, ann)
        await ann.invited()
        for seen in both:
            await seen.sees("Calling", within=call_to(seen, ann))
            await seen.sees("Nobody is in yet", within=seen.conference("Stand-up"))
            await seen.sees_not("No live conferences")
        ann.reply("180 Ringing")
        for seen in both:
            await seen.sees("Ringing", within=call_to(seen, ann))
        await other.page.reload()
        await other.sees("Ringing", within=call_to(other, ann))
        await other.sees(f"called from {FROM}", within=call_to(other, ann))
        await other.is_sound()
        ann.answer()
        for seen in both:
            await seen.sees("1 conference, 1 member")
            await expect(call_to(seen, ann)).to_have_count(0)
            # Their number is that which was called, not the caller ID.
            await seen.sees(f"called from {FROM}", within=seen.member(ann.uri))
            await expect(seen.page.get_by_role("button", name=f"Mute {ann.uri}")).to_be_visible()
            await seen.is_sound()
        ann.hang_up()
        for seen in both:
            await seen.sees("No live conferences")


async def test_each_browser_says_how_a_call_ended(api: Caller, browser: Browser) -> None:
    """A call is canceled in the browser that has not placed it, another one is busy, and one is not answered."""
    stage = api.stage
    async with (
        looking(browser, stage) as one,
        looking(browser, stage) as other,
        stage.callers(1) as (host,),
        CalledPhone() as ann,
        CalledPhone("4915550002") as bob,
        CalledPhone("4915550003") as cid,
    ):
        both = (one, other)
        api.allow(ann.host, bob.host, cid.host)
        await stage.call(host, ROOM)
        for seen in both:
            await seen.log_in()
            await seen.sees("1 conference, 1 member")
        await ask_for(one, ann)
        await ann.invited()
        ann.reply("180 Ringing")
        await other.sees("Ringing", within=call_to(other, ann))
        await other.press(f"Cancel the call to {ann.uri}")
        await ann.canceled()
        for seen in both:
            await seen.sees("Canceled", within=call_to(seen, ann))
        await ask_for(other, bob)
        await bob.invited()
        bob.reply("180 Ringing")
        await one.sees("Ringing", within=call_to(one, bob))
        bob.reply("486 Busy Here")
        for seen in both:
            await seen.sees("Busy", within=call_to(seen, bob))
        await invite(api, cid, ring_timeout="3")
        await cid.invited()
        cid.reply("180 Ringing")
        for seen in both:
            await seen.sees("Ringing", within=call_to(seen, cid))
        for seen in both:
            await seen.sees("No answer", within=call_to(seen, cid))
        for seen in both:
            for phone in (ann, bob, cid):
                await expect(call_to(seen, phone)).to_have_count(0, timeout=SOON_MS)


async def test_the_first_of_several_gets_in_and_the_other_call_ends(api: Caller, browser: Browser) -> None:
    stage = api.stage
    async with looking(browser, stage) as seen, CalledPhone() as ann, CalledPhone("4915550002") as bob:
        await seen.log_in()
        await invite(api, ann, bob)
        await ann.invited()
        await bob.invited()
        for phone in (ann, bob):
            phone.reply("180 Ringing")
            await seen.sees("Ringing", within=call_to(seen, phone))
        ann.answer()
        await bob.canceled()
        await seen.sees("1 conference, 1 member")
        await seen.sees("Another phone answered", within=call_to(seen, bob))
        await expect(call_to(seen, bob)).to_have_count(0, timeout=SOON_MS)
        ann.hang_up()


async def test_the_line_of_who_was_called_is_shown_as_that_of_the_others(api: Caller, browser: Browser) -> None:
    stage = api.stage
    async with looking(browser, stage) as seen, stage.callers(1) as (host,), CalledPhone() as ann:
        await seen.log_in()
        await stage.call(host, ROOM)
        await invite(api, ann)
        await ann.invited()
        ann.answer()
        await seen.sees("1 conference, 2 members")
        # The first figures come after some seconds.
        await expect(seen.member(ann.uri).locator(".signal")).to_have_count(1, timeout=2 * SOON_MS)
        await expect(seen.page.locator(".member .signal")).to_have_count(2, timeout=SOON_MS)
        ann.hang_up()


async def test_a_lost_reply_and_another_attempt_call_once(api: Caller, browser: Browser) -> None:
    stage = api.stage

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    async with looking(browser, stage) as seen, stage.callers(1) as (host,), CalledPhone() as ann:
        api.allow(ann.host)
        await seen.log_in()
        await stage.call(host, ROOM)
        await seen.page.route("**/Member/", lose)
        await ask_for(seen, ann)
        await seen.sees("The server is unreachable.")
        seen.takes_note("ERR_FAILED")
        await ann.invited()
        ann.reply("180 Ringing")
        await seen.page.unroute("**/Member/")
        await seen.press("Call")
        await seen.sees("Ringing", within=call_to(seen, ann))
        assert len(ann.invites) == 1
        await expect(call_to(seen, ann)).to_have_count(1)
        await seen.press(f"Cancel the call to {ann.uri}")
        await ann.canceled()
