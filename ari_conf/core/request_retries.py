"""Request retries: repeats failed requests to Asterisk whose loss would go unnoticed, until they are carried out or
until the channel or bridge no longer exists.

No event reveals that a mute, music, talk detection, or the end of a playback or recording was not carried out. Nor does
any call wait for the end of an unknown channel, or any conference for the end of an orphaned bridge. A request is
repeated only if it is still wanted when it is due. All other failed requests are awaited by a call or conference, which
repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.core.backoff import retry_delay_ms
from ari_conf.core.bounds import MAX_RETRIES_PER_STEP, MAX_RETRIES_PER_TARGET
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.gather import Gather
from ari_conf.core.calls.record_element import RecordRun
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS, Member
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.effects import (
    DeafenChannel,
    DestroyBridge,
    DetectTalking,
    HangUp,
    MuteChannel,
    SendSilence,
    StartMusic,
    StopMusic,
    StopPlayback,
    StopRecording,
)
from ari_conf.core.playback.player import Player

Setting = MuteChannel | DeafenChannel | StartMusic | StopMusic | SendSilence | DetectTalking
RetriableEffect = Setting | StopPlayback | StopRecording | HangUp | DestroyBridge
DONE_MS = 600_000
"""Milliseconds without a failure after which a repeated request counts as carried out."""
Aspect = tuple[type, str]
"""Aspect of a channel or bridge that a request concerns: the newest request about an aspect counts."""


@dataclass(slots=True)
class FailedRequest:
    effect: RetriableEffect
    times: int
    at: int
    """Epoch milliseconds at which the request is due again, or was repeated."""
    repeated: bool = False
    """The request was repeated and has not failed since."""


@dataclass(slots=True)
class RequestRetries:
    at: int | None = None
    """Epoch milliseconds of the earliest repetition; None if none is due."""
    _by_target: dict[str, dict[Aspect, FailedRequest]] = field(default_factory=dict)
    """Failed requests by id of the channel or bridge, then by aspect."""

    def failed(self, effect: RetriableEffect, now: int) -> None:
        aspects = self._by_target.setdefault(target_of(effect), {})
        before = aspects.pop(_aspect(effect), None)
        times = before.times if before is not None else 0
        # Due times are whole seconds, so that many simultaneous failures are repeated in one pass.
        at = -(-(now + retry_delay_ms(times)) // 1000) * 1000
        aspects[_aspect(effect)] = FailedRequest(effect, times + 1, at)
        if len(aspects) > MAX_RETRIES_PER_TARGET:
            del aspects[next(iter(aspects))]
        self.at = at if self.at is None else min(self.at, at)

    def due(self, now: int) -> list[RetriableEffect]:
        found: list[RetriableEffect] = []
        for request in self._requests():
            if request.repeated and request.at + DONE_MS <= now:
                self.settled(request.effect)
            elif not request.repeated and request.at <= now:
                if len(found) == MAX_RETRIES_PER_STEP:
                    request.at = now + 1000
                    continue
                found.append(request.effect)
                request.at, request.repeated = now, True
        self.at = min((request.at for request in self._requests() if not request.repeated), default=None)
        return found

    def settled(self, effect: RetriableEffect) -> None:
        """Forget a request that has been carried out, or whose target no longer exists."""
        aspects = self._by_target.get(target_of(effect), {})
        aspects.pop(_aspect(effect), None)
        if not aspects:
            self._by_target.pop(target_of(effect), None)

    def forget(self, target_id: str) -> None:
        """Forget all requests about a channel or bridge that no longer exists."""
        if self._by_target:
            self._by_target.pop(target_id, None)

    def _requests(self) -> list[FailedRequest]:
        return [request for aspects in self._by_target.values() for request in aspects.values()]


def target_of(effect: RetriableEffect) -> str:
    """Return the id of the channel or bridge that the request concerns."""
    match effect:
        case StopPlayback(target):
            return target.id
        case StopRecording(thing_id) | DestroyBridge(thing_id):
            return thing_id
    return effect.channel_id


def _aspect(effect: RetriableEffect) -> Aspect:
    match effect:
        case StopPlayback(_, playback_id):
            return StopPlayback, playback_id
        case StopRecording(_, recording_id):
            return StopRecording, recording_id
        case StartMusic() | StopMusic():
            return StopMusic, ""
    return type(effect), ""


def wanted(effect: RetriableEffect, call: Call | None, member: Member | None) -> RetriableEffect:
    """Return the latest request to Asterisk about the same aspect, according to the state.

    `call` has the channel; `member` is its membership in a conference.
    """
    match effect:
        case MuteChannel(channel_id):
            return MuteChannel(channel_id, member is not None and member.silenced)
        case DeafenChannel(channel_id):
            deaf = member is not None and member.deaf and member.state is not MemberState.ON_HOLD
            return DeafenChannel(channel_id, deaf)
        case StartMusic(channel_id) | StopMusic(channel_id):
            return StartMusic(channel_id) if member is not None and member.music else StopMusic(channel_id)
        case SendSilence(channel_id):
            return SendSilence(channel_id, call is not None and call.silence)
        case DetectTalking(channel_id):
            return DetectTalking(channel_id, _silence_ms(call, member))
    return effect


def _silence_ms(call: Call | None, member: Member | None) -> int | None:
    if member is not None:
        return FLOOR_SILENCE_MS if member.talk_detection_on else None
    running = call.running if call is not None else None
    player = running.player if isinstance(running, Gather | RecordRun) else running
    return player.silence_ms if isinstance(player, Player) else None
