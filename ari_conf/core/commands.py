"""Commands: requests of the API to a conference, a call or a node, as plain data, and their addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_conf.core.elements import Play, Speak

Members = tuple[int, ...] | None
"""Member ids; None: all members who are present."""


@dataclass(frozen=True, slots=True)
class Mute:
    members: Members
    on: bool


@dataclass(frozen=True, slots=True)
class Deafen:
    members: Members
    on: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold, on or off: members leave the bridge and hear music, or return to the bridge."""

    members: Members
    on: bool
    url: str | None = None
    """URL of the hold sound; None: the default music."""


@dataclass(frozen=True, slots=True)
class Kick:
    members: Members


@dataclass(frozen=True, slots=True)
class HangUpMembers:
    members: Members


@dataclass(frozen=True, slots=True)
class PlayToMembers:
    """Private playback to each member, after the sounds already queued for that member."""

    members: Members
    sound: Play | Speak


@dataclass(frozen=True, slots=True)
class StopPlaying:
    """Stop of private playback: the current sound if it is of this kind, and the queued sounds of this kind."""

    members: Members
    kind: Literal["Play", "Speak"]


@dataclass(frozen=True, slots=True)
class Announce:
    """Announcement to the whole conference, in a single playback."""

    sound: Play | Speak


@dataclass(frozen=True, slots=True)
class StopAnnouncing:
    pass


@dataclass(frozen=True, slots=True)
class Lock:
    """Lock, on or off: while it is on, no further caller is admitted."""

    on: bool


@dataclass(frozen=True, slots=True)
class Record:
    recording_id: str
    file_format: Literal["mp3", "wav"] = "mp3"
    time_limit: int | None = None
    """Seconds. None: until the recording is stopped or the conference ends."""
    callback_url: str | None = None
    callback_method: str = "POST"
    transcription_type: str | None = None
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    """None: the account's language."""


@dataclass(frozen=True, slots=True)
class StopRecording:
    pass


@dataclass(frozen=True, slots=True)
class HangUpAll:
    pass


@dataclass(frozen=True, slots=True)
class HangUpCall:
    pass


@dataclass(frozen=True, slots=True)
class WatchAccount:
    """Notice that the account's conferences have viewers, until the command expires. Each owner gets it and may get it
    twice; none replies."""

    auth_id: str


ConferenceCommand = (
    Mute
    | Deafen
    | Hold
    | Kick
    | HangUpMembers
    | PlayToMembers
    | StopPlaying
    | Announce
    | StopAnnouncing
    | Lock
    | Record
    | StopRecording
    | HangUpAll
)
"""Commands that `conferences/command_handler.py` applies."""


@dataclass(frozen=True, slots=True)
class ForConference:
    """Command to the live conference of that account and name."""

    auth_id: str
    name: str
    command: ConferenceCommand


@dataclass(frozen=True, slots=True)
class ForCall:
    """Command to a live call of that account."""

    auth_id: str
    call_uuid: str
    command: HangUpCall


@dataclass(frozen=True, slots=True)
class ForNode:
    """Command to the server that receives it."""

    command: WatchAccount


Addressed = ForConference | ForCall | ForNode
