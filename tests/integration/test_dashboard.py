"""The dashboard in a real Chromium, on real calls: the page shows each change, and phones hear each action."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from ari_conf.recordings import index
from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key, with_transcript
from demo import audio_analysis
from demo.phone import CallFailed, Phone
from demo.speech import speech_files
from tests.integration.dashboard import SIZES, SOON_MS, VIEWS, Dashboard, Look, chromium, looking, seconds_until
from tests.integration.stage import Stage
from tests.integration.test_api import ANN, BOB, CID, SOUND, becomes, three

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEXT = 2275
STANDUP = '<Conference callbackUrl="{url}/events">Weekly stand-up</Conference>'
CALLERS = (("15551234567", "Ann Baker"), ("15557654321", "Bob"), ("4915112345678", ""), ("15558675309", "Dora Ortega"))
SAID = (
    "Good morning. Shall we begin with what is left of last week?",
    "The new trunk is in place, and the failover worked on the second try.",
    "What went wrong on the first?",
    "The old address was still in the firewall's list.",
    "Then I take the next point: the greeting.",
)
ROOM = '<Conference callbackUrl="{url}/events">Stand-up</Conference>'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncGenerator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_logging_in_and_out(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen:
        page = seen.page
        await page.goto(seen.url)
        await expect(page).to_have_url(f"{seen.url}/login")
        await expect(page.get_by_label("Auth ID")).to_be_focused()
        await page.keyboard.type(stage.account)
        await page.keyboard.press("Tab")
        await page.keyboard.type("wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("Auth ID or auth token is wrong.")
        await seen.is_sound()
        await seen.log_in()
        await seen.sees("No live conferences", stage.account)
        await seen.press("Log out")
        await expect(page).to_have_url(f"{seen.url}/login")
        assert await page.context.cookies() == []
        # The browser's copy of the page shows no data.
        await page.go_back()
        await seen.sees("You are no longer logged in.")
        seen.takes_note("401")


async def test_speaking_member_is_shown_talking(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen, stage.callers(2) as (ann, bob):
        await seen.log_in()
        await stage.call(ann, ROOM, display_name="Ann Baker")
        await stage.enters(ann)
        assert await seconds_until(seen.member(stage.number(ann))) < 1
        await stage.call(bob, ROOM)
        await seen.sees("1 conference, 2 members")
        row = seen.member(stage.number(ann))
        await seen.sees("Ann Baker, called 15550100", within=row)
        ann.tone(ANN)
        took = await seconds_until(row.get_by_text("Talking"))
        await seen.sees("Has the floor", within=row)
        await expect(seen.member(stage.number(bob)).get_by_text("Talking")).to_have_count(0)
        ann.silence()
        await seen.sees_not("Talking")
        await bob.hang_up()
        left = await stage.leaves(bob)
        assert left and await seconds_until(seen.member(stage.number(bob)), gone=True) < 1
        stage.saw(f"shown {took * 1000:.0f} ms after the first word")
        assert took < 1


async def test_mute_deaf_and_hold_are_heard(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen, stage.callers(2) as (ann, bob):
        await seen.log_in()
        await three(stage, ann, bob, body=ROOM)
        a, row = stage.number(ann), seen.member(stage.number(ann))
        await seen.press(f"Mute {a}")
        await becomes(stage, bob, set())
        await seen.sees("Muted", within=row)
        await seen.sees_not("Talking", within=row)
        await seen.press(f"Unmute {a}")
        await becomes(stage, bob, {ANN})
        await seen.press(f"Deafen {a}")
        await becomes(stage, ann, set())
        await seen.sees("Deaf", within=row)
        await seen.press(f"Undeafen {a}")
        await becomes(stage, ann, {BOB})
        await seen.press(f"Hold {a}")
        await becomes(stage, bob, set())
        await seen.sees("On hold", within=row)
        assert stage.is_music(await stage.listen(ann, 2000))
        await seen.press(f"Resume {a}")
        await becomes(stage, bob, {ANN})
        await seen.sees_not("On hold")


async def test_kick_and_hang_up_after_a_question(stage: Stage, browser: Browser) -> None:
    stage.tones("/next.wav", (NEXT, 20_000))
    async with looking(browser, stage) as seen, stage.callers(3) as (ann, bob, cid):
        await seen.log_in()
        await three(stage, ann, bob, cid, body=ROOM + "<Play>{url}/next.wav</Play>")
        a, b = stage.number(ann), stage.number(bob)
        await seen.press(f"Kick {a}")
        # A user who clicked by mistake presses Enter or Escape, and nothing happens.
        await expect(seen.page.get_by_role("button", name="Cancel")).to_be_focused()
        await seen.page.keyboard.press("Escape")
        await expect(seen.page.get_by_role("button", name=f"Kick {a}")).to_be_focused()
        await becomes(stage, bob, {ANN, CID})
        await seen.press(f"Kick {a}", "Kick")
        await stage.hears(ann, NEXT)
        await expect(seen.member(a)).to_have_count(0)
        await seen.press(f"Hang up {b}", "Hang up")
        await bob.wait_until_hung_up(5)
        assert ann.state == cid.state == "answered"
        await seen.press("Hang up all")
        await seen.sees("1 call will end immediately.")
        await seen.page.get_by_role("dialog").get_by_role("button", name="Hang up all").click()
        await cid.wait_until_hung_up(5)
        await seen.sees("No live conferences")
        assert ann.state == "answered"


async def test_lock_and_announce(stage: Stage, browser: Browser) -> None:
    name = 'a/b? <img src=x onerror="alert(1)"> ☕'
    body = ROOM.replace("Stand-up", name.replace("<", "&lt;"))
    url = stage.tones("/sound.wav", (SOUND, 20_000))
    async with looking(browser, stage) as seen, stage.callers(3) as (ann, bob, cid):
        await seen.log_in()
        await three(stage, ann, bob, body=body)
        ann.silence()
        bob.silence()
        room = seen.conference(name)
        await seen.press("Lock")
        await seen.sees("Locked", within=room)
        with pytest.raises(CallFailed):
            await stage.call(cid, body)
        await seen.press("Unlock")
        await seen.sees_not("Locked", within=room)
        await seen.press("Announce")
        dialog = seen.page.get_by_role("dialog", name=f"Announce to {name}")
        await dialog.get_by_role("button", name="Announce").click()
        await seen.sees("Enter the text to announce.", within=dialog)
        await seen.page.get_by_label("Text", exact=True).fill("Five minutes left.")
        await dialog.get_by_role("button", name="Announce").click()
        for phone in (ann, bob):
            await stage.until(
                lambda p=phone: not audio_analysis.silent(p.heard.since(p.heard.end_ms - 400)), 10, "speech"
            )
        await stage.goes_quiet(ann)
        await seen.press("Announce")
        await seen.page.get_by_label("Sound file").check()
        await seen.page.get_by_label("Address").fill(url)
        await seen.page.keyboard.press("Enter")
        await asyncio.gather(stage.hears(ann, SOUND), stage.hears(bob, SOUND))


async def test_a_dead_letter_is_resent(stage: Stage, browser: Browser) -> None:
    stage.receiver.statuses["/events"] = [404, 200]
    async with looking(browser, stage) as seen, stage.callers(1) as (ann,):
        await seen.log_in("callbacks")
        await stage.call(ann, ROOM.replace("<Conference", '<Conference maxMembers="99"'))
        letter = seen.page.get_by_role("list", name="Dead letters").get_by_role("listitem").first
        await seen.sees("enter, Stand-up", "1 attempt: the last response had status 404", within=letter)
        await letter.get_by_text("Attempts and parameters").click()
        await seen.sees("ConferenceMemberID", within=letter)
        await letter.get_by_role("button", name="Resend").click()
        await seen.sees("enter, Stand-up is being resent.")
        await stage.until(lambda: len(stage.receiver.requests_to("/events")) == 2)
        first, again = stage.receiver.requests_to("/events")
        assert first.params == again.params
        await seen.sees("A callback that its receiver rejects permanently")
        # The list of all callbacks has it as well, and links to the callbacks of its conference.
        told = seen.page.get_by_role("list", name="Callbacks").get_by_role("listitem")
        await expect(told).to_have_attribute("data-state", "delivered")
        await told.get_by_role("link", name="Stand-up").click()
        await expect(seen.page.get_by_role("heading", level=1)).to_have_text("Callbacks of Stand-up")
        await seen.sees("Delivered", within=told)
        await seen.go("problems")
        await seen.sees("is a dead letter after 1 try", "maxMembers")
        await seen.sees("Check the receiver's response, correct the receiver", "Correct it in the document")


async def test_without_a_mouse(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen, stage.callers(3) as (ann, bob, cid):
        keys = seen.page.keyboard
        await seen.log_in()
        await three(stage, ann, bob, body=ROOM)
        a = stage.number(ann)

        async def tab_to(name: str) -> None:
            for _ in range(60):
                await keys.press("Tab")
                if (
                    await seen.page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText")
                    == name
                ):
                    return
            raise AssertionError(f"no way to {name}")

        await keys.press("Home")
        await tab_to("Skip to the content")
        await keys.press("Enter")
        await tab_to(f"Mute {a}")
        await keys.press("Enter")
        await becomes(stage, bob, set())
        unmute = seen.page.get_by_role("button", name=f"Unmute {a}")
        await expect(unmute).to_be_focused()
        # The list changes without the user's action: the focus stays.
        await stage.call(cid, ROOM)
        await seen.sees("1 conference, 3 members")
        await expect(unmute).to_be_focused()
        # The screen reader gets this text once.
        await expect(seen.page.locator("#spoken")).to_have_text(f"{stage.number(cid)} joined Stand-up")
        await tab_to(f"Hang up {a}")
        await keys.press("Enter")
        await expect(seen.page.get_by_role("button", name="Cancel")).to_be_focused()
        await keys.press("Tab")
        await keys.press("Enter")
        await ann.wait_until_hung_up(5)
        # The focused element is gone: the focus moves to the nearest element around it.
        await expect(seen.page.get_by_role("heading", name="Stand-up")).to_be_focused()


async def test_it_comes_back_by_itself(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen, stage.callers(1) as (ann,):
        await seen.log_in()
        await stage.system.stop("web")
        await seen.sees("Reconnecting…", "The connection to the server was lost.")
        await stage.call(ann, ROOM)
        await stage.system.start("web")
        await seen.connected()
        await seen.sees(stage.number(ann))
        seen.takes_note("ERR_|Failed to load")


async def test_a_recording_is_made_heard_and_read(stage: Stage, browser: Browser) -> None:
    async with looking(browser, stage) as seen:
        page = seen.page
        await seen.log_in()
        async with stage.callers(2) as (ann, bob):
            await three(stage, ann, bob, body=ROOM)
            bob.silence()
            await seen.press("Record")
            await page.get_by_label("wav, uncompressed").check()
            await seen.press("Start recording")
            await seen.sees("Recording 0:0", within=seen.conference("Stand-up"))
            await stage.listen(bob, 2500)
            ann.silence()
            bob.tone(BOB)
            await stage.hears(ann, BOB)
            await stage.listen(ann, 2000)
            await seen.press("Stop recording")
            await seen.sees_not("Recording 0:")
        await seen.go("recordings")
        stored = page.get_by_role("list", name="Recordings").get_by_role("link")
        await expect(stored).to_have_count(1, timeout=SOON_MS)
        await stored.click()
        await says_how_to_have_a_transcript(seen)
        transcribed(stage)
        await seen.go("recordings")
        await stored.click()
        await seen.sees(stage.number(ann), "spoke for")
        await expect(page.locator(".line").nth(1)).to_contain_text(stage.number(bob))
        await plays_and_seeks(seen)
        async with page.expect_download() as coming:
            await page.get_by_role("link", name="Download").click()
        file = await coming.value
        assert re.fullmatch(r"Stand-up \d{4}-\d\d-\d\d \d\d\.\d\d\.wav", file.suggested_filename)
        assert (await file.path()).read_bytes()[:4] == b"RIFF"
        await seen.press("Delete")
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await seen.sees("No recordings yet")


async def says_how_to_have_a_transcript(seen: Dashboard) -> None:
    """Assert that the page explains how to get a transcript, without naming a checkbox that does not exist."""
    await seen.sees("Select “Transcribe the recording”")
    mine = {"auth_id": seen.stage.account, "now_ms": 0, "transcribes": False}
    await seen.page.route("**/login/me", lambda route: route.fulfill(json=mine))
    await seen.page.reload()
    await seen.sees("no transcription engine is installed")
    await seen.page.unroute("**/login/me")
    await seen.page.reload()
    await seen.sees("Select “Transcribe the recording”")


async def plays_and_seeks(seen: Dashboard) -> None:
    """Play and seek by the button, the slider, a turn and the timeline."""
    page = seen.page

    async def at() -> float:
        return float(await page.evaluate("document.querySelector('audio').currentTime"))

    await seen.press("Play")
    await seen.until("document.querySelector('audio').currentTime > 0.3 && !document.querySelector('audio').paused")
    await seen.press("Pause")
    slider = page.get_by_role("slider", name="Position")
    await slider.focus()
    await page.keyboard.press("Home")
    await page.keyboard.press("ArrowRight")
    await seen.until("document.querySelector('audio').currentTime === 1")
    await expect(slider).to_have_attribute("aria-valuetext", re.compile("^1 second of "))
    turn = page.get_by_role("button", name=SAID[1])
    await turn.click()
    await expect(turn).to_have_attribute("aria-current", "true")
    there = await at()
    assert there > 1.5
    await seen.press("Play")
    await seen.until(f"document.querySelector('audio').currentTime > {there + 0.2}")
    # The transcript follows, from the first turn to the second.
    await page.get_by_role("button", name=SAID[0]).click()
    await page.get_by_label("Speed").select_option("2×")
    await expect(turn).not_to_have_attribute("aria-current", "true")
    await expect(turn).to_have_attribute("aria-current", "true")
    await seen.press("Pause")
    track = page.locator(".track").first
    box = await track.bounding_box()
    assert box is not None
    await track.click(position={"x": box["width"] / 2, "y": 5})
    assert abs(await at() - float(await page.evaluate("document.querySelector('audio').duration")) / 2) < 0.2


def transcribed(stage: Stage) -> None:
    """Store a transcript with a turn for each talk, in the worker's form; other tests cover recognition itself."""
    total, (stored,) = index.search(stage.redis, stage.account)
    assert total == 1
    bucket, key = Bucket(stage.system.settings), object_key(stage.account, stored.recording_id, stored.start_ms, "json")
    document = bucket.get_json(key)
    assert document is not None
    written = [{**one, "from": "", "text": text} for one, text in zip(document["talk"], SAID, strict=False)]
    transcript = {"state": "done", "language": "en", "engine": "none", "text": "", "turns": written}
    bucket.put_json(key, with_transcript(document, transcript))


async def test_every_view(stage: Stage, browser: Browser, tmp_path: Path) -> None:
    """axe finds nothing, every view fits into the window, the console is empty; takes pictures for people to check."""
    folder = Path(os.environ.get("DASHBOARD_SCREENS", tmp_path))
    async with looking(browser, stage) as seen, stage.callers(6) as phones:
        await seen.log_in()
        await expect(seen.page).to_have_title("Live · ari_conf")
        await seen.is_sound()
        await seen.picture(folder, "light-empty")
        await busy(stage, seen, phones)
        for look in SIZES:
            async with looking(browser, stage, look) as one:
                await every_view(one, folder, look)
        # A page that followed all events has the same data as a page that opens now.
        async with looking(browser, stage) as late:
            await late.log_in()
            ann, *_ = phones
            ann.silence()
            await seen.sees_not("Talking")
            await late.sees_not("Talking")
            assert await seen.known() == await late.known() != {}


async def every_view(seen: Dashboard, folder: Path, look: Look) -> None:
    async def shows(name: str) -> None:
        await seen.is_sound()
        await seen.picture(folder, f"{look}-{name}")

    await seen.page.goto(f"{seen.url}/login?error=wrong")
    await shows("login")
    await seen.log_in()
    await seen.sees("Talking", "Recording ")
    await shows("live")
    for name in ("Call someone", "Announce", "Hang up all"):
        await seen.page.get_by_role("button", name=name, exact=True).first.click()
        await shows(name.lower().replace(" ", "-"))
        await seen.page.keyboard.press("Escape")
    for view in VIEWS[1:]:
        await seen.go(view)
        await expect(seen.page.get_by_role("main").get_by_role("listitem").first).to_be_visible()
        await shows(view)
    await seen.go("history")
    await seen.page.get_by_role("list", name="Ended conferences").get_by_role("link").first.click()
    await seen.sees("Talked for")
    await shows("ended-conference")
    await seen.go("recordings")
    await seen.page.get_by_role("list", name="Recordings").get_by_role("link").click()
    await seen.page.get_by_role("button", name=SAID[1]).click()
    await shows("recording")


async def busy(stage: Stage, seen: Dashboard, phones: Iterable[Phone]) -> None:
    """Fill the account with an example of everything, past or current."""
    ann, bob, cid, dora, eve, fay = phones
    await talked(stage, ann, bob, cid)
    stage.receiver.statuses["/events"] = [404, 404, 200]
    for phone, (number, name) in zip((ann, bob, cid, dora), CALLERS, strict=True):
        await stage.call(phone, STANDUP, from_user=number, display_name=name)
        await seen.sees(number)
    waiting = '<Conference startConferenceOnEnter="false" maxMembers="99">Support, Northwind</Conference>'
    await stage.call(eve, waiting, from_user="15552223333", display_name="Eve")
    await stage.call(fay, waiting, from_user="15554445555")
    await seen.press(f"Mute {CALLERS[2][0]}", f"Hold {CALLERS[3][0]}")
    await seen.conference("Weekly stand-up").get_by_role("button", name="Record").click()
    await seen.press("Start recording")
    ann.say(audio_analysis.wav(speech_files()[1].path), loop=True)
    await seen.sees("Muted", "On hold", "Has the floor", "Recording 0:", "Waiting to start", "15554445555")


async def talked(stage: Stage, *phones: Phone) -> None:
    """Make a recording of several turns, with its transcript."""
    for phone, (number, name) in zip(phones, CALLERS, strict=False):
        await stage.call(
            phone, STANDUP.replace(" callback", ' record="true" callback'), from_user=number, display_name=name
        )
    speech = audio_analysis.wav(speech_files()[1].path)
    for turn, _ in enumerate(SAID):
        phones[turn % 3].say(speech[: 8 * 500 * (1 + turn % 3)])
        await stage.listen(phones[turn % 3], 500 * (1 + turn % 3) + 600)
    for phone in phones:
        await phone.hang_up()
    await stage.event("ConferenceRecord", 20)
    transcribed(stage)
