"""Media control and callbacks: after each event, `update_media` adjusts what Asterisk does for each member (wait sound,
mix, talk detection, recording) to the current state of the members.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from ari_conf.core import ids
from ari_conf.core.backoff import again_ms
from ari_conf.core.bounds import MOST_QUEUED
from ari_conf.core.conferences.member import FLOOR_SILENCE_MS, Member
from ari_conf.core.conferences.recording import Recording
from ari_conf.core.conferences.state import ConferenceState
from ari_conf.core.effects import (
    AddChannel,
    AddSpeechNote,
    DeafenChannel,
    DestroyBridge,
    DetectTalking,
    Params,
    RemoveChannel,
    Target,
)
from ari_conf.core.elements import Prompt
from ari_conf.core.messages import AttendanceNoted, CallbackRequested, Outputs, RecordingRequested
from ari_conf.core.playback.player import Player

CallbackAction = Literal["enter", "exit", "digits", "floor"]
CALLBACK_EVENT_NAMES: dict[CallbackAction, str] = {
    "enter": "ConferenceEnter",
    "exit": "ConferenceExit",
    "digits": "ConferenceDigitsMatch",
    "floor": "ConferenceFloor",
}
"""Callback event names by ConferenceAction."""


class MediaControl(ConferenceState):
    __slots__ = ()

    def _request_callback(self, member: Member, action: CallbackAction, now: int, *params: tuple[str, str]) -> Outputs:
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
        told = CallbackRequested(member.call_uuid, self.conference_id, element, CALLBACK_EVENT_NAMES[action], whole)
        self._owed.append(told)
        return [told]

    def _play_enter_sound(self, member: Member, now: int) -> Outputs:
        items = member.enter_sound.items
        if member.state != "mixed" or not member.enter_due or items is None:
            return []
        member.enter_due = False
        return self._play_to_all(member, items, now)

    def _play_to_all(self, member: Member, items: tuple[Prompt, ...], now: int) -> Outputs:
        """Play to the whole conference."""
        if not items or self.ending or self.bridge != "ready":
            return []
        if len(self.players) - len(self.announced) >= MOST_QUEUED:
            return [member.problem(f"{MOST_QUEUED} enter and exit sounds are already queued: this sound is not played")]
        self.sounds += 1
        owner = ids.for_conference(self.conference_id, self.sounds)
        self.players[owner] = player = Player(
            owner, Target("bridge", self.bridge_id), items, call_uuid=member.call_uuid
        )
        return [*player.start(now)]

    # Media state.

    def update_media(self, now: int, changed: tuple[Member, ...] | None = None) -> Outputs:
        """Update the media state. `changed`: the members that may have changed since the last update; None: all."""
        members = self.members.values() if changed is None else changed
        out = self._update_members(members, now) if members else []
        if self.recording is not None:
            out += self._hand_over_recording(self.recording, now)
        if self.players:
            self.players = {owner: p for owner, p in self.players.items() if not p.done}
        return out + (self._tear_down(now) if self.ending and not self.members else [])

    def _update_members(self, members: Collection[Member], now: int) -> Outputs:
        out: Outputs = []
        alone, asks = self._one_member_present, False
        for member in members:
            if alone or member.state != "mixed" or member.held or member.restarted or not member.is_silent:
                out += self._update_member(member, alone, now)
            # Usually false: members in the bridge already have talk detection.
            asks = asks or (member.state == "mixed" and (not member.detected or member.element.record))
        self._reindex(members)
        if asks and not self.ending and self.bridge == "ready":
            begins = self._start_recording_if_due(members, now)
            out += begins
            out += self._enable_talk_detection(self.members.values() if begins else members)
        return out

    def _update_member(self, member: Member, alone: bool, now: int) -> Outputs:
        parts = member.state == "mixed" and member.held and not member.reentering
        out = self._update_hold(member)
        # Spec: while no member with startConferenceOnEnter=true has come, no member hears another, and each hears their
        # own waitSound. A lone member hears their waitSound; it stops the instant that a second member enters.
        waits = member.state == "waiting" if not self.started else alone and member.state == "mixed"
        if self.ending or member.aside.queue:
            out += member.stop_wait_sound()
        elif member.state == "held":
            out += member.play_hold_sound(now)
        else:
            out += member.play_wait_sound(self.name, now) if waits else member.stop_wait_sound()
        # After the wait sound has been stopped and before the channel is moved: Asterisk runs playback and moves on a
        # channel sequentially.
        out += member.update_private_playback(now)
        if parts:
            out.append(RemoveChannel(member.channel_id, self.bridge_id, member.member_id))
        if member.state == "joining" and self.bridge == "ready":
            member.state = "adding"
            member.additions += 1
            out.append(AddChannel(member.channel_id, self.bridge_id, member.member_id))
        return out + self._update_stream(member)

    def _update_stream(self, member: Member) -> Outputs:
        """Let the channel re-enter the bridge after its RTP stream has restarted.

        A channel that is added to the bridge that it is in leaves and re-enters it within 20 ms (seen on Asterisk
        22.10.1). While a sound plays to the channel alone, this would happen only after the sound.
        """
        if not member.restarted or member.reentering or member.state != "mixed" or not member.is_silent:
            return []
        if member.held or self.ending or self.bridge != "ready":
            return []
        member.restarted, member.reentering = False, True
        return [AddChannel(member.channel_id, self.bridge_id, member.member_id)]

    def _update_hold(self, member: Member) -> Outputs:
        """Start or end hold as requested. A member on hold is kept outside the bridge, so that the member and the
        others cannot hear each other, whatever is played to the member."""
        if self.started and member.state == "waiting":
            member.state = "joining"
        if member.state == "mixed" and member.held and not member.reentering:
            member.state = "parting"
            self.floor = None if self.floor == member.member_id else self.floor
        elif member.state == "joining" and member.held:
            member.state = "held"
            return [DeafenChannel(member.channel_id, False)] if member.deaf else []
        elif member.state == "held" and not member.held:
            member.state = "joining"
            return [DeafenChannel(member.channel_id, True)] if member.deaf else []
        return []

    def _start_recording_if_due(self, members: Collection[Member], now: int) -> Outputs:
        # Spec: "It begins when the conference has started and a member whose record is true is in"
        # A recording of the API can be followed by another: a member who joined after its end can start one.
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
            # This includes members who are still waiting for the bridge.
            wideband=any(m.wideband for m in self.members.values()),
        )  # fmt: skip
        return [RecordingRequested(member.call_uuid, self.conference_id), *self.recording.start()]

    def recording_params(self, params: Params) -> None:
        """Set the standard parameters of the requesting call. Spec: "No ConferenceMemberID, no CallUUID"."""
        if self.recording is not None:
            self.recording.params = tuple(param for param in params if param[0] != "CallUUID")

    def _hand_over_recording(self, recording: Recording, now: int) -> Outputs:
        """Hand over a finished recording, with the members' attendance and speech."""
        if not recording.is_finished or recording.handed_on:
            return []
        out: Outputs = []
        for member in self.members.values():
            out += self._note_attendance(member, now, None)
        sequence = self.sequence
        if recording.element.callback_url is not None and not recording.api_id:
            sequence += 1
        stored = recording.hand_on(self.conference_id, self.name, sequence, self.public_url)
        self._owed.append(stored)
        self.sequence, recording.handed_on = sequence, True
        return [*out, stored]

    def _note_attendance(self, member: Member, now: int, left: int | None) -> Outputs:
        recording = self.recording
        if recording is None or recording.handed_on or not member.been_in:
            return []
        stay = AttendanceNoted(member.call_uuid, recording.recording_id, member.member_id, member.joined_at, left)
        return [*self.note_speech(member, now), stay]

    def note_speech(self, member: Member, end: int) -> Outputs:
        recording = self.recording
        if recording is None or recording.handed_on or not member.talking or member.silenced:
            return []
        start = max(member.talking_at, recording.started_at)
        return [AddSpeechNote(recording.recording_id, member.member_id, start, end)] if end > start else []

    def _detect_anew(self, member: Member) -> Outputs:
        """Restart talk detection. If a member's audio stopped without packets of silence, Asterisk still considers them
        to be talking, and would not report the next talking."""
        if not member.detected or member.state == "leaving":
            return []
        return [DetectTalking(member.channel_id, None), DetectTalking(member.channel_id, FLOOR_SILENCE_MS)]

    def _enable_talk_detection(self, members: Collection[Member]) -> Outputs:
        # The floor holder is known only if all talkers are. Detection costs Asterisk CPU: enable it only if needed.
        new = [m for m in members if not m.detected and m.state == "mixed"]
        if not new or not self._needs_talk_detection:
            return []
        for member in new:
            member.detected = True
            self._changed[member.member_id] = member
        return [DetectTalking(m.channel_id, FLOOR_SILENCE_MS) for m in new]

    def _stop_watching(self) -> Outputs:
        """Stop talk detection unless something other than viewers needs it: no viewer is left."""
        self.watched_until = None
        if self._needs_talk_detection:
            return []
        # From here on, the floor holder is unknown.
        self.floor = None
        deaf = [m for m in self.members.values() if m.detected and m.state != "leaving"]
        for member in deaf:
            member.detected = member.talking = False
        return [DetectTalking(m.channel_id, None) for m in deaf]

    def _tear_down(self, now: int) -> Outputs:
        out: Outputs = []
        if self.recording is not None and self.bridge == "ready":
            out += self.recording.stop(now)
        if self.bridge in ("creating", "ready") and (self.recording is None or self.recording.is_finished):
            out += self._destroy(now)
        return out

    def _destroy(self, now: int) -> Outputs:
        """Destroy the bridge. DestroyBridge is repeated until the bridge no longer exists; nothing waits for that."""
        self.bridge, self.destroy_again_at = "destroying", now + again_ms(self.destroys)
        return [DestroyBridge(self.bridge_id)]
