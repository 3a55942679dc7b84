"""Effect runner: executes the engine's effects and reports their results as events.

Effects on the same channel run sequentially, and so do effects on the same bridge; all others run concurrently.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import structlog

from ari_conf.ari import invite, snoop_recording
from ari_conf.ari.beep_listener import BeepListener
from ari_conf.ari.client import Client
from ari_conf.ari.translate import Request, path, to_requests
from ari_conf.common.safe_text import stripped
from ari_conf.common.supervision import Tasks
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.elements import Play, Speak
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import (
    REPORT_HINT,
    AriError,
    AriLate,
    AriNotFound,
    AriUnreachable,
    LeaseLost,
    SoundError,
    SoundNotFetched,
    StoreUnavailable,
)
from ari_conf.http_client.fetch import Fetcher
from ari_conf.media.sounds import SoundPreparer
from ari_conf.ownership import asterisk_identity
from ari_conf.server.document_loader import DocumentLoader
from ari_conf.store.state_store import StateStore

log = structlog.get_logger()

Deliver = Callable[[ev.Event], None]
Owners = Callable[[str], tuple[str, tuple[str, ...]]]
"""The type of `Engine.owners`."""
AdmitDial = Callable[[do.AdmitDial], Coroutine[Any, Any, ev.DialAdmitted]]

NARROWBAND = {"", "ulaw", "alaw", "gsm", "g726", "g726aal2", "g729", "g723", "ilbc", "lpc10", "adpcm", "slin", "speex"}
"""Codecs of 8 kHz; "": Asterisk named none."""
REFUSED_IF_REPEATED = (do.CreateBridge, do.StartRecording, do.CreateChannel)
"""Effects that Asterisk answers with 409 if it has executed them already (seen on Asterisk 22.10.1)."""
MAX_ATTEMPTS, RETRY_DELAY_S = 4, 0.5
"""Attempts, and seconds between them; other effects on the same channel wait until then. Later retries are the
engine's."""
MAX_LATE_ATTEMPTS = 2
"""Maximum number of these attempts that may wait for an answer until the deadline."""
MAX_FAILED_MUTES = 1000
"""Maximum number of channels for which a failed mute is remembered."""
FETCH_GRACE_S = 5.0
"""Seconds for which a document request of an ended call continues, so that what it carries (such as digits) arrives."""
DIALED_VARIABLE = "ARI_CONF_DIALED"
"""Variable of a channel that the server has dialed."""
EXPIRED = "the request for the call had expired before it was written to Redis: nothing was dialed"
JitterBuffer = Literal["never", "internet", "always"]
JITTER_BUFFER_QUERY = {"variable": "JITTERBUFFER(adaptive)", "value": "default"}


async def refuse_dial(effect: do.AdmitDial) -> ev.DialAdmitted:
    """Refuse all calls: there is no dialing policy."""
    return ev.DialAdmitted(effect.dial_id, (), ("nothing can be dialed",))


class EffectRunner:
    def __init__(
        self,
        ari: Client,
        store: StateStore,
        fetcher: Fetcher,
        sounds: SoundPreparer,
        documents: Path,
        deliver: Deliver,
        defer_claim: Callable[[do.ClaimName], None],
        always_wideband: bool = False,
        owners: Owners = lambda owned_id: ("", (owned_id,)),
        jitter_buffer: JitterBuffer = "never",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        admit_dial: AdmitDial = refuse_dial,
    ) -> None:
        """Create the runner.

        `defer_claim` receives names that this server uses but has not claimed in Redis. `always_wideband`: calls are
        recorded as if their codec were wideband, whatever it is. `owners` returns the account of a playback or fetch,
        and the call and conference that wait for it. `now_ms`: the clock of events. `admit_dial` asks the dialing
        policy.
        """
        self._ari = ari
        self._store = store
        self._sounds = sounds
        self._documents = DocumentLoader(store, fetcher, documents, ari, lambda elements: sounds.complaints(elements))
        self._deliver = deliver
        self._defer_claim = defer_claim
        self._always_wideband = always_wideband
        self._owners = owners
        self._jitter_buffer: JitterBuffer = jitter_buffer
        self._now_ms = now_ms
        self._admit_dial = admit_dial
        self._beep_listener = BeepListener(ari, lambda channel_id: deliver(ev.BeepHeard(channel_id)), deliver)
        self._effects_by_target: dict[str, deque[do.AsteriskEffect]] = {}
        self._failed_mutes: dict[str, do.MuteChannel] = {}
        """Failed mutes by channel: a channel enters no bridge before its mute has succeeded."""
        self._tasks = Tasks()
        self._tasks_by_owner: dict[str, dict[asyncio.Task[None], float]] = {}
        """Call or conference id -> its preparations and fetches, with the seconds that each continues after its end."""

    def run(self, effect: do.ExecutedEffect) -> None:
        """Start the effect."""
        match effect:
            case do.PlayMedia(target, _, media):
                self._sounds.record_use(media)
                self._enqueue(target.id, effect)
            case do.StopPlayback(target):
                self._enqueue(target.id, effect)
            case do.CreateBridge() | do.DestroyBridge():
                self._enqueue(effect.bridge_id, effect)
            case do.ReadCodec():
                self._tasks.start(self._guarded(effect, self._read_codec(effect)))
            case do.StartRecording() | do.StopRecording():
                self._enqueue(effect.source_id, effect)
            case do.IdentifyCall():
                self._tasks.start(self._guarded(effect, self._identify_call(effect)))
            case do.FetchDocument(fetch_id):
                self._spawn_for(fetch_id, effect, self._deliver_result(self._documents.fetch(effect)), FETCH_GRACE_S)
            case do.FetchSoundDocument(fetch_id):
                self._spawn_for(fetch_id, effect, self._fetch_sounds(effect))
            case do.PrepareSound(playback_id):
                self._spawn_for(playback_id, effect, self._prepare_sound(effect))
            case do.WarmSounds(call_uuid, auth_id, sounds):
                self._sounds.warm(sounds, auth_id, call_uuid)
            case do.StopPreparing(owner):
                self._stop_preparing(owner)
            case do.ClaimName():
                self._tasks.start(self._guarded(effect, self._claim_name(effect)))
            case do.AdmitDial():
                self._tasks.start(self._guarded(effect, self._deliver_result(self._admit_dial(effect))))
            case do.DetectBeep(channel_id, True, call_uuid):
                self._beep_listener.start(channel_id, call_uuid)
            case do.DetectBeep(channel_id):
                self._beep_listener.stop(channel_id)
            case do.ListenForMachine(channel_id, True, call_uuid):
                self._beep_listener.start_for_machine(channel_id, call_uuid)
            case do.ListenForMachine(channel_id):
                self._beep_listener.stop_for_machine(channel_id)
            case do.DetectTalking(channel_id):
                self._enqueue(_talk_detection_key(channel_id), effect)
            case do.DeafenChannel(channel_id):
                self._enqueue(_deafness_key(channel_id), effect)
            case _:
                self._enqueue(effect.channel_id, effect)

    def is_busy(self, key: str) -> bool:
        """Return True if an effect on this channel or bridge is running or queued."""
        return key in self._effects_by_target

    async def wait_for_channels(self, channel_ids: Iterable[str]) -> None:
        """Wait until no effect on these channels is running or queued."""
        await self._wait_for_targets(
            {key for id in channel_ids for key in (id, _talk_detection_key(id), _deafness_key(id))}
        )

    async def _wait_for_targets(self, targets: set[str]) -> None:
        while not targets.isdisjoint(self._effects_by_target):
            await self._tasks.wait_for_one()

    async def wait_until_idle(self) -> None:
        """Wait until no effect in Asterisk is running or queued. Requests to other services may take longer."""
        while self._effects_by_target:
            await self._tasks.wait_for_one()

    def remove_leftovers(self, channel_ids: Iterable[str]) -> None:
        """Remove the listening channels of an earlier process. `channel_ids`: all channels in Asterisk."""
        self._beep_listener.remove_leftovers(channel_ids)

    def is_left_behind(self, some_id: str) -> bool:
        """Return True for the channel or bridge of an earlier process that listened for a beep."""
        return self._beep_listener.is_left_behind(some_id)

    async def stop_listening(self) -> None:
        """Stop listening for beeps; Asterisk must still be reachable."""
        await self._beep_listener.close()

    async def close(self) -> None:
        await self._tasks.close()

    # Asterisk.

    def _enqueue(self, key: str, effect: do.AsteriskEffect) -> None:
        queue = self._effects_by_target.get(key)
        if queue is not None:
            queue.append(effect)
            return
        self._effects_by_target[key] = queue = deque([effect])
        self._tasks.start(self._drain(key, queue))

    async def _drain(self, key: str, queue: deque[do.AsteriskEffect]) -> None:
        try:
            while queue:
                await self._guarded(queue[0], self._execute(queue[0]))
                queue.popleft()
        finally:
            del self._effects_by_target[key]

    async def _guarded(self, effect: do.Effect, work: Coroutine[Any, Any, None]) -> None:
        """Await the work; report an effect that raised as failed: its call or conference must not wait forever.

        Never raises.
        """
        try:
            await work
        except Exception as error:
            log.exception("effect raised", effect=type(effect).__name__, hint=REPORT_HINT)
            try:
                reason = f"internal error: {type(effect).__name__} raised {type(error).__name__}"
                self._deliver(ev.EffectFailed(effect, reason))
            except Exception:
                log.exception("effect failure report raised", effect=type(effect).__name__, hint=REPORT_HINT)

    async def _execute(self, effect: do.AsteriskEffect) -> None:
        if isinstance(effect, do.PlayMedia):
            # Otherwise a member whose deafness has just ended would hear nothing of this sound.
            await self._wait_for_targets({_deafness_key(effect.target.id)})
        try:
            if isinstance(effect, do.AddChannel) and (mute := self._failed_mutes.get(effect.channel_id)) is not None:
                await self._send_all(mute)
                self._record_mute(mute, done=True)
            if isinstance(effect, do.CreateChannel) and 0 < effect.not_after < self._now_ms():
                self._deliver(ev.EffectFailed(effect, EXPIRED, refused=True))
                return
            if isinstance(effect, do.DialChannel) and effect.repeated:
                await self._dial_unless_dialed(effect)
                return
            await self._send_all(effect)
        except AriError as error:
            # If the channel no longer exists, addChannel answers 400, or 422 once it has left the Stasis application.
            # removeChannel answers 400, or 422 if the channel is not in the bridge.
            moved = isinstance(effect, do.AddChannel | do.RemoveChannel)
            is_gone = isinstance(error, AriNotFound) or (moved and error.status in (400, 422))
            log.log(10 if is_gone else 30, "effect failed", effect=type(effect).__name__, reason=str(error))
            if isinstance(effect, do.MuteChannel):
                self._record_mute(effect, done=is_gone)
            self._deliver(ev.EffectFailed(effect, str(error), is_gone, not isinstance(error, AriUnreachable)))
            return
        match effect:
            case do.CreateBridge(bridge_id):
                self._deliver(ev.BridgeCreated(bridge_id))
            case do.DestroyBridge(bridge_id):
                self._deliver(ev.BridgeDestroyed(bridge_id))
            case do.MuteChannel():
                self._record_mute(effect, done=True)
            case do.DialChannel(channel_id):
                self._tasks.start(self._mark_as_dialed(channel_id))

    def _record_mute(self, effect: do.MuteChannel, done: bool) -> None:
        self._failed_mutes.pop(effect.channel_id, None)
        if effect.muted and not done:
            self._failed_mutes[effect.channel_id] = effect
            if len(self._failed_mutes) > MAX_FAILED_MUTES:
                del self._failed_mutes[next(iter(self._failed_mutes))]

    async def _mark_as_dialed(self, channel_id: str) -> None:
        """Note in Asterisk that the channel was dialed, for a process that takes over: it must not dial it again."""
        query = {"variable": DIALED_VARIABLE, "value": "1"}
        with contextlib.suppress(AriError):  # the mark narrows a doubt that the core can deal with
            await self._ari.request("POST", path("channels", channel_id, "variable"), query)

    async def _dial_unless_dialed(self, effect: do.DialChannel) -> None:
        where = path("channels", effect.channel_id, "variable")
        with contextlib.suppress(AriNotFound):  # also of a variable that is not set
            await self._ari.request("GET", where, {"variable": DIALED_VARIABLE})
            return
        self._deliver(ev.DialUnconfirmed(effect.channel_id))

    async def _send_all(self, effect: do.AsteriskEffect) -> None:
        if isinstance(effect, do.StartRecording) and effect.snoop is not None:
            await self._record_call(effect)
            return
        for request in to_requests(effect, self._ari.app):
            await self._send(effect, request)

    async def _record_call(self, effect: do.StartRecording) -> None:
        for attempts_left in reversed(range(MAX_LATE_ATTEMPTS)):
            try:
                await snoop_recording.start(self._ari, effect)
                return
            except AriUnreachable as error:
                if not attempts_left:
                    raise
                log.info("asterisk request retried", path=effect.source_id, reason=str(error))
            await asyncio.sleep(RETRY_DELAY_S)

    async def _send(self, effect: do.AsteriskEffect, request: Request) -> None:
        """Send the request, and retry it a few times where that does no harm."""
        over, idempotent = request.over, effect.retry_on_disconnect
        maybe_executed, late_attempts = False, 0
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            try:
                if maybe_executed and isinstance(effect, do.AddChannel) and await self._is_in_bridge(effect):
                    return
                await self._ari.request(
                    request.method, request.path, request.query, request.body, over=over, idempotent=idempotent
                )
                return
            except AriUnreachable as error:
                maybe_executed, late_attempts = maybe_executed or error.sent, late_attempts + isinstance(error, AriLate)
                if (
                    not attempts_left
                    or late_attempts == MAX_LATE_ATTEMPTS
                    or not (idempotent or not maybe_executed or _can_verify(effect, error))
                ):
                    raise
                log.info("asterisk request retried", path=request.path, reason=str(error))
            except AriError as error:
                # A channel's id is used by nobody else: a process that no longer exists has requested the channel.
                executed = maybe_executed or isinstance(effect, do.CreateChannel)
                if executed and error.status == 409 and isinstance(effect, REFUSED_IF_REPEATED):
                    return
                raise
            # Retry over HTTP: the WebSocket itself may be broken.
            over = "http"
            await asyncio.sleep(RETRY_DELAY_S)

    async def _is_in_bridge(self, effect: do.AddChannel) -> bool:
        """Return True if the channel is in the bridge.

        If it were added again, it would leave the bridge and re-enter it (seen on Asterisk 22.10.1).
        """
        bridge = await self._ari.request("GET", path("bridges", effect.bridge_id))
        return isinstance(bridge, dict) and effect.channel_id in bridge.get("channels", ())

    async def _identify_call(self, effect: do.IdentifyCall) -> None:
        try:
            record = await self._documents.account(effect.auth_id)  # nearly always known already
        except StoreUnavailable as error:
            self._deliver(ev.EffectFailed(effect, str(error)))
            return
        call_invite = await invite.read(self._ari, effect.channel_id)
        account = record.account() if record and not record.removed else None
        wideband = self._is_wideband(call_invite.codec)
        headers = tuple((stripped(name), stripped(value)) for name, value in call_invite.headers)
        self._deliver(
            ev.CallIdentified(effect.call_uuid, account, headers, wideband, call_invite.withheld, call_invite.warnings)
        )
        await self._set_jitter_buffer(effect.channel_id, call_invite.addresses)

    async def _read_codec(self, effect: do.ReadCodec) -> None:
        codec, addresses = await invite.read_line(self._ari, effect.channel_id)
        self._deliver(ev.CodecRead(effect.call_uuid, self._is_wideband(codec)))
        await self._set_jitter_buffer(effect.channel_id, addresses)

    def _is_wideband(self, codec: str) -> bool:
        return self._always_wideband or not NARROWBAND.issuperset(codec.strip("()").split("|"))

    async def _set_jitter_buffer(self, channel_id: str, addresses: str) -> None:
        """Set a jitter buffer on a call with a path so long that some packets may overtake others.

        It is not set on an Asterisk that judges packets by their number: the buffer fills a gap with packets of number
        0, after which all numbers above 32768 count as late there. Nobody would hear the caller for minutes.
        """
        if self._jitter_buffer == "never" or (self._jitter_buffer == "internet" and not is_far(addresses)):
            return
        with contextlib.suppress(AriError):  # without the buffer, the call is as good as before
            if asterisk_identity.drops_reordered_packets(
                await self._ari.request("GET", "/asterisk/info", {"only": "system"})
            ):
                return
            await self._ari.request("POST", path("channels", channel_id, "variable"), JITTER_BUFFER_QUERY)

    # Other services.

    async def _deliver_result(self, work: Coroutine[Any, Any, ev.Event]) -> None:
        self._deliver(await work)

    async def _fetch_sounds(self, effect: do.FetchSoundDocument) -> None:
        event = await self._documents.fetch_sounds(effect)
        if isinstance(event, ev.SoundDocumentFetched):
            _, owners = self._owners(effect.fetch_id)
            sounds = [sound for sound in event.sounds if isinstance(sound, Play | Speak)]
            self._sounds.warm(sounds, effect.auth_id, owners[-1] if owners else effect.fetch_id)
        self._deliver(event)

    async def _prepare_sound(self, effect: do.PrepareSound) -> None:
        auth_id, owners = self._owners(effect.playback_id)
        if not owners:
            return  # the call or conference has ended
        try:
            media = await self._sounds.prepare(effect.sound, auth_id)
        except SoundError as error:
            kind = _failure_kind(effect.sound, error)
            self._deliver(ev.SoundFailed(effect.playback_id, effect.sound, kind, str(error)))
        else:
            self._deliver(ev.SoundPrepared(effect.playback_id, media))

    async def _claim_name(self, effect: do.ClaimName) -> None:
        try:
            owner = await self._store.claim(effect.auth_id, effect.name, effect.conference_id)
        except StoreUnavailable as error:
            # Conferences continue without Redis: this server uses the name until Redis can be asked.
            log.error("name claimed locally", auth_id=effect.auth_id, name=effect.name, reason=str(error))
            self._defer_claim(effect)
            owner = None
        except LeaseLost:
            return
        if owner is None:
            self._deliver(ev.NameClaimed(effect.conference_id))
        else:
            self._deliver(ev.NameTaken(effect.conference_id, owner))

    def _spawn_for(
        self, owned_id: str, effect: do.Effect, work: Coroutine[Any, Any, None], grace_s: float = 0.0
    ) -> None:
        """Start the work; it is canceled `grace_s` seconds after its call or conference has ended."""
        _, owners = self._owners(owned_id)
        task = self._tasks.start(self._guarded(effect, work))
        for owner in owners:
            self._tasks_by_owner.setdefault(owner, {})[task] = grace_s
        task.add_done_callback(lambda done: self._forget_task(done, owners))

    def _forget_task(self, task: asyncio.Task[None], owners: Iterable[str]) -> None:
        for owner in owners:
            if (tasks := self._tasks_by_owner.get(owner)) is not None:
                tasks.pop(task, None)
                if not tasks:
                    del self._tasks_by_owner[owner]

    def _stop_preparing(self, owner: str) -> None:
        self._sounds.stop_warming(owner)
        for task, seconds in self._tasks_by_owner.pop(owner, {}).items():
            asyncio.get_running_loop().call_later(seconds, task.cancel)


def _failure_kind(sound: Play | Speak, error: SoundError) -> ProblemKind:
    if isinstance(error, SoundNotFetched):
        return ProblemKind.URL_NOT_ALLOWED if error.not_allowed else ProblemKind.SOUND_UNREACHABLE
    return ProblemKind.SPEECH_FAILED if isinstance(sound, Speak) else ProblemKind.SOUND_UNPLAYABLE


def _can_verify(effect: do.AsteriskEffect, error: AriUnreachable) -> bool:
    """Return True if the server can find out if Asterisk has executed it; not while Asterisk may still be doing so."""
    return isinstance(effect, (do.AddChannel, *REFUSED_IF_REPEATED)) and not isinstance(error, AriLate)


def _talk_detection_key(channel_id: str) -> str:
    """Return the key of the channel's talk-detection effects, which run apart from its other effects.

    Talk detection is set by a variable, and setting one on a channel that plays a sound waits for the playback's end
    (seen on Asterisk 22.10.1). The channel's other effects must not wait for that.
    """
    return f"{channel_id} talking"


def _deafness_key(channel_id: str) -> str:
    """Return the key of the channel's deafness effects: deafness is set by such a variable, too."""
    return f"{channel_id} hearing"


def is_far(addresses: str) -> bool:
    """Return True if one of `addresses` is neither this machine's nor private (host:port, separated by spaces)."""
    for address in addresses.split():
        try:
            if ip_address(address.rpartition(":")[0].strip("[]")).is_global:
                return True
        except ValueError:
            continue
    return False
