"""What each hears, and is told: after each event `_settle` brings what Asterisk does for each member (wait sound, mix,
talk detection, recording) to what the members now imply.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from ari_conf.core import ids
from ari_conf.core.bounds import MOST_QUEUED
from ari_conf.core.conference_state import ConferenceState
from ari_conf.core.effects import (
    AddChannel,
    DeafenChannel,
    DestroyBridge,
    DetectTalking,
    NoteTalk,
    Params,
    RemoveChannel,
    Target,
)
from ari_conf.core.elements import Prompt
from ari_conf.core.internal import Notify, Out, RecordingAsked, Stayed
from ari_conf.core.member import Member
from ari_conf.core.patience import again_ms
from ari_conf.core.player import Player
from ari_conf.core.recording import Recording

FLOOR_SILENCE_MS = 500
"""This much silence is the end of talking."""
Action = Literal["enter", "exit", "digits", "floor"]
EVENTS: dict[Action, str] = {
    "enter": "ConferenceEnter",
    "exit": "ConferenceExit",
    "digits": "ConferenceDigitsMatch",
    "floor": "ConferenceFloor",
}
"""By the ConferenceAction that their callbacks say."""


class Hearing(ConferenceState):
    __slots__ = ()

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
        told = Notify(member.call_uuid, self.conference_id, element, EVENTS[action], whole)
        self._owed.append(told)
        return [told]

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
        if len(self.players) - len(self.announced) >= MOST_QUEUED:
            return [member.problem(f"{MOST_QUEUED} enter and exit sounds wait already: this one is left out")]
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
            if alone or member.state != "mixed" or member.held or member.restarted or not member.at_rest:
                out += self._settle_member(member, alone, now)
            # As a rule nobody: who is in is listened to already.
            asks = asks or (member.state == "mixed" and (not member.detected or member.element.record))
        self._see_changed(members)
        if asks and not self.ending and self.bridge == "ready":
            begins = self._settle_recording(members, now)
            out += begins
            out += self._settle_talking(self.members.values() if begins else members)
        return out

    def _settle_member(self, member: Member, alone: bool, now: int) -> Out:
        parts = member.state == "mixed" and member.held and not member.reentering
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
            out.append(RemoveChannel(member.channel_id, self.bridge_id, member.member_id))
        if member.state == "joining" and self.bridge == "ready":
            member.state = "adding"
            member.additions += 1
            out.append(AddChannel(member.channel_id, self.bridge_id, member.member_id))
        return out + self._settle_stream(member)

    def _settle_stream(self, member: Member) -> Out:
        """Added to the bridge in which it is, a channel leaves it and enters it again, within 20 ms (seen on 22.10.1).
        While it plays something of its own it would do so only after that."""
        if not member.restarted or member.reentering or member.state != "mixed" or not member.at_rest:
            return []
        if member.held or self.ending or self.bridge != "ready":
            return []
        member.restarted, member.reentering = False, True
        return [AddChannel(member.channel_id, self.bridge_id, member.member_id)]

    def _settle_hold(self, member: Member) -> Out:
        """He is held outside the bridge: so neither does he hear the others, nor they him, whatever he is played."""
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
        sequence = self.sequence
        if recording.element.callback_url is not None and not recording.api_id:
            sequence += 1
        stored = recording.hand_on(self.conference_id, self.name, sequence, self.public_url)
        self._owed.append(stored)
        self.sequence, recording.handed_on = sequence, True
        return [*out, stored]

    def _note_stay(self, member: Member, now: int, left: int | None) -> Out:
        recording = self.recording
        if recording is None or recording.handed_on or not member.been_in:
            return []
        stay = Stayed(member.call_uuid, recording.recording_id, member.member_id, member.joined_at, left)
        return [*self.note_talk(member, now), stay]

    def note_talk(self, member: Member, end: int) -> Out:
        recording = self.recording
        if recording is None or recording.handed_on or not member.talking or member.silenced:
            return []
        start = max(member.talking_at, recording.started_at)
        return [NoteTalk(recording.recording_id, member.member_id, start, end)] if end > start else []

    def _detect_anew(self, member: Member) -> Out:
        """Asterisk takes who stopped without packets of silence for talking, and would not tell of the next talk."""
        if not member.detected or member.state == "leaving":
            return []
        return [DetectTalking(member.channel_id, None), DetectTalking(member.channel_id, FLOOR_SILENCE_MS)]

    def _settle_talking(self, members: Collection[Member]) -> Out:
        # Who holds the floor can be told only if all who talk are known. It costs Asterisk CPU: only when needed.
        new = [m for m in members if not m.detected and m.state == "mixed"]
        if not new or not self._listens:
            return []
        for member in new:
            member.detected = True
            self._changed[member.member_id] = member
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
            out += self._destroy(now)
        return out

    def _destroy(self, now: int) -> Out:
        """Again and again, until it is known to be gone; nobody waits for that."""
        self.bridge, self.destroy_again_at = "destroying", now + again_ms(self.destroys)
        return [DestroyBridge(self.bridge_id)]
