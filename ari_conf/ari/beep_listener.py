"""Beep listener: a snoop channel on the caller's channel, and a channel that sends its sound to the server as RTP,
joined in a bridge. It listens in the same way for what tells an answering machine from a person.

The second channel is a MulticastRTP channel of chan_rtp, which sends to any address. docs/development/chaos.md, "Taps",
compares it with WebSocket, AudioSocket and UnicastRTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from itertools import count
from uuid import uuid4

import structlog

from ari_conf.ari.beep_detector import BeepDetector
from ari_conf.ari.client import Client
from ari_conf.ari.machine_ear import MachineEar
from ari_conf.ari.rtp import Receiver
from ari_conf.ari.translate import BRIDGE_NAME, path
from ari_conf.common.supervision import Tasks
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.errors import AriError, AriNotFound

log = structlog.get_logger()

MAX_LISTENERS = 50
"""Maximum number of channels that are listened to concurrently: each takes up to 1 % of a core, and the same event loop
reads Asterisk's events."""
PACKET_TIMEOUT_S = 0.5
"""Seconds without a packet after which the server checks that its channels still exist; a snoop channel always sends a
frame every 20 ms."""
NO_AUDIO_WARNING_S = 3.0
"""Seconds without any packet since the start, after which a warning is logged: no packet reaches the server."""
JOIN_ATTEMPTS, JOIN_RETRY_DELAY_S = 25, 0.02
"""Attempts to put the channels into the bridge, and seconds between them. A channel is created before it has entered
the Stasis application, and until then no bridge accepts it."""
LOOKUP_TIMEOUT_S = 2.0
"""Seconds for the lookup of Asterisk's addresses."""
CLOSE_TIMEOUT_S = 1.0
"""Seconds in which Asterisk must remove the listeners' channels at the server's end; the next process removes the
rest."""
BEEP_FALLBACK, MACHINE_FALLBACK = "Wait ends after its length", "a person is assumed"
"""Consequences of a beep, or a machine, that cannot be heard, for the log."""


@dataclass(slots=True)
class SnoopSession:
    """Listener to one channel: its snoop channel, media channel, bridge and RTP receiver."""

    channel_id: str
    tap: ids.TapIds
    hear: Callable[[bytes], bool]
    """Takes the sound; returns True once nothing more needs to be heard."""
    on_heard: Callable[[], None]
    """Called after `hear` has returned True."""
    on_failed: Callable[[str], None]
    """Called with the reason if listening fails before."""
    fallback: str
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    receiver: Receiver | None = None

    def feed(self, sound: bytes) -> None:
        if self.hear(sound):
            self.heard.set()


class BeepListener:
    """Beep listener. `on_beep` gets the channel's id, once for each `start`. `on_event` gets what is heard after
    `start_for_machine`."""

    def __init__(
        self, ari: Client, on_beep: Callable[[str], None], on_event: Callable[[ev.Event], None] = lambda event: None
    ) -> None:
        self._ari = ari
        self._on_beep = on_beep
        self._on_event = on_event
        self._process = uuid4().hex
        """Part of the ids of all channels and bridges that this process creates to listen."""
        self._tasks_by_channel: dict[str, asyncio.Task[None]] = {}
        """Tasks by the channel's id, or by `_machine_key` of it."""
        self._tasks = Tasks("beep listener raised")
        self._numbers = count(1)
        self._sweep: asyncio.Task[None] | None = None
        self._failure_logged = False
        """True once a failure to listen has been logged; the next one is logged as a warning only after listening has
        worked."""

    def start(self, channel_id: str, call_uuid: str) -> None:
        """Listen until a beep is heard, `stop` is called, or the channel ends. On failure, log a warning and don't call
        `on_beep`."""
        hear, on_heard = BeepDetector().feed, partial(self._on_beep, channel_id)
        self._start(channel_id, channel_id, call_uuid, hear, on_heard, lambda _reason: None, BEEP_FALLBACK)

    def stop(self, channel_id: str) -> None:
        self._stop(channel_id)

    def start_for_machine(self, channel_id: str, call_uuid: str) -> None:
        """Listen until `stop_for_machine` is called or the channel ends. `on_event` gets what a MachineEar hears, or
        ListeningFailed."""
        ear = MachineEar(channel_id)

        def hear(sound: bytes) -> bool:
            for event in ear.hear(sound):
                self._on_event(event)
            return False

        def on_failed(reason: str) -> None:
            self._on_event(ev.ListeningFailed(channel_id, reason))

        self._start(_machine_key(channel_id), channel_id, call_uuid, hear, lambda: None, on_failed, MACHINE_FALLBACK)

    def stop_for_machine(self, channel_id: str) -> None:
        self._stop(_machine_key(channel_id))

    def _start(
        self,
        key: str,
        channel_id: str,
        call_uuid: str,
        hear: Callable[[bytes], bool],
        on_heard: Callable[[], None],
        on_failed: Callable[[str], None],
        fallback: str,
    ) -> None:
        self.remove_leftovers()
        if key in self._tasks_by_channel:
            return
        if len(self._tasks_by_channel) >= MAX_LISTENERS:
            log.warning("beep listener limit reached", channel_id=channel_id, limit=MAX_LISTENERS, action=fallback)
            # Not at once: the effect that asks for it is part of a step that is being carried out.
            asyncio.get_running_loop().call_soon(on_failed, f"{MAX_LISTENERS} channels are listened to already")
            return
        tap = ids.tap_ids(call_uuid, self._ari.app, self._process, next(self._numbers))
        session = SnoopSession(channel_id, tap, hear, on_heard, on_failed, fallback)
        self._tasks_by_channel[key] = self._tasks.start(self._listen(key, session))

    def _stop(self, key: str) -> None:
        self.remove_leftovers()
        if (task := self._tasks_by_channel.pop(key, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all listeners. Asterisk must still be reachable, so that their channels can be removed."""
        for task in self._tasks_by_channel.values():
            task.cancel()
        self._tasks_by_channel.clear()
        # Each canceled listener starts a task that removes its channels.
        await self._tasks.finish(CLOSE_TIMEOUT_S)

    async def _listen(self, key: str, session: SnoopSession) -> None:
        # Not canceled: Asterisk would still carry out the abandoned request, perhaps after `_remove`.
        opening = asyncio.ensure_future(self._open(session))
        try:
            if await self._is_open(session, opening) and await self._wait_until_heard(session):
                session.on_heard()
        finally:
            if self._tasks_by_channel.get(key) is asyncio.current_task():
                del self._tasks_by_channel[key]
            self._tasks.start(self._remove(session, opening))

    async def _is_open(self, session: SnoopSession, opening: asyncio.Future[None]) -> bool:
        try:
            await asyncio.shield(opening)
        except AriNotFound:
            return False  # the call has ended in the meantime
        except (AriError, OSError) as error:
            # Without chan_rtp, Asterisk only says "Allocation failed".
            self._log_failure(
                "beep listener failed",
                channel_id=session.channel_id,
                reason=str(error),
                action=session.fallback,
                hint="check that Asterisk loads chan_rtp",
            )
            session.on_failed(str(error))
            return False
        return True

    def _log_failure(self, event: str, **fields: str) -> None:
        """Log a warning; the next ones are only logged for debugging until listening has worked again."""
        log_at_level = log.debug if self._failure_logged else log.warning
        self._failure_logged = True
        log_at_level(event, **fields)

    async def _open(self, session: SnoopSession) -> None:
        if self._sweep is not None:
            # The channels of a dead process still send, perhaps to the port that this receiver gets.
            await asyncio.wait((self._sweep,))
        session.receiver = Receiver(self._ari.media_host, await self._look_up_senders(), session.feed)
        # The empty part is for another kind of receiver. mu-law is the only suitable codec with a number in RTP.
        endpoint = f"MulticastRTP/basic/{session.receiver.address}//c(ulaw)"
        query = {"endpoint": endpoint, "app": self._ari.app, "channelId": session.tap.media_channel_id}
        await self._ari.request("POST", "/channels", query, over="socket")
        query = {"spy": "in", "app": self._ari.app}
        snoop = path("channels", session.channel_id, "snoop", session.tap.snoop_channel_id)
        await self._ari.request("POST", snoop, query, over="socket")
        # The name marks the bridge as the server's own, for the next process if this one dies.
        query = {"type": "mixing", "bridgeId": session.tap.bridge_id, "name": BRIDGE_NAME}
        await self._ari.request("POST", "/bridges", query, over="socket")
        await self._join(session)

    async def _look_up_senders(self) -> frozenset[str]:
        """Return Asterisk's addresses; none on loopback, where no other machine can send."""
        if ip_address(self._ari.media_host).is_loopback:
            return frozenset()
        async with asyncio.timeout(LOOKUP_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(self._ari.host, None, family=socket.AF_INET)
        return frozenset(str(address[0]) for *_, address in found)

    async def _join(self, session: SnoopSession) -> None:
        for left in reversed(range(JOIN_ATTEMPTS)):
            try:
                query = {"channel": f"{session.tap.snoop_channel_id},{session.tap.media_channel_id}"}
                await self._ari.request("POST", path("bridges", session.tap.bridge_id, "addChannel"), query)
                return
            except AriError as error:
                if error.status == 400:  # Asterisk's status for a channel that doesn't exist
                    raise AriNotFound(str(error), error.status) from None
                if error.status not in (409, 422) or not left:
                    raise
            await asyncio.sleep(JOIN_RETRY_DELAY_S)

    async def _wait_until_heard(self, session: SnoopSession) -> bool:
        """Wait until nothing more needs to be heard. Return False if one of the channels has ended before."""
        receiver = session.receiver
        assert receiver is not None, "opened"
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        while True:
            before = receiver.packets
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(session.heard.wait(), PACKET_TIMEOUT_S)
                return True
            if receiver.packets > before:
                self._failure_logged = False
                continue
            if await self._has_ended(session.tap.snoop_channel_id):
                return False
            if await self._has_ended(session.tap.media_channel_id):
                reason = "its media channel has ended"
                log.warning(
                    "beep listener stopped", channel_id=session.channel_id, reason=reason, action=session.fallback
                )
                session.on_failed(reason)
                return False
            if not receiver.packets and loop.time() >= started_at + NO_AUDIO_WARNING_S:
                self._log_failure(
                    "beep listener received no audio",
                    channel_id=session.channel_id,
                    address=receiver.address,
                    action=session.fallback,
                    hint="check that Asterisk can reach ARI_CONF_MEDIA_LISTEN",
                )
                session.on_failed("no audio arrives: check that Asterisk can reach ARI_CONF_MEDIA_LISTEN")

    async def _has_ended(self, channel_id: str) -> bool:
        try:
            await self._ari.request("GET", path("channels", channel_id), over="socket")
        except AriError as error:
            return isinstance(error, AriNotFound)
        return False

    async def _remove(self, session: SnoopSession, opening: asyncio.Future[None]) -> None:
        await asyncio.gather(opening, return_exceptions=True)
        for channel_id in (session.tap.snoop_channel_id, session.tap.media_channel_id):
            await self._delete(path("channels", channel_id))
        await self._delete(path("bridges", session.tap.bridge_id))
        if session.receiver is not None:
            session.receiver.close()

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
            self._sweep = self._tasks.start(
                self._remove_listeners_of_others(None if channel_ids is None else tuple(channel_ids))
            )

    async def _remove_listeners_of_others(self, channel_ids: tuple[str, ...] | None) -> None:
        if channel_ids is None:
            try:
                channels = await self._ari.request("GET", "/channels", over="socket")
            except AriError as error:
                log.warning("leftover scan failed", reason=str(error))
                return
            channel_ids = tuple(str(channel["id"]) for channel in channels)
        for channel_id in filter(self.is_left_behind, channel_ids):
            await self._delete(path("channels", channel_id))

    def is_left_behind(self, some_id: str) -> bool:
        """Return True for a channel or bridge with which another process of this application has listened."""
        creator = ids.tap_creator(some_id)
        return creator is not None and creator[0] == self._ari.app and creator[1] != self._process


def _machine_key(channel_id: str) -> str:
    """Return the key of what listens for a machine: a Wait may listen for a beep on the same channel."""
    return f"{channel_id} machine"
