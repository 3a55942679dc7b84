"""Conference: its members, what each of them hears, and its start and end.

Only the conference's own events change it. What can be derived from the members is derived: after each event,
`update_media` adjusts what Asterisk does for each member (wait sound, mix, talk detection, recording) to the current
state of the members.

This module holds the entry points and joining. It builds on `failure_handling`, that on `membership`, that on
`media_control`, and that on `state`; each knows the layers below it and none above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.conferences.failure_handling import FailureHandling
from ari_conf.core.conferences.media_control import CALLBACK_EVENT_NAMES
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS, ExitReason, Member, schedule_digits
from ari_conf.core.conferences.state import Common
from ari_conf.core.effects import (
    ClaimName,
    CreateBridge,
    DestroyBridge,
    MuteChannel,
    ReleaseName,
    RemoveChannel,
    StopPreparing,
    StoreRecording,
)
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import Admitted, CallbackRequested, Outputs
from ari_conf.core.request_params import bool_text, plausible

MemberEvent = (
    ev.ChannelEnteredBridge
    | ev.ChannelLeftBridge
    | ev.DigitReceived
    | ev.PhoneHeld
    | ev.PhoneResumed
    | ev.StreamSeen
    | ev.AudioStopped
)
PlaybackEvent = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
MEMBER_EVENTS, PLAYBACK_EVENTS = frozenset(get_args(MemberEvent)), frozenset(get_args(PlaybackEvent))
T = TypeVar("T")


class Conference(FailureHandling):
    __slots__ = ()

    # Entry points.

    def handle_event(self, event: ev.Event, now: int) -> Outputs:
        """Handle every event except those about talking, which `handle_talking` takes."""
        kind = type(event)
        if kind in PLAYBACK_EVENTS:
            return self._handle_playback_event(event, now)  # type: ignore[arg-type]
        if kind in MEMBER_EVENTS:
            return self._handle_member_event(event, now)  # type: ignore[arg-type]
        return self._receive(event, now) + self.update_media(now)

    def handle_talking(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> Outputs:
        """Handle the start or end of talking. The media state does not depend on talking, so it is not updated."""
        member = self._member_by_channel.get(event.channel_id)
        if member is None:
            return []
        self._changed[member.member_id] = member
        if type(event) is ev.TalkingStarted:
            return self._on_talking_started(member, now) if member.detected else []
        out = self.note_speech(member, now - FLOOR_SILENCE_MS)
        member.talking = False
        return out

    def _handle_member_event(self, event: MemberEvent, now: int) -> Outputs:
        member = self._member_by_channel.get(event.channel_id)
        if member is None:
            return []
        before = self._shared_audio_state()
        match event:
            case ev.ChannelEnteredBridge():
                out = self._on_entered_bridge(member, now)
            case ev.ChannelLeftBridge():
                out = self._on_left_bridge(member, now)
            case ev.DigitReceived(_, digit):
                out = self._on_digit(member, digit, now)
            case ev.PhoneHeld():
                out = self._holds_us(member, now)
            case ev.PhoneResumed():
                out = self._takes_us_back(member)
            case ev.StreamSeen():
                out, member.restarted = [], member.state == "mixed"
            case ev.AudioStopped(_, for_ms):
                out = self._audio_stopped(member, for_ms, now)
        return out + self._update_media_for(member, before, now)

    def _handle_playback_event(self, event: PlaybackEvent, now: int) -> Outputs:
        member = self.members.get(ids.member_of(event.playback_id) or 0)
        if member is None:
            # A sound for the whole conference: no member's media state depends on it.
            return self._on_announcement_playback(event.playback_id, event, now)
        before = self._shared_audio_state()
        return member.handle_playback_event(event, now) + self._update_media_for(member, before, now)

    def _update_media_for(self, member: Member | None, before: Common, now: int) -> Outputs:
        """Update the media state of `member`, or of all if the shared audio state has changed since `before`."""
        if before != self._shared_audio_state():
            return self.update_media(now)
        return self.update_media(now, (member,) if member is not None and member.member_id in self.members else ())

    def claim_name(self) -> Outputs:
        return [ClaimName(self.auth_id, self.name, self.conference_id)]

    def join(self, member: Member, now: int) -> Outputs:
        """Add a member. The dispatcher has checked that the conference is live, not full and not locked."""
        before, listened = self._shared_audio_state(), self._needs_talk_detection
        self.members[member.member_id] = self._member_by_channel[member.channel_id] = member
        out = self._admit(member, now) if self.claim == "held" else []
        # The first member with floorEvent requires talk detection for all members.
        listens = member.element.floor_event and not listened
        return out + (self.update_media(now) if listens else self._update_media_for(member, before, now))

    def leave(self, channel_id: str, reason: ExitReason, now: int) -> Outputs:
        member = self._member_by_channel.get(channel_id)
        before = self._shared_audio_state()
        out = self._start_leaving(member, reason, now) if member is not None else []
        return out + self._update_media_for(member, before, now)

    def end(self, reason: ExitReason, now: int) -> Outputs:
        return self._start_ending(reason, now) + self.update_media(now)

    def watch(self, until: int, now: int) -> Outputs:
        self.watched_until = max(until, self.watched_until or 0)
        return self.update_media(now)

    def _receive(self, event: ev.Event, now: int) -> Outputs:
        match event:
            case ev.NameClaimed() | ev.NameTaken():
                return self._on_claim_result(event, now)
            case ev.BridgeCreated() if self.bridge == "creating":
                self.bridge = "ready"
            case ev.BridgeDestroyed():
                return self._on_bridge_destroyed(now)
            case ev.SoundDocumentFetched() | ev.SoundDocumentFailed():
                return self._on_sound_document(event, now)
            case ev.RecordingStarted(_, recording_id, found) if recording := self._recording(recording_id):
                recording.mark_started(recording.started_at if found else now)
            case ev.RecordingFinished(_, recording_id, failed) if recording := self._recording(recording_id):
                return self._on_recording_finished(recording, failed, now)
            case ev.EffectFailed():
                return self._on_effect_failed(event, now)
            case ev.DeadlineReached():
                return self._on_deadline(now)
        return []

    # Joining.

    def _on_claim_result(self, event: ev.NameClaimed | ev.NameTaken, now: int) -> Outputs:
        if self.claim != "asked":
            return []
        members = list(self.members.values())
        if isinstance(event, ev.NameTaken):
            why = f"its name is in use on {event.owner}; a conference can't span two Asterisk servers"
            return self._on_claim_refused(why)
        self.claim = "held"
        if not members:
            return self._start_ending("conference_ended", now) + self._release()
        self.bridge = "creating"
        out: Outputs = [CreateBridge(self.bridge_id)]
        for member in members:
            out += self._admit(member, now)
        return out

    def _admit(self, member: Member, now: int) -> Outputs:
        element = member.element
        out: Outputs = [Admitted(member.call_uuid)]
        self.entered += 1
        # Spec: "enter callback, also while waiting for the start"
        out += self._request_callback(member, "enter", now, ("ConferenceFirstMember", bool_text(self.entered == 1)))
        member.state, member.joined_at = "waiting", now
        # Spec: "The first member with startConferenceOnEnter=true starts the conference for good"
        self.started = self.started or element.start_conference_on_enter
        self.stay_alone = self.stay_alone and element.stay_alone
        if element.time_limit is not None and not self.limit_given:
            # Spec: the first member whose element gives a timeLimit sets it, from their entry on; 0: no own limit.
            self.limit_given = True
            if element.time_limit:
                self.ends_at = min(self.ends_at, now + element.time_limit * 1000)
        if member.silenced:
            out.append(MuteChannel(member.channel_id, True))
        # Spec: "play to a started conference (decided: not while waiting)"
        member.enter_due = self.started
        # Spec: "URLs are fetched while the member joins, so that joining never waits for them"
        return (
            out
            + member.request_sound(member.enter_sound, self.name)
            + member.request_sound(member.exit_sound, self.name)
        )

    def _on_entered_bridge(self, member: Member, now: int) -> Outputs:
        if member.reentering:
            member.reentering = member.outside = False
            return []
        if member.state != "adding":
            return []
        member.state, member.restarted = "mixed", False
        if not member.been_in:
            member.been_in, member.sending = True, schedule_digits(member.element.send_digits, now)
        return self._play_enter_sound(member, now)

    # Recovery.

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the conference and its members expect of Asterisk: see `expectations.py`."""
        about = Expectation("bridge", self.bridge_id, self.bridge_id)
        if self.bridge == "creating":
            yield about._replace(if_there=ev.BridgeCreated(self.bridge_id))
        elif self.bridge in ("ready", "destroying"):
            yield about._replace(if_gone=ev.BridgeDestroyed(self.bridge_id))
        for member in self.members.values():
            yield from member.expectations(self.bridge_id)
        for player in self.players.values():
            yield from player.expectations()
        if self.recording is not None:
            yield from self.recording.expectations()

    def resume(self, there: AsteriskState) -> Outputs:
        """Return the effects in progress, which may have been lost with the previous process."""
        exists = self.bridge_id in there.bridges
        out: Outputs = [effect for _, effect in self.undone if exists]
        if self.claim == "asked":
            out += self.claim_name()
        if self.bridge == "creating" and not exists:
            out.append(CreateBridge(self.bridge_id))
        if self.bridge == "destroying" and exists:
            out.append(DestroyBridge(self.bridge_id))
        for member in self.members.values():
            if member.channel_id in there.channels:
                out += member.resume(self.bridge_id, there)
        for player in self.players.values():
            out += player.resume(there)
        if self.recording is not None:
            out += self.recording.resume(there)
        return out

    def talking_members(self) -> list[Member]:
        """Return the members that talk in the bridge, as far as is known."""
        return [m for m in self.members_in_bridge if m.talking]

    def evict_strangers(self, there: AsteriskState, before: Iterable[Expectation]) -> Outputs:
        """Remove channels from the bridge that already before the snapshot belonged to no member, or to a member
        outside. They hear the others and are heard, and nothing else would ever remove them.

        `before`: all expectations before the snapshot."""
        inside = there.bridges.get(self.bridge_id, frozenset()) if self.bridge == "ready" else frozenset()
        members = [m for m in self.members.values() if m.channel_id in inside]
        if len(members) == len(inside) and all(m.may_be_in_bridge for m in members):
            return []
        were = {e.id: e for e in before if self.bridge_id in (e.id, e.bridge_id)}
        if self.bridge_id not in were:
            return []
        strange = set(inside).difference(were, [m.channel_id for m in members])
        for member in members:
            was = were.get(member.channel_id)
            outside = was is not None and was.kind == "outside" and was.turn == member.additions
            if outside and not member.may_be_in_bridge:
                strange.add(member.channel_id)
        return [RemoveChannel(channel_id, self.bridge_id) for channel_id in sorted(strange)]

    # Forced end.

    def give_up(self, now: int) -> Outputs:
        """End the conference for all members, in whatever state it is. Effects that can't be built any more are left
        out. The members' calls are not ended."""
        told: Outputs = [*self._owed]
        begun = self._begun
        have_left, have_entered = (
            {
                t.call_uuid
                for t in self._owed
                if isinstance(t, CallbackRequested) and t.event == CALLBACK_EVENT_NAMES[action]
            }
            for action in ("exit", "enter")
        )
        # The persisted records of these members are to be deleted.
        gone: dict[int, Member | None] = dict.fromkeys([*self._changed, *self.members])
        for member in [m for m in (*self._gone, *self.members.values()) if m.call_uuid not in have_left]:
            if member.state != "arriving" or member.call_uuid in have_entered:
                told += tried(lambda: self._exit(member, now))  # noqa: B023 -- done before the next one
        told += tried(lambda: self._hand_over(now))
        self.members, self.players, self.recording, self.undone = {}, {}, None, ()
        self.ending, self.floor, self.watched_until = True, None, None
        self._rebuild_index(())
        self._changed = gone
        told.append(StopPreparing(self.conference_id))
        if self.claim == "asked" and self.bridge == "none" and begun:
            # The bridge does not exist yet, and the name is released once the claim is granted.
            return told
        self.claim = "released"
        return [*told, ReleaseName(self.auth_id, self.name, self.conference_id), *self._destroy(now)]

    def _exit(self, member: Member, now: int) -> Outputs:
        self.members = {key: other for key, other in self.members.items() if other is not member}
        member.joined_at = min(max(member.joined_at, 0), now)
        last = ("ConferenceLastMember", bool_text(not self.members))
        reason = ("ConferenceExitReason", "conference_ended")
        return [*self._note_attendance(member, now, now), *self._request_callback(member, "exit", now, last, reason)]

    def _hand_over(self, now: int) -> Outputs:
        """Hand over the current or last recording. It may still run: the worker that stores it waits for its end."""
        recording = self.recording
        if recording is None or recording.handed_on or any(isinstance(told, StoreRecording) for told in self._owed):
            return []
        recording.bridge_id, recording.auth_id = self.bridge_id, self.auth_id
        recording.started_at = recording.started_at if plausible(recording.started_at) else now
        recording.ended_at = recording.ended_at if plausible(recording.ended_at) else now
        stopped = recording.stop(now)
        recording.mark_stopped(now)
        return [*stopped, *self._hand_over_recording(recording, now)]


def tried(work: Callable[[], list[T]]) -> list[T]:
    """Return the result of `work`, or an empty list if it raises because the state is inconsistent or damaged."""
    try:
        return work()
    except Exception:
        return []
