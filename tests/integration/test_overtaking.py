"""Packets that overtake each other, with both kinds of Asterisk: with and without a check of sequence numbers."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ari_conf.local import asterisk
from ari_conf.local.system import LocalSystem
from ari_conf.ownership import asterisk_identity
from demo import rtp
from demo.phone import now_ms
from tests import lateness
from tests.integration.stage import ALLOWED, Stage, staged
from tests.integration.test_phones import A, meet

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
LATEST_TICKS = 5
MAX_HOLES, QUIET = 0.12, 200
"""The maximum share of silent pieces, and the level below which a piece is silent. Without a jitter buffer, an Asterisk
that drops overtaken packets loses far more."""
ABOVE = 40_000
"""A sequence number above 32768, which counts as late after the number 0."""
LATE = bytes.fromhex("3d 00 80 00 00 0f 87")
"""Machine code: leave if the number is more than 32768 ahead (the next four bytes hold the destination)."""
NEVER = bytes.fromhex("3d 00 80 00 00 66 0f 1f 44 00 00")


@pytest.fixture
def upstreams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run Asterisk as built from upstream's sources: a copy of the installed program without that check of Debian's and
    without Debian's name."""
    where = asterisk.find()
    program = shutil.which("asterisk") if where == "native" else f"{where.removeprefix('root ')}/usr/sbin/asterisk"
    assert program
    code = Path(program).read_bytes()
    if asterisk_identity.DEBIAN_VERSION_PART.encode() in code:
        assert code.count(LATE) == 1
        at = code.index(LATE)
        code = (code[:at] + NEVER + code[at + len(NEVER) :]).replace(
            asterisk_identity.DEBIAN_VERSION_PART.encode(), b"none"
        )
    copy = tmp_path / "asterisk" / "upstreams"
    copy.parent.mkdir()
    copy.write_bytes(code)
    copy.chmod(0o755)
    command = asterisk.LocalAsterisk.command

    def ours(self: asterisk.LocalAsterisk, *words: str) -> list[str]:
        return command(self, *(str(copy) if word == "asterisk" else word for word in words))

    monkeypatch.setattr(asterisk.LocalAsterisk, "command", ours)


@contextlib.asynccontextmanager
async def always(folder: Path) -> AsyncIterator[Stage]:
    configured = ALLOWED | {"ARI_CONF_JITTER_BUFFER": "always"}
    parts = ("redis", "asterisk", "worker", "serve")
    async with LocalSystem(folder, configured, parts) as system, staged(system) as stage:
        yield stage


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each phone start with high sequence numbers."""
    high = SimpleNamespace(randrange=lambda below: ABOVE % below, randint=random.randint)
    monkeypatch.setattr(rtp, "random", high)


async def test_packets_that_overtake_each_other_are_put_in_order(upstreams: None, tmp_path: Path) -> None:
    async with always(tmp_path) as stage, stage.callers(2) as (ann, bob):
        assert asterisk_identity.DEBIAN_VERSION_PART not in await stage.asterisk()
        await meet(stage, ann, bob, document=ROOM)
        ann.tone(A)
        await stage.hears(bob, A)
        ann.jitter(LATEST_TICKS)
        await stage.listen(bob, 1500)
        began = now_ms()
        heard = await stage.listen(bob, 4000)
        late = lateness.late_ms(began, now_ms())
        pieces = heard[: len(heard) // 80 * 80].reshape(-1, 80)
        holes = float(np.mean(np.abs(pieces.astype(int)).max(axis=1) < QUIET))
        stage.saw(f"{holes:.1%} of the sound are missing")
        assert holes < MAX_HOLES + min(late / 4000, 0.05)


async def test_nobody_is_inaudible_by_a_jitter_buffer(tmp_path: Path) -> None:
    """The jitter buffer fills a gap with sound, and Debian's build takes all packets after that sound as late."""
    async with always(tmp_path) as stage, stage.callers(2) as (ann, bob):
        await meet(stage, ann, bob, document=ROOM)
        ann.tone(A)
        await stage.hears(bob, A)
        ann.jitter(LATEST_TICKS)
        await stage.listen(bob, 1500)
        ann.jitter(0)
        await stage.hears(bob, A, after=now_ms() + 500)
