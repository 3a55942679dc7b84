"""Deployments other than the default: an older Asterisk, an Asterisk on another machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, encode_basic_auth

from ari_conf.local.processes import free_port
from ari_conf.local.system import LocalSystem
from demo import audio_analysis
from tests.common.test_redis_ways import give_a_user
from tests.integration.stage import ALLOWED, Stage, staged
from tests.redis import RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def stage_of(folder: Path, **configured: str) -> AsyncGenerator[Stage]:
    parts = ("redis", "asterisk", "worker", "serve", "web")
    async with LocalSystem(folder, ALLOWED | configured, parts) as system, staged(system) as stage:
        yield stage


async def test_an_older_asterisk_to_which_we_connect_and_a_redis_where_we_may_little(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    url = f"redis://{give_a_user(redis_server)}127.0.0.1:{redis_server.port}/0"
    elsewhere = {"ARI_CONF_ARI_SOCKET": "inbound", "ARI_CONF_REDIS_URL": url}
    async with stage_of(tmp_path / "system", **elsewhere) as stage, stage.callers(2) as (ann, bob):
        ann.tone(2575)
        bob.tone(2875)
        told = '<Conference callbackUrl="{url}/events">standup</Conference>'
        await stage.call(ann, told)
        await stage.call(bob, told)
        await asyncio.gather(stage.hears(ann, 2875), stage.hears(bob, 2575))
        async with ClientSession(headers={"Authorization": encode_basic_auth(stage.account, stage.token)}) as http:
            conference = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Conference/standup/"
            async with http.post(f"{conference}Member/all/Mute/") as answered:
                assert answered.status == 202, await answered.text()
        await ann.hang_up()
        await bob.hang_up()
        await stage.event("ConferenceExit", ConferenceLastMember="true")
    assert redis_server.client.execute_command("ACL", "LOG") == []


async def test_an_asterisk_elsewhere_fetches_sounds_by_http(tmp_path: Path) -> None:
    port = free_port()
    elsewhere = {
        "ARI_CONF_SOUNDS_URL": f"http://127.0.0.1:{port}/sounds",
        "ARI_CONF_SOUNDS_LISTEN": f"127.0.0.1:{port}",
        # This Asterisk can't see the folder, so a sound that plays came by HTTP.
        "ARI_CONF_SOUNDS_FOLDER": str(tmp_path / "sounds"),
    }
    async with stage_of(tmp_path / "system", **elsewhere) as stage, stage.callers(1) as (ann,):
        await stage.call(ann, '<Conference enterSound="beep:2">standup</Conference>')
        # The beeps may be more: a late machine leaves holes in one.
        await stage.until(lambda: len(audio_analysis.beeps(ann.as_sent())) >= 2, description="no two beeps")
        await ann.hang_up()
