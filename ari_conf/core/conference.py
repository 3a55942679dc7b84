"""A conference: who is in it, what each hears, when it starts and ends.

Nothing but its own events changes it. What can be derived from the members is derived: after each event `_settle`
brings what Asterisk does for each member (wait sound, mix, talk detection, recording) to what the members now imply.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.callbacks import truth
from ari_conf.core.digits import Found
from ari_conf.core.effects import (
    AddChannel,
    ClaimName,
    CreateBridge,
    DeafenChannel,
    DestroyBridge,
    DetectTalking,
    Effect,
    MuteChannel,
    NoteTalk,
    Params,
    PlayMedia,
    ReleaseName,
    RemoveChannel,
    ReportProblem,
    SendDigits,
    StartRecording,
    StopRecording,
    Target,
    Undone,
)
from ari_conf.core.elements import Prompt
from ari_conf.core.internal import Admitted, Finished, Notify, Out, RecordingAsked, Released, Skipped, Stayed
from ari_conf.core.member import Member, Reason, schedule
from ari_conf.core.obey import obey
from ari_conf.core.player import Player
from ari_conf.core.recording import Recording

CAP_S = 86400
"""The server's cap on a conference's length."""
LEAVING_MS = 3000
"""Asterisk says at once that a channel has left a bridge; a member of whom it never does is let go all the same."""
DESTROYS = 3
DESTROY_AGAIN_MS = 5000
FLOOR_SILENCE_MS = 500
"""This much silence is the end of talking."""


OfMember = ev.ChannelEnteredBridge | ev.ChannelLeftBridge | ev.DigitReceived
OfPlayback = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
OF_TALKING = frozenset({ev.TalkingStarted, ev.TalkingFinished})
OF_MEMBER, OF_PLAYBACK = frozenset(get_args(OfMember)), frozenset(get_args(OfPlayback))
Action = Literal["enter", "exit", "digits", "floor"]
EVENTS: dict[Action, str] = {
    "enter": "ConferenceEnter",
    "exit": "ConferenceExit",
    "digits": "ConferenceDigitsMatch",
    "floor": "ConferenceFloor",
}
"""By the ConferenceAction that their callbacks say."""
Common = tuple[bool, bool, str, bool]


class Beside:
    """What is known of the members at a glance, so that none has to be looked for at each event. It is beside what a
    conference is: it is never written, and the simulation compares it with the members after each event."""

    __slots__ = ("_by_channel", "_due")
    _by_channel: dict[str, Member]
    _due: dict[int, int]
    """The deadlines of those who have one, by their ids."""

    def _see(self, members: Collection[Member]) -> None:
        self._by_channel = {m.channel_id: m for m in members}
        self._due = {}
        self._see_due(members)

    def _see_due(self, members: Collection[Member]) -> None:
        for member in members:
            deadline = member.deadline
            if deadline is not None:
                self._due[member.member_id] = deadline
            elif self._due:
                self._due.pop(member.member_id, None)


@dataclass(slots=True)
class Conference(Beside):
    conference_id: str
    auth_id: str
    name: str
    created_at: int
    max_members: int
    """"set by the first member, fixed afterwards"."""
    public_url: str
    members: dict[int, Member] = field(default_factory=dict)
    claim: Literal["asked", "held", "released"] = "asked"
    bridge: Literal["none", "creating", "ready", "destroying", "gone"] = "none"
    started: bool = False
    """"it stays started until it ends, also if that member leaves"."""
    ending: bool = False
    stay_alone: bool = True
    """"Once false it stays false"."""
    ends_at: int = 0
    limit_given: bool = False
    """The first member whose element gives a timeLimit sets it, be it 0."""
    entered: int = 0
    """How many have entered so far."""
    sequence: int = 0
    """Of the last callback."""
    floor: int | None = None
    """The member who holds it."""
    players: dict[str, Player] = field(default_factory=dict)
    """Enter and exit sounds that are being played."""
    sounds: int = 0
    """How many of them there were: part of their playbacks' ids."""
    recording: Recording | None = None
    locked: bool = False
    """Nobody else is let in."""
    undone: Undone = ()
    """Of the bridge."""
    destroys: int = 0
    destroy_again_at: int | None = None
    """Asterisk could not destroy the bridge: how often so far, and when it is asked again."""
    watched_until: int | None = None
    """Somebody looks, and sees who talks."""

    def __post_init__(self) -> None:
        self.ends_at = self.ends_at or self.created_at + CAP_S * 1000
        self._see(self.members.values())

    # What is derived.

    @property
    def bridge_id(self) -> str:
        return self.conference_id

    @property
    def mixed(self) -> list[Member]:
        return [m for m in self.members.values() if m.state == "mixed"]

    @property
    def staying(self) -> int:
        """How many are in or about to be in, those on their way out not counted."""
        return sum(m.state != "leaving" for m in self.members.values())

    @property
    def full(self) -> bool:
        # One on his way out is a member until he is out: never are there more, nor do the callbacks tell of more.
        return len(self.members) >= self.max_members

    @property
    def done(self) -> bool:
        """Ended means: "recording stopped, bridge destroyed, name free"; what was recorded is others' to keep."""
        recorded = self.recording is None or self.recording.handed_on
        return self.ending and not self.members and self.bridge in ("none", "gone") and recorded

    @property
    def deadline(self) -> int | None:
        end = self.destroy_again_at if self.ending else self.ends_at
        if not (self._due or self.players or self.recording or self.watched_until):
            # As a rule.
            return end
        times: list[int | None] = [end, self.watched_until, *self._due.values()]
        for player in self.players.values():
            times.append(player.deadline)
        if self.recording is not None:
            times.append(self.recording.deadline)
        return min([t for t in times if t is not None], default=None)

    @property
    def _alone(self) -> bool:
        """Exactly one is present."""
        found = False
        for member in self.members.values():
            # `member.present`, asked up to three times for each event.
            if member.state != "arriving" and member.state != "leaving":
                if found:
                    return False
                found = True
        return found

    def _common(self) -> Common:
        """On what it depends what each member hears, besides himself."""
        return self.started, self.ending, self.bridge, self._alone

    # The door.

    def receive(self, event: ev.Event, now: int) -> Out:
        kind = type(event)
        if kind in OF_TALKING:
            # What the members imply does not depend on who talks.
            return self.talk(event, now)  # type: ignore[arg-type]
        if kind in OF_PLAYBACK:
            return self._of_playback(event, now)  # type: ignore[arg-type]
        if kind in OF_MEMBER:
            return self._of_member(event, now)  # type: ignore[arg-type]
        return self._receive(event, now) + self._settle(now)

    def talk(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> Out:
        member = self._by_channel.get(event.channel_id)
        if member is None:
            return []
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
        return out + self._settled_for(member, before, now)

    def _of_playback(self, event: OfPlayback, now: int) -> Out:
        before, member = self._common(), self.members.get(ids.member_of(event.playback_id) or 0)
        if member is not None:
            return member.playback(event, now) + self._settled_for(member, before, now)
        return self._announced(event.playback_id, event, now) + self._settled_for(None, before, now)

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
            case ev.RecordingStarted(_, recording_id, found) if self.recording is not None:
                if recording_id == self.recording.recording_id:
                    self.recording.sounds(self.recording.started_at if found else now)
            case ev.RecordingFinished(_, recording_id, failed) if self.recording is not None:
                if recording_id == self.recording.recording_id:
                    return self._recording_over(self.recording, failed, now)
            case ev.EffectFailed():
                return self._failed(event, now)
            case ev.TimePassed():
                return self._time(now)
        return []

    def _recording_over(self, recording: Recording, failed: bool, now: int) -> Out:
        by_itself = recording.state == "running" and self.bridge == "ready" and bool(self.members)
        recording.stopped(now, failed)
        if not by_itself:
            return []
        what = f"the recording of the conference {self.name!r} ended by itself, the conference goes on"
        text = f"{what}: is Asterisk's disk full?"
        return [ReportProblem(self.auth_id, recording.call_uuid, None, text)]

    # Joining.

    def _claim_answered(self, event: ev.NameClaimed | ev.NameRefused, now: int) -> Out:
        if self.claim != "asked":
            return []
        members = list(self.members.values())
        if isinstance(event, ev.NameRefused):
            return self._not_claimed(f"is held by {event.owner}; a conference can't span two Asterisks")
        self.claim = "held"
        if not members:
            return self._end("conference_ended", now)
        self.bridge = "creating"
        out: Out = [CreateBridge(self.bridge_id)]
        for member in members:
            out += self._admit(member, now)
        return out

    def _not_claimed(self, why: str) -> Out:
        members = list(self.members.values())
        self.claim, self.ending = "released", True
        for member in members:
            self._let_out(member)
        return [Skipped(m.call_uuid, f"the conference {self.name!r} {why}") for m in members]

    def _admit(self, member: Member, now: int) -> Out:
        element = member.element
        out: Out = [Admitted(member.call_uuid)]
        member.state, member.joined_at = "waiting", now
        self.entered += 1
        # "enter callback, also while waiting for the start"
        out += self._notify(member, "enter", now, ("ConferenceFirstMember", truth(self.entered == 1)))
        # "The first member with startConferenceOnEnter=true starts the conference for good"
        self.started = self.started or element.start_conference_on_enter
        self.stay_alone = self.stay_alone and element.stay_alone
        if element.time_limit is not None and not self.limit_given:
            # "the first member whose element gives one sets it, from his entry on"; "0: no limit of its own"
            self.limit_given = True
            if element.time_limit:
                self.ends_at = min(self.ends_at, now + element.time_limit * 1000)
        if member.muted:
            out.append(MuteChannel(member.channel_id, True))
        # "play to a started conference (decided: not while waiting)"
        member.enter_due = self.started
        # "URLs are fetched while the member joins, so that joining never waits for them"
        return out + member.ask(member.enter_sound, self.name) + member.ask(member.exit_sound, self.name)

    def _entered(self, member: Member, now: int) -> Out:
        if member.state != "adding":
            return []
        member.state = "mixed"
        if not member.been_in:
            member.been_in, member.sending = True, schedule(member.element.send_digits, now)
        return self._announce_entry(member, now)

    def _announce_entry(self, member: Member, now: int) -> Out:
        items = member.enter_sound.items
        if member.state != "mixed" or not member.enter_due or items is None:
            return []
        member.enter_due = False
        return self._announce(member, items, now)

    def _announce(self, member: Member, items: tuple[Prompt, ...], now: int) -> Out:
        """To the whole conference."""
        if not items or self.ending or self.bridge != "ready":
            return []
        self.sounds += 1
        owner = ids.for_conference(self.conference_id, self.sounds)
        self.players[owner] = player = Player(
            owner, Target("bridge", self.bridge_id), items, call_uuid=member.call_uuid
        )
        return [*player.start(now)]

    # What the members now imply.

    def _settle(self, now: int, changed: tuple[Member, ...] | None = None) -> Out:
        """`changed`: who may be another than when this was last done; None: all."""
        members = self.members.values() if changed is None else changed
        out = self._settle_members(members, now) if members else []
        if self.recording is not None:
            out += self._settle_recorded(self.recording, now)
        if self.players:
            self.players = {owner: p for owner, p in self.players.items() if not p.done}
        return out + (self._settle_end(now) if self.ending and not self.members else [])

    def _settle_members(self, members: Collection[Member], now: int) -> Out:
        out: Out = []
        alone, asks = self._alone, False
        for member in members:
            if alone or member.state != "mixed" or member.held or not member.at_rest:
                out += self._settle_member(member, alone, now)
            # As a rule nobody: who is in is listened to already.
            asks = asks or (member.state == "mixed" and (not member.detected or member.element.record))
        self._see_due(members)
        if asks and not self.ending and self.bridge == "ready":
            begins = self._settle_recording(members, now)
            out += begins
            out += self._settle_talking(self.members.values() if begins else members)
        return out

    def _settle_member(self, member: Member, alone: bool, now: int) -> Out:
        parts = member.state == "mixed" and member.held
        out = self._settle_hold(member)
        # "While no member with startConferenceOnEnter=true has come, nobody hears anybody: each member hears his own
        # waitSound"; "A lone member hears his waitSound. It stops the instant that a second member enters"
        waits = member.state == "waiting" if not self.started else alone and member.state == "mixed"
        if self.ending or member.aside.queue:
            out += member.stop_waiting()
        elif member.state == "held":
            out += member.hold(now)
        else:
            out += member.wait(self.name, now) if waits else member.stop_waiting()
        # After the other has stopped, and before he is moved: his channel plays, or is moved, one after another.
        out += member.speak_aside(now)
        if parts:
            out.append(RemoveChannel(member.channel_id, self.bridge_id))
        if member.state == "joining" and self.bridge == "ready":
            member.state = "adding"
            out.append(AddChannel(member.channel_id, self.bridge_id))
        return out

    def _settle_hold(self, member: Member) -> Out:
        """He is held outside the bridge: so neither does he hear the others, nor they him, whatever he is played."""
        if self.started and member.state == "waiting":
            member.state = "joining"
        if member.state == "mixed" and member.held:
            member.state = "parting"
            self.floor = None if self.floor == member.member_id else self.floor
        elif member.state == "joining" and member.held:
            member.state = "held"
            return [DeafenChannel(member.channel_id, False)] if member.deaf else []
        elif member.state == "held" and not member.held:
            member.state = "joining"
            return [DeafenChannel(member.channel_id, True)] if member.deaf else []
        return []

    def _settle_recording(self, members: Collection[Member], now: int) -> Out:
        # "It begins when the conference has started and a member whose record is true is in"
        # The API's recordings come and go: who enters after one asks anew.
        last = self.recording
        if last is not None and not (last.api_id and last.handed_on):
            return []
        over = last.ended_at if last is not None else None
        asks = [m for m in members if m.element.record and m.state == "mixed" and m.joined_at > (over or -1)]
        if not asks:
            return []
        member = asks[0]
        self.recording = Recording(
            member.recording_id, self.bridge_id, self.auth_id, member.call_uuid, member.element, now,
            # Also for the sake of those who still wait for their bridge.
            wideband=any(m.wideband for m in self.members.values()),
        )  # fmt: skip
        return [RecordingAsked(member.call_uuid, self.conference_id), *self.recording.start()]

    def recording_params(self, params: Params) -> None:
        """The standard ones of the call that asked. "No ConferenceMemberID, no CallUUID"."""
        if self.recording is not None:
            self.recording.params = tuple(param for param in params if param[0] != "CallUUID")

    def _settle_recorded(self, recording: Recording, now: int) -> Out:
        """What Asterisk has is handed on, with who was in and who spoke."""
        if not recording.finished or recording.handed_on:
            return []
        out: Out = []
        for member in self.members.values():
            out += self._note_stay(member, now, None)
        if recording.element.callback_url is not None and not recording.api_id:
            self.sequence += 1
        return [*out, recording.hand_on(self.conference_id, self.name, self.sequence, self.public_url)]

    def _note_stay(self, member: Member, now: int, left: int | None) -> Out:
        recording = self.recording
        if recording is None or recording.handed_on or not member.been_in:
            return []
        stay = Stayed(member.call_uuid, recording.recording_id, member.member_id, member.joined_at, left)
        return [*self.note_talk(member, now), stay]

    def note_talk(self, member: Member, end: int) -> Out:
        recording = self.recording
        if recording is None or recording.handed_on or not member.talking or member.muted:
            return []
        start = max(member.talking_at, recording.started_at)
        return [NoteTalk(recording.recording_id, member.member_id, start, end)] if end > start else []

    @property
    def _listens(self) -> bool:
        if self.recording is not None or self.watched_until is not None:
            return True
        return any(m.element.floor_event for m in self.members.values())

    def _settle_talking(self, members: Collection[Member]) -> Out:
        # Who holds the floor can be told only if all who talk are known. It costs Asterisk CPU: only when needed.
        new = [m for m in members if not m.detected and m.state == "mixed"]
        if not new or not self._listens:
            return []
        for member in new:
            member.detected = True
        return [DetectTalking(m.channel_id, FLOOR_SILENCE_MS) for m in new]

    def _looked_away(self) -> Out:
        """Nobody watches any more: talking is no longer detected for their sake."""
        self.watched_until = None
        if self._listens:
            return []
        # Who holds it is not known from here on.
        self.floor = None
        deaf = [m for m in self.members.values() if m.detected and m.state != "leaving"]
        for member in deaf:
            member.detected = member.talking = False
        return [DetectTalking(m.channel_id, None) for m in deaf]

    def _settle_end(self, now: int) -> Out:
        out: Out = []
        if self.recording is not None and self.bridge == "ready":
            out += self.recording.stop(now)
        if self.bridge in ("creating", "ready") and (self.recording is None or self.recording.finished):
            self.bridge = "destroying"
            out.append(DestroyBridge(self.bridge_id))
        return out + ([Finished(self.conference_id)] if self.done else [])

    # In the conference.

    def _pressed(self, member: Member, digit: str, now: int) -> Out:
        if not member.present:
            return []
        if digit == "*" and member.element.hangup_on_star:
            # "`*` with hangupOnStar leaves at once, whatever the patterns are"
            return self._leave(member, "star", now)
        return self._found(member, member.matcher.press(digit, now), now)

    def _found(self, member: Member, found: list[Found], now: int) -> Out:
        out: Out = []
        for part in found:
            if part.matched:
                out += self._notify(member, "digits", now, ("ConferenceDigitsMatch", part.text))
            elif member.element.relay_dtmf:
                out += self._relay(member, part.text)
        return out

    def _relay(self, member: Member, digits: str) -> Out:
        # "sent to all others": to those who hear the conference.
        if member.state != "mixed":
            return []
        hear = [m for m in self.members.values() if m.state == "mixed" and m is not member and not m.deaf]
        return [SendDigits(m.channel_id, digits) for m in hear]

    def _talks(self, member: Member, now: int) -> Out:
        member.talking_at = member.talking_at if member.talking else now
        member.talking = True
        holder = self.members.get(self.floor) if self.floor is not None else None
        # "An unmuted member who starts to talk takes it if nobody holds it or the holder is silent"
        if member.state != "mixed" or member.muted or holder is member or (holder is not None and holder.talking):
            return []
        self.floor = member.member_id
        # "One event for each taking"
        return self._notify(member, "floor", now) if member.element.floor_event else []

    def _playback(self, playback_id: str, event: ev.Event, now: int) -> Out:
        member = self.members.get(ids.member_of(playback_id) or 0)
        return member.playback(event, now) if member is not None else self._announced(playback_id, event, now)

    def _announced(self, playback_id: str, event: ev.Event, now: int) -> Out:
        player = self.players.get(playback_id.rpartition(".")[0])
        if player is None:
            return []
        out: Out = []
        if isinstance(event, ev.SoundFailed):
            out.append(ReportProblem(self.auth_id, player.call_uuid, None, event.reason))
        return [*out, *player.receive(event, now)]

    def _sounds(self, event: ev.SoundsFetched | ev.SoundsFailed, now: int) -> Out:
        member = self.members.get(ids.member_of(event.fetch_id) or 0)
        sound = member.asked(event.fetch_id) if member else None
        if member is None or sound is None:
            return []
        if isinstance(event, ev.SoundsFailed):
            member.not_fetched(sound)
            return [member.problem(f"{sound.action}: {event.reason}")]
        member.fetched(sound, event.sounds, now)
        out: Out = [member.problem(f"{sound.action}: {w}") for w in event.warnings]
        return out + self._announce_entry(member, now)

    # Leaving.

    def _leave(self, member: Member, reason: Reason, now: int) -> Out:
        if member.state == "leaving":
            # He was on his way out of the bridge and has hung up meanwhile: nothing more will be heard of him.
            member.reason = member.reason or reason
            return self._out(member, now) if reason == "hangup" else []
        out = member.fall_silent() + self._found(member, member.matcher.flush(), now)
        was, member.state, member.reason, member.sending = member.state, "leaving", reason, ()
        if was == "arriving":
            self._let_out(member)
            return [*out, Released(member.call_uuid, member.element, ())]
        if reason == "hangup" or was in ("waiting", "joining", "held"):
            return out + self._out(member, now)
        member.leaving_until = now + LEAVING_MS
        # One who was to be held is on his way out of the bridge already.
        return out if was == "parting" else [*out, RemoveChannel(member.channel_id, self.bridge_id)]

    def _left(self, member: Member, now: int) -> Out:
        if member.state == "mixed":
            # Somebody else took him out of the bridge: he goes on with his document.
            member.reason, member.state = "conference_ended", "leaving"
        elif member.state == "parting":
            # To be held, or, should he not be wanted held any more, to come back.
            member.state = "joining"
        return self._out(member, now) if member.state == "leaving" else []

    def _out(self, member: Member, now: int) -> Out:
        """In this order: out of the mix, exit callback, exitSound, what follows from his leaving, his action."""
        self._let_out(member)
        reason = member.reason or "conference_ended"
        if self.floor == member.member_id:
            self.floor = None
        out = member.fall_silent()
        out += self._note_stay(member, now, now)
        if reason != "hangup":
            out += [DetectTalking(member.channel_id, None)] if member.detected else []
            out += [MuteChannel(member.channel_id, False)] if member.muted else []
            out += [DeafenChannel(member.channel_id, False)] if member.deaf else []
        last = ("ConferenceLastMember", truth(not self.members))
        out += self._notify(member, "exit", now, last, ("ConferenceExitReason", reason))
        out += self._consequences(member, now)
        out.append(Released(member.call_uuid, member.element, self._action_params(member)))
        return out

    def _let_out(self, member: Member) -> None:
        del self.members[member.member_id], self._by_channel[member.channel_id]
        self._due.pop(member.member_id, None)

    def _consequences(self, member: Member, now: int) -> Out:
        if member.element.end_conference_on_exit:
            return self._end("host_left", now)
        if not self.members:
            # "The last one out ends it."
            return self._end("conference_ended", now)
        if not self.stay_alone and self.staying == 1:
            return self._end("left_alone", now)
        items = member.exit_sound.items
        return self._announce(member, items, now) if items and self.started and self.mixed else []

    def _action_params(self, member: Member) -> Params:
        params = (
            ("ConferenceName", self.name),
            ("ConferenceUUID", self.conference_id),
            ("ConferenceMemberID", str(member.member_id)),
        )
        if member.element.record and self.recording is not None:
            recording = self.recording
            return (*params, ("RecordUrl", recording.url(self.public_url)), ("RecordingID", recording.recording_id))
        return params

    def _end(self, reason: Reason, now: int) -> Out:
        if self.ending:
            return []
        self.ending = True
        out: Out = []
        for player in self.players.values():
            out += player.stop()
        if self.claim == "held":
            self.claim = "released"
            out.append(ReleaseName(self.auth_id, self.name, self.conference_id))
        for member in list(self.members.values()):
            out += self._leave(member, reason, now)
        return out

    # What went wrong, and time.

    def _bridge_gone(self, now: int) -> Out:
        self.bridge, self.destroy_again_at = "gone", None
        if self.recording is not None:
            self.recording.stopped(now)
        out = self._end("conference_ended", now)
        for member in list(self.members.values()):
            out += self._out(member, now)
        return out

    def _failed(self, failure: ev.EffectFailed, now: int) -> Out:
        match failure.effect:
            case CreateBridge() if self.bridge == "creating":
                trouble: Out = [m.problem(failure.reason) for m in self.members.values()]
                # It may have been made all the same, the answer lost.
                self.bridge = "destroying"
                return [*trouble, *self._end("conference_ended", now), DestroyBridge(self.bridge_id)]
            case DestroyBridge() if failure.gone or self.destroys >= DESTROYS:
                return self._bridge_gone(now)
            case DestroyBridge() if self.bridge == "destroying":
                # It must not stand there without us.
                self.destroy_again_at = now + DESTROY_AGAIN_MS
            case ClaimName() if self.claim == "asked":
                return self._not_claimed(f"can't be had: {failure.reason}")
            case AddChannel(channel_id) | RemoveChannel(channel_id):
                member = self._by_channel.get(channel_id)
                return self._not_moved(member, failure, now) if member else []
            case PlayMedia(_, playback_id):
                return self._playback(playback_id, ev.PlaybackFinished(playback_id, failed=True), now)
            case StopRecording() if self.recording is not None:
                self.recording.stopped(now)
            case StartRecording(recording_id=recording_id) if self.recording is not None:
                if recording_id != self.recording.recording_id:
                    return []
                if failure.refused:
                    self.recording.refused()
                else:
                    self.recording.doubtful = True
                text = f"the recording {recording_id} of the conference {self.name!r} did not begin: {failure.reason}"
                return [ReportProblem(self.auth_id, self.recording.call_uuid, None, text)]
        return []

    def _not_moved(self, member: Member, failure: ev.EffectFailed, now: int) -> Out:
        if member.state == "leaving" and isinstance(failure.effect, RemoveChannel):
            if not failure.gone:
                # He may be heard by the others as yet, or be out, and that news is under way: it is tried once more.
                return []
            # Without a reason he was refused: why, is still to be heard.
            return self._out(member, now) if member.reason is not None else []
        if member.state == "parting" and isinstance(failure.effect, RemoveChannel):
            member.state, member.held = "mixed", False
            return [] if failure.gone else [member.problem(f"not held: {failure.reason}")]
        if member.state == "adding" and isinstance(failure.effect, AddChannel):
            # He has hung up, or the bridge is gone, and that news is under way; or Asterisk can't, or it was done and
            # the answer was lost. So: out of the bridge, and what is heard first says why.
            member.state, member.sending, member.leaving_until = "leaving", (), now + LEAVING_MS
            trouble: Out = [] if failure.gone else [member.problem(failure.reason)]
            return [*trouble, RemoveChannel(member.channel_id, self.bridge_id)]
        return []

    def _time(self, now: int) -> Out:
        out: Out = []
        if self.destroy_again_at is not None and self.destroy_again_at <= now:
            self.destroys, self.destroy_again_at = self.destroys + 1, None
            out.append(DestroyBridge(self.bridge_id))
        for member in list(self.members.values()):
            out += self._member_time(member, now)
        for player in self.players.values():
            out += player.receive(ev.TimePassed(), now)
        if self.recording is not None:
            out += self.recording.time(now)
        if self.watched_until is not None and self.watched_until <= now:
            out += self._looked_away()
        if self.ends_at <= now:
            # "the conference ends after it"
            out += self._end("time_limit", now)
        return out

    def _member_time(self, member: Member, now: int) -> Out:
        if member.leaving_until is not None and member.leaving_until <= now:
            return [RemoveChannel(member.channel_id, self.bridge_id), *self._out(member, now)]
        out: Out = []
        if member.matcher.deadline is not None and member.matcher.deadline <= now:
            out += self._found(member, member.matcher.flush(), now)
        if member.ask_again_at is not None and member.ask_again_at <= now:
            member.ask_again_at = None
        while member.sending and member.sending[0][0] <= now:
            out += self._relay(member, member.sending[0][1])
            member.sending = member.sending[1:]
        return out + member.playback(ev.TimePassed(), now)

    def _notify(self, member: Member, action: Action, now: int, *params: tuple[str, str]) -> Out:
        element = member.element
        if element.callback_url is None:
            return []
        self.sequence += 1
        whole = (
            ("ConferenceAction", action),
            ("ConferenceName", self.name),
            ("ConferenceUUID", self.conference_id),
            ("ConferenceMemberID", str(member.member_id)),
            *params,
            ("ConferenceSequence", str(self.sequence)),
            ("Timestamp", str(now)),
        )
        return [Notify(member.call_uuid, self.conference_id, element, EVENTS[action], whole)]


def given_up(conference: Conference) -> list[Effect]:
    """What removes it from Asterisk and frees its name, whatever it is like inside."""
    out: list[Effect] = [ReleaseName(conference.auth_id, conference.name, conference.conference_id)]
    return [*out, DestroyBridge(conference.bridge_id)] if conference.bridge not in ("none", "gone") else out
