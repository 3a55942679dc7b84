"""What becomes of an effect when Asterisk can't be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from ari_conf import interpreter
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.errors import AriUnreachable
from ari_conf.interpreter import Interpreter
from tests import lateness


class Broken:
    """A client whose first requests don't arrive, or of which nobody knows."""

    app = "ari_conf"

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked: list[tuple[str, str]] = []

    async def request(self, method: str, path: str, query: Any = None, body: Any = None, *, over: str = "http") -> None:
        self.asked.append((path, over))
        if len(self.asked) <= self.failures:
            raise AriUnreachable("the WebSocket to Asterisk ended before the answer came")


async def done(effect: do.Effect, ari: Broken, monkeypatch: pytest.MonkeyPatch) -> list[ev.Event]:
    monkeypatch.setattr(interpreter, "AGAIN_S", 0.0)
    nothing: Any = None
    told: list[ev.Event] = []
    one = Interpreter(cast(Any, ari), nothing, nothing, nothing, Path(), told.append, nothing)
    one.run(effect)
    while one.busy("c1"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    await one.close()
    return told


async def test_a_mute_is_asked_for_again_by_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Broken(failures=2)
    assert await done(do.MuteChannel("c1", False), ari, monkeypatch) == []
    assert [over for _, over in ari.asked] == ["socket", "http", "http"]


async def test_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Broken(failures=100)
    effect = do.MuteChannel("c1", True)
    (failed,) = await done(effect, ari, monkeypatch)
    assert isinstance(failed, ev.EffectFailed) and failed.effect == effect and not failed.gone
    assert len(ari.asked) == interpreter.TRIES


async def test_what_would_be_heard_twice_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Broken(failures=1)
    effect = do.SendDigits("c1", "12")
    (failed,) = await done(effect, ari, monkeypatch)
    assert isinstance(failed, ev.EffectFailed) and failed.effect == effect
    assert len(ari.asked) == 1


class Codec:
    """A client that knows a call's codec, and no SIP headers."""

    app = "ari_conf"

    def __init__(self, codec: str) -> None:
        self.codec = codec

    async def request(self, *_: Any, **__: Any) -> dict[str, str]:
        return {"value": f"({self.codec});"}


class NoAccounts:
    async def account(self, _: str) -> None:
        return None


@pytest.mark.parametrize(
    ("codec", "always", "wideband"),
    [
        ("ulaw", False, False),
        ("alaw|ulaw", False, False),
        ("g722", False, True),
        ("ulaw|opus", False, True),
        ("ulaw", True, True),
    ],
)
async def test_who_is_a_wideband_caller(codec: str, always: bool, wideband: bool) -> None:
    told: list[ev.Event] = []
    nothing: Any = None
    ari, store = cast(Any, Codec(codec)), cast(Any, NoAccounts())
    one = Interpreter(ari, store, nothing, nothing, Path(), told.append, nothing, always)
    one.run(do.IdentifyCall("u1", "c1", "MA1"))
    async with lateness.timeout():
        while not told:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await one.close()
    (identified,) = told
    assert isinstance(identified, ev.CallIdentified) and identified.wideband is wideband
