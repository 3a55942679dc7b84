"""Real behavior of phones and carriers: keys in quick sequence, odd numbers and headers, callers who give up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from ari_conf.ari.invite import HEADERS_MISSING
from ari_conf.errors import AriError
from ari_conf.local.system import LocalSystem
from demo import audio_analysis, sip
from demo.g711 import RATE
from demo.phone import CallFailed, Phone, now_ms
from demo.received_audio import Samples
from tests import lateness
from tests.integration.jitter import Jitter
from tests.integration.raw_phone import RawPhone
from tests.integration.stage import ALLOWED, Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
PINS = (
    ("1122#", 100, 40),
    ("5550#", 60, 40),
    ("1234#", 100, 60),
    ("7788#", 80, 20),
    ("1000#", 160, 60),
    ("9191#", 60, 60),
)
"""(keys, ms for which each key is pressed, ms between two keys)."""
NOT_UTF_8 = "\udcfc"


async def test_pins_that_are_typed_fast_over_a_line_with_jitter(stage: Stage) -> None:
    stage.document("/entered", "<Hangup/>")
    async with stage.callers(len(PINS)) as phones:

        async def enter(phone: Phone, pin: str, duration_ms: int, gap_ms: int) -> str:
            await stage.call(phone, '<GetDigits action="{url}/entered" numDigits="9" timeout="20" digitTimeout="5"/>')
            with Jitter(phone, 20):
                await phone.press(pin, gap_ms=gap_ms, duration_ms=duration_ms)
                await phone.wait_until_hung_up(20)
            if max((by for _, by in phone.late), default=0.0) > 40:
                return "this machine was late itself"
            return ""

        late = await asyncio.gather(*(enter(phone, *pin) for phone, pin in zip(phones, PINS, strict=True)))
    entered = {one.params["From"]: one.params["Digits"] for one in stage.receiver.requests_to("/entered")}
    typed = {stage.number(phone): pin[0].removesuffix("#") for phone, pin in zip(phones, PINS, strict=True)}
    excused = {stage.number(phone) for phone, why in zip(phones, late, strict=True) if why}
    assert {who: pin for who, pin in entered.items() if who not in excused} == {
        who: pin for who, pin in typed.items() if who not in excused
    }
    stage.saw(f"{len(PINS) - len(excused)} PINs arrived as they were typed")


async def test_a_call_rings_while_a_slow_answer_url_is_requested_and_can_be_canceled(stage: Stage) -> None:
    stage.document("/slow", ROOM)
    stage.set_account(hangup_url="{url}/hangup")
    answer = stage.receiver.holds("/slow")
    async with stage.callers(1) as (ann,):
        calling = asyncio.create_task(stage.dial(ann, stage.receiver.url("/slow")))
        await stage.receiver.wait_for(lambda request: request.path == "/slow")
        async with lateness.timeout():
            await ann.ringing.wait()
        await ann.hang_up()
        with pytest.raises(CallFailed, match="487"):
            await calling
        told = await stage.event("Hangup", of=ann)
        answer.set()
    said = told.params
    assert (said["HangupCause"], said["HangupCauseCode"], said["CallStatus"]) == (
        "ORIGINATOR_CANCEL",
        "1000",
        "completed",
    )
    assert (said["BillDuration"], said["AnswerTime"]) == ("0", "")


async def test_a_bye_before_the_answer_is_a_cancel(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    early = "<PreAnswer><Play>{url}/long.wav</Play></PreAnswer><Conference>standup</Conference>"
    stage.tones("/long.wav", (2575, 20_000))
    with RawPhone(stage.system.sip_address) as ann:
        ann.invite("15550100", *asks(stage, stage.document("/early", early)))
        while (heard := await ann.next()).status != 183:
            assert heard.status < 200
        assert sip.media_address(heard.body), "the 183 has no address for early media"
        ann.to = heard.first("to")
        ann.bye()
        assert (await ann.final()).status == 487
        told = await stage.event("Hangup")
    assert told.params["HangupCause"] == "ORIGINATOR_CANCEL"


def asks(stage: Stage, document: str) -> tuple[str, str]:
    return f"X-Ari-Conf-Account: {stage.account}", f"X-Ari-Conf-Document: {document}"


async def test_a_phone_that_offers_its_sound_late_and_one_whose_invite_comes_twice(stage: Stage) -> None:
    room = stage.document("/room", ROOM)
    with RawPhone(stage.system.sip_address) as late, RawPhone(stage.system.sip_address) as forked:
        late.invite("15550100", *asks(stage, room), late_offer=True)
        offered = await late.final()
        assert offered.status == 200 and sip.media_address(offered.body)
        late.acknowledge(late.offer())
        await stage.event("ConferenceEnter", ConferenceFirstMember="true")
        # A proxy may send the request by two ways: the same call, but two requests.
        for branch in ("z9hG4bKone", "z9hG4bKtwo"):
            forked.invite("15550100", *asks(stage, room), branch=branch + forked.tag)
        answers = [await forked.final(), await forked.final()]
        taken = [answer for answer in answers if answer.status == 200]
        assert taken and all(answer.status in (200, 482) for answer in answers)
        for answer in taken:
            forked.to = answer.first("to")
            forked.acknowledge()
        await stage.until(lambda: len(stage.events("ConferenceEnter")) == 1 + len(taken))
        late.bye()
        for answer in taken:
            forked.to = answer.first("to")
            forked.bye()
        await stage.event("ConferenceExit", ConferenceLastMember="true")


@pytest.mark.parametrize(
    ("dialed", "told"),
    [
        ("+14155550100;npdi;rn=+14155550199", "14155550100"),
        ("14155550100;phone-context=+1;isub=1", "14155550100"),
        ("030-1234567", "0301234567"),
        ("+1(415)555.0100", "14155550100"),
    ],
)
async def test_a_number_with_other_characters(stage: Stage, dialed: str, told: str) -> None:
    stage.document("/answer", ROOM)
    async with stage.callers(1) as (ann,):
        await stage.dial(ann, stage.receiver.url("/answer"), to=dialed)
        entered = await stage.event("ConferenceEnter", From=stage.number(ann))
        assert entered.params["To"] == told
        await ann.hang_up()


async def test_headers_that_are_too_long_or_no_text_cost_none_of_the_others(stage: Stage) -> None:
    asked = stage.document("/answer", ROOM)
    with RawPhone(stage.system.sip_address, from_='"Ann \\"the boss\\" Lee" <sip:15559001@127.0.0.1>') as ann:
        odd = (
            "X-PH-Token: " + "t" * 5000,
            "X-PH-Room: red",
            f"X-PH-Team: bl{NOT_UTF_8}ue",
            "X-PH-Empty: ",
            "X-PH-Floor: 3",
        )
        ann.invite("15550100", *asks(stage, asked), *odd)
        assert (await ann.final()).status == 200
        ann.acknowledge()
        entered = (await stage.event("ConferenceEnter")).params
        ann.bye()
    assert {name: value for name, value in entered.items() if name in ("X-PH-Room", "X-PH-Team", "X-PH-Floor")} == {
        "X-PH-Room": "red",
        "X-PH-Team": "blue",
        "X-PH-Floor": "3",
    }
    assert "X-PH-Token" not in entered
    assert entered["CallerName"] == 'Ann "the boss" Lee'
    problems = stage.problems()
    assert HEADERS_MISSING in problems and any("X-PH-Team" in text for text in problems)


async def test_a_withheld_number_appears_nowhere(stage: Stage) -> None:
    log = stage.system.log("serve")
    before = log.stat().st_size
    stage.set_account(hangup_url="{url}/hangup")
    number = "15550987654"
    async with stage.callers(1) as (ann,):
        headers = {"Privacy": "id", "P-Asserted-Identity": f'"Bob" <sip:{number}@127.0.0.1>'}
        await stage.call(ann, ROOM, from_user=number, headers=headers, display_name="Bob Secret")
        await stage.event("ConferenceEnter", From="anonymous", CallerName="Anonymous")
        await ann.hang_up()
        await stage.event("Hangup", From="anonymous")
    for request in stage.receiver.requests:
        assert number not in repr(request.params) and "Bob" not in repr(request.params)
    said = log.read_text()[before:]
    assert number not in said and "Bob Secret" not in said
    assert number not in repr([stage.redis.dump(key) for key in stage.redis.scan_iter("ari_conf:*")])


async def test_a_call_that_takes_a_members_place_is_hung_up(stage: Stage) -> None:
    """Attended transfer, where Asterisk allows it: the new caller would be in the mix without being a member."""
    with contextlib.suppress(AriError):  # it has it already
        await stage.ari.request("POST", "/asterisk/modules/res_pjsip_refer.so")
    async with stage.callers(1) as (bob,):
        await stage.call(bob, ROOM)
        with RawPhone(stage.system.sip_address) as ann, RawPhone(stage.system.sip_address) as new:
            ann.invite("15550100", *asks(stage, stage.document("/room", ROOM)))
            assert (await ann.final()).status == 200
            ann.acknowledge()
            await stage.event("ConferenceEnter", From="15559000")
            new.invite("15550100", f"Replaces: {ann.call_id};to-tag={ann.to_tag};from-tag={ann.tag}")
            answer = await new.final()
            if answer.status == 200:
                new.acknowledge()
                while (await new.next()).method != "BYE":
                    pass
            while (await ann.next()).method != "BYE":
                pass
        left = await stage.event("ConferenceExit", From="15559000")
        assert left.params["ConferenceExitReason"] == "hangup"
        assert bob.state == "answered"
        await stage.until(lambda: any("transferred by a phone" in text for text in stage.problems()))
        (room,) = await stage.ari.request("GET", "/bridges")
        assert len(room["channels"]) == 1
        await bob.hang_up()


async def test_a_phones_transfer_to_another_number_leaves_nothing_behind(stage: Stage) -> None:
    with contextlib.suppress(AriError):  # it has it already
        await stage.ari.request("POST", "/asterisk/modules/res_pjsip_refer.so")
    async with stage.callers(1) as (bob,):
        await stage.call(bob, ROOM)
        with RawPhone(stage.system.sip_address) as ann:
            ann.invite("15550100", *asks(stage, stage.document("/room", ROOM)))
            assert (await ann.final()).status == 200
            ann.acknowledge()
            await stage.event("ConferenceEnter", From="15559000")
            ann.ask("REFER", f"Refer-To: <sip:15550199@{stage.system.sip_address}>")
            while (answer := await ann.next()).method != "REFER":
                pass
            assert answer.status in (202, 603)
            ann.bye()
            await stage.event("ConferenceExit", From="15559000")
        assert bob.state == "answered"
        await bob.hang_up()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def alone(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Stage]:
    """Yield a stage whose system the test may kill."""
    system = LocalSystem(tmp_path_factory.mktemp("alone"), ALLOWED, ("redis", "asterisk", "worker", "serve"))
    async with system, staged(system) as stage:
        yield stage


TONES = {"1": (697, 1209), "5": (770, 1336), "9": (852, 1477), "0": (941, 1336), "*": (941, 1209), "#": (941, 1477)}
"""Hz of the keys' tones (ITU-T Q.23)."""


def as_tones(keys: str, ms: int = 100) -> Samples:
    at = np.arange(RATE * ms // 1000) / RATE
    quiet = np.zeros(RATE * ms // 1000)
    parts = [part for key in keys for part in (sum(np.sin(2 * np.pi * hz * at) * 6000 for hz in TONES[key]), quiet)]
    return np.concatenate(parts).astype(np.int16)


def without_events(*args: Any, **more: Any) -> str:
    offered = _OFFER(*args, **more)
    kept = [line for line in offered.split("\r\n") if f":{sip.EVENT_TYPE} " not in line]
    return "\r\n".join(line.removesuffix(f" {sip.EVENT_TYPE}") for line in kept)


_OFFER = sip.offer


async def test_a_phone_whose_keys_are_tones(alone: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    alone.document("/entered", ROOM)
    async with alone.callers(2) as (ann, bob):
        await alone.call(bob, ROOM)
        await alone.enters(bob)
        monkeypatch.setattr(sip, "offer", without_events)
        await alone.call(ann, '<GetDigits action="{url}/entered" timeout="20" digitTimeout="9"/>')
        ann.say(as_tones("1155900#"))
        asked = await alone.receiver.wait_for(lambda request: request.path == "/entered")
        assert asked.params["Digits"] == "1155900"
        await alone.enters(ann)
        # Ann hears another member's digits as tones, since her phone has no other way to receive them.
        since = now_ms()
        await bob.press("5")
        for hz in TONES["5"]:
            await alone.hears(ann, hz, after=since)
        assert not ann.received
        for phone in (ann, bob):
            await phone.hang_up()


async def test_a_call_whose_events_can_not_be_encoded_stops_no_other_events(alone: Stage) -> None:
    with RawPhone(alone.system.sip_address, call_id=f"call{NOT_UTF_8}@raw") as odd:
        odd.invite("15550100", *asks(alone, alone.document("/odd", ROOM)))
        while (await odd.next()).status < 100:
            pass
        async with lateness.timeout():
            while True:
                try:
                    await alone.ari.request("GET", "/channels")
                except AriError:
                    break
                await asyncio.sleep(0.02)
        # A process that starts now can't list the channels.
        await alone.system.kill("serve")
        await alone.system.start("serve")
        async with alone.callers(2) as (ann, bob):
            ann.tone(2575)
            for phone in (ann, bob):
                await alone.call(phone, ROOM)
                await alone.enters(phone)
            await alone.hears(bob, 2575)
            assert (await odd.final()).status == 403
            assert set(audio_analysis.tones(await alone.listen(bob, 500))) == {2575}
            # Asterisk does not report a second such call either, and the running server still finds it.
            with RawPhone(alone.system.sip_address, call_id=f"another{NOT_UTF_8}@raw") as another:
                another.invite("15550100", *asks(alone, alone.document("/odd", ROOM)))
                assert (await another.final()).status == 403
            for phone in (ann, bob):
                await phone.hang_up()
