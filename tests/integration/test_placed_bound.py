"""A placed call ends although no process is left that could end it: Asterisk itself bounds it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ari_conf.ari import translate
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.local.asterisk import LocalAsterisk, find, running
from tests import lateness
from tests.integration.called_phone import CalledPhone
from tests.integration.test_ari import ROOT, Application, application

BOUND_S = 4
CHANNEL = ids.channel_id("u1", 0)
BRIDGE = ids.bridge_id("id1")


async def perform(app: Application, asterisk: LocalAsterisk, effect: do.AsteriskEffect) -> None:
    for request in translate.to_requests(effect, asterisk.app):
        await app.client.request(request.method, request.path, request.query, over=request.over, body=request.body)


@pytest.mark.parametrize("state", ["ringing", "answered", "in a conference"])
async def test_asterisk_ends_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(translate, "LONGEST_PLACED_CALL_S", BOUND_S)
    loop = asyncio.get_running_loop()
    with running(LocalAsterisk(tmp_path, find(ROOT), account="MADEFAULT", outbound=True)) as asterisk:
        async with CalledPhone() as ann:
            async with application(asterisk) as app:
                started_at = loop.time()
                endpoint = f"PJSIP/anonymous/{ann.uri}"
                await perform(app, asterisk, do.CreateChannel(CHANNEL, endpoint, "4930", "Ann"))
                await app.next(ev.ChannelCreated)
                await perform(app, asterisk, do.DialChannel(CHANNEL, 60))
                await ann.invited()
                ann.reply("180 Ringing")
                await app.next(ev.ChannelRinging)
                if state != "ringing":
                    ann.answer()
                    await app.next(ev.ChannelAnswered)
                if state == "in a conference":
                    await perform(app, asterisk, do.CreateBridge(BRIDGE))
                    await perform(app, asterisk, do.AddChannel(CHANNEL, BRIDGE))
            # The application is gone, and does not come back.
            assert loop.time() - started_at < BOUND_S, "the call would have ended anyway: too slow to tell"
            async with lateness.timeout():
                await (ann.canceled() if state == "ringing" else ann.hung_up())
            assert loop.time() - started_at >= BOUND_S - 0.5
