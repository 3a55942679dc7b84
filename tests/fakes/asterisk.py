"""Strict fake of Asterisk at the level of effects and events: refuses what Asterisk refuses, and knows what each
channel hears.

`obey` executes one effect or raises Refused; `tell(source, event)` reports the resulting events. Events of one source
keep their order; their delay, and the order between sources, are up to the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids

Tell = Callable[[str, ev.Event], None]

NORMAL_CLEARING = 16


FOR_ASTERISK = (do.CreateChannel, do.DialChannel, do.Ring, do.Answer, do.HangUp, do.AddChannel, do.RemoveChannel,
                do.MuteChannel, do.DeafenChannel, do.StartMusic, do.StopMusic, do.SendSilence, do.SendDigits,
                do.DetectTalking, do.DetectBeep, do.CreateBridge, do.DestroyBridge, do.StartRecording,
                do.StopRecording, do.PlayMedia, do.StopPlayback)  # fmt: skip


def lane(effect: do.Effect) -> str | None:
    """Return the channel or bridge whose effects keep their order, or None if the effect is not for Asterisk."""
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
        """True for a 404; when adding or removing a channel that no longer exists, for a 400, or a 422 if it is not in
        that bridge."""


@dataclass
class Channel:
    channel_id: str
    up: bool = False
    bridge: str | None = None
    music: bool = False
    silence: bool = False
    """True if the channel receives silence, and nothing of its bridge."""
    muted: bool = False
    deaf: bool = False
    on_hold: bool = False
    """True if the phone has put the call on hold."""
    stream: int = 1
    """The SSRC of the phone's current stream."""
    unheard: bool = False
    """True if a new stream started in the bridge: its packets are dropped until the channel leaves the bridge."""
    playbacks: list[str] = field(default_factory=list)
    """Queued playbacks; the first one plays."""
    silence_ms: int | None = None
    """The silence in ms that ends talking; None if talk detection is off."""
    beeps: bool = False
    heard_digits: str = ""
    """The digits sent to the phone."""
    dialed: bool = False
    """True if the channel was requested, and is or was dialed."""
    endpoint: str = ""
    """Dial string; empty for a call that arrives."""
    ringing: bool = False


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
        """recording id -> bridge id, of running recordings"""
        self.dialed_calls: set[str] = set()
        self.answered_calls: set[str] = set()
        self.dialed: list[str] = []
        """Endpoints that were dialed, in order."""
        self.rang: dict[str, str] = {}
        """Call -> the channel by which its phone rang, or was answered."""
        self._used: set[str] = set()
        """All ids of bridges, playbacks and recordings ever used: an id is never used twice."""

    # Actions of callers and of the world.

    def call(self, channel_id: str, answered: bool = False) -> None:
        self._new(channel_id)
        self.channels[channel_id] = Channel(channel_id, up=answered)

    def hang_up(self, channel_id: str, cause: int = NORMAL_CLEARING) -> None:
        channel = self.channels[channel_id]
        # Asterisk sends the hangup request first; the channel then leaves its bridge, and StasisEnd reports the hangup
        # again.
        self._tell(channel_id, ev.ChannelHungUp(channel_id, cause))
        for playback_id in list(channel.playbacks):
            self.finish(playback_id)
        self._leave(channel)
        del self.channels[channel_id]
        self._tell(channel_id, ev.ChannelHungUp(channel_id, cause))

    def ring(self, channel_id: str) -> None:
        """Let the phone that is dialed ring."""
        if self._awaits(channel_id):
            self._rings(channel_id)
            self._tell(channel_id, ev.ChannelRinging(channel_id))

    def send_early_media(self, channel_id: str) -> None:
        if self._awaits(channel_id):
            self._rings(channel_id)
            self._tell(channel_id, ev.ChannelProgress(channel_id))

    def pick_up(self, channel_id: str) -> None:
        """Let the phone that is dialed answer."""
        if self._awaits(channel_id):
            self._rings(channel_id)
            self.channels[channel_id].up = True
            self.answered_calls.add(ids.call_of(channel_id) or "")
            self._tell(channel_id, ev.ChannelAnswered(channel_id))

    def refuse(self, channel_id: str, cause: int, sip_status: int) -> None:
        """Let the phone that is dialed refuse the call, or the way to it be congested."""
        if self._awaits(channel_id):
            self._tell(channel_id, ev.ChannelHungUp(channel_id, cause, sip_status))
            del self.channels[channel_id]
            self._tell(channel_id, ev.ChannelHungUp(channel_id, 0))

    def _rings(self, channel_id: str) -> None:
        self.channels[channel_id].ringing = True
        call = ids.call_of(channel_id) or ""
        assert self.rang.setdefault(call, channel_id) == channel_id, "the phone rings twice for one call"

    def _awaits(self, channel_id: str) -> bool:
        channel = self.channels.get(channel_id)
        return channel is not None and channel.dialed and not channel.up

    def press(self, channel_id: str, digit: str) -> None:
        if channel_id in self.channels:
            self._tell(channel_id, ev.DigitReceived(channel_id, digit))

    def talk(self, channel_id: str, starts: bool) -> None:
        channel = self.channels.get(channel_id)
        if channel is not None and channel.silence_ms is not None:
            self._tell(channel_id, ev.TalkingStarted(channel_id) if starts else ev.TalkingFinished(channel_id))

    def hold(self, channel_id: str) -> None:
        """Let the phone put the call on hold, or take it back."""
        channel = self.channels[channel_id]
        channel.on_hold = not channel.on_hold
        self._tell(channel_id, ev.PhoneHeld(channel_id) if channel.on_hold else ev.PhoneResumed(channel_id))

    def begin_stream(self, channel_id: str) -> None:
        """Start a new RTP stream. No event reports it; only RTP statistics show it."""
        channel = self.channels[channel_id]
        channel.stream += 1
        channel.unheard = channel.bridge is not None

    def finish(self, playback_id: str, failed: bool = False) -> None:
        """End the playback."""
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

    # Audible audio.

    def own(self, channel_id: str) -> set[str]:
        """Return the audio of this channel alone: music, or the first queued playback."""
        channel = self.channels[channel_id]
        return set(channel.playbacks[:1]) or ({"music"} if channel.music else set())

    def mix(self, channel_id: str) -> set[str]:
        """Return the channels and playbacks that this channel hears through its bridge."""
        channel = self.channels[channel_id]
        if channel.bridge is None or channel.deaf or channel.silence:
            return set()
        bridge = self.bridges[channel.bridge]
        others = {other: self.channels[other] for other in bridge.channels if other != channel_id}
        talkers = {other for other, one in others.items() if not one.muted and not one.unheard}
        return talkers | set(bridge.playbacks[:1])

    def forget(self, playback_id: str) -> None:
        """Allow the id of an ended playback again: it is reused after a crash."""
        if playback_id not in self.playbacks:
            self._used.discard(playback_id)

    # Effects.

    def obey(self, effect: do.Effect) -> None:
        match effect:
            case do.CreateChannel(channel_id, endpoint):
                self._create(channel_id, endpoint)
            case do.DialChannel(channel_id):
                self._dial(self._channel(channel_id), repeated=effect.repeated)
            case do.PlayMedia(target, playback_id):
                self._play(effect, target, playback_id)
            case do.StopPlayback(_, playback_id):
                if playback_id not in self.playbacks:
                    raise Refused("Playback not found", gone=True)
                self.finish(playback_id)
            case do.CreateBridge(bridge_id):
                self._new(bridge_id)
                # No event reports a new bridge; the successful response does.
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

    def _create(self, channel_id: str, endpoint: str) -> None:
        if "unknown" in endpoint:
            raise Refused("Allocation failed")
        if channel_id in self.channels:
            # 409: a process that no longer exists has requested it.
            return
        self.channels[channel_id] = Channel(channel_id, endpoint=endpoint)
        self._tell(channel_id, ev.ChannelCreated(channel_id))

    def _dial(self, channel: Channel, *, repeated: bool) -> None:
        if repeated:
            if not channel.dialed:
                self._tell(channel.channel_id, ev.DialUnconfirmed(channel.channel_id))
            return
        # Asterisk would end the call (seen on 22.10.1).
        assert not channel.dialed, "a channel is dialed twice"
        channel.dialed = True
        self.dialed.append(channel.endpoint)
        self.dialed_calls.add(ids.call_of(channel.channel_id) or "")

    def _about_channel(self, effect: do.Effect) -> None:
        channel = self._channel(getattr(effect, "channel_id", None) or "")
        if channel.endpoint and not channel.up and not isinstance(effect, do.HangUp):
            raise Refused("Channel in invalid state")
        match effect:
            case do.Ring():
                pass
            case do.Answer():
                channel.up = True
            case do.HangUp():
                # Asterisk reports no cause for a hangup that ARI requested.
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
            conference_id = ids.conference_of(effect.bridge_id) or ""
            self._tell(effect.recording_id, ev.RecordingStarted(conference_id, effect.recording_id))
        elif effect.recording_id not in self.recordings:
            raise Refused("Recording not found", gone=True)
        else:
            self._stop_recording(effect.recording_id)

    def _stop_recording(self, recording_id: str) -> None:
        bridge_id = self.recordings.pop(recording_id)
        self._tell(recording_id, ev.RecordingFinished(ids.conference_of(bridge_id) or "", recording_id))

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
            # Asterisk would do it, but the caller would be inaudible: the phone still rings.
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
