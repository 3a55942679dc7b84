"""Calls out: what phones get and do, and what the URLs of the call are told."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ari_conf.dialing import trunk_store, trunks
from ari_conf.dialing.keys import TRUNKS_KEY
from ari_conf.local.system import LocalSystem
from ari_conf.store import accounts
from tests.integration.called_phone import CalledPhone
from tests.integration.receiver import Request
from tests.integration.stage import ALLOWED, Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAY_DIAL = {
    "dial_caller_ids": "+4930*",
    "dial_calls": 100,
    "dial_calls_per_minute": 1000,
    "dial_minutes_per_day": 10000,
}


class Caller:
    """The API client of a scenario."""

    def __init__(self, stage: Stage, session: aiohttp.ClientSession) -> None:
        self.stage, self._session = stage, session
        self.hosts: set[str] = set()

    async def ask(self, method: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        url = f"{self.stage.system.settings.public_url}/v1/Account/{self.stage.account}/{path}"
        headers = body.pop("headers", {})
        kind = {"params": body} if method == "GET" else {"json": body}
        async with self._session.request(method, url, headers=headers, **kind) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else {}

    async def place(self, *phones: CalledPhone, **more: Any) -> Any:
        """Place a call; return its request_uuid."""
        hosts = [phone.host for phone in phones]
        self.allow(*hosts)
        to = "<".join(phone.uri for phone in phones)
        urls = {"answer_url": self.stage.receiver.url("/answer"), "hangup_url": self.stage.receiver.url("/hangup")}
        status, reply = await self.ask("POST", "Call/", **{"from": "4930123", "to": to, **urls, **more})
        assert status == 201, reply
        return reply["request_uuid"]

    def allow(self, *hosts: str, endpoint: str = "anonymous") -> None:
        """Allow the account to call SIP URIs at these hosts."""
        redis, prefixes = self.stage.redis, ",".join(f"sip:{host}" for host in hosts)
        accounts.update(redis, self.stage.account, dial_prefixes=prefixes, **MAY_DIAL)
        self.hosts |= set(hosts)
        fields = {"dial": f"PJSIP/{{number}}@{endpoint}", "hosts": sorted(self.hosts), "calls": 0, "per_second": 0}
        if redis.hexists(TRUNKS_KEY, "lab"):
            trunk_store.change(redis, "lab", fields, (), lambda *_: None)
        else:
            trunk_store.add(redis, trunks.make("lab", fields), (), lambda *_: None)

    async def told(self, event: str, **params: str) -> dict[str, str]:
        found: Request = await self.stage.event(event, **params)
        return found.params


@pytest_asyncio.fixture(loop_scope="session")
async def api(calling: Stage) -> AsyncGenerator[Caller]:
    login = {"Authorization": aiohttp.encode_basic_auth(calling.account, calling.token)}
    async with aiohttp.ClientSession(headers=login) as session:
        yield Caller(calling, session)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[LocalSystem]:
    parts = ("redis", "asterisk", "worker", "serve", "web")
    async with LocalSystem(tmp_path_factory.mktemp("calling"), ALLOWED, parts) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def calling(system: LocalSystem) -> AsyncGenerator[Stage]:
    async with staged(system) as stage:
        yield stage


async def test_a_phone_that_rings_and_answers_runs_the_document(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        uuid = await api.place(ann, ring_url=stage.receiver.url("/ring"), caller_name="Ann's dentist")
        await ann.invited()
        assert ann.caller == ("4930123", "Ann's dentist")
        ann.reply("180 Ringing")
        rings = await api.told("Ring")
        ann.answer()
        asked = await api.told("StartApp")
        ann.hang_up()
        ended = await api.told("Hangup")
    for said in (rings, asked, ended):
        ids = ("CallUUID", "RequestUUID", "ALegUUID", "ALegRequestUUID")
        assert {said[name] for name in ids} == {uuid}
        assert (said["From"], said["To"], said["Direction"]) == ("4930123", ann.uri, "outbound")
    assert [said["CallStatus"] for said in (rings, asked, ended)] == ["ringing", "in-progress", "completed"]
    assert (ended["HangupCauseCode"], ended["HangupCauseName"], ended["HangupSource"]) == (
        "4000",
        "Normal Hangup",
        "Callee",
    )
    assert ended["HangupCause"] == "NORMAL_CLEARING" and ended["TotalCost"] == "0.00000"
