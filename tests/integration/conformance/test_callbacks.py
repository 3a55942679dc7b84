"""callbackUrl and callbackMethod: every parameter of every request, their order, and the effect of a bad attribute."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from uuid import UUID
from xml.sax.saxutils import escape

import pytest

from demo import audio_analysis
from tests.integration.receiver import Request
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")

STANDARD = {"CallUUID", "From", "To", "Direction", "CallStatus", "CallerName", "SessionStart", "ParentAuthID"}
STANDARD |= {"RequestUUID", "Event"}
ENDED = {"HangupCause", "HangupCauseCode", "Duration", "BillDuration", "StartTime", "AnswerTime", "EndTime"}
ENDED |= {"ALegUUID", "ALegRequestUUID", "HangupCauseName", "HangupSource", "TotalCost", "BillRate"}
CONFERENCE = {"ConferenceAction", "ConferenceName", "ConferenceUUID", "ConferenceSequence", "Timestamp"}
OF_A_MEMBER = CONFERENCE | {"ConferenceMemberID"}
MORE = {
    "enter": ("ConferenceEnter", {"ConferenceFirstMember"}),
    "floor": ("ConferenceFloor", set[str]()),
    "digits": ("ConferenceDigitsMatch", {"ConferenceDigitsMatch"}),
    "exit": ("ConferenceExit", {"ConferenceLastMember", "ConferenceExitReason"}),
}


def standard_parameters(stage: Stage, request: Request, caller: str) -> None:
    """Return the standard parameters of a call from +1555…, with a header X-PH-Team."""
    params = request.params
    assert UUID(params["CallUUID"])
    assert UUID(params["RequestUUID"])
    assert params["CallUUID"] != params["RequestUUID"]
    assert (params["From"], params["To"]) == ("15550177", "15550199")
    assert (params["Direction"], params["CallerName"]) == ("inbound", caller)
    assert params["ParentAuthID"] == stage.account
    assert params["X-PH-Team"] == "blue"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", params["SessionStart"])
    began = datetime.strptime(params["SessionStart"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
    assert 0 <= request.at_ms - began.timestamp() * 1000 < 60_000


def of_the_end(request: Request) -> None:
    params = request.params
    assert params["CallStatus"] == "completed"
    assert (params["HangupCause"], params["HangupCauseCode"]) == ("NORMAL_CLEARING", "4000")
    times = [params[name] for name in ("StartTime", "AnswerTime", "EndTime")]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", at) for at in times)
    assert 0 <= int(params["Duration"]) < 60
    assert 0 < int(params["BillDuration"]) < 60


@pytest.mark.row(
    "callbackUrl", "enter, floor, digits, exit with all their parameters, and the standard ones on every request"
)
@pytest.mark.parametrize(
    ("method", "caller", "name"),
    # Plivo's SDK, which checks the signatures here, fails on a GET whose parameters are not ASCII.
    [("POST", "Ann Müller", "Stand Up ☕"), ("GET", "Ann Miller", "Stand & Up = 1+1%")],
)
async def test_all_parameters(stage: Stage, method: str, caller: str, name: str) -> None:
    given = "" if method == "POST" else 'callbackMethod="GET"'
    document = (
        f'<Conference {given} callbackUrl="{{url}}/events?kept=yes#rc=2" digitsMatch="42" floorEvent="true" '
        f'action="{{url}}/action">  {escape(name)} </Conference>'
    )
    async with stage.callers(1) as (ann,):
        who = {"from_user": "+15550177", "to": "+15550199", "display_name": caller}
        ann.tone(2575)
        await stage.call(ann, document, headers={"X-PH-Team": "blue"}, **who)
        await stage.event("ConferenceFloor")
        await ann.press("42")
        await stage.event("ConferenceDigitsMatch")
        await ann.hang_up()
        await stage.event("ConferenceExit")
        action = await stage.receiver.wait_for(lambda request: request.path == "/action")
    answer, callbacks = stage.receiver.requests[0], stage.receiver.requests_to("/events")
    assert [request.params["ConferenceAction"] for request in callbacks] == ["enter", "floor", "digits", "exit"]
    enter, _, digits, leave = callbacks
    for request in callbacks:
        event, more = MORE[request.params["ConferenceAction"]]
        own = (ENDED if request is leave else set()) | ({"kept"} if method == "GET" else set())
        assert set(request.params) == STANDARD | {"X-PH-Team"} | OF_A_MEMBER | more | own
        assert request.params["Event"] == event
        assert request.method == method
        assert request.query["kept"] == "yes"
        assert "#" not in request.url
        assert request.params["ConferenceName"] == name
        if method == "POST":
            assert request.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    for request in (answer, *callbacks, action):
        standard_parameters(stage, request, caller)
        assert request.params["CallUUID"] == answer.params["CallUUID"]
    assert answer.params["Event"] == "StartApp"
    assert answer.params["CallStatus"] == "ringing"
    assert enter.params["CallStatus"] == digits.params["CallStatus"] == "in-progress"
    assert (enter.params["ConferenceFirstMember"], leave.params["ConferenceLastMember"]) == ("true", "true")
    assert digits.params["ConferenceDigitsMatch"] == "42"
    assert leave.params["ConferenceExitReason"] == "hangup"
    of_the_end(leave)
    of_the_end(action)
    assert "ConferenceSequence" not in action.params
    assert len({request.params["ConferenceUUID"] for request in (*callbacks, action)}) == 1
    assert UUID(enter.params["ConferenceUUID"])
    assert int(enter.params["ConferenceMemberID"]) > 0
    stage.saw(
        f"{method}: {', '.join(request.params['Event'] for request in callbacks)}; {len(leave.params)} at the exit"
    )


@pytest.mark.row("callbackUrl", "ConferenceFirstMember, ConferenceLastMember; member IDs from one counter")
async def test_first_and_last(stage: Stage) -> None:
    document = '<Conference callbackUrl="{url}/events">c</Conference>'
    # A caller who waits for the start is a member too.
    waiting = document.replace("<Conference", '<Conference startConferenceOnEnter="false"')
    async with stage.callers(3) as (ann, bob, cid):
        for phone in (ann, bob):
            await stage.call(phone, waiting)
            await stage.enters(phone)
        await stage.call(cid, document.replace(">c<", ">another<"))
        await stage.enters(cid)
        for phone in (ann, bob, cid):
            await phone.hang_up()
            await stage.leaves(phone)
    enters, exits = stage.events("ConferenceEnter"), stage.events("ConferenceExit")
    assert [one.params["ConferenceFirstMember"] for one in enters] == ["true", "false", "true"]
    assert [one.params["ConferenceLastMember"] for one in exits] == ["false", "true", "true"]
    ids = [int(one.params["ConferenceMemberID"]) for one in enters]
    assert ids == list(range(ids[0], ids[0] + 3))
    assert [int(one.params["ConferenceMemberID"]) for one in exits] == ids
    stage.saw("first: true, false, in another conference true; last: false, true, there true; IDs n, n+1, n+2")


@pytest.mark.row(
    "ConferenceSequence",
    "1, 2, 3 … within the conference, without gaps, in that order at one URL; Timestamp is the event's",
)
async def test_order(stage: Stage) -> None:
    stage.receiver.statuses["/ann"] = [500, 200]
    stage.receiver.delays["/ann"] = 0.4
    document = '<Conference callbackUrl="{url}/ann#rc=2&amp;rp=all" digitsMatch="1,2,3">c</Conference>'
    async with stage.callers(3) as (ann, bob, cid):
        ann.tone(2575)
        await stage.call(ann, document)
        await stage.call(bob, document.replace("/ann", "/bob"))
        # Without a callbackUrl there is nothing to count.
        await stage.call(cid, "<Conference>c</Conference>")
        await stage.hears(bob, 2575)
        await stage.hears(cid, 2575)
        await ann.press("123", gap_ms=60, duration_ms=80)
        await cid.hang_up()
        await ann.hang_up()
        # If two members hang up at the same time, Asterisk may report them in any order.
        await stage.leaves(ann)
        await bob.hang_up()
        await stage.leaves(bob)
    at_ann, at_bob = stage.receiver.requests_to("/ann"), stage.receiver.requests_to("/bob")
    told = [int(request.params["ConferenceSequence"]) for request in at_ann]
    # The first request was refused and was sent again before all others.
    assert told == [1, 1, 3, 4, 5, 6]
    assert [int(request.params["ConferenceSequence"]) for request in at_bob] == [2, 7]
    matched = [request.params.get("ConferenceDigitsMatch") for request in at_ann]
    assert matched == [None, None, "1", "2", "3", None]
    stamps = [int(request.params["Timestamp"]) for request in at_ann]
    assert stamps == sorted(stamps)
    assert stamps[0] == stamps[1]
    # The receiver took 0.4 s for each: each callback arrived later after its event than the one before.
    late = [request.at_ms - stamp for request, stamp in zip(at_ann, stamps, strict=True)]
    assert all(ms >= 0 for ms in late)
    assert late[-1] >= 800
    stage.saw(f"one URL got {told} (1 was answered 500 first), the other [2, 7]; told up to {max(late):.0f} ms late")


@pytest.mark.row(
    "a bad attribute value", "the default is used, and a warning goes to the log and to the account's problem list"
)
async def test_bad_values(stage: Stage) -> None:
    bad = {
        "muted": "on",
        "maxMembers": "21",
        "timeLimit": "-1",
        "callbackMethod": "PUT",
        "enterSound": "beep:3",
        "record": "2",
        "recordFileFormat": "ogg",
        "digitsMatch": "12,ab",
        "transcriptionType": "human",
        "relayDTMF": "y",
    }
    attributes = " ".join(f'{name}="{value}"' for name, value in bad.items())
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        await stage.call(bob, "<Conference>c</Conference>")
        await stage.call(ann, f'<Conference {attributes} callbackUrl="{{url}}/events">c</Conference>')
        entered = await stage.enters(ann)
        # The defaults: not muted, callbacks by POST, digits relayed.
        await stage.hears(bob, 2575)
        assert entered.method == "POST"
        await ann.press("5")
        await bob.wait_for_digits("5")
        problems = stage.problems()
        for phone in (ann, bob):
            await phone.hang_up()
        left = await stage.leaves(ann)
    assert "RecordUrl" not in left.params
    log = [json.loads(line) for line in stage.system.log("serve").read_text().splitlines()]
    warned = [str(line) for line in log if line["level"] == "warning" and entered.params["CallUUID"] in str(line)]
    for name, value in bad.items():
        assert sum(f'Conference: {name}="{value}" is not allowed (' in problem for problem in problems) == 1
        assert any(name in line and value in line for line in warned), name
    assert len(problems) == len(bad)
    stage.saw(f"{len(bad)} bad values, {len(bad)} problems, such as {problems[-1]}")


@pytest.mark.row("a bad attribute value", "a URL that is not absolute http(s): the attribute counts as not given")
async def test_bad_urls(stage: Stage) -> None:
    names = ("action", "callbackUrl", "waitSound", "transcriptionUrl")
    stage.tones("/after.wav", (3325, 300))
    attributes = " ".join(f'{name}="events.php"' for name in names)
    async with stage.callers(1) as (ann,):
        # A Play without a URL is skipped; the others run.
        await stage.call(
            ann,
            f"<Conference {attributes} timeLimit='1'>c</Conference><Play>x.wav</Play><Play>{{url}}/after.wav</Play>",
        )
        await ann.wait_until_hung_up()
        assert audio_analysis.intervals_of(ann.as_sent(), 3325)
    problems = stage.problems()
    for name in names:
        told = f'Conference: {name}="events.php" is not allowed (an absolute http or https URL); none is used'
        assert sum(told in problem for problem in problems) == 1
    assert len(problems) == len(names) + 1
    stage.saw(f"{len(names)} URLs that are none, as many problems, and the next element is heard")
