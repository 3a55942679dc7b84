"""Steps of the wall clock by an hour while calls have deadlines: the deadlines keep their time."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from ari_conf.local.system import LocalSystem
from tests import lateness
from tests.integration.stage import ALLOWED, Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="session")

STEPPED = Path(__file__).parent / "stepped"
HOUR_S = 3600


@pytest_asyncio.fixture(loop_scope="session")
async def stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Stage]:
    """Yield a stage whose server's wall clock the file `ahead` shifts."""
    (tmp_path / "ahead").write_text("0")
    monkeypatch.setenv("WALL_CLOCK_AHEAD", str(tmp_path / "ahead"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(STEPPED), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    )
    parts = ("redis", "asterisk", "worker", "serve")
    async with LocalSystem(tmp_path / "system", ALLOWED, parts) as system, staged(system) as stage:
        yield stage


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S], ids=["an hour ahead", "an hour back"])
async def test_deadlines_come_on_time(stepped: Stage, tmp_path: Path, ahead_s: int) -> None:
    stage = stepped
    stage.set_account(hangup_url="{url}/hangup")
    async with stage.callers(4) as (ann, bob, cid, dave):
        await stage.call(dave, '<GetDigits timeout="120"/>')
        answered = {
            ann: await stage.call(ann, '<GetDigits timeout="6"/>'),
            bob: await stage.call(bob, '<GetDigits timeout="1"/><Wait length="5"/>'),
            cid: await stage.call(cid, '<Conference timeLimit="6" callbackUrl="{url}/events">clock</Conference>'),
        }
        await stage.enters(cid)
        (tmp_path / "ahead").write_text(str(ahead_s))
        # Any event makes the server check its deadlines.
        await dave.press("1")
        told = await stage.leaves(cid)
        assert told.params["ConferenceExitReason"] == "time_limit"
        for phone, since in answered.items():
            over = await stage.event("Hangup", of=phone, timeout=30.0)
            lateness.lasted(since, over.at_ms, 5500, 8500)
        await dave.hang_up()
