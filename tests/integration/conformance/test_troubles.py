"""Exits that other systems mishandle: in the same instant, at the wrong moment, and many at the same time."""

from __future__ import annotations

import asyncio

import pytest

from demo import audio_analysis
from demo.phone import CallFailed, Phone
from tests.integration.conformance.test_leaving import ended, hang_up, reasons, room
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.row(
    "trouble", "a caller hangs up while waiting for the action's reply: nothing is left, the reply ignored"
)
async def test_hanging_up_while_the_action_url_is_requested(stage: Stage) -> None:
    stage.document("/action", room("elsewhere"))
    answered = stage.receiver.holds("/action")
    async with stage.callers(2) as (ann, bob):
        bob.tone(2875)
        await stage.call(ann, room(hangupOnStar="true", action="{url}/action"))
        await stage.call(bob, room())
        await stage.hears(ann, 2875)
        await ann.press("*")
        await stage.receiver.wait_for(lambda r: r.path == "/action")
        # Ann is out of the mix while waiting for the reply.
        await stage.goes_quiet(ann)
        await ann.hang_up()
        conference = (await stage.enters(ann)).params["ConferenceUUID"]
        await bob.hang_up()
        told = await ended(stage, conference)
        assert reasons(told) == {stage.number(ann): "star", stage.number(bob): "hangup"}
        answered.set()
        await stage.nothing_left()
        assert {e.params["ConferenceName"] for e in stage.events("ConferenceEnter")} == {"standup"}
        assert len(stage.receiver.requests_to("/action")) == 1
        stage.saw("star, action asked, hung up: one exit; the conference that the reply names is not entered")


@pytest.mark.row("trouble", "two members leave in the same instant: two exits, one last, nothing left")
@pytest.mark.parametrize("attributes", [{}, {"stayAlone": "false"}, {"endConferenceOnExit": "true"}])
async def test_two_leave_in_the_same_instant(stage: Stage, attributes: dict[str, str]) -> None:
    async with stage.callers(6) as callers:
        phones = tuple(callers)
        pairs = {"red": phones[:2], "green": phones[2:4], "blue": phones[4:]}
        for name, pair in pairs.items():
            for phone in pair:
                await stage.call(phone, room(name, **attributes))
        for phone in phones:
            await stage.enters(phone)
        await hang_up(*phones)
        seen = []
        for pair in pairs.values():
            conference = (await stage.enters(pair[0])).params["ConferenceUUID"]
            told = await ended(stage, conference)
            assert len(told) == 4
            assert set(reasons(told).values()) <= {"hangup", "left_alone", "host_left"}
            seen.append(abs(int(told[-1].params["Timestamp"]) - int(told[-2].params["Timestamp"])))
        await stage.nothing_left()
        given = " ".join(f'{name}="{value}"' for name, value in attributes.items())
        stage.saw(f"{given or 'default'}: three pairs, apart by {seen} ms: each exit once, each conference ended")


@pytest.mark.row("trouble", "a caller hangs up while joining: one enter and one exit, or neither; nothing left")
async def test_hanging_up_while_joining(stage: Stage) -> None:
    async with stage.callers(13) as (ann, *others):
        ann.tone(2575)
        await stage.call(ann, room())
        await stage.enters(ann)

        async def briefly(phone: Phone, ms: float) -> None:
            calling = asyncio.create_task(stage.call(phone, room(enterSound="beep:1", exitSound="beep:1")))
            await asyncio.wait({calling}, timeout=ms / 1000)
            await phone.hang_up()
            await asyncio.gather(calling, return_exceptions=True)
            await phone.hang_up()
            assert calling.exception() is None or isinstance(calling.exception(), CallFailed)

        # The hangups spread from before the request for the document to after the entry into the bridge.
        for number, phone in enumerate(others):
            await briefly(phone, 12 * number)
        conference = (await stage.enters(ann)).params["ConferenceUUID"]
        await stage.until(lambda: len(stage.events("ConferenceExit")) == len(stage.events("ConferenceEnter")) - 1)
        await stage.goes_quiet(ann)
        await ann.hang_up()
        told = await ended(stage, conference)
        stage.saw(f"12 hung up 0-130 ms after they called: {len(told) // 2 - 1} had entered, each left once")


@pytest.mark.row("trouble", "a caller hangs up while their enter sound plays: the others go on")
async def test_hanging_up_while_the_enter_sound_plays(stage: Stage) -> None:
    stage.tones("/long.wav", (1075, 1500))
    stage.document("/enter", "<Play>{url}/long.wav</Play>")
    async with stage.callers(3) as (ann, bob, cid):
        ann.tone(2575)
        cid.tone(3175)
        await stage.call(ann, room())
        await stage.call(cid, room())
        await stage.call(bob, room(enterSound="{url}/enter"))
        await stage.hears(ann, 1075)
        conference = (await stage.enters(bob)).params["ConferenceUUID"]
        await bob.hang_up()
        left = float((await stage.leaves(bob, ConferenceExitReason="hangup")).params["Timestamp"])
        await stage.hears(ann, 3175, after=left + 1500)
        await stage.hears(cid, 2575, after=left + 1500)
        at_ann, at_cid = await asyncio.gather(stage.listen(ann, 500), stage.listen(cid, 500))
        assert set(audio_analysis.tones(at_ann)) == {3175}
        assert set(audio_analysis.tones(at_cid)) == {2575}
        await hang_up(ann, cid)
        await ended(stage, conference)
        stage.saw("one exit, the sound ends, the other two still hear each other")


@pytest.mark.row("trouble", "20 members enter within one second while 20 leave")
async def test_twenty_enter_while_twenty_leave(stage: Stage) -> None:
    async with stage.callers(40) as callers:
        phones = tuple(callers)
        leaving, entering = phones[:20], phones[20:]
        for phone in phones:
            phone.silence()
        for some in (leaving[:10], leaving[10:]):
            await asyncio.gather(*(stage.call(phone, room()) for phone in some))
        old = (await stage.enters(leaving[0])).params["ConferenceUUID"]
        for phone in leaving:
            await stage.enters(phone, ConferenceUUID=old)

        async def enter(phone: Phone, number: int) -> None:
            await asyncio.sleep(number * 0.04)
            await stage.call(phone, room() if number % 2 else room("elsewhere"))

        async def leave(phone: Phone, number: int) -> None:
            await asyncio.sleep(number * 0.04)
            await phone.hang_up()

        await asyncio.gather(
            *(enter(phone, number) for number, phone in enumerate(entering)),
            *(leave(phone, number) for number, phone in enumerate(leaving)),
        )
        for phone in leaving:
            await stage.leaves(phone)
        entered = [int((await stage.enters(phone)).params["Timestamp"]) for phone in entering]
        conferences = {(await stage.enters(phone)).params["ConferenceUUID"] for phone in entering}
        left = [int((await stage.leaves(phone)).params["Timestamp"]) for phone in leaving]
        talking, hearing = entering[0], entering[2]
        talking.tone(2575)
        await stage.hears(hearing, 2575)
        assert audio_analysis.silent(await stage.listen(entering[1], 500))
        await hang_up(*entering)
        for conference in conferences | {old}:
            await ended(stage, conference)
        assert sum(len(stage.events(name)) for name in ("ConferenceEnter", "ConferenceExit")) == 80
        stage.saw(
            f"20 entered within {max(entered) - min(entered)} ms, 20 left within {max(left) - min(left)} ms: "
            f"40 enter, 40 exit, sequences without gaps"
        )
