"""The system that scenarios share: a scenario that breaks it is reported, and the next one gets another system."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from ari_conf.local import processes
from tests.integration.conftest import Shared
from tests.integration.receiver import Receiver
from tests.integration.stage import PartEnded, Stage, ended_parts

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def small(tmp_path: Path) -> AsyncGenerator[Shared]:
    """Yield shared systems that consist only of a Redis."""
    folders = (tmp_path / str(number) for number in range(9))
    small = Shared(lambda: next(folders), components=("redis",))
    yield small
    await small.end()


async def test_the_same_system_for_all(small: Shared) -> None:
    assert await small.system() is await small.system()


@pytest.mark.parametrize(
    ("ends", "how"), [("kill -ABRT $$", "signal 6"), ("exit 134", "signal 6"), ("exit 3", "code 3")]
)
async def test_a_part_that_ends_by_itself_is_named_with_how_it_ended(tmp_path: Path, ends: str, how: str) -> None:
    command = ["sh", "-c", f"echo one; echo two; {ends}"]
    part = await processes.start("asterisk", command, tmp_path / "log")
    part.popen.wait()
    system: Any = SimpleNamespace(exited_processes=lambda: [part])
    assert ended_parts(system, "here") == f"Asterisk ended with {how} here; its last words:\none\ntwo"


async def test_the_next_scenario_gets_another_system(small: Shared) -> None:
    system = await small.system()
    assert ended_parts(system, "here") == ""
    os.kill(system.process("redis").pid, signal.SIGKILL)
    system.process("redis").popen.wait()
    with pytest.raises(PartEnded, match="Redis ended with signal 9 after the scenario before this one"):
        await small.system()
    other = await small.system()
    assert other is not system and other.process("redis").is_running


async def test_a_scenario_that_waits_learns_it_at_once(small: Shared) -> None:
    system = await small.system()
    async with Receiver() as receiver:
        stage = Stage.__new__(Stage)
        stage.system, receiver.still_of_use = system, stage.all_run
        os.kill(system.process("redis").pid, signal.SIGKILL)
        system.process("redis").popen.wait()
        for waiting in (receiver.event("ConferenceEnter"), stage.until(lambda: False)):
            with pytest.raises(PartEnded, match="Redis ended with signal 9 during this scenario"):
                await waiting


async def test_one_that_was_stopped_on_purpose_has_not_ended(small: Shared) -> None:
    system = await small.system()
    await system.kill("redis")
    assert ended_parts(system, "here") == ""
    stage = Stage.__new__(Stage)
    stage.system = system
    with pytest.raises(PartEnded, match="this scenario stopped redis, and did not start it again"):
        stage.all_there()
