"""Beep listener: a snoop channel on the caller's channel, and a channel that sends its sound to the server as RTP,
joined in a bridge.

The second channel is a MulticastRTP channel of chan_rtp, which sends to any address. docs/development/chaos.md, "Taps",
compares it with WebSocket, AudioSocket and UnicastRTP.
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

from ari_conf.ari.beep_detector import BeepDetector
from ari_conf.ari.client import Client
from ari_conf.ari.rtp import Receiver
from ari_conf.ari.translate import BRIDGE_NAME, path
from ari_conf.common.supervision import Tasks
from ari_conf.core import ids
from ari_conf.errors import AriError, AriNotFound

log = structlog.get_logger()

MAX_LISTENERS = 50
"""Maximum number of channels that are listened to concurrently: each takes up to 1 % of a core, and the same event loop
reads Asterisk's events."""
SILENT_S = 0.5
"""Seconds without a packet after which the server checks that its channels still exist; a snoop channel always sends a
frame every 20 ms."""
DEAF_S = 3.0
"""Seconds without any packet since the start, after which a warning is logged: no packet reaches the server."""
TRIES, AGAIN_S = 25, 0.02
"""Attempts to put the channels into the bridge, and seconds between them. A channel is created before it has entered
the Stasis application, and until then no bridge accepts it."""
LOOKUP_S = 2.0
"""Seconds for the lookup of Asterisk's addresses."""
GOODBYE_S = 1.0
"""Seconds in which Asterisk must remove the listeners' channels at the server's end; the next process removes the
rest."""
UNHEARD = "Wait ends after its length"
"""Consequence of a beep that cannot be heard, for the log."""


@dataclass(slots=True)
class SnoopSession:
    """Listener to one channel: its snoop channel, media channel, bridge and RTP receiver."""

    channel_id: str
    tap: ids.TapIds
    beep: asyncio.Event = field(default_factory=asyncio.Event)
    detector: BeepDetector = field(default_factory=BeepDetector)
    receiver: Receiver | None = None

    def hear(self, sound: bytes) -> None:
        if self.detector.feed(sound):
            self.beep.set()


class BeepListener:
    """Beep listener. `heard` gets the channel's id, once for each `start`."""

    def __init__(self, ari: Client, heard: Callable[[str], None]) -> None:
        self._ari = ari
        self._heard = heard
        self._process = uuid4().hex
        """Part of the ids of all channels and bridges that this process creates to listen."""
        self._ears: dict[str, asyncio.Task[None]] = {}
        self._tasks = Tasks("beep listener raised")
        self._numbers = count(1)
        self._sweep: asyncio.Task[None] | None = None
        self._told = False
        """True once a failure to listen has been logged; the next one is logged as a warning only after listening has
        worked."""

    def start(self, channel_id: str, call_uuid: str) -> None:
        """Listen until a beep is heard, `stop` is called, or the channel ends. On failure, log a warning and don't call
        `heard`."""
        self.remove_leftovers()
        if channel_id in self._ears:
            return
        if len(self._ears) >= MAX_LISTENERS:
            log.warning("beep listener limit reached", channel_id=channel_id, limit=MAX_LISTENERS, action=UNHEARD)
            return
        tap = ids.tap_ids(call_uuid, self._ari.app, self._process, next(self._numbers))
        self._ears[channel_id] = self._tasks.start(self._listen(SnoopSession(channel_id, tap)))

    def stop(self, channel_id: str) -> None:
        self.remove_leftovers()
        if (task := self._ears.pop(channel_id, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all listeners. Asterisk must still be reachable, so that their channels can be removed."""
        for task in self._ears.values():
            task.cancel()
        self._ears.clear()
        # Each canceled listener starts a task that removes its channels.
        await self._tasks.finish(GOODBYE_S)

    async def _listen(self, ear: SnoopSession) -> None:
        # Not canceled: Asterisk would still carry out the abandoned request, perhaps after `_remove`.
        opening = asyncio.ensure_future(self._open(ear))
        try:
            if await self._is_open(ear, opening) and await self._hears_beep(ear):
                self._heard(ear.channel_id)
        finally:
            if self._ears.get(ear.channel_id) is asyncio.current_task():
                del self._ears[ear.channel_id]
            self._tasks.start(self._remove(ear, opening))

    async def _is_open(self, ear: SnoopSession, opening: asyncio.Future[None]) -> bool:
        try:
            await asyncio.shield(opening)
        except AriNotFound:
            return False  # the call has ended in the meantime
        except (AriError, OSError) as error:
            # Without chan_rtp, Asterisk only says "Allocation failed".
            self._tell(
                "beep listener failed",
                channel_id=ear.channel_id,
                reason=str(error),
                action=UNHEARD,
                hint="check that Asterisk loads chan_rtp",
            )
            return False
        return True

    def _tell(self, event: str, **fields: str) -> None:
        """Log a warning; the next ones are only logged for debugging until listening has worked again."""
        tell = log.debug if self._told else log.warning
        self._told = True
        tell(event, **fields)

    async def _open(self, ear: SnoopSession) -> None:
        if self._sweep is not None:
            # The channels of a dead process still send, perhaps to the port that this receiver gets.
            await asyncio.wait((self._sweep,))
        ear.receiver = Receiver(self._ari.media_host, await self._senders(), ear.hear)
        # The empty part is for another kind of receiver. mu-law is the only suitable codec with a number in RTP.
        endpoint = f"MulticastRTP/basic/{ear.receiver.address}//c(ulaw)"
        query = {"endpoint": endpoint, "app": self._ari.app, "channelId": ear.tap.media_channel_id}
        await self._ari.request("POST", "/channels", query, over="socket")
        query = {"spy": "in", "app": self._ari.app}
        snoop = path("channels", ear.channel_id, "snoop", ear.tap.snoop_channel_id)
        await self._ari.request("POST", snoop, query, over="socket")
        # The name marks the bridge as the server's own, for the next process if this one dies.
        query = {"type": "mixing", "bridgeId": ear.tap.bridge_id, "name": BRIDGE_NAME}
        await self._ari.request("POST", "/bridges", query, over="socket")
        await self._join(ear)

    async def _senders(self) -> frozenset[str]:
        """Return Asterisk's addresses; none on loopback, where no other machine can send."""
        if ip_address(self._ari.media_host).is_loopback:
            return frozenset()
        async with asyncio.timeout(LOOKUP_S):
            found = await asyncio.get_running_loop().getaddrinfo(self._ari.host, None, family=socket.AF_INET)
        return frozenset(str(address[0]) for *_, address in found)

    async def _join(self, ear: SnoopSession) -> None:
        for left in reversed(range(TRIES)):
            try:
                query = {"channel": f"{ear.tap.snoop_channel_id},{ear.tap.media_channel_id}"}
                await self._ari.request("POST", path("bridges", ear.tap.bridge_id, "addChannel"), query)
                return
            except AriError as error:
                if error.status == 400:  # Asterisk's status for a channel that doesn't exist
                    raise AriNotFound(str(error), error.status) from None
                if error.status not in (409, 422) or not left:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _hears_beep(self, ear: SnoopSession) -> bool:
        """Wait for a beep. Return False if one of the channels has ended before."""
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
            if await self._is_gone(ear.tap.snoop_channel_id):
                return False
            if await self._is_gone(ear.tap.media_channel_id):
                reason = "its media channel has ended"
                log.warning("beep listener stopped", channel_id=ear.channel_id, reason=reason, action=UNHEARD)
                return False
            if not receiver.packets and loop.time() >= begun + DEAF_S:
                self._tell(
                    "beep listener received no audio",
                    channel_id=ear.channel_id,
                    address=receiver.address,
                    action=UNHEARD,
                    hint="check that Asterisk can reach ARI_CONF_MEDIA_LISTEN",
                )

    async def _is_gone(self, channel_id: str) -> bool:
        try:
            await self._ari.request("GET", path("channels", channel_id), over="socket")
        except AriError as error:
            return isinstance(error, AriNotFound)
        return False

    async def _remove(self, ear: SnoopSession, opening: asyncio.Future[None]) -> None:
        await asyncio.gather(opening, return_exceptions=True)
        for channel_id in (ear.tap.snoop_channel_id, ear.tap.media_channel_id):
            await self._delete(path("channels", channel_id))
        await self._delete(path("bridges", ear.tap.bridge_id))
        if ear.receiver is not None:
            ear.receiver.close()

    async def _delete(self, what: str) -> None:
        try:
            # On the WebSocket these run in this order, and after the requests of `_open`.
            await self._ari.request("DELETE", what, over="socket")
        except AriNotFound:
            pass
        except AriError as error:
            log.warning("cleanup in asterisk failed", path=what, reason=str(error))

    def remove_leftovers(self, channel_ids: Iterable[str] | None = None) -> None:
        """Remove, once per process, the channels that an earlier process left. Its bridges are removed with those of
        conferences. `channel_ids`: all channels of Asterisk, if they are known, because a request for them may return
        many."""
        if self._sweep is None:
            self._sweep = self._tasks.start(self._remove_strangers(None if channel_ids is None else tuple(channel_ids)))

    async def _remove_strangers(self, channel_ids: tuple[str, ...] | None) -> None:
        if channel_ids is None:
            try:
                channels = await self._ari.request("GET", "/channels", over="socket")
            except AriError as error:
                log.warning("leftover scan failed", reason=str(error))
                return
            channel_ids = tuple(str(channel["id"]) for channel in channels)
        for channel_id in channel_ids:
            creator = ids.tap_creator(channel_id)
            if creator is not None and creator[0] == self._ari.app and creator[1] != self._process:
                await self._delete(path("channels", channel_id))
