"""Requests to Asterisk that failed, and whose loss nobody would notice: they are made again until they are done, or the
channel or bridge is gone.

No event tells that a mute, music, talk detection, or the end of a playback or of a recording was not done. Nor does
anybody wait for the end of a channel that is no call's, or of a bridge that is no conference's. Each is made again if
it is still wanted by then. All other requests that fail are awaited by a call or a conference, which makes them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.core.bounds import INSISTED_AT_ONCE, MOST_INSISTED
from ari_conf.core.call_state import CallState
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
from ari_conf.core.gather import Gather
from ari_conf.core.hearing import FLOOR_SILENCE_MS
from ari_conf.core.member import Member
from ari_conf.core.patience import again_ms
from ari_conf.core.player import Player

Setting = MuteChannel | DeafenChannel | StartMusic | StopMusic | SendSilence | DetectTalking
Insisted = Setting | StopPlayback | StopRecording | HangUp | DestroyBridge
DONE_MS = 600_000
"""What has not failed for so long since it was asked for again is done."""
Aspect = tuple[type, str]
"""What of a channel or bridge a request is about: the newest request about it counts."""


@dataclass(slots=True)
class Failed:
    effect: Insisted
    times: int
    at: int
    """When it is asked for again, or was."""
    asked: bool = False
    """It was, and has not failed since."""


@dataclass(slots=True)
class Insisting:
    at: int | None = None
    """When something is to be asked for again, at the earliest."""
    _failed: dict[str, dict[Aspect, Failed]] = field(default_factory=dict)
    """By channel or bridge."""

    def failed(self, effect: Insisted, now: int) -> None:
        aspects = self._failed.setdefault(lane_of(effect), {})
        before = aspects.pop(_aspect(effect), None)
        times = before.times if before is not None else 0
        # Whole seconds: where very many fail at once, they are not looked through for each of them.
        at = -(-(now + again_ms(times)) // 1000) * 1000
        aspects[_aspect(effect)] = Failed(effect, times + 1, at)
        if len(aspects) > MOST_INSISTED:
            del aspects[next(iter(aspects))]
        self.at = at if self.at is None else min(self.at, at)

    def due(self, now: int) -> list[Insisted]:
        found: list[Insisted] = []
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

    def settled(self, effect: Insisted) -> None:
        """It is done, or there is nothing any more of which it could be asked."""
        aspects = self._failed.get(lane_of(effect), {})
        aspects.pop(_aspect(effect), None)
        if not aspects:
            self._failed.pop(lane_of(effect), None)

    def forget(self, lane: str) -> None:
        """The channel or bridge is gone."""
        if self._failed:
            self._failed.pop(lane, None)

    def _each(self) -> list[Failed]:
        return [each for aspects in self._failed.values() for each in aspects.values()]


def lane_of(effect: Insisted) -> str:
    """The channel or bridge that it is about."""
    match effect:
        case StopPlayback(target):
            return target.id
        case StopRecording(bridge_id) | DestroyBridge(bridge_id):
            return bridge_id
    return effect.channel_id


def _aspect(effect: Insisted) -> Aspect:
    match effect:
        case StopPlayback(_, playback_id):
            return StopPlayback, playback_id
        case StopRecording(_, recording_id):
            return StopRecording, recording_id
        case StartMusic() | StopMusic():
            return StopMusic, ""
    return type(effect), ""


def wanted(effect: Insisted, call: CallState | None, member: Member | None) -> Insisted:
    """What Asterisk was last asked for in this respect, as the state has it. `call` has the channel, `member` is its
    stay in a conference."""
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
