"""GetInput with digits, and Message, which is refused."""

from __future__ import annotations

import pytest

from demo import audio_analysis
from demo.phone import now_ms
from tests.integration.stage import Stage
from tests.integration.test_elements import AFTER, AFTER_HZ, after
from tests.lateness import lasted

__all__ = ["after"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROMPT_HZ = 2575


@pytest.mark.parametrize(
    ("attributes", "pressed", "digits", "waited_ms"),
    [
        pytest.param(
            "", "12#", "12", 0,
            marks=pytest.mark.row("GetInput: action, finishOnKey", "# by default; the action is told the digits"),
        ),
        pytest.param(
            'finishOnKey="*"', "1#*", "1#", 0,
            marks=pytest.mark.row("GetInput: finishOnKey", "this key, and no other"),
        ),
        pytest.param(
            'numDigits="2" inputType="dtmf"', "12", "12", 0,
            marks=pytest.mark.row("GetInput: numDigits, inputType", "complete with so many digits"),
        ),
        pytest.param(
            'digitEndTimeout="3"', "12", "12", 3000,
            marks=pytest.mark.row("GetInput: digitEndTimeout", "complete so many seconds after the last digit"),
        ),
        pytest.param(
            'digitEndTimeout="auto"', "12", "12", 2000,
            marks=pytest.mark.row("GetInput: digitEndTimeout", "auto: two seconds (decided here)"),
        ),
        pytest.param(
            'inputType="dtmf speech" numDigits="1"', "7", "7", 0,
            marks=pytest.mark.row("GetInput: inputType", "dtmf speech: only digits are taken, and a problem says so"),
        ),
    ],
)  # fmt: skip
async def test_when_the_input_is_complete(
    stage: Stage, attributes: str, pressed: str, digits: str, waited_ms: int
) -> None:
    stage.document("/input", "<Hangup/>")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<GetInput {attributes} action="{{url}}/input" executionTimeout="30"/>{AFTER}')
        await ann.press(pressed)
        last = ann.pressed[-1][0]
        asked = await stage.receiver.wait_for(lambda request: request.path == "/input")
        await ann.wait_until_hung_up()
    assert (asked.method, asked.params["InputType"], asked.params["Digits"]) == ("POST", "dtmf", digits)
    lasted(last, asked.at_ms, waited_ms, waited_ms + 800)
    said = any("speech is not supported" in problem for problem in stage.problems())
    assert said == ("speech" in attributes)
    stage.saw(f"{digits} told {asked.at_ms - last:.0f} ms after the last key")


@pytest.mark.row(
    "GetInput: executionTimeout", "nothing pressed so many seconds after the prompt: the next element runs"
)
async def test_nothing_is_pressed(stage: Stage) -> None:
    stage.tones("/prompt.wav", (PROMPT_HZ, 500))
    ask = '<GetInput action="{url}/input" executionTimeout="5"><Play>{url}/prompt.wav</Play></GetInput>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, ask + AFTER)
        prompt = await stage.hears(ann, PROMPT_HZ)
        heard = await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
    lasted(prompt, heard, 5300, 6300)
    assert stage.receiver.requests_to("/input") == []
    stage.saw(f"the next element heard {heard - prompt - 500:.0f} ms after the prompt; the action was not asked")


@pytest.mark.row("GetInput: executionTimeout", "is for the whole input: what was pressed until then is told")
async def test_keys_do_not_prolong_it(stage: Stage) -> None:
    stage.document("/input", "<Hangup/>")
    async with stage.callers(1) as (ann,):
        answered = await stage.call(ann, '<GetInput action="{url}/input" executionTimeout="5" digitEndTimeout="4"/>')
        await stage.until(lambda: now_ms() > answered + 3000)
        await ann.press("7")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/input")
        await ann.wait_until_hung_up()
    assert asked.params["Digits"] == "7"
    lasted(answered, asked.at_ms, 4700, 6000)


@pytest.mark.row("GetInput: method, redirect", "GET; false: the action is told, and the next element runs")
async def test_the_action_is_only_told(stage: Stage) -> None:
    stage.document("/input", "<Hangup/>")
    ask = '<GetInput action="{url}/input" method="GET" redirect="false" numDigits="1" executionTimeout="30"/>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, ask + AFTER)
        await ann.press("7")
        await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
        asked = await stage.receiver.wait_for(lambda request: request.path == "/input")
    assert (asked.method, asked.params["Digits"]) == ("GET", "7")


@pytest.mark.row("GetInput: inputType", "speech: skipped, and a problem says so")
async def test_speech_is_not_listened_to(stage: Stage) -> None:
    stage.tones("/prompt.wav", (PROMPT_HZ, 500))
    ask = '<GetInput action="{url}/input" inputType="speech"><Play>{url}/prompt.wav</Play></GetInput>'
    async with stage.callers(1) as (ann,):
        await stage.call(ann, ask + AFTER)
        await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
        assert not audio_analysis.intervals_of(ann.heard.audio, PROMPT_HZ)
    (problem,) = stage.problems()
    assert 'inputType="speech" is not supported' in problem
    stage.saw(problem)


@pytest.mark.row("GetInput: log", "whatever it says, digits are in no log")
async def test_no_digits_in_the_log(stage: Stage) -> None:
    stage.document("/input", "<Hangup/>")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, '<GetInput action="{url}/input" numDigits="8" executionTimeout="30" log="true"/>')
        await ann.press("86420975")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/input")
        await ann.wait_until_hung_up()

    def ended() -> list[str]:
        lines = stage.system.log("serve").read_text().splitlines()
        mine = [line for line in lines if asked.params["CallUUID"] in line]
        return mine if any("ChannelHungUp" in line for line in mine) else []

    mine = await stage.until(ended)
    digits = asked.params["Digits"]
    assert len(digits) >= 6 and not [line for line in mine if digits in line]


@pytest.mark.row("Message: src, dst, type, callbackUrl, callbackMethod", "not sent: a problem says so, and what to do")
async def test_a_message_is_refused_with_a_clear_problem(stage: Stage) -> None:
    message = (
        '<Message src="4930123" dst="4930124&lt;4930125" type="sms" callbackUrl="{url}/message" '
        'callbackMethod="GET">Hello</Message>'
    )
    async with stage.callers(1) as (ann,):
        await stage.call(ann, message + AFTER)
        await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
    (problem,) = stage.problems()
    assert "Message is not supported" in problem and "let the application send them" in problem
    assert stage.receiver.requests_to("/message") == []
    stage.saw(problem)
