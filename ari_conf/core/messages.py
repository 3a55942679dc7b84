"""Messages between calls and conferences. The engine delivers them within the step; none of them leaves the core."""

from __future__ import annotations

from typing import get_args

from ari_conf.core.effects import ArchiveMember, Effect, Params
from ari_conf.core.elements import Conference
from ari_conf.core.frozen import Frozen


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
    | CallbackRequested
    | SoundDocumentRequested
    | RecordingRequested
    | AttendanceNoted
    | MemberDeparted
)
MESSAGE_TYPES = frozenset(get_args(Message))
Outputs = list[Effect | Message]
