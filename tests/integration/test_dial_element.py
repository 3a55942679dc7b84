"""Dial on a real Asterisk: a document calls phones, and the caller talks to the first who answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from demo import audio_analysis
from demo.phone import Phone
from tests.integration.called_phone import CalledPhone
from tests.integration.receiver import Request
from tests.integration.stage import SOON_S, Stage
from tests.integration.test_calling_out import Caller, api, calling, system
from tests.integration.test_elements import AFTER, AFTER_HZ

__all__ = ["api", "calling", "system"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

RING_HZ = 425


def dial(api: Caller, *phones: CalledPhone, inside: str = "", **attributes: str) -> str:
    """Return a Dial to these phones, which the account may call."""
    api.allow(*[phone.host for phone in phones])
    given = {"callerId": "4930123", "action": "{url}/dialed", "callbackUrl": "{url}/leg"} | attributes
    written = " ".join(f'{name}="{value}"' for name, value in given.items())
    users = "".join(f"<User {inside}>{phone.uri}</User>" for phone in phones)
    return f"<Dial {written}>{users}</Dial>"


async def result(stage: Stage) -> tuple[str, str, str]:
    """Return what the element's action is told: DialStatus, DialRingStatus and DialHangupCause."""
    asked = await stage.receiver.wait_for(lambda request: request.path == "/dialed")
    return asked.params["DialStatus"], asked.params["DialRingStatus"], asked.params["DialHangupCause"]


def told(stage: Stage) -> list[str]:
    return [request.params["DialAction"] for request in stage.receiver.requests_to("/leg")]


async def told_of(stage: Stage, action: str) -> Request:
    return await stage.receiver.wait_for(
        lambda request: request.path == "/leg" and request.params["DialAction"] == action
    )


@pytest.fixture(autouse=True)
def continues(calling: Stage) -> Iterator[None]:
    """Let each document go on after the Dial with a tone."""
    calling.tones("/after.wav", (AFTER_HZ, 300))
    calling.document("/dialed", AFTER)
    yield


async def talk(stage: Stage, ann: Phone, bob: CalledPhone) -> None:
    """See that the two hear each other, and nothing else."""
    bob.tone(2875)
    ann.tone(2575)
    await stage.hears(ann, 2875)
    await stage.until(lambda: bob.hears(2575), description="Bob does not hear Ann")
    assert set(audio_analysis.tones(await stage.listen(ann, 500))) == {2875}


@pytest.mark.row(
    "Dial: callerId, action, callbackUrl, dialMusic",
    "the caller hears ringing, then the two talk; answer, connected and hangup are told",
)
async def test_the_caller_hears_ringing_and_then_the_two_talk(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob)))
        await bob.invited()
        assert bob.caller == ("4930123", "4930123")
        bob.reply("180 Ringing")
        await arriving
        await stage.hears(ann, RING_HZ)
        bob.answer()
        connected = await told_of(stage, "connected")
        assert connected.params["DialBLegTo"] == bob.uri and connected.params["DialBLegFrom"] == "4930123"
        assert connected.params["Event"] == "DialConnected" and connected.params["From"] == stage.number(ann)
        await talk(stage, ann, bob)
        bob.hang_up()
        await stage.hears(ann, AFTER_HZ)
        assert await result(stage) == ("completed", "true", "NORMAL_CLEARING")
        ended = await told_of(stage, "hangup")
        assert (ended.params["DialBLegHangupSource"], ended.params["DialBLegHangupCauseCode"]) == ("Callee", "4000")
        await ann.wait_until_hung_up()
    assert told(stage) == ["answer", "connected", "hangup"]
    status, listed = await api.ask("GET", "Conference/")
    assert status == 200 and listed["conferences"] == []


@pytest.mark.parametrize(
    ("reply", "status", "cause"), [("486 Busy Here", "busy", "USER_BUSY"), ("603 Decline", "busy", "CALL_REJECTED")]
)
@pytest.mark.row("Dial: redirect", "the action's document runs: the next Dial")
async def test_a_phone_that_refuses_and_the_next_dial(api: Caller, reply: str, status: str, cause: str) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as cid:
        api.allow(bob.host, cid.host)
        stage.document("/dialed", dial(api, bob, cid, action="{url}/never").replace(f"<User >{bob.uri}</User>", ""))
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob)))
        await bob.invited()
        api.allow(bob.host, cid.host)
        bob.reply("180 Ringing")
        bob.reply(reply)
        got = await result(stage)
        # Asterisk reports no ringing if the refusal follows at once.
        assert got[2] == cause and got[0] in (status, "failed")
        await cid.invited()
        cid.answer()
        await arriving
        await talk(stage, ann, cid)
        await ann.hang_up()
        await cid.hung_up()


@pytest.mark.row("Dial: User", "several ring at once, the first who answers wins, the others list no missed call")
async def test_two_ring_and_the_first_wins(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as cid:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob, cid)))
        for phone in (bob, cid):
            await phone.invited()
            phone.reply("180 Ringing")
        cid.answer()
        canceled = await bob.canceled()
        assert 'text="Call completed elsewhere"' in canceled.first("reason")
        await arriving
        await talk(stage, ann, cid)
        # Who hangs up ends it for the other one.
        await ann.hang_up()
        await cid.hung_up()
        assert await result(stage) == ("completed", "true", "NORMAL_CLEARING")
        await stage.until(lambda: told(stage).count("hangup") == 2)
        names = {request.params.get("DialBLegHangupCauseName", "") for request in stage.receiver.requests_to("/leg")}
        assert {"Lost Race", "Normal Hangup"} <= names


@pytest.mark.row("Dial: action", "the caller gives up: cancel")
async def test_the_caller_gives_up_while_it_rings(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        bob.reply("180 Ringing")
        await stage.hears(ann, RING_HZ)
        await ann.hang_up()
        await bob.canceled()
        assert await result(stage) == ("cancel", "true", "ORIGINATOR_CANCEL")


@pytest.mark.row(
    "Dial: confirmKey, confirmSound, dialMusic",
    "a prompt, and only who presses the key is connected; a URL's sound in place of ringing",
)
async def test_only_who_presses_the_key_is_connected(api: Caller) -> None:
    stage = api.stage
    stage.document("/prompt", f"<Play>{stage.tones('/prompt.wav', (700, 400))}</Play>")
    music = stage.tones("/music.wav", (1175, 3000))
    more = {"confirmKey": "5", "confirmSound": "{url}/prompt", "dialMusic": music}
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob, **more)))
        await bob.invited()
        await arriving
        await stage.hears(ann, 1175)
        bob.answer()
        await stage.until(lambda: bob.hears(700))
        assert told(stage) in ([], ["answer"])
        await bob.press("5")
        await told_of(stage, "connected")
        await talk(stage, ann, bob)
        await ann.hang_up()
        await bob.hung_up()


@pytest.mark.row(
    "Dial: hangupOnStar, digitsMatch, digitsMatchBLeg",
    "the digits of each leg are told, with who pressed them; * ends it",
)
async def test_the_star_and_the_digits_that_are_waited_for(api: Caller) -> None:
    stage = api.stage
    more = {"hangupOnStar": "true", "digitsMatch": "12", "digitsMatchBLeg": "34"}
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob, **more)), bob.invited())
        bob.answer()
        await told_of(stage, "connected")
        await ann.press("12")
        first = await told_of(stage, "digits")
        assert first.params["DialDigitsMatch"] == "12"
        assert first.params["DialDigitsPressedBy"] == first.params["CallUUID"] == first.params["DialALegUUID"]
        await bob.press("3")
        await bob.press("4")
        second = await stage.receiver.wait_for(lambda request: request.params.get("DialDigitsMatch") == "34")
        assert second.params["DialDigitsPressedBy"] == second.params["DialBLegUUID"]
        await ann.press("*")
        await bob.hung_up()
        await stage.hears(ann, AFTER_HZ)
        assert (await result(stage))[0] == "completed"


@pytest.mark.row(
    "Dial: timeLimit, sipHeaders, callerName",
    "hung up so many seconds after the answer; X-PH-… and the name in the INVITE",
)
async def test_the_time_limit_and_digits_and_headers(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        wanted = dial(api, bob, timeLimit="3", sipHeaders="Team=blue", callerName="Sales", inside='sendDigits="42"')
        await asyncio.gather(stage.call(ann, wanted), bob.invited())
        assert bob.invites[0].first("x-ph-team") == "blue" and bob.caller == ("4930123", "Sales")
        bob.answer()
        await stage.until(lambda: "".join(digit for _, digit in bob.digits) == "42")
        await bob.hung_up()
        await stage.hears(ann, AFTER_HZ)
        assert await result(stage) == ("completed", "true", "ALLOTTED_TIMEOUT")


@pytest.mark.row("Dial: timeout", "canceled so many seconds later, and the document goes on")
async def test_nobody_answers_in_time(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob, timeout="2")), bob.invited())
        bob.reply("180 Ringing")
        await bob.canceled()
        await stage.hears(ann, AFTER_HZ)
        status, rang, _ = await result(stage)
        assert status in ("no-answer", "timeout") and rang == "true"


@pytest.mark.row("Dial: User", "what the account may not dial is not dialed, and is a problem")
async def test_what_may_not_be_dialed_is_not(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as other:
        wanted = dial(api, bob)
        api.allow(other.host)
        await stage.call(ann, wanted)
        await stage.hears(ann, AFTER_HZ)
        assert await result(stage) == ("failed", "false", "")
        assert not bob.invites
        assert any("Dial: destination_not_allowed" in problem for problem in stage.problems())


@pytest.mark.row(
    "Transfer: legs, bleg_url",
    "Play, DTMF and transfer of the second leg, which goes on alone; the caller's document continues",
)
async def test_the_api_for_the_second_leg(api: Caller) -> None:
    """Play, DTMF and transfer of the second leg, which goes on alone; the caller's document continues."""
    stage = api.stage
    sound = stage.tones("/hello.wav", (1975, 600))
    stage.document("/alone", f"<Play>{stage.tones('/alone.wav', (2175, 3000))}</Play>")
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        bob.answer()
        uuid = (await told_of(stage, "connected")).params["DialALegUUID"]
        assert (await api.ask("POST", f"Call/{uuid}/Play/", urls=sound, legs="bleg"))[0] == 202
        await stage.until(lambda: bob.hears(1975), description="Bob does not hear the sound")
        assert not audio_analysis.intervals_of(ann.heard.audio, 1975)
        assert (await api.ask("POST", f"Call/{uuid}/DTMF/", digits="7", leg="bleg"))[0] == 202
        await stage.until(lambda: "".join(digit for _, digit in bob.digits) == "7")
        wanted = {"legs": "bleg", "bleg_url": stage.receiver.url("/alone")}
        assert (await api.ask("POST", f"Call/{uuid}/", **wanted))[0] == 202
        await stage.until(lambda: bob.hears(2175), description="Bob does not hear the document")
        await stage.hears(ann, AFTER_HZ)
        bob.hang_up()


@pytest.mark.row("Dial: User", "killed while it rings and while the two talk: one INVITE, no gap, the right end")
async def test_a_server_that_dies_is_not_noticed(api: Caller) -> None:
    """Killed while the phone rings, and again while the two talk: one INVITE, no gap, and the right end."""
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        bob.reply("180 Ringing")
        await stage.hears(ann, RING_HZ)
        await stage.system.kill("serve")
        await stage.system.start("serve")
        bob.answer()
        await told_of(stage, "connected")
        await talk(stage, ann, bob)
        await stage.system.kill("serve")
        heard = await stage.listen(ann, 1000)
        assert set(audio_analysis.tones(heard)) == {2875}
        await stage.system.start("serve")
        await talk(stage, ann, bob)
        bob.hang_up()
        await stage.hears(ann, AFTER_HZ)
        assert await result(stage) == ("completed", "true", "NORMAL_CLEARING")
        await ann.wait_until_hung_up(SOON_S)
    assert len(bob.invites) == 1 and told(stage) == ["answer", "connected", "hangup"]
