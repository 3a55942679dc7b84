"""What becomes of an effect when Asterisk can't be asked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import pytest

from ari_conf import interpreter
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak, Wait
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


# What is prepared and fetched for whom.


class Quiet:
    """A store, a client's permission, and users' servers that never answer; those who ask are counted."""

    app = "ari_conf"
    permission: Any

    def __init__(self) -> None:
        self.permission = self
        self.asked, self.given_up = asyncio.Queue[str](), asyncio.Queue[str]()

    async def account(self, _: str) -> None:
        return None

    async def confirmed(self) -> None:
        pass

    async def request(self, _method: str, url: str, *_: Any, **__: Any) -> None:
        await self._hang(url)

    async def prepare(self, sound: Play, account: str) -> str:
        await self._hang(f"{sound.url} for {account}")
        return ""

    async def _hang(self, what: str) -> None:
        self.asked.put_nowait(what)
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.put_nowait(what)

    def stop_warming(self, owner: str) -> None:
        self.given_up.put_nowait(f"warming for {owner}")


def owners(owned_id: str) -> tuple[str, tuple[str, ...]]:
    known = {
        "c.CALL.1": ("MA1", ("CALL",)),
        "m.ROOM.1.wait.1": ("MA1", ("ROOM", "CALL")),
        "b.ROOM.1": ("MA1", ("ROOM",)),
    }
    return known.get(owned_id, ("", ()))


def preparing(quiet: Quiet) -> Interpreter:
    some = cast(Any, quiet)
    return Interpreter(some, some, some, some, Path(), lambda _: None, some, owners=owners)


FOR_THE_CALL = do.PrepareSound("c.CALL.1", Play("own"))
FOR_THE_MEMBER = do.PrepareSound("m.ROOM.1.wait.1", Play("waiting"))
FOR_THE_CONFERENCE = do.PrepareSound("b.ROOM.1", Play("announced"))
SOUNDS = do.FetchSounds("m.ROOM.1.wait.1", "MA1", "http://sounds.example/", ())


@pytest.mark.parametrize(
    ("ended", "stop"),
    [
        ("CALL", {"own for MA1", "waiting for MA1", "http://sounds.example/"}),
        ("ROOM", {"announced for MA1", "waiting for MA1", "http://sounds.example/"}),
        ("OTHER", set[str]()),
    ],
)
async def test_what_is_prepared_ends_with_whom_it_is_for(ended: str, stop: set[str]) -> None:
    quiet = Quiet()
    one = preparing(quiet)
    for effect in (FOR_THE_CALL, FOR_THE_MEMBER, FOR_THE_CONFERENCE, SOUNDS):
        one.run(effect)
        await quiet.asked.get()
    one.run(do.StopPreparing(ended))
    assert quiet.given_up.get_nowait() == f"warming for {ended}"
    assert {await quiet.given_up.get() for _ in stop} == stop
    for _ in range(5):
        await asyncio.sleep(0)
    assert quiet.given_up.empty()
    await one.close()
    assert one._prepared_for == {}


async def test_a_request_for_a_document_has_time_to_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It carries digits, say; that the caller has hung up meanwhile doesn't undo that they were pressed."""
    monkeypatch.setattr(interpreter, "LAST_WORDS_S", 0.5)
    quiet = Quiet()
    one = preparing(quiet)
    one.run(do.FetchDocument("c.CALL.1", "MA1", "http://action.example/", "POST", ()))
    await quiet.asked.get()
    began = time.monotonic()
    one.run(do.StopPreparing("CALL"))
    assert await quiet.given_up.get() == "warming for CALL"
    assert await quiet.given_up.get() == "http://action.example/"
    assert time.monotonic() - began >= 0.5
    await one.close()


async def test_what_nobody_waits_for_any_more_is_not_prepared() -> None:
    quiet = Quiet()
    one = preparing(quiet)
    one.run(do.PrepareSound("c.GONE.1", Play("own")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert quiet.asked.empty() and not one._tasks
    await one.close()


async def test_sounds_are_warmed_for_the_call_that_named_them(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[tuple[Any, ...]] = []
    told: list[ev.Event] = []
    quiet = Quiet()
    monkeypatch.setattr(quiet, "warm", lambda *given: warmed.append(given), raising=False)
    one = preparing(quiet)
    one._deliver = told.append
    sounds = (Play("a"), Wait(1), Speak("b"))

    async def fetch_sounds(_: do.FetchSounds) -> ev.Event:
        return ev.SoundsFetched(SOUNDS.fetch_id, sounds)

    monkeypatch.setattr(one._documents, "fetch_sounds", fetch_sounds)
    one.run(do.WarmSounds("CALL", "MA1", (Play("a"),)))
    one.run(SOUNDS)
    while not told:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert warmed == [((Play("a"),), "MA1", "CALL"), ([Play("a"), Speak("b")], "MA1", "CALL")]
    await one.close()
