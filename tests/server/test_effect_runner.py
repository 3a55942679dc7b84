"""Tests of effects when Asterisk is unreachable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak, Wait
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import AriError, AriLate, AriNotFound, AriUnreachable, SoundError, SoundNotFetched
from ari_conf.server import effect_runner
from ari_conf.server.effect_runner import MAX_ATTEMPTS, MAX_LATE_ATTEMPTS, EffectRunner
from ari_conf.store.accounts import AccountRecord
from tests import lateness

CHANNEL, BRIDGE = do.Target("channel", "c1"), do.Target("bridge", "c1")
BROKE = AriUnreachable("the WebSocket to Asterisk was closed before the answer arrived")
REFUSED_CONNECTION = AriUnreachable("Asterisk is unreachable: connection refused", sent=False)
LATE = AriLate("Asterisk did not answer within 5 s")


class Asterisk:
    """Fake client with these first answers; None: success. All later answers are None."""

    app = "ari_conf"

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str]] = []
        self.inside: list[str] = []
        """The channels in each bridge."""
        self.looks = 0

    async def request(
        self,
        method: str,
        path: str,
        query: Any = None,
        body: Any = None,
        *,
        over: str = "http",
        idempotent: bool = False,
    ) -> Any:
        if method == "GET":
            self.looks += 1
            return {"channels": self.inside}
        self.asked.append((method, path, over))
        if (answer := self.answers.pop(0) if self.answers else None) is not None:
            raise answer
        return None

    @property
    def ways(self) -> list[str]:
        return [over for _, _, over in self.asked]


class Sounds:
    """Sounds that are played, but never requested."""

    def record_use(self, media: tuple[str, ...]) -> None:
        pass


def interpreter_of(ari: Any, deliver: Callable[[ev.Event], None], store: Any = None, **more: Any) -> EffectRunner:
    """Return an effect runner that receives no effects on documents, names or sounds."""
    unused: Any = None
    return EffectRunner(cast(Any, ari), store, unused, cast(Any, Sounds()), Path(), deliver, unused, **more)


async def done(ari: Asterisk, monkeypatch: pytest.MonkeyPatch, *effects: do.Effect) -> list[ev.Event]:
    """Run the effects, all on the channel or bridge c1, and return the reported events."""
    monkeypatch.setattr(effect_runner, "RETRY_DELAY_S", 0.0)
    reported: list[ev.Event] = []
    one = interpreter_of(ari, reported.append)
    for effect in effects:
        one.run(effect)
    await lateness.soon(one.wait_until_idle())
    await one.close()
    return reported


HARMLESS = [
    do.Ring("c1"), do.Answer("c1"), do.MuteChannel("c1", False), do.DeafenChannel("c1", True),
    do.DetectTalking("c1", 500),
    do.StartMusic("c1"), do.StopMusic("c1"), do.StopPlayback(CHANNEL, "p1"), do.StopPlayback(BRIDGE, "p1"),
    do.HangUp("c1"), do.RemoveChannel("c1", "b1"), do.DestroyBridge("c1"), do.StopRecording("c1", "r1", "A"),
    do.SendSilence("c1", True), do.SendSilence("c1", False),
]  # fmt: skip


@pytest.mark.parametrize("effect", HARMLESS, ids=repr)
async def test_an_idempotent_effect_is_retried(effect: do.Effect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unknown if the effect was carried out, and for most of these no event would reveal that it was not."""
    ari = Asterisk(BROKE, REFUSED_CONNECTION)
    reported = await done(ari, monkeypatch, effect)
    assert [event for event in reported if isinstance(event, ev.EffectFailed)] == []
    assert len(ari.asked) == 3


def test_all_of_them_are_tried_here() -> None:
    assert {type(effect) for effect in HARMLESS} == {e for e in get_args(do.AsteriskEffect) if e.retry_on_disconnect}


def test_each_effect_is_executed_or_part_of_the_step() -> None:
    executed, persisted = set(get_args(do.ExecutedEffect)), set(get_args(do.PersistedEffect))
    assert executed | persisted == set(get_args(do.Effect)) and not executed & persisted


async def test_another_way_is_taken_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """The WebSocket may be the cause of the failure."""
    ari = Asterisk(BROKE, BROKE)
    await done(ari, monkeypatch, do.MuteChannel("c1", False))
    assert ari.ways == ["socket", "http", "http"]


@pytest.mark.parametrize(
    ("error", "tries"), [(BROKE, MAX_ATTEMPTS), (REFUSED_CONNECTION, MAX_ATTEMPTS), (LATE, MAX_LATE_ATTEMPTS)]
)
async def test_not_for_ever(error: AriError, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next effect on the same channel must not wait too long: the core asks again later."""
    ari = Asterisk(*[error] * 100)
    effect = do.RemoveChannel("c1", "b1")
    (failed,) = await done(ari, monkeypatch, effect)
    assert failed == ev.EffectFailed(effect, str(error), target_gone=False, refused=False)
    assert len(ari.asked) == tries


@pytest.mark.parametrize(
    "effect", [do.SendDigits("c1", "12"), do.PlayMedia(CHANNEL, "p1", ("sound:x",))], ids=lambda e: type(e).__name__
)
async def test_an_effect_that_would_be_heard_twice_is_not_retried(
    effect: do.Effect, monkeypatch: pytest.MonkeyPatch
) -> None:
    ari = Asterisk(BROKE)
    (failed,) = await done(ari, monkeypatch, effect)
    assert isinstance(failed, ev.EffectFailed) and failed.effect == effect
    assert len(ari.asked) == 1


async def test_unless_it_was_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Asterisk(REFUSED_CONNECTION, REFUSED_CONNECTION)
    assert await done(ari, monkeypatch, do.SendDigits("c1", "12")) == []
    assert len(ari.asked) == 3
    ari = Asterisk(REFUSED_CONNECTION, BROKE)
    assert len(await done(ari, monkeypatch, do.SendDigits("c1", "12"))) == 1


@pytest.mark.parametrize("effect", [do.CreateBridge("c1"), do.StartRecording("c1", "r1", "A")], ids=repr)
async def test_resource_that_exists_counts_as_created(effect: do.Effect, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was lost, and at the second attempt Asterisk says that the object exists."""
    ari = Asterisk(BROKE, AriError("already exists", 409))
    reported = await done(ari, monkeypatch, effect)
    assert not any(isinstance(event, ev.EffectFailed) for event in reported)
    assert reported == ([ev.BridgeCreated("c1")] if isinstance(effect, do.CreateBridge) else [])


async def test_resource_of_another_application_does_not_count_as_created(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Asterisk(REFUSED_CONNECTION, AriError("already exists", 409))
    (failed,) = await done(ari, monkeypatch, do.CreateBridge("c1"))
    assert isinstance(failed, ev.EffectFailed) and failed.refused


ADD = do.AddChannel("c1", "b1")


async def test_a_channel_in_the_bridge_is_not_added_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asterisk would take the channel out of the bridge and put it in again."""
    ari = Asterisk(BROKE)
    ari.inside = ["other", "c1"]
    assert await done(ari, monkeypatch, ADD) == []
    assert (len(ari.asked), ari.looks) == (1, 1)


async def test_a_channel_that_is_not_in_the_bridge_is_added_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Asterisk(BROKE)
    ari.inside = ["other"]
    assert await done(ari, monkeypatch, ADD) == []
    assert (len(ari.asked), ari.looks) == (2, 1)


async def test_without_a_doubt_it_is_not_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Asterisk(REFUSED_CONNECTION)
    assert await done(ari, monkeypatch, ADD) == []
    assert (len(ari.asked), ari.looks) == (2, 0)


async def test_a_late_add_is_not_repeated_while_asterisk_may_execute_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Asterisk(LATE)
    (failed,) = await done(ari, monkeypatch, ADD)
    assert isinstance(failed, ev.EffectFailed) and not failed.target_gone
    assert (len(ari.asked), ari.looks) == (1, 0)


async def test_a_channel_that_could_not_be_muted_is_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    mute = do.MuteChannel("c1", True)
    ari = Asterisk(*[BROKE] * MAX_ATTEMPTS, *[BROKE] * MAX_ATTEMPTS)
    reported = await done(ari, monkeypatch, mute, ADD)
    assert [event.effect for event in reported if isinstance(event, ev.EffectFailed)] == [mute, ADD]
    assert not any("addChannel" in path for _, path, _ in ari.asked)


@pytest.mark.parametrize("then", [[], [do.MuteChannel("c1", True)], [do.MuteChannel("c1", False)]], ids=repr)
async def test_and_is_let_in_once_they_are_muted_or_need_not_be(
    then: list[do.Effect], monkeypatch: pytest.MonkeyPatch
) -> None:
    ari = Asterisk(*[BROKE] * MAX_ATTEMPTS)
    (failed,) = await done(ari, monkeypatch, do.MuteChannel("c1", True), *then, ADD)
    assert isinstance(failed, ev.EffectFailed)
    methods = [(method, path.rpartition("/")[2]) for method, path, _ in ari.asked[MAX_ATTEMPTS:]]
    unmuted = then == [do.MuteChannel("c1", False)]
    assert methods == [("DELETE" if unmuted else "POST", "mute"), ("POST", "addChannel")]


async def test_a_mute_of_a_channel_that_is_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    ari = Asterisk(AriNotFound("no such channel", 404))
    await done(ari, monkeypatch, do.MuteChannel("c1", True), ADD)
    assert [path.rpartition("/")[2] for _, path, _ in ari.asked] == ["mute", "addChannel"]


@pytest.mark.parametrize(
    ("effect", "status", "gone"),
    [
        (do.Answer("c1"), 404, True),
        (do.Answer("c1"), 409, False),
        (ADD, 400, True),
        (ADD, 422, True),
        (ADD, 409, False),
        (do.RemoveChannel("c1", "b1"), 422, True),
        (do.StartMusic("c1"), 422, False),
    ],
)
async def test_a_refusal_is_reported_immediately(
    effect: do.Effect, status: int, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ari = Asterisk((AriNotFound if status == 404 else AriError)("no", status))
    assert await done(ari, monkeypatch, effect) == [ev.EffectFailed(effect, "no", gone, refused=True)]
    assert len(ari.asked) == 1


async def test_effect_that_waits_for_a_playback_keeps_its_place_and_does_not_delay_the_end() -> None:
    """Asterisk sets a variable, such as the one for deaf members, only after the channel's playback."""
    ended, asked = asyncio.Event(), list[str]()

    class Plays:
        app = "ari_conf"

        async def request(self, method: str, path: str, *_: Any, **__: Any) -> None:
            asked.append(f"{method} {path}")
            if path.endswith("/variable"):
                await ended.wait()

    one = interpreter_of(Plays(), lambda event: None)
    target, played = do.Target("channel", "c1"), do.PlayMedia(do.Target("channel", "c1"), "p2", ("sound:two",))
    for effect in (do.DeafenChannel("c1", False), do.StopPlayback(target, "p1"), played):
        one.run(effect)
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked == ["POST /channels/c1/variable", "DELETE /playbacks/p1"]
    ended.set()
    await lateness.soon(one.wait_until_idle())
    assert asked[2:] == ["POST /channels/c1/play"]
    await one.close()


async def test_the_effects_of_a_channel_keep_their_order_and_no_other_waits_for_them() -> None:
    held, asked = asyncio.Event(), list[str]()

    class Slow:
        app = "ari_conf"

        async def request(self, method: str, path: str, *_: Any, **__: Any) -> None:
            asked.append(path)
            if path == "/channels/c1/answer":
                await held.wait()

    one = interpreter_of(Slow(), lambda event: None)
    for effect in (do.Answer("c1"), do.StartMusic("c1"), do.Answer("c2"), do.DetectTalking("c1", 500)):
        one.run(effect)
    for _ in range(10):
        await asyncio.sleep(0)
    assert asked == ["/channels/c1/answer", "/channels/c2/answer", "/channels/c1/variable"]
    assert one.is_busy("c1") and not one.is_busy("c2")
    held.set()
    await lateness.soon(one.wait_until_idle())
    assert asked[-1] == "/channels/c1/moh"
    await one.close()


async def test_a_report_that_raises_does_not_stop_later_effects() -> None:
    """The failure is a bug; the channel must be hung up nevertheless."""

    def breaks(_: ev.Event) -> None:
        raise ZeroDivisionError

    ari = Asterisk(AriError("no", 500))
    one = interpreter_of(ari, breaks)
    with capture_logs() as logged:  # each traceback on a console takes longer than everything else here
        for effect in (do.Answer("c1"), do.HangUp("c1")):
            one.run(effect)
        await lateness.soon(one.wait_until_idle())
        assert not one.is_busy("c1")
        one.run(do.HangUp("c1"))
        await lateness.soon(one.wait_until_idle())
    assert [method for method, _, _ in ari.asked] == ["POST", "DELETE", "DELETE"]
    assert [line for line in logged if "internal error in ari_conf" in line.get("hint", "")]
    await one.close()


class Codec:
    """Fake client that knows a call's codec, and no SIP headers."""

    app = "ari_conf"

    def __init__(self, codec: str) -> None:
        self.codec = codec

    async def request(self, *_: Any, **__: Any) -> dict[str, str]:
        return {"value": f"({self.codec});PJSIP;127.0.0.1:5060 127.0.0.1:4000;Via,From"}


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
async def test_codec_decides_who_is_a_wideband_caller(codec: str, always: bool, wideband: bool) -> None:
    assert (await identified(codec, NoAccounts(), always_wideband=always)).wideband is wideband


async def identified(codec: str, accounts: Any, **more: Any) -> ev.CallIdentified:
    """Return the result of the identification of a call with that codec."""
    reported: list[ev.Event] = []
    one = interpreter_of(Codec(codec), reported.append, accounts, **more)
    one.run(do.IdentifyCall("u1", "c1", "MA1"))
    async with lateness.timeout():
        while not reported:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await one.close()
    (found,) = reported
    assert isinstance(found, ev.CallIdentified)
    return found


class RemovedAccount:
    async def account(self, auth_id: str) -> AccountRecord:
        return AccountRecord(auth_id=auth_id, token="token", created_ms=0, removed=True)


async def test_a_new_call_of_an_account_that_is_being_removed_has_none() -> None:
    assert (await identified("ulaw", RemovedAccount())).account is None


# Preparations and requests, and the calls that they are for.


class Quiet:
    """A store, a client's permission, and users' servers that never answer; requests are recorded."""

    app = "ari_conf"
    permission: Any

    def __init__(self) -> None:
        self.permission = self
        self.asked, self.given_up = asyncio.Queue[str](), asyncio.Queue[str]()

    async def account(self, auth_id: str) -> AccountRecord:
        return AccountRecord(auth_id=auth_id, token="token", created_ms=0)

    async def wait_until_held(self) -> None:
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


def preparing(quiet: Quiet) -> EffectRunner:
    some = cast(Any, quiet)
    return EffectRunner(some, some, some, some, Path(), lambda _: None, some, owners=owners)


FOR_THE_CALL = do.PrepareSound("c.CALL.1", Play("own"))
FOR_THE_MEMBER = do.PrepareSound("m.ROOM.1.wait.1", Play("waiting"))
FOR_THE_CONFERENCE = do.PrepareSound("b.ROOM.1", Play("announced"))
SOUNDS = do.FetchSoundDocument("m.ROOM.1.wait.1", "MA1", "http://sounds.example/", ())


@pytest.mark.parametrize(
    ("ended", "stop"),
    [
        ("CALL", {"own for MA1", "waiting for MA1", "http://sounds.example/"}),
        ("ROOM", {"announced for MA1", "waiting for MA1", "http://sounds.example/"}),
        ("OTHER", set[str]()),
    ],
)
async def test_preparations_end_with_their_call_or_conference(ended: str, stop: set[str]) -> None:
    quiet = Quiet()
    one = preparing(quiet)
    for effect in (FOR_THE_CALL, FOR_THE_MEMBER, FOR_THE_CONFERENCE, SOUNDS):
        one.run(effect)
        await lateness.soon(quiet.asked.get())
    one.run(do.StopPreparing(ended))
    assert quiet.given_up.get_nowait() == f"warming for {ended}"
    assert {await lateness.soon(quiet.given_up.get()) for _ in stop} == stop
    for _ in range(5):
        await asyncio.sleep(0)
    assert quiet.given_up.empty()
    await one.close()
    assert one._tasks_by_owner == {}


async def test_a_request_for_a_document_has_time_to_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request may carry digits: they were pressed even if the caller has hung up since."""
    monkeypatch.setattr(effect_runner, "FETCH_GRACE_S", 0.5)
    quiet = Quiet()
    one = preparing(quiet)
    one.run(do.FetchDocument("c.CALL.1", "MA1", "http://action.example/", "POST", ()))
    await lateness.soon(quiet.asked.get())
    began = time.monotonic()
    one.run(do.StopPreparing("CALL"))
    assert await lateness.soon(quiet.given_up.get()) == "warming for CALL"
    assert await lateness.soon(quiet.given_up.get()) == "http://action.example/"
    assert time.monotonic() - began >= 0.5
    await one.close()


async def test_unneeded_sound_is_not_prepared() -> None:
    quiet = Quiet()
    one = preparing(quiet)
    one.run(do.PrepareSound("c.GONE.1", Play("own")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert quiet.asked.empty() and not one._tasks
    await one.close()


async def test_sounds_are_warmed_for_the_call_that_named_them(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[tuple[Any, ...]] = []
    reported: list[ev.Event] = []
    quiet = Quiet()
    monkeypatch.setattr(quiet, "warm", lambda *given: warmed.append(given), raising=False)
    one = preparing(quiet)
    one._deliver = reported.append
    sounds = (Play("a"), Wait(1), Speak("b"))

    async def fetch_sounds(_: do.FetchSoundDocument) -> ev.Event:
        return ev.SoundDocumentFetched(SOUNDS.fetch_id, sounds)

    monkeypatch.setattr(one._documents, "fetch_sounds", fetch_sounds)
    one.run(do.WarmSounds("CALL", "MA1", (Play("a"),)))
    one.run(SOUNDS)
    async with lateness.timeout():
        while not reported:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert warmed == [((Play("a"),), "MA1", "CALL"), ([Play("a"), Speak("b")], "MA1", "CALL")]
    await one.close()


@pytest.mark.parametrize(
    ("sound", "error", "kind"),
    [
        (Play("x"), SoundNotFetched("down", not_allowed=False), ProblemKind.SOUND_UNREACHABLE),
        (Play("x"), SoundNotFetched("private", not_allowed=True), ProblemKind.URL_NOT_ALLOWED),
        (Play("x"), SoundError("no audio"), ProblemKind.SOUND_UNPLAYABLE),
        (Speak("x"), SoundError("no voice"), ProblemKind.SPEECH_FAILED),
    ],
    ids=["unreachable", "not allowed", "unplayable", "unspeakable"],
)
async def test_a_sound_that_fails_says_its_kind(sound: Play | Speak, error: SoundError, kind: ProblemKind) -> None:
    async def prepare(*_: Any) -> str:
        raise error

    reported: asyncio.Queue[ev.Event] = asyncio.Queue()
    some = cast(Any, SimpleNamespace(app="ari_conf", prepare=prepare, complaints=lambda _: []))
    runner = EffectRunner(some, some, some, some, Path(), reported.put_nowait, some, owners=owners)
    runner.run(do.PrepareSound("c.CALL.1", sound))
    assert await reported.get() == ev.SoundFailed("c.CALL.1", sound, kind, str(error))
    await runner.close()
