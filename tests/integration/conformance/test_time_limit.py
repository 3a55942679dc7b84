"""timeLimit."""

from __future__ import annotations

import pytest

from tests.integration.receiver import Request
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


def conference(limit: str) -> str:
    attribute = f'timeLimit="{limit}"' if limit else ""
    return f'<Conference {attribute} callbackUrl="{{url}}/events">c</Conference><Play>{{url}}/after.wav</Play>'


def ms_between(earlier: Request, later: Request) -> float:
    return float(later.params["Timestamp"]) - float(earlier.params["Timestamp"])


def reasons(stage: Stage) -> list[str]:
    return [request.params["ConferenceExitReason"] for request in stage.events("ConferenceExit")]


@pytest.mark.row("timeLimit", "the conference ends after it, for all; the others go on with their next element")
async def test_it_ends_for_all(stage: Stage) -> None:
    stage.tones("/after.wav", (3325, 300))
    async with stage.callers(2) as (ann, bob):
        await stage.call(ann, conference("2"))
        # The first member whose element gives a limit sets it, from that member's entry on; later ones are ignored.
        await stage.call(bob, conference("1"))
        await stage.until(lambda: len(reasons(stage)) == 2)
        assert reasons(stage) == ["time_limit", "time_limit"]
        lasted = ms_between(stage.events("ConferenceEnter")[0], stage.events("ConferenceExit")[0])
        assert lasted >= 2000
        await stage.hears(ann, 3325)
        await stage.hears(bob, 3325)
        await ann.wait_until_hung_up()
        await bob.wait_until_hung_up()
    stage.saw(f"timeLimit 2, the second member's 1 ignored: over after {lasted:.0f} ms; both heard their next element")


@pytest.mark.row("timeLimit", "the first member whose element gives one sets it, from that member's entry on")
async def test_a_later_member_may_be_the_first_to_give_one(stage: Stage) -> None:
    stage.tones("/after.wav", (3325, 300))
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        await stage.call(ann, conference(""))
        await stage.listen(ann, 1000)
        await stage.call(bob, conference("1"))
        await stage.hears(bob, 2575)
        await stage.until(lambda: len(reasons(stage)) == 2)
        assert reasons(stage) == ["time_limit", "time_limit"]
        lasted = ms_between(stage.events("ConferenceEnter")[1], stage.events("ConferenceExit")[0])
        assert lasted >= 1000
        await ann.wait_until_hung_up()
        await bob.wait_until_hung_up()
    stage.saw(f"over {lasted:.0f} ms after the entry of the second, who gave 1")


@pytest.mark.row("timeLimit", "0: no limit of its own; a value above the cap: the cap holds")
@pytest.mark.parametrize("limit", ["0", "999999999", "99999999999999999999"])
async def test_no_limit_of_its_own(stage: Stage, limit: str) -> None:
    stage.tones("/after.wav", (3325, 300))
    async with stage.callers(2) as (ann, bob):
        ann.tone(2575)
        await stage.call(ann, conference(limit))
        # Bob's limit of 1 s would end the conference, but the first member has given one already.
        await stage.call(bob, conference("1"))
        await stage.hears(bob, 2575)
        await stage.listen(bob, 1500)
        assert reasons(stage) == []
        await ann.hang_up()
        await bob.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
    assert reasons(stage) == ["hangup", "hangup"]
    assert stage.problems() == []
    stage.saw(f"{limit}: it goes on after another member's 1 s")
