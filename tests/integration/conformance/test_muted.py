from __future__ import annotations

import asyncio

import pytest

from demo import listen
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
        assert listen.sounds(at_ann, 2875)
        assert listen.silent(at_bob)
        stage.saw(f"he hears the other; at the other's phone {listen.level_dbfs(at_bob):.0f} dBFS")
        await ann.hang_up()
        await bob.hang_up()
