"""Messages between calls and conferences. The engine delivers them within the step; none of them leaves the core."""

from __future__ import annotations

from typing import Literal, get_args

from ari_conf.core.effects import ArchiveMember, Effect, Params
from ari_conf.core.elements import Conference, Dial
from ari_conf.core.frozen import Frozen
from ari_conf.core.placing import CallOptions, CallToPlace
from ari_conf.core.queued_sound import QueuedSound


class JoinRequested(Frozen):
    """Join request of a call that has reached this element."""

    call_uuid: str
    element: Conference


class Admitted(Frozen):
    """Admission of a call to the conference: the call must be answered."""

    call_uuid: str


class JoinSkipped(Frozen):
    """Skipping of the element and its action."""

    call_uuid: str
    problem: str | None


class MemberReleased(Frozen):
    """End of a membership: the call continues, unless the caller has hung up."""

    call_uuid: str
    element: Conference
    params: Params
    """Action parameters: the conference's name and UUID, the member id, the recording.

    Empty: the member never entered.
    """


class HangupRequested(Frozen):
    """Hangup of a call by the API."""

    call_uuid: str


class DialRequested(Frozen):
    """Request for the UUIDs of the calls that the call's Dial element places."""

    call_uuid: str


class LegsPlaced(Frozen):
    """Placing of the calls of a Dial element, with how each is placed."""

    call_uuid: str
    """UUID of the call whose element it is."""
    legs: tuple[tuple[CallToPlace, CallOptions], ...]


class LegChanged(Frozen):
    """Change of a call that a Dial element has placed."""

    call_uuid: str
    """UUID of the call whose element it is."""
    leg_uuid: str
    change: Literal["ringing", "answered", "connected", "transferred", "ended"]


class LegsReleased(Frozen):
    """End of a Dial element: the calls that it has placed, and that remain, are hung up."""

    call_uuid: str
    legs: tuple[str, ...]
    element: Dial


class LegsMissed(Frozen):
    """No word of the calls that a Dial element has placed: it is to be found out which of them still exist."""

    call_uuid: str
    """UUID of the call whose element it is."""


class RaceWon(Frozen):
    """Answer, and confirmation, of the first of the calls that compete: the others are canceled."""

    rivals: tuple[str, ...]
    """UUIDs of the others; some may have ended."""


class DialMusicChanged(Frozen):
    """Begin or end of the time in which a conference hears that somebody is called into it."""

    call_uuid: str
    auth_id: str
    conference_name: str
    music: str | None
    """Tone or URL; None: the call is answered or has ended."""


class DepartureRequested(Frozen):
    """Departure of a call from its conference: it is transferred to another document, or its Dial is over."""

    call_uuid: str


class SoundRequested(Frozen):
    """Sound of the API for a call in a conference."""

    call_uuid: str
    sound: QueuedSound


class SoundStopRequested(Frozen):
    """Stop of the API's sounds of this kind for a call in a conference."""

    call_uuid: str
    kind: Literal["Play", "Speak"]


class DigitsDue(Frozen):
    """Digits that are to be sent now to the phone of a call in a conference."""

    call_uuid: str
    digits: str


class CallbackRequested(Frozen):
    """Callback of the conference; the dispatcher adds the call's standard parameters."""

    call_uuid: str
    conference_id: str
    element: Conference
    event: str
    params: Params


class SoundDocumentRequested(Frozen):
    """Request for a sound document; the dispatcher adds the call's standard parameters."""

    call_uuid: str
    fetch_id: str
    url: str
    params: Params


class RecordingRequested(Frozen):
    """Start of the recording that this call's element requested; the dispatcher adds the call's standard parameters."""

    call_uuid: str
    conference_id: str
    recording_id: str


class CallRecordingRequested(Frozen):
    """Request for the id and the URL of the recording that the call's Record element makes."""

    call_uuid: str


class AttendanceNoted(Frozen):
    """Attendance of a member in a recorded conference, in epoch ms; the dispatcher adds the call's numbers."""

    call_uuid: str
    recording_id: str
    member_id: int
    entered_ms: int
    left_ms: int | None


class MemberDeparted(Frozen):
    """Member who has left, for the history; the dispatcher adds the call's numbers."""

    member: ArchiveMember


Message = (
    JoinRequested
    | Admitted
    | JoinSkipped
    | MemberReleased
    | HangupRequested
    | DialRequested
    | LegsPlaced
    | LegChanged
    | LegsReleased
    | LegsMissed
    | RaceWon
    | DialMusicChanged
    | DepartureRequested
    | SoundRequested
    | SoundStopRequested
    | DigitsDue
    | CallbackRequested
    | SoundDocumentRequested
    | RecordingRequested
    | CallRecordingRequested
    | AttendanceNoted
    | MemberDeparted
)
MESSAGE_TYPES = frozenset(get_args(Message))
Outputs = list[Effect | Message]
