"""Leaving: the order of its steps, the reason of each exit, and the consequences for the others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from demo import audio_analysis
from demo.phone import Phone, now_ms
from tests.integration.receiver import Request
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


def room(name: str = "standup", **attributes: str) -> str:
    more = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<Conference callbackUrl="{{url}}/events"{more}>{name}</Conference>'


async def hang_up(*phones: Phone) -> None:
    await asyncio.gather(*(phone.hang_up() for phone in phones))


async def ended(stage: Stage, conference: str) -> list[Request]:
    """Waits for the last member's exit. All its callbacks, which tell one story: who enters leaves once, and so on."""
    await stage.event("ConferenceExit", ConferenceUUID=conference, ConferenceLastMember="true")
    told = [r for r in stage.receiver.requests if r.params.get("ConferenceUUID") == conference and r.path == "/events"]
    assert [int(r.params["ConferenceSequence"]) for r in told] == list(range(1, len(told) + 1))
    by_action = {
        action: Counter(r.params["ConferenceMemberID"] for r in told if r.params["ConferenceAction"] == action)
        for action in ("enter", "exit")
    }
    assert by_action["enter"] == by_action["exit"]
    assert set(by_action["exit"].values()) == {1}
    last = [r.params.get("ConferenceLastMember") for r in told if r.params["ConferenceAction"] == "exit"]
    assert last == ["false"] * (len(last) - 1) + ["true"]
    times = [int(r.params["Timestamp"]) for r in told]
    assert times == sorted(times)
    return told


def reasons(told: list[Request]) -> dict[str, str]:
    return {r.params["From"]: r.params["ConferenceExitReason"] for r in told if r.params["ConferenceAction"] == "exit"}


@pytest.mark.row(
    "endConferenceOnExit", "when this member leaves, the conference ends for everybody; they are not hung up"
)
async def test_the_host_ends_it_for_all(stage: Stage) -> None:
    stage.tones("/next.wav", (1075, 500))
    stage.tones("/action.wav", (1375, 500))
    stage.document("/action", "<Play>{url}/action.wav</Play>")
    next_one = "<Play>{url}/next.wav</Play>"
    async with stage.callers(4) as (host, ann, bob, cid):
        ann.tone(2575)
        await stage.call(host, room(endConferenceOnExit="true") + next_one)
        await stage.call(ann, room() + next_one)
        await stage.call(bob, room(action="{url}/action") + next_one)
        await stage.call(cid, room(action="{url}/told", redirect="false") + next_one)
        await stage.hears(cid, 2575)
        conference = (await stage.enters(host)).params["ConferenceUUID"]
        await host.hang_up()
        told = await ended(stage, conference)
        numbers = [stage.number(phone) for phone in (host, ann, bob, cid)]
        assert reasons(told) == dict(zip(numbers, ["hangup"] + ["host_left"] * 3, strict=True))
        for phone in (ann, bob, cid):
            await phone.wait_until_hung_up()
        wants = {ann: {1075}, bob: {1375}, cid: {1075}}
        for phone, hz in wants.items():
            assert {hz for hz in (1075, 1375) if audio_analysis.tones(phone.as_sent(), [hz])} == hz
        assert phone.cause == 16
        (acted,) = stage.receiver.requests_to("/action")
        (other,) = stage.receiver.requests_to("/told")
        assert acted.params["From"] == stage.number(bob)
        assert other.params["From"] == stage.number(cid)
        stage.saw("exits: hangup, 3 x host_left; next element, the action's document, action told and next element")


@pytest.mark.row("stayAlone", "false: it ends once a member is left alone; once false it stays false")
async def test_the_last_member_is_removed_if_a_former_member_requested_it(stage: Stage) -> None:
    stage.tones("/next.wav", (1075, 500))
    async with stage.callers(3) as (ann, bob, cid):
        cid.tone(2875)
        await stage.call(ann, room(stayAlone="false"))
        await stage.enters(ann)
        assert audio_analysis.silent(await stage.listen(ann, 500))
        assert not stage.events("ConferenceExit"), "the first member is not left alone"
        await stage.call(bob, room(stayAlone="true"))
        await stage.call(cid, room(stayAlone="true") + "<Play>{url}/next.wav</Play>")
        await stage.hears(bob, 2875)
        conference = (await stage.enters(cid)).params["ConferenceUUID"]
        await ann.hang_up()
        gone = float((await stage.leaves(ann)).params["Timestamp"])
        # Two members are left: the conference continues.
        await stage.hears(bob, 2875, after=gone + 300)
        assert len(stage.events("ConferenceExit")) == 1
        await bob.hang_up()
        told = await ended(stage, conference)
        assert reasons(told) == {
            stage.number(ann): "hangup",
            stage.number(bob): "hangup",
            stage.number(cid): "left_alone",
        }
        await cid.wait_until_hung_up()
        assert audio_analysis.tones(cid.as_sent(), [1075])
        stage.saw(
            "set by the first, who left: at two it goes on, the last is out with left_alone and hears what follows"
        )


@pytest.mark.row("stayAlone", "default: a lone member stays; their exit ends the conference, and nothing is left")
async def test_a_lone_member_stays_and_their_conference_is_cleaned_up(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        for conference in (room(), room(startConferenceOnEnter="false")):
            stage.receiver.requests.clear()
            await stage.call(ann, conference)
            await stage.call(bob, conference)
            await stage.enters(bob)
            await bob.hang_up()
            await stage.leaves(bob)
            await stage.listen(ann, 500)
            assert len(stage.events("ConferenceExit")) == 1
            old = (await stage.enters(ann)).params["ConferenceUUID"]
            await ann.hang_up()
            await ended(stage, old)
            await stage.nothing_left()
            # The name is free: the next caller gets a new conference.
            stage.receiver.requests.clear()
            await stage.call(ann, conference)
            new = await stage.enters(ann, ConferenceFirstMember="true", ConferenceSequence="1")
            assert new.params["ConferenceUUID"] != old
            await ann.hang_up()
            await ended(stage, new.params["ConferenceUUID"])
            await stage.nothing_left()
        stage.saw(
            "started or waiting: the member stays; afterwards no bridge, no name, no state; the next gets a new UUID"
        )


@pytest.mark.row("leaving", "the order: out of the mix, exit callback, exitSound, action")
async def test_the_order_at_leaving(stage: Stage) -> None:
    stage.tones("/exit.wav", (1075, 500))
    stage.document("/exit", "<Play>{url}/exit.wav</Play>")
    stage.tones("/bye.wav", (1375, 500))
    stage.document("/action", "<Play>{url}/bye.wav</Play>")
    attributes = {"hangupOnStar": "true", "exitSound": "{url}/exit", "action": "{url}/action"}
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, room())
        await stage.call(bob, room(**attributes))
        await stage.hears(ann, 2875)
        await stage.hears(bob, 2575)
        entered = await stage.enters(bob)
        pressed = now_ms()
        await bob.press("*")
        left = await stage.leaves(bob)
        gone = float(left.params["Timestamp"])
        sound = await stage.hears(ann, 1075, after=pressed)
        await bob.wait_until_hung_up()
        assert left.params["ConferenceExitReason"] == "star"
        assert not audio_analysis.tones(ann.heard.since(gone + 100), [2875]), "out of the mix"
        assert not audio_analysis.tones(bob.heard.since(gone + 100), [2575])
        assert audio_analysis.tones(bob.heard.since(gone), [1375])
        assert not audio_analysis.tones(bob.heard.since(gone), [1075]), "the exit sound is for those who remain"
        (action,) = stage.receiver.requests_to("/action")
        assert gone <= action.at_ms
        assert gone - 60 <= sound
        wanted = {
            "ConferenceName": "standup",
            "ConferenceUUID": entered.params["ConferenceUUID"],
            "ConferenceMemberID": entered.params["ConferenceMemberID"],
            "CallUUID": entered.params["CallUUID"],
            "CallStatus": "in-progress",
        }
        assert wanted.items() <= action.params.items()
        assert "RecordUrl" not in action.params
        stage.saw(
            f"after the exit's Timestamp: exit callback {left.at_ms - gone:.0f} ms, sound {sound - gone:.0f} ms, "
            f"action {action.at_ms - gone:.0f} ms"
        )
        await ann.hang_up()


@pytest.mark.row("action", "requested also after a hangup; then the reply is ignored")
async def test_the_action_of_one_who_hung_up(stage: Stage) -> None:
    stage.document("/action", "<Redirect>{url}/never</Redirect>")
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, room(action="{url}/action"))
        entered = await stage.enters(ann)
        await ann.hang_up()
        left = await stage.leaves(ann, ConferenceExitReason="hangup")
        action = await stage.receiver.wait_for(lambda r: r.path == "/action")
        await stage.event("Hangup")
        assert action.params["ConferenceUUID"] == entered.params["ConferenceUUID"]
        assert action.params["CallStatus"] == "completed"
        assert action.params["HangupCause"] == "NORMAL_CLEARING"
        await stage.nothing_left()
        assert not stage.receiver.requests_to("/never")
        stage.saw(
            f"requested, CallStatus=completed, {action.at_ms - float(left.params['Timestamp']):.0f} ms after the exit"
        )
