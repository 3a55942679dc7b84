"""Ids that name their owner: of bridges, recordings, playbacks, fetches and taps.

The result of an effect, or an event about a thing in Asterisk, therefore finds the owner without a table of outstanding
requests, also after a restart. An id begins with the owner, and the owner gives the rest:

| id | owner |
|---|---|
| `c.CALL.…` | call, by its UUID |
| `m.CONFERENCE.MEMBER.…` | member, by the conference's id and the member's |
| `b.CONFERENCE.…` | whole conference |
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

BRIDGE, CHANNEL, RECORDING, TAP = "bridge", "channel", "recording", "tap"
"""Kinds of things that the rest of an id may begin with. The rest of a playback's or fetch's id does not."""
MAX_DIGITS = 18


class OwnerKind(StrEnum):
    CALL = "c"
    MEMBER = "m"
    CONFERENCE = "b"


KINDS = {kind.value: kind for kind in OwnerKind}


class OwnedId(NamedTuple):
    """Id in its parts; `str` returns its text."""

    kind: OwnerKind
    owner: str
    """UUID of the call, or id of the conference, also of a member's."""
    member_id: int | None
    rest: tuple[str, ...]

    def __str__(self) -> str:
        member = () if self.member_id is None else (str(self.member_id),)
        return ".".join((self.kind, self.owner, *member, *self.rest))

    @property
    def call_uuid(self) -> str | None:
        return self.owner if self.kind is OwnerKind.CALL else None

    @property
    def conference_id(self) -> str | None:
        return self.owner if self.kind is not OwnerKind.CALL else None


def parse(text: str) -> OwnedId | None:
    """Return the parts of an id; None if the text is no such id."""
    letter, *parts = text.split(".")
    kind = KINDS.get(letter)
    if kind is None or not parts or not parts[0]:
        return None
    if kind is not OwnerKind.MEMBER:
        return OwnedId(kind, parts[0], None, tuple(parts[1:]))
    number = parts[1] if len(parts) > 1 else ""
    if not (number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS):
        return None
    return OwnedId(kind, parts[0], int(number), tuple(parts[2:]))


def for_call(call_uuid: str, *rest: object) -> str:
    return str(OwnedId(OwnerKind.CALL, call_uuid, None, tuple(map(str, rest))))


def for_member(conference_id: str, member_id: int, *rest: object) -> str:
    return str(OwnedId(OwnerKind.MEMBER, conference_id, member_id, tuple(map(str, rest))))


def for_conference(conference_id: str, *rest: object) -> str:
    return str(OwnedId(OwnerKind.CONFERENCE, conference_id, None, tuple(map(str, rest))))


def call_of(owned_id: str) -> str | None:
    """Return the UUID of the call that the id belongs to, or None if no call owns it."""
    owned = parse(owned_id)
    return owned.call_uuid if owned is not None else None


def conference_of(owned_id: str) -> str | None:
    """Return the id of the conference that the id, or its member, belongs to; None if it is a call's."""
    owned = parse(owned_id)
    return owned.conference_id if owned is not None else None


def member_of(owned_id: str) -> int | None:
    owned = parse(owned_id)
    return owned.member_id if owned is not None else None


# Channels, bridges, recordings, taps.


def channel_id(call_uuid: str, number: int) -> str:
    """Return the id of a channel that the server requests for a call that it places, by its number in the call."""
    return for_call(call_uuid, CHANNEL, number)


def is_placed(channel_id: str) -> bool:
    """Return whether the server has requested the channel, for a call that it places."""
    match parse(channel_id):
        case OwnedId(OwnerKind.CALL, _, None, (kind, _)) if kind == CHANNEL:
            return True
    return False


def bridge_id(conference_id: str) -> str:
    """Return the id of the bridge in which the conference's members hear each other."""
    return for_conference(conference_id, BRIDGE)


def snoop_channel_id(call_uuid: str, recording_id: str, track: str) -> str:
    """Return the id of the channel that listens to a call for one track of a recording."""
    return for_call(call_uuid, RECORDING, recording_id, track)


class RecordingName(NamedTuple):
    """Name of a recording, or of a track of a call's recording, in Asterisk; `str` returns its text. Asterisk has a
    folder for each account."""

    auth_id: str
    conference_id: str
    """Empty: the recording of a call."""
    recording_id: str
    """RecordingID of the API and the callbacks."""
    call_uuid: str = ""
    track: str = ""

    def __str__(self) -> str:
        if self.call_uuid:
            return f"{self.auth_id}/{snoop_channel_id(self.call_uuid, self.recording_id, self.track)}"
        return f"{self.auth_id}/{for_conference(self.conference_id, RECORDING, self.recording_id)}"


def parse_recording_name(text: str) -> RecordingName | None:
    """Return the parts of a recording's name in Asterisk; None if the server has not made it."""
    auth_id, _, owned_id = text.rpartition("/")
    if not auth_id:
        return None
    match parse(owned_id):
        case OwnedId(OwnerKind.CONFERENCE, conference_id, None, (kind, recording_id)) if kind == RECORDING:
            return RecordingName(auth_id, conference_id, recording_id)
        case OwnedId(OwnerKind.CALL, call_uuid, None, (kind, recording_id, track)) if kind == RECORDING:
            return RecordingName(auth_id, "", recording_id, call_uuid, track)
    return None


def recording_name(source_id: str, auth_id: str, recording_id: str) -> RecordingName:
    """Return the name of the recording of a bridge or a snoop channel."""
    found = parse_recording_name(f"{auth_id}/{source_id}")
    return found or RecordingName(auth_id, conference_of(source_id) or "", recording_id)


def recording_key(source_id: str, recording_id: str) -> str:
    """Return what identifies a track: the snoop channel, which records one thing, or the recording of a bridge."""
    return recording_id if call_of(source_id) is None else source_id


def recorder_of(channel_id: str) -> tuple[str, str] | None:
    """Return (call UUID, recording id) of a channel that listens for a recording, or None if it is no such channel."""
    match parse(channel_id):
        case OwnedId(OwnerKind.CALL, call_uuid, None, (kind, recording_id, _)) if kind == RECORDING:
            return call_uuid, recording_id
    return None


class TapIds(NamedTuple):
    """Ids of what listens to a channel on behalf of a call."""

    bridge_id: str
    snoop_channel_id: str
    media_channel_id: str


def tap_ids(call_uuid: str, application: str, process: str, number: int) -> TapIds:
    """Return the ids of a call's tap. `process` and `number` make them unique, since an id is used only once."""
    name = for_call(call_uuid, TAP, application.replace(".", "%2E"), process, number)
    return TapIds(name, f"{name}.snoop", f"{name}.media")


def tap_creator(some_id: str) -> tuple[str, str] | None:
    """Return (application, process) of the server that created a tap's channel or bridge, or None if it is no tap's."""
    match parse(some_id):
        case OwnedId(OwnerKind.CALL, _, None, (kind, application, process, *_)) if kind == TAP:
            return application.replace("%2E", "."), process
    return None
