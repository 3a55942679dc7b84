"""A conference: who is in it, what each hears, when it starts and ends.

Nothing but its own events changes it. What can be derived from the members is derived: after each event `_settle`
brings what Asterisk does for each member (wait sound, mix, talk detection, recording) to what the members now imply.

Here are its door and how one joins. It stands on `mishaps`, that on `staying`, that on `hearing`, that on
`conference_state`: each knows those below it, and none above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.callbacks import plausible, truth
from ari_conf.core.conference_state import Common
from ari_conf.core.effects import ClaimName, CreateBridge, MuteChannel, ReleaseName, StopPreparing, StoreRecording
from ari_conf.core.hearing import EVENTS, FLOOR_SILENCE_MS
from ari_conf.core.internal import Admitted, Notify, Out
from ari_conf.core.member import Member, Reason, schedule
from ari_conf.core.mishaps import Mishaps
from ari_conf.core.obey import obey

OfMember = (
    ev.ChannelEnteredBridge
    | ev.ChannelLeftBridge
    | ev.DigitReceived
    | ev.PhoneHeld
    | ev.PhoneResumed
    | ev.StreamSeen
    | ev.AudioStopped
)
OfPlayback = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
OF_MEMBER, OF_PLAYBACK = frozenset(get_args(OfMember)), frozenset(get_args(OfPlayback))
T = TypeVar("T")


class Conference(Mishaps):
    __slots__ = ()

    # The door.

    def receive(self, event: ev.Event, now: int) -> Out:
        """All but who talks: that is `talk`'s."""
        kind = type(event)
        if kind in OF_PLAYBACK:
            return self._of_playback(event, now)  # type: ignore[arg-type]
        if kind in OF_MEMBER:
            return self._of_member(event, now)  # type: ignore[arg-type]
        return self._receive(event, now) + self._settle(now)

    def talk(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> Out:
        """What the members imply does not depend on who talks: nothing is settled."""
        member = self._by_channel.get(event.channel_id)
        if member is None:
            return []
        self._changed[member.member_id] = member
        if type(event) is ev.TalkingStarted:
            return self._talks(member, now) if member.detected else []
        out = self.note_talk(member, now - FLOOR_SILENCE_MS)
        member.talking = False
        return out

    def _of_member(self, event: OfMember, now: int) -> Out:
        member = self._by_channel.get(event.channel_id)
        if member is None:
            return []
        before = self._common()
        match event:
            case ev.ChannelEnteredBridge():
                out = self._entered(member, now)
            case ev.ChannelLeftBridge():
                out = self._left(member, now)
            case ev.DigitReceived(_, digit):
                out = self._pressed(member, digit, now)
            case ev.PhoneHeld():
                out = self._holds_us(member, now)
            case ev.PhoneResumed():
                out = self._takes_us_back(member)
            case ev.StreamSeen():
                out, member.restarted = [], member.state == "mixed"
            case ev.AudioStopped(_, for_ms):
                out = self._audio_stopped(member, for_ms, now)
        return out + self._settled_for(member, before, now)

    def _of_playback(self, event: OfPlayback, now: int) -> Out:
        member = self.members.get(ids.member_of(event.playback_id) or 0)
        if member is None:
            # Of an announcement, from which nothing follows for anybody.
            return self._announced(event.playback_id, event, now)
        before = self._common()
        return member.playback(event, now) + self._settled_for(member, before, now)

    def _settled_for(self, member: Member | None, before: Common, now: int) -> Out:
        """Nothing follows for the others unless what concerns them all has changed since `before`."""
        if before != self._common():
            return self._settle(now)
        return self._settle(now, (member,) if member is not None and member.member_id in self.members else ())

    def create(self) -> Out:
        return [ClaimName(self.auth_id, self.name, self.conference_id)]

    def join(self, member: Member, now: int) -> Out:
        """The directory has seen that the conference is live and not full."""
        before, listened = self._common(), self._listens
        self.members[member.member_id] = self._by_channel[member.channel_id] = member
        out = self._admit(member, now) if self.claim == "held" else []
        # The first who wants to be told of the floor wants all to be listened to.
        listens = member.element.floor_event and not listened
        return out + (self._settle(now) if listens else self._settled_for(member, before, now))

    def leave(self, channel_id: str, reason: Reason, now: int) -> Out:
        member = self._by_channel.get(channel_id)
        before = self._common()
        out = self._leave(member, reason, now) if member is not None else []
        return out + self._settled_for(member, before, now)

    def end(self, reason: Reason, now: int) -> Out:
        return self._end(reason, now) + self._settle(now)

    def command(self, received: ev.CommandReceived, now: int) -> Out:
        """A command of the API: what it leads to, and the reply."""
        return obey(self, received, now) + self._settle(now)

    def watch(self, until: int, now: int) -> Out:
        self.watched_until = max(until, self.watched_until or 0)
        return self._settle(now)

    def _receive(self, event: ev.Event, now: int) -> Out:
        match event:
            case ev.NameClaimed() | ev.NameRefused():
                return self._claim_answered(event, now)
            case ev.BridgeCreated() if self.bridge == "creating":
                self.bridge = "ready"
            case ev.BridgeDestroyed():
                return self._bridge_gone(now)
            case ev.SoundsFetched() | ev.SoundsFailed():
                return self._sounds(event, now)
            case ev.RecordingStarted(_, recording_id, found) if recording := self._recording(recording_id):
                recording.sounds(recording.started_at if found else now)
            case ev.RecordingFinished(_, recording_id, failed) if recording := self._recording(recording_id):
                return self._recording_over(recording, failed, now)
            case ev.EffectFailed():
                return self._failed(event, now)
            case ev.TimePassed():
                return self._time(now)
        return []

    # Joining.

    def _claim_answered(self, event: ev.NameClaimed | ev.NameRefused, now: int) -> Out:
        if self.claim != "asked":
            return []
        members = list(self.members.values())
        if isinstance(event, ev.NameRefused):
            return self._not_claimed(f"is held by {event.owner}; a conference can't span two Asterisks")
        self.claim = "held"
        if not members:
            return self._end("conference_ended", now) + self._release()
        self.bridge = "creating"
        out: Out = [CreateBridge(self.bridge_id)]
        for member in members:
            out += self._admit(member, now)
        return out

    def _admit(self, member: Member, now: int) -> Out:
        element = member.element
        out: Out = [Admitted(member.call_uuid)]
        self.entered += 1
        # "enter callback, also while waiting for the start"
        out += self._notify(member, "enter", now, ("ConferenceFirstMember", truth(self.entered == 1)))
        member.state, member.joined_at = "waiting", now
        # "The first member with startConferenceOnEnter=true starts the conference for good"
        self.started = self.started or element.start_conference_on_enter
        self.stay_alone = self.stay_alone and element.stay_alone
        if element.time_limit is not None and not self.limit_given:
            # "the first member whose element gives one sets it, from his entry on"; "0: no limit of its own"
            self.limit_given = True
            if element.time_limit:
                self.ends_at = min(self.ends_at, now + element.time_limit * 1000)
        if member.silenced:
            out.append(MuteChannel(member.channel_id, True))
        # "play to a started conference (decided: not while waiting)"
        member.enter_due = self.started
        # "URLs are fetched while the member joins, so that joining never waits for them"
        return out + member.ask(member.enter_sound, self.name) + member.ask(member.exit_sound, self.name)

    def _entered(self, member: Member, now: int) -> Out:
        if member.reentering:
            member.reentering = member.outside = False
            return []
        if member.state != "adding":
            return []
        member.state, member.restarted = "mixed", False
        if not member.been_in:
            member.been_in, member.sending = True, schedule(member.element.send_digits, now)
        return self._announce_entry(member, now)

    # Giving up.

    def give_up(self, now: int) -> Out:
        """It ends for all, whatever it is like inside; what can't be told any more is left out. Its members' calls are
        others' to end."""
        told: Out = [*self._owed]
        begun = self._begun
        have_left, have_entered = (
            {t.call_uuid for t in self._owed if isinstance(t, Notify) and t.event == EVENTS[action]}
            for action in ("exit", "enter")
        )
        # To be forgotten where they are written.
        gone: dict[int, Member | None] = dict.fromkeys([*self._changed, *self.members])
        for member in [m for m in (*self._gone, *self.members.values()) if m.call_uuid not in have_left]:
            if member.state != "arriving" or member.call_uuid in have_entered:
                told += tried(lambda: self._exit(member, now))  # noqa: B023 -- done before the next one
        told += tried(lambda: self._hand_over(now))
        self.members, self.players, self.recording, self.undone = {}, {}, None, ()
        self.ending, self.floor, self.watched_until = True, None, None
        self._see(())
        self._changed = gone
        told.append(StopPreparing(self.conference_id))
        if self.claim == "asked" and self.bridge == "none" and begun:
            # There is no bridge as yet, and the name is released when it is ours.
            return told
        self.claim = "released"
        return [*told, ReleaseName(self.auth_id, self.name, self.conference_id), *self._destroy(now)]

    def _exit(self, member: Member, now: int) -> Out:
        self.members = {key: other for key, other in self.members.items() if other is not member}
        member.joined_at = min(max(member.joined_at, 0), now)
        last = ("ConferenceLastMember", truth(not self.members))
        reason = ("ConferenceExitReason", "conference_ended")
        return [*self._note_stay(member, now, now), *self._notify(member, "exit", now, last, reason)]

    def _hand_over(self, now: int) -> Out:
        """What is being recorded, or has been. It may still run: the worker that stores it waits for its end."""
        recording = self.recording
        if recording is None or recording.handed_on or any(isinstance(told, StoreRecording) for told in self._owed):
            return []
        recording.bridge_id, recording.auth_id = self.bridge_id, self.auth_id
        recording.started_at = recording.started_at if plausible(recording.started_at) else now
        recording.ended_at = recording.ended_at if plausible(recording.ended_at) else now
        stopped = recording.stop(now)
        recording.stopped(now)
        return [*stopped, *self._settle_recorded(recording, now)]


def tried(work: Callable[[], list[T]]) -> list[T]:
    """What comes of it; of what breaks, since the state is half changed or damaged, nothing."""
    try:
        return work()
    except Exception:
        return []
