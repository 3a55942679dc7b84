"""Phones within a call: they begin another stream, hold, stop sending, and always receive packets."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from ari_conf.recordings.bucket import Bucket
from ari_conf.recordings.sidecar import object_key
from demo import audio_analysis
from demo.phone import Phone, now_ms
from tests import lateness
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference record="true" floorEvent="true" callbackUrl="{url}/events">standup</Conference>'
STREAMS = int(os.environ.get("ARI_CONF_STREAMS", "4"))
"""The number of streams that the phone begins; set 20 or more to measure the delay."""
SOON_MS = 1000
"""The maximum ms until an inaudible phone is heard again."""
COUNTED_MS = 7000
"""The maximum ms until Asterisk notices a jump: it counts lost packets every 5 s."""
STOPPED_MS = 2000
"""The maximum ms until the end of a sound ends talk: two rounds, and the time until the report."""
FAR_AWAY_MS = 600
AS_SAID_MS = 1200
"""The maximum ms by which the recorded times of a talk may differ from the talk."""
SILENT_FOR_S = 10.0
MAX_GAP_S = 3.0
A, B, C = 475, 625, 775


async def meet(stage: Stage, *phones: Phone, document: str = ROOM) -> None:
    for phone in phones:
        await stage.call(phone, document)
        await stage.enters(phone)


def floors(stage: Stage, since: float = 0.0) -> list[str]:
    return [r.params["From"] for r in stage.events("ConferenceFloor") if int(r.params["Timestamp"]) >= since]


async def floor_is_had(stage: Stage, phone: Phone, since: float) -> None:
    await stage.until(lambda: stage.number(phone) in floors(stage, since), description=f"no floor for {phone.name}")


async def test_a_restarted_stream_is_heard_within_a_second(stage: Stage) -> None:
    """Debian's build of Asterisk drops the packets of a stream whose numbers are behind those of the stream before."""
    async with stage.callers(3) as (ann, bob, cid):
        await meet(stage, ann, bob, cid)
        ann.tone(A)
        await stage.hears(bob, A)
        cid.tone(C)
        await stage.hears(bob, C)
        began = now_ms()
        took = []
        for number in range(STREAMS):
            await stage.listen(bob, 600 + 130 * (number % 5))
            over = now_ms()
            ann.begin_stream(-200 - 31_000 * number // STREAMS)
            heard = await stage.hears(bob, A, after=over + 100)
            lateness.lasted(over, heard, 0, SOON_MS)
            took.append(round(heard - over))
        assert stage.gaps(bob, C, began, cid) == []
        assert floors(stage) in ([stage.number(ann)], [stage.number(ann), stage.number(cid)])
        assert not stage.events("ConferenceExit")
        assert len(stage.events("ConferenceEnter")) == 3
        stage.saw(f"heard again {len(took)} of {STREAMS} times, after {max(took)} ms at most")
        # A muted member must not become audible because of that.
        assert stage.problems() == []


async def test_numbers_that_jump_in_one_stream(stage: Stage) -> None:
    """Asterisk counts lost packets every five seconds."""
    async with stage.callers(2) as (ann, bob):
        await meet(stage, ann, bob)
        ann.tone(A)
        await stage.hears(bob, A)
        await stage.listen(bob, 600)
        over = now_ms()
        ann.begin_stream(-20_000, source=False)
        heard = await stage.hears(bob, A, after=over + 100)
        lateness.lasted(over, heard, 0, COUNTED_MS)
        stage.saw(f"heard again after {heard - over:.0f} ms")


async def test_a_muted_member_who_starts_a_stream_is_not_heard(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        await meet(stage, bob)
        await meet(stage, ann, document='<Conference muted="true" callbackUrl="{url}/events">standup</Conference>')
        ann.tone(A)
        for _ in range(2):
            await stage.listen(bob, 700)
            ann.begin_stream()
        assert audio_analysis.silent(await stage.listen(bob, 1500))


async def test_hold_music_of_a_phone_is_heard_by_nobody(stage: Stage) -> None:
    """The phone's music is not mixed, not recorded and never takes the floor; after the hold the voice is back."""
    async with stage.callers(2) as (ann, bob):
        await meet(stage, ann, bob)
        for direction, address in (("sendonly", ""), ("inactive", ""), ("sendonly", "0.0.0.0")):
            ann.silence()
            await ann.hold(direction, address)
            held = now_ms()
            ann.tone(A)
            await stage.listen(bob, 200)
            assert audio_analysis.silent(await stage.listen(bob, 1000))
            bob.tone(B)
            await floor_is_had(stage, bob, held)
            bob.silence()
            # Enough time for the server to learn that Bob is silent.
            await stage.listen(ann, 900)
            assert stage.number(ann) not in floors(stage, held)
            asked = now_ms()
            await ann.resume()
            back = now_ms()
            heard = await stage.hears(bob, A, after=back)
            lateness.lasted(back, heard, 0, SOON_MS)
            # The server learns of Ann's talk as well, perhaps before the phone knows that it has resumed.
            await floor_is_had(stage, ann, asked)


async def test_a_phone_that_holds_in_the_middle_of_a_word(stage: Stage) -> None:
    """The phone sends no packets during the hold: another member takes the floor."""
    async with stage.callers(2) as (ann, bob):
        await meet(stage, ann, bob)
        ann.tone(A)
        await floor_is_had(stage, ann, 0)
        ann.send_packets(False)
        await ann.hold("inactive")
        held = now_ms()
        bob.tone(B)
        await floor_is_had(stage, bob, held)


async def test_talk_and_floor_end_where_the_sound_does(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        await meet(stage, ann, bob)
        began = now_ms()
        ann.tone(A)
        await floor_is_had(stage, ann, 0)
        await stage.listen(bob, 1500)
        ann.send_packets(False)
        stopped = now_ms()
        # A member who starts before the server knows of the stop has the floor afterwards.
        await stage.listen(bob, 300)
        bob.tone(B)
        await floor_is_had(stage, bob, stopped)
        lateness.lasted(stopped, now_ms(), 0, STOPPED_MS + FAR_AWAY_MS)
        bob.silence()
        await stage.listen(bob, 700)
        again = now_ms()
        ann.send_packets(True)
        await floor_is_had(stage, ann, again)
        # Comfort noise does not count as talk either.
        line = ann._session
        assert line is not None
        ann.send_packets(False)
        noise = now_ms()
        talks = asyncio.create_task(floor_is_had(stage, bob, noise))
        bob.tone(B)
        number = line._sequence
        while not talks.done():
            number = number + 1 & 0xFFFF
            head = bytes((0x80, 13)) + number.to_bytes(2) + bytes(4) + line._source.to_bytes(4)
            line.rtp.sendto(head + b"\x40", line.destination or ("", 0))
            await asyncio.sleep(0.2)
        await talks
        await bob.hang_up()
        await ann.hang_up()
        recorded = await stage.event("ConferenceRecord")
    start = int(recorded.params["RecordingStartMs"])
    talk = await _talk(stage, recorded.params["RecordingID"], start)
    first = min((one for one in talk if one["member_id"] == talk[0]["member_id"]), key=lambda one: one["start_ms"])
    lateness.lasted(0, start + first["end_ms"] - stopped + AS_SAID_MS, 0, 2 * AS_SAID_MS)
    stage.saw(f"said from {began - start:.0f} to {stopped - start:.0f} ms, written {first}")


async def _talk(stage: Stage, recording_id: str, start_ms: int) -> list[dict[str, int]]:
    bucket = Bucket(stage.system.settings)
    key = object_key(stage.account, recording_id, start_ms, "wav").replace(".wav", ".json")
    document = await stage.until(lambda: bucket.get_json(key))
    return sorted(document["talk"], key=lambda one: one["start_ms"])


async def test_wait_silence_ends_though_no_packet_of_silence_comes(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        stage.document("/after", "<Hangup/>")
        ann.tone(A)
        waits = '<Wait length="1"/><Wait length="20" silence="true" minSilence="1000"/>'
        await stage.call(ann, waits + "<Redirect>{url}/after</Redirect>")
        await stage.until(lambda: ann.heard.end_ms > 0)
        await asyncio.sleep(2.5)
        ann.send_packets(False)
        stopped = now_ms()
        after = await stage.receiver.wait_for(lambda request: request.path == "/after")
        lateness.lasted(stopped, after.at_ms, 0, 3000)


async def test_a_phone_is_always_sent_something(stage: Stage) -> None:
    """Phones and carriers end calls in which no packets arrive."""
    stage.document("/slow", "<Hangup/>")
    stage.receiver.delays["/slow"] = SILENT_FOR_S + 3
    documents = (
        '<Wait length="60"/>',
        '<Wait length="60" silence="true" minSilence="50000"/>',
        '<GetDigits timeout="60"/>',
        "<Redirect>{url}/slow</Redirect>",
        '<Conference callbackUrl="{url}/events">standup</Conference>',
    )
    async with stage.callers(len(documents)) as board:
        phones = list(board)
        first = "<Play>{url}/short.wav</Play>"
        stage.tones("/short.wav", (C, 200))
        await asyncio.gather(*(stage.call(p, first + d) for p, d in zip(phones, documents, strict=True)))
        await stage.enters(phones[4])
        since = now_ms()
        await asyncio.sleep(SILENT_FOR_S)
        until = now_ms()
        gaps = [_longest_gap_s(phone, since, until) for phone in phones]
        stage.saw(f"the longest times without a packet: {', '.join(f'{gap:.1f}' for gap in gaps)} s")
        late = min(lateness.late_ms(since, until) / 1000, 3.0)
        assert max(gaps) < MAX_GAP_S + late
        # The callers still hear everything: sounds, and others in a conference.
        stage.document("/slow", '<Conference callbackUrl="{url}/events">standup</Conference>')
        phones[4].tone(B)
        await stage.enters(phones[3])
        await stage.hears(phones[3], B)


def _longest_gap_s(phone: Phone, since: float, until: float) -> float:
    line = phone._session
    assert line is not None
    packets = [at for at in line.arrivals_ms if since <= at <= until]
    return float(np.max(np.diff([since, *packets, until]))) / 1000


async def test_a_process_that_takes_over_knows_of_holds_and_streams(own: Stage) -> None:
    async with own.callers(3) as (ann, bob, cid):
        room = '<Conference callbackUrl="{url}/events">standup</Conference>'
        await meet(own, ann, bob, cid, document=room)
        ann.tone(A)
        bob.tone(B)
        await asyncio.gather(own.hears(cid, A), own.hears(cid, B))
        await bob.hold()
        await own.listen(cid, 1200)
        await own.system.kill("serve")
        ann.begin_stream()
        await bob.resume()
        ann.silence()
        await ann.hold()
        ann.tone(A)
        await own.system.start("serve")
        back = now_ms()
        # In the meantime Bob's phone has resumed, and Ann's has put the call on hold.
        await own.hears(cid, B, after=back)
        assert audio_analysis.silent(await own.listen(cid, 500)) is False
        await own.until(
            lambda: not audio_analysis.is_tone_present(cid.heard.since(now_ms() - 400), A),
            description="hold music is heard",
        )
        await ann.resume()
        await own.hears(cid, A, after=now_ms())
        assert not own.events("ConferenceExit")
