"""Documents of calls: their sources, the effect of bad ones, and the hangup request at the call's end."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from ari_conf.store.problems import Problem, read_problems
from demo import audio_analysis
from demo.phone import CallFailed, Phone
from tests.integration.receiver import Request
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "<Conference>{name}</Conference>"
FALLBACK_HZ = 3025


def listed(stage: Stage) -> list[Problem]:
    return read_problems(stage.redis, stage.account)


def a_fallback(stage: Stage) -> None:
    stage.tones("/fallback.wav", (FALLBACK_HZ, 300))
    stage.document("/fallback", "<Play>{url}/fallback.wav</Play>")
    stage.set_account(fallback_url="{url}/fallback")


async def refused(stage: Stage, phone: Phone, document: str | None, **more: str) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await stage.dial(phone, document, **more)
    return failed.value


def nobody_listens() -> str:
    """Return a URL of this machine that has no server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/answer"


# Sources of documents.


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_answer_url_of_the_account(stage: Stage, method: str) -> None:
    stage.tones("/hello.wav", (2575, 300))
    stage.document("/answer", "<Play>{url}/hello.wav</Play>")
    stage.set_account(answer_url="{url}/answer?from=plivo", answer_method=method)
    async with stage.callers(1) as (ann,):
        await stage.dial(ann, None)
        await ann.wait_until_hung_up()
    (asked,) = stage.receiver.requests_to("/answer")
    assert (asked.method, asked.query["from"]) == (method, "plivo")
    assert (asked.params["Event"], asked.params["CallStatus"]) == ("StartApp", "ringing")
    assert audio_analysis.intervals_of(ann.as_sent(), 2575)


async def test_a_kept_document_by_its_name(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        # The document speaks, then opens the conference "standup".
        ann.tone(2575)
        await asyncio.gather(stage.dial(ann, "conference"), stage.dial(bob, "conference"))
        await stage.hears(bob, 2575)
        assert not audio_analysis.silent(bob.heard.audio)
        await ann.hang_up()
        await bob.hang_up()
    assert stage.receiver.requests == []
    assert listed(stage) == []


@pytest.mark.parametrize("name", ["nosuch", "..%2Fsecret", "hosts"])
async def test_a_name_of_which_there_is_no_document(stage: Stage, name: str) -> None:
    async with stage.callers(1) as (ann,):
        await refused(stage, ann, name)
    (problem,) = listed(stage)
    assert problem.code in (7011, 8011)
    assert problem.call_uuid


async def test_an_account_without_an_answer_url(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        await refused(stage, ann, None)
    (problem,) = listed(stage)
    assert problem.code == 7011
    assert "has no answer URL" in problem.text


# Documents that can't run.

BAD = {
    "not well-formed": ("<Response><Speak>Hi</Response>", "not well-formed XML"),
    "wrong root": ("<Answer><Speak>Hi</Speak></Answer>", "its root is <Answer>|root is <Answer>"),
    "lower case": ("<response><Speak>Hi</Speak></response>", "case-sensitive"),
    "over 100 KB": (f"<Response><Speak>{'x' * 102_400}</Speak></Response>", "102400"),
    "DTD": ('<!DOCTYPE r [<!ENTITY a "b">]><Response><Speak>&a;</Speak></Response>', "DTD or entities"),
    "no name": ("<Response><Conference>  </Conference></Response>", "Conference: it has no name"),
    "nothing": ("", "empty"),
    "html": ("<!DOCTYPE html><html><body>It works!</body></html>", "DTD or entities"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_document_ends_the_call(stage: Stage, kind: str) -> None:
    text, told = BAD[kind]
    stage.set_account(hangup_url="{url}/hangup")
    stage.receiver.documents["/answer"] = text
    async with stage.callers(1) as (ann,):
        await refused(stage, ann, stage.receiver.url("/answer"))
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == "8011"
    (problem,) = listed(stage)
    assert (problem.code, problem.call_uuid) == (8011, ended.params["CallUUID"])
    assert re.search(told, problem.text)
    assert "/answer" in problem.text


async def test_an_empty_document_ends_the_call(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        await refused(stage, ann, stage.document("/answer", ""))
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == "4010"
    assert listed(stage) == []


async def test_a_bad_document_harms_no_other_call(stage: Stage) -> None:
    for number, (text, _) in enumerate(BAD.values()):
        stage.receiver.documents[f"/bad/{number}"] = text
    async with stage.callers(4) as (ann, bob, *others):
        ann.tone(2575)
        await stage.call(ann, ROOM.format(name="c"))
        await stage.call(bob, ROOM.format(name="c"))
        began = await stage.hears(bob, 2575)
        for number in range(len(BAD)):
            await refused(stage, others[number % 2], stage.receiver.url(f"/bad/{number}"))
        # The calls are refused so quickly that the callers would have heard little else.
        await stage.until(lambda: bob.heard.end_ms > began + 500)
        assert stage.gaps(bob, 2575, began + 100, ann) == []
        await ann.hang_up()
        await bob.hang_up()
    assert len(listed(stage)) == len(BAD)


# Unreachable URLs.


@pytest.mark.parametrize("status", [404, 500, None])
async def test_an_answer_url_that_cannot_be_reached(stage: Stage, status: int | None) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    url = stage.receiver.url("/answer") if status else nobody_listens()
    stage.receiver.statuses["/answer"] = [status or 200]
    async with stage.callers(1) as (ann,):
        await refused(stage, ann, url)
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == "7011"
    (problem,) = listed(stage)
    assert problem.code == 7011
    assert str(status or "refused") in problem.text


@pytest.mark.parametrize(
    ("element", "code"),
    [
        ("<Redirect>{url}/next</Redirect>", "7014"),
        ('<GetDigits numDigits="1" action="{url}/next"/>', "7012"),
        ('<Conference hangupOnStar="true" action="{url}/next">c</Conference>', "7012"),
    ],
    ids=["redirect", "digits' action", "conference's action"],
)
@pytest.mark.parametrize("reply", ["unreachable", "invalid"])
async def test_a_later_url_that_fails(stage: Stage, element: str, code: str, reply: str) -> None:
    stage.tones("/first.wav", (2575, 200))
    stage.set_account(hangup_url="{url}/hangup")
    if reply == "unreachable":
        stage.receiver.statuses["/next"] = [503]
    else:
        stage.receiver.documents["/next"] = "<Response><Conference/></Response>"
        code = f"8{code[1:]}"
    async with stage.callers(1) as (ann,):
        await stage.call(ann, f"<Play>{{url}}/first.wav</Play>{element}<Wait length='60'/>")
        await stage.hears(ann, 2575)
        await stage.listen(ann, 400)
        if "Redirect" not in element:
            await ann.press("*")
        await ann.wait_until_hung_up()
        ended = await stage.event("Hangup")
    assert ended.params["HangupCauseCode"] == code
    assert [problem.code for problem in listed(stage)] == [int(code)]


@pytest.mark.parametrize("kind", ["unreachable", "invalid"])
async def test_the_fallback_url_takes_over(stage: Stage, kind: str) -> None:
    a_fallback(stage)
    stage.receiver.statuses["/answer"] = [500 if kind == "unreachable" else 200]
    stage.receiver.documents["/answer"] = "no XML"
    async with stage.callers(1) as (ann,):
        await stage.dial(ann, stage.receiver.url("/answer"))
        await ann.wait_until_hung_up()
    assert audio_analysis.intervals_of(ann.as_sent(), FALLBACK_HZ)
    (asked,) = stage.receiver.requests_to("/fallback")
    assert (asked.method, asked.params["Event"], asked.params["CallStatus"]) == ("POST", "StartApp", "ringing")
    assert [problem.code for problem in listed(stage)] == [7011 if kind == "unreachable" else 8011]


async def test_a_fallback_url_that_fails_too(stage: Stage) -> None:
    a_fallback(stage)
    stage.set_account(hangup_url="{url}/hangup")
    stage.receiver.documents["/fallback"] = "<Nothing/>"
    async with stage.callers(1) as (ann,):
        await refused(stage, ann, nobody_listens())
        ended = await stage.event("Hangup")
    assert len(stage.receiver.requests_to("/fallback")) == 1
    assert ended.params["HangupCauseCode"] == "8011"
    assert [problem.code for problem in listed(stage)] == [8011, 7011]


async def test_an_account_that_does_not_exist(stage: Stage) -> None:
    async with stage.callers(1) as (ann,):
        failed = await refused(stage, ann, stage.document("/answer", "<Hangup/>"), account="Nobody")
        assert failed.status == 403
    assert stage.receiver.requests == []
    (problem, *_) = read_problems(stage.redis, "Nobody")
    assert "account 'Nobody' does not exist" in problem.text


# End of the call.


def end_of(request: Request) -> tuple[str, ...]:
    return tuple(request.params[name] for name in ("Event", "CallStatus", "HangupCause", "HangupCauseCode"))


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_hangup_url_receives_all_parameters(stage: Stage, method: str) -> None:
    stage.set_account(hangup_url="{url}/hangup", hangup_method=method)
    who = {"from_user": "+15550177", "to": "+15550199", "display_name": "Ann Miller"}
    async with stage.callers(1) as (ann,):
        await stage.call(ann, '<Wait length="1"/><Wait length="60"/>', headers={"X-PH-Team": "blue"}, **who)
        await stage.listen(ann, 300)
        await ann.hang_up()
        ended = await stage.event("Hangup")
    params = ended.params
    assert ended.method == method
    assert set(params) == {
        *("CallUUID", "From", "To", "Direction", "CallStatus", "CallerName", "SessionStart", "ParentAuthID"),
        *("RequestUUID", "Event", "HangupCause", "HangupCauseCode", "Duration", "BillDuration"),
        *("StartTime", "AnswerTime", "EndTime", "X-PH-Team"),
        *("HangupCauseName", "HangupSource", "ALegUUID", "ALegRequestUUID", "TotalCost", "BillRate"),
    }
    assert end_of(ended) == ("Hangup", "completed", "NORMAL_CLEARING", "4000")
    assert (params["From"], params["To"], params["CallerName"]) == ("15550177", "15550199", "Ann Miller")
    assert params["ParentAuthID"] == stage.account
    assert params["CallUUID"] == stage.receiver.requests[0].params["CallUUID"]
    # The call rang for up to a second, then was charged for one started second.
    assert int(params["Duration"]) in (1, 2)
    assert params["BillDuration"] == "1"
    assert params["StartTime"] < params["AnswerTime"] <= params["EndTime"]
    assert params["SessionStart"].startswith(params["StartTime"])


async def test_a_caller_who_gives_up_before_the_answer(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(1) as (ann,):
        calling = asyncio.create_task(stage.call(ann, '<Wait length="60"/>'))
        await stage.event("StartApp")
        await ann.hang_up()
        with pytest.raises(CallFailed):
            await calling
        ended = await stage.event("Hangup")
    assert (ended.params["CallStatus"], ended.params["HangupCauseCode"]) == ("completed", "1000")
    assert (ended.params["AnswerTime"], ended.params["BillDuration"]) == ("", "0")
