"""The sounds of a member's entry, which all hear, and of the exit, which the remaining members hear."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from demo import audio_analysis
from demo.phone import Phone, now_ms
from tests.integration.receiver import Request
from tests.integration.stage import LATE_MS, Stage, spans_of
from tests.lateness import lasted, took_ms

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
BEEP = (240, 340)
"""ms; Asterisk changes the bridge when a member comes or goes, and may drop a packet or two of the beep."""
PAUSE = (180, 220)
ONCE_MS = 500
"""ms; a shorter hole does not count in a sound that plays once, or again after a second."""
THEN = '<Wait length="20"/>'


def room(**attributes: str) -> str:
    return ROOM.replace(
        "<Conference", "<Conference" + "".join(f' {key}="{value}"' for key, value in attributes.items())
    )


async def hang_up(*phones: Phone) -> None:
    await asyncio.gather(*(phone.hang_up() for phone in phones))


def late_hole(spans: audio_analysis.Intervals, since: float) -> int:
    """Return the number of the span after the shortest hole that is due to a late machine and is no pause, or 0."""
    holes = sorted((start - end, number) for number, ((_, end), (start, _)) in enumerate(pairwise(spans), 1))
    return next((n for _, n in holes if took_ms(since + spans[n - 1][1], since + spans[n][0]) < LATE_MS), 0)


async def beeps(stage: Stage, phone: Phone, after: float, count: int) -> list[tuple[float, float]]:
    """Wait for exactly `count` beeps of 700 Hz and return (from, to) of each in ms since `after`."""

    def found() -> list[tuple[float, float]]:
        spans = spans_of(phone.heard.since(after), 700)
        while len(spans) > count and (hole := late_hole(spans, after)):
            spans[hole - 1 : hole + 1] = [(spans[hole - 1][0], spans[hole][1])]
        over = len(spans) >= count and now_ms() > after + spans[-1][1] + 300
        return spans if over else []

    return list(await stage.until(found, description=f"{phone.name} does not hear {count} beeps"))


@pytest.mark.row("enterSound, exitSound", "beep:1 is one tone, 700 Hz, 300 ms; beep:2 is two, 200 ms apart")
async def test_beeps_at_entry_and_exit(stage: Stage) -> None:
    async with stage.callers(3) as (ann, bob, cid):
        await stage.call(ann, ROOM)
        await stage.call(cid, ROOM)
        await stage.enters(cid)
        called = now_ms()
        await stage.call(bob, room(enterSound="beep:1", exitSound="beep:2", hangupOnStar="true") + THEN)
        entered = float((await stage.enters(bob)).params["Timestamp"])
        for phone in (ann, cid, bob):
            ((start, end),) = await beeps(stage, phone, called, 1)
            lasted(called + start, called + end, *BEEP)
        heard = await asyncio.gather(*(stage.listen(phone, 500) for phone in (ann, bob, cid)))
        assert all(audio_analysis.silent(samples) for samples in heard)
        late = called + (await beeps(stage, ann, called, 1))[0][0] - entered
        stage.saw(f"beep:1 is heard by all three, {late:.0f} ms after the enter, {end - start:.0f} ms long")

        pressed = now_ms()
        await bob.press("*")
        gone = float((await stage.leaves(bob)).params["Timestamp"])
        for phone in (ann, cid):
            (one, one_end), (two, two_end) = await beeps(stage, phone, pressed, 2)
            lasted(pressed + one, pressed + one_end, *BEEP)
            lasted(pressed + two, pressed + two_end, *BEEP)
            lasted(pressed + one_end, pressed + two, *PAUSE)
        assert pressed + one >= gone - 60, "the exit sound came before the member was out of the mix"
        assert audio_analysis.silent(bob.heard.since(gone)), "the member who left hears the exit sound"
        stage.saw(
            f"beep:2 by both who remain: {one_end - one:.0f} ms, a pause of {two - one_end:.0f}, {two_end - two:.0f} ms"
        )
        await hang_up(ann, bob, cid)


@pytest.mark.row("enterSound, exitSound", '"" is no sound; the default is none')
async def test_no_sound(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, ROOM)
        for conference in (room(enterSound="", exitSound=""), ROOM):
            called = now_ms()
            await stage.call(bob, conference)
            await stage.enters(bob)
            await asyncio.sleep(0.5)
            await bob.hang_up()
            await stage.event("ConferenceExit", of=bob)
            await stage.listen(ann, 500)
            assert audio_analysis.silent(ann.heard.since(called))
        assert not stage.problems()
        stage.saw("silence at entry and exit")
        await hang_up(ann)


@pytest.mark.row("enterSound, exitSound", "play to a started conference: not while waiting")
async def test_no_sounds_while_waiting(stage: Stage) -> None:
    waits = {
        "startConferenceOnEnter": "false",
        "enterSound": "beep:1",
        "exitSound": "beep:1",
        "waitSound": "{url}/quiet",
    }
    stage.tones("/quiet.wav", (1675, 300))
    stage.document("/quiet", '<Play>{url}/quiet.wav</Play><Wait length="30"/>')
    async with stage.callers(3) as (ann, bob, host):
        await stage.call(ann, room(**waits))
        await stage.call(bob, room(**waits))
        await stage.hears(bob, 1675)
        await stage.goes_quiet(ann)
        await bob.hang_up()
        await stage.leaves(bob)
        await stage.listen(ann, 700)
        await stage.call(host, ROOM)
        await stage.enters(host)
        await stage.listen(ann, 700)
        for phone in (ann, bob, host):
            assert not spans_of(phone.heard.audio, 700)
        # The conference has started: the exit is heard.
        left = now_ms()
        await ann.hang_up()
        ((start, end),) = await beeps(stage, host, left, 1)
        lasted(left + start, left + end, *BEEP)
        stage.saw("two entered, one left, one started it: no beep; the exit after the start beeps")
        await hang_up(host)


@pytest.mark.row(
    "enterSound, exitSound", "a URL: its Play, Speak and Wait run in order; those who remain hear the exit's"
)
async def test_sounds_of_documents(stage: Stage) -> None:
    stage.tones("/low.wav", (1075, 300))
    stage.tones("/high.wav", (1375, 300))
    stage.document("/enter", '<Play>{url}/low.wav</Play><Wait length="1"/><Play>{url}/high.wav</Play>')
    stage.document("/exit", "<Play>{url}/high.wav</Play><Redirect>{url}/no</Redirect><Play>{url}/low.wav</Play>")
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, ROOM)
        await stage.call(bob, room(enterSound="{url}/enter", exitSound="{url}/exit", hangupOnStar="true") + THEN)
        await stage.enters(bob)
        for phone in (ann, bob):
            await stage.hears(phone, 1375)
            await stage.goes_quiet(phone)
            heard = phone.heard
            ((_, low_end),), ((high, _),) = (spans_of(heard.audio, hz, ONCE_MS) for hz in (1075, 1375))
            lasted(heard.start_ms + low_end, heard.start_ms + high, 990, 1500)
        asked = {r.params["ConferenceAction"]: r for r in stage.events("ConferenceRemoteSounds")}
        assert {action: r.path for action, r in asked.items()} == {"enterSound": "/enter", "exitSound": "/exit"}
        for request in asked.values():
            standard_parameters(stage, request, bob)
        pressed = now_ms()
        await bob.press("*")
        gone = float((await stage.leaves(bob)).params["Timestamp"])
        high = await stage.hears(ann, 1375, after=pressed)
        low = await stage.hears(ann, 1075, after=pressed)
        assert gone - 60 <= high < low
        await stage.goes_quiet(ann)
        assert audio_analysis.silent(bob.heard.since(gone))
        assert len(stage.events("ConferenceRemoteSounds")) == 2
        assert not stage.receiver.requests_to("/no")
        stage.saw(f"heard by both; at the exit two by who remains, after {high - gone:.0f} ms; asked for once")
        await hang_up(ann, bob)


def standard_parameters(stage: Stage, request: Request, phone: Phone) -> None:
    wanted = {
        "Event": "ConferenceRemoteSounds",
        "ConferenceName": "standup",
        "From": stage.number(phone),
        "To": "15550100",
        "Direction": "inbound",
        "CallStatus": "in-progress",
        "ParentAuthID": stage.account,
    }
    assert request.method == "POST"
    assert wanted.items() <= request.params.items()
    assert {"CallUUID", "CallerName", "SessionStart", "RequestUUID"} <= request.params.keys()


@pytest.mark.row(
    "enterSound, exitSound", "URLs are fetched while the member joins, so that joining never waits for them"
)
async def test_joining_does_not_wait_for_a_slow_sound(stage: Stage) -> None:
    stage.tones("/low.wav", (1075, 300))
    stage.document("/slow", "<Play>{url}/low.wav</Play>")
    answered = stage.receiver.holds("/slow")
    async with stage.callers(2) as (ann, bob):
        bob.tone(2875)
        await stage.call(ann, ROOM)
        await stage.call(bob, room(enterSound="{url}/slow"))
        await stage.enters(bob)
        joined = await stage.hears(ann, 2875)
        asked = await stage.receiver.wait_for(lambda r: r.path == "/slow")
        assert not stage.receiver.requests_to("/low.wav")
        answered.set()
        heard = await stage.hears(ann, 1075)
        stage.saw(
            f"the member is heard {joined - asked.at_ms:.0f} ms after the request, "
            f"the sound {heard - asked.at_ms:.0f} ms after"
        )
        await hang_up(ann, bob)


@pytest.mark.row(
    "sound documents", "a fetch that fails means no sound and a warning; waiting for the start: default music"
)
async def test_sound_documents_that_fail(stage: Stage) -> None:
    stage.document("/broken", "<Play>")
    async with stage.callers(3) as (ann, bob, cid):
        stage.receiver.statuses["/gone"] = [404]
        await stage.call(ann, room(startConferenceOnEnter="false", waitSound="{url}/gone"))
        await stage.enters(ann)
        await stage.until(lambda: not audio_analysis.silent(ann.heard.audio))
        assert stage.is_music(await stage.listen(ann, 3000))
        await stage.call(bob, room(enterSound="{url}/broken", exitSound="{url}/gone"))
        bob.tone(2875)
        await stage.hears(ann, 2875)
        bob.silence()
        await stage.until(lambda: len(stage.problems()) >= 3)
        await stage.goes_quiet(ann)
        left = now_ms()
        await bob.hang_up()
        await stage.leaves(bob)
        await stage.listen(ann, 500)
        assert audio_analysis.silent(ann.heard.since(left)), "a lone member whose waitSound failed hears something"
        told = stage.problems()
        for sound in ("waitSound", "enterSound", "exitSound"):
            assert any(text.startswith(sound) for text in told), told
        stage.saw("waiting: default music; entry and exit: silence; three problems")
        await hang_up(ann, cid)


@pytest.mark.row("sound documents", "a Play that can't be fetched is left out, and told")
async def test_a_file_that_fails_is_left_out(stage: Stage) -> None:
    stage.tones("/low.wav", (1075, 300))
    stage.receiver.statuses["/none.wav"] = [404]
    stage.receiver.documents["/none.wav"] = b""
    stage.document("/enter", "<Play>{url}/none.wav</Play><Play>{url}/low.wav</Play>")
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, ROOM)
        await stage.call(bob, room(enterSound="{url}/enter"))
        await stage.hears(ann, 1075)
        await stage.until(lambda: any("none.wav" in text for text in stage.problems()))
        stage.saw("the second file is heard, the first is a problem")
        await hang_up(ann, bob)


@pytest.mark.row("waitSound", "asked for again only when the document held no sound")
async def test_an_empty_wait_document_is_requested_again(stage: Stage) -> None:
    replies = iter(("<Redirect>http://127.0.0.1/no</Redirect>", f"<Play>{stage.tones('/low.wav', (1075, 300))}</Play>"))
    stage.receiver.documents["/wait"] = lambda _: f"<Response>{next(replies)}</Response>"
    async with stage.callers(1) as (ann,):
        await stage.call(ann, room(startConferenceOnEnter="false", waitSound="{url}/wait"))
        await stage.hears(ann, 1075)
        first, second = stage.receiver.requests_to("/wait")
        assert second.params["ConferenceAction"] == "waitSound"
        stage.saw(f"asked again after {(second.at_ms - first.at_ms) / 1000:.1f} s, and heard then")
        await hang_up(ann)


@pytest.mark.row("sound documents", "a reply that is audio is played; none of Plivo's PHP SDK is false")
async def test_a_sound_itself_instead_of_a_document(stage: Stage) -> None:
    stage.tones("/music.wav", (1175, 2000))
    async with stage.callers(2) as (ann, bob):
        for phone in (ann, bob):
            await stage.call(phone, room(startConferenceOnEnter="none", waitSound="{url}/music.wav"))
        ann.tone(2575)
        for phone in (ann, bob):
            await stage.hears(phone, 1175)
        assert not audio_analysis.intervals_of(bob.heard.audio, 2575), "nobody has started the conference"
        await hang_up(ann, bob)
    assert all("is read as" in problem for problem in stage.problems())
    stage.saw("two who wait hear the file that waitSound names, and not each other")
