"""Request retries: repeats failed requests to Asterisk whose loss would go unnoticed, until they are carried out or
until the channel or bridge no longer exists.

No event reveals that a mute, music, talk detection, or the end of a playback or recording was not carried out. Nor does
any call wait for the end of an unknown channel, or any conference for the end of an orphaned bridge. A request is
repeated only if it is still wanted when it is due. All other failed requests are awaited by a call or conference, which
repeats them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.core.backoff import again_ms
from ari_conf.core.bounds import INSISTED_AT_ONCE, MOST_INSISTED
from ari_conf.core.calls.gather import Gather
from ari_conf.core.calls.state import CallState
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS, Member
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
class Failed:
    effect: RetriableEffect
    times: int
    at: int
    """Epoch milliseconds at which the request is due again, or was repeated."""
    asked: bool = False
    """The request was repeated and has not failed since."""


@dataclass(slots=True)
class RequestRetries:
    at: int | None = None
    """Epoch milliseconds of the earliest repetition; None if none is due."""
    _failed: dict[str, dict[Aspect, Failed]] = field(default_factory=dict)
    """Failed requests by id of the channel or bridge, then by aspect."""

    def failed(self, effect: RetriableEffect, now: int) -> None:
        aspects = self._failed.setdefault(lane_of(effect), {})
        before = aspects.pop(_aspect(effect), None)
        times = before.times if before is not None else 0
        # Due times are whole seconds, so that many simultaneous failures are repeated in one pass.
        at = -(-(now + again_ms(times)) // 1000) * 1000
        aspects[_aspect(effect)] = Failed(effect, times + 1, at)
        if len(aspects) > MOST_INSISTED:
            del aspects[next(iter(aspects))]
        self.at = at if self.at is None else min(self.at, at)

    def due(self, now: int) -> list[RetriableEffect]:
        found: list[RetriableEffect] = []
        for each in self._each():
            if each.asked and each.at + DONE_MS <= now:
                self.settled(each.effect)
            elif not each.asked and each.at <= now:
                if len(found) == INSISTED_AT_ONCE:
                    each.at = now + 1000
                    continue
                found.append(each.effect)
                each.at, each.asked = now, True
        self.at = min((each.at for each in self._each() if not each.asked), default=None)
        return found

    def settled(self, effect: RetriableEffect) -> None:
        """Forget a request that has been carried out, or whose target no longer exists."""
        aspects = self._failed.get(lane_of(effect), {})
        aspects.pop(_aspect(effect), None)
        if not aspects:
            self._failed.pop(lane_of(effect), None)

    def forget(self, lane: str) -> None:
        """Forget all requests about a channel or bridge that no longer exists."""
        if self._failed:
            self._failed.pop(lane, None)

    def _each(self) -> list[Failed]:
        return [each for aspects in self._failed.values() for each in aspects.values()]


def lane_of(effect: RetriableEffect) -> str:
    """Return the id of the channel or bridge that the request concerns."""
    match effect:
        case StopPlayback(target):
            return target.id
        case StopRecording(bridge_id) | DestroyBridge(bridge_id):
            return bridge_id
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


def wanted(effect: RetriableEffect, call: CallState | None, member: Member | None) -> RetriableEffect:
    """Return the latest request to Asterisk about the same aspect, according to the state.

    `call` has the channel; `member` is its membership in a conference.
    """
    match effect:
        case MuteChannel(channel_id):
            return MuteChannel(channel_id, member is not None and member.silenced)
        case DeafenChannel(channel_id):
            return DeafenChannel(channel_id, member is not None and member.deaf and member.state != "held")
        case StartMusic(channel_id) | StopMusic(channel_id):
            return StartMusic(channel_id) if member is not None and member.music else StopMusic(channel_id)
        case SendSilence(channel_id):
            return SendSilence(channel_id, call is not None and call.silence)
        case DetectTalking(channel_id):
            return DetectTalking(channel_id, _silence_ms(call, member))
    return effect


def _silence_ms(call: CallState | None, member: Member | None) -> int | None:
    if member is not None:
        return FLOOR_SILENCE_MS if member.detected else None
    running = call.running if call is not None else None
    player = running.player if isinstance(running, Gather) else running
    return player.silence_ms if isinstance(player, Player) else None
