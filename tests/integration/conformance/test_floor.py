"""floorEvent."""

from __future__ import annotations

import pytest

from demo.phone import Phone
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

TELLING = '<Conference floorEvent="true" callbackUrl="{url}/events">c</Conference>'
PAUSE_MS = 900
"""More than the silence that ends talking (500 ms)."""


def takers(stage: Stage) -> list[str]:
    return [request.params["CallUUID"] for request in stage.events("ConferenceFloor")]


async def joins(stage: Stage, phone: Phone, document: str) -> str:
    """Let the phone join and return its CallUUID."""
    known = len(stage.events("ConferenceEnter"))
    await stage.call(phone, document)
    return str((await stage.until(lambda: stage.events("ConferenceEnter")[known:]))[0].params["CallUUID"])


async def takes(stage: Stage, count: int) -> None:
    await stage.until(lambda: len(takers(stage)) >= count, description=f"{count} floor events")


@pytest.mark.row(
    "floorEvent",
    "the holder keeps the floor through others' interruptions; free when they leave; one event for each taking",
)
async def test_members_who_take_the_floor(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        ann_call, bob_call = await joins(stage, ann, TELLING), await joins(stage, bob, TELLING)
        spoke = ann.tone(2575)
        await takes(stage, 1)
        first = stage.events("ConferenceFloor")[0]
        bob.tone(2875)
        await stage.hears(ann, 2875)
        # Ann pauses and continues while Bob talks, and keeps the floor. Then Bob pauses while Ann talks.
        ann.silence()
        await stage.listen(ann, PAUSE_MS)
        ann.tone(2575)
        await stage.listen(ann, 400)
        bob.silence()
        await stage.listen(bob, PAUSE_MS)
        bob.tone(2875)
        await stage.listen(bob, 400)
        assert takers(stage) == [ann_call]
        # Both are silent: the first to talk now takes the floor.
        ann.silence()
        bob.silence()
        await stage.listen(bob, PAUSE_MS)
        bob.tone(2875)
        await takes(stage, 2)
        ann.tone(2575)
        await stage.listen(ann, 400)
        # Bob leaves: the floor is free, and Ann takes it when she starts to talk.
        await bob.hang_up()
        ann.silence()
        await stage.listen(ann, PAUSE_MS)
        assert takers(stage) == [ann_call, bob_call]
        ann.tone(2575)
        await takes(stage, 3)
        await ann.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
    assert takers(stage) == [ann_call, bob_call, ann_call]
    assert spoke.started_ms is not None
    late = float(first.params["Timestamp"]) - spoke.started_ms
    stage.saw(f"3 takings, 3 events; no event for 3 interruptions; the first {late:.0f} ms after she began")


@pytest.mark.row(
    "floorEvent",
    "a muted member never takes the floor; false: the taking is not told, and the member holds it all the same",
)
async def test_members_who_do_not_take_the_floor(stage: Stage) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        await joins(stage, ann, TELLING.replace("<Conference", '<Conference muted="true"'))
        await joins(stage, bob, TELLING.replace('floorEvent="true"', ""))
        cid_call = await joins(stage, cid, TELLING)
        ann.tone(2575)
        await stage.listen(ann, 400)
        bob.tone(2875)
        await stage.hears(ann, 2875)
        # Enough time for Asterisk to report Bob's talking as well.
        await stage.listen(ann, 400)
        cid.tone(3175)
        await stage.listen(cid, 400)
        assert takers(stage) == []
        cid.silence()
        bob.silence()
        await stage.listen(cid, PAUSE_MS)
        cid.tone(3175)
        await takes(stage, 1)
        for phone in (ann, bob, cid):
            await phone.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
    assert takers(stage) == [cid_call]
    stage.saw("no event for a muted talker, for one without floorEvent, and for one who interrupts that one")
