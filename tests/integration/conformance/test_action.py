"""action, method, redirect: the steps after the conference."""

from __future__ import annotations

import pytest

from demo import audio_analysis
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEAVING = 'hangupOnStar="true" callbackUrl="{url}/events"'
AFTER, REPLACED = 3325, 3175


def tones_for(stage: Stage) -> None:
    stage.tones("/after.wav", (AFTER, 300))
    stage.tones("/replaced.wav", (REPLACED, 300))


@pytest.mark.row(
    "action", "requested when the member's stay ends; redirect=true: the reply replaces the rest of the document"
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_reply_replaces_the_rest(stage: Stage, method: str) -> None:
    tones_for(stage)
    stage.document("/action", "<Play>{url}/replaced.wav</Play>")
    given = "" if method == "POST" else 'method="GET"'
    async with stage.callers(1) as (ann,):
        document = f'<Conference {LEAVING} {given} action="{{url}}/action?a=1&amp;b=2">stand up</Conference>'
        await stage.call(ann, f"{document}<Play>{{url}}/after.wav</Play>")
        entered = await stage.enters(ann)
        await ann.press("*")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/action")
        await ann.wait_until_hung_up()
        assert set(audio_analysis.tones(ann.as_sent(), (REPLACED, AFTER))) == {REPLACED}
    assert asked.method == method
    assert (asked.query["a"], asked.query["b"]) == ("1", "2")
    assert asked.params["ConferenceName"] == "stand up"
    assert asked.params["ConferenceUUID"] == entered.params["ConferenceUUID"]
    assert asked.params["ConferenceMemberID"] == entered.params["ConferenceMemberID"]
    assert asked.params["CallUUID"] == entered.params["CallUUID"]
    assert asked.params["CallStatus"] == "in-progress"
    assert len(stage.receiver.requests_to("/action")) == 1
    stage.saw(f"{method}: the reply's sound is heard, the next element's is not")


@pytest.mark.row("redirect", "false: request the action, ignore the reply, go on with the next element")
async def test_the_reply_is_ignored(stage: Stage) -> None:
    tones_for(stage)
    stage.document("/action", "<Play>{url}/replaced.wav</Play>")
    # The next element doesn't even wait for the reply.
    answered = stage.receiver.holds("/action")
    async with stage.callers(1) as (ann,):
        document = f'<Conference {LEAVING} redirect="false" action="{{url}}/action">c</Conference>'
        await stage.call(ann, f"{document}<Play>{{url}}/after.wav</Play>")
        await stage.enters(ann)
        await ann.press("*")
        asked = await stage.receiver.wait_for(lambda request: request.path == "/action")
        after = await stage.hears(ann, AFTER)
        answered.set()
        await ann.wait_until_hung_up()
        assert set(audio_analysis.tones(ann.as_sent(), (REPLACED, AFTER))) == {AFTER}
    assert asked.method == "POST"
    assert asked.params["ConferenceName"] == "c"
    stage.saw(f"the next element heard {after - ann.pressed[0][0]:.0f} ms after the press, before the reply was there")


@pytest.mark.row("action", "requested also after a hangup; the reply is ignored")
@pytest.mark.parametrize("redirect", ["true", "false"])
async def test_hangup_source(stage: Stage, redirect: str) -> None:
    stage.document("/action", '<Conference callbackUrl="{url}/events">another</Conference>')
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<Conference {LEAVING} redirect="{redirect}" action="{{url}}/action">c</Conference>')
        entered = await stage.enters(ann)
        await ann.hang_up()
        asked = await stage.receiver.wait_for(lambda request: request.path == "/action")
    assert asked.params["CallStatus"] == "completed"
    assert asked.params["HangupCause"] == "NORMAL_CLEARING"
    assert asked.params["HangupCauseCode"] == "4000"
    assert asked.params["ConferenceMemberID"] == entered.params["ConferenceMemberID"]
    await stage.nothing_left()
    assert len(stage.receiver.requests_to("/action")) == 1
    assert [request.params["ConferenceName"] for request in stage.events("ConferenceEnter")] == ["c"]
    stage.saw(f"redirect={redirect}: CallStatus=completed, NORMAL_CLEARING, 4000")


@pytest.mark.row("action", "its XML opens another conference")
async def test_the_reply_opens_another_conference(stage: Stage) -> None:
    stage.document("/action", '<Conference callbackUrl="{url}/events">second</Conference>')
    async with stage.callers(3) as (ann, bob, cid):
        ann.tone(2575)
        bob.tone(2875)
        cid.tone(3025)
        await stage.call(ann, f'<Conference {LEAVING} action="{{url}}/action">first</Conference>')
        await stage.call(bob, '<Conference callbackUrl="{url}/events">first</Conference>')
        await stage.call(cid, '<Conference callbackUrl="{url}/events">second</Conference>')
        await stage.hears(bob, 2575)
        await ann.press("*")
        # The star itself makes no sound, and Ann's tone continues.
        await stage.hears(cid, 2575)
        await stage.hears(ann, 3025)
        assert set(audio_analysis.tones(await stage.listen(cid, 500))) == {2575}
        assert audio_analysis.silent(await stage.listen(bob, 300))
        for phone in (ann, bob, cid):
            await phone.hang_up()
        await stage.until(lambda: len(stage.events("ConferenceExit")) == 4)
    entered = [
        request.params for request in stage.events("ConferenceEnter") if request.params["From"] == stage.number(ann)
    ]
    assert [params["ConferenceName"] for params in entered] == ["first", "second"]
    assert entered[0]["CallUUID"] == entered[1]["CallUUID"]
    assert entered[0]["ConferenceMemberID"] != entered[1]["ConferenceMemberID"]
    stage.saw("she hears the second conference and is heard there, no longer in the first")


@pytest.mark.row("Conference", "a second conference in the same call; several conferences at once")
async def test_two_conferences_one_after_the_other(stage: Stage) -> None:
    async with stage.callers(4) as (ann, bob, cid, dee):
        for phone, hz in zip((ann, bob, cid, dee), (2575, 2875, 3025, 3175), strict=True):
            phone.tone(hz)
        element = f"<Conference {LEAVING}>first</Conference>"
        await stage.call(ann, element + element.replace("first", "second"))
        await stage.call(bob, element)
        await stage.call(cid, element.replace("first", "second"))
        await stage.call(dee, element.replace("first", "second"))
        # Several conferences at the same time: each member hears only their own.
        await stage.hears(ann, 2875)
        await stage.hears(cid, 3175)
        await stage.hears(dee, 3025)
        assert set(audio_analysis.tones(await stage.listen(cid, 300))) == {3175}
        assert set(audio_analysis.tones(await stage.listen(ann, 300))) == {2875}
        await ann.press("*")
        await stage.hears(cid, 2575)
        await stage.hears(ann, 3025)
        await stage.hears(ann, 3175)
        assert set(audio_analysis.tones(await stage.listen(ann, 300))) == {3025, 3175}
        assert audio_analysis.silent(await stage.listen(bob, 300))
        for phone in (ann, bob, cid, dee):
            await phone.hang_up()
        await stage.until(lambda: len(stage.events("ConferenceExit")) == 5)
    ids = {(r.params["ConferenceName"], r.params["ConferenceUUID"]) for r in stage.events("ConferenceEnter")}
    assert len(ids) == 2
    stage.saw("two conferences of two, then of one and three: each member hears only their own")


@pytest.mark.row("action", "none: the next element runs; no element left: the call is hung up, code 4010")
async def test_no_action(stage: Stage) -> None:
    tones_for(stage)
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"<Conference {LEAVING}>c</Conference><Play>{{url}}/after.wav</Play>")
        await stage.enters(ann)
        await ann.press("*")
        await ann.wait_until_hung_up()
        assert audio_analysis.intervals_of(ann.as_sent(), AFTER)
        assert ann.cause == 16
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == "4010"
    assert ended.params["HangupCause"] == "NORMAL_CLEARING"
    stage.saw("the next element heard, then hung up with 4010")


@pytest.mark.row("action", "cannot be reached or is no document: code 7012 or 8012, the call is hung up")
@pytest.mark.parametrize(("code", "reply"), [("7012", None), ("8012", "<Answer/>")])
async def test_an_action_that_fails(stage: Stage, code: str, reply: str | None) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    if reply is None:
        stage.receiver.statuses["/action"] = [500]
    else:
        stage.receiver.documents["/action"] = reply
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f'<Conference {LEAVING} action="{{url}}/action">c</Conference><Wait length="30"/>')
        await stage.enters(ann)
        await ann.press("*")
        await ann.wait_until_hung_up()
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == code
    assert len(stage.problems()) == 1
    stage.saw(f"hung up with {code}: {stage.problems()[0].replace(stage.url, 'http://…')}")
