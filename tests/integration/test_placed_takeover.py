"""The server dies while a call is placed: at any step, the request is dialed once and told, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from ari_conf.local.system import LocalSystem
from tests.integration.called_phone import CalledPhone
from tests.integration.stage import ALLOWED, staged
from tests.integration.test_calling_out import Caller

pytestmark = pytest.mark.asyncio(loop_scope="session")

DELAYS_MS = (0, 2, 4, 6, 8, 10, 12, 15, 18, 22, 30, 50)
"""Milliseconds from the request until the server is killed: a call is dialed within some 20."""


@pytest_asyncio.fixture(loop_scope="session")
async def mortal(tmp_path: Path) -> AsyncGenerator[Caller]:
    parts = ("redis", "asterisk", "worker", "serve", "web")
    async with LocalSystem(tmp_path, ALLOWED, parts) as system, staged(system) as stage:
        login = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
        async with aiohttp.ClientSession(headers=login) as session:
            yield Caller(stage, session)


async def test_killed_at_each_step_of_a_request(mortal: Caller) -> None:
    stage, outcomes = mortal.stage, list[str]()
    stage.document("/answer", "<Hangup/>")
    for delay_ms in DELAYS_MS:
        async with CalledPhone() as ann:
            ann.rings_at_once = True
            mortal.allow(ann.host)
            urls = {"answer_url": stage.receiver.url("/answer"), "hangup_url": stage.receiver.url("/hangup")}
            body = {"from": "4930123", "to": ann.uri, **urls}
            asked = asyncio.create_task(mortal.ask("POST", "Call/", **body))
            await asyncio.sleep(delay_ms / 1000)
            await stage.system.kill("serve")
            await stage.system.start("serve")
            status, reply = await asked
            if status == 201:
                await ann.invited()
                ann.answer()
                told = await mortal.told("Hangup", CallUUID=reply["request_uuid"])
                assert told["CallStatus"] == "completed", f"{delay_ms} ms: {told}"
                assert len(ann.invites) == 1, f"{delay_ms} ms: the phone was called {len(ann.invites)} times"
            else:
                assert status == 503, reply
                assert not ann.invites, f"{delay_ms} ms: refused, and the phone was called"
            outcomes.append(f"{delay_ms} ms: {status}")
            await stage.nothing_left()
            hangups = [request.params["CallUUID"] for request in stage.events("Hangup")]
            assert len(hangups) == len(set(hangups)) == sum("201" in outcome for outcome in outcomes)
    stage.saw("; ".join(outcomes))


@pytest.mark.parametrize("does", ["answers", "refuses", "goes on ringing"])
async def test_what_the_phone_does_while_the_server_is_away_is_not_lost(mortal: Caller, does: str) -> None:
    stage = mortal.stage
    stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        uuid = await mortal.place(ann, ring_url=stage.receiver.url("/ring"))
        await ann.invited()
        await stage.system.kill("serve")
        ann.reply("180 Ringing")
        if does == "answers":
            ann.answer()
            await ann.until("ACK")
        elif does == "refuses":
            ann.reply("486 Busy Here")
            await ann.until("ACK")
        await stage.system.start("serve")
        if does == "refuses":
            told = await mortal.told("Hangup")
            # Nobody was there to hear why.
            assert (told["CallStatus"], told["HangupCauseCode"]) == ("failed", "0")
            return
        if does == "goes on ringing":
            await mortal.told("Ring")
            ann.answer()
        await mortal.told("StartApp")
        assert (await mortal.ask("DELETE", f"Call/{uuid}/"))[0] == 204
        await ann.hung_up()
        await mortal.told("Hangup")
    assert len(ann.invites) == 1


async def test_asterisk_dies_while_the_phone_rings(mortal: Caller) -> None:
    async with CalledPhone() as ann:
        await mortal.place(ann)
        await ann.invited()
        ann.reply("180 Ringing")
        await mortal.stage.system.kill("asterisk")
        await mortal.stage.system.start("asterisk")
        told = await mortal.told("Hangup")
    assert (told["CallStatus"], told["HangupCauseCode"], told["HangupSource"]) == ("failed", "0", "Unknown")
    assert len(ann.invites) == 1


async def test_without_a_server_the_request_is_refused(mortal: Caller) -> None:
    async with CalledPhone() as ann:
        mortal.allow(ann.host)
        await mortal.stage.system.kill("serve")
        urls = {"answer_url": "http://127.0.0.1:1/"}
        status, reply = await mortal.ask("POST", "Call/", **{"from": "4930123", "to": ann.uri, **urls})
        assert (status == 503 and "nothing was dialed" in reply["error"]) or "no server" in reply["error"]
        await mortal.stage.system.start("serve")
        await mortal.stage.nothing_left()
        assert not ann.invites
