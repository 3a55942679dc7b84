"""A full disk of Asterisk, which has cached sounds and recordings: errors are clear, and calls continue."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import pytest_asyncio

from ari_conf.local.system import LocalSystem
from demo.phone import now_ms
from tests.integration.stage import ALLOWED, Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANN, BOB, CID = 2575, 2875, 3175
SOUND = 1825
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """Mount a disk of 24 MB in place of Asterisk's folder."""
    disk = tmp_path / "asterisk"
    disk.mkdir()
    options = f"size=24m,uid={os.geteuid()},mode=755"
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run([*AS_ROOT, "umount", "--lazy", str(disk)], check=True)


@pytest_asyncio.fixture(loop_scope="session")
async def small(disk: Path) -> AsyncGenerator[Stage]:
    """Yield a stage whose Asterisk has that disk."""
    parts = ("redis", "s3", "asterisk", "worker", "serve")
    async with LocalSystem(disk.parent, ALLOWED, parts) as system, staged(system) as stage:
        yield stage


def fill(stage: Stage) -> Path:
    """Fill the rest of the disk with a file and return its path."""
    path = stage.system.folder / "asterisk" / "full"
    with path.open("wb") as file:
        try:
            while True:
                file.write(bytes(65536))
                file.flush()
        except OSError:
            pass
    return path


async def test_calls_go_on(small: Stage) -> None:
    stage = small
    room = '<Conference callbackUrl="{url}/events" record="true">standup</Conference>'
    sound = stage.tones("/sound.wav", (SOUND, 300))
    async with stage.callers(4) as (ann, bob, cid, dan):
        for phone, hz in ((ann, ANN), (bob, BOB), (cid, CID)):
            phone.tone(hz)
        await stage.call(ann, room)
        await stage.call(bob, room)
        await asyncio.gather(stage.hears(ann, BOB), stage.hears(bob, ANN))
        await stage.listen(ann, 1000)
        full = fill(stage)
        since = now_ms()
        # The disk has no room for Cid's sound; Cid enters the conference all the same.
        await stage.call(cid, f"<Play>{sound}</Play>{room}")
        await asyncio.gather(stage.hears(cid, ANN), stage.hears(ann, CID))
        assert [text for text in stage.problems() if "No space left on device" in text]
        await stage.until(lambda: [text for text in stage.problems() if "is Asterisk's disk full?" in text])
        await stage.listen(ann, 2000)
        assert stage.gaps(ann, BOB, since, bob) == []
        for phone in (ann, bob, cid):
            await phone.hang_up()
        # The part that had been recorded is stored.
        cut = await stage.event("ConferenceRecord")
        assert int(cut.params["RecordingDurationMs"]) > 0
        full.unlink()
        # The disk has room again: a sound is cached, and a conference is recorded to its end.
        await stage.call(dan, f"<Play>{sound}</Play>{room}")
        await stage.hears(dan, SOUND)
        entered = await stage.enters(dan)
        await stage.listen(dan, 1500)
        await dan.hang_up()
        whole = await stage.event("ConferenceRecord", ConferenceUUID=entered.params["ConferenceUUID"])
        assert int(whole.params["RecordingDurationMs"]) > 1000
        assert len(stage.problems()) == 2
