"""Listening against an Asterisk that keeps what was made in it: what a real one does only seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import WSMessage, WSMsgType
from structlog.testing import capture_logs

from ari_conf.ari import listening as module
from ari_conf.ari.listening import Listening
from ari_conf.errors import AriError, AriNotFound, AriUnreachable

SOUND = WSMessage(WSMsgType.BINARY, bytes(320), None)
END = WSMessage(WSMsgType.CLOSED, None, None)


def beep() -> WSMessage:
    samples = np.zeros(8000)
    samples[800:4000] = 8000 * np.sin(np.arange(3200) * 0.785)
    return WSMessage(WSMsgType.BINARY, samples.astype(np.int16).tobytes(), None)


class Wire:
    def __init__(self) -> None:
        self.frames: asyncio.Queue[WSMessage] = asyncio.Queue()
        self.closed = False

    async def receive(self, timeout: float) -> WSMessage:
        return await asyncio.wait_for(self.frames.get(), timeout)

    async def close(self) -> None:
        self.closed = True


class Asterisk:
    """`there` is what stands in it; `refusals` what it answers instead, once each."""

    app = "conf"

    def __init__(self) -> None:
        self.there = {"/channels/ann", "/channels/bob"}
        self.refusals: list[tuple[str, AriError]] = []
        self.wires: list[Wire] = []
        self.joined = 0
        self.slow = asyncio.Event()
        self.slow.set()
        self.changed = asyncio.Event()
        self.asked = asyncio.Event()
        """For a media channel, at least once."""

    async def request(self, method: str, path: str, query: Any = None, *, over: str = "http") -> Any:
        await asyncio.sleep(0)
        self.changed.set()
        for refusal in self.refusals:
            if path.endswith(refusal[0]):
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
            case "POST", ["channels", "externalMedia"]:
                # Asterisk does it, whether or not the answer is awaited.
                await asyncio.shield(asyncio.ensure_future(self._slowly_add(f"/channels/{query['channelId']}")))
                return {"channelvars": {"MEDIA_WEBSOCKET_CONNECTION_ID": "1"}}
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

    async def media(self, connection_id: str) -> Any:
        assert connection_id == "1"
        self.wires.append(Wire())
        return self.wires[-1]

    def mine(self) -> set[str]:
        return self.there - {"/channels/ann", "/channels/bob"}

    async def has(self, count: int) -> None:
        await self.until(lambda: len(self.mine()) == count)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110  made by tasks that tell nobody
                await asyncio.sleep(0.005)


@pytest.fixture
def asterisk() -> Asterisk:
    return Asterisk()


@pytest.fixture
def heard() -> asyncio.Queue[str]:
    return asyncio.Queue()


@pytest.fixture
async def listening(asterisk: Asterisk, heard: asyncio.Queue[str]) -> AsyncIterator[Listening]:
    made = Listening(asterisk, heard.put_nowait)  # type: ignore[arg-type]
    yield made
    await made.close()
    assert asterisk.mine() == set()
    assert all(wire.closed for wire in asterisk.wires)


async def test_a_beep_is_told_and_nothing_is_left(
    asterisk: Asterisk, listening: Listening, heard: asyncio.Queue[str]
) -> None:
    listening.start("ann")
    listening.start("bob")
    await asterisk.has(6)
    asterisk.wires[1].frames.put_nowait(beep())
    assert await asyncio.wait_for(heard.get(), 5) == "bob"
    await asterisk.has(3)
    asterisk.wires[0].frames.put_nowait(beep())
    assert await asyncio.wait_for(heard.get(), 5) == "ann"
    await asterisk.has(0)


async def test_started_twice_is_once(asterisk: Asterisk, listening: Listening) -> None:
    listening.start("ann")
    listening.start("ann")
    await asterisk.has(3)
    assert len(asterisk.wires) == 1


async def test_stopped_before_it_listens(asterisk: Asterisk, listening: Listening, heard: asyncio.Queue[str]) -> None:
    asterisk.slow.clear()
    listening.start("ann")
    await asterisk.asked.wait()
    listening.stop("ann")
    for _ in range(50):  # what would be removed too early is removed now
        await asyncio.sleep(0)
    listening.start("ann")
    asterisk.slow.set()
    await asterisk.has(3)
    for wire in asterisk.wires:
        wire.frames.put_nowait(beep())
    assert await asyncio.wait_for(heard.get(), 5) == "ann"
    await asterisk.has(0)
    assert heard.empty()


async def test_the_end_of_the_channel(asterisk: Asterisk, listening: Listening) -> None:
    listening.start("ann")
    await asterisk.until(lambda: asterisk.joined == 1)
    asterisk.there -= {name for name in asterisk.there if name.endswith(".snoop")}
    with capture_logs() as logs:
        await asterisk.has(0)
    assert logs == []


async def test_silence_is_not_the_end(
    asterisk: Asterisk, listening: Listening, heard: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.01)
    listening.start("ann")
    await asterisk.has(3)
    for _ in range(3):
        asterisk.changed.clear()
        await asterisk.changed.wait()  # it asks whether the channel is there
    asterisk.wires[0].frames.put_nowait(beep())
    assert await asyncio.wait_for(heard.get(), 5) == "ann"


async def test_a_channel_that_is_not_yet_in_the_application(asterisk: Asterisk, listening: Listening) -> None:
    asterisk.refusals = [("/addChannel", AriError("Channel not in Stasis application", 422))] * 3
    listening.start("ann")
    await asterisk.has(3)
    asterisk.wires[0].frames.put_nowait(SOUND)
    await asterisk.until(asterisk.wires[0].frames.empty)
    assert asterisk.refusals == []
    assert len(asterisk.mine()) == 3


@pytest.mark.parametrize(
    "gone", [(".snoop", AriNotFound("Channel not found", 404)), ("/addChannel", AriError("Channel not found", 400))]
)
async def test_a_call_that_ends_meanwhile_is_no_failure(
    asterisk: Asterisk, listening: Listening, gone: tuple[str, AriError]
) -> None:
    asterisk.refusals = [gone]
    with capture_logs() as logs:
        listening.start("ann")
        await asterisk.until(lambda: not asterisk.refusals and not asterisk.mine())
    assert logs == []


@pytest.mark.parametrize("failed", ["/externalMedia", ".snoop", "/bridges", "/addChannel"])
async def test_what_cannot_be_is_told_once_until_it_can(asterisk: Asterisk, listening: Listening, failed: str) -> None:
    with capture_logs() as logs:
        for expected in (1, 1):
            asterisk.refusals = [(failed, AriError("Allocation failed", 500))]
            listening.start("ann")
            await asterisk.until(lambda: not asterisk.refusals and not asterisk.mine())
            assert [line["log_level"] for line in logs].count("warning") == expected


async def test_a_websocket_that_ends(asterisk: Asterisk, listening: Listening) -> None:
    listening.start("ann")
    await asterisk.has(3)
    with capture_logs() as logs:
        asterisk.wires[0].frames.put_nowait(END)
        await asterisk.has(0)
    assert [line["log_level"] for line in logs] == ["warning"]


async def test_no_more_than_it_can_take(
    asterisk: Asterisk, listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    listening.start("ann")
    with capture_logs() as logs:
        listening.start("bob")
    assert [line["event"] for line in logs] == ["not listened for a beep: too many at once"]
    await asterisk.has(3)
    listening.stop("ann")
    await asterisk.has(0)
    listening.start("bob")
    await asterisk.has(3)
    assert len(asterisk.wires) == 2


async def test_what_a_dead_process_left_is_removed(asterisk: Asterisk, listening: Listening) -> None:
    asterisk.there |= {"/channels/conf.listens.dead.1.snoop", "/channels/other.listens.dead.1.snoop"}
    listening.start("ann")
    await asterisk.has(4)
    assert "/channels/conf.listens.dead.1.snoop" not in asterisk.there
    asterisk.there.remove("/channels/other.listens.dead.1.snoop")


async def test_who_knows_what_asterisk_has_need_not_ask_for_it(asterisk: Asterisk, listening: Listening) -> None:
    dead = "conf.listens.dead.1.snoop"
    asterisk.there |= {f"/channels/{dead}", "/channels/conf.listens.dead.2.snoop"}
    listening.sweep([dead, "ann"])
    await asterisk.has(1)
    assert asterisk.mine() == {"/channels/conf.listens.dead.2.snoop"}
    asterisk.there -= asterisk.mine()


async def test_asterisk_is_gone_as_we_end(asterisk: Asterisk, listening: Listening) -> None:
    listening.start("ann")
    await asterisk.has(3)
    asterisk.refusals = [(name, AriUnreachable("no answer")) for name in asterisk.mine()]
    async with asyncio.timeout(5):
        await listening.close()
    assert len(asterisk.mine()) == 3
    asterisk.there -= asterisk.mine()
