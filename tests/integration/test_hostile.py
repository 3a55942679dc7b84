"""Documents that mean harm: their calls end, or go on until they hang up; nobody else hears anything of it."""

from __future__ import annotations

import asyncio
import io
import wave

import pytest

from demo import listen
from demo.phone import now_ms
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDED = {
    "leads to itself": '<Redirect method="GET">{url}/itself</Redirect>',
    "nested": "<GetDigits>" * 3000 + "</GetDigits>" * 3000,
    "many elements": "<Wait/>" * 2500,
    "an entity": "]]>&x;",
    "a number of thousands of digits": f'<Hangup schedule="{"9" * 9000}"/><Hangup/>',
}
GO_ON = {
    "a sound of ten milliseconds, for ever": '<Play loop="0">{url}/click.wav</Play>',
    "no prompt, again and again": '<GetDigits retries="999999999" timeout="1" validDigits="1"/>',
    "all at once": '<Conference muted="maybe" record="yes" sendDigits="' + "9wW" * 33 + '" digitsMatch="'
    + ",".join("1" * n for n in range(1, 99)) + '" waitSound="{url}/itself" enterSound="{url}/itself">b</Conference>',
}  # fmt: skip


def click() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x00\x10" * 80)
    return file.getvalue()


async def test_hostile_documents_harm_nobody_else(stage: Stage) -> None:
    stage.document("/itself", '<Redirect method="GET">{url}/itself</Redirect>')
    stage.receiver.documents["/click.wav"] = click()
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(2 + len(ENDED) + len(GO_ON)) as (ann, bob, *others):
        ann.tone(2575)
        for phone in (ann, bob):
            await stage.call(phone, '<Conference callbackUrl="{url}/events">standup</Conference>')
        begun = await stage.hears(bob, 2575)
        ended, go_on = others[: len(ENDED)], others[len(ENDED) :]
        documents = [*ENDED.values(), *GO_ON.values()]
        calls = [stage.call(phone, text) for phone, text in zip(others, documents, strict=True)]
        # A call that is ended before it was answered is refused to its caller.
        await asyncio.gather(*calls, return_exceptions=True)
        for phone in ended:
            await stage.event("Hangup", timeout=20, of=phone)
        await stage.listen(bob, 3000)
        until = now_ms()
        for phone in go_on:
            await phone.hang_up()
        for phone in go_on:
            await stage.event("Hangup", of=phone)
        assert listen.gaps(bob.heard.between(begun + 200, until - 200), 2575, longest_ms=100) == []
        for phone in (ann, bob):
            await phone.hang_up()
    told = stage.problems()
    for words in ("20 documents in a row", "nested too deep", "at most 2000", "not well-formed"):
        assert any(words in text for text in told), (words, told)
    assert len(stage.receiver.requests_to("/itself")) < 100
