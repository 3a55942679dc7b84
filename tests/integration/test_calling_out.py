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
from ari_conf.store.problems import read_problems
from tests.integration import table
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

    async def ask(self, method: str, path: str, /, **body: Any) -> tuple[int, dict[str, Any]]:
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
        if event == "Hangup":
            said = (found.params[name] for name in ("CallStatus", "HangupCauseCode", "HangupSource"))
            self.stage.saw(f"at the end: {', '.join(said)}")
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
async def calling(system: LocalSystem, request: pytest.FixtureRequest) -> AsyncGenerator[Stage]:
    async with staged(system) as stage:
        request.node.stash[table.SEEN] = stage.seen
        request.node.stash[table.ASTERISK] = await stage.asterisk()
        yield stage


@pytest.mark.row(
    "Call: from, answer_url, ring_url, hangup_url, caller_name",
    "told when it rings, asked when it is answered, told at the end; `request_uuid` is the CallUUID",
)
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


async def refused(api: Caller, status: str, *headers: tuple[str, str], rings: bool = True) -> dict[str, str]:
    """Place a call to a phone that refuses it; return what the hangup URL is told."""
    async with CalledPhone() as ann:
        await api.place(ann, ring_url=api.stage.receiver.url("/ring"))
        await ann.invited()
        if rings:
            ann.reply("180 Ringing")
            # Asterisk reports no ringing if the refusal follows at once.
            await api.told("Ring")
        ann.reply(status, *headers)
        ended = await api.told("Hangup")
        await ann.until("ACK")
    assert len(ann.invites) == 1, "dialed once"
    assert (ended["BillDuration"], ended["AnswerTime"]) == ("0", "")
    return ended


def ending(said: dict[str, str]) -> tuple[str, ...]:
    return tuple(said[name] for name in ("CallStatus", "HangupCause", "HangupCauseCode", "HangupSource"))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("486 Busy Here", ("busy", "USER_BUSY", "3010", "Carrier")),
        ("600 Busy Everywhere", ("busy", "USER_BUSY", "3010", "Carrier")),
        ("603 Decline", ("busy", "CALL_REJECTED", "3020", "Carrier")),
        ("404 Not Found", ("failed", "UNALLOCATED_NUMBER", "2000", "Carrier")),
        ("484 Address Incomplete", ("failed", "INVALID_NUMBER_FORMAT", "2000", "Carrier")),
        ("480 Temporarily Unavailable", ("no-answer", "NO_ANSWER", "3000", "Carrier")),
        ("408 Request Timeout", ("no-answer", "NO_USER_RESPONSE", "3000", "Carrier")),
        ("488 Not Acceptable Here", ("failed", "BEARERCAPABILITY_NOTAVAIL", "2010", "Carrier")),
        ("503 Service Unavailable", ("failed", "NORMAL_CIRCUIT_CONGESTION", "2010", "Carrier")),
    ],
)
@pytest.mark.row(
    "Call: hangup_url", "told also if the call was never answered: CallStatus, cause, code and source of each refusal"
)
async def test_a_phone_that_refuses(api: Caller, status: str, expected: tuple[str, ...]) -> None:
    assert ending(await refused(api, status)) == expected


@pytest.mark.parametrize("status", ["300 Multiple Choices", "301 Moved Permanently", "302 Moved Temporarily"])
@pytest.mark.row("Call: to", "a redirect (3xx) calls nobody, and is no new call")
async def test_a_redirect_is_the_end_and_calls_nobody(api: Caller, status: str) -> None:
    async with CalledPhone("4915550009") as other:
        ended = await refused(api, status, ("Contact", f"<{other.uri}>"), rings=False)
        assert not other.got
    code = ending(ended)
    assert (code[0], *code[2:]) == ("failed", "2000", "Carrier")
    # A new call would be one of the account that the dialplan names.
    assert read_problems(api.stage.redis, api.stage.system.account) == api.stage.problems() == []


@pytest.mark.row("Call: hangup_url", "a provider that refuses the trunk's login has not asked the callee")
async def test_a_refused_login_is_the_trunks_problem(api: Caller) -> None:
    ended = await refused(api, "401 Unauthorized", ("WWW-Authenticate", 'Digest realm="x", nonce="1"'), rings=False)
    assert ending(ended) == ("failed", "CALL_REJECTED", "2010", "Carrier")
    (problem,) = api.stage.problems()
    assert "lab: the provider refuses the trunk's login" in problem


@pytest.mark.row("Call: ring_timeout", "not answered by then: canceled")
async def test_a_phone_that_never_answers_is_canceled_at_its_ring_timeout(api: Caller) -> None:
    async with CalledPhone() as ann:
        await api.place(ann, ring_timeout=1, ring_url=api.stage.receiver.url("/ring"))
        await ann.invited()
        ann.reply("180 Ringing")
        await api.told("Ring")
        await ann.canceled()
        ended = await api.told("Hangup")
    assert ending(ended) == ("timeout", "NO_ANSWER", "6010", "Plivo")


@pytest.mark.row("Call: ring_timeout", "also if the phone never replies")
async def test_a_phone_that_never_replies_is_given_up_as_well(api: Caller) -> None:
    async with CalledPhone() as ann:
        ann.mute = True
        await api.place(ann, ring_timeout=1)
        ended = await api.told("Hangup")
    assert ending(ended) == ("timeout", "NO_ANSWER", "6010", "Plivo")


@pytest.mark.row("Call: hangup_on_ring", "hung up so many seconds after ringing began")
async def test_hangup_on_ring(api: Caller) -> None:
    async with CalledPhone() as ann:
        await api.place(ann, hangup_on_ring=0)
        await ann.invited()
        ann.reply("180 Ringing")
        await ann.canceled()
        ended = await api.told("Hangup")
    assert ending(ended) == ("timeout", "ORIGINATOR_CANCEL", "6000", "Plivo")


@pytest.mark.row("Request: DELETE", "an answer that crosses the cancel is hung up")
async def test_an_answer_that_crosses_the_cancel_is_hung_up(api: Caller) -> None:
    async with CalledPhone() as ann:
        uuid = await api.place(ann)
        await ann.invited()
        ann.reply("180 Ringing")
        ann.ignores_cancel = True
        status, _ = await api.ask("DELETE", f"Request/{uuid}/")
        assert status == 204
        await ann.canceled()
        ann.answer()
        await ann.hung_up()
        ended = await api.told("Hangup")
    assert ending(ended)[:3] == ("cancel", "ORIGINATOR_CANCEL", "1000")
    assert not api.stage.events("StartApp")


@pytest.mark.parametrize("path", ["Request/{}/", "Call/{}/"])
@pytest.mark.row("Call: DELETE, Request: DELETE", "a call that rings is canceled")
async def test_a_call_that_rings_is_canceled(api: Caller, path: str) -> None:
    async with CalledPhone() as ann:
        uuid = await api.place(ann)
        await ann.invited()
        ann.reply("180 Ringing")
        status, live = await api.ask("GET", f"Call/{uuid}/", status="live")
        assert (status, live["call_status"], live["direction"]) == (200, "ringing", "outbound")
        assert (await api.ask("DELETE", path.format(uuid)))[0] == 204
        await ann.canceled()
        ended = await api.told("Hangup")
    assert ending(ended) == ("cancel", "ORIGINATOR_CANCEL", "1000", "API Request")
    assert (await api.ask("DELETE", path.format(uuid)))[0] == 404


@pytest.mark.row("Calls: status, call_direction", "a live call is listed, shown and hung up")
async def test_a_call_that_is_answered_is_hung_up(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        uuid = await api.place(ann)
        await ann.invited()
        ann.answer()
        await api.told("StartApp")
        status, live = await api.ask("GET", f"Call/{uuid}/", status="live")
        assert (status, live["call_status"], live["call_uuid"]) == (200, "in-progress", uuid)
        assert (await api.ask("GET", f"Call/{uuid}/", status="queued"))[0] == 404
        assert (await api.ask("GET", "Call/", status="live"))[1]["calls"] == [uuid]
        assert (await api.ask("GET", "Call/", status="live", call_direction="inbound"))[1]["calls"] == []
        assert (await api.ask("GET", "Call/", status="queued"))[1]["calls"] == []
        assert (await api.ask("DELETE", f"Call/{uuid}/"))[0] == 204
        await ann.hung_up()
        ended = await api.told("Hangup")
    assert ending(ended) == ("completed", "NORMAL_CLEARING", "4000", "API Request")


@pytest.mark.row("Calls: from_number", "also calls that arrive; all calls are hung up")
async def test_calls_that_arrive_are_listed_and_hung_up_as_well(api: Caller) -> None:
    stage = api.stage
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(2) as (ann, bob):
        for phone in (ann, bob):
            # A Wait that is the first element does not answer.
            await stage.call(phone, "<Wait length='1'/><Wait length='30'/>")
        (first, second) = (await api.ask("GET", "Call/", status="live"))[1]["calls"]
        shown = (await api.ask("GET", f"Call/{first}/", status="live"))[1]
        assert (shown["from"], shown["direction"]) == (stage.number(ann), "inbound")
        found = await api.ask("GET", "Call/", status="live", from_number=stage.number(bob)[-4:])
        assert found[1]["calls"] == [second]
        assert (await api.ask("DELETE", "Call/"))[0] == 204
        await ann.wait_until_hung_up()
        await bob.wait_until_hung_up()
        ended = await api.told("Hangup", CallUUID=first)
    assert ending(ended) == ("completed", "NORMAL_CLEARING", "4000", "API Request")
    assert ended["ALegUUID"] == first and ended["TotalCost"] == ended["BillRate"] == "0.00000"


@pytest.mark.row(
    "Call: send_on_preanswer", "early media counts as ringing; digits are sent after the answer (differs from Plivo)"
)
async def test_early_media_is_not_the_answer(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        uuid = await api.place(
            ann, ring_url=stage.receiver.url("/ring"), send_digits="12@100", send_on_preanswer="true"
        )
        await ann.invited()
        ann.early_media()
        await api.told("Ring")
        ann.reply("180 Ringing")
        assert (await api.ask("GET", f"Call/{uuid}/", status="live"))[1]["call_status"] == "ringing"
        assert not stage.events("StartApp") and not ann.digits
        ann.answer()
        await api.told("StartApp")
        await stage.until(lambda: "".join(digit for _, digit in ann.digits) == "12", description="digits")
        ann.hang_up()
        await api.told("Hangup")
    assert len(stage.events("Ring")) == 1


@pytest.mark.row("Call: send_digits", "`w` 0.5 s, `W` 1 s, `@ms` the length of each tone")
async def test_digits_are_sent_after_the_answer_with_their_pauses(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        await api.place(ann, send_digits="1W2ww#@100")
        await ann.invited()
        ann.answer()
        await stage.until(lambda: len(ann.digits) == 3, description="digits")
        ann.hang_up()
        await api.told("Hangup")
    (first, one), (second, two), (third, hash_) = ann.digits
    assert one + two + hash_ == "12#"
    assert second - first >= 1000 and third - second >= 1000


@pytest.mark.row("Call: time_limit", "from the answer on; then hung up")
async def test_the_time_limit_counts_from_the_answer(api: Caller) -> None:
    api.stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        await api.place(ann, time_limit=1)
        await ann.invited()
        ann.answer()
        await ann.hung_up()
        ended = await api.told("Hangup")
    assert ending(ended) == ("completed", "ALLOTTED_TIMEOUT", "6000", "Plivo")


@pytest.mark.row("Call: sip_headers", "in the INVITE as X-PH-…, and in every request about the call")
async def test_sip_headers_are_in_the_invite_and_in_every_request(api: Caller) -> None:
    api.stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        await api.place(ann, sip_headers="Team=blue,Order=a%20b,", ring_url=api.stage.receiver.url("/ring"))
        invite = await ann.invited()
        assert (invite.first("x-ph-team"), invite.first("x-ph-order")) == ("blue", "a%20b")
        ann.reply("180 Ringing")
        rings = await api.told("Ring")
        ann.answer()
        asked = await api.told("StartApp")
        ann.hang_up()
        ended = await api.told("Hangup")
    assert {(said["X-PH-Team"], said["X-PH-Order"]) for said in (rings, asked, ended)} == {("blue", "a%20b")}


@pytest.mark.row("Call: fallback_url", "asked if answer_url fails")
async def test_the_fallback_url_is_asked_if_the_answer_url_fails(api: Caller) -> None:
    stage = api.stage
    stage.document("/instead", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        await api.place(ann, answer_url=stage.receiver.url("/missing"), fallback_url=stage.receiver.url("/instead"))
        await ann.invited()
        ann.answer()
        await stage.receiver.wait_for(lambda request: request.path == "/instead")
        ann.hang_up()
        await api.told("Hangup")


@pytest.mark.row("Call: to", "several by `<` are called at the same time, each a call of its own")
async def test_several_destinations_are_calls_of_their_own(api: Caller) -> None:
    api.stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone("4915550001") as ann, CalledPhone("4915550002") as bob:
        uuids = await api.place(ann, bob)
        await ann.invited()
        await bob.invited()
        ann.answer()
        bob.reply("486 Busy Here")
        await api.told("StartApp", CallUUID=uuids[0], To=ann.uri)
        ended = await api.told("Hangup", CallUUID=uuids[1], To=bob.uri)
        ann.hang_up()
        await api.told("Hangup", CallUUID=uuids[0])
    assert ending(ended)[0] == "busy"


@pytest.mark.row("Call: Idempotency-Key", "the same request twice dials once")
async def test_the_same_request_twice_dials_once(api: Caller) -> None:
    async with CalledPhone() as ann:
        again = {"headers": {"Idempotency-Key": "one"}}
        first, second = await api.place(ann, **again), await api.place(ann, **again)
        assert first == second
        await ann.invited()
        ann.reply("486 Busy Here")
        await api.told("Hangup")
    assert len(ann.invites) == 1 and len(api.stage.events("Hangup")) == 1


async def test_a_phone_that_vanishes_during_the_call_is_hung_up_by_the_api(api: Caller) -> None:
    api.stage.document("/answer", "<Wait length='30'/>")
    async with CalledPhone() as ann:
        uuid = await api.place(ann)
        await ann.invited()
        ann.answer()
        await api.told("StartApp")
        ann.mute = True
        assert (await api.ask("DELETE", f"Call/{uuid}/"))[0] == 204
        ended = await api.told("Hangup")
    assert ending(ended) == ("completed", "NORMAL_CLEARING", "4000", "API Request")


@pytest.mark.row("Call: answer_url", "a placed call joins a conference, and hears the others")
async def test_a_placed_call_joins_a_conference(api: Caller) -> None:
    stage = api.stage
    stage.document("/answer", '<Conference callbackUrl="{url}/events">standup</Conference>')
    async with CalledPhone() as ann, stage.callers(1) as (bob,):
        uuid = await api.place(ann)
        await ann.invited()
        ann.answer()
        await stage.event("ConferenceEnter", CallUUID=uuid, Direction="outbound")
        bob.tone(440)
        await stage.call(bob, '<Conference callbackUrl="{url}/events">standup</Conference>')
        await stage.enters(bob)
        await stage.until(lambda: ann.hears(440), description="ann hears bob")
        assert (await api.ask("DELETE", f"Call/{uuid}/"))[0] == 204
        await ann.hung_up()
        left = await stage.event("ConferenceExit", CallUUID=uuid)
        assert left.params["ConferenceExitReason"] == "api_hangup"
