"""A strict Asterisk at the level of effects and events: it refuses what Asterisk refuses, and knows who hears what.

`obey` does one effect or raises Refused; what happens then is told through `tell(source, event)`. What comes from one
source keeps its order; how late it is heard, and what of another source is heard first, is the caller's to choose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ari_conf.core import effects as do
from ari_conf.core import events as ev

Tell = Callable[[str, ev.Event], None]

NORMAL_CLEARING = 16


FOR_ASTERISK = (do.Ring, do.Answer, do.HangUp, do.AddChannel, do.RemoveChannel, do.MuteChannel, do.DeafenChannel,
                do.StartMusic, do.StopMusic, do.SendSilence, do.SendDigits, do.DetectTalking, do.DetectBeep,
                do.CreateBridge, do.DestroyBridge, do.StartRecording, do.StopRecording, do.PlayMedia,
                do.StopPlayback)  # fmt: skip


def lane(effect: do.Effect) -> str | None:
    """The channel or bridge whose effects keep their order; None: it is not for Asterisk."""
    match effect:
        case do.PlayMedia(target) | do.StopPlayback(target):
            return target.id
        case _ if isinstance(effect, FOR_ASTERISK):
            return getattr(effect, "channel_id", None) or getattr(effect, "bridge_id", None)
    return None


class Refused(Exception):
    def __init__(self, reason: str, gone: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gone = gone
        """A 404; of a channel that is to be added or removed a 400, or 422 if it is not in that bridge."""


@dataclass
class Channel:
    channel_id: str
    up: bool = False
    bridge: str | None = None
    music: bool = False
    silence: bool = False
    """It is sent silence, and nothing of its bridge."""
    muted: bool = False
    deaf: bool = False
    on_hold: bool = False
    """Its phone holds us."""
    stream: int = 1
    """The SSRC of what its phone sends."""
    unheard: bool = False
    """That began over in the bridge, and its packets are dropped until it has left it."""
    playbacks: list[str] = field(default_factory=list)
    """One after another: the first is heard."""
    silence_ms: int | None = None
    """Talking is told, ended by so much silence."""
    beeps: bool = False
    heard_digits: str = ""
    """What its phone was sent."""


@dataclass
class Bridge:
    bridge_id: str
    channels: list[str] = field(default_factory=list)
    playbacks: list[str] = field(default_factory=list)


class Asterisk:
    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}
        self.playbacks: dict[str, do.PlayMedia] = {}
        self.recordings: dict[str, str] = {}
        """recording id -> bridge id, of those that run"""
        self._used: set[str] = set()
        """Ids of bridges, playbacks and recordings that there ever were: none comes twice."""

    # What callers and the world do.

    def call(self, channel_id: str, answered: bool = False) -> None:
        self._new(channel_id)
        self.channels[channel_id] = Channel(channel_id, up=answered)

    def hang_up(self, channel_id: str, cause: int = NORMAL_CLEARING) -> None:
        channel = self.channels[channel_id]
        # The request comes first, then he leaves his bridge, then StasisEnd says it again.
        self._tell(channel_id, ev.ChannelHungUp(channel_id, cause))
        for playback_id in list(channel.playbacks):
            self.finish(playback_id)
        self._leave(channel)
        del self.channels[channel_id]
        self._tell(channel_id, ev.ChannelHungUp(channel_id, cause))

    def press(self, channel_id: str, digit: str) -> None:
        if channel_id in self.channels:
            self._tell(channel_id, ev.DigitReceived(channel_id, digit))

    def talk(self, channel_id: str, starts: bool) -> None:
        channel = self.channels.get(channel_id)
        if channel is not None and channel.silence_ms is not None:
            self._tell(channel_id, ev.TalkingStarted(channel_id) if starts else ev.TalkingFinished(channel_id))

    def hold(self, channel_id: str) -> None:
        """Its phone puts us on hold, or takes us back."""
        channel = self.channels[channel_id]
        channel.on_hold = not channel.on_hold
        self._tell(channel_id, ev.PhoneHeld(channel_id) if channel.on_hold else ev.PhoneResumed(channel_id))

    def begin_stream(self, channel_id: str) -> None:
        """Nothing tells of it: whoever looks sees it."""
        channel = self.channels[channel_id]
        channel.stream += 1
        channel.unheard = channel.bridge is not None

    def finish(self, playback_id: str, failed: bool = False) -> None:
        """The playback has come to its end."""
        target = self.playbacks.pop(playback_id).target
        whose = self.channels[target.id].playbacks if target.kind == "channel" else self.bridges[target.id].playbacks
        is_heard = whose[0] == playback_id
        whose.remove(playback_id)
        self._tell(playback_id, ev.PlaybackFinished(playback_id, failed))
        if is_heard and whose:
            self._tell(whose[0], ev.PlaybackStarted(whose[0]))

    def destroy(self, bridge_id: str) -> None:
        bridge = self.bridges[bridge_id]
        for channel_id in list(bridge.channels):
            self._leave(self.channels[channel_id])
        for playback_id in list(bridge.playbacks):
            self.finish(playback_id)
        for recording_id in [r for r, of in self.recordings.items() if of == bridge_id]:
            self._stop_recording(recording_id)
        del self.bridges[bridge_id]
        self._tell(bridge_id, ev.BridgeDestroyed(bridge_id))

    # What is heard.

    def own(self, channel_id: str) -> set[str]:
        """What this channel alone hears: music, or the playback that is its turn."""
        channel = self.channels[channel_id]
        return set(channel.playbacks[:1]) or ({"music"} if channel.music else set())

    def mix(self, channel_id: str) -> set[str]:
        """Whom and what this channel hears through its bridge."""
        channel = self.channels[channel_id]
        if channel.bridge is None or channel.deaf or channel.silence:
            return set()
        bridge = self.bridges[channel.bridge]
        others = {other: self.channels[other] for other in bridge.channels if other != channel_id}
        talkers = {other for other, one in others.items() if not one.muted and not one.unheard}
        return talkers | set(bridge.playbacks[:1])

    def forget(self, playback_id: str) -> None:
        """One that has ended may come again: it does after a crash."""
        if playback_id not in self.playbacks:
            self._used.discard(playback_id)

    # Effects.

    def obey(self, effect: do.Effect) -> None:
        match effect:
            case do.PlayMedia(target, playback_id):
                self._play(effect, target, playback_id)
            case do.StopPlayback(_, playback_id):
                if playback_id not in self.playbacks:
                    raise Refused("Playback not found", gone=True)
                self.finish(playback_id)
            case do.CreateBridge(bridge_id):
                self._new(bridge_id)
                # No event tells of it: that the request succeeded does.
                self.bridges[bridge_id] = Bridge(bridge_id)
            case do.DestroyBridge(bridge_id):
                self._bridge(bridge_id)
                self.destroy(bridge_id)
            case do.StartRecording() | do.StopRecording():
                self._record(effect)
            case do.AddChannel() | do.RemoveChannel():
                self._move(effect)
            case _:
                self._about_channel(effect)

    def _about_channel(self, effect: do.Effect) -> None:
        channel = self._channel(getattr(effect, "channel_id", None) or "")
        match effect:
            case do.Ring():
                pass
            case do.Answer():
                channel.up = True
            case do.HangUp():
                # It tells no cause of a hang-up that it was asked for.
                self.hang_up(channel.channel_id, 0)
            case do.MuteChannel(_, on):
                channel.muted = on
            case do.DeafenChannel(_, on):
                channel.deaf = on
            case do.SendSilence(_, on):
                channel.silence = on
            case do.StartMusic():
                channel.music = True
                channel.silence = False
            case do.StopMusic():
                channel.music = False
            case do.SendDigits(_, digits):
                if not digits or set(digits) - set("0123456789*#ABCD"):
                    raise Refused("DTMF is required")
                channel.heard_digits += digits
            case do.DetectTalking(_, silence_ms):
                channel.silence_ms = silence_ms
            case do.DetectBeep(_, on):
                channel.beeps = on
            case _:
                raise TypeError(f"{type(effect).__name__} is not an effect for Asterisk")

    def _play(self, effect: do.PlayMedia, target: do.Target, playback_id: str) -> None:
        whose = self._channel(target.id) if target.kind == "channel" else self._bridge(target.id)
        if not effect.media or not all(effect.media):
            raise Refused("Media is required")
        self._new(playback_id)
        self.playbacks[playback_id] = effect
        whose.playbacks.append(playback_id)
        if isinstance(whose, Channel):
            whose.silence = False
        if whose.playbacks == [playback_id]:
            self._tell(playback_id, ev.PlaybackStarted(playback_id))

    def _record(self, effect: do.StartRecording | do.StopRecording) -> None:
        if isinstance(effect, do.StartRecording):
            self._bridge(effect.bridge_id)
            self._new(effect.recording_id)
            if effect.bridge_id in self.recordings.values():
                raise Refused("Recording already in progress")
            self.recordings[effect.recording_id] = effect.bridge_id
            self._tell(effect.recording_id, ev.RecordingStarted(effect.bridge_id, effect.recording_id))
        elif effect.recording_id not in self.recordings:
            raise Refused("Recording not found", gone=True)
        else:
            self._stop_recording(effect.recording_id)

    def _stop_recording(self, recording_id: str) -> None:
        bridge_id = self.recordings.pop(recording_id)
        self._tell(recording_id, ev.RecordingFinished(bridge_id, recording_id))

    def _move(self, effect: do.AddChannel | do.RemoveChannel) -> None:
        bridge = self._bridge(effect.bridge_id)
        channel = self.channels.get(effect.channel_id)
        if channel is None:
            raise Refused("Channel not found", gone=True)
        if isinstance(effect, do.RemoveChannel):
            if channel.bridge != bridge.bridge_id:
                raise Refused("Channel not in this bridge", gone=True)
            self._leave(channel)
            return
        if not channel.up:
            # It can be done, and nobody would hear him: the phone still rings.
            raise Refused("Channel is not answered")
        if channel.bridge is not None and channel.bridge != bridge.bridge_id:
            raise Refused("Channel is in a bridge already")
        self._leave(channel)
        channel.unheard = False
        channel.bridge = bridge.bridge_id
        bridge.channels.append(channel.channel_id)
        self._tell(channel.channel_id, ev.ChannelEnteredBridge(channel.channel_id, bridge.bridge_id))

    def _leave(self, channel: Channel) -> None:
        if channel.bridge is None:
            return
        bridge_id, channel.bridge = channel.bridge, None
        self.bridges[bridge_id].channels.remove(channel.channel_id)
        self._tell(channel.channel_id, ev.ChannelLeftBridge(channel.channel_id, bridge_id))

    def _channel(self, channel_id: str) -> Channel:
        if channel_id not in self.channels:
            raise Refused("Channel not found", gone=True)
        return self.channels[channel_id]

    def _bridge(self, bridge_id: str) -> Bridge:
        if bridge_id not in self.bridges:
            raise Refused("Bridge not found", gone=True)
        return self.bridges[bridge_id]

    def _new(self, some_id: str) -> None:
        if some_id in self._used:
            raise Refused(f"there was a {some_id} already")
        self._used.add(some_id)
