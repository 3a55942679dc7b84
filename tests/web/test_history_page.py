"""The dashboard's section "History" in a real Chromium, with a history that is made up, or away."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tests.integration.dashboard import SIZES, Dashboard, Look, chromium, looking
from tests.integration.stage import Stage
from tests.web.conftest import Owner, Served
from tests.web.past import HOUR_MS, NOW_MS, Past
from tests.web.test_conference_history import rows

LONG = "sip:a-very-long-name-of-a-phone@subdomain.example.com"


@pytest_asyncio.fixture
async def browser() -> AsyncGenerator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
def stage(served: Served) -> Stage:
    """Return the web process, as far as the dashboard's user needs it."""
    system = SimpleNamespace(settings=SimpleNamespace(web_listen=f"127.0.0.1:{served.port}"))
    token = accounts.add(served.owner.redis, 0, "A").token
    return cast(Stage, SimpleNamespace(system=system, account="A", token=token))


def filled(served: Served) -> Past:
    """Fill the history with a conference that has an example of everything, and with older ones."""
    past = Past(served.settings)
    for number in range(23):
        ended = NOW_MS - (number + 2) * 5 * HOUR_MS
        past.conference(f"x{number}", name=f"Support {number}", ended_ms=ended, created_ms=ended - 900_000, members=2)
    past.conference("c2", name="Weekly stand-up", members=5, end_reason="host_left")
    past.member("c2", 1, 0, 600, caller_name="Ann Baker", mos=4.31, mos_worst=4.0, measured_s=590.0)
    line = {"mos": 2.6, "mos_worst": 1.2, "line_was_bad": True, "measured_s": 200.0}
    past.member("c2", 2, 150, 300, from_number="15557654321", caller_name="Bob", exit_reason="kick", talk_ms=0, **line)
    past.member("c2", 3, 300, 600, from_number="", caller_name="", exit_reason="host_left")
    # The API has called this one: their number is that which was called.
    past.call("call-4", direction="outbound")
    numbers = {"from_number": "4930123456", "to_number": "4915112345678"}
    past.member("c2", 4, 120, 598, **numbers, caller_name="Our office", exit_reason="star", talk_ms=9000)
    past.member("c2", 5, 400, 500, from_number=LONG, caller_name='<img src=x onerror="alert(1)"> ' * 3)
    past.talk("c2", 4, 150, 154)
    past.talk("c2", 4, 300, 305)
    past.recording("r1", "c2")
    past.callback("k1", "c2", "delivered")
    past.callback("k2", "c2", "dead")
    past.problem("p1", "call-1", code=8011)
    return past


@pytest.mark.parametrize("look", SIZES)
async def test_it_reads_well(stage: Stage, served: Served, browser: Browser, look: Look, tmp_path: Path):
    folder = Path(os.environ.get("DASHBOARD_SCREENS", tmp_path))
    await asyncio.to_thread(filled, served)
    async with looking(browser, stage, look) as seen:
        await seen.log_in("history")
        await seen.sees(
            "24 ended conferences", "Weekly stand-up", "5 members", "1 recording", "1 dead letter", "1 problem"
        )
        await seen.is_sound()
        await seen.picture(folder, f"{look}-past")
        await seen.page.get_by_role("link", name="Weekly stand-up").click()
        await expect(seen.page.get_by_role("heading", level=1)).to_be_focused()
        await seen.sees("5 members, at most 4 at the same time. It ended when the host left.", "Bad line, MOS 2.6")
        await seen.is_sound()
        await seen.picture(folder, f"{look}-past-conference")


async def test_a_conference_is_found(stage: Stage, served: Served, browser: Browser):
    await asyncio.to_thread(filled, served)
    async with looking(browser, stage) as seen:
        await seen.log_in("history")
        found = seen.page.get_by_role("list", name="Ended conferences").get_by_role("link")
        await expect(found).to_have_count(20)
        await seen.press("Older")
        await expect(found).to_have_count(4)
        search = seen.page.get_by_label("Name or number")
        for text in ("STAND-up", "bob", "+49 (151) 1234", "subdomain"):
            await search.fill(text)
            # The search begins at the first page again.
            await expect(found).to_have_count(1)
            await expect(found).to_contain_text("Weekly stand-up")
        await search.fill("nobody")
        await seen.sees("No conference matches")
        await search.fill("")
        await expect(found).to_have_count(20)
        # Days are the user's, who is in UTC here.
        first, last = seen.page.get_by_label("From"), seen.page.get_by_label("Until")
        await last.fill(day(ENDED_MS))
        await first.fill(day(ENDED_MS))
        await seen.sees("Weekly stand-up")
        await last.fill(day(ENDED_MS - DAY_MS))
        await first.fill(day(ENDED_MS - DAY_MS))
        await seen.sees("Support")
        await seen.sees_not("Weekly stand-up")
        await last.fill("")
        await first.fill(day(ENDED_MS + DAY_MS))
        await seen.sees("No conference matches")


ENDED_MS = NOW_MS - HOUR_MS + 600_000


def day(at_ms: int) -> str:
    """Return the day, as a date input has it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


async def test_each_member_has_a_line(stage: Stage, served: Served, browser: Browser):
    await asyncio.to_thread(filled, served)
    async with looking(browser, stage) as seen:
        await seen.log_in("history")
        await seen.page.get_by_role("link", name="Weekly stand-up").click()
        lines = seen.page.get_by_role("region", name="Members").get_by_role("listitem")
        await expect(lines).to_have_count(5)
        assert await bars(seen, "1", ".presence") == [(0.0, 1.0)]
        assert await bars(seen, "2", ".presence") == [(0.25, 0.25)]
        assert await bars(seen, "4", ".span") == [(0.25, 0.007), (0.5, 0.008)]
        for member, *texts in (
            ("1", "14155550100", "Ann Baker", "0:00 to 10:00", "Hung up", "MOS 4.3"),
            ("2", "2:30 to 5:00", "Did not talk", "Kicked with the API", "Bad line, MOS 2.6"),
            ("3", "Unknown number", "Left when the host left"),
            ("4", "4915112345678", "called from 4930123456", "Talked for 9 seconds", "Left by pressing *"),
            ("5", LONG, "<img src=x onerror="),
        ):
            for text in texts:
                await expect(seen.page.locator(f"[data-member='{member}']")).to_contain_text(text)
        # A screen reader gets the bar as words.
        await expect(lines.nth(2)).to_contain_text("In after 2 minutes 30 seconds, for 2 minutes 30 seconds.")
        await seen.sees("1 delivered", "1 dead letter", "problem p1", "Correct it in the document")
        recording = seen.page.get_by_role("link", name=re.compile("starts after 1 minute, mp3"))
        await expect(recording).to_have_attribute("href", "#/recordings/r1")
        callbacks = seen.page.get_by_role("link", name="Callbacks of this conference")
        await expect(callbacks).to_have_attribute("href", "#/callbacks/c2")


async def bars(seen: Dashboard, member: str, kind: str) -> list[tuple[float, float]]:
    """Return (left end, width) of the bars of a member, as parts of the track."""
    script = """(bars) => bars.map((bar) => {
        const [own, track] = [bar.getBoundingClientRect(), bar.parentElement.getBoundingClientRect()];
        return [(own.left - track.left) / track.width, own.width / track.width];
    })"""
    found: Any = await seen.page.locator(f"[data-member='{member}'] {kind}").evaluate_all(script)
    return [(round(left, 2), round(width, 2) if width > 0.05 else round(width, 3)) for left, width in found]


async def test_csv_files_are_downloaded(stage: Stage, served: Served, browser: Browser, tmp_path: Path):
    await asyncio.to_thread(filled, served)
    async with looking(browser, stage) as seen:

        async def downloaded() -> tuple[str, list[dict[str, str]]]:
            async with seen.page.expect_download() as coming:
                await seen.page.get_by_role("link", name="CSV").click()
            file = await coming.value
            await file.save_as(tmp_path / "file.csv")
            return file.suggested_filename, rows((tmp_path / "file.csv").read_bytes())

        await seen.log_in("history")
        await seen.page.get_by_label("Name or number").fill("stand")
        await seen.sees("1 ended conference")
        name, found = await downloaded()
        assert (name, [one["conference_name"] for one in found]) == ("conferences.csv", ["Weekly stand-up"])
        await seen.page.get_by_role("link", name="Weekly stand-up").click()
        await seen.sees("Ann Baker")
        name, found = await downloaded()
        assert (name, len(found), found[0]["from"]) == ("Weekly stand-up.csv", 5, "14155550100")


async def test_without_a_mouse(stage: Stage, served: Served, browser: Browser):
    await asyncio.to_thread(filled, served)
    async with looking(browser, stage) as seen:
        keys = seen.page.keyboard
        await seen.log_in("history")
        await seen.sees("Weekly stand-up")

        async def tab_to(text: str) -> None:
            for _ in range(60):
                await keys.press("Tab")
                if (await seen.page.evaluate("document.activeElement.innerText")).startswith(text):
                    return
            raise AssertionError(f"no way to {text}")

        await seen.page.get_by_label("Name or number").focus()
        await keys.type("stand")
        await seen.sees("1 ended conference")
        # Enter in the search does not leave the page.
        await keys.press("Enter")
        await tab_to("Weekly stand-up")
        await keys.press("Enter")
        await expect(seen.page.get_by_role("heading", level=1)).to_be_focused()
        await tab_to("CSV")
        await tab_to("Callbacks of this conference")
        await keys.press("Enter")
        await expect(seen.page.get_by_role("heading", level=1)).to_be_focused()
        await expect(seen.page).to_have_url(re.compile("#/callbacks/c2$"))


async def test_a_conference_whose_callbacks_are_no_longer_kept(stage: Stage, served: Served, browser: Browser):
    await asyncio.to_thread(lambda: Past(served.settings).conference("c1", name="Old one"))
    async with looking(browser, stage) as seen:
        await seen.log_in("history")
        await seen.page.get_by_role("link", name="Old one").click()
        await seen.sees("None: the conference had none, or they are no longer kept.")
        await seen.sees_not("delivered")
        await seen.is_sound()


async def test_an_account_without_a_past(stage: Stage, served: Served, browser: Browser):
    await asyncio.to_thread(Past, served.settings)
    async with looking(browser, stage) as seen:
        await seen.log_in("history")
        await seen.sees("No ended conferences yet")
        await seen.is_sound()
        await seen.page.goto(f"{seen.url}/#/history/unknown")
        await seen.sees("Conference not found among the ended ones")
        seen.takes_note("404")


class TestADatabaseThatIsAway:
    @pytest.fixture
    def variables(self) -> dict[str, str]:
        return {"ARI_CONF_DATABASE_URL": "postgresql://ann:secret@127.0.0.1:1/history"}

    async def test_only_the_history_is_missing(self, stage: Stage, owner: Owner, browser: Browser):
        async with looking(browser, stage) as seen:
            await seen.log_in("history")
            await seen.sees(
                "The history is temporarily unavailable, live conferences are not affected: try again later."
            )
            await expect(seen.page.get_by_role("alert").get_by_role("button", name="Try again")).to_be_visible()
            seen.takes_note("503")
            await seen.go("live")
            owner.joins("ann", "standup")
            await seen.sees("1 conference, 1 member")
            await seen.press("Lock")
            await seen.sees("Locked")
