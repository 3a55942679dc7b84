"""API commands on real calls, through PyPI's `plivo`, unmodified except for its base URL; phones hear the results."""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import plivo
import pytest
import pytest_asyncio
from plivo.exceptions import AuthenticationError, ResourceNotFoundError, ValidationError
from plivo.rest import client as sdk

from ari_conf.store import accounts
from demo import audio_analysis
from demo.phone import Phone
from tests.integration.stage import Stage
from tests.lateness import Patience

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">stand/up ☕</Conference>'
NAME = "stand%2Fup ☕"
"""The form in which a program must pass the name to the SDK, which puts it into the path unchanged."""
ANN, BOB, CID = 2575, 2875, 3175
SOUND = 1825
HOLD = 1525

Do = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def api(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> plivo.RestClient:
    return await client_of(stage, monkeypatch)


async def client_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> plivo.RestClient:
    """Return the SDK's client of an account whose id the SDK accepts: MA and 18 more characters."""
    base = f"{stage.system.settings.public_url}/v1/Account"
    for name in ("API_VOICE_BASE_URI", "API_VOICE_BASE_URI_FALLBACK_1", "API_VOICE_BASE_URI_FALLBACK_2"):
        monkeypatch.setattr(sdk, name, base)
    stage.account = "MA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(18))
    stage.token = stage.receiver.token = accounts.add(stage.redis, int(time.time() * 1000), stage.account).token
    return plivo.RestClient(stage.account, stage.token)


async def three(stage: Stage, *phones: Phone, body: str = ROOM) -> list[str]:
    """Let the phones join one after another, each with its own tone, and return their member ids."""
    ids = []
    for phone, hz in zip(phones, (ANN, BOB, CID), strict=False):
        phone.tone(hz)
        await stage.call(phone, body)
        ids.append((await stage.enters(phone)).params["ConferenceMemberID"])
    for phone, hz in zip(phones, (ANN, BOB, CID), strict=False):
        await asyncio.gather(*(stage.hears(other, hz) for other in phones if other is not phone))
    return ids


async def heard(stage: Stage, phone: Phone) -> set[int]:
    return set(audio_analysis.tones(await stage.listen(phone, 600)))


async def becomes(stage: Stage, phone: Phone, tones: set[int], within: float = 6.0) -> None:
    """Assert that the phone soon hears exactly those tones."""
    patience = Patience(within)
    while (found := await heard(stage, phone)) != tones:
        assert not patience.over, f"{phone.name} hears {found}, not {tones}"


async def test_member_list_over_the_api(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    assert (await do(api.conferences.list)).conferences == []
    with pytest.raises(ResourceNotFoundError, match="conference not found"):
        await do(api.conferences.get, NAME)
    async with stage.callers(2) as (ann, bob):
        ids = await three(stage, ann, bob)
        assert (await do(api.conferences.list)).conferences == ["stand/up ☕"]
        told = await do(api.conferences.get, NAME)
        assert (told.conference_name, told.conference_member_count) == ("stand/up ☕", "2")
        assert int(told.conference_run_time) < 60
        assert [m.member_id for m in told.members] == ids
        assert [m["from"] for m in told.members] == [stage.number(ann), stage.number(bob)]
        assert {(m.muted, m.deaf, m.direction, m.to) for m in told.members} == {(False, False, "inbound", "15550100")}
        call_uuid = (await stage.enters(ann)).params["CallUUID"]
        assert told.members[0].call_uuid == call_uuid
    await stage.event("ConferenceExit", ConferenceLastMember="true")
    assert (await do(api.conferences.list)).conferences == []


async def test_mute_and_deaf_are_heard(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    async with stage.callers(3) as (ann, bob, cid):
        a, b, c = await three(stage, ann, bob, cid)
        told = await do(api.conferences.member_mute, NAME, a)
        assert (told.message, told.member_id) == ("muted", [a])
        await becomes(stage, bob, {CID})
        await becomes(stage, ann, {BOB, CID})
        assert (await do(api.conferences.get, NAME)).members[0].muted is True
        await do(api.conferences.member_mute_stop, NAME, a)
        await becomes(stage, bob, {ANN, CID})
        told = await do(api.conferences.member_mute, NAME, f"{a},{b}")
        assert told.member_id == [a, b]
        await becomes(stage, cid, set())
        await do(api.conferences.member_mute_stop, NAME, "all")
        await becomes(stage, cid, {ANN, BOB})
        told = await do(api.conferences.member_deaf, NAME, c)
        assert (told.message, told.member_id) == ("deaf", [c])
        await becomes(stage, cid, set())
        await becomes(stage, bob, {ANN, CID})
        await do(api.conferences.member_deaf_stop, NAME, c)
        await becomes(stage, cid, {ANN, BOB})


async def test_play_and_speak_are_heard_by_that_member_alone(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    url = stage.tones("/sound.wav", (SOUND, 20_000))
    async with stage.callers(2) as (ann, bob):
        a, b = await three(stage, ann, bob)
        ann.silence()
        bob.silence()
        told = await do(api.conferences.member_play, NAME, a, url)
        assert (told.message, told.member_id) == ("play queued into conference", [a])
        await stage.hears(ann, SOUND)
        assert SOUND not in await heard(stage, bob)
        told = await do(
            api.conferences.member_speak, NAME, f"{a},{b}", "The meeting ends in five minutes.", "WOMAN", "en-US"
        )
        assert (told.message, told.member_id) == ("speak queued into conference", [a, b])
        # Bob's phone plays only this one; Ann's plays it after the sound, which now ends early.
        await stage.until(
            lambda: not audio_analysis.silent(bob.heard.since(bob.heard.end_ms - 400)), 10, "bob hears speech"
        )
        assert SOUND in await heard(stage, ann)
        await do(api.conferences.member_play_stop, NAME, a)
        await stage.until(
            lambda: (
                SOUND not in audio_analysis.tones(ann.heard.since(ann.heard.end_ms - 300))
                and not audio_analysis.silent(ann.heard.since(ann.heard.end_ms - 300))
            ),
            10,
            "ann hears speech",
        )
        await do(api.conferences.member_speak_stop, NAME, "all")
        await asyncio.gather(stage.goes_quiet(ann), stage.goes_quiet(bob))


async def test_kick_goes_on_and_hangup_does_not(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    url = stage.tones("/after.wav", (SOUND, 20_000))
    async with stage.callers(3) as (ann, bob, cid):
        a, b, _ = await three(stage, ann, bob, cid, body=f"{ROOM}<Play>{url}</Play>")
        told = await do(api.conferences.member_kick, NAME, a)
        assert (told.message, told.member_id) == ("kicked", [a])
        assert (await stage.leaves(ann)).params["ConferenceExitReason"] == "kick"
        await stage.hears(ann, SOUND)
        await becomes(stage, bob, {CID})
        await do(api.conferences.member_hangup, NAME, b)
        assert (await stage.leaves(bob)).params["ConferenceExitReason"] == "api_hangup"
        await bob.wait_until_hung_up(5)
        assert cid.state != "ended"
        await ann.hang_up()


async def test_a_conference_and_all_conferences_are_hung_up(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    body = '<Conference callbackUrl="{url}/events">%s</Conference>'
    async with stage.callers(4) as (ann, bob, cid, dan):
        phones = (ann, bob, cid, dan)
        for phone, name in zip(phones, ("one", "one", "two", "three"), strict=True):
            await stage.call(phone, body % name)
            await stage.enters(phone)
        await do(api.conferences.delete, "one")
        await asyncio.gather(*(phone.wait_until_hung_up(5) for phone in phones[:2]))
        assert sorted((await do(api.conferences.list)).conferences) == ["three", "two"]
        await do(api.conferences.delete_all)
        await asyncio.gather(*(phone.wait_until_hung_up(5) for phone in phones[2:]))
        assert (await do(api.conferences.list)).conferences == []
        reasons = {(await stage.leaves(phone)).params["ConferenceExitReason"] for phone in phones}
        assert reasons == {"api_hangup"}


async def test_asynchronous_calls_send_their_result(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    async with stage.callers(2) as (ann, bob):
        a, _ = await three(stage, ann, bob)
        told = await do(api.conferences.member_mute, NAME, a, callback_url=stage.url + "/result")
        assert "message" not in told
        result = await stage.receiver.wait_for(lambda r: r.path == "/result")
        assert (result.method, result.params["api_id"], result.params["status_code"]) == ("POST", told.api_id, "202")
        response = json.loads(result.params["response"])
        assert response == {"api_id": told.api_id, "message": "muted", "member_id": [a]}
        await becomes(stage, bob, set())
        url = stage.url + "/list"
        told = await do(api.conferences.list, callback_url=url, callback_method="GET")
        result = await stage.receiver.wait_for(lambda r: r.path == "/list")
        assert result.method == "GET"
        assert json.loads(result.params["response"])["conferences"] == ["stand/up ☕"]
        told = await do(api.conferences.member_kick, NAME, "999999", callback_url=stage.url + "/error")
        result = await stage.receiver.wait_for(lambda r: r.path == "/error")
        assert result.params["status_code"] == "404"
        assert json.loads(result.params["response"])["error"] == "member not found"


async def test_errors_are_the_sdks_exceptions(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    async with stage.callers(1) as (ann,):
        await three(stage, ann)
        with pytest.raises(ValidationError, match=r"url: .*absolute http or https URL"):
            await do(api.conferences.member_play, NAME, "all", "hello.mp3")
        with pytest.raises(ValidationError, match="member_id"):
            await do(api.conferences.member_mute, NAME, "ann")
        with pytest.raises(ResourceNotFoundError, match="member not found"):
            await do(api.conferences.member_kick, NAME, "999999")
        with pytest.raises(AuthenticationError):
            await do(plivo.RestClient(stage.account, "wrong").conferences.list)


async def test_beyond_plivo_hold_announce_and_lock(stage: Stage, api: plivo.RestClient) -> None:
    def call(method: str, *path: str, **body: Any) -> Any:
        return api.request(method, ("Conference", NAME, *path), body, is_voice_request=True)

    do = asyncio.to_thread
    hold, all_hear = stage.tones("/hold.wav", (HOLD, 20_000)), stage.tones("/all.wav", (SOUND, 20_000))
    async with stage.callers(4) as (ann, bob, cid, dan):
        a, *_ = await three(stage, ann, bob, cid)
        assert (await do(call, "POST", "Member", a, "Hold", url=hold)).message == "held"
        await becomes(stage, ann, {HOLD})
        await becomes(stage, bob, {CID})
        await do(call, "POST", "Announce", url=all_hear)
        await becomes(stage, bob, {CID, SOUND})
        await becomes(stage, ann, {HOLD})
        await do(call, "DELETE", "Member", a, "Hold")
        await becomes(stage, ann, {BOB, CID, SOUND})
        await do(call, "DELETE", "Announce")
        await becomes(stage, ann, {BOB, CID})
        assert (await do(call, "POST", "Lock")).message == "locked"
        await stage.call(dan, f"{ROOM}<Play>{hold}</Play>")
        await becomes(stage, dan, {HOLD})
        assert len(stage.events("ConferenceEnter")) == 3
        await dan.hang_up()
        # Without a sound the default music plays.
        await do(call, "POST", "Member", a, "Hold")
        await stage.until(lambda: BOB not in audio_analysis.tones(ann.heard.since(ann.heard.end_ms - 400)), 5)
        assert stage.is_music(await stage.listen(ann, 1500))


async def test_a_mute_outlives_the_application(stage: Stage, api: plivo.RestClient) -> None:
    """A command that was given while the application was away is carried out or refused, but not lost."""
    do = asyncio.to_thread
    async with stage.callers(2) as (ann, bob):
        a, _ = await three(stage, ann, bob)
        await do(api.conferences.member_mute, NAME, a)
        await becomes(stage, bob, set())
        await stage.system.kill("serve")
        muted_again = asyncio.ensure_future(do(api.conferences.member_mute_stop, NAME, a))
        await stage.system.start("serve")
        try:
            await muted_again
            await becomes(stage, bob, {ANN})
        except plivo.exceptions.PlivoRestError:
            # The command's deadline passed in the meantime: "503".
            await becomes(stage, bob, set())
            await do(api.conferences.member_mute_stop, NAME, a)
            await becomes(stage, bob, {ANN})


async def test_record_and_its_callback(stage: Stage, api: plivo.RestClient) -> None:
    do = asyncio.to_thread
    async with stage.callers(2) as (ann, bob):
        await three(stage, ann, bob)
        told = await do(
            api.conferences.record,
            NAME,
            file_format="wav",
            callback_url=stage.url + "/recorded",
            callback_method="POST",
        )
        assert told.message == "conference recording started"
        assert (
            told.url
            == f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Recording/{told.recording_id}.wav"
        )
        with pytest.raises(plivo.exceptions.InvalidRequestError, match="recorded already"):
            await do(api.conferences.record, NAME)
        await asyncio.sleep(1.5)  # in real time, since the audio is recorded
        await do(api.conferences.record_stop, NAME)
        with pytest.raises(ResourceNotFoundError):
            await do(api.conferences.record_stop, NAME)
        callback = await stage.receiver.wait_for(lambda r: r.path == "/recorded", 20)
        params = callback.params
        assert params.keys() == {
            "api_id",
            "record_url",
            "recording_id",
            "conference_name",
            "recording_duration",
            "recording_duration_ms",
            "recording_start_ms",
            "recording_end_ms",
        }
        assert (params["api_id"], params["record_url"]) == (told.api_id, told.url)
        assert (params["recording_id"], params["conference_name"]) == (told.recording_id, "stand/up ☕")
        assert 1000 < int(params["recording_duration_ms"]) < 5000
        # The conference continues and may be recorded again.
        assert (await do(api.conferences.record, NAME)).recording_id != told.recording_id
        await do(api.conferences.record_stop, NAME)


async def test_metrics_of_a_conference(stage: Stage, api: plivo.RestClient) -> None:
    async def values(address: str) -> dict[str, float]:
        async with aiohttp.ClientSession() as client, client.get(f"http://{address}/metrics") as response:
            assert response.status == 200
            lines = [line.rpartition(" ") for line in (await response.text()).splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in lines}

    settings = stage.system.settings
    before = await values(settings.metrics_listen)
    async with stage.callers(2) as (ann, bob):
        await three(stage, ann, bob)
        now = await values(settings.metrics_listen)
        assert (now["ari_conf_calls"], now["ari_conf_conferences"], now["ari_conf_members"]) == (2, 1, 2)
        joins = now["ari_conf_join_seconds_count"] - before["ari_conf_join_seconds_count"]
        took = now["ari_conf_join_seconds_sum"] - before["ari_conf_join_seconds_sum"]
        assert joins == 2
        assert 0 < took / joins < 0.5
        stage.saw(f"a join took {took / joins * 1000:.0f} ms")
        assert now["ari_conf_asterisk_connected"] == 1
        for seconds in ("asterisk", "redis", "loop_lag"):
            assert now[f"ari_conf_{seconds}_seconds_count"] > 0
        await asyncio.to_thread(api.conferences.list)
        web = await values(settings.web_listen)
        place = '{method="GET",path="/v1/Account/{auth_id}/Conference/",status="200"}'
        assert web[f"ari_conf_api_requests_total{place}"] >= 1
        assert web["ari_conf_workers"] == 1
