"""Quality of lines, on real calls: phones that lose packets, and others, as API, dashboard and metrics show it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest
from playwright.async_api import expect

from ari_conf.store.problems import read_problems
from demo.phone import Phone
from tests.integration.dashboard import chromium, looking
from tests.integration.jitter import Jitter
from tests.integration.stage import Stage
from tests.integration.test_grafana import scrape
from tests.lateness import Patience

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
MEASURED_S = 40
"""Seconds of the membership of which the current figures are complete."""
PATIENT_S = 120
SENT_LOST, RECEIVED_LOST = 0.05, 0.10
JITTER_MS = 60.0
CALM_MS = 10.0
"""Jitter below which a line without loss scores more than 4."""


async def conference(stage: Stage) -> dict[str, Any]:
    url = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Conference/standup/"
    headers = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(url) as response:
        assert response.status == 200
        return dict(await response.json())


async def qualities(stage: Stage, phones: dict[str, Phone]) -> dict[str, Any]:
    """Return the quality of each phone's member, by name."""
    by_number = {member["from"]: member["quality"] for member in (await conference(stage))["members"]}
    return {name: by_number[stage.number(phone)] for name, phone in phones.items()}


async def measured(stage: Stage, phones: dict[str, Phone], seconds: float = MEASURED_S) -> dict[str, Any]:
    """Return the qualities once each line has been measured for so long."""
    patience = Patience(PATIENT_S)
    while True:
        found = await qualities(stage, phones)
        if all(quality is not None and quality["measured_s"] >= seconds for quality in found.values()):
            return found
        assert not patience.over, found
        await asyncio.sleep(1)


async def test_lines_that_lose_packets_are_bad_and_others_are_good(stage: Stage) -> None:
    async with stage.callers(4) as (ann, bob, cid, dora):
        phones = {"loses sent": ann, "loses received": bob, "clean": cid, "clean without reports": dora}
        for hz, phone in enumerate(phones.values()):
            phone.tone(700 + 100 * hz, -30)
            await stage.call(phone, ROOM)
            await stage.enters(phone)
        assert set((await qualities(stage, phones)).values()) == {None}, "not measured yet"
        for phone in (ann, bob, cid):
            phone.send_reports()
        ann.lose(sent=SENT_LOST)
        bob.lose(received=RECEIVED_LOST)
        found = await measured(stage, phones)

        lossy = found["loses sent"]
        for figures in (lossy["current"], lossy["average"]):
            assert 2.5 < figures["loss_in"] < 8.5
            assert 1.3 < figures["mos"] < 3.1
            assert figures["loss_out"] < 1
        assert lossy["worst"]["mos"] <= lossy["current"]["mos"] and lossy["bad"]

        poor = found["loses received"]
        assert 6 < poor["current"]["loss_out"] < 15 and poor["current"]["loss_in"] < 1
        assert 2 < poor["current"]["mos"] < 3.9

        clean, silent = found["clean"], found["clean without reports"]
        for quality in (clean, silent):
            assert quality["current"]["loss_in"] == 0.0
            # The delays of a busy machine are jitter.
            if quality["average"]["jitter_in_ms"] < CALM_MS:
                assert not quality["bad"] and quality["average"]["mos"] > 4
            assert quality["average"]["mos"] > lossy["average"]["mos"]
        assert clean["current"]["loss_out"] == 0.0
        assert 0 < clean["current"]["round_trip_ms"] < 500
        unknown = ("loss_out", "jitter_out_ms", "round_trip_ms")
        assert [silent["current"][name] for name in unknown] == [None] * 3

        (member_id,) = [m["member_id"] for m in (await conference(stage))["members"] if m["from"] == stage.number(ann)]
        problems = [one.text for one in read_problems(stage.redis, stage.account) if one.kind == "line_bad"]
        said = f"the line of member {member_id} in conference 'standup' is bad: MOS "
        (problem,) = [text for text in problems if text.startswith(said)]
        assert re.search(r"MOS \d\.\d, \d+(\.\d)? % of their packets are lost", problem)
        assert stage.number(ann) not in problem

        series = await scrape(f"http://{stage.system.settings.metrics_listen}")
        assert {"ari_conf_line_mos_bucket", "ari_conf_bad_lines"} <= series.keys()

        async with chromium() as browser, looking(browser, stage) as seen:
            await seen.log_in()
            await seen.sees("Bad line", within=seen.member(stage.number(ann)))
            other = seen.member(stage.number(cid)).locator(".signal")
            words = (
                r"(Good|Fair|Bad) line, MOS \d\.\d, packets lost from the phone: 0 %, packets lost to the phone: 0 %"
            )
            await expect(other).to_have_text(re.compile(words))
            await expect(other).to_have_attribute("title", re.compile(r"^\w+ line: MOS \d\.\d, .*round trip: \d+ ms$"))
            await seen.is_sound()


async def test_a_line_whose_delay_varies(stage: Stage) -> None:
    async with stage.callers(2) as (ann, bob):
        for hz, phone in ((700, ann), (900, bob)):
            phone.tone(hz, -30)
            await stage.call(phone, ROOM)
            await stage.enters(phone)
        with Jitter(ann, JITTER_MS):
            found = await measured(stage, {"ann": ann, "bob": bob}, 20)
        jitter = found["ann"]["average"]["jitter_in_ms"]
        assert 8 < jitter < JITTER_MS and jitter > found["bob"]["average"]["jitter_in_ms"]
        assert found["ann"]["average"]["mos"] < found["bob"]["average"]["mos"]
