"""digitsMatch, relayDTMF, hangupOnStar, sendDigits."""

from __future__ import annotations

import asyncio

import pytest

from demo import audio_analysis
from demo.phone import Phone
from tests.integration.stage import Stage
from tests.lateness import lasted

pytestmark = pytest.mark.asyncio(loop_scope="session")


def digits(phone: Phone) -> str:
    """Return all digits that came from the far end as RFC 4733 events."""
    return "".join(digit for _, digit in phone.received)


def matches(stage: Stage) -> list[str]:
    return [request.params["ConferenceDigitsMatch"] for request in stage.events("ConferenceDigitsMatch")]


async def in_one_conference(stage: Stage, *documents: tuple[Phone, str]) -> None:
    """Let all phones join, each with a tone; return when each hears the others."""
    pitches = (2575, 2875, 3175)
    for (phone, document), hz in zip(documents, pitches, strict=False):
        phone.tone(hz)
        await stage.call(phone, document)
    for (listener, _), own in zip(documents, pitches, strict=False):
        for hz in pitches[: len(documents)]:
            if hz != own:
                await stage.hears(listener, hz)


@pytest.mark.row(
    "digitsMatch", "a match is reported when no longer pattern can still match; matched digits are not relayed"
)
async def test_patterns_that_begin_alike(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        matching = '<Conference digitsMatch="12,123" callbackUrl="{url}/events">c</Conference>'
        await in_one_conference(stage, (ann, matching), (bob, "<Conference>c</Conference>"))
        await ann.press("123")
        at_once = await stage.event("ConferenceDigitsMatch", ConferenceDigitsMatch="123")
        last_pressed = ann.pressed[-1][0]
        # In 129 the pattern 12 matches as soon as the 9 arrives, and no pattern takes the 9.
        await ann.press("129")
        await bob.wait_for_digits("9")
        await ann.press("45")
        await bob.wait_for_digits("945")
        await stage.until(lambda: len(matches(stage)) == 2)
        assert matches(stage) == ["123", "12"]
        assert digits(ann) == ""
        assert at_once.params["ConferenceMemberID"] == stage.events("ConferenceEnter")[0].params["ConferenceMemberID"]
        stage.saw(f"123 reported {float(at_once.params['Timestamp']) - last_pressed:.0f} ms after its 3 was pressed")
        stage.saw("of 123, 129, 45 the other phone got the events 9, 4, 5")
        await ann.hang_up()
        await bob.hang_up()


@pytest.mark.row("digitsMatch", "else 1500 ms after the last digit")
async def test_a_shorter_match_waits_1500_ms_for_the_longer(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        matching = '<Conference digitsMatch="12,123" callbackUrl="{url}/events">c</Conference>'
        await in_one_conference(stage, (ann, matching), (bob, "<Conference>c</Conference>"))
        # Less than 1500 ms between two digits: they still belong together.
        await ann.press("12", gap_ms=1000)
        matched = await stage.event("ConferenceDigitsMatch")
        waited = float(matched.params["Timestamp"]) - ann.pressed[-1][0]
        assert matched.params["ConferenceDigitsMatch"] == "12"
        assert waited >= 1500
        # More than 1500 ms: the 1 alone is no match and is relayed after the timeout; no pattern takes the 2.
        await ann.press("12", gap_ms=1800)
        await bob.wait_for_digits("12")
        late = bob.received[0][0] - ann.pressed[2][0]
        assert late >= 1500
        assert matches(stage) == ["12"]
        stage.saw(f"12 reported {waited:.0f} ms after its 2 was pressed; a lone 1 relayed after {late:.0f} ms")
        await ann.hang_up()
        await bob.hang_up()


@pytest.mark.row("relayDTMF", "this member's digits are sent to all others; false: to nobody")
async def test_digits_reach_all_others_and_only_them(stage: Stage) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        relayed, kept = "<Conference>c</Conference>", '<Conference relayDTMF="false">c</Conference>'
        await in_one_conference(stage, (ann, relayed), (bob, relayed), (cid, kept))
        await cid.press("357")
        await ann.press("1*#0")
        await asyncio.gather(bob.wait_for_digits("1*#0"), cid.wait_for_digits("1*#0"))
        # Cid's earlier digits would have arrived earlier.
        await bob.press("8")
        await asyncio.gather(ann.wait_for_digits("8"), cid.wait_for_digits("1*#08"))
        assert digits(bob) == "1*#0"
        delay = bob.received[0][0] - ann.pressed[0][0]
        stage.saw(f"1*#0 at both others' phones in order, the first after {delay:.0f} ms; none at the sender's")
        stage.saw("with false 357 at nobody's")
        for phone in (ann, bob, cid):
            await phone.hang_up()


@pytest.mark.row("relayDTMF", "no digit is lost once two are bridged")
async def test_no_digit_is_lost_between_two(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        matching = '<Conference digitsMatch="5" callbackUrl="{url}/events">c</Conference>'
        await in_one_conference(stage, (ann, matching), (bob, matching))
        await asyncio.gather(ann.press("0123456789*#", gap_ms=60), bob.press("#*987654321", gap_ms=60))
        await asyncio.gather(bob.wait_for_digits("012346789*#"), ann.wait_for_digits("#*98764321"))
        await stage.until(lambda: len(matches(stage)) == 2)
        members = {request.params["ConferenceMemberID"] for request in stage.events("ConferenceDigitsMatch")}
        assert len(members) == 2
        stage.saw("23 digits pressed at the same time in both directions: 21 relayed, 2 matched")
        await ann.hang_up()
        await bob.hang_up()


@pytest.mark.row("hangupOnStar", "* takes the member out, without hanging the call up, whatever the patterns are")
async def test_star_leaves_and_the_call_goes_on(stage: Stage) -> None:
    tone = stage.tones("/after.wav", (3325, 800))
    leaving = '<Conference hangupOnStar="true" digitsMatch="*1" callbackUrl="{url}/events">c</Conference>'
    async with stage.callers(3) as (ann, bob, cid):
        # Bob's * is a digit like any other, by default.
        others = '<Conference callbackUrl="{url}/events">c</Conference>'
        await in_one_conference(stage, (ann, f"{leaving}<Play>{tone}</Play>"), (bob, others), (cid, others))
        await bob.press("*")
        await asyncio.gather(ann.wait_for_digits("*"), cid.wait_for_digits("*"))
        await ann.press("*")
        left = await stage.event("ConferenceExit")
        assert left.params["ConferenceExitReason"] == "star"
        assert left.params["ConferenceLastMember"] == "false"
        assert left.params["CallStatus"] == "in-progress"
        after = await stage.hears(ann, 3325)
        assert set(audio_analysis.tones(await stage.listen(bob, 500))) == {3175}
        await ann.wait_until_hung_up()
        assert set(audio_analysis.tones(ann.heard.between(after, after + 800))) == {3325}
        assert bob.state == cid.state == "answered"
        assert (digits(ann), digits(bob), digits(cid)) == ("*", "", "*")
        assert matches(stage) == []
        stage.saw(f"the next element heard {after - ann.pressed[0][0]:.0f} ms after the press; the others talk on")
        await bob.hang_up()
        await cid.hang_up()


@pytest.mark.row("sendDigits", "sends those digits into the conference on entry, w = 0.5 s, W = 1 s")
async def test_digits_are_sent_on_entry(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        bob.tone(2875)
        await stage.call(bob, "<Conference>c</Conference>")
        await stage.call(ann, '<Conference sendDigits="12w3W#">c</Conference>')
        await bob.wait_for_digits("123#")
        at = [at for at, _ in bob.received]
        to_3, to_hash = at[2] - at[0], at[3] - at[2]
        # A digit is sent with the next packet, up to 20 ms later.
        lasted(at[0], at[2], 480, 900)
        lasted(at[2], at[3], 980, 1400)
        await stage.hears(ann, 2875)
        assert digits(ann) == ""
        stage.saw(f"12w3W#: the 3 came {to_3:.0f} ms after the 1, the # {to_hash:.0f} ms after the 3")
        await ann.hang_up()
        await bob.hang_up()
