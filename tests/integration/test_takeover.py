"""Takeover: the application dies, no caller notices, and the next process continues from the same state."""

from __future__ import annotations

import asyncio
import io
import time
import wave
from functools import partial

import pytest
import requests

from ari_conf.store.state_store import state_key
from demo import audio_analysis
from demo.phone import Phone, now_ms
from tests.integration.receiver import Request
from tests.integration.stage import Stage
from tests.lateness import lasted, took_s

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIGIT_ENDS_S = 0.1
"""Seconds after a digit's last packet by which Asterisk has reported it, if a process is connected."""
ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'


def sequence(stage: Stage) -> list[tuple[str, str]]:
    events = [request.params for request in stage.receiver.requests_to("/events")]
    return [(params["ConferenceSequence"], params["ConferenceAction"]) for params in events]


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
        # A call that arrived during the outage is served.
        await arriving
        await asyncio.gather(own.hears(dan, 2575), own.hears(ann, 3475), own.hears(bob, 3475))
        # The caller who hung up in the meantime has left.
        await own.event("ConferenceExit", ConferenceExitReason="hangup")
        # The others heard each other all the time.
        for phone, hz in ((ann, 2875), (bob, 2575)):
            assert own.gaps(phone, hz, dead) == []
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
        assert set(audio_analysis.tones(await own.listen(ann, 1000))) == {3175}
        await ann.hang_up()
        await host.hang_up()


async def test_redis_away_and_conferences_go_on_and_nothing_is_lost(own: Stage) -> None:
    async with own.callers(4) as (ann, bob, cid, dan):
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
        await own.call(dan, "<Conference>begun meanwhile</Conference>")
        await own.system.start("redis")
        # Redis now has the name that was claimed during its outage.
        names = f"ari_conf:names:{own.account}"
        await own.until(lambda: own.redis.hexists(names, "begun meanwhile"))
        await dan.hang_up()
        await own.until(lambda: not own.redis.hexists(names, "begun meanwhile"))
        assert own.gaps(cid, 2575, away, ann) == []
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


ANN, BOB, CID, DAN = 2575, 2875, 3175, 1825
HOLD = 1525
LIMIT_S = 24
TAKES_S = 3.0
"""Seconds from the start of the process until everything is restored."""


async def command(stage: Stage, *path: str, method: str = "POST", **params: str) -> None:
    base = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Conference/standup/"
    login = (stage.account, stage.token)
    answer = await asyncio.to_thread(
        requests.request, method, base + "".join(f"{part}/" for part in path), json=params, auth=login, timeout=10
    )
    assert answer.ok, answer.text


async def heard_by(stage: Stage, phone: Phone) -> set[int]:
    return set(audio_analysis.tones(await stage.listen(phone, 600)))


async def test_everything_is_where_it_was(stage: Stage) -> None:
    """Talk, mute, hold, recording, a time limit, waiting music and half-entered digits survive a kill of `serve`."""
    room = f'<Conference callbackUrl="{{url}}/events" record="true" timeLimit="{LIMIT_S}">standup</Conference>'
    hold = stage.tones("/hold.wav", (HOLD, 60_000))
    stage.document("/pin", "<Hangup/>")
    async with stage.callers(6) as (ann, bob, cid, dan, eve, fay):
        ids = []
        for phone, hz in ((ann, ANN), (bob, BOB), (cid, CID), (dan, DAN)):
            phone.tone(hz)
            await stage.call(phone, room)
            ids.append((await stage.enters(phone)).params["ConferenceMemberID"])
        await stage.call(eve, '<GetDigits action="{url}/pin" numDigits="4" timeout="60" digitTimeout="30"/>')
        await eve.press("12")
        await stage.call(fay, '<Conference startConferenceOnEnter="false">later</Conference>')
        await command(stage, "Member", ids[1], "Mute")
        await command(stage, "Member", ids[2], "Hold", url=hold)
        await stage.hears(cid, HOLD)
        await stage.until(lambda: len(stage.events("ConferenceEnter")) == 4)
        await stage.listen(ann, 700)
        assert await heard_by(stage, ann) == {DAN}
        died = now_ms()
        await stage.system.kill("serve")
        await stage.listen(ann, 500)
        starts = time.monotonic()
        serve = await stage.system.start("serve")
        await stage.until(lambda: "reconciliation completed" in serve.read_log())
        took = took_s(starts)
        stage.saw(f"{took:.2f} s from the start of the process until all is as it was")
        # All members heard this all the time.
        await stage.listen(ann, 500)
        assert stage.gaps(ann, DAN, died, dan) == []
        assert stage.gaps(dan, ANN, died, ann) == []
        assert stage.gaps(cid, HOLD, died) == []
        assert set(audio_analysis.tones(ann.heard.since(died))) == {DAN}
        assert set(audio_analysis.tones(cid.heard.since(died))) == {HOLD}
        # Everything that had begun continues.
        await command(stage, "Member", ids[1], "Mute", method="DELETE")
        await stage.hears(ann, BOB, after=died)
        await command(stage, "Member", ids[2], "Hold", method="DELETE")
        await stage.hears(ann, CID, after=died)
        await eve.press("34")
        pin = await stage.receiver.wait_for(lambda request: request.path == "/pin")
        assert pin.params["Digits"] == "1234"
        assert stage.is_music(await stage.listen(fay, 4000))
        await fay.hang_up()
        await stage.event("ConferenceExit", LIMIT_S)
        ended = [await stage.leaves(phone) for phone in (ann, bob, cid, dan)]
        assert {request.params["ConferenceExitReason"] for request in ended} == {"time_limit"}
        entered = await stage.enters(ann)
        began_ms, ended_ms = float(entered.params["Timestamp"]), float(ended[0].params["Timestamp"])
        lasted(began_ms, ended_ms, LIMIT_S * 1000 - 500, LIMIT_S * 1000 + 500)
        recorded = await stage.event("ConferenceRecord")
    assert int(recorded.params["RecordingDurationMs"]) > (LIMIT_S - 3) * 1000
    assert [number for number, _ in sequence(stage)] == [str(n) for n in range(1, 10)]
    assert took < TAKES_S


async def test_a_graceful_stop_hands_over_with_events_in_flight(stage: Stage) -> None:
    """Every digit that was pressed while a process was connected counts, and every callback comes once."""
    room = '<Conference callbackUrl="{url}/events" digitsMatch="1,2,3,4,5,6,7,8,9">standup</Conference>'

    def reported_digits() -> str:
        return "".join(r.params["ConferenceDigitsMatch"] for r in stage.events("ConferenceDigitsMatch"))

    async with stage.callers(3) as (ann, bob, cid):
        for phone, hz in ((ann, ANN), (bob, BOB)):
            phone.tone(hz)
            await stage.call(phone, room)
            await stage.enters(phone)
        await stage.hears(bob, ANN)
        since = now_ms()
        await ann.press("123")
        await asyncio.sleep(DIGIT_ENDS_S)
        stops = time.monotonic()
        pressing = asyncio.create_task(ann.press("456"))
        await stage.system.stop("serve")
        stopped = took_s(stops)
        cid.tone(CID)
        arriving = asyncio.create_task(stage.call(cid, room))
        serve = await stage.system.start("serve")
        await stage.until(lambda: "reconciliation completed" in serve.read_log())
        await arriving
        await pressing
        await ann.press("789")
        await asyncio.gather(stage.hears(ann, CID), stage.hears(cid, BOB))
        assert stage.gaps(ann, BOB, since, bob) == []
        await stage.until(lambda: reported_digits().endswith("789"), description="the digits 789")
        for phone in (ann, bob, cid):
            await phone.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
    stage.saw(f"stopped within {stopped:.2f} s, with calls; of the digits 123456789 {reported_digits()} were told")
    assert stopped < 3.0
    assert reported_digits().startswith("123")
    assert list(reported_digits()) == sorted(set(reported_digits()))
    numbers = [number for number, _ in sequence(stage)]
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]


async def test_state_that_the_next_server_can_not_read_is_ended_completely(stage: Stage) -> None:
    """The unreadable records are those of a conference with a recording and of a call outside any conference; other
    callers notice nothing."""
    stage.set_account(hangup_url="{url}/hangup")
    recorded = '<Conference record="true" recordFileFormat="wav" callbackUrl="{url}/events">standup</Conference>'
    state = state_key(stage.asterisk_name)
    async with stage.callers(4) as (ann, bob, cid, dan):
        for phone, hz in ((ann, ANN), (cid, CID)):
            phone.tone(hz)
        await stage.call(ann, recorded)
        await stage.enters(ann)
        before = set(stage.redis.hkeys(state))
        await stage.call(bob, '<GetDigits numDigits="4" timeout="60"/>')
        waiting = (await stage.until(lambda: {*stage.redis.hkeys(state)} - before)).pop()
        for phone in (cid, dan):
            await stage.call(phone, "<Conference>other</Conference>")
        await stage.hears(dan, CID)
        await stage.listen(dan, 1000)
        conference = (await stage.enters(ann)).params["ConferenceUUID"]
        await stage.system.kill("serve")
        for key in (waiting, conference):
            stage.redis.hset(state, key, b"{")
        dead = now_ms()
        await stage.system.start("serve")
        callback = (await stage.event("ConferenceRecord", timeout=90)).params
        for phone in (ann, bob):
            await phone.wait_until_hung_up()
        ends = [await stage.receiver.wait_for(partial(_hangup_of, phone=stage.number(phone))) for phone in (ann, bob)]
        assert ends[1].params["CallUUID"] == waiting.decode()
        await stage.leaves(ann)
        assert stage.gaps(dan, CID, dead, cid) == []
        assert any("could not be read" in text for text in stage.problems())
        for phone in (cid, dan):
            await phone.hang_up()
    file = await asyncio.to_thread(requests.get, callback["RecordUrl"], timeout=10)
    with wave.open(io.BytesIO(file.content)) as tape:
        assert tape.getnframes() / tape.getframerate() > 1.0


def _hangup_of(request: Request, phone: str) -> bool:
    return request.path == "/hangup" and request.params["From"] == phone
