"""Dial on a real Asterisk when things come at once, or at the wrong moment: answers that cross, a caller who hangs up,
phones that hold, the API, and a server or a Redis that is away."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from ari_conf.local.system import LocalSystem
from demo import audio_analysis
from demo.phone import Phone
from tests.integration import test_dial_element
from tests.integration.called_phone import CalledPhone
from tests.integration.stage import ALLOWED, Stage
from tests.integration.test_calling_out import Caller, api, calling
from tests.integration.test_dial_element import RING_HZ, dial, result, talk, told, told_of
from tests.integration.test_elements import AFTER_HZ
from tests.integration.test_recordings import decoded, fetched

__all__ = ["api", "calling", "continues"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

continues = test_dial_element.continues


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[LocalSystem]:
    async with LocalSystem(tmp_path_factory.mktemp("odds"), ALLOWED) as system:
        yield system


async def connected(stage: Stage, api: Caller, ann: Phone, bob: CalledPhone, **attributes: str) -> tuple[str, str]:
    """Let Ann call, and a Dial connect the two; return the UUIDs of the two calls."""
    await asyncio.gather(stage.call(ann, dial(api, bob, **attributes)), bob.invited())
    bob.answer()
    found = (await told_of(stage, "connected")).params
    return found["DialALegUUID"], found["DialBLegUUID"]


async def test_two_answer_at_the_same_moment(api: Caller) -> None:
    """One of the two is connected, and the other one is hung up."""
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as cid:
        arriving = asyncio.create_task(stage.call(ann, dial(api, bob, cid)))
        for phone in (bob, cid):
            await phone.invited()
            phone.reply("180 Ringing")
            phone.ignores_cancel = True
        bob.answer()
        cid.answer()
        await arriving
        first = await told_of(stage, "connected")
        winner, loser = (bob, cid) if first.params["DialBLegTo"] == bob.uri else (cid, bob)
        await loser.hung_up()
        await talk(stage, ann, winner)
        assert told(stage).count("connected") == 1
        winner.hang_up()
        await stage.hears(ann, AFTER_HZ)
        assert (await result(stage))[0] == "completed"


@pytest.mark.parametrize("ms", [0, 1, 3, 6, 10, 20, 40])
async def test_the_caller_hangs_up_when_it_is_answered(api: Caller, ms: int) -> None:
    """The hangup crosses the answer, or comes while the two are being connected: nobody is left alone."""
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        bob.reply("180 Ringing")
        await stage.hears(ann, RING_HZ)
        bob.ignores_cancel = True
        bob.answer()
        await asyncio.sleep(ms / 1000)
        await ann.hang_up()
        await bob.hung_up()
        assert (await result(stage))[0] in ("cancel", "completed")
        await told_of(stage, "hangup")
    assert told(stage)[-1] == "hangup" and told(stage).count("hangup") == 1


async def test_the_caller_hangs_up_before_anything_rings(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        await ann.hang_up()
        bob.reply("180 Ringing")
        await bob.canceled()
        assert (await result(stage))[0] == "cancel"


async def test_the_caller_hangs_up_while_the_key_is_asked_for(api: Caller) -> None:
    stage = api.stage
    stage.document("/prompt", f"<Play>{stage.tones('/prompt.wav', (700, 3000))}</Play>")
    more = {"confirmKey": "5", "confirmSound": "{url}/prompt"}
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob, **more)), bob.invited())
        bob.answer()
        await stage.until(lambda: bob.hears(700))
        await ann.hang_up()
        await bob.hung_up()
        assert (await result(stage))[0] == "cancel"


@pytest.mark.parametrize("who", ["ann", "bob"])
async def test_a_phone_that_holds_and_resumes(api: Caller, who: str) -> None:
    """The music of the phone that holds is not heard; both go on afterwards."""
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await connected(stage, api, ann, bob)
        await talk(stage, ann, bob)
        if who == "ann":
            await ann.hold()
            await stage.until(lambda: audio_analysis.silent(bob.heard()[-4000:]), description="Bob hears Ann")
            await ann.resume()
            ann.tone(1675)
            await stage.until(lambda: bob.hears(1675), description="Bob does not hear Ann again")
        else:
            bob.hold()
            await stage.goes_quiet(ann)
            bob.resume()
            bob.tone(1675)
            await stage.hears(ann, 1675)
        await ann.hang_up()
        await bob.hung_up()
        assert (await result(stage))[0] == "completed"


@pytest.mark.parametrize("which", [0, 1])
async def test_the_api_hangs_up_one_of_those_who_talk(api: Caller, which: int) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        uuids = await connected(stage, api, ann, bob)
        await talk(stage, ann, bob)
        assert (await api.ask("DELETE", f"Call/{uuids[which]}/"))[0] == 204
        await bob.hung_up()
        if which == 0:
            await ann.wait_until_hung_up()
        else:
            await stage.hears(ann, AFTER_HZ)
        assert (await result(stage))[0] == "completed"
        assert (await told_of(stage, "hangup")).params["DialBLegUUID"] == uuids[1]


async def test_both_are_transferred(api: Caller) -> None:
    stage = api.stage
    for name, hz in (("ann", 1375), ("bob", 2175)):
        stage.document(f"/{name}", f"<Play>{stage.tones(f'/{name}.wav', (hz, 4000))}</Play>")
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        uuid, _ = await connected(stage, api, ann, bob)
        wanted = {"legs": "both", "aleg_url": stage.receiver.url("/ann"), "bleg_url": stage.receiver.url("/bob")}
        assert (await api.ask("POST", f"Call/{uuid}/", **wanted))[0] == 202
        await stage.hears(ann, 1375)
        await stage.until(lambda: bob.hears(2175), description="Bob does not hear the document")
        await ann.hang_up()
        await asyncio.sleep(0.3)
        assert not bob.requests("BYE")
        bob.hang_up()
    assert not stage.receiver.requests_to("/dialed")


async def test_a_transferred_caller_dials_again(api: Caller) -> None:
    """A transfer into a document with a Dial of its own, while the first one rings."""
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as cid:
        second = dial(api, cid, callbackUrl="{url}/second")
        api.allow(bob.host, cid.host)
        stage.document("/again", second)
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        bob.reply("180 Ringing")
        await stage.hears(ann, RING_HZ)
        api.allow(bob.host, cid.host)
        (uuid,) = (await api.ask("GET", "Call/", status="live", call_direction="inbound"))[1]["calls"]
        wanted = {"legs": "aleg", "aleg_url": stage.receiver.url("/again")}
        assert (await api.ask("POST", f"Call/{uuid}/", **wanted))[0] == 202
        await asyncio.gather(bob.canceled(), cid.invited())
        cid.answer()
        await talk(stage, ann, cid)
        await ann.hang_up()
        await cid.hung_up()


async def test_a_dial_of_a_call_that_the_api_has_placed(api: Caller) -> None:
    stage = api.stage
    async with CalledPhone("4915550002") as zoe, CalledPhone() as bob:
        document = stage.document("/called", dial(api, bob))
        await api.place(zoe, answer_url=document)
        await zoe.invited()
        api.allow(zoe.host, bob.host)
        zoe.answer()
        await bob.invited()
        bob.reply("180 Ringing")
        await stage.until(lambda: zoe.hears(RING_HZ), description="Zoe does not hear the ringing")
        bob.answer()
        await told_of(stage, "connected")
        zoe.tone(2575)
        bob.tone(2875)
        await stage.until(lambda: bob.hears(2575) and zoe.hears(2875), description="the two do not talk")
        zoe.hang_up()
        await bob.hung_up()
        assert (await result(stage))[0] == "completed"


async def test_twenty_ring_and_one_answers(api: Caller) -> None:
    stage = api.stage
    async with AsyncExitStack() as stack:
        (ann,) = await stack.enter_async_context(stage.callers(1))
        phones = [await stack.enter_async_context(CalledPhone()) for _ in range(20)]
        for phone in phones:
            phone.rings_at_once = True
        await asyncio.gather(stage.call(ann, dial(api, *phones)), *(phone.invited() for phone in phones))
        await stage.hears(ann, RING_HZ)
        phones[13].answer()
        await asyncio.gather(*(phone.canceled() for phone in phones if phone is not phones[13]))
        await talk(stage, ann, phones[13])
        await ann.hang_up()
        await phones[13].hung_up()
        assert (await result(stage))[0] == "completed"
        await stage.until(lambda: told(stage).count("hangup") == 20)
    assert all(len(phone.invites) == 1 for phone in phones)


async def test_the_talk_is_recorded(api: Caller) -> None:
    """By the element before the Dial, and by the API meanwhile: files with both voices."""
    stage = api.stage
    record = '<Record startOnDialAnswer="true" redirect="false" action="{url}/recorded" callbackUrl="{url}/stored"/>'
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, record + dial(api, bob)), bob.invited())
        bob.answer()
        uuid = (await told_of(stage, "connected")).params["DialALegUUID"]
        await talk(stage, ann, bob)
        status, reply = await api.ask("POST", f"Call/{uuid}/Record/", callback_url=stage.receiver.url("/api"))
        assert status == 202, reply
        await stage.listen(ann, 1500)
        assert (await api.ask("DELETE", f"Call/{uuid}/Record/"))[0] == 204
        by_api = await stage.receiver.wait_for(lambda request: request.path == "/api")
        bob.hang_up()
        await stage.hears(ann, AFTER_HZ)
        await ann.wait_until_hung_up()
        by_element = await stage.receiver.wait_for(lambda request: request.path == "/stored")
    for stored in (by_api, by_element):
        url = stored.params.get("RecordUrl") or stored.params["record_url"]
        audio = decoded(fetched(url).content)
        for hz in (2575, 2875):
            assert audio_analysis.intervals_of(audio, hz), f"{stored.path}: no {hz} Hz"
    assert stage.problems() == []


@pytest.mark.parametrize("ready", [False, True])
async def test_it_is_answered_while_no_server_is_there_or_just_when_one_is(api: Caller, ready: bool) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        await asyncio.gather(stage.call(ann, dial(api, bob)), bob.invited())
        bob.reply("180 Ringing")
        await stage.hears(ann, RING_HZ)
        await stage.system.kill("serve")
        starting = asyncio.create_task(stage.system.start("serve"))
        if ready:
            await starting
        bob.answer()
        await starting
        await told_of(stage, "connected")
        await talk(stage, ann, bob)
        bob.hang_up()
        await stage.hears(ann, AFTER_HZ)
        assert await result(stage) == ("completed", "true", "NORMAL_CLEARING")
    assert len(bob.invites) == 1 and told(stage) == ["answer", "connected", "hangup"]


async def test_the_caller_has_hung_up_while_no_server_is_there(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (ann,), CalledPhone() as bob, CalledPhone() as cid:
        await asyncio.gather(stage.call(ann, dial(api, bob, cid)), bob.invited(), cid.invited())
        bob.reply("180 Ringing")
        cid.reply("180 Ringing")
        await stage.hears(ann, RING_HZ)
        await stage.system.kill("serve")
        await ann.hang_up()
        bob.answer()
        await stage.system.start("serve")
        await asyncio.gather(bob.hung_up(), cid.canceled())
        assert (await result(stage))[0] in ("cancel", "completed")
        await stage.until(lambda: told(stage).count("hangup") == 2)


async def test_redis_does_not_answer_when_it_is_to_be_dialed(api: Caller) -> None:
    """The caller waits a moment longer, and the two talk."""
    stage = api.stage
    redis = stage.system.process("redis").pid
    async with stage.callers(1) as (ann,), CalledPhone() as bob:
        # A Wait that is the first element does not answer.
        await stage.call(ann, f"<Wait length='1'/><Wait length='1'/>{dial(api, bob)}")
        os.kill(redis, signal.SIGSTOP)
        try:
            await asyncio.sleep(3)
            assert not bob.invites
        finally:
            os.kill(redis, signal.SIGCONT)
        await bob.invited()
        bob.answer()
        await talk(stage, ann, bob)
        await ann.hang_up()
        await bob.hung_up()
        assert (await result(stage))[0] == "completed"
