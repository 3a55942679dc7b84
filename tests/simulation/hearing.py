"""Hearing: checks who hears what, at every step from the effects and, once all is done, from Asterisk itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.engine import Engine
from ari_conf.core.playback.player import PlayerState
from tests.fakes.asterisk import Asterisk

SOUNDING = (do.StartMusic, do.StopMusic, do.PlayMedia, do.StopPlayback)


@dataclass
class ChannelEffects:
    """Effects on a channel so far."""

    music: bool = False
    muted: bool = False
    silence_ms: int | None = None
    playing: set[str] = field(default_factory=set)

    @property
    def quiet(self) -> bool:
        return not self.music and not self.playing


class Hearing:
    def __init__(self, engine: Engine, asterisk: Asterisk) -> None:
        self.engine = engine
        self.asterisk = asterisk
        self.tainted: set[str] = set()
        self._effects_by_channel: dict[str, ChannelEffects] = {}
        self._waiting: dict[str, Member] = {}

    def effects_on(self, channel_id: str) -> ChannelEffects:
        return self._effects_by_channel.setdefault(channel_id, ChannelEffects())

    def before(self, event: ev.Event) -> None:
        match event:
            case ev.PlaybackFinished(playback_id) | ev.EffectFailed(do.PlayMedia(_, playback_id)):
                for so_far in self._effects_by_channel.values():
                    so_far.playing.discard(playback_id)
            case ev.EffectFailed(do.StartMusic(channel_id)):
                # Music may be started once more.
                self.effects_on(channel_id).music = False
        self._waiting = {m.channel_id: m for c in self._conferences() for m in c.members.values() if _waits(c, m)}

    def after(self, event: ev.Event, effects: list[do.Effect]) -> None:
        for effect in effects:
            self._observe(effect)
        self._undisturbed(event, effects)
        for conference in self._conferences():
            present = [m for m in conference.members.values() if m.is_present]
            for member in present:
                so_far = self.effects_on(member.channel_id)
                assert not (so_far.music and so_far.playing), "music and a wait sound at once"
                if conference.started and len(present) > 1:
                    assert so_far.quiet, "it stops the instant that a second member enters"
                if not conference.started:
                    assert member.state is MemberState.WAITING, "until the start nobody hears anybody"

    def left(self, channel_id: str, hung_up: bool, effects: list[do.Effect]) -> None:
        """Check a member who is out, with the effects that the step gave before it reported the exit."""
        if hung_up:
            return
        last: dict[type, do.Effect] = {type(e): e for e in effects if getattr(e, "channel_id", "") == channel_id}
        so_far = self.effects_on(channel_id)
        unmuted = last.get(do.MuteChannel)
        assert not so_far.muted or (isinstance(unmuted, do.MuteChannel) and not unmuted.muted), "they stay muted"
        deafened = last.get(do.DetectTalking)
        listening = so_far.silence_ms is not None
        assert not listening or (isinstance(deafened, do.DetectTalking) and deafened.silence_ms is None)
        stopped = {e.playback_id for e in effects if isinstance(e, do.StopPlayback)}
        assert not so_far.music or do.StopMusic in last, "music that never stops"
        assert so_far.playing <= stopped, "a wait sound that never stops"

    def settled(self) -> None:
        for conference in self._conferences():
            if conference.conference_id in self.tainted or conference.ending:
                continue
            members = [m for m in conference.members.values() if m.channel_id in self.asterisk.channels]
            for member in members:
                if not {m.channel_id for m in members} & self.tainted:
                    self._hears_one(conference, member, members)

    def _hears_one(self, conference: Conference, member: Member, members: list[Member]) -> None:
        """Check that the member hears exactly one of wait sound and conference."""
        channel = self.asterisk.channels[member.channel_id]
        own, mix = self.asterisk.own(member.channel_id), self.asterisk.mix(member.channel_id)
        speaking = {m.channel_id for m in members if m is not member and not self._silenced(m)}
        others = mix & set(self.asterisk.channels)
        assert channel.up, "a member's call is answered"
        assert channel.muted == self._silenced(member)
        assert not channel.silence, "silence that hides the conference"
        if not conference.started:
            assert channel.bridge is None and not mix, "nobody hears anybody"
            sounding = member.player is not None and member.player.state not in (
                PlayerState.PAUSING,
                PlayerState.WAITING,
            )
            # The sound is not known yet, or its document held none: silence until it is requested again.
            silent = member.wait_sound_retry_at is not None
            assert bool(own) == (sounding or member.music) and (own or silent or member.player), "their own wait sound"
            assert not (member.wait_sound.items == () and own != {"music"}), "the default music if they have none"
            return
        assert channel.bridge == conference.bridge_id
        later = {m.channel_id for m in members if m.stream_restarted and not m.is_silent}
        assert others | later == speaking | later, "all others are heard, but not the muted ones"
        if len(members) > 1:
            assert not own, "a wait sound while others are there"
        else:
            assert own <= set(channel.playbacks), "a lone member hears their waitSound or silence, no default music"
            has_own_sound = member.element.wait_sound is not None
            assert (
                bool(member.player or member.wait_sound_retry_at or member.wait_sound.items == ()) == has_own_sound
                or not has_own_sound
            )

    def _undisturbed(self, event: ev.Event, effects: list[do.Effect]) -> None:
        """ "another's coming or going does not restart it" """
        if isinstance(event, ev.DeadlineReached):
            return
        own = {getattr(event, "channel_id", None)}
        about = {ids.member_of(getattr(event, name, "") or "") for name in ("playback_id", "fetch_id")} - {None}
        if isinstance(event, ev.EffectFailed) and isinstance(event.effect, do.PlayMedia):
            about.add(ids.member_of(event.effect.playback_id))
        still = {m.channel_id: m for c in self._conferences() for m in c.members.values() if _waits(c, m)}
        for effect in effects:
            if not isinstance(effect, SOUNDING):
                continue
            channel_id = getattr(effect, "channel_id", None) or effect.target.id  # type: ignore[union-attr]
            member = still.get(channel_id)
            if member is None or self._waiting.get(channel_id) is not member or channel_id in own:
                continue
            assert member.member_id in about, f"{effect} disturbs a waiting member"

    def _observe(self, effect: do.Effect) -> None:
        match effect:
            case do.StartMusic(channel_id):
                assert not self.effects_on(channel_id).music, "music is started twice"
                self.effects_on(channel_id).music = True
            case do.StopMusic(channel_id):
                self.effects_on(channel_id).music = False
            case do.MuteChannel(channel_id, muted):
                self.effects_on(channel_id).muted = muted
            case do.DetectTalking(channel_id, silence_ms):
                self.effects_on(channel_id).silence_ms = silence_ms
            case do.PlayMedia(target, playback_id) if target.kind == "channel":
                self.effects_on(target.id).playing.add(playback_id)
                owner = ids.member_of(playback_id)
                assert owner is None or self._of(owner) == target.id, "one member's music never reaches another"
            case do.PlayMedia(_, playback_id):
                assert ids.member_of(playback_id) is None, "a wait sound is heard by one alone"
                assert self.engine.conferences[playback_id.split(".")[1]].started, "to a started conference"
            case do.StopPlayback(target, playback_id):
                self.effects_on(target.id).playing.discard(playback_id)
            case do.AddChannel(channel_id):
                assert self.effects_on(channel_id).quiet, "a member's sounds are stopped before they join the others"
                member = next(m for c in self._conferences() for m in c.members.values() if m.channel_id == channel_id)
                assert self.effects_on(channel_id).muted == member.silenced

    def _silenced(self, member: Member) -> bool:
        return member.element.muted or self.asterisk.channels[member.channel_id].on_hold

    def _of(self, member_id: int) -> str | None:
        found = (c.members[member_id].channel_id for c in self._conferences() if member_id in c.members)
        return next(found, None)

    def _conferences(self) -> list[Conference]:
        return list(self.engine.conferences.values())


def _waits(conference: Conference, member: Member) -> bool:
    return not conference.started and member.state is MemberState.WAITING
