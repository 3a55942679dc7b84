"""GetDigits on a real Asterisk: mostly a PIN before a conference."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from demo import audio_analysis
from demo.phone import CallFailed
from tests.integration.stage import Stage, spans_of
from tests.integration.test_elements import AFTER, AFTER_HZ, after, begins, hears_tones
from tests.lateness import lasted

__all__ = ["after"]

pytestmark = pytest.mark.asyncio(loop_scope="session")


def pin(params: Mapping[str, str]) -> str:
    right = params.get("Digits") == "1234"
    inner = "<Conference>locked</Conference>" if right else "<Redirect>{url}/again</Redirect>"
    return f"<Response>{inner}</Response>"


async def test_a_pin_opens_the_conference(stage: Stage) -> None:
    stage.tones("/prompt.wav", (2875, 5000))
    stage.tones("/wrong.wav", (3175, 300))
    ask = '<GetDigits action="{url}/pin" numDigits="4"><Play>{url}/prompt.wav</Play></GetDigits>'
    stage.document("/again", f"<Play>{{url}}/wrong.wav</Play>{ask}")
    stage.receiver.documents["/pin"] = lambda params: pin(params).replace("{url}", stage.url)
    async with stage.callers(2) as (ann, bob):
        bob.tone(2575)
        await stage.call(bob, "<Conference>locked</Conference>")
        await stage.call(ann, f"{ask}{AFTER}")
        await stage.hears(ann, 2875)
        await ann.press("9999")
        # Ann's PIN is wrong: she hears so and is asked again. The first digit cuts the prompt short.
        wrong = await stage.hears(ann, 3175)
        cut = audio_analysis.intervals_of(ann.heard.audio, 2875)[-1][1] + ann.heard.start_ms
        lasted(ann.pressed[0][0], cut, -100, 500)
        await stage.hears(ann, 2875, after=wrong)
        await ann.press("1234")
        await stage.hears(ann, 2575)
        assert set(audio_analysis.tones(await stage.listen(ann, 500))) == {2575}
        await ann.hang_up()
        await bob.hang_up()
    asked = stage.receiver.requests_to("/pin")
    assert [(one.method, one.params["Digits"]) for one in asked] == [("POST", "9999"), ("POST", "1234")]
    assert not audio_analysis.intervals_of(ann.heard.audio, AFTER_HZ)


async def test_nothing_entered(stage: Stage) -> None:
    stage.tones("/prompt.wav", (2875, 300))
    ask = '<GetDigits action="{url}/pin" timeout="1" retries="2"><Play>{url}/prompt.wav</Play></GetDigits>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"{ask}{AFTER}")
        await ann.wait_until_hung_up()
    # "retries" is the number of prompts; "timeout" counts from each prompt's end; "action not called".
    at = ann.heard.start_ms
    first, second = spans_of(ann.heard.audio, 2875)
    lasted(at + first[1], at + second[0], 1000, 1400)
    lasted(at + second[1], at + begins(ann.heard.audio, AFTER_HZ), 1000, 1400)
    assert stage.receiver.requests_to("/pin") == []


@pytest.mark.parametrize(
    ("attributes", "pressed", "digits", "waited_ms"),
    [
        ("", "12#", "12", 0),
        ('finishOnKey="*9"', "1#*", "1#", 0),
        ('finishOnKey="none" numDigits="3"', "1#*", "1#*", 0),
        ('numDigits="2"', "12", "12", 0),
        ('digitTimeout="1"', "12", "12", 1000),
    ],
    ids=["finishOnKey by default", "finishOnKey", "no finishOnKey", "numDigits", "digitTimeout"],
)
async def test_when_the_input_is_complete(
    stage: Stage, attributes: str, pressed: str, digits: str, waited_ms: int
) -> None:
    stage.document("/pin", "<Hangup/>")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<GetDigits {attributes} method="GET" action="{{url}}/pin" timeout="20"/>{AFTER}')
        await ann.press(pressed)
        last = ann.pressed[-1][0]
        asked = await stage.receiver.wait_for(lambda request: request.path == "/pin")
        await ann.wait_until_hung_up()
    assert asked.method == "GET"
    assert asked.params["Digits"] == digits
    lasted(last, asked.at_ms, waited_ms, waited_ms + 800)


async def test_redirect_false_goes_on_with_the_next_element(stage: Stage) -> None:
    stage.document("/pin", "<Hangup/>")
    ask = '<GetDigits action="{url}/pin" redirect="false" numDigits="1" timeout="20"/>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"{ask}{AFTER}")
        await ann.press("7")
        await ann.wait_until_hung_up()
        asked = await stage.receiver.wait_for(lambda request: request.path == "/pin")
    assert asked.params["Digits"] == "7"
    hears_tones(ann, AFTER_HZ, 300)


async def test_an_invalid_digit_is_reported_and_the_input_is_requested_again(stage: Stage) -> None:
    stage.tones("/prompt.wav", (2875, 300))
    stage.tones("/invalid.wav", (3175, 300))
    stage.document("/pin", "<Hangup/>")
    attributes = 'validDigits="12" invalidDigitsSound="{url}/invalid.wav" retries="2" playBeep="true" numDigits="2"'
    ask = f'<GetDigits {attributes} action="{{url}}/pin" timeout="20"><Play>{{url}}/prompt.wav</Play></GetDigits>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"{ask}{AFTER}")
        # playBeep: a beep after the prompt.
        first = await stage.hears(ann, 1000)
        await ann.press("3")
        told = await stage.hears(ann, 3175)
        again = await stage.hears(ann, 2875, after=told)
        second = await stage.hears(ann, 1000, after=again)
        await ann.press("21")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/pin")
        await ann.wait_until_hung_up()
    assert first < told < again < second
    assert asked.params["Digits"] == "21"
    hears_tones(ann, 2875, 300, 300)


async def test_digits_appear_in_no_log(stage: Stage) -> None:
    stage.document("/pin", "<Hangup/>")
    ask = '<GetDigits action="{url}/pin" numDigits="8" timeout="20" log="false"/>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, ask)
        await ann.press("86420975")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/pin")
        await ann.wait_until_hung_up()
        mine = []
        async with asyncio.timeout(20):
            # A thread of its own writes the log; a call's last line is the answer to the hangup.
            while not any("ChannelHungUp" in line for line in mine):
                await asyncio.sleep(0.05)
                lines = stage.system.log("serve").read_text().splitlines()
                mine = [line for line in lines if asked.params["CallUUID"] in line]
    # On a busy machine the phone's digits may come too close together to be told apart.
    digits = asked.params["Digits"]
    assert len(digits) >= 6 and sum("DigitReceived" in line for line in mine) == len(digits)
    assert not [line for line in mine if digits in line or '"digit":"' in line]


async def test_digits_are_taken_before_the_answer(stage: Stage) -> None:
    stage.tones("/early.wav", (2575, 5000))
    stage.document("/pin", '<Hangup reason="busy"/>')
    gather = '<GetDigits action="{url}/pin" numDigits="2"><Play>{url}/early.wav</Play></GetDigits>'
    async with stage.callers(1) as (ann,):
        calling = asyncio.create_task(stage.call(ann, f"<PreAnswer>{gather}</PreAnswer>{AFTER}"))
        await stage.hears(ann, 2575)
        await ann.press("12")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/pin")
        with pytest.raises(CallFailed) as refused:
            await calling
    assert (asked.params["Digits"], asked.params["CallStatus"]) == ("12", "ringing")
    assert refused.value.status == 486
