"""The removal of accounts with real calls: their calls are hung up or continue, and their last requests are signed.

At the end of each scenario, the stage asserts that all requests were signed with the account's token.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from ari_conf.administration import audit
from ari_conf.recordings import index
from ari_conf.recordings.bucket import Bucket
from ari_conf.store import accounts, removals
from demo.phone import CallFailed, now_ms
from tests.integration.stage import ADMIN_KEY, Stage
from tests.integration.test_api import BOB, three

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference hangupOnStar="true" callbackUrl="{url}/events" action="{url}/action">stand-up</Conference>'
GONE_S = 40.0
"""Seconds within which an account is removed after its last call: workers look every 5 s while calls are kept."""


async def ask(stage: Stage, method: str, path: str = "", key: str = ADMIN_KEY) -> tuple[int, dict[str, Any]]:
    url = f"{stage.system.settings.public_url}/v1/Account/{path}"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.request(method, url) as response,
    ):
        return response.status, await response.json()


async def is_gone(stage: Stage) -> None:
    await stage.until(lambda: removals.get(stage.redis, stage.account) is None, GONE_S)
    assert (await ask(stage, "GET", f"{stage.account}/"))[0] == 404
    assert accounts.get(stage.redis, stage.account) is None


async def test_calls_are_hung_up_and_everything_is_deleted(stage: Stage) -> None:
    stage.set_account(hangup_url="{url}/hangup")
    bucket = Bucket(stage.system.settings)
    async with stage.callers(4) as (ann, bob, cid, dan):
        await three(stage, ann, bob, body=ROOM.replace("<Conference", '<Conference record="true"'))
        await stage.call(cid, "<GetDigits timeout='60'/>")
        status, refused = await ask(stage, "DELETE", f"{stage.account}/")
        assert status == 409 and "live calls (3) in 1 conferences" in refused["error"]
        status, begun = await ask(stage, "DELETE", f"{stage.account}/?calls=end&purge=true")
        assert status == 202 and begun["account"]["removal"]["left"]["calls"] == 3
        for phone in (ann, bob, cid):
            await phone.wait_until_hung_up(15)
        # A server may know the account for 5 s longer; its late call is hung up as well.
        with pytest.raises(CallFailed):
            for _ in range(20):
                await stage.call(dan, "<GetDigits timeout='60'/>")
                await dan.wait_until_hung_up(15)
        for phone in (ann, bob):
            await stage.leaves(phone, ConferenceExitReason="api_hangup")
        await stage.until(lambda: len(stage.receiver.requests_to("/hangup")) >= 3)
        told = [request.params["HangupCauseCode"] for request in stage.receiver.requests_to("/hangup")]
        assert set(told) == {"4000"}
        await is_gone(stage)
    assert index.search(stage.redis, stage.account)[0] == 0
    keys = bucket.call("list_objects_v2", Prefix=f"recordings/{stage.account}/").get("Contents", [])
    left = [key for key in stage.redis.scan_iter(f"*{stage.account}*") if b":removals:" not in key]
    assert not keys and not left
    actions = [one.action for one in audit.read(stage.redis, stage.account)[1]]
    assert actions == ["removed", "removal begun"]


async def test_kept_calls_continue_with_their_documents_until_they_end(stage: Stage) -> None:
    stage.document("/action", "<Conference callbackUrl='{url}/events'>second</Conference>")
    async with stage.callers(3) as (ann, bob, dan):
        await three(stage, ann, bob, body=ROOM)
        status, begun = await ask(stage, "DELETE", f"{stage.account}/?calls=keep")
        assert status == 202 and begun["account"]["removal"]["calls"] == "keep"
        with pytest.raises(CallFailed):
            for _ in range(20):
                await stage.call(dan, "<Hangup/>")
        await stage.hears(ann, BOB, after=now_ms())
        # Ann leaves the conference: her action is requested, and its document runs.
        ann.silence()
        await ann.press("*")
        await stage.enters(ann, ConferenceName="second")
        assert removals.get(stage.redis, stage.account) is not None
        await ann.hang_up()
        await bob.hang_up()
        await stage.leaves(bob)
        await stage.until(lambda: len(stage.receiver.requests_to("/action")) == 2)
        kept = await stage.until(lambda: _removed(stage), GONE_S, "the removal does not end")
        assert kept.left.counted().keys() <= {"delivered_callbacks", "history_entries", "problems"}
    # What is left is deleted later.
    status, _ = await ask(stage, "DELETE", f"{stage.account}/?purge=true")
    assert status == 202
    await is_gone(stage)


def _removed(stage: Stage) -> removals.Removal | None:
    found = removals.get(stage.redis, stage.account)
    return found if found is not None and found.phase == "removed" else None
