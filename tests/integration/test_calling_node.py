"""Calls through the requests of Plivo's Node SDK 4.79, as it sent them to this server: byte for byte, but for names.

The SDK itself needs npm, which the machines that run these tests do not have. What its other habits are: a GET of one
live call has no slash at its end, one without filters has an empty query, and each DELETE has a body.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time
from typing import Any

import aiohttp
import pytest

from ari_conf.store import accounts
from tests.integration.called_phone import CalledPhone
from tests.integration.stage import Stage
from tests.integration.test_call_parameters import system
from tests.integration.test_calling_out import Caller, calling

__all__ = ["calling", "system"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEADERS = {
    "Accept": "application/json, text/plain, */*",
    "Content-Type": "application/json",
    "User-Agent": "plivo-node/4.79.0",
}


class Node:
    """Sends as the SDK does. `api_id` and `message` of the reply are what its objects are made of."""

    def __init__(self, stage: Stage, session: aiohttp.ClientSession) -> None:
        self._base = f"{stage.system.settings.public_url}/v1/Account/{stage.account}"
        self._session = session

    async def __call__(self, method: str, path: str, body: dict[str, Any] | None = None, *, status: int = 0) -> Any:
        # The SDK's JSON has no spaces, and no body in a GET.
        data = None if method == "GET" else json.dumps(body or {}, separators=(",", ":"))
        async with self._session.request(method, f"{self._base}/{path}", data=data, headers=HEADERS) as reply:
            text = await reply.text()
            assert reply.status == status or (not status and reply.ok), (method, path, reply.status, text)
            # The SDK makes an object of any reply, also of an empty one.
            return json.loads(text) if text else {}


async def test_all_that_it_does_with_a_call(calling: Stage) -> None:
    stage = calling
    stage.account = "MA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(18))
    stage.token = stage.receiver.token = accounts.add(stage.redis, int(time.time() * 1000), stage.account).token
    stage.document("/answer", "<Wait length='60'/>")
    stage.document("/room", '<Conference callbackUrl="{url}/events">room</Conference>')
    sound, url = stage.tones("/sound.wav", (1000, 4000)), stage.receiver.url
    login = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
    async with aiohttp.ClientSession(headers=login) as session, CalledPhone() as ann:
        node = Node(stage, session)
        Caller(stage, session).allow(ann.host)
        create = {"hangup_url": url("/hangup"), "caller_name": "Ann", "sip_headers": "Team=blue", "time_limit": 100}
        create |= {"ring_timeout": 30, "answer_method": "GET", "error_if_parent_not_found": False}
        create |= {"from": "4930123", "to": ann.uri, "answer_url": url("/answer")}
        placed = await node("POST", "Call/", create, status=201)
        uuid = placed["request_uuid"]
        await ann.invited()
        ann.reply("180 Ringing")
        assert (await node("GET", "Call/?status=live"))["calls"] == [uuid]
        assert (await node("GET", f"Call/{uuid}?status=live"))["call_status"] == "ringing"
        assert (await node("GET", "Call/?status=queued"))["calls"] == []
        await node("GET", f"Call/{uuid}?status=queued", status=404)
        await node("GET", f"Call/{uuid}/?", status=404)
        ann.answer()
        await stage.event("StartApp", CallUUID=uuid)
        live = "Call/?call_direction=outbound&from_number=4930&limit=5&offset=0&status=live"
        assert (await node("GET", live))["calls"] == [uuid]
        play = {"legs": "aleg", "loop": True, "mix": True, "length": 3, "urls": sound}
        assert (await node("POST", f"Call/{uuid}/Play/", play))["message"] == "play started"
        await stage.until(lambda: ann.hears(1000))
        await node("DELETE", f"Call/{uuid}/Play/", status=204)
        speak = {"voice": "WOMAN", "language": "en-US", "loop": False, "text": "Hello there"}
        assert (await node("POST", f"Call/{uuid}/Speak/", speak))["message"] == "speak started"
        await node("DELETE", f"Call/{uuid}/Speak/", status=204)
        assert (await node("POST", f"Call/{uuid}/DTMF/", {"leg": "aleg", "digits": "12"}))["message"] == "digits sent"
        await stage.until(lambda: "".join(digit for _, digit in ann.digits) == "12")
        record = {"file_format": "wav", "time_limit": 30, "callback_url": url("/recorded")}
        recording = await node("POST", f"Call/{uuid}/Record/", record)
        await asyncio.sleep(0.7)  # in real time, since the audio is recorded
        await node("DELETE", f"Call/{uuid}/Record/", status=204)
        told = await stage.receiver.wait_for(lambda request: request.path == "/recorded")
        assert told.params["recording_id"] == recording["recording_id"]
        (listed,) = (await node("GET", f"Recording/?call_uuid={uuid}"))["objects"]
        assert listed["recording_id"] == recording["recording_id"]
        transfer = {"legs": "aleg", "aleg_url": url("/room"), "aleg_method": "GET"}
        assert (await node("POST", f"Call/{uuid}/", transfer))["message"] == "call transferred"
        member = (await stage.event("ConferenceEnter", CallUUID=uuid)).params["ConferenceMemberID"]
        assert (await node("GET", "Conference/?"))["conferences"] == ["room"]
        (shown,) = (await node("GET", "Conference/room/?"))["members"]
        assert (shown["member_id"], shown["call_uuid"]) == (member, uuid)
        for who, what in ((member, "Mute"), ("all", "Deaf")):
            assert (await node("POST", f"Conference/room/Member/{who}/{what}/"))["member_id"] == [member]
            await node("DELETE", f"Conference/room/Member/{who}/{what}/", status=204)
        assert (await node("POST", "Conference/room/Member/all/Play/", {"url": sound}))["member_id"] == [member]
        await node("DELETE", "Conference/room/Member/all/Play/", status=204)
        await node("DELETE", "Conference/room/", status=204)
        await ann.hung_up()
        await stage.event("Hangup", CallUUID=uuid)
        await node("DELETE", f"Call/{uuid}/", status=404)
        again = await node("POST", "Call/", create, status=201)
        await ann.invited(2)
        ann.reply("180 Ringing")
        await node("DELETE", f"Request/{again['request_uuid']}/", status=204)
        await ann.canceled()
        await node("POST", "Call/", {**create, "to": "sip:no@not-allowed.example"}, status=403)
        await node("POST", "Call/", {**create, "to": "not a number"}, status=400)
        await stage.event("Hangup", CallUUID=again["request_uuid"])
