"""Tests of the conclusions from Asterisk's RTP statistics, and of the rate of requests for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import GetDigits, Wait
from ari_conf.core.events import StreamSeen
from ari_conf.errors import AriNotFound
from ari_conf.server import rtp_monitor
from ari_conf.server.effect_runner import is_far
from ari_conf.server.rtp_monitor import MAX_POLLS_PER_ROUND, RtpMonitor, Statistics
from tests.core.stage import Stage, players

SECOND = 8000
"""Octets of a second of audio."""


class Asterisk:
    def __init__(self) -> None:
        self.statistics: dict[str, Statistics] = {}
        self.held: set[str] = set()
        self.looks: list[str] = []
        self.asked: list[str] = []

    async def request(self, method: str, path: str, query: Any = None, **_: Any) -> Any:
        await asyncio.sleep(0)
        channel_id = path.split("/")[2]
        if method == "POST":
            assert query["variable"] == rtp_monitor.REFRESH_FUNCTION
            self.asked.append(channel_id)
            return None
        if path.endswith("/variable"):
            return {"value": "1" if channel_id in self.held else "0"}
        self.looks.append(channel_id)
        if channel_id not in self.statistics:
            raise AriNotFound("Statistics not found", 404)
        return self.statistics[channel_id]


class Scene:
    def __init__(self) -> None:
        self.stage = Stage()
        self.ari = Asterisk()
        self.reported: list[ev.Event] = []
        self.streams = RtpMonitor(self.ari, self.stage.engine, self._deliver, lambda: True, 30)  # type: ignore[arg-type]
        self.now = 1000.0
        self._effects = 0

    def _deliver(self, event: ev.Event) -> None:
        self.reported.append(event)
        self.stage.tell(event)

    def phone(self, *names: str) -> None:
        for name in names:
            self.ari.statistics[name] = Statistics(remote_ssrc=1, rxcount=1, rxoctetcount=160, txcount=1)

    def send(self, name: str, seconds: float = 0.5, octets_s: int = SECOND, sent: bool = True, **more: int) -> None:
        was = self.ari.statistics[name]
        self.ari.statistics[name] = Statistics(
            more.get("source", was.remote_ssrc),
            was.rxcount + round(50 * seconds) * bool(octets_s),
            was.rxoctetcount + round(octets_s * seconds),
            was.rxploss + more.get("lost", 0),
            was.txcount + 25 * sent,
        )

    async def round(self, seconds: float = 0.5) -> list[ev.Event]:
        """Run one round and return its events."""
        before = len(self.reported)
        for effect in self.stage.effects[self._effects :]:
            if isinstance(effect, do.IdentifyCall | do.Answer):
                self.streams.watch(effect.channel_id)
        self._effects = len(self.stage.effects)
        self.now += seconds
        await self.streams._round(self.now)
        return self.reported[before:]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(rtp_monitor, "_now", lambda: scene.now)
    return scene


async def test_another_stream_is_reported_once(scene: Scene) -> None:
    players(scene.stage, "ann", "bob")
    scene.phone("ann", "bob")
    assert await scene.round() == [StreamSeen("ann", 1), StreamSeen("bob", 1)]
    for source, reported in ((1, []), (7, [StreamSeen("ann", 7)]), (7, [])):
        scene.send("ann", source=source)
        scene.send("bob")
        assert await scene.round() == reported


async def test_numbers_that_jump_are_reported_and_packets_that_are_lost_are_not(scene: Scene) -> None:
    players(scene.stage, "ann")
    scene.phone("ann")
    await scene.round()
    for lost, reported in ((20, []), (45_536, [StreamSeen("ann", 1, jumped=True)]), (0, [])):
        scene.send("ann", lost=lost)
        assert await scene.round() == reported


@pytest.mark.parametrize("octets_s", [0, 110], ids=["nothing", "comfort noise"])
async def test_sound_that_stops(scene: Scene, octets_s: int) -> None:
    players(scene.stage, "ann", floor_event=True)
    scene.phone("ann")
    scene.stage.talk("ann")
    await scene.round()
    for _ in range(3):
        scene.send("ann")
        assert await scene.round() == []
    scene.send("ann", octets_s=octets_s)
    assert await scene.round() == []
    scene.send("ann", octets_s=octets_s)
    assert await scene.round() == [ev.AudioStopped("ann", 1000)]
    scene.send("ann", octets_s=octets_s)
    assert await scene.round() == [], "that is no talking any more"


async def test_a_silent_caller_who_starts_to_talk_has_not_stopped(scene: Scene) -> None:
    """The phone has silence suppression; the round comes just after its first audio packet."""
    players(scene.stage, "ann", floor_event=True)
    scene.phone("ann")
    for _ in range(6):
        await scene.round()
    scene.stage.talk("ann")
    scene.streams.observe_event(ev.TalkingStarted("ann"))
    scene.send("ann", seconds=0.02)
    assert await scene.round() == []
    assert await scene.round() == [ev.AudioStopped("ann", 1000)], "since the member started to talk"


async def test_a_caller_talks_during_a_wait_for_silence(scene: Scene) -> None:
    scene.stage.call("ann", GetDigits(num_digits=1), Wait(60, silence=True))
    scene.stage.press("ann", "1")
    scene.phone("ann")
    await scene.round()
    scene.stage.talk("ann")
    for _ in range(2):
        scene.send("ann", octets_s=0)
        reported = await scene.round()
    assert reported == [ev.AudioStopped("ann", 1000)]


async def test_a_phone_that_is_sent_nothing(scene: Scene) -> None:
    scene.stage.call("ann", GetDigits(timeout=60))
    scene.phone("ann")
    await scene.round()
    for reported in ([], [ev.NothingSent("ann")], [], [ev.NothingSent("ann")]):
        scene.send("ann", sent=False)
        assert await scene.round() == reported
    players(scene.stage, "bob")
    scene.phone("bob")
    for _ in range(5):
        scene.send("bob", sent=False)
        assert ev.NothingSent("bob") not in await scene.round()


async def test_unreported_holds(scene: Scene) -> None:
    players(scene.stage, "ann")
    scene.phone("ann")
    await scene.round()
    scene.ari.held.add("ann")
    scene.streams.start_over()
    assert ev.PhoneHeld("ann") in await scene.round()
    scene.ari.held.clear()
    assert ev.PhoneResumed("ann") not in await scene.round(), "the phone is not checked again immediately"
    scene.streams.start_over()
    assert ev.PhoneResumed("ann") in await scene.round()


async def test_a_hold_of_a_new_call_is_not_polled(scene: Scene) -> None:
    await scene.round()
    players(scene.stage, "ann")
    scene.phone("ann")
    scene.ari.held.add("ann")
    assert ev.PhoneHeld("ann") not in await scene.round()
    assert ev.PhoneHeld("ann") in await scene.round(rtp_monitor.HOLD_POLL_S + 1)


async def test_a_silent_phone_is_probed_three_times_in_rtp_timeout(scene: Scene) -> None:
    players(scene.stage, "ann", "bob")
    scene.phone("ann", "bob")
    await scene.round()
    for _ in range(60):
        scene.send("bob")
        await scene.round()
    assert scene.ari.asked == ["ann"] * 3


async def test_a_channel_without_rtp_is_not_polled_again(scene: Scene) -> None:
    players(scene.stage, "ann")
    for _ in range(3):
        await scene.round()
    assert scene.ari.looks == ["ann"]


async def test_looks_are_bounded_and_all_have_their_turn(scene: Scene) -> None:
    for number in range(30):
        names = [f"m{number}x{n}" for n in range(20)]
        players(scene.stage, *names, name=f"room{number}")
        scene.phone(*names)
    talkers = [f"m{number}x0" for number in range(30)]
    await scene.round()
    assert len(scene.ari.looks) <= MAX_POLLS_PER_ROUND
    for _ in range(60):
        await scene.round()
    for name in talkers:
        scene.stage.talk(name)
        scene.streams.observe_event(ev.TalkingStarted(name))
    scene.ari.looks.clear()
    for rounds in range(1, 9):
        for name in talkers:
            scene.send(name)
        await scene.round()
        assert len(scene.ari.looks) <= MAX_POLLS_PER_ROUND * rounds
        assert all(scene.ari.looks.count(name) >= rounds for name in talkers)
    assert len(set(scene.ari.looks)) == 600


async def test_it_ends_with_the_call(scene: Scene) -> None:
    players(scene.stage, "ann", "bob")
    scene.phone("ann", "bob")
    await scene.round()
    scene.stage.hang_up("ann")
    scene.ari.looks.clear()
    await scene.round()
    assert scene.ari.looks == ["bob"]


@pytest.mark.parametrize(
    ("addresses", "far"),
    [
        ("", False),
        ("127.0.0.1:5060 127.0.0.1:4000", False),
        ("192.168.1.7:5060 10.0.0.9:4000", False),
        ("[::1]:5060 [fd00::7]:4000", False),
        ("8.8.8.8:5060 192.168.1.7:4000", True),
        ("192.168.1.7:5060 8.8.8.8:4000", True),
        ("[2a00:1450::1]:5060", True),
        ("nonsense ::", False),
    ],
)
def test_public_address_is_far_away(addresses: str, far: bool) -> None:
    assert is_far(addresses) == far


async def test_a_call_that_is_not_answered_is_not_looked_at(scene: Scene) -> None:
    scene.stage.call("ann", Wait(60))
    scene.phone("ann")
    await scene.round()
    assert scene.ari.looks == []


async def test_all_calls_may_end_while_channels_are_chosen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtp_monitor, "SCAN_BATCH", 1)
    players(scene.stage, "ann", "bob")
    scene.phone("ann", "bob")
    await scene.round()
    looking = asyncio.create_task(scene.streams._round(scene.now))
    await asyncio.sleep(0)
    for name in ("ann", "bob"):
        scene.streams.observe_event(ev.ChannelHungUp(name))
    scene.ari.looks.clear()
    await looking
    assert scene.ari.looks == []
