"""Calls out through PyPI's `plivo`, unmodified except for its base URL; a phone rings, answers and is hung up."""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from typing import Any

import plivo
import pytest
import pytest_asyncio
from plivo.exceptions import GeoPermissionError, ResourceNotFoundError, ValidationError
from plivo.rest import client as sdk

from ari_conf.store import accounts
from tests.integration.called_phone import CalledPhone
from tests.integration.stage import Stage
from tests.integration.test_calling_out import Caller, calling, system
from tests.lateness import Patience

__all__ = ["calling", "system"]
"""Fixtures of another module."""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def api(calling: Stage, monkeypatch: pytest.MonkeyPatch) -> plivo.RestClient:
    """Return the SDK's client of an account whose id the SDK accepts: MA and 18 more characters."""
    base = f"{calling.system.settings.public_url}/v1/Account"
    for name in ("API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1", "API_VOICE_BASE_URI_FALLBACK_2"):
        monkeypatch.setattr(sdk, name, base)
    calling.account = "MA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(18))
    calling.token = calling.receiver.token = accounts.add(calling.redis, int(time.time() * 1000), calling.account).token
    return plivo.RestClient(calling.account, calling.token)


async def create(stage: Stage, api: plivo.RestClient, to: str, **more: Any) -> Any:
    urls = {"answer_url": stage.receiver.url("/answer"), "hangup_url": stage.receiver.url("/hangup")}
    return await asyncio.to_thread(api.calls.create, from_="4930123", to_=to, **urls, **more)


async def test_a_call_from_its_creation_to_its_end(calling: Stage, api: plivo.RestClient) -> None:
    calling.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        Caller(calling, None).allow(ann.host)  # type: ignore[arg-type]
        placed = await create(calling, api, ann.uri, caller_name="Ann", sip_headers={"Team": "blue"})
        assert placed.message == "call fired"
        uuid = placed.request_uuid
        await ann.invited()
        ann.reply("180 Ringing")
        assert (await asyncio.to_thread(api.live_calls.list_ids)).calls == [uuid]
        assert (await asyncio.to_thread(api.queued_calls.list_ids)).calls == []
        assert (await asyncio.to_thread(api.live_calls.get, uuid)).call_status == "ringing"
        ann.answer()
        await calling.event("StartApp", CallUUID=uuid)
        assert (await asyncio.to_thread(api.calls.live_call_get, uuid)).call_status == "in-progress"
        with pytest.raises(ResourceNotFoundError):
            await asyncio.to_thread(api.calls.queued_call_get, uuid)
        await asyncio.to_thread(api.calls.hangup, uuid)
        await ann.hung_up()
        ended = await calling.event("Hangup", CallUUID=uuid)
        with pytest.raises(ResourceNotFoundError):
            await asyncio.to_thread(api.calls.hangup, uuid)
    assert ended.params["HangupSource"] == "API Request"
    await in_the_history(api, uuid, ann.uri)


async def in_the_history(api: plivo.RestClient, uuid: str, to: str) -> None:
    patience = Patience(30)
    while not (listed := await asyncio.to_thread(api.calls.list, call_direction="outbound", limit=20, offset=0)):
        assert not patience.over, "the call is not in the history"
        await asyncio.sleep(0.2)  # the history is polled: nothing tells that a record was written
    assert listed.meta.total_count == 1
    for ended in (listed[0], await asyncio.to_thread(api.calls.get, uuid)):
        assert (ended.call_uuid, ended.call_state, ended.to_number) == (uuid, "ANSWER", to)
        assert (ended.hangup_cause_code, ended.hangup_source) == (4000, "API Request")


async def test_other_names_of_the_requests(calling: Stage, api: plivo.RestClient) -> None:
    """The SDK has several names for the same requests."""
    calling.document("/answer", "<Wait length='30'/>")
    calling.document("/next", "<Wait length='60'/>")
    async with CalledPhone() as ann:
        Caller(calling, None).allow(ann.host)  # type: ignore[arg-type]
        uuid = (await create(calling, api, ann.uri)).request_uuid
        await ann.invited()
        ann.answer()
        await calling.event("StartApp", CallUUID=uuid)
        assert (await asyncio.to_thread(api.calls.live_call_list_ids)).calls == [uuid]
        assert (await asyncio.to_thread(api.calls.queued_call_list_ids)).calls == []
        with pytest.raises(ResourceNotFoundError):
            await asyncio.to_thread(api.queued_calls.get, uuid)
        told = await asyncio.to_thread(
            api.calls.update, uuid, legs="aleg", aleg_url=calling.receiver.url("/next"), aleg_method="GET"
        )
        assert told.message == "call transferred"
        asked = await calling.receiver.wait_for(lambda request: request.path == "/next")
        assert (asked.method, asked.params["Event"]) == ("GET", "Transfer")
        assert (await asyncio.to_thread(api.calls.send_digits, uuid, "1", leg="aleg")).message == "digits sent"
        await calling.until(lambda: "".join(digit for _, digit in ann.digits) == "1")
        await asyncio.to_thread(api.calls.delete, uuid)
        await ann.hung_up()
        await calling.event("Hangup", CallUUID=uuid)


async def test_several_calls_are_canceled(calling: Stage, api: plivo.RestClient) -> None:
    async with CalledPhone("4915550001") as ann, CalledPhone("4915550002") as bob:
        Caller(calling, None).allow(ann.host, bob.host)  # type: ignore[arg-type]
        placed = await create(calling, api, f"{ann.uri}<{bob.uri}")
        for phone, uuid in zip((ann, bob), placed.request_uuid, strict=True):
            await phone.invited()
            phone.reply("180 Ringing")
            await asyncio.to_thread(api.calls.cancel, uuid)
            await phone.canceled()
            assert (await calling.event("Hangup", CallUUID=uuid)).params["CallStatus"] == "cancel"


async def test_refusals_are_the_errors_of_the_sdk(calling: Stage, api: plivo.RestClient) -> None:
    with pytest.raises(GeoPermissionError):
        await create(calling, api, "sip:ann@not-allowed.example")
    with pytest.raises(ValidationError):
        await create(calling, api, "not a number")
