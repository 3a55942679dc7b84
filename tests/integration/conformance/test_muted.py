from __future__ import annotations

import asyncio

import pytest

from demo import audio_analysis
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.row("muted", "the member joins muted; still hears")
async def test_a_muted_member_is_not_heard_and_hears(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, '<Conference muted="true">standup</Conference>')
        await stage.call(bob, "<Conference>standup</Conference>")
        await stage.hears(ann, 2875)
        at_ann, at_bob = await asyncio.gather(stage.listen(ann, 2000), stage.listen(bob, 2000))
        assert set(audio_analysis.tones(at_ann)) == {2875}
        assert audio_analysis.silent(at_bob)
        stage.saw(f"the member hears the other; at the other's phone {audio_analysis.level_dbfs(at_bob):.0f} dBFS")
        await ann.hang_up()
        await bob.hang_up()


@pytest.mark.row(
    "muted", "waiting for the start is not `muted`: at the start a member can speak unless `muted` is true"
)
async def test_muted_by_waiting_is_not_muted(stage: Stage) -> None:
    waits = '<Conference startConferenceOnEnter="false"{muted}>standup</Conference>'
    async with stage.callers(3) as (ann, bob, host):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, waits.replace("{muted}", ' muted="true"'))
        await stage.call(bob, waits.replace("{muted}", ""))
        await stage.call(host, "<Conference>standup</Conference>")
        await stage.hears(host, 2875)
        await stage.hears(ann, 2875)
        at_ann, at_bob, at_host = await asyncio.gather(*(stage.listen(phone) for phone in (ann, bob, host)))
        assert set(audio_analysis.tones(at_ann)) == {2875}
        assert audio_analysis.silent(at_bob)
        assert set(audio_analysis.tones(at_host)) == {2875}
        stage.saw("of two who waited the muted one hears and is not heard, the other is heard by both")
