"""Tests of the beep listener on a fake Asterisk that keeps what is created in it: cases that are rare on a real one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_conf.ari import beep_listener as module
from ari_conf.ari.beep_listener import BeepListener
from ari_conf.core import events as ev
from ari_conf.errors import AriError, AriNotFound, AriUnreachable
from demo import g711


class Wire:
    """Sender of a media channel's packets, to the address in its endpoint."""

    def __init__(self, endpoint: str) -> None:
        kind, how, address, nothing, codec = endpoint.split("/")
        assert (kind, how, nothing, codec) == ("MulticastRTP", "basic", "", "c(ulaw)")
        host, _, port = address.partition(":")
        self.to = (host, int(port))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._number = 0

    def send(self, samples: np.ndarray) -> None:
        for at in range(0, len(samples), 160):
            head = struct.pack("!BBHII", 0x80, 0, self._number, self._number * 160, 1)
            self._socket.sendto(head + g711.encode(samples[at : at + 160].astype(np.int16)), self.to)
            self._number += 1

    def silence(self) -> None:
        self.send(np.zeros(160))

    def beep(self) -> None:
        samples = np.zeros(8000)
        samples[800:4000] = 8000 * np.sin(np.arange(3200) * 0.785)
        self.send(samples)

    @property
    def is_listened_to(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            try:
                another.bind(self.to)
            except OSError:
                return True
        return False


class Asterisk:
    """Fake Asterisk. `there`: its objects; `refusals`: the errors that it answers with, once each."""

    app = "conf"
    host = "localhost"
    media_host = "127.0.0.1"

    def __init__(self) -> None:
        self.there = {"/channels/ann", "/channels/bob"}
        self.refusals: list[tuple[str, AriError]] = []
        self.wires: list[Wire] = []
        self.joined = 0
        self.slow = asyncio.Event()
        self.slow.set()
        self.changed = asyncio.Event()
        self.asked = asyncio.Event()
        """Set once a media channel has been requested."""

    async def request(self, method: str, path: str, query: Any = None, *, over: str = "http") -> Any:
        await asyncio.sleep(0)
        self.changed.set()
        for refusal in self.refusals:
            if f"{method} {path}".endswith(refusal[0]):
                self.refusals.remove(refusal)
                raise refusal[1]
        match method, path.split("/")[1:]:
            case "GET", ["channels"]:
                return [{"id": name.rpartition("/")[2]} for name in self.there if name.startswith("/channels/")]
            case (("GET" | "DELETE"), _):
                if path not in self.there:
                    raise AriNotFound("gone", 404)
                if method == "DELETE":
                    self.there.remove(path)
            case "POST", ["channels"]:
                assert query["app"] == "conf"
                # Asterisk does it, whether the client awaits the answer or not.
                await asyncio.shield(asyncio.ensure_future(self._slowly_add(f"/channels/{query['channelId']}")))
                self.wires.append(Wire(query["endpoint"]))
            case "POST", ["channels", channel_id, "snoop", snoop_id]:
                if f"/channels/{channel_id}" not in self.there:
                    raise AriNotFound("Channel not found", 404)
                assert query == {"spy": "in", "app": "conf"}
                self.there.add(f"/channels/{snoop_id}")
            case "POST", ["bridges"]:
                self.there.add(f"/bridges/{query['bridgeId']}")
            case "POST", ["bridges", bridge_id, "addChannel"]:
                assert {f"/channels/{name}" for name in query["channel"].split(",")} | {
                    f"/bridges/{bridge_id}"
                } <= self.there
                self.joined += 1
        return None

    async def _slowly_add(self, what: str) -> None:
        self.asked.set()
        await self.slow.wait()
        self.there.add(what)

    def mine(self) -> set[str]:
        return self.there - {"/channels/ann", "/channels/bob"}

    async def has(self, count: int) -> None:
        await self.until(lambda: len(self.mine()) == count)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110  tasks without a signal do it
                await asyncio.sleep(0.005)


@pytest.fixture
def asterisk() -> Asterisk:
    return Asterisk()


@pytest.fixture
def heard() -> asyncio.Queue[str]:
    return asyncio.Queue()


@pytest.fixture
async def listening(asterisk: Asterisk, heard: asyncio.Queue[str]) -> AsyncIterator[BeepListener]:
    made = BeepListener(asterisk, heard.put_nowait)  # type: ignore[arg-type]
    yield made
    await made.close()
    assert asterisk.mine() == set()
    assert not any(wire.is_listened_to for wire in asterisk.wires)


async def test_a_beep_is_reported_and_nothing_is_left(
    asterisk: Asterisk, listening: BeepListener, heard: asyncio.Queue[str]
) -> None:
    listening.start("ann", "u-ann")
    listening.start("bob", "u-bob")
    await asterisk.has(6)
    asterisk.wires[1].beep()
    assert await asyncio.wait_for(heard.get(), 5) == "bob"
    await asterisk.has(3)
    asterisk.wires[0].beep()
    assert await asyncio.wait_for(heard.get(), 5) == "ann"
    await asterisk.has(0)


@pytest.fixture
async def examining(asterisk: Asterisk) -> AsyncIterator[tuple[BeepListener, asyncio.Queue[ev.Event], list[str]]]:
    """Return a listener, what it hears of machines, and the channels on which it hears a beep."""
    events, beeps = asyncio.Queue[ev.Event](), list[str]()
    made = BeepListener(asterisk, beeps.append, events.put_nowait)  # type: ignore[arg-type]
    yield made, events, beeps
    await made.close()
    assert asterisk.mine() == set()


async def test_what_tells_a_machine_is_reported_until_it_is_stopped(
    asterisk: Asterisk, examining: tuple[BeepListener, asyncio.Queue[ev.Event], list[str]]
) -> None:
    listening, events, beeps = examining
    listening.start_for_machine("ann", "u-ann")
    await asterisk.has(3)
    for _ in range(2):
        asterisk.wires[0].beep()
    found = [await asyncio.wait_for(events.get(), 5)]
    while found.count(ev.ToneHeard("ann")) < 2:
        found.append(await asyncio.wait_for(events.get(), 5))
    assert found[0] == ev.ListeningStarted("ann") and found.count(found[0]) == 1 and beeps == []
    listening.stop_for_machine("ann")
    await asterisk.has(0)


async def test_a_wait_for_a_beep_on_the_same_channel_is_apart(
    asterisk: Asterisk, examining: tuple[BeepListener, asyncio.Queue[ev.Event], list[str]]
) -> None:
    listening, events, beeps = examining
    listening.start("ann", "u-ann")
    listening.start_for_machine("ann", "u-ann")
    listening.start_for_machine("ann", "u-ann")
    await asterisk.has(6)
    listening.stop_for_machine("ann")
    await asterisk.has(3)
    for wire in asterisk.wires:
        wire.beep()
    await asterisk.has(0)
    assert beeps == ["ann"] and events.empty()


@pytest.mark.parametrize("failed", ["POST /channels", ".snoop", "/bridges", "/addChannel"])
async def test_a_failure_to_listen_for_a_machine_is_reported(
    asterisk: Asterisk, examining: tuple[BeepListener, asyncio.Queue[ev.Event], list[str]], failed: str
) -> None:
    listening, events, _ = examining
    asterisk.refusals = [(failed, AriError("Allocation failed", 500))]
    with capture_logs() as logs:
        listening.start_for_machine("ann", "u-ann")
        assert await asyncio.wait_for(events.get(), 5) == ev.ListeningFailed("ann", "Allocation failed")
    assert [line["action"] for line in logs] == [module.MACHINE_FALLBACK]
    await asterisk.has(0)


async def test_no_audio_and_a_channel_that_is_removed_are_failures(
    asterisk: Asterisk,
    examining: tuple[BeepListener, asyncio.Queue[ev.Event], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PACKET_TIMEOUT_S", 0.01)
    monkeypatch.setattr(module, "NO_AUDIO_WARNING_S", 0.02)
    listening, events, _ = examining
    with capture_logs():
        listening.start_for_machine("ann", "u-ann")
        found = await asyncio.wait_for(events.get(), 5)
        assert isinstance(found, ev.ListeningFailed) and "ARI_CONF_MEDIA_LISTEN" in found.reason
        asterisk.there -= {name for name in asterisk.there if name.endswith(".media")}
        await asterisk.has(0)


async def test_too_many_to_listen_to_are_reported(
    asterisk: Asterisk,
    examining: tuple[BeepListener, asyncio.Queue[ev.Event], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_LISTENERS", 1)
    listening, events, _ = examining
    listening.start("bob", "u-bob")
    listening.start_for_machine("ann", "u-ann")
    assert await asyncio.wait_for(events.get(), 5) == ev.ListeningFailed("ann", "1 channels are listened to already")
    await asterisk.has(3)


async def test_started_twice_is_once(asterisk: Asterisk, listening: BeepListener) -> None:
    listening.start("ann", "u-ann")
    listening.start("ann", "u-ann")
    await asterisk.has(3)
    assert len(asterisk.wires) == 1


async def test_stopped_before_it_listens(
    asterisk: Asterisk, listening: BeepListener, heard: asyncio.Queue[str]
) -> None:
    asterisk.slow.clear()
    listening.start("ann", "u-ann")
    await asterisk.asked.wait()
    listening.stop("ann")
    for _ in range(50):  # an object that would be removed too early is removed within these turns
        await asyncio.sleep(0)
    listening.start("ann", "u-ann")
    asterisk.slow.set()
    await asterisk.has(3)
    for wire in asterisk.wires:
        wire.beep()
    assert await asyncio.wait_for(heard.get(), 5) == "ann"
    await asterisk.has(0)
    assert heard.empty()


async def test_the_end_of_the_channel(asterisk: Asterisk, listening: BeepListener) -> None:
    listening.start("ann", "u-ann")
    await asterisk.until(lambda: asterisk.joined == 1)
    asterisk.there -= {name for name in asterisk.there if name.endswith(".snoop")}
    with capture_logs() as logs:
        await asterisk.has(0)
    assert logs == []


async def test_silence_is_not_the_end(
    asterisk: Asterisk, listening: BeepListener, heard: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKET_TIMEOUT_S", 0.01)
    listening.start("ann", "u-ann")
    await asterisk.has(3)
    for _ in range(3):
        asterisk.changed.clear()
        await asterisk.changed.wait()  # the listener asks whether the channel exists
    asterisk.wires[0].beep()
    assert await asyncio.wait_for(heard.get(), 5) == "ann"


async def test_a_channel_that_is_not_yet_in_the_application(asterisk: Asterisk, listening: BeepListener) -> None:
    asterisk.refusals = [("/addChannel", AriError("Channel not in Stasis application", 422))] * 3
    listening.start("ann", "u-ann")
    await asterisk.has(3)
    await asterisk.until(lambda: not asterisk.refusals)
    assert len(asterisk.mine()) == 3


@pytest.mark.parametrize(
    "gone", [(".snoop", AriNotFound("Channel not found", 404)), ("/addChannel", AriError("Channel not found", 400))]
)
async def test_a_call_that_ends_meanwhile_is_no_failure(
    asterisk: Asterisk, listening: BeepListener, gone: tuple[str, AriError]
) -> None:
    asterisk.refusals = [gone]
    with capture_logs() as logs:
        listening.start("ann", "u-ann")
        await asterisk.until(lambda: not asterisk.refusals and not asterisk.mine())
    assert logs == []


@pytest.mark.parametrize("failed", ["POST /channels", ".snoop", "/bridges", "/addChannel"])
async def test_a_failure_is_logged_once_until_listening_works(
    asterisk: Asterisk, listening: BeepListener, failed: str
) -> None:
    with capture_logs() as logs:
        for tries in (1, 2):
            asterisk.refusals = [(failed, AriError("Allocation failed", 500))]
            listening.start("ann", "u-ann")
            await asterisk.until(lambda tries=tries: len(logs) == tries and not asterisk.mine())
        assert [line["log_level"] for line in logs] == ["warning", "debug"]


async def test_its_channel_is_removed_by_somebody_else(
    asterisk: Asterisk, listening: BeepListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKET_TIMEOUT_S", 0.01)
    listening.start("ann", "u-ann")
    await asterisk.has(3)
    with capture_logs() as logs:
        asterisk.there -= {name for name in asterisk.there if name.endswith(".media")}
        await asterisk.has(0)
    assert [line["log_level"] for line in logs] == ["warning"]


async def test_missing_audio_is_logged_once_until_audio_arrives(
    asterisk: Asterisk, listening: BeepListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKET_TIMEOUT_S", 0.01)
    monkeypatch.setattr(module, "NO_AUDIO_WARNING_S", 0.02)
    reported = "beep listener received no audio"

    def levels(logs: list[Any]) -> list[str]:
        return [line["log_level"] for line in logs if line["event"] == reported]

    with capture_logs() as logs:
        for expected in (["warning"], ["warning"], ["warning", "warning"]):
            listening.start("ann", "u-ann")
            await asterisk.has(3)
            count = len(levels(logs))
            await asterisk.until(lambda before=count: len(levels(logs)) > before)  # type: ignore[misc]
            assert [level for level in levels(logs) if level == "warning"] == expected
            if len(expected) == 1 and len(asterisk.wires) == 2:
                asterisk.wires[-1].silence()
                await asterisk.until(lambda: not listening._failure_logged)
            listening.stop("ann")
            await asterisk.has(0)


async def test_elsewhere_only_asterisk_s_own_addresses_are_listened_to(
    asterisk: Asterisk, listening: BeepListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asterisk, "media_host", "192.0.2.7", raising=False)
    assert await listening._look_up_senders() == {"127.0.0.1"}


@pytest.mark.parametrize("wrong", [("media_host", "192.0.2.7"), ("host", "nowhere.invalid")])
async def test_no_port_and_no_address_are_reported(
    asterisk: Asterisk, listening: BeepListener, monkeypatch: pytest.MonkeyPatch, wrong: tuple[str, str]
) -> None:
    """Use an address that this machine does not have, and a name that cannot be looked up."""
    monkeypatch.setattr(asterisk, "media_host", "192.0.2.7", raising=False)
    monkeypatch.setattr(asterisk, *wrong, raising=False)
    with capture_logs() as logs:
        listening.start("ann", "u-ann")
        await asterisk.until(lambda: not listening._tasks_by_channel)
    assert [line["log_level"] for line in logs] == ["warning"]
    assert asterisk.wires == []


async def test_it_begins_when_what_a_dead_process_left_is_gone(asterisk: Asterisk, listening: BeepListener) -> None:
    """The dead process's channel still sends, perhaps to the port that the new listener gets."""
    dead = "/channels/c.u9.tap.conf.dead.1.media"
    asterisk.there.add(dead)
    listening.start("ann", "u-ann")
    await asterisk.asked.wait()
    assert dead not in asterisk.there
    await asterisk.has(3)


async def test_no_more_than_it_can_take(
    asterisk: Asterisk, listening: BeepListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LISTENERS", 1)
    listening.start("ann", "u-ann")
    with capture_logs() as logs:
        listening.start("bob", "u-bob")
    assert [line["event"] for line in logs] == ["beep listener limit reached"]
    await asterisk.has(3)
    listening.stop("ann")
    await asterisk.has(0)
    listening.start("bob", "u-bob")
    await asterisk.has(3)
    assert len(asterisk.wires) == 2


async def test_channels_of_a_dead_process_are_removed(asterisk: Asterisk, listening: BeepListener) -> None:
    asterisk.there |= {"/channels/c.u9.tap.conf.dead.1.snoop", "/channels/c.u9.tap.other.dead.1.snoop"}
    listening.start("ann", "u-ann")
    await asterisk.has(4)
    assert "/channels/c.u9.tap.conf.dead.1.snoop" not in asterisk.there
    asterisk.there.remove("/channels/c.u9.tap.other.dead.1.snoop")


async def test_known_channels_are_not_requested(asterisk: Asterisk, listening: BeepListener) -> None:
    dead = "c.u9.tap.conf.dead.1.snoop"
    asterisk.there |= {f"/channels/{dead}", "/channels/c.u9.tap.conf.dead.2.snoop"}
    listening.remove_leftovers([dead, "ann"])
    await asterisk.has(1)
    assert asterisk.mine() == {"/channels/c.u9.tap.conf.dead.2.snoop"}
    asterisk.there -= asterisk.mine()


async def test_asterisk_is_gone_as_we_end(asterisk: Asterisk, listening: BeepListener) -> None:
    listening.start("ann", "u-ann")
    await asterisk.has(3)
    asterisk.refusals = [(name, AriUnreachable("no answer")) for name in asterisk.mine()]
    async with asyncio.timeout(5):
        await listening.close()
    assert len(asterisk.mine()) == 3
    asterisk.there -= asterisk.mine()
