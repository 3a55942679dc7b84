"""Conference: its members, what each of them hears, and its start and end.

Only the conference's own events change it. What can be derived from the members is derived: after each event,
`update_media` adjusts what Asterisk does for each member (wait sound, mix, talk detection, recording) to the current
state of the members.

A conference holds its members, who keep their own state and media state (`Member`), the sounds that all of them hear
(`SharedPlayback`), and its recordings (`Recording`).

The class reads in the order of a conference's life: what it holds and what follows from that; the entry points;
joining; while members are in it, media state, digits, talking and the floor, sounds, recording; leaving; ending. Last
come failed effects, deadlines, recovery, and the forced end of a conference that can't continue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

import msgspec

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.backoff import retry_delay_ms
from ari_conf.core.bounds import MAX_QUEUED
from ari_conf.core.conferences.conference_state import BridgeState, ClaimState, SharedAudioState
from ari_conf.core.conferences.digit_matching import DigitRun
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS, ExitReason, Member, schedule_digits
from ari_conf.core.conferences.member_index import MemberIndex
from ari_conf.core.conferences.member_state import (
    AWAITING_BRIDGE,
    AWAITING_NAME,
    ENTERING_BRIDGE,
    IN_BRIDGE,
    LEAVING,
    LEAVING_FOR_HOLD,
    LEFT,
    ON_HOLD,
    WAITING,
)
from ari_conf.core.conferences.recording import ConferenceRecording
from ari_conf.core.effects import (
    AddChannel,
    ArchiveMember,
    ArchiveTalks,
    ClaimName,
    CreateBridge,
    DeafenChannel,
    DestroyBridge,
    DetectTalking,
    Effect,
    MuteChannel,
    Params,
    PlayMedia,
    ReleaseName,
    RemoveChannel,
    ReportProblem,
    SendDigits,
    StartRecording,
    StopPreparing,
    StopRecording,
    StoreRecording,
    SwitchOffs,
    Target,
)
from ari_conf.core.elements import Play, Prompt, Speak
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import (
    Admitted,
    CallbackRequested,
    HangupRequested,
    JoinSkipped,
    MemberDeparted,
    MemberReleased,
    Outputs,
    RecordingRequested,
)
from ari_conf.core.playback.player import interrupted
from ari_conf.core.playback.shared_playback import DIAL_MUSIC, SharedPlayback
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import LineMeasurement, updated
from ari_conf.core.queued_sound import QueuedSound
from ari_conf.core.request_params import bool_text, plausible

MAX_CONFERENCE_S = 86400
"""Maximum seconds that a conference lasts: the server's cap."""
LEAVE_TIMEOUT_MS = 3000
"""Milliseconds until RemoveChannel is repeated. Asterisk normally reports immediately that a channel has left."""
REMOVAL_AGAIN_MS, REMOVALS = 5000, 120
"""Interval in milliseconds, and maximum number, of repeated RemoveChannel requests for a leaving member. After them
(ten minutes), the call is hung up."""
MAX_REPORTED_LINES = 5
"""Maximum members present at the same time whose bad lines are reported as problems: where all lines are bad, such as
those of one carrier, more problems would only displace others."""
CallbackAction = Literal["enter", "exit", "digits", "floor"]
CALLBACK_EVENT_NAMES: dict[CallbackAction, str] = {
    "enter": "ConferenceEnter",
    "exit": "ConferenceExit",
    "digits": "ConferenceDigitsMatch",
    "floor": "ConferenceFloor",
}
"""Callback event names by ConferenceAction."""
MemberEvent = (
    ev.ChannelEnteredBridge
    | ev.ChannelLeftBridge
    | ev.DigitReceived
    | ev.PhoneHeld
    | ev.PhoneResumed
    | ev.StreamSeen
    | ev.AudioStopped
    | ev.LineMeasured
)
PlaybackEvent = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
MEMBER_EVENTS, PLAYBACK_EVENTS = frozenset(get_args(MemberEvent)), frozenset(get_args(PlaybackEvent))
READY = BridgeState.READY
T = TypeVar("T")


@dataclass(slots=True)
class CurrentStep:
    """Of the step in progress, what `give_up` needs if the step fails."""

    reports: list[Effect | CallbackRequested | MemberDeparted] = field(default_factory=list)
    """Callbacks, recording jobs and departures for the history so far, which are sent all the same."""
    departed: list[Member] = field(default_factory=list)
    """Members that have left."""
    creates_conference: bool = False
    """True: the name claim may not have been requested yet."""


class Derived:
    """Attributes that are derived from a conference's fields, or belong to the step in progress; never persisted."""

    __slots__ = ("audio", "bridge_id", "index", "step")

    bridge_id: str
    audio: SharedAudioState
    """As of the last update of the media state."""
    index: MemberIndex
    step: CurrentStep


class Conference(msgspec.Struct, Derived, tag=True):
    conference_id: str
    auth_id: str
    name: str
    created_at: int
    max_members: int
    """Maximum number of members. Spec: "set by the first member, fixed afterwards"."""
    public_url: str
    claim: ClaimState = ClaimState.REQUESTED
    bridge: BridgeState = BridgeState.NONE
    started: bool = False
    """True once the conference has started. Spec: "it stays started until it ends, also if that member leaves"."""
    ending: bool = False
    stay_alone: bool = True
    """False if an admitted member's stayAlone was false. Spec: "Once false it stays false"."""
    ends_at: int = 0
    limit_given: bool = False
    """True once a member's element has given a timeLimit, even 0: the first one sets it."""
    entered: int = 0
    """Number of members admitted so far."""
    sequence: int = 0
    """ConferenceSequence of the last callback."""
    floor: int | None = None
    """Id of the member that holds the floor."""
    shared_playback: SharedPlayback = msgspec.field(default_factory=SharedPlayback)
    dial_music: dict[str, str] = msgspec.field(default_factory=dict)
    """UUID of each call that is being placed into the conference -> the tone or URL that the members hear meanwhile."""
    recordings: dict[str, ConferenceRecording] = msgspec.field(default_factory=dict)
    """Recordings by id: those that are not handed over, and the newest one, which its members' actions name."""
    locked: bool = False
    """True if no further callers are admitted."""
    recent_switch_offs: SwitchOffs = ()
    """Effects that recently switched something off on the bridge; a server that takes over repeats them."""
    destroys: int = 0
    """Number of DestroyBridge requests so far that Asterisk has not confirmed in time."""
    destroy_again_at: int | None = None
    """Epoch milliseconds at which DestroyBridge is repeated."""
    watched_until: int | None = None
    """Epoch milliseconds until which viewers want to see who talks."""
    is_private: bool = False
    """True: only the two legs of a Dial know it. It has no name that others could use, and no place in the history."""
    ended_at: int | None = None
    """Epoch milliseconds of the decision to end it."""
    end_reason: ExitReason | None = None
    members: dict[int, Member] = msgspec.field(default_factory=dict)
    """Persisted apart from the conference, and the last field: see `state_codec`."""

    def __post_init__(self) -> None:
        self.ends_at = self.ends_at or self.created_at + MAX_CONFERENCE_S * 1000
        self.bridge_id = ids.bridge_id(self.conference_id)
        self.audio = SharedAudioState(self.started, self.ending, self.bridge is READY, self._one_member_present)
        self.index = MemberIndex(self.members.values())
        self.step = CurrentStep(creates_conference=True)

    # Derived values.

    @property
    def directory(self) -> str:
        """Return the account among whose conferences its name is: see `elements.Conference.directory`."""
        return "" if self.is_private else self.auth_id

    @property
    def members_in_bridge(self) -> list[Member]:
        return [m for m in self.members.values() if m.state is IN_BRIDGE]

    @property
    def remaining_count(self) -> int:
        """Return the number of members that are in the conference or about to be, without leaving ones."""
        return sum(m.state is not LEAVING for m in self.members.values())

    @property
    def is_full(self) -> bool:
        # A leaving member counts until they have left, so that neither the conference nor its callbacks ever have more
        # members than allowed.
        return len(self.members) >= self.max_members

    @property
    def is_finished(self) -> bool:
        """Return True if the conference has ended. Spec: "recording stopped, bridge destroyed, name free".

        A recording must have been handed over; storing it is a worker's job.
        """
        if not self.ending or self.members or self.bridge not in (BridgeState.NONE, BridgeState.DESTROYED):
            return False
        # A name whose claim is pending must be released once the claim is granted.
        return self.claim is not ClaimState.REQUESTED and self.recording_to_hand_over is None

    @property
    def deadline(self) -> int | None:
        """Epoch milliseconds at which the conference needs DeadlineReached, or None."""
        end = self.destroy_again_at if self.ending else self.ends_at
        if not (self.index.deadlines or self.shared_playback.players or self.recordings or self.watched_until):
            # The usual case.
            return end
        times: list[int | None] = [end, self.watched_until, *self.index.deadlines.values()]
        for player in self.shared_playback.players.values():
            times.append(player.deadline)
        for recording in self.recordings.values():
            times.append(recording.deadline)
        return min([t for t in times if t is not None], default=None)

    @property
    def newest_recording(self) -> ConferenceRecording | None:
        return next(reversed(self.recordings.values()), None)

    @property
    def recording_to_hand_over(self) -> ConferenceRecording | None:
        """Return the recording that runs, or has ended and is not handed over; None: there is none."""
        return next((r for r in self.recordings.values() if not r.handed_over), None)

    @property
    def _one_member_present(self) -> bool:
        """Return True if exactly one member is present."""
        found = False
        for member in self.members.values():
            # `member.is_present`, inlined because this runs once per event.
            if member.state is not AWAITING_NAME and member.state is not LEAVING:
                if found:
                    return False
                found = True
        return found

    def _update_audio(self) -> bool:
        """Update the shared audio state; return True if it has changed."""
        audio, bridge_ready, one_member_present = self.audio, self.bridge is READY, self._one_member_present
        if (
            audio.started is self.started
            and audio.ending is self.ending
            and audio.bridge_ready is bridge_ready
            and audio.one_member_present is one_member_present
        ):
            return False
        self.audio = SharedAudioState(self.started, self.ending, bridge_ready, one_member_present)
        return True

    @property
    def _needs_talk_detection(self) -> bool:
        if self.recordings or self.watched_until is not None:
            return True
        return any(m.element.floor_event for m in self.members.values())

    def member_of(self, channel_id: str) -> Member | None:
        return self.index.by_channel.get(channel_id)

    def take_changed_members(self) -> dict[int, Member | None]:
        """Return the members that may have changed since the last call, by member id; None: the member has left."""
        changed, self.index.changed = self.index.changed, {}
        return changed

    # Entry points.

    def handle_event(self, event: ev.Event, now: int) -> Outputs:
        """Handle every event except those about talking, which `handle_talking` takes."""
        kind = type(event)
        if kind in PLAYBACK_EVENTS:
            return self._handle_playback_event(event, now)  # type: ignore[arg-type]
        if kind in MEMBER_EVENTS:
            return self._handle_member_event(event, now)  # type: ignore[arg-type]
        return self._handle_conference_event(event, now) + self.update_media(now)

    def handle_talking(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> Outputs:
        """Handle the start or end of talking. The media state does not depend on talking, so it is not updated."""
        member = self.index.by_channel.get(event.channel_id)
        if member is None:
            return []
        self.index.changed[member.member_id] = member
        if type(event) is ev.TalkingStarted:
            return self._on_talking_started(member, now) if member.talk_detection_on else []
        out = self.note_speech(member, now - FLOOR_SILENCE_MS)
        member.talking = False
        return out

    def _handle_member_event(self, event: MemberEvent, now: int) -> Outputs:
        member = self.index.by_channel.get(event.channel_id)
        if member is None:
            return []
        match event:
            case ev.ChannelEnteredBridge():
                out = self._on_entered_bridge(member, now)
            case ev.ChannelLeftBridge():
                out = self._on_left_bridge(member, now)
            case ev.DigitReceived(_, digit):
                out = self._on_digit(member, digit, now)
            case ev.PhoneHeld():
                out = self._on_phone_held(member, now)
            case ev.PhoneResumed():
                out = self._on_phone_resumed(member)
            case ev.StreamSeen():
                out, member.stream_restarted = [], member.state is IN_BRIDGE
            case ev.AudioStopped(_, for_ms):
                out = self._on_audio_stopped(member, for_ms, now)
            case ev.LineMeasured(_, measurement):
                out = self._on_line_measured(member, measurement)
        return out + self._update_media_of(member, now)

    def _handle_playback_event(self, event: PlaybackEvent, now: int) -> Outputs:
        member = self.members.get(ids.member_of(event.playback_id) or 0)
        if member is None:
            # A sound for the whole conference: no member's media state depends on it.
            return self._on_shared_playback(event.playback_id, event, now)
        # The other members' media state does not depend on what is played to this one.
        return member.handle_playback_event(event, now) + self.update_media(now, (member,))

    def _handle_conference_event(self, event: ev.Event, now: int) -> Outputs:
        match event:
            case ev.NameClaimed() | ev.NameTaken():
                return self._on_claim_result(event, now)
            case ev.BridgeCreated() if self.bridge is BridgeState.CREATING:
                self.bridge = BridgeState.READY
            case ev.BridgeDestroyed():
                return self._on_bridge_destroyed(now)
            case ev.SoundDocumentFetched() | ev.SoundDocumentFailed():
                return self._on_sound_document(event, now)
            case ev.RecordingStarted(_, recording_id, found) if recording := self.recordings.get(recording_id):
                recording.mark_started(recording.started_at if found else now)
            case ev.RecordingFinished(_, recording_id, failed) if recording := self.recordings.get(recording_id):
                return self._on_recording_finished(recording, failed, now)
            case ev.EffectFailed():
                return self._on_effect_failed(event, now)
            case ev.DeadlineReached():
                return self._on_deadline(now)
        return []

    def has_ear_of(self, channel_id: str) -> bool:
        """Return whether a sound can be queued for the member: they are not leaving."""
        member = self.index.by_channel.get(channel_id)
        return member is not None and member.state is not LEAVING

    def play_to(self, channel_id: str, sound: QueuedSound, now: int) -> Outputs:
        """Play a sound to a member, after those that are queued for them."""
        member = self.index.by_channel[channel_id]
        member.private_playback.queue.append(sound)
        return self._update_media_of(member, now)

    def stop_playing_to(self, channel_id: str, kind: type[Play] | type[Speak], now: int) -> Outputs:
        member = self.index.by_channel.get(channel_id)
        stopped = member.private_playback.clear(kind) if member is not None else []
        return [*stopped, *self._update_media_of(member, now)]

    def leave(self, channel_id: str, reason: ExitReason, now: int) -> Outputs:
        member = self.index.by_channel.get(channel_id)
        out = self._start_leaving(member, reason, now) if member is not None else []
        return out + self._update_media_of(member, now)

    def end(self, reason: ExitReason, now: int) -> Outputs:
        return self._start_ending(reason, now) + self.update_media(now)

    def watch(self, until: int, now: int) -> Outputs:
        self.watched_until = max(until, self.watched_until or 0)
        return self.update_media(now)

    def step_ended(self) -> None:
        """Forget what was collected for a single step."""
        step = self.step
        if step.reports or step.departed or step.creates_conference:
            step.reports, step.departed, step.creates_conference = [], [], False

    # Joining.

    def claim_name(self) -> Outputs:
        if self.is_private:
            self.claim, self.bridge = ClaimState.GRANTED, BridgeState.CREATING
            return [CreateBridge(self.bridge_id)]
        return [ClaimName(self.auth_id, self.name, self.conference_id)]

    def join(self, member: Member, now: int) -> Outputs:
        """Add a member. The dispatcher has checked that the conference is live, not full and not locked."""
        listened = self._needs_talk_detection
        self.members[member.member_id] = self.index.by_channel[member.channel_id] = member
        out = self._admit(member, now) if self.claim is ClaimState.GRANTED else []
        # The first member with floorEvent requires talk detection for all members.
        listens = member.element.floor_event and not listened
        return out + (self.update_media(now) if listens else self._update_media_of(member, now))

    def _on_claim_result(self, event: ev.NameClaimed | ev.NameTaken, now: int) -> Outputs:
        if self.claim is not ClaimState.REQUESTED:
            return []
        members = list(self.members.values())
        if isinstance(event, ev.NameTaken):
            why = f"its name is in use on {event.owner}; a conference can't span two Asterisk servers"
            return self._on_claim_refused(why)
        self.claim = ClaimState.GRANTED
        if not members:
            return self._start_ending("conference_ended", now) + self._release_name()
        self.bridge = BridgeState.CREATING
        out: Outputs = [CreateBridge(self.bridge_id)]
        for member in members:
            out += self._admit(member, now)
        return out

    def _on_claim_refused(self, why: str) -> Outputs:
        members = list(self.members.values())
        self.claim, self.ending = ClaimState.RELEASED, True
        for member in members:
            self._remove_member(member)
        return [JoinSkipped(m.call_uuid, f"conference {self.name!r} could not be joined: {why}") for m in members]

    def _admit(self, member: Member, now: int) -> Outputs:
        element = member.element
        out: Outputs = [Admitted(member.call_uuid)]
        self.entered += 1
        # Spec: "enter callback, also while waiting for the start"
        out += self._request_callback(member, "enter", now, ("ConferenceFirstMember", bool_text(self.entered == 1)))
        member.change_state(WAITING)
        member.joined_at = now
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
        return out + member.request_sound(member.enter_sound) + member.request_sound(member.exit_sound)

    def _on_entered_bridge(self, member: Member, now: int) -> Outputs:
        if member.reentering:
            member.reentering = member.outside = False
            return []
        if member.state is not ENTERING_BRIDGE:
            return []
        member.change_state(IN_BRIDGE)
        member.stream_restarted = False
        if not member.has_entered_bridge:
            member.has_entered_bridge = True
            member.scheduled_digits = schedule_digits(member.element.send_digits, now)
        return self._play_enter_sound(member, now)

    def _request_callback(self, member: Member, action: CallbackAction, now: int, *params: tuple[str, str]) -> Outputs:
        element = member.element
        if element.callback_url is None:
            return []
        self.sequence += 1
        all_params = (
            ("ConferenceAction", action),
            ("ConferenceName", self.name),
            ("ConferenceUUID", self.conference_id),
            ("ConferenceMemberID", str(member.member_id)),
            *params,
            ("ConferenceSequence", str(self.sequence)),
            ("Timestamp", str(now)),
        )
        event = CALLBACK_EVENT_NAMES[action]
        callback = CallbackRequested(member.call_uuid, self.conference_id, element, event, all_params)
        self.step.reports.append(callback)
        return [callback]

    # Media state.

    def update_media(self, now: int, changed: tuple[Member, ...] | None = None) -> Outputs:
        """Update the media state. `changed`: the members that may have changed since the last update; None: all."""
        if changed is None:
            self._update_audio()
        members = self.members.values() if changed is None else changed
        out = self._update_members(members, now) if members else []
        if self.recordings:
            out += self._hand_over_recordings(now)
        if self.shared_playback.players or self.dial_music:
            self.shared_playback.drop_finished()
            out += self._update_dial_music(now)
        return out + (self._tear_down(now) if self.ending and not self.members else [])

    def _update_media_of(self, member: Member | None, now: int) -> Outputs:
        """Update the media state of `member`, or of all if the shared audio state has changed."""
        if self._update_audio():
            return self.update_media(now)
        return self.update_media(now, (member,) if member is not None and member.member_id in self.members else ())

    def _update_members(self, members: Collection[Member], now: int) -> Outputs:
        out: Outputs = []
        audio, any_new = self.audio, False
        for member in members:
            if (
                audio.one_member_present
                or member.state is not IN_BRIDGE
                or member.hold_requested
                or member.stream_restarted
                or not member.is_silent
            ):
                out += member.update_media(audio, self.bridge_id, now)
                if member.state is LEAVING_FOR_HOLD and self.floor == member.member_id:
                    self.floor = None
            # Usually false: members in the bridge already have talk detection.
            any_new = any_new or (member.state is IN_BRIDGE and (not member.talk_detection_on or member.element.record))
        self.index.update(members)
        if any_new and not self.ending and self.bridge is READY:
            started = self._start_recording_if_due(members, now)
            out += started
            out += self._enable_talk_detection(self.members.values() if started else members)
        return out

    def _enable_talk_detection(self, members: Collection[Member]) -> Outputs:
        # The floor holder is known only if all talkers are. Detection costs Asterisk CPU: enable it only if needed.
        new = [m for m in members if not m.talk_detection_on and m.state is IN_BRIDGE]
        if not new or not self._needs_talk_detection:
            return []
        for member in new:
            member.talk_detection_on = True
            member.talk_ms = member.talk_ms or 0
            self.index.mark_changed(member)
        return [DetectTalking(m.channel_id, FLOOR_SILENCE_MS) for m in new]

    def _stop_watching(self) -> Outputs:
        """Stop talk detection unless something other than viewers needs it: no viewer is left."""
        self.watched_until = None
        if self._needs_talk_detection:
            return []
        # From here on, the floor holder is unknown.
        self.floor = None
        detected = [m for m in self.members.values() if m.talk_detection_on and m.state is not LEAVING]
        for member in detected:
            member.talk_detection_on = member.talking = False
        return [DetectTalking(m.channel_id, None) for m in detected]

    # Digits.

    def _on_digit(self, member: Member, digit: str, now: int) -> Outputs:
        if not member.is_present:
            return []
        if digit == "*" and member.element.hangup_on_star:
            # Spec: "`*` with hangupOnStar leaves at once, whatever the patterns are"
            return self._start_leaving(member, "star", now)
        return self._apply_digit_runs(member, member.matcher.press(digit, now), now)

    def _apply_digit_runs(self, member: Member, runs: list[DigitRun], now: int) -> Outputs:
        out: Outputs = []
        for run in runs:
            if run.matched:
                out += self._request_callback(member, "digits", now, ("ConferenceDigitsMatch", run.text))
            elif member.element.relay_dtmf:
                out += self._relay_digits(member, run.text)
        return out

    def _relay_digits(self, member: Member, digits: str) -> Outputs:
        # Spec: "sent to all others", which means the members that hear the conference.
        if member.state is not IN_BRIDGE:
            return []
        return [SendDigits(m.channel_id, digits) for m in self.members_in_bridge if m is not member and not m.deaf]

    def send_digits(self, digits: SendDigits, now: int) -> Outputs:
        """Send digits to the phone of a member. What is played to the member alone continues after them."""
        member = self.index.by_channel.get(digits.channel_id)
        if member is None:
            return [digits]
        self.index.changed[member.member_id] = member
        return [*interrupted((member.player, member.private_playback.player), digits, now)]

    # Talking and the floor.

    def _on_talking_started(self, member: Member, now: int) -> Outputs:
        if member.held_by_phone:
            return []
        member.talking_at = member.talking_at if member.talking else now
        member.talking = True
        if member.state is not IN_BRIDGE or member.silenced:
            return []
        holder = self.members.get(self.floor) if self.floor is not None else None
        # Spec: "An unmuted member who starts to talk takes it if nobody holds it or the holder is silent"
        if holder is member or (holder is not None and holder.talking):
            return []
        return self._give_floor(member, now)

    def _give_floor(self, member: Member, now: int) -> Outputs:
        self.floor = member.member_id
        # Spec: "One event for each taking"
        return self._request_callback(member, "floor", now) if member.element.floor_event else []

    def _pass_floor(self, holder: Member, now: int) -> Outputs:
        """Take the floor from `holder` and pass it to the member who has been talking longest, if any.

        Spec: "It becomes free when the holder … is held …, or when no audio has come from them for a second".
        """
        if self.floor != holder.member_id:
            return []
        self.floor = None
        talkers = [m for m in self.members_in_bridge if m.talking and not m.silenced]
        if not talkers:
            return []
        return self._give_floor(min(talkers, key=lambda m: m.talking_at), now)

    def _on_audio_stopped(self, member: Member, for_ms: int, now: int) -> Outputs:
        if not member.talking:
            return []
        out = self.note_speech(member, now - for_ms)
        member.talking = False
        return [*out, *self._pass_floor(member, now), *member.restart_talk_detection()]

    def _on_phone_held(self, member: Member, now: int) -> Outputs:
        """Silence a member whose phone has put the call on hold: music from the phone is not mixed or recorded."""
        if member.held_by_phone:
            return []
        out = self.note_speech(member, now)
        was_silenced, member.held_by_phone, member.talking = member.silenced, True, False
        return [*out, *self._pass_floor(member, now), *self._update_mute(member, was_silenced)]

    def _on_phone_resumed(self, member: Member) -> Outputs:
        # A member who leaves is unmuted once they are out, and therefore counts as held until then.
        if not member.held_by_phone or member.state is LEAVING:
            return []
        was_silenced, member.held_by_phone = member.silenced, False
        # The audio that follows may arrive as another RTP stream.
        member.stream_restarted = member.state is IN_BRIDGE
        return [*self._update_mute(member, was_silenced), *member.restart_talk_detection()]

    def _update_mute(self, member: Member, was_silenced: bool) -> Outputs:
        if was_silenced == member.silenced or not member.is_present:
            return []
        return [MuteChannel(member.channel_id, member.silenced)]

    # Quality of the lines.

    def _on_line_measured(self, member: Member, measurement: LineMeasurement) -> Outputs:
        """Note a measurement. A line that has become bad is reported once in a membership."""
        if not member.is_present:
            return []
        quality = member.quality = updated(member.quality, measurement)
        if not quality.bad or quality.reported or self._reported_lines >= MAX_REPORTED_LINES:
            return []
        member.quality = msgspec.structs.replace(quality, reported=True)
        text = f"the line of member {member.member_id} in conference {self.name!r} is bad: {quality.current.text}"
        return [member.problem(ProblemKind.LINE_BAD, text)]

    @property
    def _reported_lines(self) -> int:
        return sum(m.quality is not None and m.quality.reported for m in self.members.values())

    # Sounds.

    def _play_enter_sound(self, member: Member, now: int) -> Outputs:
        items = member.enter_sound.items
        if member.state is not IN_BRIDGE or not member.enter_due or items is None:
            return []
        member.enter_due = False
        return self._play_to_all(member, items, now)

    def _play_to_all(self, member: Member, items: tuple[Prompt, ...], now: int) -> Outputs:
        """Play a member's enter or exit sound to the whole conference."""
        if not items or self.ending or self.bridge is not READY:
            return []
        playback = self.shared_playback
        if len(playback.players) - len(playback.announcements) >= MAX_QUEUED:
            text = f"{MAX_QUEUED} enter and exit sounds are already queued: this sound is not played"
            return [member.problem(ProblemKind.SOUNDS_DROPPED, text)]
        owner, target = ids.for_conference(self.conference_id), Target("bridge", self.bridge_id)
        return [*playback.play(owner, target, items, now, member.call_uuid)]

    def _on_playback(self, playback_id: str, event: ev.Event, now: int) -> Outputs:
        member = self.members.get(ids.member_of(playback_id) or 0)
        return (
            member.handle_playback_event(event, now)
            if member is not None
            else self._on_shared_playback(playback_id, event, now)
        )

    def _on_shared_playback(self, playback_id: str, event: ev.Event, now: int) -> Outputs:
        player = self.shared_playback.player_of(playback_id)
        if player is None:
            return []
        out: Outputs = []
        if isinstance(event, ev.SoundFailed):
            out.append(ReportProblem(self.auth_id, player.call_uuid, event.kind, None, event.reason))
        out += self.shared_playback.handle_event(player, event, now)
        return out + (self._update_dial_music(now) if self.dial_music else [])

    def change_dial_music(self, call_uuid: str, music: str | None, now: int) -> Outputs:
        """Note that a call into the conference is being placed, or, if `music` is None, no longer."""
        if music is None:
            self.dial_music.pop(call_uuid, None)
        else:
            self.dial_music[call_uuid] = music
        return self._update_dial_music(now)

    def _update_dial_music(self, now: int) -> Outputs:
        """Play the dial music of the oldest call that is being placed, unless the members hear another sound."""
        playback, owner = self.shared_playback, ids.for_conference(self.conference_id, DIAL_MUSIC)
        playing = playback.dial_music
        is_free = len(playback.players) == (0 if playing is None else 1)
        may_play = is_free and self.bridge is READY and not self.ending and bool(self.members_in_bridge)
        call_uuid, music = next(iter(self.dial_music.items()), ("", None)) if may_play else ("", None)
        out: Outputs = []
        if playing is not None and (music is None or playing.items != (Play(music),)):
            out, playing = [*playing.stop()], None
            playback.drop_finished()
        if playing is None and music is not None:
            target = Target("bridge", self.bridge_id)
            out += playback.play(owner, target, (Play(music),), now, call_uuid, endless=True)
        return out

    def _on_sound_document(self, event: ev.SoundDocumentFetched | ev.SoundDocumentFailed, now: int) -> Outputs:
        member = self.members.get(ids.member_of(event.fetch_id) or 0)
        sound = member.pending_sound(event.fetch_id) if member else None
        if member is None or sound is None:
            return []
        if isinstance(event, ev.SoundDocumentFailed):
            member.on_sound_failed(sound)
            return [member.problem(event.kind, f"{sound.action}: {event.reason}")]
        member.on_sound_fetched(sound, event.sounds, now)
        out: Outputs = [member.problem(ProblemKind.DOCUMENT_WARNING, f"{sound.action}: {w}") for w in event.warnings]
        return out + self._play_enter_sound(member, now)

    # Recording.

    def _start_recording_if_due(self, members: Collection[Member], now: int) -> Outputs:
        # Spec: "It begins when the conference has started and a member whose record is true is in"
        # A recording of the API can be followed by another: a member who joined after its end can start one.
        last = self.newest_recording
        if last is not None and not (last.api_id and last.handed_over):
            return []
        over = last.ended_at if last is not None else None
        recorders = [m for m in members if m.element.record and m.state is IN_BRIDGE and m.joined_at > (over or -1)]
        if not recorders:
            return []
        member = recorders[0]
        started = self.start_recording(
            ConferenceRecording(
                recording_id=member.recording_id,
                bridge_id=self.bridge_id,
                auth_id=self.auth_id,
                call_uuid=member.call_uuid,
                element=member.element,
                started_at=now,
            )
        )
        return [RecordingRequested(member.call_uuid, self.conference_id, member.recording_id), *started]

    def start_recording(self, recording: ConferenceRecording) -> list[Effect]:
        # This includes members who are still waiting for the bridge.
        recording.wideband = any(m.wideband for m in self.members.values())
        self.recordings = {key: other for key, other in self.recordings.items() if not other.handed_over}
        self.recordings[recording.recording_id] = recording
        return recording.start()

    def set_recording_params(self, recording_id: str, params: Params) -> None:
        """Set the standard parameters of the requesting call. Spec: "No ConferenceMemberID, no CallUUID"."""
        if (recording := self.recordings.get(recording_id)) is not None:
            recording.params = tuple(param for param in params if param[0] != "CallUUID")

    def _on_recording_finished(self, recording: ConferenceRecording, failed: bool, now: int) -> Outputs:
        by_itself = recording.is_running and self.bridge is READY and bool(self.members)
        recording.mark_stopped(now, failed)
        if not by_itself:
            return []
        what = f"the recording of conference {self.name!r} stopped unexpectedly; the conference continues"
        text = f"{what}: is Asterisk's disk full?"
        return [ReportProblem(self.auth_id, recording.call_uuid, ProblemKind.RECORDING_FAILED, None, text)]

    def _hand_over_recordings(self, now: int) -> Outputs:
        out: Outputs = []
        for recording in self.recordings.values():
            if recording.is_finished and not recording.handed_over:
                out += self._hand_over_recording(recording, now)
        return out

    def _hand_over_recording(self, recording: ConferenceRecording, now: int) -> Outputs:
        """Hand over a finished recording, with the members' attendance and speech."""
        out: Outputs = []
        for member in self.members.values():
            out += recording.note_attendance(member, now, None)
        sequence = self.sequence
        if recording.element.callback_url is not None and not recording.api_id:
            sequence += 1
        stored = recording.hand_over(self.conference_id, self.name, sequence, self.public_url)
        self.step.reports.append(stored)
        self.sequence, recording.handed_over = sequence, True
        return [*out, stored]

    def note_speech(self, member: Member, end: int) -> Outputs:
        """Note for history and recordings, if the member is talking, that they have been talking until `end`."""
        out: Outputs = [*member.note_talk(end)] if member.talking else []
        if not self.recordings:
            return out
        return out + [note for recording in self.recordings.values() for note in recording.note_speech(member, end)]

    # Leaving.

    def _start_leaving(self, member: Member, reason: ExitReason, now: int) -> Outputs:
        state = member.state
        if state is LEAVING:
            # The member hung up while leaving the bridge: no further event about this channel will come.
            member.reason = member.reason or reason
            return self._complete_leaving(member, now) if reason == "hangup" else []
        out = member.stop_all_sounds() + self._apply_digit_runs(member, member.matcher.flush(), now)
        if state is AWAITING_NAME:
            self._remove_member(member)
            return [*out, MemberReleased(member.call_uuid, member.element, ())]
        member.change_state(LEAVING)
        member.reason, member.scheduled_digits = reason, ()
        outside = state in (WAITING, AWAITING_BRIDGE, ON_HOLD)
        if reason == "hangup" or outside:
            return out + self._complete_leaving(member, now)
        member.leaving_until = now + LEAVE_TIMEOUT_MS
        if state is LEAVING_FOR_HOLD:
            # The member is already leaving the bridge.
            return out
        return [*out, RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]

    def _on_left_bridge(self, member: Member, now: int) -> Outputs:
        if member.reentering:
            # The channel is about to re-enter the bridge.
            member.outside = True
            return []
        if member.state is IN_BRIDGE:
            # Something other than the server removed the channel from the bridge: the call continues its document.
            member.change_state(LEAVING)
            member.reason = "conference_ended"
        elif member.state is LEAVING_FOR_HOLD:
            # The member goes on hold from there, or returns to the bridge if the hold has ended in the meantime.
            member.change_state(AWAITING_BRIDGE)
        return self._complete_leaving(member, now) if member.state is LEAVING else []

    def _complete_leaving(self, member: Member, now: int) -> Outputs:
        """Complete a departure, in this order: out of the mix, exit callback, exitSound, consequences for the
        conference, the member's action."""
        self._remove_member(member)
        self.step.departed.append(member)
        reason = member.reason or "conference_ended"
        if self.floor == member.member_id:
            self.floor = None
        out = member.stop_all_sounds()
        for recording in self.recordings.values():
            out += recording.note_attendance(member, now, now)
        if reason != "hangup":
            out += [DetectTalking(member.channel_id, None)] if member.talk_detection_on else []
            out += [MuteChannel(member.channel_id, False)] if member.silenced else []
            out += [DeafenChannel(member.channel_id, False)] if member.deaf else []
        last = ("ConferenceLastMember", bool_text(not self.members))
        out += self._request_callback(member, "exit", now, last, ("ConferenceExitReason", reason))
        out += self._archive(member, reason, now)
        out += self._after_member_left(member, now)
        out.append(MemberReleased(member.call_uuid, member.element, self._action_params(member)))
        return out

    def _archive(self, member: Member, reason: ExitReason, now: int) -> Outputs:
        """Return what the history keeps of a member who has left."""
        if self.is_private:
            return []
        talks = [effect for effect in member.note_talk(now) if isinstance(effect, ArchiveTalks)]
        departed = MemberDeparted(
            ArchiveMember(
                self.conference_id,
                member.member_id,
                self.auth_id,
                member.call_uuid,
                member.joined_at,
                now,
                reason,
                talk_ms=member.talk_ms,
                talks=(*(talk for effect in talks for talk in effect.talks), *member.take_talks()),
                quality=member.quality,
            )
        )
        self.step.reports.append(departed)
        return [departed]

    def _remove_member(self, member: Member) -> None:
        # If one of these raises, `give_up` finds the member where and as they were.
        self.index.remove(member)
        member.change_state(LEFT)
        del self.members[member.member_id]

    def _after_member_left(self, member: Member, now: int) -> Outputs:
        if member.element.end_conference_on_exit:
            return self._start_ending("host_left", now)
        if not self.members:
            # Spec: "The last one out ends it."
            return self._start_ending("conference_ended", now)
        if not self.stay_alone and self.remaining_count == 1:
            return self._start_ending("left_alone", now)
        items = member.exit_sound.items
        return self._play_to_all(member, items, now) if items and self.started and self.members_in_bridge else []

    def _action_params(self, member: Member) -> Params:
        params = (
            ("ConferenceName", self.name),
            ("ConferenceUUID", self.conference_id),
            ("ConferenceMemberID", str(member.member_id)),
        )
        if member.element.record and (recording := self.newest_recording) is not None:
            return (*params, ("RecordUrl", recording.url(self.public_url)), ("RecordingID", recording.recording_id))
        return params

    # Ending.

    def _start_ending(self, reason: ExitReason, now: int) -> Outputs:
        if self.ending:
            return []
        self.ended_at, self.end_reason = now, reason
        self.ending = True
        out: Outputs = [*self.shared_playback.stop()]
        out += self._release_name()
        for member in list(self.members.values()):
            out += self._start_leaving(member, reason, now)
        return [*out, StopPreparing(self.conference_id)]

    def _release_name(self) -> Outputs:
        if self.claim is not ClaimState.GRANTED:
            return []
        return self._free_name()

    def _free_name(self) -> Outputs:
        self.claim = ClaimState.RELEASED
        return [] if self.is_private else [ReleaseName(self.auth_id, self.name, self.conference_id)]

    def _tear_down(self, now: int) -> Outputs:
        out: Outputs = []
        if self.bridge is READY:
            for recording in self.recordings.values():
                out += recording.stop(now)
        exists = self.bridge in (BridgeState.CREATING, BridgeState.READY)
        if exists and all(recording.is_finished for recording in self.recordings.values()):
            out += self._destroy_bridge(now)
        return out

    def _destroy_bridge(self, now: int) -> Outputs:
        """Destroy the bridge. DestroyBridge is repeated until the bridge no longer exists; nothing waits for that."""
        self.bridge, self.destroy_again_at = BridgeState.DESTROYING, now + retry_delay_ms(self.destroys)
        return [DestroyBridge(self.bridge_id)]

    def _on_bridge_destroyed(self, now: int) -> Outputs:
        self.bridge, self.destroy_again_at = BridgeState.DESTROYED, None
        for recording in self.recordings.values():
            recording.mark_stopped(now)
        out = self._start_ending("conference_ended", now)
        for member in list(self.members.values()):
            out += self._complete_leaving(member, now)
        return out

    # Failed effects.

    def _on_effect_failed(self, failure: ev.EffectFailed, now: int) -> Outputs:
        match failure.effect:
            case CreateBridge() if self.bridge is BridgeState.CREATING:
                problems: Outputs = [
                    m.problem(ProblemKind.ASTERISK_FAILED, failure.reason) for m in self.members.values()
                ]
                # The bridge may exist although the request failed: the response may have been lost.
                destroyed = self._destroy_bridge(now)
                return [*problems, *self._start_ending("conference_ended", now), *destroyed]
            case DestroyBridge() if failure.target_gone:
                # Otherwise DestroyBridge is repeated at its deadline: don't leave the bridge behind in Asterisk.
                return self._on_bridge_destroyed(now)
            case ClaimName() if self.claim is ClaimState.REQUESTED:
                return self._on_claim_refused(f"its name could not be claimed: {failure.reason}")
            case AddChannel(member_id=member_id) | RemoveChannel(member_id=member_id):
                member = self.members.get(member_id)
                return self._on_move_failed(member, failure, now) if member else []
            case PlayMedia(_, playback_id):
                return self._on_playback(playback_id, ev.PlaybackFinished(playback_id, failed=True), now)
            case StopRecording(_, recording_id) if failure.target_gone:
                # Otherwise it may still run: StopRecording is repeated, and the recording's deadline decides.
                if (recording := self.recordings.get(recording_id)) is not None:
                    recording.mark_stopped(now)
            case StartRecording(_, recording_id) if (recording := self.recordings.get(recording_id)) is not None:
                if failure.refused:
                    recording.mark_refused()
                else:
                    recording.may_have_no_file = True
                text = f"recording {recording_id} of conference {self.name!r} could not be started: {failure.reason}"
                return [ReportProblem(self.auth_id, recording.call_uuid, ProblemKind.RECORDING_FAILED, None, text)]
        return []

    def _on_move_failed(self, member: Member, failure: ev.EffectFailed, now: int) -> Outputs:
        if member.reentering and isinstance(failure.effect, AddChannel):
            return self._on_reentry_failed(member, failure, now)
        if member.state is LEAVING and isinstance(failure.effect, RemoveChannel):
            if not failure.target_gone:
                return self._on_removal_failed(member, failure, now)
            if member.reason is not None:
                return self._complete_leaving(member, now)
            # Asterisk did not add the channel; the event that shows the reason may be on its way.
            member.outside = True
            return []
        if member.state is LEAVING_FOR_HOLD and isinstance(failure.effect, RemoveChannel):
            member.change_state(IN_BRIDGE)
            member.hold_requested = False
            text = f"the member could not be put on hold: {failure.reason}"
            return [] if failure.target_gone else [member.problem(ProblemKind.ASTERISK_FAILED, text)]
        if member.state is ENTERING_BRIDGE and isinstance(failure.effect, AddChannel):
            # Either the member has hung up or the bridge no longer exists, and the event is on its way.
            # Or Asterisk can't add the channel, or has added it and the response was lost.
            # So remove the channel; the first event that arrives shows the reason.
            member.change_state(LEAVING)
            member.scheduled_digits, member.leaving_until = (), now + LEAVE_TIMEOUT_MS
            problems: Outputs = (
                [] if failure.target_gone else [member.problem(ProblemKind.ASTERISK_FAILED, failure.reason)]
            )
            return [*problems, RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]
        return []

    def _on_reentry_failed(self, member: Member, failure: ev.EffectFailed, now: int) -> Outputs:
        """Let a member who is still in the bridge stay there, and one who is outside join like a new member."""
        if not (failure.target_gone or failure.refused):
            # Asterisk may still do it. Events or the reconciliation show the result; then the channel re-enters again.
            member.stream_restarted = True
            return []
        was_outside, member.outside, member.reentering = member.outside, False, False
        text = f"the member may not be audible to the others: {failure.reason}"
        problems: Outputs = [] if failure.target_gone else [member.problem(ProblemKind.ASTERISK_FAILED, text)]
        if was_outside and member.state is LEAVING:
            return [*problems, *self._complete_leaving(member, now)]
        if was_outside and member.state is IN_BRIDGE:
            member.change_state(AWAITING_BRIDGE)
        return problems

    def _on_removal_failed(self, member: Member, failure: ev.EffectFailed, now: int) -> Outputs:
        """Mute and deafen a leaving member whose channel is still in the bridge, so that the member and the others do
        not hear each other until it is out."""
        if member.stuck:
            return []
        member.stuck = True
        text = f"the member could not be removed from the conference yet, and the request is repeated: {failure.reason}"
        out: Outputs = [member.problem(ProblemKind.ASTERISK_FAILED, text)]
        # Speech so far was heard.
        out += self.note_speech(member, now)
        out += [] if member.silenced else [MuteChannel(member.channel_id, True)]
        out += [] if member.deaf else [DeafenChannel(member.channel_id, True)]
        member.muted = member.deaf = True
        return out

    # Deadlines.

    def _on_deadline(self, now: int) -> Outputs:
        out: Outputs = []
        if self.destroy_again_at is not None and self.destroy_again_at <= now:
            self.destroys += 1
            out += self._destroy_bridge(now)
        for member in list(self.members.values()):
            out += self._on_member_deadline(member, now)
        out += self.shared_playback.on_deadline(now)
        for recording in self.recordings.values():
            out += recording.on_deadline(now)
        if self.watched_until is not None and self.watched_until <= now:
            out += self._stop_watching()
        if self.ends_at <= now:
            # Spec: "the conference ends after it"
            out += self._start_ending("time_limit", now)
        return out

    def _on_member_deadline(self, member: Member, now: int) -> Outputs:
        out: Outputs = []
        if member.matcher.deadline is not None and member.matcher.deadline <= now:
            out += self._apply_digit_runs(member, member.matcher.flush(), now)
        if member.wait_sound_retry_at is not None and member.wait_sound_retry_at <= now:
            member.wait_sound_retry_at = None
        while member.scheduled_digits and member.scheduled_digits[0][0] <= now:
            out += self._relay_digits(member, member.scheduled_digits[0][1])
            member.scheduled_digits = member.scheduled_digits[1:]
        out += member.handle_playback_event(ev.DeadlineReached(), now)
        return out + (self._on_leave_deadline(member, now) if member.state is LEAVING else [])

    def _on_leave_deadline(self, member: Member, now: int) -> Outputs:
        if member.leaving_until is None or member.leaving_until > now:
            return []
        if member.outside:
            return self._complete_leaving(member, now)
        member.removals += 1
        if member.removals > REMOVALS:
            # Only a hangup can still take the channel out of the bridge.
            member.leaving_until = None
            return [HangupRequested(member.call_uuid)]
        member.leaving_until = now + REMOVAL_AGAIN_MS
        return [RemoveChannel(member.channel_id, self.bridge_id, member.member_id)]

    # Recovery.

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the conference and its members expect of Asterisk: see `expectations.py`."""
        about = Expectation("bridge", self.bridge_id, self.bridge_id)
        if self.bridge is BridgeState.CREATING:
            yield about._replace(if_there=ev.BridgeCreated(self.bridge_id))
        elif self.bridge in (READY, BridgeState.DESTROYING):
            yield about._replace(if_gone=ev.BridgeDestroyed(self.bridge_id))
        for member in self.members.values():
            yield from member.expectations(self.bridge_id)
        for player in self.shared_playback.players.values():
            yield from player.expectations()
        for recording in self.recordings.values():
            yield from recording.expectations()

    def resume(self, there: AsteriskState) -> Outputs:
        """Return the effects in progress, which may have been lost with the previous process."""
        exists = self.bridge_id in there.bridges
        out: Outputs = [effect for _, effect in self.recent_switch_offs if exists]
        if self.claim is ClaimState.REQUESTED:
            out += self.claim_name()
        if self.bridge is BridgeState.CREATING and not exists:
            out.append(CreateBridge(self.bridge_id))
        if self.bridge is BridgeState.DESTROYING and exists:
            out.append(DestroyBridge(self.bridge_id))
        for member in self.members.values():
            if member.channel_id in there.channels:
                out += member.resume(self.bridge_id, there)
        for player in self.shared_playback.players.values():
            out += player.resume(there)
        for recording in self.recordings.values():
            out += recording.resume(there)
        return out

    def talking_members(self) -> list[Member]:
        """Return the members that talk in the bridge, as far as is known."""
        return [m for m in self.members_in_bridge if m.talking]

    def evict_strangers(self, there: AsteriskState, before: Iterable[Expectation]) -> Outputs:
        """Remove channels from the bridge that already before the snapshot belonged to no member, or to a member
        outside. They hear the others and are heard, and nothing else would ever remove them.

        `before`: all expectations before the snapshot."""
        inside = there.bridges.get(self.bridge_id, frozenset()) if self.bridge is READY else frozenset()
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
        out: Outputs = [*self.step.reports]
        have_left, have_entered = (self._have_callback(action) for action in ("exit", "enter"))
        # The persisted records of these members are to be deleted.
        member_ids = [*self.members]
        for member in [m for m in (*self.step.departed, *self.members.values()) if m.call_uuid not in have_left]:
            if member.state is not AWAITING_NAME or member.call_uuid in have_entered:
                out += tried(lambda: self._exit(member, now))  # noqa: B023 -- done before the next one
        out += tried(lambda: self._hand_over(now))
        self.members, self.shared_playback, self.recordings, self.recent_switch_offs = {}, SharedPlayback(), {}, ()
        self.ending, self.floor, self.watched_until = True, None, None
        self.index.clear(member_ids)
        claim_requested, self.step = not self.step.creates_conference, CurrentStep()
        out.append(StopPreparing(self.conference_id))
        if self.claim is ClaimState.REQUESTED and self.bridge is BridgeState.NONE and claim_requested:
            # The bridge does not exist yet, and the name is released once the claim is granted.
            return out
        return [*out, *self._free_name(), *self._destroy_bridge(now)]

    def _have_callback(self, action: CallbackAction) -> set[str]:
        """Return the UUIDs of the calls with this callback in the current step."""
        name, reports = CALLBACK_EVENT_NAMES[action], self.step.reports
        return {r.call_uuid for r in reports if isinstance(r, CallbackRequested) and r.event == name}

    def _exit(self, member: Member, now: int) -> Outputs:
        self.members = {key: other for key, other in self.members.items() if other is not member}
        member.joined_at = min(max(member.joined_at, 0), now)
        out: Outputs = []
        for recording in self.recordings.values():
            out += recording.note_attendance(member, now, now)
        last = ("ConferenceLastMember", bool_text(not self.members))
        reason = ("ConferenceExitReason", "conference_ended")
        out += self._request_callback(member, "exit", now, last, reason)
        return out if self._is_archived(member) else [*out, *self._archive(member, "conference_ended", now)]

    def _is_archived(self, member: Member) -> bool:
        """Return whether the current step has handed the member to the history."""
        return any(isinstance(r, MemberDeparted) and r.member.member_id == member.member_id for r in self.step.reports)

    def _hand_over(self, now: int) -> Outputs:
        """Hand over the recordings that are not yet. One may still run: the worker that stores it waits for its end."""
        out: Outputs = []
        jobs = {report.recording_id for report in self.step.reports if isinstance(report, StoreRecording)}
        for recording in self.recordings.values():
            if recording.handed_over or recording.recording_id in jobs:
                continue
            recording.bridge_id, recording.auth_id = self.bridge_id, self.auth_id
            recording.started_at = recording.started_at if plausible(recording.started_at) else now
            recording.ended_at = recording.ended_at if plausible(recording.ended_at) else now
            out += recording.stop(now)
            recording.mark_stopped(now)
            out += self._hand_over_recording(recording, now)
        return out


def tried(work: Callable[[], list[T]]) -> list[T]:
    """Return the result of `work`, or an empty list if it raises because the state is inconsistent or damaged."""
    try:
        return work()
    except Exception:
        return []
