"""The ARI client and the translation, against a real Asterisk."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ari_conf.ari.address import AriConfig
from ari_conf.ari.client import Client
from ari_conf.ari.translate import EVENTS, to_event, to_requests
from ari_conf.core import effects as do
from ari_conf.core import events as seen
from ari_conf.core import ids
from ari_conf.errors import AriError, AriNotFound, AriUnreachable
from ari_conf.local.asterisk import DEFAULT_ROOT, LocalAsterisk, find, running
from demo import audio_analysis
from demo.phone import CallFailed, Phone, Switchboard, now_ms
from tests import lateness

BRIDGE = ids.bridge_id("id1")
ROOT = Path(os.environ.get("ARI_CONF_ASTERISK_ROOT", DEFAULT_ROOT))


@pytest.fixture
def asterisk(tmp_path: Path) -> Iterator[LocalAsterisk]:
    with running(LocalAsterisk(tmp_path, find(ROOT), account="MADEFAULT", outbound=True)) as started:
        yield started


@pytest.fixture
def inbound_asterisk(tmp_path: Path) -> Iterator[LocalAsterisk]:
    with running(LocalAsterisk(tmp_path, find(ROOT), account="MADEFAULT")) as started:
        yield started


class Application:
    """A minimal ARI application: records the events in order and can send requests."""

    def __init__(self, asterisk: LocalAsterisk, deadline: float = 5.0) -> None:
        listen = (asterisk.host, asterisk.websocket_port) if asterisk.outbound else None
        server = AriConfig(
            asterisk.url,
            asterisk.app,
            asterisk.user,
            asterisk.password,
            listen,
            request_timeout_s=deadline,
            events=EVENTS,
        )
        self.client = Client(server, self._receive, lambda: self._connection(True), lambda: self._connection(False))
        self.connected, self.disconnected = asyncio.Event(), asyncio.Event()
        self._happened: asyncio.Queue[seen.Event] = asyncio.Queue()
        self.types: list[str] = []

    def _receive(self, message: dict[str, object]) -> None:
        self.types.append(str(message["type"]))
        if (event := to_event(message, lambda: "some-id")) is not None:
            self._happened.put_nowait(event)

    def _connection(self, stands: bool) -> None:
        now, before = (self.connected, self.disconnected) if stands else (self.disconnected, self.connected)
        before.clear()
        now.set()

    async def next(self, kind: type[seen.Event]) -> seen.Event:
        """Return the next event of this kind; skip those before it."""
        async with lateness.timeout():
            while not isinstance(event := await self._happened.get(), kind):
                pass
        return event

    async def arrived(self) -> seen.CallArrived:
        event = await self.next(seen.CallArrived)
        assert isinstance(event, seen.CallArrived)
        return event

    async def perform(self, *effects: do.AsteriskEffect) -> None:
        for effect in effects:
            for request in to_requests(effect):
                await self.client.request(request.method, request.path, request.query, over=request.over)


@asynccontextmanager
async def application(asterisk: LocalAsterisk, deadline: float = 5.0) -> AsyncIterator[Application]:
    app = Application(asterisk, deadline)
    await app.client.start()
    try:
        async with lateness.timeout():
            await app.connected.wait()
        yield app
    finally:
        await app.client.close()


class Caller:
    def __init__(self, phone: Phone, calling: asyncio.Task[None]) -> None:
        self.phone, self._calling = phone, calling

    async def answered(self) -> None:
        async with lateness.timeout():
            await self._calling

    async def refused(self) -> int:
        """Return the SIP status of a refused call."""
        with pytest.raises(CallFailed) as failed:
            await self.answered()
        return failed.value.status


@asynccontextmanager
async def call(asterisk: LocalAsterisk, dialled: str, **headers: str) -> AsyncIterator[Caller]:
    """Start a call and yield its caller; `headers` have _ for -."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    async with Switchboard(1) as (ada,):
        uri = f"sip:{dialled}@{asterisk.host}:{asterisk.sip_port}"
        calling = ada.call(uri, headers=named, from_user="+14155550100", display_name="Ada Caller")
        task = asyncio.create_task(calling)
        try:
            yield Caller(ada, task)
        finally:
            await ada.hang_up()
            with suppress(CallFailed):
                await task


async def hears_something(phone: Phone) -> None:
    """Wait until the phone hears something from now on."""
    start = now_ms()
    async with lateness.timeout():
        while audio_analysis.silent(phone.heard.since(start)):  # noqa: ASYNC110  what it waits for is made by packets
            await asyncio.sleep(0.02)


async def hears_nothing(phone: Phone, ms: float = 300) -> None:
    start = now_ms()
    await asyncio.sleep((ms + 60) / 1000)
    assert audio_analysis.silent(phone.heard.between(start, start + ms))


@asynccontextmanager
async def conference_of_two(app: Application, asterisk: LocalAsterisk) -> AsyncIterator[tuple[Phone, Phone, str, str]]:
    async with call(asterisk, "14155550101") as ada:
        first = (await app.arrived()).channel_id
        async with call(asterisk, "14155550102") as bob:
            second = (await app.arrived()).channel_id
            await app.perform(do.Answer(first), do.Answer(second), do.CreateBridge(BRIDGE))
            await ada.answered()
            await bob.answered()
            await app.perform(do.AddChannel(first, BRIDGE), do.AddChannel(second, BRIDGE))
            joined = [await app.next(seen.ChannelEnteredBridge), await app.next(seen.ChannelEnteredBridge)]
            assert joined == [seen.ChannelEnteredBridge(first, BRIDGE), seen.ChannelEnteredBridge(second, BRIDGE)]
            yield ada.phone, bob.phone, first, second


async def test_a_call_arrives_over_the_websocket_that_asterisk_opened(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, call(asterisk, "+14155550199"):
        arrived = await app.arrived()

    assert (arrived.auth_id, arrived.document) == ("MADEFAULT", None)
    assert (arrived.from_, arrived.to, arrived.caller_name) == ("+14155550100", "+14155550199", "Ada Caller")
    assert not arrived.answered


async def test_a_call_arrives_over_the_websocket_that_the_server_opened(inbound_asterisk: LocalAsterisk) -> None:
    async with application(inbound_asterisk) as app, call(inbound_asterisk, "lunch"):
        arrived = await app.arrived()

    assert (arrived.auth_id, arrived.document, arrived.to) == ("MADEFAULT", "lunch", "lunch")


@pytest.mark.parametrize(
    ("dialled", "headers", "account", "document"),
    [
        ("MAOTHER*14155550199", {}, "MAOTHER", None),
        ("MAOTHER*lunch-2_b", {}, "MAOTHER", "lunch-2_b"),
        ("lunch", {"X_Ari_Conf_Account": "MAOTHER"}, "MAOTHER", "lunch"),
        ("1234", {"X_Ari_Conf_Document": "http://127.0.0.1/a,b?c=d&e"}, "MADEFAULT", "http://127.0.0.1/a,b?c=d&e"),
    ],
)
async def test_a_trusted_caller_chooses_account_and_document(
    asterisk: LocalAsterisk, dialled: str, headers: dict[str, str], account: str, document: str | None
) -> None:
    async with application(asterisk) as app, call(asterisk, dialled, **headers):
        arrived = await app.arrived()

    assert (arrived.auth_id, arrived.document) == (account, document)
    assert arrived.to == dialled.rpartition("*")[2]


async def test_an_untrusted_caller_does_not_choose_account_and_document(tmp_path: Path) -> None:
    with running(LocalAsterisk(tmp_path, find(ROOT), account="MADEFAULT", trust_callers=False)) as asterisk:
        async with application(asterisk) as app, call(asterisk, "MAOTHER*1234", X_Ari_Conf_Account="MAOTHER"):
            assert (await app.arrived()).auth_id == "MADEFAULT"


async def test_headers_of_the_invite_are_read_from_the_channel(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, call(asterisk, "1234", X_PH_Colour="blue, green", X_PH_Size="7"):
        path = f"/channels/{(await app.arrived()).channel_id}/variable"
        names = await app.client.request("GET", path, {"variable": "PJSIP_HEADERS(X-PH-)"})
        colour = await app.client.request("GET", path, {"variable": "PJSIP_HEADER(read,X-PH-Colour)"})

    assert names == {"value": "X-PH-Colour,X-PH-Size"}
    assert colour == {"value": "blue, green"}


@pytest.mark.parametrize("opened_by", ["asterisk", "inbound_asterisk"])
async def test_a_call_placed_while_the_server_was_disconnected_is_not_lost(
    opened_by: str, request: pytest.FixtureRequest
) -> None:
    away: LocalAsterisk = request.getfixturevalue(opened_by)
    async with application(away) as app:
        assert app.client.connected
    async with call(away, "1234") as caller:
        if not away.outbound:
            async with lateness.timeout():
                await caller.phone.ringing.wait()  # in the dialplan
        async with application(away) as app:
            assert (await app.arrived()).to == "1234"


async def test_only_requested_event_types_are_sent(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (_, _, first, _):
        await app.perform(do.HangUp(first))
        await app.next(seen.ChannelHungUp)

        assert set(app.types) <= {*EVENTS, "ApplicationRegistered"}


async def test_members_talk(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, _, first, _):
        await app.perform(do.DetectTalking(first, 300))
        ada.tone(1000)
        assert await app.next(seen.TalkingStarted) == seen.TalkingStarted(first)
        ada.silence()
        assert await app.next(seen.TalkingFinished) == seen.TalkingFinished(first)


async def test_members_press_keys(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, bob, first, second):
        await ada.press("5")
        assert await app.next(seen.DigitReceived) == seen.DigitReceived(first, "5")
        assert bob.received == []  # Asterisk absorbs it; the server decides what others receive

        await app.perform(do.SendDigits(second, "42"))
        await bob.wait_for_digits("42")


async def test_muted_channel_is_not_heard_and_deaf_one_hears_nothing(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, bob, first, second):
        ada.tone(1000)
        await hears_something(bob)

        for silenced, again in (
            (do.MuteChannel(first, True), do.MuteChannel(first, False)),
            (do.DeafenChannel(second, True), do.DeafenChannel(second, False)),
        ):
            await app.perform(silenced)
            await asyncio.sleep(0.2)  # packets that were on their way
            since = now_ms()
            await hears_nothing(bob)
            # Many phones hang up if they receive no packets at all.
            assert bob._session is not None and [at for at in bob._session.arrivals_ms if at > since]
            await app.perform(again)
            await hears_something(bob)


async def test_sounds_are_played_to_one_or_to_all(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, bob, first, _):
        start = now_ms()
        await app.perform(do.StartMusic(first))
        await hears_something(ada)
        assert audio_analysis.silent(bob.heard.between(start, now_ms()))
        await app.perform(do.StopMusic(first))

        await app.perform(do.PlayMedia(do.Target("bridge", BRIDGE), "p1", ("sound:beep", "sound:beep")))
        await hears_something(bob)
        assert await app.next(seen.PlaybackFinished) == seen.PlaybackFinished("p1")

        to_ada = do.Target("channel", first)
        await app.perform(do.PlayMedia(to_ada, "p2", ("sound:demo-congrats",)), do.StopPlayback(to_ada, "p2"))
        assert await app.next(seen.PlaybackFinished) == seen.PlaybackFinished("p2")

        await app.perform(do.PlayMedia(to_ada, "p3", ("sound:/there/is/none",)))
        assert await app.next(seen.PlaybackFinished) == seen.PlaybackFinished("p3", failed=True)


async def test_a_bridge_is_recorded(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, _, _, _):
        await app.perform(do.StartRecording(BRIDGE, "r1", "MADEFAULT"))
        assert await app.next(seen.RecordingStarted) == seen.RecordingStarted("id1", "r1")
        ada.tone(1000)
        await asyncio.sleep(1.0)
        await app.perform(do.StopRecording(BRIDGE, "r1", "MADEFAULT"))
        assert await app.next(seen.RecordingFinished) == seen.RecordingFinished("id1", "r1")

    recorded = asterisk.recordings / f"{ids.RecordingName('MADEFAULT', 'id1', 'r1')}.wav"
    assert recorded.stat().st_size > 8000


async def test_a_recording_that_is_stopped_as_its_bridge_goes_is_kept(asterisk: LocalAsterisk) -> None:
    """Asterisk usually reports the end, but not always: a successful destruction of the bridge proves it as well."""
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, _, _, _):
        await app.perform(do.StartRecording(BRIDGE, "r1", "MADEFAULT"))
        await app.next(seen.RecordingStarted)
        ada.tone(1000)
        await asyncio.sleep(1.0)
        await app.perform(do.StopRecording(BRIDGE, "r1", "MADEFAULT"), do.DestroyBridge(BRIDGE))

    recorded = asterisk.recordings / f"{ids.RecordingName('MADEFAULT', 'id1', 'r1')}.wav"
    assert recorded.stat().st_size > 8000


async def test_members_leave(asterisk: LocalAsterisk) -> None:
    async with application(asterisk) as app, conference_of_two(app, asterisk) as (ada, bob, first, second):
        await app.perform(do.RemoveChannel(first, BRIDGE))
        assert await app.next(seen.ChannelLeftBridge) == seen.ChannelLeftBridge(first, BRIDGE)

        await bob.hang_up()
        assert await app.next(seen.ChannelHungUp) == seen.ChannelHungUp(second, 0)

        await app.perform(do.DestroyBridge(BRIDGE))
        assert await app.next(seen.BridgeDestroyed) == seen.BridgeDestroyed(BRIDGE)

        await app.perform(do.HangUp(first))
        await ada.wait_until_hung_up()
        # A hangup is reported more than once: further reports of the other call's may come first.
        while (gone := await app.next(seen.ChannelHungUp)).channel_id == second:
            pass
        assert gone == seen.ChannelHungUp(first, 0)


@pytest.mark.parametrize(("reason", "status"), [("busy", 486), ("rejected", 403), ("normal", 603)])
async def test_a_call_is_refused(asterisk: LocalAsterisk, reason: str, status: int) -> None:
    async with application(asterisk) as app, call(asterisk, "1234") as caller:
        await app.perform(do.HangUp((await app.arrived()).channel_id, reason))  # type: ignore[arg-type]

        assert await caller.refused() == status


@pytest.mark.parametrize("over", ["http", "socket"])
async def test_asterisk_says_what_is_wrong(asterisk: LocalAsterisk, over: str) -> None:
    async with application(asterisk) as app:
        with pytest.raises(AriNotFound, match="POST /channels/none/answer: Channel not found"):
            await app.client.request("POST", "/channels/none/answer", over=over)  # type: ignore[arg-type]
        with pytest.raises(AriError, match="400") as wrong:
            await app.client.request("POST", "/channels", over=over)  # type: ignore[arg-type]
        assert wrong.value.status == 400


async def test_a_silent_asterisk_is_noticed_and_taken_back(asterisk: LocalAsterisk) -> None:
    assert asterisk.process is not None
    async with application(asterisk, deadline=0.5) as app:
        os.kill(asterisk.process.pid, signal.SIGSTOP)
        try:
            for over in ("http", "socket"):
                with pytest.raises(AriUnreachable, match=r"within 0\.5 s"):
                    await app.client.request("GET", "/asterisk/ping", over=over)
            async with lateness.timeout():
                await app.disconnected.wait()
            with pytest.raises(AriUnreachable):
                await app.client.request("GET", "/asterisk/ping", over="socket")
        finally:
            os.kill(asterisk.process.pid, signal.SIGCONT)
        async with lateness.timeout():
            await app.connected.wait()
        async with call(asterisk, "1234"):
            assert (await app.arrived()).to == "1234"
