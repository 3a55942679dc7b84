"""Trunks: calls over a second Asterisk as the provider, with registration, digest authentication and qualify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import aiohttp
import pytest
import pytest_asyncio

from ari_conf.dialing import keys, trunk_store, trunks
from ari_conf.doctor import run_check
from ari_conf.local.system import LocalSystem
from ari_conf.store import accounts
from tests.integration import provider as provider_module
from tests.integration.called_phone import CalledPhone
from tests.integration.provider import CUSTOMER_HOST, HOST, PASSWORD, USER, Provider, until
from tests.integration.stage import ALLOWED, Stage, staged
from tests.integration.test_calling_out import Caller

pytestmark = pytest.mark.asyncio(loop_scope="session")

OUT = "ari_conf_trunk_out"
OTHERS = f"""
[dead](ari_conf_calls)
context = ari_conf_nowhere
aors = dead

[dead]
type = aor
contact = sip:{HOST}:9
qualify_frequency = 1
qualify_timeout = 0.5

[second](ari_conf_calls)
identify_by = ip
context = ari_conf_nowhere
aors = second

[second]
type = aor
contact = sip:{HOST}:%d
"""
FROM, DIALED = "4930123456", "+4917112345"
MAY_DIAL = {"dial_prefixes": "DE", "dial_caller_ids": "+4930*", "dial_calls": 20, "dial_calls_per_minute": 100}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def provider(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Provider]:
    provider = Provider(tmp_path_factory.mktemp("provider"))
    await asyncio.to_thread(provider.start)
    try:
        yield provider
    finally:
        await asyncio.to_thread(provider.stop)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def second() -> AsyncGenerator[CalledPhone]:
    """Yield a phone that stands for a second provider."""
    async with CalledPhone(host=HOST) as phone:
        yield phone


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(
    tmp_path_factory: pytest.TempPathFactory, provider: Provider, second: CalledPhone
) -> AsyncGenerator[LocalSystem]:
    parts = ("redis", "asterisk", "worker", "serve", "web")
    system = LocalSystem(tmp_path_factory.mktemp("trunks"), ALLOWED, parts, listen=CUSTOMER_HOST)
    own = system._asterisk
    assert own is not None
    own.more |= {
        "TRUNK_HOST": f"{HOST}:{provider.sip_port}",
        "TRUNK_USER": USER,
        "TRUNK_PASSWORD": PASSWORD,
        # Phones of other tests have other addresses.
        "TRUNK_MATCH": HOST,
    }
    configure = own._configure

    def configure_more() -> None:
        configure()
        provider_module.append(own.folder, {"pjsip.conf": OTHERS % second.port})

    own._configure = configure_more  # type: ignore[method-assign]
    async with system:
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def api(system: LocalSystem) -> AsyncGenerator[Caller]:
    async with staged(system) as stage:
        login = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
        accounts.update(stage.redis, stage.account, **MAY_DIAL)
        async with aiohttp.ClientSession(headers=login) as session:
            yield Caller(stage, session)
        stage.redis.delete(keys.TRUNKS_KEY)


def add_trunk(stage: Stage, name: str, endpoint: str, **fields: object) -> None:
    made = trunks.make(name, {"dial": f"PJSIP/{{number}}@{endpoint}", "prefixes": "+49", **fields})
    trunk_store.add(stage.redis, made, (), lambda *_: None)


async def place(api: Caller, to: str, expected: int = 201, **more: object) -> str:
    """Place a call and return its UUID, or the error."""
    urls = {"answer_url": api.stage.receiver.url("/answer"), "hangup_url": api.stage.receiver.url("/hangup")}
    status, reply = await api.ask("POST", "Call/", **{"from": FROM, "to": to, **urls, **more})
    assert status == expected, reply
    return str(reply["request_uuid"] if status == 201 else reply["error"])


def slots(stage: Stage) -> int:
    return stage.redis.zcard(keys.calls_key(stage.account))


async def test_a_call_over_a_registered_trunk(api: Caller, provider: Provider) -> None:
    stage = api.stage
    # The first REGISTER comes up to 10 s after the start.
    (contact,) = await until(provider.contacts)
    assert contact.startswith(f"{USER}/sip:{USER}@{CUSTOMER_HOST}:")
    add_trunk(stage, "main", OUT)
    stage.document("/answer", "<Wait length='1'/>")
    uuid = await place(api, f"{DIALED}00", ring_url=stage.receiver.url("/ring"), caller_name='x" <sip:1@evil>')
    asked = await api.told("StartApp")
    assert (asked["CallUUID"], asked["To"]) == (uuid, f"{DIALED}00".lstrip("+"))
    (channel,) = await asyncio.to_thread(provider.channels)
    assert (channel["state"], channel["dialplan"]["exten"]) == ("Up", f"{DIALED}00".lstrip("+"))
    assert channel["caller"]["number"] == FROM, "a name can't be more than a name"
    assert slots(stage) == 1
    ended = await api.told("Hangup")
    assert (ended["HangupCause"], ended["CallStatus"]) == ("NORMAL_CLEARING", "completed")
    await stage.until(lambda: slots(stage) == 0)
    assert stage.redis.zcard(keys.trunk_key("main")) == 0
    assert stage.redis.hlen(keys.ended_key(stage.account)) == 1


async def test_a_call_from_the_provider(api: Caller, provider: Provider, system: LocalSystem) -> None:
    stage = api.stage
    await until(provider.contacts)
    stage.document("/answer", "<Wait length='1'/>")
    stage.set_account(answer_url="{url}/answer")
    uri = f"sip:{stage.account}*4930123456@{system.sip_address}"
    await asyncio.to_thread(partial(provider.call, uri, "491719999"))
    asked = await api.told("StartApp")
    assert (asked["Direction"], asked["From"], asked["To"]) == ("inbound", "491719999", "4930123456")
    await stage.event("Hangup") if stage.events("Hangup") else None


async def test_a_congested_and_a_dead_provider_are_skipped(api: Caller, second: CalledPhone) -> None:
    stage = api.stage
    add_trunk(stage, "dead", "dead", priority=0)
    add_trunk(stage, "main", OUT, priority=1)
    add_trunk(stage, "backup", "second", priority=2)
    stage.document("/answer", "<Wait length='30'/>")
    before = len(second.invites)
    uuid = await place(api, f"{DIALED}503")
    invite = await second.invited(before + 1)
    assert invite.start.startswith(f"INVITE sip:{DIALED.lstrip('+')}503@")
    assert [stage.redis.zcard(keys.trunk_key(name)) for name in ("dead", "main", "backup")] == [0, 0, 1]
    second.answer()
    assert (await api.told("StartApp"))["CallUUID"] == uuid
    second.hang_up()
    assert (await api.told("Hangup"))["CallStatus"] == "completed"
    assert any("dead" in problem for problem in stage.problems())
    await stage.until(lambda: slots(stage) == 0)


async def test_a_busy_callee_is_called_once(api: Caller, second: CalledPhone) -> None:
    stage = api.stage
    add_trunk(stage, "main", OUT, priority=1)
    add_trunk(stage, "backup", "second", priority=2)
    before = len(second.invites)
    await place(api, f"{DIALED}486")
    ended = await api.told("Hangup")
    assert (ended["HangupCause"], ended["CallStatus"]) == ("USER_BUSY", "busy")
    assert len(second.invites) == before


async def test_a_redirected_call_fails_and_does_not_arrive(api: Caller, second: CalledPhone) -> None:
    stage = api.stage
    add_trunk(stage, "backup", "second")
    stage.set_account(answer_url="{url}/inbound")
    before = len(second.invites)
    await place(api, f"{DIALED}00")
    await second.invited(before + 1)
    second.reply("302 Moved Temporarily", ("Contact", f"<sip:{stage.account}*4930123456@{CUSTOMER_HOST}>"))
    ended = await api.told("Hangup")
    assert (ended["CallStatus"], ended["HangupCause"]) == ("failed", "REDIRECTION_TO_NEW_DESTINATION")
    assert not [asked for asked in stage.receiver.requests if asked.path.startswith("/inbound")]
    await stage.until(lambda: slots(stage) == 0)


async def test_used_up_minutes_end_all_calls_that_run_in_parallel(api: Caller, second: CalledPhone) -> None:
    stage = api.stage
    add_trunk(stage, "main", OUT, per_second=0)
    accounts.update(stage.redis, stage.account, dial_minutes_per_day=1)
    stage.document("/answer", "<Wait length='120'/>")
    # What is left is 6 s; three calls in parallel use it up in 2 s.
    (seconds, _), day_ms = stage.redis.time(), 86_400_000
    stage.redis.set(f"{keys.day_prefix(stage.account)}{seconds * 1000 // day_ms}", 54_000)
    uuids = {await place(api, f"{DIALED}{n}0", time_limit=3600) for n in range(3)}
    for uuid in uuids:
        ended = await api.told("Hangup", CallUUID=uuid)
        assert (ended["HangupCauseName"], ended["HangupCause"]) == ("Scheduled Hangup", "ALLOTTED_TIMEOUT")
        assert int(ended["Duration"]) <= 5
    refused = await place(api, f"{DIALED}00", 403)
    assert refused.startswith("no_minutes_left: the account's 1 minutes of this day (UTC) are used up")
    kinds = [problem for problem in stage.problems() if "used up" in problem]
    assert len(kinds) >= 4


async def test_a_call_keeps_its_slot_while_the_server_is_dead(api: Caller, system: LocalSystem) -> None:
    stage = api.stage
    add_trunk(stage, "main", OUT)
    accounts.update(stage.redis, stage.account, dial_calls=1)
    stage.document("/answer", "<Wait length='120'/>")
    uuid = await place(api, f"{DIALED}00")
    await api.told("StartApp")
    await system.kill("serve")
    assert (await place(api, f"{DIALED}01", 403)).startswith("too_many_calls")
    await system.start("serve")
    assert (await place(api, f"{DIALED}01", 403)).startswith("too_many_calls")
    status, _ = await api.ask("DELETE", f"Call/{uuid}/")
    assert status == 204
    await api.told("Hangup")
    await stage.until(lambda: slots(stage) == 0)
    await place(api, f"{DIALED}486")
    await stage.until(lambda: len(stage.events("Hangup")) == 2)


async def test_the_doctor_checks_the_endpoints(api: Caller, system: LocalSystem) -> None:
    stage = api.stage
    check = partial(asyncio.to_thread, run_check, "trunks", system.settings)
    assert (await check()).text.startswith("none is configured")
    add_trunk(stage, "main", OUT)
    # Asterisk may not have asked the provider yet.
    await until(lambda: run_check("trunks", system.settings).text.startswith("main; "))
    assert (await check()).state == "ok"
    add_trunk(stage, "gone", "nothing")
    found = await check()
    assert found.state == "failure" and found.text.startswith("Asterisk has no PJSIP endpoint nothing: add it")
    trunk_store.remove(stage.redis, "gone", (), lambda *_: None)
    add_trunk(stage, "dead", "dead")
    found = await check()
    assert found.state == "failure" and found.text.startswith("Asterisk can't reach the endpoint dead")
