"""Joining: the conference that a name stands for, admission of callers, and the callbacks about both."""

from __future__ import annotations

import asyncio

import pytest

from demo import audio_analysis
from demo.phone import CallFailed
from tests.integration.receiver import Receiver
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
OTHERWISE = '<Play>{url}/otherwise</Play><Hangup reason="busy"/>'


def named(name: str, **attributes: str) -> str:
    more = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f'<Conference callbackUrl="{{url}}/events"{more}>{name}</Conference>'


@pytest.mark.row("name", "trimmed, case-sensitive, may hold spaces and any Unicode")
async def test_the_name_is_trimmed_and_nothing_else(stage: Stage) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        ann.tone(2575)
        bob.tone(2875)
        cid.tone(3175)
        await stage.call(ann, named("\n  Größe ☕  会议 \t"))
        await stage.call(bob, named("Größe ☕  会议"))
        await stage.call(cid, named("größe ☕  会议"))
        entered = [await stage.enters(phone) for phone in (ann, bob, cid)]
        assert [e.params["ConferenceName"] for e in entered] == ["Größe ☕  会议"] * 2 + ["größe ☕  会议"]
        of_ann, of_bob, of_cid = (e.params["ConferenceUUID"] for e in entered)
        assert of_ann == of_bob != of_cid
        await stage.hears(ann, 2875)
        await stage.hears(bob, 2575)
        at_ann, at_cid = await asyncio.gather(stage.listen(ann), stage.listen(cid))
        assert set(audio_analysis.tones(at_ann)) == {2875}
        assert audio_analysis.silent(at_cid)
        stage.saw("'\\n  Größe ☕  会议 \\t' and 'Größe ☕  会议' are one conference, 'größe ☕  会议' another")


@pytest.mark.row("name", "belongs to one account: the same name in two accounts is two conferences")
async def test_the_same_name_in_two_accounts_is_two_conferences(stage: Stage) -> None:
    async with Receiver() as receiver, stage.callers(4) as (ann, bob, cid, dan):
        other = Stage(stage.system, receiver, stage.redis, stage.ari)
        for phone, hz in zip((ann, bob, cid, dan), (2575, 2725, 2875, 3025), strict=True):
            phone.tone(hz)
        await stage.call(ann, ROOM)
        await other.call(bob, ROOM)
        await stage.call(cid, ROOM)
        await other.call(dan, ROOM)
        here, there = await stage.enters(ann), await other.enters(bob)
        assert here.params["ConferenceName"] == there.params["ConferenceName"] == "standup"
        assert here.params["ConferenceUUID"] != there.params["ConferenceUUID"]
        assert here.params["ParentAuthID"] == stage.account
        assert there.params["ParentAuthID"] == other.account
        await stage.hears(ann, 2875)
        await stage.hears(bob, 3025)
        at_ann, at_bob = await asyncio.gather(stage.listen(ann), stage.listen(bob))
        assert set(audio_analysis.tones(at_ann)) == {2875}
        assert set(audio_analysis.tones(at_bob)) == {3025}
        # "a small integer, from a counter that all conferences share"
        entered = [await stage.enters(ann), await other.enters(bob), await stage.enters(cid), await other.enters(dan)]
        ids = [int(e.params["ConferenceMemberID"]) for e in entered]
        assert ids == list(range(ids[0], ids[0] + 4))
        assert 0 < ids[0] < 1_000_000
        stage.saw(f"two UUIDs; each hears only their own account's; member ids over both: {ids}")
        for phone in (ann, bob, cid, dan):
            await phone.hang_up()
        await other.event("ConferenceExit", ConferenceLastMember="true")
        receiver.all_signed()


@pytest.mark.row("joining", "creating is atomic: two callers at once meet in one conference")
async def test_callers_at_the_same_instant_meet(stage: Stage) -> None:
    async with stage.callers(4) as phones:
        pitches = (2575, 2725, 2875, 3025)
        for phone, hz in zip(phones, pitches, strict=True):
            phone.tone(hz)
        # The documents are requested at the same time, and returned at the same time.
        for number in range(1, 5):
            stage.receiver.delays[f"/document/{number}"] = 0.3
        await asyncio.gather(*(stage.call(phone, ROOM) for phone in phones))
        entered = [await stage.enters(phone) for phone in phones]
        assert len({e.params["ConferenceUUID"] for e in entered}) == 1
        assert sorted(e.params["ConferenceFirstMember"] for e in entered) == ["false", "false", "false", "true"]
        assert len({e.params["ConferenceMemberID"] for e in entered}) == 4
        for number, phone in enumerate(phones):
            for hz in {*pitches} - {pitches[number]}:
                await stage.hears(phone, hz)
        times = [int(e.params["Timestamp"]) for e in entered]
        stage.saw(f"4 callers within {max(times) - min(times)} ms: one UUID, one ConferenceFirstMember=true")


@pytest.mark.row("joining", "one that is ending is not live: who arrives then gets a new one, with a new UUID")
async def test_a_caller_who_arrives_while_it_is_ending_gets_a_new_conference(stage: Stage) -> None:
    # A caller whose next element names the same conference arrives while the old one still puts the others out.
    host = named("standup", endConferenceOnExit="true")
    async with stage.callers(4) as (ann, *others):
        for phone, hz in zip(others, (2725, 2875, 3025), strict=True):
            phone.tone(hz)
        await stage.call(ann, host)
        for phone in others:
            await stage.call(phone, ROOM + named("standup", digitsMatch="1"))
        old = (await stage.enters(ann)).params["ConferenceUUID"]
        for phone in others:
            await stage.enters(phone, ConferenceUUID=old)
        await ann.hang_up()
        for phone in others:
            await stage.leaves(phone, ConferenceUUID=old, ConferenceExitReason="host_left")
        again = await stage.receiver.wait_for(
            lambda r: r.params.get("Event") == "ConferenceEnter" and r.params["ConferenceUUID"] != old
        )
        new = again.params["ConferenceUUID"]
        assert (again.params["ConferenceFirstMember"], again.params["ConferenceSequence"]) == ("true", "1")
        entered = [await stage.enters(phone, ConferenceUUID=new) for phone in others]
        assert sorted(e.params["ConferenceFirstMember"] for e in entered) == ["false", "false", "true"]
        since = max(float(e.params["Timestamp"]) for e in entered)
        for phone, hz in zip(others, (2725, 2875, 3025), strict=True):
            for another in {2725, 2875, 3025} - {hz}:
                await stage.hears(phone, another, after=since)
        last_out = max(float(e.params["Timestamp"]) for e in stage.events("ConferenceExit"))
        first_in = min(float(e.params["Timestamp"]) for e in entered)
        stage.saw(
            f"the first is in the new one {first_in - last_out:.0f} ms after the last was out of the old; new UUID"
        )


@pytest.mark.row(
    "maxMembers", "set by the first, fixed afterwards; full: the element and its action are skipped, no callback"
)
async def test_full_skips_the_element_and_its_action(stage: Stage) -> None:
    stage.tones("/otherwise", (1300, 500))
    late = '<Conference callbackUrl="{url}/late" action="{url}/action" maxMembers="20">standup</Conference>'
    async with stage.callers(4) as (ann, bob, cid, dan):
        bob.tone(2875)
        cid.tone(3175)
        await stage.call(ann, named("standup", maxMembers="2"))
        await stage.call(bob, named("standup", maxMembers="20"))
        await stage.enters(bob)
        await stage.call(cid, late + OTHERWISE)
        await stage.hears(cid, 1300)
        await cid.wait_until_hung_up()
        assert set(audio_analysis.tones(ann.as_sent())) == {2875}
        assert not audio_analysis.tones(cid.heard.audio, [2875])
        assert not stage.receiver.requests_to("/late")
        assert not stage.receiver.requests_to("/action")
        assert len(stage.events("ConferenceEnter")) == 2
        stage.saw("2 by the first, 20 by the others: the third hears the next element; no callback, no action")
        # A member who leaves makes room.
        await bob.hang_up()
        await stage.leaves(bob)
        await stage.call(dan, ROOM)
        entered = await stage.enters(dan)
        assert entered.params["ConferenceUUID"] == (await stage.enters(ann)).params["ConferenceUUID"]


@pytest.mark.row("joining", "answer the call if it is not answered: a call that is not let in is not answered by it")
async def test_a_call_is_answered_when_it_is_admitted(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        stage.receiver.delays["/document/1"] = 0.5
        calling = asyncio.create_task(stage.call(ann, named("standup", maxMembers="1")))
        await asyncio.wait_for(stage.receiver.wait_for(lambda r: r.path == "/document/1"), 10)
        assert ann.answered_at is None
        answered = await calling
        entered = float((await stage.enters(ann)).params["Timestamp"])
        assert stage.receiver.requests_to("/document/1")[0].params["CallStatus"] == "ringing"
        with pytest.raises(CallFailed):
            await stage.call(bob, ROOM + '<Hangup reason="busy"/>')
        assert bob.answered_at is None
        assert bob.cause == 17
        stage.saw(f"answered {answered - entered:.0f} ms after the entry; full and then busy: never answered, cause 17")


@pytest.mark.row("joining", "enter callback, also while waiting for the start; ConferenceFirstMember")
async def test_enter_is_reported_while_waiting(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, named("standup", startConferenceOnEnter="false"))
        first = await stage.enters(ann)
        await stage.call(bob, named("standup", startConferenceOnEnter="false"))
        second = await stage.enters(bob)
        for entered, phone, is_first, sequence in ((first, ann, "true", "1"), (second, bob, "false", "2")):
            wanted = {
                "Event": "ConferenceEnter",
                "ConferenceAction": "enter",
                "ConferenceName": "standup",
                "ConferenceFirstMember": is_first,
                "ConferenceSequence": sequence,
                "From": stage.number(phone),
                "To": "15550100",
                "Direction": "inbound",
                "CallStatus": "in-progress",
                "ParentAuthID": stage.account,
            }
            assert wanted.items() <= entered.params.items()
            assert entered.method == "POST"
        assert first.params["CallUUID"] != second.params["CallUUID"]
        stage.saw("enter of both while nobody has started it: ConferenceFirstMember true, false")
        await ann.hang_up()
        await bob.hang_up()
        left = [(await stage.leaves(phone)).params for phone in (ann, bob)]
        assert [e["ConferenceLastMember"] for e in left] == ["false", "true"]
        assert [e["ConferenceSequence"] for e in left] == ["3", "4"]
