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
