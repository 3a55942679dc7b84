"""`<Wait beep="true">` on a real Asterisk: it "ends at a voicemail beep (only without silence)"."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import pytest

from demo import audio_analysis, g711
from demo.phone import Phone, now_ms
from demo.received_audio import Samples
from tests import lateness
from tests.integration.stage import MUSIC, Stage
from tests.lateness import SOON_S, Patience, lasted, late_ms, took_ms

T = TypeVar("T")
pytestmark = pytest.mark.asyncio(loop_scope="session")

BEFORE_HZ, AFTER_HZ = 2575, 3325
PROMPTS = MUSIC[0].parents[1] / "sounds/en_US_f_Allison" if MUSIC else None
MODULE = "/asterisk/modules/chan_rtp.so"


@pytest.fixture(autouse=True)
def around(stage: Stage) -> None:
    """Add the sounds that play before a Wait and after it."""
    stage.tones("/before.wav", (BEFORE_HZ, 300))
    stage.tones("/after.wav", (AFTER_HZ, 300))


def wait(seconds: int, more: str = "") -> str:
    return f'<Wait length="{seconds}" beep="true"{more}/><Play>{{url}}/after.wav</Play>'


def beep(hz: int, ms: int, level: float = -15.0) -> Samples:
    at = np.arange(ms * 8) / g711.RATE
    return np.round(np.sin(2 * np.pi * hz * at) * 32767 * 10 ** (level / 20)).astype(np.int16)


def spoken(name: str) -> Samples:
    assert PROMPTS is not None, "Asterisk's prompts are not there: asterisk/get brings them"
    return audio_analysis.wav(PROMPTS / f"{name}.wav")


async def ears(stage: Stage) -> set[str]:
    """Return the ids of the channels that listen to others."""
    channels = await stage.ari.request("GET", "/channels")
    return {channel["id"] for channel in channels if channel["name"].startswith(("Snoop/", "MulticastRTP/"))}


async def listened_to(stage: Stage, calls: int = 1) -> None:
    """Wait until each call has a bridge with two channels that listen to it."""
    await bridges(stage, [2] * calls)


async def nobody_listens(stage: Stage) -> None:
    await bridges(stage, [])
    async with lateness.timeout():  # Asterisk's own thread of each channel ends it, soon after the bridge's end
        while await ears(stage):
            pass


async def bridges(stage: Stage, expected: list[int]) -> None:
    """Wait until the bridges have these numbers of channels."""
    there: list[int] | None = None
    async with lateness.timeout():
        while there != expected:
            there = [len(bridge["channels"]) for bridge in await stage.ari.request("GET", "/bridges")]


async def waits(stage: Stage, phone: Phone, body: str) -> float:
    """Call, and return the epoch ms at which the Wait began."""
    # The Wait is not the first element: as the first it would run before the answer.
    await stage.call(phone, f"<Play>{{url}}/before.wav</Play>{body}")
    return await stage.hears(phone, BEFORE_HZ) + 300


async def finished(stage: Stage, phone: Phone, what: Samples) -> float:
    """Let the phone say the sound to its end, and return the epoch ms of the end."""
    sound = phone.say(what)
    return float(await stage.until(lambda: sound.ended_ms, description="it is said to its end"))


async def beeps_until(stage: Stage, phone: Phone, what: Samples, ended: Callable[[float], Awaitable[T | None]]) -> T:
    """Let the phone say the sound until `ended(epoch ms of the sound's end)` returns something, and return that.

    The phone repeats the sound if the machine was late: a sound with holes is no beep.
    """
    while True:
        began = now_ms()
        end = await finished(stage, phone, what)
        patience = Patience(1.0)
        while not (found := await ended(end)) and not patience.over:  # noqa: ASYNC110  what it waits for is made by packets
            await asyncio.sleep(0.02)
        if found:
            return found
        assert late_ms(began, end) > 20, "a whole beep ended nothing"


async def ends_at_a_beep(stage: Stage, phone: Phone, what: Samples) -> float:
    """Let the phone say the sound until the Wait ends; return the ms from the sound's end to the next element."""

    async def next_element(end: float) -> tuple[float, float] | None:
        heard = audio_analysis.intervals_of(phone.heard.since(end), AFTER_HZ)
        return (end, heard[0][0]) if heard else None

    end, after_ms = await beeps_until(stage, phone, what, next_element)
    lasted(end, end + after_ms, 0, 500)
    return after_ms


async def ends_after(stage: Stage, phone: Phone, seconds: float, begun: float) -> None:
    heard = await stage.hears(phone, AFTER_HZ, seconds + SOON_S)
    lasted(begun, heard, seconds * 1000 - 100, seconds * 1000 + 1000)


@pytest.mark.parametrize(("hz", "ms", "level"), [(500, 200, -30), (850, 400, -20), (1000, 1000, -10), (1400, 150, -15)])
async def test_a_wait_ends_at_a_beep(stage: Stage, hz: int, ms: int, level: int) -> None:
    async with stage.callers(1) as (ann,):
        await waits(stage, ann, wait(60))
        await listened_to(stage)
        greeting = np.concatenate([spoken("vm-goodbye"), beep(hz, ms, level)])
        after_ms = await ends_at_a_beep(stage, ann, greeting)
        stage.saw(f"{hz} Hz: goes on {after_ms:.0f} ms after the beep's end")
        await ann.wait_until_hung_up()


async def test_speech_and_music_do_not_end_it(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        begun = await waits(stage, ann, wait(8))
        end = await finished(
            stage, ann, np.concatenate([spoken("demo-abouttotry")[:24000], audio_analysis.wav(MUSIC[0])[:24000]])
        )
        assert took_ms(begun, end) < 7900
        await ends_after(stage, ann, 8, begun)


async def test_a_beep_does_not_end_a_wait_for_silence(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        begun = await waits(stage, ann, wait(3, ' silence="true" minSilence="60000"'))
        ann.say(np.concatenate([beep(0, 500), beep(1000, 400)]))
        await ends_after(stage, ann, 3, begun)
        assert await ears(stage) == set()


async def test_nobody_listens_after_a_wait_that_heard_nothing(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        begun = await waits(stage, ann, wait(2) + '<Wait length="30"/>')
        await listened_to(stage)
        await ends_after(stage, ann, 2, begun)
        await nobody_listens(stage)
        assert ann.state == "answered"


async def test_nor_after_a_hang_up(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await waits(stage, ann, wait(30))
        await listened_to(stage)
        hung_up = now_ms()
        await ann.hang_up()
        await nobody_listens(stage)
        assert took_ms(hung_up, now_ms()) < 1500


async def test_one_wait_after_another(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await waits(stage, ann, '<Wait length="60" beep="true"/>' + wait(60))
        await listened_to(stage)
        first = await ears(stage)

        async def another_listens(_end: float) -> bool:
            return not first & await ears(stage)

        await beeps_until(stage, ann, beep(1000, 300), another_listens)
        await asyncio.sleep(0.5)  # no effect of this may count as an end of the second
        assert not audio_analysis.intervals_of(ann.heard.audio, AFTER_HZ)
        await listened_to(stage)
        await ends_at_a_beep(stage, ann, beep(1000, 300))
        await ann.wait_until_hung_up()


async def test_our_channel_is_removed_by_somebody_else(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        begun = await waits(stage, ann, wait(3) + '<Wait length="30"/>')
        await listened_to(stage)
        for channel in await stage.ari.request("GET", "/channels"):
            if channel["name"].startswith("MulticastRTP/"):
                await stage.ari.request("DELETE", f"/channels/{channel['id']}")
        await nobody_listens(stage)
        assert took_ms(begun, now_ms()) < 3000
        await ends_after(stage, ann, 3, begun)


async def test_the_application_dies_and_another_listens_on(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await waits(stage, ann, wait(60))
        await listened_to(stage)
        before = await ears(stage)
        await stage.system.kill("serve")
        await stage.system.start("serve")
        there = before
        async with lateness.timeout():
            while there & before or len(there) != 2:
                there = await ears(stage)
        await listened_to(stage)
        await ends_at_a_beep(stage, ann, np.concatenate([beep(0, 300), beep(1000, 400)]))
        await ann.wait_until_hung_up()


@asynccontextmanager
async def without_the_module(stage: Stage) -> AsyncGenerator[None]:
    await stage.ari.request("DELETE", MODULE)
    try:
        yield
    finally:
        await stage.ari.request("POST", MODULE)


def warnings(stage: Stage) -> int:
    lines = stage.system.log("serve").read_text().splitlines()
    told = [json.loads(line) for line in lines if '"beep listener failed"' in line]
    return sum(line["level"] == "warning" for line in told)


async def test_an_asterisk_that_cannot(stage: Stage) -> None:
    before = warnings(stage)
    async with without_the_module(stage), stage.callers(1) as (ann,):
        begun = await waits(stage, ann, '<Wait length="1" beep="true"/>' + wait(1))
        await ends_after(stage, ann, 2, begun)
        await ann.wait_until_hung_up()
    assert warnings(stage) - before == 1


async def test_many_at_once(stage: Stage) -> None:
    """Each call ends at its own beep."""
    async with stage.callers(8) as (*phones,):
        await asyncio.gather(*(waits(stage, phone, wait(60)) for phone in phones))
        await listened_to(stage, 8)
        await asyncio.gather(*(ends_at_a_beep(stage, phone, beep(1000, 300)) for phone in phones[:4]))
        assert not any(audio_analysis.intervals_of(phone.heard.audio, AFTER_HZ) for phone in phones[4:])
