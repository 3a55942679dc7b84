"""What the API asks of a live conference: plain data. What each does is in `obey`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_conf.core.elements import Play, Speak

Members = tuple[int, ...] | None
"""Their ids; None: all who are in."""


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
    """Out of the conference, with music, and back into it."""

    members: Members
    on: bool
    url: str | None = None
    """Of the sound; None: the default music."""


@dataclass(frozen=True, slots=True)
class Kick:
    members: Members


@dataclass(frozen=True, slots=True)
class HangUpMembers:
    members: Members


@dataclass(frozen=True, slots=True)
class PlayToMembers:
    """To each alone, after what was queued for him before."""

    members: Members
    sound: Play | Speak


@dataclass(frozen=True, slots=True)
class StopPlaying:
    """What is played, and what is queued, of that kind."""

    members: Members
    kind: Literal["Play", "Speak"]


@dataclass(frozen=True, slots=True)
class Announce:
    """To the whole conference, in one playback."""

    sound: Play | Speak


@dataclass(frozen=True, slots=True)
class StopAnnouncing:
    pass


@dataclass(frozen=True, slots=True)
class Lock:
    """Nobody else is let in."""

    on: bool


@dataclass(frozen=True, slots=True)
class Record:
    recording_id: str
    file_format: Literal["mp3", "wav"] = "mp3"
    time_limit: int | None = None
    """Seconds. None: until it is stopped, or the conference ends."""
    callback_url: str | None = None
    callback_method: str = "POST"
    transcription_type: str | None = None
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    """None: the account's."""


@dataclass(frozen=True, slots=True)
class StopRecording:
    pass


@dataclass(frozen=True, slots=True)
class HangUpAll:
    pass


Command = (
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
