"""The dashboard's user in a real Chromium: reads the page, acts on it, and collects its complaints."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, async_playwright, expect

from tests.integration.stage import Stage
from tests.lateness import Patience, took_s

Look = Literal["light", "dark", "phone"]
SIZES: dict[Look, tuple[int, int]] = {"light": (1280, 800), "dark": (1280, 800), "phone": (375, 740)}
SOON_MS = 20_000
"""Timeout where no promise is checked: a busy machine is slow."""
VIEWS = ("live", "history", "recordings", "callbacks", "problems")


@asynccontextmanager
async def chromium() -> AsyncGenerator[Browser]:
    path = next(found for name in ("chromium", "google-chrome") if (found := shutil.which(name)))
    async with async_playwright() as playwright:
        # Chromium's sandbox refuses root, which CI often is. Recordings must play without a person's click.
        rights = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(
            executable_path=path, args=[*rights, "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
        )
        try:
            yield browser
        finally:
            await browser.close()


class Dashboard:
    def __init__(self, stage: Stage, context: BrowserContext, page: Page) -> None:
        self.stage, self.context, self.page = stage, context, page
        self.complaints: list[str] = []
        """Errors and warnings of the console, and exceptions."""
        page.on("console", self._on_console_message)
        page.on("pageerror", lambda error: self.complaints.append(f"broke: {error}"))

    def _on_console_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def takes_note(self, of: str) -> None:
        """Assert that the page made these complaints, which the scenario causes, and forget them."""
        found = [one for one in self.complaints if re.search(of, one)]
        assert found, self.complaints
        self.complaints = [one for one in self.complaints if one not in found]

    @property
    def url(self) -> str:
        return f"http://{self.stage.system.settings.web_listen}"

    async def log_in(self, view: str = "live") -> None:
        await self.page.goto(f"{self.url}/login")
        await self.page.get_by_label("Auth ID").fill(self.stage.account)
        await self.page.get_by_label("Auth token").fill(self.stage.token)
        await self.page.keyboard.press("Enter")
        await self.connected()
        if view != "live":
            await self.go(view)

    async def connected(self) -> None:
        await expect(self.page.get_by_text("Connected")).to_be_visible(timeout=SOON_MS)

    async def go(self, view: str) -> None:
        """Follow the link of that name."""
        await self.page.get_by_role("navigation", name="Sections").get_by_role("link", name=view.title()).click()
        await expect(self.page.get_by_role("heading", level=1)).to_be_focused()

    def conference(self, name: str) -> Locator:
        return self.page.get_by_role("region", name=name, exact=True)

    def member(self, number: str) -> Locator:
        return self.page.get_by_role("listitem").filter(has=self.page.get_by_text(number, exact=True))

    async def press(self, *names: str) -> None:
        """Press the buttons of these names, one after another."""
        for name in names:
            await self.page.get_by_role("button", name=name, exact=True).click()

    async def sees(self, *texts: str, within: Locator | None = None) -> None:
        for text in texts:
            await expect((within or self.page).get_by_text(text).first).to_be_visible(timeout=SOON_MS)

    async def sees_not(self, *texts: str, within: Locator | None = None) -> None:
        for text in texts:
            await expect((within or self.page).get_by_text(text)).to_have_count(0, timeout=SOON_MS)

    async def known(self) -> dict[str, Any]:
        """Return the conferences that the page has."""
        module = "import('/static/js/event_stream.js')"
        found = await self.page.evaluate(f"{module}.then(({{ live }}) => live.get().conferences)")
        return dict(found)

    async def until(self, expression: str) -> None:
        """Wait until the expression is true in the page. (The page's security policy forbids Playwright's own wait.)"""
        patience = Patience(SOON_MS / 1000)
        while not await self.page.evaluate(expression):
            assert not patience.over, f"never: {expression}"
            await asyncio.sleep(0.05)

    async def is_sound(self) -> None:
        """Assert that neither axe nor the browser complains, and that the page fits into the window."""
        await self.until("!document.getAnimations().some((one) => one.effect.getTiming().iterations === 1)")
        found = (await Axe().run(self.page, options={"resultTypes": ["violations"]})).response["violations"]
        assert not found, [(one["id"], one["help"], [n["html"] for n in one["nodes"]]) for one in found]
        beyond = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert beyond <= 0, f"{beyond} px beyond the window's width"
        assert not self.complaints, self.complaints

    async def picture(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=folder / f"{name}.png")


@asynccontextmanager
async def looking(browser: Browser, stage: Stage, look: Look = "light", **more: Any) -> AsyncGenerator[Dashboard]:
    """Yield a new browser window. A complaint of the page fails the scenario, unless `takes_note` expects it."""
    width, height = SIZES[look]
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if look == "dark" else "light",
        has_touch=look == "phone",
        # Otherwise the processor draws small animations all the time, and nobody sees them.
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
        **more,
    )
    try:
        dashboard = Dashboard(stage, context, await context.new_page())
        yield dashboard
        assert not dashboard.complaints, dashboard.complaints
    finally:
        await context.close()


async def seconds_until(what: Locator, gone: bool = False) -> float:
    """Return the seconds until then, less those that the machine was late."""
    began = time.monotonic()
    await what.first.wait_for(state="hidden" if gone else "visible", timeout=SOON_MS)
    return took_s(began)


def exactly(text: str) -> re.Pattern[str]:
    return re.compile(f"^{re.escape(text)}$")
