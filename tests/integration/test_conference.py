"""A conference on a real Asterisk: the audio that its real callers hear."""

from __future__ import annotations

import asyncio

import pytest

from demo import audio_analysis
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'


async def test_two_members_hear_each_other_and_nobody_else(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, ROOM)
        await stage.call(bob, ROOM)
        await stage.hears(ann, 2875)
        await stage.hears(bob, 2575)
        at_ann, at_bob = await asyncio.gather(stage.listen(ann), stage.listen(bob))
        assert set(audio_analysis.tones(at_ann)) == {2875}
        assert set(audio_analysis.tones(at_bob)) == {2575}
        await ann.hang_up()
        await bob.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
    callbacks = stage.receiver.requests_to("/events")
    assert [c.params["ConferenceAction"] for c in callbacks] == ["enter", "enter", "exit", "exit"]
    assert [c.params["ConferenceSequence"] for c in callbacks] == ["1", "2", "3", "4"]


async def test_waiting_member_hears_their_own_music(stage: Stage) -> None:
    waiting = ROOM.replace("<Conference", '<Conference startConferenceOnEnter="false"')
    async with stage.callers(3) as (ann, bob, host):
        ann.tone(2575)
        bob.tone(2875)
        host.tone(3175)
        await stage.call(ann, waiting)
        await stage.call(bob, waiting)
        at_ann, at_bob = await asyncio.gather(stage.listen(ann, 4000), stage.listen(bob, 4000))
        for heard in (at_ann, at_bob):
            assert stage.is_music(heard)
        assert not audio_analysis.is_tone_present(at_ann, 2875)
        assert not audio_analysis.is_tone_present(at_bob, 2575)
        await stage.call(host, ROOM)
        await stage.hears(host, 2575)
        await stage.hears(host, 2875)
        assert set(audio_analysis.tones(await stage.listen(ann))) == {2875, 3175}
        for phone in (ann, bob, host):
            await phone.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
