"""Tests of an effect that raises, which is a bug: it is reported like a failed one, so that nothing waits for it
forever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play
from ari_conf.server.effect_runner import EffectRunner
from tests import lateness


class Broken:
    """Fake that raises for each request."""

    app = "ari_conf"

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


async def test_broken_effect_fails_and_the_next_one_runs() -> None:
    reported: asyncio.Queue[ev.Event] = asyncio.Queue()
    broken: Any = Broken()
    interpreter = EffectRunner(broken, broken, broken, broken, Path(), reported.put_nowait, broken)
    given = [
        do.IdentifyCall("call", "ann", "A"), do.FetchDocument("f", "A", "http://document.example/", "GET", ()),
        do.FetchSoundDocument("f", "A", "http://document.example/", ()), do.PrepareSound("p", Play("song")),
        do.ClaimName("A", "standup", "c"), do.Answer("ann"), do.HangUp("ann"), do.CreateBridge("b"),
        do.DestroyBridge("b"),
    ]  # fmt: skip
    # Captured, and not printed: each traceback on a console takes longer than everything else here.
    with capture_logs() as logged:
        for effect in given:
            interpreter.run(effect)
        async with lateness.timeout():
            events = [await reported.get() for _ in given]
    assert len([line for line in logged if "internal error in ari_conf" in line.get("hint", "")]) == len(given)
    failed = [event.effect for event in events if isinstance(event, ev.EffectFailed)]
    assert sorted(map(repr, failed)) == sorted(map(repr, given))
    await asyncio.sleep(0)
    assert not interpreter.is_busy("ann") and not interpreter.is_busy("b")
    await interpreter.close()
