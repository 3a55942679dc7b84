"""The administrator's page in a real Chromium."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from ari_conf.administration import audit
from ari_conf.dialing import trunk_store
from ari_conf.store import accounts, removals
from tests.integration.dashboard import SIZES, SOON_MS, Dashboard, Look, chromium, looking
from tests.integration.stage import ADMIN_KEY, Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">stand-up</Conference>'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncGenerator[Browser]:
    async with chromium() as browser:
        yield browser


async def log_in(seen: Dashboard, place: str = "") -> None:
    await seen.page.goto(f"{seen.url}/admin/login")
    await seen.page.get_by_label("Administrator's key").fill(ADMIN_KEY)
    await seen.page.keyboard.press("Enter")
    await expect(seen.page.get_by_role("heading", level=1)).to_have_text("Accounts", timeout=SOON_MS)
    if place:
        await seen.page.goto(f"{seen.url}/admin#/{place}")


async def test_a_login_with_the_key_alone(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen:
        page = seen.page
        await page.goto(f"{seen.url}/admin")
        await expect(page).to_have_url(f"{seen.url}/admin/login")
        await expect(page.get_by_label("Administrator's key")).to_be_focused()
        await page.keyboard.type("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("The key is wrong.")
        await seen.is_sound()
        await log_in(seen)
        await seen.sees("admin")
        # The accounts of other tests may fill a page.
        await page.get_by_label("Auth ID").fill(stage.account)
        await seen.sees(stage.account)
        await seen.press("Log out")
        await expect(page).to_have_url(f"{seen.url}/admin/login")
        assert await page.context.cookies() == []
        await page.go_back()
        await seen.sees("You are no longer logged in.")
        seen.takes_note("401")


async def test_an_account_is_created_edited_rotated_and_removed(stage: Stage, browser: Browser) -> None:
    name = f"P{stage.account}"
    async with looking(browser, stage) as seen:
        page = seen.page
        await log_in(seen)
        await seen.press("New account")
        dialog = page.get_by_role("dialog")
        await page.get_by_label("Auth ID", exact=True).last.fill(name)
        await page.get_by_label("Answer URL", exact=True).fill("ftp://a.example/")
        await dialog.get_by_role("button", name="Create").click()
        await seen.sees("Answer URL: 'ftp://a.example/' is not allowed", within=dialog)
        seen.takes_note("400")
        await page.get_by_label("Answer URL", exact=True).fill("https://a.example/answer")
        await seen.is_sound()
        await dialog.get_by_role("button", name="Create").click()
        # The token is shown once.
        await expect(page.get_by_role("heading", level=1)).to_be_focused()
        record = accounts.get(stage.redis, name)
        assert record is not None and record.answer_url == "https://a.example/answer"
        await expect(page.get_by_role("textbox", name="Auth token")).to_have_value(record.token)
        await seen.is_sound()
        await page.get_by_role("link", name="All accounts").click()
        await page.get_by_role("link", name=name).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        await seen.sees("https://a.example/answer")
        await expect(page.get_by_role("textbox", name="Auth token")).to_have_count(0)

        await seen.press("Edit")
        await page.get_by_label("Answer URL", exact=True).fill("")
        await page.get_by_label("Members of a conference").fill("50")
        await dialog.get_by_role("button", name="Save").click()
        await seen.sees("was changed. Calls that arrive from now on use it.")
        record = accounts.get(stage.redis, name)
        assert record is not None and (record.answer_url, record.max_members) == (None, 50)

        await seen.press("Rotate token")
        await dialog.get_by_role("button", name="Rotate").click()
        await expect(page.get_by_role("textbox", name="Auth token")).to_be_visible()
        await seen.sees("An older token is valid until")
        rotated = accounts.get(stage.redis, name)
        assert rotated is not None and rotated.token != record.token
        await expect(page.get_by_role("textbox", name="Auth token")).to_have_value(rotated.token)

        await seen.press("Remove")
        await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        await page.keyboard.press("Escape")
        await seen.press("Remove")
        await page.get_by_label("Delete everything").check()
        await dialog.get_by_role("button", name="Remove").click()
        await seen.sees(f"Enter {name} to confirm", within=dialog)
        await page.get_by_label("Auth ID, to confirm").fill(name)
        await seen.is_sound()
        await dialog.get_by_role("button", name="Remove").click()
        await seen.sees("Being removed", "Removal")
        await seen.is_sound()
        await expect(page.get_by_text("This account does not exist")).to_be_visible(timeout=40_000)
        seen.takes_note("404")
        assert removals.get(stage.redis, name) is None

        await page.get_by_role("link", name="Its audit log").click()
        entries = page.get_by_role("list", name="Audit log").get_by_role("listitem")
        await expect(entries).to_have_count(5)
        await expect(entries.nth(3)).to_contain_text("changed")
        await entries.nth(3).get_by_text("details").click()
        await seen.sees("20 → 50", within=entries.nth(3))
        told = [(one.who, one.via) for one in audit.read(stage.redis, name)[1]]
        assert told == [("ari_conf", "worker")] + [("admin", "page")] * 4
        await seen.is_sound()


async def test_kept_calls_are_hung_up_later(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen, stage.callers(1) as (ann,):
        await stage.call(ann, ROOM)
        await stage.enters(ann)
        await log_in(seen, f"accounts/{stage.account}")
        await seen.press("Remove")
        await seen.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        await seen.sees("Its calls continue.", "1 left of 1")
        assert ann.state == "answered"
        await seen.press("Hang up its calls")
        await seen.page.get_by_role("dialog").get_by_role("button", name="Hang up", exact=True).click()
        await ann.wait_until_hung_up(15)
        await expect(seen.page.get_by_text("Removed, data left")).to_be_visible(timeout=40_000)
        await seen.press("Delete its data")
        await seen.page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
        await expect(seen.page.get_by_text("This account does not exist")).to_be_visible(timeout=40_000)
        seen.takes_note("404")


async def test_every_view_is_sound_in_every_look(stage: Stage, browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("DASHBOARD_SCREENS", tmp_path))
    for look in SIZES:
        async with looking(browser, stage, look) as seen:
            await every_view(seen, folder, look)


async def every_view(seen: Dashboard, folder: Path, look: Look) -> None:
    async def shows(name: str) -> None:
        await seen.is_sound()
        await seen.picture(folder, f"{look}-admin-{name}")

    await seen.page.goto(f"{seen.url}/admin/login?error=wrong")
    await shows("login")
    await log_in(seen)
    await seen.sees("Accounts")
    await shows("accounts")
    await seen.page.get_by_label("Auth ID").fill("nobody")
    await seen.sees("No account with nobody")
    await seen.page.get_by_label("Auth ID").fill(seen.stage.account.lower())
    await expect(seen.page.get_by_role("list", name="Accounts").get_by_role("listitem")).to_have_count(1)
    await seen.page.get_by_role("list", name="Accounts").get_by_role("link").click()
    await expect(seen.page).to_have_title(re.compile(seen.stage.account))
    await seen.sees("Fields")
    await shows("account")
    for name in ("Edit", "Rotate token", "Remove"):
        await seen.press(name)
        await shows(name.lower().replace(" ", "-"))
        await seen.page.keyboard.press("Escape")
    await seen.page.get_by_role("navigation", name="Sections").get_by_role("link", name="Audit log").click()
    await expect(seen.page.get_by_role("heading", level=1)).to_be_focused()
    await shows("audit")


async def test_a_trunk_is_created_tested_edited_and_removed(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen:
        page, dialog = seen.page, seen.page.get_by_role("dialog")
        await log_in(seen, "trunks")
        await seen.sees("Nothing can be dialed.")
        await seen.press("New trunk")
        await page.get_by_label("Name", exact=True).fill("main")
        await page.get_by_label("Dial template").fill("Local/{number}@ari_conf")
        await dialog.get_by_role("button", name="Create").click()
        await seen.sees("Dial template: 'Local/{number}@ari_conf' is not allowed", within=dialog)
        seen.takes_note("400")
        await page.get_by_label("Dial template").fill("PJSIP/{number}@provider")
        await page.get_by_label("Prefixes").fill("+49, +43")
        await seen.is_sound()
        await dialog.get_by_role("button", name="Create").click()
        await seen.sees("main was created.", "+49, +43; 30 calls at the same time, 5 per second")
        await seen.is_sound()

        await seen.press("Edit main")
        await page.get_by_label("Prefixes").fill("")
        await page.get_by_label("Hosts of SIP URIs").fill("sip.example.com")
        await page.get_by_label("Enabled").select_option("false")
        await dialog.get_by_role("button", name="Save").click()
        await seen.sees("main was changed.", "Disabled", "sip.example.com; 30 calls")
        trunk, _ = trunk_store.get(stage.redis, "main")
        assert (trunk.prefixes, trunk.hosts, trunk.enabled) == ((), ("sip.example.com",), False)

        await seen.press("Test a number")
        await page.get_by_label("Account that calls").fill(stage.account)
        await page.get_by_label("Number", exact=True).fill("+4930123456")
        await page.get_by_label("Caller ID", exact=True).fill("+4930999999")
        await dialog.get_by_role("button", name="Test").click()
        await seen.sees(
            "(ordinary DE)", "Refused: the account may not call +4930123456", "it is disabled", within=dialog
        )
        await seen.is_sound()
        await dialog.get_by_role("button", name="Cancel").click()

        await seen.press("Remove main")
        await dialog.get_by_role("button", name="Remove", exact=True).click()
        await seen.sees("main was removed.", "Nothing can be dialed.")
        await page.get_by_role("link", name="Audit log").click()
        entries = page.get_by_role("list", name="Audit log").get_by_role("listitem")
        await expect(entries.first).to_contain_text("main")
        await expect(entries.first).to_contain_text("trunk removed")
        await seen.is_sound()


async def test_an_account_may_dial_what_the_form_says(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen:
        page, dialog = seen.page, seen.page.get_by_role("dialog")
        await log_in(seen, f"accounts/{stage.account}")
        await seen.press("Edit")
        await page.get_by_label("Destinations that it may call").fill("de, +43")
        await page.get_by_label("Placed calls at the same time").fill("3")
        await dialog.get_by_role("button", name="Save").click()
        await seen.sees("was changed.", "DE,+43")
        await seen.press("Edit")
        await page.get_by_label("Destinations that it may call").fill("")
        await dialog.get_by_role("button", name="Save").click()
        await expect(page.get_by_text("DE,+43")).to_have_count(0)
        record = accounts.get(stage.redis, stage.account)
        assert record is not None and (record.dial_prefixes, record.dial_calls) == ("", 3)
