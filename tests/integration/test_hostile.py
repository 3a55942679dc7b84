"""Hostile documents: their calls end, or continue until the caller hangs up; other callers notice nothing."""

from __future__ import annotations

import io
import struct
import wave
from contextlib import suppress

import pytest

from demo import audio_analysis
from demo.phone import CallFailed, now_ms
from tests.chaos.witness import Witness
from tests.integration.stage import PATIENT, Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDED = {
    "leads to itself": '<Redirect method="GET">{url}/itself</Redirect>',
    "nested": "<GetDigits>" * 3000 + "</GetDigits>" * 3000,
    "many elements": "<Wait/>" * 2500,
    "an entity": "]]>&x;",
    "a number of thousands of digits": f'<Hangup schedule="{"9" * 9000}"/><Hangup/>',
}
GO_ON = {
    "a sound of ten milliseconds, without end": '<Play loop="0">{url}/click.wav</Play>',
    "no prompt, again and again": '<GetDigits retries="999999999" timeout="1" validDigits="1"/>',
    "hours of silence": "<Speak>hello " + '.<break time="10s"/>' * 1990 + "</Speak>",
    "hours of silence between words": "<Speak>" + 'a<break time="10s"/>' * 1990 + "</Speak>",
    "what stands for a word": "<Speak>Hi <sub alias=\"a" + "." * 2500 + " W" * 20_000 + "\">x</sub></Speak>",
    "many short texts": "<Speak>" + "".join(f"<s>a{n}<break time=\"1ms\"/></s>" for n in range(900)) + "</Speak>",
    "sounds of an hour in 4 KB": "".join(f"<Play>{{url}}/bomb{n}.wav</Play>" for n in range(50)) + "<Wait/>" * 60,
    "all at once": '<Conference muted="maybe" record="yes" sendDigits="' + "9wW" * 33 + '" digitsMatch="'
    + ",".join("1" * n for n in range(1, 99)) + '" waitSound="{url}/itself" enterSound="{url}/itself">b</Conference>',
}  # fmt: skip
WORDS = (
    *("documents in a row", "nested too deep", "at most 2000", "not well-formed"),
    *("its sample rate of 1 Hz", "characters; the first 3000 are spoken", "those after the first 60 s are left out"),
)
"""Parts of the sentences in the account's problems."""


def click() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x10" * 80)
    return file.getvalue()


def bomb(number: int) -> bytes:
    """Return a sound of one sample a second; each differs, so that the cache can't share them."""
    form = struct.pack("<HHIIHH", 1, 1, 1, 1, 1, 8)
    content = struct.pack("<I", number) * 925
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def cached_mb(stage: Stage) -> float:
    files = (path for path in stage.system.settings.sounds_folder.rglob("*.wav*") if path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


def unexcused(
    gaps: audio_analysis.Intervals, since: float, late: list[tuple[float, float]]
) -> audio_analysis.Intervals:
    """Return the gaps that no standstill of the speaker (in this process) or of the machine explains.

    `late`: (epoch ms, delay in ms) of each event that came too late.
    """

    def excused(start: float, end: float) -> bool:
        stood = sum(ms for at, ms in late if since + start - 200 <= at <= since + end + 200)
        return stood >= end - start - 100

    return [(start, end) for start, end in gaps if not excused(start, end)]


async def test_hostile_documents_harm_nobody_else(stage: Stage) -> None:
    stage.document("/itself", '<Redirect method="GET">{url}/itself</Redirect>')
    stage.receiver.documents["/click.wav"] = click()
    stage.receiver.documents |= {f"/bomb{n}.wav": bomb(n) for n in range(50)}
    before = cached_mb(stage)
    stage.set_account(hangup_url=f"{{url}}/hangup#{PATIENT}")
    with Witness() as witness:
        await among_hostile_ones(stage, witness)
    assert len(stage.receiver.requests_to("/itself")) < 100
    assert cached_mb(stage) - before < 50, "ten minutes of speech are 30 MB; an hour of a sound would be 170"


async def among_hostile_ones(stage: Stage, witness: Witness) -> None:
    async with stage.callers(2 + len(ENDED) + len(GO_ON)) as (ann, bob, *others):
        ann.tone(2575)
        for phone in (ann, bob):
            await stage.call(phone, '<Conference callbackUrl="{url}/events">standup</Conference>')
        begun = await stage.hears(bob, 2575)
        ended, go_on = others[: len(ENDED)], others[len(ENDED) :]
        documents = [*ENDED.values(), *GO_ON.values()]
        for phone, text in zip(others, documents, strict=True):
            # A call that ends before its answer is refused to its caller.
            with suppress(CallFailed):
                await stage.call(phone, text)
        for phone in ended:
            await stage.event("Hangup", timeout=20, of=phone)
        await stage.listen(bob, 3000)
        for words in WORDS:
            await stage.until(
                lambda words=words: any(words in text for text in stage.problems()), description=f"no {words!r}"
            )
        until = now_ms()
        for phone in go_on:
            await phone.hang_up()
        for phone in go_on:
            await stage.event("Hangup", of=phone)
        gaps = audio_analysis.gaps(bob.heard.between(begun + 200, until - 200), 2575, longest_ms=100)
        assert unexcused(gaps, begun + 200, [*ann.late, *witness.stalls()]) == []
        for phone in (ann, bob):
            await phone.hang_up()
