"""Runs the core's effects, and brings what came of them back as events.

Those about one channel run one after another, likewise those about one bridge; all others side by side. Raises on an
effect that it does not know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from ari_conf.ari.client import Client
from ari_conf.ari.listening import Listening
from ari_conf.ari.translate import ForAsterisk, Request, to_requests
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.documents import Documents, Sounds
from ari_conf.errors import (
    AriError,
    AriNotFound,
    AriUnreachable,
    LeaseLost,
    SoundFailed,
    StoreUnavailable,
)
from ari_conf.http.fetch import Fetcher
from ari_conf.store import Store
from ari_conf.visible import stripped

log = structlog.get_logger()

Deliver = Callable[[ev.Event], None]

NARROWBAND = {"", "ulaw", "alaw", "gsm", "g726", "g726aal2", "g729", "g723", "ilbc", "lpc10", "adpcm", "slin", "speex"}
"""Codecs of 8 kHz; empty: Asterisk said none."""
AGAIN = (
    do.MuteChannel,
    do.DeafenChannel,
    do.DetectTalking,
    do.StartMusic,
    do.StopMusic,
    do.StopPlayback,
    do.HangUp,
)
"""Whether these were done when the connection broke nobody knows, and twice they do no harm: they are asked for again.
Of none of them an event tells later that it was not done: one who is no longer muted would not be heard, for ever."""
TRIES, AGAIN_S = 5, 0.5
CODEC, HEADERS = "CHANNEL(audionativeformat)", "PJSIP_HEADERS(X-PH-)"


class Interpreter:
    def __init__(
        self,
        ari: Client,
        store: Store,
        fetcher: Fetcher,
        sounds: Sounds,
        documents: Path,
        deliver: Deliver,
        claim_later: Callable[[do.ClaimName], None],
        always_wideband: bool = False,
    ) -> None:
        """`claim_later`: a name was taken for ours, which Redis is still to be told. `always_wideband`: whatever codec
        calls have, they are recorded as if it were a wideband one."""
        self._ari = ari
        self._store = store
        self._sounds = sounds
        self._documents = Documents(store, fetcher, sounds, documents, ari)
        self._deliver = deliver
        self._claim_later = claim_later
        self._always_wideband = always_wideband
        self._listening = Listening(ari, lambda channel_id: deliver(ev.BeepHeard(channel_id)))
        self._lanes: dict[str, deque[ForAsterisk]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, effect: do.Effect) -> None:
        """Starts it."""
        match effect:
            case do.PlayMedia(target) | do.StopPlayback(target):
                self._in_order(target.id, effect)
            case do.CreateBridge() | do.DestroyBridge() | do.StartRecording() | do.StopRecording():
                self._in_order(effect.bridge_id, effect)
            case do.IdentifyCall():
                self._spawn(self._replied(effect, self._identify(effect)))
            case do.FetchDocument():
                self._spawn(self._replied(effect, self._told(self._documents.fetch(effect))))
            case do.FetchSounds():
                self._spawn(self._replied(effect, self._told(self._documents.fetch_sounds(effect))))
            case do.PrepareSound():
                self._spawn(self._replied(effect, self._prepare(effect)))
            case do.WarmSounds(sounds):
                self._sounds.warm(sounds)
            case do.ClaimName():
                self._spawn(self._replied(effect, self._claim(effect)))
            case do.DetectBeep(channel_id, on):
                (self._listening.start if on else self._listening.stop)(channel_id)
            case (
                do.PostCallback()
                | do.ReportProblem()
                | do.ReleaseName()
                | do.StoreRecording()
                | do.Reply()
                | do.NoteStay()
                | do.NoteTalk()
            ):
                raise TypeError(f"{type(effect).__name__} belongs to the step that is written, not here")
            case do.DetectTalking(channel_id):
                self._in_order(_talking(channel_id), effect)
            case _:
                self._in_order(effect.channel_id, effect)

    def busy(self, key: str) -> bool:
        """Something is being done, or about to be, with that channel or bridge."""
        return key in self._lanes

    async def done(self, channel_ids: Iterable[str]) -> None:
        """Until nothing is under way any more with these channels."""
        lanes = {lane for channel_id in channel_ids for lane in (channel_id, _talking(channel_id))}
        while not lanes.isdisjoint(self._lanes):
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def settled(self) -> None:
        """Until Asterisk has been asked for all that was to be done. What others are asked for may take longer."""
        while self._lanes:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def sweep(self, channel_ids: Iterable[str]) -> None:
        """Removes what an earlier process has left of its listening among Asterisk's channels, which these are."""
        self._listening.sweep(channel_ids)

    async def stop_listening(self) -> None:
        """For beeps; Asterisk must still be reachable."""
        await self._listening.close()

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Asterisk.

    def _in_order(self, key: str, effect: ForAsterisk) -> None:
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(effect)
            return
        self._lanes[key] = lane = deque([effect])
        self._spawn(self._drain(key, lane))

    async def _drain(self, key: str, lane: deque[ForAsterisk]) -> None:
        while lane:
            await self._replied(lane[0], self._obey(lane[0]))
            lane.popleft()
        del self._lanes[key]

    async def _replied(self, effect: do.Effect, work: Coroutine[Any, Any, None]) -> None:
        """Also one that breaks comes back: whose it is must not wait for ever."""
        try:
            await work
        except Exception as error:
            log.exception("an effect broke: this is a defect of ari_conf, please report it")
            self._deliver(ev.EffectFailed(effect, f"{type(effect).__name__} broke: {type(error).__name__}"))

    async def _obey(self, effect: ForAsterisk) -> None:
        try:
            for request in to_requests(effect):
                await self._ask(request, again=isinstance(effect, AGAIN))
        except AriError as error:
            # Of a channel that is gone, addChannel says 400, or 422 once it has left the application; removeChannel
            # says 400, or 422 if it is not in the bridge.
            moved = isinstance(effect, do.AddChannel | do.RemoveChannel)
            gone = isinstance(error, AriNotFound) or (moved and error.status in (400, 422))
            log.log(10 if gone else 30, "effect failed", effect=type(effect).__name__, reason=str(error))
            self._deliver(ev.EffectFailed(effect, str(error), gone, not isinstance(error, AriUnreachable)))
            return
        match effect:
            case do.CreateBridge(bridge_id):
                self._deliver(ev.BridgeCreated(bridge_id))
            case do.DestroyBridge(bridge_id):
                self._deliver(ev.BridgeDestroyed(bridge_id))

    async def _ask(self, request: Request, again: bool) -> None:
        over = request.over
        for left in reversed(range(TRIES)):
            try:
                await self._ari.request(request.method, request.path, request.query, over=over)
                return
            except AriUnreachable as error:
                if not again or not left:
                    raise
                log.info("asked again", path=request.path, reason=str(error))
            # The WebSocket may be the very thing that is broken.
            over = "http"
            await asyncio.sleep(AGAIN_S)

    async def _identify(self, effect: do.IdentifyCall) -> None:
        record = await self._documents.account(effect.auth_id)  # which is known nearly always
        codec, names = await self._codec_and_headers(effect.channel_id)
        wanted = [name for name in names.split(",") if name.upper().startswith("X-PH-")]
        header = partial(self._variable, effect.channel_id)
        values = await asyncio.gather(*(header(f"PJSIP_HEADER(read,{name})") for name in wanted))
        account = record.account() if record else None
        wideband = self._always_wideband or not NARROWBAND.issuperset(codec.strip("()").split("|"))
        headers = tuple((stripped(name), stripped(value)) for name, value in zip(wanted, values, strict=True))
        self._deliver(ev.CallIdentified(effect.call_uuid, account, headers, wideband))

    async def _codec_and_headers(self, channel_id: str) -> tuple[str, str]:
        """In one request; in two, if this Asterisk has no EVAL(). "X-PH-* SIP headers of the INVITE": none if the call
        did not come by SIP."""
        # What a caller wrote into his headers comes out of it, and is not evaluated.
        both = await self._variable(channel_id, f"EVAL(${{{CODEC}}};${{{HEADERS}}})")
        codec, semicolon, names = both.partition(";")
        if semicolon:
            return codec, names
        return await self._variable(channel_id, CODEC), await self._variable(channel_id, HEADERS)

    async def _variable(self, channel_id: str, name: str) -> str:
        path = f"/channels/{quote(channel_id, safe='')}/variable"
        try:
            answer = await self._ari.request("GET", path, {"variable": name}, over="socket")
        except AriError:
            return ""
        return str(answer.get("value", "")) if isinstance(answer, dict) else ""

    # The outside.

    async def _told(self, work: Coroutine[Any, Any, ev.Event]) -> None:
        self._deliver(await work)

    async def _prepare(self, effect: do.PrepareSound) -> None:
        try:
            media = await self._sounds.prepare(effect.sound)
        except SoundFailed as error:
            self._deliver(ev.SoundFailed(effect.playback_id, effect.sound, str(error)))
        else:
            self._deliver(ev.SoundPrepared(effect.playback_id, media))

    async def _claim(self, effect: do.ClaimName) -> None:
        try:
            owner = await self._store.claim(effect.auth_id, effect.name, effect.conference_id)
        except StoreUnavailable as error:
            # Conferences go on without Redis: the name is ours until it is asked again.
            log.error("name claimed here alone", auth_id=effect.auth_id, name=effect.name, reason=str(error))
            self._claim_later(effect)
            owner = None
        except LeaseLost:
            return
        if owner is None:
            self._deliver(ev.NameClaimed(effect.conference_id))
        else:
            self._deliver(ev.NameRefused(effect.conference_id, owner))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task broke: this is a defect of ari_conf, please report it", exc_info=error)


def _talking(channel_id: str) -> str:
    """Setting a variable of a channel that plays waits for the playback's end (seen on 22.10.1): what else is to be
    done with that channel must not."""
    return f"{channel_id} talking"
