"""Runs the core's effects, and brings what came of them back as events.

Those about one channel run one after another, likewise those about one bridge; all others side by side. Raises on an
effect that it does not know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import structlog

from ari_conf import identity
from ari_conf.ari import invite
from ari_conf.ari.client import Client
from ari_conf.ari.listening import Listening
from ari_conf.ari.translate import ForAsterisk, Request, path, to_requests
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak
from ari_conf.documents import Documents
from ari_conf.errors import (
    AriError,
    AriLate,
    AriNotFound,
    AriUnreachable,
    LeaseLost,
    SoundFailed,
    StoreUnavailable,
)
from ari_conf.http.fetch import Fetcher
from ari_conf.media.sounds import Sounds
from ari_conf.store import Store
from ari_conf.supervision import Tasks
from ari_conf.visible import stripped

log = structlog.get_logger()

Deliver = Callable[[ev.Event], None]
Owners = Callable[[str], tuple[str, tuple[str, ...]]]
"""As `Directory.owners`."""

NARROWBAND = {"", "ulaw", "alaw", "gsm", "g726", "g726aal2", "g729", "g723", "ilbc", "lpc10", "adpcm", "slin", "speex"}
"""Codecs of 8 kHz; empty: Asterisk said none."""
HARMLESS_TWICE = (
    do.Ring,
    do.Answer,
    do.MuteChannel,
    do.DeafenChannel,
    do.DetectTalking,
    do.StartMusic,
    do.StopMusic,
    do.SendSilence,
    do.StopPlayback,
    do.HangUp,
    do.RemoveChannel,
    do.DestroyBridge,
    do.StopRecording,
)
"""Nobody knows whether these were done when the connection broke. Done twice they do no harm: they are asked again."""
MADE_ONCE = (do.CreateBridge, do.StartRecording)
"""Asterisk says 409 if these were done already (seen on 22.10.1)."""
TRIES, AGAIN_S = 4, 0.5
"""Whatever else is to be done with the same channel waits meanwhile. Later than that, the core asks again."""
MOST_LATE = 2
"""Of the tries: so many may wait for an answer until the deadline."""
MOST_AUDIBLE = 1000
"""Channels of which it is remembered that a mute failed."""
LAST_WORDS_S = 5.0
"""For which a request for a document of a call that has ended goes on: what it carries, digits say, is to arrive."""
JitterBuffer = Literal["never", "internet", "always"]
JITTER = {"variable": "JITTERBUFFER(adaptive)", "value": "default"}


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
        owners: Owners = lambda owned_id: ("", (owned_id,)),
        jitter_buffer: JitterBuffer = "never",
    ) -> None:
        """`claim_later`: a name was taken for ours, which Redis is still to be told. `always_wideband`: whatever codec
        calls have, they are recorded as if it were a wideband one. `owners`: for whom something is prepared."""
        self._ari = ari
        self._store = store
        self._sounds = sounds
        self._documents = Documents(store, fetcher, documents, ari, lambda elements: sounds.complaints(elements))
        self._deliver = deliver
        self._claim_later = claim_later
        self._always_wideband = always_wideband
        self._owners = owners
        self._jitter_buffer: JitterBuffer = jitter_buffer
        self._listening = Listening(ari, lambda channel_id: deliver(ev.BeepHeard(channel_id)))
        self._lanes: dict[str, deque[ForAsterisk]] = {}
        self._audible: dict[str, do.MuteChannel] = {}
        """Mutes that failed, by channel: until they are done, nobody is to hear it."""
        self._tasks = Tasks()
        self._prepared_for: dict[str, dict[asyncio.Task[None], float]] = {}
        """A call or a conference -> what is prepared or fetched for it, and for how long that goes on after its end."""

    def run(self, effect: do.Effect) -> None:
        """Starts it."""
        match effect:
            case do.PlayMedia(target, _, media):
                self._sounds.played(media)
                self._in_order(target.id, effect)
            case do.StopPlayback(target):
                self._in_order(target.id, effect)
            case do.CreateBridge() | do.DestroyBridge() | do.StartRecording() | do.StopRecording():
                self._in_order(effect.bridge_id, effect)
            case do.IdentifyCall():
                self._tasks.start(self._replied(effect, self._identify(effect)))
            case do.FetchDocument(fetch_id):
                self._spawn_for(fetch_id, effect, self._told(self._documents.fetch(effect)), LAST_WORDS_S)
            case do.FetchSounds(fetch_id):
                self._spawn_for(fetch_id, effect, self._fetch_sounds(effect))
            case do.PrepareSound(playback_id):
                self._spawn_for(playback_id, effect, self._prepare(effect))
            case do.WarmSounds(call_uuid, auth_id, sounds):
                self._sounds.warm(sounds, auth_id, call_uuid)
            case do.StopPreparing(owner):
                self._stop_preparing(owner)
            case do.ClaimName():
                self._tasks.start(self._replied(effect, self._claim(effect)))
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
            case do.DeafenChannel(channel_id):
                self._in_order(_hearing(channel_id), effect)
            case _:
                self._in_order(effect.channel_id, effect)

    def busy(self, key: str) -> bool:
        """Something is being done, or about to be, with that channel or bridge."""
        return key in self._lanes

    async def done(self, channel_ids: Iterable[str]) -> None:
        """Until nothing is under way any more with these channels."""
        await self._drained({lane for one in channel_ids for lane in (one, _talking(one), _hearing(one))})

    async def _drained(self, lanes: set[str]) -> None:
        while not lanes.isdisjoint(self._lanes):
            await self._tasks.one_ended()

    async def settled(self) -> None:
        """Until Asterisk has been asked for all that was to be done. What others are asked for may take longer."""
        while self._lanes:
            await self._tasks.one_ended()

    def sweep(self, channel_ids: Iterable[str]) -> None:
        """Removes what an earlier process has left of its listening among Asterisk's channels, which these are."""
        self._listening.sweep(channel_ids)

    async def stop_listening(self) -> None:
        """For beeps; Asterisk must still be reachable."""
        await self._listening.close()

    async def close(self) -> None:
        await self._tasks.close()

    # Asterisk.

    def _in_order(self, key: str, effect: ForAsterisk) -> None:
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(effect)
            return
        self._lanes[key] = lane = deque([effect])
        self._tasks.start(self._drain(key, lane))

    async def _drain(self, key: str, lane: deque[ForAsterisk]) -> None:
        try:
            while lane:
                await self._replied(lane[0], self._obey(lane[0]))
                lane.popleft()
        finally:
            del self._lanes[key]

    async def _replied(self, effect: do.Effect, work: Coroutine[Any, Any, None]) -> None:
        """Also one that breaks comes back: whose it is must not wait for ever. Never raises."""
        try:
            await work
        except Exception as error:
            log.exception("an effect broke: this is a defect of ari_conf, please report it")
            try:
                self._deliver(ev.EffectFailed(effect, f"{type(effect).__name__} broke: {type(error).__name__}"))
            except Exception:
                log.exception("that an effect broke can't be told: this is a defect of ari_conf, please report it")

    async def _obey(self, effect: ForAsterisk) -> None:
        if isinstance(effect, do.PlayMedia):
            # Otherwise a member who is to hear again would hear nothing of this sound.
            await self._drained({_hearing(effect.target.id)})
        try:
            if isinstance(effect, do.AddChannel) and (mute := self._audible.get(effect.channel_id)) is not None:
                await self._ask_all(mute)
                self._mutes(mute, done=True)
            await self._ask_all(effect)
        except AriError as error:
            # Of a channel that is gone, addChannel says 400, or 422 once it has left the application; removeChannel
            # says 400, or 422 if it is not in the bridge.
            moved = isinstance(effect, do.AddChannel | do.RemoveChannel)
            gone = isinstance(error, AriNotFound) or (moved and error.status in (400, 422))
            log.log(10 if gone else 30, "effect failed", effect=type(effect).__name__, reason=str(error))
            if isinstance(effect, do.MuteChannel):
                self._mutes(effect, done=gone)
            self._deliver(ev.EffectFailed(effect, str(error), gone, not isinstance(error, AriUnreachable)))
            return
        match effect:
            case do.CreateBridge(bridge_id):
                self._deliver(ev.BridgeCreated(bridge_id))
            case do.DestroyBridge(bridge_id):
                self._deliver(ev.BridgeDestroyed(bridge_id))
            case do.MuteChannel():
                self._mutes(effect, done=True)

    def _mutes(self, effect: do.MuteChannel, done: bool) -> None:
        self._audible.pop(effect.channel_id, None)
        if effect.muted and not done:
            self._audible[effect.channel_id] = effect
            if len(self._audible) > MOST_AUDIBLE:
                del self._audible[next(iter(self._audible))]

    async def _ask_all(self, effect: ForAsterisk) -> None:
        for request in to_requests(effect):
            await self._ask(effect, request)

    async def _ask(self, effect: ForAsterisk, request: Request) -> None:
        """Again where that does no harm, a few times."""
        over, twice = request.over, isinstance(effect, HARMLESS_TWICE)
        doubtful, late = False, 0
        for left in reversed(range(TRIES)):
            try:
                if doubtful and isinstance(effect, do.AddChannel) and await self._is_in(effect):
                    return
                await self._ari.request(request.method, request.path, request.query, over=over, twice=twice)
                return
            except AriUnreachable as error:
                doubtful, late = doubtful or error.sent, late + isinstance(error, AriLate)
                if not left or late == MOST_LATE or not (twice or not doubtful or _can_tell(effect, error)):
                    raise
                log.info("asked again", path=request.path, reason=str(error))
            except AriError as error:
                if doubtful and error.status == 409 and isinstance(effect, MADE_ONCE):
                    return
                raise
            # The WebSocket may be the very thing that is broken.
            over = "http"
            await asyncio.sleep(AGAIN_S)

    async def _is_in(self, effect: do.AddChannel) -> bool:
        """Added once more, a channel would leave the bridge and enter it again (seen on 22.10.1)."""
        bridge = await self._ari.request("GET", path("bridges", effect.bridge_id))
        return isinstance(bridge, dict) and effect.channel_id in bridge.get("channels", ())

    async def _identify(self, effect: do.IdentifyCall) -> None:
        try:
            record = await self._documents.account(effect.auth_id)  # which is known nearly always
        except StoreUnavailable as error:
            self._deliver(ev.EffectFailed(effect, str(error)))
            return
        told = await invite.read(self._ari, effect.channel_id)
        account = record.account() if record else None
        wideband = self._always_wideband or not NARROWBAND.issuperset(told.codec.strip("()").split("|"))
        headers = tuple((stripped(name), stripped(value)) for name, value in told.headers)
        self._deliver(ev.CallIdentified(effect.call_uuid, account, headers, wideband, told.withheld, told.warnings))
        await self._put_in_order(effect.channel_id, told.addresses)

    async def _put_in_order(self, channel_id: str, addresses: str) -> None:
        """The packets of a call whose way is long enough for some of them to overtake others.

        Not by an Asterisk that judges a sound by its number: the buffer fills a gap with sound of number 0, after which
        all numbers above 32768 count as late there. The caller would be heard by nobody for minutes.
        """
        if self._jitter_buffer == "never" or (self._jitter_buffer == "internet" and not is_far(addresses)):
            return
        with contextlib.suppress(AriError):  # the call is as good as it was
            if identity.judges_by_number(await self._ari.request("GET", "/asterisk/info", {"only": "system"})):
                return
            await self._ari.request("POST", path("channels", channel_id, "variable"), JITTER)

    # The outside.

    async def _told(self, work: Coroutine[Any, Any, ev.Event]) -> None:
        self._deliver(await work)

    async def _fetch_sounds(self, effect: do.FetchSounds) -> None:
        event = await self._documents.fetch_sounds(effect)
        if isinstance(event, ev.SoundsFetched):
            _, owners = self._owners(effect.fetch_id)
            sounds = [sound for sound in event.sounds if isinstance(sound, Play | Speak)]
            self._sounds.warm(sounds, effect.auth_id, owners[-1] if owners else effect.fetch_id)
        self._deliver(event)

    async def _prepare(self, effect: do.PrepareSound) -> None:
        auth_id, owners = self._owners(effect.playback_id)
        if not owners:
            return  # nobody waits for it any more
        try:
            media = await self._sounds.prepare(effect.sound, auth_id)
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

    def _spawn_for(
        self, owned_id: str, effect: do.Effect, work: Coroutine[Any, Any, None], last_words_s: float = 0.0
    ) -> None:
        """Until whose it is has ended."""
        _, owners = self._owners(owned_id)
        task = self._tasks.start(self._replied(effect, work))
        for owner in owners:
            self._prepared_for.setdefault(owner, {})[task] = last_words_s
        task.add_done_callback(lambda done: self._let_go(done, owners))

    def _let_go(self, task: asyncio.Task[None], owners: Iterable[str]) -> None:
        for owner in owners:
            if (prepared := self._prepared_for.get(owner)) is not None:
                prepared.pop(task, None)
                if not prepared:
                    del self._prepared_for[owner]

    def _stop_preparing(self, owner: str) -> None:
        self._sounds.stop_warming(owner)
        for task, seconds in self._prepared_for.pop(owner, {}).items():
            asyncio.get_running_loop().call_later(seconds, task.cancel)


def _can_tell(effect: ForAsterisk, error: AriUnreachable) -> bool:
    """Whether it can be seen if Asterisk has done it. Not while it may just be doing it."""
    return isinstance(effect, (do.AddChannel, *MADE_ONCE)) and not isinstance(error, AriLate)


def _talking(channel_id: str) -> str:
    """Setting a variable of a channel that plays waits for the playback's end (seen on 22.10.1): what else is to be
    done with that channel must not."""
    return f"{channel_id} talking"


def _hearing(channel_id: str) -> str:
    """Whether it is deaf is such a variable, too."""
    return f"{channel_id} hearing"


def is_far(addresses: str) -> bool:
    """host:port, separated by spaces: one of them is neither of this machine nor of a private network."""
    for address in addresses.split():
        try:
            if ip_address(address.rpartition(":")[0].strip("[]")).is_global:
                return True
        except ValueError:
            continue
    return False
