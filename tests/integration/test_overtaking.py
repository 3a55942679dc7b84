"""Packets that overtake each other, with both kinds of Asterisk: one that judges a sound by its number, and one not."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ari_conf import identity
from ari_conf.parts import asterisk
from ari_conf.up import System
from demo import rtp
from demo.phone import now_ms
from tests import lateness
from tests.integration.stage import ALLOWED, Stage, staged
from tests.integration.test_phones import A, meet

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
LATEST_TICKS = 5
MOST_HOLES, QUIET = 0.12, 200
"""Of the sound; without a jitter buffer far more is lost where Asterisk drops what was overtaken."""
ABOVE = 40_000
"""Of the numbers above 32768, those that count as late after one of 0."""
LATE = bytes.fromhex("3d 00 80 00 00 0f 87")
"""In the program: is it more than 32768 ahead? Then leave (with the four bytes that follow: where to)."""
NEVER = bytes.fromhex("3d 00 80 00 00 66 0f 1f 44 00 00")


@pytest.fixture
def upstreams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Asterisk as upstream's sources are built: a copy of the installed program without that one check of Debian's,
    and without its name."""
    where = asterisk.present()
    program = shutil.which("asterisk") if where == "native" else f"{where.removeprefix('root ')}/usr/sbin/asterisk"
    assert program
    code = Path(program).read_bytes()
    if identity.DEBIANS.encode() in code:
        assert code.count(LATE) == 1
        at = code.index(LATE)
        code = (code[:at] + NEVER + code[at + len(NEVER) :]).replace(identity.DEBIANS.encode(), b"none")
    copy = tmp_path / "asterisk" / "upstreams"
    copy.parent.mkdir()
    copy.write_bytes(code)
    copy.chmod(0o755)
    command = asterisk.EmbeddedAsterisk.command

    def ours(self: asterisk.EmbeddedAsterisk, *words: str) -> list[str]:
        return command(self, *(str(copy) if word == "asterisk" else word for word in words))

    monkeypatch.setattr(asterisk.EmbeddedAsterisk, "command", ours)


@contextlib.asynccontextmanager
async def always(folder: Path) -> AsyncIterator[Stage]:
    configured = ALLOWED | {"ARI_CONF_JITTER_BUFFER": "always"}
    parts = ("redis", "asterisk", "worker", "serve")
    async with System(folder, configured, parts) as system, staged(system) as stage:
        yield stage


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phone's are high ones."""
    high = SimpleNamespace(randrange=lambda below: ABOVE % below, randint=random.randint)
    monkeypatch.setattr(rtp, "random", high)


async def test_packets_that_overtake_each_other_are_put_in_order(upstreams: None, tmp_path: Path) -> None:
    async with always(tmp_path) as stage, stage.callers(2) as (ann, bob):
        assert identity.DEBIANS not in await stage.asterisk()
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
        assert holes < MOST_HOLES + min(late / 4000, 0.05)


async def test_nobody_is_inaudible_by_a_jitter_buffer(tmp_path: Path) -> None:
    """Debian's build takes all that follows the sound which the buffer puts into a gap for late."""
    async with always(tmp_path) as stage, stage.callers(2) as (ann, bob):
        await meet(stage, ann, bob, document=ROOM)
        ann.tone(A)
        await stage.hears(bob, A)
        ann.jitter(LATEST_TICKS)
        await stage.listen(bob, 1500)
        ann.jitter(0)
        await stage.hears(bob, A, after=now_ms() + 500)
