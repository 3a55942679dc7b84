"""Listens to channels for a beep: a snoop channel, and one that sends what it hears to us as RTP, in a bridge of two.

The second is one of chan_rtp's MulticastRTP, which sends to whatever address it is given. Why not a WebSocket,
AudioSocket or UnicastRTP: docs/chaos.md, "Taps".
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count
from uuid import uuid4

import structlog

from ari_conf.ari.beep import BeepDetector
from ari_conf.ari.client import Client
from ari_conf.ari.rtp import Receiver
from ari_conf.ari.translate import BRIDGE_NAME, LISTENS, path
from ari_conf.errors import AriError, AriNotFound
from ari_conf.supervision import Tasks

log = structlog.get_logger()

MOST = 50
"""Channels listened to at once: each takes up to 1 % of a core, and the same loop reads Asterisk's events."""
SILENT_S = 0.5
"""A snoop channel sends a frame each 20 ms, come what may. After as long without one: is it still there?"""
DEAF_S = 3.0
"""After as long, if nothing has come at all, it is told: packets don't find their way to us."""
TRIES, AGAIN_S = 25, 0.02
"""A channel is made before it has entered the application, and until then it can't be put into a bridge."""
LOOKUP_S = 2.0
"""For Asterisk's addresses."""
GOODBYE_S = 1.0
"""What is given to Asterisk for removing our channels when we end; the next process removes what is left."""


@dataclass(slots=True)
class Ear:
    """What listens to one channel."""

    channel_id: str
    name: str
    beep: asyncio.Event = field(default_factory=asyncio.Event)
    detector: BeepDetector = field(default_factory=BeepDetector)
    receiver: Receiver | None = None

    def hear(self, sound: bytes) -> None:
        if self.detector.hear(sound):
            self.beep.set()

    @property
    def snoop(self) -> str:
        return f"{self.name}.snoop"

    @property
    def media(self) -> str:
        return f"{self.name}.media"


class Listening:
    """`heard` gets the channel's id, once for each `start`."""

    def __init__(self, ari: Client, heard: Callable[[str], None]) -> None:
        self._ari = ari
        self._heard = heard
        self._all = ari.app + LISTENS
        self._mine = f"{self._all}{uuid4().hex}."
        """Ids of what this process makes begin with it."""
        self._ears: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks("listening broke: this is a defect of ari_conf, please report it")
        self._numbers = count(1)
        self._sweep: asyncio.Task[None] | None = None
        self._told = False
        """That it can't listen; told again only after it could."""

    def start(self, channel_id: str) -> None:
        """Until it has heard a beep, `stop`, or the channel's end. If it can't, it warns, and `heard` isn't called."""
        self.sweep()
        if channel_id in self._ears:
            return
        if len(self._ears) >= MOST:
            log.warning("not listened for a beep: too many at once", channel_id=channel_id, most=MOST)
            return
        task = self._tasks.start(self._listen(Ear(channel_id, f"{self._mine}{next(self._numbers)}")))
        self._ears[channel_id] = task

    def stop(self, channel_id: str) -> None:
        self.sweep()
        if (task := self._ears.pop(channel_id, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Asterisk must still be reachable, so that our channels can be removed."""
        for task in self._ears.values():
            task.cancel()
        self._ears.clear()
        # What ends leaves something to be removed.
        await self._tasks.finish(GOODBYE_S)

    async def _listen(self, ear: Ear) -> None:
        # Not to be cancelled: Asterisk would do a request whose end we don't await, perhaps after our removing it.
        opening = asyncio.ensure_future(self._open(ear))
        try:
            if await self._is_open(ear, opening) and await self._hears_beep(ear):
                self._heard(ear.channel_id)
        finally:
            if self._ears.get(ear.channel_id) is asyncio.current_task():
                del self._ears[ear.channel_id]
            self._tasks.start(self._remove(ear, opening))

    async def _is_open(self, ear: Ear, opening: asyncio.Future[None]) -> bool:
        try:
            await asyncio.shield(opening)
        except AriNotFound:
            return False  # the call has ended meanwhile
        except (AriError, OSError) as error:
            # Where there is no chan_rtp, Asterisk's own words are "Allocation failed".
            self._tell(
                "not listened for a beep, Wait ends after its length: does this Asterisk load chan_rtp?",
                channel_id=ear.channel_id,
                reason=str(error),
            )
            return False
        return True

    def _tell(self, event: str, **fields: str) -> None:
        """Once, until it can be done again."""
        tell = log.debug if self._told else log.warning
        self._told = True
        tell(event, **fields)

    async def _open(self, ear: Ear) -> None:
        if self._sweep is not None:
            # What a dead process left still sends, perhaps to the port that we are given.
            await asyncio.wait((self._sweep,))
        ear.receiver = Receiver(self._ari.media_host, await self._senders(), ear.hear)
        # The empty part is for another kind of receiver; mu-law, since of all that fits it alone has a number in RTP.
        endpoint = f"MulticastRTP/basic/{ear.receiver.address}//c(ulaw)"
        query = {"endpoint": endpoint, "app": self._ari.app, "channelId": ear.media}
        await self._ari.request("POST", "/channels", query, over="socket")
        query = {"spy": "in", "app": self._ari.app}
        await self._ari.request("POST", path("channels", ear.channel_id, "snoop", ear.snoop), query, over="socket")
        # By its name the next process knows it for ours, should we die.
        query = {"type": "mixing", "bridgeId": ear.name, "name": BRIDGE_NAME}
        await self._ari.request("POST", "/bridges", query, over="socket")
        await self._join(ear)

    async def _senders(self) -> frozenset[str]:
        """Asterisk's addresses. None are needed on loopback, where nobody else can send."""
        if ip_address(self._ari.media_host).is_loopback:
            return frozenset()
        async with asyncio.timeout(LOOKUP_S):
            found = await asyncio.get_running_loop().getaddrinfo(self._ari.host, None, family=socket.AF_INET)
        return frozenset(str(address[0]) for *_, address in found)

    async def _join(self, ear: Ear) -> None:
        for left in reversed(range(TRIES)):
            try:
                query = {"channel": f"{ear.snoop},{ear.media}"}
                await self._ari.request("POST", path("bridges", ear.name, "addChannel"), query)
                return
            except AriError as error:
                if error.status == 400:  # Asterisk's answer for a channel that isn't there
                    raise AriNotFound(str(error), error.status) from None
                if error.status not in (409, 422) or not left:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _hears_beep(self, ear: Ear) -> bool:
        """False: it ended before."""
        receiver = ear.receiver
        assert receiver is not None, "opened"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            before = receiver.packets
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ear.beep.wait(), SILENT_S)
                return True
            if receiver.packets > before:
                self._told = False
                continue
            if await self._is_gone(ear.snoop):
                return False
            if await self._is_gone(ear.media):
                log.warning("no longer listened for a beep: our channel has ended", channel_id=ear.channel_id)
                return False
            if not receiver.packets and loop.time() >= begun + DEAF_S:
                self._tell(
                    "no sound arrives from Asterisk, Wait ends after its length: can it reach ARI_CONF_MEDIA_LISTEN?",
                    channel_id=ear.channel_id,
                    address=receiver.address,
                )

    async def _is_gone(self, channel_id: str) -> bool:
        try:
            await self._ari.request("GET", path("channels", channel_id), over="socket")
        except AriError as error:
            return isinstance(error, AriNotFound)
        return False

    async def _remove(self, ear: Ear, opening: asyncio.Future[None]) -> None:
        await asyncio.gather(opening, return_exceptions=True)
        for gone in (path("channels", ear.snoop), path("channels", ear.media), path("bridges", ear.name)):
            await self._delete(gone)
        if ear.receiver is not None:
            ear.receiver.close()

    async def _delete(self, what: str) -> None:
        try:
            # Over the socket they are done in this order, and after what `_open` has asked for.
            await self._ari.request("DELETE", what, over="socket")
        except AriNotFound:
            pass
        except AriError as error:
            log.warning("left in Asterisk", path=what, reason=str(error))

    def sweep(self, channel_ids: Iterable[str] | None = None) -> None:
        """Once: what a process before us has left. Its bridges are removed with those of conferences. `channel_ids`:
        all that Asterisk has, if that is known already; there may be much to tell."""
        if self._sweep is None:
            self._sweep = self._tasks.start(self._remove_strangers(None if channel_ids is None else tuple(channel_ids)))

    async def _remove_strangers(self, channel_ids: tuple[str, ...] | None) -> None:
        if channel_ids is None:
            try:
                channels = await self._ari.request("GET", "/channels", over="socket")
            except AriError as error:
                log.warning("not asked what an earlier process left in Asterisk", reason=str(error))
                return
            channel_ids = tuple(str(channel["id"]) for channel in channels)
        for stranger in channel_ids:
            if stranger.startswith(self._all) and not stranger.startswith(self._mine):
                await self._delete(path("channels", stranger))
