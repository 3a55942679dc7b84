"""What a conference is: the fields that are written, what follows from them, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from ari_conf.core.effects import Effect, Undone
from ari_conf.core.internal import Notify
from ari_conf.core.member import Member
from ari_conf.core.player import Player
from ari_conf.core.recording import Recording

CAP_S = 86400
"""The server's cap on a conference's length."""
Common = tuple[bool, bool, str, bool]
ANNOUNCEMENT = "announcement"
"""Stands in the ids of the API's announcements; other sounds of a conference are its members' enter and exit sounds."""


class Beside:
    """What is known of the members at a glance, so that none has to be looked for at each event. It is beside what a
    conference is: it is never written, and the simulation compares it with the members after each event."""

    __slots__ = ("_begun", "_by_channel", "_changed", "_due", "_gone", "_owed")
    _by_channel: dict[str, Member]
    _due: dict[int, int]
    """The deadlines of those who have one, by their ids."""
    _changed: dict[int, Member | None]
    """Those who may be other than when `changed` was last asked, by their ids; None: he is gone."""
    _owed: list[Effect | Notify]
    """What the step that is being made has for its receivers: should it break, they are told all the same."""
    _begun: bool
    """The step that made it was whole, so that its name was asked for."""
    _gone: list[Member]
    """Who has left in that step."""

    def _see(self, members: Collection[Member]) -> None:
        self._by_channel = {m.channel_id: m for m in members}
        self._due = {}
        self._changed = {}
        self._owed = []
        self._gone = []
        self._see_changed(members)
        # They are as they were written.
        self._changed = {}
        self._begun = False

    def step_ended(self) -> None:
        """What it has decided is done."""
        if self._owed or self._gone or not self._begun:
            self._owed, self._gone, self._begun = [], [], True

    def _see_changed(self, members: Collection[Member]) -> None:
        for member in members:
            self._changed[member.member_id] = member
            deadline = member.deadline
            if deadline is not None:
                self._due[member.member_id] = deadline
            elif self._due:
                self._due.pop(member.member_id, None)

    def changed(self) -> dict[int, Member | None]:
        """The members who may be other than when this was last asked, by their ids; None: he is gone."""
        found, self._changed = self._changed, {}
        return found


@dataclass(slots=True)
class ConferenceState(Beside):
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
    """How often Asterisk has not destroyed the bridge so far, and when it is asked again."""
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
        # What is being claimed is to be released when it is ours.
        answered = self.claim != "asked"
        return self.ending and answered and not self.members and self.bridge in ("none", "gone") and recorded

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

    def _recording(self, recording_id: str) -> Recording | None:
        """The current one, if it is that."""
        recording = self.recording
        return recording if recording is not None and recording.recording_id == recording_id else None

    @property
    def announced(self) -> list[Player]:
        """What the API plays to all."""
        return [p for owner, p in self.players.items() if f".{ANNOUNCEMENT}." in owner]

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

    @property
    def _listens(self) -> bool:
        if self.recording is not None or self.watched_until is not None:
            return True
        return any(m.element.floor_event for m in self.members.values())

    # Who is in.

    def member_of(self, channel_id: str) -> Member | None:
        return self._by_channel.get(channel_id)

    def _let_out(self, member: Member) -> None:
        del self.members[member.member_id]
        self._changed[member.member_id] = None
        self._by_channel.pop(member.channel_id, None)
        self._due.pop(member.member_id, None)
