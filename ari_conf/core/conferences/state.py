"""State of a conference: the persisted fields, the values derived from them, and indexes that are not persisted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from ari_conf.core import ids
from ari_conf.core.conferences.member import Member
from ari_conf.core.conferences.recording import Recording
from ari_conf.core.effects import Effect, SwitchOffs
from ari_conf.core.messages import CallbackRequested
from ari_conf.core.playback.player import Player

MAX_CONFERENCE_S = 86400
"""Maximum seconds that a conference lasts: the server's cap."""
Common = tuple[bool, bool, str, bool]
ANNOUNCEMENT = "announcement"
"""Part of the ids of the API's announcements. A conference's other sounds are its members' enter and exit sounds."""


class MemberIndex:
    """Indexes over the members, so that no event needs a search. They are not part of the conference's state: they are
    never persisted, and the simulation compares them with the members after each event."""

    __slots__ = ("_begun", "_changed", "_deadline_by_member", "_gone", "_member_by_channel", "_owed")
    _member_by_channel: dict[str, Member]
    _deadline_by_member: dict[int, int]
    """Deadlines in epoch milliseconds, by member id; members without a deadline are left out."""
    _changed: dict[int, Member | None]
    """Members that may have changed since the last `take_changed_members`, by member id; None: the member has left."""
    _owed: list[Effect | CallbackRequested]
    """Callbacks and recording jobs of the current step. If the step fails, `give_up` sends them all the same."""
    _begun: bool
    """True once the step that created the conference is complete, so that the name claim has been requested."""
    _gone: list[Member]
    """Members that have left in the current step."""

    def _rebuild_index(self, members: Collection[Member]) -> None:
        self._member_by_channel = {m.channel_id: m for m in members}
        self._deadline_by_member = {}
        self._changed = {}
        self._owed = []
        self._gone = []
        self._reindex(members)
        # The members are as they were persisted.
        self._changed = {}
        self._begun = False

    def step_ended(self) -> None:
        """Clear what is collected for a single step."""
        if self._owed or self._gone or not self._begun:
            self._owed, self._gone, self._begun = [], [], True

    def _reindex(self, members: Collection[Member]) -> None:
        for member in members:
            self._changed[member.member_id] = member
            deadline = member.deadline
            if deadline is not None:
                self._deadline_by_member[member.member_id] = deadline
            elif self._deadline_by_member:
                self._deadline_by_member.pop(member.member_id, None)

    def take_changed_members(self) -> dict[int, Member | None]:
        """Return the members that may have changed since the last call, by member id; None: the member has left."""
        found, self._changed = self._changed, {}
        return found


@dataclass(slots=True)
class ConferenceState(MemberIndex):
    conference_id: str
    auth_id: str
    name: str
    created_at: int
    max_members: int
    """Maximum number of members. Spec: "set by the first member, fixed afterwards"."""
    public_url: str
    members: dict[int, Member] = field(default_factory=dict)
    claim: Literal["asked", "held", "released"] = "asked"
    bridge: Literal["none", "creating", "ready", "destroying", "gone"] = "none"
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
    players: dict[str, Player] = field(default_factory=dict)
    """Players of enter sounds, exit sounds and announcements, by owner id."""
    sounds: int = 0
    """Number of these sounds so far: part of their playback ids."""
    recording: Recording | None = None
    locked: bool = False
    """True if no further callers are admitted."""
    undone: SwitchOffs = ()
    """Effects that recently switched something off on the bridge; a server that takes over repeats them."""
    destroys: int = 0
    """Number of DestroyBridge requests so far that Asterisk has not confirmed in time."""
    destroy_again_at: int | None = None
    """Epoch milliseconds at which DestroyBridge is repeated."""
    watched_until: int | None = None
    """Epoch milliseconds until which viewers want to see who talks."""

    def __post_init__(self) -> None:
        self.ends_at = self.ends_at or self.created_at + MAX_CONFERENCE_S * 1000
        self._rebuild_index(self.members.values())

    # Derived values.

    @property
    def bridge_id(self) -> str:
        return ids.bridge_id(self.conference_id)

    @property
    def members_in_bridge(self) -> list[Member]:
        return [m for m in self.members.values() if m.state == "mixed"]

    @property
    def remaining_count(self) -> int:
        """Return the number of members that are in the conference or about to be, without leaving ones."""
        return sum(m.state != "leaving" for m in self.members.values())

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
        recorded = self.recording is None or self.recording.handed_on
        # A name whose claim is pending must be released once the claim is granted.
        answered = self.claim != "asked"
        return self.ending and answered and not self.members and self.bridge in ("none", "gone") and recorded

    @property
    def deadline(self) -> int | None:
        end = self.destroy_again_at if self.ending else self.ends_at
        if not (self._deadline_by_member or self.players or self.recording or self.watched_until):
            # The usual case.
            return end
        times: list[int | None] = [end, self.watched_until, *self._deadline_by_member.values()]
        for player in self.players.values():
            times.append(player.deadline)
        if self.recording is not None:
            times.append(self.recording.deadline)
        return min([t for t in times if t is not None], default=None)

    def _recording(self, recording_id: str) -> Recording | None:
        """Return the current recording if it has this id."""
        recording = self.recording
        return recording if recording is not None and recording.recording_id == recording_id else None

    @property
    def announced(self) -> list[Player]:
        """Return the players of the API's announcements."""
        return [p for owner, p in self.players.items() if f".{ANNOUNCEMENT}." in owner]

    @property
    def _one_member_present(self) -> bool:
        """Return True if exactly one member is present."""
        found = False
        for member in self.members.values():
            # `member.is_present`, inlined because this runs up to three times per event.
            if member.state != "arriving" and member.state != "leaving":
                if found:
                    return False
                found = True
        return found

    def _shared_audio_state(self) -> Common:
        """Return everything that a member's media state depends on, apart from that member."""
        return self.started, self.ending, self.bridge, self._one_member_present

    @property
    def _needs_talk_detection(self) -> bool:
        if self.recording is not None or self.watched_until is not None:
            return True
        return any(m.element.floor_event for m in self.members.values())

    # Members.

    def member_of(self, channel_id: str) -> Member | None:
        return self._member_by_channel.get(channel_id)

    def _remove_member(self, member: Member) -> None:
        del self.members[member.member_id]
        self._changed[member.member_id] = None
        self._member_by_channel.pop(member.channel_id, None)
        self._deadline_by_member.pop(member.member_id, None)
