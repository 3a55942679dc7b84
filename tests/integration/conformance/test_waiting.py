"""Sounds while members wait for the start, and while a member is alone after it."""

from __future__ import annotations

import asyncio

import pytest

from demo import audio_analysis
from demo.phone import Phone, now_ms
from demo.received_audio import Samples
from tests.integration.stage import Stage, spans_of
from tests.lateness import lasted, late_ms, took_ms

pytestmark = pytest.mark.asyncio(loop_scope="session")

STARTS = '<Conference callbackUrl="{url}/events">standup</Conference>'
WAITS = STARTS.replace("<Conference", '<Conference startConferenceOnEnter="false"')


def with_sound(conference: str, path: str) -> str:
    return conference.replace("<Conference", f'<Conference waitSound="{{url}}{path}"')


def steady(stage: Stage, path: str, *parts: tuple[int, int]) -> None:
    """Return a wait sound of one file."""
    stage.tones(path + ".wav", *parts)
    stage.document(path, f"<Play>{{url}}{path}.wav</Play>")


async def hang_up(*phones: Phone) -> None:
    await asyncio.gather(*(phone.hang_up() for phone in phones))


def nobody_speaks_in(heard: Samples) -> bool:
    # Music may have such a pitch for some of the time; a caller who speaks does so all the time.
    return not any(audio_analysis.is_tone_present(heard, hz, share=0.4) for hz in (2575, 2725, 2875, 3025, 3175))


@pytest.mark.row(
    "startConferenceOnEnter", "until someone starts it nobody hears anybody: each hears their own waitSound"
)
async def test_a_waiting_member_hears_their_own_sound_and_nobody_else(stage: Stage) -> None:
    steady(stage, "/of-ann", (1075, 700))
    steady(stage, "/of-bob", (1375, 700))
    async with stage.callers(4) as (ann, bob, cid, dan):
        for phone, hz in zip((ann, bob, cid, dan), (2575, 2725, 2875, 3025), strict=True):
            phone.tone(hz)
        await stage.call(ann, with_sound(WAITS, "/of-ann"))
        await stage.call(bob, with_sound(WAITS, "/of-bob"))
        await stage.call(cid, WAITS)
        await stage.call(dan, WAITS.replace("<Conference", '<Conference muted="true"'))
        await stage.hears(ann, 1075)
        await stage.hears(bob, 1375)
        heard = await asyncio.gather(*(stage.listen(phone, 3000) for phone in (ann, bob, cid, dan)))
        assert all(nobody_speaks_in(samples) for samples in heard)
        at_ann, at_bob, at_cid, at_dan = heard
        assert set(audio_analysis.tones(at_ann)) == {1075}
        assert set(audio_analysis.tones(at_bob)) == {1375}
        assert stage.is_music(at_cid)
        assert stage.is_music(at_dan)
        stage.saw("two hear their own tones, two the default music; of four who speak none is heard")
        await hang_up(ann, bob, cid, dan)


@pytest.mark.row("waitSound", "a document of Play, Speak and Wait that loops and is not asked for again")
async def test_the_wait_sound_runs_in_order_and_loops(stage: Stage) -> None:
    stage.tones("/short.wav", (1075, 400))
    stage.document(
        "/wait", '<Play>{url}/short.wav</Play><Wait length="1"/><Hangup/><Speak>No.</Speak><Play>{url}/short.wav</Play>'
    )
    async with stage.callers(1) as (ann,):
        await stage.call(ann, with_sound(WAITS, "/wait"))
        first = await stage.hears(ann, 1075)

        def three() -> list[tuple[float, float]]:
            spans = spans_of(ann.heard.since(first), 1075)
            return spans if len(spans) >= 4 else []

        spans = await stage.until(three)
        (_, one), (two, two_end), (three_, _), *_ = spans
        heard = ann.heard.since(first)
        assert audio_analysis.silent(heard[round(one + 20) * 8 : round(one + 980) * 8]), "the Wait"
        assert two - one > 1100
        assert not audio_analysis.silent(heard[round(one + 1000) * 8 : round(two) * 8]), "the spoken word"
        assert audio_analysis.silent(heard[round(two_end + 20) * 8 : round(three_ - 20) * 8]), "before the repetition"
        lasted(first + two_end, first + three_, 740, 1500)
        assert len(stage.receiver.requests_to("/wait")) == 1
        assert any("waitSound" in text and "Hangup" in text for text in stage.problems())
        stage.saw(f"Play, 1 s, Speak, Play; {three_ - two_end:.0f} ms of silence, and again; asked for once")
        await hang_up(ann)
    asked = stage.receiver.requests_to("/wait")[0]
    wanted = {
        "Event": "ConferenceRemoteSounds",
        "ConferenceAction": "waitSound",
        "ConferenceName": "standup",
        "From": stage.number(ann),
        "To": "15550100",
        "Direction": "inbound",
        "ParentAuthID": stage.account,
    }
    assert asked.method == "POST"
    assert wanted.items() <= asked.params.items()
    assert {"CallUUID", "CallStatus", "CallerName", "SessionStart", "RequestUUID"} <= asked.params.keys()


@pytest.mark.row("waitSound", "another's coming or going does not restart it")
async def test_another_s_coming_and_going_does_not_restart_it(stage: Stage) -> None:
    steady(stage, "/scale", (1075, 1000), (1225, 1000), (1375, 1000))
    steady(stage, "/other", (1675, 500))
    async with stage.callers(3) as (ann, bob, cid):
        await stage.call(cid, WAITS)
        await stage.enters(cid)
        await stage.call(ann, with_sound(WAITS, "/scale"))
        began = await stage.hears(ann, 1075)
        for conference in (with_sound(WAITS, "/other"), WAITS):
            await stage.call(bob, conference)
            await stage.enters(bob)
            await bob.hang_up()
        left = now_ms()
        # The check covers each round, until one has begun after they left.
        await stage.until(lambda: began + spans_of(ann.heard.since(began), 1075)[-1][0] > left)
        # The audio is taken as it was sent: packets that a late machine sends in a burst keep their length.
        late = late_ms(began, now_ms())
        lows, middles, highs = (spans_of(ann.as_sent(), hz) for hz in (1075, 1225, 1375))
        assert len(lows) > 1
        rounds = list(zip(lows[:-1], middles, highs, lows[1:], strict=False))
        assert rounds, f"no whole round: {lows}, {middles}, {highs}"
        for low, middle, high, again in rounds:
            for (_, end), (start, _) in ((low, middle), (middle, high)):
                assert abs(start - end) < 60
            assert 2900 < high[1] - low[0] < 3100
            assert 740 < again[0] - high[1] < 1500 + late
        assert not [gap for gap in cid.heard.missing(began, left, longer_than_ms=200) if took_ms(*gap) > 200]
        # Every 400 ms of the music lie at the same offset: the music continued.
        heard = cid.heard.between(began, began + 4000)
        assert stage.is_music(heard)
        assert Stage.last_music is not None
        slip_ms = audio_analysis.SLIP_MS + late_ms(began, began + 4000)
        whole = audio_analysis.find_reference(heard, audio_analysis.wav(Stage.last_music), slip_ms)
        assert whole.score > 0.8
        stage.saw(
            f"two came and went: 3000 ms of sound in {high[1] - low[0]:.0f} ms; the music went on ({whole.score:.0%})"
        )
        await hang_up(ann, cid)


@pytest.mark.row(
    "startConferenceOnEnter", "the first who starts it: waiting sounds stop, and all can speak unless muted"
)
async def test_at_the_start_music_stops_and_all_can_speak(stage: Stage) -> None:
    steady(stage, "/of-ann", (1075, 3000))
    async with stage.callers(4) as (ann, bob, dan, host):
        await stage.call(ann, with_sound(WAITS, "/of-ann"))
        await stage.call(bob, WAITS)
        await stage.call(dan, WAITS.replace("<Conference", '<Conference muted="true"'))
        await stage.hears(ann, 1075)
        await stage.until(lambda: not audio_analysis.silent(bob.heard.audio))
        await stage.until(lambda: not audio_analysis.silent(dan.heard.audio))
        await stage.call(host, STARTS)
        started = float((await stage.enters(host)).params["Timestamp"])
        quiet = [await stage.goes_quiet(phone) for phone in (ann, bob, dan)]
        assert all(
            audio_analysis.silent(samples)
            for samples in await asyncio.gather(*map(stage.listen, (ann, bob, dan, host)))
        )
        assert not audio_analysis.tones(host.heard.audio)
        ann.tone(2575)
        bob.tone(2725)
        dan.tone(2875)
        host.tone(3025)
        for phone, hz in ((ann, 3025), (bob, 2575), (dan, 2725), (host, 2575)):
            await stage.hears(phone, hz, after=started)
        heard = await asyncio.gather(*(stage.listen(phone) for phone in (ann, bob, dan, host)))
        assert [set(audio_analysis.tones(samples)) for samples in heard] == [
            {2725, 3025},
            {2575, 3025},
            {2575, 2725, 3025},
            {2575, 2725},
        ]
        after = ", ".join(f"{at - started:.0f}" for at in quiet)
        stage.saw(f"sound and music are silent {after} ms after the start; all speak, but the one who is muted")
        await hang_up(ann, bob, dan, host)


@pytest.mark.row("startConferenceOnEnter", "it stays started until it ends, also if that member leaves")
async def test_it_stays_started(stage: Stage) -> None:
    async with stage.callers(4) as (host, ann, bob, cid):
        ann.tone(2575)
        bob.tone(2725)
        cid.tone(2875)
        await stage.call(host, STARTS)
        await stage.call(ann, WAITS)
        await stage.call(bob, WAITS)
        await stage.hears(host, 2575)
        await host.hang_up()
        await stage.leaves(host)
        gone = now_ms()
        await stage.call(cid, WAITS)
        await stage.hears(cid, 2575, after=gone)
        await stage.hears(ann, 2875, after=gone)
        heard = await asyncio.gather(*(stage.listen(phone) for phone in (ann, bob, cid)))
        assert [set(audio_analysis.tones(samples)) for samples in heard] == [{2725, 2875}, {2575, 2875}, {2575, 2725}]
        heard_ms = cid.heard.start_ms
        lasted(
            heard_ms, heard_ms + spans_of(cid.heard.audio, 2575)[0][0], 0, 1500
        )  # a later start: Cid heard music first
        stage.saw("the starter has left: the others go on, who comes then hears them at once")
        await hang_up(ann, bob, cid)


@pytest.mark.row("waitSound", "no longer needed when its document comes: it is not heard")
async def test_a_wait_sound_that_comes_too_late_is_not_played(stage: Stage) -> None:
    steady(stage, "/late", (1075, 500))
    answered = stage.receiver.holds("/late")
    async with stage.callers(2) as (ann, host):
        await stage.call(ann, with_sound(WAITS, "/late"))
        await stage.receiver.wait_for(lambda r: r.path == "/late")
        await stage.call(host, STARTS)
        await stage.enters(host)
        answered.set()
        await stage.receiver.wait_for(lambda r: r.path == "/late.wav")
        assert all(audio_analysis.silent(samples) for samples in await asyncio.gather(*map(stage.listen, (ann, host))))
        stage.saw("the conference started while it was asked for: nobody hears it")
        await hang_up(ann, host)


@pytest.mark.row("waitSound", "a lone member hears it; it stops when a second enters, and starts again")
async def test_alone_after_the_start(stage: Stage) -> None:
    steady(stage, "/alone", (1075, 2000))
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        await stage.call(ann, with_sound(STARTS, "/alone"))
        began = await stage.hears(ann, 1075)
        await stage.until(lambda: now_ms() > began + 500)
        await stage.call(bob, STARTS)
        entered = float((await stage.enters(bob)).params["Timestamp"])
        await stage.hears(ann, 2875)
        at_ann, at_bob = await asyncio.gather(stage.listen(ann, 1500), stage.listen(bob, 1500))
        assert set(audio_analysis.tones(at_ann)) == {2875}
        assert set(audio_analysis.tones(at_bob)) == {2575}
        assert not audio_analysis.tones(bob.heard.audio, [1075])
        heard = ann.heard
        stopped = heard.start_ms + spans_of(heard.audio, 1075)[-1][1]
        await bob.hang_up()
        alone = float((await stage.leaves(bob)).params["Timestamp"])
        again = await stage.hears(ann, 1075, after=alone)
        assert len(stage.receiver.requests_to("/alone")) == 1
        stage.saw(
            f"off {stopped - entered:.0f} ms after the second enters, on {max(0, again - alone):.0f} ms after the exit"
        )
        await hang_up(ann)


@pytest.mark.row("waitSound", "none: a lone member after the start hears silence")
async def test_alone_without_a_sound_is_silence(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        bob.tone(2875)
        await stage.call(ann, STARTS)
        await stage.enters(ann)
        assert audio_analysis.silent(await stage.listen(ann, 1000))
        await stage.call(bob, STARTS)
        await stage.hears(ann, 2875)
        await bob.hang_up()
        await stage.leaves(bob)
        await stage.goes_quiet(ann)
        assert audio_analysis.silent(await stage.listen(ann, 1000))
        stage.saw("silence before the second came, and after the second left")
        await hang_up(ann)
