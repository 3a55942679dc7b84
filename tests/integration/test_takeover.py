"""The application dies; nobody on the phone notices, and the next one goes on where it was."""

from __future__ import annotations

import asyncio

import pytest

from demo import listen
from demo.phone import now_ms
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'


def sequence(stage: Stage) -> list[tuple[str, str]]:
    told = [request.params for request in stage.receiver.requests_to("/events")]
    return [(params["ConferenceSequence"], params["ConferenceAction"]) for params in told]


async def test_talk_goes_on_and_what_happened_meanwhile_is_worked_off(own: Stage) -> None:
    async with own.callers(4) as (ann, bob, cid, dan):
        for phone, hz in zip((ann, bob, cid, dan), (2575, 2875, 3175, 3475), strict=True):
            phone.tone(hz)
        for phone in (ann, bob, cid):
            await own.call(phone, ROOM)
        await asyncio.gather(own.hears(ann, 3175), own.hears(bob, 2575), own.hears(cid, 2875))
        dead = now_ms()
        await own.system.kill("serve")
        await cid.hang_up()
        arriving = asyncio.create_task(own.call(dan, ROOM))
        await own.listen(ann, 500)
        await own.system.start("serve")
        # A call that came while it was away is served,
        await arriving
        await asyncio.gather(own.hears(dan, 2575), own.hears(ann, 3475), own.hears(bob, 3475))
        # who hung up meanwhile has left,
        await own.event("ConferenceExit", ConferenceExitReason="hangup")
        # and the others heard each other all the time.
        for phone, hz in ((ann, 2875), (bob, 2575)):
            assert listen.gaps(phone.heard.since(dead), hz, longest_ms=100) == []
        for phone in (ann, bob, dan):
            await phone.hang_up()
        await own.event("ConferenceExit", ConferenceLastMember="true")
    numbers = [number for number, _ in sequence(own)]
    assert numbers == [str(n) for n in range(1, 9)]
    assert sorted(action for _, action in sequence(own)) == ["enter"] * 4 + ["exit"] * 4


async def test_a_document_goes_on_where_it_was(own: Stage) -> None:
    async with own.callers(1) as (ann,):
        document = '<GetDigits action="{url}/pin" numDigits="4" timeout="30" digitTimeout="20"/><Wait length="1"/>'
        own.document("/pin", '<Conference callbackUrl="{url}/events">standup</Conference>')
        await own.call(ann, document)
        await ann.press("12")
        await own.listen(ann, 300)
        await own.system.kill("serve")
        await own.system.start("serve")
        await ann.press("34")
        pin = await own.receiver.wait_for(lambda request: request.path == "/pin")
        assert pin.params["Digits"] == "1234"
        await own.event("ConferenceEnter")
        await ann.hang_up()


async def test_waiting_music_goes_on(own: Stage) -> None:
    async with own.callers(2) as (ann, host):
        host.tone(3175)
        await own.call(ann, '<Conference startConferenceOnEnter="false">standup</Conference>')
        assert own.is_music(await own.listen(ann, 4000))
        await own.system.kill("serve")
        await own.system.start("serve")
        assert own.is_music(await own.listen(ann, 4000))
        await own.call(host, ROOM)
        await own.hears(ann, 3175)
        assert set(listen.tones(await own.listen(ann, 1000))) == {3175}
        await ann.hang_up()
        await host.hang_up()


async def test_redis_away_and_conferences_go_on_and_nothing_is_lost(own: Stage) -> None:
    async with own.callers(3) as (ann, bob, cid):
        for phone, hz in zip((ann, bob, cid), (2575, 2875, 3175), strict=True):
            phone.tone(hz)
        await own.call(ann, ROOM)
        await own.call(bob, ROOM)
        await own.hears(ann, 2875)
        away = now_ms()
        await own.system.kill("redis")
        await own.call(cid, ROOM)
        await asyncio.gather(own.hears(ann, 3175), own.hears(cid, 2575))
        await bob.hang_up()
        await own.system.start("redis")
        assert listen.gaps(cid.heard.since(away), 2575, longest_ms=100) == []
        await ann.hang_up()
        await cid.hang_up()
        await own.event("ConferenceExit", timeout=40, ConferenceLastMember="true")
    numbers = [int(number) for number, _ in sequence(own)]
    assert list(dict.fromkeys(numbers)) == [1, 2, 3, 4, 5, 6], numbers


async def test_asterisk_dies_and_every_member_has_left(own: Stage) -> None:
    async with own.callers(2) as (ann, bob):
        await own.call(ann, ROOM)
        await own.call(bob, ROOM)
        await own.event("ConferenceEnter", ConferenceSequence="2")
        await own.system.kill("asterisk")
        await own.system.start("asterisk")
        await own.event("ConferenceExit", ConferenceLastMember="true")
    assert [action for _, action in sequence(own)] == ["enter", "enter", "exit", "exit"]
    async with own.callers(2) as (ann, bob):
        ann.tone(2575)
        await own.call(ann, ROOM)
        await own.call(bob, ROOM)
        await own.hears(bob, 2575)
        await ann.hang_up()
        await bob.hang_up()
