"""The process to kill: it receives one channel's audio, as `ari-conf serve` would."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import structlog

from ari_conf.ari.address import AriConfig
from ari_conf.ari.beep_listener import BeepListener
from ari_conf.ari.client import Client
from ari_conf.errors import AriError
from tests.chaos.taps.transports import EVENTS, HOST, OURS, TRANSPORTS, Slot

ENTERS_TRIES, ENTERS_S = 50, 0.02


@dataclass(frozen=True)
class Place:
    """Everything that a receiver knows about the system."""

    candidate: str
    asterisk_connects: bool
    """True if Asterisk opens the event WebSocket, and not the receiver."""
    slot: Slot
    ari_url: str
    user: str
    channel_id: str
    """The channel whose audio the process receives."""
    password: str = field(repr=False)


def main(pipe: Connection, place: Place) -> None:
    """Say "idle", wait for a word, say "starting", receive until the next word, say "ending", end, wait."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with contextlib.suppress(EOFError, BrokenPipeError):
        asyncio.run(_main(pipe, place))


async def _main(pipe: Connection, place: Place) -> None:
    connected, words = asyncio.Event(), asyncio.Semaphore(0)

    def hear() -> None:
        try:
            pipe.recv()
        except EOFError:
            asyncio.get_running_loop().remove_reader(pipe.fileno())
        words.release()

    asyncio.get_running_loop().add_reader(pipe.fileno(), hear)
    listen = (HOST, place.slot.events_port) if place.asterisk_connects else None
    server = AriConfig(place.ari_url, place.slot.app, place.user, place.password, listen, own_socket_timeout_s=30.0)
    client = Client(server, lambda event: None, connected.set)
    await client.start()
    try:
        await connected.wait()
        await _listen(place, client, pipe.send, words.acquire)
        await words.acquire()  # until it is killed
    finally:
        await client.close()


async def _listen(
    place: Place, client: Client, say: Callable[[str], None], next_word: Callable[[], Awaitable[object]]
) -> None:
    if place.candidate in (OURS, EVENTS):
        say("idle")
        await next_word()
        say("starting")
        listening = BeepListener(client, lambda channel_id: None)
        if place.candidate == OURS:
            listening.start(place.channel_id, "call")
        await next_word()
        say("ending")
        await listening.close()
        await client.finish()
        return
    transport = TRANSPORTS[place.candidate](client, place.slot, lambda sound: None)
    async with transport.ready():
        say("idle")
        await next_word()
        say("starting")
        with contextlib.suppress(AriError, OSError):
            await _open(place, client, transport.open)
        await next_word()
        say("ending")
        for what in ("channels/{}.snoop", "channels/{}.media", "bridges/{}"):
            with contextlib.suppress(AriError):
                await client.request("DELETE", "/" + what.format(_name(place)))


def _name(place: Place) -> str:
    return f"{place.slot.app}.tap"


async def _open(place: Place, client: Client, media: Callable[[str], Awaitable[None]]) -> None:
    name, app = _name(place), place.slot.app
    await media(f"{name}.media")
    path = f"/channels/{place.channel_id}/snoop/{name}.snoop"
    await client.request("POST", path, {"spy": "in", "app": app})
    await client.request("POST", "/bridges", {"type": "mixing", "bridgeId": name, "name": name})
    for _ in range(ENTERS_TRIES):
        try:
            query = {"channel": f"{name}.snoop,{name}.media"}
            await client.request("POST", f"/bridges/{name}/addChannel", query)
            return
        except AriError:  # the channels have not entered the Stasis application yet
            await asyncio.sleep(ENTERS_S)
